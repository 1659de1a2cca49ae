/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The cgroup kind: killing what is in it, and what will not die (I6, K25; I10: it is named).
 */
#include "cgroup_fixture.h"

/* ---- killing ---- */

static void frozen_v2_dies(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup()), *nested = child_of(path, "nested");
    pid_t pid = harness_spawn(nested);
    harness_write(harness_format("%s/cgroup.freeze", nested), "1");
    assert_undone(path);
    assert_killed(pid);
}

static void frozen_v1_dies_in_each_cgroup_that_was_frozen(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup_v1("freezer")), *nested = child_of(path, "nested");
    pid_t pids[] = {harness_spawn(path), harness_spawn(nested)};
    harness_write(harness_format("%s/freezer.state", nested), "FROZEN");
    harness_write(harness_format("%s/freezer.state", path), "FROZEN");
    assert_undone(path);
    assert_killed(pids[0]);
    assert_killed(pids[1]);
}

static int everybody(pid_t pid, void *data)
{
    (void)pid;
    ++*(int *)data;
    return 0;
}

static int nobody(pid_t pid, void *data)
{
    (void)pid;
    (void)data;
    return -EBUSY;
}

/* The ways of older kernels, on v2. */
static void k25_the_fallbacks_kill_and_thaw_and_ask(void **state)
{
    (void)state;
    static int (*const ways[])(int, cgroup_guard, void *) = {cgroup_kill_frozen, cgroup_kill_round};
    const char *path = box_in(harness_cgroup()), *nested = child_of(path, "nested");
    _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        int asked = 0;
        pid_t pids[] = {harness_spawn(path), harness_spawn(nested)};
        assert_int_equal(-EBUSY, ways[i](fd, nobody, NULL));
        assert_true(lives(pids[0]) && lives(pids[1]));
        assert_string_equal("0\n", harness_read(harness_format("%s/cgroup.freeze", path)));
        assert_int_equal(0, ways[i](fd, everybody, &asked));
        assert_int_equal(2, asked);
        assert_int_equal(0, cgroup_wait_empty(fd, in_ms(2000)));
        assert_killed(pids[0]);
        assert_killed(pids[1]);
    }
}

static void bomb(void)
{
    for (;;)
        (void)fork();
}

/* The bomb is held at 60 processes by a pids cgroup above. Where its box can stop forks itself, and where it
 * can't. */
static void fork_bomb(const char *cgroup, bool stops_forks)
{
    const char *path = box_in(cgroup), *limit = harness_cgroup_v1("pids");
    harness_write(harness_format("%s/pids.max", stops_forks ? cgroup : limit), "60");
    int go[2];
    assert_int_equal(0, pipe2(go, O_CLOEXEC));
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        if (read(go[0], &byte, 1) == 1)
            bomb();
        _exit(0);
    }
    harness_track(pid);
    if (!stops_forks)
        harness_write(harness_format("%s/cgroup.procs", limit), harness_format("%d", pid));
    harness_write(harness_format("%s/cgroup.procs", path), harness_format("%d", pid));
    assert_int_equal(1, write(go[1], "", 1));
    (void)close(go[0]);
    (void)close(go[1]);
    (void)usleep(50000);
    assert_undone(path);
    (void)harness_wait(pid);
}

static void fork_bomb_in_v1_pids(void **state)
{
    (void)state;
    fork_bomb(harness_cgroup_v1("pids"), true);
}

static void fork_bomb_in_v1_memory(void **state)
{
    (void)state;
    fork_bomb(harness_cgroup_v1("memory"), false);
}

static void fork_bomb_in_v1_freezer(void **state)
{
    (void)state;
    fork_bomb(harness_cgroup_v1("freezer"), false);
}

static void fork_bomb_in_v2(void **state)
{
    (void)state;
    fork_bomb(harness_cgroup(), false);
}

/* libcgroup's delete would move the process to the parent cgroup, out of the box. */
static void a_populated_v1_group_is_never_emptied_by_the_removal(void **state)
{
    (void)state;
    const char *cgroup = harness_cgroup_v1("pids"), *path = box_in(cgroup);
    pid_t pid = harness_spawn(path);
    _cleanup_close_ int parent = open(cgroup, O_PATH | O_CLOEXEC);
    assert_int_equal(-EBUSY, cgroup_remove(parent, "box 7", path, &x.record.id));
    assert_string_equal(harness_format("%d\n", pid), harness_read(harness_format("%s/cgroup.procs", path)));
    harness_kill(pid);
    struct fileid another = x.record.id;
    another.ino++;
    assert_int_equal(-ESTALE, cgroup_remove(parent, "box 7", path, &another));
    assert_int_equal(0, cgroup_remove(parent, "box 7", path, &x.record.id));
    assert_int_equal(-ENOENT, cgroup_remove(parent, "box 7", path, &x.record.id));
}

static void eat_memory(void)
{
    for (;;) {
        char *block = malloc(1 << 20);
        if (block)
            memset(block, 1, 1 << 20);
    }
}

static void out_of_memory_kills_are_noted(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup_v1("memory"));
    harness_write(harness_format("%s/memory.limit_in_bytes", path), "8M");
    pid_t pid = fork_into(path, eat_memory);
    (void)harness_wait(pid);
    assert_int_equal(FOUND_PRESENT, look());
    assert_true(has(x.finding.error.detail, "1 out-of-memory kill"));
    assert_int_equal(0, x.finding.error.code);
    assert_int_equal(0, kind->quiesce(&x.undo, &x.record, fresh()));
    assert_true(has(x.finding.error.detail, "1 out-of-memory kill"));
    assert_undone(path);
}

/* ---- what will not die ---- */

static char frozen_file[4200];

static void write_frozen(void)
{
    int fd = open(frozen_file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    _exit(fd < 0);
}

static const char *mount_loop(void)
{
    const char *image = harness_format("%s/image", harness_disk()),
               *at = harness_format("%s/at", harness_disk());
    harness_write(image, "");
    harness_mkdir(at);
    assert_int_equal(0, truncate(image, 8 << 20));
    if (system(harness_format("mkfs.ext4 -q %s 2>/dev/null && mount -o loop %s %s 2>/dev/null", image, image,
                              at)))
        harness_skip("no ext4 on a loop device here");
    return at;
}

static bool state_is(pid_t pid, char letter)
{
    const char *stat = harness_read(harness_format("/proc/%d/stat", pid));
    return strrchr(stat, ')')[2] == letter;
}

static void what_will_not_die_is_named_with_its_state(void **state)
{
    (void)state;
    const char *at = mount_loop();
    _cleanup_close_ int fs = open(at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    static const char *const controllers[] = {NULL, "pids"};
    for (size_t i = 0; i < ARRAY_LEN(controllers); i++) {
        const char *path = box_in(controllers[i] ? harness_cgroup_v1(controllers[i]) : harness_cgroup());
        (void)snprintf(frozen_file, sizeof(frozen_file), "%s/file%zu", at, i);
        assert_int_equal(0, ioctl(fs, FIFREEZE, 0));
        pid_t pid = fork_into(path, write_frozen);
        for (int k = 0; k < 1000 && !state_is(pid, 'D'); k++)
            (void)usleep(1000);
        int64_t start = now_monotonic_ns();
        x.undo.deadline_ns = in_ms(150);
        int first = replay();
        int64_t took = now_monotonic_ns() - start;
        struct finding waited = x.finding;
        int second = kind->undo(&x.undo, &x.record, fresh());
        assert_int_equal(0, ioctl(fs, FITHAW, 0)); /* before anything may fail */
        assert_int_equal(-EBUSY, first);
        assert_int_equal(-EBUSY, second);
        assert_true(took >= 140000000 && took < 1500000000);
        assert_int_equal(FOUND_BUSY, waited.found);
        if (!has(waited.error.message, harness_format("pid %d (", pid)) ||
            !has(waited.error.message, "state D"))
            fail_msg("%s", waited.error.message);
        assert_true(path_exists(path));
        if (controllers[i]) /* nothing forks in it any more, whoever wins the race */
            assert_string_equal("0\n", harness_read(harness_format("%s/pids.max", path)));
        x.undo.deadline_ns = in_ms(5000);
        assert_undone(path);
        assert_killed(pid);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(frozen_v2_dies),
        harness_test(frozen_v1_dies_in_each_cgroup_that_was_frozen),
        harness_test(k25_the_fallbacks_kill_and_thaw_and_ask),
        harness_test(fork_bomb_in_v1_pids),
        harness_test(fork_bomb_in_v1_memory),
        harness_test(fork_bomb_in_v1_freezer),
        harness_test(fork_bomb_in_v2),
        harness_test(a_populated_v1_group_is_never_emptied_by_the_removal),
        harness_test(out_of_memory_kills_are_noted),
        harness_test(what_will_not_die_is_named_with_its_state),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
