/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The cgroup kind: who is in it, and how trees of cgroups may look (K4, K17, K25, I2, I4).
 */
#include "cgroup_fixture.h"

/* ---- who is in it ---- */

static void k4_a_live_supervisor_makes_it_busy(void **state)
{
    (void)state;
    static const char *const controllers[] = {NULL, "pids", "freezer"};
    for (size_t i = 0; i < ARRAY_LEN(controllers); i++) {
        const char *path = box_in(controllers[i] ? harness_cgroup_v1(controllers[i]) : harness_cgroup());
        const char *nested = child_of(path, "nested");
        pid_t payload = harness_spawn(path), supervisor = harness_spawn(nested);
        assert_int_equal(0, procid_of(supervisor, &x.boxes[1].box.supervisor));
        assert_int_equal(-EBUSY, kind->quiesce(&x.undo, &x.record, fresh()));
        assert_int_equal(FOUND_BUSY, x.finding.found);
        assert_true(has(x.finding.error.message, "other"));
        assert_int_equal(-EBUSY, kind->undo(&x.undo, &x.record, fresh()));
        assert_int_equal(x.finding.keepers.at[0].pid, supervisor);
        assert_int_equal(FOUND_BUSY, look());
        assert_true(lives(payload) && lives(supervisor));
        harness_kill(supervisor);
        assert_undone(path);
        assert_killed(payload);
    }
}

static void k25_a_live_supervisor_is_never_frozen(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup_v1("freezer"));
    pid_t supervisor = harness_spawn(path);
    assert_int_equal(0, procid_of(supervisor, &x.boxes[1].box.supervisor));
    assert_int_equal(-EBUSY, kind->quiesce(&x.undo, &x.record, fresh()));
    assert_string_equal("THAWED\n", harness_read(harness_format("%s/freezer.state", path)));
    assert_string_equal("0\n", harness_read(harness_format("%s/freezer.self_freezing", path)));
}

static void k4_another_boxes_record_inside_makes_it_busy(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup()), *nested = child_of(path, "nested");
    pid_t pid = harness_spawn(nested);
    x.other = (struct record){.incarnation = x.boxes[1].box.incarnation, .seq = 1, .kind = RBXJ_CGROUP};
    x.other.path = harness_format("%s", nested);
    x.boxes[1].records = &x.other;
    x.boxes[1].len = 1;
    assert_int_equal(0, procid_of(getppid(), &x.boxes[1].box.supervisor));
    struct snapshot_path paths[] = {{.path = path}, {.path = nested, .box = 1}};
    x.snapshot.paths = paths;
    x.snapshot.paths_len = 2;
    assert_int_equal(-EBUSY, kind->quiesce(&x.undo, &x.record, fresh()));
    assert_int_equal(-EBUSY, kind->undo(&x.undo, &x.record, fresh()));
    assert_int_equal(FOUND_BUSY, x.finding.found);
    assert_true(lives(pid) && path_exists(nested));
}

/* We live in the box's cgroup, or below it. As its supervisor we step out; as anybody else we make it
 * busy. */
static void ourselves_inside(const char *cgroup, const char *outside)
{
    const char *path = box_in(cgroup), *nested = child_of(path, "nested");
    pid_t payload = harness_spawn(path);
    harness_write(harness_format("%s/cgroup.procs", nested), "0");
    int stranger = kind->quiesce(&x.undo, &x.record, fresh());
    bool spared = lives(payload);
    assert_int_equal(0, procid_of(getpid(), &x.box.supervisor));
    x.boxes[0].box = x.box;
    enum found seen = look();
    int rc = replay();
    bool parent = has(harness_read(harness_format("%s/cgroup.procs", cgroup)),
                      harness_format("%d\n", getpid()));
    harness_write(harness_format("%s/cgroup.procs", outside), "0");
    assert_int_equal(-EBUSY, stranger);
    assert_true(spared);
    assert_int_equal(FOUND_PRESENT, seen);
    assert_int_equal(1, rc);
    assert_true(parent);
    assert_killed(payload);
}

static void k4_a_supervisor_steps_out_of_its_box_v2(void **state)
{
    (void)state;
    ourselves_inside(harness_cgroup(), harness_cgroup_root(NULL));
}

static void k4_a_supervisor_steps_out_of_its_box_v1(void **state)
{
    (void)state;
    ourselves_inside(harness_cgroup_v1("pids"), harness_cgroup_root("pids"));
}

/* Seen from a pid namespace below, the processes outside have no number. */
static void i4_whom_we_cant_see_makes_it_busy(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup());
    pid_t inside = harness_spawn(path), pid = fork();
    if (pid == 0) {
        int status = 1;
        pid_t below = unshare(CLONE_NEWPID) == 0 ? fork() : -1;
        if (below == 0)
            _exit(kind->quiesce(&x.undo, &x.record, fresh()) == -RBXJ_E_BUSY &&
                          has(x.finding.error.message, "another pid namespace")
                      ? 0
                      : 1);
        (void)waitpid(below, &status, 0);
        _exit(status != 0);
    }
    harness_track(pid);
    assert_int_equal(0, harness_wait(pid));
    assert_true(lives(inside));
}

static void zombies_do_not_count(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup());
    pid_t pid = harness_spawn(path);
    siginfo_t info;
    assert_int_equal(0, kill(pid, SIGKILL));
    assert_int_equal(0, waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
    assert_undone(path);
}

static void k17_refilled_after_the_quiesce_is_emptied_again(void **state)
{
    (void)state;
    static const char *const controllers[] = {NULL, "pids"};
    for (size_t i = 0; i < ARRAY_LEN(controllers); i++) {
        const char *path = box_in(controllers[i] ? harness_cgroup_v1(controllers[i]) : harness_cgroup());
        assert_int_equal(0, kind->quiesce(&x.undo, &x.record, fresh()));
        pid_t early = harness_spawn(path);
        assert_int_equal(0, kind->quiesced(&x.undo, &x.record, fresh()));
        assert_killed(early);
        pid_t pid = harness_spawn(child_of(path, "late"));
        int64_t start = now_monotonic_ns();
        assert_int_equal(1, kind->undo(&x.undo, &x.record, fresh()));
        assert_true(now_monotonic_ns() - start < 400000000); /* woken, not slept */
        assert_killed(pid);
    }
}

static void a_mount_inside_is_busy(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup()), *child = child_of(path, "child");
    assert_int_equal(0, mount("none", child, "tmpfs", 0, NULL));
    int inside = kind->undo(&x.undo, &x.record, fresh());
    assert_int_equal(0, umount2(child, MNT_DETACH));
    assert_int_equal(0, mount("none", path, "tmpfs", 0, NULL));
    enum found over = look();
    int rc = kind->undo(&x.undo, &x.record, fresh());
    assert_int_equal(0, umount2(path, MNT_DETACH));
    assert_true(inside < 0 && rc < 0);
    assert_int_equal(FOUND_BUSY, over);
    assert_undone(path);
}

/* ---- shapes of trees ---- */

/* Deeper than there are descriptors, and with many children: what has to be found is at the ends. */
static void deep_and_wide(const char *cgroup)
{
    enum { DEPTH = 150, WIDTH = 150 };
    const char *path = box_in(cgroup), *deep = path, *wide = child_of(path, "wide");
    for (int i = 0; i < DEPTH; i++)
        deep = child_of(deep, "d");
    for (int i = 0; i < WIDTH; i++)
        (void)child_of(wide, harness_format("w%d", i));
    pid_t pids[] = {harness_spawn(deep), harness_spawn(harness_format("%s/w0", wide)),
                    harness_spawn(harness_format("%s/w%d", wide, WIDTH - 1))};
    struct rlimit old, low = {40, 4096};
    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &old));
    low.rlim_max = old.rlim_max;
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &low));
    int rc = replay();
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &old));
    if (rc != 1)
        fail_msg("%d: %s", rc, x.finding.error.message);
    assert_false(path_exists(path));
    for (size_t i = 0; i < ARRAY_LEN(pids); i++)
        assert_killed(pids[i]);
}

static void deep_and_wide_v2(void **state)
{
    (void)state;
    deep_and_wide(harness_cgroup());
}

static void deep_and_wide_v1(void **state)
{
    (void)state;
    deep_and_wide(harness_cgroup_v1("pids"));
}

static void members_are_found_at_any_depth(void **state)
{
    (void)state;
    const char *top = harness_cgroup(), *deep = top;
    for (int i = 0; i < 60; i++) {
        (void)child_of(deep, "aside");
        deep = child_of(deep, "deep");
    }
    pid_t pids[] = {harness_spawn(top), harness_spawn(deep), harness_spawn(harness_format("%s/aside", top))};
    _cleanup_close_ int fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_(cgroup_members_clear) struct cgroup_members members = {0};
    assert_int_equal(0, cgroup_members(fd, &members));
    assert_int_equal(3, members.len);
    for (size_t i = 0; i < ARRAY_LEN(pids); i++)
        assert_true(cgroup_members_have(&members, pids[i]));
    assert_false(cgroup_members_have(&members, getpid()));
    assert_int_equal(0, cgroup_is_empty(fd));
}

static char thread_cgroup[4200];

static void *move_thread(void *data)
{
    (void)data;
    _cleanup_close_ int fd = open(thread_cgroup, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "0", 1) == 1)
        (void)kill(getpid(), SIGSTOP); /* tells the test that it is there */
    while (pause() < 0)
        ;
    return NULL;
}

static void run_two_threads(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, move_thread, NULL) == 0)
        for (;;)
            pause();
}

/* A process that stays in cgroup but for one thread, which is in threaded. */
static pid_t spawn_threaded(const char *cgroup, const char *threaded)
{
    int status;
    (void)snprintf(thread_cgroup, sizeof(thread_cgroup), "%s/cgroup.threads", threaded);
    pid_t pid = fork_into(cgroup, run_two_threads);
    assert_int_equal(pid, waitpid(pid, &status, WUNTRACED));
    assert_true(WIFSTOPPED(status));
    assert_int_equal(0, kill(pid, SIGCONT));
    return pid;
}

static void threaded_children_die_with_their_domain(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup()), *child = child_of(path, "threads");
    harness_write(harness_format("%s/cgroup.type", child), "threaded");
    pid_t pid = spawn_threaded(path, child);
    assert_undone(path);
    assert_killed(pid);
}

/* The box's cgroup itself is threaded: its domain is not the box's, and whoever is only there lives on. */
static void i2_a_threaded_box_spares_its_domain(void **state)
{
    (void)state;
    const char *domain = harness_cgroup(), *path = box_in(domain);
    harness_write(harness_format("%s/cgroup.type", path), "threaded");
    pid_t ours = spawn_threaded(domain, path), bystander = harness_spawn(domain);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(-EOPNOTSUPP, cgroup_kill_at_once(fd));
    assert_undone(path);
    assert_killed(ours);
    assert_true(lives(bystander));
}

static int count_cgroup(int fd, void *data)
{
    (void)fd;
    ++*(int *)data;
    return 0;
}

/* Whichever of them comes first. */
static void one_that_is_covered_hides_no_other(void **state)
{
    (void)state;
    const char *path = harness_cgroup(), *children[4];
    for (size_t i = 0; i < ARRAY_LEN(children); i++)
        children[i] = child_of(path, harness_format("%zu", i));
    for (size_t i = 0; i < ARRAY_LEN(children); i++) {
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), seen = 0;
        assert_int_equal(0, mount("test", children[i], "tmpfs", 0, "size=1m"));
        int r = cgroup_walk(fd, count_cgroup, &seen);
        assert_int_equal(0, umount(children[i]));
        (void)close(fd);
        assert_int_equal(-EXDEV, r);
        assert_int_equal(1 + ARRAY_LEN(children) - 1, seen);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k4_a_live_supervisor_makes_it_busy),
        harness_test(k25_a_live_supervisor_is_never_frozen),
        harness_test(k4_another_boxes_record_inside_makes_it_busy),
        harness_test(k4_a_supervisor_steps_out_of_its_box_v2),
        harness_test(k4_a_supervisor_steps_out_of_its_box_v1),
        harness_test(i4_whom_we_cant_see_makes_it_busy),
        harness_test(zombies_do_not_count),
        harness_test(k17_refilled_after_the_quiesce_is_emptied_again),
        harness_test(a_mount_inside_is_busy),
        harness_test(deep_and_wide_v2),
        harness_test(deep_and_wide_v1),
        harness_test(members_are_found_at_any_depth),
        harness_test(one_that_is_covered_hides_no_other),
        harness_test(threaded_children_die_with_their_domain),
        harness_test(i2_a_threaded_box_spares_its_domain),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
