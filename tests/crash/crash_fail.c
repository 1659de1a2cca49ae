/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Every system call of a supervisor and of a reaper failing once, with each errno that it can return. Nobody
 * crashes or hangs; what fails says so and names it; nothing is undone that is not ours, nothing that exists
 * is forgotten: a replay afterwards leaves nothing, the bystander is whole, and the worker goes on.
 */
#include "calls.h"
#include "commands.h"
#include "crash.h"
#include "life.h"
#include "step.h"
#include "unproven.h"

#include "base/cleanup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#define SLOW 20 /* seconds: a run takes a fraction of one, and must not wait for what does not come */

/* What the reaper's process tells. */
static struct told {
    char wrong[600]; /* an entry that was taken for somebody else's; empty: none */
} * told;

/* The point-th of all pairs of a call and an errno. */
struct fault {
    uint64_t point, seen;
    int errnum; /* 0: not reached */
    bool of_loader;
    char text[300];
};

static int decide(void *data, const struct step_call *call)
{
    struct fault *fault = data;
    int errnos[CALL_ERRNOS_MAX];
    size_t n = call_errnos(call, errnos);
    uint64_t before = fault->seen;

    fault->seen += n;
    if (fault->point < before || fault->point >= fault->seen)
        return STEP_GO;
    int what = errnos[fault->point - before];
    fault->errnum = what & ~STEP_DONE;
    fault->of_loader = call_is_of_loader(call);
    call_describe(call, fault->text, sizeof(fault->text));
    printf("call %" PRIu64 ": %s: %s\n", call->n, fault->text, strerrorname_np(fault->errnum));
    return what;
}

/* Our own want of something, or an interruption: it says nothing about what is there. */
static bool is_want(int errnum)
{
    return errnum == ENOMEM || errnum == EMFILE || errnum == ENFILE || errnum == EINTR || errnum == EAGAIN;
}

/* Does the error say what was wrong, and not something else about the box and what is there? */
static bool is_honest(int code, int errnum)
{
    if (is_want(errnum))
        return code == errnum || code == RBXJ_E_IO || code == RBXJ_E_LEFT || code == RBXJ_E_BUSY ||
               code == RBXJ_E_JOURNAL_BUSY;
    return code != RBXJ_E_BAD_REQUEST && code != RBXJ_E_NO_SUCH_BOX && code != RBXJ_E_BOX_LIVE &&
           code != RBXJ_E_BOX_STALE && code != RBXJ_E_EXISTS && code != RBXJ_E_FORKED;
}

static void check_error(const struct fault *fault)
{
    const struct rbxj_error *e = &life_told->error;
    const char *step = life_told->step;

    if (life_told->result >= 0)
        return;
    printf("%s: %d: %s (%s)\n", step, life_told->result, e->message, e->detail);
    crash_count("told", 1);
    if (e->code != -life_told->result || !strchr(e->message, ':'))
        fail_msg("%s: returned %d, and its error %d does not name what failed: %s", step, life_told->result,
                 e->code, e->message);
    if (e->code == RBXJ_E_LEFT && !e->detail[0])
        fail_msg("%s: does not say why something is left: %s", step, e->message);
    if (!is_honest(e->code, fault->errnum))
        fail_msg("%s: %s became %s: %s", step, strerrorname_np(fault->errnum), rbxj_strerror(-e->code),
                 e->message);
}

/* Runs it with the fault; fails the test if it crashed, or waited for long. */
static struct fault run_with(void (*run)(void *), const void *data, uint64_t point)
{
    struct fault fault = {.point = point};
    struct timespec from, to;

    if (!told)
        told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(told != MAP_FAILED);
    memset(told, 0, sizeof(*told));
    (void)clock_gettime(CLOCK_MONOTONIC, &from);
    struct step_end end = step_run(run, (void *)(uintptr_t)data, decide, &fault);
    (void)clock_gettime(CLOCK_MONOTONIC, &to);
    if (!WIFEXITED(end.status) || WEXITSTATUS(end.status) != 0)
        fail_msg("%s ended with %#x: %s", life_told->step, end.status, life_told->error.message);
    if (life_told->own_failed)
        fail_msg("a call of the test itself failed in %s", life_told->step);
    if (to.tv_sec - from.tv_sec > SLOW)
        fail_msg("it took %ld seconds", (long)(to.tv_sec - from.tv_sec));
    crash_count("failed", fault.errnum != 0);
    return fault;
}

/* ---- a supervisor ---- */

static void own(bool begins)
{
    if (begins)
        step_off();
    else
        step_on();
}

static void supervisor(void *data)
{
    const enum life_until *until = data;

    life.own = own;
    step_on();
    (void)life_live("a", *until);
    step_off();
}

static uint64_t count_supervisor(const struct crash_case *c)
{
    static const enum life_until whole = LIFE_WHOLE;
    const unsigned *flags = c->data;

    life_open(*flags);
    struct fault fault = run_with(supervisor, &whole, UINT64_MAX);
    assert_int_equal(life_told->result, 0);
    life_judge("a life that nobody disturbed");
    return fault.seen;
}

static void run_supervisor(const struct crash_case *c, uint64_t point)
{
    static const enum life_until whole = LIFE_WHOLE;
    const unsigned *flags = c->data;

    life_open(*flags);
    struct fault fault = run_with(supervisor, &whole, point);
    if (!fault.errnum)
        crash_past_the_end();
    check_error(&fault);
    /* what failed once is done when it is tried again; but where a write of the journal failed it is to be
     * opened anew */
    if (life_told->again < 0 && life_told->again != -RBXJ_E_NO_SUCH_BOX && !strstr(fault.text, "write"))
        fail_msg("the teardown failed again: %d", life_told->again);
    life_replay();
    life_judge("after the failure");
    life_goes_on();
}

/* ---- a reaper ---- */

static void look_for_wrongs(const struct rbxj_result *result)
{
    struct rbxj_result_entry x;

    for (size_t i = 0; i < rbxj_result_boxes(result); i++)
        for (size_t k = 0; rbxj_result_entry(result, i, k, &x) == 0; k++) {
            const char *message = x.error ? x.error->message : "";
            printf("seq %u %s: %s, %s: %s\n", x.seq, x.kind, x.found, x.outcome, message);
            if (strcmp(x.found, "foreign") == 0 || strcmp(x.outcome, "refused") == 0)
                (void)snprintf(told->wrong, sizeof(told->wrong), "seq %u, a %s, is %s and %s: %s", x.seq,
                               x.kind, x.found, x.outcome, message);
        }
}

static void reaper(void *data)
{
    struct rbxj_result *result = NULL;

    (void)data;
    (void)strcpy(life_told->step, "replay");
    step_on();
    life_told->result = rbxj_replay(&life.options, &(struct rbxj_replay){0}, &result, &life_told->error);
    step_off();
    if (result)
        look_for_wrongs(result);
    rbxj_result_free(result);
    (void)fflush(stdout);
}

static uint64_t count_reaper(const struct crash_case *c)
{
    life_stale(*(const unsigned *)c->data);
    struct fault fault = run_with(reaper, NULL, UINT64_MAX);
    assert_int_equal(life_told->result, 0);
    life_judge("a replay that nobody disturbed");
    return fault.seen;
}

static void reap_with(uint64_t point, bool is_last)
{
    (void)fflush(stdout);
    struct fault fault = run_with(reaper, NULL, point);
    if (!fault.errnum && is_last)
        crash_past_the_end();
    check_error(&fault);
    if ((!fault.errnum || is_want(fault.errnum)) && told->wrong[0])
        fail_msg("%s: %s", strerrorname_np(fault.errnum), told->wrong);
    const char *differs = life_told->result == 0 ? life_differs() : NULL;
    if (differs)
        fail_msg("the replay said that nothing is left: %s", differs);
    life_replay();
    life_judge("after the failure");
    if (point % 4 == 0)
        life_goes_on();
}

static void run_reaper(const struct crash_case *c, uint64_t point)
{
    life_stale(*(const unsigned *)c->data);
    reap_with(point, true);
}

/* ---- rbxj run, at its own calls and those of the child that is to become its command ---- */

static uint64_t count_command(const struct crash_case *c)
{
    struct fault fault = {.point = UINT64_MAX};

    life_open(*(const unsigned *)c->data);
    struct step_end end = command_run(decide, &fault);
    assert_true(WIFEXITED(end.status) && WEXITSTATUS(end.status) == 0);
    life_judge("a command that nobody disturbed");
    return fault.seen;
}

static void run_command(const struct crash_case *c, uint64_t point)
{
    struct fault fault = {.point = point};

    life_open(*(const unsigned *)c->data);
    struct step_end end = command_run(decide, &fault);
    if (!fault.errnum)
        crash_past_the_end();
    crash_count("failed", 1);
    printf("status %#x\n", end.status);
    /* glibc's loader dies of SIGSEGV when its first mmap(2) fails (2.36): then nothing of ours has run yet */
    if (!WIFEXITED(end.status) && !fault.of_loader)
        fail_msg("rbxj run ended with %#x", end.status);
    bool good = WIFEXITED(end.status) && WEXITSTATUS(end.status) == 0;
    const char *differs = good ? life_differs() : NULL;
    if (differs)
        fail_msg("rbxj run said that nothing is left: %s", differs);
    life_replay();
    life_judge("after the failure");
    if (point % 4 == 0)
        life_goes_on();
}

/* ---- a reaper of what has no evidence ---- */

static uint64_t count_unproven(const struct crash_case *c)
{
    return count_reaper(c) * UNPROVEN;
}

static void run_unproven(const struct crash_case *c, uint64_t point)
{
    life_open(*(const unsigned *)c->data);
    unproven_killed((unsigned)(point % UNPROVEN));
    (void)fflush(stdout);
    reap_with(point / UNPROVEN, point % UNPROVEN == UNPROVEN - 1); /* of which there is the most to undo */
}

int main(int argc, char **argv)
{
    static const unsigned volatile_life = LIFE_BYSTANDER, persistent_life = LIFE_BYSTANDER | LIFE_PERSISTENT,
                          workers = LIFE_BYSTANDER | LIFE_TWO_JOBS, first = LIFE_PERSISTENT;
    static const struct crash_case cases[] = {
        CRASH_CASE("supervisor-volatile", supervisor, &volatile_life),
        CRASH_CASE("supervisor-persistent", supervisor, &persistent_life),
        CRASH_CASE("first-opener", supervisor, &first),
        CRASH_CASE("command", command, &volatile_life),
        CRASH_CASE("reaper-volatile", reaper, &volatile_life),
        CRASH_CASE("reaper-persistent", reaper, &persistent_life),
        CRASH_CASE("reaper-unproven", unproven, &volatile_life),
        CRASH_CASE("reaper-workers", reaper, &workers),
    };

    return crash_main(argc, argv, 12, cases, ARRAY_LEN(cases));
}
