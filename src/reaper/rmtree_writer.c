/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who fills a tree while it is removed, for the report.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/procid.h"
#include "reaper/rmtree.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool link_is_below(int dirfd, const char *link, const char *dir)
{
    char target[PATH_MAX + NAME_MAX + 2];
    ssize_t n = readlinkat(dirfd, link, target, sizeof(target) - 1);
    if (n <= 0)
        return false;
    target[n] = 0;
    return path_is_below(target, dir);
}

static bool process_is_inside(int proc, const char *pid, const char *dir)
{
    _cleanup_close_ int fd = openat(proc, pid, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    if (link_is_below(fd, "cwd", dir) || link_is_below(fd, "root", dir))
        return true;
    int fds = openat(fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_closedir_ DIR *list = fds >= 0 ? fdopendir(fds) : NULL;
    for (struct dirent *d; list && (d = readdir(list));)
        if (link_is_below(dirfd(list), d->d_name, dir))
            return true;
    return false;
}

pid_t rmtree_name_writer(int top_fd, struct rbxj_error *e)
{
    char top[PATH_MAX + NAME_MAX + 2], who[160];
    fd_path(top_fd, top, sizeof(top));
    _cleanup_closedir_ DIR *proc = opendir("/proc");
    for (struct dirent *d; top[0] == '/' && proc && (d = readdir(proc));) {
        if (!isdigit((unsigned char)d->d_name[0]) || atoi(d->d_name) == getpid())
            continue;
        if (!process_is_inside(dirfd(proc), d->d_name, top))
            continue;
        procid_describe(atoi(d->d_name), who, sizeof(who));
        error_detail(e, "written to by pid %s (%s)", d->d_name, who);
        return atoi(d->d_name);
    }
    return 0;
}
