/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A lock file. Undone with its flock held (K7): absent before, it is unlinked; present before, its content is
 * written back and the inode stays, since somebody may wait on it.
 *
 * What rbxj writes into it is one line of JSON that follows from the record alone, with the stamp in front,
 * so that an interrupted write is told from corruption: it is a strict prefix of that line.
 */
#include "base/cleanup.h"
#include "base/doc.h"
#include "base/fd.h"
#include "reaper/flocks.h"
#include "reaper/incident.h"
#include "reaper/undo.h"

#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/vfs.h>

#define LINE_MAX_ 256

static size_t own_line(const struct undo *u, const struct record *r, char buf[LINE_MAX_])
{
    int n = snprintf(buf, LINE_MAX_,
                     "{\"rbxj\":\"%" PRIu64 ":%" PRIu32 "\",\"pid\":%d,\"box_id\":\"%s\",\"created_at\":{"
                     "\"secs_since_epoch\":%" PRId64 ",\"nanos_since_epoch\":%" PRId64 "}}\n",
                     r->incarnation, r->seq, u->box->supervisor.pid, u->box->name, r->time_ns / 1000000000,
                     r->time_ns % 1000000000);
    return (size_t)n;
}

/* The stamp in a lock file's JSON: 1 there is one, 0 none, or -ENOMEM. */
static int json_stamp(const char *text, size_t len, uint64_t *incarnation, uint32_t *seq, bool *ret_is_json)
{
    cJSON *json = NULL;
    int res = memchr(text, 0, len) ? -EBADMSG : doc_parse(text, len, &json);
    if (res == -ENOMEM)
        return res;
    const char *stamp = doc_get_text(json, "rbxj");
    bool found = stamp && stamp_parse(stamp, incarnation, seq);
    *ret_is_json = json != NULL; /* a pid file is one, too */
    cJSON_Delete(json);
    return found;
}

/* ---- prepare, acquire, prove ---- */

static int open_parent(const struct record *r, const char **base, struct rbxj_error *e)
{
    int fd = fd_open_parent(r->path, base);
    if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP) /* K18, a symlink on the way */
        return error_set(e, RBXJ_E_BAD_REQUEST, -fd, "lock %s: its directory", r->path);
    return fd < 0 ? error_sys(e, -fd, "lock %s: its directory", r->path) : fd;
}

/* What is there must be a file, and small enough to be written back (K5). */
static int read_before(struct record *r, int parent, const char *base, struct rbxj_error *e)
{
    struct stat st;
    if (fstatat(parent, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : error_sys(e, errno, "lock %s", r->path);
    if (!S_ISREG(st.st_mode))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "lock %s: is not a regular file", r->path);
    if (st.st_size > LOCK_CONTENT_MAX)
        return error_set(e, RBXJ_E_BAD_REQUEST, EFBIG, "lock %s: holds more than %d bytes", r->path,
                         LOCK_CONTENT_MAX);
    _cleanup_close_ int fd = openat(parent, base, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_sys(e, errno, "lock %s", r->path);
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

static int lock_prepare(struct undo *u, struct record *r, struct rbxj_error *e)
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
static int lock_confirm(const struct record *r, struct rbxj_error *e)
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
    if (e && (fstat(fd, &st) < 0 || flocks_holders(st.st_ino, name_one, e, &blind) <= 0))
        error_detail(e, "its holder is not visible from here");
    return res;
}

/* Opens the file that is, or is to be, the lock: the same inode as before, or a new one. */
static int open_lock(struct undo *u, const struct record *r, int parent, const char *base,
                     struct rbxj_error *e)
{
    struct fileid id;
    bool present = r->flags & REC_BEFORE_PRESENT;
    int create = present ? 0 : O_CREAT | O_EXCL;
    _cleanup_close_ int fd = openat(parent, base, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | create,
                                    0600);
    int failed = fd < 0 ? errno : 0;
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

static int lock_prove(struct undo *u, struct record *r, struct rbxj_error *e);

static int lock_acquire(struct undo *u, struct record *r, const char *options, int *ret_fd,
                        struct rbxj_error *e)
{
    (void)options;
    const char *base;
    char line[LINE_MAX_];
    size_t len = own_line(u, r, line);
    _cleanup_close_ int parent = open_parent(r, &base, e);
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
    if (pwrite(fd, line, len, 0) != (ssize_t)len || ftruncate(fd, (off_t)len) < 0)
        return error_sys(e, errno ? errno : ENOSPC, "lock %s: its content", r->path);
    int res = lock_prove(u, r, e);
    if (res == 0)
        *ret_fd = steal_fd(&fd);
    return res;
}

static int lock_prove(struct undo *u, struct record *r, struct rbxj_error *e)
{
    const char *base;
    char text[LOCK_CONTENT_MAX];
    struct fileid id;
    uint64_t incarnation;
    uint32_t seq;
    bool is_json;
    _cleanup_close_ int parent = open_parent(r, &base, e);
    if (parent < 0)
        return parent;
    _cleanup_close_ int fd = openat(parent, base, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? error_set(e, RBXJ_E_BAD_REQUEST, errno, "lock %s: was not made", r->path)
                               : error_sys(e, errno, "lock %s", r->path);
    int res = fileid_of_fd(fd, &id);
    ssize_t n = res < 0 ? -1 : pread(fd, text, sizeof(text), 0);
    if (n < 0)
        return error_sys(e, res < 0 ? -res : errno, "lock %s", r->path);
    if (!S_ISREG(id.mode) || id.uid != r->owner)
        return error_set(e, RBXJ_E_EXISTS, 0, "lock %s: is not a regular file of uid %u", r->path, r->owner);
    if (r->flags & REC_BEFORE_PRESENT ? !fileid_equal(&id, &r->before, true)
                                      : id.btime_ns && id.btime_ns < r->time_ns - 1000000000)
        return error_set(e, RBXJ_E_EXISTS, 0, "lock %s: is another file than the one that was to be taken",
                         r->path);
    res = json_stamp(text, (size_t)n, &incarnation, &seq, &is_json);
    if (res < 0)
        return error_sys(e, -res, "lock %s: its content", r->path);
    res = res && incarnation == r->incarnation && seq == r->seq ? 0 : stamp_set(fd, r);
    if (res < 0 && res != -EOPNOTSUPP && res != -EPERM)
        return error_sys(e, -res, "lock %s: its stamp", r->path);
    r->id = id;
    r->flags |= REC_EVIDENCE | (res == 0 ? REC_STAMPED : REC_NO_STAMP);
    memcpy(r->evidence_boot, u->box->supervisor.boot_id, sizeof(r->evidence_boot));
    return 0;
}

/* What it holds is kept, too: it may be the stamp of a journal that was lost. */
static int lock_adopt(struct undo *u, struct record *r, struct rbxj_error *e)
{
    const char *base;
    struct stat st;
    int rc = guard_protected(u->config, RBXJ_LOCK, r->path, e);
    if (rc < 0)
        return rc;
    _cleanup_close_ int parent = open_parent(r, &base, e);
    if (parent < 0)
        return parent;
    _cleanup_close_ int fd = openat(parent, base, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_sys(e, errno, "lock %s", r->path);
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

/* ---- look ---- */

enum content {
    CONTENT_EMPTY,
    CONTENT_OURS,
    CONTENT_PREFIX,
    CONTENT_BEFORE,
    CONTENT_OTHER_BOX,
    CONTENT_JSON,
    CONTENT_CORRUPT
};

struct seen {
    int parent, fd;
    const char *base;
    struct fileid id;
    enum content content;
};

#define SEEN_INIT                                                                                            \
    {                                                                                                        \
        .parent = -1, .fd = -1                                                                               \
    }

static void seen_close(struct seen *s)
{
    cleanup_closep(&s->parent);
    cleanup_closep(&s->fd);
}

/* What the file says, or -errno. Bounded: no more is read than a lock file can hold. */
static int judge_content(const struct undo *u, const struct record *r, int fd)
{
    char text[LOCK_CONTENT_MAX + 1], line[LINE_MAX_];
    uint64_t incarnation;
    uint32_t seq;
    bool is_json;
    ssize_t n = pread(fd, text, sizeof(text), 0);
    if (n < 0) /* not to be taken for an empty one */
        return -errno;
    size_t len = (size_t)n, own = own_line(u, r, line);
    if ((r->flags & REC_BEFORE_PRESENT) && len == r->content_len &&
        (len == 0 || memcmp(text, r->content, len) == 0))
        return CONTENT_BEFORE;
    if (len == 0)
        return CONTENT_EMPTY;
    if ((r->flags & REC_EVIDENCE) && r->content_len == len && memcmp(text, r->content, len) == 0)
        return CONTENT_OURS; /* as it was when it was adopted */
    int stamp = len <= LOCK_CONTENT_MAX ? json_stamp(text, len, &incarnation, &seq, &is_json) : 0;
    if (stamp < 0)
        return stamp;
    if (stamp)
        return incarnation == r->incarnation && seq == r->seq ? CONTENT_OURS : CONTENT_OTHER_BOX;
    if (len < own && memcmp(text, line, len) == 0)
        return CONTENT_PREFIX;
    return len <= LOCK_CONTENT_MAX && is_json ? CONTENT_JSON : CONTENT_CORRUPT;
}

static int refuse(struct finding *f, const struct record *r, int errnum, const char *why)
{
    f->found = FOUND_BUSY;
    if (errno_is_want(errnum)) /* says nothing about it */
        return error_sys(&f->error, errnum, "lock %s: %s", r->path, why);
    f->found = FOUND_FOREIGN;
    f->refused = true;
    (void)error_set(&f->error, RBXJ_E_FOREIGN, errnum, "lock %s: %s", r->path, why);
    return 0;
}

/* Without evidence its content or its stamp must prove it (K1). */
static int judge_unproven(const struct undo *u, const struct record *r, struct seen *s, struct finding *f)
{
    /* the stamp with its whole incarnation and a digit of seq is in the prefix: nobody else writes that */
    int ours = s->content == CONTENT_OURS || stamp_is_ours(s->fd, r, &s->id, u->same_boot);
    if (ours < 0)
        return error_sys(&f->error, -ours, "lock %s: its stamp", r->path);
    if (s->content == CONTENT_PREFIX) {
        char line[LINE_MAX_];
        struct stat st;
        (void)own_line(u, r, line);
        if (fstat(s->fd, &st) < 0)
            return error_sys(&f->error, errno, "lock %s", r->path);
        ours = ours || st.st_size > strchr(line + 9, ':') - line;
    }
    if (ours)
        f->found = FOUND_PRESENT;
    else if (s->content == CONTENT_EMPTY)
        f->found = FOUND_GONE; /* never written: left as it is, there is nothing to undo */
    else
        return refuse(f, r, 0, "what is there is not ours");
    return 0;
}

static int survey(struct undo *u, const struct record *r, struct seen *s, struct finding *f)
{
    s->parent = guard_open_parent(u, r, &s->base, f);
    if (s->parent < 0)
        return 0; /* gone or refused: f says which */
    s->fd = openat(s->parent, s->base, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (s->fd < 0 && errno == ENOENT) {
        f->found = FOUND_GONE;
        return 0;
    }
    if (s->fd < 0 && errno_is_want(errno))
        return error_sys(&f->error, errno, "lock %s", r->path);
    if (s->fd < 0)
        return refuse(f, r, errno, errno == ELOOP ? "a symbolic link is in its place" : "it can't be opened");
    int res = fileid_of_fd(s->fd, &s->id);
    if (res < 0)
        return error_sys(&f->error, -res, "lock %s", r->path);
    f->identity = s->id.ino ^ (uint64_t)s->id.btime_ns;
    if (!S_ISREG(s->id.mode))
        return refuse(f, r, 0, "what is there is not a regular file");
    res = judge_content(u, r, s->fd);
    if (res < 0)
        return error_sys(&f->error, -res, "lock %s: its content", r->path);
    s->content = (enum content)res;
    if (s->content == CONTENT_OTHER_BOX)
        return refuse(f, r, 0, "another box has it now");
    if (s->content ==
        CONTENT_BEFORE) { /* never written, or written back already (I5); but for a stamp that we set */
        res = stamp_is_ours(s->fd, r, &s->id, u->same_boot);
        if (res < 0)
            return error_sys(&f->error, -res, "lock %s: its stamp", r->path);
        f->found = res ? FOUND_PRESENT : FOUND_GONE;
        return 0;
    }
    if (!(r->flags & REC_EVIDENCE)) {
        res = judge_unproven(u, r, s, f);
        if (res < 0)
            return res;
    } else if (!fileid_equal(&s->id, &r->id, u->same_boot))
        return refuse(f, r, 0, "another file is in its place");
    else
        f->found = FOUND_PRESENT;
    if (f->found == FOUND_PRESENT && s->content == CONTENT_CORRUPT)
        f->corrupt = true;
    return 0;
}

static int lock_look(struct undo *u, const struct record *r, struct finding *f)
{
    _cleanup_(seen_close) struct seen s = SEEN_INIT;
    return survey(u, r, &s, f);
}

/* ---- undo ---- */

/* Corrupt content is evidence of something: kept aside. A failure here blocks no undo (K19). */
static void keep_aside(struct undo *u, const struct record *r, int fd)
{
    char name[BOX_NAME_MAX + 48];
    (void)snprintf(name, sizeof(name), "%s-%" PRIu64 "-%" PRIu32 ".lock", u->box->name, r->incarnation,
                   r->seq);
    int res = u->incident ? incident_keep(u->config, u->incident, name, fd) : -ENOMEM;
    if (res < 0 && !u->not_kept.errnum) {
        u->not_kept.seq = r->seq;
        u->not_kept.errnum = -res;
    }
}

/* The flock must be ours: the reaper took it before the first undo; in a normal teardown the supervisor has
 * it. */
static int restore(const struct record *r, struct seen *s, struct finding *f)
{
    _cleanup_close_ int fd = openat(s->parent, s->base, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct fileid id;
    int res = fd < 0 ? -errno : fileid_of_fd(fd, &id);
    if (res < 0)
        return error_sys(&f->error, -res, "lock %s", r->path);
    if (!fileid_equal(&id, &s->id, true))
        return error_set(&f->error, RBXJ_E_FOREIGN, 0, "lock %s: was replaced meanwhile", r->path);
    if (pwrite(fd, r->content, r->content_len, 0) != (ssize_t)r->content_len ||
        ftruncate(fd, (off_t)r->content_len) < 0 || (!fs_is_volatile(id.fs_magic) && fdatasync(fd) < 0))
        return error_sys(&f->error, errno ? errno : EIO, "lock %s: writing back what it held", r->path);
    stamp_remove(fd);
    return 1;
}

static int lock_undo(struct undo *u, struct record *r, struct finding *f)
{
    _cleanup_(seen_close) struct seen s = SEEN_INIT;
    int res = survey(u, r, &s, f);
    if (res < 0 || f->found == FOUND_GONE)
        return res;
    if (f->found != FOUND_PRESENT)
        return -f->error.code;
    if (f->corrupt)
        keep_aside(u, r, s.fd);
    if (r->flags & REC_BEFORE_PRESENT)
        return restore(r, &s, f);
    int named = fd_is_named(s.parent, s.base, s.fd);
    if (named < 0)
        return error_sys(&f->error, -named, "lock %s", r->path);
    if (!named) {
        f->found = FOUND_FOREIGN;
        f->refused = true;
        return error_set(&f->error, RBXJ_E_FOREIGN, 0, "lock %s: was replaced meanwhile", r->path);
    }
    if (unlinkat(s.parent, s.base, 0) < 0)
        return error_sys(&f->error, errno, "lock %s", r->path);
    return 1;
}

static int lock_verify(struct undo *u, const struct record *r, struct finding *f)
{
    struct finding seen = {0};
    _cleanup_(seen_close) struct seen s = SEEN_INIT;
    int res = survey(u, r, &s, &seen);
    bool looked = s.fd >= 0; /* else a refusal says nothing about it */
    if (res == 0 && (seen.found == FOUND_GONE || (seen.found == FOUND_FOREIGN && looked)))
        return 0;
    if (res == 0 && seen.found == FOUND_PRESENT)
        res = error_set(&seen.error, EEXIST, 0, "lock %s: is still there", r->path);
    f->error = seen.error;
    return res < 0 ? res : -f->error.code;
}

const struct kind kind_lock = {
    .name = "lock",
    .action = "unlink",
    .prepare = lock_prepare,
    .confirm = lock_confirm,
    .acquire = lock_acquire,
    .prove = lock_prove,
    .adopt = lock_adopt,
    .look = lock_look,
    .undo = lock_undo,
    .verify = lock_verify,
};
