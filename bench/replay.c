/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Stale boxes, and what it costs to be rid of them:
 *
 *     replay stale N DIR CGROUP   makes them through the library and dies; `rbxj replay` undoes them
 *     replay bare N DIR CGROUP    makes the same without a journal, and undoes them by the system calls that
 * this takes and no others; prints the seconds that the undo took
 *
 * A box: a lock, a cgroup with a process, a tmpfs mount, a tmpdir with 20 files.
 */
#include "rbxj.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FILES 20

static const char *dir, *group;

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

#define must(expression)                                                                                     \
    do {                                                                                                     \
        if (!(expression))                                                                                   \
            fail(#expression);                                                                               \
    } while (0)

struct paths {
    char lock[PATH_MAX], cgroup[PATH_MAX], target[PATH_MAX], tmpdir[PATH_MAX];
};

static struct paths paths_of(int i)
{
    struct paths p;
    (void)snprintf(p.lock, sizeof(p.lock), "%s/%d.lock", dir, i);
    (void)snprintf(p.cgroup, sizeof(p.cgroup), "%s/%d", group, i);
    (void)snprintf(p.target, sizeof(p.target), "%s/%d.mnt", dir, i);
    (void)snprintf(p.tmpdir, sizeof(p.tmpdir), "%s/%d.tmp", dir, i);
    return p;
}

static void write_file(int at, const char *path, const char *text)
{
    int fd = openat(at, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    (void)close(fd);
}

/* What is in a box when its supervisor dies. */
static void fill(const struct paths *p)
{
    char path[PATH_MAX + 16], pid_text[16];
    for (int i = 0; i < FILES; i++) {
        (void)snprintf(path, sizeof(path), "%s/file%d", p->tmpdir, i);
        write_file(AT_FDCWD, path, "some data\n");
    }
    pid_t pid = fork();
    if (pid == 0) {
        (void)close_range(0, ~0U, 0);
        for (;;)
            pause();
    }
    must(pid > 0);
    (void)snprintf(path, sizeof(path), "%s/cgroup.procs", p->cgroup);
    (void)snprintf(pid_text, sizeof(pid_text), "%d", pid);
    write_file(AT_FDCWD, path, pid_text);
}

/* ---- with the journal ---- */

static void make_stale(struct rbxj *handle, int i)
{
    struct rbxj_error e = {0};
    struct paths p = paths_of(i);
    char name[16];
    int fd;
    const struct rbxj_resource plan[] = {
        {.kind = RBXJ_LOCK, .path = p.lock},
        {.kind = RBXJ_CGROUP, .path = p.cgroup},
        {.kind = RBXJ_MOUNT, .path = p.target, .fstype = "tmpfs", .source = "bench"},
        {.kind = RBXJ_TMPDIR, .path = p.tmpdir},
    };
    (void)snprintf(name, sizeof(name), "%d", i);
    struct rbxj_box box = {.name = name, .plan = plan, .plan_len = 4};
    must(mkdir(p.target, 0700) == 0);
    int r = rbxj_begin(handle, &box, NULL, &e);
    for (uint32_t seq = 1; seq <= 4 && r == 0; seq++)
        r = rbxj_acquire(handle, name, seq, seq == 3 ? "size=1m" : NULL, &fd, &e);
    if (r < 0) {
        fprintf(stderr, "box %s: %s (%s)\n", name, e.message, e.detail);
        exit(1);
    }
    (void)close(fd);
    fill(&p);
}

static int stale(int n)
{
    struct rbxj_error e = {0};
    struct rbxj *handle = NULL;
    if (rbxj_open(NULL, &handle, &e) < 0) {
        fprintf(stderr, "%s (%s)\n", e.message, e.detail);
        return 1;
    }
    for (int i = 0; i < n; i++)
        make_stale(handle, i);
    (void)raise(SIGKILL);
    return 1;
}

/* ---- without ---- */

static void make_bare(int i)
{
    struct paths p = paths_of(i);
    must(mkdir(p.target, 0700) == 0);
    write_file(AT_FDCWD, p.lock, "{\"pid\":1,\"box_id\":\"1\"}\n");
    must(mkdir(p.cgroup, 0755) == 0);
    must(mount("bench", p.target, "tmpfs", 0, "size=1m") == 0);
    must(mkdir(p.tmpdir, 0700) == 0);
    fill(&p);
}

static void kill_group(const struct paths *p)
{
    char path[PATH_MAX + 16];
    (void)snprintf(path, sizeof(path), "%s/cgroup.kill", p->cgroup);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    must(fd >= 0 && write(fd, "1", 1) == 1);
    (void)close(fd);
}

static void wait_for_group(const struct paths *p)
{
    char path[PATH_MAX + 16], text[256];
    (void)snprintf(path, sizeof(path), "%s/cgroup.events", p->cgroup);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0);
    for (;;) {
        ssize_t len = pread(fd, text, sizeof(text) - 1, 0);
        must(len >= 0);
        text[len] = 0;
        if (strstr(text, "populated 0"))
            break;
        must(poll(&(struct pollfd){.fd = fd, .events = POLLPRI}, 1, 10000) > 0);
    }
    (void)close(fd);
}

static void undo_bare(const struct paths *p)
{
    char name[32];
    int fd = open(p->tmpdir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    must(fd >= 0);
    for (int i = 0; i < FILES; i++) {
        (void)snprintf(name, sizeof(name), "file%d", i);
        must(unlinkat(fd, name, 0) == 0);
    }
    (void)close(fd);
    must(rmdir(p->tmpdir) == 0);
    must(umount2(p->target, UMOUNT_NOFOLLOW) == 0);
    must(rmdir(p->cgroup) == 0);
    must(unlink(p->lock) == 0);
}

static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The makers die first, as a supervisor does: what they started is init's to reap. */
static int bare(int n)
{
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < n; i++)
            make_bare(i);
        _exit(0);
    }
    int status;
    must(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
    sync();
    double start = seconds();
    for (int step = 0; step < 3; step++)
        for (int i = n; i-- > 0;) {
            struct paths p = paths_of(i);
            if (step == 0)
                kill_group(&p);
            else if (step == 1)
                wait_for_group(&p);
            else
                undo_bare(&p);
        }
    printf("%.4f\n", seconds() - start);
    for (int i = 0; i < n; i++)
        must(rmdir(paths_of(i).target) == 0);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: replay stale|bare N DIR CGROUP\n");
        return 2;
    }
    dir = argv[3];
    group = argv[4];
    return strcmp(argv[1], "bare") == 0 ? bare(atoi(argv[2])) : stale(atoi(argv[2]));
}
