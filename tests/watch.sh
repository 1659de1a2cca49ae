#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# rbxj watch through the program: deaths, restarts, signals, sd_notify(3), what is left, who is in the way:
# watch.sh [RBXJ]. Whom it waits for: test_monitor.c. PARTS="killed" ROUNDS=1000 tries one of its parts for longer.
. "${0%/*}/watch.bash"

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

parts="deaths others_namespaces at_rest few_descriptors restarts notifies leftovers signals stopped_while_it_hangs another_reaper a_quarantined_worker damaged
    wrong killed"
for part in ${PARTS:-$parts}; do
    $part
    echo "# $part: $SECONDS s"
done

finish
