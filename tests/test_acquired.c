/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Between the intent and its evidence: what rbxj_acquired(), rbxj_acquire() and rbxj_mount_source() promise
 * (K1, K13, I7).
 */
#include "gate_fixture.h"
#include "spawn_fixture.h"

/* ---- the source of a mount ---- */

static void run_mounts_and_dies(const char *box, unsigned int parts)
{
    struct rbxj_error e = {0};
    char *source = NULL;
    handle = open_here();
    begin_here(handle, box, parts);
    must_do(rbxj_mount_source(handle, box, 1, &source, &e), &e);
    must(source && mount(source, part_path(box, MOUNT), "tmpfs", 0, NULL) == 0);
    die();
}

static void k1_a_mount_with_that_source_is_known(void **state)
{
    (void)state;
    world_open();
    make_target("a", 1U << MOUNT);
    (void)supervisor_fork(run_mounts_and_dies, "a", 1U << MOUNT);
    assert_int_equal(1, harness_mounts_below(part_path("a", MOUNT)));
    replay_is_clean(1);
    assert_int_equal(0, harness_mounts_below(part_path("a", MOUNT)));
}

static void k1_only_a_mount_has_a_source(void **state)
{
    (void)state;
    world_open();
    make_target("a", 1U << MOUNT);
    if (rbxj_open(&world.options, &handle, &error) < 0)
        fail_msg("open: %s", error.message);
    struct rbxj_resource plan[] = {part_resource("a", MOUNT), part_resource("a", MOUNT),
                                   part_resource("a", LOCK)};
    struct rbxj_box box = {.name = "a", .plan = plan, .plan_len = 3};
    uint64_t incarnation;
    char *source = NULL, *untouched = harness_format("x");
    plan[1].fstype = "bind";
    plan[1].source = world.work;
    assert_int_equal(0, rbxj_begin(handle, &box, &incarnation, &error));
    assert_int_equal(0, rbxj_mount_source(handle, "a", 1, &source, &error));
    assert_string_equal(harness_format("rbxj:%" PRIu64 ":1", incarnation), source);
    free(source);
    assert_int_equal(0, rbxj_mount_source(handle, "a", 2, &source, &error));
    assert_null(source);
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_mount_source(handle, "a", 3, &untouched, &error));
    assert_int_equal(-RBXJ_E_NO_SUCH_BOX, rbxj_mount_source(handle, "a", 4, &untouched, &error));
    assert_int_equal(-RBXJ_E_NO_SUCH_BOX, rbxj_mount_source(handle, "b", 1, &untouched, &error));
    assert_string_equal("x", untouched);
    undo_and_end("a");
}

/* ---- wrong options ---- */

static void a_mount_that_can_not_be_is_a_bad_request(void **state)
{
    (void)state;
    open_with("a");
    make_target("a", ALL);
    const struct {
        const char *fstype, *source, *options;
    } wrong[] = {{"tmpfs", "x", "no-such-option=1"}, {"tmpfs", "x", "size=much"},    {"nosuchfs", "x", NULL},
                 {"tmpfs", "x", "remount"},          {"tmpfs", "x", "loop"},         {"tmpfs", "x", "a=\"b"},
                 {"ext4", "/dev/null", NULL},        {"bind", "/", "shared,private"}};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct rbxj_resource r = part_resource("a", MOUNT);
        uint32_t seq = 0;
        r.fstype = wrong[i].fstype, r.source = wrong[i].source, r.options = wrong[i].options;
        int rc = rbxj_take(handle, "a", &r, NULL, NULL, &error);
        if (rc != -RBXJ_E_BAD_REQUEST)
            fail_msg("take of %s %s: %d: %s", r.fstype, r.options ? r.options : "", rc, error.message);
        nothing_is_left();
        assert_int_equal(0, rbxj_intend(handle, "a", &r, &seq, &error));
        assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_acquire(handle, "a", seq, r.options, NULL, &error));
        assert_int_equal(0, harness_mounts_below(r.path));
        assert_int_equal(0, rbxj_undo(handle, "a", NULL, &error));
    }
    undo_and_end("a");
}

/* ---- twice ---- */

static void acquired_twice_changes_nothing(void **state)
{
    (void)state;
    open_with("a");
    struct rbxj_resource r = part_resource("a", TMPDIR);
    char *file = harness_format("%s/file", r.path);
    uint32_t seq = 0;
    assert_int_equal(0, rbxj_take(handle, "a", &r, &seq, NULL, &error));
    harness_write(file, "x"); /* it is in use by now */
    if (rbxj_acquired(handle, "a", seq, &error) < 0)
        fail_msg("acquired again: %s", error.message);
    /* another one in its place does not become ours (I4) */
    assert_int_equal(0, unlink(file));
    assert_int_equal(0, rmdir(r.path));
    assert_int_equal(-RBXJ_E_EXISTS, rbxj_acquired(handle, "a", seq, &error));
    assert_int_equal(-RBXJ_E_EXISTS, rbxj_acquire(handle, "a", seq, NULL, NULL, &error));
    assert_false(path_exists(r.path)); /* nor is another one made */
    harness_mkdir(r.path);
    assert_int_equal(-RBXJ_E_EXISTS, rbxj_acquired(handle, "a", seq, &error));
    assert_int_equal(-RBXJ_E_LEFT, rbxj_undo(handle, "a", NULL, &error));
    assert_true(path_exists(r.path));
    assert_int_equal(0, rmdir(r.path));
    undo_and_end("a");
    assert_false(path_exists(r.path));
}

static void acquire_is_for_once(void **state)
{
    (void)state;
    open_with("a");
    make_target("a", ALL);
    int locks[2] = {-1, -1};
    for (enum part p = 0; p < PARTS; p++) {
        struct rbxj_resource r = part_resource("a", p);
        uint32_t seq = 0;
        if (!(possible(ALL) & 1U << p))
            continue;
        assert_int_equal(0, rbxj_intend(handle, "a", &r, &seq, &error));
        assert_int_equal(0, rbxj_acquire(handle, "a", seq, NULL, &locks[0], &error));
        int rc = rbxj_acquire(handle, "a", seq, NULL, &locks[1], &error);
        if (rc != -RBXJ_E_EXISTS)
            fail_msg("%s again: %d: %s", part_names[p], rc, error.message);
        if (p == LOCK)
            assert_int_equal(0, flock(locks[0], LOCK_EX | LOCK_NB)); /* still ours */
        if (p == LOCK)
            cleanup_closep(&locks[0]);
    }
    assert_int_equal(1, harness_mounts_below(part_path("a", MOUNT)));
    undo_and_end("a");
    assert_int_equal(0, harness_mounts_below(part_path("a", MOUNT)));
}

/* It was mounted, and its evidence could not be written: another one on top would hide it for ever. */
static void k13_a_mount_is_not_stacked_on_itself(void **state)
{
    (void)state;
    open_with("a");
    for (int below = 0; below < 2; below++) {
        struct rbxj_resource r = part_resource("a", MOUNT),
                             dir = {.kind = RBXJ_TMPDIR, .path = r.path, .flags = RBXJ_RMDIR_ONLY};
        uint32_t seq = 0;
        char *source = NULL;
        if (below) {
            assert_int_equal(0, rmdir(r.path));
            assert_int_equal(0, rbxj_take(handle, "a", &dir, NULL, NULL, &error));
        } else {
            make_target("a", ALL);
        }
        assert_int_equal(0, rbxj_intend(handle, "a", &r, &seq, &error));
        assert_int_equal(0, rbxj_mount_source(handle, "a", seq, &source, &error));
        assert_int_equal(0, mount(source, r.path, "tmpfs", 0, NULL));
        free(source);
        assert_int_equal(-RBXJ_E_EXISTS, rbxj_acquire(handle, "a", seq, NULL, NULL, &error));
        assert_int_equal(1, harness_mounts_below(r.path));
        assert_int_equal(0, rbxj_acquired(handle, "a", seq, &error)); /* that is the way */
        assert_int_equal(0, rbxj_undo(handle, "a", NULL, &error));
        assert_int_equal(0, harness_mounts_below(r.path));
    }
    undo_and_end("a");
}

/* ---- out of order ---- */

/* Before the mount is there its inner path leads to the directory below it. */
static void k13_what_lies_in_a_mount_is_acquired_after_it(void **state)
{
    (void)state;
    open_with("a");
    make_target("a", ALL);
    struct rbxj_resource outer = part_resource("a", MOUNT), inner = part_resource("a", INNER);
    char *path = harness_format("%s", inner.path);
    assert_int_equal(0, rbxj_intend(handle, "a", &outer, &(uint32_t){0}, &error));
    assert_int_equal(0, rbxj_intend(handle, "a", &inner, &(uint32_t){0}, &error));
    harness_mkdir(path);
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_acquired(handle, "a", 2, &error));
    assert_int_equal(0, rmdir(path));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_acquire(handle, "a", 2, NULL, NULL, &error));
    assert_false(path_exists(path));
    assert_int_equal(0, rbxj_acquire(handle, "a", 1, NULL, NULL, &error));
    harness_mkdir(path);
    assert_int_equal(0, rbxj_acquired(handle, "a", 2, &error));
    undo_and_end("a");
}

static void k13_what_lies_in_a_directory_is_acquired_after_it(void **state)
{
    (void)state;
    open_with("a");
    struct rbxj_resource outer = part_resource("a", TMPDIR), inner = outer;
    char *path = harness_format("%s/in", outer.path);
    inner.path = path;
    assert_int_equal(0, rbxj_intend(handle, "a", &outer, &(uint32_t){0}, &error));
    assert_int_equal(0, rbxj_intend(handle, "a", &inner, &(uint32_t){0}, &error));
    harness_mkdir(outer.path);
    harness_mkdir(path);
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_acquired(handle, "a", 2, &error));
    assert_int_equal(-RBXJ_E_EXISTS, rbxj_acquired(handle, "a", 1, &error)); /* not empty */
    assert_int_equal(0, rmdir(path));
    assert_int_equal(0, rbxj_acquired(handle, "a", 1, &error));
    harness_mkdir(path);
    assert_int_equal(0, rbxj_acquired(handle, "a", 2, &error));
    undo_and_end("a");
    assert_false(path_exists(outer.path));
}

/* It would be undone after that one, with which it goes out of sight, and pass for gone: on a disk it would
 * stay. */
static void k13_i7_nothing_is_acquired_in_a_newer_mount(void **state)
{
    (void)state;
    open_with("a");
    make_target("a", ALL);
    const char *stays = harness_format("%s/stays", world.work);
    char *inner = harness_format("%s", part_path("a", INNER)), *file = harness_format("%s/file", stays);
    char *hidden = harness_format("%s/file", part_path("a", MOUNT));
    harness_mkdir(stays);
    struct rbxj_resource over = {
        .kind = RBXJ_MOUNT, .path = part_path("a", MOUNT), .fstype = "bind", .source = stays};
    struct rbxj_resource plan[] = {
        part_resource("a", MOUNT), {.kind = RBXJ_TMPDIR, .path = inner}, {.kind = RBXJ_LOCK, .path = hidden}};
    int lock = -1;
    for (uint32_t i = 0; i < ARRAY_LEN(plan); i++)
        assert_int_equal(0, rbxj_intend(handle, "a", &plan[i], &(uint32_t){0}, &error));
    assert_int_equal(0, rbxj_acquire(handle, "a", 1, NULL, NULL, &error));
    assert_int_equal(0, rbxj_take(handle, "a", &over, NULL, NULL, &error));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_acquire(handle, "a", 2, NULL, NULL, &error));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_acquire(handle, "a", 3, NULL, &lock, &error));
    harness_mkdir(inner); /* and whoever makes it himself is told to give it back */
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_acquired(handle, "a", 2, &error));
    assert_int_equal(0, rmdir(inner));
    struct rbxj_resource newest = {.kind = RBXJ_LOCK, .path = hidden};
    assert_int_equal(0, rbxj_released(handle, "a", 3, &error));
    assert_int_equal(0, rbxj_take(handle, "a", &newest, NULL, &lock, &error));
    assert_true(path_exists(file));
    (void)close(lock); /* or it keeps the mount busy */
    undo_and_end("a");
    assert_false(path_exists(file));
    assert_int_equal(0, rmdir(stays));
}

/* Nor what is not below an item, where a mount of the box hides the directory that was meant. */
static void k13_i7_nothing_is_acquired_under_a_newer_mount(void **state)
{
    (void)state;
    open_with("a");
    const char *dir = harness_format("%s/dir", world.work), *stays = harness_format("%s/stays", world.work);
    harness_mkdir(dir);
    harness_mkdir(stays);
    struct rbxj_resource lock = {.kind = RBXJ_LOCK, .path = harness_format("%s/lock", dir)};
    struct rbxj_resource over = {.kind = RBXJ_MOUNT, .path = dir, .fstype = "bind", .source = stays};
    int fd = -1;
    assert_int_equal(0, rbxj_intend(handle, "a", &lock, &(uint32_t){0}, &error));
    assert_int_equal(0, rbxj_take(handle, "a", &over, NULL, NULL, &error));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_acquire(handle, "a", 1, NULL, &fd, &error));
    undo_and_end("a");
    assert_int_equal(0, rmdir(stays));

    /* a stranger's, of another file system */
    begin("a", NULL, 0);
    assert_int_equal(0, rbxj_intend(handle, "a", &lock, &(uint32_t){0}, &error));
    assert_int_equal(0, mount("rbxj-test", dir, "tmpfs", 0, NULL));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_acquire(handle, "a", 1, NULL, &fd, &error));
    harness_write(lock.path, "");
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_acquired(handle, "a", 1, &error));
    assert_int_equal(0, umount(dir));
    assert_int_equal(0, rbxj_acquire(handle, "a", 1, NULL, &fd, &error));
    undo_and_end("a");
    (void)close(fd);
}

/* ---- before-images ---- */

static void a_stale_box_is_in_the_way(void **state)
{
    (void)state;
    world_open();
    harness_write(part_path("a", LOCK), "as it was");
    if (rbxj_open(&world.options, &handle, &error) < 0)
        fail_msg("open: %s", error.message);
    (void)supervisor_start("a", 1U << LOCK, AFTER_EVIDENCE);
    struct rbxj_resource r = part_resource("a", LOCK);
    struct rbxj_box again = {.name = "a", .plan = &r, .plan_len = 1}, other = again;
    int lock = -1;
    other.name = "b";
    assert_int_equal(-RBXJ_E_BOX_STALE, rbxj_begin(handle, &again, NULL, &error));
    assert_int_equal(-RBXJ_E_EXISTS, rbxj_begin(handle, &other, NULL, &error));
    begin("b", NULL, 0);
    assert_int_equal(-RBXJ_E_EXISTS, rbxj_intend(handle, "b", &r, &(uint32_t){0}, &error));
    replay_is_clean(1);
    assert_int_equal(0, rbxj_take(handle, "b", &r, NULL, &lock, &error));
    undo_and_end("b");
    (void)close(lock);
    assert_string_equal("as it was", harness_read(r.path));
}

static void run_begins_held_up(const char *box, int said, int asked, bool intends)
{
    struct rbxj_error e = {0};
    struct rbxj_resource r = part_resource("a", LOCK);
    struct rbxj_box b = {.name = box, .plan = &r, .plan_len = 1};
    handle = open_here();
    if (intends)
        begin_here(handle, box, 0);
    tell(said);
    hear(asked);
    told->result = intends ? rbxj_intend(handle, box, &r, &(uint32_t){0}, &e)
                           : rbxj_begin(handle, &b, NULL, &e);
    tell(said);
    for (;;)
        pause();
}

/* It waits for the gate, with a before-image of what a dead box had there; until its intent is written, that
 * box is undone. */
static void a_before_image_is_of_no_dead_box(void **state)
{
    (void)state;
    const char *const after[] = {"as it was", NULL};
    world_open_with_gate_timeout("60s");
    for (size_t i = 0; i < 4; i++) {
        int said[2], asked[2];
        const char *box = i / 2 ? "c" : "b", *path = part_path("a", LOCK);
        harness_write(path, "what a dead box wrote");
        assert_int_equal(0, pipe2(said, O_CLOEXEC));
        assert_int_equal(0, pipe2(asked, O_CLOEXEC));
        pid_t pid = fork();
        if (pid == 0)
            run_begins_held_up(box, said[1], asked[0], i / 2);
        harness_track(pid);
        (void)close(said[1]);
        heard(said[0]);
        struct gate_page *gates = map_gate();
        assert_int_equal(0, gate_lock(&gates->boot, "test", 10000000000, NULL));
        tell(asked[1]);
        wait_for_waiter(gates, pid);
        if (after[i % 2])
            harness_write(path, after[i % 2]);
        else
            assert_int_equal(0, unlink(path));
        gate_unlock(&gates->boot);
        heard(said[0]);
        (void)munmap(gates, sizeof(*gates));
        assert_int_equal(-RBXJ_E_EXISTS, told->result);
        assert_int_equal(0, records(box, NULL));
        if (i / 2 == 0)
            assert_null(state_of(box));
        harness_kill(pid);
        (void)close(said[0]);
        (void)close(asked[0]);
        (void)close(asked[1]);
        rbxj_result_free(replay(0));
        assert_int_equal(after[i % 2] != NULL, path_exists(path));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        spawn_test(k1_a_mount_with_that_source_is_known),
        spawn_test(k1_only_a_mount_has_a_source),
        spawn_test(a_mount_that_can_not_be_is_a_bad_request),
        spawn_test(acquired_twice_changes_nothing),
        spawn_test(acquire_is_for_once),
        spawn_test(k13_a_mount_is_not_stacked_on_itself),
        spawn_test(k13_what_lies_in_a_mount_is_acquired_after_it),
        spawn_test(k13_what_lies_in_a_directory_is_acquired_after_it),
        spawn_test(k13_i7_nothing_is_acquired_in_a_newer_mount),
        spawn_test(k13_i7_nothing_is_acquired_under_a_newer_mount),
        spawn_test(a_stale_box_is_in_the_way),
        spawn_test(a_before_image_is_of_no_dead_box),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
