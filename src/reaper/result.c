/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/result.h"

#include "reaper/lock.h"

#include <stdlib.h>

static const char *const found_names[] = {
    [FOUND_PRESENT] = "present", [FOUND_GONE] = "gone", [FOUND_FOREIGN] = "foreign", [FOUND_BUSY] = "busy"};

static const char *const outcome_names[] = {
    [OUTCOME_NONE] = NULL,         [OUTCOME_PLANNED] = "planned",           [OUTCOME_UNDONE] = "undone",
    [OUTCOME_REFUSED] = "refused", [OUTCOME_ALREADY_GONE] = "already_gone", [OUTCOME_FAILED] = "failed",
    [OUTCOME_SKIPPED] = "skipped"};

size_t rbxj_result_boxes(const struct rbxj_result *result)
{
    return result->len;
}

void rbxj_result_info(const struct rbxj_result *result, struct rbxj_result_info *ret)
{
    *ret = (struct rbxj_result_info){
        .plan = result->plan[0] ? result->plan : NULL,
        .boot_id = result->boot[0] ? result->boot : NULL,
        .started_ns = result->started_ns,
        .duration_ns = result->duration_ns,
        .dry_run = result->dry_run,
        .boxes = result->len,
        .live = result->live,
    };
    for (size_t i = 0; i < result->len; i++)
        for (size_t k = 0; k < result->boxes[i].len; k++) {
            enum outcome o = result->boxes[i].entries[k].outcome;
            ret->undone += o == OUTCOME_UNDONE;
            ret->already_gone += o == OUTCOME_ALREADY_GONE;
            ret->refused += o == OUTCOME_REFUSED;
            ret->failed += o == OUTCOME_FAILED;
            ret->left += o == OUTCOME_REFUSED || o == OUTCOME_FAILED || o == OUTCOME_SKIPPED;
        }
}

int rbxj_result_box(const struct rbxj_result *result, size_t i, struct rbxj_result_box *ret)
{
    if (i >= result->len)
        return -ERANGE;
    const struct result_box *b = &result->boxes[i];
    *ret = (struct rbxj_result_box){
        .box = b->box.name,
        .incarnation = b->box.incarnation,
        .state = b->state,
        .cause = b->cause,
        .outcome = b->outcome,
        .supervisor = b->box.supervisor.pid,
        .supervisor_alive = b->alive,
        .begun_ns = b->box.begun_ns,
        .entries = b->len,
        .failures = b->box.failures,
        .incident = b->incident[0] ? b->incident : NULL,
    };
    return 0;
}

int rbxj_result_entry(const struct rbxj_result *result, size_t i, size_t k, struct rbxj_result_entry *ret)
{
    if (i >= result->len || k >= result->boxes[i].len)
        return -ERANGE;
    const struct result_entry *e = &result->boxes[i].entries[k];
    const struct kind *kind = kind_of(e->kind);
    *ret = (struct rbxj_result_entry){
        .seq = e->seq,
        .kind = kind ? kind->name : "unknown",
        .name = e->name,
        .found = found_names[e->found],
        .action = result->list ? NULL : e->action,
        .outcome = outcome_names[e->outcome],
        .evidence = e->evidence,
        .time_ns = e->time_ns,
        .error = e->error.code ? &e->error : NULL,
        .note = e->note[0] ? e->note : NULL,
        .content = lock_content_name(e->content),
    };
    return 0;
}

void rbxj_result_free(struct rbxj_result *result)
{
    if (!result)
        return;
    for (size_t i = 0; i < result->len; i++) {
        for (size_t k = 0; k < result->boxes[i].len; k++)
            free(result->boxes[i].entries[k].name);
        free(result->boxes[i].entries);
    }
    free(result->boxes);
    free(result);
}
