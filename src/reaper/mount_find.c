/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Which mount is ours (K13), and where copies of it are (K12). Never the one that has the right name: the one
 * that the evidence names, by unique id where the kernel has them, wherever it was moved to; and without
 * evidence only one that says so itself, or a block device that nobody had mounted before (K1).
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/mount.h"

#include <errno.h>
#include <string.h>

int mount_peek(const struct mount_space *space, const struct mount *m)
{
    struct mount_at at;
    int rc = mount_look_up(space, m, &at);
    if (rc < 0)
        return rc;
    if (at.id == m->id)
        return at.is_root;
    return at.id == m->parent ? 0 : -EAGAIN; /* neither it nor what is below: covered */
}

int mount_find_space(struct undo *u, const struct record *r, struct mount_space *ret, struct finding *f)
{
    uint64_t own = mounts_own_ns(u->mounts);
    uint64_t ns = r->flags & REC_EVIDENCE ? r->mount.ns : r->mount_ns;
    if (!ns || ns == own) {
        *ret = (struct mount_space){.ns = own, .whole = true, .table = mounts_own(u->mounts)};
        return 1;
    }
    int rc = mounts_in(u->mounts, ns, ret, &f->error);
    if (rc == 0)
        return 1;
    if (rc != -ENOENT && rc != -EBUSY && rc != -EACCES)
        return rc;
    f->found = rc == -ENOENT ? FOUND_GONE : FOUND_BUSY;
    f->refused = rc == -EACCES;
    if (rc == -EBUSY)
        keepers_add(&f->keepers, mounts_holder(u->mounts, ns));
    return 0;
}

static bool is_shown_root(const char *shown, const char *recorded)
{
    size_t len = strlen(recorded);
    return strncmp(shown, recorded, len) == 0 &&
           (shown[len] == '\0' || strcmp(shown + len, "//deleted") == 0);
}

/* A device number alone says little: that of a tmpfs is given to the next one as soon as it is free
 * (6.18). */
static bool has_same_file_system(const struct record *r, const struct mount *m)
{
    return m->dev == r->mount.dev && strcmp(m->source, r->found_source) == 0 && mount_has_fstype(r, m);
}

static bool has_same_content(const struct record *r, const struct mount *m)
{
    return has_same_file_system(r, m) && is_shown_root(m->root, r->root);
}

static void doubt(const struct record *r, const struct mount *m, const char *why, struct finding *f)
{
    f->found = FOUND_FOREIGN;
    f->refused = true;
    (void)error_set(&f->error, RBXJ_E_FOREIGN, 0, "mount %s: %s: type %s, source %s, on %s", r->path, why,
                    m->fstype, m->source, m->target);
}

/* By id and content, where unique ids can't be asked for; ids are reused at once (6.18), maybe by a
 * stranger's mount of the same. The root that it shows is known by its identity, as mountinfo shows by what
 * name it goes by now; what lies elsewhere may have been moved, or is that stranger's. */
static struct mount *find_by_content(const struct record *r, const struct mount_space *space,
                                     struct finding *f)
{
    char ours[MOUNT_SOURCE_MAX];
    struct mount_at at;
    struct mount *m = mount_table_by_id(space->table, r->mount.id);
    if (!m || !has_same_file_system(r, m))
        return NULL;
    if (r->mount.unique && mount_look_up(space, m, &at) == 0 && at.id == m->id && at.unique)
        return at.unique == r->mount.unique ? m : NULL;
    int shows = mount_shows(space, m, &r->id);
    bool same = shows == 1 || (shows < 0 && is_shown_root(m->root, r->root));
    bool here = strcmp(m->target, r->path) == 0;
    if (shows < 0 && errno_is_want(-shows)) {
        f->found = FOUND_BUSY;
        (void)error_sys(&f->error, -shows, "mount %s: what is mounted on %s", r->path, m->target);
        return NULL;
    }
    if (!same && (shows == 0 || !here))
        return NULL;
    mount_source_format(ours, r);
    if (same && ((here && m->parent == r->mount.parent) || strcmp(m->source, ours) == 0))
        return m;
    doubt(r, m, "moved, or another mount with its number", f);
    return NULL;
}

static int find_proven(struct undo *u, const struct record *r, struct mount_space *space, struct mount **ret,
                       struct finding *f)
{
    int32_t id;
    int rc = r->mount.unique && !space->pid ? mount_id_of_unique(r->mount.unique, &id) : -ENOSYS;
    *ret = NULL;
    if (rc == -ENOENT)
        return 0;
    if (rc < 0) {
        *ret = find_by_content(r, space, f);
        return 0;
    }
    *ret = mount_table_by_id(space->table, id);
    if (!*ret) { /* younger than the reading */
        rc = mounts_reload(u->mounts, &f->error);
        if (rc < 0)
            return rc;
        space->table = mounts_own(u->mounts);
        *ret = mount_table_by_id(space->table, id);
    }
    return *ret ? 0
                : error_set(&f->error, RBXJ_E_IO, 0, "mount %s: it exists, but mountinfo does not show it",
                            r->path);
}

bool mount_is_older(const struct record *r, const struct mount_space *space, const struct mount *m)
{
    struct mount_at at;
    if (mount_look_up(space, m, &at) < 0 || at.id != m->id)
        return false;
    if (r->newest_mount && at.unique)
        return at.unique <= r->newest_mount;
    return r->flags & REC_BEFORE_PRESENT && at.dev == r->before.dev && at.ino == r->before.ino;
}

/* Might the killed supervisor have made this one, without having told? */
static bool might_be_ours(const struct record *r, const struct mount *m)
{
    if (mount_is_bind(r))
        return true;
    if (!mount_has_fstype(r, m))
        return false;
    return !mount_source_is_free(r->fstype) || strcmp(m->source, r->source) == 0;
}

static struct mount *find_unproven(const struct undo *u, const struct record *r,
                                   const struct mount_space *space, struct finding *f)
{
    char ours[MOUNT_SOURCE_MAX];
    mount_source_format(ours, r);
    struct mount key = {.source = ours, .target = r->path};
    struct mount_set stamped = mount_table_find(space->table, MOUNT_BY_SOURCE, &key);
    struct mount *elsewhere = NULL;
    for (size_t i = stamped.len; i-- > 0;) {
        if (stamped.mounts[i]->gone)
            continue;
        if (strcmp(stamped.mounts[i]->target, r->path) == 0)
            return stamped.mounts[i];
        elsewhere = stamped.mounts[i];
    }
    if (elsewhere) {
        doubt(r, elsewhere, "moved, or copied", f);
        return NULL;
    }
    if (record_is_anothers(r))
        return NULL;
    struct mount_set there = mount_table_find(space->table, MOUNT_BY_TARGET, &key);
    for (size_t i = there.len; i-- > 0;) {
        struct mount *m = there.mounts[i];
        struct mount_at at;
        if (m->gone || mount_is_older(r, space, m) || !might_be_ours(r, m) || mount_is_of_box(u, r, m))
            continue;
        if (!mount_is_bind(r) && mount_is_device(r, m) && strcmp(m->source, r->source) == 0 &&
            r->newest_mount && mount_look_up(space, m, &at) == 0 && at.id == m->id &&
            at.unique > r->newest_mount)
            return m;
        doubt(r, m, "there is no evidence that this mount is ours", f);
        return NULL;
    }
    return NULL;
}

int mount_find(struct undo *u, const struct record *r, struct mount_space *space, struct mount **ret,
               struct finding *f)
{
    int rc = 0;
    *ret = NULL;
    if (r->flags & REC_EVIDENCE)
        rc = find_proven(u, r, space, ret, f);
    /* written ahead, and not there: it may have been made in another way, after that one failed */
    if (rc == 0 && !*ret && (!(r->flags & REC_EVIDENCE) || r->flags & REC_AHEAD))
        *ret = find_unproven(u, r, space, f);
    return rc;
}

bool mount_is_of_record(const struct record *r, const struct mount *m)
{
    char ours[MOUNT_SOURCE_MAX];
    if (r->kind != RBXJ_MOUNT)
        return false;
    if (r->flags & REC_EVIDENCE)
        return m->id == r->mount.id && has_same_content(r, m);
    mount_source_format(ours, r);
    return strcmp(m->source, ours) == 0;
}

bool mount_is_of_box(const struct undo *u, const struct record *r, const struct mount *m)
{
    for (size_t i = 0; i < u->records_len; i++)
        if (u->records[i].seq != r->seq && mount_is_of_record(&u->records[i], m))
            return true;
    return false;
}

/* ---- copies ---- */

static struct mount_set candidates(const struct record *r, const struct mount_table *table)
{
    char ours[MOUNT_SOURCE_MAX];
    mount_source_format(ours, r);
    struct mount key = {.dev = r->devices_held, .target = r->path, .source = ours};
    if (r->devices_held)
        return mount_table_find(table, MOUNT_BY_DEV, &key);
    return mount_table_find(table, r->flags & REC_EVIDENCE ? MOUNT_BY_TARGET : MOUNT_BY_SOURCE, &key);
}

/* Has another file system, with the same source, the number that ours has given up? Its root tells, where it
 * shows; in doubt it has not. */
static bool is_another(const struct record *r, const struct mount_space *space, const struct mount *m)
{
    return strcmp(m->root, "/") == 0 && mount_shows(space, m, &r->id) == 0;
}

/* Was it there before ours? A copy is younger; as a mount of its own that shows the same is not, in the
 * namespace of a container. */
static bool was_there_before(const struct record *r, const struct mount_space *space, const struct mount *m)
{
    struct mount_at at;
    return r->mount.unique && mount_look_up(space, m, &at) == 0 && at.id == m->id && at.unique &&
           at.unique < r->mount.unique;
}

/* What shows a file system that we made is a copy, but for what the box has journaled itself; of another's
 * file system, what shows the same of it at the same place in another namespace. here: the one where ours
 * was. */
static bool is_copy(const struct undo *u, const struct record *r, const struct mount_space *space, bool here,
                    const struct mount *m)
{
    if (m->gone || (here && (!r->devices_held || mount_is_of_box(u, r, m))))
        return false;
    if (!(r->flags & REC_EVIDENCE))
        return true;
    if (!has_same_file_system(r, m) || was_there_before(r, space, m))
        return false;
    if (r->devices_held)
        return !is_another(r, space, m);
    /* renamed since, it shows another name */
    return has_same_content(r, m) || mount_shows(space, m, &r->id) == 1;
}

static int reload(struct undo *u, struct mount_space *space, struct rbxj_error *e)
{
    if (space->pid)
        return mounts_other_reload(u->mounts, space->ns, space, e);
    int rc = mounts_reload(u->mounts, e);
    space->table = mounts_own(u->mounts);
    return rc < 0 ? rc : 1;
}

/* 1 there is one (*ret), 0 none, or a negative code. The reading may be from before the unmount: each
 * candidate is looked up by its name, and only where that does not tell, the namespace is read again. */
static int find_copy_in(struct undo *u, const struct record *r, struct mount_space *space, bool here,
                        struct mount **ret, struct rbxj_error *e)
{
    bool fresh = false;
    for (;;) {
        struct mount_set set = candidates(r, space->table);
        bool in_doubt = false;
        for (size_t i = 0; i < set.len && !in_doubt; i++) {
            struct mount *m = set.mounts[i];
            if (!is_copy(u, r, space, here, m))
                continue;
            int there = fresh ? 1 : mount_peek(space, m);
            if (there == 0)
                m->gone = true;
            if (there == 1) {
                *ret = m;
                return 1;
            }
            in_doubt = there < 0;
        }
        if (!in_doubt)
            return 0;
        int rc = reload(u, space, e);
        if (rc < 0)
            return rc == -ENODATA ? 0 : rc;
        fresh = true;
    }
}

int mount_find_copy(struct undo *u, const struct record *r, uint64_t ns, struct mount_space *ret_space,
                    struct mount **ret, struct rbxj_error *e)
{
    struct mount_space space = {
        .ns = mounts_own_ns(u->mounts), .whole = true, .table = mounts_own(u->mounts)};
    int rc = find_copy_in(u, r, &space, space.ns == ns, ret, e);
    for (size_t i = 0; rc == 0; i++) {
        int more = mounts_other(u->mounts, i, &space, e);
        if (more == 0)
            return 0;
        if (more < 0 && more != -ENODATA)
            return more;
        if (more == 1)
            rc = find_copy_in(u, r, &space, space.ns == ns, ret, e);
    }
    if (rc == 1)
        *ret_space = space;
    return rc;
}

static bool is_reused_in(const struct record *r, const struct mount_table *table)
{
    struct mount key = {.dev = r->devices_held};
    struct mount_set set = mount_table_find(table, MOUNT_BY_DEV, &key);
    for (size_t i = 0; i < set.len; i++)
        if (!set.mounts[i]->gone && !has_same_file_system(r, set.mounts[i]))
            return true;
    return false;
}

/* What is in a table is no detached mount. */
static bool is_attached_in(const struct record *r, const struct mount_table *table)
{
    return mount_table_by_id(table, r->mount.id) != NULL;
}

/* 1, 0, or a negative code. */
static int is_in_any(struct undo *u, const struct record *r,
                     bool (*is_in)(const struct record *r, const struct mount_table *table),
                     struct rbxj_error *e)
{
    struct mount_space space;
    bool found = is_in(r, mounts_own(u->mounts));
    for (size_t i = 0; !found; i++) {
        int more = mounts_other(u->mounts, i, &space, e);
        if (more == 0)
            break;
        if (more < 0 && more != -ENODATA)
            return more;
        found = more == 1 && is_in(r, space.table);
    }
    return found;
}

int mount_device_is_reused(struct undo *u, const struct record *r, struct rbxj_error *e)
{
    return is_in_any(u, r, is_reused_in, e);
}

int mount_id_is_reused(struct undo *u, const struct record *r, struct rbxj_error *e)
{
    return r->mount.unique ? 0 : is_in_any(u, r, is_attached_in, e);
}
