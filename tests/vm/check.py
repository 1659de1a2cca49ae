#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cuts the power of a virtual machine on which rbxj is installed, and looks at what becomes of it: tests/vm/README.md.

    check.py                     each of the scenarios that `make check` wants, once
    check.py --only a,d          those; "": the machine is built, and that is all
    check.py --torture N         N power cuts at moments that the seed draws, and the scenarios beside them
"""
import argparse
import os
import random
import subprocess
import sys
import time

import scenarios
from machine import Failed, Rig

HERE = os.path.dirname(os.path.abspath(__file__))
SCENARIOS = {
    "a": ("power cut while 20 boxes run", scenarios.power_cut),
    "b": ("power cut while the reaper replays, twice", scenarios.cut_while_replaying),
    "c": ("supervisor killed: the watcher cleans up", scenarios.watch),
    "d": ("damaged journal at boot", scenarios.damaged),
    "f": ("soft-reboot", scenarios.soft_reboot),
    "g": ("read-only /var at boot", scenarios.read_only_var),
    "h": ("full /var at boot", scenarios.full_var),
}


class Tap:
    def __init__(self):
        self.passed = self.failed = 0

    def line(self, name, wrong, took):
        number = self.passed + self.failed + 1
        self.failed += bool(wrong)
        self.passed += not wrong
        print(f"{'not ok' if wrong else 'ok'} {number} {name} ({took:.0f} s)", flush=True)
        for what in wrong:
            print(f"# {what[:1500]}", flush=True)


def attempt(tap, name, function, *args, **kwargs):
    began = time.monotonic()
    try:
        wrong = function(*args, **kwargs)
    except Failed as e:
        wrong = [line for line in str(e).split("\n") if line]
    tap.line(name, wrong, time.monotonic() - began)
    return not wrong


def one_after_the_other(tap, rig, seed, keys):
    """Each takes the machine as the one before left it, as far as that is of use."""
    chain = None
    for key in keys:
        if not chain or not chain.usable:
            chain = scenarios.Chain(rig, random.Random(f"{seed}:{key}"))
        if not attempt(tap, f"({key}) {SCENARIOS[key][0]}", SCENARIOS[key][1], chain):
            chain = None


def chain_of_cuts(chain):
    wrong = []
    for _ in range(chain.rng.randint(2, 4)):
        wrong += chain.run(early=chain.rng.random() < 0.4)
        for _ in range(chain.rng.choice([0, 1, 1, 2, 3])):
            chain.cut_in_replay()
        if wrong:
            return wrong
    return wrong + chain.end()


def torture(tap, rig, seed, cuts):
    """Chains of cuts, each drawn by its own seed; after every third another scenario."""
    rig.append += "systemd.mask=systemd-udevd.service systemd.mask=systemd-udev-trigger.service "  # boots sooner
    number = 0
    while rig.cuts < cuts:
        chain = scenarios.Chain(rig, random.Random(f"{seed}:{number}"))
        attempt(tap, f"chain {seed}:{number}, {rig.cuts} cuts before", chain_of_cuts, chain)
        number += 1
        if number % 3 == 0:
            chain = scenarios.Chain(rig, random.Random(f"{seed}:{number}:other"))
            key = chain.rng.choice("cdfgh")
            attempt(tap, SCENARIOS[key][0], SCENARIOS[key][1], chain)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", default="build/vm")
    parser.add_argument("--debs", default="build/deb", help="where the package is")
    parser.add_argument("--seed", default="1", help="a number, or random")
    parser.add_argument("--only", default="a,b,c,d")
    parser.add_argument("--torture", type=int, default=0, metavar="N")
    parser.add_argument("--no-image", action="store_true", help="take root.img as it is")
    options = parser.parse_args()
    seed = options.seed if options.seed != "random" else str(random.SystemRandom().randrange(1 << 32))

    began = time.monotonic()
    if not options.no_image:
        status = subprocess.run([os.path.join(HERE, "image.sh"), options.dir, options.debs], check=False).returncode
        if status == 77:
            print("skipped: no archive can be reached to build the machine from")
            return 0
        if status:
            print("not ok 1 the image could not be built")
            return 1
    rig, tap = Rig(options.dir), Tap()
    print(f"# image after {time.monotonic() - began:.0f} s; seed {seed}", flush=True)
    if not options.only:
        return 0
    if options.torture:
        torture(tap, rig, seed, options.torture)
    else:
        one_after_the_other(tap, rig, seed, options.only.split(","))
    print(f"1..{tap.passed + tap.failed}")
    print(f"vm: {tap.passed} passed, {tap.failed} failed; {rig.boots} boots, {rig.cuts} power cuts"
          f"{f', {rig.in_replay} of them while the reaper replayed' if options.torture else ''}; "
          f"seed {seed}; {time.monotonic() - began:.0f} s")
    return 1 if tap.failed else 0


if __name__ == "__main__":
    sys.exit(main())
