/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A wall clock that was set back, or starts in the past (K1, K4, K8).
 */
#include "restart_fixture.h"

#define HOUR 3600
#define YEAR (365 * 24 * HOUR)

/* A boot whose clock begins a year too early: a stamp can't be told from a copy's (K1), so it is left, and is
 * no failure; done when the clock is right. */
static void k1_clock_is_behind_after_a_reboot(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    crash_with_plan("a");
    harness_write(in_work("T/content"), "data");
    (void)usleep(20000); /* birth times are coarse */
    boot_number = 1;
    clock_shift = -YEAR;
    for (int i = 0; i < 4; i++) /* more often than quarantines a worker */
        replay_tells(&all, 1, "a 1 foreign refused\n");
    assert_string_equal(harness_read(in_work("T/content")), "data");
    struct rbxj_health health;
    struct rbxj_error e = {0};
    assert_int_equal(rbxj_health(&world.options, &health, &e), 0);
    assert_string_equal(health.status, "unhealthy");
    assert_int_equal(health.failed_cleanup_count, 0);
    clock_shift = 0;
    replay_tells(&all, 0, "a 1 present undone\n");
    is_healthy();
}

/* Two clocks tell when this boot began, and the reaper may be stopped between them: a copy of this boot is
 * one still. */
static void k1_a_reaper_that_is_stopped_between_two_clocks(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    boot_began_ns = now_monotonic_ns();
    (void)usleep(20000); /* birth times are coarse */
    crash_with_plan("a");
    harness_write(in_work("T/content"), "precious");
    boot_number = 1;
    slowness = 3;
    replay_tells(&all, 1, "a 1 foreign refused\n");
    assert_string_equal(harness_read(in_work("T/content")), "precious");
}

static void make_lock_and_die(const char *box, unsigned int parts)
{
    (void)parts;
    (void)take_plan_here(box);
    must(truncate(plan[0].path, 0) == 0); /* as if it had come no further */
    die();
}

/* An empty lock with our stamp may be ours, or a copy: that is told, and nothing forgotten. */
static void k1_an_empty_lock_that_may_be_a_copy(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("L")});
    (void)supervisor_fork(make_lock_and_die, "a", 0);
    (void)usleep(20000);
    boot_number = 1;
    clock_shift = -YEAR;
    struct rbxj_result_entry entry;
    struct rbxj_result *result = replay_how(&all, 1);
    assert_int_equal(rbxj_result_entry(result, 0, 0, &entry), 0);
    assert_string_equal(entry.outcome, "refused");
    assert_non_null(strstr(entry.error->message, "born in this boot, or the clock is behind"));
    rbxj_result_free(result);
    clock_shift = 0;
    replay_tells(&all, 0, "a 1 present undone\n");
    assert_false(path_exists(in_work("L")));
}

/* Within a boot the wall clock says nothing of who lives and of what is ours. */
static void clock_is_set_back_within_a_boot(void **state)
{
    (void)state;
    world_open();
    unsigned int parts = possible(ALL);
    make_target("a", parts);
    make_target("b", parts);
    make_target("c", parts);
    (void)supervisor_start("a", parts, AFTER_EVIDENCE);
    clock_shift = -HOUR; /* a file system's clock stays the right one here */
    (void)supervisor_start("b", parts, AFTER_ACQUISITION);
    pid_t c = supervisor_start("c", parts, LIVES);
    clock_shift = -YEAR;
    assert_string_equal(state_of("c"), "live");
    struct rbxj_result *result = replay(0);
    struct rbxj_result_info info;
    rbxj_result_info(result, &info);
    assert_int_equal(info.boxes, 2);
    assert_int_equal(info.live, 1);
    rbxj_result_free(result);
    harness_kill(c);
    replay_is_clean(1);
    is_healthy();
}

static void run_in_outer(const char *box, unsigned int parts)
{
    struct rbxj_resource r = {.kind = RBXJ_TMPDIR, .path = plan[1].path};
    struct rbxj_box b = {.name = box, .parent = "outer", .plan = &r, .plan_len = 1};
    struct rbxj_error e = {0};
    struct rbxj *handle = open_here();
    (void)parts;
    must_do(rbxj_begin(handle, &b, NULL, &e), &e);
    must_do(rbxj_acquire(handle, box, 1, NULL, NULL, &e), &e);
}

/* The inner box is the younger one, whatever the clock says: it is undone first, and at the first try. */
static void k4_inner_box_begins_before_the_outer_one(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")},
            (struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T/in")});
    plan_len = 1;
    pid_t outer = supervisor_fork(run_plan_and_live, "outer", 0);
    clock_shift = -HOUR;
    pid_t inner = supervisor_fork(run_in_outer, "inner", 0);
    harness_kill(outer);
    harness_kill(inner);
    replay_tells(&all, 0, "inner 1 present undone\nouter 1 present undone\n");
    is_healthy();
}

static void run_and_set_back(const char *box, unsigned int parts)
{
    struct rbxj_error e = {0};
    int fd = -1;
    (void)parts;
    clock_shift = HOUR; /* the file system's clock is the right one */
    struct rbxj *handle = begin_plan_here(box);
    clock_shift = 0;
    write_to(plan[1].path, ""); /* of who makes it himself that can't be told from an older one */
    must(rbxj_acquired(handle, box, 2, &e) == -RBXJ_E_EXISTS);
    must(unlink(plan[1].path) == 0);
    must_do(rbxj_acquire(handle, box, 1, NULL, &fd, &e), &e);
    die();
}

/* Between the intent and the acquisition. */
static void a_lock_is_older_than_its_intent(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("L")},
            (struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("M")});
    (void)supervisor_fork(run_and_set_back, "a", 0);
    replay_tells(&all, 0, "a 2 gone already_gone\na 1 present undone\n");
}

static size_t incidents(void)
{
    struct rbxj_incidents *found = NULL;
    struct rbxj_error e = {0};
    assert_int_equal(rbxj_incidents(&world.options, NULL, 0, &found, &e), 0);
    size_t n = rbxj_incidents_len(found);
    rbxj_incidents_free(found);
    return n;
}

/* A machine without a battery boots in 1970. What it found then is not years old when the clock is right. */
static void an_incident_before_the_clock_was_set(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    for (size_t n = 1; n <= 3; n++) {
        clock_shift = n == 1 ? HOUR - time(NULL) : 0;
        crash_with_plan("a");
        replay_is_clean(1);
        assert_int_equal(incidents(), n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        restart_test(k1_clock_is_behind_after_a_reboot),
        restart_test(k1_a_reaper_that_is_stopped_between_two_clocks),
        restart_test(k1_an_empty_lock_that_may_be_a_copy),
        restart_test(clock_is_set_back_within_a_boot),
        restart_test(k4_inner_box_begins_before_the_outer_one),
        restart_test(a_lock_is_older_than_its_intent),
        restart_test(an_incident_before_the_clock_was_set),
    };
    cmocka_set_test_filter(getenv("RBXJ_TEST_ONLY"));
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
