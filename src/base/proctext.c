/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/proctext.h"

#include "base/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

/* The line at *text, without its newline, and the next one in *text; false at the end. */
static bool next_line(const char **text, const char **ret, size_t *ret_len)
{
    if (!**text)
        return false;
    const char *end = strchrnul(*text, '\n');
    *ret = *text;
    *ret_len = (size_t)(end - *text);
    *text = *end ? end + 1 : end;
    return true;
}

static bool begins(const char *line, size_t len, const char *with)
{
    return len >= strlen(with) && memcmp(line, with, strlen(with)) == 0;
}

static bool has(const char *line, size_t len, const char *what)
{
    return memmem(line, len, what, strlen(what)) != NULL;
}

/* A positive number that is an int, else 0. */
static int to_int(const char *text)
{
    errno = 0;
    long n = strtol(text, NULL, 10);
    return errno || n < 0 || n > INT_MAX ? 0 : (int)n;
}

int proctext_stat(const char *text, struct proc_stat *ret)
{
    const char *p = strrchr(text, ')');
    char state, parent[24], *end;
    unsigned long long start;
    if (!p ||
        sscanf(p + 1, " %c %23s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
               &state, parent, &start) != 3)
        return -EBADMSG;
    long up = strtol(parent, &end, 10);
    if (*end || up < 0 || up > INT_MAX)
        return -EBADMSG;
    *ret = (struct proc_stat){.state = state, .parent = (pid_t)up, .start_time = start};
    return 0;
}

pid_t proctext_tgid(const char *text)
{
    const char *line = strstr(text, "\nTgid:");
    return line ? to_int(line + strlen("\nTgid:")) : 0;
}

int proctext_mount_id(const char *text)
{
    const char *line = strstr(text, "mnt_id:");
    return line ? to_int(line + strlen("mnt_id:")) : -ENODATA;
}

/* How a lock on that file ends, in "1: FLOCK  ADVISORY  WRITE 708 fe:00:1234 0 EOF" (proc_locks(5)). dev 0:
 * of any device. */
static void wanted_file(char *buf, size_t size, uint64_t dev, uint64_t ino)
{
    if (dev)
        (void)snprintf(buf, size, " %02x:%02x:%" PRIu64 " ", major(dev), minor(dev), ino);
    else
        (void)snprintf(buf, size, ":%" PRIu64 " ", ino);
}

bool proctext_shows_flock(const char *text, uint64_t dev, uint64_t ino)
{
    char wanted[80];
    const char *line;
    size_t len;
    bool flock = false, same = false;
    wanted_file(wanted, sizeof(wanted), dev, ino);
    while (next_line(&text, &line, &len)) {
        if (begins(line, len, "ino:"))
            same = strtoull(line + strlen("ino:"), NULL, 10) == ino;
        if (begins(line, len, "lock:") && has(line, len, " FLOCK ") && has(line, len, wanted))
            flock = true;
    }
    return flock && same;
}

bool proctext_has_flock(const char *text, uint64_t dev, uint64_t ino)
{
    char wanted[80];
    const char *line;
    size_t len;
    wanted_file(wanted, sizeof(wanted), dev, ino);
    while (next_line(&text, &line, &len))
        if (has(line, len, " FLOCK ") && !has(line, len, "->") && has(line, len, wanted))
            return true;
    return false;
}

/* Is the path within a hierarchy at or below the end of the path of a cgroup? */
static bool is_below_tail(const char *within, const char *path)
{
    for (const char *tail = strchr(path + 1, '/'); tail; tail = strchr(tail + 1, '/'))
        if (path_is_below(within, tail))
            return true;
    return false;
}

/* The path of a line, "4:memory:/box7"; its length, 0: there is none. */
static size_t path_of(const char *line, size_t len, const char **ret)
{
    const char *end = line + len, *path = memchr(line, ':', len);
    path = path ? memchr(path + 1, ':', (size_t)(end - path - 1)) : NULL;
    if (!path)
        return 0;
    *ret = path + 1;
    return (size_t)(end - path - 1);
}

bool proctext_cgroup(const char *text, char *buf, size_t size)
{
    const char *line, *path;
    size_t len;
    bool found = false;
    while (next_line(&text, &line, &len)) {
        size_t n = path_of(line, len, &path);
        bool unified = begins(line, len, "0::"), first = !found || strcmp(buf, "/") == 0;
        if (!n || n >= size || !(first || (unified && n > 1)))
            continue;
        memcpy(buf, path, n);
        buf[n] = 0;
        found = true;
    }
    return found;
}

bool proctext_is_in_cgroup(const char *text, const char *path)
{
    char within[PATH_MAX];
    const char *line, *name, *last = strrchr(path, '/');
    size_t len;
    if (!last || !strstr(text, last)) /* most are asked of many processes, and have none of them */
        return false;
    while (next_line(&text, &line, &len)) {
        size_t n = path_of(line, len, &name);
        if (n < 2 || n >= sizeof(within)) /* an own cgroup is never the root */
            continue;
        memcpy(within, name, n);
        within[n] = 0;
        if (is_below_tail(within, path))
            return true;
    }
    return false;
}

bool proctext_next_pid(const char **text, pid_t *ret)
{
    const char *line;
    size_t len;
    if (!next_line(text, &line, &len))
        return false;
    *ret = len && line[0] >= '0' && line[0] <= '9' ? to_int(line) : 0;
    return true;
}

int proctext_kmsg(const char *text, struct kmsg_record *ret)
{
    unsigned int priority;
    unsigned long long sequence, time_us;
    const char *begin = strchr(text, ';');
    if (!begin || sscanf(text, "%9u,%20llu,%20llu,", &priority, &sequence, &time_us) != 3 ||
        time_us > INT64_MAX / 4000)
        return -EBADMSG;
    begin++;
    *ret = (struct kmsg_record){.level = priority & 7,
                                .facility = priority >> 3,
                                .sequence = sequence,
                                .time_us = time_us,
                                .text = begin,
                                .len = (size_t)(strchrnul(begin, '\n') - begin)};
    return 0;
}

bool proctext_names_container(const char *environment, size_t len)
{
    static const char name[] = "container=";
    for (const char *entry = environment; entry < environment + len; entry += strlen(entry) + 1)
        if (strncmp(entry, name, sizeof(name) - 1) == 0 && entry[sizeof(name) - 1] != '\0')
            return true;
    return false;
}
