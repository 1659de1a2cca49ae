/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the tests of rbxj_spawn() and rbxj_take() share: one handle, closed at the end of each test.
 */
#ifndef RBXJ_TESTS_SPAWN_FIXTURE_H
#define RBXJ_TESTS_SPAWN_FIXTURE_H

#include "replay_fixture.h"

static struct rbxj *handle;
static struct rbxj_error error;

static const char *const run_true[] __attribute__((unused)) = {"true", NULL};

static inline void begin(const char *box, const struct rbxj_resource *plan, size_t len)
{
    struct rbxj_box b = {.name = box, .plan = plan, .plan_len = len};
    if (rbxj_begin(handle, &b, NULL, &error) < 0)
        fail_msg("begin: %s", error.message);
}

static inline void open_with(const char *box)
{
    world_open();
    if (rbxj_open(&world.options, &handle, &error) < 0)
        fail_msg("open: %s", error.message);
    begin(box, NULL, 0);
}

static inline void undo_and_end(const char *box)
{
    if (rbxj_undo(handle, box, NULL, &error) < 0 || rbxj_end(handle, box, &error) < 0)
        fail_msg("undo, end: %s (%s)", error.message, error.detail);
}

static inline int close_handle(void **state)
{
    rbxj_close(handle);
    handle = NULL;
    return harness_teardown(state);
}

#define spawn_test(f) cmocka_unit_test_setup_teardown(f, harness_setup, close_handle)

/* How many records the box has, of that kind or (NULL) of any. */
static inline size_t records(const char *box, const char *kind)
{
    struct rbxj_result *result = NULL;
    struct rbxj_result_entry entry;
    size_t n = 0;
    if (rbxj_list(&world.options, box, &result, &error) < 0)
        fail_msg("list: %s", error.message);
    for (size_t k = 0; rbxj_result_entry(result, 0, k, &entry) == 0; k++)
        n += !kind || strcmp(entry.kind, kind) == 0;
    rbxj_result_free(result);
    return n;
}

static inline int spawn(const struct rbxj_spawn *how, pid_t *pid)
{
    return rbxj_spawn(handle, "a", how, pid, NULL, NULL, &error);
}

static inline int exit_status(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* Nothing is left of a start that failed: no record, no child. */
static inline void nothing_is_left(void)
{
    siginfo_t info = {0};
    assert_int_equal(records("a", NULL), 0);
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid)
        fail_msg("pid %d was not reaped", info.si_pid);
}

static inline void take_that_fails(struct rbxj_resource r, int code)
{
    int fd = -7;
    uint32_t seq = 77;
    int rc = rbxj_take(handle, "a", &r, &seq, &fd, &error);
    if (rc != code)
        fail_msg("take of %s: %d, not %d: %s", r.path, rc, code, error.message);
    assert_true(fd == -7 && seq == 77); /* untouched */
    nothing_is_left();
}

#endif
