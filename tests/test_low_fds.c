/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A daemon that has closed its standard input, output and error, and journals its boxes: its next message to
 * standard error goes nowhere, and not into the journal, nor into the lock of a box. And one that forks, or
 * closes what it did not open: what then has the number of a descriptor of the journal is its own. (I9, and
 * K7: who has a lock has the box.)
 */
#include "journal_fixture.h"

#include <stdlib.h>
#include <sys/wait.h>

/* 0, or the number of what went wrong. */
static int live_without_low_descriptors(const struct rbxj_options *options, const char *lock)
{
    struct rbxj *handle;
    struct rbxj_resource plan = {.kind = RBXJ_LOCK, .path = lock};
    struct rbxj_box box = {.name = "a", .plan = &plan, .plan_len = 1};
    int held = -1;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        (void)close(fd);
    if (rbxj_open(options, &handle, NULL) < 0)
        return 1;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (write(fd, "message\n", 8) >= 0 || errno != EBADF)
            return 2;
    if (rbxj_begin(handle, &box, NULL, NULL) < 0 || rbxj_acquire(handle, "a", 1, NULL, &held, NULL) < 0)
        return 3;
    if (held <= STDERR_FILENO)
        return 4;
    if (rbxj_undo(handle, "a", NULL, NULL) < 0 || rbxj_end(handle, "a", NULL) < 0)
        return 5;
    rbxj_close(handle);
    return 0;
}

static void what_stays_open_has_no_low_number(void **state)
{
    (void)state;
    int status;
    struct place p = place_make();
    struct rbxj_options options = {.state_dir = p.state, .runtime_dir = p.runtime};
    const char *lock = harness_format("%s/lock", p.lost);
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(live_without_low_descriptors(&options, lock));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* Where all was closed from without the journal: 0, or the number of what went wrong. */
static int close_after_all_was_closed(struct rbxj *handle)
{
    enum { FIRST = 3, LAST = 16 };
    if (close_range(FIRST, ~0U, 0) < 0)
        return 1;
    for (int fd = FIRST; fd <= LAST; fd++)
        if (open("/dev/null", O_RDONLY) != fd)
            return 2;
    rbxj_close(handle);
    for (int fd = FIRST; fd <= LAST; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            return 3;
    return 0;
}

static void a_child_that_closes_its_copy_closes_nothing_of_its_own(void **state)
{
    (void)state;
    int status;
    struct place p = place_make();
    struct rbxj_options options = {.state_dir = p.state, .runtime_dir = p.runtime};
    struct rbxj_error e = {0};
    struct rbxj *handle;
    assert_ok(rbxj_open(&options, &handle, &e), e);
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(close_after_all_was_closed(handle));
    rbxj_close(handle);
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_process_that_closed_its_handles_descriptors_keeps_its_own(void **state)
{
    (void)state;
    int status;
    struct place p = place_make();
    struct rbxj_options options = {.state_dir = p.state, .runtime_dir = p.runtime};
    struct rbxj *handle;
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(rbxj_open(&options, &handle, NULL) < 0 ? 9 : close_after_all_was_closed(handle));
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(what_stays_open_has_no_low_number),
        journal_test(a_child_that_closes_its_copy_closes_nothing_of_its_own),
        journal_test(a_process_that_closed_its_handles_descriptors_keeps_its_own),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
