/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Processes that say something about the worker. Orphans: orphans.h. A zombie is told with its parent, who
 * has not asked for it yet: a living one may do so at any moment, so it makes nobody ill; where a supervisor
 * collects them, their number shows it. State D is ordinary while a disk works; one that is told at each look
 * is stuck, and its box can't be undone.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "reaper/evidence.h"
#include "reaper/orphans.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ATTRIBUTED_MAX 1000 /* zombies and blocked ones that are looked into */

static int add_orphans(const struct orphans *o, struct evidence *ev)
{
    int r = 0;
    for (size_t i = 0; i < o->len && r == 0; i++) {
        char text[400];
        orphan_describe(&o->list[i], text, sizeof(text));
        r = evidence_add(ev, EVIDENCE_ORPHAN, "%s", text);
    }
    return r;
}

static int look_for_orphans(const struct config *config, struct snapshot *s, const enum liveness *live,
                            struct processes *table, struct evidence *ev)
{
    _cleanup_(orphans_clear) struct orphans o = {0};
    _cleanup_free_ bool *dead = calloc(s->len + 1, sizeof(*dead));
    uint32_t unseen = 0;
    if (!dead)
        return -ENOMEM;
    for (size_t i = 0; i < s->len; i++)
        dead[i] = live[i] == LIVE_DEAD;
    int r = orphans_load(config, &o, NULL);
    bool unread = r < 0 && !errno_is_want(-r);
    if (unread)
        r = evidence_add(ev, EVIDENCE_UNKNOWN, "%s/orphans: which processes outlived their box: %s",
                         config->runtime_dir, strerrordesc_np(-r));
    if (r == 0)
        r = orphans_find(config, s, dead, table, &o);
    if (r == 0)
        r = orphans_find_marked(config, s, table, &o, &unseen);
    if (r == 0)
        r = add_orphans(&o, ev);
    if (r == 0 && unseen)
        r = evidence_add(
            ev, EVIDENCE_UNKNOWN,
            "%u cgroups bear our mark and are in no journal of ours, and whose processes are in them "
            "can't be seen from here",
            unseen);
    ev->processes_unseen = unread || o.blind || table->blind;
    if (r == 0 && (o.blind || table->blind))
        r = evidence_add(ev, EVIDENCE_UNKNOWN, "processes: some could not be looked at");
    return r;
}

/* ---- zombies and blocked ones ---- */

static bool is(const struct process *p, const struct procid *id, const struct procid *self)
{
    return p && p->pid == id->pid && p->start_time == id->start_time && procid_comparable(id, self);
}

/* The box whose supervisor or recorded process it is, or NULL. */
static const struct snapshot_box *box_by_id(const struct snapshot *s, const struct process *p,
                                            const struct procid *self)
{
    for (size_t i = 0; p && i < s->len; i++) {
        const struct snapshot_box *sb = &s->boxes[i];
        if (is(p, &sb->box.supervisor, self))
            return sb;
        for (size_t k = 0; k < sb->len; k++)
            if (sb->records[k].kind == RBXJ_PROCESS && is(p, &sb->records[k].process, self))
                return sb;
    }
    return NULL;
}

/* NULL: it has to do with none of ours, as far as that can be seen. */
static const struct snapshot_box *box_of(const struct snapshot *s, const struct processes *table,
                                         const struct process *p, const struct procid *self)
{
    const struct snapshot_box *sb = box_by_id(s, p, self);
    if (!sb && p->state == 'Z')
        sb = box_by_id(s, processes_find(table, p->parent), self);
    ssize_t i = sb ? -ENOENT : orphans_box_of(s, p->pid);
    return sb ? sb : i >= 0 ? &s->boxes[i] : NULL;
}

static int tell(struct evidence *ev, const struct snapshot_box *sb, const struct process *p)
{
    char who[120], parent[120];
    procid_describe(p->pid, who, sizeof(who));
    if (p->state == 'D')
        return evidence_add(ev, EVIDENCE_BLOCKED, "box %s: pid %d (%s)", sb->box.name, p->pid, who);
    procid_describe(p->parent, parent, sizeof(parent));
    return evidence_add(ev, EVIDENCE_ZOMBIE, "box %s: pid %d (%s) is a child of pid %d (%s)", sb->box.name,
                        p->pid, who, p->parent, parent);
}

static int look_at_states(const struct snapshot *s, const struct processes *table, struct evidence *ev)
{
    struct procid self;
    size_t looked = 0;
    int r = procid_of(getpid(), &self);
    if (r < 0)
        return errno_is_want(-r) ? r : 0;
    for (size_t i = 0; i < table->len && r == 0 && s->len; i++) {
        const struct process *p = &table->list[i];
        if (p->state != 'Z' && p->state != 'D')
            continue;
        if (looked++ == ATTRIBUTED_MAX)
            return evidence_add(ev, EVIDENCE_UNKNOWN, "more than %d processes are zombies or blocked",
                                ATTRIBUTED_MAX);
        const struct snapshot_box *sb = box_of(s, table, p, &self);
        r = sb ? tell(ev, sb, p) : 0;
    }
    return r;
}

int processes_look(const struct config *config, struct snapshot *s, const enum liveness *live,
                   struct evidence *ev)
{
    _cleanup_(processes_clear) struct processes table = {0};
    int r = processes_read(&table);
    if (r == 0)
        r = look_at_states(s, &table, ev);
    return r < 0 ? r : look_for_orphans(config, s, live, &table, ev);
}
