# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What the scripts share; sourced first: . "${0%/*}/lib.bash". The script then runs as root with mounts and a process
# table of its own (why: go_apart() in harness.c), with $rbxj, a scratch directory $work on disk, $shm on a tmpfs and a
# cgroup of its own $group (empty where there is no cgroup2), all of which are taken away at its end.
set -u

rbxj=$(realpath "${1:-${RBXJ:-build/rbxj}}")
[ -x "$rbxj" ] || { echo "no program at $rbxj"; exit 1; }
[ "$(id -u)" = 0 ] || { echo "needs root"; exit 77; }
if [ -z "${RBXJ_TEST_INSIDE:-}" ]; then
    RBXJ_TEST_INSIDE=1 exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
        "$0" "$rbxj"
fi

top=$(realpath "${BASH_SOURCE[0]%/*}/..")
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH:$top/build/tools/usr/bin # a version manager's python3 takes half a second to start

name=$(basename "$0" .sh)
work=$(mktemp -d "/var/tmp/rbxj-$name.XXXXXX")
shm=$(mktemp -d "/dev/shm/rbxj-$name.XXXXXX")
hierarchy=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
group=${hierarchy:+$hierarchy/rbxj-$name.${work##*.}}
[ -n "$group" ] && mkdir "$group" 2>/dev/null || group=
unset RBXJ_STATE_DIR RBXJ_RUNTIME_DIR RBXJ_DURABILITY

# A script that has more to take away defines at_end.
at_end() { :; }
clean() {
    local target
    at_end
    jobs -p | xargs -r kill -KILL 2>/dev/null
    wait 2>/dev/null
    if [ -n "$group" ]; then
        find "$group" -name cgroup.kill -exec sh -c 'echo 1 >"$1"' sh {} \;
        sleep 0.1
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
    fi
    # the mounts are this namespace's own
    awk -v a="$work/" -v b="$shm/" 'index($2, a) == 1 || index($2, b) == 1 { print $2 }' /proc/self/mounts |
        sort -r | while read -r target; do umount -l "$(printf '%b' "$target")"; done
    chattr -R -f -i -a "$work" "$shm"
    rm -rf "$work" "$shm"
}
trap clean EXIT
trap 'exit 1' HUP INT TERM

passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok $((passed + failed)) $1"; }
bad() { failed=$((failed + 1)); echo "not ok $((passed + failed)) $1"; }
# At the end of the script.
finish() {
    echo "1..$((passed + failed))"
    [ "$failed" = 0 ]
    exit
}

# check NAME COMMAND...: passes if the command does.
check() {
    local name=$1
    shift
    if "$@"; then ok "$name"; else
        bad "$name"
        echo "  failed: $*"
        sed 's/^/  out: /' "$work/out"
        sed 's/^/  err: /' "$work/err"
    fi
}

# call ARG...: runs the program; its status in $status, what it wrote in out and err.
call() {
    timeout 30 "$rbxj" "$@" >"$work/out" 2>"$work/err" </dev/null
    status=$?
}

# json EXPRESSION: of d, the document in out.
json() {
    python3 -I -S -c 'import json, sys
d = json.load(open(sys.argv[1], "rb"))
sys.exit(0 if eval("(" + sys.argv[2] + ")") else 1)' "$work/out" "$1"
}
is() { [ "$1" = "$2" ] || { echo "  got '$1', not '$2'"; return 1; }; }
err_has() { grep -qF -- "$1" "$work/err"; }
out_has() { grep -qF -- "$1" "$work/out"; }
one_line() { [ "$(wc -l <"$work/err")" = 1 ] && grep -q '^rbxj: ' "$work/err"; }
gone() { local path; for path; do [ ! -e "$path" ] && [ ! -L "$path" ] || return 1; done; }
there() { local path; for path; do [ -e "$path" ] || return 1; done; }
mounted() { awk -v at="$1" '$2 == at { found = 1 } END { exit !found }' /proc/self/mounts; }
lives() { grep -q '^[^)]*) [^ZX]' "/proc/$1/stat" 2>/dev/null; }
no_record() { call list --json && json 'd == {"boxes": []}'; }
until_true() {
    local _
    for _ in {1..500}; do
        ! "$@" || return 0
        sleep 0.02
    done
    return 1
}

# overlay: $root, this machine's root, of which every change goes to a tmpfs; with an empty /run, /tmp and /srv, and
# without an rbxj that is installed here.
overlay() {
    local dir
    root=$work/root
    mkdir "$work/layer" "$root"
    if ! mount -t tmpfs -o mode=0755 layer "$work/layer" || ! mkdir "$work/layer/upper" "$work/layer/work" ||
        ! mount -t overlay -o "lowerdir=/,upperdir=$work/layer/upper,workdir=$work/layer/work" overlay "$root"; then
        echo "needs overlayfs"
        exit 77
    fi
    for dir in run tmp srv; do mount -t tmpfs -o mode=0755 none "$root/$dir"; done
    rm -rf "$root/var/lib/rbxj" "$root/usr/local/bin/rbxj"
}

# A state and a runtime directory that were never used.
fresh() {
    rm -rf "$work/state" "$work/run"
    mkdir -m 0700 "$work/state" "$work/run"
    export RBXJ_STATE_DIR=$work/state RBXJ_RUNTIME_DIR=$work/run
}

# own_patterns FILE: a configuration with patterns that match nothing of the machine's, of which other programs have some.
own_patterns() {
    printf '[discover]\nlocks=\nlocks=%s\ncgroups=\ncgroups=%s\nmounts=\nmounts=%s\ntmpdirs=\ntmpdirs=%s\n' \
        "$work/boxes/*/lock" "rbxj-own-${work##*.}-*" "$work/boxes/*" "$work/boxes/tmp-*" >"$1"
}

# start BOX OPTION...: a supervisor whose payload stays; $supervisor.
start() {
    local box=$1 up=$work/up-$1
    shift
    rm -f "$up"
    # shellcheck disable=SC2016
    "$rbxj" run --box "$box" "$@" -- sh -c 'echo $$ >"$1.new"; mv "$1.new" "$1"; exec sleep 120' sh "$up" \
        >"$work/run.out" 2>"$work/run.err" </dev/null &
    supervisor=$!
    until_true started "$up" "$supervisor" && [ -s "$up" ] && return 0
    bad "start $box"
    sed 's/^/  err: /' "$work/run.err"
    return 1
}
started() { [ -s "$1" ] || ! kill -0 "$2" 2>/dev/null; }

# crash BOX OPTION...: what a supervisor leaves that was killed.
crash() {
    start "$@" || return 1
    kill -KILL "$supervisor"
    wait "$supervisor" 2>/dev/null
}
