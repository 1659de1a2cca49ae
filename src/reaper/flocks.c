/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/flocks.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"

#include <inttypes.h>
#include <string.h>
#include <sys/sysmacros.h>

int flocks_is_held(uint64_t dev, uint64_t ino)
{
    _cleanup_free_ char *text = NULL;
    char wanted[80];
    ssize_t n = fd_read_all(AT_FDCWD, "/proc/locks", 64 << 20, &text);
    if (n < 0)
        return (int)n;
    /* "1: FLOCK  ADVISORY  WRITE 708 fe:00:1234 0 EOF", proc_locks(5) */
    (void)snprintf(wanted, sizeof(wanted), " %02x:%02x:%" PRIu64 " ", major(dev), minor(dev), ino);
    for (char *line = text; line && *line;) {
        char *end = strchrnul(line, '\n');
        char *next = *end ? end + 1 : end;
        *end = 0;
        if (strstr(line, " FLOCK ") && !strstr(line, "->") && strstr(line, wanted))
            return 1;
        line = next;
    }
    return 0;
}

/* Does this text of /proc/PID/fdinfo/N show the open file that has the flock? Only that one has a lock: line;
 * whoever waits has the file open, too. Asks no file system. ("ino:" is there since 5.14) */
static bool shows_flock(char *text, uint64_t ino)
{
    char wanted[40];
    bool flock = false, same = false;
    (void)snprintf(wanted, sizeof(wanted), ":%" PRIu64 " ", ino);
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (strncmp(line, "ino:", 4) == 0)
            same = strtoull(line + 4, NULL, 10) == ino;
        if (strncmp(line, "lock:", 5) == 0 && strstr(line, " FLOCK ") && strstr(line, wanted))
            flock = true;
    }
    return flock && same;
}

/* 1 if that process has the flock, 0 if not, or -errno: it can't be seen, or a shortage. */
static int has_flock(int proc, const char *pid, uint64_t ino)
{
    char path[32], text[4096];
    int unseen = 0;
    (void)snprintf(path, sizeof(path), "%s/fdinfo", pid);
    _cleanup_closedir_ DIR *dir = fd_open_names_at(proc, path);
    if (!dir)
        return errno == ENOENT || errno == ESRCH ? 0 : -errno;
    for (const struct dirent *d; (d = fd_next_name(dir));) {
        ssize_t n = fd_read_file(dirfd(dir), d->d_name, text, sizeof(text));
        if (n > 0 && shows_flock(text, ino))
            return 1;
        if (n < 0 && n != -ENOENT && n != -ESRCH)
            unseen = (int)n;
    }
    return errno && errno != ENOENT && errno != ESRCH ? -errno : unseen;
}

int flocks_holders(uint64_t ino, int (*found)(void *data, pid_t pid), void *data, bool *ret_blind)
{
    _cleanup_closedir_ DIR *dir = fd_open_names_at(AT_FDCWD, "/proc");
    if (!dir)
        return -errno;
    for (const struct dirent *d; (d = fd_next_name(dir));) {
        if (d->d_name[0] < '1' || d->d_name[0] > '9')
            continue;
        int r = has_flock(dirfd(dir), d->d_name, ino);
        if (r < 0 && errno_is_want(-r))
            return r;
        if (r < 0)
            *ret_blind = true;
        pid_t pid = (pid_t)atoi(d->d_name);
        r = r > 0 && pid != getpid() ? found(data, pid) : 0;
        if (r != 0)
            return r;
    }
    return -errno;
}

/* Is pid listed in the cgroup of that record, or below it? By the text of /proc/PID/cgroup and our record's
 * path: both end in the same path within the hierarchy, and look() has proved that the path is our cgroup. */
static bool is_in_cgroup(const char *text, const char *path)
{
    char buf[8192];
    (void)snprintf(buf, sizeof(buf), "%s", text);
    for (char *save = NULL, *line = strtok_r(buf, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *name = strchr(line, ':');
        name = name ? strchr(name + 1, ':') : NULL;
        if (!name || strlen(name + 1) < 2)
            continue;
        /* an own cgroup is never the root: the path within the hierarchy must be at or below the record's
         * tail */
        for (char *tail = strchr(path + 1, '/'); tail; tail = strchr(tail + 1, '/'))
            if (path_is_below(name + 1, tail))
                return true;
    }
    return false;
}

int flocks_is_payload(struct undo *u, pid_t pid)
{
    char path[40], text[8192];
    struct procid id;
    (void)snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
    bool known = fd_read_file(AT_FDCWD, path, text, sizeof(text)) > 0;
    for (size_t i = 0; i < u->records_len; i++) {
        const struct record *r = &u->records[i];
        struct finding f = {0};
        if (r->kind == RBXJ_PROCESS && procid_of(pid, &id) == 0 && procid_equal(&id, &r->process))
            return 1;
        if (r->kind != RBXJ_CGROUP || !known || !is_in_cgroup(text, r->path))
            continue;
        int looked = kind_cgroup.look(u, r, &f);
        if (looked == 0 && f.found == FOUND_PRESENT)
            return 1;
        if (errno_is_want(f.error.errnum))
            return -f.error.errnum;
    }
    return 0;
}
