/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The model itself, first half: what stands where, what a call must answer and what it changes. Nothing
 * here looks at the system.
 */
#include "model.h"

#include <string.h>

const struct place_info model_places[PLACES] = {
    [NOWHERE] = {"process", RBXJ_PROCESS, NOWHERE, true},
    [LOCK_DISK] = {"lock1", RBXJ_LOCK, NOWHERE, false},
    [LOCK_DISK2] = {"lock2", RBXJ_LOCK, NOWHERE, false},
    [LOCK_LOST] = {"lost-lock", RBXJ_LOCK, NOWHERE, true},
    [DIR_DISK] = {"dir1", RBXJ_TMPDIR, NOWHERE, false},
    [DIR_IN_DIR] = {"dir1/in", RBXJ_TMPDIR, DIR_DISK, false},
    [DIR_DISK2] = {"dir2", RBXJ_TMPDIR, NOWHERE, false},
    [DIR_LOST] = {"lost-dir", RBXJ_TMPDIR, NOWHERE, true},
    [MOUNT_A] = {"mount1", RBXJ_MOUNT, NOWHERE, true},
    [DIR_IN_MOUNT] = {"mount1/in", RBXJ_TMPDIR, MOUNT_A, false},
    [MOUNT_B] = {"mount2", RBXJ_MOUNT, NOWHERE, true},
    [GROUP_A] = {"group1", RBXJ_CGROUP, NOWHERE, true},
    [GROUP_B] = {"group2", RBXJ_CGROUP, NOWHERE, true},
};

enum rbxj_kind model_kind(const struct mrecord *r)
{
    return model_places[r->place].kind;
}

uint64_t model_line(const struct mbox *b, uint32_t seq)
{
    return MODEL_LINE | (uint64_t)b->order << 32 | seq;
}

uint64_t model_line_incarnation(const struct model *m, uint64_t line)
{
    return line & MODEL_LINE ? m->incarnations[(line & ~MODEL_LINE) >> 32] : 0;
}

/* ---- what stands where ---- */

bool model_contains(enum place outer, enum place p)
{
    return p && (p == outer || model_contains(outer, model_places[p].in));
}

struct thing *model_top(struct model *m, enum place p)
{
    struct thing *top = NULL;
    int in = p ? model_ground(m, p) : 0;
    for (EACH_THING(t, m))
        if (t->place == p && t->in == in && (!top || t->id > top->id))
            top = t;
    return top;
}

int model_ground(struct model *m, enum place p)
{
    const struct thing *t = model_top(m, model_places[p].in);
    return t ? t->id : 0;
}

int model_fs(struct model *m, enum place p)
{
    const struct thing *t = model_top(m, model_places[p].in);
    return t && t->mount ? t->id : -model_places[p].lost;
}

bool model_reachable(struct model *m, enum place p)
{
    enum place in = model_places[p].in;
    return !in || model_places[in].kind == RBXJ_MOUNT || model_top(m, in);
}

struct thing *model_add(struct model *m, enum place p)
{
    struct thing *t = &m->things[m->n];
    *t = (struct thing){.id = ++m->last_id,
                        .place = p,
                        .in = model_ground(m, p),
                        .mount = model_places[p].kind == RBXJ_MOUNT};
    m->n++;
    return t;
}

static int find(struct model *m, int id, bool in)
{
    for (int i = 0; i < m->n; i++)
        if ((in ? m->things[i].in : m->things[i].id) == id)
            return i;
    return -1;
}

void model_remove(struct model *m, int id)
{
    m->things[find(m, id, false)] = m->things[m->n - 1];
    m->n--;
    for (int i; (i = find(m, id, true)) >= 0;)
        model_remove(m, m->things[i].id);
}

bool model_is_empty(struct model *m, const struct thing *t)
{
    return !t->full && find(m, t->id, true) < 0;
}

/* ---- boxes ---- */

bool model_is_owned(const struct model *m, const struct mbox *b)
{
    return b->there && b->boot == m->boot && m->supervisor[b->owner].up &&
           m->supervisor[b->owner].life == b->life;
}

bool model_is_live(struct model *m, const struct mbox *b)
{
    bool live = model_is_owned(m, b);
    for (EACH_BOX(in, m))
        live = live || (b->there && in->there && in->parent == b->incarnation && model_is_live(m, in));
    return live;
}

struct mrecord *model_record(struct mbox *b, uint32_t seq)
{
    for (EACH_RECORD(r, b))
        if (r->seq == seq)
            return r;
    return NULL;
}

void model_drop(struct mbox *b, uint32_t seq)
{
    struct mrecord *r = model_record(b, seq);
    memmove(r, r + 1, (size_t)(&b->records[b->n] - (r + 1)) * sizeof(*r));
    b->n--;
}

/* ---- what a call must answer, and what it changes when it succeeds ---- */

static void refuse(struct answer *a, bool when, int code)
{
    for (int i = 0; i < a->n; i++)
        when = when && a->codes[i] != -code;
    if (when)
        a->codes[a->n++] = -code;
}

struct answer model_owns(const struct model *m, int supervisor, int box)
{
    const struct mbox *b = &m->now[box];
    struct answer a = {.n = 0};
    refuse(&a, !b->there, RBXJ_E_NO_SUCH_BOX);
    refuse(&a, b->there && !model_is_owned(m, b), RBXJ_E_BOX_STALE);
    refuse(&a, model_is_owned(m, b) && b->owner != supervisor, RBXJ_E_BOX_LIVE);
    return a;
}

/* The youngest, nearest item of the same box at or above p. */
static struct mrecord *lower_of(struct mbox *b, enum place p)
{
    struct mrecord *best = NULL;
    for (EACH_RECORD(r, b))
        if (model_contains(r->place, p) && (model_kind(r) == RBXJ_MOUNT || model_kind(r) == RBXJ_TMPDIR) &&
            (!best || model_contains(best->place, r->place)))
            best = r;
    return best;
}

/* Does box b live in that one, or in one that lives in it? */
static bool is_inside(struct model *m, const struct mbox *b, const struct mbox *outer)
{
    for (EACH_BOX(o, m))
        if (o->there && b->parent && o->incarnation == b->parent)
            return o == outer || is_inside(m, o, outer);
    return false;
}

/* An intent: K4, K5, K18. b is the box as it will be, so far. */
static void may_intend(struct model *m, int box, struct mbox *b, enum place p, struct answer *a)
{
    enum rbxj_kind kind = model_places[p].kind;
    bool below = lower_of(b, p);
    refuse(a, !below && !model_reachable(m, p), RBXJ_E_BAD_REQUEST);
    refuse(a, !below && (kind == RBXJ_TMPDIR || kind == RBXJ_CGROUP) && model_top(m, p), RBXJ_E_EXISTS);
    for (EACH_BOX(o, m))
        for (EACH_RECORD(r, o)) {
            bool nested = is_inside(m, b, o) && r->place != p && model_contains(r->place, p);
            bool overlaps = model_contains(p, r->place) || model_contains(r->place, p);
            refuse(a, o != &m->now[box] && overlaps && !nested, RBXJ_E_EXISTS);
        }
    for (EACH_RECORD(r, b))
        refuse(a, r->place == p && kind != RBXJ_MOUNT, RBXJ_E_EXISTS);
}

/* Could what it names outlive the boot (K23)? */
static bool needs_disk(const struct model *m, const struct mrecord *r)
{
    bool file = model_kind(r) == RBXJ_LOCK || model_kind(r) == RBXJ_TMPDIR;
    return m->always || (file && (r->below || r->fs == 0));
}

static struct mrecord *append(struct model *m, struct mbox *b, enum place p)
{
    const struct mrecord *lower = lower_of(b, p);
    const struct thing *t = lower ? NULL : model_top(m, p);
    struct mrecord *r = &b->records[b->n];
    *r = (struct mrecord){.seq = b->next_seq++,
                          .place = p,
                          .below = lower ? lower->seq : 0,
                          .before = t ? t->id : 0,
                          .before_content = t ? t->content : 0,
                          .newest = m->last_id,
                          .fs = model_fs(m, p),
                          .ground = model_ground(m, p)};
    b->n++;
    b->on_disk = b->on_disk || needs_disk(m, r);
    return r;
}

struct answer model_begin(struct model *m, int supervisor, int box, int parent, const enum place *plan, int n,
                          struct mbox *ret)
{
    const struct mbox *b = &m->now[box], *outer = parent < 0 ? NULL : &m->now[parent];
    struct answer a = {.n = 0};
    *ret = (struct mbox){.there = true,
                         .parent = outer && outer->there ? outer->incarnation : 0,
                         .order = m->begun + 1,
                         .boot = m->boot,
                         .owner = supervisor,
                         .life = m->supervisor[supervisor].life,
                         .next_seq = 1,
                         .on_disk = m->always};
    refuse(&a, m->quarantined, RBXJ_E_QUARANTINED);
    refuse(&a, outer && !outer->there, RBXJ_E_NO_SUCH_BOX);
    refuse(&a, outer && outer->there && !model_is_owned(m, outer), RBXJ_E_BOX_STALE);
    refuse(&a, b->there, model_is_owned(m, b) ? RBXJ_E_BOX_LIVE : RBXJ_E_BOX_STALE);
    for (int i = 0; i < n; i++) {
        may_intend(m, box, ret, plan[i], &a);
        (void)append(m, ret, plan[i]);
    }
    return a;
}

void model_do_begin(struct model *m, int box, const struct mbox *begun)
{
    m->now[box] = *begun;
    m->begun = begun->order;
    m->incarnations[begun->order] = begun->incarnation;
    if (begun->on_disk)
        model_commit(m);
}

struct answer model_intend(struct model *m, int supervisor, int box, enum place p)
{
    struct answer a = model_owns(m, supervisor, box);
    if (a.n == 0)
        may_intend(m, box, &m->now[box], p, &a);
    return a;
}

struct mrecord *model_do_intend(struct model *m, int box, enum place p)
{
    struct mrecord *r = append(m, &m->now[box], p);
    if (needs_disk(m, r))
        model_commit(m);
    return r;
}

/* The record that its owner's call is about; NULL: it is refused. */
static struct mrecord *asked(struct model *m, int supervisor, int box, uint32_t seq, struct answer *ret)
{
    *ret = model_owns(m, supervisor, box);
    struct mrecord *r = ret->n ? NULL : model_record(&m->now[box], seq);
    refuse(ret, !ret->n && !r, RBXJ_E_NO_SUCH_BOX);
    return r;
}

/* K13: what is to be in another item of its box is acquired after that one, and before what hides that
 * one. */
static bool is_out_of_turn(struct model *m, struct mbox *b, const struct mrecord *r)
{
    struct mrecord *lower = model_record(b, r->below);
    enum verdict v = lower ? model_judge_alone(m, b, lower) : IS_OURS;
    bool replaced = !r->below && model_kind(r) == RBXJ_TMPDIR && model_ground(m, r->place) != r->ground;
    return (v != IS_OURS && !model_is_covering(r, lower, v)) || model_is_in_newer(m, b, r) || replaced;
}

struct answer model_acquire(struct model *m, int supervisor, int box, uint32_t seq)
{
    struct answer a;
    struct mrecord *r = asked(m, supervisor, box, seq, &a);
    if (!r)
        return a;
    const struct thing *t = model_top(m, r->place);
    bool lock = model_kind(r) == RBXJ_LOCK, mount = model_kind(r) == RBXJ_MOUNT;
    refuse(&a, r->evidence, RBXJ_E_EXISTS);
    refuse(&a, is_out_of_turn(m, &m->now[box], r) || !model_reachable(m, r->place), RBXJ_E_BAD_REQUEST);
    refuse(&a, lock && r->before && !t, RBXJ_E_IO);
    refuse(&a, lock && t && (t->held || t->locked_by), RBXJ_E_BUSY);
    refuse(&a, (lock || mount) && !r->below && (t ? t->id : 0) != r->before, RBXJ_E_EXISTS);
    refuse(&a, mount && r->below && model_is_strange(m, &m->now[box], r, t), RBXJ_E_EXISTS);
    refuse(&a, !lock && !mount && t, RBXJ_E_EXISTS);
    return a;
}

void model_do_find(struct model *m, struct mrecord *r)
{
    bool known = r->anothers;
    r->anothers = true;
    if (!known && needs_disk(m, r))
        model_commit(m);
}

struct thing *model_do_make(struct model *m, int supervisor, struct mrecord *r)
{
    bool lock = model_kind(r) == RBXJ_LOCK;
    struct thing *t = lock && r->before ? model_top(m, r->place) : model_add(m, r->place);
    t->locked_by = lock ? supervisor + 1 : 0;
    r->got = t->id;
    return t;
}

void model_do_acquire(struct model *m, int supervisor, int box, struct mrecord *r)
{
    struct thing *t = model_do_make(m, supervisor, r);
    t->stamp = model_line(&m->now[box], r->seq);
    t->content = model_kind(r) == RBXJ_LOCK ? t->stamp : 0;
    r->evidence = true;
}

/* What stands there was made by the supervisor itself (same_source, or a lock that it has), or is not as it
 * must be. */
struct answer model_acquired(struct model *m, int supervisor, int box, uint32_t seq)
{
    struct answer a;
    struct mrecord *r = asked(m, supervisor, box, seq, &a);
    if (!r)
        return a;
    const struct thing *t = model_top(m, r->place);
    bool lock = model_kind(r) == RBXJ_LOCK, mount = model_kind(r) == RBXJ_MOUNT;
    refuse(&a, !t || is_out_of_turn(m, &m->now[box], r), RBXJ_E_BAD_REQUEST);
    refuse(&a, t && mount && t->id <= r->newest, RBXJ_E_BAD_REQUEST);
    refuse(&a, t && mount && !t->same_source && t->stamp != model_line(&m->now[box], seq), RBXJ_E_EXISTS);
    refuse(&a, t && lock && r->before && t->id != r->before, RBXJ_E_EXISTS);
    refuse(&a, t && !lock && !mount && (t->mount || !model_is_empty(m, t)), RBXJ_E_EXISTS);
    return a;
}

/* Whatever became of its lower one. A lock's stamp may have been left on what it holds again. */
struct answer model_released(struct model *m, int supervisor, int box, uint32_t seq)
{
    struct answer a;
    struct mrecord *r = asked(m, supervisor, box, seq, &a);
    enum verdict v = r ? model_judge_alone(m, &m->now[box], r) : IS_GONE;
    refuse(&a, v != IS_GONE && v != IS_ANOTHER && !(v == IS_OURS && model_is_as_before(m, r)), RBXJ_E_EXISTS);
    return a;
}
