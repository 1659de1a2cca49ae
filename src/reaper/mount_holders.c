/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who keeps a mount busy. Every process' working directory, root, executable, descriptors and memory maps are
 * compared by mount id, which no bind mount of the same file system shares. A helper looks, because among the
 * things that processes hold there may be some that hang (K16).
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/helper.h"
#include "reaper/cgroup.h"
#include "reaper/mount.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KILL_TIME_NS 2000000000LL

struct search {
    int32_t id;
    uint64_t unique, device;
    struct mount_holders *found; /* in the helper's output */
    int want; /* -errno: something could not be looked at for want of a descriptor or memory */
};
static_assert(sizeof(struct mount_holders) <= HELPER_OUTPUT_MAX, "the holders fit");

/* readdir(3) allocates, which a helper must not. Calls each for every name that starts with a digit. */
static int for_each_number(struct search *s, int dirfd, pid_t pid,
                           bool (*each)(struct search *s, int dirfd, const char *name, pid_t pid))
{
    _Alignas(struct dirent64) char buf[4096];
    for (;;) {
        long n = syscall(SYS_getdents64, dirfd, buf, sizeof(buf));
        if (n <= 0)
            return n < 0 ? -errno : 0;
        for (long at = 0; at < n;) {
            const struct dirent64 *entry = (const struct dirent64 *)(buf + at);
            at += entry->d_reclen;
            if (entry->d_name[0] != '.' && each(s, dirfd, entry->d_name, pid))
                return 0;
        }
    }
}

/* Of a process that is gone or hides it, nothing. */
static void note_failure(struct search *s, int rc)
{
    if (rc < 0 && errno_is_want(-rc))
        s->want = rc;
}

static bool shows(struct search *s, int dirfd, const char *name)
{
    struct mount_at at;
    int rc = mount_at_link(dirfd, name, s->unique != 0, &at);
    note_failure(s, rc);
    if (rc < 0)
        return false;
    if (s->device && at.dev == s->device)
        return true;
    return s->unique ? at.unique == s->unique : at.id == s->id;
}

static bool note(struct search *s, pid_t pid, char how)
{
    struct mount_holders *found = s->found;
    if (found->len < MOUNT_HOLDERS_MAX)
        found->at[found->len++] = (struct mount_holder){.pid = pid, .how = how};
    return true;
}

static bool look_at_descriptor(struct search *s, int dirfd, const char *name, pid_t pid)
{
    return shows(s, dirfd, name) && note(s, pid, 'f');
}

static bool look_at_map(struct search *s, int dirfd, const char *name, pid_t pid)
{
    return shows(s, dirfd, name) && note(s, pid, 'm');
}

static void look_into(struct search *s, int proc_fd, const char *name, pid_t pid)
{
    static const struct {
        const char *name;
        bool (*each)(struct search *s, int dirfd, const char *name, pid_t pid);
    } folders[] = {{"fd", look_at_descriptor}, {"map_files", look_at_map}};
    size_t before = s->found->len;
    for (size_t i = 0; i < ARRAY_LEN(folders) && s->found->len == before; i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "%s/%s", name, folders[i].name);
        _cleanup_close_ int fd = openat(proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        note_failure(s, fd < 0 ? -errno : for_each_number(s, fd, pid, folders[i].each));
    }
}

static bool look_at_process(struct search *s, int proc_fd, const char *name, pid_t self)
{
    static const struct {
        const char *name;
        char how;
    } links[] = {{"cwd", 'c'}, {"root", 'r'}, {"exe", 'x'}};
    pid_t pid = name[0] >= '1' && name[0] <= '9' ? (pid_t)atoi(name) : 0;
    if (!pid || pid == self)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(links); i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "%s/%s", name, links[i].name);
        if (shows(s, proc_fd, path)) {
            (void)note(s, pid, links[i].how);
            return false;
        }
    }
    look_into(s, proc_fd, name, pid);
    return false;
}

static int search_in_helper(void *data, uint8_t output[HELPER_OUTPUT_MAX])
{
    struct search *s = data;
    s->found = (struct mount_holders *)(void *)output;
    _cleanup_close_ int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = proc < 0 ? -errno : for_each_number(s, proc, getpid(), look_at_process);
    return rc < 0 || s->found->len ? rc : s->want; /* one that was found is enough */
}

int mount_holders_find(struct undo *u, int32_t id, uint64_t unique, uint64_t device,
                       struct mount_holders *ret)
{
    struct search s = {.id = id, .unique = unique, .device = device};
    struct helper_result result;
    int rc = helper_run(search_in_helper, &s, 0, mount_deadline(u), &result);
    if (rc < 0 || result.code < 0)
        return rc < 0 ? rc : result.code;
    memcpy(ret, result.output, sizeof(*ret));
    return 0;
}

void mount_holders_describe(const struct mount_holders *holders, struct finding *f)
{
    static const char *const how[] = {['c'] = "working directory",
                                      ['r'] = "root directory",
                                      ['x'] = "program",
                                      ['f'] = "open file",
                                      ['m'] = "memory map"};
    char who[120], more[32] = "";
    if (!holders->len)
        return;
    procid_describe(holders->at[0].pid, who, sizeof(who));
    if (holders->len > 1)
        (void)snprintf(more, sizeof(more), " and %zu more", holders->len - 1);
    for (size_t i = 0; i < holders->len; i++)
        keepers_add(&f->keepers, holders->at[i].pid);
    error_detail(&f->error, "held by pid %d (%s): its %s%s", holders->at[0].pid, who,
                 how[(int)holders->at[0].how], more);
}

/* ---- killing ---- */

/* Is the process inside a cgroup that is this box's, by its identity? */
static bool is_in_cgroup(const struct record *r, pid_t pid)
{
    const char *base;
    struct fileid id;
    _cleanup_(cgroup_members_clear) struct cgroup_members members = {0};
    _cleanup_close_ int parent = fd_open_parent(r->path, &base);
    _cleanup_close_ int fd = parent < 0 ? parent : cgroup_open(parent, base);
    if (fd < 0 || fileid_of_fd(fd, &id) < 0 || !fs_is_cgroup(id.fs_magic) ||
        !fileid_equal(&id, &r->id, true) || stamp_is_missing(fd, r))
        return false;
    return cgroup_members(fd, &members) == 0 && cgroup_members_have(&members, pid);
}

static bool is_of_box(const struct undo *u, const struct procid *id)
{
    for (size_t i = 0; i < u->records_len; i++) {
        const struct record *r = &u->records[i];
        if (!(r->flags & REC_EVIDENCE) || memcmp(r->evidence_boot, id->boot_id, sizeof(id->boot_id)))
            continue;
        if (r->kind == RBXJ_PROCESS && procid_equal(&r->process, id))
            return true;
        if (r->kind == RBXJ_CGROUP && is_in_cgroup(r, id->pid))
            return true;
    }
    return false;
}

bool mount_is_payload(const struct undo *u, pid_t pid)
{
    struct procid id;
    return pid > 0 && procid_of(pid, &id) == 0 && is_of_box(u, &id);
}

size_t mount_holders_kill(struct undo *u, const struct mount_holders *holders)
{
    size_t killed = 0;
    int64_t deadline = now_monotonic_ns() + KILL_TIME_NS;
    if (u->deadline_ns && u->deadline_ns < deadline)
        deadline = u->deadline_ns;
    for (size_t i = 0; i < holders->len; i++) {
        struct procid id;
        struct finding ignored = {0};
        if (procid_of(holders->at[i].pid, &id) < 0)
            continue;
        /* opened first: from here on the pid can't become another process' without the pidfd telling */
        _cleanup_close_ int pidfd = procid_open(&id);
        if (pidfd < 0 || !is_of_box(u, &id) || guard_kill(u, id.pid, &ignored) < 0)
            continue;
        if (pidfd_kill_wait(pidfd, deadline) == 0)
            killed++;
    }
    return killed;
}
