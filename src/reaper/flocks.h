/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who holds a flock (K7). A payload that inherited the lock's descriptor keeps the flock after its supervisor
 * died: the kernel names only the process that took it, so holders are found by their descriptors.
 */
#ifndef RBXJ_REAPER_FLOCKS_H
#define RBXJ_REAPER_FLOCKS_H

#include "reaper/undo.h"

/* Does anybody hold a flock on that file? Looks at /proc/locks, in a pid namespace that is not the first also
 * at everybody's descriptors; takes nothing. 1, 0 or -errno. */
int flocks_is_held(uint64_t dev, uint64_t ino);

/* Calls back for every process with a descriptor of the open file that has the flock on that file, until it
 * returns non-zero, and returns that. Processes that can't be looked into are skipped: *ret_blind is set
 * then. */
int flocks_holders(uint64_t dev, uint64_t ino, int (*found)(void *data, pid_t pid), void *data,
                   bool *ret_blind);

/* Is that process one of those? 1, 0 or -errno. */
int flocks_has(pid_t pid, uint64_t dev, uint64_t ino);

/* Is that process one of the box's own: in one of its cgroups that are proven ours, or one of its recorded
 * processes? */
int flocks_is_payload(struct undo *u, pid_t pid);

#endif
