/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model_apart.h"

#include "../harness.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/loop.h>
#include <malloc.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DISK "/mnt" /* in our own mount namespace */
#define DISK_SIZE (256 << 20)

static bool disk_in_memory;

/* ---- the disk ---- */

static bool format(const char *device)
{
    const char *const argv[] = {"mkfs.ext4", "-q", "-F", "-O", "^has_journal", device, NULL};
    pid_t pid;
    int status;
    return posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)argv, environ) == 0 &&
           waitpid(pid, &status, 0) == pid && status == 0;
}

/* A loop device that goes with its mount, which goes with the namespace; its file has no name. */
static bool mount_memory(void)
{
    char path[40];
    _cleanup_close_ int memory = memfd_create("disk", MFD_CLOEXEC);
    _cleanup_close_ int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    struct loop_config config = {.fd = (uint32_t)memory, .info.lo_flags = LO_FLAGS_AUTOCLEAR};
    if (memory < 0 || control < 0 || ftruncate(memory, DISK_SIZE) < 0)
        return false;
    for (int i = 0; i < 100; i++) { /* somebody else may take the free one, too */
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        (void)snprintf(path, sizeof(path), "/dev/loop%d", number);
        _cleanup_close_ int loop = number < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC);
        if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &config) == 0)
            return format(path) && mount(path, DISK, "ext4", MS_NOSUID, NULL) == 0;
        if (loop >= 0 ? errno != EBUSY : number < 0)
            return false;
    }
    return false;
}

void apart_make_disk(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, 1 << 18); /* or LMDB's large tables are cleared with each opening */
    disk_in_memory = geteuid() == 0 && unshare(CLONE_NEWNS) == 0 &&
                     mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mount_memory();
}

const char *apart_disk(void)
{
    return disk_in_memory ? DISK "/sequence" : harness_format("%s/sequence", harness_disk());
}

/* ---- after a sequence ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    (void)remove(path);
    return 0;
}

static void remove_groups(const char *dir, bool itself)
{
    _cleanup_closedir_ DIR *d = opendir(dir);
    for (const struct dirent *e; d && (e = readdir(d));)
        if (e->d_type == DT_DIR && e->d_name[0] != '.') {
            char path[PATH_MAX];
            (void)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
            remove_groups(path, true);
        }
    if (itself)
        (void)rmdir(dir);
}

/* Its processes are dead, and its mounts gone. */
static void clean(const char *group)
{
    (void)nftw(apart_disk(), remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    remove_groups(group, false);
}

/* ---- a sequence ---- */

static void too_long(int sig)
{
    _exit(128 + sig);
}

/* The first process of its pid namespace. */
static _Noreturn void first(void (*run)(const void *data), const void *data)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGALRM, too_long); /* it would be ignored */
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ||
        mkdir(apart_disk(), 0700) < 0)
        fail_msg("a sequence can't begin: %s", strerror(errno));
    run(data);
    _exit(0);
}

int apart_run(void (*run)(const void *data), const void *data, const char *group)
{
    int status = 0;
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (unshare(CLONE_NEWPID) < 0)
            fail_msg("no pid namespace: %s", strerror(errno));
        pid_t inner = fork();
        if (inner == 0)
            first(run, data);
        (void)waitpid(inner, &status, 0);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
    (void)waitpid(pid, &status, 0);
    clean(group);
    return status;
}
