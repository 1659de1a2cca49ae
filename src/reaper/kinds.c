/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The one table of kinds.
 */
#include "base/cleanup.h"
#include "reaper/undo.h"

static const struct kind *const kinds[] = {
    [RBXJ_LOCK] = &kind_lock,     [RBXJ_CGROUP] = &kind_cgroup,   [RBXJ_MOUNT] = &kind_mount,
    [RBXJ_TMPDIR] = &kind_tmpdir, [RBXJ_PROCESS] = &kind_process,
};

const struct kind *kind_of(enum rbxj_kind kind)
{
    return (size_t)kind < ARRAY_LEN(kinds) ? kinds[kind] : NULL;
}
