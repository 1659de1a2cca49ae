/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The supervisor's side of a cgroup: what is there before (prepare), making it (acquire), whose it is now
 * (prove); and what a person takes on for a box that never journaled it (adopt).
 */
#include "reaper/cgroup_make.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <errno.h>
#include <string.h>

/* It must be absent before (K5). If it is not: the top of a hierarchy, which is always a mount's root, and
 * what we live in ourselves are worse than that. The kernel lists a process in its cgroup, so this finds our
 * own in every hierarchy, through bind mounts and cgroup namespaces, and our own cgroup's ancestors as
 * well. */
static int refuse_existing(int parent, const char *base, const struct record *r, struct rbxj_error *e)
{
    _cleanup_(cgroup_members_clear) struct cgroup_members members = {0};
    _cleanup_close_ int fd = cgroup_open(parent, base);
    if (fd == -ENOENT)
        return 0;
    if (fd == -EXDEV)
        return error_set(e, RBXJ_E_PROTECTED_PATH, 0, "cgroup %s: a mount point", r->path);
    if (fd == -ENOTDIR || fd == -ELOOP)
        return error_set(e, RBXJ_E_EXISTS, -fd, "cgroup %s", r->path);
    int rc = fd < 0 ? fd : cgroup_members(fd, &members);
    if (rc < 0)
        return error_sys(e, -rc, "cgroup %s", r->path);
    if (cgroup_members_have(&members, getpid()))
        return error_set(e, RBXJ_E_PROTECTED_PATH, 0, "cgroup %s: the calling process lives in it", r->path);
    return error_set(e, RBXJ_E_EXISTS, EEXIST, "cgroup %s", r->path);
}

static int open_parent(const struct record *r, const char **ret_base, struct rbxj_error *e)
{
    int parent = fd_open_parent(r->path, ret_base);
    if (parent == -ENOENT || parent == -ENOTDIR || parent == -ELOOP)
        return error_set(e, RBXJ_E_BAD_REQUEST, -parent, "cgroup %s: its parent directory", r->path);
    return parent < 0 ? error_sys(e, -parent, "cgroup %s: its parent directory", r->path) : parent;
}

int cgroup_prepare(struct undo *u, struct record *r, struct rbxj_error *e)
{
    const char *base;
    struct fileid id;
    if (!path_is_normal(r->path))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "cgroup %s: not an absolute, plain path",
                         r->path ? r->path : "");
    int rc = guard_protected(u->config, RBXJ_CGROUP, r->path, e);
    if (rc < 0 || r->below) /* below an item that is yet to be made, there is nothing to look at (K13) */
        return rc;
    _cleanup_close_ int parent = open_parent(r, &base, e);
    if (parent < 0)
        return parent;
    rc = fileid_of_fd(parent, &id);
    if (rc < 0)
        return error_sys(e, -rc, "cgroup %s: its parent directory", r->path);
    if (!fs_is_cgroup(id.fs_magic))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "cgroup %s: its parent directory is not a cgroup",
                         r->path);
    rc = refuse_existing(parent, base, r, e);
    if (rc == 0)
        r->parent = id;
    return rc;
}

/* Opens the parent as it was when the intent was written. */
static int open_same_parent(const struct record *r, const char **ret_base, struct rbxj_error *e)
{
    struct fileid id;
    _cleanup_close_ int parent = open_parent(r, ret_base, e);
    if (parent < 0)
        return parent;
    int rc = fileid_of_fd(parent, &id);
    if (rc < 0)
        return error_sys(e, -rc, "cgroup %s: its parent directory", r->path);
    if (!fs_is_cgroup(id.fs_magic) || (!r->below && !fileid_equal(&id, &r->parent, true)))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "cgroup %s: its parent directory is another one now",
                         r->path);
    return steal_fd(&parent);
}

int cgroup_prove(struct undo *u, struct record *r, struct rbxj_error *e)
{
    (void)u;
    const char *base;
    struct fileid id;
    uint64_t incarnation;
    uint32_t seq;
    uint8_t boot[16];
    _cleanup_close_ int parent = open_same_parent(r, &base, e);
    if (parent < 0)
        return parent;
    _cleanup_close_ int fd = cgroup_open(parent, base);
    if (fd < 0)
        return error_set(e, fd == -ENOENT ? RBXJ_E_BAD_REQUEST : RBXJ_E_IO, -fd, "cgroup %s", r->path);
    int rc = fileid_of_fd(fd, &id);
    int empty = rc < 0 ? rc : cgroup_is_empty(fd);
    int stamped = empty < 0 ? empty : stamp_get(fd, &incarnation, &seq);
    rc = stamped < 0 ? stamped : procid_boot(boot);
    if (rc < 0)
        return error_sys(e, -rc, "cgroup %s", r->path);
    if (!empty)
        return error_set(e, RBXJ_E_EXISTS, 0, "cgroup %s: has processes or children already", r->path);
    if (id.uid != r->owner)
        return error_set(e, RBXJ_E_EXISTS, 0, "cgroup %s: belongs to uid %u, not %u", r->path, id.uid,
                         r->owner);
    if (stamped && (incarnation != r->incarnation || seq != r->seq))
        return error_set(e, RBXJ_E_EXISTS, 0, "cgroup %s: is stamped by another box", r->path);
    rc = stamp_set(fd, r);
    if (rc < 0 && rc != -EOPNOTSUPP)
        return error_sys(e, -rc, "cgroup %s: its stamp", r->path);
    r->flags |= REC_EVIDENCE | (rc == 0 ? REC_STAMPED : REC_NO_STAMP);
    r->id = id;
    memcpy(r->evidence_boot, boot, sizeof(boot));
    return 0;
}

int cgroup_acquire(struct undo *u, struct record *r, const char *options, int *ret_fd, struct rbxj_error *e)
{
    (void)options;
    const char *base;
    _cleanup_close_ int parent = open_same_parent(r, &base, e);
    if (parent < 0)
        return parent;
    int rc = guard_mkdir(u, r, parent, base, 0755, e);
    if (rc == 0)
        rc = cgroup_prove(u, r, e);
    if (rc == 0 && ret_fd)
        *ret_fd = -1;
    return rc;
}

int cgroup_adopt(struct undo *u, struct record *r, struct rbxj_error *e)
{
    const char *base;
    _cleanup_(cgroup_members_clear) struct cgroup_members members = {0};
    int rc = guard_protected(u->config, RBXJ_CGROUP, r->path, e);
    if (rc < 0)
        return rc;
    _cleanup_close_ int parent = open_parent(r, &base, e);
    if (parent < 0)
        return parent;
    _cleanup_close_ int fd = cgroup_open(parent, base);
    rc = fd < 0 ? fd : fileid_of_fd(parent, &r->parent);
    rc = rc < 0 ? rc : fileid_of_fd(fd, &r->id);
    rc = rc < 0 ? rc : cgroup_members(fd, &members);
    rc = rc < 0 ? rc : procid_boot(r->evidence_boot);
    if (rc < 0)
        return error_sys(e, -rc, "cgroup %s", r->path);
    if (!fs_is_cgroup(r->id.fs_magic) || !fs_is_cgroup(r->parent.fs_magic))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "cgroup %s: is no cgroup, or the top of a hierarchy",
                         r->path);
    if (members.len || members.hidden)
        return error_set(e, RBXJ_E_BUSY, EBUSY, "cgroup %s: processes are in it", r->path);
    r->owner = r->id.uid;
    r->flags |= REC_EVIDENCE | REC_NO_STAMP;
    return 0;
}
