/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Where several act at the same time: a plan and the world after it, two reapers, a reaper and somebody who
 * waits for a lock (K7, K11).
 */
#include "seams_fixture.h"

#include "journal/journal.h"

#include <pthread.h>
#include <sys/syscall.h>

/* ---- plans ---- */

static char *plan_of(const struct rbxj_replay *how)
{
    struct rbxj_result_info info;
    struct rbxj_result *result = replay_how(how, 0);
    rbxj_result_info(result, &info);
    char *id = harness_format("%s", info.plan);
    rbxj_result_free(result);
    return id;
}

static void d1_plan_of_what_is_gone_meanwhile(void **state)
{
    (void)state;
    world_open();
    rbxj_result_free(replay_how(&(struct rbxj_replay){.plan = "0123456789abcdef"}, 1)); /* nothing ever */
    (void)supervisor_start("a", 1U << TMPDIR, AFTER_EVIDENCE);
    const char *plan_id = plan_of(&(struct rbxj_replay){.dry_run = 1});
    assert_true(path_exists(part_path("a", TMPDIR)));
    replay_tells(&(struct rbxj_replay){.plan = plan_id}, 0, "a 1 present undone\n");
    replay_tells(&(struct rbxj_replay){.plan = plan_id}, 1, ""); /* not what was planned */
}

static void a_changed_plan_is_not_done(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("a", 1U << TMPDIR, AFTER_EVIDENCE);
    const char *plan_id = plan_of(&(struct rbxj_replay){.dry_run = 1});
    assert_string_not_equal(plan_id, plan_of(&(struct rbxj_replay){.dry_run = 1, .lazy_umount = 2}));
    (void)supervisor_start("c", 1U << TMPDIR, AFTER_EVIDENCE);
    char *before = machine();
    replay_tells(&(struct rbxj_replay){.plan = plan_id}, 1, "c 1 present skipped\na 1 present skipped\n");
    is_as_before(before, "a plan that has changed");
    replay_is_clean(2);
}

static void run_plan(const char *box, unsigned int parts)
{
    (void)parts;
    (void)take_plan_here(box);
}

static void run_replay(const char *box, unsigned int parts)
{
    (void)box;
    (void)parts;
    replay_here(&(struct rbxj_replay){0});
}

/* Its boxes were claimed before it was known that the plan has changed: this process lives on, and is in
 * nobody's way. */
static void k11_plan_that_is_not_done_gives_its_boxes_back(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("a", 1U << TMPDIR, AFTER_EVIDENCE);
    replay_tells(&(struct rbxj_replay){.plan = "0123456789abcdef"}, 1, "a 1 present skipped\n");
    (void)supervisor_fork(run_replay, "", 0);
    assert_string_equal(told->error, "a 1 present undone\n");
    assert_int_equal(told->result, 0);
}

/* ---- a name that is taken ---- */

/* What stands there is the box's that has the name: the supervisor is told to wait for the reaper, not that
 * there is something that nobody knows of. */
static void k11_taken_name_is_told_before_what_it_made(void **state)
{
    (void)state;
    world_open();
    struct rbxj *handle;
    struct rbxj_error e = {0};
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")},
            (struct rbxj_resource){.kind = RBXJ_CGROUP, .path = part_path("a", GROUP)});
    const struct rbxj_box box = {.name = "a", .plan = plan, .plan_len = plan_len};
    crash_with_plan("a");
    assert_int_equal(rbxj_open(&world.options, &handle, &e), 0);
    assert_int_equal(rbxj_begin(handle, &box, NULL, &e), -RBXJ_E_BOX_STALE);
    assert_non_null(strstr(e.message, "run rbxj replay first"));
    rbxj_close(handle);
    replay_is_clean(1);
    (void)supervisor_fork(run_plan, "a", 0);
    assert_int_equal(rbxj_open(&world.options, &handle, &e), 0);
    assert_int_equal(rbxj_begin(handle, &box, NULL, &e), -RBXJ_E_BOX_LIVE);
    rbxj_close(handle);
}

/* ---- two at the same time ---- */

/* Holds the claim of told->incarnation, as a reaper with another runtime lock or a hook would. */
static void run_claimer(const char *box, unsigned int parts)
{
    struct journal *j = NULL;
    struct rbxj_error e = {0};
    struct journal_options o = {.state_dir = world.state,
                                .runtime_dir = world.run,
                                .map_size = 1 << 30,
                                .preallocate = 4 << 20,
                                .gate_timeout_ns = 1000000000};
    (void)box;
    (void)parts;
    must_do(journal_open(&o, &j, &e), &e);
    must_do(journal_claim(j, told->incarnation, &e), &e);
}

static void d2_k11_box_that_somebody_has_claimed(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("a", 1U << LOCK | 1U << TMPDIR, AFTER_EVIDENCE);
    pid_t claimer = supervisor_fork(run_claimer, "a", 0);
    char *before = machine();
    struct rbxj_result *result = replay_how(&(struct rbxj_replay){0}, 1);
    struct rbxj_result_info info;
    rbxj_result_info(result, &info);
    for (const char *const *kind = (const char *const[]){"lock", "tmpdir", NULL}; *kind; kind++) {
        struct rbxj_result_entry entry = entry_of(result, *kind);
        assert_string_equal(entry.outcome, "skipped");
        assert_non_null(entry.error);
        assert_non_null(strstr(entry.error->message, harness_format("%d", claimer)));
    }
    rbxj_result_free(result);
    assert_int_equal(info.left, 2);
    is_as_before(before, "a claimed box");
    harness_kill(claimer); /* a dead one's claim is void */
    replay_is_clean(1);
}

struct reaping {
    int r;
    struct rbxj_result *result;
    struct rbxj_error e;
    pthread_barrier_t *start;
};

static void *reap(void *data)
{
    struct reaping *it = data;
    (void)pthread_barrier_wait(it->start);
    it->r = rbxj_replay(&world.options, &(struct rbxj_replay){0}, &it->result, &it->e);
    return NULL;
}

/* Each is busy, or whole and right; together they undid what there was, once. */
static void reap_twice(size_t boxes)
{
    pthread_barrier_t start;
    pthread_t threads[2];
    size_t undone = 0;
    assert_int_equal(pthread_barrier_init(&start, NULL, 2), 0);
    struct reaping both[2] = {{.start = &start}, {.start = &start}};
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reap, &both[i]), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    (void)pthread_barrier_destroy(&start);
    for (int i = 0; i < 2; i++) {
        struct rbxj_result_info info = {0};
        if (both[i].r < 0 && both[i].r != -RBXJ_E_BUSY)
            fail_msg("a replay beside another one: %d: %s", both[i].r, both[i].e.message);
        if (both[i].r < 0)
            continue;
        rbxj_result_info(both[i].result, &info);
        rbxj_result_free(both[i].result);
        undone += info.undone;
        if (both[i].r != 0 || info.left || info.failed || info.already_gone || info.undone != info.boxes)
            fail_msg("%d: %zu boxes, %zu undone, %zu gone, %zu failed, %zu left", both[i].r, info.boxes,
                     info.undone, info.already_gone, info.failed, info.left);
    }
    assert_int_equal(undone, boxes);
    replay_is_clean(0);
}

static void crash_three(void)
{
    for (const char *const *box = (const char *const[]){"a", "b", "c", NULL}; *box; box++)
        (void)supervisor_start(*box, 1U << TMPDIR, AFTER_EVIDENCE);
}

static void d3_two_replays_in_threads_of_one_process(void **state)
{
    (void)state;
    struct rbxj_error e = {0};
    struct rbxj *handle = NULL;
    world_open();
    for (int with_handle = 0; with_handle < 2; with_handle++)
        for (int i = 0; i < 10; i++) {
            crash_three();
            if (with_handle)
                assert_int_equal(rbxj_open(&world.options, &handle, &e), 0);
            reap_twice(3);
            rbxj_close(handle);
            handle = NULL;
        }
}

/* ---- who waits ---- */

static void run_payload_with_the_lock(const char *box, unsigned int parts)
{
    (void)parts;
    (void)take_plan_here(box);
    keeper_here(plan[1].path);
    die();
}

/* It has the file open and waits; when it gets the lock, it lets go of it, as K7 asks for. */
static pid_t waiter_start(const char *path)
{
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(path, O_RDWR | O_CLOEXEC);
        (void)flock(fd, LOCK_EX);
        _exit(0);
    }
    assert_true(pid > 0);
    harness_track(pid);
    const char *call = harness_format("/proc/%d/syscall", pid);
    for (int i = 0; i < 3000; i++) { /* /proc/locks does not tell in every pid namespace */
        if (atoi(harness_read(call)) == SYS_flock)
            return pid;
        (void)usleep(10000);
    }
    fail_msg("nobody waits");
    return pid;
}

static void k7_who_merely_waits_does_not_hold_the_box(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("lock")},
            (struct rbxj_resource){.kind = RBXJ_CGROUP, .path = part_path("a", GROUP)});
    (void)supervisor_fork(run_payload_with_the_lock, "a", 0);
    pid_t waiter = waiter_start(plan[0].path);
    assert_string_equal(state_of("a"), "stale");
    replay_tells(&(struct rbxj_replay){.dry_run = 1}, 0, "a 2 present planned\na 1 present planned\n");
    assert_false(is_dead(waiter));
    replay_tells(&(struct rbxj_replay){0}, 0, "a 2 present undone\na 1 present undone\n");
    payload_is_dead();
    assert_false(path_exists(plan[0].path));
    int status = harness_wait(waiter); /* it was left alone */
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void run_leased(const char *box, unsigned int parts)
{
    (void)parts;
    (void)take_plan_here(box);
    must(fcntl(told->lock_fd, F_SETLEASE, F_WRLCK) == 0);
    keeper_here(NULL);
    die();
}

/* A lock that can't be opened may be held by anybody, and is here: nothing of the box is undone. */
static void k7_a_lock_that_is_leased_holds_the_box(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("lock")},
            (struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    (void)supervisor_fork(run_leased, "a", 0);
    for (int dry = 1; dry >= 0; dry--)
        replay_tells(&(struct rbxj_replay){.dry_run = dry}, 1, "a 2 present skipped\na 1 busy failed\n");
    assert_true(path_exists(in_work("T")));
    assert_false(is_dead(told->payload));
    assert_int_equal(kill(told->payload, SIGKILL), 0);
    payload_is_dead();
    replay_is_clean(1);
}

/* A tmpfs of its own, and in it a file, which has the same number in all of them. */
static char *first_file_of(const char *name)
{
    harness_mkdir(in_work(name));
    assert_int_equal(mount(name, in_work(name), "tmpfs", 0, "size=1m"), 0);
    return harness_format("%s/%s/file", world.work, name);
}

static void k7_the_flock_of_another_file_of_that_number(void **state)
{
    (void)state;
    struct stat ours, theirs;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = first_file_of("ours")},
            (struct rbxj_resource){.kind = RBXJ_CGROUP, .path = part_path("a", GROUP)});
    harness_write(plan[0].path, "");
    const char *other = first_file_of("theirs");
    harness_write(other, "");
    int fd = open(other, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0);
    assert_true(stat(plan[0].path, &ours) == 0 && stat(other, &theirs) == 0);
    assert_int_equal(ours.st_ino, theirs.st_ino);
    pid_t stranger = fork();
    if (stranger == 0)
        for (;;)
            pause();
    harness_track(stranger);
    assert_int_equal(close(fd), 0);
    (void)supervisor_fork(run_payload_with_the_lock, "a", 0);
    replay_tells(&(struct rbxj_replay){.dry_run = 1}, 0, "a 2 present planned\na 1 present planned\n");
    replay_tells(&(struct rbxj_replay){0}, 0, "a 2 present undone\na 1 present undone\n");
    payload_is_dead();
    assert_false(is_dead(stranger));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(d1_plan_of_what_is_gone_meanwhile),
        harness_test(a_changed_plan_is_not_done),
        harness_test(k11_plan_that_is_not_done_gives_its_boxes_back),
        harness_test(k11_taken_name_is_told_before_what_it_made),
        harness_test(d2_k11_box_that_somebody_has_claimed),
        harness_test(d3_two_replays_in_threads_of_one_process),
        harness_test(k7_who_merely_waits_does_not_hold_the_box),
        harness_test(k7_a_lock_that_is_leased_holds_the_box),
        harness_test(k7_the_flock_of_another_file_of_that_number),
    };
    cmocka_set_test_filter(getenv("RBXJ_TEST_ONLY"));
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
