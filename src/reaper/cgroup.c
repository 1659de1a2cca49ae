/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/cgroup.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/forked.h"
#include "base/procid.h"
#include "base/proctext.h"

#include <errno.h>
#include <libcgroup.h>
#include <limits.h>
#include <linux/magic.h>
#include <string.h>

#define PROCS_LIMIT (64u * 1024 * 1024)

int cgroup_open(int parent, const char *base)
{
    return fd_openat2(parent, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0,
                      RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
}

/* ---- walking ---- */

/* The next child directory after *at (0: the first), whose place *at then is. Places in kernfs are hashes of
 * names, so they outlive the descriptor. 1, 0 at the end, or -errno. */
static int next_child(int fd, long *at, char name[NAME_MAX + 1])
{
    _cleanup_closedir_ DIR *dir = fd_open_names(fd);
    if (!dir)
        return errno == ENOENT ? 0 : -errno; /* removed meanwhile: it has no children */
    if (*at)
        seekdir(dir, *at);
    for (;;) {
        errno = 0;
        const struct dirent *d = readdir(dir);
        if (!d)
            return -errno;
        if (d->d_type != DT_DIR || strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        (void)strcpy(name, d->d_name);
        *at = telldir(dir);
        return 1;
    }
}

static int go(int *fd, int next)
{
    if (next < 0)
        return -errno;
    (void)close(*fd);
    *fd = next;
    return 0;
}

/* Where the walk goes on in each directory above. */
struct trail {
    long *at;
    size_t len, room;
};

static int trail_push(struct trail *trail, long at)
{
    if (trail->len == trail->room) {
        size_t room = trail->room ? 2 * trail->room : 32;
        long *grown = reallocarray(trail->at, room, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        trail->at = grown;
        trail->room = room;
    }
    trail->at[trail->len++] = at;
    return 0;
}

static void trail_clear(struct trail *trail)
{
    free(trail->at);
}

int cgroup_walk(int top, int (*visit)(int fd, void *data), void *data)
{
    _cleanup_(trail_clear) struct trail trail = {0};
    _cleanup_close_ int cur = openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cur < 0)
        return errno == ENOENT ? 0 : -errno;
    char name[NAME_MAX + 1];
    long at = 0;
    int r = visit(cur, data), unseen = 0;
    while (r == 0) {
        r = next_child(cur, &at, name);
        if (r < 0 || (r == 0 && trail.len == 0))
            return r < 0 ? r : unseen;
        if (r == 0) {
            r = go(&cur, openat(cur, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
            at = trail.at[--trail.len];
            continue;
        }
        int child = cgroup_open(cur, name);
        if (child < 0 && child != -ENOENT && !errno_is_want(-child)) /* covered, or not ours to see */
            unseen = unseen ? unseen : child;
        r = child >= 0 ? trail_push(&trail, at) : errno_is_want(-child) ? child : 0;
        if (child < 0)
            continue;
        (void)go(&cur, child);
        at = 0;
        if (r == 0)
            r = visit(cur, data);
    }
    return r;
}

/* ---- members ---- */

void cgroup_members_clear(struct cgroup_members *members)
{
    free(members->pids);
    *members = (struct cgroup_members){0};
}

static int compare_pids(const void *a, const void *b)
{
    pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;
    return x < y ? -1 : x > y;
}

bool cgroup_members_have(const struct cgroup_members *members, pid_t pid)
{
    return members->len && bsearch(&pid, members->pids, members->len, sizeof(pid), compare_pids);
}

/* The process of a thread; 0 when it is gone, or -errno: that is not known now. */
static pid_t process_of(pid_t tid)
{
    char path[64], text[4096];
    (void)snprintf(path, sizeof(path), "/proc/%d/status", tid);
    ssize_t n = fd_read_file(AT_FDCWD, path, text, sizeof(text));
    if (n < 0)
        return errno_is_want((int)-n) ? (pid_t)n : 0;
    return proctext_tgid(text);
}

/* cgroup.procs, or in a threaded cgroup, where that is EOPNOTSUPP (6.18), cgroup.threads. A cgroup that was
 * removed (ENODEV, ENOENT) has none. */
static ssize_t read_members(int fd, char **ret, bool *ret_threads)
{
    *ret_threads = false;
    ssize_t n = fd_read_all(fd, "cgroup.procs", PROCS_LIMIT, ret);
    if (n == -EOPNOTSUPP) {
        *ret_threads = true;
        n = fd_read_all(fd, "cgroup.threads", PROCS_LIMIT, ret);
    }
    return n == -ENODEV || n == -ENOENT ? 0 : n;
}

static int add_members(int fd, void *data)
{
    struct cgroup_members *members = data;
    _cleanup_free_ char *text = NULL;
    bool threads;
    ssize_t n = read_members(fd, &text, &threads);
    if (n <= 0)
        return (int)n;
    size_t lines = 0;
    for (const char *p = text; *p; p++)
        lines += *p == '\n';
    pid_t *grown = reallocarray(members->pids, members->len + lines + 1, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    members->pids = grown;
    const char *at = text;
    for (pid_t pid; proctext_next_pid(&at, &pid);) {
        members->hidden |= pid == 0;
        if (pid > 0 && threads)
            pid = process_of(pid);
        if (pid < 0)
            return pid;
        if (pid > 0)
            members->pids[members->len++] = pid;
    }
    return 0;
}

int cgroup_members(int fd, struct cgroup_members *ret)
{
    _cleanup_(cgroup_members_clear) struct cgroup_members members = {0};
    int r = cgroup_walk(fd, add_members, &members);
    if (r < 0)
        return r;
    size_t kept = 0;
    if (members.len)
        qsort(members.pids, members.len, sizeof(pid_t), compare_pids);
    for (size_t i = 0; i < members.len; i++)
        if (kept == 0 || members.pids[kept - 1] != members.pids[i])
            members.pids[kept++] = members.pids[i];
    members.len = kept;
    *ret = members;
    members.pids = NULL;
    return 0;
}

int cgroup_is_empty(int fd)
{
    _cleanup_free_ char *text = NULL;
    char name[NAME_MAX + 1];
    long at = 0;
    bool threads;
    ssize_t n = read_members(fd, &text, &threads);
    if (n)
        return n < 0 ? (int)n : 0;
    int r = next_child(fd, &at, name);
    return r < 0 ? r : !r;
}

/* 1, 0: the file is not there, or does not say (v1 before 4.13). */
static int read_kills(int fd, const char *file, uint64_t *ret)
{
    char text[1024];
    const char *found = fd_read_file(fd, file, text, sizeof(text)) > 0 ? strstr(text, "\noom_kill ") : NULL;
    if (!found)
        return 0;
    *ret = strtoull(found + strlen("\noom_kill "), NULL, 10);
    return 1;
}

static int add_kills(int fd, void *data)
{
    uint64_t own = 0, *sum = data;
    (void)read_kills(fd, "memory.oom_control", &own);
    *sum += own;
    return 0;
}

uint64_t cgroup_oom_kills(int fd)
{
    uint64_t kills = 0;
    if (read_kills(fd, "memory.events", &kills)) /* v2 counts what is below, too */
        return kills;
    if (!read_kills(fd, "memory.oom_control", &kills)) /* v1 does not */
        return 0;
    kills = 0;
    (void)cgroup_walk(fd, add_kills, &kills);
    return kills;
}

void cgroup_describe(int fd, char *buf, size_t size)
{
    _cleanup_(cgroup_members_clear) struct cgroup_members members = {0};
    char state[128], more[32] = "";
    if (cgroup_members(fd, &members) < 0 || members.len == 0) {
        (void)snprintf(buf, size, "%s", "nobody who can be seen from here");
        return;
    }
    procid_describe(members.pids[0], state, sizeof(state));
    if (members.len > 1)
        (void)snprintf(more, sizeof(more), " and %zu more", members.len - 1);
    (void)snprintf(buf, size, "pid %d (%s)%s", members.pids[0], state, more);
}

/* ---- removing ---- */

/* Removes the children of fd that can be; the name of one that has children itself is left in name, and 1
 * returned. */
static int remove_leaves(int fd, char name[NAME_MAX + 1])
{
    long at = 0;
    int r;
    while ((r = next_child(fd, &at, name)) > 0) {
        struct stat st;
        if (unlinkat(fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
            continue;
        if (errno != EBUSY && errno != ENOTEMPTY)
            return -errno;
        if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        return st.st_nlink > 2 ? 1 : -EBUSY; /* kernfs counts subdirectories in st_nlink */
    }
    return r;
}

int cgroup_remove_children(int fd, int64_t deadline_ns)
{
    char name[NAME_MAX + 1];
    size_t depth = 0;
    _cleanup_close_ int cur = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cur < 0)
        return errno == ENOENT ? 0 : -errno;
    for (;;) {
        int r = remove_leaves(cur, name);
        if (r < 0 || (r == 0 && depth == 0))
            return r;
        if (r > 0 && now_monotonic_ns() > deadline_ns)
            return -EBUSY; /* somebody makes new ones as fast */
        int next = r > 0 ? cgroup_open(cur, name) : openat(cur, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (r > 0 && next == -ENOENT)
            continue;
        if (next < 0)
            return r > 0 ? next : -errno;
        if (r > 0)
            depth++;
        else
            depth--;
        (void)go(&cur, next);
    }
}

/* libcgroup keeps one table for the process, and would print. */
static struct forked_mutex library;

static void say_nothing(void *data, int level, const char *format, va_list args)
{
    (void)data;
    (void)level;
    (void)format;
    (void)args;
}

static bool library_ready(void)
{
    static int state;
    if (state == 0) {
        cgroup_set_logger(say_nothing, CGROUP_LOG_ERROR, NULL);
        state = cgroup_init() == 0 ? 1 : -1;
    }
    return state > 0;
}

/* The v1 hierarchy in which path lies: its controller, and the name below its mount. */
static const char *find_v1(const char *path, struct cgroup_mount_point *info)
{
    void *handle = NULL;
    const char *name = NULL;
    int r = cgroup_get_controller_begin(&handle, info);
    for (; r == 0 && !name; r = name ? 0 : cgroup_get_controller_next(&handle, info))
        if (path_is_below(path, info->path) && strlen(path) > strlen(info->path))
            name = path + strlen(info->path) + 1;
    (void)cgroup_get_controller_end(&handle);
    return name;
}

/* Removes an empty v1 group by libcgroup. EMPTY_ONLY: the only way in which it moves no task. It says 0 when
 * the group was not removed, too (2.0.2), so its answer counts for nothing: the caller looks. */
static void remove_v1(const char *path)
{
    struct cgroup_mount_point info;
    (void)forked_lock(&library);
    const char *name = library_ready() ? find_v1(path, &info) : NULL;
    struct cgroup *group = name ? cgroup_new_cgroup(name) : NULL;
    if (group && cgroup_add_controller(group, info.name))
        (void)cgroup_delete_cgroup_ext(group, CGFLAG_DELETE_EMPTY_ONLY);
    cgroup_free(&group);
    forked_unlock(&library);
}

int cgroup_is_removed(int fd)
{
    _cleanup_close_ int procs = openat(fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    return procs >= 0 ? 0 : errno == ENOENT || errno == ENODEV ? 1 : -errno;
}

int cgroup_remove(int parent, const char *base, const char *path, const struct fileid *id)
{
    struct fileid now;
    int r = fileid_of_name(parent, base, &now);
    if (r < 0)
        return r;
    if (!fileid_equal(&now, id, true))
        return -ESTALE;
    if (now.fs_magic == CGROUP_SUPER_MAGIC) {
        remove_v1(path);
        r = fileid_of_name(parent, base, &now);
        if (r == -ENOENT || (r == 0 && !fileid_equal(&now, id, true)))
            return 0;
        if (r < 0)
            return r;
    }
    return unlinkat(parent, base, AT_REMOVEDIR) < 0 ? -errno : 0;
}
