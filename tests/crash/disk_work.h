/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The workloads of crash_disk.c: what processes do with the public interface, written down in a model.
 */
#ifndef RBXJ_TESTS_CRASH_DISK_WORK_H
#define RBXJ_TESTS_CRASH_DISK_WORK_H

#include "disk_model.h"

struct work {
    struct model *model;
    struct rbxj_options options;
    unsigned processes, operations, slots; /* slots: boxes of one process at a time */
    bool big;                              /* plans of many records, with long paths */
    bool killed;                           /* all but one die in a commit */
    uint64_t random;
};

/* What one process does, in the calling one. */
void work_as(const struct work *w, unsigned process);
/* Runs every process to its end; fails the test when one fails. */
void work_run(const struct work *w);

#endif
