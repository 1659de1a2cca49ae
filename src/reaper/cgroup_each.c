/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * All cgroups that can be seen from here, each once.
 */
#include "reaper/cgroup.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "reaper/mountinfo.h"

#include <string.h>

/* Is m the mount of its hierarchy that shows most of it? */
static bool shows_most(const struct mount_table *table, const struct mount *m)
{
    struct mount_set same = mount_table_find(table, MOUNT_BY_DEV, m);
    for (size_t i = 0; i < same.len; i++) {
        const struct mount *other = same.mounts[i];
        size_t len = strlen(other->root), ours = strlen(m->root);
        if (other != m && mount_table_top(table, other->target) == other &&
            (len < ours || (len == ours && other->id < m->id)))
            return false;
    }
    return mount_table_top(table, m->target) == m;
}

int cgroup_each(const struct mount_table *table, int (*visit)(int fd, void *data), void *data)
{
    struct mount_set all = mount_table_all(table);
    for (size_t i = 0; i < all.len; i++) {
        const struct mount *m = all.mounts[i];
        if ((strcmp(m->fstype, "cgroup") != 0 && strcmp(m->fstype, "cgroup2") != 0) || !shows_most(table, m))
            continue;
        _cleanup_close_ int fd = fd_open_dir(AT_FDCWD, m->target);
        int r = fd < 0 ? fd : cgroup_walk(fd, visit, data);
        if (r < 0 && (errno_is_want(-r) || r <= -RBXJ_E_BAD_REQUEST))
            return r; /* else it was removed meanwhile, or is not ours to see */
    }
    return 0;
}
