/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/baseline.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "reaper/answers.h"
#include "reaper/cgroup.h"
#include "reaper/incarnations.h"

#include <linux/nsfs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

struct look {
    const struct rbxj_result *undone;
    struct incarnations boxes;
    struct answers answers;
    char *text;
    size_t size;
};

static bool is_undone(const struct result_box *box)
{
    return box->outcome && strcmp(box->outcome, "success") == 0;
}

/* Of the box whose mark it is, if all of it was undone; NULL: it is none of those. */
static const struct result_box *box_of(const struct look *l, uint64_t incarnation)
{
    const struct incarnation *row = incarnations_find(&l->boxes, incarnation);
    return row && is_undone(&l->undone->boxes[row->i]) ? &l->undone->boxes[row->i] : NULL;
}

static int found(const struct look *l, const struct result_box *box, const char *what, const char *where,
                 const char *beside)
{
    (void)snprintf(l->text, l->size, "box %s was undone, but %s %.200s%s bears its mark", box->box.name, what,
                   where, beside);
    return 1;
}

/* ---- mounts, in every namespace ---- */

/* Anybody may name the source of what he mounts, if in a user namespace of his own, or by fusermount(1): it
 * proves nothing there. */
static bool is_by_anybody(const struct mount *m)
{
    return strncmp(m->fstype, "fuse", 4) == 0;
}

static bool is_of_our_users(const struct mount_space *space)
{
    char path[40];
    struct stat st, owner, own;
    (void)snprintf(path, sizeof(path), "/proc/%d/ns/mnt", space->pid);
    _cleanup_close_ int ns = open(path, O_RDONLY | O_CLOEXEC);
    if (ns < 0 || fstat(ns, &st) < 0 || st.st_ino != space->ns)
        return false;
    _cleanup_close_ int users = ioctl(ns, NS_GET_USERNS);
    return users >= 0 && fstat(users, &owner) == 0 && stat("/proc/self/ns/user", &own) == 0 &&
           owner.st_ino == own.st_ino;
}

static int look_at_table(const struct look *l, const struct mount_table *table, const char *beside)
{
    struct mount_set all = mount_table_all(table);
    uint64_t incarnation;
    uint32_t seq;
    for (size_t i = 0; i < all.len; i++) {
        const struct mount *m = all.mounts[i];
        const struct result_box *box = !is_by_anybody(m) && strncmp(m->source, "rbxj:", 5) == 0 &&
                                               stamp_parse(m->source + 5, &incarnation, &seq)
                                           ? box_of(l, incarnation)
                                           : NULL;
        if (box)
            return found(l, box, "the mount on", m->target, beside);
    }
    return 0;
}

static int look_at_mounts(const struct look *l, struct mounts *mounts)
{
    struct mount_space space;
    struct rbxj_error e = {0};
    char beside[80];
    int r = look_at_table(l, mounts_own(mounts), ""), more = 1;
    for (size_t i = 0; r == 0 && more != 0; i++) {
        more = mounts_other(mounts, i, &space, &e);
        if (more < 0 && more != -ENODATA)
            return e.errnum ? -e.errnum : -EIO;
        (void)snprintf(beside, sizeof(beside), " in the mount namespace of pid %d", space.pid);
        r = more == 1 && is_of_our_users(&space) ? look_at_table(l, space.table, beside) : 0;
    }
    return r;
}

/* ---- cgroups, and what has a path ---- */

static int visit_cgroup(int fd, void *data)
{
    const struct look *l = data;
    char path[PATH_MAX];
    uint64_t incarnation;
    uint32_t seq;
    int r = stamp_get(fd, &incarnation, &seq);
    const struct result_box *box = r > 0 ? box_of(l, incarnation) : NULL;
    if (!box)
        return r < 0 && errno_is_want(-r) ? r : 0;
    fd_path(fd, path, sizeof(path));
    (void)found(l, box, "the cgroup", path, "");
    return -RBXJ_E_LEFT; /* ends the walk */
}

static int look_at_path(struct look *l, struct mount_table *table, const struct result_box *box,
                        const struct result_entry *entry)
{
    uint64_t incarnation;
    uint32_t seq;
    int hangs = answers_hangs(&l->answers, table, entry->name);
    if (hangs)
        return hangs < 0 ? hangs : 0; /* it does not answer: its undo would have failed */
    _cleanup_close_ int fd = open(entry->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno_is_want(errno) ? -errno : 0;
    int r = stamp_get(fd, &incarnation, &seq);
    if (r <= 0 || incarnation != box->box.incarnation || seq != entry->seq)
        return r < 0 && errno_is_want(-r) ? r : 0;
    return found(l, box, kind_of(entry->kind)->name, entry->name, "");
}

static int look_at_paths(struct look *l, struct mount_table *table)
{
    int r = 0;
    for (size_t i = 0; i < l->undone->len && r == 0; i++) {
        const struct result_box *box = &l->undone->boxes[i];
        for (size_t k = 0; is_undone(box) && k < box->len && r == 0; k++)
            if (box->entries[k].kind == RBXJ_TMPDIR || box->entries[k].kind == RBXJ_CGROUP)
                r = look_at_path(l, table, box, &box->entries[k]);
    }
    return r;
}

int baseline_look(const struct config *config, const struct rbxj_result *undone, char *ret, size_t size)
{
    struct look l = {.undone = undone, .text = ret, .size = size, .answers.runtime_dir = config->runtime_dir};
    struct rbxj_error e = {0};
    struct mounts *mounts = NULL;
    if (!undone || !undone->len)
        return 0;
    int r = incarnations_of(undone, NULL, 0, &l.boxes);
    if (r == 0 && mounts_read(&mounts, &e) < 0)
        r = e.errnum ? -e.errnum : -EIO;
    if (r == 0)
        r = look_at_mounts(&l, mounts);
    if (r == 0)
        r = look_at_paths(&l, mounts_own(mounts));
    if (r == 0)
        r = cgroup_each(mounts_own(mounts), visit_cgroup, &l);
    mounts_free(mounts);
    incarnations_clear(&l.boxes);
    return r == -RBXJ_E_LEFT ? 1 : r;
}
