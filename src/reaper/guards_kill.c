/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who is never killed (K4): we ourselves and those above us, a supervisor that lives, and what another box
 * has recorded. Fail closed: who can't be told is spared.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/proctext.h"
#include "journal/journal.h"
#include "reaper/undo.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A pid, or -errno. */
static pid_t parent_of(pid_t pid)
{
    char path[40], buf[1024];
    struct proc_stat stat;
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    ssize_t n = fd_read_file(AT_FDCWD, path, buf, sizeof(buf));
    if (n < 0)
        return (pid_t)n;
    int r = proctext_stat(buf, &stat);
    return r < 0 ? r : stat.parent;
}

/* Who is above us: changes only when one of them dies, which may be while they are asked for. */
static int find_ancestors(struct undo *u)
{
    for (int round = 0; round < 10; round++) {
        pid_t up = getpid();
        u->ancestors_len = 0;
        for (; up > 1 && u->ancestors_len < ARRAY_LEN(u->ancestors); up = parent_of(up))
            u->ancestors[u->ancestors_len++] = up;
        if (up >= 0)
            return 0;
        u->ancestors_len = 0;
        if (up != -ENOENT && up != -ESRCH)
            return up;
    }
    return -ESRCH;
}

static int spare(struct finding *f, pid_t pid, const char *why)
{
    f->found = FOUND_BUSY;
    keepers_add(&f->keepers, pid);
    return error_set(&f->error, EBUSY, EBUSY, "pid %d: is not killed, it is %s", pid, why);
}

/* Is that process the supervisor of that box? Its number in another pid namespace says nothing here, nor does
 * its start time in another time namespace: then the lock tells, which it holds as long as it lives (K9). 1,
 * 0, or -errno. */
static int is_supervisor(struct undo *u, const struct box *box, pid_t pid)
{
    int res = u->self.pid ? 0 : procid_of(getpid(), &u->self);
    if (res < 0)
        return res;
    bool here = box->supervisor.pid_ns == u->self.pid_ns && box->supervisor.time_ns == u->self.time_ns;
    if (here && box->supervisor.pid != pid)
        return 0;
    if (!procid_comparable(&u->self, &box->supervisor)) {
        if (memcmp(u->self.boot_id, box->supervisor.boot_id, sizeof(u->self.boot_id)) != 0)
            return 0;
        pid_t owner = box_owner_pid(u->config->state_dir, box);
        return owner < 0 ? owner : owner == pid;
    }
    int fd = procid_open(&box->supervisor); /* that pid with that start time, alive? */
    if (fd >= 0)
        (void)close(fd);
    return fd != -ESRCH;
}

struct owned_process {
    const struct undo *u;
    const struct box *box;
};

/* In another pid namespace its number says nothing here. 1 it is, 0, or -errno. */
static int is_recorded(void *data, const struct snapshot_box *box, const struct record *r)
{
    struct owned_process *p = data;
    if (!procid_comparable(&p->u->self, &r->process))
        return 0;
    int fd = procid_open(&r->process); /* as in is_supervisor() */
    if (fd >= 0)
        (void)close(fd);
    p->box = &box->box;
    return fd < 0 && errno_is_want(-fd) ? fd : fd != -ESRCH;
}

/* Is it a process that another box has recorded? It is spared, and named. 0, or a negative code. */
static int spare_recorded(struct undo *u, pid_t pid, struct finding *f)
{
    char why[BOX_NAME_MAX + 32];
    struct owned_process p = {.u = u};
    if (!u->snapshot)
        return 0;
    int res = u->self.pid ? 0 : procid_of(getpid(), &u->self);
    if (res == 0)
        res = snapshot_numbered(u->snapshot, u->box ? u->box->incarnation : 0, RBXJ_PROCESS, pid, is_recorded,
                                &p);
    if (res < 0) {
        f->found = FOUND_BUSY;
        return error_sys(&f->error, -res, "pid %d: is not killed before it is known whose it is", pid);
    }
    if (res == 0)
        return 0;
    (void)snprintf(why, sizeof(why), "a process of box %s", p.box->name);
    return spare(f, pid, why);
}

int guard_kill(struct undo *u, pid_t pid, struct finding *f)
{
    if (pid <= 1)
        return spare(f, pid, "init");
    int res = u->ancestors_len ? 0 : find_ancestors(u);
    if (res < 0) {
        f->found = FOUND_BUSY;
        return error_sys(&f->error, -res, "pid %d: is not killed before it is known who is above us", pid);
    }
    for (size_t i = 0; i < u->ancestors_len; i++)
        if (u->ancestors[i] == pid)
            return spare(f, pid, i == 0 ? "this process" : "a parent of this process");
    for (size_t i = 0; u->snapshot && i < u->snapshot->len; i++) {
        const struct box *box = &u->snapshot->boxes[i].box;
        res = is_supervisor(u, box, pid);
        if (res == 0)
            continue;
        if (res < 0) {
            f->found = FOUND_BUSY;
            return error_sys(&f->error, -res,
                             "pid %d: is not killed before it is known whether it supervises box %s", pid,
                             box->name);
        }
        char why[BOX_NAME_MAX + 32];
        (void)snprintf(why, sizeof(why), "the supervisor of box %s", box->name);
        return spare(f, pid, why);
    }
    return spare_recorded(u, pid, f);
}
