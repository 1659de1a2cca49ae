#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A file system without room: full.sh [RBXJ]. LMDB writes to its lock file, and we to the gate, through a map: what there is
# no room for then ends the process by SIGBUS.
. "${0%/*}/lib.bash"

fresh
mkdir "$shm/small"
mount -t tmpfs -o size=20m small "$shm/small"
mkdir -m 0700 "$shm/small/state"
export RBXJ_STATE_DIR=$shm/small/state
fill() { dd if=/dev/zero of="$1/fill" bs=4k 2>/dev/null || true; }
says_so() { one_line && err_has "No space left on device"; }

# The next boot finds a lock file whose pages never reached the disk.
RBXJ_DURABILITY=always crash a --tmpdir "$work/a" 2>/dev/null
rm -rf "$work"/run/*
rm "$shm/small/state/journal/lock.mdb"
truncate -s 65800 "$shm/small/state/journal/lock.mdb"
fill "$shm/small"
call replay --boot
check "full state directory: the reaper ends by itself" is "$status" 6
check "full state directory: says why" says_so
check "full state directory: nothing is undone" there "$work/a"
call list
check "full state directory: list works" is "$status" 0
rm "$shm/small/fill"
call replay --boot
check "with room again: undone" is "$status" 0
check "with room again: gone" gone "$work/a"

# A runtime directory without room for a boot journal, whatever is missing of it.
fresh
mkdir "$shm/run"
mount -t tmpfs -o size=20m run "$shm/run"
chmod 0700 "$shm/run"
export RBXJ_RUNTIME_DIR=$shm/run
broken=
for left in 0 4 8 12 16 24 32 64 72 80 128; do
    rm -rf "$shm/run"/*
    fill "$shm/run"
    [ "$left" = 0 ] || truncate -s $((20 * 1024 * 1024 - left * 1024)) "$shm/run/fill"
    call run --box b --tmpdir "$work/b" -- true
    [ "$status" = 125 ] && says_so || broken="$broken $left:$status"
done
check "full runtime directory: a box is refused, and nobody dies" is "$broken" ""
rm -rf "$shm/run"/*
call run --box b --tmpdir "$work/b" -- true
check "with room again: it runs" is "$status" 0
umount "$shm/run" "$shm/small"
finish
