#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A supervisor without librbxj, through `rbxj hook`: it takes its resources itself, and tells the hook.

    supervisor.py BOX BASE_DIR CGROUP_PARENT CMD [ARG...]

Kill it at any moment, with SIGKILL: `rbxj replay` puts everything back as it was.
"""
import ctypes
import fcntl
import json
import os
import subprocess
import sys


class Failed(Exception):
    pass


class Hook:
    """`rbxj hook`: a line of JSON in, a line of JSON back."""

    def __init__(self):
        self.child = subprocess.Popen([os.environ.get("RBXJ", "rbxj"), "hook"],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, op, box, **fields):
        """The reply, when the request is as durable as promised. Go on only when this returned."""
        try:
            line = json.dumps({"op": op, "box": box, **fields}) + "\n"
            self.child.stdin.write(line.encode())
            self.child.stdin.flush()
        except BrokenPipeError:
            pass
        reply = self.child.stdout.readline()
        if not reply.endswith(b"\n"):
            raise Failed(f"{op}: the hook has died")  # take nothing more; a replay cleans up
        reply = json.loads(reply)
        if not reply["ok"]:
            raise Failed(f"{op}: {reply['error']['code']}: {reply['error']['message']}")
        return reply


libc = ctypes.CDLL(None, use_errno=True)


def mount(source, target, fstype, options):
    if libc.mount(source.encode(), os.fsencode(target), fstype.encode(), ctypes.c_ulong(0), options.encode()) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), target)


def take_lock(path, box, stamp):
    """Locks the file, and writes who we are into it. Python's descriptors are close-on-exec: no child gets
    this one, else it would hold the lock beyond our death."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if not os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False)):
        raise Failed(f"{path}: was replaced while it was taken")
    # With the stamp in front it is known as ours, also when we die before "acquired".
    text = json.dumps({"rbxj": stamp, "pid": os.getpid(), "box_id": box}).encode()
    os.pwrite(fd, text, 0)
    os.ftruncate(fd, len(text))
    return fd


def run(hook, box, cgroup, command):
    """Runs the command inside the cgroup; its exit status."""
    # A process has no pid before it exists. So it is made waiting: the shell becomes the command when it reads
    # a line, and exits at end of file, that is when we die.
    child = subprocess.Popen(["sh", "-c", 'read -r go && exec "$@" </dev/null', "sh", *command],
                             stdin=subprocess.PIPE)
    hook.ask("intend", box, resource={"kind": "process", "pid": child.pid})
    with open(f"{cgroup}/cgroup.procs", "w") as procs:
        procs.write(str(child.pid))
    child.stdin.write(b"go\n")
    child.stdin.close()
    status = child.wait()
    return 128 - status if status < 0 else status


def supervise(hook, box, base, parent, command):
    lock, cgroup, tmpdir = f"{base}/{box}.lock", f"{parent}/{box}", f"{base}/{box}"
    root = f"{tmpdir}/root"

    # First the whole plan, in the order of acquisition. When this is answered the journal has it.
    begun = hook.ask("begin", box, pid=os.getpid(), plan=[
        {"kind": "lock", "path": lock},
        {"kind": "cgroup", "path": cgroup},
        {"kind": "tmpdir", "path": tmpdir},
        {"kind": "mount", "target": root, "fstype": "tmpfs", "source": "box"},
    ])
    lock_seq, cgroup_seq, tmpdir_seq, mount_seq = begun["seq"]

    try:
        # Then each: take it, say "acquired", and only then put anything into it.
        lock_fd = take_lock(lock, box, f"{begun['incarnation']}:{lock_seq}")
        hook.ask("acquired", box, seq=lock_seq)
        os.mkdir(cgroup)
        hook.ask("acquired", box, seq=cgroup_seq)
        os.mkdir(tmpdir, 0o700)
        hook.ask("acquired", box, seq=tmpdir_seq)
        os.mkdir(root)
        mount(begun["sources"][mount_seq - 1], root, "tmpfs", "size=16m")  # a source by which it is known as ours
        hook.ask("acquired", box, seq=mount_seq)
        status = run(hook, box, cgroup, command)
    except (Failed, OSError) as error:
        print(f"supervisor: {error}", file=sys.stderr)
        status = 1

    # Whatever has failed: what was taken is given back, newest first, and the box ends when nothing is left.
    hook.ask("undo", box)
    hook.ask("end", box)
    return status


def main():
    if len(sys.argv) < 5:
        sys.exit(f"usage: {sys.argv[0]} BOX BASE_DIR CGROUP_PARENT CMD [ARG...]")
    try:
        sys.exit(supervise(Hook(), *sys.argv[1:4], sys.argv[4:]))
    except (Failed, OSError) as error:
        sys.exit(f"supervisor: {error}; rbxj list shows what is left")


if __name__ == "__main__":
    main()
