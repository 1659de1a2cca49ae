/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A reaper that was told that a living supervisor is dead takes its box, while that one acquires. Nothing is
 * left of which there is no record, and nothing that the reaper has taken over is touched (I4, I6, K11).
 */
#include "reaper/handle.h"
#include "spawn_fixture.h"

#include <pthread.h>
#include <sys/syscall.h>

static void (*before_making)(void);

/* In the instant after the library looked, and before it makes something. */
static void do_before_making(void)
{
    void (*run)(void) = before_making;
    before_making = NULL;
    if (run)
        run();
}

int mkdirat(int dirfd, const char *path, mode_t mode)
{
    do_before_making();
    return (int)syscall(SYS_mkdirat, dirfd, path, mode);
}

int flock(int fd, int operation)
{
    do_before_making();
    return (int)syscall(SYS_flock, fd, operation);
}

int unlinkat(int dirfd, const char *path, int flags)
{
    do_before_making();
    return (int)syscall(SYS_unlinkat, dirfd, path, flags);
}

static uint64_t incarnation;

/* It found nothing there. */
static void reap(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        const uint32_t seq = 1;
        struct rbxj_error e = {0};
        struct rbxj *own = open_here();
        must_do(journal_claim(own->journal, incarnation, &e), &e);
        must_do(journal_settle(own->journal, incarnation, &seq, 1, SETTLE_END, &e), &e);
        rbxj_close(own);
        _exit(0);
    }
    harness_track(pid);
    assert_int_equal(0, harness_wait(pid));
}

static int ready[2];

/* It goes on to live, and has the box. */
static void claim(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct rbxj_error e = {0};
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct rbxj *own = open_here();
        must_do(journal_claim(own->journal, incarnation, &e), &e);
        must(write(ready[1], "", 1) == 1);
        for (;;)
            pause();
    }
    char byte;
    harness_track(pid);
    (void)close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        fail_msg("the claimer: %s", told->error);
    (void)close(ready[0]);
}

static void begin_one(enum part part)
{
    world_open();
    struct rbxj_resource resource = part_resource("a", part);
    struct rbxj_box box = {.name = "a", .plan = &resource, .plan_len = 1};
    assert_int_equal(0, pipe2(ready, O_CLOEXEC));
    if (rbxj_open(&world.options, &handle, &error) < 0 || rbxj_begin(handle, &box, &incarnation, &error) < 0)
        fail_msg("%s", error.message);
}

static void fails_and_leaves_nothing(enum part part, int code)
{
    int fd = -1;
    assert_int_equal(-code, rbxj_acquire(handle, "a", 1, NULL, &fd, &error));
    assert_int_equal(-1, fd);
    assert_null(before_making);
    assert_false(path_exists(part_path("a", part)));
    assert_string_equal("", error.detail);
}

static void i4_i6_what_was_reaped_while_it_was_made_is_taken_back(void **state)
{
    (void)state;
    begin_one(TMPDIR);
    before_making = reap;
    fails_and_leaves_nothing(TMPDIR, RBXJ_E_NO_SUCH_BOX);
}

static void i4_i6_a_cgroup_that_was_reaped_while_it_was_made_is_taken_back(void **state)
{
    (void)state;
    begin_one(GROUP);
    before_making = reap;
    fails_and_leaves_nothing(GROUP, RBXJ_E_NO_SUCH_BOX);
}

static void i4_i6_a_lock_that_was_reaped_while_it_was_taken_is_given_back(void **state)
{
    (void)state;
    begin_one(LOCK);
    before_making = reap;
    fails_and_leaves_nothing(LOCK, RBXJ_E_NO_SUCH_BOX);
}

static void k11_what_was_claimed_while_it_was_made_is_taken_back(void **state)
{
    (void)state;
    begin_one(TMPDIR);
    before_making = claim;
    fails_and_leaves_nothing(TMPDIR, RBXJ_E_BOX_STALE);
}

static void made(void)
{
}

static void k11_nothing_is_made_in_a_box_that_is_claimed(void **state)
{
    (void)state;
    begin_one(TMPDIR);
    claim();
    before_making = made;
    assert_int_equal(-RBXJ_E_BOX_STALE, rbxj_acquire(handle, "a", 1, NULL, NULL, &error));
    assert_true(before_making == made);
    before_making = NULL;
    /* nor is it taken for evidence what the supervisor made itself */
    harness_mkdir(part_path("a", TMPDIR));
    assert_int_equal(-RBXJ_E_BOX_STALE, rbxj_acquired(handle, "a", 1, &error));
}

/* ---- another thread of the supervisor, as one that gives a box up for which it has waited too long ---- */

/* From here on it does not look at what is recorded again (teardown_own.c). */
static void claim_in_this_process(void)
{
    struct rbxj_error e = {0};
    if (journal_claim(handle->journal, incarnation, &e) < 0)
        fail_msg("claim: %s", e.message);
}

static void is_acquired_after_that(enum part part)
{
    int fd = -1;
    journal_unclaim(handle->journal, incarnation);
    if (rbxj_acquire(handle, "a", 1, NULL, &fd, &error) < 0)
        fail_msg("acquire: %s", error.message);
    cleanup_closep(&fd);
    assert_true(path_exists(part_path("a", part)));
    undo_and_end("a");
}

static void i6_what_is_made_while_another_thread_undoes_is_taken_back(void **state)
{
    (void)state;
    begin_one(TMPDIR);
    before_making = claim_in_this_process;
    fails_and_leaves_nothing(TMPDIR, RBXJ_E_BUSY);
    is_acquired_after_that(TMPDIR);
}

static void i6_a_lock_that_is_taken_while_another_thread_undoes_is_given_back(void **state)
{
    (void)state;
    begin_one(LOCK);
    before_making = claim_in_this_process;
    fails_and_leaves_nothing(LOCK, RBXJ_E_BUSY);
    is_acquired_after_that(LOCK);
}

static void k11_nothing_is_made_in_a_box_that_another_thread_undoes(void **state)
{
    (void)state;
    begin_one(TMPDIR);
    claim_in_this_process();
    before_making = made;
    assert_int_equal(-RBXJ_E_BUSY, rbxj_acquire(handle, "a", 1, NULL, NULL, &error));
    assert_true(before_making == made);
    before_making = NULL;
    assert_int_equal(mkdir(part_path("a", TMPDIR), 0700), 0);
    assert_int_equal(-RBXJ_E_BUSY, rbxj_acquired(handle, "a", 1, &error));
    assert_int_equal(rmdir(part_path("a", TMPDIR)), 0);
    is_acquired_after_that(TMPDIR);
}

static void undo_at_once(void)
{
    struct rbxj_error e = {0};
    assert_int_equal(-RBXJ_E_BUSY, rbxj_undo(handle, "a", NULL, &e));
    assert_non_null(strstr(e.message, "undone by another thread"));
    assert_int_equal(-RBXJ_E_BUSY, journal_check_unclaimed(handle->journal, incarnation, &e)); /* still */
}

/* The first to end would give the box back, and what is acquired then the other one has looked at already. */
static void i6_one_thread_undoes_a_box_at_a_time(void **state)
{
    (void)state;
    begin_one(TMPDIR);
    for (int i = 0; i < 2; i++) {
        uint32_t seq = 0;
        struct rbxj_resource resource = part_resource("a", TMPDIR);
        int r = i ? rbxj_take(handle, "a", &resource, &seq, NULL, &error)
                  : rbxj_acquire(handle, "a", 1, NULL, NULL, &error);
        if (r < 0)
            fail_msg("%s", error.message);
        before_making = undo_at_once;
        if (rbxj_undo(handle, "a", NULL, &error) < 0)
            fail_msg("undo: %s", error.message);
        assert_null(before_making);
        assert_false(path_exists(part_path("a", TMPDIR)));
    }
    undo_and_end("a");
}

/* ---- a thread that is cancelled (pthread_cancel(3)) ---- */

static void cancel_here(void)
{
    assert_int_equal(pthread_cancel(pthread_self()), 0);
    pthread_testcancel();
}

static void *acquire_and_undo(void *data)
{
    int *called = data;
    before_making = cancel_here;
    called[0] = rbxj_acquire(handle, "a", 1, NULL, NULL, &error);
    before_making = cancel_here;
    called[1] = rbxj_undo(handle, "a", NULL, &error);
    called[2] = rbxj_end(handle, "a", &error);
    pthread_testcancel();
    return NULL;
}

/* With the locks of a call in its hands it would keep all others from theirs. */
static void a_thread_is_cancelled_after_the_call(void **state)
{
    (void)state;
    pthread_t thread;
    void *ended = NULL;
    int called[3] = {-1, -1, -1};
    begin_one(TMPDIR);
    assert_int_equal(pthread_create(&thread, NULL, acquire_and_undo, called), 0);
    assert_int_equal(pthread_join(thread, &ended), 0);
    assert_ptr_equal(ended, PTHREAD_CANCELED);
    for (size_t i = 0; i < ARRAY_LEN(called); i++)
        assert_int_equal(called[i], 0);
    assert_false(path_exists(part_path("a", TMPDIR)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        spawn_test(i4_i6_what_was_reaped_while_it_was_made_is_taken_back),
        spawn_test(i4_i6_a_cgroup_that_was_reaped_while_it_was_made_is_taken_back),
        spawn_test(i4_i6_a_lock_that_was_reaped_while_it_was_taken_is_given_back),
        spawn_test(k11_what_was_claimed_while_it_was_made_is_taken_back),
        spawn_test(k11_nothing_is_made_in_a_box_that_is_claimed),
        spawn_test(i6_what_is_made_while_another_thread_undoes_is_taken_back),
        spawn_test(i6_a_lock_that_is_taken_while_another_thread_undoes_is_given_back),
        spawn_test(k11_nothing_is_made_in_a_box_that_another_thread_undoes),
        spawn_test(i6_one_thread_undoes_a_box_at_a_time),
        spawn_test(a_thread_is_cancelled_after_the_call),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
