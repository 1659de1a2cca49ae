/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What outlives the boxes that a replay undoes (orphans.h): found and written down before the first process
 * is killed, told when all is done. None of it keeps an undo from being done (K19).
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "reaper/aftermath.h"
#include "reaper/quarantine.h"
#include "reaper/replay_passes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

/* Children of what was killed may come to their end by that: the other side of a pipe, for instance. */
#define GRACE_NS 1000000000

static void complain(const struct config *config, const char *what, int r)
{
    event_send(config, &(struct event){.event = "note", .priority = LOG_WARNING, .errnum = -r},
               "processes that outlive their box: %s: %s", what, strerrordesc_np(-r));
}

/* Writes them down, and leaves those that nobody was told of yet: a replay that was killed may have found
 * more. */
static int merge(const struct config *config, struct orphans *found)
{
    _cleanup_(orphans_clear) struct orphans kept = {0}, elsewhere = {0}, news = {0};
    int r = orphans_load(config, &kept, &elsewhere);
    if (r < 0 && errno_is_want(-r))
        return r;
    if (r < 0) /* what it said is lost */
        complain(config, "which were found before", r);
    r = 0;
    for (size_t i = 0; i < found->len && r == 0; i++)
        r = orphans_add(&kept, &found->list[i].id, found->list[i].box);
    for (size_t i = 0; i < kept.len && r == 0; i++)
        if (!kept.list[i].told)
            r = orphans_copy(&news, &kept.list[i]);
    for (size_t i = 0; i < elsewhere.len && r == 0; i++)
        r = orphans_copy(&kept, &elsewhere.list[i]);
    if (r < 0)
        return r;
    r = orphans_store(config, &kept);
    orphans_clear(found);
    *found = news;
    news = (struct orphans){0};
    return r;
}

static int find(struct replay *p, size_t from, size_t to, struct orphans *ret)
{
    struct snapshot *s = &p->snapshot;
    _cleanup_free_ bool *dead = calloc(s->len + 1, sizeof(*dead));
    if (!dead)
        return -ENOMEM;
    for (size_t i = from; i < to; i++)
        if (p->boxes[i].claimed)
            dead[p->boxes[i].sb - s->boxes] = true;
    return orphans_find(p->reaper.config, s, dead, NULL, ret);
}

void replay_find_orphans(struct replay *p, size_t from, size_t to)
{
    struct orphans *found = &p->orphans;
    int r = find(p, from, to, found);
    if (r < 0) { /* once more, as it can't be made up for later */
        orphans_clear(found);
        r = find(p, from, to, found);
    }
    if (r < 0)
        complain(p->reaper.config, "they could not be looked for", r);
    r = merge(p->reaper.config, found);
    if (r < 0)
        complain(p->reaper.config, "they could not be written down", r);
}

static struct event event_of(const struct replay *p, const struct orphan *orphan)
{
    struct event event = {.event = "orphan_detected",
                          .priority = LOG_ERR,
                          .box = orphan->box[0] ? orphan->box : NULL,
                          .kind = "process"};
    for (size_t i = 0; i < p->len; i++) {
        const struct box *box = &p->boxes[i].sb->box;
        if (strcmp(box->name, orphan->box) != 0)
            continue;
        event.box = box->name;
        event.incarnation = box->incarnation;
        event.incident = p->boxes[i].u.incident;
    }
    return event;
}

static uint64_t count_boxes(const struct orphans *o)
{
    uint64_t n = 0;
    for (size_t i = 0; i < o->len; i++)
        n += i == 0 || strcmp(o->list[i - 1].box, o->list[i].box) != 0;
    return n;
}

static int compare_boxes(const void *a, const void *b)
{
    return strcmp(((const struct orphan *)a)->box, ((const struct orphan *)b)->box);
}

void replay_tell_orphans(struct replay *p)
{
    struct orphans *found = &p->orphans;
    enum { TOLD = 20 };
    const struct config *config = p->reaper.config;
    struct counters more = {0};
    struct event about = {0};
    char text[400], first[400] = "";
    int64_t grace = now_monotonic_ns() + GRACE_NS, deadline = p->reaper.deadline_ns;
    orphans_keep_living(found, grace < deadline ? grace : deadline);
    if (!found->len)
        return;
    qsort(found->list, found->len, sizeof(*found->list), compare_boxes);
    for (size_t i = 0; i < found->len; i++) {
        struct event event = event_of(p, &found->list[i]);
        char name[24];
        (void)snprintf(name, sizeof(name), "pid %d", found->list[i].id.pid);
        event.name = name;
        orphan_describe(&found->list[i], text, sizeof(text));
        if (i < TOLD)
            event_send(config, &event, "%s", text);
        if (i == 0) {
            (void)strcpy(first, text);
            about = event;
            about.kind = about.name = NULL;
        }
    }
    if (aftermath_quarantine(config, p->reaper.journal, QUARANTINE_ORPHAN_PROCESS, &about, first, NULL) < 0)
        return; /* the next replay tries again */
    more.orphans = found->len;
    more.containment_violations = count_boxes(found);
    (void)journal_count(p->reaper.journal, &more, NULL);
    int r = orphans_note_told(config, found);
    if (r < 0)
        complain(config, "that they were told could not be written down", r);
}
