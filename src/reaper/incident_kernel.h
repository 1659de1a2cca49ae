/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the kernel said of the time of an incident, in its document ("kernel") and beside it (kernel.log):
 * read once for all incidents of a replay, when its last undo is done. It takes nothing away from an undo,
 * and fails none.
 *
 *   error              why the log, or the file beside it, is not whole; null: it is
 *   release            of the kernel
 *   tainted, taint     /proc/sys/kernel/tainted, and a word for each bit
 *   messages           how many were wanted (kernel.h); omitted: there were more
 *   oom_kills, machine_oom_kills, hung_tasks, bugs, io_errors    of these
 *   lines              the first 20 that tell of one of these
 *   boot, next         the boot's id, and the number of the first message that was not yet there
 *
 * The time is that from the begin of the first of its boxes, at most an hour. What the log has when the
 * incident comes again is added.
 */
#ifndef RBXJ_REAPER_INCIDENT_KERNEL_H
#define RBXJ_REAPER_INCIDENT_KERNEL_H

#include "base/doc.h"
#include "reaper/incarnations.h"
#include "reaper/kernel.h"

struct incident_kernel {
    bool read;
    struct kernel_log *log; /* NULL: not read, or no memory */
    uint64_t taint;
    int taint_error;
};

/* Adds it to doc, which is about these boxes of result, and the messages to the file in fd, which is
 * STATE/incidents, unless they are there already (kept). A supervisor that the kernel killed is told in the
 * notes: that is the cause. */
void incident_kernel_add(struct incident_kernel *kernel, int fd, const char *id, struct doc *doc,
                         const struct rbxj_result *result, const struct incarnations *boxes, bool kept);
void incident_kernel_clear(struct incident_kernel *kernel);

#endif
