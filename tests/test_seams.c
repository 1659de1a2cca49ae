/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Where records meet: one inside another, a box and a stranger who would act for it, a reaper who sees other
 * mounts than the supervisor did. On real objects, through the public API (I3, K2, K4, K7, K8, K10, K13, K16,
 * K25, K35); test_seams2.c has who acts at the same time.
 */
#include "seams_fixture.h"

#include "journal/internal.h"
#include "reaper/quarantine.h"

#include <linux/capability.h>
#include <linux/fuse.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>

#include "hung_fuse.h"

/* ---- one inside another ---- */

static void k2_refused_inside_protects_the_older_directory(void **state)
{
    (void)state;
    world_open();
    const char *outer = in_work("T"), *lock = in_work("T/lock"), *sub = in_work("T/sub");
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = outer},
            (struct rbxj_resource){.kind = RBXJ_LOCK, .path = lock},
            (struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = sub});
    crash_with_plan("a");
    assert_int_equal(rename(lock, in_work("our-lock")), 0);
    assert_int_equal(rename(sub, in_work("our-sub")), 0);
    harness_write(lock, "of somebody else");
    harness_mkdir(sub);
    harness_write(in_work("T/sub/precious"), "data");
    char *before = machine();
    const char *expected = "a 3 foreign refused\na 2 foreign refused\na 1 present skipped\n";
    replay_tells(&(struct rbxj_replay){.dry_run = 1}, 1, expected);
    replay_tells(&(struct rbxj_replay){0}, 1, expected);
    is_as_before(before, "refused inside");
    assert_string_equal(harness_read(in_work("T/sub/precious")), "data");

    struct rbxj_error e = {0}; /* the way out */
    assert_int_equal(rbxj_forget(&world.options, "a", 3, "of somebody else", &e), 0);
    assert_int_equal(rbxj_forget(&world.options, "a", 2, "of somebody else", &e), 0);
    replay_is_clean(1);
    assert_false(path_exists(outer));
}

static void k13_below_a_covered_mount_is_skipped(void **state)
{
    (void)state;
    world_open();
    harness_mkdir(in_work("m"));
    plan_is(
        (struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("older")},
        (struct rbxj_resource){.kind = RBXJ_MOUNT, .path = in_work("m"), .fstype = "tmpfs", .source = "x"},
        (struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("m/lock")});
    crash_with_plan("a");
    assert_int_equal(mount("stranger", in_work("m"), "tmpfs", 0, "size=1m"), 0);
    char said[100];
    struct rbxj_result *result = replay_how(&(struct rbxj_replay){.dry_run = 1}, 1);
    tell(result, said, sizeof(said));
    rbxj_result_free(result);
    assert_ptr_equal(strstr(said, "a 3 busy skipped\na 2 busy failed\n"), said);
    replay_tells(&(struct rbxj_replay){0}, 1, "a 3 busy skipped\na 2 busy failed\na 1 present skipped\n");
    assert_true(path_exists(in_work("older"))); /* it may be in use by the mount */
    assert_int_equal(harness_mounts_below(in_work("m")), 2);
    assert_int_equal(umount2(in_work("m"), UMOUNT_NOFOLLOW), 0);
    assert_true(path_exists(in_work("m/lock")));
    replay_tells(&(struct rbxj_replay){0}, 0, "a 3 present undone\na 2 present undone\na 1 present undone\n");
    assert_int_equal(harness_mounts_below(in_work("m")), 0);
}

/* The first try at that place was never mounted; the second one was, by a supervisor that dies before it can
 * tell. */
static void run_second_try(const char *box, unsigned int parts)
{
    struct rbxj *handle = begin_plan_here(box);
    struct rbxj_error e = {0};
    uint32_t seq = 0;
    char source[64];
    (void)parts;
    must_do(rbxj_intend(handle, box, &plan[0], &seq, &e), &e);
    (void)snprintf(source, sizeof(source), "rbxj:%" PRIu64 ":%u", told->incarnation, seq);
    must(mount(source, plan[0].path, "tmpfs", 0, "size=1m") == 0);
    die();
}

static void k13_where_an_earlier_try_was_never_mounted(void **state)
{
    (void)state;
    world_open();
    const char *m = in_work("m");
    plan_is((struct rbxj_resource){.kind = RBXJ_MOUNT, .path = m, .fstype = "tmpfs", .source = "x"});
    harness_mkdir(m);
    (void)supervisor_fork(run_second_try, "a", 0);
    assert_int_equal(harness_mounts_below(m), 1);
    replay_tells(&(struct rbxj_replay){0}, 0, "a 2 present undone\na 1 gone already_gone\n");
    assert_int_equal(harness_mounts_below(m), 0);
}

static void d7_k13_below_a_tmpdir_that_a_symlink_leads_to(void **state)
{
    (void)state;
    world_open();
    harness_mkdir(in_work("real"));
    assert_int_equal(symlink("real", in_work("link")), 0);
    char *before = machine();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("link/x")},
            (struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("link/x/y")});
    crash_with_plan("a");
    assert_true(path_exists(in_work("real/x/y")));
    struct rbxj_result *result = replay_how(&(struct rbxj_replay){.dry_run = 1}, 0);
    assert_string_equal(entry_of(result, "lock").name, in_work("real/x/y"));
    rbxj_result_free(result);
    replay_tells(&(struct rbxj_replay){0}, 0, "a 2 present undone\na 1 present undone\n");
    is_as_before(before, "behind a symlink");
}

/* ---- who may act for a box ---- */

static void i3_nobody_else_tears_a_live_box_down(void **state)
{
    (void)state;
    struct rbxj *handle = NULL;
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    struct rbxj_resource resource = {.kind = RBXJ_TMPDIR};
    uint32_t seq = 0;
    int fd = -1;
    world_open();
    resource.path = in_work("more");
    pid_t pid = supervisor_start("b", ALL, LIVES);
    pid_t payload = told->payload;
    char *before = machine();
    assert_int_equal(rbxj_open(&world.options, &handle, &e), 0);
    assert_int_equal(rbxj_undo(handle, "b", &result, &e), -RBXJ_E_BOX_LIVE);
    assert_null(result);
    assert_non_null(strstr(e.message, harness_format("%d", pid)));
    assert_int_equal(rbxj_intend(handle, "b", &resource, &seq, &e), -RBXJ_E_BOX_LIVE);
    assert_int_equal(rbxj_acquired(handle, "b", 1, &e), -RBXJ_E_BOX_LIVE);
    assert_int_equal(rbxj_acquire(handle, "b", 1, NULL, &fd, &e), -RBXJ_E_BOX_LIVE);
    assert_int_equal(rbxj_released(handle, "b", 1, &e), -RBXJ_E_BOX_LIVE);
    assert_int_equal(rbxj_end(handle, "b", &e), -RBXJ_E_BOX_LIVE);
    is_as_before(before, "a live box");
    assert_false(is_dead(pid) || is_dead(payload));
    assert_string_equal(state_of("b"), "live");
    harness_kill(pid);
    e = (struct rbxj_error){0};
    assert_int_equal(rbxj_undo(handle, "b", NULL, &e), -RBXJ_E_BOX_STALE); /* that is the reaper's */
    is_as_before(before, "a dead box");
    rbxj_close(handle);
    replay_is_clean(1);
}

/* Begun for another process: the handle that began it acts for it, and no other does. */
static void i3_k8_who_began_it_for_another_acts_for_it(void **state)
{
    (void)state;
    struct rbxj *handle = NULL;
    struct rbxj_error e = {0};
    world_open();
    struct rbxj_resource resource = {.kind = RBXJ_TMPDIR, .path = in_work("t")};
    struct rbxj_box box = {.name = "a", .supervisor = harness_spawn(NULL), .plan = &resource, .plan_len = 1};
    assert_int_equal(rbxj_open(&world.options, &handle, &e), 0);
    assert_int_equal(rbxj_begin(handle, &box, NULL, &e), 0);
    assert_int_equal(rbxj_acquire(handle, "a", 1, NULL, NULL, &e), 0);
    rbxj_close(handle);
    assert_int_equal(rbxj_open(&world.options, &handle, &e), 0);
    assert_int_equal(rbxj_undo(handle, "a", NULL, &e), -RBXJ_E_BOX_LIVE);
    assert_true(path_exists(resource.path));
    rbxj_close(handle);
    harness_kill(box.supervisor);
    replay_is_clean(1);
    assert_false(path_exists(resource.path));
}

static void k4_nothing_begins_inside_a_dead_box(void **state)
{
    (void)state;
    struct rbxj *handle = NULL;
    struct rbxj_error e = {0};
    world_open();
    (void)supervisor_start("a", 1U << TMPDIR, AFTER_EVIDENCE);
    struct rbxj_resource resource = {.kind = RBXJ_TMPDIR, .path = in_work("inner")};
    struct rbxj_box box = {.name = "c", .parent = "a", .plan = &resource, .plan_len = 1};
    assert_int_equal(rbxj_open(&world.options, &handle, &e), 0);
    assert_int_equal(rbxj_begin(handle, &box, NULL, &e), -RBXJ_E_BOX_STALE);
    rbxj_close(handle);
    assert_null(state_of("c"));
    replay_is_clean(1);
}

/* ---- who holds a lock ---- */

/* Taken by the flock alone, of a file that was there; a child outside of the box gets the descriptor. */
static void run_flock_only(const char *box, unsigned int parts)
{
    struct rbxj *handle = begin_plan_here(box);
    struct rbxj_error e = {0};
    (void)parts;
    told->lock_fd = open(plan[0].path, O_RDWR | O_CLOEXEC);
    must(told->lock_fd >= 0 && flock(told->lock_fd, LOCK_EX | LOCK_NB) == 0);
    must_do(rbxj_acquired(handle, box, 1, &e), &e);
    keeper_here(NULL);
    die();
}

static void unchanged_lock_that_is_held(const char *content, bool stamped)
{
    const char *path = in_work("present");
    harness_write(path, content);
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = path});
    (void)supervisor_fork(run_flock_only, "a", 0);
    pid_t keeper = told->payload;
    if (!stamped)
        (void)removexattr(path, "trusted.rbxj");
    char *before = machine();
    struct rbxj_result *result = replay_how(&(struct rbxj_replay){.dry_run = 1}, 1);
    rbxj_result_free(result);
    assert_string_equal(state_of("a"), "held");
    replay_says(1, "lock", "busy", "skipped", harness_format("pid %d", keeper));
    is_as_before(before, "a held lock");
    assert_false(is_dead(keeper));
    assert_string_equal(state_of("a"), "held");
    assert_int_equal(kill(keeper, SIGKILL), 0);
    payload_is_dead();
    replay_is_clean(1);
    assert_string_equal(harness_read(path), content);
    assert_true(getxattr(path, "trusted.rbxj", NULL, 0) < 0); /* as before */
}

static void k7_an_unchanged_lock_that_is_held(void **state)
{
    (void)state;
    world_open();
    unchanged_lock_that_is_held("", true);
    unchanged_lock_that_is_held("", false);
    unchanged_lock_that_is_held("before", false);
}

static void run_pid_file(const char *box, unsigned int parts)
{
    struct rbxj *handle = begin_plan_here(box);
    struct rbxj_error e = {0};
    (void)parts;
    int fd = open(plan[0].path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    must(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0);
    must_do(rbxj_acquired(handle, box, 1, &e), &e);
    must(write(fd, "1234\n", 5) == 5);
    die();
}

static void d6_a_pid_file_is_no_corruption(void **state)
{
    (void)state;
    struct rbxj_result_box box;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("pid")});
    (void)supervisor_fork(run_pid_file, "a", 0);
    struct rbxj_result *result = replay(0);
    assert_int_equal(rbxj_result_box(result, 0, &box), 0);
    assert_string_equal(box.cause, "supervisor_crash");
    rbxj_result_free(result);
    assert_false(path_exists(in_work("pid")));
    assert_false(path_exists(harness_format("%s/evidence", world.state)));
}

/* ---- what the configuration says now ---- */

static void k35_protected_again_at_undo(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("a", 1U << LOCK | 1U << GROUP | 1U << MOUNT | 1U << TMPDIR, AFTER_EVIDENCE);
    const char *conf = harness_format("%s/conf", harness_disk());
    harness_write(conf, harness_format("[paths]\nprotected=%s %s\n", world.work, world.group));
    world.options.config = conf;
    for (int dry = 1; dry >= 0; dry--)
        replay_tells(&(struct rbxj_replay){.dry_run = dry}, 1,
                     "a 4 foreign refused\na 3 present refused\na 2 foreign refused\na 1 foreign refused\n");
    assert_int_equal(harness_mounts_below(part_path("a", MOUNT)), 1);
    assert_true(path_exists(part_path("a", LOCK)) && path_exists(part_path("a", GROUP)));
    assert_true(path_exists(harness_format("%s/deep", part_path("a", TMPDIR))));
    world.options.config = NULL;
    replay_is_clean(1);
    assert_false(path_exists(part_path("a", TMPDIR)));
}

/* ---- what the reaper can see ---- */

static void cover_the_parents(void)
{
    must(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    must(mount(in_work("../cover"), world.work, NULL, MS_BIND, NULL) == 0);
}

/* Then nothing is found by its handle, either. */
static void cover_and_open_no_handles(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];
    cover_the_parents();
    must(syscall(SYS_capget, &head, caps) == 0);
    caps[0].effective &= ~(1U << CAP_DAC_READ_SEARCH);
    caps[0].permitted = caps[0].effective;
    must(syscall(SYS_capset, &head, caps) == 0);
}

static void k10_missing_in_another_namespace_is_not_gone(void **state)
{
    (void)state;
    world_open();
    harness_mkdir(in_work("../cover"));
    harness_mkdir(in_work("dir"));
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("lock")},
            (struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("tmp")},
            (struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("dir/lock")});
    crash_with_plan("a");
    char *before = machine();
    for (int i = 0; i < 4; i++)
        replay_apart_tells(i & 1 ? cover_the_parents : cover_and_open_no_handles, 0,
                           &(struct rbxj_replay){.dry_run = i < 2}, 1,
                           "a 3 foreign refused\na 2 foreign refused\na 1 foreign refused\n");
    is_as_before(before, "not seen from there");
    replay_tells(&(struct rbxj_replay){0}, 0, "a 3 present undone\na 2 present undone\na 1 present undone\n");
}

static void hold_the_journal(const char *box, unsigned int parts)
{
    (void)box;
    (void)parts;
    (void)open_here();
    struct journal *j = journal_of_process(world.state, world.run);
    must(gate_lock(&j->gates->boot, "test", INT64_C(1000000000), NULL) == 0);
}

static void k16_a_dead_file_system_does_not_hang_the_reaper(void **state)
{
    (void)state;
    struct timespec from, to;
    world_open();
    harness_mkdir(in_work("dir"));
    for (int i = 0; i < 2; i++) {
        plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work(i ? "dir/c" : "dir/a")});
        crash_with_plan(i ? "c" : "a");
    }
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("sound")});
    crash_with_plan("b");
    pid_t server = hung_fuse(in_work("../hung"));
    assert_int_equal(mount(in_work("../hung"), in_work("dir"), NULL, MS_MOVE, NULL), 0);
    (void)clock_gettime(CLOCK_MONOTONIC, &from);
    replay_apart_tells(NULL, server, &(struct rbxj_replay){.timeout = 2}, 1,
                       "b 1 present undone\nc 1 busy failed\na 1 busy failed\n");
    (void)clock_gettime(CLOCK_MONOTONIC, &to);
    assert_true(to.tv_sec - from.tv_sec < 4); /* one wait for both, not two */
    assert_non_null(strstr(told->error, "dir/a: its file system does not answer"));
    assert_non_null(strstr(told->error, "dir/c: its file system does not answer"));
    assert_false(path_exists(in_work("sound")));
    harness_kill(server);
    assert_int_equal(umount2(in_work("dir"), MNT_DETACH), 0);
    assert_true(path_exists(in_work("dir/a")) && path_exists(in_work("dir/c")));
    replay_is_clean(2);
}

/* A box elsewhere, on a file system that is to be asked first, too. */
static void k16_one_that_hangs_leaves_the_others_their_time(void **state)
{
    (void)state;
    struct quarantine q;
    world_open();
    struct config config = {.state_dir = harness_format("%s", world.state),
                            .runtime_dir = harness_format("%s", world.run)};
    world.options.config = harness_format("%s/conf", harness_disk());
    harness_write(world.options.config, "[replay]\nboot_deadline=20s\n");
    harness_mkdir(in_work("dir"));
    const char *layers = harness_format("%s/layers", harness_tmpfs());
    harness_mkdir(layers);
    harness_mkdir(in_work("overlay"));
    for (int i = 0; i < 3; i++)
        harness_mkdir(harness_format("%s/%c", layers, 'l' + i));
    if (mount("overlay", in_work("overlay"), "overlay", 0,
              harness_format("lowerdir=%s/l,upperdir=%s/m,workdir=%s/n", layers, layers, layers)) < 0)
        harness_skip("no overlayfs");
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("overlay/lock")});
    crash_with_plan("b");
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("dir/lock")});
    crash_with_plan("a");
    pid_t server = hung_fuse(in_work("../hung"));
    assert_int_equal(mount(in_work("../hung"), in_work("dir"), NULL, MS_MOVE, NULL), 0);
    replay_apart_tells(NULL, server, &(struct rbxj_replay){.boot = 1}, 1,
                       "a 1 busy failed\nb 1 present undone\n");
    assert_non_null(strstr(told->error, "dir/lock: its file system does not answer"));
    assert_int_equal(quarantine_read(&config, &q), 1);
    assert_true(q.there && q.reason == QUARANTINE_CLEANUP_FAILURE);
    assert_non_null(strstr(q.detail, "box a: hung at boot"));
    harness_kill(server);
    assert_int_equal(umount2(in_work("dir"), MNT_DETACH), 0);
    replay_is_clean(1);
}

/* One that has the journal for good costs a replay one timeout, not one for each box (K25). */
static void k25_a_busy_journal_costs_one_wait(void **state)
{
    (void)state;
    struct timespec from, to;
    struct rbxj_result_info info;
    world_open();
    for (char box[] = "a"; box[0] < 'h'; box[0]++) {
        plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work(box)});
        crash_with_plan(harness_format("%s", box));
    }
    world.options.config = harness_format("%s/conf", harness_disk());
    harness_write(world.options.config, "[journal]\ngate_timeout=2s\n");
    pid_t holder = supervisor_fork(hold_the_journal, "", 0);
    (void)clock_gettime(CLOCK_MONOTONIC, &from);
    struct rbxj_result *result = replay(1);
    (void)clock_gettime(CLOCK_MONOTONIC, &to);
    rbxj_result_info(result, &info);
    assert_int_equal(info.boxes, 7);
    assert_int_equal(info.left, 7);
    rbxj_result_free(result);
    assert_true(to.tv_sec - from.tv_sec < 12);
    harness_kill(holder);
    replay_is_clean(7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k2_refused_inside_protects_the_older_directory),
        harness_test(i3_nobody_else_tears_a_live_box_down),
        harness_test(i3_k8_who_began_it_for_another_acts_for_it),
        harness_test(k7_an_unchanged_lock_that_is_held),
        harness_test(k10_missing_in_another_namespace_is_not_gone),
        harness_test(k13_below_a_covered_mount_is_skipped),
        harness_test(k13_where_an_earlier_try_was_never_mounted),
        harness_test(k35_protected_again_at_undo),
        harness_test(k16_a_dead_file_system_does_not_hang_the_reaper),
        harness_test(k16_one_that_hangs_leaves_the_others_their_time),
        harness_test(k25_a_busy_journal_costs_one_wait),
        harness_test(k4_nothing_begins_inside_a_dead_box),
        harness_test(d6_a_pid_file_is_no_corruption),
        harness_test(d7_k13_below_a_tmpdir_that_a_symlink_leads_to),
    };
    cmocka_set_test_filter(getenv("RBXJ_TEST_ONLY"));
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
