#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What is at the place of a dead box's lock, as the program tells it: locks.sh [RBXJ]
# Seven kinds of content, in the lock's own file and in another one; what is no regular file is never opened.
. "${0%/*}/lib.bash"

json() {
    python3 -I -S -c 'import json, sys
d = json.load(open(sys.argv[1], "rb"))
e = [x for b in d.get("boxes", []) for x in b.get("entries", b.get("records", [])) if x.get("kind") == "lock"]
e = e[0] if e else None
sys.exit(0 if eval("(" + sys.argv[2] + ")") else 1)' "$work/out" "$1"
}
# incident EXPRESSION: of the newest incident.
incident() { call incidents --json && json "(lambda i: $1)(d['incidents'][0])"; }
# corpse: a box 7 whose supervisor and payload are dead; its lock is at $l.
corpse() {
    fresh
    rm -rf "$work/w" "$work/up-7"
    mkdir "$work/w"
    l=$work/w/lock
    crash 7 --lock "$l"
    kill -KILL "$(cat "$work/up-7")" 2>/dev/null
    until_true is_over "$(cat "$work/up-7")"
}
is_over() { ! lives "$1"; }

# seen WHAT CONTENT FOUND: list and a dry run say so, and change nothing.
seen() {
    local before
    before=$(stat -c '%i %s %Y %F' "$l")
    call list --json
    check "$1: list: $2, $3" json "e['content'] == '$2' and e['found'] == '$3'"
    call list -v
    check "$1: list -v has it" grep -q "CONTENT" "$work/out"
    check "$1: the table, too" out_has "$2"
    call replay --dry-run --json
    check "$1: dry run: $2, $3" json "e['content'] == '$2' and e['found'] == '$3'"
    check "$1: nothing was touched" is "$(stat -c '%i %s %Y %F' "$l")" "$before"
}

# undone WHAT CONTENT CAUSE: it is removed; a corrupt one was copied first, byte for byte.
undone() {
    local corrupt=$3 copy
    cp "$l" "$work/copy"
    call replay --json
    check "$1: undone" is "$status" 0
    check "$1: said so: $2" json "e['content'] == '$2' and e['outcome'] == 'undone' and d['boxes'][0]['cause'] == '$3'"
    check "$1: is gone" gone "$l"
    check "$1: no record" no_record
    copy=$(find "$work/state/incidents" -name '7-*-1.lock')
    if [ "$corrupt" = lock_corruption ]; then
        check "$1: kept, byte for byte" cmp "$work/copy" "$copy"
        check "$1: the incident names the copy" incident "[e for e in i['evidence'] if e != 'kernel.log'] == ['$(basename "$copy")'] and i['cause'] == 'lock_corruption'"
        check "$1: the incident says what it was" incident "i['entries'][-1]['content'] == '$2' and 'in it' in i['entries'][-1]['note']"
        call incidents show "$(basename "$(dirname "$copy")")"
        check "$1: for reading, too" out_has "content $2"
    else
        check "$1: nothing is kept" is "$copy" ""
    fi
}

# refused WHAT CONTENT TEXT: it is left as it is, and reported.
refused() {
    local before
    before=$(stat -c '%i %s %Y %F' "$l")
    call replay --json
    check "$1: left" is "$status" 1
    check "$1: said so: $2" json "e['content'] == '$2' and e['found'] == 'foreign' and e['outcome'] == 'refused'"
    check "$1: why" json "'$3' in e['error']['message']"
    check "$1: as it was" is "$(stat -c '%i %s %Y %F' "$l")" "$before"
    check "$1: nothing is kept" is "$(find "$work/state/incidents" -name '7-*-1.lock')" ""
    call forget --box 7 --seq 1 --reason "not ours"
    check "$1: forgotten" is "$status" 0
}

: >"$work/out"
: >"$work/err"

# ---- in the lock's own file ----

# ours WHAT CONTENT CAUSE: written over the file that is proven ours.
ours() {
    corpse
    cat >"$l"
    seen "$1" "$2" present
    undone "$1" "$2" "$3"
}
corpse
seen "as it was written" valid present
undone "as it was written" valid supervisor_crash
ours "valid, the supervisor's own" valid supervisor_crash < <(printf '{"pid":4242,"box_id":7}')
ours "valid, a pid" valid supervisor_crash < <(printf '4711\n')
ours "not JSON" not_json lock_corruption < <(printf 'locked by somebody\n')
ours "JSON and more" not_json lock_corruption < <(printf '{"pid":1} and more')
ours "too deep" not_json lock_corruption < <(printf '[%.0s' {1..3000})
ours truncated truncated lock_corruption < <(printf '{"pid":4242,"box_id":"7","crea')
ours "binary, zeros at its end" binary lock_corruption < <(printf '{"pid":42\0\0\0\0\0\0')
ours "binary, random" binary lock_corruption < <(head -c 4000 /dev/urandom)
ours empty empty supervisor_crash < <(printf '')
head -c 200000 /dev/zero | tr '\0' x >"$work/large"
corpse
cat "$work/large" >"$l"
seen large not_json present
call replay
check "large: undone" is "$status" 0
check "large: 64 KiB are kept" is "$(find "$work/state/incidents" -name '7-*-1.lock' -size 64k | wc -l)" 1

# An interrupted write is no corruption.
corpse
truncate -s 30 "$l"
seen "its own, interrupted" truncated present
undone "its own, interrupted" truncated supervisor_crash

# Valid, and another box's by its stamp or its name: nothing is undone.
corpse
printf '{"rbxj":"4242:1","pid":1}' >"$l"
seen "another box's stamp" other_box foreign
refused "another box's stamp" other_box "another box has it"
corpse
printf '{"pid":1,"box_id":"8"}' >"$l"
seen "another box's name" other_box foreign
refused "another box's name" other_box "another box has it"

# One that was there before gets its content back; what is corrupt is kept first.
fresh
rm -rf "$work/w"
mkdir "$work/w"
l=$work/w/lock
printf 'before' >"$l"
crash 7 --lock "$l"
kill -KILL "$(cat "$work/up-7")"
until_true is_over "$(cat "$work/up-7")"
printf 'gar\0bage' >"$l"
seen "one that was there" binary present
call replay --json
check "one that was there: restored" is "$(cat "$l")" before
check "one that was there: kept, byte for byte" is "$(xargs -0 grep -lazF $'gar\0bage' < <(find "$work/state/incidents" -name '7-*-1.lock' -print0) | wc -l)" 1

# ---- in its place: no regular file, which is not opened ----

# instead WHAT: what is at $l now is no regular file.
instead() {
    seen "$1" not_regular foreign
    refused "$1" not_regular "$2"
}
corpse
rm "$l" && mkdir "$l"
instead "a directory" "not a regular file"
corpse
echo precious >"$work/w/file"
rm "$l" && ln -s "$work/w/file" "$l"
instead "a symlink" "symbolic link"
check "a symlink: what it leads to is as it was" is "$(cat "$work/w/file")" precious
corpse
rm "$l" && python3 -I -S -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$l"
instead "a socket" "not a regular file"
corpse
rm "$l" && mknod "$l" c 1 3
instead "a character device" "not a regular file"
corpse
rm "$l" && mknod "$l" b 7 250
instead "a block device" "not a regular file"

# A writer of a FIFO waits until somebody opens it for reading: nobody does.
corpse
rm "$l" && mkfifo "$l"
sh -c 'echo x >"$1"; : >"$2"' sh "$l" "$work/w/opened" 2>/dev/null &
writer=$!
waits() { grep -q 'pipe\|fifo' "/proc/$writer/wchan" 2>/dev/null || [ "$(cut -d' ' -f3 "/proc/$writer/stat")" = S ]; }
until_true waits
instead "a FIFO" "not a regular file"
check "a FIFO: nobody opened it" gone "$work/w/opened"
check "a FIFO: its writer waits" lives "$writer"
kill -KILL "$writer"
wait "$writer" 2>/dev/null

# ---- nobody begins with one either ----

fresh
rm -rf "$work/w"
mkdir "$work/w"
mkfifo "$work/w/fifo"
call run --box 7 --lock "$work/w/fifo" -- true
check "begin, a FIFO: refused" is "$status" 125
check "begin, a FIFO: a clear line" err_has "not a regular file"
# ---- the directory that it lies in was renamed: it is not gone for that ----

corpse
mv "$work/w" "$work/w2"
call replay --json
check "directory renamed: left" is "$status" 1
check "directory renamed: refused, and where it is" json "e['outcome'] == 'refused' and '/w2/lock' in e['error']['message']"
check "directory renamed: it is there" there "$work/w2/lock"
mv "$work/w2" "$work/w"
call replay
check "directory renamed back: undone" is "$status" 0
check "directory renamed back: gone" gone "$l"
corpse
rm -r "$work/w"
call replay
check "directory removed: gone with it" is "$status" 0
check "directory removed: no record" no_record

# ---- made by a supervisor that died in the same instant: it bears its stamp as soon as it has its name (K1) ----

fresh
rm -rf "$work/w"
mkdir "$work/w"
l=$work/w/lock
strace -f -qq -o "$work/trace" -e trace=flock -e inject=flock:signal=KILL:when=1 "$rbxj" run --box 7 --lock "$l" -- true \
    >"$work/out" 2>"$work/err"
check "killed when the file was made: it is there, and empty" is "$(stat -c %s "$l")" 0
call replay
check "killed when the file was made: undone" gone "$l"
check "killed when the file was made: exits 0" is "$status" 0

# It is shown by its name to whoever asks what a process has open.

fresh
call run --box 7 --lock "$l" -- sh -c 'readlink /proc/$PPID/fd/*'
check "open by its name" out_has "$l"
check "and by none that is deleted" is "$(grep -c 'w/#' "$work/out")" 0

finish
