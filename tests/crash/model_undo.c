/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The model itself, second half: what is ours, what a teardown comes to, what is left after a power loss.
 */
#include "model.h"

#include <string.h>

/* ---- looking ---- */

static bool is_named_mount(struct mbox *b, const struct mrecord *r, const struct thing *t)
{
    if (!r->place || model_places[r->place].kind != RBXJ_MOUNT)
        return false;
    return r->evidence ? r->got == t->id : t->stamp == model_line(b, r->seq);
}

bool model_is_of_box(struct mbox *b, const struct mrecord *but, const struct thing *t)
{
    for (int i = 0; i < b->n; i++)
        if (&b->records[i] != but && !b->records[i].dropped && is_named_mount(b, &b->records[i], t))
            return true;
    return false;
}

/* Is it in a mount of the box that is undone before it, or, being a mount, on it? */
bool model_is_in_newer(struct model *m, struct mbox *b, const struct mrecord *r)
{
    for (int i = 0; i < b->n; i++)
        for (int k = 0; k < m->n && b->records[i].seq > r->seq; k++)
            if (m->things[k].mount &&
                (m->things[k].place == model_places[r->place].in || m->things[k].place == r->place) &&
                is_named_mount(b, &b->records[i], &m->things[k]))
                return true;
    return false;
}

static struct thing *next_above(struct model *m, const struct thing *t)
{
    struct thing *above = NULL;
    for (int i = 0; i < m->n; i++) {
        struct thing *o = &m->things[i];
        if (o->place == t->place && o->in == t->in && o->id > t->id && (!above || o->id < above->id))
            above = o;
    }
    return above;
}

static struct thing *named_mount(struct model *m, struct mbox *b, const struct mrecord *r)
{
    for (int i = m->n; i-- > 0;)
        if (is_named_mount(b, r, &m->things[i]))
            return &m->things[i];
    return NULL;
}

/* By what is not of the box. */
static bool is_covered(struct model *m, struct mbox *b, const struct mrecord *r, const struct thing *t)
{
    const struct thing *above = next_above(m, t);
    return above && !model_is_of_box(b, r, above);
}

/* K1, K2, K13. */
static enum verdict judge_mount(struct model *m, struct mbox *b, struct mrecord *r)
{
    struct thing *t = named_mount(m, b, r), *top = model_top(m, r->place);
    if (b->boot != m->boot)
        return IS_GONE;
    for (int i = 0; !t && i < m->n && !r->evidence && !r->anothers; i++)
        if (m->things[i].place == r->place && m->things[i].id > r->newest && m->things[i].same_source &&
            !model_is_of_box(b, r, &m->things[i]))
            return IS_REFUSED;
    if (t)
        return is_covered(m, b, r, t) ? IS_BUSY : IS_OURS;
    return top && top->mount && top->id > r->newest && !model_is_of_box(b, r, top) ? IS_ANOTHER : IS_GONE;
}

/* K1, K2, K5. */
static enum verdict judge_lock(const struct mbox *b, const struct mrecord *r, const struct thing *t)
{
    uint64_t mine = model_line(b, r->seq);
    enum verdict anothers = r->anothers && !r->evidence ? IS_ANOTHER : IS_REFUSED;
    if (!t)
        return IS_GONE;
    if (r->before && t->content == r->before_content)
        return t->stamp == mine ? IS_OURS : IS_GONE;
    if ((t->content & MODEL_LINE) && t->content != mine)
        return anothers;
    if (r->evidence)
        return t->id == r->got ? IS_OURS : IS_REFUSED;
    if (t->content == mine || t->stamp == mine)
        return IS_OURS;
    return t->content ? anothers : IS_GONE;
}

enum verdict model_judge_alone(struct model *m, struct mbox *b, struct mrecord *r)
{
    enum rbxj_kind kind = r->place ? model_places[r->place].kind : RBXJ_PROCESS;
    struct thing *t = r->place ? model_top(m, r->place) : NULL;
    uint64_t mine = model_line(b, r->seq);
    bool other_boot = b->boot != m->boot;
    if (kind == RBXJ_PROCESS)
        return r->dead || other_boot ? IS_GONE : IS_OURS;
    if (kind == RBXJ_MOUNT)
        return judge_mount(m, b, r);
    if (other_boot && ((kind == RBXJ_CGROUP) || (!r->below && r->fs != 0)))
        return IS_GONE; /* died with its boot */
    if (!r->below && (model_reachable(m, r->place) ? model_fs(m, r->place) : 0) != r->fs)
        return IS_WAITING; /* K14 */
    if (kind == RBXJ_LOCK)
        return judge_lock(b, r, t);
    if (!t)
        return IS_GONE;
    if (t->mount)
        return IS_BUSY;
    if (r->evidence)
        return t->id == r->got ? IS_OURS : kind == RBXJ_CGROUP ? IS_ANOTHER : IS_REFUSED;
    if (t->stamp == mine)
        return IS_OURS;
    if (r->anothers)
        return IS_ANOTHER;
    return !t->stamp && model_is_empty(m, t) ? IS_OURS : IS_REFUSED;
}

/* A mount of this box on the place of its lower item is looked at all the same: that one can't be seen. */
bool model_is_covering(const struct mrecord *r, const struct mrecord *lower, enum verdict v)
{
    return v == IS_BUSY && r->place == lower->place && model_places[r->place].kind == RBXJ_MOUNT;
}

/* K13: in the lower one, gone with it, or left with it. */
static enum verdict look(struct model *m, struct mbox *b, struct mrecord *r, bool *ret_settled)
{
    struct mrecord *lower = r->below ? model_record(b, r->below) : NULL;
    enum rbxj_kind kind = r->place ? model_places[r->place].kind : RBXJ_PROCESS;
    bool settled = false;
    *ret_settled = false;
    if (r->below && !lower) { /* forgotten, or given back */
        enum verdict v = model_judge_alone(m, b, r);
        return v == IS_OURS || v == IS_BUSY || kind == RBXJ_MOUNT ? v : IS_GONE;
    }
    enum verdict v = lower ? look(m, b, lower, &settled) : IS_OURS;
    if (v == IS_OURS || model_is_covering(r, lower, v))
        return model_judge_alone(m, b, r);
    if (v == IS_GONE && kind == RBXJ_MOUNT && (r->evidence || r->place == lower->place))
        return model_judge_alone(m, b, r); /* on whatever is there */
    *ret_settled = true;
    return v == IS_ANOTHER ? IS_GONE : v;
}

enum verdict model_judge(struct model *m, struct mbox *b, struct mrecord *r)
{
    bool settled;
    return look(m, b, r, &settled);
}

/* K7. */
bool model_is_held(struct model *m, struct mbox *b, struct mrecord *r)
{
    struct thing *t = r->place && model_places[r->place].kind == RBXJ_LOCK ? model_top(m, r->place) : NULL;
    if (!t || (!t->held && !t->locked_by) || r->dropped) /* its own supervisor is dead */
        return false;
    enum verdict v = model_judge(m, b, r);
    return v == IS_OURS || (v == IS_GONE && r->before == t->id && b->boot == m->boot);
}

bool model_holds(struct model *m, struct mbox *b)
{
    bool held = false;
    for (int i = 0; i < b->n; i++)
        held = held || model_is_held(m, b, &b->records[i]);
    return held;
}

/* ---- teardown ---- */

static void quiesce(struct mbox *b, const enum verdict *v)
{
    for (int i = 0; i < b->n; i++)
        for (int k = 0; k < b->n && v[i] == IS_OURS; k++)
            if (!b->records[k].place && (k == i || b->records[k].group == b->records[i].seq))
                b->records[k].dead = true;
}

/* What is newer, in it, and left, keeps it from its turn (K2). */
static bool is_blocked(struct mbox *b, int at, const enum verdict *v, const bool *settled, bool dry)
{
    const struct mrecord *r = &b->records[at];
    for (int k = at + 1; r->place && k < b->n; k++) {
        bool left = dry ? v[k] >= IS_REFUSED : !b->records[k].dropped;
        if (left && b->records[k].place && model_contains(r->place, b->records[k].place))
            return true;
    }
    return settled[at] && v[at] >= IS_REFUSED;
}

/* Seen to be ours, but something is in the way of the undo itself: what another box has in it (K4), mounts. */
static bool is_hindered(struct model *m, struct mbox *b, const struct mrecord *r)
{
    bool holds_others = r->place && model_places[r->place].kind != RBXJ_LOCK;
    for (int i = 0; i < BOXES && holds_others; i++)
        for (int k = 0; k < m->now[i].n; k++)
            if (&m->now[i] != b && !m->now[i].records[k].dropped && m->now[i].records[k].place &&
                model_contains(r->place, m->now[i].records[k].place))
                return true;
    const struct thing *t = holds_others ? model_top(m, r->place) : NULL;
    for (int i = 0; t && i < m->n; i++)
        if (m->things[i].mount && m->things[i].in == t->id && model_places[r->place].kind == RBXJ_TMPDIR)
            return true;
    const struct thing *mount = named_mount(m, b, r);
    return mount && is_covered(m, b, r, mount);
}

/* Or has it gone with a newer one in which it was? */
static bool undo(struct model *m, struct mbox *b, struct mrecord *r)
{
    struct thing *mount = named_mount(m, b, r), *t = mount || !r->place ? mount : model_top(m, r->place);
    if (!t)
        return !r->place;
    if (model_places[r->place].kind == RBXJ_LOCK && r->before) {
        t->content = r->before_content;
        t->stamp = 0;
    } else {
        model_remove(m, t->id);
    }
    return true;
}

/* One that was gone when all were looked at is looked for again: what covered it may be gone by now. */
static const char *undo_one(struct model *m, struct mbox *b, struct mrecord *r, enum verdict v, bool settled)
{
    enum verdict now = v == IS_GONE && !settled ? model_judge(m, b, r) : v;
    if (now != v && (now == IS_OURS || now == IS_BUSY))
        return "failed";
    if (now == IS_REFUSED || now == IS_WAITING)
        return "refused";
    r->dropped = true;
    return v == IS_OURS && undo(m, b, r) ? "undone" : "already_gone";
}

/* One pass over one box. Returns how many records it dropped. */
static int pass(struct model *m, struct mbox *b, bool owner, bool dry)
{
    enum verdict v[MAX_RECORDS];
    bool settled[MAX_RECORDS], held = !owner && model_holds(m, b), stopped = held;
    int dropped = 0;
    for (int i = 0; i < b->n; i++) {
        (void)look(m, b, &b->records[i], &settled[i]);
        v[i] = model_judge(m, b, &b->records[i]);
    }
    if (!held && !dry)
        quiesce(b, v);
    for (int i = b->n; i-- > 0;) {
        struct mrecord *r = &b->records[i];
        bool refused = v[i] == IS_REFUSED || v[i] == IS_WAITING, busy = v[i] == IS_BUSY && !settled[i];
        if (r->dropped)
            continue;
        if (stopped) {
            r->out = dry && model_is_held(m, b, r) ? "failed" : "skipped";
        } else if (busy ||
                   (!dry && v[i] == IS_OURS && !is_blocked(b, i, v, settled, dry) && is_hindered(m, b, r))) {
            r->out = "failed";
            stopped = true;
        } else if (is_blocked(b, i, v, settled, dry)) {
            r->out = refused ? "refused" : "skipped";
        } else if (refused) {
            r->out = "refused";
        } else if (dry) {
            r->out = "planned";
        } else {
            r->out = undo_one(m, b, r, v[i], settled[i]);
            stopped = strcmp(r->out, "failed") == 0;
            dropped += r->dropped;
        }
    }
    return dropped;
}

static int left_of(const struct mbox *b)
{
    int left = 0;
    for (int i = 0; i < b->n; i++)
        left += !b->records[i].dropped;
    return left;
}

/* The records that were dropped go; a stale box of which nothing is left ends; failures in a row are counted (K31). */
static void settle(struct model *m, struct mbox *b, bool owner)
{
    bool failed = false, left = left_of(b) > 0, held = !owner && model_holds(m, b);
    for (int i = b->n; i-- > 0;) {
        failed = failed || strcmp(b->records[i].out, "failed") == 0;
        if (b->records[i].dropped)
            model_drop(b, b->records[i].seq);
    }
    b->failures = failed ? b->failures + 1 : held ? b->failures : 0;
    m->quarantined = m->quarantined || (!owner && left && failed && b->failures >= 3);
    if (!owner && !left)
        b->there = false;
}

static void newest_first(const struct model *m, int order[BOXES])
{
    for (int i = 0; i < BOXES; i++) {
        int k = i;
        for (; k > 0 && m->now[order[k - 1]].order < m->now[i].order; k--)
            order[k] = order[k - 1];
        order[k] = i;
    }
}

static bool is_all_planned(const struct model *m, unsigned which)
{
    bool all = true;
    for (int i = 0; i < BOXES; i++)
        for (int k = 0; which & 1U << i && k < m->now[i].n; k++)
            all = all && strcmp(m->now[i].records[k].out, "planned") == 0;
    return all;
}

int model_teardown(struct model *m, unsigned which, bool owner, bool dry, struct mbox ret[BOXES])
{
    int dropped, left, order[BOXES] = {0};
    newest_first(m, order);
    do {
        dropped = left = 0;
        for (int i = 0; i < BOXES; i++)
            if (which & 1U << order[i] && (left_of(&m->now[order[i]]) || m->now[order[i]].n == 0))
                dropped += pass(m, &m->now[order[i]], owner, dry);
        for (int i = 0; i < BOXES; i++)
            left += which & 1U << i ? left_of(&m->now[i]) : 0;
    } while (dropped && left);
    memcpy(ret, m->now, sizeof(m->now));
    for (int i = 0; i < BOXES && !dry; i++)
        if (which & 1U << i)
            settle(m, &m->now[i], owner);
    return dry ? !is_all_planned(m, which) : left > 0;
}

unsigned model_stale(const struct model *m)
{
    unsigned which = 0;
    for (int i = 0; i < BOXES; i++)
        if (m->now[i].there && !model_is_live(m, &m->now[i]))
            which |= 1U << i;
    return which;
}

const char *model_cause(struct model *m, struct mbox *b)
{
    for (int i = 0; i < b->n; i++) {
        struct mrecord *r = &b->records[i];
        const struct thing *t = r->place && model_places[r->place].kind == RBXJ_LOCK ? model_top(m, r->place)
                                                                                     : NULL;
        bool as_before = t && r->before && t->content == r->before_content;
        if (t && t->content && !(t->content & MODEL_LINE) && !as_before && model_judge(m, b, r) == IS_OURS)
            return "lock_corruption";
    }
    return b->failures ? "cleanup_failure" : b->boot == m->boot ? "supervisor_crash" : "system_crash";
}

/* ---- the rest ---- */

void model_commit(struct model *m)
{
    for (int i = 0; i < BOXES; i++)
        m->disk[i] = m->now[i].there && m->now[i].on_disk ? m->now[i] : (struct mbox){.there = false};
}

void model_crash(struct model *m, int supervisor)
{
    m->supervisor[supervisor].up = false;
    for (int i = 0; i < m->n; i++)
        if (m->things[i].locked_by == supervisor + 1)
            m->things[i].locked_by = 0;
}

void model_power_loss(struct model *m)
{
    for (int i = 0; i < SUPERVISORS; i++)
        model_crash(m, i);
    for (int i = 0; i < m->n; i++) {
        m->things[i].held = false;
        if (model_places[m->things[i].place].lost || m->things[i].mount) {
            model_remove(m, m->things[i].id);
            i = -1;
        }
    }
    memcpy(m->now, m->disk, sizeof(m->now));
    m->boot++;
}

/* K14: a box of which all that is left only waits for its file system is no reason to worry. */
static bool only_waits(struct model *m, struct mbox *b)
{
    int waiting = 0;
    for (int i = 0; i < b->n; i++) {
        enum verdict v = model_judge(m, b, &b->records[i]);
        waiting += v == IS_WAITING;
        if (v != IS_GONE && v != IS_WAITING)
            return false;
    }
    return waiting && !model_holds(m, b);
}

const char *model_health(struct model *m)
{
    unsigned stale = model_stale(m);
    bool well = true;
    for (int i = 0; i < BOXES; i++)
        well = well && (!(stale & 1U << i) || only_waits(m, &m->now[i]));
    return m->quarantined ? "quarantined" : well ? "healthy" : "unhealthy";
}
