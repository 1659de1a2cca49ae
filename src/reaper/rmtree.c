/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How the tree is walked: depth first, with one descriptor and one buffer of directory entries a level,
 * LEVELS of them. What lies deeper is *hoisted*: the directory is renamed into the top directory, where the
 * next pass over it finds it at level 1. A tree of ordinary depth is so removed without any rename. Where the
 * rename fails (a project quota, a btrfs subvolume, overlay: EXDEV; no space) the levels become a window that
 * *slides* down: the uppermost but the top is closed, and once everything in the window is removed the walk
 * starts again from the top. Each start removes at least a window, so it ends, and nothing needs to be
 * remembered. Where there are descriptors for fewer levels, there are fewer.
 *
 * A directory is read in passes from its first to its last entry. Local file systems return every entry that
 * was there throughout a pass although others are removed meanwhile, so a directory that is not empty after a
 * pass in which nothing was kept was refilled by somebody.
 */
#include "reaper/rmtree.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/undo.h"

#include <dirent.h>
#include <limits.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdalign.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#define LEVELS 32
#define ROUNDS 3
#define HOISTED_NAME_SIZE 48

/* NO_XDEV stops at a bind mount of the same file system as well, where st_dev is equal (6.18). */
#define INSIDE (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)

struct level {
    int fd;
    unsigned rounds;  /* how often it was not empty although everything in it had been removed */
    bool kept;        /* something in it could not be removed, so it can't be either */
    const char *name; /* in the level above, whose buffer it points into */
    size_t pos, len;
    alignas(struct dirent64) char entries[8192];
};

struct walk {
    const struct rmtree *how;
    struct rbxj_error *e;
    int parentfd, top;
    struct level *levels[LEVELS]; /* 0 is the top */
    size_t depth;                 /* of the level at hand */
    size_t room;                  /* levels at most: LEVELS, or as many as there are descriptors for */
    bool cut;                     /* the window has slid: level 1 does not lie in the top */
    bool btrfs;
    bool hoisted; /* during this pass over the top: another one must follow */
    uint64_t removed;
    uint64_t removed_before; /* at the last start from the top */
    uint64_t names;          /* given out */
    uint64_t random;
    int first; /* the first error of an entry that was kept */
};

/* ---- flags and permissions ---- */

static int flags_clear(int fd)
{
    int flags;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 || !(flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)))
        return 0;
    int cleared = flags & ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
    return ioctl(fd, FS_IOC_SETFLAGS, &cleared) == 0 ? flags : 0;
}

/* A subvolume that is read-only: whoever may write to its parent can make one, and needs no privilege for
 * that. */
static void make_writable(int fd)
{
    struct stat st;
    uint64_t flags;
    if (fstat(fd, &st) < 0 || st.st_ino != BTRFS_FIRST_FREE_OBJECTID || /* no root of one */
        ioctl(fd, BTRFS_IOC_SUBVOL_GETFLAGS, &flags) < 0 || !(flags & BTRFS_SUBVOL_RDONLY))
        return;
    flags &= ~(uint64_t)BTRFS_SUBVOL_RDONLY;
    (void)ioctl(fd, BTRFS_IOC_SUBVOL_SETFLAGS, &flags);
}

bool rmtree_unprotect(int fd)
{
    return flags_clear(fd) != 0;
}

/* Through /proc, because fchmod() does not take an O_PATH descriptor. Only matters without root. */
static void make_accessible(int fd)
{
    char proc[32];
    struct stat st;
    (void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && (st.st_mode & 0700) != 0700)
        (void)chmod(proc, 0700);
}

int rmtree_open(int dirfd, const char *name)
{
    const int flags = O_DIRECTORY | O_NOFOLLOW;
    int fd = fd_openat2(dirfd, name, O_RDONLY | O_NONBLOCK | flags, 0, INSIDE);
    if (fd != -EACCES)
        return fd;
    make_accessible(dirfd);
    _cleanup_close_ int path = fd_openat2(dirfd, name, O_PATH | flags, 0, INSIDE);
    if (path < 0)
        return path;
    make_accessible(path);
    return fd_openat2(path, ".", O_RDONLY | O_NONBLOCK | flags, 0, INSIDE);
}

/* A descriptor of an entry for its flags: only of a regular file or a directory, as opening anything else may
 * wait or have effects. The type is checked on the very inode that is then opened. */
static int open_for_flags(int dirfd, const char *name)
{
    char proc[32];
    struct stat st;
    _cleanup_close_ int path = fd_openat2(dirfd, name, O_PATH | O_NOFOLLOW, 0, INSIDE);
    if (path < 0 || fstat(path, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
        return -1;
    (void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", path);
    return open(proc, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

/* unlinkat(); flags and permissions are repaired only when it was refused. ours: so may be the
 * directory's. */
static int remove_name(int dirfd, bool ours, const char *name, int how)
{
    if (unlinkat(dirfd, name, how) == 0)
        return 0;
    if (errno != EPERM && errno != EACCES)
        return -errno;
    if (ours) {
        (void)flags_clear(dirfd);
        make_accessible(dirfd);
    }
    _cleanup_close_ int fd = open_for_flags(dirfd, name);
    int flags = fd >= 0 ? flags_clear(fd) : 0;
    int r = unlinkat(dirfd, name, how) == 0 ? 0 : -errno;
    struct stat st;
    if (flags && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink > 0)
        (void)ioctl(fd, FS_IOC_SETFLAGS,
                    &flags); /* its other links may be anybody's: they get it back as it was */
    return r;
}

/* ---- reports ---- */

static void path_of(int fd, const char *name, char *buf, size_t size)
{
    fd_path(fd, buf, size);
    size_t len = strlen(buf);
    (void)snprintf(buf + len, size - len, "%s%s", len && name ? "/" : "", name ? name : "");
}

static int fail(struct walk *w, int fd, const char *name, int errnum, const char *why)
{
    char path[PATH_MAX + NAME_MAX + 2];
    path_of(fd, name, path, sizeof(path));
    return why ? error_set(w->e, errnum, errnum, "remove %s: %s", path, why)
               : error_sys(w->e, errnum, "remove %s", path);
}

/* An entry that can't be removed: it is kept, with all directories above it, and the rest goes. */
static void keep(struct walk *w, struct level *l, const char *name, int errnum)
{
    l->kept = true;
    int r = fail(w, l->fd, name, errnum, NULL);
    if (!w->first)
        w->first = r;
}

/* ---- the walk ---- */

static struct dirent64 *level_next(struct level *l, int *ret_error)
{
    for (;;) {
        while (l->pos < l->len) {
            struct dirent64 *d = (struct dirent64 *)(void *)(l->entries + l->pos);
            l->pos += d->d_reclen;
            if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
                return d;
        }
        ssize_t n = getdents64(l->fd, l->entries, sizeof(l->entries));
        *ret_error = n < 0 && errno != ENOENT ? -errno : 0; /* ENOENT: it was removed meanwhile */
        if (n <= 0)
            return NULL;
        l->pos = 0;
        l->len = (size_t)n;
    }
}

int rmtree_is_empty(int fd)
{
    struct level l = {.fd = fd};
    int error = 0;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return -errno;
    struct dirent64 *d = level_next(&l, &error);
    return error ? error : !d;
}

static void level_start(struct level *l, int fd, const char *name)
{
    l->fd = fd;
    l->rounds = 0;
    l->kept = false;
    l->name = name;
    l->pos = l->len = 0;
}

static void level_rewind(struct level *l)
{
    (void)lseek(l->fd, 0, SEEK_SET);
    l->pos = l->len = 0;
    l->kept = false;
}

static void walk_pop(struct walk *w)
{
    (void)close(w->levels[w->depth]->fd);
    w->depth--;
}

/* Makes room for one more level by closing the one below the top. */
static void walk_slide(struct walk *w)
{
    struct level *closed = w->levels[1];
    (void)close(closed->fd);
    memmove(w->levels + 1, w->levels + 2, (w->depth - 1) * sizeof(w->levels[0]));
    w->levels[w->depth] = closed;
    w->depth--;
    w->cut = true;
}

/* Renames the directory open at fd into the top. 0 done (or it vanished), 1 it can't be, or <0. */
static int walk_hoist(struct walk *w, struct level *l, const char *name, int fd)
{
    char hoisted[HOISTED_NAME_SIZE];
    (void)snprintf(hoisted, sizeof(hoisted), ".rbxj-%016llx-%llx", (unsigned long long)w->random,
                   (unsigned long long)w->names++);
    int r = renameat2(l->fd, name, w->top, hoisted, RENAME_NOREPLACE);
    if (r < 0 && (errno == EPERM || errno == EACCES)) {
        const int all[] = {fd, l->fd, w->top};
        for (size_t i = 0; i < ARRAY_LEN(all); i++) {
            (void)flags_clear(all[i]);
            make_accessible(all[i]);
        }
        r = renameat2(l->fd, name, w->top, hoisted, RENAME_NOREPLACE);
    }
    if (r == 0)
        w->hoisted = true;
    else if (errno == EBUSY)
        return fail(w, l->fd, name, EBUSY, "something is mounted on it");
    return r == 0 || errno == ENOENT ? 0 : 1;
}

/* Opens an entry to enter it; without a descriptor for it, the level below the top gives its own. */
static int walk_open(struct walk *w, const struct level *l, const char *name)
{
    int fd = rmtree_open(l->fd, name);
    if ((fd != -EMFILE && fd != -ENFILE) || w->depth < 4)
        return fd;
    w->room = w->depth - 1; /* some are needed for other things */
    walk_slide(w);
    return rmtree_open(l->fd, name);
}

static int walk_enter(struct walk *w, struct level *l, const char *name)
{
    uint64_t incarnation;
    uint32_t seq;
    _cleanup_close_ int fd = walk_open(w, l, name);
    if (fd == -EXDEV)
        return fail(w, l->fd, name, EBUSY, "something is mounted on it");
    if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP) /* replaced meanwhile: that is a refill */
        return 0;
    int stamped = fd < 0 ? fd : stamp_get(fd, &incarnation, &seq);
    if (stamped < 0 && stamped != -EOPNOTSUPP) {
        keep(w, l, name, -stamped);
        return 0;
    }
    if (stamped > 0 && w->how->stamped) {
        int r = w->how->stamped(w->how->data, fd, incarnation, seq, w->e);
        if (r < 0)
            return r;
    }
    if (w->btrfs && fd >= 0)
        make_writable(fd);
    if (w->depth + 1 >= w->room) {
        int r = walk_hoist(w, l, name, fd);
        if (r <= 0)
            return r;
        walk_slide(w);
    }
    level_start(w->levels[++w->depth], steal_fd(&fd), name);
    return 0;
}

static int walk_entry(struct walk *w, struct level *l, const struct dirent64 *d)
{
    if (d->d_type == DT_DIR)
        return walk_enter(w, l, d->d_name);
    int r = remove_name(l->fd, true, d->d_name, 0);
    if (r == -EISDIR) /* DT_UNKNOWN, or replaced */
        return walk_enter(w, l, d->d_name);
    if (r == -EBUSY)
        return fail(w, l->fd, d->d_name, EBUSY, "something is mounted on it");
    if (r == 0)
        w->removed++;
    else if (r != -ENOENT)
        keep(w, l, d->d_name, -r);
    return 0;
}

/* From the top again, provided that this helps. */
static int walk_restart(struct walk *w)
{
    while (w->depth > 0)
        walk_pop(w);
    w->cut = false;
    if (w->removed == w->removed_before)
        return w->first ? w->first : fail(w, w->top, NULL, EBUSY, "changed all the time");
    w->removed_before = w->removed;
    level_rewind(w->levels[0]);
    return 0;
}

static void name_writer(const struct walk *w)
{
    pid_t pid = rmtree_name_writer(w->top, w->e);
    if (w->how->writer)
        *w->how->writer = pid;
}

/* rmdir of the level at hand, after a pass in which nothing was kept: 0 gone, 1 another round, or <0. */
static int level_remove(struct walk *w, struct level *l)
{
    struct level *above = w->depth > 0 ? w->levels[w->depth - 1] : NULL;
    int dirfd = above ? above->fd : w->parentfd;
    if (!above) {
        struct stat by_name, by_fd;
        if (fstat(l->fd, &by_fd) < 0)
            return fail(w, l->fd, NULL, errno, NULL);
        if (by_fd.st_nlink == 0)
            return 0;
        if (fstatat(dirfd, l->name, &by_name, AT_SYMLINK_NOFOLLOW) < 0 || by_name.st_dev != by_fd.st_dev ||
            by_name.st_ino != by_fd.st_ino)
            return fail(w, l->fd, NULL, ESTALE, "replaced while it was removed");
    }
    int r = remove_name(dirfd, above != NULL, l->name, AT_REMOVEDIR);
    switch (r) {
    case 0:
        w->removed++;
        return 0;
    case -ENOENT:
    case -ENOTDIR:
        return 0;
    case -EBUSY:
        return fail(w, l->fd, NULL, EBUSY, "something is mounted on it");
    case -ENOTEMPTY:
    case -EEXIST:
        if (++l->rounds < ROUNDS)
            return 1;
        r = fail(w, l->fd, NULL, EBUSY, "refilled while it was removed");
        name_writer(w);
        return r;
    default:
        if (!above)
            return fail(w, l->fd, NULL, -r, NULL);
        keep(w, above, l->name, -r);
        return 0;
    }
}

/* The end of a pass over the level at hand. 1 when the top is gone, 0 to go on, or <0. */
static int walk_leave(struct walk *w)
{
    struct level *l = w->levels[w->depth];
    if (w->depth == 0 && w->hoisted) {
        w->hoisted = false;
        level_rewind(l);
        return 0;
    }
    if (w->depth == 1 && w->cut)
        return walk_restart(w);
    if (l->kept) {
        if (w->depth == 0)
            return w->first;
        w->levels[w->depth - 1]->kept = true;
        walk_pop(w);
        return 0;
    }
    int r = level_remove(w, l);
    if (r > 0)
        level_rewind(l);
    if (r != 0)
        return r < 0 ? r : 0;
    if (w->depth == 0)
        return 1;
    walk_pop(w);
    return 0;
}

static int walk_run(struct walk *w)
{
    for (;;) {
        struct level *l = w->levels[w->depth];
        int r = 0;
        if (w->how->deadline_ns && now_monotonic_ns() > w->how->deadline_ns)
            return fail(w, w->top, NULL, ETIMEDOUT, "not finished in time");
        struct dirent64 *d = level_next(l, &r);
        if (r < 0)
            return fail(w, l->fd, NULL, -r, NULL);
        r = d ? walk_entry(w, l, d) : walk_leave(w);
        if (r != 0)
            return r < 0 ? r : 0;
    }
}

int rmtree(int parentfd, const char *name, int fd, const struct rmtree *how, struct rbxj_error *e)
{
    _cleanup_free_ struct level *levels = malloc(LEVELS * sizeof(*levels));
    if (!levels)
        return error_set(e, ENOMEM, ENOMEM, "remove %s", name);
    struct walk w = {.how = how, .e = e, .parentfd = parentfd, .top = fd, .room = LEVELS};
    for (size_t i = 0; i < LEVELS; i++)
        w.levels[i] = &levels[i];
    struct statfs sf;
    w.btrfs = fstatfs(fd, &sf) == 0 && sf.f_type == BTRFS_SUPER_MAGIC;
    if (w.btrfs)
        make_writable(fd);
    random_bytes(&w.random, sizeof(w.random));
    level_start(w.levels[0], fd, name);
    int r = walk_run(&w);
    while (w.depth > 0)
        walk_pop(&w);
    return r < 0 && w.first ? w.first : r;
}
