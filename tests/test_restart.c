/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who is dead, and why, after a soft-reboot, a container's restart, beside time namespaces, and with a clock that was set
 * back; a reboot as such is test_boot.c's. The library's looks at the boot id and the clocks come here.
 */
#include "seams_fixture.h"

#include <sched.h>
#include <sys/syscall.h>
#include <systemd/sd-id128.h>
#include <time.h>

static uint8_t boot_number; /* of the next boot; 0: the first one */

int sd_id128_get_boot(sd_id128_t *ret)
{
    static const sd_id128_t first = SD_ID128_MAKE(72, 65, 73, 74, 61, 72, 40, 00, 80, 00, 00, 00, 00, 00, 00,
                                                  00);
    *ret = first;
    ret->bytes[15] = boot_number;
    return 0;
}

static time_t clock_shift; /* seconds by which the wall clock is wrong */

/* A later boot begins when it is looked at: what is there is older. */
int clock_gettime(clockid_t clock, struct timespec *ret)
{
    if (boot_number && clock == CLOCK_BOOTTIME) {
        *ret = (struct timespec){0};
        return 0;
    }
    int r = (int)syscall(SYS_clock_gettime, clock, ret);
    if (clock == CLOCK_REALTIME)
        ret->tv_sec += clock_shift;
    return r;
}

static int teardown(void **state)
{
    boot_number = 0;
    clock_shift = 0;
    return harness_teardown(state);
}
#define restart_test(f) cmocka_unit_test_setup_teardown(f, harness_setup, teardown)

static const struct rbxj_replay all;
#define HOUR 3600
#define YEAR (365 * 24 * HOUR)

/* The boxes' causes and outcomes, a line each. */
static void causes(const struct rbxj_result *result, char *text, size_t size)
{
    struct rbxj_result_box box;
    size_t len = 0;
    text[0] = 0;
    for (size_t i = 0; rbxj_result_box(result, i, &box) == 0 && len < size; i++)
        len += (size_t)snprintf(text + len, size - len, "%s %s %s\n", box.box, box.cause, box.outcome);
}

static void replay_causes(const char *expected)
{
    char text[500];
    struct rbxj_result *result = replay(0);
    causes(result, text, sizeof(text));
    rbxj_result_free(result);
    assert_string_equal(text, expected);
}

static void is_healthy(void)
{
    struct rbxj_health health;
    struct rbxj_error e = {0};
    assert_int_equal(rbxj_health(&world.options, &health, &e), 0);
    if (strcmp(health.status, "healthy") != 0)
        fail_msg("%s: %s", health.status, health.last_cleanup_error);
}

/* ---- soft-reboot: the same boot id and /run; every process, and what PID 1 has stopped and unmounted, is gone ---- */

static void empty_group(const char *group)
{
    harness_write(harness_format("%s/cgroup.kill", group), "1");
    for (int i = 0; i < 3000 && rmdir(group) < 0 && errno != ENOENT; i++)
        (void)usleep(10000);
    assert_false(path_exists(group));
}

static void soft_reboot_is_a_supervisors_crash(void **state)
{
    (void)state;
    world_open();
    const char *const boxes[] = {"a", "b"};
    const unsigned int parts = 1U << LOCK | 1U << GROUP | 1U << MOUNT | 1U << TMPDIR;
    make_target("a", parts); /* these were there before */
    make_target("b", parts);
    char *before = machine();
    (void)supervisor_start("a", parts, AFTER_EVIDENCE);
    harness_kill(supervisor_start("b", parts, LIVES));
    for (size_t i = 0; i < ARRAY_LEN(boxes); i++) {
        empty_group(part_path(boxes[i], GROUP));
        assert_int_equal(umount2(part_path(boxes[i], MOUNT), MNT_DETACH), 0);
    }
    replay_tells(&all, 0,
                 "b 4 present undone\nb 3 gone already_gone\nb 2 gone already_gone\nb 1 present undone\n"
                 "a 4 present undone\na 3 gone already_gone\na 2 gone already_gone\na 1 present undone\n");
    is_as_before(before, "soft-reboot");
    is_healthy();
    (void)supervisor_start("a", parts, AFTER_EVIDENCE); /* the names are free */
    replay_causes("a supervisor_crash success\n");
}

/* What systemd lets survive (SurviveFinalKillSignal=) is alive: the boot is no proof of a death. */
static void soft_reboot_that_a_supervisor_survives(void **state)
{
    (void)state;
    world_open();
    pid_t a = supervisor_start("a", 1U << TMPDIR, LIVES);
    (void)supervisor_start("b", 1U << TMPDIR, AFTER_EVIDENCE);
    replay_causes("b supervisor_crash success\n");
    assert_string_equal(state_of("a"), "live");
    harness_kill(a);
    replay_is_clean(1);
}

/* A reboot proves it. */
static void reboot_is_a_systems_crash(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    (void)supervisor_start("a", 1U << TMPDIR, AFTER_EVIDENCE);
    (void)usleep(20000); /* birth times are coarse */
    boot_number = 1;
    replay_causes("a system_crash success\n");
    assert_false(path_exists(part_path("a", TMPDIR)));
    is_healthy();
}

/* ---- a container's restart: the same boot id, another pid namespace, /run gone ---- */

/* One life of a container, as its first process. */
static pid_t container(void (*life)(void))
{
    told->error[0] = 0;
    told->result = -1;
    pid_t outer = fork();
    if (outer == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        must(unshare(CLONE_NEWPID | CLONE_NEWNS) == 0);
        pid_t inner = fork();
        if (inner == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            must(mount("proc", "/proc", "proc", 0, NULL) == 0);
            must(mount("run", world.run, "tmpfs", 0, "mode=0700") == 0);
            must(setenv("RBXJ_DURABILITY", "always", 1) == 0);
            life();
            _exit(0);
        }
        int status;
        told->payload = inner;
        must(inner > 0 && waitpid(inner, &status, 0) == inner);
        _exit(status ? 1 : 0);
    }
    assert_true(outer > 0);
    harness_track(outer);
    return outer;
}

static void contained_plan(struct rbxj *handle, const char *box, pid_t pid)
{
    struct rbxj_resource r = {.kind = RBXJ_TMPDIR};
    char path[PATH_MAX];
    struct rbxj_box b = {.name = box, .supervisor = pid, .plan = &r, .plan_len = 1};
    struct rbxj_error e = {0};
    (void)snprintf(path, sizeof(path), "%s/%s.tmp", world.work, box);
    r.path = path;
    must_do(rbxj_begin(handle, &b, NULL, &e), &e);
    must_do(rbxj_acquire(handle, box, 1, NULL, NULL, &e), &e);
}

static pid_t sleeper(void)
{
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    must(pid > 0);
    return pid;
}

/* A box of its own, with a lock in STATE/alive, and one for another process, without. */
static void first_life(void)
{
    struct rbxj *handle = open_here();
    contained_plan(handle, "own", 0);
    contained_plan(handle, "other", sleeper());
    told->result = 0;
    for (;;)
        pause();
}

/* Somebody has the pid of the other box's supervisor again. */
static void second_life(void)
{
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    struct rbxj_health health;
    (void)sleeper();
    must_do(rbxj_replay(&world.options, &all, &result, &e), &e);
    causes(result, told->error, sizeof(told->error));
    rbxj_result_free(result);
    must_do(rbxj_health(&world.options, &health, &e), &e);
    if (strcmp(health.status, "healthy") != 0)
        (void)snprintf(told->error, sizeof(told->error), "%s: %s", health.status, health.last_cleanup_error);
    struct rbxj *handle = open_here();
    contained_plan(handle, "own", 0);
    contained_plan(handle, "other", sleeper());
    told->result = 1;
}

static void wait_until_told(int result, pid_t pid)
{
    for (int i = 0; i < 3000 && told->result != result && !is_dead(pid); i++)
        (void)usleep(10000);
    if (told->result != result)
        fail_msg("the container came to nothing: %s", told->error);
}

static void k9_k21_container_restarts(void **state)
{
    (void)state;
    world_open();
    pid_t first = container(first_life);
    wait_until_told(0, first);
    /* who is beside it, with a /run of his own, can't even ask while it lives (K21) */
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    assert_int_equal(rbxj_replay(&world.options, &all, &result, &e), -RBXJ_E_JOURNAL_DAMAGED);
    assert_non_null(strstr(e.message, "in use by pid"));
    assert_true(path_exists(in_work("own.tmp")) && path_exists(in_work("other.tmp")));
    harness_kill(first);
    payload_is_dead();                     /* the first process of the container, by its parent's death */
    for (int life = 2; life < 4; life++) { /* and again, after a clean end that ended no box */
        pid_t next = container(second_life);
        if (harness_wait(next) != 0 || told->result != 1)
            fail_msg("life %d: %s", life, told->error);
        assert_string_equal(told->error, "other supervisor_crash success\nown supervisor_crash success\n");
    }
}

/* ---- time namespaces: start times and uptimes of one say nothing in another ---- */

static void enter_time_namespace(void)
{
    must(unshare(CLONE_NEWTIME) == 0);
    write_to("/proc/self/timens_offsets", "monotonic 86400 0\nboottime 86400 0\n");
}

static void live_in_time_namespace(const char *box, unsigned int parts)
{
    (void)parts;
    enter_time_namespace();
    pid_t pid = fork(); /* the first that is in it */
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)take_plan_here(box);
        ready_here();
        for (;;)
            pause();
    }
    must(pid > 0);
    told->payload = pid;
    must(waitpid(pid, NULL, 0) == pid);
    _exit(0);
}

static void k9_supervisor_in_a_time_namespace(void **state)
{
    (void)state;
    world_open();
    if (!path_exists("/proc/self/timens_offsets"))
        harness_skip("no time namespaces");
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    pid_t outer = supervisor_fork(live_in_time_namespace, "a", 0);
    replay_tells(&all, 0, "");
    assert_string_equal(state_of("a"), "live");
    assert_int_equal(kill(told->payload, SIGKILL), 0);
    payload_is_dead();
    replay_tells(&all, 0, "a 1 present undone\n");
    harness_kill(outer);
}

static void replay_in_time_namespace(void)
{
    enter_time_namespace();
    pid_t pid = fork();
    if (pid == 0) {
        replay_here(&all);
        _exit(0);
    }
    int status;
    must(pid > 0 && waitpid(pid, &status, 0) == pid);
    _exit(status ? 1 : 0);
}

static void k9_reaper_in_a_time_namespace(void **state)
{
    (void)state;
    world_open();
    if (!path_exists("/proc/self/timens_offsets"))
        harness_skip("no time namespaces");
    pid_t a = supervisor_start("a", 1U << TMPDIR, LIVES);
    replay_apart_tells(replay_in_time_namespace, 0, &all, 0, "");
    assert_string_equal(told->error, "");
    assert_string_equal(state_of("a"), "live");
    harness_kill(a);
    replay_apart_tells(replay_in_time_namespace, 0, &all, 0, "a 1 present undone\n");
}

/* ---- a clock that was set back ---- */

/* A boot whose clock begins a year too early: a stamp can't be told from a copy's (K1), so it is left, and is no failure;
 * done when the clock is right. */
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
        restart_test(soft_reboot_is_a_supervisors_crash),
        restart_test(soft_reboot_that_a_supervisor_survives),
        restart_test(reboot_is_a_systems_crash),
        restart_test(k9_k21_container_restarts),
        restart_test(k9_supervisor_in_a_time_namespace),
        restart_test(k9_reaper_in_a_time_namespace),
        restart_test(k1_clock_is_behind_after_a_reboot),
        restart_test(clock_is_set_back_within_a_boot),
        restart_test(k4_inner_box_begins_before_the_outer_one),
        restart_test(a_lock_is_older_than_its_intent),
        restart_test(an_incident_before_the_clock_was_set),
    };
    cmocka_set_test_filter(getenv("RBXJ_TEST_ONLY"));
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
