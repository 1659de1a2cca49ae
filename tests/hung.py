#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mounts a file system that says hello and then answers nothing, as one whose server is dead: hung.py DIRECTORY

Returns when it is mounted; its server stays, and its pid is printed. When that is killed, who waits is let go.
"""
import ctypes
import os
import struct
import sys

FUSE_INIT = 26

libc = ctypes.CDLL(None, use_errno=True)
fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
if libc.mount(b"hung", os.fsencode(sys.argv[1]), b"fuse", ctypes.c_ulong(0), options) != 0:
    sys.exit(f"{sys.argv[1]}: {os.strerror(ctypes.get_errno())}")
pid = os.fork()
if pid:
    print(pid)
    sys.exit(0)
os.setsid()
null = os.open("/dev/null", os.O_RDWR)
for fd in range(3):
    os.dup2(null, fd)
while True:
    request = os.read(fuse, 1 << 17)
    _, opcode, unique = struct.unpack_from("=IIQ", request)
    if opcode == FUSE_INIT:  # all else is taken, so that its caller can't even be killed
        os.write(fuse, struct.pack("=IiQIIIIHHI40x", 80, 0, unique, 7, 31, 0, 0, 0, 0, 4096))
