/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Is the worker clean? Of what the journal names, is any of it still there.
 */
#include "base/cleanup.h"
#include "reaper/handle.h"
#include "reaper/quarantine.h"
#include "reaper/result.h"

#include <string.h>

int rbxj_verify_clean(const struct rbxj_options *options, struct rbxj_clean *ret, struct rbxj_error *error)
{
    error_clear(error);
    _cleanup_(config_clear) struct config config = {0};
    struct rbxj_clean clean = {.clean = 1};
    struct rbxj_result *boxes = NULL;
    struct quarantine q = {0};
    int r = config_load(options, &config, error);
    if (r == 0)
        r = inspect(&config, NULL, NULL, &boxes, error);
    if (r < 0)
        return r;
    /* what a damaged journal knew may be there, and nobody has looked into it yet */
    if (quarantine_read(&config, &q) < 0 || (q.there && q.reason == QUARANTINE_CORRUPTION))
        clean.clean = 0;
    uint32_t *const counts[] = {[RBXJ_LOCK] = &clean.locks,
                                [RBXJ_CGROUP] = &clean.cgroups,
                                [RBXJ_MOUNT] = &clean.mounts,
                                [RBXJ_TMPDIR] = &clean.temp_dirs,
                                [RBXJ_PROCESS] = &clean.processes};
    for (size_t i = 0; boxes && i < boxes->len; i++) {
        const struct result_box *box = &boxes->boxes[i];
        if (strcmp(box->state, "live") == 0)
            continue;
        clean.clean = 0;
        for (size_t k = 0; k < box->len; k++)
            if (box->entries[k].found != FOUND_GONE && kind_of(box->entries[k].kind))
                (*counts[box->entries[k].kind])++;
    }
    rbxj_result_free(boxes);
    *ret = clean;
    return 0;
}
