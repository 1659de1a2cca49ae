#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The supervisor: as many boxes as rig.boxes= says run until the end, rig.churn= more begin and end all the time, each
# with rig.files= files in its directory.
boxes=0 churn=0 files=10
for word in $(cat /proc/cmdline); do
    case $word in
    rig.boxes=*) boxes=${word#*=} ;;
    rig.churn=*) churn=${word#*=} ;;
    rig.files=*) files=${word#*=} ;;
    esac
done
ls /srv/rig >/run/rig/at-start
rbxj --json list >/run/rig/list-at-start.json

# shellcheck disable=SC2016
payload='cd "/srv/rig/$1.tmp" && seq "$2" | xargs touch; cd /; : >"/run/rig/up-$1"; exec sleep "$3"'
box() {
    rbxj run --box "$1" --lock "/srv/rig/$1.lock" --cgroup "/sys/fs/cgroup/rig-$1" \
        --mount "tmpfs,scratch,/srv/rig/$1.mnt,size=1m" --tmpdir "/srv/rig/$1.tmp" -- \
        sh -c "$payload" sh "$1" "$files" "$2"
}
for ((i = 1; i <= boxes; i++)); do box "steady-$i" inf & done
for ((i = 1; i <= churn; i++)); do
    while :; do box "churn-$i" "0.$((RANDOM % 9))" || sleep 1; done &
done
[ $((boxes + churn)) -gt 0 ] || exit 0
wait
