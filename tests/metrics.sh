#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# rbxj metrics as Prometheus and the node exporter see it: metrics.sh [RBXJ]
# On the real kernel, in a private mount namespace and a scratch directory. What the numbers mean: test_metrics.c.
. "${0%/*}/lib.bash"

out_empty() { [ ! -s "$work/out" ]; }
err_empty() { [ ! -s "$work/err" ]; }
line() { grep -qxF -- "$1" "${2:-$work/out}"; }
no_line() { ! grep -q -- "$1" "${2:-$work/out}"; }
only() { is "$(ls -A "$1")" "$2"; } # DIR NAMES: nothing else is in it
fresh() {
    rm -rf "$work/state" "$work/run" "$work/w" "$work/text"
    mkdir -m 0700 "$work/state" "$work/run"
    mkdir "$work/w" "$work/text"
}
export RBXJ_STATE_DIR=$work/state RBXJ_RUNTIME_DIR=$work/run

# Is FILE whole, and in the text format? Each sample of a family that was introduced by HELP and TYPE, no family twice,
# no sample twice, histograms cumulative and complete.
format() {
    python3 -I -S - "$1" <<'PY'
import re, sys
text = open(sys.argv[1], newline="").read()
assert text.endswith("\n") and "\r" not in text, "ends in the middle of a line"
name = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
helps, types, samples, order = {}, {}, {}, []
for line in text[:-1].split("\n"):
    if line.startswith("#"):
        m = re.fullmatch(rf"# (HELP|TYPE) ({name}) (.+)", line)
        assert m, line
        table = helps if m[1] == "HELP" else types
        assert m[2] not in table, line
        table[m[2]] = m[3]
        order.append(m[2])
        continue
    m = re.fullmatch(rf'({name})(?:\{{({name})="([^"\\]*)"\}})? ([0-9]+(?:\.[0-9]+)?)', line)
    assert m, line
    family = re.sub("_(bucket|sum|count)$", "", m[1]) if types[order[-1]] == "histogram" else m[1]
    assert family == order[-1], (line, "is not of", order[-1])
    assert (m[1], m[2], m[3]) not in samples, line
    samples[m[1], m[2], m[3]] = m[4]
assert set(helps) == set(types) and set(types.values()) <= {"counter", "gauge", "histogram"}
for family, kind in types.items():
    assert (kind == "counter") == family.endswith("_total"), family
    assert any(s[0].startswith(family) for s in samples), family
    if kind == "histogram":
        buckets = [(float(s[2]), int(v)) for s, v in samples.items() if s[0] == family + "_bucket"]
        assert [b for b, _ in buckets] == sorted({b for b, _ in buckets}) and buckets[-1][0] == float("inf"), family
        assert [n for _, n in buckets] == sorted(n for _, n in buckets), family
        assert buckets[-1][1] == int(samples[family + "_count", None, None]), family
        assert (family + "_sum", None, None) in samples, family
assert sum(int(v) for s, v in samples.items() if s[0] == "rustbox_worker_health") == 1
PY
}
promtool_likes() {
    local said
    said=$(promtool check metrics <"$1" 2>&1) || { echo "  $said"; return 1; }
    [ -z "$said" ] || { echo "  $said"; return 1; }
}
looks_right() {
    check "$1: in the text format" format "${2:-$work/out}"
    if command -v promtool >/dev/null; then
        check "$1: promtool likes it" promtool_likes "${2:-$work/out}"
    else
        echo "ok $((passed + failed + 1)) # SKIP $1: no promtool here (package prometheus)"
        echo "skip: no promtool here (package prometheus)"
        passed=$((passed + 1))
    fi
}

# ---- what is printed ----

printed() {
    fresh
    call metrics
    check "nothing journaled: 0" is "$status" 0
    check "nothing journaled: healthy" line 'rustbox_worker_health{status="healthy"} 1'
    check "nothing journaled: no message" err_empty
    check "nothing journaled: nothing made" only "$work/state" ""
    looks_right "nothing journaled"
    call run --box a --tmpdir "$work/w/a" -- true
    call replay
    call metrics
    check "a box and a replay: 0" is "$status" 0
    check "a box and a replay: one teardown" line 'rustbox_cleanup_total{outcome="success"} 1'
    check "a box and a replay: its duration" line 'rustbox_cleanup_duration_seconds_count 1'
    check "a box and a replay: when" no_line '^rbxj_last_replay_timestamp_seconds 0$'
    looks_right "a box and a replay"
    call -q metrics
    check "quiet: 0" is "$status" 0
    check "quiet: nothing" out_empty
}

# A dead supervisor's box whose lock somebody else holds: held, and in no other state.
held() {
    fresh
    # shellcheck disable=SC2016
    { "$rbxj" run --box h --lock "$work/w/lock" -- sh -c 'kill -KILL $PPID'; } >"$work/out" 2>"$work/err"
    flock --no-fork "$work/w/lock" sleep 60 &
    local tries=100
    until [ "$tries" = 0 ] || ! flock -n "$work/w/lock" true; do
        sleep 0.05
        tries=$((tries - 1))
    done
    call metrics
    check "held: 0" is "$status" 0
    check "held: unhealthy" line 'rustbox_worker_health{status="unhealthy"} 1'
    check "held: counted as held" line 'rbxj_boxes{state="held"} 1'
    check "held: and not as stale" line 'rbxj_boxes{state="stale"} 0'
    kill -KILL $! && { wait $!; } 2>/dev/null
    call metrics
    check "held no more: counted as stale" line 'rbxj_boxes{state="stale"} 1'
    check "held no more: and not as held" line 'rbxj_boxes{state="held"} 0'
}

# ---- a file for the node exporter ----

textfile() {
    local target=$work/text/rbxj.prom
    fresh
    (umask 077; call metrics --textfile "$target"; echo "$status" >"$work/status")
    check "file: 0" is "$(cat "$work/status")" 0
    check "file: nothing printed" out_empty
    check "file: nobody is kept from reading it" is "$(stat -c %a "$target")" 644
    check "file: alone in its directory" only "$work/text" rbxj.prom
    looks_right "file" "$target"
    local inode
    inode=$(stat -c %i "$target")
    exec 9<"$target"
    call run --box a --tmpdir "$work/w/a" -- true
    call metrics --textfile "$target"
    check "again: 0" is "$status" 0
    check "again: the new numbers" line 'rustbox_cleanup_total{outcome="success"} 1' "$target"
    check "again: in another file, the old one whole" [ "$(stat -c %i "$target")" != "$inode" ]
    cat <&9 >"$work/old"
    exec 9<&-
    check "again: what was open stays as it was" line 'rustbox_cleanup_total{outcome="success"} 0' "$work/old"
    cp "$work/old" "$work/w/elsewhere"
    ln -sf "$work/w/elsewhere" "$target"
    call metrics --textfile "$target"
    check "symlink: 0" is "$status" 0
    check "symlink: replaced" [ -f "$target" -a ! -L "$target" ]
    check "symlink: not followed" cmp "$work/old" "$work/w/elsewhere"
    ln -sf "$work/w/nowhere" "$target"
    call metrics --textfile "$target"
    check "dangling symlink: replaced" [ "$status" = 0 -a ! -L "$target" -a ! -e "$work/w/nowhere" ]
    (cd "$work/text" && call metrics --textfile=relative.prom)
    check "relative: written where it was said" format "$work/text/relative.prom"
}

# refused WHAT STATUS FILE: one line that names the file, and nothing else has changed.
refused() {
    local before
    before=$(ls -AlR "$work/text" "$work/w")
    call metrics --textfile "$3"
    check "$1: refused" is "$status" "$2"
    check "$1: one line" one_line
    check "$1: nothing printed" out_empty
    check "$1: nothing has changed" is "$(ls -AlR "$work/text" "$work/w")" "$before"
}
refusals() {
    fresh
    mkdir "$work/text/dir.prom"
    mkfifo "$work/text/fifo.prom"
    ln -s /dev/null "$work/text/null.prom"
    refused "a directory" 6 "$work/text/dir.prom"
    refused "a name that is none" 6 "$work/text/"
    refused "a FIFO" 6 "$work/text/fifo.prom"
    refused "a symlink to a device" 6 "$work/text/null.prom"
    refused "no such directory" 6 "$work/text/none/x.prom"
    refused "a file as a directory" 6 "$rbxj/x.prom"
    # as /dev/stdout is one: to what happens to be standard output
    ln -s /proc/self/fd/1 "$work/text/stdout.prom"
    call metrics --textfile "$work/text/stdout.prom"
    check "standard output: refused" is "$status" 6
    check "standard output: still a symlink" [ -L "$work/text/stdout.prom" ]
    call metrics --textfile ""
    check "no name: usage" is "$status" 2
    call metrics --json
    check "json: usage" is "$status" 2
    check "json: says why" err_has "Prometheus"
    call metrics --textfile "$work/text/x.prom" -J
    check "json and a file: usage, no file" [ "$status" = 2 -a ! -e "$work/text/x.prom" ]
    call metrics x
    check "an operand: usage" is "$status" 2
}

disk_full() {
    fresh
    mkdir -p "$work/small"
    mount -t tmpfs -o size=16k,mode=0755 rbxj-test "$work/small" || { bad "disk full: a small tmpfs"; return; }
    echo "old 1" >"$work/small/rbxj.prom"
    cat /dev/zero >"$work/small/filler" 2>/dev/null
    call metrics --textfile "$work/small/rbxj.prom"
    check "disk full: 6" is "$status" 6
    check "disk full: one line" one_line
    check "disk full: the old file stays" is "$(cat "$work/small/rbxj.prom")" "old 1"
    check "disk full: nothing else does" only "$work/small" $'filler\nrbxj.prom'
    umount "$work/small"
}

# told NAME STATUS: 6 and one line that says why, nowhere an empty success.
told() {
    check "$1: 6" is "$2" 6
    check "$1: one line" one_line
}
nowhere_to_print() {
    fresh
    "$rbxj" metrics >/dev/full 2>"$work/err"
    told "a full standard output" $?
    "$rbxj" metrics >&- 2>"$work/err"
    told "no standard output" $?
    "$rbxj" metrics <&- >&- 2>"$work/err"
    told "no standard input, either" $?
    (ulimit -f 1; exec "$rbxj" metrics >"$work/out" 2>"$work/err")
    told "a short write" $?
    echo "old 1" >"$work/text/rbxj.prom"
    (ulimit -f 1; exec "$rbxj" metrics --textfile "$work/text/rbxj.prom" >"$work/out" 2>"$work/err")
    told "a short write to a file" $?
    check "a short write to a file: the old one stays" is "$(cat "$work/text/rbxj.prom")" "old 1"
    check "a short write to a file: nothing else does" only "$work/text" rbxj.prom
    "$rbxj" metrics --textfile "$work/text/rbxj.prom" >&- 2>"$work/err"
    check "a file needs no standard output" is $? 0
}

# Whoever reads while it is written sees a whole file.
atomic() {
    fresh
    call metrics --textfile "$work/text/rbxj.prom"
    local want got torn=0 writers=()
    want=$(wc -l <"$work/text/rbxj.prom")
    for _ in 1 2; do
        (for _ in {1..60}; do "$rbxj" metrics --textfile "$work/text/rbxj.prom" || exit 1; done) &
        writers+=($!)
    done
    while kill -0 "${writers[0]}" 2>/dev/null; do
        got=$(wc -l <"$work/text/rbxj.prom") && [ "$got" = "$want" ] || torn=$((torn + 1))
    done
    check "atomic: first writer" wait "${writers[0]}"
    check "atomic: second writer" wait "${writers[1]}"
    check "atomic: every reader saw a whole file" is "$torn" 0
    check "atomic: no other file is left" only "$work/text" rbxj.prom
}

# ---- what can't be read ----

unreadable() {
    local target=$work/text/rbxj.prom
    fresh
    call run --box a --tmpdir "$work/w/a" -- true
    cp "$rbxj" "$work/w/rbxj"
    chmod 0711 "$work"
    chmod 0777 "$work/text"
    setpriv --reuid=65534 --regid=65534 --clear-groups "$work/w/rbxj" metrics --textfile "$target" \
        >"$work/out" 2>"$work/err"
    check "no permission: 4" is $? 4
    check "no permission: one line" one_line
    check "no permission: unknown" line 'rustbox_worker_health{status="unknown"} 1' "$target"
    check "no permission: no false zeros" no_line _total "$target"
    looks_right "no permission" "$target"
    truncate -s 5000 "$work"/run/journal-*/data.mdb
    call metrics --textfile "$target"
    check "damaged: 3" is "$status" 3
    check "damaged: one line" one_line
    check "damaged: quarantined" line 'rustbox_worker_health{status="quarantined"} 1' "$target"
    check "damaged: no false zeros" no_line _total "$target"
    check "damaged: what can be read" grep -q '^rbxj_journal_records{journal="disk"} ' "$target"
    looks_right "damaged" "$target"
    call metrics
    check "damaged, printed: 3" is "$status" 3
    check "damaged, printed: all the same" line 'rustbox_worker_health{status="quarantined"} 1'
    echo nonsense >"$work/bad.conf"
    call metrics --config "$work/bad.conf"
    check "bad configuration: 2" is "$status" 2
    check "bad configuration: unknown" line 'rustbox_worker_health{status="unknown"} 1'
}

printed
held
textfile
refusals
disk_full
nowhere_to_print
atomic
unreadable
finish
