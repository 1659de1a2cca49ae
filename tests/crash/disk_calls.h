/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The calls by which files are changed and flushed: LMDB's and our own come here, and into the log. For one
 * file of a program, as only what the program itself defines takes the place of libc's in a shared library,
 * too.
 *
 * A flush of a file that is recorded is only written down: the disk that matters is the one of the log. That
 * nothing is missed is seen at the end: the log alone must give the files that are there.
 */
#ifndef RBXJ_TESTS_CRASH_DISK_CALLS_H
#define RBXJ_TESTS_CRASH_DISK_CALLS_H

#include "disk_log.h"
#include "disk_look.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <systemd/sd-id128.h>
#include <time.h>
#include <unistd.h>

/* ---- other boots ---- */

uint8_t disk_boot;

int sd_id128_get_boot(sd_id128_t *ret)
{
    char text[40] = "";
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    int r = f && fscanf(f, "%36s", text) == 1 ? sd_id128_from_string(text, ret) : -EIO;

    if (f)
        (void)fclose(f);
    if (r == 0)
        ret->bytes[15] ^= disk_boot;
    return r;
}

/* A boot begins when it is looked at: what is there is older. */
int clock_gettime(clockid_t clock, struct timespec *ret)
{
    if (disk_boot && clock == CLOCK_BOOTTIME) {
        *ret = (struct timespec){0};
        return 0;
    }
    return (int)syscall(SYS_clock_gettime, clock, ret);
}

/* ---- contents ---- */

unsigned disk_writes_left;

/* Dies in the middle of a commit, as by SIGKILL, with the locks that it holds. */
static void die_in_time(void)
{
    if (disk_writes_left && --disk_writes_left == 0)
        _exit(0);
}

/* After a write of n bytes: what was written, and its flush where the descriptor flushes by itself. */
static void log_written(int fd, const char *path, const void *data, ssize_t n, off_t offset)
{
    if (n <= 0)
        return;
    struct disk_entry e = {
        .op = DISK_WRITE, .path = path, .data = data, .offset = (uint64_t)offset, .len = (uint64_t)n};
    disk_log_add(&e);
    if (fcntl(fd, F_GETFL) & O_DSYNC) {
        e.op = DISK_DSYNC;
        e.flush = FLUSH_DSYNC;
        e.data = NULL;
        disk_log_add(&e);
    }
}

static ssize_t log_pwrite(int fd, const void *data, size_t len, off_t offset)
{
    const char *path = disk_log_path(fd, NULL);

    if (!path)
        return syscall(SYS_pwrite64, fd, data, len, offset);
    die_in_time();
    disk_log_lock();
    ssize_t n = syscall(SYS_pwrite64, fd, data, len, offset);
    log_written(fd, path, data, n, offset);
    disk_log_unlock();
    return n;
}

ssize_t calls_pwrite(int fd, const void *data, size_t len, off_t offset) __asm__("pwrite");
ssize_t calls_pwrite(int fd, const void *data, size_t len, off_t offset)
{
    return log_pwrite(fd, data, len, offset);
}

ssize_t calls_pwrite64(int fd, const void *data, size_t len, off_t offset) __asm__("pwrite64");
ssize_t calls_pwrite64(int fd, const void *data, size_t len, off_t offset)
{
    return log_pwrite(fd, data, len, offset);
}

ssize_t calls_writev(int fd, const struct iovec *iov, int n) __asm__("writev");
ssize_t calls_writev(int fd, const struct iovec *iov, int n)
{
    const char *path = disk_log_path(fd, NULL);

    if (!path)
        return syscall(SYS_writev, fd, iov, n);
    die_in_time();
    disk_log_lock();
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t all = syscall(SYS_writev, fd, iov, n), left = all;
    for (int i = 0; i < n && left > 0; i++) {
        ssize_t part = (ssize_t)iov[i].iov_len < left ? (ssize_t)iov[i].iov_len : left;
        log_written(fd, path, iov[i].iov_base, part, offset);
        offset += part;
        left -= part;
    }
    disk_log_unlock();
    return all;
}

ssize_t calls_write(int fd, const void *data, size_t len) __asm__("write");
ssize_t calls_write(int fd, const void *data, size_t len)
{
    const char *path = disk_log_path(fd, NULL);

    if (!path)
        return syscall(SYS_write, fd, data, len);
    disk_log_lock();
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t n = syscall(SYS_write, fd, data, len);
    log_written(fd, path, data, n, offset);
    disk_log_unlock();
    return n;
}

static int log_size(int fd, const char *path, long r)
{
    struct stat st;

    if (r == 0 && fstat(fd, &st) == 0)
        disk_log_add(&(struct disk_entry){.op = DISK_SIZE, .path = path, .offset = (uint64_t)st.st_size});
    disk_log_unlock();
    return (int)r;
}

static int log_ftruncate(int fd, off_t size)
{
    const char *path = disk_log_path(fd, NULL);

    if (!path)
        return (int)syscall(SYS_ftruncate, fd, size);
    disk_log_lock();
    return log_size(fd, path, syscall(SYS_ftruncate, fd, size));
}

int calls_ftruncate(int fd, off_t size) __asm__("ftruncate");
int calls_ftruncate(int fd, off_t size)
{
    return log_ftruncate(fd, size);
}

int calls_ftruncate64(int fd, off_t size) __asm__("ftruncate64");
int calls_ftruncate64(int fd, off_t size)
{
    return log_ftruncate(fd, size);
}

bool disk_no_reserve;

int calls_fallocate(int fd, int mode, off_t offset, off_t len) __asm__("fallocate64");
int calls_fallocate(int fd, int mode, off_t offset, off_t len)
{
    const char *path = disk_log_path(fd, NULL);

    if (!path)
        return (int)syscall(SYS_fallocate, fd, mode, offset, len);
    if (disk_no_reserve) {
        errno = EOPNOTSUPP;
        return -1;
    }
    disk_log_lock();
    return log_size(fd, path, syscall(SYS_fallocate, fd, mode, offset, len));
}

/* ---- flushes ---- */

bool disk_no_flush;

static int log_sync(int fd, long number, enum disk_flush flush)
{
    const char *path = disk_log_path(fd, NULL);
    struct stat st;

    if (disk_no_flush)
        return 0;
    if (!path || fstat(fd, &st) < 0)
        return (int)syscall(number, fd);
    die_in_time();
    if (S_ISDIR(st.st_mode))
        flush = strcmp(path, "kept") == 0 ? FLUSH_RESOURCE : FLUSH_DIRECTORY;
    disk_log_lock();
    disk_log_add(&(struct disk_entry){.op = DISK_SYNC, .flush = flush, .path = path});
    disk_log_unlock();
    (void)usleep(100); /* so that others come to wait, and share the next one */
    return 0;
}

int fdatasync(int fd)
{
    return log_sync(fd, SYS_fdatasync, FLUSH_FDATASYNC);
}

int fsync(int fd)
{
    return log_sync(fd, SYS_fsync, FLUSH_FSYNC);
}

int syncfs(int fd)
{
    if (disk_no_flush)
        return 0;
    if (!disk_log_path(fd, NULL))
        return (int)syscall(SYS_syncfs, fd);
    disk_log_lock();
    disk_log_add(&(struct disk_entry){.op = DISK_SYNC, .flush = FLUSH_RESOURCE});
    disk_log_unlock();
    return 0;
}

/* ---- names ---- */

static int log_open(int dirfd, const char *name, int flags, mode_t mode)
{
    struct stat st;
    const char *path = flags & O_CREAT ? disk_log_path(dirfd, name) : NULL;

    if (!path)
        return (int)syscall(SYS_openat, dirfd, name, flags, mode);
    disk_log_lock();
    bool there = fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
    int fd = (int)syscall(SYS_openat, dirfd, name, flags, mode);
    if (fd >= 0 && !there)
        disk_log_add(&(struct disk_entry){.op = DISK_CREATE, .path = path});
    else if (fd >= 0 && (flags & O_TRUNC))
        disk_log_add(&(struct disk_entry){.op = DISK_SIZE, .path = path});
    disk_log_unlock();
    return fd;
}

#define MODE_ARGUMENT(flags)                                                                                 \
    ({                                                                                                       \
        va_list _args;                                                                                       \
        va_start(_args, flags);                                                                              \
        mode_t _mode = (flags) & (O_CREAT | O_TMPFILE) ? va_arg(_args, mode_t) : 0;                          \
        va_end(_args);                                                                                       \
        _mode;                                                                                               \
    })

int calls_open(const char *path, int flags, ...) __asm__("open");
int calls_open(const char *path, int flags, ...)
{
    return log_open(AT_FDCWD, path, flags, MODE_ARGUMENT(flags));
}

int calls_open64(const char *path, int flags, ...) __asm__("open64");
int calls_open64(const char *path, int flags, ...)
{
    return log_open(AT_FDCWD, path, flags, MODE_ARGUMENT(flags));
}

int calls_openat64(int dirfd, const char *path, int flags, ...) __asm__("openat64");
int calls_openat64(int dirfd, const char *path, int flags, ...)
{
    return log_open(dirfd, path, flags, MODE_ARGUMENT(flags));
}

/* One name, or two, changed by a call. */
static int log_names(enum disk_op op, const char *path, const char *path2, long number, long a, long b,
                     long c, long d, long e)
{
    if (!path)
        return (int)syscall(number, a, b, c, d, e);
    disk_log_lock();
    long r = syscall(number, a, b, c, d, e);
    if (r == 0)
        disk_log_add(&(struct disk_entry){.op = op, .path = path, .path2 = path2});
    disk_log_unlock();
    return (int)r;
}

int mkdirat(int dirfd, const char *name, mode_t mode)
{
    return log_names(DISK_MKDIR, disk_log_path(dirfd, name), NULL, SYS_mkdirat, dirfd, (long)name, (long)mode,
                     0, 0);
}

/* Of a file without a name, which is empty still. */
int linkat(int from, const char *name, int to, const char *name2, int flags)
{
    return log_names(DISK_CREATE, disk_log_path(to, name2), NULL, SYS_linkat, from, (long)name, to,
                     (long)name2, flags);
}

int unlinkat(int dirfd, const char *name, int flags)
{
    return log_names(DISK_REMOVE, disk_log_path(dirfd, name), NULL, SYS_unlinkat, dirfd, (long)name, flags, 0,
                     0);
}

int renameat2(int from, const char *name, int to, const char *name2, unsigned flags)
{
    const char *path2 = disk_log_path(to, name2);
    return log_names(DISK_RENAME, disk_log_path(from, name), path2, SYS_renameat2, from, (long)name, to,
                     (long)name2, (long)flags);
}

int renameat(int from, const char *name, int to, const char *name2)
{
    return renameat2(from, name, to, name2, 0);
}

#endif
