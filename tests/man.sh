#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The manual pages say what the source and the program say, and nothing is missing in either: man.sh [RBXJ]
# This makes the JSON documents that there are, man.py compares.
. "${0%/*}/lib.bash"

# document PAGE NAME ARG...: what the program prints then.
mkdir "$work/documents"
document() {
    local to=$work/documents/$1.$2
    shift 2
    timeout 60 "$rbxj" --json "$@" >"$to" 2>"$work/err" </dev/null
}
fresh
mkdir -p "$work/boxes/1"
echo '{"pid":4194304}' >"$work/boxes/1/lock"
printf '[discover]\nlocks=%s/boxes/*/lock\n' "$work" >"$work/rbxj.conf"
crash box --lock "$work/lock" --tmpdir "$work/dir" --mount "tmpfs,x,$work/mount" 2>/dev/null
document rbxj.1 list list
document rbxj-replay.1 dry replay --dry-run
rmdir "$work/dir" && mkdir "$work/dir" # another one: it is left
document rbxj-replay.1 replay replay
document rbxj-health.1 health health
document rbxj-health.1 clean health --verify-clean
rm -r "$work/dir"
document rbxj-audit.1 audit --config "$work/rbxj.conf" audit
document rbxj-audit.1 adopted --config "$work/rbxj.conf" audit --adopt --yes
document rbxj.1 forget forget --box box --seq 2 --reason test
document rbxj.1 error forget --box box --seq 2 --reason test
document rbxj-reset.1 reset reset --yes
document rbxj-incidents.1 incidents incidents
document rbxj-forensics.1 forensics forensics
document rbxj-forensics.1 salvaged forensics --salvage "$work/salvaged"

python3 -I -S "$top/tests/man.py" "$top" "$rbxj" "$(realpath "${RBXJ_BUILD:-$top/build}")" "$work/documents"
exit
