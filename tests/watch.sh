#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# rbxj watch through the program: deaths, restarts, signals, sd_notify(3), what is left, who is in the way:
# watch.sh [RBXJ]. Whom it waits for: test_monitor.c. PARTS="killed" ROUNDS=1000 tries one of its parts for longer.
. "${0%/*}/lib.bash"

export RBXJ_DURABILITY=resource
until_true() { # each look may start programs, on a machine that has other things to do
    local end=$((SECONDS + 30))
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.02
    done
}
: >"$work/out"
: >"$work/err"
mkdir "$work/at"

# watch OPTION...: in the background; $watch. It is ready when it says so, and $work/notify has what it says.
watch() {
    : >"$work/notify"
    python3 -I -S "$top/tests/notify.py" "$work/notify" "$rbxj" watch "$@" \
        >"$work/watch.out" 2>"$work/watch.err" </dev/null &
    notifier=$!
    until_true grep -q '^READY=1' "$work/notify" || bad "watch is not ready: $(cat "$work/watch.err")"
    watch=$(sed -n 's/^PID=//p' "$work/notify")
}
# No word of the watch is waited for: its own pid, and no notifier.
bare_watch() {
    "$rbxj" watch "$@" >"$work/watch.out" 2>"$work/watch.err" </dev/null &
    watch=$!
}
# stop [SIGNAL]: its status in $status.
stop() {
    kill "-${1:-TERM}" "$watch"
    wait "$notifier"
    status=$?
}
said() { grep -q "$1" "$work/notify"; }
# The last word of it.
says() { grep '^STATUS=' "$work/notify" | tail -n 1 | grep -q "^STATUS=$1"; }
undone() { until_true gone "$@"; }
# Of a box: the record goes last.
no_box() { call list --json --box "$1" && json 'd == {"boxes": []}'; }
ended() { until_true no_box "$1"; }
still() { local path; for _ in {1..15}; do there "$@" || return 1; sleep 0.02; done; }
switches() { sed -n 's/^voluntary_ctxt_switches:[^0-9]*//p' "/proc/$1/status"; }
# Sleeps until something happens, and nothing does.
is_quiet() { local before; before=$(switches "$1"); sleep 0.3; [ "$(switches "$1")" = "$before" ]; }
kill_now() { kill -KILL "$1" && wait "$1" 2>/dev/null; [ $? = 137 ]; }
incidents() { call incidents --json; json "len(d['incidents']) == $1"; }

# ---- deaths ----

deaths() {
    rm -rf "$work/state" "$work/run"
    mkdir -m 0700 "$work/state"
    export RBXJ_STATE_DIR=$work/state RBXJ_RUNTIME_DIR=$work/run
    watch
    check "nothing was ever journaled: it makes nothing" is "$(ls -A "$work/state")$(ls -d "$work/run" 2>&1 >/dev/null | wc -l)" 1
    start live --tmpdir "$work/live"
    local live=$supervisor
    start kept --lock "$work/lock" --tmpdir "$work/tmp" --mount "tmpfs,none,$work/tmp" ${group:+--cgroup "$group/kept"}
    kill_now "$supervisor"
    check "a box on disk: undone as its supervisor is dead" undone "$work/lock" "$work/tmp" ${group:+"$group/kept"}
    start lost --tmpdir "$shm/tmp"
    kill_now "$supervisor"
    check "a volatile box, too" undone "$shm/tmp"
    check "the living are left alone" still "$work/live"
    check "it says how many it watches" until_true says '1 boxes of 1 supervisors'
    check "each death is an incident" until_true incidents 2
    kill -TERM "$live"
    wait "$live"
    check "a normal end is none" incidents 2
    call run --box normal --tmpdir "$work/normal" -- true
    check "and is not disturbed" is "$status" 0
    until_true idle
    rm -rf "${work:?}/run"
    start anew --tmpdir "$shm/anew"
    kill_now "$supervisor"
    check "a runtime directory that is made anew (K21)" undone "$shm/anew"
    stop
    check "SIGTERM: 0" is "$status" 0
    check "SIGTERM: it said that it stops" said '^STOPPING=1'
    check "without a terminal it prints nothing" is "$(cat "$work/watch.out")" ""
}

others_namespaces() {
    fresh
    watch
    unshare --pid --fork --kill-child --mount-proc "$rbxj" run --box inner --tmpdir "$work/inner" -- sleep 120 \
        2>/dev/null &
    local container=$!
    until_true there "$work/inner"
    check "another pid namespace: watched" until_true says '1 boxes of 1 supervisors$'
    kill_now "$container"
    check "another pid namespace: undone" undone "$work/inner"
    stop
}

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

# ---- at no cost ----

at_rest() {
    fresh
    watch
    local pids=() line i
    for i in {1..40}; do
        sleep 120 &
        pids+=($!)
    done
    mkdir "$shm/many"
    for i in {1..1000}; do
        line='{"op":"begin","box":"'$i'","pid":'${pids[i % 40]}',"plan":[{"kind":"tmpdir","path":"'$shm/many/$i'"}]}'
        echo "$line"
    done >"$work/requests"
    "$rbxj" hook <"$work/requests" >"$work/replies"
    check "1,000 boxes are begun" is "$(grep -c '"ok":true' "$work/replies")" 1000
    check "1,000 boxes: one descriptor for each supervisor" until_true says '1000 boxes of 40 supervisors$'
    until_true is_quiet "$watch"
    local before
    before=$(switches "$watch")
    sleep 2
    check "1,000 boxes, nothing happens: not one wake-up" is "$(switches "$watch")" "$before"
    mkdir "$shm/many/7"
    kill "${pids[7]}"
    check "one of 40 dies: its 25 boxes are replayed" until_true says '975 boxes of 39 supervisors$'
    check "and are one incident" until_true incidents 1
    kill "${pids[@]}" 2>/dev/null
    check "the others die at once: nothing is left" until_true says '0 boxes of 0 supervisors$'
    check "the others: no record" no_record
    stop INT
    check "SIGINT: 0" is "$status" 0
}

# Not enough for each supervisor: said once, and nobody is lost.
few_descriptors() {
    fresh
    local before
    before=$(ulimit -Hn)
    ulimit -n 90
    watch
    ulimit -n "$before" 2>/dev/null # root may
    local pids=() i
    for i in {1..40}; do
        sleep 120 &
        pids+=($!)
        echo '{"op":"begin","box":"'"$i"'","pid":'$!'}'
    done >"$work/requests"
    "$rbxj" hook <"$work/requests" >"$work/replies"
    check "few descriptors: begun" is "$(grep -c '"ok":true' "$work/replies")" 40
    check "few descriptors: some can't be waited for" until_true says "40 boxes of [12][0-9] supervisors, [12][0-9] of which can't be waited for"
    check "few descriptors: said once" is "$(grep -c 'not all boxes can be watched' "$work/watch.err")" 1
    kill "${pids[@]}"
    check "few descriptors: nothing is left" until_true says '0 boxes of 0 supervisors$'
    stop
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

# ---- restarts ----

restarts() {
    fresh
    watch
    start a --tmpdir "$work/a"
    local a=$supervisor
    kill -KILL "$watch"
    wait "$notifier"
    start b --tmpdir "$work/b"
    kill_now "$a"
    start c --tmpdir "$work/c"
    kill_now "$supervisor"
    check "while it is down nothing is done" still "$work/a" "$work/b" "$work/c"
    watch
    check "it starts: what died meanwhile is undone" undone "$work/a" "$work/c"
    check "it starts: what began meanwhile is left" still "$work/b"
    start d --tmpdir "$work/d"
    kill_now "$supervisor"
    check "it starts: and watched" undone "$work/d"
    stop
}

# ---- the service manager ----

notifies() {
    fresh
    WATCHDOG_USEC=200000 watch
    fed() { [ "$(grep -c '^WATCHDOG=1' "$work/notify")" -ge 3 ]; }
    check "the watchdog is fed" until_true fed
    stop
    check "READY=1 comes first, once" is "$(grep -nm 1 -v '^PID=' "$work/notify"; grep -c READY "$work/notify")" "2:READY=1
1"
}

# ---- what is left, and who is in the way ----

sit() {
    (cd "$1" && exec sleep 120) &
    sitter=$!
    until_true sits "$1"
}
sits() { [ "$(readlink "/proc/$sitter/cwd")" = "$1" ]; }
idle() { ! is_undoing; }
is_undoing() { [ -n "$(ps -o pid= --ppid "$watch")" ]; }

leftovers() {
    fresh
    printf '[replay]\nbusy_retries = 1\n' >"$work/conf"
    watch --config "$work/conf"
    start busy --mount "tmpfs,none,$work/at"
    sit "$work/at"
    local busy=$supervisor
    start refused --tmpdir "$work/refused"
    mkdir "$work/elsewhere" # what is moved there is left
    mv "$work/refused" "$work/elsewhere"
    mkdir "$work/refused"
    kill_now "$supervisor"
    kill_now "$busy"
    check "two are left, and it says so" until_true says '2 boxes of 0 supervisors; 2 boxes of dead ones are left$'
    start good --tmpdir "$work/good"
    kill_now "$supervisor"
    check "others are not kept waiting" undone "$work/good"
    until_true is_quiet "$watch"
    check "what is left is not tried again and again" eval 'call incidents --json; json "{i[\"count\"] for i in d[\"incidents\"]} == {1}"'
    kill "$sitter"
    wait "$sitter" 2>/dev/null
    stop
    check "an earlier undo that left something is no failure of the watch" is "$status" 0
    watch
    check "at its start it tries what is left" until_true says '1 boxes of 0 supervisors; 1 boxes of dead ones are left$'
    stop
    rm -rf "$work/refused" "$work/elsewhere"
}

# An undo takes its time: SIGTERM, to both of them as a service manager sends it, breaks nothing off.
signals() {
    fresh
    printf '[replay]\nbusy_retries = 6\nstop_timeout = 10min\n' >"$work/conf"
    watch --config "$work/conf" --json
    start slow --tmpdir "$work/slow" --mount "tmpfs,none,$work/at"
    sit "$work/at"
    kill_now "$supervisor"
    until_true is_undoing
    local child
    child=$(ps -o pid= --ppid "$watch")
    # shellcheck disable=SC2086
    kill -TERM $child
    kill -INT "$child" 2>/dev/null
    stop
    check "SIGTERM in an undo: 0" is "$status" 0
    check "SIGTERM in an undo: it has come to its end" eval 'call incidents --json; json "[i[\"outcome\"] for i in d[\"incidents\"]] in ([\"partial\"], [\"failure\"])"'
    check "SIGTERM in an undo: no process is left" gone "/proc/$((child))"
    cp "$work/watch.out" "$work/out"
    check "--json: a line for each replay" json 'len(d["boxes"]) == 1 and d["boxes"][0]["box"] == "slow"'
    kill "$sitter"
    wait "$sitter" 2>/dev/null
    call replay
    check "and what it left is whole" is "$status" 0
    gone "$work/slow" || bad "slow is left"
}

# An undo hangs, as the server of its file system is dead: that is broken off, and not forgotten.
asks_by_helper() {
    child=$(($(ps -o pid= --ppid "$watch")))
    [ "$child" != 0 ] && helper=$(($(ps -o pid= --ppid "$child"))) && [ "$helper" != 0 ]
}
stopped_while_it_hangs() {
    [ -c /dev/fuse ] || { echo "# skip: no /dev/fuse"; return; }
    fresh
    printf '[replay]\ntimeout = 10min\nstop_timeout = 1s\n' >"$work/conf"
    mkdir "$work/hung"
    start h --lock "$work/h.lock" --tmpdir "$work/hung/dir"
    local server child=0 helper=0 stopped=$SECONDS
    server=$(python3 -I -S "$top/tests/hung.py" "$work/hung")
    watch --config "$work/conf"
    kill_now "$supervisor"
    check "one hangs in its undo" until_true asks_by_helper
    stopped=$SECONDS
    kill -TERM "$watch"
    check "SIGTERM while an undo hangs: it ends" until_true not_lives "$watch"
    check "and does so long before the box' time is over" test $((SECONDS - stopped)) -lt 60
    wait "$notifier"
    check "with 0" is "$?" 0
    check "it says what was broken off" grep -q 'a replay of box h goes on: it is broken off' "$work/watch.err"
    check "it asked for the time that it took" said '^EXTEND_TIMEOUT_USEC=11000000$'
    check "the replay is killed" until_true not_lives "$child"
    kill -KILL "$server"
    check "its helper does nothing more when it is let go" until_true not_lives "$helper"
    until_true umount "$work/hung"
    check "the directory is there" there "$work/hung/dir"
    call list --json --box h
    check "its box is stale" json 'd["boxes"][0]["state"] == "stale" and len(d["boxes"][0]["records"]) == 3'
    watch
    check "the next watch takes it up" undone "$work/hung/dir" "$work/h.lock"
    ended h || bad "h is there"
    stop
}

# Somebody holds the reaper's lock; $reaper.
reap_nothing() {
    rm -f "$work/locked"
    python3 -I -S -c 'import fcntl, os, sys, time
f = open(sys.argv[1], "w")
fcntl.lockf(f, fcntl.LOCK_EX)
open(sys.argv[2], "w")
time.sleep(120)' "$work/run/reaper.lock" "$work/locked" &
    reaper=$!
    until_true there "$work/locked"
}
end_reaper() { kill "$reaper"; wait "$reaper" 2>/dev/null; }

another_reaper() {
    fresh
    watch
    start a --tmpdir "$work/a"
    reap_nothing
    kill_now "$supervisor"
    check "another reaper runs: nothing is done" still "$work/a"
    end_reaper
    check "it has ended: undone" undone "$work/a"
    check "that is nothing to complain of" is "$(grep -v ' event ' "$work/watch.err")" ""
    # as after a crash of its unit, which is to be restarted when the box is gone
    start s --tmpdir "$work/s"
    reap_nothing
    kill_now "$supervisor"
    call replay --wait 0.2
    check "replay --wait: another reaper that goes on: 5" is "$status" 5
    "$rbxj" replay --wait=60 >"$work/wait.out" 2>&1 &
    local waiting=$!
    check "replay --wait waits" still "$work/s" "/proc/$waiting"
    end_reaper
    wait "$waiting"
    check "replay --wait: then there is nothing left" is "$?" 0
    check "replay --wait: gone" gone "$work/s"
    # what a watch does to a reset: it is at the box before the reset is
    start r --tmpdir "$work/r"
    reap_nothing
    "$rbxj" reset --yes >"$work/reset.out" 2>&1 &
    local reset=$!
    until_true not_lives "$supervisor"
    check "a reset beside a reaper waits for it" still "$work/r"
    end_reaper
    wait "$reset"
    check "and does the whole of it" is "$?" 0
    check "and leaves nothing" gone "$work/r"
    stop
}
not_lives() { ! lives "$1"; }

a_quarantined_worker() {
    fresh
    watch
    start q --tmpdir "$work/q"
    call health --quarantine --reason test
    kill_now "$supervisor"
    check "a quarantined worker's boxes are undone" undone "$work/q"
    stop
}

damaged() {
    fresh
    watch
    start a --tmpdir "$shm/a"
    local folder a=$supervisor
    folder=$(echo "$work"/run/journal-*)
    until_true says '1 boxes of 1 supervisors'
    dd if=/dev/urandom of="$folder/data.mdb" bs=4096 seek=2 count=400 conv=notrunc status=none
    quarantined() { call health --json; is "$status" 2 && json 'd["quarantine_reason"] == "journal_corruption"'; }
    check "a journal that is damaged under it: quarantined" until_true quarantined
    kill_now "$a"
    check "damaged: nothing is undone" still "$shm/a"
    check "damaged: it stays" lives "$watch"
    until_true is_quiet "$watch"
    local before
    before=$(switches "$watch")
    sleep 1
    check "damaged: and does not try again and again" is "$(switches "$watch")" "$before"
    stop
    check "damaged: ends as ever" is "$status" 0
    rmdir "$shm/a"
    pkill_payload a
}
pkill_payload() { kill -KILL "$(cat "$work/up-$1")" 2>/dev/null; }

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

wrong() {
    fresh
    call watch something
    check "an operand: 2" is "$status" 2
    call watch --config "$work/none"
    check "no such configuration: one line" one_line
    call watch --help
    check "help" out_has SIGTERM
}

# ---- killed at random moments, with its undo or without ----

killed() {
    fresh
    local round i pids=()
    for ((round = 1; round <= ${ROUNDS:-12}; round++)); do
        bare_watch
        for i in {1..4}; do
            "$rbxj" run --box "$round.$i" --tmpdir "$work/r$round.$i" --lock "$work/l$round.$i" -- sleep 60 2>/dev/null &
            pids[i]=$!
        done
        for i in {1..4}; do
            sleep "0.0$((RANDOM % 10))"
            kill -KILL "${pids[i]}"
            [ "$((RANDOM % 3))" != 0 ] || kill -KILL $(ps -o pid= --ppid "$watch") 2>/dev/null
        done
        sleep "0.0$((RANDOM % 10))"
        kill -KILL "$watch"
        wait "${pids[@]}" "$watch" 2>/dev/null
    done
    watch
    # an empty lock file may stay (K1)
    check "killed at random: a new one leaves nothing" until_true says '0 boxes of 0 supervisors$'
    check "killed at random: no record" no_record
    check "killed at random: no directory" is "$(find "$work" -maxdepth 1 -name 'r[0-9]*.*')" ""
    check "killed at random: no lock" is "$(find "$work" -maxdepth 1 -name 'l[0-9]*.*' -size +0)" ""
    stop
} 2>/dev/null

parts="deaths others_namespaces is_the_first at_rest few_descriptors no_process_more restarts notifies leftovers signals stopped_while_it_hangs another_reaper a_quarantined_worker damaged
    nobody_reads nobody_reads_documents full_log notifies_nobody inherits wrong killed"
for part in ${PARTS:-$parts}; do
    $part
    echo "# $part: $SECONDS s"
done

finish
