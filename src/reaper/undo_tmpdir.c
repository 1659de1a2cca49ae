/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The tmpdir kind: a directory that was made for the box, undone with all that was put into it.
 *
 * It is undone in three steps: renamed aside, which frees the box's path at once; emptied; removed. The name
 * aside is made from the record's nonce, so whoever runs this again after it was killed in between finds the
 * directory under either name, and gone means that it is under neither (K17).
 *
 * A directory that could not be proved ours when it was acquired (K1: no evidence, no stamp) is at most
 * rmdir'ed, in place, as is one with REC_RMDIR_ONLY (K18).
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/journal.h"
#include "reaper/mountinfo.h"
#include "reaper/rmtree.h"
#include "reaper/undo.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define ASIDE_PREFIX ".rbxj-"

/* What is under one of the names. */
enum sight { SIGHT_NOTHING, SIGHT_FOREIGN, SIGHT_MOUNTED, SIGHT_EMPTY, SIGHT_OURS };

struct name {
    const char *name;
    char path[PATH_MAX + NAME_MAX + 2];
    int fd;           /* O_PATH */
    enum sight sight; /* EMPTY: of the expected owner, but with nothing that proves it ours */
    const char *why;  /* it is foreign */
    struct fileid id;
};

struct place {
    int parent;
    char aside_name[sizeof(ASIDE_PREFIX) + 32];
    struct name aside, proper;
};

static void place_close(struct place *p)
{
    cleanup_closep(&p->parent);
    cleanup_closep(&p->aside.fd);
    cleanup_closep(&p->proper.fd);
}

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
    if (!r->below && fileid_is_set(&r->parent) && !fileid_equal(ret_id, &r->parent, true))
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
    if (mkdirat(parent, base, 0700) < 0)
        return errno == EEXIST ? error_set(e, RBXJ_E_EXISTS, EEXIST, "tmpdir %s", r->path)
                               : error_sys(e, errno, "tmpdir %s: make it", r->path);
    int rc = tmpdir_prove(u, r, e);
    if (rc == 0 && ret_fd)
        *ret_fd = -1;
    return rc;
}

/* ---- look ---- */

/* Without evidence: a stamp, or at least empty and of the expected owner (K1). */
static int judge_unproven(struct undo *u, const struct record *r, struct name *n)
{
    uint64_t incarnation;
    uint32_t seq;
    _cleanup_close_ int fd = fd_openat2(n->fd, ".", O_RDONLY | O_DIRECTORY, 0, RESOLVE_BENEATH);
    if (fd < 0)
        return fd;
    n->sight = SIGHT_OURS;
    int ours = stamp_is_ours(fd, r, &n->id, u->same_boot);
    if (ours != 0)
        return ours < 0 ? ours : 0;
    n->sight = SIGHT_FOREIGN;
    int stamped = stamp_get(fd, &incarnation, &seq);
    if (stamped < 0 && stamped != -EOPNOTSUPP)
        return stamped;
    n->why = "its stamp is another one's, or a copy";
    if (stamped > 0)
        return 0;
    n->why = "not known to be the one that was journaled: no evidence and no stamp";
    int empty = n->id.uid == r->owner ? rmtree_is_empty(fd) : 0;
    if (empty > 0)
        n->sight = SIGHT_EMPTY;
    return empty < 0 ? empty : 0;
}

static int judge(struct undo *u, const struct record *r, int parent, struct name *n)
{
    n->fd = fd_openat2(parent, n->name, O_PATH | O_NOFOLLOW, 0,
                       RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
    n->sight = n->fd == -EXDEV ? SIGHT_MOUNTED : SIGHT_NOTHING;
    if (n->fd == -ENOENT || n->fd == -EXDEV)
        return 0;
    int rc = n->fd < 0 ? n->fd : fileid_of_fd(n->fd, &n->id);
    if (rc < 0)
        return rc;
    n->sight = SIGHT_FOREIGN;
    n->why = S_ISLNK(n->id.mode) ? "a symlink" : "not a directory";
    if (!S_ISDIR(n->id.mode))
        return 0;
    if (!(r->flags & REC_EVIDENCE))
        return judge_unproven(u, r, n);
    n->why = "another directory than the one that was journaled";
    if (fileid_equal(&n->id, &r->id, u->same_boot))
        n->sight = SIGHT_OURS;
    return 0;
}

static uint64_t identity_of(const struct place *p)
{
    const struct name *names[] = {&p->aside, &p->proper};
    uint64_t seen[2][4] = {0};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (names[i]->fd >= 0) {
            seen[i][0] = names[i]->sight;
            seen[i][1] = names[i]->id.ino;
            seen[i][2] = (uint64_t)names[i]->id.btime_ns;
            seen[i][3] = XXH3_64bits(names[i]->id.handle, names[i]->id.handle_len);
        }
    return XXH3_64bits(seen, sizeof(seen));
}

/* The verdict on both names together. One of them that is ours decides; beside it a stranger has a right to
 * the other name. */
static void conclude(const struct record *r, const struct place *p, struct finding *f)
{
    enum sight aside = p->aside.sight, proper = p->proper.sight;
    f->identity = aside || proper ? identity_of(p) : 0;
    if (aside == SIGHT_MOUNTED || proper == SIGHT_MOUNTED) {
        f->found = FOUND_BUSY;
        (void)error_set(&f->error, EBUSY, EBUSY, "tmpdir %s: something is mounted on it",
                        proper == SIGHT_MOUNTED ? r->path : p->aside.path);
    } else if (aside >= SIGHT_EMPTY || proper >= SIGHT_EMPTY) {
        f->found = FOUND_PRESENT;
    } else if (aside == SIGHT_FOREIGN || proper == SIGHT_FOREIGN) {
        const struct name *n = proper == SIGHT_FOREIGN ? &p->proper : &p->aside;
        f->found = FOUND_FOREIGN;
        f->refused = true;
        (void)error_set(&f->error, RBXJ_E_FOREIGN, 0, "tmpdir %s: %s", n->path, n->why);
    } else {
        f->found = FOUND_GONE;
    }
}

/* Looks at both names, the proper one first: a rename meanwhile goes from there to the one aside, so that
 * what is there is not missed. 0 and f has the verdict, or <0. */
static int survey(struct undo *u, const struct record *r, struct place *p, struct finding *f)
{
    const char *base;
    p->parent = guard_open_parent(u, r, &base, f);
    if (p->parent < 0)
        return 0; /* gone or refused: f says which */
    memcpy(p->aside_name, ASIDE_PREFIX, sizeof(ASIDE_PREFIX));
    hex_encode(p->aside_name + sizeof(ASIDE_PREFIX) - 1, r->nonce, sizeof(r->nonce));
    p->aside.name = p->aside_name;
    p->proper.name = base;
    (void)snprintf(p->aside.path, sizeof(p->aside.path), "%.*s%s", (int)(base - r->path), r->path,
                   p->aside_name);
    (void)snprintf(p->proper.path, sizeof(p->proper.path), "%s", r->path);
    struct name *names[] = {&p->proper, &p->aside};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        int rc = judge(u, r, p->parent, names[i]);
        if (rc < 0)
            return error_sys(&f->error, -rc, "tmpdir %s", names[i]->path);
    }
    conclude(r, p, f);
    return 0;
}

static const struct place no_place = {.parent = -1, .aside = {.fd = -1}, .proper = {.fd = -1}};

static int tmpdir_look(struct undo *u, const struct record *r, struct finding *f)
{
    _cleanup_(place_close) struct place p = no_place;
    return survey(u, r, &p, f);
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

/* Nothing may be mounted at or below it. What is ours there was undone before; a rename would carry along
 * what is not (6.18). */
static int guard_mounts(struct undo *u, const char *path, struct finding *f)
{
    int rc = u->mounts ? 0 : mounts_read(&u->mounts, &f->error);
    if (rc < 0)
        return rc;
    struct mount_set all = mount_table_all(mounts_own(u->mounts));
    for (size_t i = 0; i < all.len; i++)
        if (!all.mounts[i]->gone && path_is_below(all.mounts[i]->target, path)) {
            f->found = FOUND_BUSY;
            return error_set(&f->error, EBUSY, EBUSY, "tmpdir %s: mounted at %s is a %s", path,
                             all.mounts[i]->target, all.mounts[i]->fstype);
        }
    return 0;
}

static int not_still(struct finding *f, const char *path, int still)
{
    return still < 0 ? error_sys(&f->error, -still, "tmpdir %s", path)
                     : foreign(f, path, "was replaced meanwhile");
}

/* rmdir and nothing else. */
static int remove_empty(const struct place *p, const struct name *n, struct finding *f)
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
static int move_aside(struct place *p, int fd, struct finding *f)
{
    const char *from = p->proper.name, *to = p->aside.name;
    int still = fd_is_named(p->parent, from, fd);
    if (still <= 0)
        return not_still(f, p->proper.path, still);
    int r = renameat2(p->parent, from, p->parent, to, RENAME_NOREPLACE);
    if (r < 0 && errno == EPERM && rmtree_unprotect(fd))
        r = renameat2(p->parent, from, p->parent, to, RENAME_NOREPLACE);
    if (r < 0)
        return errno == EBUSY ? busy(f, p->proper.path, "something is mounted on it") : 1;
    still = fd_is_named(p->parent, to, fd);
    if (still != 0) /* whatever it is that lies aside: another look will tell */
        return still < 0 ? not_still(f, p->aside.path, still) : 0;
    if (renameat2(p->parent, to, p->parent, from, RENAME_NOREPLACE) < 0)
        return foreign(f, p->aside.path, "was put in place of ours meanwhile, and can't be moved back");
    return foreign(f, p->proper.path, "was replaced meanwhile");
}

struct stamp_check {
    struct undo *u;
    const struct record *r;
    const char *path;
};

/* rmtree's question: is that another box's directory, by whichever path (K4)? */
static int refuse_anothers(void *data, uint64_t incarnation, uint32_t seq, struct rbxj_error *e)
{
    const struct stamp_check *check = data;
    const struct snapshot *s = check->u->snapshot;
    for (size_t i = 0; s && incarnation != check->r->incarnation && i < s->len; i++)
        if (s->boxes[i].box.incarnation == incarnation)
            return error_set(e, EBUSY, EBUSY, "tmpdir %s: a directory of box %s (seq %u) is in it",
                             check->path, s->boxes[i].box.name, seq);
    return 0;
}

static int remove_ours(struct undo *u, const struct record *r, struct place *p, const struct name *n,
                       struct finding *f)
{
    int rc = guard_overlap(u, r, n->path, f);
    if (rc == 0)
        rc = guard_mounts(u, n->path, f);
    if (rc < 0)
        return rc;
    if ((r->flags & REC_RMDIR_ONLY) || n->sight != SIGHT_OURS)
        return remove_empty(p, n, f);
    _cleanup_close_ int fd = rmtree_open(n->fd, ".");
    if (fd < 0)
        return error_sys(&f->error, -fd, "tmpdir %s", n->path);
    if (n == &p->proper) {
        rc = move_aside(p, fd, f);
        if (rc < 0)
            return rc;
        if (rc == 0)
            n = &p->aside;
    }
    struct stamp_check check = {.u = u, .r = r, .path = r->path};
    struct rmtree how = {.deadline_ns = u->deadline_ns, .stamped = refuse_anothers, .data = &check};
    rc = rmtree(p->parent, n->name, fd, &how, &f->error);
    if (rc == -EBUSY)
        f->found = FOUND_BUSY;
    return rc;
}

static int tmpdir_undo(struct undo *u, struct record *r, struct finding *f)
{
    _cleanup_(place_close) struct place p = no_place;
    int rc = survey(u, r, &p, f);
    if (rc < 0 || f->found == FOUND_GONE)
        return rc;
    if (f->found != FOUND_PRESENT)
        return -f->error.code;
    /* one aside is from an undo that did not come to its end */
    const struct name *names[] = {&p.aside, &p.proper};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        rc = names[i]->sight >= SIGHT_EMPTY ? remove_ours(u, r, &p, names[i], f) : 0;
        if (rc < 0)
            return rc;
    }
    return 1;
}

static int tmpdir_verify(struct undo *u, const struct record *r, struct finding *f)
{
    _cleanup_(place_close) struct place p = no_place;
    struct finding seen = {0};
    int rc = survey(u, r, &p, &seen);
    bool looked = p.parent >= 0; /* else a refusal says nothing about it */
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
    .look = tmpdir_look,
    .undo = tmpdir_undo,
    .verify = tmpdir_verify,
};
