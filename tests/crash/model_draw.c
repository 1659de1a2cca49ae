/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Operations drawn at random, and in words.
 */
#include "crash.h"
#include "model_run.h"

#include "base/cleanup.h"

#include <stdio.h>

static uint32_t draw(struct swarm *s, uint32_t below)
{
    return (uint32_t)(crash_random(&s->random) >> 32) % below;
}

/* ---- what a sequence draws from ---- */

/* Not everything: of two that have to meet, both seldom come among all (swarm testing: Groce et al.,
 * 2012). */
static void draw_swarm(struct swarm *s)
{
    static const enum place meet[] = {LOCK_DISK, DIR_IN_DIR, DIR_IN_MOUNT}; /* more rules than elsewhere */
    for (int i = 0; i < OPS; i++)
        s->weights[i] = op_infos[i].weight * draw(s, 3);
    s->weights[OP_BEGIN] = op_infos[OP_BEGIN].weight;
    if (!s->weights[OP_TAKE] && !s->weights[OP_MAKE])
        s->weights[OP_ACQUIRE] = op_infos[OP_ACQUIRE].weight;
    for (uint32_t n = 1 + draw(s, 3); n > 0; n--) {
        uint32_t p = n == 1 ? meet[draw(s, ARRAY_LEN(meet))] : 1 + draw(s, PLACES - 1);
        for (; p; p = model_places[p].in) /* with what it is in */
            s->places[p] = true;
    }
    s->boxes = 1 + draw(s, BOXES);
    s->nests = s->boxes > 1 && draw(s, 3) == 0;
    s->weights[OP_BEGIN] *= s->nests ? 4 : 1;
}

struct sequence sequence_draw(uint64_t seed)
{
    struct sequence s = {.from.random = seed * 2654435761u + 1};
    s.always = draw(&s.from, 8) == 0;
    s.real_disk = draw(&s.from, 8) == 0;
    s.n = 12 + (int)draw(&s.from, 37);
    draw_swarm(&s.from);
    return s;
}

/* ---- an operation ---- */

static enum op_kind draw_kind(struct swarm *s)
{
    uint32_t sum = 0, kind = 0;
    for (int i = 0; i < OPS; i++)
        sum += s->weights[i];
    uint32_t at = draw(s, sum);
    for (; at >= s->weights[kind]; kind++)
        at -= s->weights[kind];
    return (enum op_kind)kind;
}

static enum place draw_place(struct swarm *s)
{
    uint32_t p = draw(s, PLACES);
    while (!s->places[p])
        p = (p + 1) % PLACES;
    return (enum place)p;
}

static bool has(const struct op *op, enum place p)
{
    for (int i = 0; i < op->plan_len; i++)
        if (op->plan[i] == p)
            return true;
    return false;
}

/* Often after what it is in, or, in a parent's box, of what is in that; only mounts often twice. */
static void draw_plan(struct swarm *s, struct op *op)
{
    for (int n = (int)draw(s, 3 * MAX_PLAN); n > 0 && op->plan_len < MAX_PLAN; n--) {
        enum place p = draw_place(s), in = model_places[p].in;
        if (s->nests && (op->parent >= 0) != (in != NOWHERE) && draw(s, 8))
            continue;
        if (in && op->parent < 0 && !has(op, in) && draw(s, 4))
            p = in;
        if (!has(op, p) || draw(s, model_places[p].kind == RBXJ_MOUNT ? 2 : 32) == 0)
            op->plan[op->plan_len++] = p;
    }
}

static struct op draw_once(struct swarm *s, struct model *m)
{
    struct op op = {.kind = draw_kind(s), .box = (int)draw(s, s->boxes), .parent = -1};
    bool any = false;
    for (EACH_BOX(b, m))
        any = any || b->there;
    if (!any && draw(s, 8))
        op.kind = OP_BEGIN;
    op.supervisor = op.kind == OP_BEGIN ? op.box : m->now[op.box].owner;
    if (draw(s, 8) == 0)
        op.supervisor = (int)draw(s, SUPERVISORS);
    if (op.kind == OP_BEGIN && draw(s, s->nests ? 2 : 32) == 0)
        op.parent = (int)draw(s, s->boxes);
    op.place = draw_place(s);
    if (!model_places[op.place].in && op.kind >= OP_ADD) /* rather in something than that */
        op.place = draw_place(s);
    op.pick = draw(s, 1000);
    if (op.kind == OP_BEGIN)
        draw_plan(s, &op);
    return op;
}

/* Is there nothing to do for it, or would it be refused? */
static bool is_idle(struct model *m, const struct op *op)
{
    struct mbox begun, *b = &m->now[op->box];
    const struct thing *t = model_top(m, op->place);
    const struct mrecord *r = op_record(m, op, op->kind != OP_ACQUIRE && op->kind != OP_MAKE);
    int processes = 0, held = 0;
    for (EACH_RECORD(p, b))
        processes += !p->place;
    for (EACH_THING(o, m))
        held += o->held;
    if (op->kind > OP_BEGIN && op->kind < OP_CRASH && model_owns(m, op->supervisor, op->box).n)
        return true;
    switch (op->kind) {
    case OP_BEGIN:
        return model_begin(m, op->supervisor, op->box, op->parent, op->plan, op->plan_len, &begun).n > 0;
    case OP_INTEND:
    case OP_TAKE:
        return model_intend(m, op->supervisor, op->box, op->place).n > 0;
    case OP_ACQUIRE:
        return !r || !r->place || r->got;
    case OP_MAKE:
        return !r || !r->place || r->got || model_acquire(m, op->supervisor, op->box, r->seq).n;
    case OP_ACQUIRED:
        return !r || !r->got || r->evidence;
    case OP_GIVE:
    case OP_RELEASED:
        return !r || (r->place && !r->got);
    case OP_SPAWN:
        return processes >= 2;
    case OP_UNDO:
        return !b->n;
    case OP_END:
        return b->n > 0;
    case OP_CRASH:
        return !b->there || b->owner != op->supervisor || !model_is_owned(m, b);
    case OP_REPLAY:
    case OP_DRY_RUN:
    case OP_OTHER_PLAN:
        return !model_stale(m);
    case OP_FORGET:
        return !b->there || model_is_owned(m, b);
    case OP_QUARANTINE:
    case OP_UNQUARANTINE:
        return m->quarantined != (op->kind == OP_UNQUARANTINE);
    case OP_ADD:
        return t && model_places[op->place].kind != RBXJ_MOUNT;
    case OP_REMOVE:
    case OP_REPLACE:
        return !t;
    case OP_SCRIBBLE:
    case OP_HOLD:
        return !t || model_places[op->place].kind != RBXJ_LOCK ||
               (op->kind == OP_HOLD && (t->held || t->locked_by));
    case OP_LET_GO:
        return !held;
    default:
        return false;
    }
}

/* One of five as it comes. */
struct op op_draw(struct swarm *s, struct model *m)
{
    struct op op = draw_once(s, m);
    if (draw(s, 5))
        for (int i = 0; i < 100 && is_idle(m, &op); i++)
            op = draw_once(s, m);
    return op;
}

void op_print(const struct op *op, char *buf, size_t size)
{
    size_t n = 0;
    for (const char *p = op_infos[op->kind].text; *p && n + 128 < size; p++) {
        if (*p != '%') {
            buf[n++] = *p;
            continue;
        }
        p++;
        if (*p == 'B')
            n += (size_t)snprintf(buf + n, size - n, "%s", model_boxes[op->box]);
        else if (*p == 'S')
            n += (size_t)snprintf(buf + n, size - n, "supervisor %d", op->supervisor);
        else if (*p == 'P')
            n += (size_t)snprintf(buf + n, size - n, "%s", model_places[op->place].name);
        else if (*p == 'I' && op->parent >= 0)
            n += (size_t)snprintf(buf + n, size - n, " in box %s", model_boxes[op->parent]);
        else if (*p == 'R')
            n += (size_t)snprintf(buf + n, size - n, "record <%u>", op->pick);
        else if (*p == 'L' && op->plan_len == 0)
            n += (size_t)snprintf(buf + n, size - n, "no plan");
        for (int i = 0; *p == 'L' && i < op->plan_len; i++)
            n += (size_t)snprintf(buf + n, size - n, "%s%s", i ? ", " : "", model_places[op->plan[i]].name);
    }
    buf[n] = '\0';
}
