#!/bin/bash
. "${0%/*}/lib.bash"
health() { call health --json "$@"; }
echo === C: mount target on a full read-only file system
fresh
mkdir $work/ro $work/at
mount -t tmpfs -o size=1m none $work/ro; mkdir $work/ro/proc
dd if=/dev/zero of=$work/ro/x bs=64k 2>/dev/null
mount -o remount,ro $work/ro
start c --mount tmpfs,none,$work/ro/proc
health; cat $work/out
kill -TERM $supervisor; wait
