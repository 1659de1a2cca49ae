/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The mount kind: look, undo, verify.
 *
 * undo() unmounts what is mounted below, newest first, then the mount itself (mount_take.c). Somebody uses
 * it: what is proven of this box is killed, the rest is waited for and named; only where the policy allows
 * it, it is detached at last, and the record stays until nobody holds it any more (K15).
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/mount.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define BACKOFF_MAX_MS 200

/* Where a record's mount is. */
struct sight {
    struct mount_space space;
    struct mount *mount; /* proven ours; NULL: not there, the finding says what is */
};

static int read_mounts(struct undo *u, struct finding *f)
{
    return u->mounts ? 0 : mounts_read(&u->mounts, &f->error);
}

/* The return value of undo() and verify() for what was found. */
static int outcome(const struct finding *f)
{
    if (f->found == FOUND_GONE || (f->found == FOUND_FOREIGN && !f->refused))
        return 0;
    return f->error.code ? -f->error.code : -RBXJ_E_BUSY;
}

/* A stranger's mount exactly on ours (K13). */
static bool is_covered(struct undo *u, const struct record *r, const struct sight *sight, struct finding *f)
{
    struct mount key = {.parent = sight->mount->id};
    struct mount_set children = mount_table_find(sight->space.table, MOUNT_BY_PARENT, &key);
    for (size_t i = 0; i < children.len; i++) {
        const struct mount *child = children.mounts[i];
        if (child->gone || strcmp(child->target, sight->mount->target) || mount_is_of_box(u, r, child))
            continue;
        f->found = FOUND_BUSY;
        (void)error_set(&f->error, RBXJ_E_BUSY, EBUSY,
                        "mount %s: another mount lies on it: type %s, source %s", r->path, child->fstype,
                        child->source);
        return true;
    }
    return false;
}

/* Ours is not there. Who is at its place? K2: whoever it is, ours is gone. */
static void look_at_place(struct undo *u, const struct record *r, const struct mount_space *space,
                          struct finding *f)
{
    const struct mount *top = mount_table_top(space->table, r->path);
    if (!top || mount_is_of_box(u, r, top) || mount_is_older(r, space, top))
        return;
    f->found = FOUND_FOREIGN;
    f->identity = (uint64_t)top->id;
    (void)error_set(&f->error, RBXJ_E_FOREIGN, 0,
                    "mount %s: ours is gone, another one is there: type %s, source %s", r->path, top->fstype,
                    top->source);
}

static bool wait_a_little(const struct undo *u, int attempt)
{
    int ms = attempt < 8 ? 1 << attempt : BACKOFF_MAX_MS;
    struct timespec pause = {.tv_nsec = (ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS) * 1000000L};
    if (attempt >= u->busy_retries || (u->deadline_ns && now_monotonic_ns() >= u->deadline_ns))
        return false;
    (void)nanosleep(&pause, NULL);
    return true;
}

/* wait: one in a namespace that is just being made (unshare, a container's start) or given up goes by itself.
 * One that stayed is not waited for again in this pass. */
static int look_for_copy(struct undo *u, const struct record *r, uint64_t ns, bool wait, struct finding *f)
{
    struct mount_space space;
    struct mount *copy;
    struct rbxj_error error = {0};
    int rc = mount_find_copy(u, r, ns, &space, &copy, &error);
    for (int attempt = 0; rc == 1 && wait && space.pid && !space.stays; attempt++) {
        if (!wait_a_little(u, attempt)) {
            mounts_note_stays(u->mounts, space.ns);
            break;
        }
        rc = mount_find_copy(u, r, ns, &space, &copy, &error);
    }
    if (rc < 0) { /* matters more than a stranger at our place, and is no "gone" */
        f->found = FOUND_BUSY;
        f->error = error;
    }
    if (rc <= 0)
        return rc;
    f->found = FOUND_BUSY;
    f->partial = true;
    f->identity = (uint64_t)copy->id;
    f->error = (struct rbxj_error){0}; /* a stranger at our place matters less */
    (void)error_set(&f->error, RBXJ_E_BUSY, EBUSY, "mount %s: a copy of it is left on %s", r->path,
                    copy->target);
    if (space.pid) {
        char who[120];
        procid_describe(space.pid, who, sizeof(who));
        error_detail(&f->error, "in the mount namespace of pid %d (%s)", (int)space.pid, who);
    }
    return 0;
}

/* In the namespace that was found. */
static int locate_in(struct undo *u, const struct record *r, struct sight *sight, struct finding *f)
{
    int rc = mount_find(u, r, &sight->space, &sight->mount, f);
    if (rc < 0)
        return rc;
    if (sight->mount) {
        f->found = FOUND_PRESENT;
        f->identity = r->mount.unique ? r->mount.unique : (uint64_t)sight->mount->id;
    } else if (f->found == FOUND_GONE && !sight->space.whole) {
        f->found = FOUND_BUSY;
        f->refused = true;
        (void)error_set(&f->error, RBXJ_E_PERMISSION, 0,
                        "mount %s: not visible from the root directory of pid %d", r->path,
                        (int)sight->space.pid);
    } else if (f->found == FOUND_GONE) {
        look_at_place(u, r, &sight->space, f);
    }
    return 0;
}

static int locate(struct undo *u, const struct record *r, struct sight *ret, struct finding *f)
{
    *ret = (struct sight){0};
    f->found = FOUND_GONE;
    f->identity = 0;
    if (!guard_of_this_boot(u, r))
        return 0; /* no mount survives a boot */
    int rc = read_mounts(u, f);
    if (rc < 0)
        return rc;
    int has_space = mount_find_space(u, r, &ret->space, f);
    rc = has_space == 1 ? locate_in(u, r, ret, f) : has_space;
    if (rc < 0 || f->found == FOUND_PRESENT || f->found == FOUND_BUSY || f->refused)
        return rc;
    return look_for_copy(u, r, has_space ? ret->space.ns : 0, false, f);
}

/* ---- detached (K15) ---- */

static int look_at_detached(struct undo *u, const struct record *r, struct finding *f)
{
    struct mount_holders holders;
    f->found = FOUND_GONE;
    if (!guard_of_this_boot(u, r))
        return 0;
    int rc = read_mounts(u, f);
    if (rc < 0)
        return rc;
    uint64_t device = r->devices_held;
    rc = device ? mount_device_is_reused(u, r, &f->error) : 0;
    if (rc < 0)
        return rc;
    if (rc == 1)
        device = 0;
    int reused = mount_id_is_reused(u, r, &f->error);
    if (reused < 0)
        return reused;
    rc = mount_holders_find(u, reused ? -1 : r->mount.id, r->mount.unique, device, &holders);
    if (rc == 0 && !holders.len)
        return device ? look_for_copy(u, r, 0, false, f) : 0;
    f->found = FOUND_BUSY;
    f->partial = true;
    f->identity = r->mount.unique ? r->mount.unique : (uint64_t)r->mount.id;
    (void)error_set(&f->error, RBXJ_E_BUSY, EBUSY, "mount %s: detached, but still in use", r->path);
    if (rc == 0)
        mount_holders_describe(&holders, f);
    return 0;
}

/* Did its reaper die before it was detached? 1, 0, or a negative code. */
static int is_attached(struct undo *u, const struct record *r, struct finding *f)
{
    struct sight sight = {0};
    struct finding seen = {0};
    int rc = guard_of_this_boot(u, r) ? read_mounts(u, f) : -ENODATA;
    if (rc < 0)
        return rc == -ENODATA ? 0 : rc;
    rc = mount_find_space(u, r, &sight.space, &seen);
    if (rc == 1)
        rc = mount_find(u, r, &sight.space, &sight.mount, &seen);
    if (rc < 0)
        f->error = seen.error;
    return rc < 0 ? rc : sight.mount != NULL;
}

static int foretell(struct undo *u, const struct record *r, const struct sight *sight, struct finding *f)
{
    _cleanup_(mount_tree_clear) struct mount_tree tree = {0};
    int rc = mount_tree_collect(sight->space.table, sight->mount, &tree);
    if (rc == 0)
        rc = mount_check_strangers(u, r, &sight->space, &tree, true, &f->error);
    else
        rc = error_sys(&f->error, -rc, "mount %s: what is on it", r->path);
    if (rc < 0)
        f->found = FOUND_BUSY;
    return rc == -RBXJ_E_BUSY ? 0 : rc;
}

static int mount_look(struct undo *u, const struct record *r, struct finding *f)
{
    struct sight sight;
    int rc = guard_of_this_boot(u, r) ? mount_is_worked_at(u, r, f) : 0;
    if (rc != 0)
        return rc < 0 ? rc : 0;
    int attached = r->flags & REC_DETACHED ? is_attached(u, r, f) : 1;
    if (attached <= 0)
        return attached < 0 ? attached : look_at_detached(u, r, f);
    rc = locate(u, r, &sight, f);
    if (rc < 0 || !sight.mount || is_covered(u, r, &sight, f))
        return rc;
    f->refused = guard_protected(u->config, RBXJ_MOUNT, sight.mount->target, &f->error) < 0;
    return u->foretells && !f->refused ? foretell(u, r, &sight, f) : 0;
}

/* ---- undo ---- */

static int is_allowed(struct undo *u, const struct record *r, const struct sight *sight, struct finding *f)
{
    const char *target = sight->mount->target;
    if (is_covered(u, r, sight, f))
        return -RBXJ_E_BUSY;
    int rc = guard_protected(u->config, RBXJ_MOUNT, target, &f->error);
    if (rc < 0) {
        f->refused = true;
        return rc;
    }
    rc = guard_overlap(u, r, target, f);
    if (rc < 0)
        f->found = FOUND_BUSY;
    return rc;
}

/* One try. *ret_stuck is what it failed at, by value: the reading it was in may be replaced. */
static int try_once(struct undo *u, const struct record *r, const struct sight *sight, bool lazy,
                    struct mount *ret_stuck, struct finding *f)
{
    _cleanup_(mount_tree_clear) struct mount_tree tree = {0};
    struct mount *stuck = sight->mount;
    int rc = mount_tree_collect(sight->space.table, sight->mount, &tree);
    if (rc < 0)
        return error_sys(&f->error, -rc, "unmount %s", r->path);
    rc = mount_check_strangers(u, r, &sight->space, &tree, false, &f->error);
    if (rc < 0)
        return rc;
    rc = mount_tree_take(u, r, &sight->space, &tree, lazy, &stuck, &f->error);
    *ret_stuck = *stuck;
    return rc;
}

/* Looks again, at a new reading. 1: it is still there and ours to unmount; 0, or a negative code: as undo()
 * returns. */
static int locate_again(struct undo *u, const struct record *r, struct sight *sight, struct finding *f)
{
    int rc = sight->space.pid ? mounts_other_reload(u->mounts, sight->space.ns, &sight->space, &f->error)
                              : mounts_reload(u->mounts, &f->error);
    if (rc < 0 && rc != -ENODATA)
        return rc;
    rc = locate(u, r, sight, f);
    if (rc < 0 || !sight->mount)
        return rc < 0 ? rc : outcome(f);
    rc = is_allowed(u, r, sight, f);
    return rc < 0 ? rc : 1;
}

/* 1 unmounted; 0 gone by itself; -EBUSY: f is not set, *holders tells who, if that could be seen; other: f is
 * set. */
static int unmount(struct undo *u, const struct record *r, struct sight *sight, struct mount_holders *holders,
                   struct finding *f)
{
    bool read_again = false;
    int32_t searched = -1; /* for holders of that mount */
    for (int attempt = 0;; attempt++) {
        struct mount stuck;
        int rc = try_once(u, r, sight, false, &stuck, f);
        if (rc == 0)
            return 1;
        if (rc != -EBUSY && rc != -ESTALE)
            return rc;
        if (rc == -EBUSY) {
            uint64_t unique = stuck.id == sight->mount->id ? r->mount.unique : 0;
            bool other = stuck.id != searched;
            if (other) /* else who was found is still told if there is no time to look again */
                holders->len = 0;
            searched = stuck.id;
            if ((other || attempt >= u->busy_retries) &&
                mount_holders_find(u, stuck.id, unique, 0, holders) == 0 && mount_holders_kill(u, holders))
                continue;
        }
        if (!read_again) { /* what is mounted there has changed, perhaps */
            read_again = true;
            rc = locate_again(u, r, sight, f);
            if (rc <= 0)
                return rc;
        } else if (rc == -ESTALE) {
            return error_set(&f->error, RBXJ_E_BUSY, EBUSY, "unmount %s: another mount covers it",
                             stuck.target);
        } else if (!wait_a_little(u, attempt)) {
            return -EBUSY;
        }
    }
}

/* The last resort, journaled first: whoever comes after a reaper that dies then would find nothing. Its mount
 * id stays the same as long as somebody holds it. */
static int detach(struct undo *u, struct record *r, struct sight *sight, struct finding *f)
{
    struct mount stuck;
    r->flags |= REC_DETACHED;
    if (!(r->flags & REC_EVIDENCE)) {
        r->mount.id = sight->mount->id;
        r->mount.dev = sight->mount->dev;
    }
    int rc = u->write_ahead ? u->write_ahead(u, r, &f->error) : 0;
    if (rc == 0) {
        rc = try_once(u, r, sight, true, &stuck, f);
        if (rc == -EBUSY || rc == -ESTALE)
            rc = error_set(&f->error, RBXJ_E_BUSY, EBUSY, "detach %s: another mount covers it", stuck.target);
    }
    if (rc < 0) { /* the journal may say that it was: is_attached() */
        r->flags &= ~(uint32_t)REC_DETACHED;
        return rc;
    }
    rc = look_at_detached(u, r, f);
    if (rc < 0 || f->found == FOUND_BUSY)
        return rc < 0 ? rc : outcome(f);
    f->found = FOUND_PRESENT;
    return 1;
}

static int mount_undo(struct undo *u, struct record *r, struct finding *f)
{
    struct mount_holders holders = {0};
    struct sight sight;
    int rc = guard_of_this_boot(u, r) ? mount_is_worked_at(u, r, f) : 0;
    if (rc != 0)
        return rc < 0 ? rc : outcome(f);
    int attached = r->flags & REC_DETACHED ? is_attached(u, r, f) : 1;
    if (attached <= 0) {
        rc = attached < 0 ? attached : look_at_detached(u, r, f);
        return rc < 0 ? rc : outcome(f);
    }
    r->flags &= ~(uint32_t)REC_DETACHED;
    rc = locate(u, r, &sight, f);
    if (rc < 0 || !sight.mount)
        return rc < 0 ? rc : outcome(f);
    rc = is_allowed(u, r, &sight, f);
    rc = rc < 0 ? rc : unmount(u, r, &sight, &holders, f);
    if (rc == -EBUSY && u->lazy_umount && !f->error.code)
        return detach(u, r, &sight, f);
    if (rc < 0 && !f->refused)
        f->found = FOUND_BUSY;
    if (rc == -EBUSY && !f->error.code) {
        rc = error_set(&f->error, RBXJ_E_BUSY, EBUSY, "unmount %s", sight.mount->target);
        mount_holders_describe(&holders, f);
    }
    return rc;
}

/* ---- verify ---- */

/* Not what our own reading says, which has been marked: what the kernel says now. True also if that is not
 * known. */
static bool is_still_there(struct undo *u, const struct record *r, struct mount_space *space,
                           struct finding *f)
{
    int32_t id;
    int rc = r->mount.unique && !space->pid ? mount_id_of_unique(r->mount.unique, &id) : -ENOSYS;
    if (rc == 0 || rc == -ENOENT)
        return rc == 0;
    struct mount key = {.id = r->mount.id, .target = r->path};
    struct mount_set set = mount_table_find(space->table,
                                            r->flags & REC_EVIDENCE ? MOUNT_BY_ID : MOUNT_BY_TARGET, &key);
    for (size_t i = 0; i < set.len; i++) {
        if (!mount_is_of_record(r, set.mounts[i]))
            continue;
        rc = mount_peek(space, set.mounts[i]);
        if (rc == 1)
            return true;
        if (rc < 0) {
            struct sight sight = {.space = *space, .mount = set.mounts[i]};
            rc = locate_again(u, r, &sight, f);
            return rc != 0;
        }
    }
    return false;
}

static int mount_verify(struct undo *u, const struct record *r, struct finding *f)
{
    struct mount_space space;
    if (r->flags & REC_DETACHED) {
        int rc = look_at_detached(u, r, f);
        return rc < 0 ? rc : outcome(f);
    }
    if (!guard_of_this_boot(u, r))
        return 0;
    struct finding before = *f;
    int rc = read_mounts(u, f);
    rc = rc < 0 ? rc : mount_find_space(u, r, &space, f);
    if (rc < 0)
        return rc;
    bool gone_with_ns = rc == 0;
    if (gone_with_ns && f->found != FOUND_GONE)
        return outcome(f);
    if (!gone_with_ns && is_still_there(u, r, &space, f)) {
        f->found = FOUND_BUSY;
        return error_set(&f->error, RBXJ_E_BUSY, EBUSY, "mount %s: it is still mounted", r->path);
    }
    *f = before; /* the look on the way may have found a stranger */
    int exists = r->devices_held && fstype_is_local(r->fstype) ? mount_device_exists(r->devices_held)
                                                               : -ENOSYS;
    if (exists == 0)
        return 0;
    rc = exists == 1 ? mounts_reload(u->mounts, &f->error) : 0; /* a copy may be younger than the reading */
    if (rc < 0)
        return rc;
    rc = look_for_copy(u, r, gone_with_ns ? 0 : space.ns, true, f);
    return rc < 0 ? rc : f->partial ? outcome(f) : 0;
}

const struct kind kind_mount = {
    .name = "mount",
    .action = "unmount",
    .prepare = mount_prepare,
    .acquire = mount_acquire,
    .prove = mount_prove,
    .adopt = mount_adopt,
    .look = mount_look,
    .undo = mount_undo,
    .verify = mount_verify,
};
