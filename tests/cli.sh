#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The program from outside, as its users and their scripts see it: cli.sh [RBXJ]
# On the real kernel, in a private mount namespace, a scratch directory and a cgroup of its own.
. "${0%/*}/lib.bash"

at_end() {
    [ -z "${PYTHON_PID:-}" ] || eval "exec ${PYTHON[1]}>&-"
    [ ! -s "$work/payload" ] || kill_payload
}

# call ARG...: runs the program; its status in $status, what it wrote in out and err.
call() {
    "$rbxj" "$@" >"$work/out" 2>"$work/err" </dev/null
    status=$?
}

# One Python for the whole run, because starting one may take longer than a test: a line with an expression of d, the
# document in out, is answered by a line with its value. Whatever is not one JSON document is no value.
coproc PYTHON { python3 -I -S -u -c 'import json, sys
for line in sys.stdin:
    try:
        d = json.load(open(sys.argv[1], "rb"))
        print(eval(line))
    except Exception as e:
        print("error:", repr(e))' "$work/out" 2>&1; }
json_value() {
    local value
    tr '\n' ' ' <<<"$1" >&"${PYTHON[1]}"
    echo >&"${PYTHON[1]}"
    read -r value <&"${PYTHON[0]}"
    echo "$value"
}
json() { is "$(json_value "bool($1)")" True; }

out_empty() { [ ! -s "$work/out" ]; }
err_empty() { [ ! -s "$work/err" ]; }
err_is_one_line() { [ "$(wc -l <"$work/err")" = 1 ] && grep -q '^rbxj: ' "$work/err"; }
no_record() { call list --json && [ "$status" = 0 ] && json 'd == {"boxes": []}'; }
fresh_state() {
    rm -rf "$work/state" "$work/run"
    mkdir -m 0700 "$work/state" "$work/run"
}

usage() {
    local want=$1
    shift
    call "$@"
    check "usage: ${*:-nothing}" is "$status" 2
    check "usage: ${*:-nothing}: one line" err_is_one_line
    check "usage: ${*:-nothing}: says what is right" err_has "$want"
    check "usage: ${*:-nothing}: nothing on standard output" out_empty
}

# start BOX OPTION... -- : a supervisor in the background, whose payload is one process that stays; $supervisor, and the
# payload's pid in the file payload.
start() {
    rm -f "$work/payload"
    # shellcheck disable=SC2016
    "$rbxj" run --box "$@" sh -c 'echo $$ >"$1.new"; mv "$1.new" "$1"; exec sleep 60' sh "$work/payload" \
        >"$work/run.out" 2>"$work/run.err" </dev/null &
    supervisor=$!
    for _ in {1..100}; do
        [ ! -s "$work/payload" ] || return 0
        sleep 0.05
    done
    echo "  the payload did not start"
    sed 's/^/  err: /' "$work/run.err"
    return 1
}
crash() {
    kill -KILL "$supervisor"
    wait "$supervisor" 2>/dev/null
}
# A zombie that nobody has reaped is dead.
payload_lives() { grep -qE '^State:.[^ZX]' "/proc/$(cat "$work/payload")/status" 2>/dev/null; }
payload_is_dead() { ! payload_lives; }
kill_payload() {
    payload_lives || return 0
    kill -KILL "$(cat "$work/payload")"
    until_true payload_is_dead
}

# ---- words ----

unset RBXJ_STATE_DIR RBXJ_RUNTIME_DIR NO_COLOR POSIXLY_CORRECT
export RBXJ_DURABILITY=resource RBXJ_STATE_DIR="$work/state" RBXJ_RUNTIME_DIR="$work/run"

words() {
    local command
    for command in "" run list replay forget hook health incidents metrics; do
        # shellcheck disable=SC2086
        call $command --help
        check "help: ${command:-rbxj}" is "$status" 0
        check "help: ${command:-rbxj}: on standard output" out_has "Usage: rbxj"
        check "help: ${command:-rbxj}: nothing else" err_empty
        # shellcheck disable=SC2086
        call $command --version
        check "version: ${command:-rbxj}" grep -qx 'rbxj [0-9.]*' "$work/out"
    done
    usage "run, list, replay, forget"
    usage "run, list, replay, forget" lst
    usage "--state-dir" --nonsense list
    usage "--dry-run" replay --dryrun
    usage "--box=ID" list -x
    usage "takes no value" list --json=yes
    usage "needs its ID" replay --plan
    usage "takes options only" list extra
    usage "last-resort" replay --lazy-umount=always
    usage "seconds" replay --timeout=soon
    usage "seconds" replay --timeout=-1
    usage "not '0x10'" replay --timeout=0x10
    usage "not ' 5'" replay --timeout=" 5"
    usage "not '1e7'" replay --timeout=1e7
    usage "not '1e-9'" replay --wait=1e-9
    usage "not 'nan'" replay --wait=nan
    usage "not '99'" replay --plan=99
    usage "not '0123456789abcdeg'" replay --plan=0123456789abcdeg
    usage "--state-dir needs its DIR, which is empty" --state-dir= list
    usage "--runtime-dir needs its DIR, which is empty" list --runtime-dir ""
    usage "--config needs its FILE, which is empty" replay --config ""
    usage "--box needs its ID, which is empty" replay --box ""
    usage "--box is given twice, now with '8'" list --box 7 --box 8
    usage "--service is given twice, now with 'b'" reset --yes --service a --service b
    usage "box a/b: is no name of a box" forget --box a/b --seq 1 --reason because
    usage "--reason TEXT" replay --assume-dead --box 7
    usage "--assume-dead" replay --reason because
    usage "exclude each other" replay --dry-run --plan=00
    usage "--seq N" forget --box 7 --reason because
    usage "from 1 up" forget --box 7 --seq 0 --reason because
    usage "from 1 up" forget --box 7 --seq 99999999999 --reason because
    call $'l\e[31m\nst'
    check "usage: a hostile word is escaped" err_has 'l\x1b[31m\x0ast'
    "$rbxj" list --help >/dev/full 2>"$work/err"
    check "a full standard output is an error" is "$?" 6
    "$rbxj" health --help >/dev/full 2>"$work/err"
    check "a full standard output: a monitoring plugin does not know" is "$?" 3
    "$rbxj" run --help >/dev/full 2>"$work/err"
    check "a full standard output: run has failed before CMD" is "$?" 125
}

# ---- nothing there ----

nothing_yet() {
    rm -rf "$work/state" "$work/run"
    call list
    check "no state: list" is "$status" 0
    check "no state: list says nothing" out_empty
    check "no state: list has no errors" err_empty
    call --json list
    check "no state: list, JSON" json 'd == {"boxes": []}'
    call replay
    check "no state: replay" is "$status" 0
    call replay --json
    check "no state: replay, JSON" json 'd["boxes"] == [] and d["summary"] == {"boxes": 0, "live": 0, "undone": 0,
        "already_gone": 0, "refused": 0, "failed": 0, "left": 0} and d["version"] == 1 and d["dry_run"] is False'
    call replay --dry-run -J
    check "no state: dry run, JSON" json 'd["dry_run"] is True and d["boxes"] == []'
    check "no state: nothing was created" gone "$work/state" "$work/run"
    call run --box 1 true
    check "no state: run makes none as root (K33)" is "$status" 125
    check "no state: run says so" err_is_one_line
    check "no state: run created nothing" gone "$work/state" "$work/run"
}

# ---- run ----

ends_with() {
    local want=$1
    shift
    call run --box 7 --lock "$work/lock" --tmpdir "$work/tmp" --mount "tmpfs,x,$work/mnt,size=1m" -- "$@"
    check "run $*: status" is "$status" "$want"
    check "run $*: nothing is left" gone "$work/lock" "$work/tmp" "$work/mnt"
    check "run $*: nothing on standard output" out_empty
    check "run $*: no record" no_record
}

run_statuses() {
    fresh_state
    ends_with 0 true
    ends_with 3 sh -c 'exit 3'
    # shellcheck disable=SC2016
    ends_with 137 sh -c 'kill -KILL $$'
    ends_with 127 "$work/no-such-program"
    ends_with 126 /etc/passwd

    mkdir "$work/tmp"
    call run --box 7 --lock "$work/lock" --tmpdir "$work/tmp" -- touch "$work/ran"
    check "run, tmpdir is there: 125" is "$status" 125
    check "run, tmpdir is there: one line" err_is_one_line
    check "run, tmpdir is there: CMD did not run, the lock is undone" gone "$work/ran" "$work/lock"
    check "run, tmpdir is there: it stays" test -d "$work/tmp"
    check "run, tmpdir is there: no record" no_record
    rmdir "$work/tmp"

    call run --box 7 --mount "nosuchfs,x,$work/mnt" -- touch "$work/ran"
    check "run, mount fails: 125" is "$status" 125
    check "run, mount fails: nothing is left" gone "$work/ran" "$work/mnt"
    check "run, mount fails: no record" no_record
    call run --box .bad true
    check "run, bad name: 125" is "$status" 125
    call run --box 7
    check "run, no CMD: 125" is "$status" 125
    call run --mount tmpfs,x true
    check "run, half a mount: 125" is "$status" 125
    check "run, half a mount: says what is right" err_has "FSTYPE,SOURCE,TARGET"
    call run --json true
    check "run has no JSON: 125" is "$status" 125
    call run true
    check "run, no name: 0" is "$status" 0
}

run_leaves_something() {
    local code
    for code in 0 3; do
        fresh_state
        # shellcheck disable=SC2016
        call run --box 7 --lock "$work/lock" --tmpdir "$work/tmp" -- \
            sh -c 'rmdir "$1"; mkdir "$1"; exit "$2"' sh "$work/tmp" "$code"
        check "run, a stranger in its place, CMD gave $code" is "$status" "$((code ? code : 1))"
        check "run, a stranger: is named" err_has "$work/tmp"
        check "run, a stranger: is left" rmdir "$work/tmp"
        check "run, a stranger: the lock is undone all the same (K2)" gone "$work/lock"
        call list --json
        check "run, a stranger: its record stays" json '[r["kind"] for r in d["boxes"][0]["records"]] == ["tmpdir"]'
    done
}

run_paths() {
    fresh_state
    mkdir "$work/there"
    # shellcheck disable=SC2016
    (cd "$work" && call run --box 7 --mount tmpfs,x,there,size=1m --mount tmpfs,y,./there/deep,size=1m \
        --tmpdir a/../tmp -- sh -c 'mountpoint -q there && mountpoint -q there/deep && test -d tmp'; exit "$status")
    check "run: relative paths, a mount in a mount" is "$?" 0
    check "run: a target that was there stays, empty" rmdir "$work/there"
    check "run: what was made is removed" gone "$work/tmp"
    check "run: paths: no record" no_record

    mkdir -p "$work/tree/sub" "$work/tree/here"
    # shellcheck disable=SC2016
    call run --box 7 --mount "bind,$work/tree,$work/root" --mount "tmpfs,x,$work/root/sub,size=1m" -- \
        sh -c 'test -d "$1/root/here" && mountpoint -q "$1/root/sub"' sh "$work"
    check "run: a target that a bind mount shows is not made" is "$status" 0
    check "run: and not removed" test -d "$work/tree/sub"
    check "run: bind: nothing is left" gone "$work/root"
    rm -rf "$work/tree"
}

run_payload() {
    fresh_state
    # shellcheck disable=SC2016
    call run --lock "$work/lock" -- sh -c 'for fd in $(seq 0 40); do [ ! -e "/proc/$$/fd/$fd" ] || echo "$fd"; done'
    check "run: CMD has descriptors 0 to 2 only (K7)" is "$(tr '\n' ' ' <"$work/out")" "0 1 2 "
    env --default-signal "$rbxj" run grep -E 'SigBlk|SigIgn' /proc/self/status >"$work/out" 2>"$work/err"
    check "run: CMD has no signal blocked or ignored" is "$(grep -c 0000000000000000 "$work/out")" 2
    (trap '' HUP CHLD && call run true && exit "$status")
    check "run: ignored SIGCHLD does no harm" is "$?" 0

    # shellcheck disable=SC2016
    "$rbxj" run --box 7 --tmpdir "$work/tmp" -- sh -c 'trap "exit 7" TERM; : >"$1"
        for _ in $(seq 100); do sleep 0.05; done' sh "$work/ready" >"$work/out" 2>"$work/err" </dev/null &
    supervisor=$!
    while [ ! -e "$work/ready" ] && kill -0 "$supervisor" 2>/dev/null; do sleep 0.02; done
    kill -TERM "$supervisor"
    wait "$supervisor"
    check "run: SIGTERM is forwarded" is "$?" 7
    check "run: SIGTERM: nothing is left" gone "$work/tmp"
    check "run: SIGTERM: no record" no_record

    if [ -n "$group" ]; then
        # shellcheck disable=SC2016
        call run --box 7 --cgroup "$group/box" -- sh -c 'sleep 60 & grep -q "^0::.*/box$" /proc/self/cgroup'
        check "run: CMD is in its cgroup" is "$status" 0
        check "run: what CMD left in it is killed, the cgroup removed" gone "$group/box"
    fi
}

# ---- live, then crashed ----

crash_and_replay() {
    fresh_state
    local cgroup=()
    [ -z "$group" ] || cgroup=(--cgroup "$group/box")
    start 7 --lock "$work/lock" "${cgroup[@]}" --mount "tmpfs,x,$work/mnt,size=1m" --tmpdir "$work/tmp" -- || {
        bad "crash: start"
        return
    }
    call list -J
    check "live: list" json 'len(d["boxes"]) == 1 and d["boxes"][0]["box"] == "7" and
        d["boxes"][0]["state"] == "live" and d["boxes"][0]["cause"] is None and
        d["boxes"][0]["supervisor"] == {"pid": '"$supervisor"', "alive": True} and
        [r["seq"] for r in d["boxes"][0]["records"]] == list(range(1, len(d["boxes"][0]["records"]) + 1)) and
        {r["found"] for r in d["boxes"][0]["records"]} == {"present"} and
        d["boxes"][0]["records"][-1]["kind"] == "process"'
    call replay -J
    check "live: replay leaves it alone (I3)" json 'd["boxes"] == [] and d["summary"]["live"] == 1'
    check "live: replay is done with nothing left" is "$status" 0
    check "live: everything stands" test -d "$work/tmp" -a -e "$work/lock"
    call forget --box 7 --seq 1 --reason test
    check "live: forget is refused" is "$status" 1
    call run --box 7 true
    check "live: a second run of the box: 125" is "$status" 125

    crash
    check "crash: the payload lives on" payload_lives
    call list
    check "crash: list says stale" out_has stale
    call list --noheadings
    check "crash: no headings" is "$(grep -c INCARNATION "$work/out")" 0
    call list -J
    check "crash: list, JSON" json 'd["boxes"][0]["state"] == "stale" and
        d["boxes"][0]["cause"] == "supervisor_crash" and d["boxes"][0]["supervisor"]["alive"] is False'
    local records
    records=$(json_value 'len(d["boxes"][0]["records"])')
    call run --box 7 true
    check "crash: run of a stale box: 125" is "$status" 125
    check "crash: and says what to do" err_has "replay"

    call replay --dry-run --json
    check "dry run: all of it can be done" is "$status" 0
    check "dry run: JSON" json 'd["dry_run"] is True and len(d["boxes"]) == 1 and
        d["boxes"][0]["outcome"] == "planned" and {e["outcome"] for e in d["boxes"][0]["entries"]} == {"planned"} and
        [e["seq"] for e in d["boxes"][0]["entries"]] == list(range('"$records"', 0, -1))'
    local plan
    plan=$(json_value 'd["plan"]')
    check "dry run: changed nothing" test -d "$work/tmp" -a -e "$work/lock"
    check "dry run: killed nobody" payload_lives
    call replay -J --dry-run
    check "dry run: the same plan again" is "$(json_value 'd["plan"]')" "$plan"
    call replay --dry-run
    check "dry run: the plan's id in the text" out_has "$plan"

    call replay --json
    check "replay: nothing left" is "$status" 0
    check "replay: JSON" json 'd["dry_run"] is False and d["boxes"][0]["outcome"] == "success" and
        d["boxes"][0]["cause"] == "supervisor_crash" and d["summary"]["left"] == 0 and
        d["summary"]["boxes"] == 1 and d["summary"]["undone"] + d["summary"]["already_gone"] == '"$records"' and
        len(d["boot_id"]) in (32, 36) and d["duration_s"] >= 0 and d["started"].endswith("Z")'
    check "replay: everything is gone" gone "$work/lock" "$work/tmp" "$work/mnt" "${group:-$work}/box"
    if payload_lives; then bad "replay: the payload is dead"; else ok "replay: the payload is dead"; fi
    check "replay: no record" no_record
    call replay
    check "replay again: nothing to do" is "$status" 0
}

plan_refused() {
    fresh_state
    start 7 --lock "$work/lock" --tmpdir "$work/tmp" -- || { bad "plan: start"; return; }
    crash
    call replay --dry-run --json
    local plan
    plan=$(json_value 'd["plan"]')
    call replay --plan=0123456789abcdef
    check "plan: one that never was: 1" is "$status" 1
    kill_payload
    call replay --plan="$plan"
    check "plan: refused after a change: 1" is "$status" 1
    check "plan: refused: nothing was touched" test -d "$work/tmp" -a -e "$work/lock"
    call replay --dry-run --json
    plan=$(json_value 'd["plan"]')
    call replay --plan="$plan" --json
    check "plan: the present one is done" is "$status" 0
    call replay --plan="$plan"
    check "plan: nothing is there any more: 1" is "$status" 1
    check "plan: nothing is there any more: says so" err_has "not $plan: nothing was done"
    check "plan: and all is gone" gone "$work/lock" "$work/tmp"
    check "plan: no record" no_record
}

forgetting() {
    fresh_state
    start 7 --tmpdir "$work/tmp" -- || { bad "forget: start"; return; }
    crash
    rmdir "$work/tmp"
    mkdir "$work/tmp"
    : >"$work/tmp/precious"
    call replay --json
    check "foreign: replay: 1" is "$status" 1
    check "foreign: refused (K2)" json 'd["summary"]["refused"] == 1 and d["summary"]["left"] == 1 and
        [(e["found"], e["outcome"]) for e in d["boxes"][0]["entries"] if e["kind"] == "tmpdir"] ==
        [("foreign", "refused")] and
        [e["error"] for e in d["boxes"][0]["entries"] if e["kind"] == "tmpdir"][0]["message"]'
    call replay
    check "foreign: text: a line on standard error" err_has "$work/tmp"
    check "foreign: is untouched" test -e "$work/tmp/precious"
    call forget --box 7 --seq 99 --reason "no such record"
    check "forget: no such record: 1" is "$status" 1
    check "forget: no such record: one line" err_is_one_line
    call forget --box 8 --seq 1 --reason "no such box"
    check "forget: no such box: 1" is "$status" 1
    call forget --box 7 --seq 1 --reason "somebody else's" --json
    check "forget: 0" is "$status" 0
    check "forget: JSON" json 'd == {"box": "7", "seq": 1, "forgotten": True}'
    call replay
    check "forget: replay has nothing left" is "$status" 0
    check "forget: the stranger is untouched" test -e "$work/tmp/precious"
    check "forget: no record" no_record
    rm -r "$work/tmp"
}

hostile_names() {
    fresh_state
    local name=$work/$'h\n\e[31m\xff"\\ \xc3\xb6'
    start 7 --tmpdir "$name" -- || { bad "names: start"; return; }
    crash
    call list
    check "names: no escape gets through" is "$(LC_ALL=C grep -c $'[\e\xff]' "$work/out")" 0
    check "names: escaped" out_has 'h\x0a\x1b[31m\xff'
    call list --json
    check "names: JSON has the bytes beside it" json 'bytes.fromhex(d["boxes"][0]["records"][0]["raw"]) ==
        b"'"$work"'/h\n\x1b[31m\xff\"\\ \xc3\xb6"'
    check "names: JSON text" json 'd["boxes"][0]["records"][0]["name"] == "'"$work"'/h\n\x1b[31m\u00ff\"\\ \u00f6"'
    check "names: no control byte in the JSON" is "$(tr -d '\n' <"$work/out" | LC_ALL=C grep -c '[[:cntrl:]]')" 0
    call replay
    check "names: replayed" is "$status" 0
    check "names: gone" gone "$name"
}

# It is told, and ends nobody half-way.
limit_of_files() {
    fresh_state
    start 7 --tmpdir "$work/limited" -- || { bad "a limit: start"; return; }
    crash
    (ulimit -f 1; exec "$rbxj" replay >"$work/out" 2>"$work/err")
    check "a limit of files: exits 6" is $? 6
    check "a limit of files: one line" one_line
    check "a limit of files: says so" err_has "File too large"
    call replay
    check "a limit of files: undone without it" is "$status" 0
    check "a limit of files: gone" gone "$work/limited"
}

words
nothing_yet
run_statuses
run_leaves_something
run_paths
run_payload
crash_and_replay
plan_refused
forgetting
hostile_names
limit_of_files

finish
