#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Crash and replay through the program, in a world that is crowded, changed or hostile: replay.sh [RBXJ]
# On the real kernel, in a private mount namespace, scratch directories and a cgroup of its own. Killed at each step:
# test_replay.c.
. "${0%/*}/lib.bash"

call() {
    timeout 30 "$rbxj" "$@" >"$work/out" 2>"$work/err" </dev/null 8<&-
    status=$?
}
json() {
    python3 -I -S -c 'import json, sys
d = json.load(open(sys.argv[1], "rb"))
e = {x["kind"]: x for b in d["boxes"] for x in b.get("entries", [])}
sys.exit(0 if eval("(" + sys.argv[2] + ")") else 1)' "$work/out" "$1"
}
json_value() { python3 -I -S -c 'import json, sys; print(json.load(open(sys.argv[1], "rb"))[sys.argv[2]])' "$work/out" "$1"; }
clear_lines() { grep -q . "$work/err" && ! grep -qv '^rbxj: ' "$work/err" && ! LC_ALL=C grep -q $'[\e\x01-\x08]' "$work/err"; }
one_line() { [ "$(wc -l <"$work/err")" = 1 ] && clear_lines; }
fresh() {
    umount -l "$work/state" 2>/dev/null
    rm -rf "$work/state" "$work/run" "$work/w"
    mkdir -m 0700 "$work/state" "$work/run" "$work/w"
}

# Everything of a tree that an undo could change.
picture() { find "$@" -printf '%p|%y|%m|%U|%s|%i|%n|%l|%T@\n' | sort; }

# start BOX OPTION...: a supervisor whose payload stays; $supervisor.
start() {
    local box=$1 dir=$work/up
    shift
    mkdir -p "$dir"
    rm -f "$dir/$box"
    # shellcheck disable=SC2016
    "$rbxj" run --box "$box" "$@" -- sh -c 'echo $$ >"$1.new"; mv "$1.new" "$1"; exec sleep 120' sh "$dir/$box" \
        >"$work/run.out" 2>"$work/run.err" </dev/null &
    supervisor=$!
    for _ in {1..500}; do
        [ ! -s "$dir/$box" ] || return 0
        kill -0 "$supervisor" 2>/dev/null || break
        sleep 0.02
    done
    bad "start $box"
    sed 's/^/  err: /' "$work/run.err"
    return 1
}
# crash BOX OPTION...: the same, and then the supervisor is killed, and the payload.
crash() {
    start "$@" || return 1
    kill -KILL "$supervisor"
    wait "$supervisor" 2>/dev/null
    kill -KILL "$(cat "$work/up/$1")"
    while lives "$(cat "$work/up/$1")"; do sleep 0.01; done
}

unset RBXJ_STATE_DIR RBXJ_RUNTIME_DIR NO_COLOR
export RBXJ_DURABILITY=resource RBXJ_STATE_DIR="$work/state" RBXJ_RUNTIME_DIR="$work/run"
: >"$work/out"
: >"$work/err"

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

# ---- bad input, when an intent is written ----

# refused WHAT CODE-OR-TEXT OPTION...: run fails before CMD, with one line, and changes nothing.
refused() {
    local what=$1 text=$2 before after
    shift 2
    before=$(picture "$work/w" "$shm" ${group:+"$group"}; cat /proc/self/mounts)
    call run --box 7 "$@" -- touch "$work/ran"
    after=$(picture "$work/w" "$shm" ${group:+"$group"}; cat /proc/self/mounts)
    check "refused: $what: 125" is "$status" 125
    check "refused: $what: one line" one_line
    check "refused: $what: says why" err_has "$text"
    check "refused: $what: CMD did not run" gone "$work/ran"
    check "refused: $what: nothing was touched" is "$after" "$before"
}
bad_input() {
    fresh
    local w=$work/w here
    mkdir "$w/dir" "$w/dir/in"
    ln -s "$w/dir" "$w/link"
    ln -s nowhere "$w/dangling"
    mkfifo "$w/fifo"
    echo data >"$w/file"
    truncate -s 1G "$w/huge"
    refused "lock is a directory" "not a regular file" --lock "$w/dir"
    refused "lock is a symlink" "not a regular file" --lock "$w/link"
    refused "lock is a dangling symlink" "not a regular file" --lock "$w/dangling"
    refused "lock is a FIFO" "not a regular file" --lock "$w/fifo"
    refused "lock is a device" "protected" --lock /dev/null
    refused "lock is huge" "bytes" --lock "$w/huge"
    refused "lock without a directory" "its directory" --lock "$w/none/lock"
    refused "lock below a file" "its directory" --lock "$w/file/lock"
    refused "lock below /etc" "protected" --lock /etc/rbxj-test.lock
    refused "tmpdir is there" "tmpdir" --tmpdir "$w/dir"
    refused "tmpdir is a symlink" "tmpdir" --tmpdir "$w/link"
    refused "tmpdir is /tmp" "protected" --tmpdir /tmp
    refused "tmpdir is /" "rbxj" --tmpdir /
    refused "tmpdir in the state directory" "protected" --tmpdir "$work/state/x"
    refused "tmpdir above the state directory" "protected" --tmpdir "$work"
    refused "mount target is a file" "directory" --mount "tmpfs,x,$w/file"
    refused "mount target is a symlink" "directory" --mount "tmpfs,x,$w/link"
    refused "mount target is /" "rbxj" --mount "tmpfs,x,/"
    refused "mount target is /usr" "protected" --mount "tmpfs,x,/usr"
    refused "mount target below a file" "rbxj" --mount "tmpfs,x,$w/file/x"
    refused "a name with escapes" '\x1b[31m' --tmpdir "$w/none/"$'\e[31m\n'"x"
    refused "cgroup on a disk" "not a cgroup" --cgroup "$w/cg"
    refused "cgroup is a symlink" "not a cgroup" --cgroup "$w/link"
    [ -n "$group" ] || return
    refused "cgroup is the root" "rbxj" --cgroup "$hierarchy"
    refused "cgroup is there" "cgroup" --cgroup "$group"
    refused "cgroup is /sys" "rbxj" --cgroup /sys
    refused "cgroup: no such parent" "cgroup" --cgroup "$group/none/box"
    mkdir "$group/own" "$group/own/in"
    here=$hierarchy$(sed -n 's/^0:://p' /proc/self/cgroup)
    echo $BASHPID >"$group/own/in/cgroup.procs"
    refused "cgroup is an ancestor of our own" "lives in it" --cgroup "$group/own"
    refused "cgroup is our own" "lives in it" --cgroup "$group/own/in"
    echo $BASHPID >"$here/cgroup.procs"
    rmdir "$group/own/in" "$group/own"
    ln -s "$group" "$w/groups"
    call run --box 7 --cgroup "$w/groups/box" -- grep -q '/box$' /proc/self/cgroup
    check "a symlink to the parent is resolved" is "$status" 0
    check "and the cgroup is removed" gone "$group/box"
    check "bad input: no record" no_record
}

# ---- what has changed when it is undone ----

# left WHAT KIND FOUND OUTCOME TEXT: a replay of the one box says so, and touches nothing of what is there.
left() {
    local what=$1 kind=$2 found=$3 outcome=$4 text=$5 before after
    before=$(picture "$work/w"; cat /proc/self/mounts)
    call replay --json
    check "$what: replay: 1" is "$status" 1
    check "$what: $found, $outcome" json "e['$kind']['found'] == '$found' and e['$kind']['outcome'] == '$outcome'"
    call replay
    check "$what: still 1" is "$status" 1
    check "$what: a clear line" clear_lines
    check "$what: says what" err_has "$text"
    after=$(picture "$work/w"; cat /proc/self/mounts)
    check "$what: nothing was touched" is "$after" "$before"
}
undone() {
    call replay
    check "$1: undone" is "$status" 0
    check "$1: no record" no_record
}
forget() {
    call forget --box 7 --seq 1 --reason "of somebody else"
    check "$1: forget" is "$status" 0
    undone "$1: forgotten"
}

changed_tmpdir() {
    fresh
    local w=$work/w t=$work/w/tmp
    mkdir "$w/outside"
    echo precious >"$w/outside/file"

    crash 7 --tmpdir "$t" || return
    rmdir "$t" && ln -s "$w/outside" "$t"
    left "tmpdir replaced by a symlink" tmpdir foreign refused "symlink"
    rm "$t"
    echo x >"$t"
    left "tmpdir replaced by a file" tmpdir foreign refused "not a directory"
    rm "$t"
    mkdir "$t" "$t/data"
    left "tmpdir replaced by another directory" tmpdir foreign refused "another directory"
    rm -r "$t"
    undone "tmpdir removed by somebody"

    crash 7 --tmpdir "$t" || return
    mkdir -p "$t/a/mnt"
    mount -t tmpfs stranger "$t/a/mnt"
    echo precious >"$t/a/mnt/file"
    left "tmpdir with a stranger's mount in it" tmpdir busy failed "$t/a/mnt"
    umount "$t/a/mnt"
    mount --bind "$w/outside" "$t/a/mnt"
    left "tmpdir with a bind mount in it" tmpdir busy failed "$t/a/mnt"
    umount "$t/a/mnt"
    undone "tmpdir after the unmount"
    call health --unquarantine --reason "three failed replays in a row are what quarantines"

    crash 7 --tmpdir "$t" || return
    ln "$w/outside/file" "$t/hard"
    ln -s "$w/outside" "$t/soft"
    ln -s / "$t/root"
    mknod "$t/null" c 1 3
    mknod "$t/block" b 7 250
    mkfifo "$t/fifo"
    python3 -I -S -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$t/sock"
    mkdir -p "$t/d/e" "$t/"$'new\nline\e]0;evil\a' "$t/closed" "$t/"$'\xff\xfe'
    touch "$t/d/immutable" "$t/d/e/f" "$t/closed/x" "$t/-rf" "$t/"$'new\nline\e]0;evil\a/x' "$t/ "
    chattr +i "$t/d/immutable" "$t/d/e/f" 2>/dev/null && chattr +a "$t/d/e" && chattr +i "$t/d"
    chmod 0 "$t/closed"
    before=$(stat -c %i:%s:%a:%u:%Y "$w/outside" "$w/outside/file")
    undone "a hostile tmpdir"
    check "a hostile tmpdir: is gone" gone "$t"
    check "a hostile tmpdir: nothing aside" is "$(ls -A "$w")" outside
    check "a hostile tmpdir: what it pointed at is untouched" is \
        "$(stat -c %i:%s:%a:%u:%Y "$w/outside" "$w/outside/file")" "$before"
    check "a hostile tmpdir: the content, too" is "$(cat "$w/outside/file")" precious
}

changed_lock() {
    fresh
    local w=$work/w l=$work/w/lock
    mkdir "$w/outside"
    echo precious >"$w/outside/file"

    crash 7 --lock "$l" || return
    rm "$l" && mkdir "$l"
    left "lock replaced by a directory" lock foreign refused "not a regular file"
    rmdir "$l" && ln -s "$w/outside/file" "$l"
    left "lock replaced by a symlink" lock foreign refused "symbolic link"
    rm "$l" && mkfifo "$l"
    left "lock replaced by a FIFO" lock foreign refused "not a regular file"
    rm "$l" && echo garbage >"$l"
    left "lock replaced by garbage" lock foreign refused "$l"
    forget "lock replaced by garbage"
    rm "$l"

    crash 7 --lock "$l" || return
    printf 'gar\0bage \e[31m' >"$l"
    call replay --json
    check "lock corrupted: undone" is "$status" 0
    check "lock corrupted: the cause" json 'd["boxes"][0]["cause"] == "lock_corruption"'
    check "lock corrupted: is gone" gone "$l"
    check "lock corrupted: kept aside" grep -rqaF $'gar\0bage' "$work/state"
    crash 7 --lock "$l" || return
    truncate -s 0 "$l" && truncate -s 1G "$l"
    undone "lock grown to 1 GiB"
    check "lock grown to 1 GiB: is gone" gone "$l"
    check "lock grown to 1 GiB: what is kept is short" is \
        "$(find "$work/state" -name '*.lock' -size +64k | wc -l)" 0
    crash 7 --lock "$l" || return
    : >"$l"
    undone "lock emptied"
}

changed_mount() {
    fresh
    local w=$work/w m=$work/w/mnt
    mkdir "$w/theirs"
    mount -t tmpfs theirs "$w/theirs"
    echo precious >"$w/theirs/file"

    crash 7 --mount "tmpfs,x,$m" || return
    umount "$m" && rmdir "$m" && ln -s "$w/theirs" "$m"
    left "mount target replaced by a symlink (K18)" tmpdir foreign refused "$m"
    check "mount target replaced by a symlink: their mount stands" test -e "$w/theirs/file"
    rm "$m"
    undone "mount target gone"

    crash 7 --mount "tmpfs,x,$m" || return
    umount "$m" && touch "$m/precious"
    call replay --json
    check "target that was made is not empty (K18): 1" is "$status" 1
    check "target that was made is not empty: refused" json 'e["tmpdir"]["outcome"] == "refused" and
        e["mount"]["outcome"] == "already_gone" and e["tmpdir"]["error"]'
    check "target that was made is not empty: left" test -e "$m/precious"
    rm "$m/precious"
    undone "target emptied"
    check "target emptied: is gone" gone "$m"

    crash 7 --mount "tmpfs,x,$m" || return
    mount --move "$m" "$w/theirs" && mkdir "$w/theirs/x"
    call replay --json
    check "mount moved by somebody (K13): undone where it is" is "$status" 0
    check "mount moved: theirs stands" test -e "$w/theirs/file"
    check "mount moved: target gone" gone "$m"

    crash 7 --mount "tmpfs,x,$m" || return
    (cd "$m" && exec sleep 120) &
    local holder=$!
    while [ "$(readlink "/proc/$holder/cwd")" != "$m" ]; do sleep 0.01; done
    call replay --json
    check "mount in use: 1" is "$status" 1
    check "mount in use: busy, names the holder" json \
        "e['mount']['found'] == 'busy' and '$holder' in str(e['mount']['error']) and e['tmpdir']['outcome'] == 'skipped'"
    check "mount in use: the holder lives" lives "$holder"
    kill "$holder"
    wait "$holder" 2>/dev/null
    undone "mount no longer in use"
    umount "$w/theirs"
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

for part in crowd dry flushes bad_input changed_tmpdir changed_lock changed_mount others; do
    $part
    echo "# $part: $SECONDS s"
done

finish
