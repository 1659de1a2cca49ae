/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj_take(), and one handle for many threads.
 */
#include "spawn_fixture.h"

#include "reaper/handle.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>

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

static void take_that_fails(struct rbxj_resource r, int code)
{
    int fd = -7;
    uint32_t seq = 77;
    int rc = rbxj_take(handle, "a", &r, &seq, &fd, &error);
    if (rc != code)
        fail_msg("take of %s: %d, not %d: %s", r.path, rc, code, error.message);
    assert_true(fd == -7 && seq == 77); /* untouched */
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

/* ---- what somebody else made between the intent and the acquisition ---- */

static void (*at_mkdir)(const char *name), (*at_flock)(void);

int mkdirat(int dirfd, const char *name, mode_t mode)
{
    if (at_mkdir)
        at_mkdir(name);
    return (int)syscall(SYS_mkdirat, dirfd, name, mode);
}

int flock(int fd, int operation)
{
    if (at_flock)
        at_flock();
    return (int)syscall(SYS_flock, fd, operation);
}

static const char *strangers;
static int strangers_fd;

static void a_stranger_makes_it(const char *name)
{
    (void)name;
    at_mkdir = NULL;
    harness_mkdir(strangers);
}

static void a_stranger_fills_it(const char *name)
{
    a_stranger_makes_it(name);
    harness_write(harness_format("%s/file", strangers), "x");
}

static void i4_what_a_stranger_made_first_is_left(void **state)
{
    (void)state;
    open_with("a");
    make_target("a", ALL);
    const enum part parts[] = {TMPDIR, GROUP};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (!(possible(ALL) & 1U << parts[i]))
            continue;
        strangers = part_path("a", parts[i]);
        at_mkdir = a_stranger_makes_it;
        take_that_fails(part_resource("a", parts[i]), -RBXJ_E_EXISTS);
        assert_null(at_mkdir);
        assert_true(path_exists(strangers));
        assert_int_equal(rmdir(strangers), 0);
    }
    strangers = part_path("a", TMPDIR);
    at_mkdir = a_stranger_fills_it; /* else its record would be refused, and the box could not end */
    take_that_fails(part_resource("a", TMPDIR), -RBXJ_E_EXISTS);
    assert_true(path_exists(harness_format("%s/file", strangers)));
    undo_and_end("a");
    assert_true(path_exists(harness_format("%s/file", strangers)));
}

/* Below a record of the box nothing is looked at before (K13): there it can be made before the intent. */
/* ---- the same with an intent that stays: it tells that what is there is another's ---- */

static uint32_t intended(struct rbxj_resource r)
{
    uint32_t seq = 0;
    if (rbxj_intend(handle, "a", &r, &seq, &error) < 0)
        fail_msg("intend %s: %s", r.path, error.message);
    return seq;
}

static void k1_what_acquire_found_there_is_never_undone(void **state)
{
    (void)state;
    open_with("a");
    make_target("a", ALL);
    for (int i = 0; i < 4; i++) {
        enum part part = i % 2 ? GROUP : TMPDIR;
        strangers = part_path("a", part);
        uint32_t seq = intended(part_resource("a", part));
        at_mkdir = a_stranger_makes_it;
        assert_int_equal(-RBXJ_E_EXISTS, rbxj_acquire(handle, "a", seq, NULL, NULL, &error));
        if (i < 2) { /* he goes, and it is ours after all */
            assert_int_equal(0, rmdir(strangers));
            assert_int_equal(0, rbxj_acquire(handle, "a", seq, NULL, NULL, &error));
        }
        assert_int_equal(0, rbxj_undo(handle, "a", NULL, &error));
        assert_int_equal(i >= 2, path_exists(strangers));
        assert_true(i < 2 || rmdir(strangers) == 0);
    }
    strangers = part_path("a", TMPDIR);
    uint32_t seq = intended(part_resource("a", TMPDIR));
    at_mkdir = a_stranger_fills_it;
    assert_int_equal(-RBXJ_E_EXISTS, rbxj_acquire(handle, "a", seq, NULL, NULL, &error));
    seq = intended(part_resource("a", MOUNT));
    assert_int_equal(0, mount("rbxj-test", part_path("a", MOUNT), "tmpfs", 0, NULL));
    assert_int_equal(-RBXJ_E_EXISTS, rbxj_acquire(handle, "a", seq, NULL, NULL, &error));
    int lock = -1;
    seq = intended(part_resource("a", LOCK));
    harness_write(part_path("a", LOCK), "his");
    assert_int_equal(-RBXJ_E_EXISTS, rbxj_acquire(handle, "a", seq, NULL, &lock, &error));
    undo_and_end("a");
    assert_true(path_exists(harness_format("%s/file", strangers)));
    assert_int_equal(1, harness_mounts_below(part_path("a", MOUNT)));
    assert_string_equal("his", harness_read(part_path("a", LOCK)));
}

static struct rlimit files;

static void no_descriptor_after_it(const char *name)
{
    (void)name;
    at_mkdir = NULL;
    struct rlimit none = {.rlim_cur = 0, .rlim_max = files.rlim_max};
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &none));
}

/* It was made, but could not be stamped: another try finds it there, and it is no stranger's for that. */
static void k1_what_an_earlier_try_made_is_ours(void **state)
{
    (void)state;
    open_with("a");
    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &files));
    uint32_t seq = intended(part_resource("a", TMPDIR));
    at_mkdir = no_descriptor_after_it;
    int r = rbxj_acquire(handle, "a", seq, NULL, NULL, &error);
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &files));
    assert_int_equal(-RBXJ_E_IO, r);
    assert_true(path_exists(part_path("a", TMPDIR)));
    assert_int_equal(-RBXJ_E_EXISTS, rbxj_acquire(handle, "a", seq, NULL, NULL, &error));
    undo_and_end("a");
    assert_false(path_exists(part_path("a", TMPDIR)));
}

static void dies_there(const char *name)
{
    a_stranger_fills_it(name);
    die();
}

static void dies_there_before_it_is_filled(const char *name)
{
    a_stranger_makes_it(name);
    die();
}

static void (*meets)(const char *name);

static void run_into_it(const char *box, unsigned int parts)
{
    struct rbxj_error e = {0};
    struct rbxj *own = open_here();
    (void)parts;
    begin_here(own, box, 1U << TMPDIR);
    at_mkdir = meets;
    told->result = rbxj_acquire(own, box, 1, NULL, NULL, &e);
    die();
}

/* Killed after it was told; and before that, when nobody can tell it from one that was made for the box: then what is
 * empty is removed, and nothing else (K1). */
static void k1_a_replay_leaves_what_acquire_found_there(void **state)
{
    (void)state;
    void (*const deaths[])(const char *name) = {a_stranger_makes_it, a_stranger_fills_it, dies_there,
                                                dies_there_before_it_is_filled};
    world_open();
    for (size_t i = 0; i < ARRAY_LEN(deaths); i++) {
        strangers = harness_format("%s", part_path("a", TMPDIR));
        told->result = 0;
        meets = deaths[i];
        (void)supervisor_fork(run_into_it, "a", 0);
        assert_int_equal(i < 2 ? -RBXJ_E_EXISTS : 0, told->result);
        rbxj_result_free(replay(i == 2)); /* who has filled his is refused */
        assert_int_equal(i != 3, path_exists(strangers));
        (void)unlink(harness_format("%s/file", strangers));
        if (i == 2)
            rbxj_result_free(replay(0));
        else
            (void)rmdir(strangers);
    }
    assert_null(state_of("a"));
}

static void i4_a_lock_that_a_stranger_made_first_is_left(void **state)
{
    (void)state;
    open_with("a");
    struct rbxj_resource dir = part_resource("a", TMPDIR);
    for (int empty = 0; empty < 2; empty++) {
        char *path = harness_format("%s/lock%d", dir.path, empty);
        struct rbxj_resource file = {.kind = RBXJ_LOCK, .path = path};
        int fd = -1;
        if (!path_exists(dir.path))
            assert_int_equal(0, rbxj_take(handle, "a", &dir, NULL, NULL, &error));
        harness_write(path, empty ? "" : "{\"pid\":1}");
        assert_int_equal(-RBXJ_E_EXISTS, rbxj_take(handle, "a", &file, NULL, &fd, &error));
        assert_int_equal(1, records("a", NULL));
        assert_string_equal(empty ? "" : "{\"pid\":1}", harness_read(path));
    }
    undo_and_end("a");
}

static void a_stranger_writes_into_it(void)
{
    at_flock = NULL;
    int fd = open(strangers, O_RDWR | O_CLOEXEC);
    assert_int_equal(0, flock(fd, LOCK_EX));
    harness_write(strangers, "{\"pid\":2}");
    strangers_fd = fd;
}

static void i4_a_lock_that_was_there_is_not_touched(void **state)
{
    (void)state;
    open_with("a");
    strangers = part_path("a", LOCK);
    harness_write(strangers, "{\"pid\":1}");
    at_flock = a_stranger_writes_into_it;
    take_that_fails(part_resource("a", LOCK), -RBXJ_E_BUSY);
    assert_null(at_flock);
    assert_string_equal("{\"pid\":2}", harness_read(strangers));
    (void)close(strangers_fd);
    undo_and_end("a");
    assert_string_equal("{\"pid\":2}", harness_read(strangers));
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

/* With one descriptor less than it needs, two less, and so on: what it made half-way is taken back, or known to
 * rbxj_undo(). */
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
        spawn_test(i4_what_a_stranger_made_first_is_left),
        spawn_test(k1_what_acquire_found_there_is_never_undone),
        spawn_test(k1_what_an_earlier_try_made_is_ours),
        spawn_test(k1_a_replay_leaves_what_acquire_found_there),
        spawn_test(i4_a_lock_that_a_stranger_made_first_is_left),
        spawn_test(i4_a_lock_that_was_there_is_not_touched),
        spawn_test(i8_only_that_record_is_taken_back),
        spawn_test(k7_a_lock_is_taken_back_under_its_flock),
        spawn_test(a_take_without_descriptors_leaves_nothing_unknown),
        spawn_test(eight_threads_on_one_handle),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
