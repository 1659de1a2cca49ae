#!/bin/bash
. "${0%/*}/lib.bash"
health() { call health --json "$@"; }
fresh
start 4 --cgroup "$group/4" --tmpdir "$work/tmp4"
keeper=$supervisor
RBXJ_STATE_DIR=$work/state2 RBXJ_RUNTIME_DIR=$work/run2
mkdir -m 0700 "$work/state2" "$work/run2"
"$rbxj" run --box other --cgroup "$group/other" -- sh -c '(setsid sleep 300 & echo $! >'$work'/d) ; exec sleep 200' & other=$!
until_true [ -s "$work/d" ]; sleep 0.3
RBXJ_STATE_DIR=$work/state RBXJ_RUNTIME_DIR=$work/run
ps -o pid,ppid,args --forest -e
health; cat $work/out
kill -TERM "$other" "$keeper"
wait
fresh
echo === J: tmpdir intended later, in the tmpfs of the box
mkdir $work/box; sleep 300 & s=$!
mkfifo $work/in; "$rbxj" hook <$work/in >$work/rep & exec 5>$work/in
echo '{"op":"begin","box":"j","pid":'$s',"plan":[{"kind":"mount","target":"'$work/box'","fstype":"tmpfs","source":"rustbox"}]}' >&5
until_true [ "$(wc -l <$work/rep)" = 1 ]; sleep .2
mount -t tmpfs -o size=1m rustbox $work/box
echo '{"op":"acquired","box":"j","seq":1}' >&5; sleep .3
echo '{"op":"intend","box":"j","resource":{"kind":"tmpdir","path":"'$work/box/t'"}}' >&5; sleep .3
mkdir $work/box/t;echo '{"op":"acquired","box":"j","seq":2}' >&5; sleep .3
cat $work/rep
dd if=/dev/zero of=$work/box/t/x bs=64k 2>/dev/null
health; cat $work/out
health --recover; cat $work/out
kill -KILL $s; exec 5>&-; umount $work/box
