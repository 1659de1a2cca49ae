/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The cgroup kind: v2, v1 and hybrid.
 *
 * A cgroup dies with the boot. Within one its inode is its cgroup id, which the kernel never gives out again:
 * another one of our name proves that ours is gone (K2). Whoever is in ours is killed, with two exceptions: a
 * live box's supervisor and we ourselves (K4); they make the cgroup busy. Only a supervisor that tears down
 * its own box while it lives in it steps out first.
 */
#include "reaper/cgroup_make.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define RENAMED_TRIES 5   /* of undo(), when it was renamed meanwhile */
#define EMPTYING_ROUNDS 3 /* of undo(), when it was refilled after the quiesce (K17) */

/* What stands at the record's name. */
struct place {
    int parent;
    const char *base;                          /* inside path */
    char path[RECORD_PATH_MAX + NAME_MAX + 1]; /* the record's, or where it was renamed to (v1) */
    int fd;
    struct fileid id;
    bool here; /* under its own name only, not renamed */
    bool ours; /* by evidence or stamp; else it is only known to be empty, which allows rmdir alone (K1) */
};

static void place_close(struct place *place)
{
    cleanup_closep(&place->fd);
    cleanup_closep(&place->parent);
}

/* ---- looking ---- */

static int refused(struct finding *f, int code, int errnum, const struct record *r, const char *why)
{
    f->found = FOUND_BUSY;
    if (errno_is_want(errnum)) /* says nothing about it */
        return error_sys(&f->error, errnum, "cgroup %s", r->path);
    f->found = FOUND_FOREIGN;
    f->refused = true;
    return error_set(&f->error, code, errnum, "cgroup %s: %s", r->path, why);
}

/* Whose is it? 1 present (ours, or nobody's and empty), 0 a stranger's, so ours is gone (K2), negative
 * refused. */
static int judge(const struct undo *u, const struct record *r, struct place *place, struct finding *f)
{
    int rc = fileid_of_fd(place->fd, &place->id);
    if (rc < 0)
        return refused(f, RBXJ_E_IO, -rc, r, "can't be looked at");
    f->identity = place->id.ino;
    if (!fs_is_cgroup(place->id.fs_magic))
        return refused(f, RBXJ_E_FOREIGN, 0, r, "not a cgroup");
    if (r->flags & REC_EVIDENCE) {
        place->ours = fileid_equal(&r->id, &place->id, true);
        rc = place->ours ? stamp_is_missing(place->fd, r) : 0;
        if (rc != 0) {
            place->ours = false;
            return refused(f, RBXJ_E_FOREIGN, rc < 0 ? -rc : 0, r, "has its id, but not its stamp");
        }
        f->found = place->ours ? FOUND_PRESENT : FOUND_FOREIGN;
        if (!place->ours)
            (void)error_set(&f->error, RBXJ_E_FOREIGN, 0,
                            "cgroup %s: ours is gone, cgroup id %llu is another's", r->path,
                            (unsigned long long)place->id.ino);
        return place->ours;
    }
    int ours = stamp_is_ours(place->fd, r, &place->id, u->same_boot, NULL);
    int replaced = ours == 0 ? guard_parent_replaced(u, r, place->parent) : 0;
    if (replaced < 0)
        return refused(f, RBXJ_E_IO, -replaced, r, "its parent can't be looked at");
    if (replaced || (ours == 0 && record_is_anothers(r))) {
        f->found = FOUND_FOREIGN;
        (void)error_set(&f->error, RBXJ_E_FOREIGN, 0, "cgroup %s: %s", r->path,
                        replaced ? "the one that it was to be made in is gone"
                                 : "somebody made it before it could be acquired");
        return 0;
    }
    int empty = ours < 0 ? ours : ours || cgroup_is_empty(place->fd);
    if (empty <= 0)
        return refused(f, RBXJ_E_FOREIGN, -empty, r, "not proven ours, and not empty");
    place->ours = ours > 0;
    f->found = FOUND_PRESENT;
    return 1;
}

/* Ours is not under its name: v1 has renames. As locate(). */
static int locate_renamed(struct undo *u, const struct record *r, struct place *place, struct finding *f)
{
    char name[NAME_MAX + 1];
    struct finding moved = {0};
    int rc = place->here ? 0 : guard_moved(u, r, place->parent, name, &moved);
    if (rc == 0)
        return 0;
    *f = moved;
    if (rc < 0)
        return rc;
    size_t dir = (size_t)(place->base - place->path);
    (void)snprintf(place->path + dir, sizeof(place->path) - dir, "%s", name);
    cleanup_closep(&place->fd);
    place->fd = cgroup_open(place->parent, place->base);
    if (place->fd >= 0 && judge(u, r, place, f) == 1)
        return 1;
    f->found = FOUND_BUSY;
    return error_set(&f->error, RBXJ_E_BUSY, 0, "cgroup %s: is being renamed", r->path);
}

/* 1: it is there, and in place. 0: it is gone. Negative: refused or busy, f says why. */
static int locate(struct undo *u, const struct record *r, struct place *place, struct finding *f)
{
    f->found = FOUND_GONE;
    if (!guard_of_this_boot(u, r))
        return 0;
    const char *base;
    place->parent = guard_open_parent(u, r, &base, f);
    if (place->parent < 0)
        return place->parent == -ENOENT && f->found == FOUND_GONE && !f->refused ? 0 : place->parent;
    (void)snprintf(place->path, sizeof(place->path), "%s", r->path);
    place->base = place->path + (base - r->path);
    place->fd = cgroup_open(place->parent, place->base);
    if (place->fd == -ENOENT)
        return locate_renamed(u, r, place, f);
    if (place->fd == -EXDEV) {
        f->found = FOUND_BUSY;
        return error_set(&f->error, RBXJ_E_BUSY, 0, "cgroup %s: something is mounted over it", r->path);
    }
    if (place->fd < 0)
        return refused(f, RBXJ_E_FOREIGN, -place->fd, r, "not a cgroup");
    int rc = judge(u, r, place, f);
    if (rc == 0)
        rc = locate_renamed(u, r, place, f);
    f->oom_kills = place->ours ? cgroup_oom_kills(place->fd) : 0;
    if (f->oom_kills) /* the count goes with the cgroup */
        error_detail(&f->error, "%llu out-of-memory kills in it", (unsigned long long)f->oom_kills);
    return rc;
}

/* ---- who is in it ---- */

struct asking {
    struct undo *u;
    struct finding *f;
};

static int may_kill(pid_t pid, void *data)
{
    struct asking *asking = data;
    return guard_kill(asking->u, pid, asking->f);
}

static bool we_are_supervisor(const struct undo *u)
{
    struct procid self;
    return u->box && procid_of(getpid(), &self) == 0 && procid_equal(&self, &u->box->supervisor);
}

/* A supervisor in its own box's cgroup steps out of it before the teardown (K4). */
static int step_out(const struct record *r, const struct place *place, struct finding *f)
{
    int rc = cgroup_enter(place->parent);
    return rc < 0 ? error_set(&f->error, RBXJ_E_BUSY, -rc,
                              "cgroup %s: its supervisor, pid %d, can't leave it for the parent cgroup",
                              r->path, getpid())
                  : 0;
}

/* May everybody in it be killed (K4)? 0, or negative with f busy, naming who may not. */
static int ask_members(struct undo *u, const struct record *r, const struct place *place, bool act,
                       struct finding *f)
{
    _cleanup_(cgroup_members_clear) struct cgroup_members members = {0};
    int rc = guard_overlap(u, r, place->path, f);
    if (rc == 0) {
        rc = cgroup_members(place->fd, &members);
        if (rc < 0)
            (void)error_sys(&f->error, -rc, "cgroup %s: its processes", r->path);
    }
    if (rc == 0 && members.hidden)
        rc = error_set(&f->error, RBXJ_E_BUSY, 0, "cgroup %s: processes of another pid namespace are in it",
                       r->path);
    for (size_t i = 0; i < members.len && rc == 0; i++) {
        if (members.pids[i] != getpid() || !we_are_supervisor(u))
            rc = guard_kill(u, members.pids[i], f);
        else if (act)
            rc = step_out(r, place, f);
    }
    if (rc < 0)
        f->found = FOUND_BUSY;
    return rc;
}

static int kill_members(struct undo *u, const struct record *r, const struct place *place, struct finding *f)
{
    struct asking asking = {u, f};
    int rc = ask_members(u, r, place, true, f);
    if (rc < 0)
        return rc;
    rc = cgroup_kill(place->fd, may_kill, &asking);
    if (rc < 0) {
        f->found = FOUND_BUSY;
        (void)error_sys(&f->error, -rc, "cgroup %s: killing what is in it", r->path);
    }
    return rc;
}

static int still_populated(const struct record *r, const struct place *place, struct finding *f)
{
    char who[200];
    _cleanup_(cgroup_members_clear) struct cgroup_members members = {0};
    cgroup_describe(place->fd, who, sizeof(who));
    if (cgroup_members(place->fd, &members) == 0)
        for (size_t i = 0; i < members.len && i < KEEPERS_MAX; i++)
            keepers_add(&f->keepers, members.pids[i]);
    f->found = FOUND_BUSY;
    (void)error_set(&f->error, RBXJ_E_BUSY, 0, "cgroup %s: in use by %s", r->path, who);
    return -EBUSY;
}

/* Waits until it is empty; what got in since, or forked away from a round of kills, is killed again. */
static int wait_until_empty(struct undo *u, const struct record *r, const struct place *place,
                            struct finding *f)
{
    for (;;) {
        int64_t now = now_monotonic_ns(), slice = now + 500000000;
        int rc = cgroup_wait_empty(place->fd, slice < u->deadline_ns ? slice : u->deadline_ns);
        if (rc == 0)
            return 0;
        if (rc != -EAGAIN && rc != -ETIMEDOUT)
            return error_sys(&f->error, -rc, "cgroup %s: waiting until it is empty", r->path);
        if (now >= u->deadline_ns)
            return still_populated(r, place, f);
        rc = kill_members(u, r, place, f);
        if (rc < 0)
            return rc;
    }
}

/* ---- look, quiesce, undo, verify ---- */

static int cgroup_look(struct undo *u, const struct record *r, struct finding *f)
{
    _cleanup_(place_close) struct place place = {.parent = -1, .fd = -1};
    if (locate(u, r, &place, f) > 0)
        (void)ask_members(u, r, &place, false, f);
    return 0;
}

static int cgroup_quiesce(struct undo *u, const struct record *r, struct finding *f)
{
    _cleanup_(place_close) struct place place = {.parent = -1, .fd = -1};
    int rc = locate(u, r, &place, f);
    if (rc <= 0 || !place.ours)
        return rc < 0 && f->found == FOUND_BUSY ? rc : 0; /* nothing that may be killed */
    return kill_members(u, r, &place, f);
}

static int cgroup_quiesced(struct undo *u, const struct record *r, struct finding *f)
{
    _cleanup_(place_close) struct place place = {.parent = -1, .fd = -1};
    int rc = locate(u, r, &place, f);
    if (rc <= 0 || !place.ours)
        return rc < 0 && f->found == FOUND_BUSY ? rc : 0;
    return wait_until_empty(u, r, &place, f);
}

/* 1 undone, 0 somebody else removed it, -EAGAIN: it lives under another name by now, or another negative
 * code. */
static int undo_here(struct undo *u, const struct record *r, struct place *place, struct finding *f)
{
    int rc;
    for (int round = 0;; round++) {
        rc = ask_members(u, r, place, true, f);
        if (rc < 0)
            return rc;
        /* children only of what is ours: what is nobody's was found to have none */
        rc = place->ours ? cgroup_remove_children(place->fd, u->deadline_ns) : 0;
        if (rc == 0)
            rc = cgroup_remove(place->parent, place->base, place->path, &place->id);
        if (rc == 0 || rc == -ENOENT || rc == -ESTALE) {
            int removed = cgroup_is_removed(place->fd); /* it may be another one that was removed there */
            if (removed >= 0)
                return removed ? rc == 0 : -EAGAIN;
            rc = removed;
        }
        if (rc != -EBUSY || !place->ours || round == EMPTYING_ROUNDS)
            break;
        rc = kill_members(u, r, place, f);
        if (rc == 0)
            rc = wait_until_empty(u, r, place, f);
        if (rc < 0)
            return rc;
    }
    if (rc == -EBUSY)
        return still_populated(r, place, f);
    f->found = FOUND_BUSY;
    return error_sys(&f->error, -rc, "cgroup %s: %s", r->path, rc == -EXDEV ? "a mount is in it" : "rmdir");
}

static int cgroup_undo(struct undo *u, struct record *r, struct finding *f)
{
    for (int tries = 0; tries < RENAMED_TRIES; tries++) {
        _cleanup_(place_close) struct place place = {.parent = -1, .fd = -1};
        int rc = locate(u, r, &place, f);
        if (rc > 0)
            rc = undo_here(u, r, &place, f);
        if (rc != -EAGAIN)
            return rc;
        *f = (struct finding){.found = FOUND_PRESENT};
    }
    f->found = FOUND_BUSY;
    return error_set(&f->error, RBXJ_E_BUSY, 0, "cgroup %s: is renamed all the time", r->path);
}

/* undo() has seen that it is no more, whatever its name was. */
static int cgroup_verify(struct undo *u, const struct record *r, struct finding *f)
{
    _cleanup_(place_close) struct place place = {.parent = -1, .fd = -1, .here = true};
    struct finding seen = {0};
    int rc = locate(u, r, &place, &seen);
    if (rc == 0)
        return 0;
    if (rc > 0)
        rc = error_set(&seen.error, RBXJ_E_LEFT, 0, "cgroup %s: is still there", r->path);
    *f = seen;
    return rc;
}

const struct kind kind_cgroup = {
    .name = "cgroup",
    .action = "rmdir",
    .prepare = cgroup_prepare,
    .acquire = cgroup_acquire,
    .prove = cgroup_prove,
    .adopt = cgroup_adopt,
    .look = cgroup_look,
    .quiesce = cgroup_quiesce,
    .quiesced = cgroup_quiesced,
    .undo = cgroup_undo,
    .verify = cgroup_verify,
};
