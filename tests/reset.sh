#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# rbxj reset from outside: reset.sh [RBXJ]
. "${0%/*}/lib.bash"

fresh
# What systemctl was asked, with a service manager that does as it is told.
mkdir "$work/bin"
cat >"$work/bin/systemctl" <<EOF
#!/bin/sh
echo "\$*" >>"$work/asked"
[ ! -e "$work/refuses" ]
EOF
chmod +x "$work/bin/systemctl"
PATH=$work/bin:$PATH
exec 3>&2 2>/dev/null # bash tells of each process that is killed
asked() { cat "$work/asked" 2>/dev/null; rm -f "$work/asked"; }
dead() { until_true not_lives "$1"; }
not_lives() { ! lives "$1"; }

call reset
check "asks on a terminal only" is "$status" 2
check "asks on a terminal only: one line" one_line
call reset --yes --service ""
check "a unit has a name" is "$status" 2
call reset --yes
check "nothing there: exits 0" is "$status" 0

asked >/dev/null
(env --ignore-signal=CHLD "$rbxj" reset --yes --service box.service) >"$work/out" 2>"$work/err"
check "SIGCHLD ignored by who calls it: exits 0" is $? 0
check "SIGCHLD ignored: the service is started again" is "$(asked)" $'stop -- box.service\nstart -- box.service'

# ---- two live boxes, a dead one, one whose lock a stranger keeps ----

start a --lock "$work/a.lock" --tmpdir "$work/a" ${group:+--cgroup "$group/a"}
a=$supervisor
start b --tmpdir "$work/b" --mount tmpfs,b,"$shm/b"
b=$supervisor
crash c --tmpdir "$work/c"
crash d --lock "$work/d.lock" --tmpdir "$work/d"
# a lock that a process inherited which is not of the box
start e --lock "$work/e.lock"
e=$supervisor
for fd in /proc/"$e"/fd/*; do
    [ "$(readlink "$fd")" = "$work/e.lock" ] && lock_fd=${fd##*/}
done
python3 -I -S - "$e" "$lock_fd" "$work/keeper" <<'PY' &
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
pidfd = libc.syscall(434, int(sys.argv[1]), 0)
fd = libc.syscall(438, pidfd, int(sys.argv[2]), 0)
open(sys.argv[3] + ".new", "w").write(str(fd))
os.rename(sys.argv[3] + ".new", sys.argv[3])
signal.pause()
PY
keeper=$!
until_true test -e "$work/keeper"
kill -KILL "$e"
wait "$e" 2>/dev/null
call list --json
check "before: e is held" json '[b["state"] for b in d["boxes"] if b["box"] == "e"] == ["held"]'
touch "$work/refuses"
call reset --yes --service box.service
check "the service does not stop: exits 6" is "$status" 6
check "the service does not stop: nothing was killed" lives "$a"
check "the service does not stop: no quarantine" test ! -e "$work/state/quarantine"
call reset --yes --service box.service --json
check "the service does not stop: JSON says so" json 'd["error"]["message"] == "systemctl stop box.service failed"'
rm "$work/refuses"
asked >/dev/null
call reset --yes --service box.service --config "$work/no.conf"
check "a mistake in the configuration: exits 2" is "$status" 2
check "a mistake in the configuration: the service was not stopped" is "$(asked)" ""

call reset --yes --service box.service --json
check "exits 0" is "$status" 0
check "healthy" json 'd["status"] == "healthy" and d["quarantine_reason"] is None'
check "three were killed" json 'd["killed"] == 3'
check "all boxes undone" json 'd["replay"]["summary"]["boxes"] == 5 and d["replay"]["summary"]["left"] == 0'
check "the service was stopped and started" is "$(asked | tr '\n' ';')" "stop -- box.service;start -- box.service;"
check "and told" json 'd["stopped"] and d["started"] and d["service"] == "box.service"'
check "the supervisors are dead" dead "$a"
check "the supervisors are dead" dead "$b"
check "who kept a lock is dead" dead "$keeper"
check "nothing is left" gone "$work/a" "$work/b" "$work/c" "$work/d" "$work/a.lock" "$work/d.lock" "$work/e.lock" "$shm/b"
check "no record is left" no_record
own_patterns "$work/own.conf"
call health --verify-clean --config "$work/own.conf"
check "verified clean" is "$status" 0
call run --box a --tmpdir "$work/a" -- true
check "boxes begin again" is "$status" 0
call incidents --json
check "an incident tells of it" json '[i["executions"] for i in d["incidents"] if i["procedure"] == "reset"] == [5]'

# ---- something is left: quarantined, the service not started ----

crash f --tmpdir "$work/f"
rmdir "$work/f" && mkdir "$work/f" && touch "$work/f/foreign"
call reset --yes --service box.service
check "left: exits 1" is "$status" 1
check "left: quarantined" test -e "$work/state/quarantine"
check "left: the service is not started" is "$(asked | tr '\n' ';')" "stop -- box.service;"
call run --box g --tmpdir "$work/g" -- true
check "left: no new boxes" is "$status" 125
call forget --box f --seq 1 --reason test
call reset --yes
check "again: exits 0, and the quarantine of a reset is over" is "$status" 0
rm -rf "$work/f"

# ---- what a person has set stays ----

crash h --tmpdir "$work/h"
call health --quarantine --reason "the disk is bad"
call reset --yes --service box.service
check "a quarantine by hand: exits 1" is "$status" 1
check "a quarantine by hand: undone all the same" gone "$work/h"
check "a quarantine by hand: the service is not started" is "$(asked | tr '\n' ';')" "stop -- box.service;"
call health --json
check "a quarantine by hand: stays" json 'd["quarantine_detail"] == "the disk is bad"'
call health --unquarantine --reason test

# ---- and so does what is set while a reset is at it ----

# another reaper, at work until $work/go is there
hold_reaper() {
    python3 -I -S - "$work" <<'PY' &
import fcntl, os, sys, time
f = open(sys.argv[1] + "/run/reaper.lock", "w")
fcntl.lockf(f, fcntl.LOCK_EX)
open(sys.argv[1] + "/held", "w")
while not os.path.exists(sys.argv[1] + "/go"):
    time.sleep(0.02)
PY
    until_true test -e "$work/held"
    "$rbxj" reset --yes >"$work/out" 2>"$work/err" </dev/null &
    resetting=$!
    until_true test -e "$work/state/quarantine"
}
let_reaper_go() {
    touch "$work/go"
    wait "$resetting"
    status=$?
    rm -f "$work/go" "$work/held"
}
hold_reaper
"$rbxj" health --quarantine --reason "the fan is bad" 2>/dev/null
let_reaper_go
check "by hand, meanwhile: exits 1" is "$status" 1
call health --json
check "by hand, meanwhile: stays" json 'd["quarantine_detail"] == "the fan is bad"'
call health --unquarantine --reason test
crash i --tmpdir "$work/i"
hold_reaper
damage() {
    printf '%0128d' 0 | dd of="$work/state/journal/data.mdb" bs=1 seek=16 conv=notrunc status=none
    printf '%0128d' 0 | dd of="$work/state/journal/data.mdb" bs=1 seek=4112 conv=notrunc status=none
}
damage
let_reaper_go
check "damaged meanwhile: exits 3" is "$status" 3
check "damaged meanwhile: that is the reason now" grep -q journal_corruption "$work/state/quarantine"
call reset --yes
check "damaged meanwhile: no reset ends that" grep -q journal_corruption "$work/state/quarantine"
rm -rf "$work/i"
fresh
crash i --tmpdir "$work/i"
damage
call reset --yes
check "damaged before: exits 3" is "$status" 3
check "damaged before: quarantined for it" grep -q journal_corruption "$work/state/quarantine"
check "damaged before: nothing is undone" test -d "$work/i"
rm -rf "$work/i"
fresh

# ---- of which nobody knows whether it lives: left alone ----

# a supervisor in a pid namespace of its own, journaled through the hook: it holds its lock, and no record lock
cat >"$work/far" <<'EOF'
coproc hook { exec "$rbxj" hook; }
echo '{"op":"begin","box":"far","pid":'$$',"plan":[{"kind":"lock","path":"'"$work"'/far.lock"}]}' >&${hook[1]}
read -r <&${hook[0]}
exec 9<>"$work/far.lock"
flock -n 9
echo '{"pid":'$$',"box_id":"far"}' >"$work/far.lock"
echo '{"op":"acquired","box":"far","seq":1}' >&${hook[1]}
read -r <&${hook[0]}
touch "$work/far.up"
sleep 120 # the hook stays: who has the journals open in a container is not of an earlier life of it
:
EOF
not_hooked() { ! pgrep -f "$rbxj hook" >/dev/null; }
rbxj=$rbxj work=$work unshare --pid --fork --kill-child --mount-proc bash "$work/far" &
far=$!
until_true test -e "$work/far.up"
call list --json
check "unknown: it is" json '[b["state"] for b in d["boxes"]] == ["unknown"]'
call reset --yes
check "unknown: exits 1" is "$status" 1
check "unknown: nobody was killed" out_has "0 processes killed"
check "unknown: it lives" lives "$(pgrep -P "$far")"
check "unknown: and has its lock" there "$work/far.lock"
kill -KILL "$(pgrep -f "$rbxj hook")"
until_true not_hooked
call list --json
check "unknown: and still is when nobody has the journals open" json '[b["state"] for b in d["boxes"]] == ["unknown"]'
call reset --yes
check "unknown: still lives" lives "$(pgrep -P "$far")"
kill -KILL "$far"
wait "$far" 2>/dev/null
call replay --box far --assume-dead --reason test
call health --unquarantine --reason test
rm -f "$work/far.lock"

# ---- not from inside a box ----

start beside --tmpdir "$work/beside"
"$rbxj" run --box inside --tmpdir "$work/inside" -- "$rbxj" reset --yes >"$work/out" 2>"$work/err" </dev/null
check "inside a box: exits 5" is "$?" 5
check "inside a box: says why" err_has "a parent of this process"
check "inside a box: nobody is killed" lives "$supervisor"
check "inside a box: nothing is changed" gone "$work/state/quarantine"
call reset --yes
check "from outside it is done" is "$status" 0

# ---- another reaper is at a box, and has its lock: waited for, not killed ----

crash r --lock "$work/r.lock" --tmpdir "$work/r"
inode=$(stat -c %i "$work/r.lock")
seq 40000 | (cd "$work/r" && xargs touch)
"$rbxj" replay >/dev/null 2>&1 </dev/null &
reaper=$!
has_flock() { grep -q "FLOCK.*:$inode " /proc/locks || ! lives $reaper; }
until_true has_flock
kill -STOP $reaper
check "a reaper at work: it has the lock" grep -q "FLOCK.*:$inode " /proc/locks
"$rbxj" reset --yes >"$work/out" 2>"$work/err" </dev/null &
resetting=$!
until_true test -e "$work/state/quarantine"
sleep 0.5
kill -CONT $reaper
wait $reaper
check "a reaper at work: came to its end" is $? 0
wait $resetting
check "a reaper at work: exits 0" is $? 0
check "a reaper at work: nobody was killed" out_has "0 processes killed"

# ---- killed half-way ----

for i in {1..30}; do
    start k --tmpdir "$work/k" --lock "$work/k.lock" || break
    timeout -s KILL "0.0$((RANDOM % 40 + 1))" "$rbxj" reset --yes >/dev/null 2>&1 </dev/null
    call reset --yes
    [ "$status" = 0 ] && gone "$work/k" "$work/k.lock" && [ ! -e "$work/state/quarantine" ] || { bad "killed at round $i"; break; }
    wait "$supervisor" 2>/dev/null
done
[ "$i" = 30 ] && ok "killed half-way, and run again: 30 times"

# ---- no room on the disk of the state directory: the last resort makes some ----

fresh
mkdir "$work/disk"
mount -t tmpfs -o mode=0700,size=16m small "$work/disk"
mkdir -m 0700 "$work/disk/state"
RBXJ_STATE_DIR=$work/disk/state crash full --tmpdir "$work/disk/box"
head -c 100M /dev/zero >"$work/disk/box/much" 2>"$work/err"
RBXJ_STATE_DIR=$work/disk/state call reset --yes
check "no room: exits 0" is "$status" 0
check "no room: it is undone" gone "$work/disk/box"
check "no room: new boxes are let in again" gone "$work/disk/state/quarantine" "$work/run/quarantined"
umount "$work/disk"

finish
