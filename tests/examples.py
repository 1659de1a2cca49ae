# SPDX-License-Identifier: LGPL-2.1-or-later
"""Supervisors killed at random moments: examples.py BASE CGROUP_PARENT RBXJ SUPERVISOR... (for examples.sh)

Whether a replay has left anything is judged by what the system shows: mountinfo, the directories, /proc.
"""
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

base, group, rbxj, *supervisors = sys.argv[1:]
kills = int(os.environ.get("RBXJ_TEST_KILLS", "50"))
seed = int(os.environ.get("RBXJ_TEST_SEED", random.randrange(1 << 32)))
rand = random.Random(seed)
AT_ONCE = 6
BYSTANDER = "bystander"
TAG = f"RBXJ_EXAMPLE={base}"  # in the environment of everything that a supervisor starts
# In the mount, and one process that stays in the cgroup when the command has come to its end.
COMMAND = ["sh", "-c", 'echo x >"$1/root/file"; sleep 300 & sleep 0.03', "sh"]

count = 1  # of tests, after that of examples.sh


def report(good, name, problem=None):
    global count
    count += 1
    print(f"{'ok' if good else 'not ok'} {count} {name}")
    if problem:
        print(f"  {problem} (seed {seed})")
    sys.stdout.flush()


def start(supervisor, box, command):
    environment = {**os.environ, "RBXJ": rbxj, **dict([TAG.split("=", 1)])}
    with open(f"{base}/../stderr.{box}", "w") as errors:
        return subprocess.Popen([supervisor, box, base, group, *command], env=environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=errors)


def read(path, mode="r"):
    try:
        with open(path, mode) as file:
            return file.read()
    except OSError:
        return "" if mode == "r" else b""


def tagged():
    """Living processes of all supervisors but the bystander's: pid to name."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if TAG.encode() in read(f"/proc/{pid}/environ", "rb").split(b"\0"):
            stat = read(f"/proc/{pid}/stat")
            if stat and stat.rpartition(")")[2].split()[0] not in "ZX" and int(pid) not in bystanders:
                found[int(pid)] = read(f"/proc/{pid}/comm").strip()
    return found


def children(pid, name):
    for child in read(f"/proc/{pid}/task/{pid}/children").split():
        if read(f"/proc/{child}/comm").strip() == name:
            return int(child)
    return None


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, TypeError):
        pass


def boxes():
    out = subprocess.run([rbxj, "list", "--json"], stdout=subprocess.PIPE, check=True).stdout
    return {b["box"]: b for b in json.loads(out)["boxes"]}


def until(condition):
    """Whether that came to be within 30 s."""
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def what_is_left():
    """None, or what is there of any box but the bystander; or what is not there of that. A hook is still there until it
    has seen the end of its input, and may be at its last request until then."""
    until(lambda: not tagged())
    own = {BYSTANDER, f"{BYSTANDER}.lock"}
    for name in set(os.listdir(base)) - own:
        path = f"{base}/{name}"
        # one that was made and not written yet is nobody's: it is left, and a later box takes it as it is (K1)
        if not name.endswith(".lock") or os.path.getsize(path):
            return f"{path} is there"
        os.unlink(path)
    for name in os.listdir(group):
        if os.path.isdir(f"{group}/{name}") and name != BYSTANDER:
            return f"cgroup {name} is there"
    mounts = {line.split()[4] for line in read("/proc/self/mountinfo").splitlines()}
    if {m for m in mounts if m.startswith(f"{base}/")} != {f"{base}/{BYSTANDER}/root"}:
        return f"mounts: {mounts}"
    if tagged():
        return f"processes: {tagged()}"
    listed = boxes()
    if set(listed) != {BYSTANDER} or len(listed[BYSTANDER]["records"]) != 5:
        return f"list: {listed}"
    if not own <= set(os.listdir(base)) or not os.path.exists(f"{base}/{BYSTANDER}/root/file") or \
            not set(read(f"{group}/{BYSTANDER}/cgroup.procs").split()) >= {str(p) for p in bystanders[-1:]}:
        return "the bystander is hurt"
    return None


def replay():
    """Until nothing is left; how often. A hook that is still at its work may have a box (K11)."""
    attempt, deadline = 0, time.monotonic() + 30
    while time.monotonic() < deadline:
        attempt += 1
        done = subprocess.run([rbxj, "replay"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if done.returncode == 0:
            return attempt
        if done.returncode != 1:
            break
        time.sleep(0.05)
    raise RuntimeError(f"replay: {done.returncode}: {done.stderr.decode()}")


def run_and_kill(supervisor, box, delay, how):
    """delay: from the start if negative, else from its lock. how: the supervisor alone; its hook before it, or after
    it; or the hook lives on."""
    process = start(supervisor, box, [*COMMAND, f"{base}/{box}"])
    if delay >= 0:
        wait_for_lock(process, box)
    time.sleep(abs(delay))
    hook = children(process.pid, "rbxj")
    kept = None
    if how == "hook first":
        kill(hook)
        time.sleep(rand.uniform(0, 0.01))
    elif how == "hook lives" and hook:
        try:
            kept = os.open(f"/proc/{hook}/fd/0", os.O_WRONLY)  # so it sees no end of file
        except OSError:
            pass
    kill(process.pid)
    if how == "hook later":
        kill(hook)
    process.wait()
    # A shell's children finish what they have begun: see supervisor.sh.
    if supervisor.endswith(".sh"):
        until(lambda: not set(tagged().values()) - {"sleep", "sh", "rbxj", "python3", "supervisor", "supervisor.py"})
    return kept


def wait_for_lock(process, box):
    """It has begun; or it has come to its end."""
    while not os.path.exists(f"{base}/{box}.lock") and process.poll() is None:
        time.sleep(0.001)


def measure(supervisor):
    """Runs it whole, many at once; how long it takes to the lock, and from there."""
    started = time.monotonic()
    running = [(start(supervisor, f"w{i}", [*COMMAND, f"{base}/w{i}"]), f"w{i}") for i in range(AT_ONCE)]
    wait_for_lock(*running[-1])
    begun = time.monotonic()
    failures = [f"{process.returncode} {read(f'{base}/../stderr.{box}')}" for process, box in running
                if process.wait() or read(f"{base}/../stderr.{box}")]
    ended = time.monotonic()
    left = what_is_left()
    name = os.path.basename(supervisor)
    report(not failures and not left, f"{name}: {AT_ONCE} run whole in {ended - started:.3f} s: nothing is left",
           failures or left)
    return begun - started, ended - begun


def kill_batch(batch, spread):
    kept = [None] * len(batch)

    def one(i, supervisor, delay, how):
        kept[i] = run_and_kill(supervisor, f"b{i}", delay, how)

    threads = [threading.Thread(target=one, args=(i, *item)) for i, item in enumerate(batch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = boxes()
    for i, (supervisor, _, _) in enumerate(batch):
        n = len(found[f"b{i}"]["records"]) if f"b{i}" in found else None
        spread[supervisor][n] = spread[supervisor].get(n, 0) + 1
    attempts = replay()
    for fd in kept:
        if fd is not None:
            os.close(fd)
    return attempts


bystanders = []
keeper = start(supervisors[0], BYSTANDER,
               ["sh", "-c", 'echo x >"$1/root/file"; exec sleep 600', "sh", f"{base}/{BYSTANDER}"])
while not os.path.exists(f"{base}/{BYSTANDER}/root/file"):
    time.sleep(0.01)
    if keeper.poll() is not None:
        sys.exit(f"the bystander: {read(f'{base}/../stderr.{BYSTANDER}')}")
bystanders = [keeper.pid, int(read(f"{group}/{BYSTANDER}/cgroup.procs").split()[0])]

print(f"# seed {seed}")
times = {s: measure(s) for s in supervisors}
hows = ["alone", "hook first", "hook later", "hook lives"]
# a fifth of them before it has begun
plan = [(s, rand.uniform(-times[s][0], 0) if i % 5 == 0 else rand.uniform(0, times[s][1] * 0.6), rand.choice(hows if i % 2 else hows[:1]))
        for s in supervisors for i in range(kills)]
rand.shuffle(plan)
spread = {s: {} for s in supervisors}
problem, again = None, 0
started = time.monotonic()
for first in range(0, len(plan), AT_ONCE):
    batch = plan[first:first + AT_ONCE]
    try:
        again += kill_batch(batch, spread) > 1
        problem = what_is_left()
    except (RuntimeError, subprocess.CalledProcessError) as error:
        problem = str(error)
    if problem:
        problem += f", after {batch}"
        break
taken = time.monotonic() - started
for supervisor, states in spread.items():
    n = sum(states.values())
    midway = n - states.get(None, 0)
    texts = [f"{states[k]} with {'no box' if k is None else f'{k} records'}" for k in sorted(states, key=str)]
    print(f"# {os.path.basename(supervisor)}: {', '.join(texts)}")
    report(not problem and n == kills and midway * 10 > n,
           f"{os.path.basename(supervisor)}: killed at {n} moments, in {midway} of them with a box: nothing is left",
           problem)
print(f"# {len(plan)} kills in {taken:.1f} s; {again} batches took more than one replay")
kill(keeper.pid)
keeper.wait()
sys.exit(replay() != 1 or bool(problem))
