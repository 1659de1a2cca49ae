/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * K3: what a file handle says of a file that is gone.
 */
#include "base/cleanup.h"
#include "base/fileid.h"
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
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

/* A number that is just given to a new file is no want of memory (seen about once in 2,000 times, ext4
 * 6.18). */
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

/* As a process sees it that has looked at nothing before, without privilege. */
static struct fileid seen_by_nobody(const char *path)
{
    int out[2];
    struct fileid id = {0};
    _cleanup_close_ int fd = open(path, O_PATH | O_CLOEXEC);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        bool seen = setresuid(65534, 65534, 65534) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0 &&
                    fileid_of_fd(fd, &id) == 0;
        _exit(seen && write(out[1], &id, sizeof(id)) == sizeof(id) ? 0 : 1);
    }
    assert_true(pid > 0);
    harness_track(pid);
    assert_int_equal(harness_wait(pid), 0);
    assert_int_equal(read(out[0], &id, sizeof(id)), sizeof(id));
    (void)close(out[0]);
    (void)close(out[1]);
    return id;
}

/* A directory that is written to and not read, as that of a mail drop: there its file system can't be
 * asked. */
static void k14_a_directory_that_cant_be_read_is_on_its_file_system(void **state)
{
    (void)state;
    harness_need_root();
    char *drop = harness_format("%s/drop", harness_tmpfs());
    harness_mkdir(drop);
    assert_int_equal(chmod(harness_tmpfs(), 0755), 0);
    assert_int_equal(chmod(drop, 01733), 0);
    struct fileid dir = seen_by_nobody(harness_tmpfs()), below = seen_by_nobody(drop);
    assert_true(fileid_same_fs(&dir, &below, true));
    assert_true(fileid_same_fs(&below, &dir, true));
    assert_int_equal(chmod(drop, 0755), 0);
    struct fileid by_then = seen_by_nobody(drop);
    assert_true(fileid_equal(&below, &by_then, true));
    by_then.fs[0] ^= 1; /* but another one that says who it is, under that number */
    assert_false(fileid_same_fs(&dir, &by_then, true));
}

/* Two of one btrfs, which are mounted each by itself; and one of them once more, under another number. */
static void k14_another_subvolume_is_not_the_one(void **state)
{
    (void)state;
    harness_need_root();
    const char *const names[] = {"a", "b"};
    struct fileid ids[ARRAY_LEN(names)], again;
    char *image = harness_format("%s/image", harness_disk()), *at = harness_format("%s/at", harness_disk());
    char *other = harness_format("%s/other", harness_disk()), *a = harness_format("%s/a", at);
    harness_mkdir(at);
    harness_mkdir(other);
    if (system(harness_format(
            "{ truncate -s 400M %s && mkfs.btrfs -q %s && mount -o loop %s %s; } >/dev/null 2>&1", image,
            image, image, at)) != 0)
        harness_skip("no btrfs here");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct btrfs_ioctl_vol_args args = {0};
        (void)strcpy(args.name, names[i]);
        _cleanup_close_ int top = open(at, O_RDONLY | O_CLOEXEC);
        assert_int_equal(ioctl(top, BTRFS_IOC_SUBVOL_CREATE, &args), 0);
        _cleanup_close_ int fd = openat(top, names[i], O_PATH | O_CLOEXEC);
        assert_int_equal(fileid_fs_of_fd(fd, &ids[i]), 0);
    }
    assert_false(fileid_same_fs(&ids[0], &ids[1], true));
    assert_false(fileid_same_fs(&ids[0], &ids[1], false));
    assert_int_equal(umount(at), 0);
    for (int i = 0; i < 5; i++) /* they take its numbers */
        assert_int_equal(mount("rbxj-test", other, "tmpfs", 0, NULL), 0);
    assert_int_equal(system(harness_format("mount -o loop %s %s", image, at)), 0);
    assert_int_equal(fileid_of_name(AT_FDCWD, a, &again), 0);
    bool same = fileid_same_fs(&ids[0], &again, true);
    assert_int_equal(umount(at), 0);
    assert_true(again.dev != ids[0].dev);
    assert_true(same);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k3_removed_directory_is_stale_under_churn),
        harness_test(k14_a_directory_that_cant_be_read_is_on_its_file_system),
        harness_test(k14_another_subvolume_is_not_the_one),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
