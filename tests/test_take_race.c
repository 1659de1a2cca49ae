/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj_take() and rbxj_acquire() where somebody else is faster: what is there is his (I4).
 */
#include "spawn_fixture.h"

#include <sys/resource.h>
#include <sys/syscall.h>

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

/* Killed after it was told; and before that, when nobody can tell it from one that was made for the box: then
 * what is empty is removed, and nothing else (K1). */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        spawn_test(i4_what_a_stranger_made_first_is_left),
        spawn_test(k1_what_acquire_found_there_is_never_undone),
        spawn_test(k1_what_an_earlier_try_made_is_ours),
        spawn_test(k1_a_replay_leaves_what_acquire_found_there),
        spawn_test(i4_a_lock_that_a_stranger_made_first_is_left),
        spawn_test(i4_a_lock_that_was_there_is_not_touched),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
