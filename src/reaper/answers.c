/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/answers.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/helper.h"

#define PATIENCE_NS (2LL * 1000000000)

int answers_hangs(struct answers *a, struct mount_table *table, const char *path)
{
    const struct mount *remote = mount_table_remote_above(table, path);
    if (!remote)
        return 0;
    for (size_t i = 0; i < a->len && i < ANSWERS_KNOWN; i++)
        if (a->known[i].mount_id == remote->id)
            return a->known[i].hangs;
    struct path_probe probe = {.path = path};
    int r = path_probe(&probe, 1, mount_table_is_local, table, (uint64_t)remote->id,
                       now_monotonic_ns() + PATIENCE_NS, NULL);
    if (r < 0 && errno_is_want(-r))
        return r;
    bool hangs = r < 0 || probe.result == -ETIMEDOUT; /* EBUSY: an earlier helper waits there still */
    size_t i = a->len++ % ANSWERS_KNOWN;
    a->known[i].mount_id = remote->id;
    a->known[i].hangs = hangs;
    return hangs;
}
