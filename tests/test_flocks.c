/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who holds a flock, where a file system has no device of its own (K7).
 */
#include "harness.h"

#include "reaper/flocks.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_it(void *data, pid_t pid)
{
    return pid == *(pid_t *)data;
}

/* An overlay of layers on two file systems: stat(2) tells another device than the kernel's locks do. */
static char *file_on_an_overlay(void)
{
    const char *lower = harness_disk(), *upper = harness_format("%s/upper", harness_tmpfs()),
               *scratch = harness_format("%s/work", harness_tmpfs()),
               *target = harness_format("%s/overlay", harness_tmpfs());
    assert_int_equal(mkdir(upper, 0700) + mkdir(scratch, 0700) + mkdir(target, 0700), 0);
    if (mount("overlay", target, "overlay", 0,
              harness_format("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, scratch)) < 0)
        harness_skip("no overlayfs here");
    return harness_format("%s/lock", target);
}

static pid_t hold(const char *path)
{
    int pipes[2];
    char byte;
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(path, O_RDWR | O_CREAT, 0600);
        if (fd < 0 || flock(fd, LOCK_EX) < 0 || write(pipes[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    assert_true(pid > 0);
    harness_track(pid);
    close(pipes[1]);
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    close(pipes[0]);
    return pid;
}

static void k7_held_on_an_overlay(void **state)
{
    (void)state;
    harness_need_root();
    const char *path = file_on_an_overlay();
    pid_t pid = hold(path);
    struct stat st;
    bool blind = false;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(flocks_is_held(st.st_dev, st.st_ino), 1);
    assert_int_equal(flocks_has(pid, st.st_dev, st.st_ino), 1);
    assert_int_equal(flocks_holders(st.st_dev, st.st_ino, is_it, &pid, &blind), 1);
    /* a file of another file system that has the same number is another one */
    assert_int_equal(flocks_has(pid, st.st_dev + 1, st.st_ino), 0);
    harness_kill(pid);
    assert_int_equal(flocks_is_held(st.st_dev, st.st_ino), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {harness_test(k7_held_on_an_overlay)};
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
