#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a boot pays (tests/vm/README.md): nothing stale, many stale boxes, the deadline. `make vm-figures`.

All within the virtual machine, by systemd's own times; ratios of the same boot or of the same machine.
"""
import argparse
import statistics
import sys
import time

from machine import Failed, Machine, Rig

TRIVIAL = """mkdir -p /etc/systemd/system
    sed -e 's|^ExecStart=.*|ExecStart=/usr/lib/rig/trivial|' -e '/^NotifyAccess/d' -e 's/^After=.*/& {after}/' \\
        -e 's/^Before=.*/Before=multi-user.target {before}/' /lib/systemd/system/rbxj-reaper.service \\
        >/etc/systemd/system/rig-trivial.service
    systemctl -q enable rig-trivial; sync"""
TIMES = """for unit in rbxj-reaper rig-trivial; do for what in InactiveExit ActiveEnter; do
    systemctl show -p ${what}TimestampMonotonic --value $unit; done; done
    systemctl show -p ActiveEnterTimestampMonotonic --value multi-user.target"""


def times(machine):
    """Seconds of the reaper's unit and of the trivial one, and since the kernel's start to multi-user.target."""
    t = [int(x or 0) / 1e6 for x in machine.output(TIMES).split("\n") if x != ""]
    return t[1] - t[0], t[3] - t[2], t[4]


def cpu(machine, unit):
    """Seconds of CPU that the unit took, systemd's work before the program included."""
    return int(machine.output(f"systemctl show -p CPUUsageNSec --value {unit}")) / 1e9


def nothing_stale(rig, boots):
    """Of each boot one figure. The two units take turns in being the first, which reads the libraries from the disk and runs
    beside what else starts then, so each is held against the other in the same place, in another boot. Of two more boots
    the CPU time, in a machine that counts instructions."""
    disk = rig.fresh_disk()
    took = {name: {"reaper": [], "trivial": []} for name in ("first", "second", "instructions")}
    with Machine(rig, disk, "rig.boxes=3") as machine:  # the journal has been used
        machine.multi_user()
        machine.call("systemctl stop rig-supervisor rbxj-watch; systemctl disable -q rig-supervisor; rbxj replay")
        machine.power_off()
    reaper_first = False
    for number in range(boots + 3):
        counted = number > boots
        with Machine(rig, disk, "rig.boxes=0", counted=counted) as machine:
            machine.multi_user()
            if counted:
                took["instructions"]["reaper"].append(cpu(machine, "rbxj-reaper"))
                took["instructions"]["trivial"].append(cpu(machine, "rig-trivial"))
            elif number:
                reaper, trivial, _ = times(machine)
                took["first" if reaper_first else "second"]["reaper"].append(reaper)
                took["second" if reaper_first else "first"]["trivial"].append(trivial)
            reaper_first = not reaper_first
            order = ("rbxj-reaper.service", "") if reaper_first else ("", "rbxj-reaper.service")
            machine.output(TRIVIAL.format(after=order[0], before=order[1]))
            machine.power_off()
    ratios = []
    for name, both in took.items():
        a, b = (statistics.median(both[who]) for who in ("reaper", "trivial"))
        ratios.append(a / b)
        print(f"# nothing stale, {boots} boots, {name}: the reaper's unit {a * 1000:.0f} ms, a trivial one {b * 1000:.0f} ms: "
              f"{a / b:.2f} (medians of {' '.join(f'{x * 1000:.0f}' for x in both['reaper'])} and "
              f"{' '.join(f'{x * 1000:.0f}' for x in both['trivial'])})", flush=True)
    return max(ratios), 2.0, "a boot with nothing stale costs at most twice a trivial unit, in the same place, and in instructions"


def leave_many(rig, boxes, files):
    disk = rig.fresh_disk()
    with Machine(rig, disk, "rig.boxes=0") as machine:
        machine.multi_user()
        machine.output(f"""systemctl stop rbxj-watch
            mkdir /srv/rig/bare && /usr/lib/rig/many make /srv/rig/bare {boxes} {files} && sync""")
        machine.output(f"""mkdir /srv/rig/many
            setsid /usr/lib/rig/many begin /srv/rig/many {boxes} {files} >/run/rig/many.log 2>&1 </dev/null &
            for i in $(seq 2000); do [ ! -e /run/rig/many ] || exit 0; sleep 0.1; done
            cat /run/rig/many.log; exit 1""", 400)
        machine.cut()
    return disk


def many_stale(rig, boxes=1000, files=5):
    disk = leave_many(rig, boxes, files)
    with Machine(rig, disk, "rig.boxes=0") as machine:
        machine.multi_user()
        left = machine.output("ls /srv/rig/many | wc -l").strip()
        reaper, _, up = times(machine)
        begin = time.monotonic()
        bare = float(machine.output(f"""echo 3 >/proc/sys/vm/drop_caches; date +%s.%N >/run/a
            /usr/lib/rig/many undo /srv/rig/bare {boxes} {files}; date +%s.%N >/run/b
            echo "$(cat /run/b) $(cat /run/a)" | awk '{{ printf "%.3f", $1 - $2 }}'"""))
        took = time.monotonic() - begin
        machine.power_off()
    if left != "0":
        raise Failed(f"{left} of many stale boxes' things are left")
    print(f"# {boxes} stale boxes of {files} files: the reaper's unit {reaper:.2f} s of {up:.2f} s to multi-user.target; "
          f"the bare calls {bare:.2f} s ({took:.2f} s seen from outside)")
    return reaper / bare, 2.0, f"{boxes} stale boxes cost little more than the calls that undo them"


def deadline(rig, seconds=2, boxes=1000, files=5):
    disk = leave_many(rig, boxes, files)
    with Machine(rig, disk, f"rig.boxes=0 rig.deadline={seconds}s") as machine:
        machine.multi_user()
        left = int(machine.output("ls /srv/rig/many | wc -l"))
        took = float(machine.output("""systemctl show -p ExecMainStartTimestampMonotonic \\
            -p ExecMainExitTimestampMonotonic --value rbxj-reaper | paste -sd' ' | awk '{ d = $2 - $1
            printf "%.2f", (d < 0 ? -d : d) / 1e6 }'"""))
        if left and machine.call("test -e /run/rbxj/quarantined")[0]:
            raise Failed("the deadline passed, and the worker is not quarantined")
        # the watcher goes on with what is left, as soon as the reaper's unit is done
        machine.output("""rm /etc/rbxj/rbxj.conf
            for i in $(seq 200); do rbxj health --recover >/run/rig/health 2>&1 && exit 0; sleep 1; done
            cat /run/rig/health; exit 1""", 400)
        after = machine.output("ls /srv/rig/many | wc -l").strip()
        machine.power_off()
    if after != "0":
        raise Failed(f"{after} are left after a recovery")
    if not left:
        raise Failed("everything was done before the deadline: take more boxes")
    print(f"# a deadline of {seconds} s: the reaper took {took:.2f} s, left {left} of {2 * boxes} things to others")
    return took - seconds, 30, "the deadline holds within what its unit allows beyond it, and the machine comes up; seconds"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", default="build/vm")
    parser.add_argument("--boots", type=int, default=10)
    parser.add_argument("--only", default="nothing,many,deadline")
    options = parser.parse_args()
    rig, failed = Rig(options.dir), 0
    figures = {"nothing": lambda: nothing_stale(rig, options.boots), "many": lambda: many_stale(rig),
               "deadline": lambda: deadline(rig)}
    for number, name in enumerate(options.only.split(","), 1):
        try:
            figure, limit, what = figures[name]()
            good = figure <= limit
            print(f"{'ok' if good else 'not ok'} {number} {what}: {figure:.2f} (limit {limit:g})", flush=True)
        except Failed as e:
            good = False
            print(f"not ok {number} {name}: {e}", flush=True)
        failed += not good
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
