/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For those who only look: does a file system answer (K16)? One that is local does. Of each other one (a
 * server's, FUSE, an overlay on who knows what) a helper asks once, for a second or two.
 */
#ifndef RBXJ_REAPER_ANSWERS_H
#define RBXJ_REAPER_ANSWERS_H

#include "reaper/mountinfo.h"

#include <limits.h>

#define ANSWERS_KNOWN 32

struct answers {
    const char *runtime_dir; /* in which it is known who asks already */
    struct {
        uint64_t key; /* mount_table_hang_key() */
        bool hangs;
    } known[ANSWERS_KNOWN];
    size_t len;
};

/* Might a call on that path hang? 1, 0, or -errno for want of memory or descriptors. */
int answers_hangs(struct answers *a, struct mount_table *table, const char *path);

/* realpath(3), which would itself wait for a server that a link leads to. 0: resolved; 1: that might hang; or
 * -errno. */
int answers_resolve(struct answers *a, struct mount_table *table, const char *path, char ret[PATH_MAX]);

#endif
