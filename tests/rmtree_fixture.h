/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Trees to be removed, and how: what the tests of rmtree stand on.
 */
#ifndef RBXJ_TESTS_RMTREE_FIXTURE_H
#define RBXJ_TESTS_RMTREE_FIXTURE_H

#include "harness.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/rmtree.h"
#include "reaper/undo.h"

#include <dirent.h>
#include <errno.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

static struct rbxj_error error;

static inline int64_t in_seconds(int seconds)
{
    return now_monotonic_ns() + seconds * INT64_C(1000000000);
}

/* Removes path the way a kind does. */
static inline int remove_tree_how(const char *path, const struct rmtree *how)
{
    const char *base;
    memset(&error, 0, sizeof(error));
    _cleanup_close_ int parent = fd_open_parent(path, &base);
    _cleanup_close_ int fd = parent < 0 ? -1 : rmtree_open(parent, base);
    if (fd < 0)
        return fd;
    return rmtree(parent, base, fd, how, &error);
}

static inline int remove_tree(const char *path)
{
    return remove_tree_how(path, &(struct rmtree){.deadline_ns = in_seconds(60)});
}

/* dir/d/d/d..., depth levels, with a file in every file_every-th; returns a descriptor of the lowest. */
static inline int make_chain(const char *dir, int depth, int file_every)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (int i = 0; i < depth; i++) {
        assert_int_equal(mkdirat(fd, "d", 0700), 0);
        int next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        if (file_every && i % file_every == 0)
            assert_int_equal(mknodat(next, "file", S_IFREG | 0600, 0), 0);
        (void)close(fd);
        fd = next;
    }
    return fd;
}

static inline char *make_top(const char *where)
{
    char *top = harness_format("%s/top", where);
    harness_mkdir(top);
    return top;
}

static inline bool set_flags(const char *path, int flags)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    assert_true(fd >= 0);
    return ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
}

static inline int get_flags(const char *path)
{
    int flags = 0;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ioctl(fd, FS_IOC_GETFLAGS, &flags), 0);
    return flags;
}

static inline void assert_only(const char *dir, const char *name)
{
    _cleanup_closedir_ DIR *list = opendir(dir);
    assert_non_null(list);
    for (struct dirent *d; (d = readdir(list));)
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
            assert_string_equal(d->d_name, name ? name : "nothing");
}

static inline void make_hostile(const char *top, const char *outside)
{
    static const char *const names[] = {"new\nline", "\033[31mred", "-rf", " ",
                                        "\xff\xfe",  "...",         "*",   "a\\b"};
    _cleanup_close_ int fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_int_equal(mkdirat(fd, names[i], 0700), 0);
        _cleanup_close_ int in = openat(fd, names[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_int_equal(symlinkat(outside, in, "to a directory"), 0);
        assert_int_equal(symlinkat("/nowhere", in, "dangling"), 0);
        assert_int_equal(symlinkat("..", in, names[i]), 0);
        assert_int_equal(mknodat(in, "fifo", S_IFIFO | 0600, 0), 0);
        assert_int_equal(mkdirat(in, "unreadable", 0700), 0);
        assert_int_equal(mknodat(in, "unreadable/file", S_IFREG, 0), 0);
        assert_int_equal(fchmodat(in, "unreadable", 0, 0), 0);
        assert_int_equal(mkdirat(in, "unsearchable", 0700), 0);
        assert_int_equal(mkdirat(in, "unsearchable/dir", 0700), 0);
        assert_int_equal(fchmodat(in, "unsearchable", 0400, 0), 0);
        assert_int_equal(fchmod(in, 0500), 0);
    }
    char longest[NAME_MAX + 1];
    memset(longest, 'l', NAME_MAX);
    longest[NAME_MAX] = 0;
    assert_int_equal(mkdirat(fd, longest, 0700), 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/socket", fd);
    _cleanup_close_ int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(sock, (struct sockaddr *)&address, sizeof(address)), 0);
}

#endif
