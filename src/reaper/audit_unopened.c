/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who uses what was found though no process has a descriptor of it: the kernel has the file of a loop device,
 * and a bound socket's file is found by whoever connects, while its owner has only "socket:[number]".
 */
#include "reaper/audit.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct search {
    struct audit *a;
    void (*used)(void *data, char *path, const char *how);
    void *data;
};

/* ---- loop devices ---- */

static int look_at_loop(const struct search *s, int block, const char *device)
{
    char path[NAME_MAX + 32], file[PATH_MAX], how[64];
    (void)snprintf(path, sizeof(path), "%s/loop/backing_file", device);
    ssize_t n = fd_read_file(block, path, file, sizeof(file));
    if (n < 0) /* it has none */
        return errno_is_want((int)-n) ? (int)n : 0;
    file[strcspn(file, "\n")] = 0;
    (void)snprintf(how, sizeof(how), "the file of /dev/%.40s", device);
    s->used(s->data, file, how);
    return 0;
}

static int look_at_loops(const struct search *s)
{
    _cleanup_closedir_ DIR *names = opendir("/sys/block");
    int r = 0;
    if (!names)
        return errno_is_want(errno) ? -errno : 0;
    for (const struct dirent *d; r == 0 && (d = fd_next_name(names));)
        if (strncmp(d->d_name, "loop", 4) == 0)
            r = look_at_loop(s, dirfd(names), d->d_name);
    return r < 0 ? r : errno && errno_is_want(errno) ? -errno : 0;
}

/* ---- sockets ---- */

/* "ffff8880: 00000002 00000000 00010000 0001 01 23456 /run/a": the address is what bind(2) was given. NULL:
 * it has none, or one that is no absolute path: of a relative one nobody can tell where it leads. */
static char *address_of(char *line)
{
    char *p = line;
    line[strcspn(line, "\n")] = 0;
    for (int field = 0; field < 7; field++) {
        p += strcspn(p, " ");
        p += strspn(p, " ");
    }
    return *p == '/' ? p : NULL;
}

/* As it was bound, and where that leads: the names of what was found are resolved. */
static int mark_socket(const struct search *s, char *address)
{
    char real[PATH_MAX];
    s->used(s->data, address, "a socket is bound in it");
    int r = answers_resolve(&s->a->answers, s->a->table, address, real);
    if (r == 0)
        s->used(s->data, real, "a socket is bound in it");
    return r < 0 && errno_is_want(-r) ? r : 0;
}

static int look_at_sockets(const struct search *s, pid_t pid)
{
    _cleanup_free_ char *line = NULL;
    char path[64];
    size_t size = 0;
    int r = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/net/unix", pid);
    _cleanup_fclose_ FILE *file = fopen(path, "re");
    if (!file) /* it has ended, or hides; or there are none in this kernel */
        return errno_is_want(errno) ? -errno : 0;
    errno = 0;
    while (r == 0 && getline(&line, &size, file) >= 0) {
        char *address = address_of(line);
        r = address ? mark_socket(s, address) : 0;
        errno = 0;
    }
    return r < 0 ? r : errno && errno_is_want(errno) ? -errno : 0;
}

struct seen {
    uint64_t *spaces;
    size_t len;
};

/* Was a process of that network namespace met before? 1, 0, or -ENOMEM. */
static int note_space(struct seen *seen, uint64_t space)
{
    for (size_t i = 0; i < seen->len; i++)
        if (seen->spaces[i] == space)
            return 1;
    uint64_t *more = reallocarray(seen->spaces, seen->len + 1, sizeof(*more));
    if (!more)
        return -ENOMEM;
    seen->spaces = more;
    more[seen->len++] = space;
    return 0;
}

static void seen_clear(struct seen *seen)
{
    free(seen->spaces);
}

/* A socket is told in the network namespace in which it was made, and found by its file from all. */
static int look_at_spaces(const struct search *s)
{
    _cleanup_closedir_ DIR *proc = opendir("/proc");
    _cleanup_(seen_clear) struct seen seen = {0};
    int r = proc ? 0 : -errno;
    const struct dirent *d = NULL;
    while (proc && r == 0 && (d = fd_next_name(proc))) {
        char path[64];
        struct stat st;
        if (d->d_name[0] < '1' || d->d_name[0] > '9')
            continue;
        (void)snprintf(path, sizeof(path), "%.20s/ns/net", d->d_name);
        if (fstatat(dirfd(proc), path, &st, 0) < 0)
            continue;
        r = note_space(&seen, st.st_ino);
        r = r < 0 ? r : r > 0 ? 0 : look_at_sockets(s, atoi(d->d_name));
    }
    return r < 0 ? r : errno && errno_is_want(errno) ? -errno : 0;
}

int audit_use_unopened(struct audit *a, void (*used)(void *data, char *path, const char *how), void *data,
                       struct rbxj_error *e)
{
    struct search s = {a, used, data};
    int r = look_at_loops(&s);
    if (r == 0)
        r = look_at_spaces(&s);
    return r < 0 ? error_sys(e, -r, "audit: what is used without being open") : 0;
}
