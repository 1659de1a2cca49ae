/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The system and the journal against the model.
 */
#include "crash.h"
#include "model_run.h"

#include "base/cleanup.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool trouble(struct run *run, const char *format, ...)
{
    va_list args;
    if (run->trouble[0])
        return false;
    va_start(args, format);
    (void)vsnprintf(run->trouble, sizeof(run->trouble), format, args);
    va_end(args);
    return false;
}

static const char *code_name(int code)
{
    return code == 0 ? "0" : rbxj_strerror(code);
}

bool check_answer(struct run *run, const char *call, const struct answer *a, int r, const char *message)
{
    crash_count(r == 0 ? "done" : "refused", 1);
    if (a->n == 0)
        return r == 0 ||
               trouble(run, "%s: %s (%d): %s; it should have been done", call, code_name(r), r, message);
    for (int i = 0; i < a->n; i++)
        if (r == a->codes[i])
            return true;
    return trouble(run, "%s: %s (%d): %s; it should have been refused: %s", call, code_name(r), r, message,
                   code_name(a->codes[0]));
}

/* ---- what is there ---- */

static bool is_aside(const struct model *m, const struct thing *t)
{
    for (int i = 0; i < m->n; i++)
        if (m->things[i].id == t->in && is_aside(m, &m->things[i]))
            return true;
    return t->aside;
}

static bool check_place(struct run *run, enum place p)
{
    struct model *m = &run->m;
    struct thing *t = model_top(m, p);
    uint64_t seen = world_see(p);
    int mounts = 0;
    if (t && is_aside(m, t))
        return !seen || trouble(run, "%s: is still there, or another one is", world_path(p));
    if (t && !seen)
        return trouble(run, "%s: %s is not there any more", world_path(p),
                       t->stamp || t->locked_by ? "what is of a box" : "what nobody has to touch");
    if (!t && seen)
        return trouble(run, "%s: is still there, or there again", world_path(p));
    if (t && t->seen && t->seen != seen)
        return trouble(run, "%s: another one is there, or what is in it has changed", world_path(p));
    if (t && !t->seen && t->mount)
        world_keep(p);
    if (t)
        t->seen = seen;
    if (t && model_places[p].kind == RBXJ_LOCK &&
        !world_content_is(p, t->content, model_line_incarnation(m, t->content), (uint32_t)t->content))
        return trouble(run, "%s: does not hold what it should", world_path(p));
    for (int i = 0; i < m->n; i++)
        mounts += m->things[i].place == p && m->things[i].mount;
    return world_mounts(p) == mounts ||
           trouble(run, "%s: %d mounts are there instead of %d", world_path(p), world_mounts(p), mounts);
}

static bool check_processes(struct run *run)
{
    for (int i = 0; i < BOXES; i++)
        for (int k = 0; k < run->m.now[i].n; k++) {
            const struct mrecord *r = &run->m.now[i].records[k];
            bool dead = !r->place && world_is_dead(r->pid);
            if (!r->place && dead != (r->dead || run->m.now[i].boot != run->m.boot))
                return trouble(run, "box %s: process %d is %s", model_boxes[i], r->pid,
                               dead ? "dead" : "alive");
        }
    return true;
}

/* ---- what the journal says ---- */

static const char *found_name(enum verdict v)
{
    static const char *const names[] = {
        [IS_GONE] = "gone",       [IS_OURS] = "present",    [IS_ANOTHER] = "foreign",
        [IS_REFUSED] = "foreign", [IS_WAITING] = "foreign", [IS_BUSY] = "busy"};
    return names[v];
}

static bool check_listed_box(struct run *run, const struct rbxj_result *result, size_t at, int box)
{
    struct model *m = &run->m;
    struct mbox *b = &m->now[box];
    struct rbxj_result_box listed;
    struct rbxj_result_entry entry;
    (void)rbxj_result_box(result, at, &listed);
    bool live = model_is_live(m, b);
    model_look(m, b);
    const char *state = live ? "live" : model_holds(m, b) ? "held" : "stale";
    if (strcmp(listed.state, state) != 0 || listed.incarnation != b->incarnation ||
        listed.entries != (size_t)b->n)
        return trouble(run, "list: box %s is %s with %zu records, should be %s with %d", listed.box,
                       listed.state, listed.entries, state, b->n);
    for (int k = 0; k < b->n; k++) {
        struct mrecord *r = &b->records[k];
        (void)rbxj_result_entry(result, at, (size_t)k, &entry);
        const char *found = !live && model_is_held(m, b, r) ? "busy" : found_name(r->verdict);
        if (entry.seq != r->seq || !entry.evidence != !(r->evidence || !r->place) ||
            strcmp(entry.found, found) != 0)
            return trouble(
                run, "list: box %s, seq %u (%s): %s, evidence %d; should be seq %u, %s, evidence %d: %s",
                listed.box, entry.seq, entry.name, entry.found, entry.evidence, r->seq, found, r->evidence,
                entry.error ? entry.error->message : "");
    }
    return true;
}

static bool check_list(struct run *run)
{
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    struct rbxj_result_box listed;
    bool good = true;
    size_t n = 0;
    int r = rbxj_list(world_options(), NULL, &result, &e);
    if (r < 0)
        return trouble(run, "list: %s", e.message);
    for (int i = 0; i < BOXES && good; i++) {
        size_t at = 0;
        if (!run->m.now[i].there)
            continue;
        n++;
        while (rbxj_result_box(result, at, &listed) == 0 && strcmp(listed.box, model_boxes[i]) != 0)
            at++;
        good = at < rbxj_result_boxes(result) ? check_listed_box(run, result, at, i)
                                              : trouble(run, "list: box %s is lost", model_boxes[i]);
    }
    if (good && n != rbxj_result_boxes(result))
        good = trouble(run, "list: %zu boxes, should be %zu", rbxj_result_boxes(result), n);
    rbxj_result_free(result);
    return good;
}

/* What is aside has another name. */
static const char *stray_of(struct model *m)
{
    const char *stray = world_stray();
    for (EACH_THING(t, m))
        if (stray && t->aside && strstr(stray, "/.rbxj-"))
            return NULL;
    return stray;
}

bool run_check(struct run *run, bool list)
{
    bool good = true;
    world_look();
    for (enum place p = 1; p < PLACES && good; p++)
        good = check_place(run, p);
    if (good && list && stray_of(&run->m))
        good = trouble(run, "%s: is left, or was made", world_stray());
    return good && check_processes(run) && (!list || check_list(run));
}

/* ---- what a replay says ---- */

static bool check_replayed_box(struct run *run, const struct rbxj_result *result, size_t at,
                               const struct mbox *b)
{
    struct rbxj_result_entry entry;
    struct rbxj_result_box box;
    (void)rbxj_result_box(result, at, &box);
    if (box.entries != (size_t)b->n)
        return trouble(run, "replay: box %s has %zu entries, should have %d", box.box, box.entries, b->n);
    for (int k = 0; k < b->n; k++) {
        const struct mrecord *r = &b->records[b->n - 1 - k];
        (void)rbxj_result_entry(result, at, (size_t)k, &entry);
        crash_count(entry.outcome, 1);
        if (entry.seq != r->seq || strcmp(entry.outcome, r->out) != 0)
            return trouble(run, "box %s, seq %u (%s): %s, %s; should be seq %u, %s: %s", box.box, entry.seq,
                           entry.name, entry.found, entry.outcome, r->seq, r->out,
                           entry.error ? entry.error->message : "");
    }
    return true;
}

bool check_replay(struct run *run, const struct rbxj_result *result, unsigned which)
{
    struct rbxj_result_box box;
    bool good = true;
    for (int i = 0; i < BOXES && good; i++) {
        const struct mbox *b = &run->m.now[i];
        size_t at = 0;
        while (rbxj_result_box(result, at, &box) == 0 && strcmp(box.box, model_boxes[i]) != 0)
            at++;
        bool there = at < rbxj_result_boxes(result);
        if (there != !!(which & 1U << i))
            return trouble(run, "replay: box %s was %s", model_boxes[i], there ? "handled" : "left out");
        if (there && strcmp(box.cause, b->cause) != 0)
            return trouble(run, "replay: the cause of box %s is %s instead of %s", box.box, box.cause,
                           b->cause);
        good = !there || check_replayed_box(run, result, at, b);
    }
    return good;
}
