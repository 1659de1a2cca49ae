/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/flocks.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/proctext.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* The /proc of any other pid namespace leaves out of its locks what a process took that is dead or not of
 * that namespace (since 4.9). */
static bool shows_all_locks(void)
{
    struct stat st;
    return stat("/proc/self/ns/pid", &st) == 0 && st.st_ino == PROCID_INITIAL_PID_NS;
}

static int found_one(void *data, pid_t pid)
{
    (void)data;
    (void)pid;
    return 1;
}

int flocks_is_held(uint64_t dev, uint64_t ino)
{
    _cleanup_free_ char *text = NULL;
    bool blind;
    ssize_t n = fd_read_all(AT_FDCWD, "/proc/locks", 64 << 20, &text);
    if (n < 0)
        return (int)n;
    if (proctext_has_flock(text, dev, ino))
        return 1;
    /* what has no device of its own (btrfs, overlay) is of another one for stat(2) than for the locks */
    bool maybe = major(dev) == 0 && proctext_has_flock(text, 0, ino);
    return shows_all_locks() && !maybe ? 0 : flocks_holders(dev, ino, found_one, NULL, &blind);
}

/* Is that descriptor one of that file, by what stat(2) says of both? */
static bool is_of(int proc, const char *pid, const char *fd, uint64_t dev, uint64_t ino)
{
    char path[64];
    struct statx st;
    (void)snprintf(path, sizeof(path), "%s/fd/%s", pid, fd);
    return statx(proc, path, AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, STATX_INO, &st) == 0 &&
           makedev(st.stx_dev_major, st.stx_dev_minor) == dev && st.stx_ino == ino;
}

/* 1 if that process has the flock, 0 if not, or -errno: it can't be seen, or a shortage. */
static int has_flock(int proc, const char *pid, uint64_t dev, uint64_t ino)
{
    char path[32], text[4096];
    int unseen = 0;
    (void)snprintf(path, sizeof(path), "%s/fdinfo", pid);
    _cleanup_closedir_ DIR *dir = fd_open_names_at(proc, path);
    if (!dir)
        return errno == ENOENT || errno == ESRCH ? 0 : -errno;
    for (const struct dirent *d; (d = fd_next_name(dir));) {
        ssize_t n = fd_read_file(dirfd(dir), d->d_name, text, sizeof(text));
        if (n > 0 && proctext_shows_flock(text, 0, ino) && is_of(proc, pid, d->d_name, dev, ino))
            return 1;
        if (n < 0 && n != -ENOENT && n != -ESRCH)
            unseen = (int)n;
    }
    return errno && errno != ENOENT && errno != ESRCH ? -errno : unseen;
}

int flocks_holders(uint64_t dev, uint64_t ino, int (*found)(void *data, pid_t pid), void *data,
                   bool *ret_blind)
{
    _cleanup_closedir_ DIR *dir = fd_open_names_at(AT_FDCWD, "/proc");
    if (!dir)
        return -errno;
    for (const struct dirent *d; (d = fd_next_name(dir));) {
        if (d->d_name[0] < '1' || d->d_name[0] > '9')
            continue;
        int r = has_flock(dirfd(dir), d->d_name, dev, ino);
        if (r < 0 && errno_is_want(-r))
            return r;
        if (r < 0)
            *ret_blind = true;
        pid_t pid = (pid_t)atoi(d->d_name);
        r = r > 0 && pid != getpid() ? found(data, pid) : 0;
        if (r != 0)
            return r;
    }
    return -errno;
}

int flocks_has(pid_t pid, uint64_t dev, uint64_t ino)
{
    char name[16];
    _cleanup_close_ int proc = fd_open_dir(AT_FDCWD, "/proc");
    (void)snprintf(name, sizeof(name), "%d", pid);
    return proc < 0 ? proc : has_flock(proc, name, dev, ino);
}

int flocks_is_payload(struct undo *u, pid_t pid)
{
    char path[40], text[8192];
    struct procid id;
    (void)snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
    bool known = fd_read_file(AT_FDCWD, path, text, sizeof(text)) > 0;
    for (size_t i = 0; i < u->records_len; i++) {
        const struct record *r = &u->records[i];
        struct finding f = {0};
        if (r->kind == RBXJ_PROCESS && procid_of(pid, &id) == 0 && procid_equal(&id, &r->process))
            return 1;
        if (r->kind != RBXJ_CGROUP || !known || !proctext_is_in_cgroup(text, r->path))
            continue;
        int looked = kind_cgroup.look(u, r, &f);
        if (looked == 0 && f.found == FOUND_PRESENT)
            return 1;
        if (errno_is_want(f.error.errnum))
            return -f.error.errnum;
    }
    return 0;
}
