#!/bin/bash
. "${0%/*}/lib.bash"
health() { call health --json "$@"; }
eval "$(sed -n '/^comes()/,/^in_group/p' "${0%/*}/orphans.sh" | sed '/^counted/d')"
fresh
escape 1
die
timeout 60 strace -f -o $work/trace -e trace=unlinkat -e inject=unlinkat:signal=SIGKILL:when=1 "$rbxj" replay
echo "rc $?"; tail -3 $work/trace; cat $work/run/orphans; echo
call replay --json; cat $work/out $work/err
health; cat $work/out
