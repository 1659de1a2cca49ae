/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What could not be taken back because the journal was busy is taken back later (leftover.c; K1, K11, K22,
 * I4).
 */
#include "gate_fixture.h"
#include "reaper/handle.h"
#include "spawn_fixture.h"

#include <sys/resource.h>
#include <sys/syscall.h>

static volatile int *again;

/* Begins when it is told to: held up, as often as the test wants that, and then at once. */
static void run_begins(int said, int asked)
{
    struct rbxj_error e = {0};
    struct rbxj_resource dir = part_resource("a", TMPDIR);
    struct rbxj_box box = {.name = "a", .plan = &dir, .plan_len = 1};
    handle = open_here();
    do {
        tell(said);
        hear(asked);
        told->result = rbxj_begin(handle, &box, NULL, &e);
        tell(said);
        hear(asked);
    } while (*again);
    must_do(rbxj_begin(handle, &box, NULL, &e), &e);
    must_do(rbxj_end(handle, "a", &e) == -RBXJ_E_LEFT ? 0 : -RBXJ_E_IO, &e);
    must_do(rbxj_undo(handle, "a", NULL, &e), &e);
    must_do(rbxj_end(handle, "a", &e), &e);
    tell(said);
}

/* The gate of the disk first, so that it waits for its commit; and that of the boot journal when its entry is
 * there. */
static void hold_both(struct gate_page *gates, int asked)
{
    assert_int_equal(0, gate_lock(&gates->disk, "test", 10000000000, NULL));
    tell(asked);
    for (int i = 0; i < 30000 && !state_of("a"); i++)
        (void)usleep(1000);
    assert_int_equal(0, gate_lock(&gates->boot, "test", 10000000000, NULL));
}

/* The entry is in the boot journal, the commit waits, and the withdrawal can't be written. The gates are held
 * until the supervisor has given up. */
static void k22_a_begin_is_withdrawn_later(void **state)
{
    (void)state;
    int said[2], asked[2];
    world_open_with_gate_timeout("2s");
    again = mmap(NULL, sizeof(*again), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(again != MAP_FAILED);
    assert_int_equal(0, pipe2(said, O_CLOEXEC));
    assert_int_equal(0, pipe2(asked, O_CLOEXEC));
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_begins(said[1], asked[0]);
        for (;;)
            pause();
    }
    harness_track(pid);
    (void)close(said[1]);
    heard(said[0]);
    struct gate_page *gates = map_gate();
    bool stays = false;
    for (int i = 0; i < 10 && !stays; i++) {
        if (i > 0) { /* it gave up before the test had the second gate, and withdrew it */
            tell(asked[1]);
            heard(said[0]);
        }
        hold_both(gates, asked[1]);
        heard(said[0]);
        assert_int_equal(-RBXJ_E_JOURNAL_BUSY, told->result);
        stays = state_of("a") != NULL; /* live, by nobody who knows of it */
        gate_pass(&gates->disk);
        gate_unlock(&gates->boot);
        *again = !stays;
    }
    assert_true(stays);
    (void)munmap(gates, sizeof(*gates));
    tell(asked[1]);
    heard(said[0]);
    assert_null(state_of("a"));
    (void)munmap((void *)(uintptr_t)again, sizeof(*again));
    (void)close(said[0]);
    (void)close(asked[0]);
    (void)close(asked[1]);
}

/* ---- claims ---- */

static int ask_holder, holder_says;

/* A process that takes the gate when it is asked, and gives it back when it is asked again. */
static void start_holder(void)
{
    int said[2], asked[2];
    assert_int_equal(0, pipe2(said, O_CLOEXEC));
    assert_int_equal(0, pipe2(asked, O_CLOEXEC));
    struct gate_page *gates = map_gate();
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        hear(asked[0]);
        must(gate_lock(&gates->boot, "test", 30000000000, NULL) == 0);
        tell(said[1]);
        hear(asked[0]);
        gate_unlock(&gates->boot);
        tell(said[1]);
        for (;;)
            pause();
    }
    harness_track(pid);
    (void)close(said[1]);
    (void)close(asked[0]);
    (void)munmap(gates, sizeof(*gates));
    ask_holder = asked[1];
    holder_says = said[0];
}

/* Between the undoing and the giving back. */
static void make_busy(void *data, size_t done, size_t total)
{
    (void)data;
    if (done == total) {
        tell(ask_holder);
        heard(holder_says);
    }
}

static void k11_a_claim_is_given_back_later(void **state)
{
    (void)state;
    world_open_with_gate_timeout("2s");
    if (rbxj_open(&world.options, &handle, &error) < 0)
        fail_msg("open: %s", error.message);
    (void)supervisor_start("a", 1U << TMPDIR, AFTER_EVIDENCE);
    char *path = harness_format("%s", part_path("a", TMPDIR)), *inside = harness_format("%s/inside", path);
    harness_mkdir(inside); /* another one's mount in it: it stays, and so the box is given back */
    assert_int_equal(0, mount("rbxj-test", inside, "tmpfs", 0, NULL));
    start_holder();
    struct rbxj_result *result = replay_how(&(struct rbxj_replay){.progress = make_busy}, 1);
    rbxj_result_free(result);
    tell(ask_holder);
    heard(holder_says);
    assert_int_equal(0, umount2(inside, MNT_DETACH));
    begin("b", NULL, 0); /* which this process, that lives on, does some day */
    pid_t pid = fork();
    if (pid == 0) {
        struct rbxj_error e = {0};
        struct rbxj_result *r = NULL;
        int rc = rbxj_replay(&world.options, &(struct rbxj_replay){0}, &r, &e);
        must_do(rc, &e);
        _exit(rc);
    }
    harness_track(pid);
    assert_int_equal(0, harness_wait(pid));
    assert_null(state_of("a"));
    assert_false(path_exists(path));
    (void)close(ask_holder);
    (void)close(holder_says);
}

/* ---- what was taken by somebody else ---- */

static bool at_mkdir;

/* Somebody is faster, and then has the journal. */
int mkdirat(int dirfd, const char *name, mode_t mode)
{
    if (at_mkdir) {
        at_mkdir = false;
        (void)syscall(SYS_mkdirat, dirfd, name, mode);
        tell(ask_holder);
        heard(holder_says);
    }
    return (int)syscall(SYS_mkdirat, dirfd, name, mode);
}

/* Its intent is withdrawn at the latest before the box is undone, which would take what is there for its
 * own. */
static void i4_an_intent_of_nothing_is_not_undone(void **state)
{
    (void)state;
    world_open_with_gate_timeout("1s");
    if (rbxj_open(&world.options, &handle, &error) < 0)
        fail_msg("open: %s", error.message);
    begin("a", NULL, 0);
    start_holder();
    struct rbxj_resource dir = part_resource("a", TMPDIR);
    at_mkdir = true;
    assert_int_equal(-RBXJ_E_EXISTS, rbxj_take(handle, "a", &dir, NULL, NULL, &error));
    assert_int_equal(1, records("a", NULL));
    assert_int_equal(-RBXJ_E_JOURNAL_BUSY, rbxj_undo(handle, "a", NULL, &error));
    tell(ask_holder);
    heard(holder_says);
    undo_and_end("a");
    assert_true(path_exists(dir.path));
    (void)close(ask_holder);
    (void)close(holder_says);
}

/* Nor one that stays: that what is there is another's is known at the latest by then. */
static void k1_what_was_found_there_is_not_undone(void **state)
{
    (void)state;
    world_open_with_gate_timeout("1s");
    if (rbxj_open(&world.options, &handle, &error) < 0)
        fail_msg("open: %s", error.message);
    struct rbxj_resource dir = part_resource("a", TMPDIR);
    begin("a", &dir, 1);
    start_holder();
    at_mkdir = true;
    assert_int_equal(-RBXJ_E_EXISTS, rbxj_acquire(handle, "a", 1, NULL, NULL, &error));
    assert_int_equal(-RBXJ_E_JOURNAL_BUSY, rbxj_undo(handle, "a", NULL, &error));
    tell(ask_holder);
    heard(holder_says);
    undo_and_end("a");
    assert_true(path_exists(dir.path));
    (void)close(ask_holder);
    (void)close(holder_says);
}

/* ---- boxes of others ---- */

/* It begins boxes for others, who die; replays end them. */
static void a_handle_forgets_boxes_that_have_ended(void **state)
{
    (void)state;
    world_open();
    if (rbxj_open(&world.options, &handle, &error) < 0)
        fail_msg("open: %s", error.message);
    pid_t lives = harness_spawn(NULL);
    struct rbxj_box box = {.name = "lives", .supervisor = lives};
    assert_int_equal(0, rbxj_begin(handle, &box, NULL, &error));
    for (int i = 0; i < 60; i++) {
        box.name = harness_format("b%d", i);
        box.supervisor = harness_spawn(NULL);
        assert_int_equal(0, rbxj_begin(handle, &box, NULL, &error));
        harness_kill(box.supervisor);
        if (i % 10 == 9)
            rbxj_result_free(replay(0));
    }
    if (handle->begun_len > 30)
        fail_msg("it remembers %zu of 2", handle->begun_len);
    undo_and_end("lives"); /* for that one it still acts */
}

/* Without a descriptor for its pidfd nobody knows whether its supervisor lives: nothing is done on that
 * (I3). */
static void k8_want_of_descriptors_is_no_answer(void **state)
{
    (void)state;
    struct rlimit before, none;
    world_open();
    if (rbxj_open(&world.options, &handle, &error) < 0)
        fail_msg("open: %s", error.message);
    struct rbxj_box box = {.name = "a", .supervisor = harness_spawn(NULL)};
    assert_int_equal(0, rbxj_begin(handle, &box, NULL, &error));
    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &before));
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &none));
    int r = rbxj_end(handle, "a", &error);
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &before));
    assert_int_equal(-RBXJ_E_IO, r);
    assert_non_null(strstr(error.message, "Too many open files"));
    assert_int_equal(0, rbxj_end(handle, "a", &error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        spawn_test(k22_a_begin_is_withdrawn_later),         spawn_test(k11_a_claim_is_given_back_later),
        spawn_test(i4_an_intent_of_nothing_is_not_undone),  spawn_test(k1_what_was_found_there_is_not_undone),
        spawn_test(a_handle_forgets_boxes_that_have_ended), spawn_test(k8_want_of_descriptors_is_no_answer),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
