#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Crash and replay through the program, in a crowded world: replay.sh [RBXJ]
# On the real kernel, in a private mount namespace, scratch directories and a cgroup of its own. Killed at each step:
# test_replay.c; in a changed or hostile world: changed.sh.
. "${0%/*}/lib.bash"
. "${0%/*}/replay.bash"

# ---- 64 supervisors at once ----

resources() { echo "$work/w/$1.lock" "$work/w/$1.tmp" "$work/w/$1.mnt" ${group:+"$group/$1"}; }
all_there() {
    local i path
    for i; do
        for path in $(resources "$i"); do [ -e "$path" ] || { echo "  missing: $path"; return 1; }; done
        mounted "$work/w/$i.mnt" || { echo "  not mounted: $i"; return 1; }
        lives "$(cat "$work/w/$i.tmp/up")" || { echo "  payload of $i is dead"; return 1; }
    done
}
# An empty lock file may stay: whoever was killed between making it and writing into it can't be told from others (K1).
all_gone() {
    local i path
    for i; do
        for path in $(resources "$i"); do
            [[ $path == *.lock && -f $path && ! -s $path ]] && rm "$path"
            gone "$path" || { echo "  there: $path"; return 1; }
        done
        ! mounted "$work/w/$i.mnt" || return 1
    done
}
crowd() {
    fresh
    local i pids=() cgroup=() early late living
    for i in {1..64}; do
        cgroup=(${group:+--cgroup "$group/$i"})
        # shellcheck disable=SC2016
        "$rbxj" run --box "$i" --lock "$work/w/$i.lock" "${cgroup[@]}" --mount "tmpfs,x,$work/w/$i.mnt,size=1m" \
            --tmpdir "$work/w/$i.tmp" -- sh -c 'echo $$ >"$1.new"; mv "$1.new" "$1"; exec sleep 120' sh \
            "$work/w/$i.tmp/up" 2>"$work/run.$i" </dev/null &
        pids[i]=$!
    done
    mapfile -t order < <(shuf -i 1-64)
    early=("${order[@]:0:16}") late=("${order[@]:16:16}") living=("${order[@]:32}")
    for i in "${early[@]}"; do
        sleep "0.0$((RANDOM % 10))"
        kill -KILL "${pids[i]}"
    done
    for i in "${late[@]}" "${living[@]}"; do
        for _ in {1..1000}; do
            [ ! -s "$work/w/$i.tmp/up" ] || break
            sleep 0.02
        done
    done
    for i in "${late[@]}"; do kill -KILL "${pids[i]}"; done
    for i in "${early[@]}" "${late[@]}"; do wait "${pids[i]}" 2>/dev/null; done
    call replay --json
    check "64 at once: replay leaves nothing of the 32 dead" is "$status" 0
    check "64 at once: 32 are left alone" json 'd["summary"]["live"] == 32 and 16 <= d["summary"]["boxes"] <= 32'
    check "64 at once: what the living have is there" all_there "${living[@]}"
    check "64 at once: what the dead had is gone" all_gone "${early[@]}" "${late[@]}"
    call replay --json
    check "64 at once: a second replay finds nothing" json 'd["summary"]["boxes"] == 0 and d["summary"]["live"] == 32'
    for i in "${living[@]}"; do kill -TERM "${pids[i]}"; done
    local wrong=0
    for i in "${living[@]}"; do
        wait "${pids[i]}"
        [ $? = 143 ] || { wrong=$((wrong + 1)); sed "s/^/  run $i: /" "$work/run.$i"; }
    done
    check "64 at once: the living end well" is "$wrong" 0
    check "64 at once: and nothing is left" all_gone "${order[@]}"
    check "64 at once: no file is left" is "$(find "$work/w" -mindepth 1 | wc -l)" 0
    check "64 at once: no record" no_record
}

# ---- a dry run is dry (K28) ----

dry() {
    fresh
    crash stale --lock "$work/w/s.lock" --tmpdir "$work/w/s.tmp" --mount "tmpfs,x,$work/w/s.mnt" || return
    start live --lock "$work/w/l.lock" --tmpdir "$work/w/l.tmp" || return
    local live=$supervisor before after plan
    before=$(picture "$work/state" "$work/run" "$work/w"; find "$work/state" "$work/run" -type f -exec sha256sum {} +)
    call replay --dry-run --json
    after=$(picture "$work/state" "$work/run" "$work/w"; find "$work/state" "$work/run" -type f -exec sha256sum {} +)
    check "dry run: beside a live box" json 'len(d["boxes"]) == 1 and d["summary"]["live"] == 1'
    check "dry run: 0" is "$status" 0
    check "dry run: changed no byte and no time" is "$after" "$before"
    plan=$(json_value plan)
    mount --bind "$work/state" "$work/state" && mount -o remount,ro,bind "$work/state"
    mount --bind "$work/run" "$work/run" && mount -o remount,ro,bind "$work/run"
    call replay --dry-run --json
    check "dry run: read-only directories" is "$status" 0
    check "dry run: read-only: the same plan" is "$(json_value plan)" "$plan"
    call list --json
    check "list: read-only directories" json 'len(d["boxes"]) == 2'
    call replay
    check "replay: read-only directories: no permission" is "$status" 4
    check "replay: read-only directories: says what to do" err_has "make the file system writable"
    umount "$work/state" "$work/run"
    after=$(picture "$work/state" "$work/run" "$work/w"; find "$work/state" "$work/run" -type f -exec sha256sum {} +)
    check "dry run: read-only: changed nothing" is "$after" "$before"
    cp -a "$work/state" "$work/copy"
    RBXJ_STATE_DIR=$work/copy RBXJ_RUNTIME_DIR=$work/nowhere call replay --dry-run --json
    check "dry run: a copy of the state directory" json 'd["dry_run"] is True and len(d["boxes"]) >= 1'
    check "dry run: a copy: no runtime directory is made" gone "$work/nowhere"
    rm -rf "$work/copy"

    mkdir "$work/w/s.tmp/later"
    rm "$work/w/s.lock"
    call replay "--plan=$plan" --json
    check "plan: refused after a change" is "$status" 1
    check "plan: refused: nothing is done" test -d "$work/w/s.tmp/later"
    check "plan: refused: the mount stands" mounted "$work/w/s.mnt"
    call replay --dry-run --json
    plan=$(json_value plan)
    call replay "--plan=$plan" --json
    check "plan: the present one is done" is "$status" 0
    check "plan: all is gone" gone "$work/w/s.tmp" "$work/w/s.mnt"
    kill -TERM "$live"
    wait "$live"
    check "dry run: the live box ends well" is "$?" 143
    check "dry run: no record" no_record
}

# ---- durability follows the resource ----

# What strace saw: flushes before CMD was started, O_DSYNC writes before, both after.
count_flushes() {
    python3 -I -S - "$work/trace" <<'PY'
import re, sys
dsync, started, counts = set(), False, [0, 0, 0, 0]
for line in open(sys.argv[1], errors="replace"):
    line = re.sub(r"^\d+ +", "", line)
    m = re.match(r'openat\(.*O_DSYNC.*\) = (\d+)', line)
    if m:
        dsync.add(m.group(1))
    if line.startswith('execve("/bin/true"') and " = 0" in line:
        started = True
    if re.match(r"(fsync|fdatasync|sync|syncfs|msync|sync_file_range)\(", line):
        counts[0 + 2 * started] += 1
    m = re.match(r"(?:pwrite64|writev|pwritev|write)\((\d+)", line)
    if m and m.group(1) in dsync:
        counts[1 + 2 * started] += 1
print(*counts)
PY
}
traced() {
    strace -f -o "$work/trace" -e trace=execve,openat,pwrite64,write,writev,pwritev,fsync,fdatasync,sync,syncfs,msync,sync_file_range \
        "$rbxj" run "$@" -- /bin/true >"$work/out" 2>"$work/err" </dev/null
    status=$?
}
flushes() {
    command -v strace >/dev/null || { echo "# flushes: no strace"; return; }
    fresh
    mkdir "$shm/mnt"
    local cgroup=(${group:+--cgroup "$group/v"})
    RBXJ_RUNTIME_DIR=$shm/run
    mkdir -m 0700 "$shm/run"
    call run --box warm --tmpdir "$work/w/warm" -- true
    call run --box warm --tmpdir "$shm/warm" -- true
    traced --box v --lock "$shm/lock" "${cgroup[@]}" --mount "tmpfs,x,$shm/mnt,size=1m" --tmpdir "$shm/tmp"
    check "volatile box: runs" is "$status" 0
    check "volatile box: not one flush" is "$(count_flushes)" "0 0 0 0"
    traced --box p --lock "$work/w/lock" "${cgroup[@]}" --tmpdir "$work/w/tmp"
    check "persistent box: runs" is "$status" 0
    check "persistent box: one commit before CMD, its directory flushed after" is "$(count_flushes)" "1 1 1 0"
    call run --box two --tmpdir "$work/w/tmp" -- true
    check "persistent box: its paths are free for the next" is "$status" 0
    check "flushes: no record" no_record
    RBXJ_RUNTIME_DIR=$work/run
}

# ---- odds and ends ----

others() {
    fresh
    call replay --box nobody --json
    check "replay of a box that is not there" is "$status" 0
    start 7 --tmpdir "$work/w/live" || return
    local live=$supervisor
    call replay --box 7 --json
    check "replay of a live box leaves it alone (I3)" json 'd["boxes"] == []'
    check "replay of a live box: it stands" test -d "$work/w/live"
    call replay --box 7 --assume-dead --reason "a test" --json
    check "assume-dead: a box that is known to live is left alone (K9)" json 'd["boxes"] == []'
    check "assume-dead: it stands" test -d "$work/w/live"
    kill -TERM "$live"
    wait "$live"

    # a payload beside the cgroup that has the lock's descriptor, found by the program, too (K7)
    crash 7 --lock "$work/w/lock" --tmpdir "$work/w/tmp" || return
    exec 8<"$work/w/lock"
    flock 8
    call replay --json
    check "held: 1" is "$status" 1
    check "held: nothing is done" test -d "$work/w/tmp"
    call list --json
    check "held: list says so" json 'd["boxes"][0]["state"] == "held"'
    call replay
    check "held: names the holder" err_has "pid $$"
    exec 8<&-
    undone "no longer held"
}

# A supervisor that is asked for when its box was read, ends the box, and is gone before it is found alive: stopped there.
looks_at_its_end() {
    local want=$1 call=$2 path=$3 reader
    shift 3
    start 7 --tmpdir "$work/w/brief" || return
    rm -f "$work/trace"
    strace -o "$work/trace" -P "${path:-/proc/$supervisor/stat}" -e trace="$call" -e inject="$call:signal=STOP:when=1" \
        "$rbxj" "$@" --json >"$work/out" 2>"$work/err" &
    reader=$!
    until_true grep -qs "stopped by SIGSTOP" "$work/trace"
    check "$1, a box ends: it is looked at" grep -q "stopped by SIGSTOP" "$work/trace"
    kill -KILL "$(cat "$work/up/7")"
    wait "$supervisor"
    check "$1, a box ends: it has" gone "$work/w/brief"
    pkill -CONT -P "$reader"
    wait "$reader"
    check "$1, a box ends: nobody is dead" out_has "$want"
}
ends() {
    command -v strace >/dev/null || { echo "# ends: no strace"; return; }
    fresh
    looks_at_its_end '"boxes":[]' openat "" list
    looks_at_its_end '"boxes":[]' openat "" replay --dry-run
    looks_at_its_end '"stale_boxes":0' openat "" health
    # it lives, and gives back what is looked at
    looks_at_its_end '"missing":[]' openat2 "$work/w" audit
    looks_at_its_end '"missing":0' openat2 "$work/w" health --verify-clean
}

parts crowd dry flushes others ends
