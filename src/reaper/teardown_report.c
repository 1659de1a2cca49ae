/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a teardown has come to, for the report and for the plan.
 */
#include "reaper/teardown.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static char *name_of(const struct record *r)
{
    char *name = NULL;
    if (r->kind == RBXJ_PROCESS)
        return asprintf(&name, "pid %d", r->process.pid) < 0 ? NULL : name;
    return strdup(r->path);
}

static const char *action_of(const struct record *r)
{
    const struct kind *kind = kind_of(r->kind);
    if (r->kind == RBXJ_LOCK && (r->flags & REC_BEFORE_PRESENT))
        return "restore";
    if (r->flags & REC_RMDIR_ONLY)
        return "rmdir";
    return kind ? kind->action : NULL;
}

static int report_item(const struct teardown *t, const struct teardown_item *item, struct result_entry *ret)
{
    static const struct finding nothing;
    const struct finding *f = item->done.error.code             ? &item->done
                              : item->outcome == OUTCOME_UNDONE ? &nothing
                                                                : &item->look;
    const char *detail = item->done.error.detail[0] ? item->done.error.detail : item->look.error.detail;
    *ret = (struct result_entry){
        .seq = item->record->seq,
        .kind = item->record->kind,
        .name = name_of(item->record),
        .found = item->look.found,
        .content = item->look.content,
        .outcome = item->outcome,
        .evidence = item->record->flags & REC_EVIDENCE,
        .not_mounted = f->not_mounted,
        .action = action_of(item->record),
        .time_ns = item->record->time_ns,
        .oom_kills = item->done.oom_kills > item->look.oom_kills ? item->done.oom_kills
                                                                 : item->look.oom_kills,
        .keepers = f->keepers,
        .error = f->error,
    };
    if (!ret->error.code && detail[0]) /* a note on what was undone: OOM kills */
        (void)snprintf(ret->note, sizeof(ret->note), "%s", detail);
    if (item->verified && !item->dropped && t->error.code)
        (void)snprintf(ret->note, sizeof(ret->note), "its record stays for now: %.150s", t->error.message);
    if (item->done.error.code && (item->done.found == FOUND_BUSY || item->done.found == FOUND_FOREIGN))
        ret->found = item->done.found;
    if (item->outcome == OUTCOME_SKIPPED && !ret->error.code && t->error.code)
        ret->error = t->error;
    return ret->name ? 0 : -ENOMEM;
}

const char *teardown_why(const struct teardown *t)
{
    for (size_t i = t->sb->len; i-- > 0;) {
        const struct teardown_item *item = &t->items[i];
        const struct rbxj_error *e = item->done.error.code ? &item->done.error : &item->look.error;
        if (!item->silent && !item->verified && e->code)
            return e->message;
    }
    return t->error.message;
}

int teardown_report(const struct teardown *t, bool oldest_first, struct result_box *ret)
{
    struct result_box box = {.box = t->sb->box};
    box.entries = calloc(t->sb->len + 1, sizeof(*box.entries));
    if (!box.entries)
        return -ENOMEM;
    size_t left = teardown_left(t);
    int r = 0;
    for (size_t k = 0; k < t->sb->len && r == 0; k++) {
        const struct teardown_item *item = &t->items[oldest_first ? k : t->sb->len - 1 - k];
        if (!item->silent)
            r = report_item(t, item, &box.entries[box.len++]);
    }
    if (r < 0) {
        for (size_t k = 0; k < box.len; k++)
            free(box.entries[k].name);
        free(box.entries);
        return r;
    }
    box.state = t->held ? "held" : "stale";
    box.outcome = left == 0 && !t->error.code ? "success" : left == box.len ? "failure" : "partial";
    *ret = box;
    return 0;
}

void teardown_hash(const struct teardown *t, struct XXH3_state_s *state)
{
    (void)XXH3_64bits_update(state, &t->sb->box.incarnation, sizeof(t->sb->box.incarnation));
    (void)XXH3_64bits_update(state, &t->u.lazy_umount, sizeof(t->u.lazy_umount));
    for (size_t i = 0; i < t->sb->len; i++) {
        const struct teardown_item *item = &t->items[i];
        uint64_t seen[] = {item->record->seq, item->silent, item->look.found, item->look.refused,
                           item->look.identity};
        (void)XXH3_64bits_update(state, seen, sizeof(seen));
    }
}
