#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# rbxj forensics from outside: forensics.sh [RBXJ]
. "${0%/*}/lib.bash"

fresh
data=$work/state/journal/data.mdb
picture() { find "$work/state" "$work/run" -printf '%p %i %s %T@ %C@\n' | sort; find "$work/state" "$work/run" -type f -exec sha256sum {} +; }
salvage_gone() { rm -rf "$work/new" "$work/new.run"; }

# ---- nothing yet ----

call forensics --json
check "nothing: exits 0" is "$status" 0
check "nothing: no file" json 'd == {"files": []}'
check "nothing: makes nothing" is "$(ls -A "$work/state")" ""
call forensics --salvage "$work/new"
check "nothing: there is nothing to salvage" is "$status" 2
check "nothing: one line says so" one_line

# ---- two crashed boxes and one that ended ----

call run --box done --tmpdir "$work/done" -- true
crash a --tmpdir "$work/a" --lock "$work/a.lock"
crash b --tmpdir "$work/b"
before=$(picture)
call forensics --json
check "sound: exits 0" is "$status" 0
check "sound: both journals" json 'len(d["files"]) == 2 and [f["verdict"] for f in d["files"]] == ["sound", "sound"]'
check "sound: the boot journal first" json '"/run/journal-" in d["files"][0]["path"]'
check "sound: no reason" json 'all(f["reasons"] == [] for f in d["files"])'
check "sound: two metas, two snapshots" json 'all(len(f["metas"]) == 2 and len(f["snapshots"]) == 2 for f in d["files"])'
check "sound: nothing damaged" json 'all(f["records"]["damaged"] == 0 for f in d["files"])'
check "sound: as many intact as the snapshot has" \
    json 'all(f["records"]["intact"] == f["snapshots"][0]["records"] for f in d["files"])'
check "sound: names" json '"'"$work"'/a" in [e["name"] for e in d["files"][0]["entries"] if e["state"] == "intact" and e["box"] == "a"]'
check "sound: what has ended is an orphan or older" \
    json 'all(e["state"] in ("orphan", "superseded") for f in d["files"] for e in f["entries"] if e["box"] == "done")'
check "sound: the transaction of what is in a snapshot, and of nothing else" \
    json 'all(e["txn"] == (s[0]["txn"] if e["newest_snapshot"] else s[1]["txn"] if e["previous_snapshot"] else None)
              for f in d["files"] for s in [f["snapshots"]] for e in f["entries"]) and
          {e["txn"] is None for f in d["files"] for e in f["entries"]} == {True, False}'
call forensics
check "table: exits 0" is "$status" 0
check "table: verdict" out_has "data.mdb: sound"
check "table: a record" out_has "$work/a.lock"
check "it changes no byte" is "$(picture)" "$before"
call forensics "$data"
check "a file" is "$status" 0
call forensics "$work/state"
check "a directory" is "$status" 0
call forensics "$work"
check "a directory without a journal" is "$status" 2
call forensics "$work/nowhere"
check "no such file" is "$status" 6
check "no such file: one line" one_line
call forensics a b
check "one operand too many" is "$status" 2

call forensics --hexdump 0 "$data"
check "hexdump: exits 0" is "$status" 0
check "hexdump: the magic of a meta page" grep -q '^00000010  de c0 ef be' "$work/out"
call forensics --hexdump 99999999 "$data"
check "hexdump: no such page" is "$status" 2
call forensics --hexdump x "$data"
check "hexdump: no number" is "$status" 2
call forensics --hexdump 0
check "hexdump: needs a file" is "$status" 2

# ---- damage: the newest snapshot of the disk journal leads nowhere ----

call run --box later --tmpdir "$work/later" -- true # the previous snapshot has all of a and b
cp -a "$work/state" "$work/copy"
newest=$(python3 -I -S -c 'import struct, sys
b = open(sys.argv[1], "rb").read()
print(0 if struct.unpack_from("<Q", b, 144)[0] > struct.unpack_from("<Q", b, 4096 + 144)[0] else 1)' "$data")
damage() { # of the root of the main tree in the newest meta
    printf '\377\377\0\0\0\0\0\0' | dd of="$1/journal/data.mdb" bs=1 seek=$((newest * 4096 + 128)) conv=notrunc status=none
}
damage "$work/copy"
before=$(sha256sum <"$work/copy/journal/data.mdb")
call forensics --json "$work/copy"
check "damaged: exits 3" is "$status" 3
check "damaged: the verdict and why" json 'd["files"][0]["verdict"] == "damaged" and len(d["files"][0]["reasons"]) >= 1'
check "damaged: every record is found" json '{e["name"] for e in d["files"][0]["entries"] if e["state"] == "intact"} >= {"'"$work"'/a", "'"$work"'/a.lock", "'"$work"'/b"}'
call forensics --salvage "$work/new" "$work/copy"
check "salvage: exits 0 or says what is left out" test "$status" -le 1
check "salvage: says how many" out_has "salvaged into $work/new: "
check "salvage: the damaged one stays as it is" is "$(sha256sum <"$work/copy/journal/data.mdb")" "$before"
mkdir -m 0700 "$work/new.run"
call --state-dir "$work/new" --runtime-dir "$work/new.run" list --json
check "salvaged: it is a journal" is "$status" 0
check "salvaged: with the boxes" json '{"a", "b"} <= {b["box"] for b in d["boxes"]}'
call forensics --salvage "$work/new" "$work/copy"
check "salvage: not into one that is not empty" is "$status" 2
for lost in 0 100000; do
    head -c "$lost" /dev/zero >"$work/lost.mdb"
    call forensics --salvage "$work/nothing" "$work/lost.mdb"
    check "salvage: of $lost bytes in which nothing is left: refused" is "$status" 3
    check "salvage: of $lost bytes: and why, in one line" eval 'one_line && err_has "neither a snapshot nor a record"'
    check "salvage: of $lost bytes: nothing is made" gone "$work/nothing"
done

# ---- a replay of what was salvaged: what is proven is undone ----

rm -rf "$work/run"
mkdir -m 0700 "$work/run"
rm -rf "$work/state/journal"
mv "$work/new/journal" "$work/state/journal"
call replay --json
check "salvaged: the replay ends" is "$status" 0
check "salvaged: what was left is gone" gone "$work/a" "$work/a.lock" "$work/b"
call incidents --json
check "salvaged: its incident says so" json 'any("salvaged" in n for i in d["incidents"] for n in i["notes"])'
call list --json
check "salvaged: nothing is left" json 'd == {"boxes": []}'
call run --box again --tmpdir "$work/again" -- true
check "salvaged: it is used as any other" is "$status" 0

# what was not proven to be ours when the journal was lost is left alone
fresh
python3 -I -S - "$rbxj" "$work/c" <<'P' >"$work/hook.out"
import json, os, subprocess, sys
hook = subprocess.Popen([sys.argv[1], "hook"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
plan = [{"kind": "tmpdir", "path": sys.argv[2]}, {"kind": "tmpdir", "path": sys.argv[2] + "2"}]
def ask(request):
    hook.stdin.write(json.dumps(request).encode() + b"\n")
    hook.stdin.flush()
    reply = json.loads(hook.stdout.readline())
    assert reply["ok"], reply
ask({"op": "begin", "box": "c", "plan": plan})
os.mkdir(sys.argv[2], 0o700)
os.mkdir(sys.argv[2] + "2", 0o700)
ask({"op": "acquired", "box": "c", "seq": 2})
P
call forensics --salvage "$work/new2" "$work/run"
check "unproven: salvaged" is "$status" 0
rm -rf "$work/run" "$work/state/journal"
mkdir -m 0700 "$work/run"
mv "$work/new2/journal" "$work/state/journal"
call replay --json --box c --assume-dead --reason "its host is gone"
check "unproven: something is left" is "$status" 1
check "unproven: it is refused" json '[(e["seq"], e["outcome"]) for e in d["boxes"][0]["entries"]] == [(2, "undone"), (1, "refused")]'
check "unproven: it is left alone" there "$work/c"
check "proven: it is undone" gone "$work/c2"
call incidents --json
check "salvaged, and assumed dead: its incident says both" \
    json 'any("salvaged" in n and "its host is gone" in n for i in d["incidents"] for n in i["notes"])'

# ---- damaged in place, under the stamp that says that it is sound: LMDB would die of it ----

fresh
crash d --tmpdir "$work/d"
call list
python3 -I -S - "$work"/run/journal-*/data.mdb <<'P'
import struct, sys
with open(sys.argv[1], "r+b") as f:
    b = f.read()
    newest = max((0, 4096), key=lambda at: struct.unpack_from("<Q", b, at + 144)[0])
    f.seek(struct.unpack_from("<Q", b, newest + 128)[0] * 4096 + 12) # of the main tree's root: where its keys end
    f.write(bytes(2))
P
call list
check "in place: list says so" is "$status" 3
call replay
check "in place: a replay says so" is "$status" 3
check "in place: nothing is undone" there "$work/d"
check "in place: it was moved aside" there "$work"/run/journal.damaged-*

# ---- anything at all ----

head -c 100000 /dev/urandom >"$work/noise"
call forensics --json "$work/noise"
check "noise: exits 3" is "$status" 3
: >"$work/empty"
call forensics --json "$work/empty"
check "an empty file: exits 3" is "$status" 3
mkfifo "$work/fifo"
call forensics "$work/fifo"
check "a FIFO does not hang" is "$status" 2
head -c 10000 "$data" >"$work/short"
call forensics --json "$work/short"
check "a truncated one: exits 3" is "$status" 3

# ---- who is not root reads a copy ----

cp "$data" "$work/readable"
chmod 0644 "$work/readable"
chmod 0711 "$work"
timeout 30 setpriv --reuid 65534 --regid 65534 --clear-groups env -u RBXJ_STATE_DIR -u RBXJ_RUNTIME_DIR HOME=/ XDG_STATE_HOME=/tmp \
    XDG_RUNTIME_DIR=/tmp "$rbxj" forensics --json "$work/readable" >"$work/out" 2>"$work/err"
check "anybody who can read it" is "$?" 0

# ---- in the place of one of the two is something else: the other one is told of, and salvaged ----

fresh
crash s --tmpdir "$work/s"
: >"$work/state/journal-notes"
for kind in fifo directory loop file; do
    rm -rf "$work/state/journal" "$work/new"
    mkdir "$work/state/journal"
    case $kind in
    fifo) mkfifo "$data" ;;
    directory) mkdir "$data" ;;
    loop) ln -s data.mdb "$data" ;;
    file) rmdir "$work/state/journal" && : >"$work/state/journal" ;;
    esac
    call forensics --json
    check "$kind in its place: exits 3" is "$status" 3
    check "$kind in its place: both are told of" \
        json '[f["verdict"] for f in d["files"]] == ["sound", "damaged"] and "not a regular file" in d["files"][1]["reasons"][0]'
    call forensics --salvage "$work/new"
    check "$kind in its place: the other one is salvaged" out_has "salvaged into $work/new: 1 boxes with 2 records"
    call forensics --salvage "$work/new2" "$work/state"
    check "$kind in its place: alone there is nothing to salvage" is "$status" 2
done

# ---- as rbxj-forensics(1) says it: within a boot whose own journal is sound ----

damage() { # every page of it
    local page
    for ((page = 2; page < $(stat -c %s "$1") / 4096 && page < 64; page++)); do
        printf '\377\377\377\377' | dd of="$1" bs=1 seek=$((page * 4096 + 10)) conv=notrunc status=none
    done
}
put_in_place() {
    local d
    d=$(mktemp -d "$work/damaged.XXXX") && mkdir "$d/state" "$d/run" || return
    mv "$work"/state/journal* "$d/state/" || return
    mv "$work"/run/journal* "$d/run/" 2>/dev/null # none after a reboot
    mv -T "$work/new/journal" "$work/state/journal"
}
fresh
crash r --tmpdir "$work/r" --lock "$work/r.lock"
damage "$data"
call replay
check "man: a damaged journal: nothing is undone" is "$status" 3
check "man: nothing was" there "$work/r" "$work/r.lock"
rm -rf "$work/new"
call forensics --salvage "$work/new"
check "man: salvaged" is "$status" 0
check "man: it says how much" out_has "salvaged into $work/new: 1 boxes with 3 records"
call --state-dir "$work/new" --runtime-dir "$work/new" list --json
check "man: the box is in it" json '[b["box"] for b in d["boxes"]] == ["r"]'
check "man: put in place" put_in_place
call replay --dry-run
check "man: the whole plan can be done" is "$status" 0
call replay
check "man: done" is "$status" 0
check "man: undone" gone "$work/r" "$work/r.lock"
call health --unquarantine --reason salvaged
call health
check "man: healthy" is "$status" 0

# ---- and where both were moved aside: they have one name, and what is left in doubt a person removes ----

fresh
crash r --tmpdir "$work/r" --lock "$work/r.lock"
damage "$data"
damage "$(echo "$work"/run/journal-*/data.mdb)"
call replay
check "again: nothing is undone" is "$status" 3
check "again: both were moved aside, under one name" \
    is "$(cd "$work/state" && echo journal*)" "$(cd "$work/run" && echo journal*)"
call forensics --salvage "$work/new"
check "again: salvaged, into what is empty by now" is "$status" 0
check "again: put in place" put_in_place
call replay
check "again: it is in doubt" is "$status" 1
check "again: and says so" err_has 'was salvaged from a damaged journal, and is in doubt'
check "again: nothing is undone" there "$work/r" "$work/r.lock"
call list --json
payload=$(python3 -I -S -c 'import json, sys
print(*[r["name"].split()[1] for b in json.load(sys.stdin)["boxes"] for r in b["records"] if r["kind"] == "process"])' <"$work/out")
dead() { ! lives "$1"; }
kill "$payload"
until_true dead "$payload"
rm -r "$work/r" "$work/r.lock"
call replay
check "again: removed by hand, it is already gone" is "$status" 0
call list --json
check "again: nothing is left" json 'd == {"boxes": []}'

# ---- one record of each damaged: both are moved aside, and both are salvaged ----

damage_record() { # FILE BOX SEQ: the copy that counts
    call forensics --json "$1"
    python3 -I -S - "$work/out" "$@" <<'P'
import json, sys
out, path, box, seq = sys.argv[1:]
at = [int(e["offset"]) + 60 for e in json.load(open(out))["files"][0]["entries"]
      if (e["box"], e["seq"], e["newest_snapshot"]) == (box, int(seq), True)]
with open(path, "r+b") as f:
    f.seek(at[0])
    byte = f.read(1)[0]
    f.seek(at[0])
    f.write(bytes([byte ^ 255]))
P
}
fresh
export RBXJ_DURABILITY=resource
crash p --tmpdir "$work/p"
crash v --tmpdir "$shm/v" # in the boot journal alone
crash q --tmpdir "$work/q"
damage_record "$data" q 1
damage_record "$(echo "$work"/run/journal-*/data.mdb)" q 1
call replay
check "both aside: nothing is undone" is "$status" 3
check "both aside: both were moved aside" there "$work"/run/journal.damaged-* "$work"/state/journal.damaged-*
rm -rf "$work/new"
call forensics --salvage "$work/new"
check "both aside: salvaged" is "$status" 0
call --state-dir "$work/new" --runtime-dir "$work/new" list --json
check "both aside: what only the boot journal had, too" json '{b["box"] for b in d["boxes"]} == {"p", "q", "v"}'
check "both aside: put in place" put_in_place
call replay
check "both aside: what is proven is undone" gone "$work/p" "$shm/v"
unset RBXJ_DURABILITY

# ---- the newest snapshot of both is lost, just after a record was forgotten: what it named is a person's now ----

lose_newest() { # FILE
    python3 -I -S - "$1" <<'P'
import struct, sys
with open(sys.argv[1], "r+b") as f:
    b = f.read()
    f.seek(max((0, 4096), key=lambda at: struct.unpack_from("<Q", b, at + 144)[0]))
    f.write(bytes(4096))
P
}
for how in both boot disk; do
    fresh
    export RBXJ_DURABILITY=always
    dir=$work/mine-$how
    [ $how != boot ] || { RBXJ_DURABILITY=resource dir=$shm/mine; } # in that one alone, without an entry of its log
    crash f --tmpdir "$dir"
    call forget --box f --seq 1 --reason "a person keeps it"
    check "forgotten, $how: done" is "$status" 0
    lose_newest "$data"
    if [ $how = disk ]; then rm -rf "$work"/run/*; else lose_newest "$(echo "$work"/run/journal-*/data.mdb)"; fi
    call replay
    check "forgotten, $how: damaged" is "$status" 3
    rm -rf "$work/new"
    call forensics --salvage "$work/new"
    check "forgotten, $how: salvaged" is "$status" 0
    check "forgotten, $how: put in place" put_in_place
    call replay
    check "forgotten, $how: it is left" there "$dir"
    unset RBXJ_DURABILITY
done

# ---- what was moved aside was left there when the salvaged journal was put in place: it was looked into ----

fresh
crash f --tmpdir "$work/mine-aside"
damage_record "$data" f 2
damage_record "$(echo "$work"/run/journal-*/data.mdb)" f 2
call replay
rm -rf "$work/new"
call forensics --salvage "$work/new"
mv -T "$work/new/journal" "$work/state/journal"
call forget --box f --seq 1 --reason "a person keeps it"
check "left aside: forgotten" is "$status" 0
call health --unquarantine --reason "looked into"
crash g --tmpdir "$work/g"
damage_record "$(echo "$work"/run/journal-[0-9a-f]*/data.mdb)" g 1
call replay
check "left aside: damaged again" is "$status" 3
rm -rf "$work/new"
call forensics --salvage "$work/new"
call --state-dir "$work/new" --runtime-dir "$work/new" list --json
check "left aside: what was forgotten since does not come back" \
    json '"'"$work"'/mine-aside" not in [r["name"] for b in d["boxes"] for r in b["records"]]'

# ---- salvaged while the clock was years ahead, and damaged again: a person looks into that, too ----

fresh
crash f --tmpdir "$work/f"
rm -rf "$work/new"
call forensics --salvage "$work/new"
put_in_place
python3 -I -S - "$data" <<'P'
import sys, time
with open(sys.argv[1], "r+b") as f:
    b = f.read()
    at = b.find(b"salvaged")
    while at >= 0:
        f.seek(at + 8)
        f.write((int(time.time() + 1e8) * 10**9).to_bytes(8, "little"))
        at = b.find(b"salvaged", at + 1)
P
crash g --tmpdir "$work/g-ahead"
damage_record "$(echo "$work"/run/journal-[0-9a-f]*/data.mdb)" g 1
call replay
check "clock ahead: damaged" is "$status" 3
call replay
check "clock ahead: nothing is undone before it was looked into" is "$status" 3
check "clock ahead: nothing was" there "$work/g-ahead"
call health --unquarantine --reason "looked into"
call replay
check "clock ahead: what is proven is" gone "$work/g-ahead"

# ---- an old copy of this boot's journal was put in its place: what was forgotten since is in it ----

fresh
export RBXJ_DURABILITY=always
crash f --tmpdir "$work/mine-old"
cp "$(echo "$work"/run/journal-*/data.mdb)" "$work/old.mdb"
call forget --box f --seq 1 --reason "a person keeps it"
call list
check "old copy: the journal itself is read" is "$status" 0
cp "$work/old.mdb" "$(echo "$work"/run/journal-*/data.mdb)"
call list
check "old copy: list says so" is "$status" 3
check "old copy: in one line" one_line
check "old copy: and what it is" err_has "is older than what the journal in $work/state has of it"
call replay
check "old copy: a replay says so" is "$status" 3
call run --box g -- true
check "old copy: nothing is begun" is "$status" 125
check "old copy: nothing is undone" there "$work/mine-old"
rm -rf "$work/new"
call forensics --salvage "$work/new"
check "old copy: salvaged" is "$status" 0
check "old copy: put in place" put_in_place
call replay
check "old copy: what it alone has is in doubt" is "$status" 1
check "old copy: and left" there "$work/mine-old"
unset RBXJ_DURABILITY

# ---- a boot journal of another boot, and one that was never finished, beside a sound one on disk ----

fresh
call run --box e -- true
mv "$work"/run/journal-* "$work/ended"
for other in journal-00112233445566778899aabbccddeeff journal-making-00112233445566778899aabbccddeeff; do
    fresh
    crash p --tmpdir "$work/p-$other"
    rm -rf "$work"/run/journal-* "$work/new"
    cp -a "$work/ended" "$work/run/$other"
    call forensics --salvage "$work/new" --json
    check "$other: told, and not salvaged" \
        json 'len(d["files"]) == 2 and (d["salvaged"]["boxes"], d["salvaged"]["records"]) == (1, 2)'
    rm -rf "$work/new"
    call forensics --salvage "$work/new" "$work/run"
    check "$other: alone it is none" is "$status" 2
    check "$other: one line says so" one_line
done

finish
