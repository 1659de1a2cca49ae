/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Small helpers on descriptors and paths. All descriptors are opened close-on-exec.
 */
#ifndef RBXJ_BASE_FD_H
#define RBXJ_BASE_FD_H

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* openat2(2) with O_CLOEXEC added; resolve is RESOLVE_*. Returns a descriptor or -errno. */
int fd_openat2(int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve);

/* Opens the parent directory of an absolute path O_PATH without following any symlink on the way, and points
 * *ret_base at the last component inside path. Returns a descriptor or -errno (-ELOOP: a symlink is on the
 * way, -ENOENT). */
int fd_open_parent(const char *path, const char **ret_base);

/* Where an open file is by now, for messages; empty where that can't be told. */
void fd_path(int fd, char *buf, size_t size);

/* Reads at most size - 1 bytes of path (relative to dirfd) and terminates; returns the length or -errno,
 * -EFBIG when there was more. Files in /proc and cgroup directories may be read so. */
ssize_t fd_read_file(int dirfd, const char *path, char *buf, size_t size);

/* The same, whole, into fresh memory of at most limit bytes; *ret must be freed. */
ssize_t fd_read_all(int dirfd, const char *path, size_t limit, char **ret);

/* Up to len bytes from offset on, fewer only at the end of the file: how many, or -errno. */
ssize_t fd_pread_all(int fd, void *buf, size_t len, uint64_t offset);

/* The next stretch of a file that is no hole, from *at on and before end: 1 (*at: where it starts, *ret_end:
 * where it ends), 0 where there is none, or -errno. */
int fd_next_data(int fd, uint64_t *at, uint64_t end, uint64_t *ret_end);

/* Writes all of it; 0 or -errno. */
int fd_write_all(int fd, const void *data, size_t len);

/* Opens (relative to dirfd), writes text, closes; for kernel files. 0 or -errno. */
int fd_write_file(int dirfd, const char *path, const char *text);

/* Sends a datagram to the socket of that name, as of a service manager or a log ('@': an abstract one). Who
 * does not take it is waited for a second, and not again before one was taken: *deaf. 0 or -errno. */
struct iovec;
int fd_send_datagram(const char *name, struct iovec *parts, size_t n, atomic_bool *deaf);

/* Makes name below dirfd a regular file with that content, whole or not at all: written under another name
 * (prefix and random digits), synced, renamed; a symlink in its place is replaced, not followed. The
 * directory is synced too where sync_dir is set. 0 or -errno; the old file is there then. */
int fd_replace_file(int dirfd, const char *name, const char *prefix, const void *data, size_t len,
                    mode_t mode, bool sync_dir);

/* A directory, for reading; a symlink as its last part is not followed. A descriptor or -errno. */
int fd_open_dir(int dirfd, const char *path);
/* A stream of the names in a directory, from the first; NULL: it can't be read (errno). path "." is dirfd
 * itself. */
DIR *fd_open_names_at(int dirfd, const char *path);
DIR *fd_open_names(int dirfd);
/* The next one but . and ..; NULL at the end (errno is 0 then), where it can't be read, and of a NULL
 * stream. */
const struct dirent *fd_next_name(DIR *names);
/* 1, 0, or -errno. */
int fd_dir_is_empty(int dirfd);
/* Does that name in dirfd lead to the open file? 1, 0, or -errno. */
int fd_is_named(int dirfd, const char *name, int fd);

/* What is open for long must not get a number below 3 where the process has closed those: its next message to
 * standard error would be written into it. Takes those that are free until fd_low_release(), without anything
 * to write to. Zero- initialise. 0 or -errno. */
struct fd_low {
    int fds[3];
    size_t len;
};
int fd_low_hold(struct fd_low *low);
void fd_low_release(struct fd_low *low);

/* A POSIX record lock on one byte: not inherited by fork, dropped by the kernel at death (and at any close of
 * that file in this process). type: F_RDLCK, F_WRLCK, F_UNLCK. Never waits: -EAGAIN when somebody has it. */
int fd_record_lock(int fd, short type, uint64_t offset);
/* Who would be in the way of a write lock: 0 nobody, 1 somebody (*ret_pid, 0 when it can't be seen from
 * here). */
int fd_record_holder(int fd, uint64_t offset, pid_t *ret_pid);

/* True if path is absolute, has no empty, "." or ".." part and no trailing slash, and is shorter than
 * PATH_MAX. */
bool path_is_normal(const char *path);
/* True if path equals dir or lies below it, by components. Both normal. */
bool path_is_below(const char *path, const char *dir);

/* Milliseconds and nanoseconds of CLOCK_MONOTONIC and CLOCK_REALTIME. */
int64_t now_monotonic_ns(void);
int64_t now_realtime_ns(void);

/* Fills buf with up to 256 bytes from getrandom(2). Never waits: early in a boot, before the kernel's pool is
 * seeded, they are unique, but no secret. Names, ids and stamps need no more: that they are new. */
void random_bytes(void *buf, size_t len);
/* Lower-case hex of len bytes into out (2 * len + 1 bytes). */
void hex_encode(char *out, const void *data, size_t len);

#endif
