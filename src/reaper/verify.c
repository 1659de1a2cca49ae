/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Is the worker clean? Both ways: is anything there of what the journal names of the dead, and is anything
 * there that looks like ours (by the patterns of [discover]) and is named nowhere; and has the journal
 * anything that is no longer there. What live boxes have does not count, but for what they have lost.
 *
 * A box that is being torn down has given back what its records still name, and one that releases a thing
 * does so before its record is dropped. So what a live box has lost is looked at twice, and not of one that
 * somebody is tearing down.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "reaper/audit.h"
#include "reaper/entry.h"
#include "reaper/handle.h"
#include "reaper/orphans.h"
#include "reaper/quarantine.h"
#include "reaper/result.h"

#include <string.h>

static uint32_t *count_of(struct rbxj_clean *clean, enum rbxj_kind kind)
{
    switch (kind) {
    case RBXJ_LOCK:
        return &clean->locks;
    case RBXJ_CGROUP:
        return &clean->cgroups;
    case RBXJ_MOUNT:
        return &clean->mounts;
    case RBXJ_TMPDIR:
        return &clean->temp_dirs;
    case RBXJ_PROCESS:
        return &clean->processes;
    }
    return NULL; /* of a kind that this version does not know */
}

static bool is_live(const struct result_box *box)
{
    return strcmp(box->state, "live") == 0;
}

static void count_dead(const struct rbxj_result *boxes, struct rbxj_clean *clean)
{
    for (size_t i = 0; i < boxes->len; i++) {
        const struct result_box *box = &boxes->boxes[i];
        if (is_live(box))
            continue;
        clean->clean = 0;
        for (size_t k = 0; k < box->len; k++) {
            uint32_t *count = count_of(clean, box->entries[k].kind);
            clean->missing += audit_is_missing(&box->entries[k]);
            if (count && box->entries[k].found != FOUND_GONE)
                (*count)++;
        }
    }
}

static void count_unjournaled(const struct audit *a, struct rbxj_clean *clean)
{
    for (size_t i = 0; i < a->len; i++) {
        (*count_of(clean, a->items[i].kind))++;
        clean->unjournaled++;
        clean->clean = 0;
    }
}

/* What live boxes have lost. */
static void count_lost(const struct rbxj_result *boxes, struct rbxj_clean *clean)
{
    for (size_t i = 0; i < boxes->len; i++) {
        const struct result_box *box = &boxes->boxes[i];
        for (size_t k = 0; is_live(box) && k < box->len; k++) {
            if (!audit_is_missing(&box->entries[k]))
                continue;
            clean->missing++;
            clean->clean = 0;
        }
    }
}

/* What outlived its box, and lives still: no record names it. */
static int count_orphans(const struct config *config, struct rbxj_clean *clean, struct rbxj_error *e)
{
    _cleanup_(orphans_clear) struct orphans o = {0};
    int r = orphans_load(config, &o, NULL);
    if (r < 0 && errno_is_want(-r))
        return error_sys(e, -r, "verify: orphans");
    orphans_keep_living(&o, 0);
    clean->processes += (uint32_t)o.len;
    clean->not_looked_at += r < 0 || o.blind;
    return 0;
}

int rbxj_verify_clean(const struct rbxj_options *options, struct rbxj_clean *ret, struct rbxj_error *error)
{
    _cleanup_(entry_leave) struct entry entry = entry_look();
    error_clear(error);
    _cleanup_(config_clear) struct config config = {0};
    _cleanup_(audit_clear) struct audit a = {.config = &config};
    struct rbxj_clean clean = {.clean = 1};
    struct rbxj_result *boxes = NULL;
    struct quarantine q = {0};
    int r = config_load(options, &config, error);
    if (r == 0) /* what a journal tells that is not there, nobody knows */
        r = journal_check_own(config.state_dir, config.runtime_dir, error);
    if (r == 0)
        r = audit_look(&a, &boxes, error);
    if (r == 0)
        r = audit_confirm_missing(&config, boxes, error);
    if (r == 0) {
        count_dead(boxes, &clean);
        count_unjournaled(&a, &clean);
        count_lost(boxes, &clean);
    }
    rbxj_result_free(boxes);
    if (r == 0)
        r = count_orphans(&config, &clean, error);
    if (r < 0)
        return r;
    clean.not_looked_at += a.unseen;
    /* what a damaged journal knew may be there, and nobody has looked into it yet */
    if (clean.processes || clean.not_looked_at || quarantine_read(&config, &q) < 0 ||
        (q.there && q.reason == QUARANTINE_CORRUPTION))
        clean.clean = 0;
    *ret = clean;
    return 0;
}
