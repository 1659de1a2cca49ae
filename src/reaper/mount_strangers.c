/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What an unmount would take along that is not ours. It goes wherever the mount's parent propagates to: the
 * kernel unmounts there what it finds at the same directory, whoever mounted it (6.18). Where somebody has
 * unmounted his copy of ours, as in the namespace of a service, and mounted something of his own there, that
 * would go.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/journal.h"
#include "reaper/mount.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* The peer groups that get an unmount: that of the parent, and those of its slaves, which may have slaves
 * themselves. */
struct groups {
    uint32_t *ids;
    size_t len, room;
};

static void groups_clear(struct groups *g)
{
    free(g->ids);
}

static int groups_add(struct groups *g, uint32_t id)
{
    for (size_t i = 0; i < g->len; i++)
        if (g->ids[i] == id)
            return 0;
    if (g->len == g->room) {
        size_t room = g->room ? 2 * g->room : 8;
        uint32_t *more = reallocarray(g->ids, room, sizeof(*more));
        if (!more)
            return -ENOMEM;
        g->ids = more;
        g->room = room;
    }
    g->ids[g->len++] = id;
    return 0;
}

static int groups_add_slaves(struct groups *g, const struct mount_table *table)
{
    int rc = 0;
    for (size_t i = 0; i < g->len && rc == 0; i++) {
        struct mount key = {.master = g->ids[i]};
        struct mount_set slaves = mount_table_find(table, MOUNT_BY_MASTER, &key);
        for (size_t k = 0; k < slaves.len && rc == 0; k++)
            if (slaves.mounts[k]->peers)
                rc = groups_add(g, slaves.mounts[k]->peers);
    }
    return rc;
}

/* Namespace i of all, ours being the first. As mounts_other(), but for those that went away: 2. */
static int space_at(struct undo *u, size_t i, struct mount_space *ret, struct rbxj_error *e)
{
    if (i == 0) {
        *ret = (struct mount_space){
            .ns = mounts_own_ns(u->mounts), .whole = true, .table = mounts_own(u->mounts)};
        return 1;
    }
    struct mounts *before = mounts_before(u->mounts);
    int rc = before ? mounts_other(before, i - 1, ret, e) : error_sys(e, ENOMEM, "where an unmount goes");
    return rc == -ENODATA ? 2 : rc;
}

static int find_groups(struct undo *u, uint32_t first, struct groups *ret, struct rbxj_error *e)
{
    struct mount_space space;
    int rc = groups_add(ret, first), more;
    for (size_t before = 0; rc == 0 && before != ret->len;) {
        before = ret->len;
        for (size_t i = 0; rc == 0 && (more = space_at(u, i, &space, e)) != 0; i++) {
            if (more < 0)
                return more;
            rc = more == 1 ? groups_add_slaves(ret, space.table) : 0;
        }
    }
    return rc < 0 ? error_sys(e, -rc, "where an unmount goes") : 0;
}

/* The path of what is below a mount's target, within that mount's file system, or back: from one of them to
 * the other. 0, or -ENOENT: it is not below. */
static int move_path(const char *path, const char *from, const char *to, char ret[PATH_MAX])
{
    if (!path_is_below(path, from))
        return -ENOENT;
    const char *rest = path + (from[1] ? strlen(from) : 0);
    if (rest[0] == '/' && !rest[1])
        rest++;
    int n = snprintf(ret, PATH_MAX, "%s%s", to[1] || !*rest ? to : "", rest);
    return n < 0 || n >= PATH_MAX ? -ENOENT : 0;
}

struct question {
    const struct undo *u;
    const struct record *r;
    const struct mount_tree *tree;
    const struct mount *m, *parent; /* what is to be unmounted, and on what */
    char at[PATH_MAX];              /* where on that */
    bool ahead;
};

static bool is_of_tree(const struct question *q, const struct mount *m)
{
    for (size_t i = 0; i < q->tree->len; i++)
        if (q->tree->mounts[i] == m)
            return true;
    return false;
}

/* A copy of ours shows the same; what the box has journaled itself goes anyway. */
static bool is_stranger(const struct question *q, const struct mount_space *space, const struct mount *m)
{
    bool same = m->dev == q->m->dev && strcmp(m->root, q->m->root) == 0;
    return !m->gone && !same && !is_of_tree(q, m) && (space->pid || !mount_is_of_box(q->u, q->r, m)) &&
           mount_peek(space, m) != 0;
}

/* What lies on that parent's counterpart at the same directory: NULL if it is ours, or nothing. */
static const struct mount *find_on(const struct question *q, const struct mount_space *space,
                                   const struct mount *counterpart)
{
    char target[PATH_MAX];
    struct mount key = {.target = target};
    if (counterpart->gone || counterpart->dev != q->parent->dev ||
        move_path(q->at, counterpart->root, counterpart->target, target) < 0)
        return NULL;
    struct mount_set set = mount_table_find(space->table, MOUNT_BY_TARGET, &key);
    for (size_t i = 0; i < set.len; i++)
        if (set.mounts[i]->parent == counterpart->id && is_stranger(q, space, set.mounts[i]))
            return set.mounts[i];
    return NULL;
}

static const struct mount *find_in(const struct question *q, const struct groups *g,
                                   const struct mount_space *space)
{
    const struct mount *found = NULL;
    for (size_t i = 0; i < g->len && !found; i++) {
        struct mount key = {.peers = g->ids[i], .master = g->ids[i]};
        struct mount_set peers = mount_table_find(space->table, MOUNT_BY_PEERS, &key);
        struct mount_set slaves = mount_table_find(space->table, MOUNT_BY_MASTER, &key);
        for (size_t k = 0; k < peers.len && !found; k++)
            found = find_on(q, space, peers.mounts[k]);
        for (size_t k = 0; k < slaves.len && !found; k++)
            found = find_on(q, space, slaves.mounts[k]);
    }
    return found;
}

/* 1 one was found (e says which), 0 none, or a negative code. */
static int ask(struct undo *u, const struct question *q, struct rbxj_error *e)
{
    _cleanup_(groups_clear) struct groups g = {0};
    struct mount_space space;
    int more, rc = find_groups(u, q->parent->peers, &g, e);
    if (rc < 0)
        return rc;
    for (size_t i = 0; (more = space_at(u, i, &space, e)) != 0; i++) {
        if (more < 0)
            return more;
        const struct mount *found = more == 1 ? find_in(q, &g, &space) : NULL;
        if (!found || (q->ahead && mount_is_payload(u, space.pid)))
            continue;
        (void)error_set(e, RBXJ_E_BUSY, EBUSY,
                        "unmount %s: another one's mount would go with it: type %s, source %s, on %s",
                        q->m->target, found->fstype, found->source, found->target);
        if (space.pid) {
            char who[120];
            procid_describe(space.pid, who, sizeof(who));
            error_detail(e, "in the mount namespace of pid %d (%s)", (int)space.pid, who);
        }
        return 1;
    }
    return 0;
}

/* ---- what is another box's ---- */

struct owned_mount {
    const struct mount_space *space;
    const struct mount *m;
    const struct box *box;
};

static int is_recorded(void *data, const struct snapshot_box *box, const struct record *r)
{
    struct owned_mount *owned = data;
    struct mount_at at;
    owned->box = &box->box;
    if (r->mount.unique && mount_look_up(owned->space, owned->m, &at) == 0 && at.id == owned->m->id &&
        at.unique)
        return at.unique == r->mount.unique;
    return mount_is_of_record(r, owned->m);
}

/* Has it been moved into what is to be unmounted? A copy of it, as in an rbind, is nobody else's (K4). */
static int check_boxes(struct undo *u, const struct record *r, const struct mount_space *space,
                       const struct mount *m, struct rbxj_error *e)
{
    struct owned_mount owned = {space, m, NULL};
    if (!u->snapshot || m->gone ||
        !snapshot_numbered(u->snapshot, r->incarnation, RBXJ_MOUNT, m->id, is_recorded, &owned))
        return 0;
    return error_set(e, RBXJ_E_BUSY, EBUSY, "unmount %s: the mount on %s is of box %s", r->path, m->target,
                     owned.box->name);
}

/* ---- all of it ---- */

/* Is it made private before (K12)? Then what is on it is unmounted alone. */
static bool is_alone(const struct mount_tree *tree, const struct mount *m)
{
    for (size_t i = 0; i < tree->len; i++)
        if (tree->mounts[i] == m)
            return tree->alone[i];
    return false;
}

int mount_check_strangers(struct undo *u, const struct record *r, const struct mount_space *space,
                          const struct mount_tree *tree, bool ahead, struct rbxj_error *e)
{
    int rc = 0;
    for (size_t i = 0; i < tree->len && rc == 0; i++) {
        const struct mount *m = tree->mounts[i];
        rc = i ? check_boxes(u, r, space, m, e) : 0;
        if (rc < 0)
            return rc;
        struct question q = {.u = u, .r = r, .tree = tree, .m = m, .ahead = ahead};
        q.parent = m->gone || m->parent == m->id ? NULL : mount_table_by_id(space->table, m->parent);
        if (!q.parent || !q.parent->peers || is_alone(tree, q.parent) ||
            move_path(m->target, q.parent->target, q.parent->root, q.at) < 0)
            continue;
        rc = ask(u, &q, e);
    }
    return rc == 1 ? -RBXJ_E_BUSY : rc;
}
