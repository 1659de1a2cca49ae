/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Between the intent and its evidence: what rbxj_acquired(), rbxj_acquire() and rbxj_mount_source() promise.
 */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        spawn_test(k1_a_mount_with_that_source_is_known),
        spawn_test(k1_only_a_mount_has_a_source),
        spawn_test(a_mount_that_can_not_be_is_a_bad_request),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
