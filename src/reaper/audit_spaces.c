/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who uses what was found under another name: a sandbox whose root it is has a mount namespace of its own,
 * and what its processes have open is named from there; and a directory may be mounted in another place, or
 * be a layer of what is. Mount tables are read, and no path is looked up: nothing here can hang.
 */
#include "reaper/audit.h"

#include "base/fd.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* The mount on which path is, by names. */
static const struct mount *mount_above(const struct mount_table *table, const char *path)
{
    char at[PATH_MAX];
    const struct mount *m = NULL;
    (void)snprintf(at, sizeof(at), "%s", path);
    while (!(m = mount_table_top(table, at)) && at[1]) {
        char *slash = strrchr(at, '/');
        slash[slash == at] = 0;
    }
    return m;
}

/* Where it is within its file system. NULL: that is not known. */
static const struct mount *place_of(const struct audit *a, const struct audit_item *item, char root[PATH_MAX])
{
    bool mount = item->kind == RBXJ_MOUNT;
    const struct mount *m = mount ? mount_table_by_id(a->table, item->mount_id)
                                  : mount_above(a->table, item->name);
    if (!m)
        return NULL;
    const char *below = mount ? "" : item->name + (m->target[1] ? strlen(m->target) : 0);
    int n = snprintf(root, PATH_MAX, "%s%s", m->root[1] || !*below ? m->root : "", below);
    return n < PATH_MAX ? m : NULL;
}

/* Nearly all namespaces begin as a copy of this one. */
static bool is_copy(const struct audit *a, const struct mount *m)
{
    struct mount_set here = mount_table_find(a->table, MOUNT_BY_TARGET, m);
    for (size_t i = 0; i < here.len; i++)
        if (here.mounts[i]->dev == m->dev && strcmp(here.mounts[i]->root, m->root) == 0)
            return true;
    return false;
}

/* Does an overlay have a layer at or below that path, as far as it tells? */
static bool has_layer(const struct mount *m, const char *path)
{
    size_t len = strlen(path);
    const char *at = strcmp(m->fstype, "overlay") == 0 ? m->options : "";
    while ((at = strstr(at, path))) {
        if ((at[-1] == '=' || at[-1] == ':') && strchr("/:,", at[len])) /* or at its end */
            return true;
        at += len;
    }
    return false;
}

static void in_use(struct audit_item *item, const struct mount *m, const struct mount_space *space)
{
    item->live = true;
    if (space)
        (void)snprintf(item->user, sizeof(item->user), "mounted on %.60s in the mount namespace of pid %d",
                       m->target, space->pid);
    else
        (void)snprintf(item->user, sizeof(item->user), "mounted on %.120s", m->target);
}

/* In this namespace, in a place that is not in itself: what is removed from it would be missing there. A
 * mount that is taken away takes nothing from the others of its file system. */
static void look_here(const struct audit *a, struct audit_item *item, const struct mount_table *now)
{
    char root[PATH_MAX];
    const struct mount *own = item->kind == RBXJ_MOUNT ? NULL : place_of(a, item, root);
    struct mount_set all = own ? mount_table_all(now) : (struct mount_set){0};
    for (size_t i = 0; i < all.len && !item->live; i++) {
        const struct mount *m = all.mounts[i];
        bool shows = m->dev == own->dev && path_is_below(m->root, root);
        if ((shows || has_layer(m, item->name)) && !path_is_below(m->target, item->name))
            in_use(item, m, NULL);
    }
}

static void look_at_space(const struct audit *a, struct audit_item *item, const struct mount_space *space)
{
    char root[PATH_MAX];
    const struct mount *own = place_of(a, item, root);
    struct mount_set set = own ? mount_table_find(space->table, MOUNT_BY_DEV, own) : (struct mount_set){0};
    for (size_t i = 0; i < set.len && !item->live; i++) {
        const struct mount *m = set.mounts[i];
        if (path_is_below(m->root, root) && !is_copy(a, m))
            in_use(item, m, space);
    }
    struct mount_set all = mount_table_all(space->table);
    for (size_t i = 0; i < all.len && !item->live; i++)
        if (has_layer(all.mounts[i], item->name) && !is_copy(a, all.mounts[i]))
            in_use(item, all.mounts[i], space);
}

int audit_use_elsewhere(struct audit *a, struct rbxj_error *e)
{
    struct mounts *mounts;
    struct mount_space space;
    int r = mounts_read(&mounts, e), more;
    if (r < 0)
        return r;
    for (size_t i = 0; i < a->len; i++)
        if (a->items[i].kind != RBXJ_CGROUP && !a->items[i].live)
            look_here(a, &a->items[i], mounts_own(mounts));
    for (size_t i = 0; (more = mounts_other(mounts, i, &space, e)) == 1 || more == -ENODATA; i++)
        for (size_t k = 0; more == 1 && k < a->len; k++)
            if (a->items[k].kind != RBXJ_CGROUP)
                look_at_space(a, &a->items[k], &space);
    mounts_free(mounts);
    return more;
}
