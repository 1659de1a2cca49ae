/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A lock file. Undone with its flock held (K7): absent before, it is unlinked; present before, its content is
 * written back and the inode stays, since somebody may wait on it.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/incident.h"
#include "reaper/lock.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

/* ---- look ---- */

struct seen {
    int parent, fd;
    bool unlinked; /* nobody asks where else it might be */
    const char *base;
    struct fileid id;
    struct lock_reading reading;
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

static int refuse(struct finding *f, const struct record *r, int errnum, const char *why)
{
    f->found = FOUND_BUSY;
    if (errno_is_want(errnum) || errnum == EWOULDBLOCK) /* says nothing about it; the latter: it is leased */
        return error_sys(&f->error, errnum, "lock %s: %s", r->path, why);
    f->found = FOUND_FOREIGN;
    f->refused = !record_is_anothers(r);
    (void)error_set(&f->error, RBXJ_E_FOREIGN, errnum, "lock %s: %s", r->path, why);
    return 0;
}

/* Without evidence its content or its stamp must prove it (K1). */
static int judge_unproven(const struct undo *u, const struct record *r, struct seen *s, struct finding *f)
{
    const char *copied = NULL;
    int ours = s->reading.whose == LOCK_OURS || s->reading.whose == LOCK_ADOPTED;
    if (!ours)
        ours = stamp_is_ours(s->fd, r, &s->id, u->same_boot, &copied);
    if (ours < 0)
        return error_sys(&f->error, -ours, "lock %s: its stamp", r->path);
    if (s->reading.whose == LOCK_BEGUN) {
        /* the stamp with its whole incarnation and a digit of seq is in the prefix: nobody else writes
         * that */
        char line[LOCK_LINE_MAX];
        struct stat st;
        (void)lock_own_line(u, r, line);
        if (fstat(s->fd, &st) < 0)
            return error_sys(&f->error, errno, "lock %s", r->path);
        ours = ours || st.st_size > strchr(line + 9, ':') - line;
    }
    if (ours)
        f->found = FOUND_PRESENT;
    else if (copied) /* also of an empty one: it may be ours */
        return refuse(f, r, 0, copied);
    else if (s->reading.content == LOCK_EMPTY)
        f->found = FOUND_GONE; /* never written: left as it is, there is nothing to undo */
    else
        return refuse(f, r, 0, "what is there is not ours");
    return 0;
}

/* Its name is free. It is gone if it is under no other name either: whoever may rename it can hide it so.
 * What lies in another item of the box goes with that one. */
static int look_elsewhere(struct undo *u, const struct record *r, const struct seen *s, struct finding *f)
{
    f->found = FOUND_GONE;
    if (r->below || s->unlinked || !(r->flags & REC_EVIDENCE))
        return 0;
    _cleanup_close_ int fd = fileid_open(s->parent, &r->id, u->same_boot);
    if (fd == -ESTALE || fd == -EOPNOTSUPP)
        return 0;
    if (fd < 0)
        return error_sys(&f->error, -fd, "lock %s: is not there; whether it was renamed", r->path);
    char path[PATH_MAX];
    fd_path(fd, path, sizeof(path));
    (void)refuse(f, r, 0, "is there under another name, or was moved");
    error_detail(&f->error, "%s", path);
    return 0;
}

static int survey(struct undo *u, const struct record *r, struct seen *s, struct finding *f)
{
    s->parent = guard_open_parent(u, r, &s->base, f);
    if (s->parent < 0)
        return 0; /* gone or refused: f says which */
    struct stat st;
    s->fd = lock_open(s->parent, s->base, O_RDONLY, &st);
    if (s->fd == -ENOENT)
        return look_elsewhere(u, r, s, f);
    if (s->fd < 0 && errno_is_want(-s->fd))
        return error_sys(&f->error, -s->fd, "lock %s", r->path);
    if (s->fd < 0)
        return refuse(f, r, -s->fd, "it can't be opened");
    int res = fileid_of_fd(s->fd, &s->id);
    if (res < 0)
        return error_sys(&f->error, -res, "lock %s", r->path);
    f->identity = s->id.ino ^ (uint64_t)s->id.btime_ns;
    f->content = LOCK_NOT_REGULAR;
    if (!S_ISREG(st.st_mode))
        return refuse(f, r, 0,
                      S_ISLNK(st.st_mode) ? "a symbolic link is in its place"
                                          : "what is there is not a regular file");
    res = lock_read(u, r, s->fd, &s->reading);
    if (res < 0)
        return error_sys(&f->error, -res, "lock %s: its content", r->path);
    f->content = s->reading.content;
    if (s->reading.whose == LOCK_OTHERS)
        return refuse(f, r, 0, "another box has it now");
    if (s->reading.whose ==
        LOCK_BEFORE) { /* never written, or written back already (I5); but for a stamp that we set */
        res = stamp_is_ours(s->fd, r, &s->id, u->same_boot, NULL);
        if (res < 0)
            return error_sys(&f->error, -res, "lock %s: its stamp", r->path);
        f->found = res && !u->given_back ? FOUND_PRESENT : FOUND_GONE;
        return 0;
    }
    if (!(r->flags & REC_EVIDENCE)) {
        res = judge_unproven(u, r, s, f);
        if (res < 0)
            return res;
    } else if (!fileid_equal(&s->id, &r->id, u->same_boot))
        return refuse(f, r, 0, "another file is in its place");
    else if ((res = stamp_is_missing(s->fd, r)) != 0)
        return refuse(f, r, res < 0 ? -res : 0, "what is there has its number, but not its stamp");
    else
        f->found = FOUND_PRESENT;
    f->corrupt = f->found == FOUND_PRESENT && lock_is_corrupt(&s->reading);
    if (f->corrupt)
        error_detail(&f->error, "with %s in it", lock_content_said(f->content));
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
    struct stat st;
    struct fileid id;
    _cleanup_close_ int fd = lock_open(s->parent, s->base, O_RDWR, &st);
    int res = fd < 0 ? fd : fileid_of_fd(fd, &id);
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
    s.unlinked = true; /* by undo(), or it was gone then: another link of it is none of ours */
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
