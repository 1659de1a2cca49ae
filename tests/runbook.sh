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

own_patterns "$work/own.conf"

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
    # the lock that was never journaled is not clean
    *"--verify-clean") call --config "$work/own.conf" health --verify-clean ;;
    *) status=0 && timeout 30 bash -c "$1" >"$work/out" 2>"$work/err" </dev/null || status=$? ;;
    esac
}

# tells COMMAND: it said what the row is about.
tells() {
    case $1 in
    "rbxj health") out_has 'status="unhealthy"' && out_has "stale_boxes=1" ;;
    *"--recover") out_has 'status="healthy"' && out_has "stale_boxes=0" ;;
    *"--verify-clean") out_has "clean=true" ;;
    *"--quarantine"*) out_has 'quarantine_detail="bad disk"' ;;
    *"--unquarantine"*) out_has 'status="healthy" can_accept_submissions=true' ;;
    "rbxj audit") out_has "$shm/boxes/1/lock" ;;
    "rbxj list"* | *"--dry-run") out_has "$work/7.lock" && out_has "$work/7.dir" && out_has "$work/7.mnt" ;;
    "rbxj replay"* | "rbxj reset"*) out_has "$work/7.lock" && out_has " undone, 0 already gone, 0 refused, 0 failed, 0 left" ;;
    *"--markdown") out_has "boxes \`7\`" && out_has "$work/7.lock" && out_has "bad disk" ;;
    *"--json") json 'any(i["boxes"] == ["7"] and i["outcome"] == "success" for i in d["incidents"])' ;;
    "rbxj incidents"*) grep -qE ' supervisor_crash +7 +1 success ' "$work/out" ;;
    "rbxj forget"*) out_has "box 7: record 1 is forgotten" ;;
    "rbxj metrics") grep -qE '^rustbox_recovery_seconds_count [1-9]' "$work/out" ;;
    *) return 1 ;;
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
    check "$command: says what it is there for" tells "$command"
    case $command in
    *--quarantine*) call health && check "$command: is so" is "$status" 2 ;;
    *--unquarantine*) call health && check "$command: is so" is "$status" 0 ;;
    esac
    case $undoes$command in
    yes*forget*)
        check "$command: touches nothing" there "$work/7.lock" "$work/7.dir"
        call list --json
        check "$command: drops that record" json '[e["seq"] for e in d["boxes"][0]["records"]][:2] == [2, 3]'
        ;;
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
check "the document tells of the box" out_has "boxes \`7\`"
check "and of the time to recovery" grep -qE '^- \*\*Time to recovery:\*\* [0-9.]+s$' "$work/out"
finish
