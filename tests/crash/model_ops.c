/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The other operations (model_calls.c): the reaper's, an operator's, and what strangers do.
 */
#include "model_run.h"

#include <stdio.h>
#include <string.h>

/* ---- the reaper's, and an operator's ---- */

static bool do_replay(struct run *run, const struct op *op)
{
    struct model *m = &run->m;
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    const char *name = model_boxes[op->box];
    bool one = op->pick % 4 == 0, dry = op->kind == OP_DRY_RUN;
    struct rbxj_replay how = {.dry_run = dry, .boxes = &name, .boxes_len = one, .lazy_umount = 1};
    unsigned which = model_stale(m) & (one ? 1U << op->box : ~0U);
    if (op->kind == OP_OTHER_PLAN) {
        how.plan = "0123456789abcdef";
        int r = rbxj_replay(world_options(), &how, &result, &e);
        rbxj_result_free(result);
        return r == 1 || trouble(run, "replay of another plan: %d: %s", r, e.message);
    }
    int left = model_teardown(m, which, false, dry) != 0;
    int r = rbxj_replay(world_options(), &how, &result, &e);
    bool good = !result || check_replay(run, result, which);
    rbxj_result_free(result);
    if (r != left)
        return trouble(run, "replay: %d instead of %d: %s", r, left, e.message);
    if (dry)
        return good;
    model_settle(m, which, false);
    model_commit(m);
    return good;
}

static bool do_forget(struct run *run, const struct op *op)
{
    struct mbox *b = &run->m.now[op->box];
    struct rbxj_error e = {0};
    uint32_t seq = b->n ? b->records[op->pick % (uint32_t)b->n].seq : 1;
    struct mrecord *record = b->n ? model_record(b, seq) : NULL;
    int expected = !b->there                    ? -RBXJ_E_NO_SUCH_BOX
                   : model_is_owned(&run->m, b) ? -RBXJ_E_BOX_LIVE
                   : b->n                       ? 0
                                                : -RBXJ_E_NO_SUCH_BOX;
    struct answer a = {{expected}, expected != 0};
    const struct mrecord *group = record && record->group ? model_record(b, record->group) : record;
    if (expected == 0 && group && op_is_populated(group, b)) /* an orphan would be left in it (K31) */
        return true;
    int r = rbxj_forget(world_options(), model_boxes[op->box], seq, "the model", &e);
    if (!check_answer(run, "forget", &a, r, e.message))
        return false;
    if (r == 0 && record) {
        run->forgotten = run->forgotten || !record->place || model_places[record->place].kind == RBXJ_CGROUP;
        model_drop(b, seq);
        b->there = b->n > 0;
        model_commit(&run->m);
    }
    return true;
}

static bool do_health(struct run *run, const struct op *op)
{
    struct rbxj_health h;
    struct rbxj_error e = {0};
    uint32_t stale = 0, live = 0, held = 0;
    (void)op;
    int r = rbxj_health(world_options(), &h, &e);
    for (int i = 0; i < BOXES; i++) {
        struct mbox *b = &run->m.now[i];
        live += b->there && model_is_live(&run->m, b);
        stale += b->there && !model_is_live(&run->m, b);
        held += b->there && !model_is_live(&run->m, b) && model_holds(&run->m, b);
    }
    if (r < 0 || strcmp(h.status, model_health(&run->m)) != 0)
        return trouble(run, "health: %d, %s instead of %s: %s", r, h.status, model_health(&run->m),
                       e.message);
    return (h.live_boxes == live && h.stale_boxes == stale && h.held_boxes == held && h.unknown_boxes == 0 &&
            !h.can_accept_submissions == run->m.quarantined) ||
           trouble(run, "health: %u live, %u stale, %u held boxes; should be %u, %u, %u", h.live_boxes,
                   h.stale_boxes, h.held_boxes, live, stale, held);
}

static bool do_quarantine(struct run *run, const struct op *op)
{
    struct rbxj_error e = {0};
    bool enter = op->kind == OP_QUARANTINE;
    int r = enter ? rbxj_quarantine(world_options(), "the model", &e)
                  : rbxj_unquarantine(world_options(), "the model", &e);
    run->m.quarantined = enter;
    for (int i = 0; i < BOXES && !enter; i++)
        run->m.now[i].failures = 0;
    return r == 0 || trouble(run, "quarantine: %d: %s", r, e.message);
}

/* ---- strangers ---- */

static bool do_add(struct run *run, const struct op *op)
{
    enum place p = op->place;
    struct model *m = &run->m;
    struct thing *t = model_top(m, p);
    enum rbxj_kind kind = model_places[p].kind;
    if (!model_reachable(m, p) ||
        (t && (kind == RBXJ_LOCK || kind == RBXJ_CGROUP || (t->mount && kind != RBXJ_MOUNT))))
        return true;
    struct thing *new = model_add(m, p);
    new->mount = new->mount || model_top(m, p) != new || (t && kind == RBXJ_TMPDIR);
    new->full = !new->mount &&kind != RBXJ_LOCK;
    new->content = kind == RBXJ_LOCK ? (uint64_t) new->id : 0;
    return world_add_stranger(p, new->id, new->mount) ||
           trouble(run, "%s: a stranger can't make it", world_path(p));
}

static bool is_used(struct run *run, const struct thing *t)
{
    for (int i = 0; i < BOXES; i++)
        for (int k = 0; k < run->m.now[i].n; k++)
            if (run->m.now[i].records[k].got == t->id &&
                op_is_populated(&run->m.now[i].records[k], &run->m.now[i]))
                return true;
    return op_is_mounted_in(&run->m, t->id) || (model_places[t->place].kind == RBXJ_CGROUP && run->forgotten);
}

static bool do_remove(struct run *run, const struct op *op)
{
    enum place p = op->place;
    struct thing *t = model_top(&run->m, p);
    if (!t || is_used(run, t))
        return true;
    model_remove(&run->m, t->id);
    return world_remove(p) || trouble(run, "%s: a stranger can't remove it", world_path(p));
}

/* Or covers it, where it can't be removed. */
static bool do_replace(struct run *run, const struct op *op)
{
    return do_remove(run, op) && do_add(run, op);
}

static bool do_scribble(struct run *run, const struct op *op)
{
    enum place p = op->place;
    struct thing *t = model_top(&run->m, p);
    if (model_places[p].kind != RBXJ_LOCK || !t)
        return true;
    t->content = (uint64_t)++run->m.last_id;
    return world_scribble(p, run->m.last_id) ||
           trouble(run, "%s: a stranger can't write to it", world_path(p));
}

static bool do_hold(struct run *run, const struct op *op)
{
    enum place p = op->place;
    struct thing *t = model_top(&run->m, p);
    if (model_places[p].kind != RBXJ_LOCK || !t || t->held || t->locked_by)
        return true;
    t->held = true;
    return world_hold(p, t->id) || trouble(run, "%s: a stranger can't lock it", world_path(p));
}

static bool do_let_go(struct run *run, const struct op *op)
{
    (void)op;
    for (int i = 0; i < run->m.n; i++)
        run->m.things[i].held = false;
    world_let_go(0);
    return true;
}

static bool do_power_loss(struct run *run, const struct op *op)
{
    (void)op;
    world_power_loss();
    model_power_loss(&run->m);
    return true;
}

static bool do_crash(struct run *run, const struct op *op)
{
    supervisor_kill(op->supervisor);
    model_crash(&run->m, op->supervisor);
    return true;
}

const struct op_info op_infos[OPS] = {
    [OP_BEGIN] = {op_begin, 100, "%S begins box %B%I with %L"},
    [OP_INTEND] = {op_intend, 30, "%S intends %P in box %B"},
    [OP_TAKE] = {op_take, 100, "%S takes %P in box %B"},
    [OP_ACQUIRE] = {op_acquire, 200, "%S acquires %R of box %B"},
    [OP_MAKE] = {op_make, 50, "%S makes %R of box %B itself"},
    [OP_ACQUIRED] = {op_acquired, 50, "%S says that it acquired %R of box %B"},
    [OP_GIVE] = {op_give, 8, "%S gives back %R of box %B"},
    [OP_RELEASED] = {op_released, 4, "%S says that it gave back %R of box %B"},
    [OP_SPAWN] = {op_spawn, 6, "%S starts a process in box %B (%R)"},
    [OP_UNDO] = {op_undo, 20, "%S undoes box %B"},
    [OP_END] = {op_end, 8, "%S ends box %B"},
    [OP_CRASH] = {do_crash, 12, "%S crashes"},
    [OP_POWER_LOSS] = {do_power_loss, 2, "power loss"},
    [OP_REPLAY] = {do_replay, 6, "replay (%R: every fourth of box %B alone)"},
    [OP_DRY_RUN] = {do_replay, 3, "dry run (%R: every fourth of box %B alone)"},
    [OP_OTHER_PLAN] = {do_replay, 1, "replay of a plan that has changed"},
    [OP_FORGET] = {do_forget, 24, "forget %R of box %B"},
    [OP_HEALTH] = {do_health, 1, "health"},
    [OP_QUARANTINE] = {do_quarantine, 1, "quarantine"},
    [OP_UNQUARANTINE] = {do_quarantine, 10, "unquarantine"},
    [OP_ADD] = {do_add, 10, "a stranger adds something at %P"},
    [OP_REMOVE] = {do_remove, 4, "a stranger removes what is at %P"},
    [OP_REPLACE] = {do_replace, 8, "a stranger replaces what is at %P"},
    [OP_SCRIBBLE] = {do_scribble, 10, "a stranger writes over %P"},
    [OP_HOLD] = {do_hold, 80, "a stranger locks %P"},
    [OP_LET_GO] = {do_let_go, 6, "strangers let go of locks"},
};
