/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Operations drawn at random, and in words.
 */
#include "crash.h"
#include "model_run.h"

#include <stdio.h>

static uint32_t draw(uint64_t *random, uint32_t below)
{
    return (uint32_t)(crash_random(random) >> 32) % below;
}

static enum op_kind draw_kind(uint64_t *random)
{
    uint32_t sum = 0, kind = 0;
    for (int i = 0; i < OPS; i++)
        sum += op_infos[i].weight;
    uint32_t at = draw(random, sum);
    for (; at >= op_infos[kind].weight; kind++)
        at -= op_infos[kind].weight;
    return (enum op_kind)kind;
}

/* One that is not there, or one of which the supervisor lives; seldom any. */
static int draw_box(uint64_t *random, const struct model *m, bool begun)
{
    int box = (int)draw(random, BOXES);
    for (int i = 0; i < BOXES && draw(random, 16); i++, box = (box + 1) % BOXES)
        if (begun ? m->now[box].there && model_is_owned(m, &m->now[box]) : !m->now[box].there)
            break;
    return box;
}

static bool is_anothers(const struct model *m, int box, enum place p)
{
    for (int i = 0; i < BOXES; i++)
        for (int k = 0; i != box && k < m->now[i].n; k++)
            if (m->now[i].records[k].place == p)
                return true;
    return false;
}

/* Seldom another box's. */
static enum place draw_place(uint64_t *random, const struct model *m, int box)
{
    enum place p = NOWHERE;
    do
        p = (enum place)(1 + draw(random, PLACES - 1));
    while (is_anothers(m, box, p) && draw(random, 8));
    return p;
}

static bool has(const struct op *op, int before, enum place p)
{
    while (before-- > 0)
        if (op->plan[before] == p)
            return true;
    return false;
}

/* Seldom the same twice; often with what it is in. */
static void draw_plan(uint64_t *random, const struct model *m, struct op *op)
{
    op->plan_len = draw(random, 8) ? 1 + (int)draw(random, MAX_PLAN) : 0;
    for (int i = 0; i < op->plan_len; i++) {
        if (op->parent >= 0 && draw(random, 2))
            op->plan[i] = draw(random, 2) ? DIR_IN_DIR : DIR_IN_MOUNT;
        else
            op->plan[i] = draw_place(random, m, op->box);
        while (has(op, i, op->plan[i]) && draw(random, 8))
            op->plan[i] = draw_place(random, m, op->box);
        if (model_places[op->plan[i]].in && i + 1 < op->plan_len && op->parent < 0 && draw(random, 4)) {
            op->plan[i + 1] = op->plan[i];
            op->plan[i] = model_places[op->plan[i]].in;
            i++;
        }
    }
}

/* Is there nothing to do for it? */
static bool is_idle(const struct model *m, const struct op *op)
{
    const struct mbox *b = &m->now[op->box];
    int todo = 0, made = 0, have = 0;
    for (int i = 0; i < b->n; i++) {
        const struct mrecord *r = &b->records[i];
        todo += r->place && !r->got;
        made += r->got && !r->evidence;
        have += r->evidence || !r->place;
    }
    switch (op->kind) {
    case OP_ACQUIRE:
    case OP_MAKE:
        return !todo;
    case OP_ACQUIRED:
        return !made;
    case OP_GIVE:
    case OP_RELEASED:
        return !have;
    case OP_END:
        return todo || have;
    case OP_FORGET:
        return !b->there || model_is_owned(m, b);
    case OP_UNQUARANTINE:
        return !m->quarantined;
    default:
        return false;
    }
}

static struct op draw_once(uint64_t *random, const struct model *m)
{
    struct op op = {.kind = draw_kind(random), .parent = -1, .pick = draw(random, 1000)};
    bool any = false;
    for (int i = 0; i < BOXES; i++)
        any = any || (m->now[i].there && model_is_owned(m, &m->now[i]));
    if (!any && op.kind < OP_CRASH && draw(random, 8))
        op.kind = OP_BEGIN;
    op.box = op.kind == OP_FORGET ? (int)draw(random, BOXES) : draw_box(random, m, op.kind != OP_BEGIN);
    op.supervisor = draw(random, 16) ? (op.kind == OP_BEGIN ? op.box : m->now[op.box].owner)
                                     : (int)draw(random, SUPERVISORS);
    if (op.kind == OP_BEGIN && draw(random, any ? 4 : 32) == 0)
        op.parent = draw_box(random, m, true);
    op.place = draw_place(random, m, op.box);
    if (op.kind >= OP_ADD)
        op.place = (enum place)(1 + draw(random, PLACES - 1));
    if (op.kind == OP_HOLD || op.kind == OP_SCRIBBLE)
        op.place = (enum place)(LOCK_DISK + draw(random, 3));
    if (op.kind == OP_BEGIN)
        draw_plan(random, m, &op);
    return op;
}

struct op op_draw(uint64_t *random, struct model *m)
{
    struct op op = draw_once(random, m);
    while (is_idle(m, &op) && draw(random, 16))
        op = draw_once(random, m);
    return op;
}

struct sequence sequence_draw(uint64_t seed)
{
    uint64_t random = seed * 2654435761u + 1;
    struct sequence s = {.always = draw(&random, 8) == 0, .real_disk = draw(&random, 8) == 0};
    s.n = 5 + (int)draw(&random, 36);
    s.random = random;
    return s;
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
