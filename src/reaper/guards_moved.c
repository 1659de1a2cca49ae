/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A directory that is not at its path is not gone for that: whoever may rename it, or what it lies in, can
 * hide it so. The file system is asked for the file itself, by its handle.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/undo.h"

#include <errno.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int doubt(struct finding *f, const struct record *r, bool not_mounted, const char *what,
                 const char *where)
{
    f->found = FOUND_FOREIGN;
    f->refused = true;
    f->not_mounted = not_mounted;
    return error_set(&f->error, RBXJ_E_FOREIGN, 0, "%s: %s %s", r->path, what, where);
}

#define SEARCHES 5

/* May it be r's? What another number does not tell from it is a directory. */
static bool is_like(const struct dirent *d, const struct record *r)
{
    return d->d_ino == r->id.ino ||
           (fileid_may_be(&r->id, &r->id, true) && (d->d_type == DT_DIR || d->d_type == DT_UNKNOWN));
}

/* Who was renamed in there is no mount point; and what is mounted there may hang (K16), and is not asked. */
static int search_once(int dirfd, const struct record *r, bool same_boot, char name[NAME_MAX + 1])
{
    struct fileid found;
    _cleanup_closedir_ DIR *names = fd_open_names(dirfd);
    if (!names)
        return errno == EACCES ? 0 : -errno;
    for (const struct dirent *d; (errno = 0, d = fd_next_name(names));) {
        if (!is_like(d, r))
            continue;
        _cleanup_close_ int fd = fd_openat2(dirfd, d->d_name, O_PATH | O_NOFOLLOW, 0, RESOLVE_NO_XDEV);
        int rc = fd < 0 ? fd : fileid_of_fd(fd, &found);
        if (rc < 0 && rc != -ENOENT && rc != -EXDEV)
            return rc;
        if (rc < 0)
            continue;
        int ours = fileid_equal(&found, &r->id, same_boot) ? !(rc = stamp_is_missing(fd, r))
                                                           : (rc = stamp_tells(fd, r, &found, same_boot));
        if (rc < 0)
            return rc;
        if (!ours)
            continue;
        (void)strcpy(name, d->d_name);
        return 1;
    }
    return -errno;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Where the file system has no handles for us: whoever was only renamed is still in that directory. Reading
 * it can miss who is renamed meanwhile, so he is missing only after a second look, in which nothing has
 * changed. */
static int search(int dirfd, const struct record *r, bool same_boot, char name[NAME_MAX + 1])
{
    struct stat before, after;
    for (int i = 0; i < SEARCHES; i++) {
        if (fstat(dirfd, &before) < 0)
            return -errno;
        int rc = search_once(dirfd, r, same_boot, name);
        if (rc != 0)
            return rc;
        if (fstat(dirfd, &after) < 0)
            return -errno;
        if (i > 0 && same_time(&before.st_mtim, &after.st_mtim) && same_time(&before.st_ctim, &after.st_ctim))
            return 0;
    }
    return -EBUSY;
}

/* A v1 group's handle is said to be stale while the group is being renamed, too (6.18). */
static int search_v1(int dirfd, const struct record *r, bool same_boot, char name[NAME_MAX + 1])
{
    int rc = search(dirfd, r, same_boot, name);
    if (rc != 0)
        return rc;
    _cleanup_close_ int fd = fileid_open(dirfd, &r->id, same_boot);
    return fd >= 0 ? -EBUSY : fd == -ESTALE ? 0 : fd;
}

/* Nothing tells of the thing itself. Is the directory that it was made in the one that was looked into? */
static int judge_parent(struct undo *u, const struct record *r, int dirfd, struct finding *f)
{
    struct fileid now;
    char path[PATH_MAX];
    if (r->below || !fileid_is_set(&r->parent))
        return 0;
    int rc = fileid_of_fd(dirfd, &now);
    if (rc < 0 || fileid_equal(&now, &r->parent, u->same_boot) ||
        fileid_may_be(&now, &r->parent, u->same_boot))
        return rc;
    _cleanup_close_ int fd = fileid_open(dirfd, &r->parent, u->same_boot);
    if (fd < 0)
        return fd == -ESTALE || fd == -EOPNOTSUPP ? 0 : fd;
    fd_path(fd, path, sizeof(path));
    return doubt(f, r, true, "the directory that it was made in is now", path);
}

/* Inside a lower item of its box, and so gone with that one (K13)? */
static bool goes_with_lower(const struct undo *u, const struct record *r, const char *path)
{
    for (size_t i = 0; i < u->records_len; i++)
        if (u->records[i].seq == r->below)
            return u->records[i].path && path_is_below(path, u->records[i].path);
    return false;
}

int guard_moved(struct undo *u, const struct record *r, int dirfd, char name[NAME_MAX + 1], struct finding *f)
{
    char path[PATH_MAX], by_now[PATH_MAX];
    _cleanup_close_ int fd = r->flags & REC_EVIDENCE ? fileid_open(dirfd, &r->id, u->same_boot) : -EOPNOTSUPP;
    int rc = fd;
    if (fd == -ESTALE && r->id.fs_magic == CGROUP_SUPER_MAGIC)
        rc = search_v1(dirfd, r, u->same_boot, name);
    else if (fd == -ESTALE)
        return 0;
    else if (fd == -EOPNOTSUPP) {
        rc = r->flags & REC_EVIDENCE ? search(dirfd, r, u->same_boot, name) : 0;
        rc = rc == 0 ? judge_parent(u, r, dirfd, f) : rc;
    } else if (fd >= 0) {
        fd_path(fd, path, sizeof(path));
        const char *base = strrchr(path, '/');
        (void)snprintf(name, NAME_MAX + 1, "%s", base ? base + 1 : "");
        rc = name[0] ? fd_is_named(dirfd, name, fd) : 0;
        fd_path(fd, by_now, sizeof(by_now));
        if (rc == 0 && strcmp(path, by_now) != 0)
            rc = -EBUSY; /* it is being renamed */
        else if (rc == 0 && !goes_with_lower(u, r, path))
            return doubt(f, r, false, "was moved to", path);
    }
    if (rc < 0 && !f->error.code) {
        f->found = FOUND_BUSY;
        (void)error_sys(&f->error, -rc, "%s: is not there; whether it was moved", r->path);
    }
    return rc;
}
