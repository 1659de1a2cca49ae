#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes down what a service manager would hear of a program, a line each: notify.py FILE PROGRAM ARGUMENT...

The first line is PID= and its pid. Ends with the program, with its status.
"""
import ctypes
import os
import signal
import socket
import sys

PR_SET_PDEATHSIG = 1
prctl = ctypes.CDLL(None).prctl
prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # both end with the test
listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
address = sys.argv[1] + ".socket"
if os.path.exists(address):
    os.unlink(address)
listener.bind(address)
os.environ["NOTIFY_SOCKET"] = address
pid = os.fork()
if pid == 0:
    listener.close()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if "WATCHDOG_USEC" in os.environ:
        os.environ["WATCHDOG_PID"] = str(os.getpid())
    os.execv(sys.argv[2], sys.argv[2:])
with open(sys.argv[1], "a", buffering=1) as out:
    out.write(f"PID={pid}\n")
    listener.settimeout(0.05)
    while True:
        try:
            out.write(listener.recv(4096).decode().rstrip("\n") + "\n")
            continue
        except socket.timeout:
            pass
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            sys.exit(os.waitstatus_to_exitcode(status) & 255)
