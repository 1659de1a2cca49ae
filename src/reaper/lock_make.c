/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The lock kind: prepare, acquire, prove, adopt.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/flocks.h"
#include "reaper/lock.h"

#include <string.h>
#include <sys/file.h>

/* ---- prepare ---- */

static int open_parent(const struct record *r, const char **base, struct rbxj_error *e)
{
    int fd = fd_open_parent(r->path, base);
    if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP) /* K18, a symlink on the way */
        return error_set(e, RBXJ_E_BAD_REQUEST, -fd, "lock %s: its directory", r->path);
    return fd < 0 ? error_sys(e, -fd, "lock %s: its directory", r->path) : fd;
}

/* As it was when the intent was written, as far as undo looks at that (K14). */
static int open_same_parent(const struct record *r, const char **base, struct rbxj_error *e)
{
    struct stat st;
    _cleanup_close_ int fd = open_parent(r, base, e);
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return error_sys(e, errno, "lock %s: its directory", r->path);
    if (!r->below && st.st_dev != r->parent.dev)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "lock %s: its directory is on another file system now",
                         r->path);
    return steal_fd(&fd);
}

/* What is there must be a file, and small enough to be written back (K5). */
static int read_before(struct record *r, int parent, const char *base, struct rbxj_error *e)
{
    struct stat st;
    _cleanup_close_ int fd = lock_open(parent, base, O_RDONLY, &st);
    if (fd < 0)
        return fd == -ENOENT ? 0 : error_sys(e, -fd, "lock %s", r->path);
    if (!S_ISREG(st.st_mode))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "lock %s: is not a regular file", r->path);
    if (st.st_size > LOCK_CONTENT_MAX)
        return error_set(e, RBXJ_E_BAD_REQUEST, EFBIG, "lock %s: holds more than %d bytes", r->path,
                         LOCK_CONTENT_MAX);
    int res = fileid_of_fd(fd, &r->before);
    if (res < 0)
        return error_sys(e, -res, "lock %s", r->path);
    r->content = malloc(LOCK_CONTENT_MAX);
    ssize_t n = r->content ? pread(fd, r->content, LOCK_CONTENT_MAX, 0) : -1;
    if (n < 0)
        return error_sys(e, r->content ? errno : ENOMEM, "lock %s", r->path);
    r->content_len = (size_t)n;
    r->flags |= REC_BEFORE_PRESENT;
    return 0;
}

int lock_prepare(struct undo *u, struct record *r, struct rbxj_error *e)
{
    const char *base;
    if (!path_is_normal(r->path))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "lock %s: not an absolute, plain path",
                         r->path ? r->path : "");
    int res = guard_protected(u->config, RBXJ_LOCK, r->path, e);
    if (res < 0)
        return res;
    r->owner = geteuid();
    if (r->below)
        return 0;
    _cleanup_close_ int parent = open_parent(r, &base, e);
    if (parent < 0)
        return parent;
    res = fileid_of_fd(parent, &r->parent);
    return res < 0 ? error_sys(e, -res, "lock %s: its directory", r->path) : read_before(r, parent, base, e);
}

/* Is what is there what read_before() saw? */
int lock_confirm(const struct record *r, struct rbxj_error *e)
{
    const char *base;
    struct record now = {.path = r->path};
    if (r->below)
        return 0;
    _cleanup_close_ int parent = open_parent(r, &base, e);
    int res = parent < 0 ? parent : read_before(&now, parent, base, e);
    bool present = r->flags & REC_BEFORE_PRESENT;
    bool same = res == 0 && present == !!(now.flags & REC_BEFORE_PRESENT) &&
                (!present ||
                 (fileid_equal(&now.before, &r->before, true) && now.content_len == r->content_len &&
                  memcmp(now.content, r->content, r->content_len) == 0));
    free(now.content);
    if (res == 0 && !same)
        res = error_set(e, RBXJ_E_EXISTS, 0, "lock %s: was changed while its intent was written", r->path);
    return res;
}

static int name_one(void *data, pid_t pid)
{
    char who[128];
    procid_describe(pid, who, sizeof(who));
    error_detail(data, "held by pid %d (%s)", pid, who);
    return 1;
}

static int refuse_held(const struct record *r, int fd, struct rbxj_error *e)
{
    struct stat st;
    bool blind = false;
    int res = error_set(e, RBXJ_E_BUSY, EWOULDBLOCK, "lock %s: somebody holds it", r->path);
    if (e && (fstat(fd, &st) < 0 || flocks_holders(st.st_dev, st.st_ino, name_one, e, &blind) <= 0))
        error_detail(e, "its holder is not visible from here");
    return res;
}

/* A new file that bears its stamp before it has its name: a power cut between the two would leave a file that
 * nothing proves to be ours (K1). -EOPNOTSUPP where that can't be done, or another -errno. linkat(2),
 * AT_SYMLINK_FOLLOW. */
static int link_stamped(const struct record *r, int parent, const char *base)
{
    char path[40];
    _cleanup_close_ int fd = openat(parent, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 || stamp_set(fd, r) < 0)
        return -EOPNOTSUPP;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (linkat(AT_FDCWD, path, parent, base, AT_SYMLINK_FOLLOW) < 0)
        return errno == EEXIST ? -EEXIST : -EOPNOTSUPP;
    /* opened by its name it is shown by that in /proc, and not as deleted */
    struct stat st;
    _cleanup_close_ int named = lock_open(parent, base, O_RDWR, &st);
    return named >= 0 && fd_is_named(parent, base, fd) > 0 && fd_is_named(parent, base, named) > 0
               ? steal_fd(&named)
               : steal_fd(&fd);
}

static int make_lock(const struct record *r, int parent, const char *base)
{
    int fd = link_stamped(r, parent, base);
    if (fd != -EOPNOTSUPP)
        return fd;
    fd = openat(parent, base, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_CREAT | O_EXCL, 0600);
    return fd < 0 ? -errno : fd;
}

/* Opens the file that is, or is to be, the lock: the same inode as before, or a new one. */
static int open_lock(struct undo *u, const struct record *r, int parent, const char *base,
                     struct rbxj_error *e)
{
    struct fileid id;
    bool present = r->flags & REC_BEFORE_PRESENT;
    struct stat st;
    _cleanup_close_ int fd = present ? lock_open(parent, base, O_RDWR, &st) : make_lock(r, parent, base);
    int failed = fd >= 0 ? 0 : -fd;
    u->made = !present && guard_may_have_made(failed);
    if (failed)
        return failed == EEXIST
                   ? error_set(e, RBXJ_E_EXISTS, EEXIST, "lock %s: somebody made it meanwhile", r->path)
                   : error_sys(e, failed, "lock %s", r->path);
    int res = fileid_of_fd(fd, &id);
    if (res < 0)
        return error_sys(e, -res, "lock %s", r->path);
    if (present && !fileid_equal(&id, &r->before, true))
        return error_set(e, RBXJ_E_EXISTS, 0, "lock %s: was replaced meanwhile", r->path);
    return steal_fd(&fd);
}

/* 1, 0 where it can't bear one, or a negative code. */
static int set_stamp(const struct record *r, int fd, struct rbxj_error *e)
{
    int res = stamp_set(fd, r);
    if (res < 0 && res != -EOPNOTSUPP && res != -EPERM)
        return error_sys(e, -res, "lock %s: its stamp", r->path);
    return res == 0;
}

/* Was it there before the intent? By the clock, which may have been set back since: not asked of what was
 * just made here. */
static bool is_older(const struct undo *u, const struct fileid *id, const struct record *r)
{
    return !u->made && id->btime_ns && id->btime_ns < r->time_ns - 1000000000;
}

int lock_prove(struct undo *u, struct record *r, struct rbxj_error *e)
{
    const char *base;
    struct fileid id;
    struct stat st;
    _cleanup_close_ int parent = open_same_parent(r, &base, e);
    if (parent < 0)
        return parent;
    _cleanup_close_ int fd = lock_open(parent, base, O_RDONLY, &st);
    if (fd < 0)
        return fd == -ENOENT ? error_set(e, RBXJ_E_BAD_REQUEST, ENOENT, "lock %s: was not made", r->path)
                             : error_sys(e, -fd, "lock %s", r->path);
    int res = fileid_of_fd(fd, &id);
    if (res < 0)
        return error_sys(e, -res, "lock %s", r->path);
    if (!S_ISREG(id.mode) || id.uid != r->owner)
        return error_set(e, RBXJ_E_EXISTS, 0, "lock %s: is not a regular file of uid %u", r->path, r->owner);
    if (r->flags & REC_BEFORE_PRESENT ? !fileid_equal(&id, &r->before, true) : is_older(u, &id, r))
        return error_set(e, RBXJ_E_EXISTS, 0, "lock %s: is another file than the one that was to be taken",
                         r->path);
    res = set_stamp(r, fd, e);
    if (res < 0)
        return res;
    r->id = id;
    r->flags |= REC_EVIDENCE | (res > 0 ? REC_STAMPED : REC_NO_STAMP);
    memcpy(r->evidence_boot, u->box->supervisor.boot_id, sizeof(r->evidence_boot));
    return 0;
}

int lock_acquire(struct undo *u, struct record *r, const char *options, int *ret_fd, struct rbxj_error *e)
{
    (void)options;
    const char *base;
    char line[LOCK_LINE_MAX];
    size_t len = lock_own_line(u, r, line);
    _cleanup_close_ int parent = open_same_parent(r, &base, e);
    if (parent < 0)
        return parent;
    _cleanup_close_ int fd = open_lock(u, r, parent, base, e);
    if (fd < 0)
        return fd;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? refuse_held(r, fd, e) : error_sys(e, errno, "lock %s", r->path);
    int named = fd_is_named(parent, base, fd);
    if (named < 0)
        return error_sys(e, -named, "lock %s", r->path);
    if (!named) { /* an unlinker was faster: what we hold is no longer the lock */
        struct stat st;
        u->made = u->made && !(fstat(fd, &st) == 0 && st.st_nlink == 0);
        return error_set(e, RBXJ_E_EXISTS, 0, "lock %s: was removed while it was taken", r->path);
    }
    u->made = true;
    /* The stamp first: content reaches the disk long after the file itself, and not at all if the power is
     * cut before. For the same reason a new file gets no size but by writing: ext4 would put that on disk
     * without the content. */
    int res = set_stamp(r, fd, e);
    if (res < 0)
        return res;
    if (((r->flags & REC_BEFORE_PRESENT) && ftruncate(fd, 0) < 0) || pwrite(fd, line, len, 0) != (ssize_t)len)
        return error_sys(e, errno ? errno : ENOSPC, "lock %s: its content", r->path);
    res = lock_prove(u, r, e);
    if (res == 0)
        *ret_fd = steal_fd(&fd);
    return res;
}

/* What it holds is kept, too: it may be the stamp of a journal that was lost. */
int lock_adopt(struct undo *u, struct record *r, struct rbxj_error *e)
{
    const char *base;
    struct stat st;
    int rc = guard_protected(u->config, RBXJ_LOCK, r->path, e);
    if (rc < 0)
        return rc;
    _cleanup_close_ int parent = open_parent(r, &base, e);
    if (parent < 0)
        return parent;
    _cleanup_close_ int fd = lock_open(parent, base, O_RDONLY, &st);
    if (fd < 0)
        return error_sys(e, -fd, "lock %s", r->path);
    if (!S_ISREG(st.st_mode))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "lock %s: is not a regular file", r->path);
    rc = r->below ? 0 : fileid_of_fd(parent, &r->parent);
    rc = rc < 0 ? rc : fileid_of_fd(fd, &r->id);
    rc = rc < 0 ? rc : procid_boot(r->evidence_boot);
    int held = rc < 0 ? rc : flocks_is_held(st.st_dev, st.st_ino);
    r->content = held < 0 ? NULL : malloc(LOCK_CONTENT_MAX);
    ssize_t n = r->content ? pread(fd, r->content, LOCK_CONTENT_MAX, 0) : -1;
    if (n < 0)
        return error_sys(e, held < 0 ? -held : r->content ? errno : ENOMEM, "lock %s", r->path);
    if (held)
        return refuse_held(r, fd, e);
    r->content_len = (size_t)n;
    r->owner = r->id.uid;
    r->flags |= REC_EVIDENCE | REC_NO_STAMP;
    return 0;
}
