#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The worker's health as a monitor sees it, and the quarantine: health.sh [RBXJ]
. "${0%/*}/lib.bash"

health() { call health --json "$@"; }
healthy() { is "$status" 0 && json 'd["status"] == "healthy" and d["can_accept_submissions"] is True'; }
# No new box, by any way in, and nothing made for it.
refused() {
    call run --box new --tmpdir "$work/new" -- true
    is "$status" 125 && err_has quarantined && gone "$work/new" && no_record_of new
}
no_record_of() { call list --json --box "$1" && json 'd == {"boxes": []}'; }
healthy_now() { health && healthy; }
flock_is_held() { ! flock -n "$1" true; }
let_in() { call run --box new --tmpdir "$work/new" -- true && is "$status" 0; }

# ---- the core: healthy, unhealthy, healthy ----

fresh
health
check "never used: healthy" healthy
check "never used: nothing is made" is "$(ls -A "$work/state" "$work/run" | grep -v ':$' | tr -d '\n')" ""
own_patterns "$work/own.conf"
verify() { call health --verify-clean --json --config "$work/own.conf"; }
verify
check "never used: clean" is "$status" 0
check "verify-clean's document" json 'd == {"clean": True, "locks": 0, "mounts": 0, "cgroups": 0, "processes": 0, "temp_dirs": 0,
    "unjournaled": 0, "missing": 0, "not_looked_at": 0}'

cgroups=$([ -n "$group" ] && echo 1 || echo 0)
start live --tmpdir "$work/live"
keeper=$supervisor
crash 7 --lock "$work/lock" --tmpdir "$work/tmp" --mount "tmpfs,none,$work/tmp" ${group:+--cgroup "$group/7"}
health
check "after a crash: unhealthy" is "$status" 1
check "after a crash: its document" json 'd["status"] == "unhealthy" and d["stale_boxes"] == 1 and d["live_boxes"] == 1
    and d["quarantine_reason"] is None and d["quarantine_timestamp"] is None and d["failed_cleanup_count"] == 0
    and d["can_accept_submissions"] is True'
call health
check "for people: the word of the runbook" out_has 'status="unhealthy"'
before=$(find "$work/state" "$work/run" -printf '%p %s %T@\n' | sort)
health --check
check "--check says the same" is "$status" 1
check "--check changes nothing" is "$(find "$work/state" "$work/run" -printf '%p %s %T@\n' | sort)" "$before"
verify
check "not clean" is "$status" 1
# the payload dies of its own: what counts is what is there
check "not clean: what is there" json 'not d["clean"] and d["locks"] == 1 and d["mounts"] == 1 and d["temp_dirs"] == 1
    and d["cgroups"] == '"$cgroups"
health --recover
check "--recover: healthy" healthy
check "--recover: nothing is left" gone "$work/lock" "$work/tmp" ${group:+"$group/7"}
check "--recover: the living are left alone" there "$work/live"
verify
check "--recover: clean" is "$status" 0
check "what the living hold does not count" json 'd["clean"] and d["temp_dirs"] == 0'
kill -TERM "$keeper"
wait "$keeper" 2>/dev/null

# ---- three failed replays in a row ----

fresh
mkdir "$work/at"
crash 8 --mount "tmpfs,none,$work/at"
# somebody who is not of the box sits in its mount
(cd "$work/at" && exec sleep 120) &
sitter=$!
until_true [ "$(readlink "/proc/$sitter/cwd")" = "$work/at" ]
printf '[replay]\nbusy_retries = 1\n' >"$work/conf"
for try in 1 2; do
    health --recover --config "$work/conf"
    check "failed replay $try: unhealthy" is "$status" 1
    check "failed replay $try: is counted" json "d['failed_cleanup_count'] == $try and d['status'] == 'unhealthy'"
done
check "a failed replay: what failed" json 'd["last_cleanup_error"].startswith("mount_unmount_failed: ")'
health --recover --config "$work/conf"
check "the third: quarantined" is "$status" 2
check "the third: its document" json 'd["status"] == "quarantined" and d["quarantine_reason"] == "cleanup_failure"
    and d["can_accept_submissions"] is False and d["failed_cleanup_count"] == 3 and d["quarantine_timestamp"][-1] == "Z"
    and d["last_cleanup_error"].startswith("mount_unmount_failed: ") and "box 8" in d["quarantine_detail"]'
check "quarantined: no new box" refused
check "quarantined: the flag for units" there "$work/run/quarantined"
kill "$sitter"
wait "$sitter" 2>/dev/null
health --recover
check "a recovery that leaves nothing releases it" healthy
check "released: the count begins anew" json 'd["failed_cleanup_count"] == 0 and d["quarantine_reason"] is None'
check "released: the flag is gone" gone "$work/run/quarantined" "$work/state/quarantine"
check "released: new boxes" let_in

# a count that was reset is not one more failure away from the quarantine
crash 8 --mount "tmpfs,none,$work/at"
(cd "$work/at" && exec sleep 120) &
sitter=$!
until_true [ "$(readlink "/proc/$sitter/cwd")" = "$work/at" ]
health --recover --config "$work/conf"
health --recover --config "$work/conf"
health --unquarantine --reason "counts anew"
health --recover --config "$work/conf"
check "--unquarantine resets the counts" json 'd["status"] == "unhealthy" and d["failed_cleanup_count"] == 1'
kill "$sitter"
wait "$sitter" 2>/dev/null
health --recover
check "and it recovers" healthy

# a replay in between that did not fail: what is left is protected now, and refused
fresh
crash 13 --tmpdir "$work/t13"
mkdir "$work/t13/in"
mount -t tmpfs none "$work/t13/in"
health --recover --config "$work/conf"
health --recover --config "$work/conf"
check "two failed replays" json 'd["status"] == "unhealthy" and d["failed_cleanup_count"] == 2'
umount "$work/t13/in"
{ cat "$work/conf"; printf '[paths]\nprotected=%s\n' "$work/t13"; } >"$work/conf.protected"
health --recover --config "$work/conf.protected"
check "a replay that did not fail: the count begins anew" json 'd["status"] == "unhealthy" and d["failed_cleanup_count"] == 0'
mount -t tmpfs none "$work/t13/in"
health --recover --config "$work/conf"
check "a failed replay after it is the first" json 'd["status"] == "unhealthy" and d["failed_cleanup_count"] == 1'
umount "$work/t13/in"
health --recover
check "and it recovers, too" healthy

# want of memory is called that, wherever it is met
if command -v strace >/dev/null; then
    fresh
    strange=
    for n in $(seq 16); do
        crash 13 --tmpdir "$work/t13"
        strace -f -qq -o /dev/null -P /proc -e trace=openat -e inject=openat:error=ENOMEM:when=$n \
            "$rbxj" health --recover >"$work/out" 2>"$work/err"
        strange+=$(grep 'errno [0-9]' "$work/err")
        "$rbxj" replay >/dev/null 2>&1
    done
    check "want of memory: told as such" is "$strange" ""
fi

# one that was not worked on has not failed once more, and is none that did not fail
fresh
crash 14 --lock "$work/lock14" --mount "tmpfs,none,$work/at"
(cd "$work/at" && exec sleep 120) &
sitter=$!
until_true [ "$(readlink "/proc/$sitter/cwd")" = "$work/at" ]
health --recover --config "$work/conf"
health --recover --config "$work/conf"
flock --no-fork "$work/lock14" sleep 120 &
holder=$!
until_true flock_is_held "$work/lock14"
printf '[replay]\nbusy_retries = 1\n[health]\nquarantine_after = 2\n' >"$work/conf2"
health --recover --config "$work/conf2"
check "held: no failed replay" json 'd["status"] == "unhealthy" and d["held_boxes"] == 1 and d["failed_cleanup_count"] == 2'
kill "$holder"
wait "$holder" 2>/dev/null
health --recover --config "$work/conf2"
check "a failed replay: quarantined" json 'd["status"] == "quarantined" and d["failed_cleanup_count"] == 3'
kill "$sitter"
wait "$sitter" 2>/dev/null
health --recover
check "and it is released" healthy

# ---- a supervisor whose own teardown fails ----

fresh
cat >"$work/payload" <<'S'
(exec 9>&-; cd "$1" && exec setsid sleep 120) >/dev/null 2>&1 </dev/null &
until [ "$(readlink /proc/$!/cwd)" = "$1" ]; do :; done
echo $! >"$2"
S
call run --config "$work/conf" --box own --mount "tmpfs,none,$work/at" -- sh "$work/payload" "$work/at" "$work/sitter"
check "a teardown that fails: status 1" is "$status" 1
check "a teardown that fails: an event" err_has "event mount_unmount_failed: box own"
call incidents --json
check "a teardown that fails: an incident" json '[(i["procedure"], i["boxes"], i["left"], i["outcome"]) for i in d["incidents"]]
    == [("undo", ["own"], 1, "partial")]'
health
check "a teardown that fails: unhealthy" is "$status" 1
check "a teardown that fails: why" json 'd["last_cleanup_error"].startswith("mount_unmount_failed: ")'
kill "$(cat "$work/sitter")"
until_true gone "/proc/$(cat "$work/sitter")/cwd"
health --recover
check "the next replay finishes it" healthy
call incidents --json
check "it is the same incident" json '[(i["count"], i["left"], i["outcome"]) for i in d["incidents"]] == [(2, 0, "success")]'

# ---- by hand ----

fresh
start running --tmpdir "$work/running"
keeper=$supervisor
health --quarantine --reason $'kernel \e[31mupgrade'
check "--quarantine: done" is "$status" 0
health
check "--quarantine: quarantined" is "$status" 2
check "--quarantine: its document" json 'd["quarantine_reason"] == "manual_quarantine" and "upgrade" in d["quarantine_detail"]
    and "\x1b" not in d["quarantine_detail"]'
check "--quarantine: no new box" refused
echo '{"op":"begin","box":"h","pid":'$$',"plan":[]}' | "$rbxj" hook >"$work/out" 2>"$work/err"
check "--quarantine: the hook's error code" json 'd["ok"] is False and d["error"]["code"] == "quarantined"'
call list --json
check "--quarantine: running boxes go on" json '[b["state"] for b in d["boxes"]] == ["live"]'
kill -TERM "$keeper"
wait "$keeper" 2>/dev/null
check "--quarantine: a running box ends as ever" gone "$work/running"
health --recover
check "--recover does not release what a person set" is "$status" 2
rm "$work/run/quarantined"
check "without the flag it holds" refused
health
check "a look does not make the flag again" gone "$work/run/quarantined"
call replay
check "a replay does, as after a boot" cmp "$work/state/quarantine" "$work/run/quarantined"
health --quarantine --reason 'is it status="healthy"?'
call health
check "what a person or a box has named can't say that it is healthy" eval '! out_has "status=\"healthy\"" && out_has "is it status=\\x22healthy\\x22?"'
health --quarantine --reason again
check "quarantined again: the new reason" json 'd["quarantine_detail"] == "again"'
mv "$work/state/quarantine" "$work/aside"
check "with the flag alone it holds" refused
health
check "with the flag alone: it says why" json 'd["status"] == "quarantined" and d["quarantine_detail"] == "again"'
health --recover
check "with the flag alone: a recovery makes the file again" cmp "$work/state/quarantine" "$work/run/quarantined"
check "... and does not release what a person set" is "$status" 2
echo garbage >"$work/state/quarantine"
rm "$work/run/quarantined"
check "a file that can't be read holds" refused
ln -sf /nowhere "$work/state/quarantine"
check "a symlink in its place holds" refused
health --unquarantine --reason done
check "--unquarantine: done" is "$status" 0
check "--unquarantine: healthy" healthy
check "--unquarantine: new boxes" let_in
health --unquarantine --reason again
check "--unquarantine: nothing to release" is "$status" 0
chattr +i "$work/state" 2>/dev/null && {
    health --quarantine --reason "can't"
    check "--quarantine that can't be written: not done" is "$status" 1
    check "... and no new boxes all the same" refused
    chattr -i "$work/state"
    health --unquarantine --reason "writable again"
    check "... until it is released" healthy
}

# killed at any moment while it is entered or left: either state, never a broken one
for i in {1..12}; do
    "$rbxj" health --quarantine --reason "try $i" >/dev/null 2>&1 &
    sleep "0.00$((RANDOM % 10))"
    kill -KILL $! 2>/dev/null
    wait $! 2>/dev/null
    health
    case $status in
    0) json 'd["status"] == "healthy"' ;;
    2) json 'd["quarantine_reason"] == "manual_quarantine" and "be read" not in d["quarantine_detail"]' ;;
    *) false ;;
    esac || { check "killed while it is entered, $i" false; break; }
    "$rbxj" health --unquarantine --reason "try $i" >/dev/null 2>&1
done
check "killed while it is entered: released again" healthy_now

# ---- held, waiting, damaged ----

fresh
start 9 --lock "$work/lock9"
(flock 9 && exec sleep 120) 9<"$work/lock9" &
holder=$!
kill -KILL "$supervisor"
wait "$supervisor" 2>/dev/null
until_true flock_is_held "$work/lock9"
kill -0 "$holder"
health
check "a held box: unhealthy" is "$status" 1
check "a held box: the orphan is named" json 'd["held_boxes"] == 1 and d["last_cleanup_error"].startswith("orphan_process_detected: ")
    and str('"$holder"') in d["last_cleanup_error"]'
kill "$holder"
wait "$holder" 2>/dev/null
health --recover
check "without the holder: healthy" healthy

# K4: a box counts as live while one in it does, whatever became of its own supervisor
fresh
sleep 120 &
outer=$!
sleep 120 &
inner=$!
printf '{"op":"begin","box":"%s","pid":%d%s,"plan":[]}\n' outer $outer '' inner $inner ',"parent":"outer"' |
    "$rbxj" hook >"$work/out" 2>"$work/err"
kill -KILL $outer
wait $outer 2>/dev/null
call list --json
check "a dead box with a living one in it: live, its supervisor is not" json '
    {b["box"]: (b["state"], b["supervisor"]["alive"]) for b in d["boxes"]} == {"outer": ("live", False), "inner": ("live", True)}'
health
check "a dead box with a living one in it: healthy" healthy
kill -KILL $inner
wait $inner 2>/dev/null
health
check "both dead: unhealthy" is "$status" 1
health --recover
check "both dead: one replay" healthy

fresh
mkdir "$work/disk"
mount -t tmpfs none "$work/disk"
crash 10 --tmpdir "$work/disk/t"
mount --move "$work/disk" "$shm" 2>/dev/null || umount -l "$work/disk"
health --recover
check "not mounted yet: no illness (K14)" healthy
check "not mounted yet: the box is there" json 'd["stale_boxes"] == 1'
mount --move "$shm" "$work/disk" && health --recover
check "mounted again: undone" gone "$work/disk/t"
umount "$work/disk"

# ---- the journals can't be used, though nothing of them is damaged (K33) ----

unusable() { is "$status" 1 && json 'd["status"] == "unhealthy" and d["can_accept_submissions"] is False
    and d["quarantine_reason"] is None and d["escalate_reasons"] == ["unusable_journal"]
    and "'"$1"'" in d["last_cleanup_error"]'; }

fresh
crash 14 --tmpdir "$work/t14"
mv "$work/run" "$work/run.before"
mkdir -m 0700 "$work/run"
mount -t tmpfs -o mode=0700 none "$work/state" # a boot, and the disk is not mounted yet
"$rbxj" run --box 15 --tmpdir "$work/t15" -- true 2>/dev/null
umount "$work/state"
health
check "another journal's: unhealthy" unusable "does not belong"
health --recover
check "another journal's: a recovery fails" unusable "does not belong"
check "another journal's: and says so" err_has "does not belong"
check "another journal's: nothing is undone" there "$work/t14"
check "another journal's: no quarantine" gone "$work/state/quarantine" "$work/run/quarantined"
verify
check "another journal's: it is not known to be clean" is "$status" 2
check "another journal's: the document says so" json 'd["status"] == "unknown" and "clean" not in d'
call list
check "another journal's: list fails as replay does" is "$status" 3
check "another journal's: list says why" err_has "does not belong"
call metrics
check "another journal's: metrics" grep -qxF 'rustbox_worker_health{status="unhealthy"} 1' "$work/out"
call run --box new --tmpdir "$work/new" -- true
check "another journal's: no new box" is "$status" 125
mkdir "$work/theirs" && mv "$work/run"/journal-* "$work/theirs/"
health --recover
check "moved aside: healthy" healthy
check "moved aside: undone" gone "$work/t14"
rm -rf "$work/run.before" "$work/theirs"

fresh
crash 16 --tmpdir "$work/t16"
# shellcheck disable=SC2016
unshare --mount sh -c 'mount -t tmpfs -o mode=0700 none "$1" && "$2" run --box 17 --tmpdir "$3" -- true' sh \
    "$work/run" "$rbxj" "$work/t17" # in a unit with a /run of its own
health
check "made anew elsewhere (K21): unhealthy, no new boxes" unusable "another boot journal has taken its place"
call run --box new --tmpdir "$work/new" -- true
check "made anew elsewhere: nor are there" is "$status" 125
check "made anew elsewhere: and it says where that may be" err_has "/run of its own"
call replay
check "made anew elsewhere: what this one has is undone" gone "$work/t16"
mkdir "$work/theirs" && mv "$work/run"/journal-* "$work/theirs/"
health --recover
health --unquarantine --reason "looked into"
check "moved aside: healthy" healthy_now
check "moved aside: new boxes" let_in
rm -rf "$work/theirs"

fresh
rmdir "$work/state"
health
check "no state directory: unhealthy" unusable "mount its disk"
health --recover
check "no state directory: nor is it recovered" unusable "mount its disk"
verify
check "no state directory: it is not known to be clean" is "$status" 3
check "no state directory: the document says why" json 'd["status"] == "unknown" and "clean" not in d
    and "mount its disk" in d["error"]["message"]'
call run --box new --tmpdir "$work/new" -- true
check "no state directory: no new box" is "$status" 125
mkdir -m 0700 "$work/state"
health
check "it is there: healthy" healthy
verify
check "it is there, and was never used: clean" is "$status" 0
call run --box new --tmpdir "$work/new" -- true
mv "$work/state" "$work/state.before" && cp -a "$work/state.before" "$work/state"
verify
check "a copy is in its place: it is not known to be clean" is "$status" 2
check "a copy is in its place: why" err_has "is not the directory that this boot's journal was made for"
health
check "a copy is in its place: and its health says the same" unusable "is not the directory"
rm -r "$work/state" && mv "$work/state.before" "$work/state"
verify
check "the very one: clean" is "$status" 0

fresh
crash 11 --tmpdir "$work/t11"
python3 - "$work"/run/journal-*/data.mdb <<'P'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
at = data.find(b"RBXJ")
while at >= 0:
    data[at + 20] ^= 255
    at = data.find(b"RBXJ", at + 4)
open(sys.argv[1], "r+b").write(data)
P
health
check "damaged: quarantined" is "$status" 2
check "damaged: the reason" json 'd["status"] == "quarantined" and d["quarantine_reason"] == "journal_corruption" and d["escalate"]'
health --recover
check "damaged: a recovery undoes nothing" there "$work/t11"
check "damaged: and quarantines" there "$work/state/quarantine"
check "damaged: status 2" is "$status" 2
verify
check "damaged: moved aside whole" there "$work"/run/journal.damaged-*/data.mdb
check "damaged: not clean" is "$status" 1
rm -rf "$work/t11"

# ---- wrong use ----

fresh
for args in "--quarantine" "--recover --check" "--reason x" "--nonsense" "word" "--unquarantine --reason="; do
    # shellcheck disable=SC2086
    call health $args
    check "health $args: unknown" is "$status" 3
    check "health $args: one line" one_line
done
crash 12 --tmpdir "$work/t12"
chmod 0755 "$work"
cp "$rbxj" "$work/rbxj" && chmod 0755 "$work/rbxj"
setpriv --reuid=65534 --regid=65534 --clear-groups "$work/rbxj" health --json >"$work/out" 2>"$work/err"
status=$?
check "no permission: unknown" is "$status" 3
check "no permission: its document" json 'd["status"] == "unknown" and d["can_accept_submissions"] is False and d["error"]["code"] == "permission"'
as_nobody() {
    setpriv --reuid=65534 --regid=65534 --clear-groups env -u RBXJ_STATE_DIR -u RBXJ_RUNTIME_DIR HOME="$1" \
        XDG_RUNTIME_DIR="$work/nobody.run" "$work/rbxj" health --verify-clean --json --config "$work/own.conf" >"$work/out" 2>"$work/err"
    status=$?
}
mkdir -m 0700 "$work/nobody.home" "$work/nobody.run"
chown 65534 "$work"/nobody.*
as_nobody "$work/nobody.home"
check "a user who has never run anything: clean" is "$status" 0
as_nobody "$work/nowhere"
check "a user whose home is not there: it is not known to be clean" is "$status" 3
check "a user whose home is not there: why" json 'd["status"] == "unknown" and "can'"'"'t be made" in d["error"]["message"]'
call health --help
check "--help" out_has "3 unknown"
health --recover

finish
