/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * K3: what a file handle says of a file that is gone.
 */
#include "base/cleanup.h"
#include "base/fileid.h"
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Makes directories and removes them, so that inode numbers are given out again all the time. */
static void churn(const char *name)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (mkdir(name, 0700) == 0 && rmdir(name) == 0)
            ;
        _exit(0);
    }
    harness_track(pid);
}

/* A number that is just given to a new file is no want of memory (seen about once in 2,000 times, ext4 6.18). */
static void k3_removed_directory_is_stale_under_churn(void **state)
{
    (void)state;
    harness_need_root();
    struct fileid id;
    const char *name = harness_format("%s/d", harness_disk());
    _cleanup_close_ int dir = open(harness_disk(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    churn(harness_format("%s/x", harness_disk()));
    churn(harness_format("%s/y", harness_disk()));
    for (int i = 0; i < 8000; i++) {
        assert_int_equal(mkdir(name, 0700), 0);
        assert_int_equal(fileid_of_name(AT_FDCWD, name, &id), 0);
        int fd = fileid_open(dir, &id, true);
        if (fd == -EOPNOTSUPP)
            harness_skip("no file handles here");
        assert_true(fd >= 0);
        (void)close(fd);
        assert_int_equal(rmdir(name), 0);
        assert_int_equal(fileid_open(dir, &id, true), -ESTALE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {harness_test(k3_removed_directory_is_stale_under_churn)};
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
