#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What the health of a worker rests on besides its boxes: what bears their mark, a verification both ways, room:
# evidence.sh [RBXJ]
. "${0%/*}/lib.bash"

health() { call health --json "$@"; }
healthy() { is "$status" 0 && json 'd["status"] == "healthy" and d["can_accept_submissions"] is True'; }
# No new box.
refused() { call run --box new --tmpdir "$work/new" -- true; is "$status" 125 && err_has quarantined && gone "$work/new"; }
healthy_now() { health && healthy; }
snap() { find "$work/state" "$work/run" -printf '%p %s %T@\n' | sort; }
cgroups=$([ -n "$group" ] && echo 1 || echo 0)
own_patterns "$work/own.conf"
verify() { call health --verify-clean --json --config "$work/own.conf"; }

# ---- undone, but not as it was before ----

fresh
mkdir "$work/mnt"
crash 15 --tmpdir "$work/t15" --mount "tmpfs,none,$work/mnt"
call forget --box 15 --seq 2 --reason "a person took it for gone"
health --recover
check "what bears the mark of an undone box: quarantined" is "$status" 2
check "the reason" json 'd["quarantine_reason"] == "baseline_equivalence_failed" and d["stale_boxes"] == 0
    and "box 15 was undone, but the mount on '"$work/mnt"' bears its mark" in d["quarantine_detail"]'
check "it is left alone" mounted "$work/mnt"
check "no new box" refused
umount "$work/mnt"
health --recover
check "a recovery does not release it" is "$status" 2
health --unquarantine --reason "unmounted"
check "a person does" healthy
if [ -n "$group" ]; then
    crash 16 --tmpdir "$work/t16" --cgroup "$group/16"
    call forget --box 16 --seq 2 --reason "a person took it for gone"
    health --recover
    check "a cgroup's mark counts, too" json 'd["quarantine_reason"] == "baseline_equivalence_failed"
        and "the cgroup '"$group"'/16 bears its mark" in d["quarantine_detail"]'
    rmdir "$group/16"
    health --unquarantine --reason "removed"
fi
# Whoever has a user namespace of his own calls what he mounts there as he likes, and reads in a box how that is called.
mkfifo "$work/source"
exec 3<>"$work/source"
unshare --user --map-root-user --mount sh -c ': >"$1" && read -r source && mount -t tmpfs "$source" /mnt && : >"$2" &&
    exec sleep 120' sh "$work/apart" "$work/forged" <&3 3>&- &
stranger=$!
until_true there "$work/apart"
start 18 --mount "tmpfs,none,$work/mnt"
awk -v at="$work/mnt" '$2 == at { print $1 }' /proc/self/mounts >&3
exec 3>&-
check "a stranger has a mount with the mark of a box" until_true there "$work/forged"
kill -KILL "$supervisor"
wait "$supervisor" 2>/dev/null
health --recover
check "a mark that anybody can make quarantines nobody" healthy
kill "$stranger"
wait "$stranger" 2>/dev/null
crash 17 --tmpdir "$work/t17" --mount "tmpfs,none,$work/mnt" ${group:+--cgroup "$group/17"}
health --recover
check "nothing bears its mark: healthy" healthy
rmdir "$work/mnt"

# ---- verified both ways ----

fresh
mkdir -p "$work/boxes/a"
start both --tmpdir "$work/boxes/tmp-live" --lock "$work/boxes/a/lock" --mount "tmpfs,none,$work/boxes/tmp-live"
keeper=$supervisor
verify
check "what live boxes have is clean" is "$status" 0
mkdir "$work/boxes/tmp-nobody" "$work/boxes/b" "$work/boxes/mnt"
touch "$work/boxes/b/lock"
mount -t tmpfs none "$work/boxes/mnt"
[ -z "$group" ] || mkdir "$group/rbxj-own-${work##*.}-7"
verify
check "what is journaled nowhere is not" is "$status" 1
check "it is counted by kind" json 'd["clean"] is False and d["temp_dirs"] == 1 and d["locks"] == 1 and d["mounts"] == 1
    and d["cgroups"] == '"$cgroups"' and d["unjournaled"] == 3 + '"$cgroups"' and d["missing"] == 0'
before=$(snap)
verify
check "it changes nothing" is "$(snap)" "$before"
health
check "it makes nobody unhealthy: a name proves nothing" healthy
call health --verify-clean --config "$work/own.conf"
check "for people" out_has "unjournaled=$((3 + cgroups)) missing=0"
umount "$work/boxes/mnt"
rm -r "$work/boxes/tmp-nobody" "$work/boxes/b" "$work/boxes/mnt"
[ -z "$group" ] || rmdir "$group/rbxj-own-${work##*.}-7"
verify
check "without it: clean" is "$status" 0
umount "$work/boxes/tmp-live"
verify
check "what is journaled, and no longer there: not clean" is "$status" 1
check "it is missing" json 'd["missing"] == 1 and d["unjournaled"] == 0 and d["mounts"] == 0'
kill -TERM "$keeper"
wait "$keeper" 2>/dev/null
verify
check "its box is over: clean" is "$status" 0

# ---- room ----

# fill DIR: but for a few bytes.
fill() { dd if=/dev/zero of="$1/fill" bs=64k >"$work/dd" 2>&1; [ -s "$1/fill" ]; }
exhausted() { json 'd["exhausted_resources"] == 1 and "'"$1"'" in [e for e in d["evidence"] if e["kind"] == "exhausted_resource"][0]["message"]'; }

fresh
mkdir "$work/full" "$work/inodes"
mount -t tmpfs -o size=4m none "$work/full"
mount -t tmpfs -o size=4m,nr_inodes=100 none "$work/inodes"
start roomy --tmpdir "$work/full/t"
keeper=$supervisor
fill "$work/full"
health
check "a full box root: unhealthy" is "$status" 1
check "a full box root: named" exhausted "$work/full: 0% of its space is free"
check "a full box root: why" json 'd["status"] == "unhealthy" and d["last_cleanup_error"].startswith("resource_exhaustion: ")'
# What is counted and what is told of it are of one look: it reads once whether the worker is quarantined.
looks() { strace -f -qq -e trace=openat -o "$work/trace" "$rbxj" health "$@" >"$work/out" 2>"$work/err"; grep -c '/quarantined"' "$work/trace"; }
check "one look for all of it" is "$(looks --json)" 1
check "one look for all of it: and it is told" exhausted "$work/full: 0% of its space is free"
check "one look for people, too" is "$(looks)" 1
before=$(snap)
health --check
check "--check quarantines nobody" is "$status" 1
check "--check writes nothing" is "$(snap)" "$before"
call health
check "a full box root: for people" out_has "exhausted_resource: box root $work/full"
printf '[health]\nmin_free = 0%%\n' >"$work/conf"
health --config "$work/conf"
check "min_free = 0%: nobody asks" healthy
health --recover
check "--recover: quarantined for it" is "$status" 2
check "--recover: the reason" json 'd["quarantine_reason"] == "resource_exhaustion" and "min_free = 5%" in d["quarantine_detail"]'
check "--recover: the flag for units" there "$work/run/quarantined"
check "--recover: no new box" refused
health --recover
check "still full: still quarantined" is "$status" 2
call metrics
check "counted once" out_has 'rustbox_worker_quarantined_total{reason="resource_exhaustion"} 1'
check "its metric" out_has 'rbxj_exhausted_resources 1'
rm "$work/full/fill"
health
check "room again: a look releases nothing" is "$status" 2
health --recover
check "room again: released" healthy
check "room again: the flag is gone" gone "$work/run/quarantined" "$work/state/quarantine"
kill -TERM "$keeper"
wait "$keeper" 2>/dev/null

start few --tmpdir "$work/inodes/t"
keeper=$supervisor
(cd "$work/inodes" && for i in {1..100}; do : >"f$i" || break; done) 2>/dev/null
health
check "no inodes: unhealthy" is "$status" 1
check "no inodes: named" exhausted "$work/inodes: 0% of its inodes are free"
kill -TERM "$keeper"
wait "$keeper" 2>/dev/null
health
check "nothing of a box is there any more: nobody asks" healthy
umount "$work/inodes"

# an image on which boxes mount: full, as ever
mkdir "$work/full/proc"
fill "$work/full"
mount -o remount,ro "$work/full"
start image --mount "tmpfs,none,$work/full/proc"
keeper=$supervisor
health
check "read-only: has no room, and needs none" healthy
kill -TERM "$keeper"
wait "$keeper" 2>/dev/null
umount "$work/full"

# a box in the file system of another one, which is the payload's to fill
fresh
mkdir "$work/outer"
start outer --mount "tmpfs,none,$work/outer,size=1m"
keeper=$supervisor
printf '{"op":"begin","box":"inner","parent":"outer","pid":%d,"plan":[{"kind":"tmpdir","path":"%s"}]}\n' \
    $keeper "$work/outer/t" | "$rbxj" hook >"$work/replies"
check "a box in a box" grep -q '"ok":true' "$work/replies"
fill "$work/outer"
health
check "what a payload fills of its own says nothing about the worker" healthy
kill -TERM "$keeper"
wait "$keeper" 2>/dev/null
health --recover

fresh
mount -t tmpfs -o size=16m,mode=0700 none "$work/state"
healthy_now
fill "$work/state"
health
check "a full state directory" exhausted "state directory $work/state: 0% of its space is free"
umount "$work/state"
mount -t tmpfs -o size=16m,mode=0700 none "$work/run"
fill "$work/run"
health
check "a full runtime directory" exhausted "runtime directory $work/run: 0% of its space is free"
umount "$work/run"

# a journal whose map is full: intents are refused, and this says so before
fresh
printf '[journal]\nmap_size = 1M\npreallocate = 1M\n' >"$work/conf"
sleep 120 &
keeper=$!
for i in {1..4000}; do
    echo '{"op":"begin","box":"'"$i"'","pid":'$keeper',"plan":[{"kind":"tmpdir","path":"'"$work/journaled/$i"'"}]}'
done >"$work/requests"
mkdir "$work/journaled"
"$rbxj" --config "$work/conf" hook <"$work/requests" >"$work/replies"
check "the journal is full" grep -q journal_full "$work/replies"
health --config "$work/conf"
check "a full journal: unhealthy" is "$status" 1
check "a full journal: named" exhausted "boot journal: 0% of what its map may hold is free"
health
check "a larger map: healthy" healthy
kill "$keeper"
wait "$keeper" 2>/dev/null
health --recover --config "$work/conf"
check "nothing is in it: healthy" healthy
rm -r "$work/journaled"

# ---- nobody finds what keeps new boxes out between the look that ends a quarantine and its end ----

fresh
crash released --tmpdir "$work/released"
printf '[health]\nmin_free=100%%\n' >"$work/full.conf"
printf '[health]\nmin_free=0%%\n[journal]\ngate_timeout=10min\n' >"$work/conf"
call health --recover --config "$work/full.conf"
check "released: it was quarantined" is "$status" 2
exec {held}<"$work/state"
flock "$held" # whoever changes the quarantine waits for it
"$rbxj" health --recover --config "$work/conf" >"$work/recovered" 2>&1 </dev/null {held}<&- &
recovery=$!
# A replay would get into the way of its own: only once that is over, and it has the reaper's lock and keeps it, one is tried.
until_true no_record {held}<&-
inode=$(stat -c %i "$work/run/reaper.lock")
for ((i = 0, kept = 0; i < 1500 && kept < 100; i++)); do
    if grep -q ":$inode " /proc/locks; then kept=$((kept + 1)); else kept=0; fi
    sleep 0.02
done
check "released: it keeps the reaper's lock" is "$kept" 100
call replay --config "$work/conf" --wait=1 {held}<&-
check "released: no replay goes on meanwhile" is "$status" 5
exec {held}<&-
wait "$recovery"
check "released: healthy" is "$?" 0
check "released: the quarantine is over" gone "$work/state/quarantine" "$work/run/quarantined"
call replay --config "$work/conf"
check "released: replays go on" is "$status" 0

finish
