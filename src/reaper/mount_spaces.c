/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The mount namespaces of one pass (K10, K12): which there are, a process in each, and what each has mounted.
 * /proc is searched once per pass and each mountinfo read once, when first asked for; only a process that
 * went away, or a reading that is known to be out of date, costs another one.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/mountinfo.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A namespace without a process in it that is held all the same. */
struct holder {
    uint64_t ns;
    pid_t pid; /* has it open; 0: an nsfs mount keeps it */
};

struct mounts {
    struct mount_table *own;
    /* the others as they were when the first mount of the pass was to go; has no table of its own */
    struct mounts *before;
    uint64_t ns;
    struct mount_space *others;
    size_t others_len;
    struct holder *holders;
    size_t holders_len;
    bool searched, held_searched;
    bool hidden; /* some process would not show its namespace */
};

/* The N of a link "mnt:[N]": 0 it is another thing, or -errno. */
static int64_t read_ns_link(int dirfd, const char *name)
{
    char link[64];
    ssize_t n = readlinkat(dirfd, name, link, sizeof(link) - 1);
    if (n < 0)
        return -errno;
    link[n] = '\0';
    return strncmp(link, "mnt:[", 5) ? 0 : (int64_t)strtoull(link + 5, NULL, 10);
}

int mount_ns_find(pid_t pid, uint64_t *ret)
{
    char path[40] = "/proc/self/ns/mnt";
    if (pid)
        (void)snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)pid);
    int64_t ns = read_ns_link(AT_FDCWD, path);
    if (ns <= 0)
        return ns < 0 ? (int)ns : -ENOENT;
    *ret = (uint64_t)ns;
    return 0;
}

static bool sees_whole_ns(pid_t pid)
{
    char path[40], root[2];
    (void)snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
    return readlink(path, root, sizeof(root)) == 1; /* "/" */
}

static int read_table(pid_t pid, struct mount_table **ret, struct rbxj_error *e)
{
    char path[40] = "/proc/self/mountinfo";
    if (pid)
        (void)snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
    return mount_table_read(path, ret, e);
}

int mounts_read(struct mounts **ret, struct rbxj_error *e)
{
    struct mounts *mounts = calloc(1, sizeof(*mounts));
    if (!mounts)
        return error_sys(e, ENOMEM, "read mountinfo");
    int rc = mount_ns_find(0, &mounts->ns);
    rc = rc == 0 ? read_table(0, &mounts->own, e) : error_sys(e, -rc, "read /proc/self/ns/mnt");
    if (rc < 0) {
        mounts_free(mounts);
        return rc;
    }
    *ret = mounts;
    return 0;
}

void mounts_free(struct mounts *mounts)
{
    if (!mounts)
        return;
    mounts_free(mounts->before);
    mount_table_free(mounts->own);
    for (size_t i = 0; i < mounts->others_len; i++)
        mount_table_free(mounts->others[i].table);
    free(mounts->others);
    free(mounts->holders);
    free(mounts);
}

struct mounts *mounts_before(struct mounts *mounts)
{
    if (!mounts->before && (mounts->before = calloc(1, sizeof(*mounts))))
        mounts->before->ns = mounts->ns;
    return mounts->before;
}

struct mount_table *mounts_own(struct mounts *mounts)
{
    return mounts->own;
}

uint64_t mounts_own_ns(const struct mounts *mounts)
{
    return mounts->ns;
}

int mounts_reload(struct mounts *mounts, struct rbxj_error *e)
{
    struct mount_table *fresh;
    int rc = read_table(0, &fresh, e);
    if (rc < 0)
        return rc;
    mount_table_free(mounts->own);
    mounts->own = fresh;
    return 0;
}

/* ---- searching /proc ---- */

/* Calls function for each process until it returns a negative code. */
typedef int each_function(struct mounts *mounts, int proc_fd, pid_t pid);

static int for_each_process(struct mounts *mounts, each_function *function)
{
    _cleanup_closedir_ DIR *proc = opendir("/proc");
    if (!proc)
        return -errno;
    struct dirent *entry;
    int rc = 0;
    while (rc >= 0 && (errno = 0, entry = readdir(proc)))
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
            rc = function(mounts, dirfd(proc), (pid_t)atoi(entry->d_name));
    return rc < 0 ? rc : -errno;
}

static struct mount_space *space_of(struct mounts *mounts, uint64_t ns)
{
    for (size_t i = 0; i < mounts->others_len; i++)
        if (mounts->others[i].ns == ns)
            return &mounts->others[i];
    return NULL;
}

static int note_process(struct mounts *mounts, int proc_fd, pid_t pid)
{
    char name[32];
    (void)snprintf(name, sizeof(name), "%d/ns/mnt", (int)pid);
    int64_t ns = read_ns_link(proc_fd, name);
    if (ns == -EACCES || ns == -EPERM)
        mounts->hidden = true;
    else if (ns < 0 && ns != -ENOENT &&
             ns != -ESRCH) /* our own want: what it has must not pass for nobody's */
        return (int)ns;
    if (ns <= 0 || (uint64_t)ns == mounts->ns) /* it died meanwhile, is a zombie, or has ours */
        return 0;
    struct mount_space *space = space_of(mounts, (uint64_t)ns);
    if (space && (space->pid == pid || space->whole))
        return 0;
    bool whole = sees_whole_ns(pid);
    if (!space) {
        struct mount_space *more = reallocarray(mounts->others, mounts->others_len + 1, sizeof(*more));
        if (!more)
            return -ENOMEM;
        mounts->others = more;
        space = &more[mounts->others_len++];
        *space = (struct mount_space){.ns = (uint64_t)ns};
    }
    if (!space->pid || whole) {
        space->pid = pid;
        space->whole = whole;
    }
    return 0;
}

/* Finds the namespaces, or what process is in each of them by now. Tables that were read stay. */
static int search(struct mounts *mounts, struct rbxj_error *e)
{
    for (size_t i = 0; i < mounts->others_len; i++) {
        mounts->others[i].pid = 0;
        mounts->others[i].whole = false;
    }
    mounts->hidden = geteuid() != 0; /* hidepid= may keep processes from the list itself */
    int rc = for_each_process(mounts, note_process);
    if (rc < 0)
        return error_sys(e, -rc, "search /proc for mount namespaces");
    mounts->searched = true;
    return 0;
}

/* A reading counts only if the process still was in the namespace after it: pids are reused. */
static int load(struct mount_space *space, struct rbxj_error *e)
{
    struct mount_table *table;
    struct rbxj_error error = {0};
    uint64_t ns;
    int rc = space->pid ? read_table(space->pid, &table, &error) : -ENOENT;
    int still = rc == 0 ? mount_ns_find(space->pid, &ns) : -ENOENT;
    if (rc == 0 && (still < 0 || ns != space->ns)) {
        mount_table_free(table);
        rc = still < 0 && errno_is_want(-still) ? still : -ENOENT;
    }
    if (rc == -ENOENT)
        return -ENODATA;
    if (rc < 0)
        return error.code ? error_pass(e, &error)
                          : error_sys(e, -rc, "mount namespace of pid %d", space->pid);
    mount_table_free(space->table);
    space->table = table;
    return 0;
}

static int load_again(struct mounts *mounts, uint64_t ns, struct mount_space **ret, struct rbxj_error *e)
{
    struct mount_space *space = space_of(mounts, ns);
    int rc = space ? load(space, e) : -ENODATA;
    for (int tries = 0; rc == -ENODATA && tries < 3; tries++) {
        rc = search(mounts, e);
        if (rc < 0)
            return rc;
        space = space_of(mounts, ns);
        if (!space || !space->pid)
            return -ENODATA;
        rc = load(space, e);
    }
    if (rc == 0)
        *ret = space;
    return rc;
}

int mounts_other(struct mounts *mounts, size_t i, struct mount_space *ret, struct rbxj_error *e)
{
    int rc = mounts->searched ? 0 : search(mounts, e);
    if (rc < 0)
        return rc;
    if (i >= mounts->others_len)
        return 0;
    struct mount_space *space = &mounts->others[i];
    if (!space->table) {
        rc = space->pid ? load_again(mounts, space->ns, &space, e) : -ENODATA;
        if (rc < 0)
            return rc;
    }
    *ret = *space;
    return 1;
}

int mounts_other_reload(struct mounts *mounts, uint64_t ns, struct mount_space *ret, struct rbxj_error *e)
{
    struct mount_space *space;
    int rc = load_again(mounts, ns, &space, e);
    if (rc < 0)
        return rc;
    *ret = *space;
    return 1;
}

void mounts_note_stays(struct mounts *mounts, uint64_t ns)
{
    struct mount_space *space = space_of(mounts, ns);
    if (space)
        space->stays = true;
}

/* ---- namespaces without a process ---- */

static int add_holder(struct mounts *mounts, uint64_t ns, pid_t pid)
{
    struct holder *more = reallocarray(mounts->holders, mounts->holders_len + 1, sizeof(*more));
    if (!more)
        return -ENOMEM;
    mounts->holders = more;
    more[mounts->holders_len++] = (struct holder){.ns = ns, .pid = pid};
    return 0;
}

/* One that is a /proc/PID/ns/mnt; what is too long to be read is a path. */
static int note_descriptor(struct mounts *mounts, int fds, const char *name, pid_t pid)
{
    int64_t ns = read_ns_link(fds, name);
    if (ns == -EACCES || ns == -EPERM)
        mounts->hidden = true;
    else if (ns < 0 && errno_is_want((int)-ns)) /* our own: what it holds must not pass for nobody's */
        return (int)ns;
    return ns > 0 && (uint64_t)ns != mounts->ns ? add_holder(mounts, (uint64_t)ns, pid) : 0;
}

static int note_descriptors(struct mounts *mounts, int proc_fd, pid_t pid)
{
    char name[32];
    (void)snprintf(name, sizeof(name), "%d/fd", (int)pid);
    _cleanup_closedir_ DIR *dir = fd_open_names_at(proc_fd, name);
    if (!dir) {
        int r = errno == EACCES || errno == EPERM || errno == ENOENT || errno == ESRCH ? 0 : -errno;
        if (errno == EACCES || errno == EPERM)
            mounts->hidden = true;
        return r;
    }
    const struct dirent *entry;
    int rc = 0;
    while (rc == 0 && (entry = fd_next_name(dir)))
        rc = note_descriptor(mounts, dirfd(dir), entry->d_name, pid);
    /* ENOENT, ESRCH: it has died, and holds nothing */
    return rc < 0 || errno == ENOENT || errno == ESRCH ? rc : -errno;
}

static int note_nsfs(struct mounts *mounts, const struct mount_table *table)
{
    struct mount_set all = mount_table_all(table);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < all.len; i++)
        if (strcmp(all.mounts[i]->fstype, "nsfs") == 0 && strncmp(all.mounts[i]->root, "mnt:[", 5) == 0)
            rc = add_holder(mounts, strtoull(all.mounts[i]->root + 5, NULL, 10), 0);
    return rc;
}

static int search_holders(struct mounts *mounts, struct rbxj_error *e)
{
    mounts->holders_len = 0;
    int rc = note_nsfs(mounts, mounts->own);
    struct mount_space space;
    for (size_t i = 0; rc == 0; i++) {
        int more = mounts_other(mounts, i, &space, e);
        if (more == 0)
            break;
        if (more == 1)
            rc = note_nsfs(mounts, space.table);
        else if (more != -ENODATA)
            return more;
    }
    if (rc == 0)
        rc = for_each_process(mounts, note_descriptors);
    if (rc < 0)
        return error_sys(e, -rc, "search for what holds mount namespaces");
    mounts->held_searched = true;
    return 0;
}

int mounts_in(struct mounts *mounts, uint64_t ns, struct mount_space *ret, struct rbxj_error *e)
{
    int rc = mounts->searched ? 0 : search(mounts, e);
    if (rc < 0)
        return rc;
    struct mount_space *space = space_of(mounts, ns);
    if (space && space->pid) {
        rc = space->table ? 0 : load_again(mounts, ns, &space, e);
        if (rc == 0)
            *ret = *space;
        if (rc != -ENODATA)
            return rc;
        mounts->held_searched = false; /* it emptied just now */
    }
    rc = mounts->held_searched ? 0 : search_holders(mounts, e);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < mounts->holders_len; i++) {
        if (mounts->holders[i].ns != ns)
            continue;
        (void)error_set(e, RBXJ_E_BUSY, EBUSY, "mount namespace %llu: no process is in it",
                        (unsigned long long)ns);
        if (mounts->holders[i].pid)
            error_detail(e, "pid %d has it open", (int)mounts->holders[i].pid);
        else
            error_detail(e, "an nsfs mount keeps it");
        return -EBUSY;
    }
    if (mounts->hidden) {
        (void)error_set(e, RBXJ_E_PERMISSION, EACCES, "mount namespace %llu is not visible from here",
                        (unsigned long long)ns);
        return -EACCES;
    }
    return -ENOENT;
}

pid_t mounts_holder(const struct mounts *mounts, uint64_t ns)
{
    for (size_t i = 0; i < mounts->holders_len; i++)
        if (mounts->holders[i].ns == ns)
            return mounts->holders[i].pid;
    return 0;
}
