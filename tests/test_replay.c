/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Crash and replay, through the public API on real objects: a supervisor or a reaper is killed, a replay
 * follows, and the machine is as before (I1, I3 to I6, I8, K1, K16, K17, K34). What is to be undone in a
 * hostile or changed world is in changed.sh.
 *
 * RBXJ_TEST_EVERY=1 kills at every system call instead of a sample; RBXJ_TEST_ONLY=name (with * and ?) runs
 * only that.
 */
#include "replay_fixture.h"

#include <pthread.h>
#include <sys/syscall.h>

/* ---- killed at each moment ---- */

/* What K1 leaves: an empty lock file that nothing proves ours. */
static void remove_empty_lock(const char *box)
{
    struct stat st;
    if (lstat(part_path(box, LOCK), &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0)
        assert_int_equal(unlink(part_path(box, LOCK)), 0);
}

static void each_kind_killed_after(enum moment moment)
{
    world_open();
    pid_t neighbour = supervisor_start("b", ALL, LIVES);
    pid_t neighbours_payload = told->payload;
    for (enum part part = 0; part <= PROCESS; part++) {
        unsigned int parts = 1U << part | (part == INNER ? 1U << MOUNT : 0);
        if (!possible(1U << part))
            continue;
        make_target("a", parts);
        char *before = machine();
        told->payload = 0;
        (void)supervisor_start("a", parts, moment);
        bool acquired = strcmp(machine(), before) != 0;
        assert_true(acquired == (moment != AFTER_INTENT && part != PROCESS));
        replay_is_clean(1);
        if (part == LOCK && moment == AFTER_ACQUISITION) {
            assert_true(path_exists(part_path("a", LOCK)));
            remove_empty_lock("a");
        }
        is_as_before(before, "%s after %s", part_names[part], moment_names[moment]);
        if (told->payload)
            payload_is_dead();
    }
    assert_false(is_dead(neighbour) || is_dead(neighbours_payload));
}

static void i1_i4_killed_after_the_intent(void **state)
{
    (void)state;
    each_kind_killed_after(AFTER_INTENT);
}

static void k1_killed_after_the_acquisition(void **state)
{
    (void)state;
    each_kind_killed_after(AFTER_ACQUISITION);
}

static void i3_i6_killed_after_the_evidence(void **state)
{
    (void)state;
    each_kind_killed_after(AFTER_EVIDENCE);
}

/* ---- killed at each system call ---- */

static unsigned long stride_of(unsigned long calls, unsigned long samples)
{
    return getenv("RBXJ_TEST_EVERY") || calls < samples ? 1 : calls / samples;
}

static void run_acquire(const char *box, unsigned int parts)
{
    struct rbxj *handle = open_here();
    begin_here(handle, box, parts);
    start_counting();
    acquire_here(handle, box, parts);
    stop_counting();
}

static void i1_k1_killed_inside_acquire(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("b", ALL, LIVES);
    make_target("a", ALL);
    char *before = machine();
    unsigned long calls = kill_at(ULONG_MAX, run_acquire, "a", ALL);
    replay_is_clean(1);
    is_as_before(before, "all acquired");
    assert_true(calls > 50);
    for (unsigned long n = 0; n < calls; n += stride_of(calls, 20)) {
        (void)kill_at(n, run_acquire, "a", ALL);
        replay_is_clean(1);
        remove_empty_lock("a");
        is_as_before(before, "acquire killed at call %lu of %lu", n, calls);
    }
}

static void run_replay(const char *box, unsigned int parts)
{
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    (void)box;
    (void)parts;
    start_counting();
    told->result = rbxj_replay(&world.options, &(struct rbxj_replay){0}, &result, &e);
    must_do(told->result, &e);
    rbxj_result_free(result);
    stop_counting();
}

static void i5_reaper_killed_at_each_call(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("b", ALL, LIVES);
    make_target("a", ALL);
    char *before = machine();
    (void)supervisor_start("a", ALL, AFTER_EVIDENCE);
    unsigned long calls = kill_at(ULONG_MAX, run_replay, "a", ALL);
    assert_int_equal(told->result, 0);
    is_as_before(before, "a traced replay");
    assert_true(calls > 100);
    for (unsigned long n = 0; n < calls; n += stride_of(calls, 25)) {
        (void)supervisor_start("a", ALL, AFTER_EVIDENCE);
        (void)kill_at(n, run_replay, "a", ALL);
        bool unfinished = state_of("a");
        replay_is_clean(unfinished);
        is_as_before(before, "reaper killed at call %lu of %lu", n, calls);
        payload_is_dead();
    }
}

/* Two boxes, undone at once by two threads. */
static void i5_reaper_killed_in_its_threads(void **state)
{
    (void)state;
    unsigned long calls = 400;
    world_open();
    make_target("a", ALL);
    make_target("c", ALL);
    harness_write(harness_format("%s/conf", harness_disk()), "[replay]\njobs=2\n");
    world.options.config = harness_format("%s/conf", harness_disk());
    char *before = machine();
    for (unsigned long n = 0; n <= calls; n += stride_of(calls, 12)) {
        (void)supervisor_start("a", ALL, AFTER_EVIDENCE);
        (void)supervisor_start("c", ALL, AFTER_EVIDENCE);
        unsigned long done = kill_at(n ? n : ULONG_MAX, run_replay, "", 0);
        if (n == 0)
            calls = done;
        bool a = state_of("a"), c = state_of("c");
        assert_true(n > 0 || !(a || c));
        replay_is_clean((size_t)a + c);
        is_as_before(before, "reaper with threads killed at call %lu of %lu", n, calls);
    }
}

static void run_undo(const char *box, unsigned int parts)
{
    struct rbxj *handle = open_here();
    struct rbxj_error e = {0};
    take_all_here(handle, box, parts);
    start_counting();
    must_do(rbxj_undo(handle, box, NULL, &e), &e);
    must_do(rbxj_end(handle, box, &e), &e);
    stop_counting();
}

static void i5_i8_supervisor_killed_in_its_teardown(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("b", ALL, LIVES);
    make_target("a", ALL);
    char *before = machine();
    unsigned long calls = kill_at(ULONG_MAX, run_undo, "a", ALL);
    is_as_before(before, "a traced teardown");
    assert_null(state_of("a"));
    for (unsigned long n = 0; n < calls; n += stride_of(calls, 15)) {
        (void)kill_at(n, run_undo, "a", ALL);
        bool unfinished = state_of("a");
        replay_is_clean(unfinished);
        is_as_before(before, "teardown killed at call %lu of %lu", n, calls);
        payload_is_dead();
    }
}

/* ---- the reaper itself ---- */

/* One box kills the reaper each time: the other one, which is older, gets its turn all the same. */
static void k34_box_that_kills_the_reaper_goes_last(void **state)
{
    (void)state;
    world_open();
    world.options.config = harness_format("%s/conf", harness_disk()); /* one box after the other */
    (void)supervisor_start("a", 1U << LOCK, AFTER_EVIDENCE);
    (void)supervisor_start("c", 1U << TMPDIR, AFTER_EVIDENCE); /* newest: first */
    die_of(SYS_renameat2, 3, run_replay);                      /* what only c's undo does */
    assert_null(state_of("a"));
    assert_non_null(state_of("c"));
    assert_false(path_exists(part_path("a", LOCK)));
    struct rbxj_result_box box;
    struct rbxj_result *result = replay(0);
    assert_int_equal(rbxj_result_box(result, 0, &box), 0);
    bool told_so = strcmp(box.cause, "cleanup_failure") == 0;
    rbxj_result_free(result);
    assert_true(told_so); /* two attempts in a row that did not end */
    replay_is_clean(0);
}

static uint32_t failures_in_a_row(void)
{
    struct rbxj_health health = {0};
    struct rbxj_error e = {0};
    if (rbxj_health(&world.options, &health, &e) < 0)
        fail_msg("health: %s", e.message);
    return health.failed_cleanup_count;
}

/* A refusal is no failed replay; that two reapers died of the box is one. */
static void k34_two_attempts_that_never_ended_are_one_failure(void **state)
{
    (void)state;
    world_open();
    world.options.config = harness_format("%s/conf", harness_disk());
    (void)supervisor_start("c", 1U << TMPDIR, AFTER_EVIDENCE);
    die_of(SYS_renameat2, 2, run_replay);
    const char *path = part_path("c", TMPDIR);
    assert_int_equal(system(harness_format("rm -r %s", path)), 0);
    harness_mkdir(path); /* another one */
    harness_write(harness_format("%s/precious", path), "data");
    assert_int_equal(failures_in_a_row(), 0);
    rbxj_result_free(replay(1));
    assert_int_equal(failures_in_a_row(), 1);
    rbxj_result_free(replay(1)); /* this one came to its end */
    assert_int_equal(failures_in_a_row(), 0);
}

static void only_the_named_box(void **state)
{
    (void)state;
    const char *const named[] = {"c"};
    world_open();
    for (const char *const *box = (const char *const[]){"a", "c", "d", NULL}; *box; box++)
        (void)supervisor_start(*box, 1U << TMPDIR, AFTER_EVIDENCE);
    struct rbxj_result *result = replay_how(&(struct rbxj_replay){.boxes = named, .boxes_len = 1}, 0);
    assert_int_equal(rbxj_result_boxes(result), 1);
    rbxj_result_free(result);
    assert_null(state_of("c"));
    assert_true(path_exists(part_path("a", TMPDIR)) && path_exists(part_path("d", TMPDIR)));
    assert_false(path_exists(part_path("c", TMPDIR)));
    replay_is_clean(2);
}

static void times_that_make_no_sense(void **state)
{
    (void)state;
    const double times[] = {__builtin_nan(""), __builtin_inf(), -__builtin_inf(), -1, 1e7};
    world_open();
    for (size_t i = 0; i < ARRAY_LEN(times); i++)
        rbxj_result_free(replay_how(&(struct rbxj_replay){.timeout = times[i]}, -RBXJ_E_BAD_REQUEST));
}

/* Before anybody is killed. */
static void a_reset_that_makes_no_sense_is_none(void **state)
{
    (void)state;
    const struct rbxj_replay hows[] = {{.timeout = 1e7},
                                       {.timeout = __builtin_nan("")},
                                       {.lazy_umount = 7},
                                       {.assume_dead = 1},
                                       {.dry_run = 1}};
    struct rbxj_health health;
    struct rbxj_error e;
    uint32_t killed = 7;
    world_open();
    pid_t supervisor = supervisor_start("a", 1U << LOCK, LIVES);
    for (size_t i = 0; i < ARRAY_LEN(hows); i++) {
        int r = rbxj_reset(&world.options, &hows[i], &killed, NULL, &health, &e);
        assert_int_equal(r, -RBXJ_E_BAD_REQUEST);
        assert_int_equal(killed, 0);
        assert_false(is_dead(supervisor));
        assert_int_equal(rbxj_health(&world.options, &health, &e), 0);
        assert_null(health.quarantine_reason);
    }
}

/* It looks, and then sets or ends a quarantine. */
static void a_recovery_is_no_dry_run(void **state)
{
    (void)state;
    struct rbxj_health health;
    struct rbxj_error e;
    world_open();
    int r = rbxj_recover(&world.options, &(struct rbxj_replay){.dry_run = 1}, NULL, &health, &e);
    assert_int_equal(r, -RBXJ_E_BAD_REQUEST);
    assert_int_equal(rbxj_recover(&world.options, NULL, NULL, &health, &e), 0);
}

static void wait_in_progress(void *data, size_t done, size_t total)
{
    (void)done;
    (void)total;
    must(write(*(int *)data, "r", 1) == 1);
    for (;;)
        pause();
}

static void k16_second_reaper_is_told(void **state)
{
    (void)state;
    int ready[2];
    char byte;
    struct rbxj_error e = {0};
    struct rbxj_result *result = NULL;
    world_open();
    world.options.config = harness_format("%s/conf", harness_disk()); /* one box after the other */
    (void)supervisor_start("a", 1U << TMPDIR, AFTER_EVIDENCE);
    (void)supervisor_start("c", 1U << TMPDIR, AFTER_EVIDENCE);
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct rbxj_replay how = {.progress = wait_in_progress, .progress_data = &ready[1]};
        (void)rbxj_replay(&world.options, &how, &result, &e);
        _exit(0);
    }
    harness_track(pid);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(rbxj_replay(&world.options, &(struct rbxj_replay){0}, &result, &e), -RBXJ_E_BUSY);
    assert_non_null(strstr(e.message, harness_format("pid %d", pid)));
    harness_kill(pid);
    (void)close(ready[0]);
    (void)close(ready[1]);
    replay_is_clean(2); /* what was undone is dropped when all are */
}

/* Killed after the rename: the path is free, and what is aside is found by its name (K17). */
static void k17_killed_after_the_rename_aside(void **state)
{
    (void)state;
    world_open();
    char *before = machine();
    (void)supervisor_start("a", 1U << TMPDIR, AFTER_EVIDENCE);
    for (unsigned long n = 0; path_exists(part_path("a", TMPDIR)); n++)
        (void)kill_at(n, run_replay, "", 0);
    assert_string_not_equal(machine(), before); /* it is aside */
    harness_mkdir(part_path("a", TMPDIR));      /* and somebody takes the free path */
    harness_write(harness_format("%s/precious", part_path("a", TMPDIR)), "data");
    replay_is_clean(1);
    assert_true(path_exists(harness_format("%s/precious", part_path("a", TMPDIR))));
    assert_int_equal(unlink(harness_format("%s/precious", part_path("a", TMPDIR))), 0);
    assert_int_equal(rmdir(part_path("a", TMPDIR)), 0);
    is_as_before(before, "killed after the rename");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(i1_i4_killed_after_the_intent),
        harness_test(k1_killed_after_the_acquisition),
        harness_test(i3_i6_killed_after_the_evidence),
        harness_test(i1_k1_killed_inside_acquire),
        harness_test(i5_reaper_killed_at_each_call),
        harness_test(i5_reaper_killed_in_its_threads),
        harness_test(i5_i8_supervisor_killed_in_its_teardown),
        harness_test(k34_box_that_kills_the_reaper_goes_last),
        harness_test(k34_two_attempts_that_never_ended_are_one_failure),
        harness_test(only_the_named_box),
        harness_test(times_that_make_no_sense),
        harness_test(a_reset_that_makes_no_sense_is_none),
        harness_test(a_recovery_is_no_dry_run),
        harness_test(k16_second_reaper_is_told),
        harness_test(k17_killed_after_the_rename_aside),
    };
    cmocka_set_test_filter(getenv("RBXJ_TEST_ONLY"));
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
