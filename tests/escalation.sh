#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What a timer makes of trouble that stays: one incident that counts up, over reboots too, and the word that a person should
# look, said once: escalation.sh [RBXJ]
. "${0%/*}/lib.bash"

printf '[replay]\nbusy_retries=1\n[health]\nescalate_per_day=3\n' >"$work/rbxj.conf"
# What happens to this machine meanwhile is no affair of this script; and a taint can't be taken back before the next boot:
# what it needs to be seen is put over it.
[ ! -e /dev/kmsg ] || mount --bind /dev/null /dev/kmsg
echo 0 >"$work/tainted"
mount --bind "$work/tainted" /proc/sys/kernel/tainted

# recover: as rbxj-health.timer has it run every five minutes; what it says is in said, the health in out.
recover() {
    call --config "$work/rbxj.conf" health --recover --json
    cat "$work/err" >>"$work/said"
}
health() { call --config "$work/rbxj.conf" health --json; }
told() { grep -c 'worker_escalated' "$work/said" || true; }
reasons() { json "' '.join(d['escalate_reasons']) == '$1' and d['escalate'] == bool(d['escalate_reasons'])"; }
# incidents EXPRESSION: of i, those of recoveries; the document is in out.
incidents() { call incidents --json && json "(lambda i: $1)([i for i in d['incidents'] if i['procedure'] == 'recover'])"; }
begin() {
    fresh
    : >"$work/said"
}
boots=0
# reboot: the machine has another boot id, and a /run without anything.
reboot() {
    [ $boots = 0 ] || umount /proc/sys/kernel/random/boot_id # what is mounted on can't be removed
    boots=$((boots + 1))
    sed 's/^......../'"$(printf %08x $boots)"'/' /proc/sys/kernel/random/boot_id >"$work/boot_id.$boots"
    mount --bind "$work/boot_id.$boots" /proc/sys/kernel/random/boot_id
    rm -rf "$work/run"
    mkdir -m 0700 "$work/run"
}

# ---- a mount that stays busy ----

begin
crash 7 --tmpdir "$work/7.dir" --mount "tmpfs,x,$work/7.mnt" 2>/dev/null
sleep 600 <"$work/7.mnt" &
holder=$!
for run in 1 2 3; do
    recover
    check "busy, run $run: no person yet" reasons ""
done
check "busy: quarantined by then" is "$status" 2
check "busy: nobody was called" is "$(told)" 0
recover
check "busy, run 4: a person should look" reasons repeated_failure
check "busy, run 4: said once" is "$(told)" 1
grep worker_escalated "$work/said" >"$work/err"
check "busy: with the reason" err_has 'repeated_failure; failed replays in a row: 4; it is quarantined'
recover
recover
check "busy, run 6: not said again" is "$(told)" 1
check "busy: nor by who only looks" is "$(health; grep -c escalated "$work/err")" 0
health
check "busy: who only looks sees it" reasons repeated_failure
check "busy: it is kept what was told" is "$(cat "$work/run/escalated")" repeated_failure
call --config "$work/rbxj.conf" metrics
check "busy: the metric" out_has 'rbxj_escalate 1'
check "busy: and its reason" out_has 'rbxj_escalate_reason{reason="repeated_failure"} 1'
check "busy: and no other" is "$(grep -c '^rbxj_escalate_reason{.*} 1$' "$work/out")" 1
check "busy: it is one incident, of one execution" incidents \
    '[(x["count"], x["executions"], x["boxes"], x["procedure"], x["recovery_s"]) for x in i] == [(6, 1, ["7"], "recover", None)]'
check "busy: and each entry is there once" incidents 'sorted(e["seq"] for e in i[0]["entries"]) == [1, 2, 3, 4]'
call incidents --markdown
check "busy: the document says so" out_has '**Escalate to engineering:** yes: recovery has failed 6 times'

kill -KILL "$holder"
wait "$holder" 2>/dev/null
recover
check "free: recovered" is "$status" 0
check "free: no person any more" reasons ""
check "free: which is forgotten" gone "$work/run/escalated"
recovery_is_its_age() {
    incidents '[(x["outcome"], x["count"]) for x in i] == [("success", 7)]' &&
        python3 -I -S -c 'import datetime, json, sys
i = [i for i in json.load(open(sys.argv[1]))["incidents"] if i["procedure"] == "recover"][0]
time = lambda key: datetime.datetime.strptime(i[key], "%Y-%m-%dT%H:%M:%SZ")
age = (time("updated") - time("detected")).total_seconds()
sys.exit("%r, not %r" % (i["recovery_s"], age) if abs(i["recovery_s"] - age) > 1.5 else 0)' "$work/out"
}
check "free: it took from the detection to the end" recovery_is_its_age
call --config "$work/rbxj.conf" metrics
check "free: it is one recovery" out_has 'rustbox_recovery_seconds_count 1'
crash 7 --tmpdir "$work/7.dir" 2>/dev/null
recover
check "again: another incident" incidents '[x["count"] for x in i] == [1, 7]'

# ---- over reboots ----

export RBXJ_DURABILITY=always
begin
crash 8 --tmpdir "$work/8.dir" 2>/dev/null
rm -r "$work/8.dir"
mkdir "$work/8.dir" # somebody else's: refused, whenever it is tried
recover
check "reboot: left" incidents '[(x["count"], x["cause"], len(x["open"])) for x in i] == [(1, "supervisor_crash", 1)]'
reboot
recover
reboot
recover
check "reboot: it is still the same incident" incidents \
    '[(x["count"], x["cause"], x["executions"], len(x["open"])) for x in i] == [(3, "supervisor_crash", 1, 1)]'
rmdir "$work/8.dir"
recover
check "reboot: closed" incidents '[(x["count"], x["outcome"], x["open"]) for x in i] == [(4, "success", [])]'
unset RBXJ_DURABILITY

# ---- too many ----

begin
for box in 1 2 3; do
    crash $box --tmpdir "$work/$box.dir" 2>/dev/null
    recover
done
check "three a day: allowed here" reasons ""
crash 4 --tmpdir "$work/4.dir" 2>/dev/null
recover
check "four a day: are too many" reasons frequent_incidents
recover
check "four a day: said once" is "$(told)" 1
call health --json
check "four a day: by default, too" reasons frequent_incidents
newest=$(find "$work/state/incidents" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | tail -1)
old=$(date -u -d '-25 hours' +%Y%m%dT%H%M%SZ)-00000001
mv "$work/state/incidents/$newest" "$work/state/incidents/$old"
sed -i "s/$newest/$old/" "$work/state/incidents/$old/incident.json"
recover
check "one of them on the day before: no longer" reasons ""
crash 5 --tmpdir "$work/5.dir" 2>/dev/null
recover
check "another one: again" reasons frequent_incidents
check "another one: and said again" is "$(told)" 2
reboot
recover
check "after a boot: said once more" is "$(told)" 3

# ---- a lock that is held for ever, which counts as no failed replay ----

begin
crash 6 --lock "$work/6.lock" 2>/dev/null
exec 8<"$work/6.lock"
flock 8
for _ in 1 2 3; do recover; done
check "held, three times: no person yet" reasons ""
recover
check "held, four times: a person should look" reasons repeated_failure
exec 8<&-
recover
check "held no longer" reasons ""

# ---- corruption ----

begin
crash 9 --lock "$work/9.lock" 2>/dev/null
printf '\377\376' >"$work/9.lock"
recover
check "a corrupt lock" reasons corruption
check "a corrupt lock: is recovered all the same" is "$status" 0
call incidents --markdown
check "a corrupt lock: the document says so" out_has '**Escalate to engineering:** yes: corruption'

begin
export RBXJ_DURABILITY=always
crash 10 --lock "$work/10.lock" 2>/dev/null
unset RBXJ_DURABILITY
cp -a "$work/state/journal" "$work/sound"
for meta in 0 1; do # the roots of both metas lead nowhere
    printf '\377\377\0\0\0\0\0\0' |
        dd of="$work/state/journal/data.mdb" bs=1 seek=$((meta * 4096 + 128)) conv=notrunc status=none
done
for run in 1 2 3; do
    recover
    check "a damaged journal, run $run" reasons corruption
done
check "a damaged journal: said once" is "$(told)" 1
call incidents --json
check "a damaged journal: is an incident, once" \
    json '[(i["procedure"], i["cause"], i["boxes"]) for i in d["incidents"]] == [("quarantine", "journal_corruption", [])]'
check "a damaged journal: that says where it is" json "'$work/state/journal.damaged-' in d['incidents'][0]['notes'][0]"
call incidents --markdown
check "a damaged journal: the document says so" out_has '**Escalate to engineering:** yes: corruption'
mv "$work/sound" "$work/state/journal" # as a salvage is put in its place
call health --unquarantine --reason "looked into it"
recover
check "a damaged journal: looked into" reasons ""
rm -f "$work/10.lock"

# ---- the kernel ----

begin
taint() {
    echo "$1" >"$work/tainted"
    recover
}
taint $((1 | 512 | 4096 | 8192))
check "taint: modules and a warning are none" reasons ""
for bit in 4 5 7 14; do
    taint $((1 << bit))
    check "taint: bit $bit" reasons kernel
done
check "taint: said once" is "$(told)" 1
taint 0
check "taint: none" reasons ""

# hung TASKS BUGS KILLS AGO: an incident of so long ago.
hung() {
    local id
    id=$(date -u -d "-$4" +%Y%m%dT%H%M%SZ)-00000002
    rm -rf "$work/state/incidents"
    mkdir -m 0700 -p "$work/state/incidents/$id"
    echo '{"id":"'"$id"'","detected":"2020-01-01T00:00:00Z","cause":"supervisor_crash","procedure":"replay","version":1,"kernel":
        {"messages":9,"oom_kills":5,"hung_tasks":'"$1"',"bugs":'"$2"',"machine_oom_kills":'"$3"'}}' >"$work/state/incidents/$id/incident.json"
    health
}
hung 1 0 0 "1 hour"
check "kernel: a hung task" reasons kernel
call incidents --markdown
check "kernel: the document says so" out_has '**Escalate to engineering:** yes: kernel trouble'
hung 0 1 0 "1 hour"
check "kernel: a bug" reasons kernel
hung 0 0 1 "1 hour"
check "kernel: no memory in the machine" reasons kernel
hung 1 1 1 "25 hours"
check "kernel: on the day before" reasons ""
hung 0 0 0 "1 hour"
check "kernel: no memory in a cgroup" reasons ""
call incidents --markdown
check "kernel: the document says no" out_has '**Escalate to engineering:** no'

# ---- what is there of it ----

begin
crash 7 --lock "$work/7.lock" 2>/dev/null
echo "corruption of_a_later_version" >"$work/run/escalated"
recover
check "what was told of what is over is forgotten" gone "$work/run/escalated"
rm -rf "$work/state" "$work/run"
recover
check "where nothing was ever journaled nothing is made" gone "$work/run" "$work/state"
finish
