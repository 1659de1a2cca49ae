/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Orphans that their cgroup tells of: it bears our stamp, and no journal of ours knows of it.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/proctext.h"
#include "reaper/cgroup.h"
#include "reaper/mountinfo.h"
#include "reaper/orphans.h"
#include "reaper/undo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STAMPED_MAX 4096 /* cgroups that are looked into */

/* Which record it is that a stamp names. */
struct mark {
    uint64_t incarnation;
    uint32_t seq;
};

struct stamped {
    struct mark mark;
    char *path;
    struct cgroup_members members;
};

struct search {
    struct mark *known; /* the records of cgroups in the journal, sorted */
    size_t known_len;
    struct stamped *list;
    size_t len;
    bool more; /* than STAMPED_MAX */
};

static void search_clear(struct search *x)
{
    for (size_t i = 0; i < x->len; i++) {
        free(x->list[i].path);
        cgroup_members_clear(&x->list[i].members);
    }
    free(x->list);
    free(x->known);
}

static int compare(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;
    if (x->incarnation != y->incarnation)
        return x->incarnation < y->incarnation ? -1 : 1;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

/* Fills known. */
static int know(struct search *x, const struct snapshot *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->len; i++)
        n += s->boxes[i].len;
    free(x->known);
    x->known_len = 0;
    x->known = calloc(n + 1, sizeof(*x->known));
    if (!x->known)
        return -ENOMEM;
    for (size_t i = 0; i < s->len; i++)
        for (size_t k = 0; k < s->boxes[i].len; k++)
            if (s->boxes[i].records[k].kind == RBXJ_CGROUP)
                x->known[x->known_len++] = (struct mark){s->boxes[i].box.incarnation,
                                                         s->boxes[i].records[k].seq};
    if (x->known_len)
        qsort(x->known, x->known_len, sizeof(*x->known), compare);
    return 0;
}

static bool is_known(const struct search *x, const struct mark *mark)
{
    return x->known_len && bsearch(mark, x->known, x->known_len, sizeof(*x->known), compare) != NULL;
}

/* ---- the cgroups ---- */

static int visit(int fd, void *data)
{
    struct search *x = data;
    struct stamped new = {0};
    char path[PATH_MAX];
    int r = stamp_get(fd, &new.mark.incarnation, &new.mark.seq);
    if (r <= 0 || is_known(x, &new.mark))
        return r < 0 && errno_is_want(-r) ? r : 0;
    x->more = x->more || x->len == STAMPED_MAX;
    if (x->more)
        return 0;
    r = cgroup_members(fd, &new.members);
    if (r < 0 || (!new.members.len && !new.members.hidden))
        return r < 0 && errno_is_want(-r) ? r : 0;
    fd_path(fd, path, sizeof(path));
    struct stamped *grown = reallocarray(x->list, x->len + 1, sizeof(*grown));
    x->list = grown ? grown : x->list;
    new.path = grown ? strdup(path) : NULL;
    if (!new.path) {
        cgroup_members_clear(&new.members);
        return -ENOMEM;
    }
    x->list[x->len++] = new;
    return 0;
}

/* ---- their processes ---- */

/* Has somebody who lives started one of them? Then the box is his, and what has become a child of init in it
 * is, too. */
static bool is_owned(const struct stamped *in, const struct processes *table)
{
    for (size_t i = 0; i < in->members.len; i++) {
        const struct process *p = processes_find(table, in->members.pids[i]);
        if (p && p->parent > 1 && !cgroup_members_have(&in->members, p->parent))
            return true;
    }
    return false;
}

/* Has nobody alive started what it belongs to: is its topmost process in that cgroup a child of init? 1, 0;
 * -EAGAIN: its parent can't be seen. */
static int is_ownerless(const struct stamped *in, const struct processes *table, const struct process *p)
{
    for (size_t depth = 0; depth < table->len; depth++) {
        if (p->parent == 0)
            return -EAGAIN;
        if (p->parent == 1)
            return !cgroup_members_have(&in->members, 1);
        if (!cgroup_members_have(&in->members, p->parent))
            return 0;
        p = processes_find(table, p->parent);
        if (!p)
            return 0; /* it has just died, or just begun: the next look knows */
    }
    return 0;
}

/* A supervisor, or a recorded process. */
static bool is_named(const struct snapshot *s, const struct procid *id)
{
    for (size_t i = 0; i < s->len; i++) {
        const struct snapshot_box *sb = &s->boxes[i];
        if (procid_equal(&sb->box.supervisor, id))
            return true;
        for (size_t k = 0; k < sb->len; k++)
            if (sb->records[k].kind == RBXJ_PROCESS && procid_equal(&sb->records[k].process, id))
                return true;
    }
    return false;
}

static bool is_still_in(const struct stamped *in, pid_t pid)
{
    char path[40], text[8192];
    (void)snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
    return fd_read_file(AT_FDCWD, path, text, sizeof(text)) > 0 && proctext_is_in_cgroup(text, in->path);
}

/* What all of them are judged by. */
struct judgement {
    const struct snapshot *s; /* read after the processes */
    const struct processes *table;
    struct procid self;
    bool init_owns; /* init itself is a supervisor: its children have an owner */
};

static int add_ownerless(const struct judgement *j, const struct stamped *in, struct orphans *ret,
                         bool *ret_unseen)
{
    struct procid id = j->self;
    if (is_owned(in, j->table))
        return 0;
    *ret_unseen = in->members.hidden;
    for (size_t i = 0; i < in->members.len; i++) {
        const struct process *p = processes_find(j->table, in->members.pids[i]);
        if (!p || p->state == 'Z' || p->pid == 1)
            continue;
        int r = is_ownerless(in, j->table, p);
        *ret_unseen = *ret_unseen || r == -EAGAIN;
        if (r <= 0 || j->init_owns || process_is_same(p) != 1 || !is_still_in(in, p->pid))
            continue;
        /* within a box of ours another rbxj may be at work, or a payload that makes such marks */
        ssize_t box = orphans_box_of(j->s, p->pid);
        if (box != -ENOENT) {
            if (box < 0 && errno_is_want((int)-box))
                return (int)box;
            continue;
        }
        id.pid = p->pid;
        id.start_time = p->start_time;
        r = is_named(j->s, &id) ? 0 : orphans_add(ret, &id, "");
        if (r < 0)
            return r;
    }
    return 0;
}

/* Those of which a journal that is read now still knows nothing. */
static int judge(struct search *x, const struct config *config, const struct processes *table,
                 struct orphans *ret, uint32_t *ret_unseen)
{
    struct snapshot now = {0};
    struct judgement j = {.s = &now, .table = table};
    struct procid init;
    int r = procid_of(getpid(), &j.self);
    if (r == 0)
        r = snapshot_read(config->state_dir, config->runtime_dir, &now, NULL);
    if (r == 0)
        r = know(x, &now);
    j.init_owns = r == 0 && (procid_of(1, &init) < 0 || is_named(&now, &init));
    for (size_t i = 0; i < x->len && r == 0; i++) {
        bool unseen = false;
        if (is_known(x, &x->list[i].mark))
            continue;
        r = add_ownerless(&j, &x->list[i], ret, &unseen);
        *ret_unseen += unseen;
    }
    snapshot_clear(&now);
    return r;
}

int orphans_find_marked(const struct config *config, const struct snapshot *s, const struct processes *table,
                        struct orphans *ret, uint32_t *ret_unseen)
{
    _cleanup_(search_clear) struct search x = {0};
    struct mount_table *mounts = NULL;
    struct rbxj_error e = {0};
    if (s->nothing) /* was ever journaled: no mark is ours */
        return 0;
    int r = know(&x, s);
    if (r == 0 && mount_table_read("/proc/self/mountinfo", &mounts, &e) < 0)
        r = e.errnum ? -e.errnum : -EIO;
    if (r == 0)
        r = cgroup_each(mounts, visit, &x);
    mount_table_free(mounts);
    if (r == 0 && x.len)
        r = judge(&x, config, table, ret, ret_unseen);
    ret->blind = ret->blind || r < 0 || x.more;
    return errno_is_want(-r) ? r : 0;
}
