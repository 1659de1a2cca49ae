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

# ---- health says before what a begin will meet ----

fresh
printf '[health]\nmin_free = 0%%\n' >"$work/conf" # no other reason to say so
snap() { find "$RBXJ_STATE_DIR" "$RBXJ_RUNTIME_DIR" -printf '%p %i %b %T@\n' 2>/dev/null; }
# foretell: what it says, and is then met: "yes 0", "no 125". Nothing is made by saying it.
foretell() {
    local before
    before=$(snap)
    call health --json --config "$work/conf"
    is "$(snap)" "$before" || return
    word=no
    ! json 'd["can_accept_submissions"] and d["status"] == "healthy"' || word=yes
    cp "$work/out" "$work/said"
    call run --config "$work/conf" --box b --tmpdir "$work/b" -- true
    met="$word $status"
}
# on DIR OPTIONS: foretells with a file system on DIR.
on() {
    rm -rf "$work/state"/* "$work/run"/*
    mount -t tmpfs -o "mode=0700,$2" small "$1"
    foretell
    umount "$1"
}
# foretold WHY [WORD]
foretold() {
    is "$met" "no 125" && cp "$work/said" "$work/out" && json 'd["status"] == "unhealthy"
    and d["escalate_reasons"] == ["unusable_journal"] and d["last_cleanup_error"].startswith("'"${2:-journal_unusable}"': ")
    and "'"$1"'" in d["last_cleanup_error"]'
}
for of in state run; do
    on "$work/$of" size=2m
    check "no room for a journal in $of: said before" foretold "/$of: the journal needs 4228 KiB there (see preallocate), and 2048 KiB are free"
    on "$work/$of" nr_inodes=4
    check "no inodes for a journal in $of: said before" foretold "/$of: the journal needs 4 inodes there, and 3 are free"
    on "$work/$of" ro
    check "nothing may be written in $of: said before" foretold "Read-only file system"
    on "$work/$of" size=5m,nr_inodes=5
    check "room for a journal in $of" is "$met" "yes 0"
    broken=
    for size in 4090 4150 4164 4172 4188 4220 4240; do
        on "$work/$of" size=${size}k
        case $met in
        "yes 0" | "no 125") ;;
        "no 0") [ $size -lt 4240 ] || broken="$broken $size:$met" ;; # a page more or less is not its affair
        *) broken="$broken $size:$met" ;;
        esac
    done
    check "however much room there is in $of, a begin that is promised is let in" is "$broken" ""
done
mkdir "$shm/both"
mount -t tmpfs -o size=6m small "$shm/both"
mkdir -m 0700 "$shm/both/state" # RUNTIME is made
export RBXJ_STATE_DIR=$shm/both/state RBXJ_RUNTIME_DIR=$shm/both/run
foretell
check "room for one of two journals: said before" foretold "the journal needs 8392 KiB there"
mount -o remount,size=9m "$shm/both"
foretell
check "room for both" is "$met" "yes 0"
mount -o remount,ro "$shm/both"
foretell
check "nothing may be written to journals that are there: said before" foretold "Read-only file system"
umount "$shm/both"
fresh
export RBXJ_RUNTIME_DIR=$work/none/run
foretell
check "a runtime directory that can't be made: said before" foretold "$work/none/run" journal_missing

# What does not hang on room.
fresh
mkdir "$work/open" && mv "$work/state" "$work/open" && chmod 0777 "$work/open"
RBXJ_STATE_DIR=$work/open/state foretell
check "a state directory that others could replace: said before" foretold "writable by others and not sticky"
RBXJ_STATE_DIR=$work/open/state call list
check "which may be looked at" is "$status" 0
chmod 0755 "$work/open"
mv "$work/open/state" "$work"
elsewhere() {
    unshare --pid --fork "$rbxj" "$@" >"$work/out" 2>"$work/err"
    status=$?
    err_has "pid namespace"
}
check "the /proc of another pid namespace: why nobody knows" elsewhere health
check "the /proc of another pid namespace: unknown" is "$status" 3
crash 7 --tmpdir "$work/7"
check "the /proc of another pid namespace: why a box can't be judged" elsewhere list
call replay
check "which its own can" is "$status" 0

# What is removed before a journal is made makes room for it.
fresh
mount -t tmpfs -o mode=0700,size=5m small "$work/run"
call run --box b --tmpdir "$work/b" -- true
call replay # the disk has its end, too
mv "$work"/run/journal-* "$work/run/journal-0123456789abcdef0123456789abcdef" # of another boot
foretell
check "where another boot's journal is: a begin is let in, and that is said" is "$met" "yes 0"
check "which took its room" gone "$work/run/journal-0123456789abcdef0123456789abcdef"
umount "$work/run"

# A journal that is there and has no room to grow (K26).
fresh
printf '[journal]\npreallocate = 1M\n' >>"$work/conf"
mount -t tmpfs -o mode=0700,size=2m small "$work/run"
sleep 120 &
keeper=$!
for i in {1..1500}; do
    echo '{"op":"begin","box":"'"$i"'","pid":'$keeper',"plan":[{"kind":"tmpdir","path":"'"$shm/$i"'"}]}'
done >"$work/requests"
RBXJ_DURABILITY=resource "$rbxj" --config "$work/conf" hook <"$work/requests" >"$work/replies"
check "a journal takes boxes, until it can't grow" grep -q '"ok":true' "$work/replies"
check "... and not one more" grep -q '"code":"disk_full"' "$work/replies"
RBXJ_DURABILITY=resource foretell
check "no room for one more box: said before" foretold "/run: the journal needs"
kill "$keeper"
wait "$keeper" 2>/dev/null
call replay --config "$work/conf"
foretell
check "with room again: it runs, and that is said" is "$met" "yes 0"
umount "$work/run"
finish
