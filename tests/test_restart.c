/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who is dead, and why, after a soft-reboot, a container's restart, and beside time namespaces; a reboot as
 * such is test_boot.c's. (K1, K9, K20, K21)
 */
#include "restart_fixture.h"

#include <sched.h>

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

/* ---- soft-reboot: the same boot id and /run; no process lives, and what PID 1 unmounts is gone ---- */

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

static void world_open_with_time_namespaces(void)
{
    world_open();
    if (!path_exists("/proc/self/timens_offsets"))
        harness_skip("no time namespaces");
}

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
    world_open_with_time_namespaces();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    pid_t outer = supervisor_fork(live_in_time_namespace, "a", 0);
    replay_tells(&all, 0, "");
    assert_string_equal(state_of("a"), "live");
    assert_int_equal(kill(told->payload, SIGKILL), 0);
    payload_is_dead();
    replay_tells(&all, 0, "a 1 present undone\n");
    harness_kill(outer);
}

/* Who has entered a time namespace is not in it: its children are. */
static void replay_in_a_child(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        replay_here(&all);
        _exit(0);
    }
    int status;
    must(pid > 0 && waitpid(pid, &status, 0) == pid);
    _exit(status ? 1 : 0);
}

static void replay_in_time_namespace(void)
{
    enter_time_namespace();
    replay_in_a_child();
}

static void k9_reaper_in_a_time_namespace(void **state)
{
    (void)state;
    world_open_with_time_namespaces();
    pid_t a = supervisor_start("a", 1U << TMPDIR, LIVES);
    replay_apart_tells(replay_in_time_namespace, 0, &all, 0, "");
    assert_string_equal(told->error, "");
    assert_string_equal(state_of("a"), "live");
    harness_kill(a);
    replay_apart_tells(replay_in_time_namespace, 0, &all, 0, "a 1 present undone\n");
}

/* Its uptime there is as good as none. */
static void replay_where_the_boot_has_just_begun(void)
{
    struct timespec up;
    must(clock_gettime(CLOCK_BOOTTIME, &up) == 0 && unshare(CLONE_NEWTIME) == 0);
    write_to("/proc/self/timens_offsets", harness_format("boottime -%lld 0\n", (long long)up.tv_sec));
    replay_in_a_child();
}

static void replay_beside_another_time_namespace(void)
{
    must(unshare(CLONE_NEWTIME) == 0); /* of its children */
}

/* What was born in this boot is a copy for those, too, who are told that it has just begun. */
static void k1_k9_a_copy_seen_from_a_time_namespace(void **state)
{
    (void)state;
    world_open_with_time_namespaces();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    crash_with_plan("a");
    harness_write(in_work("T/content"), "precious");
    (void)usleep(1100000); /* that namespace's boot is a second old at most */
    boot_number = 1;
    same_uptime = true;
    replay_apart_tells(replay_where_the_boot_has_just_begun, 0, &all, 1, "a 1 foreign refused\n");
    assert_non_null(strstr(told->error, "born in this boot, or the clock is behind"));
    replay_apart_tells(replay_beside_another_time_namespace, 0, &all, 1, "a 1 foreign refused\n");
    assert_non_null(strstr(told->error, "when this boot began can't be known"));
    same_uptime = false;
    replay_tells(&all, 0, "a 1 present undone\n");
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
        restart_test(k1_k9_a_copy_seen_from_a_time_namespace),
    };
    cmocka_set_test_filter(getenv("RBXJ_TEST_ONLY"));
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
