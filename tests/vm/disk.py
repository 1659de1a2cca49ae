#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A disk that loses, tears and reorders what was not flushed: scenario (e) of tests/vm/README.md.

    disk.py --images 200 --seed 7      that many images, rebuilt at points that the seed draws
    disk.py --noflush                  the same with every flush taken out of the program: it must find losses

A virtual machine runs supervisors on a disk whose writes are logged. From the log the disk is rebuilt as a power cut
may have left it; the journal in it must have every intent that was acknowledged by then, and each thing of a box that
is there must be in the journal.
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time

import writelog
from machine import Failed, Machine, Rig, copy_sparse

SIZE, FS_SIZE = 96 << 20, 88 << 20  # the marks are behind the file system
AT = "/mnt/disk"


class Disk:
    def __init__(self, rig, rbxj):
        self.rig, self.rbxj = rig, os.path.abspath(rbxj)
        self.base, self.image, self.log, self.durable, self.state = (
            os.path.join(rig.dir, name) for name in ("base.img", "data.img", "data.log", "durable.img", "extracted"))

    def make(self):
        tree = os.path.join(self.rig.dir, "tree")
        shutil.rmtree(tree, ignore_errors=True)
        os.makedirs(os.path.join(tree, "state"), 0o700)
        os.makedirs(os.path.join(tree, "boxes"), 0o755)
        for path in (self.base, self.image, self.log):
            if os.path.exists(path):
                os.unlink(path)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
                        "-d", tree, self.base, f"{FS_SIZE >> 10}k"], check=True)
        shutil.rmtree(tree)
        os.truncate(self.base, SIZE)
        copy_sparse(self.base, self.image)
        with open(self.log, "wb"):
            pass

    def record(self, seed, seconds, workers, noflush):
        """Runs the workload, and cuts the power."""
        extra = ["-blockdev", f"driver=file,filename={self.image},node-name=image,locking=off",
                 "-blockdev", f"driver=file,filename={self.log},node-name=log,locking=off",
                 "-blockdev", "driver=blklogwrites,node-name=logged,file=image,log=log,log-sector-size=512",
                 "-device", "virtio-blk-pci,drive=logged,serial=logged"]
        preload = "LD_PRELOAD=/usr/lib/rig/noflush.so " if noflush else ""
        with Machine(self.rig, self.rig.fresh_disk(), "rig.boxes=0", extra) as machine:
            machine.multi_user()
            machine.output(f"""modprobe -a virtio_pci virtio_blk
                for i in $(seq 100); do [ ! -b /dev/vda ] || break; sleep 0.1; done
                mkdir -p {AT} /run/logged && chmod 700 /run/logged && mount -o nodiscard,commit=1 /dev/vda {AT}
                # what nobody flushes is written often, so that there is much to be lost
                sysctl -q vm.dirty_writeback_centisecs=10 vm.dirty_expire_centisecs=10""")
            out = machine.call(f"""export RBXJ_STATE_DIR={AT}/state RBXJ_RUNTIME_DIR=/run/logged
                {preload}/usr/lib/rig/marks /dev/vda {FS_SIZE} {AT}/boxes {seed} {seconds} {workers}""", seconds + 240)
            if out[0]:
                machine.complain(f"the workload failed: {out}")
            machine.cut()

    def look(self, image):
        """The journal and the boxes' directory in an image: what is there, or complaints."""
        fsck = subprocess.run(["e2fsck", "-fy", image], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if fsck.returncode > 1:
            return None, None, [f"e2fsck: {fsck.returncode}: {fsck.stdout.decode(errors='replace')[-500:]}"]
        shutil.rmtree(self.state, ignore_errors=True)
        os.makedirs(self.state, 0o700)
        out = subprocess.run(["debugfs", "-f", "-", image], input=f"rdump /state {self.state}\nls -p /boxes\n".encode(),
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True).stdout.decode()
        names = {line.split("/")[5] for line in out.split("\n") if line.startswith("/") and line.count("/") >= 6}
        empty = os.path.join(self.state, "run")
        os.makedirs(empty, 0o700)
        env = dict(os.environ, RBXJ_STATE_DIR=os.path.join(self.state, "state"), RBXJ_RUNTIME_DIR=empty)
        listed = subprocess.run([self.rbxj, "--json", "list"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                timeout=120, check=False)
        if listed.returncode != 0:
            return None, None, [f"list: {listed.returncode} {listed.stderr.decode(errors='replace')[:500]}"]
        boxes = {b["box"]: {r["seq"]: r["name"] for r in b["records"]} for b in json.loads(listed.stdout)["boxes"]}
        return boxes, names - {"", ".", ".."}, []


def acknowledged(marks, cut):
    """The boxes of which so many records were promised and nothing was taken back before the cut."""
    boxes = {}
    for index, (_, _, what, box, records) in marks:
        if index >= cut:
            break
        if what == "undoing":
            boxes.pop(box, None)
        else:
            boxes[box] = int(records)
    return boxes


def judge(boxes, names, promised):
    wrong = []
    for box, records in promised.items():
        missing = set(range(1, records + 1)) - set(boxes.get(box, {}))
        if missing:
            wrong.append(f"{box}: of {records} acknowledged records {sorted(missing)} are missing")
    known = {os.path.basename(name) for records in boxes.values() for name in records.values()}
    for name in names:
        if not name.startswith(".rbxj") and name not in known:
            wrong.append(f"{name} is there, and no record tells of it")
    return wrong


def rebuild(disk, images, seed, report):
    """Images at points that the seed draws. Returns how many, how many with complaints, how many writes were spoiled."""
    log = writelog.WriteLog(disk.log)
    marks = list(log.marks(FS_SIZE))
    numbers = {}
    for _, (worker, number, *_) in marks:
        if int(number) != numbers.get(worker, -1) + 1:
            raise Failed(f"a mark of worker {worker} is missing before its {number}")
        numbers[worker] = int(number)
    if len(marks) < 20:
        raise Failed(f"only {len(marks)} acknowledgements in {len(log.entries)} entries of the log")
    flushes = sum(bool(e.flags & writelog.FLUSH) for e in log.entries)
    print(f"# log: {len(log.entries)} entries, {flushes} flushes, {len(marks)} acknowledgements", flush=True)
    cuts = writelog.draw_cuts(log, marks[0][0], images, random.Random(f"{seed}:cuts"))
    copy_sparse(disk.base, disk.durable)
    done = bad = spoiled = 0
    scratch = disk.image + ".cut"
    with open(disk.durable, "r+b") as durable:
        for number, cut in enumerate(cuts):
            flushed = log.last_flush(cut)
            for entry in log.entries[done:flushed]:
                log.put(durable, entry)
            done = max(done, flushed)
            durable.flush()
            copy_sparse(disk.durable, scratch)
            with open(scratch, "r+b") as image:
                lost = log.put_unflushed(image, flushed, cut, writelog.rng_of(seed, number))
            spoiled += lost
            boxes, names, wrong = disk.look(scratch)
            promised = acknowledged(marks, cut)
            wrong += judge(boxes, names, promised) if boxes is not None else []
            if wrong:
                bad += 1
                report(f"image {number} at entry {cut}, {cut - flushed} unflushed, {lost} spoiled, "
                       f"{len(promised)} boxes promised", wrong)
    return len(cuts), bad, spoiled


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", default="build/vm")
    parser.add_argument("--rbxj", default="build/rbxj")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", default="1", help="a number, or random")
    parser.add_argument("--noflush", action="store_true")
    options = parser.parse_args()
    seed = options.seed if options.seed != "random" else str(random.SystemRandom().randrange(1 << 16))
    began = time.monotonic()
    disk = Disk(Rig(options.dir), options.rbxj)
    shown = []

    def report(what, wrong):
        if len(shown) < 10:
            print(f"# {what}: " + "; ".join(wrong[:4])[:600], flush=True)
        shown.append(what)

    try:
        disk.make()
        disk.record(int(seed) % 65536, options.seconds, options.workers, options.noflush)
        images, bad, spoiled = rebuild(disk, options.images, seed, report)
    except Failed as e:
        print(f"not ok 1 (e) {e}")
        return 1
    good = bad > 0 if options.noflush else bad == 0
    print(f"{'ok' if good else 'not ok'} 1 (e) a disk that loses unflushed writes"
          f"{', without flushes: losses are found' if options.noflush else ''}")
    print(f"vm: {images} rebuilt images, {spoiled} writes lost or torn, {bad} images with a loss; seed {seed}; "
          f"{time.monotonic() - began:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
