#!/bin/bash
. "${0%/*}/lib.bash"
t() { local s=$(date +%s%N); "$@" >$work/tout 2>&1; echo "rc $? $(( ($(date +%s%N)-s)/1000000 )) ms: ${*:0:6}" | cut -c1-150;head -c 300 $work/tout; }
fresh
sleep 300 & s=$!
python3 -c '
import os,sys,time
n=int(sys.argv[1]); root=os.fork()
if root==0:
    for i in range(n):
        if os.fork(): time.sleep(400); os._exit(0)
    open(sys.argv[2],"w").write("x"); time.sleep(400); os._exit(0)
open(sys.argv[2]+".pid","w").write(str(root)); time.sleep(400)' ${D:-800} $work/chain & c=$!
until_true [ -s $work/chain ]; until_true [ -s $work/chain.pid ]
r=$(cat $work/chain.pid)
printf '{"op":"begin","box":"3","pid":%d,"plan":[]}\n{"op":"intend","box":"3","resource":{"kind":"process","pid":%d}}\n{"op":"acquired","box":"3","seq":1}\n' $s $r | "$rbxj" hook >/dev/null
kill -KILL $s
t $rbxj health
t $rbxj replay
wc -c $work/run/orphans
kill -KILL $c
