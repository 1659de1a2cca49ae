/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The operations of supervisors: each on the system and in the model. One that makes no sense where
 * things stand (a contract of rbxj.h would be broken, or there is nothing to act on) does nothing, so that
 * a sequence stays one when others are dropped from it.
 */
#include "model_run.h"

#include <stdio.h>
#include <string.h>

static bool ask(struct run *run, const struct op *op, const struct request *q, struct reply *p)
{
    struct model *m = &run->m;
    if (!m->supervisor[op->supervisor].up) {
        m->supervisor[op->supervisor].up = true;
        m->supervisor[op->supervisor].life++;
    }
    memset(p, 0, sizeof(*p));
    return supervisor_ask(op->supervisor, q, p) || trouble(run, "the supervisor died");
}

struct mrecord *op_record(struct model *m, const struct op *op, bool made)
{
    struct mbox *b = &m->now[op->box];
    for (int i = 0; i < b->n; i++) {
        struct mrecord *r = &b->records[(op->pick + (uint32_t)i) % (uint32_t)b->n];
        if (op->pick % 8 == 0 || (r->place && (r->got != 0) == made))
            return r;
    }
    return b->n ? &b->records[op->pick % (uint32_t)b->n] : NULL;
}

/* ---- a supervisor's calls ---- */

bool op_begin(struct run *run, const struct op *op)
{
    struct model *m = &run->m;
    struct request q = {.kind = R_BEGIN, .box = op->box, .n = op->plan_len, .parent = op->parent};
    struct reply p;
    memcpy(q.plan, op->plan, sizeof(q.plan));
    struct mbox begun;
    struct answer a = model_begin(m, op->supervisor, op->box, op->parent, op->plan, op->plan_len, &begun);
    if (!ask(run, op, &q, &p) || !check_answer(run, "begin", &a, p.r, p.message))
        return false;
    begun.incarnation = p.incarnation;
    begun.life = m->supervisor[op->supervisor].life; /* it may have been started for that */
    if (p.r == 0)
        model_do_begin(m, op->box, &begun);
    return true;
}

bool op_intend(struct run *run, const struct op *op)
{
    struct request q = {.kind = R_INTEND, .box = op->box, .place = op->place};
    struct reply p;
    struct answer a = model_intend(&run->m, op->supervisor, op->box, op->place);
    if (run->m.now[op->box].n >= MAX_RECORDS - 2)
        return true;
    if (!ask(run, op, &q, &p) || !check_answer(run, "intend", &a, p.r, p.message))
        return false;
    struct mrecord *r = p.r == 0 ? model_do_intend(&run->m, op->box, op->place) : NULL;
    return !r || r->seq == p.seq || trouble(run, "intend: seq %u instead of %u", p.seq, r->seq);
}

/* Only after success was answered something is put into it. */
static bool fill(struct run *run, const struct op *op, const struct mrecord *r)
{
    struct request q = {.kind = R_FILL, .box = op->box, .place = r->place};
    struct reply p;
    if (model_places[r->place].kind != RBXJ_TMPDIR)
        return true;
    if (!ask(run, op, &q, &p) || p.r < 0)
        return trouble(run, "%s: was acquired, but nothing can be put into it: %d", world_path(r->place),
                       p.r);
    struct thing *t = model_top(&run->m, r->place);
    t->full = true;
    t->seen = 0;
    return true;
}

bool op_acquire(struct run *run, const struct op *op)
{
    struct model *m = &run->m;
    struct mrecord *r = op_record(&run->m, op, false);
    struct request q = {
        .kind = R_ACQUIRE, .box = op->box, .seq = r ? r->seq : 1, .place = r ? r->place : LOCK_DISK};
    struct reply p;
    if (r &&
        (!r->place || r->got)) /* a process is not acquired; what it has made itself it does not make again */
        return true;
    struct answer a = model_acquire(m, op->supervisor, op->box, q.seq);
    if (!ask(run, op, &q, &p) || !check_answer(run, "acquire", &a, p.r, p.message))
        return false;
    if (p.r == -RBXJ_E_EXISTS && r)
        model_do_find(m, r);
    if (p.r < 0 || !r)
        return true;
    model_do_acquire(m, op->supervisor, op->box, r);
    return fill(run, op, r);
}

bool op_take(struct run *run, const struct op *op)
{
    struct model *m = &run->m;
    struct request q = {.kind = R_TAKE, .box = op->box, .place = op->place};
    struct reply p;
    struct answer a = model_intend(m, op->supervisor, op->box, op->place);
    if (m->now[op->box].n >= MAX_RECORDS - 2)
        return true;
    struct mrecord *r = a.n ? NULL : model_do_intend(m, op->box, op->place);
    if (r)
        a = model_acquire(m, op->supervisor, op->box, r->seq);
    if (!ask(run, op, &q, &p) || !check_answer(run, "take", &a, p.r, p.message))
        return false;
    if (p.r == 0 && r) {
        model_do_acquire(m, op->supervisor, op->box, r);
        return fill(run, op, r);
    }
    if (r) /* nothing was made, so only its intent is withdrawn, whoever's is there */
        model_drop(&m->now[op->box], r->seq);
    if (r && p.r == -RBXJ_E_EXISTS && model_places[op->place].kind == RBXJ_TMPDIR)
        model_commit(m);
    return true;
}

/* The contract of acquiring something oneself: it is this supervisor's, and where and when it is allowed. */
static bool may_make(struct run *run, const struct op *op, const struct mrecord *r)
{
    struct model *m = &run->m;
    return r && r->place && !r->got && model_acquire(m, op->supervisor, op->box, r->seq).n == 0;
}

bool op_make(struct run *run, const struct op *op)
{
    struct model *m = &run->m;
    struct mrecord *r = op_record(&run->m, op, false);
    struct reply p;
    if (!may_make(run, op, r))
        return true;
    bool lock = model_places[r->place].kind == RBXJ_LOCK, mount = model_places[r->place].kind == RBXJ_MOUNT;
    struct request q = {.kind = R_MAKE,
                        .box = op->box,
                        .place = r->place,
                        .seq = r->seq,
                        .incarnation = m->now[op->box].incarnation,
                        .present = lock && r->before,
                        .same_source = op->pick & 16};
    if (!ask(run, op, &q, &p) || p.r < 0)
        return trouble(run, "%s can't be made: %s", world_path(r->place), strerror(-p.r));
    struct thing *t = model_do_make(m, op->supervisor, r);
    if (mount) {
        t->same_source = q.same_source;
        t->stamp = q.same_source ? 0 : model_line(&m->now[op->box], r->seq);
    }
    return true;
}

bool op_acquired(struct run *run, const struct op *op)
{
    struct model *m = &run->m;
    struct mrecord *r = op_record(&run->m, op, true);
    if (r && !r->place)
        return true;
    struct request q = {
        .kind = R_ACQUIRED, .box = op->box, .seq = r ? r->seq : 1, .place = r ? r->place : NOWHERE};
    struct reply p;
    struct answer a = model_acquired(m, op->supervisor, op->box, q.seq);
    /* it does not say so of what it has not made, nor twice */
    if (r && a.n == 0 && (r->evidence || model_top(m, r->place)->id != r->got))
        return true;
    if (r && r->evidence)
        return true;
    if (!ask(run, op, &q, &p) || !check_answer(run, "acquired", &a, p.r, p.message))
        return false;
    if (p.r < 0 || !r)
        return true;
    r->evidence = true;
    if (model_places[r->place].kind != RBXJ_MOUNT)
        model_top(m, r->place)->stamp = model_line(&m->now[op->box], r->seq);
    return fill(run, op, r);
}

bool op_is_mounted_in(const struct model *m, int id)
{
    for (int i = 0; i < m->n; i++)
        if (m->things[i].in == id && m->things[i].mount)
            return true;
    return false;
}

bool op_is_populated(const struct mrecord *group, const struct mbox *b)
{
    for (int k = 0; k < b->n; k++)
        if (!b->records[k].place && !b->records[k].dead && b->records[k].group == group->seq)
            return true;
    return false;
}

static bool release(struct run *run, const struct op *op, uint32_t seq)
{
    struct request q = {.kind = R_RELEASED, .box = op->box, .seq = seq};
    struct reply p;
    struct answer a = model_released(&run->m, op->supervisor, op->box, seq);
    if (!ask(run, op, &q, &p) || !check_answer(run, "released", &a, p.r, p.message))
        return false;
    if (p.r == 0)
        model_drop(&run->m.now[op->box], seq);
    return true;
}

static bool give_process(struct run *run, const struct op *op, struct mrecord *r)
{
    struct request q = {.kind = R_END_PROCESS, .box = op->box, .pid = r->pid};
    struct reply p;
    if (r->dead)
        return release(run, op, r->seq);
    if (!ask(run, op, &q, &p) || p.r < 0)
        return trouble(run, "process %d can't be ended: %d", q.pid, p.r);
    r->dead = true;
    return release(run, op, r->seq);
}

bool op_give(struct run *run, const struct op *op)
{
    struct model *m = &run->m;
    struct mrecord *r = op_record(&run->m, op, true);
    if (!r || model_owns(m, op->supervisor, op->box).n)
        return true;
    if (!r->place)
        return give_process(run, op, r);
    struct thing *t = model_top(m, r->place);
    struct reply p;
    bool lock = model_places[r->place].kind == RBXJ_LOCK;
    uint64_t kept = r->before_content;
    if (!t || !r->evidence || t->id != r->got || op_is_mounted_in(m, t->id) ||
        op_is_populated(r, &m->now[op->box]) || (lock && r->before && kept & MODEL_LINE))
        return true;
    struct request q = {
        .kind = R_GIVE, .box = op->box, .place = r->place, .present = lock && r->before, .content = kept};
    if (!ask(run, op, &q, &p) || p.r < 0)
        return trouble(run, "%s can't be given back: %s", world_path(r->place), strerror(-p.r));
    if (q.present) {
        t->content = kept;
        t->locked_by = 0;
    } else {
        model_remove(m, t->id);
    }
    return release(run, op, r->seq);
}

bool op_released(struct run *run, const struct op *op)
{
    const struct mrecord *r = op_record(&run->m, op, true);
    return release(run, op, r ? r->seq : 1);
}

bool op_spawn(struct run *run, const struct op *op)
{
    struct model *m = &run->m;
    struct mbox *b = &m->now[op->box];
    struct request q = {.kind = R_SPAWN, .box = op->box};
    struct reply p;
    struct answer a = model_owns(m, op->supervisor, op->box);
    for (int i = 0; i < b->n && op->pick & 1; i++) {
        const struct mrecord *r = &b->records[i];
        const struct thing *t = model_top(m, r->place);
        if (t && model_places[r->place].kind == RBXJ_CGROUP && r->evidence && t->id == r->got)
            q.group = r->seq;
    }
    if (b->n >= MAX_RECORDS - 2)
        return true;
    if (!ask(run, op, &q, &p) || !check_answer(run, "spawn", &a, p.r, p.message))
        return false;
    if (p.r < 0)
        return true;
    struct mrecord *r = model_do_intend(m, op->box, NOWHERE);
    r->pid = p.pid;
    r->group = q.group;
    world_note(p.pid);
    return r->seq == p.seq || trouble(run, "spawn: seq %u instead of %u", p.seq, r->seq);
}

/* What it does not have any more it does not hold locked. */
static bool unlock(struct run *run, const struct op *op)
{
    for (int i = 0; i < run->m.n; i++) {
        struct thing *t = &run->m.things[i];
        struct request q = {.kind = R_UNLOCK, .place = t->place};
        struct reply p;
        bool wanted = false;
        for (int k = 0; k < BOXES; k++)
            for (int n = 0; n < run->m.now[k].n; n++)
                wanted = wanted || run->m.now[k].records[n].got == t->id;
        if (t->locked_by != op->supervisor + 1 || wanted)
            continue;
        t->locked_by = 0;
        if (!ask(run, op, &q, &p))
            return false;
    }
    return true;
}

bool op_undo(struct run *run, const struct op *op)
{
    struct model *m = &run->m;
    struct request q = {.kind = R_UNDO, .box = op->box};
    struct reply p;
    struct mbox *b = &m->now[op->box];
    struct answer a = model_owns(m, op->supervisor, op->box);
    bool mine = a.n == 0;
    int n = mine ? b->n : 0;
    if (mine && model_teardown(m, 1U << op->box, true, false))
        a = (struct answer){{-RBXJ_E_LEFT}, 1};
    if (!ask(run, op, &q, &p) || !check_answer(run, "undo", &a, p.r, p.message))
        return false;
    if (p.n != n)
        return trouble(run, "undo: %d entries instead of %d", p.n, n);
    for (int i = 0; i < n; i++)
        if (strcmp(p.entries[i].outcome, b->records[n - 1 - i].out) != 0)
            return trouble(run, "undo: seq %u: %s instead of %s: %s", p.entries[i].seq, p.entries[i].outcome,
                           b->records[n - 1 - i].out, p.message);
    if (mine)
        model_settle(m, 1U << op->box, true);
    return unlock(run, op);
}

bool op_end(struct run *run, const struct op *op)
{
    struct request q = {.kind = R_END, .box = op->box};
    struct reply p;
    struct answer a = model_owns(&run->m, op->supervisor, op->box);
    if (a.n == 0 && run->m.now[op->box].n)
        a = (struct answer){{-RBXJ_E_LEFT}, 1};
    if (!ask(run, op, &q, &p) || !check_answer(run, "end", &a, p.r, p.message))
        return false;
    if (p.r == 0)
        run->m.now[op->box].there = false;
    return true;
}
