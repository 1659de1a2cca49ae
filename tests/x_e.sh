#!/bin/bash
. "${0%/*}/lib.bash"
fresh
python3 ${0%/*}/x_boxes.py $rbxj $group $work ${N:-1000} 1 0 & s=$!
for i in $(seq 100); do [ -s $work/up ] || sleep 1; done
kill -KILL $s; sleep 1
perf record -q -g -o $work/perf.data $rbxj replay >/dev/null 2>&1
perf report -i $work/perf.data --no-children -g none --stdio 2>/dev/null | grep -v "^#" | head -20
perf report -i $work/perf.data --children -g none --stdio 2>/dev/null | grep -E "replay_|look_at_all|orphans|teardown|aftermath|mark_|find_desc|processes_read|incident" | head -40
