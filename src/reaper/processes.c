/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/processes.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/proctext.h"

#include <stdio.h>
#include <stdlib.h>

#define READING_NS (10LL * 1000000000) /* some 20 us for each process */

/* A line: at its end nothing is asked for behind it, as there are many. Its length, or -errno. */
static ssize_t read_line(int proc, const char *path, char *text, size_t size)
{
    size_t len = 0;
    _cleanup_close_ int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    while (len < size - 1 && (!len || text[len - 1] != '\n')) {
        ssize_t n = read(fd, text + len, size - 1 - len);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            break;
        len += n > 0 ? (size_t)n : 0;
    }
    text[len] = 0;
    return len < size - 1 ? (ssize_t)len : -EFBIG;
}

/* 0, -ESRCH, or -errno. */
static int read_one(int proc, const char *pid, struct process *ret)
{
    char path[32], text[1024];
    struct proc_stat stat;
    (void)snprintf(path, sizeof(path), "%.15s/stat", pid);
    ssize_t n = read_line(proc, path, text, sizeof(text));
    int r = n < 0 ? (int)n : proctext_stat(text, &stat);
    if (r < 0)
        return r == -ENOENT ? -ESRCH : r;
    *ret = (struct process){
        .pid = (pid_t)atoi(pid), .parent = stat.parent, .start_time = stat.start_time, .state = stat.state};
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct process *x = a, *y = b;
    return x->pid < y->pid ? -1 : x->pid > y->pid;
}

static int add(struct processes *p, size_t *room, const struct process *one)
{
    if (p->len == *room) {
        size_t more = *room ? 2 * *room : 512;
        struct process *grown = reallocarray(p->list, more, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        p->list = grown;
        *room = more;
    }
    p->list[p->len++] = *one;
    return 0;
}

int processes_read(struct processes *ret)
{
    int64_t deadline = now_monotonic_ns() + READING_NS;
    _cleanup_(processes_clear) struct processes p = {0};
    _cleanup_closedir_ DIR *names = fd_open_names_at(AT_FDCWD, "/proc");
    const struct dirent *d = NULL;
    size_t room = 0;
    int r = names ? 0 : -errno;
    while (r == 0 && names && !p.blind && (d = fd_next_name(names))) {
        struct process one;
        if (d->d_name[0] < '1' || d->d_name[0] > '9')
            continue;
        int seen = read_one(dirfd(names), d->d_name, &one);
        if (seen == 0 || (seen < 0 && errno_is_want(-seen)))
            r = seen < 0 ? seen : add(&p, &room, &one);
        else
            p.blind = p.blind || seen != -ESRCH;
        p.blind = p.blind || now_monotonic_ns() > deadline;
    }
    if (r == 0 && names && !d)
        r = -errno;
    if (r < 0 && errno_is_want(-r))
        return r;
    if (p.len)
        qsort(p.list, p.len, sizeof(*p.list), compare);
    /* whoever can't see init is shown his own processes only */
    p.blind = p.blind || r < 0 || !processes_find(&p, 1);
    *ret = p;
    p = (struct processes){0};
    return 0;
}

void processes_clear(struct processes *p)
{
    free(p->list);
    *p = (struct processes){0};
}

struct process *processes_find(const struct processes *p, pid_t pid)
{
    struct process key = {.pid = pid};
    return p->len ? bsearch(&key, p->list, p->len, sizeof(key), compare) : NULL;
}

int process_is_same(const struct process *p)
{
    char pid[16];
    struct process now;
    (void)snprintf(pid, sizeof(pid), "%d", p->pid);
    _cleanup_close_ int proc = fd_open_dir(AT_FDCWD, "/proc");
    int r = proc < 0 ? proc : read_one(proc, pid, &now);
    if (r < 0)
        return r == -ESRCH ? 0 : r;
    return now.start_time == p->start_time && now.parent == p->parent && now.state != 'Z' && now.state != 'X';
}
