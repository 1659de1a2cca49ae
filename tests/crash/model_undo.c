/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The model itself, second half: what is ours, what a teardown comes to, what is left after a power loss.
 */
#include "model.h"

#include <string.h>

/* ---- mounts, which may lie on each other (K13) ---- */

/* Those of evidence, or stamp, are named. */
static struct thing *named_mount(struct model *m, const struct mbox *b, const struct mrecord *r)
{
    for (EACH_THING(t, m))
        if (model_kind(r) == RBXJ_MOUNT &&
            (r->evidence ? r->got == t->id : t->stamp == model_line(b, r->seq)))
            return t;
    return NULL;
}

static bool is_of_box(struct model *m, struct mbox *b, const struct mrecord *but, const struct thing *t)
{
    for (EACH_RECORD(r, b))
        if (r != but && !r->dropped && named_mount(m, b, r) == t)
            return true;
    return false;
}

bool model_is_strange(struct model *m, struct mbox *b, const struct mrecord *r, const struct thing *t)
{
    return t && t->id > r->newest && !is_of_box(m, b, r, t);
}

bool model_is_in_newer(struct model *m, struct mbox *b, const struct mrecord *r)
{
    for (EACH_RECORD(o, b)) {
        const struct thing *t = o->seq > r->seq ? named_mount(m, b, o) : NULL;
        if (t && (t->place == r->place || t->place == model_places[r->place].in))
            return true;
    }
    return false;
}

static const struct thing *above(struct model *m, const struct thing *t)
{
    const struct thing *next = NULL;
    for (EACH_THING(o, m))
        if (o->place == t->place && o->in == t->in && o->id > t->id && (!next || o->id < next->id))
            next = o;
    return next;
}

/* By what is not of the box. */
static bool is_covered(struct model *m, struct mbox *b, const struct mrecord *r, const struct thing *t)
{
    return above(m, t) && !is_of_box(m, b, r, above(m, t));
}

bool model_is_covering(const struct mrecord *r, const struct mrecord *lower, enum verdict v)
{
    return v == IS_BUSY && r->place == lower->place && model_kind(r) == RBXJ_MOUNT;
}

/* ---- looking ---- */

/* K1, K2, K13. */
static enum verdict judge_mount(struct model *m, struct mbox *b, const struct mrecord *r)
{
    const struct thing *named = named_mount(m, b, r), *top = model_top(m, r->place);
    if (b->boot != m->boot)
        return IS_GONE;
    if (named)
        return is_covered(m, b, r, named) ? IS_BUSY : IS_OURS;
    for (EACH_THING(t, m)) /* how old one is that is covered is not to be seen */
        if (!r->evidence && !r->anothers && t->place == r->place && t->same_source &&
            (t->id > r->newest || above(m, t)) && !is_of_box(m, b, r, t))
            return IS_REFUSED;
    return model_is_strange(m, b, r, top) ? IS_ANOTHER : IS_GONE;
}

static struct thing *lock_of(struct model *m, const struct mrecord *r)
{
    return model_kind(r) == RBXJ_LOCK ? model_top(m, r->place) : NULL;
}

bool model_is_as_before(struct model *m, const struct mrecord *r)
{
    const struct thing *t = lock_of(m, r);
    return t && r->before && t->content == r->before_content;
}

/* K1, K2, K5. */
static enum verdict judge_lock(struct model *m, const struct mbox *b, const struct mrecord *r)
{
    const struct thing *t = lock_of(m, r);
    uint64_t mine = model_line(b, r->seq);
    enum verdict anothers = r->anothers && !r->evidence ? IS_ANOTHER : IS_REFUSED;
    if (!t)
        return IS_GONE;
    if (model_is_as_before(m, r))
        return t->stamp == mine ? IS_OURS : IS_GONE;
    if ((t->content & MODEL_LINE) && t->content != mine)
        return anothers;
    if (r->evidence)
        return t->id == r->got ? IS_OURS : IS_REFUSED;
    if (t->content == mine || t->stamp == mine)
        return IS_OURS;
    return t->content ? anothers : IS_GONE;
}

enum verdict model_judge_alone(struct model *m, struct mbox *b, const struct mrecord *r)
{
    const struct thing *t = model_top(m, r->place);
    bool group = model_kind(r) == RBXJ_CGROUP, other_boot = b->boot != m->boot;
    if (model_kind(r) == RBXJ_PROCESS)
        return r->dead || other_boot ? IS_GONE : IS_OURS;
    if (model_kind(r) == RBXJ_MOUNT)
        return judge_mount(m, b, r);
    if (other_boot && (group || (!r->below && r->fs != 0)))
        return IS_GONE; /* died with its boot */
    if (!r->below && model_fs(m, r->place) != r->fs)
        return IS_WAITING; /* K14 */
    if (model_kind(r) == RBXJ_LOCK)
        return judge_lock(m, b, r);
    if (!t)
        return IS_GONE;
    if (t->mount)
        return IS_BUSY;
    if (r->evidence)
        return t->id == r->got ? IS_OURS : group ? IS_ANOTHER : IS_REFUSED;
    if (t->stamp == model_line(b, r->seq))
        return IS_OURS;
    if (r->anothers)
        return IS_ANOTHER;
    return !t->stamp && model_is_empty(m, t) ? IS_OURS : IS_REFUSED;
}

/* K13: in its lower one, gone with it, or left with it. */
static void look(struct model *m, struct mbox *b, struct mrecord *r)
{
    const struct mrecord *lower = model_record(b, r->below);
    bool mount = model_kind(r) == RBXJ_MOUNT, known = !lower || lower->verdict == IS_OURS;
    if (lower && mount) /* on whatever is there */
        known = known || model_is_covering(r, lower, lower->verdict) ||
                (lower->verdict == IS_GONE && (r->evidence || r->place == lower->place));
    r->settled = !known;
    r->verdict = known ? model_judge_alone(m, b, r) : lower->verdict == IS_ANOTHER ? IS_GONE : lower->verdict;
    bool forgotten = r->below && !lower; /* or given back */
    if (forgotten && !mount && r->verdict != IS_OURS && r->verdict != IS_BUSY)
        r->verdict = IS_GONE;
}

void model_look(struct model *m, struct mbox *b)
{
    for (EACH_RECORD(r, b)) /* lower ones are older */
        look(m, b, r);
}

/* K7. */
bool model_is_held(struct model *m, const struct mbox *b, const struct mrecord *r)
{
    const struct thing *t = lock_of(m, r);
    if (!t || (!t->held && !t->locked_by) || r->dropped) /* its own supervisor is dead */
        return false;
    return r->verdict == IS_OURS || (r->verdict == IS_GONE && r->before == t->id && b->boot == m->boot);
}

bool model_holds(struct model *m, struct mbox *b)
{
    bool held = false;
    model_look(m, b);
    for (EACH_RECORD(r, b))
        held = held || model_is_held(m, b, r);
    return held;
}

/* ---- teardown ---- */

static void quiesce(struct mbox *b)
{
    for (EACH_RECORD(r, b)) {
        const struct mrecord *group = model_record(b, r->group);
        if (!r->place && (r->verdict == IS_OURS || (group && group->verdict == IS_OURS)))
            r->dead = true;
    }
}

/* What is newer, in it, and left, keeps it from its turn (K2). */
static bool is_blocked(struct mbox *b, const struct mrecord *r, bool dry)
{
    for (EACH_RECORD(o, b))
        if (o->seq > r->seq && model_contains(r->place, o->place) &&
            (dry ? o->verdict >= IS_REFUSED : !o->dropped))
            return true;
    return r->settled && r->verdict >= IS_REFUSED;
}

/* Has a box of the journal stamped a directory in it (K4), though no record may name that any more? */
static bool holds_stamped(struct model *m, const struct mbox *b, const struct thing *top)
{
    for (EACH_THING(t, m)) {
        if (t->in != top->id || t->mount || model_places[t->place].kind != RBXJ_TMPDIR)
            continue;
        for (EACH_BOX(o, m))
            if (o != b && o->there && t->stamp >> 32 == model_line(o, 0) >> 32)
                return true;
    }
    return false;
}

/* Seen to be ours, but something is in the way of the undo itself: what another box has in it (K4),
 * mounts. */
static bool is_hindered(struct model *m, struct mbox *b, const struct mrecord *r)
{
    const struct thing *mount = named_mount(m, b, r);
    struct thing *top = model_top(m, r->place);
    for (EACH_BOX(o, m))
        for (EACH_RECORD(theirs, o))
            if (o != b && !theirs->dropped && model_contains(r->place, theirs->place))
                return true;
    for (EACH_THING(t, m))
        if (top && t->mount && t->in == top->id && model_kind(r) == RBXJ_TMPDIR)
            return true;
    if (top && model_kind(r) == RBXJ_TMPDIR && holds_stamped(m, b, top))
        return top->aside = true; /* it is found when what is in it is removed */
    return mount && is_covered(m, b, r, mount);
}

/* Or has it gone with a newer one in which it was? */
static bool undo(struct model *m, struct mbox *b, const struct mrecord *r)
{
    struct thing *t = model_kind(r) == RBXJ_MOUNT ? named_mount(m, b, r) : model_top(m, r->place);
    if (t && r->before && model_kind(r) == RBXJ_LOCK) {
        t->content = r->before_content;
        t->stamp = 0;
    } else if (t) {
        model_remove(m, t->id);
    }
    return t || !r->place;
}

static const char *undo_one(struct model *m, struct mbox *b, struct mrecord *r, bool dry)
{
    enum verdict v = r->verdict;
    bool refused = v == IS_REFUSED || v == IS_WAITING, blocked = is_blocked(b, r, dry);
    if ((v == IS_BUSY && !r->settled) || (v == IS_OURS && !dry && !blocked && is_hindered(m, b, r)))
        return "failed";
    if (blocked || refused || dry)
        return refused ? "refused" : blocked ? "skipped" : "planned";
    if (v == IS_GONE && !r->settled) /* what covered it may be gone by now */
        look(m, b, r);
    if (r->verdict != v && r->verdict != IS_ANOTHER)
        return r->verdict == IS_REFUSED || r->verdict == IS_WAITING ? "refused" : "failed";
    r->dropped = true;
    return v == IS_OURS && undo(m, b, r) ? "undone" : "already_gone";
}

/* One pass over one box. Returns how many records it dropped. */
static int pass(struct model *m, struct mbox *b, bool owner, bool dry)
{
    bool held = model_holds(m, b) && !owner, stopped = held;
    int dropped = 0;
    if (!held && !dry)
        quiesce(b);
    for (int i = b->n; i-- > 0;) {
        struct mrecord *r = &b->records[i];
        if (r->dropped)
            continue;
        r->out = !stopped ? undo_one(m, b, r, dry) : dry && model_is_held(m, b, r) ? "failed" : "skipped";
        stopped = stopped || strcmp(r->out, "failed") == 0;
        dropped += r->dropped;
    }
    return dropped;
}

static int left_of(struct mbox *b, bool dry)
{
    int left = 0;
    for (EACH_RECORD(r, b))
        left += dry ? strcmp(r->out, "planned") != 0 : !r->dropped;
    return left;
}

/* Why a stale box is one. */
static const char *cause_of(struct model *m, struct mbox *b)
{
    model_look(m, b);
    for (EACH_RECORD(r, b)) {
        const struct thing *t = lock_of(m, r);
        if (t && t->content && !(t->content & MODEL_LINE) && !model_is_as_before(m, r) &&
            r->verdict == IS_OURS)
            return "lock_corruption";
    }
    return b->failures ? "cleanup_failure" : b->boot == m->boot ? "supervisor_crash" : "system_crash";
}

int model_teardown(struct model *m, unsigned which, bool owner, bool dry)
{
    int dropped, left;
    for (EACH_BOX(b, m))
        b->cause = cause_of(m, b);
    do {
        dropped = left = 0;
        for (int order = m->begun; order > 0; order--) /* inner boxes before outer ones */
            for (EACH_BOX(b, m))
                if (b->order == order && which & 1U << (b - m->now)) {
                    dropped += pass(m, b, owner, dry);
                    left += left_of(b, dry);
                }
    } while (dropped && left);
    return left;
}

void model_settle(struct model *m, unsigned which, bool owner)
{
    for (EACH_BOX(b, m)) {
        bool failed = false, left = left_of(b, false) > 0, held = !owner && model_holds(m, b);
        if (!(which & 1U << (b - m->now)))
            continue;
        for (int i = b->n; i-- > 0;) {
            failed = failed || strcmp(b->records[i].out, "failed") == 0;
            if (b->records[i].dropped)
                model_drop(b, b->records[i].seq);
        }
        bool waits = left;
        for (EACH_RECORD(r, b))
            waits = waits && r->verdict == IS_WAITING;
        b->waits = !waits ? 0 : b->waits ? b->waits : m->boot + 1;
        b->failures = failed ? b->failures + 1 : held ? b->failures : 0; /* in a row (K31) */
        m->quarantined = m->quarantined || (!owner && failed && b->failures >= 3);
        b->there = owner || left;
    }
}

unsigned model_stale(struct model *m)
{
    unsigned which = 0;
    for (EACH_BOX(b, m))
        which |= b->there && !model_is_live(m, b) ? 1U << (b - m->now) : 0;
    return which;
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
    for (EACH_THING(t, m))
        if (t->locked_by == supervisor + 1)
            t->locked_by = 0;
}

void model_power_loss(struct model *m)
{
    for (int i = 0; i < SUPERVISORS; i++)
        model_crash(m, i);
    for (int i = m->n; i-- > 0;) {
        m->things[i].held = false;
        if (!model_places[m->things[i].place].lost && !m->things[i].mount)
            continue;
        model_remove(m, m->things[i].id);
        i = m->n; /* others have moved */
    }
    memcpy(m->now, m->disk, sizeof(m->now));
    m->boot++;
}

/* K14: a box of which all that is left only waits for its file system is no reason to worry, but in its
 * second boot. */
static bool only_waits(struct model *m, struct mbox *b)
{
    bool waits = false, other = model_holds(m, b);
    for (EACH_RECORD(r, b)) {
        waits = waits || r->verdict == IS_WAITING;
        other = other || (r->verdict != IS_GONE && r->verdict != IS_WAITING);
    }
    return waits && !other && (!b->waits || b->waits == m->boot + 1);
}

const char *model_health(struct model *m)
{
    bool well = true;
    for (EACH_BOX(b, m))
        well = well && (!b->there || model_is_live(m, b) || only_waits(m, b));
    return m->quarantined ? "quarantined" : well ? "healthy" : "unhealthy";
}
