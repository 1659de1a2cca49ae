# SPDX-License-Identifier: LGPL-2.1-or-later
"""A virtual machine without KVM whose power can be cut: qemu, killed with SIGKILL.

The console goes to a file; commands go over a second serial port to guest/agent.sh. A machine is used in a `with`
block and is dead at its end, whatever happens; it dies with this process, too.
"""
import base64
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time

BOOT_LIMIT = 240  # seconds; on an idle machine it takes 8
CALL_LIMIT = 300
APPEND = "console=ttyS0 root=/dev/nvme0n1 rw panic=1 no_timer_check quiet loglevel=4 systemd.show_status=0 mitigations=off "


class Failed(Exception):
    """The machine, not the product, did not do what it should have, or a scenario failed."""


def copy_sparse(source, target):
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", source, target], check=True)


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Machine:
    def __init__(self, rig, disk, words="", extra=(), counted=False):
        """counted: its clock, and what it says of CPU time, is the number of instructions that it has executed, whatever else
        this machine does, and without what translating them costs."""
        self.rig, self.dir, self.disk = rig, rig.dir, disk
        self.console = os.path.join(self.dir, "console.log")
        self.control = os.path.join(self.dir, "control")
        self.words, self.extra, self.counted = words, list(extra), counted
        self.process = self.port = None
        self.buffer = b""

    def __enter__(self):
        for path in (self.console, self.control):
            if os.path.exists(path):
                os.unlink(path)
        command = [
            "qemu-system-x86_64", "-accel", f"tcg,thread={'single' if self.counted else 'multi'}", "-m", "512",
            "-smp", "1" if self.counted else "2", "-display", "none", "-monitor", "none", "-nodefaults", "-no-reboot", "-kernel", os.path.join(self.dir, "kernel/vmlinuz"),
            "-append", self.rig.append + self.words,
            "-drive", f"file={self.disk},if=none,id=root,format=raw,file.locking=off", "-device", "nvme,drive=root,serial=root",
            "-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console",
            "-chardev", f"socket,id=control,path={self.control},server=on,wait=off", "-serial", "chardev:control",
        ] + (["-icount", "shift=3"] if self.counted else []) + self.extra
        with open(os.path.join(self.dir, "qemu.log"), "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=die_with_parent)
        self.rig.boots += 1
        self.began = time.monotonic()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.port:
            self.port.close()

    def cut(self):
        """The power is gone. Its clock has whole seconds, and no real machine is back within them: what was born just now
        would be of the next boot (docs/not-guaranteed.md)."""
        self.process.kill()
        self.process.wait()
        self.rig.cuts += 1
        time.sleep(2)

    def console_text(self):
        try:
            with open(self.console, "r", encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def complain(self, what):
        with open(os.path.join(self.dir, "qemu.log"), encoding="utf-8", errors="replace") as f:
            log = f.read()
        tail = "\n".join(self.console_text().split("\n")[-40:])
        raise Failed(f"{what}; the console's end:\n{tail}\n{log}")

    def alive(self, what):
        if self.process.poll() is not None:
            self.complain(f"qemu ended ({self.process.returncode}) while waiting for {what}")

    def wait_console(self, text, limit=BOOT_LIMIT):
        end = time.monotonic() + limit
        while text not in self.console_text():
            self.alive(text)
            if time.monotonic() > end:
                self.complain(f"'{text}' did not appear within {limit} s")
            time.sleep(0.02)

    def line(self, limit):
        end = time.monotonic() + limit
        while b"\n" not in self.buffer:
            self.alive("an answer")
            left = end - time.monotonic()
            if left <= 0:
                self.complain(f"no answer within {limit} s")
            if not self.port:
                try:
                    port = socket.socket(socket.AF_UNIX)
                    port.connect(self.control)
                    self.port = port
                except OSError:
                    port.close()
                    time.sleep(0.05)
                    continue
            self.port.settimeout(min(left, 1))
            try:
                part = self.port.recv(65536)
            except socket.timeout:
                continue
            if not part:
                self.complain("the control port was closed")
            self.buffer += part
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode().strip()

    def ready(self):
        """Waits until the agent is there."""
        while self.line(BOOT_LIMIT) != "ready":
            pass

    def multi_user(self):
        """Waits until the machine is up."""
        self.ready()
        status, out = self.call("""for i in $(seq 600); do
            ! systemctl -q is-active multi-user.target || exit 0; sleep 0.1; done; systemctl list-jobs; exit 1""")
        if status:
            self.complain(f"multi-user.target was not reached: {out}")

    def call(self, script, limit=CALL_LIMIT):
        """Status and output of a script."""
        self.port.sendall(base64.b64encode(script.encode()) + b"\n")
        status, _, text = self.line(limit).partition(" ")
        return int(status), base64.b64decode(text).decode("utf-8", "surrogateescape")

    def output(self, script, limit=CALL_LIMIT):
        status, out = self.call(script, limit)
        if status:
            self.complain(f"'{script}' failed ({status}): {out}")
        return out

    def power_off(self):
        self.port.sendall(base64.b64encode(b"systemctl --no-block poweroff") + b"\n")
        try:
            self.process.wait(BOOT_LIMIT)
        except subprocess.TimeoutExpired:
            self.complain("it does not power off")


class Rig:
    """What all machines of a run share."""

    def __init__(self, directory):
        self.dir = os.path.abspath(directory)
        self.boots = self.cuts = self.in_replay = 0
        self.append = APPEND

    def fresh_disk(self):
        disk = os.path.join(self.dir, "disk.img")
        copy_sparse(os.path.join(self.dir, "root.img"), disk)
        return disk

    def missing(self):
        """What of the programs is not there."""
        return [p for p in ("qemu-system-x86_64", "mmdebstrap", "mke2fs") if not shutil.which(p)]
