/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/aftermath.h"

#include "base/fd.h"
#include "reaper/events.h"
#include "reaper/quarantine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

int aftermath_quarantine(const struct config *config, struct journal *journal, int reason,
                         const struct event *about, const char *detail, struct rbxj_error *e)
{
    struct counters more = {0};
    const char *name = quarantine_name((enum quarantine_reason)reason);
    struct event event = about ? *about : (struct event){0};
    event.event = "worker_quarantined";
    event.priority = LOG_ERR;
    event.cause = name;
    int r = quarantine_enter(config, (enum quarantine_reason)reason, detail, e);
    if (r == 0)
        return 0;
    if (r < 0) {
        event_send(config, &event, "%s: %s; it could not be written down: %s", name, detail,
                   e ? e->message : rbxj_strerror(r));
        return r;
    }
    event_send(config, &event, "%s: %s", name, detail);
    more.quarantined[reason] = 1;
    if (journal)
        (void)journal_count(journal, &more, NULL);
    return 1;
}

/* Now: what was begun since the snapshot may have its incident already. */
static bool exists(const void *data, uint64_t incarnation)
{
    const struct reaper *reaper = data;
    return journal_has(reaper->journal, incarnation);
}

static bool is_by_owner(const struct aftermath *a)
{
    return strcmp(a->procedure, "undo") == 0;
}

void aftermath_prepare(struct aftermath *a, struct teardown *box)
{
    /* to where an earlier undo of this box is told of; that is looked for only if there is evidence */
    if (!box->corrupt || !incident_find(a->reaper->config, box->sb->box.incarnation, a->id))
        incident_new_id(a->id);
    box->u.incident = a->id;
}

static struct incidents *begin_incidents(const struct aftermath *a, const struct rbxj_result *found)
{
    return incidents_begin(a->reaper->config, a->procedure, a->id, a->note, found,
                           is_by_owner(a) ? NULL : exists, a->reaper);
}

void aftermath_begin(struct aftermath *a, struct teardown *boxes, size_t n, const struct rbxj_result *found)
{
    a->begun = true;
    a->incidents = found ? begin_incidents(a, found) : NULL;
    for (size_t i = 0; i < n; i++)
        boxes[i].u.incident = a->incidents ? incidents_of(a->incidents, i) : a->id;
}

static void count_box(struct counters *more, const struct teardown *t, const char *outcome, bool is_new)
{
    more->cleanups[strcmp(outcome, "success") == 0   ? COUNTED_SUCCESS
                   : strcmp(outcome, "partial") == 0 ? COUNTED_PARTIAL
                                                     : COUNTED_FAILURE]++;
    histogram_add(&more->cleanup_duration, t->worked_ns);
    if (t->held && is_new) { /* the same one every five minutes is one */
        more->containment_violations++;
        more->orphans++;
    }
}

/* Who waits for the journal's gate waits for another process, not for what the box has. */
static bool is_in_vain(const struct rbxj_error *e)
{
    return e->errnum == ETIMEDOUT && e->code != RBXJ_E_JOURNAL_BUSY;
}

/* The first thing that is left, or of those the first that was waited for in vain; "": none was. */
static const char *why_left(const struct result_box *box, bool in_vain)
{
    for (size_t k = 0; k < box->len; k++)
        if (box->entries[k].error.message[0] && (!in_vain || is_in_vain(&box->entries[k].error)))
            return box->entries[k].error.message;
    return "";
}

/* Failed again, and as often as is allowed, or late at boot, or hung then: no new boxes (K31). True: that is
 * settled, and no other box has anything to add. */
static bool judge_worker(const struct aftermath *a, const struct teardown *t, const struct result_box *box)
{
    const struct config *config = a->reaper->config;
    char detail[600];
    if (strcmp(box->outcome, "success") == 0)
        return false;
    const char *hung = strcmp(a->procedure, "boot") == 0 ? why_left(box, true) : "";
    if (t->failed && t->sb->box.failures >= (uint32_t)config->quarantine_after)
        (void)snprintf(detail, sizeof(detail), "box %s: %u replays failed in a row: %s", box->box.name,
                       t->sb->box.failures, why_left(box, false));
    else if (a->late)
        (void)snprintf(detail, sizeof(detail), "box %s: left at the boot deadline: %s", box->box.name,
                       why_left(box, false));
    else if (hung[0])
        (void)snprintf(detail, sizeof(detail), "box %s: hung at boot: %s", box->box.name, hung);
    else
        return false;
    const struct event about = {
        .box = box->box.name, .incarnation = box->box.incarnation, .incident = t->u.incident};
    (void)aftermath_quarantine(config, a->reaper->journal, QUARANTINE_CLEANUP_FAILURE, &about, detail, NULL);
    return true;
}

/* What was found to be damaged meanwhile is written to no more. */
static bool journal_is_damaged(const struct teardown *boxes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (boxes[i].error.code == RBXJ_E_JOURNAL_DAMAGED)
            return true;
    return false;
}

/* It was found by whatever thread undid the box; events are for this one. */
static void tell_not_kept(const struct aftermath *a, const struct teardown *boxes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct undo *u = &boxes[i].u;
        struct event event = {.event = "note",
                              .priority = LOG_WARNING,
                              .box = boxes[i].sb->box.name,
                              .incarnation = boxes[i].sb->box.incarnation,
                              .incident = u->incident,
                              .errnum = u->not_kept.errnum};
        if (u->not_kept.errnum)
            event_send(a->reaper->config, &event, "box %s: seq %u: what it held was not kept: %s", event.box,
                       u->not_kept.seq, strerrordesc_np(u->not_kept.errnum));
    }
}

void aftermath_end(struct aftermath *a, const struct teardown *boxes, size_t n, struct rbxj_result *result)
{
    struct counters more = {0};
    bool by_owner = is_by_owner(a), judged = by_owner;
    if (a->begun && !a->incidents && result) /* there may be memory now (K19) */
        a->incidents = begin_incidents(a, result);
    if (a->begun && !a->incidents)
        incident_complain(a->reaper->config, a->id, -ENOMEM);
    for (size_t i = 0; result && i < n; i++) {
        const struct result_box *box = &result->boxes[i];
        count_box(&more, &boxes[i], box->outcome, !a->incidents || incidents_is_new(a->incidents, i));
        judged = judged || judge_worker(a, &boxes[i], box);
    }
    tell_not_kept(a, boxes, n);
    if (!by_owner)
        more.last_replay_ns = (uint64_t)now_realtime_ns();
    incidents_end(a->incidents, result, &more);
    a->incidents = NULL;
    if (!journal_is_damaged(boxes, n))
        (void)journal_count(a->reaper->journal, &more, NULL);
    if (!result)
        return;
    if (by_owner)
        events_boxes(a->reaper->config, result);
    else
        events_replay(a->reaper->config, result);
}
