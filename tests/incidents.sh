#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# rbxj incidents from outside: incidents.sh [RBXJ]
# Records of a real crash and its replay, and documents as they may come from anywhere.
. "${0%/*}/lib.bash"

fresh
log=$work/state/incidents

out_lacks() { ! grep -qF -- "$1" "$work/out"; }
out_empty() { [ ! -s "$work/out" ]; }
clean_bytes() { [ "$(tr -d '\n' <"$work/out" | LC_ALL=C grep -c '[[:cntrl:]]')" = 0 ]; }
usage() {
    local want=$1
    shift
    call incidents "$@"
    check "usage: $*" is "$status" 2
    check "usage: $*: says what is right" err_has "$want"
    check "usage: $*: nothing on standard output" out_empty
}

# put ID DOCUMENT: a record by hand.
put() {
    mkdir -p -m 0700 "$log/$1"
    printf '%s' "$2" >"$log/$1/incident.json"
}
first=20200102T030405Z-00000001 second=20200102T030405Z-0000002a third=20210101T000000Z-0000abcd

# ---- nothing yet ----

call incidents --json
check "nothing: exits 0" is "$status" 0
check "nothing: an empty list" json 'd == {"incidents": []}'
call incidents --markdown
check "nothing: no document" out_empty
call incidents show $first
check "nothing: unknown id" is "$status" 1
check "nothing: makes nothing" is "$(ls -A "$work/state")" ""

usage "needs the id" show
usage "one word too many" show a b
usage "one word too many" list
usage "does not go with it" show a --since 1h
usage "is no time" --since yesterday
usage "is no time" --since 5y
usage "is no time" --since 1000001h
usage "is no time" --since 99999999999999999999h
usage "is no time" --since 2600-01-01
usage "is no time" --since 2026-02-30
usage "exclude each other" --json --markdown
usage "is no time" --since 1500-01-01
usage "unknown or ambiguous option" --frobnicate

# ---- documents by hand ----

evil='\u001b]0;owned\u0007\u009b31m\u00ff`|<b>\u202e'
put $first '{"id":"'$first'","detected":"2020-01-02T03:04:05Z","updated":"2020-01-02T03:05:00Z","cause":"supervisor_crash",
 "boxes":["7","'"$evil"'"],"executions":2,"procedure":"replay","recovery_s":null,"outcome":"partial","count":3,"left":1,
 "notes":["a note '"$evil"'"],"evidence":["7-1.lock","'"$evil"'"],"version":1,"open":["71"],"entries":[
 {"box":"7","incarnation":"71","seq":2,"kind":"mount","name":"/srv/'"$evil"'","raw":"2f7372762f1bff60","found":"busy",
  "action":"unmount","outcome":"failed","event":"mount_unmount_failed",
  "error":{"errno":16,"name":"EBUSY","code":"busy","message":"umount: Device or resource busy","detail":"held by pid 4711"}},
 {"box":"7","incarnation":"71","seq":1,"kind":"tmpdir","name":"/srv/7","found":"present","action":"remove",
  "outcome":"undone","error":null,"note":"2 OOM kills"}],"entries_omitted":5}'
put $second '{"id":"'$second'","updated":"2020-02-01T00:00:00Z","outcome":"success","recovery_s":0.0125}'
put $third '{"id":"'$third'","detected":7,"updated":[],"boxes":{"a":{}},"entries":"x","open":null,"count":"many","notes":5,"evidence":0}'
put 20200102T030405Z-00000003 'not json'
put 20200102T030405Z-00000004 '{"id":"another"}'
put foreign '{"id":"foreign"}'
ln -s $first "$log/20200102T030405Z-00000005"

call incidents
check "table: exits 0" is "$status" 0
check "table: three, newest first" is "$(awk '{ print $1 }' "$work/out" | tr '\n' ' ')" "ID $third $second $first "
check "table: no control byte" clean_bytes
check "table: recovery" out_has 0.013s
check "table: no procedure without --verbose" out_lacks replay
call incidents --noheadings --verbose
check "table: one line each" is "$(wc -l <"$work/out")" 3
check "table: procedure with --verbose" out_has replay
call incidents --quiet
check "quiet" out_empty

call incidents --json
check "json: as it is" json '[i["id"][-4:] for i in d["incidents"]] == ["abcd", "002a", "0001"]'
check "json: the same values" json 'd["incidents"][2]["entries"][0]["name"] == "/srv/\x1b]0;owned\x07\x9b31m\xff`|<b>\u202e"'
check "json: and fields" json 'd["incidents"][2]["count"] == 3 and d["incidents"][1]["recovery_s"] == 0.0125'
check "json: no control byte" clean_bytes
check "json: ASCII" is "$(LC_ALL=C grep -c '[^ -~]' "$work/out")" 0

call incidents --since 2020-02-01 --json
check "since: a date" json 'len(d["incidents"]) == 1'
call incidents --since 2020-01-02T03:05:00Z --json
check "since: a time, itself too" json 'len(d["incidents"]) == 2'
call incidents --since 2020-01-02T03:05:01Z --json
check "since: a second later" json 'len(d["incidents"]) == 1'
call incidents --since 1h --json
check "since: an hour" json 'd["incidents"] == []'
call incidents --since 1000000w --json
check "since: longer than there are clocks" json 'len(d["incidents"]) == 3'

call incidents show $first
check "show: exits 0" is "$status" 0
check "show: what failed and why" out_has 'busy): umount: Device or resource busy; held by pid 4711'
check "show: the bytes of the name" out_has '/srv/\x1b\xff`'
check "show: what was omitted" out_has 'and 5 more'
check "show: no control byte" clean_bytes
call incidents show 20200102T030405Z-0000002
check "show: a prefix" is "$status" 0
check "show: of it" out_has "$second"
call incidents show 2020
check "show: several begin so" is "$status" 1
check "show: says so" err_has '2 incidents begin with 2020'
check "show: prints none" out_empty
for id in foreign ../incidents/$first / "$first/" 20200102T030405Z-00000005; do
    call incidents show "$id"
    check "show: no incident: $id" is "$status" 1
    check "show: prints nothing: $id" out_empty
done
call incidents show nothing --json
check "show: an unknown one in JSON" json 'd["error"]["code"] == "no_such_box"'
call incidents show $first --json
check "show: JSON" json 'len(d["incidents"]) == 1 and d["incidents"][0]["id"].endswith("0001")'

call incidents show $first --markdown
for text in "# Incident $first" '**Timestamp of detection:** 2020-01-02T03:04:05Z' '**Root cause:** `supervisor_crash`, the' \
    '**Recovery procedure used:** `replay`' '**Time to recovery:** not recovered yet' '**Impact:** 2 affected executions' \
    '## What was undone' '- `tmpdir` `/srv/7` of box `7`: `undone`, `2 OOM kills`' '## What is left, and why' \
    '- `mount` `/srv/\x1b\xff\x60` of box `7`: `failed`, `umount: Device or resource busy`, `held by pid 4711`' \
    '5 more entries are not listed' '## Evidence' "\`incidents/$first/7-1.lock\`" "journalctl RBXJ_INCIDENT=$first" \
    '--since "2020-01-02 02:04:05 UTC" --until "2020-01-02 03:06:00 UTC"'; do
    check "markdown: $text" out_has "$text"
done
check "markdown: each under its heading" is "$(sed -n 's/^## What \(was undone\|is left\).*/\1/p; s/^- `\(mount\|tmpdir\)`.*/\1/p' "$work/out" |
    tr '\n' ' ')" "was undone tmpdir is left mount "
check "markdown: no control byte" clean_bytes
check "markdown: nothing gets out of its code span" is "$(grep -v '^#\|^ ' "$work/out" | sed 's/`[^`]*`//g' | grep -c '[<|`]')" 0
call incidents show $third --markdown
check "markdown: of a strange one" is "$status" 0
call incidents --markdown
check "markdown: of all" is "$(grep -c '^# Incident' "$work/out")" 3
check "nothing was changed" is "$(find "$log" -newer "$work/out" | wc -l)" 0

# ---- a crash and its replay ----

rm -rf "$log"
crash 7 --tmpdir "$work/box" --mount "tmpfs,rbxj,$work/root"
exec {busy}<"$work/root"
call replay
check "crash: what is busy is left" is "$status" 1
call incidents --json
check "crash: one incident" json '[i["boxes"] for i in d["incidents"]] == [["7"]]'
check "crash: open" json 'd["incidents"][0]["open"] and d["incidents"][0]["left"] > 0 and d["incidents"][0]["recovery_s"] is None'
check "crash: its cause" json 'd["incidents"][0]["cause"] == "supervisor_crash" and d["incidents"][0]["procedure"] == "replay"'
held_by_this() {
    python3 -I -S -c 'import json, sys, time, datetime
entry = [e for e in json.load(open(sys.argv[1]))["incidents"][0]["entries"] if e.get("event") == "mount_unmount_failed"][0]
held, pid = entry["held_by"][0], sys.argv[2]
read = lambda name: open("/proc/" + pid + "/" + name).read()
stat = read("stat").rsplit(")", 1)[1].split()
paths = [line.split(":", 2)[2] for line in read("cgroup").split("\n") if line]
started = datetime.datetime.strptime(held["started"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()
boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
wrong = [name for name, right in {
    "pid": held["pid"] == int(pid), "comm": held["comm"] == read("comm").strip("\n"), "state": held["state"] in "SRD",
    "started": abs(boot + int(stat[19]) / 100 - started) < 3, "cgroup": held["cgroup"] in paths}.items() if not right]
sys.exit("wrong: %s of %s" % (wrong, held) if wrong else 0)' "$work/out" $$
}
check "crash: who held it" held_by_this
check "crash: why" json 'any(e.get("event") == "mount_unmount_failed" and e["error"]["errno"] == 16 for e in d["incidents"][0]["entries"])'
call incidents --markdown
check "crash: who held it is in the document" out_has "- held by \`pid $$ ("
call incidents show "$(basename "$log"/20*)"
check "crash: and shown" out_has "    held by pid $$ ("
call replay
call incidents --json
check "again: the same one" json '[i["count"] for i in d["incidents"]] == [2]'
exec {busy}<&-
call replay
check "free: done" is "$status" 0
call incidents --json
check "free: closed" json '[(i["outcome"], i["count"], i["left"], i["open"]) for i in d["incidents"]] == [("success", 3, 0, [])]'
check "free: how long it took" json 'd["incidents"][0]["recovery_s"] >= 0'
check "free: modes" is "$(stat -c %a "$log" "$log"/* "$log"/*/incident.json | tr '\n' ' ')" "700 700 600 "
call replay
call incidents --json
check "nothing found, no incident" json 'len(d["incidents"]) == 1'

# those of one second are told in their order
for i in {1..8}; do call health --quarantine --reason "reason $i"; done
call incidents --json
check "in one second: newest first" json '[i["notes"] for i in d["incidents"][:8]] == [["reason %d" % n] for n in range(8, 0, -1)]'
call health --unquarantine --reason done
find "$log" -name incident.json -exec grep -lE '"procedure":"(un)?quarantine"' {} + | xargs -r dirname | xargs -r rm -r

# what killed writers have left: nobody sees it, and once it is old it goes
exec {busy}<&-
mkdir "$log/making-20200101T000000Z-00000001" "$log/making-$(date -u +%Y%m%dT%H%M%SZ)-00000002"
echo half >"$log/making-20200101T000000Z-00000001/incident.json"
call incidents --json
check "unfinished: not listed" json 'len(d["incidents"]) == 1'
crash 8 --tmpdir "$work/box"
call replay
check "unfinished: an old one is swept, a young one left alone" is "$(find "$log" -name 'making-*' | sed 's/.*-//')" 00000002

# a reaper that is killed half-way leaves a trace, and the next one takes it up
crash 9 --tmpdir "$work/box" --mount "tmpfs,rbxj,$work/root"
strace -f -o /dev/null -e trace=umount2 -e inject=umount2:signal=KILL "$rbxj" replay >"$work/out" 2>"$work/err"
call incidents --json
check "killed half-way: unfinished" json '[(i["outcome"], i["recovery_s"]) for i in d["incidents"] if i["boxes"] == ["9"]] == [("unfinished", None)]'
call replay
call incidents --json
check "killed half-way: taken up" json '[(i["outcome"], i["count"]) for i in d["incidents"] if i["boxes"] == ["9"]] == [("success", 2)]'

# ---- who held a lock ----

crash 31 --lock "$work/lock31" --tmpdir "$work/box31"
exec 8<"$work/lock31"
flock 8
call replay
call incidents --json
check "held: by whom" json '[[h["pid"] for h in e["held_by"]] for e in d["incidents"][0]["entries"] if e["kind"] == "lock"] == [['$$']]'
check "held: only that one is" json '[e["kind"] for e in d["incidents"][0]["entries"] if "held_by" in e] == ["lock"]'
exec 8<&-
call replay
call incidents --json
check "held: no longer" json 'd["incidents"][0]["boxes"] == ["31"] and not any("held_by" in e for e in d["incidents"][0]["entries"])'

# ---- what the kernel said ----

# Once for all boxes, and not at all where there is no incident.
reads() { grep -c '/dev/kmsg' "$work/trace" || true; }
traced() { strace -f -qq -e trace=openat -o "$work/trace" "$rbxj" "$@" >"$work/out" 2>"$work/err"; }
traced replay
check "kernel: not asked where nothing is found" is "$(reads)" 0
for box in 21 22 23; do crash $box --tmpdir "$work/box$box"; done
traced replay
check "kernel: asked once for three boxes" is "$(reads)" 1
call incidents --json
check "kernel: its release is told" json 'd["incidents"][0]["kernel"]["release"] == "'"$(uname -r)"'"'
check "kernel: its taint is told" json 'd["incidents"][0]["kernel"]["tainted"] == int(open("/proc/sys/kernel/tainted").read())'
kernel_of() { json '[i["kernel"] for i in d["incidents"] if i["boxes"] == ["'"$1"'"]][0]'"$2"; }

mount --bind /dev/null /dev/kmsg 2>/dev/null && bound=yes || bound=
crash 24 --tmpdir "$work/box24"
call replay
check "kernel: without its log all is undone" is "$status" 0
if [ -n "$bound" ]; then
    umount /dev/kmsg
    call incidents --json
    check "kernel: and that is said" kernel_of 24 '["error"] == "/dev/kmsg could not be read: No such device"'
    call incidents --markdown
    check "kernel: in the document, too" out_has '`/dev/kmsg could not be read: No such device`'
fi

# A real out-of-memory kill in the box's cgroup.
memory=$(awk '$3 == "cgroup" && $4 ~ /(^|,)memory(,|$)/ { print $2; exit }' /proc/self/mounts)
[ -n "$memory" ] || { grep -qw memory "$hierarchy/cgroup.subtree_control" 2>/dev/null && memory=$hierarchy; }
box_group=${memory:+$memory/rbxj-incidents.${work##*.}.oom}
# eat CGROUP NAME: a process of that name takes more memory than the cgroup may.
eat() {
    local limit
    for limit in memory.limit_in_bytes memory.memsw.limit_in_bytes memory.max; do
        [ ! -e "$1/$limit" ] || echo 8388608 >"$1/$limit"
    done
    for limit in memory.swappiness memory.swap.max; do
        [ ! -e "$1/$limit" ] || echo 0 >"$1/$limit"
    done
    # shellcheck disable=SC2016
    sh -c 'echo $$ >"$1/cgroup.procs" && printf %s "$2" >/proc/self/comm && exec 2>&1 && x=$(tr "\0" x </dev/zero | head -c 64M)' sh "$1" "$2" >"$work/eat" 2>&1
}
if [ -z "$memory" ] || ! dd if=/dev/kmsg of=/dev/null iflag=nonblock bs=8k count=1 2>/dev/null; then
    echo "no memory controller for the test's own cgroup, or no /dev/kmsg: out-of-memory kills are skipped"
else
    # A child that dies of it leaves a count that goes with the cgroup.
    eater=eat${work##*.}
    crash 25 --cgroup "$box_group"
    eat "$box_group" "$eater"
    call replay
    call incidents --json
    check "oom: the kernel's line is kept" kernel_of 25 '["oom_kills"] >= 1'
    check "oom: and the count of the cgroup" json \
        '[e["oom_kills"] >= 1 for i in d["incidents"] if i["boxes"] == ["25"] for e in i["entries"] if e["kind"] == "cgroup"] == [True]'
    check "oom: of that very process" kernel_of 25 '["lines"] and any("'"$eater"'" in l for l in [i["kernel"]["lines"] for i in d["incidents"] if i["boxes"] == ["25"]][0])'
    id=$(sed -n 's/.*"id":"\([^"]*\)".*/\1/p' "$work/out" | head -1)
    newest=$(find "$log" -name kernel.log -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2)
    check "oom: and in the file beside it" grep -q "$eater" "$newest"
fi

finish
