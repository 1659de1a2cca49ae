/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * All processes that can be seen from here, as of one reading of /proc. It is no snapshot: what was forked or
 * has died meanwhile may be missing, and whoever draws a conclusion from it asks again for those that it is
 * about.
 */
#ifndef RBXJ_REAPER_PROCESSES_H
#define RBXJ_REAPER_PROCESSES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct process {
    pid_t pid, parent; /* parent 0: it is not in this pid namespace */
    uint64_t start_time;
    char state;
    uint32_t mark; /* the reader's: 0, as are the next two */
    uint32_t above;
    uint8_t proven;
};

struct processes {
    struct process *list; /* sorted by pid */
    size_t len;
    bool blind; /* some could not be seen, or there was no time to read them all */
};

/* 0, or -errno for want of memory or descriptors. */
int processes_read(struct processes *ret);
void processes_clear(struct processes *p);
/* NULL: it was not there. */
struct process *processes_find(const struct processes *p, pid_t pid);
/* Is it still the same one, alive, with the same parent? 1, 0, or -errno: that can't be known. */
int process_is_same(const struct process *p);

#endif
