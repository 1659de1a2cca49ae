/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj_take(), and one handle for many threads (K1, K7, I8).
 */
#include "spawn_fixture.h"

#include "reaper/handle.h"

#include <pthread.h>
#include <sys/resource.h>

/* ---- take ---- */

static void take_of_each_kind(void **state)
{
    (void)state;
    open_with("a");
    make_target("a", ALL);
    int lock = -1, none = 5;
    uint32_t seq = 0;
    for (enum part p = 0; p < PARTS; p++) {
        struct rbxj_resource r = part_resource("a", p);
        if (!(possible(ALL) & 1U << p))
            continue;
        if (rbxj_take(handle, "a", &r, &seq, p == LOCK ? &lock : &none, &error) < 0)
            fail_msg("%s: %s (%s)", part_names[p], error.message, error.detail);
        assert_true(path_exists(r.path));
        assert_true(p == LOCK || none == -1);
    }
    assert_int_equal(records("a", NULL), seq);
    assert_int_equal(FD_CLOEXEC, fcntl(lock, F_GETFD));
    assert_int_equal(1, harness_mounts_below(part_path("a", MOUNT)));
    undo_and_end("a");
    assert_false(path_exists(part_path("a", TMPDIR)) || path_exists(part_path("a", LOCK)));
    assert_int_equal(0, harness_mounts_below(part_path("a", MOUNT)));
    (void)close(lock);

    begin("a", NULL, 0);
    struct rbxj_resource process = {.kind = RBXJ_PROCESS, .pid = harness_spawn(NULL)};
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_take(handle, "a", &process, NULL, NULL, &error));
    struct rbxj_resource file = part_resource("a", LOCK), unknown = {.kind = 77};
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_take(handle, "a", &file, NULL, NULL, &error));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_take(handle, "a", &unknown, NULL, NULL, &error));
    nothing_is_left();
}

static void a_take_that_fails_leaves_no_record(void **state)
{
    (void)state;
    open_with("a");
    make_target("a", ALL);
    /* before the intent */
    harness_mkdir(part_path("a", TMPDIR));
    take_that_fails(part_resource("a", TMPDIR), -RBXJ_E_EXISTS);
    assert_true(path_exists(part_path("a", TMPDIR)));
    /* after it: the kernel refuses the options */
    struct rbxj_resource wrong = part_resource("a", MOUNT);
    wrong.options = "no-such-option=1";
    take_that_fails(wrong, -RBXJ_E_BAD_REQUEST);
    assert_int_equal(0, harness_mounts_below(part_path("a", MOUNT)));
    /* somebody holds the lock: his file stays as it is */
    harness_write(part_path("a", LOCK), "{\"pid\":1}");
    int held = open(part_path("a", LOCK), O_RDWR | O_CLOEXEC);
    assert_int_equal(0, flock(held, LOCK_EX));
    take_that_fails(part_resource("a", LOCK), -RBXJ_E_BUSY);
    assert_string_equal("{\"pid\":1}", harness_read(part_path("a", LOCK)));
    (void)close(held);
    /* no room for a group */
    harness_write(harness_format("%s/cgroup.max.descendants", world.group), "0");
    take_that_fails(part_resource("a", GROUP), -RBXJ_E_IO);
    harness_write(harness_format("%s/cgroup.max.descendants", world.group), "max");
    /* and then it goes */
    struct rbxj_resource group = part_resource("a", GROUP);
    assert_int_equal(0, rbxj_take(handle, "a", &group, NULL, NULL, &error));
    undo_and_end("a");
}

/* ---- taking back ---- */

static uint32_t take(enum part p, int *lock)
{
    struct rbxj_resource r = part_resource("a", p);
    uint32_t seq = 0;
    if (rbxj_take(handle, "a", &r, &seq, p == LOCK ? lock : NULL, &error) < 0)
        fail_msg("%s: %s (%s)", part_names[p], error.message, error.detail);
    return seq;
}

/* Nobody has a claim on it any more: a nested box can begin. */
static void is_unclaimed(const char *box)
{
    struct rbxj_box inner = {.name = "inner", .parent = box};
    if (rbxj_begin(handle, &inner, NULL, &error) < 0 || rbxj_end(handle, "inner", &error) < 0)
        fail_msg("nested in %s: %s", box, error.message);
}

/* What is there and proven ours is undone; the box's other records stay, with their things. */
static void i8_only_that_record_is_taken_back(void **state)
{
    (void)state;
    open_with("a");
    make_target("a", ALL);
    for (enum part again = 0; again < PARTS; again++) {
        int lock = -1;
        uint32_t seqs[PARTS] = {0};
        size_t taken = 0;
        if (!(possible(ALL) & 1U << again))
            continue;
        for (enum part p = 0; p < PARTS; p++)
            if (possible(ALL) & 1U << p) {
                seqs[p] = take(p, &lock);
                taken++;
            }
        if (again == LOCK) /* else it is held */
            cleanup_closep(&lock);
        bool blocked = again == MOUNT; /* the inner directory is on it */
        handle_take_back(handle, "a", seqs[again]);
        assert_int_equal(taken - !blocked, records("a", NULL));
        for (enum part p = 0; p < PARTS; p++)
            if (possible(ALL) & 1U << p)
                assert_int_equal(p != again || blocked, path_exists(part_path("a", p)));
        assert_int_equal(1, harness_mounts_below(part_path("a", MOUNT)));
        is_unclaimed("a");
        undo_and_end("a");
        if (again != LOCK)
            cleanup_closep(&lock);
        begin("a", NULL, 0);
    }
    uint32_t seq = take(MOUNT, NULL);
    handle_take_back(handle, "a", seq);
    assert_int_equal(0, records("a", NULL));
    assert_int_equal(0, harness_mounts_below(part_path("a", MOUNT)));
}

/* The acquisition has failed, so its flock is not ours: only with it the file is touched. */
static void k7_a_lock_is_taken_back_under_its_flock(void **state)
{
    (void)state;
    open_with("a");
    for (int before = 0; before < 2; before++) {
        const char *path = part_path("a", LOCK);
        int lock = -1;
        if (before)
            harness_write(path, "{\"pid\":1}");
        uint32_t seq = take(LOCK, &lock);
        (void)close(lock);
        char *ours = harness_read(path);
        int stranger = open(path, O_RDWR | O_CLOEXEC);
        assert_int_equal(0, flock(stranger, LOCK_EX | LOCK_NB));
        handle_take_back(handle, "a", seq);
        assert_string_equal(ours, harness_read(path));
        assert_int_equal(1, records("a", NULL));
        is_unclaimed("a");
        (void)close(stranger);
        handle_take_back(handle, "a", seq);
        assert_int_equal(0, records("a", NULL));
        assert_int_equal(before, path_exists(path));
    }
    assert_string_equal("{\"pid\":1}", harness_read(part_path("a", LOCK)));
}

/* With one descriptor less than it needs, two less, and so on: what it made half-way is taken back, or known
 * to rbxj_undo(). */
static void a_take_without_descriptors_leaves_nothing_unknown(void **state)
{
    (void)state;
    struct rlimit limit, few;
    open_with("a");
    make_target("a", ALL);
    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &limit));
    char *before = machine();
    for (enum part p = 0; p < PARTS; p++) {
        struct rbxj_resource r = part_resource("a", p);
        int rc = -1, failed = 0;
        if (p == INNER || !(possible(ALL) & 1U << p))
            continue;
        for (few = (struct rlimit){3, limit.rlim_max}; rc < 0; few.rlim_cur++) {
            int fd = -1;
            assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &few));
            rc = rbxj_take(handle, "a", &r, NULL, &fd, &error);
            assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &limit));
            if (rc < 0 && rc != -RBXJ_E_IO)
                fail_msg("%s with %ju: %d: %s", part_names[p], (uintmax_t)few.rlim_cur, rc, error.message);
            failed += rc < 0;
            if (rbxj_undo(handle, "a", NULL, &error) < 0)
                fail_msg("%s with %ju: undo: %s", part_names[p], (uintmax_t)few.rlim_cur, error.message);
            cleanup_closep(&fd);
            if (p == LOCK && rc < 0) /* made and not written yet it is nobody's: it is left (K1) */
                (void)unlink(r.path);
            is_as_before(before, "%s with %ju", part_names[p], (uintmax_t)few.rlim_cur);
        }
        assert_true(failed > 1);
    }
}

/* ---- threads ---- */

static struct {
    char failed[600];
} shared;

static void thread_failed(const char *what, const struct rbxj_error *e)
{
    (void)snprintf(shared.failed, sizeof(shared.failed), "%s: %s (%s)", what, e->message, e->detail);
}

static void *whole_lives(void *name)
{
    struct rbxj_error e = {0};
    const char *box = name;
    struct rbxj_box b = {.name = box};
    for (int i = 0; i < 5 && !shared.failed[0]; i++) {
        uint32_t seq, of_process = 0;
        pid_t pid;
        int status, lock = -1;
        struct rbxj_resource group = part_resource("x", GROUP), dir = part_resource("x", TMPDIR),
                             file = part_resource("x", LOCK);
        char paths[3][PATH_MAX];
        (void)snprintf(paths[0], PATH_MAX, "%s/%s", world.group, box);
        (void)snprintf(paths[1], PATH_MAX, "%s/%s.tmp", world.work, box);
        (void)snprintf(paths[2], PATH_MAX, "%s/%s.lock", world.work, box);
        group.path = paths[0], dir.path = paths[1], file.path = paths[2];
        struct rbxj_spawn how = {.argv = run_true, .cgroups = &seq, .cgroups_len = 1};
        if (rbxj_begin(handle, &b, NULL, &e) < 0 || rbxj_take(handle, box, &file, NULL, &lock, &e) < 0 ||
            rbxj_take(handle, box, &dir, NULL, NULL, &e) < 0 ||
            rbxj_take(handle, box, &group, &seq, NULL, &e) < 0)
            thread_failed("begin and take", &e);
        else if (rbxj_spawn(handle, box, &how, &pid, NULL, &of_process, &e) < 0)
            thread_failed("spawn", &e);
        else if (seq != 3 || of_process != 4) /* its own box's, whatever the others do */
            (void)snprintf(shared.failed, sizeof(shared.failed), "%s: seq %u, %u", box, seq, of_process);
        else if (waitpid(pid, &status, 0) != pid || status)
            thread_failed("the process", &e);
        else if (rbxj_undo(handle, box, NULL, &e) < 0 || rbxj_end(handle, box, &e) < 0)
            thread_failed("undo and end", &e);
        cleanup_closep(&lock);
    }
    return NULL;
}

static void eight_threads_on_one_handle(void **state)
{
    (void)state;
    pthread_t threads[8];
    static const char *const names[] = {"t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8"};
    open_with("a");
    shared.failed[0] = 0;
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(0, pthread_create(&threads[i], NULL, whole_lives, (void *)(uintptr_t)names[i]));
    for (size_t i = 0; i < 8; i++)
        (void)pthread_join(threads[i], NULL);
    if (shared.failed[0])
        fail_msg("%s", shared.failed);
    undo_and_end("a");
    assert_int_equal(0, records(NULL, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        spawn_test(take_of_each_kind),
        spawn_test(a_take_that_fails_leaves_no_record),
        spawn_test(i8_only_that_record_is_taken_back),
        spawn_test(k7_a_lock_is_taken_back_under_its_flock),
        spawn_test(a_take_without_descriptors_leaves_nothing_unknown),
        spawn_test(eight_threads_on_one_handle),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
