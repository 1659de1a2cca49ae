# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What hook.py and hook_lines.py stand on: hooks, and supervisors of their own processes that talk to one.
import json, os, signal, subprocess, sys, time, traceback

RBXJ, WORK, SHM, GROUP = sys.argv[1:5]
MIB = 1 << 20
counts = {True: 0, False: 0}


def check(name, good, *shown):
    counts[bool(good)] += 1
    print("ok" if good else "not ok", sum(counts.values()), name)
    if not good:
        print("  at line", traceback.extract_stack()[-2].lineno, *(repr(s)[:600] for s in shown))


def fresh():
    """An empty journal and an empty directory for things."""
    for name in "state", "run", "w":
        subprocess.run(["rm", "-rf", f"{WORK}/{name}"], check=True)
        os.mkdir(f"{WORK}/{name}", 0o700)
    os.environ.update(RBXJ_STATE_DIR=f"{WORK}/state", RBXJ_RUNTIME_DIR=f"{WORK}/run")


def at(name):
    return f"{WORK}/w/{name}"


def program(*args):
    p = subprocess.run([RBXJ, *args, "--json"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    return p.returncode, json.loads(p.stdout)


def boxes():
    return {b["box"]: b for b in program("list")[1]["boxes"]}


def replay():
    return program("replay")


def line(op, box, **more):
    return json.dumps({"op": op, "box": box, **more}).encode() + b"\n"


class Hook:
    def __init__(self, **how):
        how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **how}
        self.p = subprocess.Popen([RBXJ, "hook"], bufsize=0, stderr=open(f"{WORK}/err", "wb"), **how)
        self.out = self.p.stdout and open(self.p.stdout.fileno(), "rb", closefd=False)

    def raw(self, data):
        self.p.stdin.write(data)

    def reply(self):
        got = self.out.readline()
        assert got.endswith(b"\n"), got
        return json.loads(got)

    def ask(self, op, box, **more):
        self.raw(line(op, box, **more))
        return self.reply()

    def end(self):
        self.p.stdin.close()
        rest = self.out.read()
        return self.p.wait(), rest


def talk(data, **how):
    """What a hook answers to all of that and an end of input: (status, replies)."""
    p = subprocess.run([RBXJ, "hook"], input=data, capture_output=True, timeout=60, **how)
    return p.returncode, [json.loads(r) for r in p.stdout.splitlines()]


def code(reply):
    return reply["ok"] or reply["error"]["code"]


class Supervisor:
    """A process of its own that runs act(), says so, and stays until it is killed, or the tests are."""

    def __init__(self, act):
        ours, theirs = os.pipe()
        life, self.life = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(ours)
            os.close(self.life)
            try:
                os.write(theirs, json.dumps(act()).encode() + b"\n")
                os.read(life, 1)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        os.close(theirs)
        os.close(life)
        said = open(ours, "rb").readline()
        self.said = json.loads(said) if said else None

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.life)


def sleeper():
    return subprocess.Popen(["sleep", "60"]).pid


def mounted(path):
    return any(l.split(" ")[1] == path for l in open("/proc/self/mounts"))


def lives(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False


def run(*tests):
    for test in tests:
        before = time.monotonic()
        try:
            test()
        except Exception:
            check(f"{test.__name__} came to its end", False, traceback.format_exc())
            print(traceback.format_exc())
        print(f"# {test.__name__}: {time.monotonic() - before:.1f} s")
    print(f"1..{sum(counts.values())}")
    sys.exit(1 if counts[False] else 0)
