/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A lazy detach through the public API, and a reaper that is killed by it (K15, I5).
 */
#include "seams_fixture.h"

#include <sys/syscall.h>

static bool dies; /* after its next detach */

int umount2(const char *target, int flags)
{
    int r = (int)syscall(SYS_umount2, target, flags);
    if (r == 0 && dies && flags & MNT_DETACH)
        die();
    return r;
}

static pid_t live_in(const char *dir)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (chdir(dir) < 0)
            _exit(1);
        (void)raise(SIGSTOP);
        for (;;)
            pause();
    }
    harness_track(pid);
    int status;
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    return pid;
}

static void k15_i5_a_detach_that_kills_the_reaper_is_known(void **state)
{
    (void)state;
    const struct rbxj_replay lazy = {.lazy_umount = 2};
    world_open();
    harness_mkdir(in_work("m"));
    plan_is((struct rbxj_resource){
        .kind = RBXJ_MOUNT, .path = in_work("m"), .fstype = "tmpfs", .source = "rbxj-test"});
    crash_with_plan("a");
    pid_t user = live_in(in_work("m"));
    pid_t reaper = fork();
    if (reaper == 0) {
        dies = true;
        replay_here(&lazy);
        _exit(0);
    }
    harness_track(reaper);
    int status = harness_wait(reaper);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(harness_mounts_below(in_work("m")), 0);
    replay_tells(&(struct rbxj_replay){.dry_run = 1}, 1, "a 1 busy failed\n");
    replay_tells(&lazy, 1, "a 1 busy failed\n");
    harness_kill(user);
    replay_is_clean(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k15_i5_a_detach_that_kills_the_reaper_is_known),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
