#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Processes that outlive their box: which of them are orphans, and which are not: orphans.sh [RBXJ]
. "${0%/*}/lib.bash"

health() { call health --json "$@"; }
healthy() { is "$status" 0 && json 'd["status"] == "healthy" and d["orphan_processes"] == 0'; }
quarantined() { is "$status" 2 && json 'd["quarantine_reason"] == "orphan_process_detected" and d["can_accept_submissions"] is False'; }
named() { json '[e for e in d["evidence"] if e["kind"] == "'"$1"'" and "pid '"$2"' " in e["message"]]'; }
snap() { find "$work/state" "$work/run" -printf '%p %s %T@\n' | sort; }
comes() { until_true [ -s "$1" ]; }
dies() { kill -KILL "$1" && until_true gone "/proc/$1/cwd"; }
metric() { call metrics && out_has "$1"; }
counted() { metric "rustbox_orphan_processes_detected_total $1" && out_has "rustbox_containment_violations_total $2"; }
[ -n "$group" ] || { echo "needs cgroup2"; exit 77; }

# What a box leaves whose payload has let a process out of its cgroup: "middle" is in it, "out" a child of that and not.
cat >"$work/payload" <<'S'
exec 3>&- # $1 the cgroup outside, $2 where the pids go
sh -c '
    sh -c "echo \$\$ >$1/cgroup.procs; echo \$\$ >$2/out; exec sleep 300" &
    echo $$ >$2/middle
    wait' sh "$1" "$2" >/dev/null 2>&1 </dev/null &
wait
S
escape() {
    rm -f "$work/out.pid" "$work/middle" "$work/out.d"/*
    mkdir -p "$work/out.d"
    "$rbxj" run --box "$1" --tmpdir "$work/tmp$1" --cgroup "$group/$1" -- sh "$work/payload" "$group" "$work/out.d" \
        >"$work/run.out" 2>"$work/run.err" </dev/null &
    supervisor=$!
    comes "$work/out.d/out" && comes "$work/out.d/middle" || return 1
    out=$(cat "$work/out.d/out") middle=$(cat "$work/out.d/middle")
}
die() { kill -KILL "$supervisor"; wait "$supervisor" 2>/dev/null; }
in_group() { grep -qx "$2" "$1/cgroup.procs"; }

# ---- a process that left the cgroup of its box ----

fresh
escape 1
check "out of the cgroup" in_group "$group" "$out"
check "and its parent is in it" in_group "$group/1" "$middle"
health
check "its supervisor lives: no orphan" healthy
die
health
check "its supervisor is dead: an orphan" named orphan_process "$out"
check "but what is in the cgroup is none: a replay kills it" json 'd["orphan_processes"] == 1'
before=$(snap)
health --check
check "--check: unhealthy" is "$status" 1
check "--check writes nothing" is "$(snap)" "$before"
call replay --dry-run
check "nor does a dry run" is "$(snap)" "$before"
call replay --json
check "a replay undoes the box" json 'd["summary"]["boxes"] == 1 and d["summary"]["left"] == 0'
check "and kills no orphan" lives "$out"
check "but what is in the cgroup" gone "/proc/$middle/cwd"
check "an event tells of it" err_has "event orphan_detected: box 1: pid $out ("
check "counted" counted 1 1
health
check "any orphan quarantines" quarantined
check "it is remembered, though its box is over" named orphan_process "$out"
check "the detail names it" json '"box 1: pid '"$out"' (sleep" in d["quarantine_detail"] and d["stale_boxes"] == 0'
health --verify-clean
check "with it nobody is clean" json 'd["clean"] is False and d["processes"] == 1'
health --recover
check "as long as it lives it stays" quarantined
check "counted once" counted 1 1
dies "$out"
health
check "it is dead: a look releases nothing" json 'd["status"] == "quarantined" and d["orphan_processes"] == 0'
health --recover
check "a recovery does" healthy
health --verify-clean
check "and it is counted no more" json 'd["processes"] == 0'
call replay
check "and it is forgotten" gone "$work/run/orphans"

# A replay that is killed when it has killed what is in the cgroup: what proved the orphan is gone.
fresh
escape killed
die
strace -f -o "$work/trace" -e trace=unlinkat -e inject=unlinkat:signal=KILL:when=1 "$rbxj" replay >"$work/out" 2>"$work/err"
check "killed before it has told of it" grep -q '+++ killed by SIGKILL' "$work/trace"
check "... and nobody is quarantined yet" gone "$work/state/quarantine"
call replay
check "the next replay tells of it" err_has "event orphan_detected: box killed: pid $out ("
health
check "... and quarantines" quarantined
check "... and counts it" counted 1 1
call replay
check "told once" is "$(grep -c orphan_detected "$work/err")" 0
check "... and counted once" counted 1 1
dies "$out"
health --recover
check "... until it is dead" healthy

# What can't be the list of them is doubt, and no replay leaves it so.
fresh
escape big
die
truncate -s 20M "$work/run/orphans"
call replay
check "a list that is too long: a replay says so" err_has "processes that outlive their box: which were found before: File too large"
health
check "... and writes down what it has found" named orphan_process "$out"
check "... in its place" json '[e for e in d["evidence"] if "/orphans" in e["message"]] == []'
dies "$out"

fresh
escape 2
die
health --recover
check "a recovery undoes, and finds it by itself" quarantined
check "nothing else is left" gone "$work/tmp2" "$group/2"
health --unquarantine --reason "looked at it"
check "released by hand: it still is not healthy" json 'd["status"] == "unhealthy" and d["orphan_processes"] == 1'
health --recover
check "and the next recovery sees it again" quarantined
dies "$out"
health --recover
check "until it is dead" healthy

# ---- a recorded process has forked, and has no cgroup (K6) ----

fresh
sleep 300 &
supervisor=$!
sh -c 'sleep 300 & echo $! >"$1"; wait' sh "$work/child" &
recorded=$!
rm -f "$work/child.d"
comes "$work/child"
child=$(cat "$work/child")
printf '{"op":"begin","box":"3","pid":%d,"plan":[]}\n{"op":"intend","box":"3","resource":{"kind":"process","pid":%d}}\n{"op":"acquired","box":"3","seq":1}\n' \
    $supervisor $recorded | "$rbxj" hook >"$work/out" 2>"$work/err"
health
check "a living box' process may fork" healthy
die
health
check "a dead box': its child is an orphan, itself is recorded" json 'd["orphan_processes"] == 1'
start 31 --cgroup "$group/31"
keeper=$supervisor
echo "$child" >"$group/31/cgroup.procs"
health
check "who is in a living box' cgroup is its own" json 'd["orphan_processes"] == 0 and d["live_boxes"] == 1'
echo "$child" >"$group/cgroup.procs"
kill -TERM "$keeper"
wait "$keeper" 2>/dev/null
health
check "that one" named orphan_process "$child"
health --recover
check "a recovery kills the one, and tells of the other" quarantined
check "... which lives" lives "$child"
check "... and the recorded one does not" until_true gone "/proc/$recorded/cwd"
wait "$recorded" 2>/dev/null
dies "$child"
health --recover
check "no more of it" healthy

# one below the other, 300 deep: each is one, and each is asked for once
fresh
rm -f "$work/root" "$work/deep"
sleep 300 &
supervisor=$!
python3 -c 'import os, sys, time
if (root := os.fork()) == 0:
    for i in range(300):
        if os.fork():
            time.sleep(300)
    open(sys.argv[2], "w").write("deep")
    time.sleep(300)
open(sys.argv[1], "w").write(str(root))
time.sleep(300)' "$work/root" "$work/deep" &
top_of_all=$!
until_true [ -s "$work/root" ]
for _ in {1..3}; do until_true [ -s "$work/deep" ] && break; done
printf '{"op":"begin","box":"deep","pid":%d,"plan":[]}\n{"op":"intend","box":"deep","resource":{"kind":"process","pid":%d}}\n{"op":"acquired","box":"deep","seq":1}\n' \
    $supervisor "$(cat "$work/root")" | "$rbxj" hook >"$work/out" 2>"$work/err"
die
health
check "all that descend from a dead box' process are orphans" json 'd["orphan_processes"] == 300'
ps -e -o pid=,args= | awk '/os.for[k]\(\)/ { print $1 }' | xargs -r kill -KILL # of this script's own process table
wait "$top_of_all" 2>/dev/null
health --recover
check "no more of them" healthy

# ---- our mark, and no record ----

fresh
start 4 --cgroup "$group/4" --tmpdir "$work/tmp4"
keeper=$supervisor
escape 5
die
seq=$(call list --json --box 5; python3 -c 'import json,sys
print([r["seq"] for b in json.load(open(sys.argv[1]))["boxes"] for r in b["records"] if r["kind"] == "cgroup"][0])' "$work/out")
call forget --box 5 --seq "$seq" --reason "lost"
health
check "a cgroup of ours that no record names: who is in it is an orphan" named orphan_process "$middle"
check "... unhealthy" is "$status" 1
check "... and none of a living box" json 'd["orphan_processes"] == 2 and d["live_boxes"] == 1'
check "... nor the recorded process, whose child it is" named orphan_process "$out"
call replay
health --recover
check "... quarantined" quarantined
dies "$middle"
dies "$out"
health --recover
check "... until it is dead" healthy
# a supervisor of another state directory lives: its payload has an owner
RBXJ_STATE_DIR=$work/state2 RBXJ_RUNTIME_DIR=$work/run2
mkdir -m 0700 "$work/state2" "$work/run2"
rm -f "$work/daemon"
start other --cgroup "$group/other"
other=$supervisor
sh -c 'echo $$ >"$1/cgroup.procs"; setsid sleep 120 & echo $! >"$2"' sh "$group/other" "$work/daemon" # a child of init by now
RBXJ_STATE_DIR=$work/state RBXJ_RUNTIME_DIR=$work/run
check "a daemon in it" in_group "$group/other" "$(cat "$work/daemon")"
health
check "a box of another journal is nobody's orphan" healthy
# another rbxj within a living box, or a payload that plays one
mkdir "$group/4/nested"
python3 -c 'import os, sys; os.setxattr(sys.argv[1], "trusted.rbxj", b"4711:1")' "$group/4/nested"
rm "$work/daemon"
sh -c 'echo $$ >"$1/cgroup.procs"; exec setsid sh -c "echo \$\$ >$2; exec sleep 120" &' sh "$group/4/nested" "$work/daemon.new"
comes "$work/daemon.new"
daemon=$(cat "$work/daemon.new")
check "a daemon in a cgroup below a living box'" until_true in_group "$group/4/nested" "$daemon"
check "... a child of init" until_true is "$(awk '{ print $4 }' "/proc/$daemon/stat")" 1
health
check "what is in a box' cgroup is that box', whatever mark is below it" healthy
kill -TERM "$other" "$keeper"
wait "$other" "$keeper" 2>/dev/null
rm -r "$work/state2" "$work/run2"

# ---- no orphans ----

# A supervisor that lives was started by a process of a box that is dead: what it has started has an owner.
fresh
sleep 300 &
supervisor=$!
sh -c 'echo $$ >"$1"; "$2" run --box inner --tmpdir "$3" -- sh -c "echo \$\$ >$4; sleep 300; :" & wait' sh \
    "$work/outer.pid" "$rbxj" "$work/inner" "$work/payload.pid" 2>/dev/null &
outer=$!
comes "$work/payload.pid"
printf '{"op":"begin","box":"8","pid":%d,"plan":[]}\n{"op":"intend","box":"8","resource":{"kind":"process","pid":%d}}\n{"op":"acquired","box":"8","seq":1}\n' \
    $supervisor $outer | "$rbxj" hook >"$work/out" 2>"$work/err"
die
health
check "a living supervisor in a dead box: it and its own are no orphans" json 'd["stale_boxes"] == 1 and d["live_boxes"] == 1
    and d["orphan_processes"] == 0'
kill -TERM $(pgrep -P $outer)
kill -KILL $outer
wait $outer 2>/dev/null
until_true gone "$work/inner"
health --recover
check "and when all of it is over: healthy" healthy

# A supervisor whose box is alive, with a daemon that it double-forks on purpose, a helper, and a zombie of its own.
fresh
cat >"$work/supervisor.py" <<'P'
import json, os, subprocess, sys, time
work, rbxj, group = sys.argv[1:]
if os.fork() == 0:  # the daemon
    os.setsid()
    if os.fork() == 0:
        open(work + "/daemon.new", "w").write(str(os.getpid()))
        os.rename(work + "/daemon.new", work + "/daemon")
        os.execvp("sleep", ["sleep", "300"])
    os._exit(0)
os.wait()
helper = subprocess.Popen(["sleep", "300"])
zombie = os.fork()
if zombie == 0:
    os._exit(0)
hook = subprocess.Popen([rbxj, "hook"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def ask(**request):
    hook.stdin.write(json.dumps(request).encode() + b"\n")
    hook.stdin.flush()
    assert json.loads(hook.stdout.readline())["ok"]
ask(op="begin", box="6", pid=os.getpid(), plan=[{"kind": "cgroup", "path": group + "/6"}])
os.mkdir(group + "/6")
ask(op="acquired", box="6", seq=1)
payload = subprocess.Popen(["sh", "-c", "echo $$ >" + group + "/6/cgroup.procs; exec sleep 300"])
open(work + "/up", "w").write("%d %d %d" % (zombie, helper.pid, payload.pid))
time.sleep(300)
P
rm -f "$work/up"
python3 "$work/supervisor.py" "$work" "$rbxj" "$group" &
supervisor=$!
until_true [ -s "$work/up" ]
until_true in_group "$group/6" "$(cut -d' ' -f3 "$work/up")"
zombie=$(cut -d' ' -f1 "$work/up")
comes "$work/daemon"
health
check "a supervisor's daemon, helper and payload: healthy" healthy
check "a zombie is told with its parent" json '[e["message"] for e in d["evidence"] if e["kind"] == "zombie_process"
    and e["message"].startswith("box 6: pid '"$zombie"' (") and "child of pid '"$supervisor"' (python3" in e["message"]]'
check "and makes nobody ill" json 'd["zombie_processes"] == 1'
check "its metric" metric 'rbxj_processes{state="zombie"} 1'
die
call replay
health
check "a daemon on purpose is no orphan, nor is a helper" healthy
kill -KILL "$(cat "$work/daemon")" "$(cut -d' ' -f2 "$work/up")"

# Of the box nothing lives but one in its cgroup, whose parent was the recorded process.
fresh
escape 11
payload=$(($(ps -o ppid= -p "$middle")))
die
dies "$payload"
call replay --json
check "one in a cgroup alone has lived: the box is undone" json 'd["summary"]["left"] == 0'
health
check "and what has left that cgroup is an orphan" named orphan_process "$out"
dies "$out"

# Nobody descends from the dead: where nothing of a box lives, nobody else is looked at, of whom there may be thousands.
fresh
sleep 300 &
other=$!
looks_at_others() {
    strace -f -o "$work/trace" "$rbxj" --quiet replay >"$work/out" 2>"$work/err"
    is "$?" 0 && grep -q "\"$other/stat\"" "$work/trace"
}
crash 8 --cgroup "$group/8" --tmpdir "$work/tmp8" 2>/dev/null
check "while one of a dead box lives, a replay looks at all others" looks_at_others
check "and undoes the box" gone "$work/tmp8" "$group/8"
crash 9 --cgroup "$group/9" --tmpdir "$work/tmp9" 2>/dev/null
dies "$(cat "$work/up-9")"
is_empty() { ! grep -q . "$group/9/cgroup.procs"; }
until_true is_empty
looks_at_nobody() { ! looks_at_others; }
check "when none does, it looks at nobody" looks_at_nobody
check "and undoes the box all the same" gone "$work/tmp9" "$group/9"
kill -KILL "$other"

# A busy worker: boxes of a few milliseconds, with payloads that leave dead children behind.
fresh
: >"$work/busy"
for worker in 1 2; do
    while [ -e "$work/busy" ]; do
        "$rbxj" run --cgroup "$group/busy$worker" --tmpdir "$work/busy$worker" -- sh -c 'sleep 0.01 & (exit 0) & true'
    done >/dev/null 2>"$work/busy.err" &
done
busy_and_healthy() {
    local i
    for i in {1..15}; do
        health --recover
        healthy || return 1
    done
}
check "a busy worker is healthy at each look" busy_and_healthy
rm "$work/busy"
wait
check "and at its end" health
metric_none() { metric 'rustbox_worker_quarantined_total{reason="orphan_process_detected"} 0'; }
check "it was never quarantined" metric_none

finish
