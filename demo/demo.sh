#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Three boxes, three supervisors killed with SIGKILL, and what rbxj makes of it: demo.sh [RBXJ]
# Everything is in a scratch directory and a cgroup of its own. Exit status 0 only if nothing is left at the end.
# Without root it runs in a user namespace, and leaves out what can't be had there.
set -eu

rbxj=$(realpath "${1:-${RBXJ:-build/rbxj}}")
[ -x "$rbxj" ] || { echo "demo: $rbxj is not there; build it with 'make', or name it: demo.sh RBXJ" >&2; exit 2; }

if [ "$(id -u)" != 0 ]; then
    echo "Not root: going on in a user namespace."
    exec unshare --user --map-root-user --mount "$0" "$rbxj"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/rbxj-demo.XXXXXX")
group=
supervisors=

say() { printf '\n== %s\n' "$*"; }
show() { printf '$ rbxj %s\n' "$*"; "$rbxj" "$@"; }

# Is it still the payload of that box, and not a zombie that nobody has reaped?
lives() {
    awk -v name="rbxj-demo-$2" '$1 == "Name:" { ours = $2 == name } $1 == "State:" { dead = $2 ~ /[ZX]/ }
                                END { exit !(ours && !dead) }' "/proc/$1/status" 2>/dev/null
}

# For a demo that fails half-way: takes away what it made itself, and only that.
# shellcheck disable=SC2317
clean() {
    trap - EXIT
    set +e
    for pid in $supervisors; do kill -KILL "$pid" 2>/dev/null; done
    wait 2>/dev/null
    for box in 1 2 3; do
        pid=$(cat "$work/payload.$box" 2>/dev/null)
        [ -z "$pid" ] || ! lives "$pid" "$box" || kill -KILL "$pid"
        umount "$work/box/$box/root" 2>/dev/null
    done
    if [ -n "$group" ]; then
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            rmdir "$group"/box-* "$group" 2>/dev/null
            [ -d "$group" ] || break
            sleep 0.1
        done
        [ ! -d "$group" ] || echo "demo: $group could not be removed" >&2
    fi
    if awk -v at="$work/" 'index($2, at) == 1 { found = 1 } END { exit !found }' /proc/self/mounts; then
        echo "demo: something is still mounted below $work: left as it is" >&2
    else
        rm -rf "$work"
    fi
}
trap clean EXIT
trap 'exit 1' HUP INT TERM

# A cgroup of the demo's own in which processes can be put, or none.
find_group() {
    # shellcheck disable=SC2013
    for root in $(awk '$3 == "cgroup2" { print $2 }' /proc/self/mounts) \
        $(awk '$3 == "cgroup" && $4 ~ /(^|,)pids(,|$)/ { print $2 }' /proc/self/mounts); do
        group=$root/rbxj-demo.$$
        mkdir "$group" 2>/dev/null || continue
        if mkdir "$group/probe" 2>/dev/null &&
            sh -c 'echo $$ >"$1/cgroup.procs"' sh "$group/probe" 2>/dev/null; then
            for _ in 1 2 3 4 5; do rmdir "$group/probe" 2>/dev/null && return; sleep 0.1; done
        fi
        rmdir "$group/probe" "$group" 2>/dev/null || true
    done
    group=
    echo "No cgroup can be made here: left out."
}

start_box() {
    box=$1 dir=$work/box/$1
    mkdir -p "$dir"
    set -- --box "$box" --lock "$dir/lock"
    [ -z "$group" ] || set -- "$@" --cgroup "$group/box-$box"
    set -- "$@" --mount "tmpfs,demo,$dir/root,size=1m" --tmpdir "$dir/tmp" --
    # shellcheck disable=SC2016
    set -- "$@" sh -c 'echo data >"$1/root/file"; mkdir -p "$1/tmp/a/b"; echo data >"$1/tmp/a/b/file"
                       printf "rbxj-demo-$2" >/proc/$$/comm; echo $$ >"$3"; read -r never <"$4"' \
        sh "$dir" "$box" "$work/payload.$box" "$work/fifo"
    printf '$ rbxj run'
    for word; do case $word in sh) echo ' sh ... &'; break ;; *) printf ' %s' "$word" ;; esac; done
    "$rbxj" run "$@" </dev/null &
    supervisors="$supervisors $!"
    for _ in $(seq 100); do
        [ ! -s "$work/payload.$box" ] || return 0
        sleep 0.1
    done
    echo "demo: box $box did not start" >&2
    exit 1
}

# What of the boxes is on the system; silent when there is nothing.
look() {
    for box in 1 2 3; do
        dir=$work/box/$box
        [ ! -e "$dir/lock" ] || echo "  lock     $dir/lock"
        [ -z "$group" ] || [ ! -d "$group/box-$box" ] || echo "  cgroup   $group/box-$box"
        awk -v at="$dir/root" '$2 == at { print "  mount    " $2 }' /proc/self/mounts
        [ ! -e "$dir/root" ] || echo "  target   $dir/root"
        [ ! -e "$dir/tmp" ] || echo "  tmpdir   $dir/tmp"
        pid=$(cat "$work/payload.$box")
        ! lives "$pid" "$box" || echo "  process  $pid"
    done
}

mkdir -m 0700 "$work/state" "$work/run"
export RBXJ_STATE_DIR="$work/state" RBXJ_RUNTIME_DIR="$work/run"
mkfifo "$work/fifo"
find_group

say "Three boxes, each with a supervisor"
for box in 1 2 3; do start_box "$box"; done

say "kill -9 for all three supervisors"
for pid in $supervisors; do kill -KILL "$pid"; done
{ wait; } 2>/dev/null
supervisors=
echo "What they leave behind:"
look

say "What the journal knows"
show list

say "What a replay would do"
show replay --dry-run

say "The replay"
show replay

say "And now"
left=$(look)
listed=$("$rbxj" list --noheadings)
if [ -n "$left$listed" ]; then
    echo "Something is left:"
    printf '%s\n%s\n' "$left" "$listed"
    exit 1
fi
if [ -n "$group" ] && ! rmdir "$group"; then
    exit 1
fi
group=
echo "Nothing is left: no lock, no cgroup, no mount, no directory, no process, no record."
