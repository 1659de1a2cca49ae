#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What must not be acquired, and what must not be undone as it has changed, through the program: changed.sh [RBXJ]
. "${0%/*}/lib.bash"
. "${0%/*}/replay.bash"

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

is_in() { [ "$(readlink "/proc/$1/cwd")" = "$2" ]; }
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
    check "mount in use: by somebody" until_true is_in "$holder" "$m"
    call replay --json
    check "mount in use: 1" is "$status" 1
    check "mount in use: busy, names the holder" json \
        "e['mount']['found'] == 'busy' and '$holder' in str(e['mount']['error']) and e['tmpdir']['outcome'] == 'skipped'"
    check "mount in use: the holder lives" lives "$holder"
    kill "$holder"
    wait "$holder" 2>/dev/null
    undone "mount no longer in use"
    umount "$w/theirs"

    mkdir "$w/shared"
    mount -t tmpfs shared "$w/shared" && mount --make-shared "$w/shared"
    crash 7 --mount "tmpfs,x,$w/shared/m" || return
    # shellcheck disable=SC2016
    unshare -m --propagation slave sh -c 'umount "$1" && mount -t tmpfs stranger "$1" && exec sleep 120' sh "$w/shared/m" &
    holder=$!
    check "where somebody has mounted his own in another namespace" until_true \
        grep -q " $w/shared/m .* stranger " "/proc/$holder/mountinfo"
    call replay --dry-run --json
    check "a mount that he would lose his with (K12): foreseen" json \
        "e['mount']['found'] == 'busy' and 'stranger' in str(e['mount']['error'])"
    check "a mount that he would lose his with: 1" is "$status" 1
    call replay --json --plan="$(json_value plan)"
    check "a mount that he would lose his with: that is the plan" json "e['mount']['outcome'] == 'failed'"
    kill "$holder"
    wait "$holder" 2>/dev/null
    undone "a mount with nobody's behind it"
    umount "$w/shared"
}

parts bad_input changed_tmpdir changed_lock changed_mount
