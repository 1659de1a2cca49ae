/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Unmounting a tree of mounts: this one, what is mounted below it, and nothing else. The name is only the way
 * there; what is there is compared by mount id immediately before the act.
 *
 * Where a file system on the way or in the tree may not answer, and in other mount namespaces, a helper does
 * it.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/helper.h"
#include "reaper/mount.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>
#include <xxhash.h>

#define HELPER_TIME_NS 10000000000LL

int64_t mount_deadline(const struct undo *u)
{
    int64_t longest = now_monotonic_ns() + HELPER_TIME_NS;
    return u->deadline_ns && u->deadline_ns < longest ? u->deadline_ns : longest;
}

bool mount_path_is_local(const struct mount_table *table, const struct mount *m)
{
    for (int depth = 0; m && depth < PATH_MAX; depth++) {
        if (!fstype_is_local(m->fstype))
            return false;
        if (m->parent == m->id)
            break;
        m = mount_table_by_id(table, m->parent); /* NULL: that is outside of our root */
    }
    return true;
}

/* Opens the directory in which an absolute target lies, from root_fd (AT_FDCWD: our own root), and points
 * *ret_base at its last component. No malloc: it runs in helpers. */
static int open_parent(int root_fd, const char *target, const char **ret_base)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(target, '/');
    if (target[0] != '/' || !slash[1])
        return -EINVAL;
    size_t len = slash == target ? 1 : (size_t)(slash - target);
    if (len >= sizeof(dir))
        return -ENAMETOOLONG;
    memcpy(dir, target, len);
    dir[len] = '\0';
    const char *path = root_fd == AT_FDCWD ? dir : len > 1 ? dir + 1 : ".";
    int fd = fd_openat2(root_fd, path, O_PATH | O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS);
    if (fd >= 0)
        *ret_base = slash + 1;
    return fd;
}

/* The directory in which the target of m lies, as space sees it; -EAGAIN if asking might hang, or -errno. */
static int open_parent_in(const struct mount_space *space, const struct mount *m, const char **ret_base)
{
    if (!mount_path_is_local(space->table, m))
        return -EAGAIN;
    char path[40];
    (void)snprintf(path, sizeof(path), "/proc/%d/root", (int)space->pid);
    _cleanup_close_ int root = space->pid ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    if (space->pid && root < 0)
        return -errno;
    return open_parent(space->pid ? root : AT_FDCWD, m->target, ret_base);
}

int mount_look_up(const struct mount_space *space, const struct mount *m, struct mount_at *ret)
{
    const char *base;
    _cleanup_close_ int parent = open_parent_in(space, m, &base);
    return parent < 0 ? parent : mount_at(parent, base, ret);
}

int mount_shows(const struct mount_space *space, const struct mount *m, const struct fileid *id)
{
    const char *base;
    struct mount_at at;
    struct fileid shown;
    _cleanup_close_ int parent = fileid_is_set(id) ? open_parent_in(space, m, &base) : -EOPNOTSUPP;
    _cleanup_close_ int fd = parent < 0
                                 ? parent
                                 : fd_openat2(parent, base, O_PATH | O_NOFOLLOW, 0, RESOLVE_NO_SYMLINKS);
    int rc = fd < 0 ? fd : mount_at(fd, "", &at);
    if (rc == 0 && (at.id != m->id || !at.is_root))
        rc = -EAGAIN; /* covered, or gone since */
    rc = rc < 0 ? rc : fileid_of_fd(fd, &shown);
    if (rc == -EAGAIN) /* that is no want of anything */
        rc = -ESTALE;
    return rc < 0 ? rc : fileid_equal(&shown, id, true);
}

/* ---- the tree ---- */

void mount_tree_clear(struct mount_tree *tree)
{
    free(tree->mounts);
    free(tree->alone);
    *tree = (struct mount_tree){0};
}

static int tree_add(struct mount_tree *tree, size_t *room, struct mount *m)
{
    if (tree->len == *room) {
        *room = *room ? *room * 2 : 16;
        struct mount **more = reallocarray(tree->mounts, *room, sizeof(*more));
        if (!more)
            return -ENOMEM;
        tree->mounts = more;
    }
    tree->mounts[tree->len++] = m;
    return 0;
}

static bool tree_has(const struct mount_tree *tree, const struct mount *m)
{
    for (size_t i = 0; i < tree->len; i++)
        if (tree->mounts[i] == m)
            return true;
    return false;
}

/* Unmounting below a mount unmounts below all its peers as well: the host's /dev/pts with that of an rbind
 * copy (6.18). A peer in another namespace is a copy that was made of ours, and shall go too. */
static bool has_peer_outside(const struct mount_table *table, const struct mount_tree *tree,
                             const struct mount *m)
{
    struct mount_set peers = {0};
    if (m->peers)
        peers = mount_table_find(table, MOUNT_BY_PEERS, m);
    for (size_t i = 0; i < peers.len; i++)
        if (!peers.mounts[i]->gone && peers.mounts[i] != m && !tree_has(tree, peers.mounts[i]))
            return true;
    return false;
}

int mount_tree_collect(const struct mount_table *table, struct mount *top, struct mount_tree *ret)
{
    _cleanup_(mount_tree_clear) struct mount_tree tree = {0};
    size_t room = 0;
    int rc = tree_add(&tree, &room, top);
    for (size_t i = 0; rc == 0 && i < tree.len; i++) {
        struct mount key = {.parent = tree.mounts[i]->id};
        struct mount_set children = mount_table_find(table, MOUNT_BY_PARENT, &key);
        for (size_t k = 0; rc == 0 && k < children.len; k++)
            if (!children.mounts[k]->gone && children.mounts[k]->id != children.mounts[k]->parent)
                rc = tree_add(&tree, &room, children.mounts[k]);
    }
    if (rc == 0)
        tree.alone = calloc(tree.len, sizeof(*tree.alone));
    if (rc < 0 || !tree.alone)
        return -ENOMEM;
    for (size_t i = 0; i < tree.len; i++)
        tree.alone[i] = has_peer_outside(table, &tree, tree.mounts[i]);
    *ret = tree;
    tree = (struct mount_tree){0};
    return 0;
}

/* ---- the act ---- */

struct take {
    const struct mount_tree *tree;
    uint64_t unique, ns;
    pid_t pid; /* a process in the other namespace, 0: in ours */
    bool lazy;
};

struct take_answer {
    int32_t rc;
    uint32_t stuck; /* index of the mount that rc is about */
    uint32_t left;  /* this many, from the front, are still mounted */
};

static int check(const struct take *take, size_t i, int dirfd, const char *name)
{
    const struct mount *m = take->tree->mounts[i];
    struct mount_at at;
    int rc = mount_at(dirfd, name, &at);
    if (rc < 0)
        return rc == -ENOENT ? -ESTALE : rc;
    if (!at.is_root || at.id != m->id || (i == 0 && take->unique && at.unique != take->unique))
        return -ESTALE;
    return 0;
}

static int make_private(const struct take *take, size_t i)
{
    const char *base;
    struct mount_attr attr = {.propagation = MS_PRIVATE};
    _cleanup_close_ int parent = open_parent(AT_FDCWD, take->tree->mounts[i]->target, &base);
    if (parent < 0)
        return parent;
    _cleanup_close_ int fd = fd_openat2(parent, base, O_PATH | O_NOFOLLOW, 0, RESOLVE_NO_SYMLINKS);
    int rc = fd < 0 ? fd : check(take, i, fd, "");
    if (rc == 0 && mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
        rc = -errno;
    return rc == -ENOENT ? -ESTALE : rc;
}

static int take_one(const struct take *take, size_t i, bool in_helper)
{
    char path[NAME_MAX + 40];
    const char *base;
    int flags = UMOUNT_NOFOLLOW | (take->lazy ? MNT_DETACH : 0);
    _cleanup_close_ int parent = open_parent(AT_FDCWD, take->tree->mounts[i]->target, &base);
    if (parent < 0)
        return parent == -ENOENT ? -ESTALE : parent;
    if (in_helper) { /* which has a working directory of its own, but perhaps no /proc */
        if (fchdir(parent) < 0)
            return -errno;
        (void)snprintf(path, sizeof(path), "./%s", base);
    } else {
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", parent, base);
    }
    int rc = check(take, i, parent, base);
    if (rc < 0)
        return rc;
    return umount2(path, flags) < 0 ? -errno : 0;
}

static void take_all(const struct take *take, bool in_helper, struct take_answer *ret)
{
    size_t len = take->tree->len;
    *ret = (struct take_answer){.left = (uint32_t)len};
    for (size_t i = 0; i < len; i++) {
        ret->stuck = (uint32_t)i;
        ret->rc = take->tree->alone[i] && !take->tree->mounts[i]->gone ? make_private(take, i) : 0;
        if (ret->rc < 0)
            return;
    }
    for (size_t i = take->lazy ? 1 : len; i-- > 0;) {
        ret->stuck = (uint32_t)i;
        ret->rc = take->tree->mounts[i]->gone ? 0 : take_one(take, i, in_helper);
        if (ret->rc < 0)
            return;
        ret->left = (uint32_t)i;
    }
}

/* Into the namespace of take->pid, with that process' root: its mountinfo is seen from there. */
static int enter(const struct take *take)
{
    char path[40];
    (void)snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)take->pid);
    _cleanup_close_ int ns = open(path, O_RDONLY | O_CLOEXEC);
    (void)snprintf(path, sizeof(path), "/proc/%d/root", (int)take->pid);
    _cleanup_close_ int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct stat st;
    if (ns < 0 || root < 0 || fstat(ns, &st) < 0)
        return -errno;
    if (st.st_ino != take->ns)
        return -ESRCH;
    if (setns(ns, CLONE_NEWNS) < 0 || fchdir(root) < 0 || chroot(".") < 0)
        return -errno;
    return 0;
}

static int take_in_helper(void *data, uint8_t output[HELPER_OUTPUT_MAX])
{
    const struct take *take = data;
    struct take_answer answer = {.left = (uint32_t)take->tree->len};
    answer.rc = take->pid ? enter(take) : 0;
    if (answer.rc == 0)
        take_all(take, true, &answer);
    memcpy(output, &answer, sizeof(answer));
    return 0;
}

/* ---- in a helper, of which no other process' undo loses sight ---- */

uint64_t mount_helper_of(const struct undo *u, const struct record *r, char file[PATH_MAX])
{
    const uint64_t key[] = {r->incarnation, r->seq};
    helper_file(u->config->runtime_dir, file);
    return XXH3_64bits(key, sizeof(key)) >> 2; /* offsets are positive */
}

static void name_left(const struct helper_left *left, struct rbxj_error *e)
{
    if (left->pid)
        error_detail(e, "pid %d hangs in it and was left behind", (int)left->pid);
    else
        error_detail(e, "a process that is not visible from here hangs in it");
}

int mount_is_worked_at(const struct undo *u, const struct record *r, struct finding *f)
{
    char file[PATH_MAX];
    struct helper_left left;
    uint64_t byte = mount_helper_of(u, r, file);
    int rc = helper_is_at(file, byte, &left);
    if (rc == 0)
        return 0;
    f->found = FOUND_BUSY;
    if (rc < 0)
        return error_sys(&f->error, -rc, "mount %s: whether a helper is at it: %s", r->path, file);
    f->refused = f->partial = false;
    f->identity = (uint64_t)left.pid;
    f->error = (struct rbxj_error){0};
    (void)error_set(&f->error, RBXJ_E_BUSY, ETIMEDOUT, "unmount %s: an earlier undo of it has not ended yet",
                    r->path);
    name_left(&left, &f->error);
    return 1;
}

static int run_helper(struct undo *u, const struct record *r, struct take *take, struct take_answer *ret,
                      struct rbxj_error *e)
{
    const struct mount *top = take->tree->mounts[0];
    struct helper_result result;
    char file[PATH_MAX];
    uint64_t byte = mount_helper_of(u, r, file);
    int rc = helper_run_alone(file, byte, take_in_helper, take, mount_deadline(u), &result);
    memcpy(ret, result.output, sizeof(*ret));
    if (rc == 0)
        return 0;
    if (rc == -ECHILD)
        return error_set(
            e, RBXJ_E_BUSY, ECHILD,
            "unmount %s: a helper can't be started: this process' children go to a pid namespace "
            "without a first process",
            top->target);
    if (rc != -ETIMEDOUT && rc != -EBUSY && rc != -EPIPE) /* it was not begun */
        return error_sys(e, -rc, "unmount %s: a helper for it", top->target);
    (void)error_set(e, RBXJ_E_BUSY, rc == -EPIPE ? EIO : ETIMEDOUT, "unmount %s: %s does not answer",
                    top->target, top->fstype);
    if (rc == -EBUSY || result.left.pid)
        name_left(&result.left, e);
    return -ETIMEDOUT;
}

static bool needs_helper(const struct mount_space *space, const struct mount_tree *tree)
{
    if (space->pid || !mount_path_is_local(space->table, tree->mounts[0]))
        return true;
    for (size_t i = 1; i < tree->len; i++)
        if (!fstype_is_local(tree->mounts[i]->fstype))
            return true;
    return false;
}

int mount_tree_take(struct undo *u, const struct record *r, const struct mount_space *space,
                    struct mount_tree *tree, bool lazy, struct mount **ret_stuck, struct rbxj_error *e)
{
    struct take take = {
        .tree = tree, .unique = r->mount.unique, .ns = space->ns, .pid = space->pid, .lazy = lazy};
    struct take_answer answer = {.left = (uint32_t)tree->len};
    int rc = 0;
    if (needs_helper(space, tree))
        rc = run_helper(u, r, &take, &answer, e);
    else
        take_all(&take, false, &answer);
    if (rc < 0)
        return rc; /* how far it came is not known: the next look tells */
    for (size_t i = answer.left; i < tree->len; i++)
        tree->mounts[i]->gone = true;
    for (size_t i = 0; lazy && answer.left == 0 && i < tree->len; i++)
        tree->mounts[i]->gone = true;
    if (answer.rc == 0)
        return 0;
    *ret_stuck = tree->mounts[answer.stuck];
    if (answer.rc != -EBUSY && answer.rc != -ESTALE)
        return error_sys(e, -answer.rc, "unmount %s", (*ret_stuck)->target);
    return answer.rc;
}
