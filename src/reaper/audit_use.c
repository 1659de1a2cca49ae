/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who uses what was found. Links in /proc are read, not followed: nothing here can hang.
 */
#include "base/cleanup.h"
#include "base/doc.h"
#include "base/fd.h"
#include "base/procid.h"
#include "reaper/audit.h"
#include "reaper/cgroup.h"
#include "reaper/flocks.h"
#include "reaper/lock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* pid 0: how says it all. */
static void used_by(struct audit_item *item, const char *how, pid_t pid)
{
    char who[120];
    if (item->live)
        return;
    item->live = true;
    if (!pid) {
        (void)snprintf(item->user, sizeof(item->user), "%s", how);
        return;
    }
    procid_describe(pid, who, sizeof(who));
    (void)snprintf(item->user, sizeof(item->user), "%s pid %d (%s)", how, pid, who);
}

/* ---- locks ---- */

/* When it began, CLOCK_REALTIME; 0: it is no more; or -errno for want of memory or descriptors: that is not
 * known. */
static int64_t began(pid_t pid)
{
    struct procid id;
    struct timespec up;
    int r = procid_of(pid, &id);
    if (r < 0)
        return errno_is_want(-r) ? r : 0;
    _cleanup_close_ int fd = procid_open(&id);
    if (fd < 0 && errno_is_want(-fd))
        return fd;
    if (fd == -ESRCH)
        return 0;
    (void)clock_gettime(CLOCK_BOOTTIME, &up);
    int64_t ticks = sysconf(_SC_CLK_TCK);
    int64_t at = now_realtime_ns() - ((int64_t)up.tv_sec * 1000000000 + up.tv_nsec) +
                 (int64_t)id.start_time * (1000000000 / ticks);
    return at > 0 ? at : 1; /* a clock that was never set */
}

/* The pid that a lock names lives if a process of that number was there when the lock was written: one that
 * began later is another one (K8). */
static int read_pid(struct audit_item *item)
{
    char text[LOCK_CONTENT_MAX];
    cJSON *json = NULL;
    struct stat st;
    _cleanup_close_ int fd = lock_open(AT_FDCWD, item->name, O_RDONLY, &st);
    ssize_t n = fd < 0 ? fd : !S_ISREG(st.st_mode) ? 0 : pread(fd, text, sizeof(text), 0);
    if (fd >= 0 && n < 0)
        n = -errno;
    int r = n < 0 ? (int)n : memchr(text, 0, (size_t)n) ? -EBADMSG : doc_parse(text, (size_t)n, &json);
    if (r < 0)
        return errno_is_want(-r) ? r : 0;
    double pid = json && cJSON_IsNumber(json) ? json->valuedouble : doc_get_number(json, "pid", 0);
    cJSON_Delete(json);
    if (!(pid >= 1 && pid <= INT32_MAX))
        return 0;
    item->pid = (pid_t)pid;
    int64_t since = began(item->pid);
    if (since < 0)
        return (int)since;
    item->pid_is_dead = !since || since > item->time_ns + 1000000000;
    if (!item->pid_is_dead)
        used_by(item, "it names", item->pid);
    return 0;
}

static int name_holder(void *data, pid_t pid)
{
    used_by(data, "its lock is held by", pid);
    return 1;
}

static int look_at_lock(struct audit_item *item)
{
    bool blind = false;
    struct stat st;
    if (lstat(item->name, &st) < 0)
        return errno_is_want(errno) ? -errno : 0;
    if (!S_ISREG(st.st_mode))
        return 0;
    int held = flocks_is_held(item->dev, item->ino);
    if (held > 0 && flocks_holders(item->dev, item->ino, name_holder, item, &blind) <= 0) {
        item->live = true;
        (void)snprintf(item->user, sizeof(item->user), "its lock is held, by whom is not visible from here");
    }
    return held < 0 ? held : read_pid(item);
}

/* ---- cgroups ---- */

static int look_at_cgroup(struct audit_item *item)
{
    const char *base;
    _cleanup_(cgroup_members_clear) struct cgroup_members members = {0};
    _cleanup_close_ int parent = fd_open_parent(item->name, &base);
    _cleanup_close_ int fd = parent < 0 ? parent : cgroup_open(parent, base);
    int r = fd < 0 ? fd : cgroup_members(fd, &members);
    if (fd >= 0 && r == -EXDEV) {
        item->live = true;
        (void)snprintf(item->user, sizeof(item->user), "something is mounted in it, and hides who is there");
        return 0;
    }
    if (r < 0)
        return r == -ENOENT || r == -EXDEV ? 0 : r;
    if (members.len || members.hidden) {
        item->live = true;
        cgroup_describe(fd, item->user, sizeof(item->user));
    }
    return 0;
}

/* ---- what processes have open ---- */

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(struct audit_item *const *)a)->name, (*(struct audit_item *const *)b)->name);
}

struct open_search {
    struct audit_item **by_name;
    size_t len;
    bool blind; /* not everything can be seen */
};

/* The first of those with that name, NULL: none. */
static struct audit_item **find(const struct open_search *s, const char *path)
{
    struct audit_item wanted = {.name = (char *)(uintptr_t)path}, *key = &wanted;
    struct audit_item **at = bsearch(&key, s->by_name, s->len, sizeof(*s->by_name), compare_names);
    while (at && at > s->by_name && strcmp(at[-1]->name, path) == 0)
        at--;
    return at;
}

static void mark(const struct open_search *s, const char *path, pid_t pid, const char *how)
{
    struct audit_item **at = find(s, path);
    for (; at && at < s->by_name + s->len && strcmp((*at)->name, path) == 0; at++)
        used_by(*at, how, pid);
}

/* What lies in another thing is undone with that: if it is in use, the other one is, too. */
static void mark_outer(const struct open_search *s)
{
    for (size_t i = 0; i < s->len; i++) {
        struct audit_item *inner = s->by_name[i];
        char path[PATH_MAX];
        (void)snprintf(path, sizeof(path), "%s", inner->name);
        for (char *slash; inner->live && (slash = strrchr(path, '/')) && slash != path;) {
            *slash = 0;
            struct audit_item **at = find(s, path);
            for (; at && at < s->by_name + s->len && strcmp((*at)->name, path) == 0; at++) {
                if ((*at)->live)
                    continue;
                (*at)->live = true;
                (void)snprintf((*at)->user, sizeof((*at)->user), "in it, %.60s: %.120s",
                               strrchr(inner->name, '/') + 1, inner->user);
            }
        }
    }
}

/* In a container init may have more privileges than all others, and hide from them; it is in no box. */
static void note_failure(struct open_search *s, pid_t pid)
{
    s->blind = s->blind || ((errno == EACCES || errno == EPERM) && pid != 1);
}

/* Of /a/b/c: /a, /a/b and /a/b/c are in use. */
static void mark_way(const struct open_search *s, char *path, pid_t pid, const char *how)
{
    for (char *p = path; *p == '/' && p[1];) {
        p = strchrnul(p + 1, '/');
        char kept = *p;
        *p = 0;
        mark(s, path, pid, how);
        *p = kept;
    }
}

static void mark_used(void *data, char *path, const char *how)
{
    mark_way(data, path, 0, how);
}

static int look_at_link(struct open_search *s, int dirfd, const char *name, pid_t pid, const char *how)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(dirfd, name, target, sizeof(target) - 1);
    if (n < 0) {
        note_failure(s, pid);
        return errno_is_want(errno) ? -errno : 0;
    }
    target[n] = 0;
    mark_way(s, target, pid, how);
    return 0;
}

static int look_at_process(struct open_search *s, int proc, pid_t pid)
{
    static const char *const links[][2] = {
        {"cwd", "working directory of"}, {"root", "root directory of"}, {"exe", "program of"}};
    static const char *const folders[][2] = {{"fd", "open in"}, {"map_files", "mapped by"}};
    char path[64];
    int r = 0;
    for (size_t i = 0; i < ARRAY_LEN(links) && r == 0; i++) {
        (void)snprintf(path, sizeof(path), "%d/%s", pid, links[i][0]);
        r = look_at_link(s, proc, path, pid, links[i][1]);
    }
    for (size_t i = 0; i < ARRAY_LEN(folders) && r == 0; i++) {
        (void)snprintf(path, sizeof(path), "%d/%s", pid, folders[i][0]);
        _cleanup_closedir_ DIR *names = fd_open_names_at(proc, path);
        if (!names) {
            note_failure(s, pid);
            r = errno_is_want(errno) ? -errno : 0;
        }
        const struct dirent *d = NULL;
        while (names && r == 0 && (d = fd_next_name(names)))
            r = look_at_link(s, dirfd(names), d->d_name, pid, folders[i][1]);
        if (names && r == 0 && errno_is_want(errno)) /* or the rest of it counts as not open */
            r = -errno;
    }
    return r;
}

static int look_at_processes(struct open_search *s)
{
    _cleanup_closedir_ DIR *proc = opendir("/proc");
    int r = proc ? 0 : -errno;
    const struct dirent *d = NULL;
    while (proc && r == 0 && (d = fd_next_name(proc)))
        if (d->d_name[0] >= '1' && d->d_name[0] <= '9' && atoi(d->d_name) != getpid())
            r = look_at_process(s, dirfd(proc), atoi(d->d_name));
    return proc && r == 0 ? -errno : r;
}

int audit_use(struct audit *a, struct rbxj_error *e)
{
    struct open_search s = {0};
    int r = 0;
    for (size_t i = 0; i < a->len && r == 0; i++) {
        struct audit_item *item = &a->items[i];
        r = item->kind == RBXJ_LOCK     ? look_at_lock(item)
            : item->kind == RBXJ_CGROUP ? look_at_cgroup(item)
                                        : 0;
        if (r < 0)
            return error_sys(e, -r, "%s: who uses it", item->name);
    }
    _cleanup_free_ struct audit_item **by_name = calloc(a->len + 1, sizeof(struct audit_item *));
    if (!by_name)
        return error_sys(e, ENOMEM, "audit");
    s.by_name = by_name;
    for (size_t i = 0; i < a->len; i++)
        s.by_name[s.len++] = &a->items[i];
    if (s.len == 0)
        return 0;
    qsort(s.by_name, s.len, sizeof(struct audit_item *), compare_names);
    r = look_at_processes(&s);
    if (r < 0)
        return error_sys(e, -r, "audit: what processes have open");
    r = audit_use_elsewhere(a, e);
    if (r == 0)
        r = audit_use_unopened(a, mark_used, &s, e);
    if (r < 0)
        return r;
    mark_outer(&s);
    for (size_t i = 0; i < s.len && s.blind; i++) {
        /* a user's cgroup is a part of his own tree, in which nobody else has something open */
        if (s.by_name[i]->live || s.by_name[i]->kind == RBXJ_CGROUP)
            continue;
        s.by_name[i]->live = true;
        (void)snprintf(s.by_name[i]->user, sizeof(s.by_name[i]->user),
                       "what some processes have open is not visible from here");
    }
    return 0;
}
