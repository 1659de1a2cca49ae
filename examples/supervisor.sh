#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A supervisor in shell, through `rbxj hook`: it takes its resources itself, and tells the hook.
#
#     supervisor.sh BOX BASE_DIR CGROUP_PARENT CMD [ARG...]
#
# Kill it at any moment, with SIGKILL: `rbxj replay` puts everything back as it was. (A shell takes things by way of
# child processes. Where it is killed, the mkdir or mount that it has just started still does its work: let the replay
# come after that.)
set -u

complain() { echo "supervisor: $*" >&2; return 1; }
die() { complain "$@"; exit 1; }

[ $# -ge 4 ] || die "usage: $0 BOX BASE_DIR CGROUP_PARENT CMD [ARG...]"
box=$1 lock=$2/$1.lock cgroup=$3/$1 tmpdir=$2/$1 root=$2/$1/root
shift 3
case $lock$cgroup in
*[\"\\[:cntrl:]]*) die "paths must fit into JSON as they are" ;;
esac

# `rbxj hook`: a line of JSON in, a line of JSON back. Our child, so that it ends with us.
coproc HOOK { exec "${RBXJ:-rbxj}" hook; }

# ask LINE: $reply, when the request is as durable as promised. Go on only when this succeeded.
ask() {
    { printf '%s\n' "$1" >&"${HOOK[1]}" && read -r reply <&"${HOOK[0]}"; } 2>/dev/null ||
        die "the hook has died; rbxj replay cleans up" # take nothing more
    [[ $reply == *'"ok":true'* ]] || complain "$reply"
}
acquired() { ask "{\"op\":\"acquired\",\"box\":\"$box\",\"seq\":$1}"; }

# Descriptor 9 holds the lock. No child may have it: it would hold the lock beyond our death.
without_lock() { "$@" 9>&-; }

take_lock() {
    exec 9<>"$lock" || return
    flock --nonblock 9 || { complain "$lock: somebody holds it"; return 1; }
    [ "$lock" -ef /proc/self/fd/9 ] || { complain "$lock: was replaced while it was taken"; return 1; }
    # With the stamp in front it is known as ours, also when we die before "acquired".
    printf '{"rbxj":"%s","pid":%d,"box_id":"%s"}' "$incarnation:1" $$ "$box" >/proc/self/fd/9
}

# Takes each, says "acquired", and only then puts anything into it.
acquire() {
    take_lock && acquired 1 &&
        without_lock mkdir "$cgroup" && acquired 2 &&
        without_lock mkdir -m 0700 "$tmpdir" && acquired 3 &&
        without_lock mkdir "$root" &&
        without_lock mount -t tmpfs -o size=16m "$source" "$root" && acquired 4
}

# run CMD...: runs it inside the cgroup. A process has no pid before it exists. So it is made waiting: it becomes the
# command when it reads a line, and exits at end of file, that is when we die.
run() {
    local go pid
    exec {go}> >(exec 9>&-; exec sh -c 'read -r go && exec "$@" </dev/null' sh "$@")
    pid=$!
    ask "{\"op\":\"intend\",\"box\":\"$box\",\"resource\":{\"kind\":\"process\",\"pid\":$pid}}" || return
    echo $pid >"$cgroup/cgroup.procs" || return
    echo go >&"$go"
    exec {go}>&-
    wait $pid
}

# First the whole plan, in the order of acquisition: they get the numbers 1 to 4. When this is answered the journal has
# it.
ask "{\"op\":\"begin\",\"box\":\"$box\",\"pid\":$$,\"plan\":[\
{\"kind\":\"lock\",\"path\":\"$lock\"},\
{\"kind\":\"cgroup\",\"path\":\"$cgroup\"},\
{\"kind\":\"tmpdir\",\"path\":\"$tmpdir\"},\
{\"kind\":\"mount\",\"target\":\"$root\",\"fstype\":\"tmpfs\",\"source\":\"box\"}]}" || exit 1
[[ $reply =~ \"incarnation\":\"([0-9]+)\" ]] && incarnation=${BASH_REMATCH[1]}
source=rbxj:$incarnation:4 # by which the mount is known as ours

acquire && run "$@"
status=$?

# Whatever has failed: what was taken is given back, newest first, and the box ends when nothing is left.
ask "{\"op\":\"undo\",\"box\":\"$box\"}" && ask "{\"op\":\"end\",\"box\":\"$box\"}" ||
    die "something is left; rbxj list shows what, and why"
exit $status
