/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is counted over all boxes and boots, for the metrics. The counters live in the boot journal, are
 * added to in one transaction without a flush, and go to disk with the next commit that anyone makes, a
 * replay's last act at the latest (but the time of one that changed nothing else is worth no commit); whoever
 * makes the boot journal takes them over from disk. A power cut loses what was counted since the last commit:
 * a count is never wrong by more than that, and never decreases within a boot.
 */
#ifndef RBXJ_JOURNAL_COUNTERS_H
#define RBXJ_JOURNAL_COUNTERS_H

#include <stddef.h>
#include <stdint.h>

/* Upper bounds of all but the last bucket, in nanoseconds; the last one has none. */
#define COUNTERS_BOUNDS                                                                                      \
    {                                                                                                        \
        1000000, 5000000, 10000000, 50000000, 100000000, 500000000, 1000000000, 5000000000, 10000000000,     \
            60000000000, 300000000000                                                                        \
    }
#define COUNTERS_BUCKETS 12

struct histogram {
    uint64_t buckets[COUNTERS_BUCKETS]; /* each by itself, not cumulative */
    uint64_t sum_ns;
};

enum counted_outcome { COUNTED_SUCCESS, COUNTED_PARTIAL, COUNTED_FAILURE, COUNTED_OUTCOMES };

/* As stored: a checksum (XXH3, 64 bits) of what follows it, then these as an array of 64-bit numbers, all
 * little-endian. New ones are added at the end only; what is missing, or damaged, reads as zero. */
struct counters {
    uint64_t cleanups[COUNTED_OUTCOMES]; /* teardowns of a box, by a replay or by its supervisor */
    struct histogram cleanup_duration;   /* of one box */
    struct histogram recovery;           /* from an incident's detection until nothing of it was left */
    uint64_t quarantined[6];             /* by enum quarantine_reason */
    uint64_t containment_violations;     /* boxes that something outlived that was not of their record */
    uint64_t orphans;                    /* such processes */
    uint64_t last_replay_ns; /* CLOCK_REALTIME; not added: the latest counts, whatever the clock says */
};

void histogram_add(struct histogram *histogram, int64_t ns);
/* Adds more to sum. */
void counters_add(struct counters *sum, const struct counters *more);

#endif
