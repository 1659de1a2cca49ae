#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Events as an operator reads them: a journald of this test's own, and the catalog that explains them: journald.sh [RBXJ]
. "${0%/*}/lib.bash"

catalog=$top/systemd/rbxj.catalog

# ---- ids, catalog and source belong together ----

sed -n 's/.*X("\([a-z_]*\)", "\([0-9a-f]*\)").*/\1 \2/p' "$top/src/reaper/event_ids.h" >"$work/ids"
sed -n 's/^-- //p' "$catalog" >"$work/explained"
id_of() { awk -v name="$1" '$1 == name { print $2 }' "$work/ids"; }
sound_ids() {
    [ "$(wc -l <"$work/ids")" -ge 13 ] && ! grep -qvE '^[a-z_]+ [0-9a-f]{32}$' "$work/ids" &&
        is "$(cut -d' ' -f1 "$work/ids" | sort | uniq -d)" "" && is "$(cut -d' ' -f2 "$work/ids" | sort | uniq -d)" ""
}
check "each event has an id of its own" sound_ids
check "each id is explained, and nothing else" is "$(cut -d' ' -f2 "$work/ids" | sort | tr '\n' ' ')" "$(sort "$work/explained" | tr '\n' ' ')"
# Every literal that is an event's name, and those of event_of_entry().
in_source() {
    cat "$top"/src/*/*.c >"$work/source"
    {
        grep -oE '(\.|->)?event = "[a-z_]+"' "$work/source"
        sed -n '/^const char \*event_of_entry/,/^}/p' "$work/source" | grep -oE '"[a-z]+_[a-z_]+"'
    } | sed 's/.*"\([a-z_]*\)"/\1/' | sort -u
}
check "every event that is sent has an id, and the other way round" is "$(in_source | tr '\n' ' ')" "$(cut -d' ' -f1 "$work/ids" | sort | tr '\n' ' ')"
names_fields() {
    grep -o '@[A-Z_]*@' "$catalog" | sort -u | while read -r field; do
        grep -q "\"${field:1:-1}=\"" "$top/src/reaper/events.c" || { echo "  $field is no field"; return 1; }
    done
}
check "the explanations name fields that there are" names_fields

mkdir -p "$work/root/usr/lib/systemd/catalog"
cp "$catalog" "$work/root/usr/lib/systemd/catalog"
compile() { journalctl --update-catalog --root="$work/root" >"$work/out" 2>"$work/err" && is "$(cat "$work/err")" ""; }
check "journalctl compiles the catalog" compile
listed() { journalctl --list-catalog --root="$work/root" >"$work/out" && is "$(wc -l <"$work/out")" "$(wc -l <"$work/ids")"; }
check "all of it" listed

# ---- a journald ----

journald=/lib/systemd/systemd-journald
if [ ! -x "$journald" ] || [ ! -s /etc/machine-id ]; then
    echo "no journald here"
    finish
fi
mount -t tmpfs -o mode=0755 test /run
mount -t tmpfs -o mode=0755 test /etc/systemd
mkdir -p /run/systemd/journal /run/log/journal
# It must not touch the machine: neither its log nor the kernel's audit.
printf '[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\nForwardToSyslog=no\nForwardToWall=no\n' >/etc/systemd/journald.conf
mount --bind "$work/root/var/lib/systemd/catalog" /var/lib/systemd/catalog
"$journald" >"$work/journald.log" 2>&1 </dev/null &
if ! until_true test -S /run/systemd/journal/socket; then
    bad "journald starts"
    cat "$work/journald.log"
    finish
fi

# logged FIELD=VALUE...: one entry with all of these; as journalctl -x shows it in out, its fields in fields.
logged() {
    until_true entry "$@" && journalctl -D /run/log/journal --no-pager -x "$@" >"$work/out" 2>"$work/err"
}
entry() {
    journalctl -D /run/log/journal --no-pager -q -o verbose "$@" >"$work/fields" 2>"$work/err" && [ -s "$work/fields" ]
}
# field NAME=VALUE...: the entry has them.
field() {
    local field
    for field; do grep -qE "^    $field$" "$work/fields" || { echo "  no $field"; sed 's/^/  /' "$work/fields"; return 1; }; done
}

export RBXJ_DURABILITY=always
printf '[replay]\nbusy_retries=1\n' >"$work/rbxj.conf"
fresh
crash 7 --lock "$work/7.lock" --mount "tmpfs,x,$work/7.mnt" 2>/dev/null
sleep 600 <"$work/7.mnt" & # busy, by somebody else
holder=$!
call --config "$work/rbxj.conf" replay
cp "$work/err" "$work/replay.err"
check "a busy mount is left" is "$status" 1
check "journald has it" logged RBXJ_EVENT=mount_unmount_failed
check "with its id and fields" field "MESSAGE_ID=$(id_of mount_unmount_failed)" PRIORITY=4 RBXJ_BOX=7 'RBXJ_INCARNATION=[0-9]+' \
    RBXJ_KIND=mount "RBXJ_NAME=$work/7.mnt" RBXJ_CAUSE=supervisor_crash 'RBXJ_INCIDENT=[0-9A-Za-z-]+' ERRNO=16
check "its message names who holds it" field "MESSAGE=.*; held by pid $holder .*"
incident=$(sed -n 's/^    RBXJ_INCIDENT=//p' "$work/fields")
explained() { out_has "Mount $work/7.mnt of box 7 could not be unmounted" && out_has "rbxj replay --box 7" && out_has "rbxj incidents show $incident"; }
check "journalctl -x says what to do, for this very box" explained
known() { call incidents show "$incident"; is "$status" 0; }
check "the incident is the one that rbxj knows" known
check "the end of the replay is told" logged RBXJ_EVENT=replay_done
check "with the same incident" field "MESSAGE_ID=$(id_of replay_done)" "RBXJ_INCIDENT=$incident" PRIORITY=4
nothing_printed() { ! grep "rbxj: event" "$work/replay.err"; }
check "and nothing of it on standard error" nothing_printed

call --config "$work/rbxj.conf" replay
call --config "$work/rbxj.conf" replay # the third in a row
check "the quarantine is told" logged RBXJ_EVENT=worker_quarantined
check "with box, incident and reason" field "MESSAGE_ID=$(id_of worker_quarantined)" PRIORITY=3 RBXJ_BOX=7 "RBXJ_INCIDENT=$incident" \
    RBXJ_CAUSE=cleanup_failure
says() { out_has "This worker takes no new boxes: cleanup_failure"; }
check "and explained" says
call --config "$work/rbxj.conf" health --recover # the fourth
check "that a person should look is told" logged RBXJ_EVENT=worker_escalated
check "with its reason" field "MESSAGE_ID=$(id_of worker_escalated)" PRIORITY=3 RBXJ_CAUSE=repeated_failure
says() { out_has "A person should look at this worker: repeated_failure"; }
check "and explained, too" says
kill -KILL "$holder"
wait "$holder" 2>/dev/null
call health --recover
check "its end is told" logged RBXJ_EVENT=worker_released
check "with what it was for" field "MESSAGE_ID=$(id_of worker_released)" RBXJ_CAUSE=cleanup_failure PRIORITY=5

fresh
crash 8 --lock "$work/8.lock" 2>/dev/null
call forget --box 8 --seq 1 --reason test
check "a forgotten record is told" logged RBXJ_EVENT=record_forgotten RBXJ_BOX=8
check "with what it was" field "MESSAGE_ID=$(id_of record_forgotten)" RBXJ_KIND=lock "RBXJ_NAME=$work/8.lock"

fresh
crash 9 --lock "$work/9.lock" 2>/dev/null
for meta in 0 1; do # the roots of both metas lead nowhere
    printf '\377\377\0\0\0\0\0\0' |
        dd of="$work/state/journal/data.mdb" bs=1 seek=$((meta * 4096 + 128)) conv=notrunc status=none
done
call --config "$work/rbxj.conf" replay
check "a damaged journal is refused" is "$status" 3
check "and told" logged RBXJ_EVENT=journal_corruption
check "as critical, with where it was moved to" field "MESSAGE_ID=$(id_of journal_corruption)" PRIORITY=2 "RBXJ_NAME=$work/state/journal.damaged-.*"
finish
