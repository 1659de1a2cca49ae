/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For test_seams*.c: a box with a plan of the test's own, and what a replay says of all boxes as one text.
 *
 *     plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")}, ...);
 *     crash_with_plan("a");
 *     replay_tells(&(struct rbxj_replay){0}, 0, "a 1 present undone\n");
 */
#ifndef RBXJ_TESTS_SEAMS_FIXTURE_H
#define RBXJ_TESTS_SEAMS_FIXTURE_H

#include "replay_fixture.h"

static struct rbxj_resource plan[8];
static size_t plan_len;

#define plan_is(...)                                                                                         \
    do {                                                                                                     \
        const struct rbxj_resource is_[] = {__VA_ARGS__};                                                    \
        memcpy(plan, is_, sizeof(is_));                                                                      \
        plan_len = ARRAY_LEN(is_);                                                                           \
    } while (0)

static inline char *in_work(const char *name)
{
    return harness_format("%s/%s", world.work, name);
}

/* ---- in the supervisor ---- */

static inline struct rbxj *begin_plan_here(const char *box)
{
    struct rbxj *handle = open_here();
    struct rbxj_box b = {.name = box, .plan = plan, .plan_len = plan_len};
    struct rbxj_error e = {0};
    uint64_t incarnation;
    must_do(rbxj_begin(handle, &b, &incarnation, &e), &e);
    told->incarnation = incarnation;
    return handle;
}

static inline struct rbxj *take_plan_here(const char *box)
{
    struct rbxj *handle = begin_plan_here(box);
    struct rbxj_error e = {0};
    for (uint32_t seq = 1; seq <= plan_len; seq++) {
        int fd = -1;
        must_do(rbxj_acquire(handle, box, seq, NULL, &fd, &e), &e);
        if (fd >= 0)
            told->lock_fd = fd;
    }
    return handle;
}

static inline void run_plan_and_die(const char *box, unsigned int parts)
{
    (void)parts;
    (void)take_plan_here(box);
    die();
}

static inline void run_plan_and_live(const char *box, unsigned int parts)
{
    (void)parts;
    (void)take_plan_here(box);
}

/* A child that has the lock's descriptor and nothing else, in that cgroup or outside of the box. */
static inline void keeper_here(const char *group)
{
    pid_t pid = fork();
    if (pid == 0) {
        (void)dup2(told->lock_fd, 3);
        (void)close_range(4, ~0U, 0);
        for (;;)
            pause();
    }
    must(pid > 0);
    told->payload = pid;
    if (group) {
        char procs[PATH_MAX + 16], text[16];
        (void)snprintf(procs, sizeof(procs), "%s/cgroup.procs", group);
        (void)snprintf(text, sizeof(text), "%d", pid);
        write_to(procs, text);
    }
    (void)usleep(20000);
}

/* ---- from the test ---- */

static inline void crash_with_plan(const char *box)
{
    (void)supervisor_fork(run_plan_and_die, box, 0);
}

/* "box seq found outcome" in a line each, in the order undone. */
static inline void tell(const struct rbxj_result *result, char *text, size_t size)
{
    struct rbxj_result_box box;
    struct rbxj_result_entry entry;
    size_t len = 0;
    text[0] = 0;
    for (size_t i = 0; rbxj_result_box(result, i, &box) == 0; i++)
        for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0 && len < size; k++)
            len += (size_t)snprintf(text + len, size - len, "%s %u %s %s\n", box.box, entry.seq, entry.found,
                                    entry.outcome);
}

static inline void replay_tells(const struct rbxj_replay *how, int expected, const char *text)
{
    char said[1000];
    struct rbxj_result *result = replay_how(how, expected);
    tell(result, said, sizeof(said));
    rbxj_result_free(result);
    assert_string_equal(said, text);
}

/* In the child: what it said goes to told->error, with the errors' texts behind it. */
static inline void replay_here(const struct rbxj_replay *how)
{
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    struct rbxj_result_entry entry;
    char said[sizeof(told->error)];
    told->result = rbxj_replay(&world.options, how, &result, &e);
    must_do(told->result, &e);
    tell(result, said, sizeof(said));
    size_t len = strlen(said);
    for (size_t i = 0; i < rbxj_result_boxes(result); i++)
        for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0 && len < sizeof(said); k++)
            if (entry.error)
                len += (size_t)snprintf(said + len, sizeof(said) - len, "%s\n", entry.error->message);
    memcpy(told->error, said, sizeof(said));
    rbxj_result_free(result);
}

/* A replay in a process of its own, which first does prepare(), and has 10 seconds; if it hangs, only the
 * death of that server (or 0) frees it. */
static inline void replay_apart_tells(void (*prepare)(void), pid_t server, const struct rbxj_replay *how,
                                      int expected, const char *text)
{
    told->error[0] = 0;
    told->result = -1;
    pid_t pid = fork();
    if (pid == 0) {
        for (int sig = 1; sig < SIGSYS; sig++)
            (void)signal(sig, SIG_DFL); /* it dies of what it does wrong, it does not go on testing */
        if (prepare)
            prepare();
        replay_here(how);
        _exit(0);
    }
    assert_true(pid > 0);
    harness_track(pid);
    for (int i = 0; i < 1000 && !is_dead(pid); i++)
        (void)usleep(10000);
    if (!is_dead(pid)) {
        if (server)
            harness_kill(server);
        fail_msg("the reaper hangs");
    }
    int status = harness_wait(pid);
    if (status || told->result != expected || strncmp(told->error, text, strlen(text)) != 0)
        fail_msg("the replay (status %#x) returned %d, not %d:\n%s", status, told->result, expected,
                 told->error);
}

#endif
