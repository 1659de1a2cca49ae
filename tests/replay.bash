# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What replay.sh and changed.sh share, after lib.bash: boxes that crash with their payload, pictures of what there is.

call() {
    timeout 30 "$rbxj" "$@" >"$work/out" 2>"$work/err" </dev/null 8<&-
    status=$?
}
json() {
    python3 -I -S -c 'import json, sys
d = json.load(open(sys.argv[1], "rb"))
e = {x["kind"]: x for b in d["boxes"] for x in b.get("entries", [])}
sys.exit(0 if eval("(" + sys.argv[2] + ")") else 1)' "$work/out" "$1"
}
json_value() { python3 -I -S -c 'import json, sys; print(json.load(open(sys.argv[1], "rb"))[sys.argv[2]])' "$work/out" "$1"; }
clear_lines() { grep -q . "$work/err" && ! grep -qv '^rbxj: ' "$work/err" && ! LC_ALL=C grep -q $'[\e\x01-\x08]' "$work/err"; }
one_line() { [ "$(wc -l <"$work/err")" = 1 ] && clear_lines; }
fresh() {
    umount -l "$work/state" 2>/dev/null
    rm -rf "$work/state" "$work/run" "$work/w"
    mkdir -m 0700 "$work/state" "$work/run" "$work/w"
}

# Everything of a tree that an undo could change.
picture() { find "$@" -printf '%p|%y|%m|%U|%s|%i|%n|%l|%T@\n' | sort; }

# start BOX OPTION...: a supervisor whose payload stays; $supervisor.
start() {
    local box=$1 dir=$work/up
    shift
    mkdir -p "$dir"
    rm -f "$dir/$box"
    # shellcheck disable=SC2016
    "$rbxj" run --box "$box" "$@" -- sh -c 'echo $$ >"$1.new"; mv "$1.new" "$1"; exec sleep 120' sh "$dir/$box" \
        >"$work/run.out" 2>"$work/run.err" </dev/null &
    supervisor=$!
    for _ in {1..500}; do
        [ ! -s "$dir/$box" ] || return 0
        kill -0 "$supervisor" 2>/dev/null || break
        sleep 0.02
    done
    bad "start $box"
    sed 's/^/  err: /' "$work/run.err"
    return 1
}
# crash BOX OPTION...: the same, and then the supervisor is killed, and the payload.
crash() {
    start "$@" || return 1
    kill -KILL "$supervisor"
    wait "$supervisor" 2>/dev/null
    kill -KILL "$(cat "$work/up/$1")"
    until_true is_dead "$(cat "$work/up/$1")"
}
is_dead() { ! lives "$1"; }

undone() {
    call replay
    check "$1: undone" is "$status" 0
    check "$1: no record" no_record
}

# parts NAME...: runs each of them, and ends.
parts() {
    local part
    for part; do
        $part
        echo "# $part: $SECONDS s"
    done
    finish
}

unset RBXJ_STATE_DIR RBXJ_RUNTIME_DIR NO_COLOR
export RBXJ_DURABILITY=resource RBXJ_STATE_DIR="$work/state" RBXJ_RUNTIME_DIR="$work/run"
: >"$work/out"
: >"$work/err"
