#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Every command of docs/runbook.md, on a worker with a stale box 7: runbook.sh [RBXJ]
. "${0%/*}/lib.bash"

# The fourth column of the rows that have a status, with the command of the third.
rows=$(sed -nE 's/^\|.*\| `(rbxj [^`]*)` \| ([0-9]+) \|$/\2 \1/p' "$top/docs/runbook.md")
check "there are rows" test "$(wc -l <<<"$rows")" -ge 15
mkdir "$work/bin" "$shm/boxes"
ln -s "$rbxj" "$work/bin/rbxj"
PATH=$work/bin:$PATH
cat >"$work/rbxj.conf" <<EOF
[discover]
locks=
locks=$shm/boxes/*/lock
cgroups=
mounts=
tmpdirs=
EOF

# A worker on which box 7 was left, and a lock that was never journaled.
stale_worker() {
    [ ! -d "$work/state" ] || call replay
    fresh
    rm -rf "$work/7.dir" "$work/7.lock"
    mkdir -p "$shm/boxes/1"
    echo '{"pid":999999999}' >"$shm/boxes/1/lock"
    local options=(--lock "$work/7.lock" --tmpdir "$work/7.dir" --mount "tmpfs,x,$work/7.mnt")
    [ -z "$group" ] || options+=(--cgroup "$group/7")
    crash 7 "${options[@]}" 2>/dev/null
}
# The configuration is this test's; everything else is as the page has it.
run_row() {
    case $1 in
    "rbxj audit"*) call --config "$work/rbxj.conf" audit ;;
    *) status=0 && timeout 30 bash -c "$1" >"$work/out" 2>"$work/err" </dev/null || status=$? ;;
    esac
}
stale_worker
seen=0
while read -r wanted command; do
    case $command in
    *"health --recover" | *"replay --box"* | *"forget "* | *"reset "*)
        stale_worker
        undoes=yes
        ;;
    *"incidents "* | *"--verify-clean"*) [ "$seen" = 0 ] || call replay && undoes= ;;
    *) undoes= ;;
    esac
    run_row "$command"
    check "$command: exits $wanted" is "$status" "$wanted"
    check "$command: says something" test -s "$work/out"
    case $undoes$command in
    yes*forget*) check "$command: drops the record alone" there "$work/7.lock" ;;
    yes*) check "$command: leaves nothing" gone "$work/7.lock" "$work/7.dir" "$work/7.mnt" ${group:+"$group/7"} ;;
    esac
    seen=1
done <<<"$rows"

# ---- what a newcomer does, from detection to the document ----

stale_worker
call health
check "detected" is "$status" 1
call health --recover
check "recovered" is "$status" 0
call incidents --markdown --since 1h
check "the document tells of the box" out_has "7"
check "and of the time to recovery" grep -qi "time to recovery" "$work/out"
finish
