/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj_spawn() into a cgroup that is frozen, or that freezes, or of a child that is stopped: it never waits
 * for ever (K6).
 */
#include "spawn_fixture.h"

#include <sys/socket.h>
#include <sys/syscall.h>

static void (*at_go)(void); /* when the child is let go: after it was put into its cgroups */

ssize_t send(int fd, const void *data, size_t len, int flags)
{
    void (*act)(void) = at_go;
    at_go = NULL;
    if (act)
        act();
    return syscall(SYS_sendto, fd, data, len, flags, NULL, 0);
}

static void freeze(enum part part, bool frozen)
{
    const char *path = part_path("a", part);
    if (part == GROUP)
        harness_write(harness_format("%s/cgroup.freeze", path), frozen ? "1" : "0");
    else
        harness_write(harness_format("%s/freezer.state", path), frozen ? "FROZEN" : "THAWED");
}

static uint32_t group_of_box(enum part part)
{
    uint32_t seq = 0;
    struct rbxj_resource r = part_resource("a", part);
    if (rbxj_take(handle, "a", &r, &seq, NULL, &error) < 0)
        fail_msg("take: %s", error.message);
    return seq;
}

static void says_busy(const struct rbxj_spawn *how, const char *text)
{
    pid_t pid = -7;
    int r = spawn(how, &pid);
    if (r != -RBXJ_E_BUSY || !strstr(error.message, text))
        fail_msg("spawn: %d: %s, not \"%s\"", r, error.message, text);
    assert_int_equal(-7, pid);
}

static void no_child_is_left(size_t processes)
{
    siginfo_t info = {0};
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid)
        fail_msg("pid %d was not reaped", info.si_pid);
    assert_int_equal(processes, records("a", "process"));
}

static void k6_nothing_is_started_in_a_frozen_cgroup(void **state)
{
    (void)state;
    open_with("a");
    for (enum part p = GROUP; p <= GROUP_V1; p++) {
        pid_t pid;
        if (p == GROUP_V1 && !world.group_v1)
            continue;
        uint32_t seq = group_of_box(p);
        struct rbxj_spawn how = {.argv = run_true, .cgroups = &seq, .cgroups_len = 1};
        freeze(p, true);
        says_busy(&how, "is frozen");
        no_child_is_left(p - GROUP);
        freeze(p, false);
        assert_int_equal(0, spawn(&how, &pid));
        assert_int_equal(0, exit_status(pid));
    }
    undo_and_end("a");
}

/* ---- what is done to it on its way ---- */

static enum part freezing;

static void freeze_it(void)
{
    freeze(freezing, true);
}

/* Its patience is short; that of the undo is not. */
static void reopen(const char *timeout)
{
    char *conf = harness_format("%s/spawn.conf", harness_disk());
    harness_write(conf, harness_format("[replay]\ntimeout=%s\n", timeout));
    world.options.config = conf;
    rbxj_close(handle);
    handle = NULL;
    if (rbxj_open(&world.options, &handle, &error) < 0)
        fail_msg("open: %s", error.message);
}

static void k6_one_that_is_frozen_on_its_way_is_given_up(void **state)
{
    (void)state;
    open_with("a");
    for (freezing = GROUP; freezing <= GROUP_V1; freezing++) {
        if (freezing == GROUP_V1 && !world.group_v1)
            continue;
        uint32_t seq = group_of_box(freezing);
        struct rbxj_spawn how = {.argv = run_true, .cgroups = &seq, .cgroups_len = 1};
        reopen("1s");
        at_go = freeze_it;
        says_busy(&how, "is frozen");
        bool left = strstr(error.detail, "does not die yet");
        reopen("60s");
        if (freezing == GROUP) { /* v2: one that is killed dies frozen */
            no_child_is_left(0);
            freeze(GROUP, false);
            continue;
        }
        assert_true(left);
        assert_int_equal(1, records("a", "process")); /* and the undo thaws */
    }
    undo_and_end("a");
    if (world.group_v1)
        (void)waitpid(-1, NULL, 0);
}

static pid_t last_child(void)
{
    pid_t pid = 0, next;
    FILE *children = fopen(harness_format("/proc/self/task/%d/children", gettid()), "re");
    assert_non_null(children);
    while (fscanf(children, "%d", &next) == 1)
        pid = next;
    (void)fclose(children);
    assert_true(pid > 0);
    return pid;
}

static void stop_it(void)
{
    int status;
    pid_t pid = last_child();
    assert_int_equal(0, kill(pid, SIGSTOP));
    assert_int_equal(pid, waitpid(pid, &status, WUNTRACED));
}

static void k6_one_that_is_stopped_on_its_way_is_given_up(void **state)
{
    (void)state;
    open_with("a");
    reopen("1s");
    struct rbxj_spawn how = {.argv = run_true};
    at_go = stop_it;
    says_busy(&how, "state T");
    no_child_is_left(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        spawn_test(k6_nothing_is_started_in_a_frozen_cgroup),
        spawn_test(k6_one_that_is_frozen_on_its_way_is_given_up),
        spawn_test(k6_one_that_is_stopped_on_its_way_is_given_up),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
