/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Killed at every system call: a supervisor in its life, a reaper at its work, a reaper twice in a row. After
 * each a replay, and nothing is left, and nobody else has noticed.
 */
#include "commands.h"
#include "crash.h"
#include "life.h"
#include "step.h"
#include "unproven.h"

#include "base/cleanup.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

struct what {
    unsigned flags;
    enum life_until until; /* of a supervisor */
    bool alone;            /* its helper children live on */
};

static void supervisor(void *data)
{
    const struct what *what = data;

    life.own = NULL;
    step_on();
    if (life_live("a", what->until) < 0)
        _exit(1);
    step_off();
}

struct strike {
    uint64_t at;
    int how;
};

static int at_the_nth(void *data, const struct step_call *call)
{
    const struct strike *strike = data;

    return call->n == strike->at ? strike->how : STEP_GO;
}

static struct step_end kill_at(void (*run)(void *), const void *data, uint64_t n, bool alone)
{
    struct strike strike = {n, alone ? STEP_KILL_ALONE : STEP_KILL};
    struct step_end end = step_run(run, (void *)(uintptr_t)data, at_the_nth, &strike);

    if (!end.struck && (!WIFEXITED(end.status) || WEXITSTATUS(end.status) != 0))
        fail_msg("what was not killed failed with %#x: %s: %s", end.status, life_told->step,
                 life_told->error.message);
    return end;
}

static void judge_killed(const struct step_end *end)
{
    if (!end->struck)
        crash_past_the_end();
    crash_count("killed", 1);
    life_replay();
    life_judge("killed");
}

static uint64_t count_supervisor(const struct crash_case *c)
{
    const struct what *what = c->data;

    life_open(what->flags);
    struct step_end end = kill_at(supervisor, what, UINT64_MAX, false);
    life_judge("a life that nobody disturbed");
    return end.calls;
}

static void run_supervisor(const struct crash_case *c, uint64_t point)
{
    const struct what *what = c->data;

    life_open(what->flags);
    struct step_end end = kill_at(supervisor, what, point, what->alone);
    judge_killed(&end);
    if (point % 8 == 0 || what->until == LIFE_SHORT)
        life_goes_on();
}

/* rbxj run, at its own calls and those of the child that is to become its command. */
static struct step_end kill_command_at(uint64_t n, bool alone)
{
    struct strike strike = {n, alone ? STEP_KILL_ALONE : STEP_KILL};
    struct step_end end = command_run(at_the_nth, &strike);

    if (!end.struck && (!WIFEXITED(end.status) || WEXITSTATUS(end.status) != 0))
        fail_msg("what was not killed failed with %#x", end.status);
    return end;
}

static uint64_t count_command(const struct crash_case *c)
{
    const struct what *what = c->data;

    life_open(what->flags);
    struct step_end end = kill_command_at(UINT64_MAX, false);
    life_judge("a command that nobody disturbed");
    return end.calls;
}

static void run_command(const struct crash_case *c, uint64_t point)
{
    const struct what *what = c->data;

    life_open(what->flags);
    struct step_end end = kill_command_at(point, what->alone);
    judge_killed(&end);
}

static uint64_t count_hook(const struct crash_case *c)
{
    const struct what *what = c->data;
    struct strike never = {UINT64_MAX, STEP_KILL};

    life_open(what->flags);
    struct step_end end = command_hook(at_the_nth, &never);
    life_judge("a hook that nobody disturbed");
    return end.calls;
}

static void run_hook(const struct crash_case *c, uint64_t point)
{
    const struct what *what = c->data;
    struct strike strike = {point, STEP_KILL};

    life_open(what->flags);
    struct step_end end = command_hook(at_the_nth, &strike);
    judge_killed(&end);
}

static void reaper(void *data)
{
    struct rbxj_result *result = NULL;

    (void)data;
    step_on();
    life_told->result = rbxj_replay(&life.options, &(struct rbxj_replay){0}, &result, &life_told->error);
    step_off();
    if (life_told->result != 0)
        _exit(1);
    rbxj_result_free(result);
}

static uint64_t count_reaper(const struct crash_case *c)
{
    const struct what *what = c->data;

    life_stale(what->flags);
    struct step_end end = kill_at(reaper, NULL, UINT64_MAX, false);
    life_judge("a replay that nobody disturbed");
    return end.calls;
}

static void run_reaper(const struct crash_case *c, uint64_t point)
{
    const struct what *what = c->data;

    life_stale(what->flags);
    struct step_end end = kill_at(reaper, NULL, point, what->alone);
    judge_killed(&end);
}

/* The supervisor was killed at one of the moments of unproven.h. */
static uint64_t count_unproven(const struct crash_case *c)
{
    return count_reaper(c) * UNPROVEN;
}

static void run_unproven(const struct crash_case *c, uint64_t point)
{
    const struct what *what = c->data;

    life_open(what->flags);
    unproven_killed((unsigned)(point % UNPROVEN));
    struct step_end end = kill_at(reaper, NULL, point / UNPROVEN, false);
    if (!end.struck && point % UNPROVEN == UNPROVEN - 1) /* of which there is the most to undo */
        crash_past_the_end();
    crash_count("killed", end.struck);
    life_replay();
    life_judge("killed");
}

#define SECONDS_FOR_EACH 16 /* kills of the second reaper for each of the first */

static uint64_t count_twice(const struct crash_case *c)
{
    return count_reaper(c) * SECONDS_FOR_EACH;
}

/* The second comes to fewer calls the more the first has done: it is struck at a random one, or not at
 * all. */
static void run_twice(const struct crash_case *c, uint64_t point)
{
    const struct what *what = c->data;
    uint64_t first = point / SECONDS_FOR_EACH, random = point;

    life_stale(what->flags);
    struct step_end end = kill_at(reaper, NULL, first, false);
    if (!end.struck)
        crash_past_the_end();
    uint64_t second = crash_random(&random) % (end.calls + 500);
    end = kill_at(reaper, NULL, second, false);
    crash_count("killed", 1 + end.struck);
    life_replay();
    life_judge("killed twice");
}

int main(int argc, char **argv)
{
    static const struct what volatile_life = {.flags = LIFE_BYSTANDER},
                             persistent_life = {.flags = LIFE_BYSTANDER | LIFE_PERSISTENT},
                             alone = {.flags = LIFE_BYSTANDER, .alone = true},
                             first = {.flags = LIFE_PERSISTENT, .until = LIFE_SHORT},
                             workers = {.flags = LIFE_BYSTANDER | LIFE_TWO_JOBS};
    static const struct crash_case cases[] = {
        CRASH_CASE("supervisor-volatile", supervisor, &volatile_life),
        CRASH_CASE("supervisor-persistent", supervisor, &persistent_life),
        CRASH_CASE("supervisor-alone", supervisor, &alone),
        CRASH_CASE("first-opener", supervisor, &first),
        CRASH_CASE("command", command, &alone),
        CRASH_CASE("hook", hook, &persistent_life),
        CRASH_CASE("reaper-volatile", reaper, &volatile_life),
        CRASH_CASE("reaper-persistent", reaper, &persistent_life),
        CRASH_CASE("reaper-unproven", unproven, &volatile_life),
        CRASH_CASE("reaper-twice", twice, &persistent_life),
        CRASH_CASE("reaper-workers", reaper, &workers),
    };

    return crash_main(argc, argv, 40, cases, ARRAY_LEN(cases));
}
