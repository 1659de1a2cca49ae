#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# How long after SIGKILL of its supervisor is a box undone by a running `rbxj watch`, over what a replay says that the
# same box took it, and how often does the watch wake while nothing happens? watch.sh [LIVE-BOXES [ROUNDS]]
# Both by turns in the same run. Ends with 1 if the median is more than 50 ms over the replay's.
set -eu

live=${1:-1000} rounds=${2:-20}
here=$(cd "$(dirname "$0")/.." && pwd)
rbxj=$(realpath "${RBXJ:-${RBXJ_BUILD:-$here/build}/rbxj}")
[ "$(id -u)" = 0 ] || { echo "needs root"; exit 0; }
if [ -z "${RBXJ_BENCH_INSIDE:-}" ]; then
    RBXJ_BENCH_INSIDE=1 exec unshare --mount --propagation private "$0" "$@"
fi
hierarchy=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
[ -n "$hierarchy" ] || { echo "needs cgroup2"; exit 0; }
work=$(mktemp -d "${TMPDIR:-/var/tmp}/rbxj-bench.XXXXXX")
run=$(mktemp -d /dev/shm/rbxj-bench.XXXXXX) # a tmpfs, as /run is
group=$hierarchy/rbxj-bench.$$
clean() {
    set +e
    jobs -p | xargs -r kill
    wait
    "$rbxj" --quiet replay
    rmdir "$group"
    rm -rf "$work" "$run"
} 2>/dev/null
trap clean EXIT
trap 'exit 1' HUP INT TERM
mkdir "$group" "$work/many"
mkdir -m 0700 "$work/state"
export RBXJ_STATE_DIR=$work/state RBXJ_RUNTIME_DIR=$run RBXJ_DURABILITY=${RBXJ_DURABILITY:-resource}

pids=()
for ((i = 0; i < 100; i++)); do
    sleep 3600 &
    pids+=($!)
done
for ((i = 0; i < live; i++)); do
    echo '{"op":"begin","box":"live'$i'","pid":'${pids[i % 100]}',"plan":[{"kind":"lock","path":"'"$run/$i.lock"'"},{"kind":"tmpdir","path":"'"$run/$i.tmp"'"}]}'
done | "$rbxj" hook >/dev/null

python3 -I -S - "$rbxj" "$work" "$group" "$rounds" "$live" <<'END'
import json, os, subprocess, sys, time

rbxj, work, group, rounds, live = sys.argv[1:4] + [int(x) for x in sys.argv[4:]]
lock = work + "/lock"


def wait(done):
    while not done():
        time.sleep(0.0002)


def supervisor():
    up = work + "/up"
    if os.path.exists(up):
        os.unlink(up)
    command = [rbxj, "run", "--box", "b", "--lock", lock, "--cgroup", group + "/b", "--mount",
               "tmpfs,x," + work + "/mnt,size=1m", "--tmpdir", work + "/tmp", "--", "sh", "-c", "touch " + up + "; exec sleep 60"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait(lambda: os.path.exists(up))
    time.sleep(0.05)
    return process


def by_replay():
    process = supervisor()
    process.kill()
    process.wait()
    report = subprocess.run([rbxj, "--json", "replay"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(report.stdout)["duration_s"]


def by_watch(pid):
    process = supervisor()
    start = time.monotonic()
    process.kill()
    wait(lambda: not os.path.lexists(lock))
    taken = time.monotonic() - start
    process.wait()
    wait(lambda: not os.path.exists(f"/proc/{pid}/task/{pid}/children") or
         not open(f"/proc/{pid}/task/{pid}/children").read())
    return taken


def start_watch():
    process = subprocess.Popen([rbxj, "--quiet", "watch"])
    time.sleep(0.5)
    return process


def switches(pid):
    return [line for line in open(f"/proc/{pid}/status") if line.startswith("voluntary")]


def median(times):
    return sorted(times)[len(times) // 2] * 1000


replays, watches = [], []
for _ in range(rounds):
    replays.append(by_replay())
    watch = start_watch()
    watches.append(by_watch(watch.pid))
    watch.terminate()
    watch.wait()
watch = start_watch()
for _ in range(20):  # its start may take its time
    before = switches(watch.pid)
    time.sleep(3)
    quiet = switches(watch.pid) == before
    if quiet:
        break
watch.terminate()
over = median(watches) - median(replays)
print(f"beside {live} live boxes, {rounds} rounds: replay {median(replays):.1f} ms (most {max(replays) * 1000:.1f}), "
      f"SIGKILL to the end of the undo {median(watches):.1f} ms (most {max(watches) * 1000:.1f}): {over:.1f} ms over it")
print("wake-ups in 3 s in which nothing happened: " + ("none" if quiet else "some"))
sys.exit(over > 50 or not quiet)
END
