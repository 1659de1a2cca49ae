#!/bin/bash
. "${0%/*}/lib.bash"
t() { local s=$(date +%s%N); "$@" >/dev/null 2>&1; echo "$(( ($(date +%s%N)-s)/1000000 )) ms: ${*:0:6}" | cut -c1-150; }
O=/tmp/review-old/build/rbxj
fresh
python3 -c '
import os,time,sys
for i in range(3000):
    if os.fork()==0:
        time.sleep(600); os._exit(0)
open(sys.argv[1],"w").write("x")
time.sleep(600)' $work/pids & P=$!
until_true [ -s $work/pids ]
t "$rbxj" health; t $O health
kill -KILL $P;sleep 1
n=$1
fresh
python3 ${0%/*}/x_boxes.py $rbxj $group $work ${N:-300} 1 ${Z:-500} & s=$!
for i in $(seq 60); do [ -s $work/up ] || sleep 1; done
 t "$rbxj" health; t $O health
 "$rbxj" health
 kill -KILL $s; sleep 1
 t "$rbxj" health; t $O health
strace -f -c -w -o $work/sc $rbxj health >/dev/null; head -12 $work/sc; strace -f -r -o $work/sr $rbxj health > /dev/null; awk "\$2>0.02" $work/sr | head; wc -l $work/sr; cp $work/sr /tmp/review-sr; which perf
 t "$rbxj" replay
 "$rbxj" health
