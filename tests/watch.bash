# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What the scripts about rbxj watch share; sourced first, as lib.bash.
. "${0%/*}/lib.bash"

export RBXJ_DURABILITY=resource
until_true() { # each look may start programs, on a machine that has other things to do
    local end=$((SECONDS + 30))
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.02
    done
}
: >"$work/out"
: >"$work/err"
mkdir "$work/at"

# watch OPTION...: in the background; $watch. It is ready when it says so, and $work/notify has what it says.
watch() {
    : >"$work/notify"
    python3 -I -S "$top/tests/notify.py" "$work/notify" "$rbxj" watch "$@" \
        >"$work/watch.out" 2>"$work/watch.err" </dev/null &
    notifier=$!
    until_true grep -q '^READY=1' "$work/notify" || bad "watch is not ready: $(cat "$work/watch.err")"
    watch=$(sed -n 's/^PID=//p' "$work/notify")
}
# No word of the watch is waited for: its own pid, and no notifier.
bare_watch() {
    "$rbxj" watch "$@" >"$work/watch.out" 2>"$work/watch.err" </dev/null &
    watch=$!
}
# stop [SIGNAL]: its status in $status.
stop() {
    kill "-${1:-TERM}" "$watch"
    wait "$notifier"
    status=$?
}
said() { grep -q "$1" "$work/notify"; }
# The last word of it.
says() { grep '^STATUS=' "$work/notify" | tail -n 1 | grep -q "^STATUS=$1"; }
undone() { until_true gone "$@"; }
# Of a box: the record goes last.
no_box() { call list --json --box "$1" && json 'd == {"boxes": []}'; }
ended() { until_true no_box "$1"; }
still() { local path; for _ in {1..15}; do there "$@" || return 1; sleep 0.02; done; }
switches() { sed -n 's/^voluntary_ctxt_switches:[^0-9]*//p' "/proc/$1/status"; }
# Sleeps until something happens, and nothing does.
is_quiet() { local before; before=$(switches "$1"); sleep 0.3; [ "$(switches "$1")" = "$before" ]; }
kill_now() { kill -KILL "$1" && wait "$1" 2>/dev/null; [ $? = 137 ]; }
incidents() { call incidents --json; json "len(d['incidents']) == $1"; }
sit() {
    (cd "$1" && exec sleep 120) &
    sitter=$!
    until_true sits "$1"
}
sits() { [ "$(readlink "/proc/$sitter/cwd")" = "$1" ]; }
idle() { ! is_undoing; }
is_undoing() { [ -n "$(ps -o pid= --ppid "$watch")" ]; }
not_lives() { ! lives "$1"; }
