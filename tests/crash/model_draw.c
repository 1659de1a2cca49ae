/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Operations drawn at random, and in words.
 */
#include "crash.h"
#include "model_run.h"

#include <stdio.h>

static const struct {
    const char *text; /* %B box, %S supervisor, %P place, %I parent, %L plan, %R record */
    unsigned weight;
} infos[OPS] = {
    [OP_BEGIN] = {"%S begins box %B%I with %L", 14},
    [OP_INTEND] = {"%S intends %P in box %B", 8},
    [OP_TAKE] = {"%S takes %P in box %B", 10},
    [OP_ACQUIRE] = {"%S acquires %R of box %B", 24},
    [OP_MAKE] = {"%S makes %R of box %B itself", 10},
    [OP_ACQUIRED] = {"%S says that it acquired %R of box %B", 10},
    [OP_GIVE] = {"%S gives back %R of box %B", 3},
    [OP_RELEASED] = {"%S says that it gave back %R of box %B", 2},
    [OP_SPAWN] = {"%S starts a process in box %B (%R)", 4},
    [OP_UNDO] = {"%S undoes box %B", 4},
    [OP_END] = {"%S ends box %B", 3},
    [OP_CRASH] = {"%S crashes", 6},
    [OP_POWER_LOSS] = {"power loss", 2},
    [OP_REPLAY] = {"replay (%R: every fourth of box %B alone)", 6},
    [OP_DRY_RUN] = {"dry run (%R: every fourth of box %B alone)", 3},
    [OP_OTHER_PLAN] = {"replay of a plan that has changed", 1},
    [OP_FORGET] = {"forget %R of box %B", 2},
    [OP_HEALTH] = {"health", 2},
    [OP_QUARANTINE] = {"quarantine", 1},
    [OP_UNQUARANTINE] = {"unquarantine", 2},
    [OP_ADD] = {"a stranger adds something at %P", 4},
    [OP_REMOVE] = {"a stranger removes what is at %P", 4},
    [OP_REPLACE] = {"a stranger replaces what is at %P", 5},
    [OP_SCRIBBLE] = {"a stranger writes over %P", 3},
    [OP_HOLD] = {"a stranger locks %P", 3},
    [OP_LET_GO] = {"strangers let go of locks", 2},
};

static uint32_t draw(uint64_t *random, uint32_t below)
{
    return (uint32_t)(crash_random(random) >> 32) % below;
}

static enum op_kind draw_kind(uint64_t *random)
{
    unsigned sum = 0;
    for (int i = 0; i < OPS; i++)
        sum += infos[i].weight;
    uint32_t at = draw(random, sum);
    for (int i = 0; i < OPS; i++) {
        if (at < infos[i].weight)
            return (enum op_kind)i;
        at -= infos[i].weight;
    }
    return OP_HEALTH;
}

/* What the drawing expects of the boxes, so that most operations find something to do. */
struct guess {
    bool begun[BOXES], stale[BOXES], quarantined;
    int owner[BOXES], todo[BOXES], made[BOXES], have[BOXES]; /* todo: to be acquired; made: and not told */
    enum place owned[PLACES];                                /* by which box, plus 1 */
};

static int draw_box(uint64_t *random, const struct guess *g, bool begun)
{
    int box = (int)draw(random, BOXES);
    for (int i = 0; i < BOXES && draw(random, 16); i++, box = (box + 1) % BOXES)
        if (g->begun[box] == begun && !(begun && g->stale[box]))
            break;
    return box;
}

static enum place draw_place(uint64_t *random, const struct guess *g, int box)
{
    enum place p = NOWHERE;
    do
        p = (enum place)(1 + draw(random, PLACES - 1));
    while (g->owned[p] && (int)g->owned[p] != box + 1 && draw(random, 8));
    return p;
}

static void draw_plan(uint64_t *random, struct guess *g, struct op *op)
{
    op->plan_len = draw(random, 8) ? 1 + (int)draw(random, MAX_PLAN) : 0;
    for (int i = 0; i < op->plan_len; i++) {
        op->plan[i] = draw_place(random, g, op->box);
        if (op->parent >= 0 && draw(random, 2))
            op->plan[i] = draw(random, 2) ? DIR_IN_DIR : DIR_IN_MOUNT;
        for (int k = 0; k < i && draw(random, 8); k++) /* seldom twice */
            if (op->plan[k] == op->plan[i]) {
                op->plan[i] = draw_place(random, g, op->box);
                k = -1;
            }
        if (model_places[op->plan[i]].in && i + 1 < op->plan_len && op->parent < 0 && draw(random, 4)) {
            op->plan[i + 1] = op->plan[i];
            op->plan[i] = model_places[op->plan[i]].in;
            i++;
        }
    }
}

static bool ends(const struct op *op, const struct guess *g, int box)
{
    if (op->kind == OP_END)
        return box == op->box;
    return op->kind == OP_REPLAY && g->stale[box] && (op->pick % 4 || box == op->box);
}

static void expect(struct guess *g, const struct op *op)
{
    int box = op->box;
    for (int i = 0; i < BOXES; i++) {
        if (op->kind == OP_POWER_LOSS || (op->kind == OP_CRASH && g->owner[i] == op->supervisor))
            g->stale[i] = true;
        if (ends(op, g, i))
            g->begun[i] = g->stale[i] = false;
        for (int p = 0; p < PLACES; p++)
            if (!g->begun[i] && (int)g->owned[p] == i + 1)
                g->owned[p] = NOWHERE;
    }
    g->quarantined = op->kind == OP_QUARANTINE || (g->quarantined && op->kind != OP_UNQUARANTINE);
    if (op->kind == OP_BEGIN && !g->begun[box]) {
        g->begun[box] = true;
        g->stale[box] = false;
        g->owner[box] = op->supervisor;
        g->todo[box] = op->plan_len;
        g->made[box] = g->have[box] = 0;
        for (int i = 0; i < op->plan_len; i++)
            g->owned[op->plan[i]] = (enum place)(box + 1);
    }
    if (op->kind == OP_TAKE || op->kind == OP_INTEND)
        g->owned[op->place] = (enum place)(box + 1);
    g->todo[box] += (op->kind == OP_INTEND) - (op->kind == OP_ACQUIRE || op->kind == OP_MAKE);
    g->made[box] += (op->kind == OP_MAKE) - (op->kind == OP_ACQUIRED);
    g->have[box] += (op->kind == OP_ACQUIRE || op->kind == OP_ACQUIRED || op->kind == OP_TAKE ||
                     op->kind == OP_SPAWN) -
                    (op->kind == OP_GIVE);
    if (op->kind == OP_UNDO)
        g->have[box] = g->todo[box] = g->made[box] = 0;
}

/* Is there something to do for it? */
static bool is_idle(const struct guess *g, const struct op *op)
{
    int box = op->box;
    switch (op->kind) {
    case OP_ACQUIRE:
    case OP_MAKE:
        return g->todo[box] <= 0;
    case OP_ACQUIRED:
        return g->made[box] <= 0;
    case OP_GIVE:
    case OP_RELEASED:
        return g->have[box] <= 0;
    case OP_END:
        return g->have[box] > 0 || g->todo[box] > 0;
    case OP_FORGET:
        return !g->stale[box];
    case OP_UNQUARANTINE:
        return !g->quarantined;
    default:
        return false;
    }
}

static struct op op_draw_once(uint64_t *random, struct guess *g)
{
    struct op op = {.kind = draw_kind(random), .parent = -1, .pick = draw(random, 1000)};
    bool any = false;
    for (int i = 0; i < BOXES; i++)
        any = any || (g->begun[i] && !g->stale[i]);
    if (!any && op.kind < OP_CRASH && draw(random, 8))
        op.kind = OP_BEGIN;
    op.box = op.kind == OP_FORGET ? (int)draw(random, BOXES) : draw_box(random, g, op.kind != OP_BEGIN);
    op.supervisor = draw(random, 16) ? (op.kind == OP_BEGIN ? op.box : g->owner[op.box])
                                     : (int)draw(random, SUPERVISORS);
    if (op.kind == OP_BEGIN && draw(random, any ? 4 : 32) == 0)
        op.parent = draw_box(random, g, true);
    op.place = draw_place(random, g, op.parent >= 0 ? op.parent : op.box);
    if (op.kind >= OP_ADD)
        op.place = (enum place)(1 + draw(random, PLACES - 1));
    if (op.kind == OP_HOLD || op.kind == OP_SCRIBBLE)
        op.place = (enum place)(LOCK_DISK + draw(random, 3));
    if (op.kind == OP_BEGIN)
        draw_plan(random, g, &op);
    return op;
}

static struct op op_draw(uint64_t *random, struct guess *g)
{
    struct op op = op_draw_once(random, g);
    while (is_idle(g, &op) && draw(random, 16))
        op = op_draw_once(random, g);
    expect(g, &op);
    return op;
}

void sequence_draw(struct sequence *s, uint64_t seed)
{
    uint64_t random = seed * 2654435761u + 1;
    struct guess g = {0};
    *s = (struct sequence){.always = draw(&random, 8) == 0, .real_disk = draw(&random, 8) == 0};
    s->n = 5 + (int)draw(&random, 36);
    for (int i = 0; i < s->n; i++)
        s->ops[i] = op_draw(&random, &g);
}

void op_print(const struct op *op, char *buf, size_t size)
{
    size_t n = 0;
    for (const char *p = infos[op->kind].text; *p && n + 128 < size; p++) {
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
