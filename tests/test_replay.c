/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Crash and replay, through the public API on real objects: a supervisor or a reaper is killed, a replay
 * follows, and the machine is as before. What is to be undone in a hostile or changed world is in replay.sh.
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

/* ---- the reaper itself ---- */

/* One box kills the reaper each time: the other one, which is older, gets its turn all the same. */
static void k34_box_that_kills_the_reaper_goes_last(void **state)
{
    (void)state;
    world_open();
    world.options.config = harness_format("%s/conf", harness_disk()); /* one box after the other */
    (void)supervisor_start("a", 1U << LOCK, AFTER_EVIDENCE);
    (void)supervisor_start("c", 1U << TMPDIR, AFTER_EVIDENCE); /* newest: first */
    poison = SYS_renameat2;                                    /* what only c's undo does */
    for (int replays = 0; replays < 3; replays++)
        (void)kill_at(ULONG_MAX, run_replay, "", 0);
    poison = -1;
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
        harness_test(k2_cgroup_made_anew_is_left),
        harness_test(k1_unproven_cgroup_in_use_is_refused),
        harness_test(k1_unproven_tmpdir_with_content_is_refused),
        harness_test(k1_unproven_mount_is_refused),
        harness_test(k2_mount_of_somebody_else_is_left),
        harness_test(k13_mount_on_top_is_busy),
        harness_test(k2_k6_reused_pid_is_left),
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
        harness_test(k34_box_that_kills_the_reaper_goes_last),
        harness_test(only_the_named_box),
        harness_test(k16_second_reaper_is_told),
        harness_test(k17_killed_after_the_rename_aside),
    };
    cmocka_set_test_filter(getenv("RBXJ_TEST_ONLY"));
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
