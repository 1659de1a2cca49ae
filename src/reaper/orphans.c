/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/orphans.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/proctext.h"
#include "reaper/cgroup.h"
#include "reaper/undo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FINDING_NS (10LL * 1000000000) /* an undo waits for it */

/* In struct process: a living owner, or 1 + the index of the dead box whose it is. */
#define MARK_LIVING UINT32_MAX

/* ---- the list ---- */

void orphans_clear(struct orphans *o)
{
    free(o->list);
    *o = (struct orphans){0};
}

int orphans_add(struct orphans *o, const struct procid *id, const char *box)
{
    for (size_t i = 0; i < o->len; i++)
        if (procid_equal(&o->list[i].id, id))
            return 0;
    struct orphan *grown = reallocarray(o->list, o->len + 1, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    o->list = grown;
    grown[o->len] = (struct orphan){.id = *id};
    (void)snprintf(grown[o->len++].box, sizeof(grown->box), "%s", box);
    return 0;
}

int orphans_copy(struct orphans *to, const struct orphan *one)
{
    size_t before = to->len;
    int r = orphans_add(to, &one->id, one->box);
    if (r == 0 && to->len > before)
        to->list[before].told = one->told;
    return r;
}

void orphans_keep_living(struct orphans *o, int64_t deadline_ns)
{
    size_t n = 0;
    for (size_t i = 0; i < o->len; i++) {
        int fd = procid_open(&o->list[i].id);
        bool gone = fd == -ESRCH || (fd >= 0 && deadline_ns && pidfd_wait(fd, deadline_ns) == 0);
        if (fd >= 0)
            (void)close(fd);
        if (!gone)
            o->list[n++] = o->list[i];
    }
    o->len = n;
}

void orphan_describe(const struct orphan *orphan, char *buf, size_t size)
{
    char who[120];
    procid_describe(orphan->id.pid, who, sizeof(who));
    (void)snprintf(buf, size, "%s%s%spid %d (%s) outlived its box, and no record names it",
                   orphan->box[0] ? "box " : "", orphan->box, orphan->box[0] ? ": " : "", orphan->id.pid,
                   who);
}

/* ---- who is of which box ---- */

struct search {
    const struct config *config;
    struct snapshot *s;
    const bool *dead;
    struct processes *table;
    struct procid self; /* whose pids and start times can be compared */
    bool any;           /* something of a dead box lives */
};

static void mark(struct search *x, const struct procid *id, uint32_t as)
{
    struct process *p = procid_comparable(&x->self, id) ? processes_find(x->table, id->pid) : NULL;
    if (!p || p->start_time != id->start_time || p->state == 'Z' || p->mark == MARK_LIVING)
        return;
    p->mark = as;
    x->any = x->any || as != MARK_LIVING;
}

/* Only of one that is proven to be the box's. 0, or -errno for want. */
static int members_of(const struct search *x, struct snapshot_box *sb, const struct record *r,
                      struct cgroup_members *ret)
{
    struct undo u = {.config = x->config,
                     .box = &sb->box,
                     .records = sb->records,
                     .records_len = sb->len,
                     .dry_run = true,
                     .same_boot = true};
    struct finding f = {0};
    const char *base;
    int looked = kind_cgroup.look(&u, r, &f);
    if (errno_is_want(f.error.errnum))
        return -f.error.errnum;
    if (looked < 0 || f.found != FOUND_PRESENT)
        return 0;
    _cleanup_close_ int parent = fd_open_parent(r->path, &base);
    _cleanup_close_ int fd = parent < 0 ? parent : cgroup_open(parent, base);
    struct stat st;
    if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_ino != f.identity)) /* another one by now */
        return 0;
    int n = fd < 0 ? fd : cgroup_members(fd, ret);
    return n < 0 && errno_is_want(-n) ? n : 0;
}

static int mark_members(struct search *x, struct snapshot_box *sb, const struct record *r, uint32_t as)
{
    _cleanup_(cgroup_members_clear) struct cgroup_members members = {0};
    int n = members_of(x, sb, r, &members);
    if (n < 0)
        return n;
    for (size_t i = 0; i < members.len; i++) {
        struct process *p = processes_find(x->table, members.pids[i]);
        if (p && p->mark != MARK_LIVING && p->state != 'Z') {
            p->mark = as;
            x->any = true;
        }
    }
    return 0;
}

static bool is_of_this_boot(const struct search *x, const struct box *box)
{
    return memcmp(box->supervisor.boot_id, x->self.boot_id, sizeof(x->self.boot_id)) == 0;
}

static int mark_box(struct search *x, size_t i)
{
    struct snapshot_box *sb = &x->s->boxes[i];
    uint32_t as = x->dead[i] ? (uint32_t)i + 1 : MARK_LIVING;
    int r = 0;
    if (!is_of_this_boot(x, &sb->box))
        return 0;
    if (!x->dead[i])
        mark(x, &sb->box.supervisor, as);
    for (size_t k = 0; k < sb->len && r == 0; k++) {
        if (sb->records[k].kind == RBXJ_PROCESS)
            mark(x, &sb->records[k].process, as);
        if (sb->records[k].kind == RBXJ_CGROUP && x->dead[i])
            r = mark_members(x, sb, &sb->records[k], as);
    }
    return r;
}

ssize_t orphans_box_of(const struct snapshot *s, pid_t pid)
{
    char path[40], text[8192];
    uint8_t boot[16];
    (void)snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
    ssize_t n = fd_read_file(AT_FDCWD, path, text, sizeof(text));
    int r = n < 0 ? (int)n : procid_boot(boot);
    if (r < 0)
        return r == -ENOENT ? -ESRCH : r;
    for (size_t i = 0; i < s->len; i++) {
        const struct snapshot_box *sb = &s->boxes[i];
        if (memcmp(sb->box.supervisor.boot_id, boot, sizeof(boot)) != 0)
            continue;
        for (size_t k = 0; k < sb->len; k++)
            if (sb->records[k].kind == RBXJ_CGROUP && proctext_is_in_cgroup(text, sb->records[k].path))
                return (ssize_t)i;
    }
    return -ENOENT;
}

/* ---- descended ---- */

/* The dead box of which it descends, 0: none. It is only a guess: pids may have been reused while they were
 * read. */
static uint32_t climb(const struct search *x, const struct process *p)
{
    for (size_t depth = 0; depth < x->table->len; depth++) {
        p = p->parent > 0 ? processes_find(x->table, p->parent) : NULL;
        if (!p || p->mark == MARK_LIVING)
            return 0;
        if (p->mark)
            return p->mark;
    }
    return 0;
}

enum {
    PROVEN_YES = 1,
    PROVEN_NO
}; /* struct process: does all that descends from it descend from a dead box? */

/* What was found of the last one holds for all from p up to it. 1, 0. */
static int note(const struct search *x, struct process *p, const struct process *last, bool yes)
{
    for (; p && !p->mark; p = p == last ? NULL : processes_find(x->table, p->parent))
        p->proven = yes ? PROVEN_YES : PROVEN_NO;
    return yes;
}

/* The same once more for this one alone, from the system as it is now. 1, 0, or -errno: that can't be known.
 * Above one whose chain was right before nobody need be asked again: while it lives its chain is as it was,
 * and if it died, who descends from it has another parent. */
static int confirm(const struct search *x, struct process *p)
{
    for (struct process *at = p; at; at = processes_find(x->table, at->parent)) {
        if (at != p && at->proven)
            return note(x, p, at, at->proven == PROVEN_YES);
        int same = process_is_same(at);
        if (same <= 0)
            return same < 0 ? same : note(x, p, at, false);
        if (at->mark)
            return note(x, p, at, true);
        ssize_t box = orphans_box_of(x->s, at->pid);
        if (box == -ENOENT)
            continue;
        if (box < 0)
            return box == -ESRCH ? 0 : (int)box;
        if (at == p)
            return 0;
        if (!x->dead[box])
            return note(x, p, at, false);
    }
    return 0;
}

static int find_descended(const struct search *x, struct orphans *ret)
{
    int64_t deadline = now_monotonic_ns() + FINDING_NS;
    for (size_t i = 0; i < x->table->len; i++) {
        struct process *p = &x->table->list[i];
        uint32_t box = p->mark || p->state == 'Z' || p->pid == 1 ? 0 : climb(x, p);
        int r = box ? confirm(x, p) : 0;
        struct procid id = x->self;
        id.pid = p->pid;
        id.start_time = p->start_time;
        if (r > 0)
            r = orphans_add(ret, &id, x->s->boxes[box - 1].box.name);
        if (r < 0 && errno_is_want(-r))
            return r;
        bool late = now_monotonic_ns() > deadline;
        ret->blind = ret->blind || r < 0 || late;
        if (late)
            break;
    }
    return 0;
}

/* Is anything of a dead box recorded in which a process could live? */
static bool may_have_any(const struct snapshot *s, const bool *dead)
{
    for (size_t i = 0; i < s->len; i++)
        for (size_t k = 0; dead[i] && k < s->boxes[i].len; k++)
            if (s->boxes[i].records[k].kind == RBXJ_CGROUP || s->boxes[i].records[k].kind == RBXJ_PROCESS)
                return true;
    return false;
}

/* Does a process of it live, from which others may descend? Of those that mark() and mark_members() know. 1,
 * 0, or -errno for want. */
static int has_life(const struct search *x, struct snapshot_box *sb)
{
    int r = 0;
    for (size_t k = 0; is_of_this_boot(x, &sb->box) && k < sb->len && r == 0; k++) {
        const struct record *record = &sb->records[k];
        if (record->kind == RBXJ_PROCESS && procid_comparable(&x->self, &record->process)) {
            int fd = procid_open(&record->process);
            r = fd != -ESRCH; /* in doubt it does */
            if (fd >= 0)
                (void)close(fd);
        } else if (record->kind == RBXJ_CGROUP) {
            _cleanup_(cgroup_members_clear) struct cgroup_members members = {0};
            r = members_of(x, sb, record, &members);
            r = r < 0 ? r : members.len > 0;
        }
    }
    return r;
}

static int any_has_life(const struct search *x)
{
    int r = 0;
    for (size_t i = 0; i < x->s->len && r == 0; i++)
        r = x->dead[i] ? has_life(x, &x->s->boxes[i]) : 0;
    return r;
}

/* We, and who is above us: an operator's shell in a box is no orphan of it. */
static void mark_ourselves(struct search *x)
{
    struct process *p = processes_find(x->table, getpid());
    for (size_t depth = 0; p && depth < x->table->len; depth++) {
        p->mark = MARK_LIVING;
        p = processes_find(x->table, p->parent);
    }
}

int orphans_find(const struct config *config, struct snapshot *s, const bool *dead, struct processes *table,
                 struct orphans *ret)
{
    _cleanup_(processes_clear) struct processes own = {0};
    struct search x = {.config = config, .s = s, .dead = dead, .table = table ? table : &own};
    if (!may_have_any(s, dead))
        return 0;
    int r = procid_of(getpid(), &x.self);
    if (r == 0 && !table) {
        int life = any_has_life(&x);
        if (life == 0) /* nobody descends from the dead: all others need not be looked at */
            return 0;
        r = life < 0 ? life : processes_read(&own);
    }
    if (r < 0) {
        ret->blind = true;
        return errno_is_want(-r) ? r : 0;
    }
    mark_ourselves(&x);
    for (size_t i = 0; i < s->len && r == 0; i++)
        r = dead[i] ? 0 : mark_box(&x, i);
    for (size_t i = 0; i < s->len && r == 0; i++)
        r = dead[i] ? mark_box(&x, i) : 0;
    ret->blind = ret->blind || x.table->blind;
    return r == 0 && x.any ? find_descended(&x, ret) : r;
}
