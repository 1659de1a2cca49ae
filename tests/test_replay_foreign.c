/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Replays in a world that has changed: what is foreign, who lives, who holds a flock, and other boxes (K1,
 * K2, K4, K7, K8).
 */
#include "journal/journal.h"
#include "replay_fixture.h"

#include <pthread.h>
#include <sys/syscall.h>

/* ---- foreign ---- */

static void k2_cgroup_made_anew_is_left(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("a", 1U << GROUP | 1U << LOCK, AFTER_EVIDENCE);
    assert_int_equal(rmdir(part_path("a", GROUP)), 0);
    harness_mkdir(part_path("a", GROUP));
    pid_t stranger = harness_spawn(part_path("a", GROUP));
    replay_says(0, "cgroup", "foreign", "already_gone", NULL);
    assert_true(path_exists(part_path("a", GROUP)) && !is_dead(stranger));
    assert_false(path_exists(part_path("a", LOCK))); /* what is older is undone all the same */
    assert_null(state_of("a"));
}

static void k1_unproven_cgroup_in_use_is_refused(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("a", 1U << GROUP, AFTER_ACQUISITION);
    pid_t stranger = harness_spawn(part_path("a", GROUP));
    replay_says(1, "cgroup", "foreign", "refused", "not proven ours");
    assert_false(is_dead(stranger));
}

static void k1_unproven_tmpdir_with_content_is_refused(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("a", 1U << TMPDIR, AFTER_ACQUISITION);
    harness_write(harness_format("%s/precious", part_path("a", TMPDIR)), "data");
    replay_says(1, "tmpdir", "foreign", "refused", "no evidence");
    assert_true(path_exists(harness_format("%s/precious", part_path("a", TMPDIR))));
}

/* An own source says nothing, neither for us nor against: left, and the record stays. */
static void k1_unproven_mount_is_refused(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("a", 1U << MOUNT, AFTER_INTENT);
    assert_int_equal(mount("rbxj-test", part_path("a", MOUNT), "tmpfs", 0, "size=1m"), 0);
    replay_says(1, "mount", "foreign", "refused", NULL);
    assert_int_equal(harness_mounts_below(part_path("a", MOUNT)), 1);
}

static void k2_mount_of_somebody_else_is_left(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("a", 1U << MOUNT, AFTER_EVIDENCE);
    assert_int_equal(umount2(part_path("a", MOUNT), UMOUNT_NOFOLLOW), 0);
    assert_int_equal(mount("rbxj-test", part_path("a", MOUNT), "tmpfs", 0, "size=1m"), 0);
    replay_says(0, "mount", "foreign", "already_gone", NULL);
    assert_int_equal(harness_mounts_below(part_path("a", MOUNT)), 1);
    assert_null(state_of("a"));
}

static void k13_mount_on_top_is_busy(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("a", 1U << MOUNT | 1U << LOCK, AFTER_EVIDENCE);
    assert_int_equal(mount("stranger", part_path("a", MOUNT), "tmpfs", 0, "size=1m"), 0);
    replay_says(1, "mount", "busy", "failed", "stranger");
    assert_int_equal(harness_mounts_below(part_path("a", MOUNT)), 2);
    assert_true(path_exists(part_path("a", LOCK))); /* what is older may be in use by it */
    assert_int_equal(umount2(part_path("a", MOUNT), UMOUNT_NOFOLLOW), 0);
    replay_is_clean(1);
    assert_int_equal(harness_mounts_below(part_path("a", MOUNT)), 0);
}

/* A child with that very number, by the kernel's own counter; 0: others were faster. */
static pid_t fork_with_pid(pid_t wanted)
{
    for (int i = 0; i < 100; i++) {
        harness_write("/proc/sys/kernel/ns_last_pid", harness_format("%d", wanted - 1));
        pid_t pid = harness_spawn(NULL);
        if (pid == wanted)
            return pid;
        harness_kill(pid);
    }
    return 0;
}

static void k2_k6_reused_pid_is_left(void **state)
{
    (void)state;
    world_open();
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    (void)supervisor_start("a", 1U << PROCESS, AFTER_EVIDENCE);
    pid_t pid = told->payload;
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
    (void)usleep(20000); /* start times are told apart by ticks of 10 ms */
    if (!fork_with_pid(pid))
        harness_skip("pid %d could not be had again", pid);
    replay_says(0, "process", "foreign", "already_gone", NULL);
    assert_false(is_dead(pid));
    assert_null(state_of("a"));
}

static void refused_until_forgotten(enum part part, const char *text)
{
    struct rbxj_error e = {0};
    const char *kind = part == LOCK ? "lock" : "tmpdir";
    char *before = machine();
    replay_says(1, kind, "foreign", "refused", text);
    replay_says(1, kind, "foreign", "refused", text);
    assert_string_equal(state_of("a"), "stale");
    assert_int_equal(rbxj_forget(&world.options, "a", 1, "of somebody else", &e), 0);
    replay_is_clean(state_of("a") != NULL);
    assert_null(state_of("a"));
    is_as_before(before, "%s", kind);
}

/* Of a newer version, which was taken back: refused, and there is a way out (K2). */
static void k2_a_kind_that_is_not_known_can_be_forgotten(void **state)
{
    (void)state;
    struct rbxj *handle;
    struct rbxj_error e = {0};
    struct snapshot_box sb;
    world_open();
    (void)supervisor_start("a", 1U << LOCK, AFTER_EVIDENCE);
    assert_int_equal(rbxj_open(&world.options, &handle, &e), 0);
    struct journal *j = journal_of_process(world.state, world.run);
    assert_int_equal(journal_get(j, "a", &sb, &e), 0);
    sb.records[0].kind = (enum rbxj_kind)99;
    assert_int_equal(journal_update(j, &sb.records[0], false, &e), 0);
    snapshot_box_clear(&sb);
    rbxj_close(handle);
    assert_int_equal(rbxj_forget(&world.options, "a", 1, "of a newer version", &e), 0);
    assert_null(state_of("a"));
}

static void remove_tree(const char *path)
{
    assert_int_equal(system(harness_format("rm -rf '%s'", path)), 0);
}

static void k2_tmpdir_of_somebody_else_is_refused(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("a", 1U << TMPDIR, AFTER_EVIDENCE);
    remove_tree(part_path("a", TMPDIR));
    harness_mkdir(part_path("a", TMPDIR));
    harness_write(harness_format("%s/precious", part_path("a", TMPDIR)), "data");
    refused_until_forgotten(TMPDIR, "another directory");
}

/* cp -a copies stamps, but not what evidence names. */
static void k1_copied_stamp_proves_nothing(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("a", 1U << TMPDIR, AFTER_EVIDENCE);
    assert_int_equal(rename(part_path("a", TMPDIR), harness_format("%s/elsewhere", world.work)), 0);
    assert_int_equal(system(harness_format("cp -a '%s/elsewhere' '%s'", world.work, part_path("a", TMPDIR))),
                     0);
    remove_tree(harness_format("%s/elsewhere", world.work)); /* else it is found there, and undone */
    refused_until_forgotten(TMPDIR, "another directory");
}

static void k2_lock_of_somebody_else_is_refused(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("a", 1U << LOCK, AFTER_EVIDENCE);
    assert_int_equal(rename(part_path("a", LOCK), harness_format("%s/elsewhere", world.work)), 0);
    harness_write(part_path("a", LOCK), "{\"pid\": 1}\n");
    refused_until_forgotten(LOCK, "another file");
}

static void k5_present_lock_gets_its_content_back(void **state)
{
    (void)state;
    struct stat before, after;
    world_open();
    for (enum moment moment = AFTER_INTENT; moment <= AFTER_EVIDENCE; moment += 2) {
        harness_write(part_path("a", LOCK), "before\n\x01\xff");
        assert_int_equal(stat(part_path("a", LOCK), &before), 0);
        (void)supervisor_start("a", 1U << LOCK, moment);
        if (moment == AFTER_EVIDENCE)
            assert_non_null(strstr(harness_read(part_path("a", LOCK)), "\"rbxj\""));
        replay_is_clean(1);
        assert_string_equal(harness_read(part_path("a", LOCK)), "before\n\x01\xff");
        assert_int_equal(stat(part_path("a", LOCK), &after), 0);
        assert_int_equal(before.st_ino, after.st_ino);
    }
}

/* ---- who lives ---- */

static void i3_k11_live_box_is_left_and_its_name_taken(void **state)
{
    (void)state;
    struct rbxj *handle = NULL;
    struct rbxj_error e = {0};
    struct rbxj_box box = {.name = "b"};
    world_open();
    pid_t pid = supervisor_start("b", ALL, LIVES);
    char *before = machine();
    replay_is_clean(0);
    is_as_before(before, "a live box");
    assert_string_equal(state_of("b"), "live");
    assert_int_equal(rbxj_open(&world.options, &handle, &e), 0);
    assert_int_equal(rbxj_begin(handle, &box, NULL, &e), -RBXJ_E_BOX_LIVE);
    harness_kill(pid);
    e = (struct rbxj_error){0};
    assert_int_equal(rbxj_begin(handle, &box, NULL, &e), -RBXJ_E_BOX_STALE);
    assert_non_null(strstr(e.message, "replay"));
    rbxj_close(handle);
    replay_is_clean(1);
}

static void k8_zombie_supervisor_is_dead(void **state)
{
    (void)state;
    siginfo_t info;
    world_open();
    make_target("a", ALL);
    char *before = machine();
    pid_t pid = supervisor_start("a", ALL, LIVES);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(kill(pid, 0), 0); /* it still has its number */
    replay_is_clean(1);
    is_as_before(before, "a zombie's box");
}

static void *outlive_the_leader(void *arg)
{
    while (!is_dead(getpid()))
        (void)usleep(1000);
    ready_here();
    for (;;)
        pause();
    return arg;
}

static void run_without_leader(const char *box, unsigned int parts)
{
    pthread_t thread;
    take_all_here(open_here(), box, parts);
    must(pthread_create(&thread, NULL, outlive_the_leader, NULL) == 0);
    pthread_exit(NULL);
}

static void k8_zombie_leader_with_threads_lives(void **state)
{
    (void)state;
    world_open();
    pid_t pid = supervisor_fork(run_without_leader, "a", 1U << TMPDIR | 1U << LOCK);
    assert_true(is_dead(pid)); /* the leader is */
    char *before = machine();
    replay_is_clean(0);
    is_as_before(before, "a box of a process whose leader is a zombie");
    assert_string_equal(state_of("a"), "live");
    harness_kill(pid);
    replay_is_clean(1);
}

/* ---- inherited flocks ---- */

/* A child that has the lock's descriptor, in the box's cgroup or not. */
static void inherit_lock(const char *box, unsigned int parts)
{
    take_all_here(open_here(), box, parts);
    pid_t pid = fork();
    if (pid == 0) {
        (void)dup2(told->lock_fd, 3);
        (void)close_range(4, ~0U, 0);
        (void)prctl(PR_SET_NAME, "keeper");
        for (;;)
            pause();
    }
    must(pid > 0);
    told->payload = pid;
    if (parts & 1U << GROUP) {
        char procs[PATH_MAX + 16], text[16];
        (void)snprintf(procs, sizeof(procs), "%s/cgroup.procs", part_path(box, GROUP));
        (void)snprintf(text, sizeof(text), "%d", pid);
        write_to(procs, text);
    }
    (void)usleep(20000);
    die();
}

static void k7_stranger_with_the_flock_holds_the_box(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_fork(inherit_lock, "a", 1U << LOCK | 1U << TMPDIR);
    pid_t keeper = told->payload;
    char *before = machine();
    struct rbxj_result *result = replay_how(&(struct rbxj_replay){.dry_run = 1}, 1);
    rbxj_result_free(result);
    replay_says(1, "lock", "busy", "skipped", harness_format("%d", keeper));
    is_as_before(before, "a held box");
    assert_string_equal(state_of("a"), "held");
    assert_false(is_dead(keeper));
    assert_int_equal(kill(keeper, SIGKILL), 0);
    payload_is_dead();
    replay_is_clean(1);
}

static void k7_payload_with_the_flock_is_killed(void **state)
{
    (void)state;
    world_open();
    char *before = machine();
    (void)supervisor_fork(inherit_lock, "a", 1U << LOCK | 1U << TMPDIR | 1U << GROUP);
    assert_string_equal(state_of("a"), "stale");
    replay_is_clean(1);
    is_as_before(before, "a payload with the flock");
    payload_is_dead();
}

/* ---- between boxes ---- */

static int begin_with(const char *box, struct rbxj_resource resource, struct rbxj_error *e)
{
    struct rbxj *handle = NULL;
    struct rbxj_box b = {.name = box, .plan = &resource, .plan_len = 1};
    assert_int_equal(rbxj_open(&world.options, &handle, e), 0);
    int r = rbxj_begin(handle, &b, NULL, e);
    rbxj_close(handle);
    return r;
}

static void k4_overlap_is_refused(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("b", ALL, LIVES);
    const char *tmp = part_path("b", TMPDIR), *alias = harness_format("%s/alias", harness_disk());
    harness_mkdir(alias);
    assert_int_equal(mount(world.work, alias, NULL, MS_BIND, NULL), 0);
    const struct rbxj_resource overlaps[] = {
        {.kind = RBXJ_TMPDIR, .path = harness_format("%s/mine", tmp)},
        {.kind = RBXJ_LOCK, .path = harness_format("%s/mine", tmp)},
        {.kind = RBXJ_LOCK, .path = part_path("b", LOCK)},
        {.kind = RBXJ_CGROUP, .path = harness_format("%s/mine", part_path("b", GROUP))},
        {.kind = RBXJ_MOUNT, .path = part_path("b", MOUNT), .fstype = "tmpfs", .source = "x"},
        {.kind = RBXJ_MOUNT, .path = world.work, .fstype = "tmpfs", .source = "x"},
        {.kind = RBXJ_TMPDIR, .path = harness_format("%s/b.tmp/mine", alias)},
        {.kind = RBXJ_LOCK, .path = harness_format("%s/b.lock", alias)},
    };
    char *before = machine();
    for (size_t i = 0; i < ARRAY_LEN(overlaps); i++) {
        struct rbxj_error e = {0};
        int r = begin_with("a", overlaps[i], &e);
        if (r != -RBXJ_E_EXISTS || !strstr(e.message, "box b"))
            fail_msg("%s: %d: %s", overlaps[i].path, r, e.message);
        assert_null(state_of("a"));
    }
    is_as_before(before, "refused overlaps");
    assert_int_equal(umount2(alias, UMOUNT_NOFOLLOW), 0);
}

/* The bind mount shows the box's directory itself, not one above it. */
static void k4_alias_of_a_box_directory(void **state)
{
    (void)state;
    world_open();
    const char *alias = harness_format("%s/alias", world.work);
    harness_mkdir(alias);
    (void)supervisor_start("b", 1U << TMPDIR, LIVES);
    assert_int_equal(mount(part_path("b", TMPDIR), alias, NULL, MS_BIND, NULL), 0);
    const struct rbxj_resource inside[] = {
        {.kind = RBXJ_TMPDIR, .path = harness_format("%s/mine", alias)},
        {.kind = RBXJ_LOCK, .path = harness_format("%s/mine", alias)},
    };
    for (size_t i = 0; i < ARRAY_LEN(inside); i++) {
        struct rbxj_error e = {0};
        assert_int_equal(begin_with("a", inside[i], &e), -RBXJ_E_EXISTS);
        assert_non_null(strstr(e.message, "box b"));
    }
}

/* Somebody moves a live box's directory into a dead one's. */
static void k4_live_directory_inside_is_busy(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_start("b", 1U << TMPDIR, LIVES);
    (void)supervisor_start("a", 1U << TMPDIR, AFTER_EVIDENCE);
    assert_int_equal(rename(part_path("b", TMPDIR), harness_format("%s/deep/b", part_path("a", TMPDIR))), 0);
    replay_says(1, "tmpdir", "busy", "failed", "box b");
    size_t found = 0;
    for (char *line = strtok(machine(), "\n"); line; line = strtok(NULL, "\n"))
        found += strstr(line, "/b/deep/a") || strstr(line, "/b/link");
    assert_int_equal(found, 2);
}

static void k4_live_supervisor_in_the_cgroup_is_spared(void **state)
{
    (void)state;
    world_open();
    pid_t neighbour = supervisor_start("b", 1U << LOCK, LIVES);
    (void)supervisor_start("a", 1U << GROUP, AFTER_EVIDENCE);
    harness_write(harness_format("%s/cgroup.procs", part_path("a", GROUP)), harness_format("%d", neighbour));
    replay_says(1, "cgroup", "busy", "failed", "supervisor of box b");
    assert_false(is_dead(neighbour));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k2_cgroup_made_anew_is_left),
        harness_test(k1_unproven_cgroup_in_use_is_refused),
        harness_test(k1_unproven_tmpdir_with_content_is_refused),
        harness_test(k1_unproven_mount_is_refused),
        harness_test(k2_mount_of_somebody_else_is_left),
        harness_test(k13_mount_on_top_is_busy),
        harness_test(k2_k6_reused_pid_is_left),
        harness_test(k2_a_kind_that_is_not_known_can_be_forgotten),
        harness_test(k2_tmpdir_of_somebody_else_is_refused),
        harness_test(k1_copied_stamp_proves_nothing),
        harness_test(k2_lock_of_somebody_else_is_refused),
        harness_test(k5_present_lock_gets_its_content_back),
        harness_test(i3_k11_live_box_is_left_and_its_name_taken),
        harness_test(k8_zombie_supervisor_is_dead),
        harness_test(k8_zombie_leader_with_threads_lives),
        harness_test(k7_stranger_with_the_flock_holds_the_box),
        harness_test(k7_payload_with_the_flock_is_killed),
        harness_test(k4_overlap_is_refused),
        harness_test(k4_alias_of_a_box_directory),
        harness_test(k4_live_directory_inside_is_busy),
        harness_test(k4_live_supervisor_in_the_cgroup_is_spared),
    };
    cmocka_set_test_filter(getenv("RBXJ_TEST_ONLY"));
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
