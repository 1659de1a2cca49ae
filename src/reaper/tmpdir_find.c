/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Which directory is the record's: under its own name, under the one aside, or under one that it was given
 * since.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/rmtree.h"
#include "reaper/tmpdir.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

const struct tmpdir_place tmpdir_no_place = {
    .parent = -1, .aside = {.fd = -1}, .proper = {.fd = -1}, .moved = {.fd = -1}};

void tmpdir_place_close(struct tmpdir_place *p)
{
    cleanup_closep(&p->parent);
    cleanup_closep(&p->aside.fd);
    cleanup_closep(&p->proper.fd);
    cleanup_closep(&p->moved.fd);
}

/* Without evidence: a stamp, or at least empty and of the expected owner (K1). */
static int judge_unproven(struct undo *u, const struct record *r, int parent, struct tmpdir_name *n)
{
    uint64_t incarnation;
    uint32_t seq;
    _cleanup_close_ int fd = fd_openat2(n->fd, ".", O_RDONLY | O_DIRECTORY, 0, RESOLVE_BENEATH);
    if (fd < 0)
        return fd;
    n->sight = SIGHT_OURS;
    n->why = NULL;
    int ours = stamp_is_ours(fd, r, &n->id, u->same_boot, &n->why);
    if (ours != 0)
        return ours < 0 ? ours : 0;
    n->sight = SIGHT_FOREIGN;
    int stamped = stamp_get(fd, &incarnation, &seq);
    if (stamped < 0 && stamped != -EOPNOTSUPP)
        return stamped;
    if (!n->why)
        n->why = "its stamp is another one's";
    if (stamped > 0)
        return 0;
    n->why = "somebody made it before it could be acquired";
    if (record_is_anothers(r))
        return 0;
    n->why = "the directory that it is in is another one than when it was journaled";
    int replaced = guard_parent_replaced(u, r, parent);
    if (replaced)
        return replaced < 0 ? replaced : 0;
    n->why = "not known to be the one that was journaled: no evidence and no stamp";
    int empty = n->id.uid == r->owner ? rmtree_is_empty(fd) : 0;
    if (empty > 0)
        n->sight = SIGHT_EMPTY;
    return empty < 0 ? empty : 0;
}

static int judge(struct undo *u, const struct record *r, int parent, struct tmpdir_name *n)
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
        return judge_unproven(u, r, parent, n);
    n->why = "another directory than the one that was journaled";
    if (!fileid_equal(&n->id, &r->id, u->same_boot)) {
        rc = stamp_tells(n->fd, r, &n->id, u->same_boot);
        n->sight = rc > 0 ? SIGHT_OURS : SIGHT_FOREIGN;
        return rc < 0 ? rc : 0;
    }
    n->why = "has its number, but not its stamp";
    rc = stamp_is_missing(n->fd, r);
    if (rc == 0)
        n->sight = SIGHT_OURS;
    return rc < 0 ? rc : 0;
}

static uint64_t identity_of(const struct tmpdir_place *p)
{
    const struct tmpdir_name *names[] = {&p->aside, &p->proper, &p->moved};
    uint64_t seen[3][4] = {0};
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
static void conclude(const struct record *r, const struct tmpdir_place *p, struct finding *f)
{
    enum tmpdir_sight aside = p->aside.sight, proper = p->proper.sight, moved = p->moved.sight;
    f->identity = aside || proper || moved ? identity_of(p) : 0;
    if (aside == SIGHT_MOUNTED || proper == SIGHT_MOUNTED) {
        f->found = FOUND_BUSY;
        (void)error_set(&f->error, EBUSY, EBUSY, "tmpdir %s: something is mounted on it",
                        proper == SIGHT_MOUNTED ? r->path : p->aside.path);
    } else if (aside >= SIGHT_EMPTY || proper >= SIGHT_EMPTY || moved >= SIGHT_EMPTY) {
        f->found = FOUND_PRESENT;
    } else if (aside == SIGHT_FOREIGN || proper == SIGHT_FOREIGN) {
        const struct tmpdir_name *n = proper == SIGHT_FOREIGN ? &p->proper : &p->aside;
        f->found = FOUND_FOREIGN;
        f->refused = !record_is_anothers(r);
        (void)error_set(&f->error, RBXJ_E_FOREIGN, 0, "tmpdir %s: %s", n->path, n->why);
    } else {
        f->found = FOUND_GONE;
    }
}

/* Neither name is ours, and nothing is mounted there, under which it might be: where is it? 0 or <0: f
 * says. */
static int look_elsewhere(struct undo *u, const struct record *r, struct tmpdir_place *p, struct finding *f)
{
    if (p->aside.sight > SIGHT_FOREIGN || p->proper.sight > SIGHT_FOREIGN)
        return 0;
    int rc = guard_moved(u, r, p->parent, p->moved_name, f);
    p->away = rc < 0;
    if (rc <= 0)
        return rc;
    p->moved.name = p->moved_name;
    (void)snprintf(p->moved.path, sizeof(p->moved.path), "%.*s%s", (int)(p->proper.name - r->path), r->path,
                   p->moved_name);
    rc = judge(u, r, p->parent, &p->moved);
    if (rc < 0 || p->moved.sight >= SIGHT_EMPTY)
        return rc;
    f->found = FOUND_BUSY; /* it was there a moment ago, and nobody has removed it for all that is known */
    return error_set(&f->error, EBUSY, EBUSY, "tmpdir %s: is being renamed", r->path);
}

int tmpdir_survey(struct undo *u, const struct record *r, struct tmpdir_place *p, struct finding *f)
{
    const char *base;
    p->parent = guard_open_parent(u, r, &base, f);
    if (p->parent < 0)
        return 0; /* gone or refused: f says which */
    memcpy(p->aside_name, TMPDIR_ASIDE_PREFIX, sizeof(TMPDIR_ASIDE_PREFIX));
    hex_encode(p->aside_name + sizeof(TMPDIR_ASIDE_PREFIX) - 1, r->nonce, sizeof(r->nonce));
    p->aside.name = p->aside_name;
    p->proper.name = base;
    (void)snprintf(p->aside.path, sizeof(p->aside.path), "%.*s%s", (int)(base - r->path), r->path,
                   p->aside_name);
    (void)snprintf(p->proper.path, sizeof(p->proper.path), "%s", r->path);
    struct tmpdir_name *names[] = {&p->proper, &p->aside};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        int rc = judge(u, r, p->parent, names[i]);
        if (rc < 0)
            return error_sys(&f->error, -rc, "tmpdir %s", names[i]->path);
    }
    int rc = look_elsewhere(u, r, p, f);
    if (rc < 0 && f->refused)
        return 0;
    if (rc < 0)
        return f->error.code ? rc : error_sys(&f->error, -rc, "tmpdir %s", r->path);
    conclude(r, p, f);
    return 0;
}
