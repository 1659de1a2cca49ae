# SPDX-License-Identifier: LGPL-2.1-or-later
"""qemu's log of every write and flush (blklogwrites, the format of dm-log-writes), and images as of any point of it.

What was written before the last flush is there. Of what came after it each write was kept, lost or torn between two
sectors, as a seed draws it.
"""
import os
import random
import struct

FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
MAGIC = 0x6A736677736872
SECTOR = 512


class Entry:
    __slots__ = ("offset", "length", "flags", "where")

    def __init__(self, offset, length, flags, where):
        self.offset, self.length, self.flags, self.where = offset, length, flags, where


class WriteLog:
    def __init__(self, path):
        self.file = open(path, "rb")
        magic, version, _, sector = struct.unpack("<QQQI", self.file.read(28))
        if magic != MAGIC or version != 1:
            raise ValueError(f"{path} is no log of writes")
        self.size = os.path.getsize(path)
        self.entries = list(self.read_entries(sector))

    def read_entries(self, sector):
        """Up to the first that is not there: a log of qemu that was killed."""
        where = sector
        while where + sector <= self.size:
            self.file.seek(where)
            start, count, flags, _ = struct.unpack("<QQQQ", self.file.read(32))
            where += sector
            if not start and not count and not flags:
                return
            length = 0 if flags & (DISCARD | MARK) else count * sector
            if where + length > self.size:
                return
            yield Entry(start * sector, count * sector, flags, where)
            where += length

    def data(self, entry):
        self.file.seek(entry.where)
        return self.file.read(entry.length)

    def marks(self, start):
        """(index, words) for each mark that the workload wrote behind `start`; the kernel merges neighbours."""
        for i, entry in enumerate(self.entries):
            if entry.offset < start or entry.flags & DISCARD:
                continue
            data = self.data(entry)
            for at in range(0, len(data), SECTOR):
                if data.startswith(b"rbxjmark ", at):
                    yield i, data[at:data.index(b"\n", at)].decode().split()[1:]

    def put(self, image, entry):
        if entry.flags & DISCARD:
            image.seek(entry.offset)
            image.write(bytes(entry.length)) if entry.length <= 1 << 20 else None
        elif entry.length:
            image.seek(entry.offset)
            image.write(self.data(entry))

    def last_flush(self, cut):
        """How many of the first `cut` entries are certainly on the disk."""
        return next((i + 1 for i in range(cut - 1, -1, -1) if self.entries[i].flags & FLUSH), 0)

    def put_unflushed(self, image, first, cut, rng):
        """What may have become of those since the last flush; how many were lost or torn."""
        keep, tear = rng.choice([0, 0.1, 0.5, 0.9]), rng.choice([0, 0.2, 0.5])
        spoiled = 0
        for entry in self.entries[first:cut]:
            if not entry.length:
                continue
            if entry.flags & FUA or rng.random() < keep:
                self.put(image, entry)
            elif entry.length > SECTOR and not entry.flags & DISCARD and rng.random() < tear:
                self.tear(image, entry, rng)
                spoiled += 1
            else:
                spoiled += 1
        return spoiled

    def tear(self, image, entry, rng):
        data = self.data(entry)
        for at in range(0, entry.length, SECTOR):
            if rng.random() < 0.5:
                image.seek(entry.offset + at)
                image.write(data[at:at + SECTOR])


def draw_cuts(log, first, count, rng):
    """Points of the log; half of them just before a flush, where most is at stake."""
    flushes = [i for i in range(first, len(log.entries)) if log.entries[i].flags & FLUSH]
    cuts = [rng.choice(flushes) if rng.random() < 0.5 and flushes else rng.randrange(first, len(log.entries) + 1)
            for _ in range(count)]
    return sorted(cuts)


def rng_of(seed, number):
    return random.Random(f"{seed}:{number}")
