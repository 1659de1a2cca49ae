#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# How much slower than the bare system calls is a replay of N stale boxes? replay.sh [N [ROUNDS]]
# Both in the same run, by turns; and how often mountinfo is read, which must not depend on N.
# Ends with 1 if the replay takes more than twice the bare system calls.
set -eu

boxes=${1:-1000} rounds=${2:-3}
here=$(cd "$(dirname "$0")/.." && pwd)
build=$(realpath "${RBXJ_BUILD:-$here/build}")
rbxj=$(realpath "${RBXJ:-$build/rbxj}")
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
    echo 1 >"$group/cgroup.kill"
    for _ in {1..50}; do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
        [ -d "$group" ] || break
        sleep 0.1
    done
    awk -v at="$work/" 'index($2, at) == 1 { print $2 }' /proc/self/mounts | xargs -r umount -l
    rm -rf "$work" "$run"
}
trap clean EXIT
trap 'exit 1' HUP INT TERM
mkdir "$group" "$work/w"
mkdir -m 0700 "$work/state"
export RBXJ_STATE_DIR=$work/state RBXJ_RUNTIME_DIR=$run RBXJ_DURABILITY=${RBXJ_DURABILITY:-resource}

${CC:-cc} -std=gnu11 -D_GNU_SOURCE -O2 -I"$here/include" -o "$work/bench" "$here/bench/replay.c" \
    -L"$build" -lrbxj -Wl,-rpath,"$build"

# make_stale N: a journal with so many stale boxes.
make_stale() {
    "$work/bench" stale "$1" "$work/w" "$group" 2>&1 || [ $? = 137 ]
} 2>/dev/null
forget_targets() { rmdir "$work"/w/*.mnt; }
now() { date +%s.%N; }

best_bare=999 best_replay=999
for ((round = 1; round <= rounds; round++)); do
    bare=$("$work/bench" bare "$boxes" "$work/w" "$group")
    make_stale "$boxes"
    sync
    start=$(now)
    "$rbxj" --quiet replay --json >"$work/out"
    end=$(now)
    forget_targets
    [ -z "$(ls -A "$work/w")" ] || { echo "something is left"; exit 1; }
    replay=$(awk -v a="$start" -v b="$end" 'BEGIN { printf "%.4f", b - a }')
    echo "round $round: $boxes boxes: bare system calls $bare s, replay $replay s"
    best_bare=$(printf '%s\n%s\n' "$best_bare" "$bare" | sort -g | head -n 1)
    best_replay=$(printf '%s\n%s\n' "$best_replay" "$replay" | sort -g | head -n 1)
done

if command -v strace >/dev/null; then
    for n in 10 100; do
        make_stale "$n"
        strace -f -o "$work/trace" -e trace=openat,open "$rbxj" --quiet replay >"$work/out"
        forget_targets
        echo "mountinfo: opened $(grep -c mountinfo "$work/trace") times for $n boxes"
    done
fi
ratio=$(awk -v a="$best_replay" -v b="$best_bare" 'BEGIN { printf "%.2f", a / b }')
echo "best of $rounds: bare $best_bare s, replay $best_replay s: ratio $ratio"
awk -v r="$ratio" 'BEGIN { exit !(r <= 2) }'
