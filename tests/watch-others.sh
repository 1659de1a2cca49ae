#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# rbxj watch beside others that let it down: who should read what it writes, who started it, and the limits that it is
# given: watch-others.sh [RBXJ]. PARTS="nobody_reads" tries one of its parts.
. "${0%/*}/watch.bash"

# ---- who should read ----

# A full pipe of which nobody reads, in $pipe.
full_pipe() {
    rm -f "$work/pipe"
    mkfifo "$work/pipe"
    exec {pipe}<>"$work/pipe"
    python3 -I -S -c 'import os
os.set_blocking(2, False)
try:
    while True: os.write(2, b"x" * 4096)
except BlockingIOError: os.set_blocking(2, True)' 2>&"$pipe"
}
# What it prints goes there: that must not stop an undo, nor the watch (K19).
nobody_reads() {
    fresh
    printf '[replay]\nbusy_retries = 1\n' >"$work/conf"
    local pipe
    full_pipe
    "$rbxj" watch --config "$work/conf" >"$work/watch.out" 2>&"$pipe" </dev/null &
    watch=$!
    start busy --mount "tmpfs,none,$work/at"
    sit "$work/at"
    kill_now "$supervisor"
    check "nobody reads: what is left is an incident all the same" until_true incidents 1
    start good --tmpdir "$work/good"
    kill_now "$supervisor"
    check "nobody reads: the next box is undone" undone "$work/good"
    check "nobody reads: and the replay ends" until_true idle
    kill "$sitter"
    wait "$sitter" 2>/dev/null
    kill -TERM "$watch"
    check "nobody reads: it ends when it is told to" until_true not_lives "$watch"
    exec {pipe}<&-
    call replay
    check "nobody reads: nothing is left" no_record
}

nobody_reads_documents() {
    fresh
    local pipe i
    full_pipe
    "$rbxj" watch --json >&"$pipe" 2>"$work/watch.err" </dev/null &
    watch=$!
    for i in 1 2; do
        start "unread$i" --tmpdir "$work/unread$i"
        kill_now "$supervisor"
        check "nobody reads the documents: box $i is undone" undone "$work/unread$i"
    done
    kill -TERM "$watch"
    until_true not_lives "$watch"
    exec {pipe}<&-
}

# The disk with its log is full: the dead are undone as soon as ever.
full_log() {
    fresh
    "$rbxj" watch --json >/dev/full 2>"$work/watch.err" </dev/null &
    watch=$!
    local i
    for i in {1..9}; do
        start "full$i" --tmpdir "$work/full$i"
        kill_now "$supervisor"
        undone "$work/full$i" || break
    done
    check "a log that can't be written: the dead are undone" is "$i" 9
    check "a log that can't be written: said" grep -q 'writing to standard output: No space left on device' "$work/watch.err"
    kill -TERM "$watch"
    until_true not_lives "$watch"
}

# A socket for sd_notify(3) of which nobody reads, and that is full: $work/socket. It is read when $work/read is there.
manager_that_sleeps() {
    rm -f "$work/socket" "$work/full" "$work/read"
    : >"$work/notify"
    python3 -I -S -c 'import os, socket, sys, time
work = sys.argv[1]
def new(): return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s = new()
s.bind(work + "/socket")
try: # each has a limit of its own, too
    while True: new().sendto(b"FILL", socket.MSG_DONTWAIT, work + "/socket")
except BlockingIOError: open(work + "/full", "w")
while not os.path.exists(work + "/read"): time.sleep(0.05)
with open(work + "/notify", "w", buffering=1) as out:
    while True: out.write(s.recv(4096).decode().rstrip("\n") + "\n")' "$work" &
    manager=$!
    until_true there "$work/full"
}
notifies_nobody() {
    fresh
    start first --tmpdir "$work/first"
    manager_that_sleeps
    NOTIFY_SOCKET=$work/socket bare_watch
    kill_now "$supervisor"
    check "a service manager that sleeps: a box is undone" undone "$work/first"
    start second --tmpdir "$work/second"
    kill_now "$supervisor"
    check "a service manager that sleeps: another one, too" undone "$work/second"
    : >"$work/read"
    check "a service manager that is awake again learns that it is ready" until_true said '^READY=1'
    kill -TERM "$watch"
    check "a service manager that sleeps: it ends" until_true not_lives "$watch"
    kill "$manager"
    wait "$manager" 2>/dev/null
}

# A supervisor that starts it while it has the lock of a box, of a descriptor that its children inherit.
inherits() {
    fresh
    (
        exec 9>"$work/i.lock"
        request='{"op":"begin","box":"i","plan":[{"kind":"lock","path":"'$work/i.lock'"}]}'
        flock -n 9
        echo "$request" | "$rbxj" hook >"$work/begun" 9<&-
        echo '{"op":"acquired","box":"i","seq":1}' | "$rbxj" hook >"$work/acquired" 9<&-
        "$rbxj" watch >"$work/watch.out" 2>"$work/watch.err" </dev/null &
        echo $! >"$work/watch"
        exec sleep 120
    ) &
    supervisor=$!
    until_true test -s "$work/watch"
    watch=$(cat "$work/watch")
    check "a supervisor starts it: its box has a lock" grep -q '"ok":true' "$work/acquired"
    kill_now "$supervisor"
    check "a supervisor that started it: the lock is nobody's" ended i
    kill -TERM "$watch"
    until_true not_lives "$watch"
}

# ---- where it runs ----

# In a container it may be the first process, which is given all that lose their parents there.
is_the_first() {
    fresh
    unshare --pid --fork --kill-child --mount-proc "$rbxj" watch 2>"$work/watch.err" </dev/null &
    local container=$!
    has_child() { watch=$(($(ps -o pid= --ppid "$container"))); [ "$watch" != 0 ]; }
    until_true has_child
    nsenter --target "$watch" --pid --mount sh -c 'sleep 0.1 & echo >"$1"' sh "$work/lost"
    until_true there "$work/lost"
    nobody_is_left() { [ -z "$(ps -o pid= --ppid "$watch")" ]; }
    check "the first process takes away whom it is given" until_true nobody_is_left
    nsenter --target "$watch" --pid --mount "$rbxj" run --box f --tmpdir "$work/f" -- sleep 120 2>/dev/null &
    until_true there "$work/f"
    local entered=$!
    kill -KILL $(ps -o pid= --ppid "$entered") "$entered" 2>/dev/null
    wait "$entered" 2>/dev/null
    check "the first process: undone" undone "$work/f"
    kill -TERM "$watch"
    wait "$container"
    check "the first process ends when it is told to" is "$?" 0
}

# No more process may be made: said once, and tried until one may.
no_process_more() {
    fresh
    crowded=$(awk '$3 == "cgroup" && $4 ~ /(^|,)pids(,|$)/ { print $2; exit }' /proc/self/mounts)
    [ -n "$crowded" ] && crowded=$crowded/rbxj-watch.${work##*.} && mkdir "$crowded" ||
        { echo "# skip: no cgroup that limits processes"; return; }
    watch
    echo "$watch" >"$crowded/cgroup.procs"
    echo 1 >"$crowded/pids.max"
    start p --tmpdir "$work/p"
    kill_now "$supervisor"
    cannot_start() { grep -q 'no replay can be started now: Resource temporarily unavailable' "$work/watch.err"; }
    check "no process can be made: said" until_true cannot_start
    check "no process can be made: its status, too" until_true says '1 boxes .*; no replay can be started'
    check "no process can be made: nothing is undone" still "$work/p"
    echo max >"$crowded/pids.max"
    check "one can be made again: undone" undone "$work/p"
    check "said once" is "$(grep -c 'no replay can be started' "$work/watch.err")" 1
    stop
    rmdir "$crowded"
}
at_end() {
    [ -z "${crowded:-}" ] || [ ! -d "$crowded" ] || xargs -r kill -KILL <"$crowded/cgroup.procs"
    [ -z "${crowded:-}" ] || [ ! -d "$crowded" ] || until_true rmdir "$crowded"
} 2>/dev/null

for part in ${PARTS:-nobody_reads nobody_reads_documents full_log notifies_nobody inherits is_the_first no_process_more}; do
    $part
    echo "# $part: $SECONDS s"
done

finish
