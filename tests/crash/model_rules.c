/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The model itself, first half: what stands where, what a call must answer and what it changes. Nothing
 * here looks at the system.
 */
#include "model.h"

#include <errno.h>
#include <string.h>

const struct place_info model_places[PLACES] = {
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

uint64_t model_line(const struct mbox *b, uint32_t seq)
{
    return MODEL_LINE | (uint64_t)b->order << 32 | seq;
}

uint64_t model_line_incarnation(const struct model *m, uint64_t line)
{
    return line & MODEL_LINE ? m->incarnations[(line & ~MODEL_LINE) >> 32] : 0;
}

/* ---- things ---- */

int model_ground(struct model *m, enum place p)
{
    struct thing *t = model_places[p].in ? model_top(m, model_places[p].in) : NULL;
    return t ? t->id : 0;
}

struct thing *model_top(struct model *m, enum place p)
{
    struct thing *top = NULL;
    int in = model_ground(m, p);
    for (int i = 0; i < m->n; i++)
        if (m->things[i].place == p && m->things[i].in == in && (!top || m->things[i].id > top->id))
            top = &m->things[i];
    return top;
}

struct thing *model_add(struct model *m, enum place p)
{
    struct thing t = {.id = ++m->last_id,
                      .place = p,
                      .in = model_ground(m, p),
                      .mount = model_places[p].kind == RBXJ_MOUNT};
    m->things[m->n] = t;
    return &m->things[m->n++];
}

static struct thing *find(struct model *m, int id)
{
    for (int i = 0; i < m->n; i++)
        if (m->things[i].id == id)
            return &m->things[i];
    return NULL;
}

/* With everything that stands in it. */
void model_remove(struct model *m, int id)
{
    struct thing *t = find(m, id);
    if (!t)
        return;
    *t = m->things[--m->n];
    for (int i = 0; i < m->n; i++)
        if (m->things[i].in == id) {
            model_remove(m, m->things[i].id);
            i = -1;
        }
}

bool model_reachable(struct model *m, enum place p)
{
    enum place in = model_places[p].in;
    return !in || model_places[in].kind == RBXJ_MOUNT || model_top(m, in);
}

bool model_is_empty(const struct model *m, const struct thing *t)
{
    for (int i = 0; i < m->n; i++)
        if (m->things[i].in == t->id)
            return false;
    return !t->full;
}

/* The file system in which the place lies: 0 the disk, -1 a volatile one of the boot, else a mount. */
int model_fs(struct model *m, enum place p)
{
    struct thing *t = model_places[p].in ? model_top(m, model_places[p].in) : NULL;
    if (t && t->mount)
        return t->id;
    return model_places[p].lost && model_places[p].kind != RBXJ_MOUNT ? -1 : 0;
}

/* ---- boxes ---- */

bool model_is_owned(const struct model *m, const struct mbox *b)
{
    return b->boot == m->boot && m->supervisor[b->owner].up && m->supervisor[b->owner].life == b->life;
}

bool model_is_live(const struct model *m, const struct mbox *b)
{
    bool live = b->there && model_is_owned(m, b);
    for (int i = 0; i < BOXES && !live; i++)
        live = m->now[i].there && m->now[i].parent == b->incarnation && model_is_live(m, &m->now[i]);
    return live;
}

struct mrecord *model_record(struct mbox *b, uint32_t seq)
{
    for (int i = 0; i < b->n; i++)
        if (b->records[i].seq == seq)
            return &b->records[i];
    return NULL;
}

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
    bool live = model_is_owned(m, b);
    refuse(&a, !b->there, RBXJ_E_NO_SUCH_BOX);
    refuse(&a, b->there && !live, RBXJ_E_BOX_STALE);
    refuse(&a, b->there && live && b->owner != supervisor, RBXJ_E_BOX_LIVE);
    return a;
}

bool model_contains(enum place outer, enum place p)
{
    return p == outer || (model_places[p].in && model_contains(outer, model_places[p].in));
}

/* The youngest, nearest item of the same box at or above p. */
static struct mrecord *lower_of(struct mbox *b, enum place p)
{
    struct mrecord *best = NULL;
    for (int i = 0; i < b->n; i++) {
        enum place q = b->records[i].place;
        if (q && model_contains(q, p) &&
            (model_places[q].kind == RBXJ_MOUNT || model_places[q].kind == RBXJ_TMPDIR) &&
            (!best || model_contains(best->place, q)))
            best = &b->records[i];
    }
    return best;
}

/* Does box b live in that one, or in one that lives in it? */
static bool is_inside(const struct model *m, const struct mbox *b, const struct mbox *outer)
{
    for (int i = 0; i < BOXES && b->parent; i++)
        if (m->now[i].there && m->now[i].incarnation == b->parent)
            return &m->now[i] == outer || is_inside(m, &m->now[i], outer);
    return false;
}

/* An intent: K4, K5, K18. b is the box as it will be, so far. */
static void may_intend(struct model *m, int box, struct mbox *b, enum place p, struct answer *a)
{
    enum rbxj_kind kind = model_places[p].kind;
    bool below = lower_of(b, p);
    refuse(a, !below && !model_reachable(m, p), RBXJ_E_BAD_REQUEST);
    refuse(a, !below && (kind == RBXJ_TMPDIR || kind == RBXJ_CGROUP) && model_top(m, p), RBXJ_E_EXISTS);
    for (int i = 0; i < BOXES; i++)
        for (int k = 0; k < m->now[i].n; k++) {
            enum place q = m->now[i].records[k].place;
            bool nested = is_inside(m, b, &m->now[i]) && model_contains(q, p) && p != q;
            refuse(a, i != box && q && !nested && (model_contains(p, q) || model_contains(q, p)),
                   RBXJ_E_EXISTS);
        }
    for (int k = 0; k < b->n; k++)
        refuse(a, b->records[k].place == p && kind != RBXJ_MOUNT, RBXJ_E_EXISTS);
}

static struct mrecord *append(struct model *m, struct mbox *b, enum place p)
{
    struct mrecord *lower = p ? lower_of(b, p) : NULL, *r = &b->records[b->n];
    struct thing *t = p && !lower ? model_top(m, p) : NULL;
    *r = (struct mrecord){
        .seq = b->next_seq++, .place = p, .below = lower ? lower->seq : 0, .newest = m->last_id};
    r->before = t ? t->id : 0;
    r->before_content = t ? t->content : 0;
    r->fs = p ? model_fs(m, p) : 0;
    r->ground = p ? model_ground(m, p) : 0;
    b->n++;
    return r;
}

/* Could what it names outlive the boot (K23)? */
static bool needs_disk(const struct model *m, const struct mrecord *r)
{
    enum rbxj_kind kind = r->place ? model_places[r->place].kind : RBXJ_PROCESS;
    return m->always ||
           ((kind == RBXJ_LOCK || kind == RBXJ_TMPDIR || kind == RBXJ_CGROUP) && (r->below || r->fs == 0));
}

void model_do_find(struct model *m, struct mrecord *r)
{
    bool known = r->anothers;
    r->anothers = true;
    if (!known && needs_disk(m, r))
        model_commit(m);
}

struct answer model_begin(struct model *m, int box, int parent, const enum place *plan, int n)
{
    struct mbox *b = &m->now[box], next = {.next_seq = 1};
    const struct mbox *outer = parent < 0 ? NULL : &m->now[parent];
    struct answer a = {.n = 0};
    refuse(&a, m->quarantined, RBXJ_E_QUARANTINED);
    refuse(&a, outer && !outer->there, RBXJ_E_NO_SUCH_BOX);
    refuse(&a, outer && outer->there && !model_is_owned(m, outer), RBXJ_E_BOX_STALE);
    next.parent = outer && outer->there ? outer->incarnation : 0;
    refuse(&a, b->there, model_is_owned(m, b) ? RBXJ_E_BOX_LIVE : RBXJ_E_BOX_STALE);
    for (int i = 0; i < n; i++) {
        may_intend(m, box, &next, plan[i], &a);
        (void)append(m, &next, plan[i]);
    }
    return a;
}

void model_do_begin(struct model *m, int supervisor, int box, int parent, uint64_t incarnation,
                    const enum place *plan, int n)
{
    struct mbox *b = &m->now[box];
    *b = (struct mbox){.there = true,
                       .incarnation = incarnation,
                       .order = ++m->begun,
                       .boot = m->boot,
                       .owner = supervisor,
                       .life = m->supervisor[supervisor].life,
                       .next_seq = 1,
                       .on_disk = m->always,
                       .parent = parent < 0 ? 0 : m->now[parent].incarnation};
    m->incarnations[b->order] = incarnation;
    for (int i = 0; i < n; i++)
        if (needs_disk(m, append(m, b, plan[i])))
            b->on_disk = true;
    if (b->on_disk)
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
    struct mbox *b = &m->now[box];
    struct mrecord *r = append(m, b, p);
    if (needs_disk(m, r)) {
        b->on_disk = true;
        model_commit(m);
    }
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

/* K13: what is to be in another item of its box is acquired after that one, and before what hides that one. */
static bool is_out_of_turn(struct model *m, struct mbox *b, const struct mrecord *r)
{
    struct mrecord *lower = r->below ? model_record(b, r->below) : NULL;
    enum verdict v = lower ? model_judge_alone(m, b, lower) : IS_OURS;
    return (v != IS_OURS && !model_is_covering(r, lower, v)) || model_is_in_newer(m, b, r);
}

/* Is the directory in which it is to be another one by now? */
static bool is_elsewhere(struct model *m, const struct mrecord *r)
{
    return !r->below && model_places[r->place].kind == RBXJ_TMPDIR && model_ground(m, r->place) != r->ground;
}

struct answer model_acquire(struct model *m, int supervisor, int box, uint32_t seq)
{
    struct answer a;
    struct mrecord *r = asked(m, supervisor, box, seq, &a);
    if (!r)
        return a;
    struct thing *t = model_top(m, r->place);
    bool lock = model_places[r->place].kind == RBXJ_LOCK, mount = model_places[r->place].kind == RBXJ_MOUNT;
    refuse(&a, r->evidence, RBXJ_E_EXISTS);
    refuse(&a, is_out_of_turn(m, &m->now[box], r) || !model_reachable(m, r->place), RBXJ_E_BAD_REQUEST);
    refuse(&a, is_elsewhere(m, r), RBXJ_E_BAD_REQUEST);
    refuse(&a, lock && r->before && !t, RBXJ_E_IO);
    refuse(&a, lock && t && (t->held || t->locked_by), RBXJ_E_BUSY);
    refuse(&a, (lock || mount) && !r->below && (t ? t->id : 0) != r->before, RBXJ_E_EXISTS);
    refuse(&a, mount && r->below && t && t->id > r->newest && !model_is_of_box(&m->now[box], r, t),
           RBXJ_E_EXISTS);
    refuse(&a, !lock && !mount && t, RBXJ_E_EXISTS);
    return a;
}

/* The supervisor has it: stamped, evidence written. Something is in it at once, but in a cgroup. */
void model_do_acquire(struct model *m, int supervisor, int box, uint32_t seq)
{
    struct mbox *b = &m->now[box];
    struct mrecord *r = model_record(b, seq);
    bool lock = model_places[r->place].kind == RBXJ_LOCK;
    struct thing *t = lock && r->before ? model_top(m, r->place) : model_add(m, r->place);
    if (lock) {
        t->content = model_line(b, seq);
        t->locked_by = supervisor + 1;
    }
    t->stamp = model_line(b, seq);
    t->full = model_places[r->place].kind == RBXJ_TMPDIR;
    r->evidence = true;
    r->got = t->id;
}

/* It says so; what stands there was made by the supervisor itself (same_source, or a lock that it has), or
 * is not as it must be. */
struct answer model_acquired(struct model *m, int supervisor, int box, uint32_t seq)
{
    struct answer a;
    struct mrecord *r = asked(m, supervisor, box, seq, &a);
    if (!r)
        return a;
    struct thing *t = model_top(m, r->place);
    bool mount = model_places[r->place].kind == RBXJ_MOUNT;
    refuse(&a, is_out_of_turn(m, &m->now[box], r) || !t || is_elsewhere(m, r), RBXJ_E_BAD_REQUEST);
    refuse(&a, mount && t && t->id <= r->newest, RBXJ_E_BAD_REQUEST);
    refuse(&a, mount && t && !t->same_source && t->stamp != model_line(&m->now[box], seq), RBXJ_E_EXISTS);
    refuse(&a, model_places[r->place].kind == RBXJ_LOCK && r->before && t && t->id != r->before,
           RBXJ_E_EXISTS);
    refuse(&a, model_places[r->place].kind != RBXJ_LOCK && !mount && t && (t->mount || !model_is_empty(m, t)),
           RBXJ_E_EXISTS);
    return a;
}

struct answer model_released(struct model *m, int supervisor, int box, uint32_t seq)
{
    struct answer a;
    struct mrecord *r = asked(m, supervisor, box, seq, &a);
    if (!r)
        return a;
    enum verdict v = model_judge_alone(m, &m->now[box], r); /* whatever became of its lower one */
    const struct thing *t = model_top(m, r->place);
    bool as_before = r->place && model_places[r->place].kind == RBXJ_LOCK && r->before && t &&
                     t->content == r->before_content; /* its stamp may have been left on it */
    refuse(&a, v != IS_GONE && v != IS_ANOTHER && !(v == IS_OURS && as_before), RBXJ_E_EXISTS);
    return a;
}

void model_drop(struct mbox *b, uint32_t seq)
{
    struct mrecord *r = model_record(b, seq);
    memmove(r, r + 1, (size_t)(&b->records[b->n] - (r + 1)) * sizeof(*r));
    b->n--;
}
