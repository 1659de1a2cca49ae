# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens to the machine, and how it is judged: by its own view, not by rbxj's word alone."""
import json
import time

from machine import Machine

STEADY, CHURN = 14, 6  # boxes that stay, and slots in which one follows the other


def box_of(name):
    """The box to which an entry of /srv/rig belongs."""
    return name.rpartition(".")[0]


def parse(text):
    """A document; where there is none, an empty one that tells what there was."""
    try:
        return json.loads(text)
    except ValueError:
        return {"boxes": [], "text": text}


class Seen:
    """What a booted machine shows; asked for once."""

    def __init__(self, machine):
        out = machine.output(r"""cd /run/rig
            for f in before at-start; do echo "== $f"; cat $f; done
            echo "== report"; cat report.json 2>&1
            echo "== at-start-list"; cat list-at-start.json 2>/dev/null || echo '{"boxes":[]}'
            echo "== incidents"; rbxj --json incidents
            echo "== order"
            systemctl show -p ActiveEnterTimestampMonotonic --value rbxj-reaper
            systemctl show -p InactiveExitTimestampMonotonic --value rig-supervisor
            echo "== reaper"; systemctl show -p ExecMainStatus --value rbxj-reaper
            systemctl show -p Result --value rbxj-reaper
            echo "== boot"; cat /proc/sys/kernel/random/boot_id
            echo "== end" """)
        parts = {}
        for line in out.split("\n"):
            if line.startswith("== "):
                part = parts.setdefault(line[3:], [])
            elif line:
                part.append(line)
        self.before, self.at_start = parts["before"], parts["at-start"]
        self.report = parse("\n".join(parts["report"]))
        self.list_at_start = parse("\n".join(parts["at-start-list"])).get("boxes")
        self.incidents = json.loads("\n".join(parts["incidents"]))["incidents"]
        for incident in self.incidents:
            incident.pop("entries", None)
        self.reaper_ended, self.supervisor_began = (int(x) for x in parts["order"])
        self.reaper_status = int(parts["reaper"][0])
        self.reaper_result = parts["reaper"][1]
        self.boot = parts["boot"][0]

    def leftovers(self):
        return {box_of(name) for name in self.before}

    def reported(self):
        return {b["box"]: b for b in self.report.get("boxes", [])}


def incident_boxes(incidents, cause):
    return {box for i in incidents if i["cause"] == cause for box in i["boxes"]}


def up(machine):
    """The boxes that stay and whose payload has begun."""
    return set(machine.output("cd /run/rig && ls -d up-steady-* 2>/dev/null | sed s/up-//").split())


def wait_up(machine, count, limit=120):
    end = time.monotonic() + limit
    while len(names := up(machine)) < count:
        if time.monotonic() > end:
            machine.complain(f"only {len(names)} of {count} boxes came up: " + machine.call(
                "journalctl -b --no-pager -u rig-supervisor | tail -20")[1])
        time.sleep(0.1)
    return names


def nothing_left(machine):
    """Complaints, by the machine's own view and by rbxj's."""
    out = machine.output("""ls -A /srv/rig; find /sys/fs/cgroup -name 'rig-steady*' -o -name 'rig-churn*'
        grep ' /srv/rig' /proc/self/mounts; rbxj --json list | grep -vxF '{"boxes":[]}'
        rbxj health --verify-clean >/dev/null || echo not verified clean
        rbxj health >/dev/null || rbxj health; true""").strip()
    return [f"left: {out}"] if out else []


def judge_boot(seen, known, incidents_before):
    """Complaints about what the reaper made of a power cut at boot; known: the boxes that certainly were there."""
    wrong = []
    new = [i for i in seen.incidents if i["id"] not in incidents_before or i["outcome"] == "unfinished"]
    named = incident_boxes(seen.incidents, "system_crash")
    if not 0 < seen.reaper_ended <= seen.supervisor_began:
        wrong.append(f"the reaper ended at {seen.reaper_ended}, the supervisor began at {seen.supervisor_began}")
    if seen.reaper_status != 0 or seen.reaper_result != "success":
        wrong.append(f"the reaper's unit ended with {seen.reaper_status} ({seen.reaper_result})")
    if seen.at_start or seen.list_at_start:
        wrong.append(f"there when the supervisor began: {seen.at_start} {seen.list_at_start}")
    reported = seen.reported()
    for box in seen.leftovers() - set(reported):
        wrong.append(f"{box} had left something and is not in the report")
    # a reaper whose power was cut may have undone it, and told so
    for box in known - set(reported) - named:
        wrong.append(f"{box} had begun, and is in no report and no incident")
    # a box of which nothing has reached the disk but its record is no incident
    for box in seen.leftovers() - named:
        wrong.append(f"{box} is in no incident of a system crash: {seen.incidents}")
    for box, what in reported.items():
        if what["cause"] not in ("system_crash", "cleanup_failure") or what["outcome"] != "success":
            wrong.append(f"{box}: {what}")
        if not box.startswith(("steady-", "churn-")):
            wrong.append(f"unknown box {box}")
    for incident in new:
        if incident["cause"] != "system_crash" or incident["outcome"] != "success" or incident["left"]:
            wrong.append(f"incident {incident}")
    if seen.leftovers() and not new:
        wrong.append("no new incident")
    return wrong


class Chain:
    """One machine whose power is cut again and again; each boot is judged, and is where the next cut comes from."""

    def __init__(self, rig, rng):
        self.rig, self.rng, self.disk = rig, rng, rig.fresh_disk()
        self.known, self.incidents = set(), set()
        self.is_cut = False  # its boxes are left behind
        self.usable = True

    def words(self):
        return f"rig.boxes={STEADY} rig.churn={CHURN} rig.files={self.rng.choice([10, 100, 300])}"

    def machine(self, words):
        return Machine(self.rig, self.disk, words)

    def judge(self, machine):
        machine.multi_user()
        seen = Seen(machine)
        wrong = judge_boot(seen, self.known, self.incidents)
        self.incidents = {i["id"] for i in seen.incidents}
        self.known, self.is_cut = set(), False
        return wrong

    def cut(self, machine):
        self.known = up(machine)
        machine.cut()
        self.is_cut = True

    def run(self, early=False, flushed=False):
        """Boots, judges, lets boxes run, cuts the power; flushed: when what they made is on disk. Complaints."""
        with self.machine(self.words()) as machine:
            wrong = self.judge(machine)
            if not early:
                wait_up(machine, STEADY)
            if flushed:
                machine.output("sync")
            time.sleep(self.rng.uniform(0, 3))
            self.cut(machine)
        return wrong

    def run_unless_cut(self):
        return [] if self.is_cut else self.run()

    def cut_in_replay(self):
        """Boots and cuts the power while the reaper replays; whether it was in time."""
        with self.machine(self.words()) as machine:
            machine.wait_console("rig: reaper next")
            time.sleep(self.rng.uniform(0, 1.6))
            done = "rig: reaper done" in machine.console_text()
            machine.cut()
            self.rig.in_replay += not done
        return not done

    def end(self):
        """Boots a last time: nothing is left. Complaints."""
        with self.machine("rig.boxes=0") as machine:
            wrong = self.judge(machine) + nothing_left(machine)
            machine.power_off()
        self.usable = False
        return wrong


# ---- the scenarios of the issue; each takes the machine as the one before left it, and returns its complaints ----


def power_cut(chain):
    return chain.run_unless_cut() + chain.run()


def cut_while_replaying(chain):
    wrong = chain.run(flushed=True)  # what nothing is left of is in no incident, and in the report of one reaper only
    hits = 0
    for _ in range(4):
        hits += chain.cut_in_replay() if hits < 2 else 0
    wrong += chain.run()
    return wrong if hits else wrong + ["the reaper was done before each cut: make it last longer"]


KILL_SUPERVISORS = """for pid in $(cat /sys/fs/cgroup/system.slice/rig-supervisor.service/cgroup.procs); do
    [ "$(cat /proc/$pid/comm)" != rbxj ] || { kill -KILL $pid; echo $pid; }; done"""


def watch(chain):
    """Supervisors die, no reboot. Only they: what the unit's own ExecStopPost= would do is not asked."""
    with chain.machine(f"rig.boxes={STEADY} rig.files=50") as machine:
        wrong = chain.judge(machine)
        machine.output("""for i in $(seq 300); do systemctl -q is-active rbxj-watch && exit 0; sleep 0.1; done
            systemctl status rbxj-watch; exit 1""")
        known = wait_up(machine, STEADY)
        killed = machine.output(KILL_SUPERVISORS).split()
        if len(killed) != STEADY:
            machine.complain(f"killed {killed}")
        machine.call("""for i in $(seq 300); do [ -n "$(ls -A /srv/rig)" ] || break; sleep 0.1; done
            for i in $(seq 100); do rbxj health >/dev/null && break; sleep 0.1; done""")
        wrong += nothing_left(machine)
        seen = Seen(machine)
        named = incident_boxes(seen.incidents, "supervisor_crash")
        wrong += [f"{box} is in no incident of a supervisor crash" for box in known - named]
        chain.incidents = {i["id"] for i in seen.incidents}
        machine.output("rm -f /run/rig/up-*; systemctl restart rig-supervisor")
        wait_up(machine, STEADY)
        chain.cut(machine)
    return wrong


def damaged(chain):
    """A journal that is damaged at boot: the machine comes up, nothing is undone, the worker takes no boxes."""
    kind = chain.rng.choice(["metas", "pages", "short", "empty", "gone"])
    wrong = chain.run(flushed=True)  # else there may be nothing that could be undone
    chain.usable = False
    with chain.machine(f"rig.damage={kind} rig.boxes=3") as machine:
        machine.multi_user()
        seen = Seen(machine)
        there = machine.output("ls /srv/rig").split()
        if seen.reaper_status != 3:
            wrong.append(f"the reaper ended with {seen.reaper_status}, not 3")
        if not seen.before or there != seen.before:
            wrong.append(f"there were {seen.before}, there are {there}")
        status, health = machine.call("rbxj --json health")
        if status != 2 or json.loads(health)["quarantine_reason"] != "journal_corruption":
            wrong.append(f"health {status} {health}")
        if machine.call("test -e /run/rbxj/quarantined")[0]:
            wrong.append("no flag in /run/rbxj")
        if machine.output("systemctl show -p ConditionResult --value rig-supervisor").strip() != "no":
            wrong.append("the supervisor's unit was started")
        if machine.call("rbxj run --tmpdir /srv/rig/new -- true")[0] != 125:
            wrong.append("a box could begin")
        said = machine.output("journalctl -b --no-pager -u rbxj-reaper")
        if "journal_corruption" not in said:
            wrong.append(f"the system's log does not say it: {said}")
        machine.power_off()
    return [f"{kind}: {what}" for what in wrong]


def soft_reboot(chain):
    """systemd 252 has no soft-reboot. It is what it does to rbxj: same boot id, /run as it was, all processes killed,
    the units started anew."""
    chain.usable = False
    with chain.machine(f"rig.boxes={STEADY} rig.files=50") as machine:
        before = chain.judge(machine)
        known = wait_up(machine, STEADY)
        boot = Seen(machine).boot
        machine.output("""systemctl -q stop rbxj-watch.service rbxj-health.timer
            mkdir -p /run/systemd/system/rig-supervisor.service.d
            printf '[Service]\nExecStopPost=\n' >/run/systemd/system/rig-supervisor.service.d/zz.conf
            systemctl daemon-reload
            systemctl kill -s KILL rig-supervisor; systemctl stop rig-supervisor
            for group in /sys/fs/cgroup/rig-*; do echo 1 >$group/cgroup.kill; done
            systemctl stop rbxj-reaper; test -d /run/rbxj/journal-* || exit 1
            systemctl start rbxj-reaper""")
        seen = Seen(machine)
        wrong = before + nothing_left(machine)
        causes = {b["cause"] for b in seen.reported().values()}
        if set(seen.reported()) != known or causes != {"supervisor_crash"} or seen.boot != boot:
            wrong.append(f"reported: {seen.reported()}")
        if known - incident_boxes(seen.incidents, "supervisor_crash"):
            wrong.append(f"incidents: {seen.incidents}")
        machine.power_off()
    return wrong


def spoiled_var(chain, kind):
    """/var is read-only, or full: the machine boots and says so; nothing is lost when that is over."""
    wrong = chain.run_unless_cut()
    known = chain.known
    chain.usable = False
    with chain.machine(f"rig.var={kind} rig.boxes=3") as machine:
        machine.multi_user()
        seen = Seen(machine)
        said = machine.output("journalctl -b --no-pager -u rbxj-reaper")
        if seen.reaper_status and not any(word in said for word in ("ead-only", "full", "o space", "EROFS", "ENOSPC")):
            wrong.append(f"{kind}: status {seen.reaper_status}, but it does not say so: {said}")
        if kind == "ro" and seen.reaper_status == 0:
            wrong.append(f"{kind}: it claims to have replayed")
        machine.output("mount -o remount,bind,rw /var 2>/dev/null; rm -f /var/rig-full; systemctl stop rig-supervisor")
        machine.call("systemctl reset-failed rbxj-reaper; systemctl restart rbxj-reaper; rbxj replay; rbxj health --recover")
        wrong += [f"{kind}: {what}" for what in nothing_left(machine)]
        named = {box for i in Seen(machine).incidents for box in i["boxes"]}
        wrong += [f"{kind}: {box} is in no incident" for box in known - named]
        machine.power_off()
    return wrong


def read_only_var(chain):
    return spoiled_var(chain, "ro")


def full_var(chain):
    return spoiled_var(chain, "full")
