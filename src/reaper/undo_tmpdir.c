/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The tmpdir kind: a directory that was made for the box, undone with all that was put into it.
 *
 * It is undone in three steps: renamed aside, which frees the box's path at once; emptied; removed. The name
 * aside is made from the record's nonce, so whoever runs this again after it was killed in between finds the
 * directory under either name, and gone means that it is under neither (K17), and that its file system has it
 * under no other name either: one that was renamed where it is, is undone there; one that was moved elsewhere
 * is left.
 *
 * A directory that could not be proved ours when it was acquired (K1: no evidence, no stamp) is at most
 * rmdir'ed, in place, as is one with REC_RMDIR_ONLY (K18).
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/helper.h"
#include "journal/journal.h"
#include "reaper/mount.h"
#include "reaper/rmtree.h"
#include "reaper/tmpdir.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- prepare, acquire, prove ---- */

/* The parent, and that it is the one of the intent, if that is written already. */
static int open_parent(const struct record *r, const char **ret_base, struct fileid *ret_id,
                       struct rbxj_error *e)
{
    _cleanup_close_ int parent = fd_open_parent(r->path, ret_base);
    if (parent == -ENOENT || parent == -ENOTDIR || parent == -ELOOP) /* missing: K18; a symlink */
        return error_set(e, RBXJ_E_BAD_REQUEST, -parent, "tmpdir %s: its parent directory", r->path);
    int rc = parent < 0 ? parent : fileid_of_fd(parent, ret_id);
    if (rc < 0)
        return error_sys(e, -rc, "tmpdir %s: its parent directory", r->path);
    if (!r->below && fileid_is_set(&r->parent) && !fileid_equal(ret_id, &r->parent, true) &&
        !fileid_may_be(ret_id, &r->parent, true))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "tmpdir %s: its parent directory is another one now",
                         r->path);
    return steal_fd(&parent);
}

static int tmpdir_prepare(struct undo *u, struct record *r, struct rbxj_error *e)
{
    static const uint8_t no_nonce[sizeof(r->nonce)];
    const char *base;
    struct fileid id;
    struct stat st;
    if (!path_is_normal(r->path))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "tmpdir %s: not an absolute, plain path",
                         r->path ? r->path : "");
    int rc = guard_protected(u->config, RBXJ_TMPDIR, r->path, e);
    if (rc < 0)
        return rc;
    if (!r->below) { /* below an item that is yet to be made there is nothing to look at (K13) */
        _cleanup_close_ int parent = open_parent(r, &base, &id, e);
        if (parent < 0)
            return parent;
        if (fstatat(parent, base, &st, AT_SYMLINK_NOFOLLOW) == 0)
            return error_set(e, RBXJ_E_EXISTS, EEXIST, "tmpdir %s", r->path);
        if (errno != ENOENT)
            return error_sys(e, errno, "tmpdir %s", r->path);
        r->parent = id;
    }
    r->owner = geteuid();
    if (memcmp(r->nonce, no_nonce, sizeof(no_nonce)) == 0)
        random_bytes(r->nonce, sizeof(r->nonce));
    return 0;
}

/* Is it as it must be when it is new? */
static int check_new(const struct record *r, int fd, struct fileid *ret_id, struct rbxj_error *e)
{
    uint64_t incarnation;
    uint32_t seq;
    int rc = fileid_of_fd(fd, ret_id);
    int empty = rc < 0 ? rc : rmtree_is_empty(fd);
    int stamped = empty < 0 ? empty : stamp_get(fd, &incarnation, &seq);
    if (stamped < 0 && stamped != -EOPNOTSUPP)
        return error_sys(e, -stamped, "tmpdir %s", r->path);
    if (ret_id->uid != r->owner)
        return error_set(e, RBXJ_E_EXISTS, 0, "tmpdir %s: belongs to uid %u, not %u", r->path, ret_id->uid,
                         r->owner);
    if (!empty)
        return error_set(e, RBXJ_E_EXISTS, 0, "tmpdir %s: is not empty", r->path);
    if (stamped > 0 && (incarnation != r->incarnation || seq != r->seq))
        return error_set(e, RBXJ_E_EXISTS, 0, "tmpdir %s: is stamped by another box", r->path);
    return 0;
}

static int tmpdir_prove(struct undo *u, struct record *r, struct rbxj_error *e)
{
    (void)u;
    const char *base;
    struct fileid id;
    uint8_t boot[sizeof(r->evidence_boot)];
    _cleanup_close_ int parent = open_parent(r, &base, &id, e);
    if (parent < 0)
        return parent;
    _cleanup_close_ int fd = rmtree_open(parent, base);
    if (fd == -ENOENT)
        return error_set(e, RBXJ_E_BAD_REQUEST, ENOENT, "tmpdir %s: was not made", r->path);
    if (fd == -EXDEV || fd == -ELOOP || fd == -ENOTDIR)
        return error_set(e, RBXJ_E_EXISTS, -fd, "tmpdir %s: is not a new directory", r->path);
    if (fd < 0)
        return error_sys(e, -fd, "tmpdir %s", r->path);
    int rc = check_new(r, fd, &id, e);
    if (rc < 0)
        return rc;
    rc = procid_boot(boot);
    if (rc < 0)
        return error_sys(e, -rc, "tmpdir %s: the boot id", r->path);
    rc = stamp_set(fd, r);
    if (rc < 0 && rc != -EOPNOTSUPP && rc != -EPERM)
        return error_sys(e, -rc, "tmpdir %s: its stamp", r->path);
    r->flags |= REC_EVIDENCE | (rc == 0 ? REC_STAMPED : REC_NO_STAMP);
    r->id = id;
    memcpy(r->evidence_boot, boot, sizeof(boot));
    return 0;
}

static int tmpdir_acquire(struct undo *u, struct record *r, const char *options, int *ret_fd,
                          struct rbxj_error *e)
{
    (void)options;
    const char *base;
    struct fileid id;
    _cleanup_close_ int parent = open_parent(r, &base, &id, e);
    if (parent < 0)
        return parent;
    int rc = guard_mkdir(u, r, parent, base, 0700, e);
    if (rc == 0)
        rc = tmpdir_prove(u, r, e);
    if (rc == 0 && ret_fd)
        *ret_fd = -1;
    return rc;
}

static int tmpdir_adopt(struct undo *u, struct record *r, struct rbxj_error *e)
{
    const char *base;
    struct fileid parent_id;
    int rc = guard_protected(u->config, RBXJ_TMPDIR, r->path, e);
    if (rc < 0)
        return rc;
    _cleanup_close_ int parent = open_parent(r, &base, &parent_id, e);
    if (parent < 0)
        return parent;
    _cleanup_close_ int fd = rmtree_open(parent, base);
    if (fd == -EXDEV)
        return error_set(e, RBXJ_E_BUSY, EBUSY, "tmpdir %s: something is mounted on it", r->path);
    rc = fd < 0 ? fd : fileid_of_fd(fd, &r->id);
    if (rc == 0)
        rc = procid_boot(r->evidence_boot);
    if (rc < 0)
        return error_sys(e, -rc, "tmpdir %s", r->path);
    if (!r->below)
        r->parent = parent_id;
    r->owner = r->id.uid;
    r->flags |= REC_EVIDENCE | REC_NO_STAMP; /* what is there already can't be proven by a stamp of ours */
    return 0;
}

static int tmpdir_look(struct undo *u, const struct record *r, struct finding *f)
{
    _cleanup_(tmpdir_place_close) struct tmpdir_place p = tmpdir_no_place;
    return tmpdir_survey(u, r, &p, f);
}

/* ---- undo ---- */

static int busy(struct finding *f, const char *path, const char *why)
{
    f->found = FOUND_BUSY;
    return error_set(&f->error, EBUSY, EBUSY, "tmpdir %s: %s", path, why);
}

static int foreign(struct finding *f, const char *path, const char *why)
{
    f->found = FOUND_FOREIGN;
    f->refused = true;
    return error_set(&f->error, RBXJ_E_FOREIGN, 0, "tmpdir %s: %s", path, why);
}

/* Is it, or what it lies in below path, a mount of this box that was moved there? It goes by its own
 * record. */
static bool goes_by_its_record(const struct undo *u, const struct record *r, const struct mount *m,
                               const char *path)
{
    const struct mount_table *own = mounts_own(u->mounts);
    for (size_t depth = 0; m && path_is_below(m->target, path) && depth < PATH_MAX; depth++) {
        if (mount_is_of_box(u, r, m))
            return true;
        m = m->parent == m->id ? NULL : mount_table_by_id(own, m->parent);
    }
    return false;
}

/* Does it lie elsewhere, under a mount that covers it, and has but the same name? top: the mount in which
 * path is. One of the same file system (mount --bind /srv /srv) may show the very directory in which it
 * lies. */
static bool is_covered(const struct undo *u, const struct mount *m, const char *path, int32_t top)
{
    for (size_t depth = 0; m && path_is_below(m->target, path) && depth < PATH_MAX; depth++)
        m = m->parent == m->id ? NULL : mount_table_by_id(mounts_own(u->mounts), m->parent);
    const struct mount *over = top > 0 ? mount_table_by_id(mounts_own(u->mounts), top) : NULL;
    return m && over && m->id != top && m->dev != over->dev;
}

/* Nothing may be mounted at or below path, which is in parent. What is ours there was undone before, if it
 * was not moved there; a rename would carry along what is not (6.18). */
static int guard_mounts(struct undo *u, const struct record *r, int parent, const char *path,
                        struct finding *f)
{
    int rc = u->mounts ? 0 : mounts_read(&u->mounts, &f->error);
    if (rc < 0)
        return rc;
    struct mount_set all = mount_table_all(mounts_own(u->mounts));
    const struct mount *found = NULL;
    bool waits = true;
    int32_t top = 0; /* negative: it can't be known, and whatever has that name is in it */
    for (size_t i = 0; i < all.len && waits; i++) {
        if (all.mounts[i]->gone || !path_is_below(all.mounts[i]->target, path))
            continue;
        top = top ? top : mount_id_of_fd(parent);
        if (is_covered(u, all.mounts[i], path, top))
            continue;
        found = all.mounts[i];
        waits = goes_by_its_record(u, r, found, path);
    }
    if (!found)
        return 0;
    f->found = FOUND_BUSY;
    f->waits = waits;
    return error_set(&f->error, EBUSY, EBUSY, "tmpdir %s: mounted at %s is a %s", path, found->target,
                     found->fstype);
}

static int not_still(struct finding *f, const char *path, int still)
{
    return still < 0 ? error_sys(&f->error, -still, "tmpdir %s", path)
                     : foreign(f, path, "was replaced meanwhile");
}

/* rmdir and nothing else. */
static int remove_empty(const struct tmpdir_place *p, const struct tmpdir_name *n, struct finding *f)
{
    int still = fd_is_named(p->parent, n->name, n->fd);
    if (still <= 0)
        return not_still(f, n->path, still);
    if (unlinkat(p->parent, n->name, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return 0;
    if (errno == EBUSY)
        return busy(f, n->path, "something is mounted on it");
    if (errno != ENOTEMPTY && errno != EEXIST)
        return error_sys(&f->error, errno, "tmpdir %s", n->path);
    if (n->sight != SIGHT_OURS)
        return foreign(f, n->path, "not proved ours, and no longer empty");
    f->partial = true;
    return error_set(&f->error, ENOTEMPTY, ENOTEMPTY, "tmpdir %s: left, as only rmdir is allowed", n->path);
}

/* Renames it aside: 0 it is, 1 it can't be and is deleted in place, or <0. */
static int move_aside(struct tmpdir_place *p, const struct tmpdir_name *n, int fd, struct finding *f)
{
    const char *from = n->name, *to = p->aside.name;
    int still = fd_is_named(p->parent, from, fd);
    if (still <= 0)
        return not_still(f, n->path, still);
    int r = renameat2(p->parent, from, p->parent, to, RENAME_NOREPLACE);
    if (r < 0 && errno == EPERM && rmtree_unprotect(fd))
        r = renameat2(p->parent, from, p->parent, to, RENAME_NOREPLACE);
    if (r < 0)
        return errno == EBUSY ? busy(f, n->path, "something is mounted on it") : 1;
    still = fd_is_named(p->parent, to, fd);
    if (still != 0) /* whatever it is that lies aside: another look will tell */
        return still < 0 ? not_still(f, p->aside.path, still) : 0;
    if (renameat2(p->parent, to, p->parent, from, RENAME_NOREPLACE) < 0)
        return foreign(f, p->aside.path, "was put in place of ours meanwhile, and can't be moved back");
    return foreign(f, n->path, "was replaced meanwhile");
}

struct stamp_check {
    struct undo *u;
    const struct record *r;
    const char *path;
};

/* Whoever copies a directory copies its stamp: cp -a does, and an overlay that copies up. The evidence of the
 * one that was stamped tells it from a copy. 1 it is a copy, 0 it may be the one, or a negative code. */
static int is_copy(const struct snapshot *s, const struct snapshot_box *sb, int fd, uint32_t seq)
{
    struct fileid id;
    for (size_t i = 0; i < sb->len; i++) {
        const struct record *r = &sb->records[i];
        if (r->seq != seq || r->kind != RBXJ_TMPDIR || !(r->flags & REC_EVIDENCE))
            continue;
        int rc = fileid_of_fd(fd, &id);
        bool same_boot = memcmp(r->evidence_boot, s->boot_id, sizeof(s->boot_id)) == 0;
        return rc < 0 ? rc : !fileid_equal(&id, &r->id, same_boot) && !fileid_may_be(&id, &r->id, same_boot);
    }
    return 0;
}

/* rmtree's question: is that another box's directory, by whichever path (K4)? */
static int refuse_anothers(void *data, int fd, uint64_t incarnation, uint32_t seq, struct rbxj_error *e)
{
    const struct stamp_check *check = data;
    const struct snapshot *s = check->u->snapshot;
    for (size_t i = 0; s && incarnation != check->r->incarnation && i < s->len; i++) {
        if (s->boxes[i].box.incarnation != incarnation)
            continue;
        int copy = is_copy(s, &s->boxes[i], fd, seq);
        if (copy < 0)
            return error_sys(e, -copy, "tmpdir %s: a stamped directory in it", check->path);
        if (!copy)
            return error_set(e, EBUSY, EBUSY, "tmpdir %s: a directory of box %s (seq %u) is in it",
                             check->path, s->boxes[i].box.name, seq);
    }
    return 0;
}

static int remove_ours(struct undo *u, const struct record *r, struct tmpdir_place *p,
                       const struct tmpdir_name *n, struct finding *f)
{
    int rc = guard_overlap(u, r, n->path, f);
    if (rc == 0)
        rc = guard_mounts(u, r, p->parent, n->path, f);
    if (rc < 0)
        return rc;
    if ((r->flags & REC_RMDIR_ONLY) || n->sight != SIGHT_OURS)
        return remove_empty(p, n, f);
    _cleanup_close_ int fd = rmtree_open(n->fd, ".");
    if (fd < 0)
        return error_sys(&f->error, -fd, "tmpdir %s", n->path);
    if (n != &p->aside) {
        rc = move_aside(p, n, fd, f);
        if (rc < 0)
            return rc;
        if (rc == 0)
            n = &p->aside;
    }
    struct stamp_check check = {.u = u, .r = r, .path = r->path};
    pid_t writer = 0;
    struct rmtree how = {
        .deadline_ns = u->deadline_ns, .stamped = refuse_anothers, .data = &check, .writer = &writer};
    rc = rmtree(p->parent, n->name, fd, &how, &f->error);
    keepers_add(&f->keepers, writer);
    if (rc == -EBUSY)
        f->found = FOUND_BUSY;
    return rc;
}

static int tmpdir_undo(struct undo *u, struct record *r, struct finding *f)
{
    _cleanup_(tmpdir_place_close) struct tmpdir_place p = tmpdir_no_place;
    int rc = tmpdir_survey(u, r, &p, f);
    if (rc < 0 || f->found == FOUND_GONE)
        return rc;
    if (p.proper.sight == SIGHT_MOUNTED && f->found == FOUND_BUSY)
        (void)guard_mounts(u, r, p.parent, p.proper.path, f); /* by a mount of this box? */
    if (f->found != FOUND_PRESENT)
        return -f->error.code;
    /* one aside is from an undo that did not come to its end */
    const struct tmpdir_name *names[] = {&p.aside, &p.proper, &p.moved};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        rc = names[i]->sight >= SIGHT_EMPTY ? remove_ours(u, r, &p, names[i], f) : 0;
        if (rc < 0)
            return rc;
    }
    return 1;
}

static int tmpdir_verify(struct undo *u, const struct record *r, struct finding *f)
{
    _cleanup_(tmpdir_place_close) struct tmpdir_place p = tmpdir_no_place;
    struct finding seen = {0};
    int rc = tmpdir_survey(u, r, &p, &seen);
    bool looked = p.parent >= 0 && !p.away; /* else a refusal says nothing about it */
    if (rc == 0 && (seen.found == FOUND_GONE || (seen.found == FOUND_FOREIGN && looked)))
        return 0;
    if (rc == 0 && seen.found == FOUND_PRESENT)
        rc = error_set(&seen.error, EEXIST, 0, "tmpdir %s: is still there", r->path);
    *f = seen;
    return rc < 0 ? rc : -f->error.code;
}

const struct kind kind_tmpdir = {
    .name = "tmpdir",
    .action = "remove",
    .prepare = tmpdir_prepare,
    .acquire = tmpdir_acquire,
    .prove = tmpdir_prove,
    .adopt = tmpdir_adopt,
    .look = tmpdir_look,
    .undo = tmpdir_undo,
    .verify = tmpdir_verify,
};
