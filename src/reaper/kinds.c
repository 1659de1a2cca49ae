/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The one table of kinds.
 */
#include "base/cleanup.h"
#include "reaper/undo.h"

#include <string.h>

static const struct kind *const kinds[] = {
    [RBXJ_LOCK] = &kind_lock,     [RBXJ_CGROUP] = &kind_cgroup,   [RBXJ_MOUNT] = &kind_mount,
    [RBXJ_TMPDIR] = &kind_tmpdir, [RBXJ_PROCESS] = &kind_process,
};

const struct kind *kind_of(enum rbxj_kind kind)
{
    return (size_t)kind < ARRAY_LEN(kinds) ? kinds[kind] : NULL;
}

const struct kind *kind_by_name(const char *name, enum rbxj_kind *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (!kinds[i] || strcmp(kinds[i]->name, name) != 0)
            continue;
        *ret = (enum rbxj_kind)i;
        return kinds[i];
    }
    return NULL;
}
