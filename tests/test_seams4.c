/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a teardown does not do: beside damaged records, and under a payload that it can't kill (I3, I9, K7,
 * K13, K16).
 */
#include "hung_fuse.h"
#include "seams_fixture.h"

#include "base/fd.h"
#include "journal/internal.h"
#include "reaper/handle.h"

#include <sys/syscall.h>

/* ---- a supervisor's own teardown beside damage (I9) ---- */

/* Flips a bit in the header of told->incarnation. In a process of its own: the environment is open once in
 * each. */
static void run_damage(const char *box, unsigned int parts)
{
    struct journal_options o = {.state_dir = world.state,
                                .runtime_dir = world.run,
                                .map_size = 1 << 30,
                                .preallocate = 4 << 20,
                                .gate_timeout_ns = 10000000000};
    struct journal *j = NULL;
    struct rbxj_error e = {0};
    struct record_key k = record_key(told->incarnation, 0);
    MDB_val key = {sizeof(k), &k}, data;
    MDB_txn *txn;
    uint8_t copy[4096];
    (void)box;
    (void)parts;
    must_do(journal_open(&o, &j, &e), &e);
    must(mdb_txn_begin(j->boot.env, NULL, 0, &txn) == 0);
    must(mdb_get(txn, j->boot.records, &key, &data) == 0 && data.mv_size <= sizeof(copy));
    memcpy(copy, data.mv_data, data.mv_size);
    copy[data.mv_size - 1] ^= 1;
    data.mv_data = copy;
    must(mdb_put(txn, j->boot.records, &key, &data, 0) == 0 && mdb_txn_commit(txn) == 0);
    die();
}

static void run_nested(const char *box, unsigned int parts)
{
    struct rbxj_resource r = {.kind = RBXJ_TMPDIR, .path = in_work("T/inner")};
    struct rbxj_box b = {.name = box, .parent = "outer", .plan = &r, .plan_len = 1};
    struct rbxj *handle = open_here();
    struct rbxj_error e = {0};
    uint64_t incarnation;
    (void)parts;
    must_do(rbxj_begin(handle, &b, &incarnation, &e), &e);
    must_do(rbxj_acquire(handle, box, 1, NULL, NULL, &e), &e);
    told->incarnation = incarnation;
    write_to(in_work("T/inner/precious"), "data");
}

static void nested_is_whole(void)
{
    assert_string_equal(harness_read(in_work("T/inner/precious")), "data");
}

/* The header of a living box that is nested in this one is damaged: the snapshot does not show that box, and
 * the whole directory looks like one's own. */
static void i9_own_undo_beside_a_damaged_nested_box(void **state)
{
    (void)state;
    struct rbxj *handle;
    struct rbxj_error e = {0};
    struct rbxj_result *result = NULL;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    assert_int_equal(rbxj_open(&world.options, &handle, &e), 0);
    const struct rbxj_box outer = {.name = "outer", .plan = plan, .plan_len = plan_len};
    assert_int_equal(rbxj_begin(handle, &outer, NULL, &e), 0);
    assert_int_equal(rbxj_acquire(handle, "outer", 1, NULL, NULL, &e), 0);
    (void)supervisor_fork(run_nested, "inner", 0);
    (void)supervisor_fork(run_damage, "", 0);
    for (int again = 0; again < 2; again++) { /* the second one shows that the claim was released */
        assert_int_equal(rbxj_undo(handle, "outer", &result, &e), -RBXJ_E_JOURNAL_DAMAGED);
        assert_null(result);
        nested_is_whole();
    }
    handle_take_back(handle, "outer", 1);
    nested_is_whole();
    rbxj_close(handle);
}

/* ---- under a payload that lives on ---- */

/* A living supervisor of another box is in the cgroup, which thus can't be emptied: what is newer stays, too,
 * as what lives in the cgroup may use it. */
static void i3_nothing_is_undone_under_a_cgroup_that_cant_be_emptied(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_CGROUP, .path = part_path("a", GROUP)},
            (struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    crash_with_plan("a");
    harness_write(in_work("T/precious"), "data");
    pid_t neighbour = supervisor_start("b", 1U << LOCK, LIVES), payload = harness_spawn(NULL);
    char *procs = harness_format("%s/cgroup.procs", plan[0].path);
    harness_write(procs, harness_format("%d", neighbour));
    harness_write(procs, harness_format("%d", payload));
    for (int dry = 1; dry >= 0; dry--) {
        replay_tells(&(struct rbxj_replay){.dry_run = dry}, 1, "a 2 present skipped\na 1 busy failed\n");
        assert_string_equal(harness_read(in_work("T/precious")), "data");
        assert_false(is_dead(payload) || is_dead(neighbour));
    }
    harness_kill(neighbour);
    replay_is_clean(2);
    assert_true(is_dead(payload));
}

/* ---- what another box has, in a place of this one's ---- */

static void i3_k4_a_process_of_another_box_in_our_cgroup(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_CGROUP, .path = part_path("a", GROUP)});
    crash_with_plan("a");
    pid_t neighbour = supervisor_start("b", 1U << PROCESS, LIVES), theirs = told->payload;
    harness_write(harness_format("%s/cgroup.procs", plan[0].path), harness_format("%d", theirs));
    for (int dry = 1; dry >= 0; dry--) {
        replay_tells(&(struct rbxj_replay){.dry_run = dry}, 1, "a 1 busy failed\n");
        assert_false(is_dead(theirs) || is_dead(neighbour));
    }
    harness_kill(neighbour);
    replay_is_clean(2);
    assert_true(is_dead(theirs));
}

static void i3_k4_a_mount_of_another_box_that_was_moved_into_ours(void **state)
{
    (void)state;
    world_open();
    harness_mkdir(in_work("m"));
    plan_is((struct rbxj_resource){
        .kind = RBXJ_MOUNT, .path = in_work("m"), .fstype = "tmpfs", .source = "rbxj-test"});
    crash_with_plan("a");
    pid_t neighbour = supervisor_start("b", 1U << MOUNT, LIVES);
    const char *theirs = part_path("b", MOUNT);
    harness_mkdir(in_work("m/in"));
    assert_int_equal(mount(theirs, in_work("m/in"), NULL, MS_MOVE, NULL), 0);
    replay_tells(&(struct rbxj_replay){.dry_run = 1}, 1, "a 1 busy failed\n");
    for (int lazy = 1; lazy <= 2; lazy++) {
        replay_tells(&(struct rbxj_replay){.lazy_umount = lazy}, 1, "a 1 busy failed\n");
        assert_int_equal(harness_mounts_below(in_work("m")), 2);
    }
    assert_int_equal(mount(in_work("m/in"), theirs, NULL, MS_MOVE, NULL), 0);
    replay_tells(&(struct rbxj_replay){0}, 0, "a 1 present undone\n");
    assert_int_equal(harness_mounts_below(theirs), 1);
    harness_kill(neighbour);
    replay_is_clean(1);
}

/* ---- under a payload that can't be seen ---- */

/* The box sees the cgroups through a mount of its own, over which a stranger mounts: what lives in there
 * can't be killed, and may use everything. */
static void i3_nothing_is_undone_under_a_cgroup_that_cant_be_seen(void **state)
{
    (void)state;
    world_open();
    const char *root = harness_cgroup_root(NULL), *group = harness_format("%s/a", world.group);
    harness_mkdir(in_work("m"));
    plan_is(
        (struct rbxj_resource){
            .kind = RBXJ_MOUNT, .path = in_work("m"), .fstype = "cgroup2", .source = "rbxj-test"},
        (struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")},
        (struct rbxj_resource){.kind = RBXJ_CGROUP,
                               .path = harness_format("%s%s", in_work("m"), group + strlen(root))});
    crash_with_plan("a");
    pid_t payload = harness_spawn(group);
    assert_int_equal(mount("stranger", in_work("m"), "tmpfs", 0, "size=1m"), 0);
    for (int dry = 1; dry >= 0; dry--) {
        replay_tells(&(struct rbxj_replay){.dry_run = dry}, 1,
                     "a 3 busy failed\na 2 present skipped\na 1 busy skipped\n");
        assert_true(path_exists(in_work("T")));
        assert_false(is_dead(payload));
    }
    assert_int_equal(umount2(in_work("m"), UMOUNT_NOFOLLOW), 0);
    replay_is_clean(1);
    assert_true(is_dead(payload));
    assert_false(path_exists(group) || path_exists(in_work("T")));
}

/* ---- the flock, from the first pass to the last (K7) ---- */

static char *watched; /* how often somebody here gets the flock of that file */
static int times_taken;

int flock(int fd, int operation)
{
    struct stat st, of_watched;
    int r = (int)syscall(SYS_flock, fd, operation);
    if (r == 0 && operation & LOCK_EX && watched && fstat(fd, &st) == 0 && stat(watched, &of_watched) == 0)
        times_taken += st.st_dev == of_watched.st_dev && st.st_ino == of_watched.st_ino;
    return r;
}

static void run_group_inside(const char *box, unsigned int parts)
{
    struct rbxj_resource r = {.kind = RBXJ_CGROUP, .path = harness_format("%s/inner", plan[1].path)};
    struct rbxj_box b = {.name = box, .parent = "a", .plan = &r, .plan_len = 1};
    struct rbxj *handle = open_here();
    struct rbxj_error e = {0};
    (void)parts;
    must_do(rbxj_begin(handle, &b, NULL, &e), &e);
    must_do(rbxj_acquire(handle, box, 1, NULL, NULL, &e), &e);
}

/* The outer box has to wait for the one that is nested in its cgroup, and is passed over again: its lock is
 * nobody else's in between. */
static void k7_a_flock_is_held_between_passes(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("lock")},
            (struct rbxj_resource){.kind = RBXJ_CGROUP, .path = part_path("a", GROUP)});
    pid_t outer = supervisor_fork(run_plan_and_live, "a", 0),
          inner = supervisor_fork(run_group_inside, "b", 0);
    harness_kill(outer);
    harness_kill(inner);
    watched = in_work("lock");
    times_taken = 0;
    replay_tells(&(struct rbxj_replay){0}, 0, "b 1 present undone\na 2 present undone\na 1 present undone\n");
    watched = NULL;
    assert_int_equal(times_taken, 1);
    assert_false(path_exists(in_work("lock")));
}

/* So many openings of the lock from now, two find it renamed. */
static int hide_after = -3;

int openat(int dirfd, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    if (hide_after > -3 && strcmp(path, "lock") == 0 && flags & O_PATH && --hide_after < 0 &&
        hide_after >= -2) {
        errno = ENOENT;
        return -1;
    }
    return (int)syscall(SYS_openat, dirfd, path, flags, mode);
}

/* Then its flock could not be taken, and whoever has it, it is not unlinked under him. */
static void k7_a_lock_that_hid_from_its_flock_stays(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("lock")});
    for (int n = 0; n < 8; n++) {
        struct rbxj_result *result = NULL;
        struct rbxj_error e = {0};
        crash_with_plan("a");
        _cleanup_close_ int fd = open(in_work("lock"), O_RDONLY | O_CLOEXEC);
        assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
        hide_after = n;
        (void)rbxj_replay(&world.options, &(struct rbxj_replay){0}, &result, &e);
        hide_after = -3;
        rbxj_result_free(result);
        assert_true(path_exists(in_work("lock")));
        cleanup_closep(&fd);
        fd = -1;
        replay_is_clean(1);
    }
}

/* ---- who holds a lock can't be known ---- */

/* Mounts on a file, for this test, one that can't be opened: no more descriptors, says its file system. */
static void cant_be_opened(const char *path)
{
    char options[100];
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        harness_skip("no /dev/fuse");
    (void)snprintf(options, sizeof(options), "fd=%d,rootmode=100000,user_id=0,group_id=0", fd);
    assert_int_equal(0, mount("failing", path, "fuse", 0, options));
    pid_t pid = fork();
    if (pid == 0) {
        fuse_serve(fd, ENFILE);
        _exit(0);
    }
    (void)close(fd);
    assert_true(pid > 0);
    harness_track(pid);
}

/* A real run leaves all of such a box; a dry run says so. */
static void k7_dry_run_that_cant_ask_who_holds_a_lock(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("lock")},
            (struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    crash_with_plan("a");
    cant_be_opened("/proc/locks");
    assert_int_equal(open("/proc/locks", O_RDONLY | O_CLOEXEC), -1);
    assert_int_equal(errno, ENFILE);
    replay_tells(&(struct rbxj_replay){.dry_run = 1}, 1, "a 2 present skipped\na 1 busy failed\n");
    assert_int_equal(umount2("/proc/locks", MNT_DETACH), 0);
    replay_tells(&(struct rbxj_replay){.dry_run = 1}, 0, "a 2 present planned\na 1 present planned\n");
    replay_is_clean(1);
}

/* In a held box only the lock fails in a dry run: nothing else would be tried, be it busy or newer than the
 * lock. */
static void k7_a_dry_run_tells_which_lock_holds_the_box(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")},
            (struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("lock")},
            (struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("U")});
    crash_with_plan("a");
    assert_int_equal(mount("stranger", in_work("T"), "tmpfs", 0, "size=1m"), 0);
    int fd = open(in_work("lock"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    replay_tells(&(struct rbxj_replay){.dry_run = 1}, 1,
                 "a 3 present skipped\na 2 busy failed\na 1 busy skipped\n");
    replay_tells(&(struct rbxj_replay){0}, 1, "a 3 present skipped\na 2 busy skipped\na 1 busy skipped\n");
    (void)close(fd);
    assert_int_equal(umount(in_work("T")), 0);
    replay_is_clean(1);
}

/* A reaper in the middle of that box: it has claimed it and taken its lock. */
static void run_reaper_at(const char *box, unsigned int parts)
{
    struct rbxj *handle = open_here();
    struct rbxj_error e = {0};
    (void)box;
    (void)parts;
    must_do(journal_claim(handle->journal, told->incarnation, &e), &e);
    int fd = open(in_work("lock"), O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0);
}

static void k7_a_box_that_a_reaper_is_at_is_not_held(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("lock")},
            (struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    crash_with_plan("a");
    pid_t reaper = supervisor_fork(run_reaper_at, "a", 0);
    assert_string_equal(state_of("a"), "stale");
    harness_kill(reaper);
    replay_is_clean(1);
}

/* ---- a stranger's mount between two of the box (K13) ---- */

static void run_stack(const char *box, unsigned int parts)
{
    struct rbxj *handle = begin_plan_here(box);
    struct rbxj_error e = {0};
    (void)parts;
    must_do(rbxj_acquire(handle, box, 1, NULL, NULL, &e), &e);
    must(mount("stranger", plan[0].path, "tmpfs", 0, "size=1m") == 0);
    must_do(rbxj_take(handle, box, &plan[0], NULL, NULL, &e), &e);
    die();
}

static void k13_a_stranger_between_two_of_ours_is_busy(void **state)
{
    (void)state;
    world_open();
    const char *m = in_work("m");
    plan_is((struct rbxj_resource){.kind = RBXJ_MOUNT, .path = m, .fstype = "tmpfs", .source = "x"});
    harness_mkdir(m);
    (void)supervisor_fork(run_stack, "a", 0);
    assert_int_equal(harness_mounts_below(m), 3);
    replay_tells(&(struct rbxj_replay){.dry_run = 1}, 1, "a 2 present planned\na 1 busy failed\n");
    replay_tells(&(struct rbxj_replay){0}, 1, "a 2 present undone\na 1 busy failed\n");
    assert_int_equal(harness_mounts_below(m), 2);
    assert_int_equal(umount2(m, UMOUNT_NOFOLLOW), 0);
    replay_is_clean(1);
    assert_int_equal(harness_mounts_below(m), 0);
}

/* Each box has a bind of the one file system: it is asked once, and hangs the first box alone. */
static void k16_what_hangs_is_asked_once_for_all_binds_of_it(void **state)
{
    (void)state;
    static const char *const at[] = {"b1", "b2", "b3"};
    world_open();
    for (size_t i = 0; i < ARRAY_LEN(at); i++) {
        harness_mkdir(in_work(at[i]));
        plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = harness_format("%s/lock", in_work(at[i]))});
        crash_with_plan(at[i]);
    }
    pid_t server = hung_fuse(in_work("../hung"));
    for (size_t i = 0; i < ARRAY_LEN(at); i++)
        assert_int_equal(mount(in_work("../hung"), in_work(at[i]), NULL, MS_BIND, NULL), 0);
    replay_tells(&(struct rbxj_replay){.timeout = 2}, 1,
                 "b3 1 busy failed\nb2 1 busy failed\nb1 1 busy failed\n");
    assert_in_range(count_hanging(), 0, 1);
    harness_kill(server);
    for (size_t i = 0; i < ARRAY_LEN(at); i++)
        assert_int_equal(umount2(in_work(at[i]), MNT_DETACH), 0);
    replay_is_clean(3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(i9_own_undo_beside_a_damaged_nested_box),
        harness_test(i3_nothing_is_undone_under_a_cgroup_that_cant_be_emptied),
        harness_test(i3_k4_a_process_of_another_box_in_our_cgroup),
        harness_test(i3_k4_a_mount_of_another_box_that_was_moved_into_ours),
        harness_test(i3_nothing_is_undone_under_a_cgroup_that_cant_be_seen),
        harness_test(k7_a_lock_that_hid_from_its_flock_stays),
        harness_test(k7_a_flock_is_held_between_passes),
        harness_test(k7_dry_run_that_cant_ask_who_holds_a_lock),
        harness_test(k7_a_dry_run_tells_which_lock_holds_the_box),
        harness_test(k7_a_box_that_a_reaper_is_at_is_not_held),
        harness_test(k13_a_stranger_between_two_of_ours_is_busy),
        harness_test(k16_what_hangs_is_asked_once_for_all_binds_of_it),
    };
    cmocka_set_test_filter(getenv("RBXJ_TEST_ONLY"));
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
