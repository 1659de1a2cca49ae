/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A bind mount, whose evidence is journaled before it is attached: its supervisor dies, or the attaching
 * fails (K1, K12, I4).
 */
#include "spawn_fixture.h"

#include <sched.h>
#include <sys/syscall.h>

static int (*at_move)(void); /* 0: go on; else fails with that errno */
static bool die_after_move;

int move_mount(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    int errnum = at_move ? at_move() : 0;
    if (errnum) {
        errno = errnum;
        return -1;
    }
    int rc = (int)syscall(SYS_move_mount, from_fd, from, to_fd, to, flags);
    if (die_after_move)
        die();
    return rc;
}

static bool has_unique_ids(void)
{
    struct statx st;
    return statx(AT_FDCWD, "/", 0, 0x4000 /* STATX_MNT_ID_UNIQUE, 6.8 */, &st) == 0 && st.stx_mask & 0x4000;
}

static const char *source_dir(void)
{
    return harness_format("%s/source", world.work);
}

static void bind_here(const char *type)
{
    struct rbxj_error e = {0};
    struct rbxj *h = open_here();
    struct rbxj_resource r = {
        .kind = RBXJ_MOUNT, .path = part_path("a", MOUNT), .fstype = type, .source = source_dir()};
    struct rbxj_box b = {.name = "a", .plan = &r, .plan_len = 1};
    must_do(rbxj_begin(h, &b, NULL, &e), &e);
    must_do(rbxj_acquire(h, "a", 1, "nosuid", NULL, &e), &e);
}

static void run_dies_after_move(const char *box, unsigned parts)
{
    (void)parts;
    die_after_move = true;
    bind_here(box);
}

static int dying(void)
{
    die();
    return EIO;
}

static void run_dies_before_move(const char *box, unsigned parts)
{
    (void)parts;
    at_move = dying;
    bind_here(box);
}

static void make_source(void)
{
    make_target("a", ALL);
    harness_mkdir(source_dir());
    harness_mkdir(harness_format("%s/sub", source_dir()));
    assert_int_equal(mount("below", harness_format("%s/sub", source_dir()), "tmpfs", 0, "size=64k"), 0);
    if (!has_unique_ids())
        harness_skip("the kernel has no unique mount ids (6.8)");
}

static void world_with_source(void)
{
    world_open();
    make_source();
}

static void k1_a_bind_whose_supervisor_dies_when_it_is_attached_is_undone(void **state)
{
    static const char *const types[] = {"bind", "rbind"};
    (void)state;
    world_with_source();
    harness_write(harness_format("%s/file", source_dir()), "x");
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        (void)supervisor_fork(run_dies_after_move, types[i], 0);
        assert_int_equal(harness_mounts_below(part_path("a", MOUNT)), 1 + i);
        replay_is_clean(1);
        assert_int_equal(harness_mounts_below(part_path("a", MOUNT)), 0);
        assert_int_equal(harness_mounts_below(source_dir()), 1);
        assert_true(path_exists(harness_format("%s/file", source_dir())));
    }
}

/* A copy in a namespace that gets no unmounts from ours is known by what the evidence says that it shows. */
static void k12_its_copy_elsewhere_is_seen(void **state)
{
    (void)state;
    world_with_source();
    (void)supervisor_fork(run_dies_after_move, "bind", 0);
    pid_t other = fork();
    if (other == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
            _exit(1);
        (void)raise(SIGSTOP);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(other, &status, WUNTRACED), other);
    assert_true(WIFSTOPPED(status));
    harness_track(other);
    replay_says(1, "mount", "busy", "failed", "a copy of it is left");
    harness_kill(other);
    replay_is_clean(1);
}

static void k1_one_that_was_not_attached_is_gone(void **state)
{
    (void)state;
    world_with_source();
    (void)supervisor_fork(run_dies_before_move, "bind", 0);
    replay_says(0, "mount", "gone", "already_gone", NULL);
}

/* The same directory, on the same target: only its id tells that it is another's. */
static void i4_a_strangers_bind_is_not_taken_for_one_that_was_not_attached(void **state)
{
    (void)state;
    world_with_source();
    (void)supervisor_fork(run_dies_before_move, "bind", 0);
    assert_int_equal(mount(source_dir(), part_path("a", MOUNT), NULL, MS_BIND, NULL), 0);
    replay_says(1, "mount", "foreign", "refused", "no evidence");
    assert_int_equal(harness_mounts_below(part_path("a", MOUNT)), 1);
}

/* ---- an attaching that fails ---- */

static int failing(void)
{
    at_move = NULL;
    return ENOMEM;
}

/* Begins box a with a bind that is not attached; its intent stays. */
static uint32_t acquire_in_vain(struct rbxj_resource *ret_bind)
{
    uint32_t seq;
    open_with("a");
    make_source();
    *ret_bind = (struct rbxj_resource){
        .kind = RBXJ_MOUNT, .path = part_path("a", MOUNT), .fstype = "bind", .source = source_dir()};
    assert_int_equal(0, rbxj_intend(handle, "a", ret_bind, &seq, &error));
    at_move = failing;
    assert_int_equal(-RBXJ_E_IO, rbxj_acquire(handle, "a", seq, NULL, NULL, &error));
    return seq;
}

static void what_was_not_attached_can_be_acquired_again(void **state)
{
    (void)state;
    struct rbxj_resource r;
    uint32_t seq = acquire_in_vain(&r);
    assert_int_equal(0, harness_mounts_below(r.path));
    assert_true(rbxj_acquired(handle, "a", seq, &error) < 0);
    assert_int_equal(0, rbxj_acquire(handle, "a", seq, NULL, NULL, &error));
    assert_int_equal(-RBXJ_E_EXISTS, rbxj_acquire(handle, "a", seq, NULL, NULL, &error));
    assert_int_equal(1, harness_mounts_below(r.path));
    assert_int_equal(0, rbxj_acquired(handle, "a", seq, &error));
    undo_and_end("a");
    assert_int_equal(0, harness_mounts_below(r.path));
}

/* By the supervisor itself, which then says so, or dies before: it is not taken for gone. */
static void k1_what_was_then_made_in_another_way_counts(void **state)
{
    (void)state;
    struct rbxj_resource r;
    uint32_t seq = acquire_in_vain(&r);
    assert_int_equal(0, mount(r.source, r.path, NULL, MS_BIND, NULL));
    assert_int_equal(-RBXJ_E_LEFT, rbxj_undo(handle, "a", NULL, &error));
    assert_int_equal(1, harness_mounts_below(r.path));
    assert_int_equal(0, rbxj_acquired(handle, "a", seq, &error));
    undo_and_end("a");
    assert_int_equal(0, harness_mounts_below(r.path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        spawn_test(k1_a_bind_whose_supervisor_dies_when_it_is_attached_is_undone),
        spawn_test(k12_its_copy_elsewhere_is_seen),
        spawn_test(k1_one_that_was_not_attached_is_gone),
        spawn_test(i4_a_strangers_bind_is_not_taken_for_one_that_was_not_attached),
        spawn_test(what_was_not_attached_can_be_acquired_again),
        spawn_test(k1_what_was_then_made_in_another_way_counts),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
