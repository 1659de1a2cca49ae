/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The child of a start, and what is made for it before the fork; see spawn.h.
 *
 * Between fork and exec there are only system calls, on memory that was made before: the caller may have
 * threads.
 */
#include "reaper/spawn.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"

#include <errno.h>
#include <paths.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>

/* Our descriptors in the child, out of the way of what setup() may want to put at low numbers. */
#define HIGH_FD 512

/* ---- in the child ---- */

static int high_fd(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);
    if (high < 0) /* RLIMIT_NOFILE */
        return fd;
    (void)close(fd);
    return high;
}

static void close_others(const struct spawn_child *c)
{
    unsigned next = 3;
    for (size_t i = 0; i < c->keep_len; i++) {
        unsigned fd = (unsigned)c->keep[i];
        if (fd > next)
            (void)close_range(next, fd - 1, 0);
        next = fd + 1;
        if (c->keep[i] != c->socket && c->keep[i] != c->caller)
            (void)fcntl(c->keep[i], F_SETFD, 0);
    }
    (void)close_range(next, ~0U, 0);
}

/* Says that it waits, and sends the reading end of the status pipe; or says why it can't. Returns the writing
 * end, or -1. */
static int open_status(int socket)
{
    int ends[2], errnum = 0;
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec text = {.iov_base = &errnum, .iov_len = sizeof(errnum)};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};
    if (pipe2(ends, O_CLOEXEC) < 0) {
        errnum = errno;
    } else {
        control.head = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.head), &ends[0], sizeof(int));
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
    }
    if (sendmsg(socket, &message, MSG_NOSIGNAL) != sizeof(errnum) || errnum)
        return -1;
    (void)close(ends[0]);
    return high_fd(ends[1]);
}

/* Until the caller lets it go; false: the caller has died before that. */
static bool wait_for_go(const struct spawn_child *c)
{
    struct pollfd fds[] = {{.fd = c->socket, .events = POLLIN}, {.fd = c->caller, .events = POLLIN}};
    char byte;
    ssize_t n;
    while (poll(fds, ARRAY_LEN(fds), -1) < 0)
        if (errno != EINTR && errno != EAGAIN && errno != ENOMEM)
            return false;
    do
        n = recv(c->socket, &byte, 1, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n == 1;
}

/* As execvp(3): the first that can be run, else EACCES if one may not be run, else the last errno. */
static int try_exec(const struct spawn_child *c)
{
    bool denied = false;
    for (size_t i = 0; c->paths[i]; i++) {
        (void)execve(c->paths[i], c->argv, c->envp);
        if (errno == ENOEXEC) {
            c->shell[1] = c->paths[i];
            (void)execve(_PATH_BSHELL, (char *const *)c->shell, c->envp);
        }
        if (errno == EACCES)
            denied = true;
        else if (errno != ENOENT && errno != ENOTDIR && errno != ESTALE && errno != ENODEV &&
                 errno != ETIMEDOUT)
            return errno;
    }
    return denied ? EACCES : errno;
}

_Noreturn void spawn_child_main(struct spawn_child *c)
{
    struct spawn_report report = {.what = SPAWN_GOES};
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* also of one that is stopped */
    close_others(c);
    int status = open_status(c->socket);
    if (status < 0 || !wait_for_go(c) || write(status, &report, sizeof(report)) != sizeof(report))
        _exit(127);
    (void)close(c->socket);
    (void)close(c->caller);
    (void)prctl(PR_SET_PDEATHSIG, 0);
    report.what = SPAWN_SETUP;
    report.errnum = c->how->setup ? c->how->setup(c->how->setup_data) : 0;
    if (report.errnum == 0) {
        report.what = SPAWN_EXEC;
        report.errnum = try_exec(c);
    }
    (void)!write(status, &report, sizeof(report));
    _exit(127);
}

/* ---- before the fork ---- */

void spawn_child_clear(struct spawn_child *c)
{
    for (size_t i = 0; c->paths && c->paths[i]; i++)
        free(c->paths[i]);
    free(c->paths);
    free(c->shell);
    free(c->keep);
    cleanup_closep(&c->socket);
    cleanup_closep(&c->caller);
    *c = (struct spawn_child)SPAWN_CHILD_INIT;
}

/* Where argv[0] may be, in the order of PATH; an empty part is the working directory. */
static int list_paths(struct spawn_child *c, const char *name)
{
    const char *path = getenv("PATH");
    if (strchr(name, '/') || !name[0])
        path = NULL;
    else if (!path)
        path = _PATH_DEFPATH;
    size_t n = 1;
    for (const char *p = path; p && (p = strchr(p, ':')); p++)
        n++;
    c->paths = calloc(n + 1, sizeof(*c->paths));
    if (!c->paths)
        return -ENOMEM;
    if (!path)
        return (c->paths[0] = strdup(name)) ? 0 : -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        size_t len = strcspn(path, ":");
        if (asprintf(&c->paths[i], "%.*s%s%s", (int)len, path, len ? "/" : "", name) < 0) {
            c->paths[i] = NULL;
            return -ENOMEM;
        }
        path += len + 1;
    }
    return 0;
}

static int compare_fds(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static int list_keep(struct spawn_child *c, const struct rbxj_spawn *how, struct rbxj_error *e)
{
    c->keep = calloc(how->fds_len + 2, sizeof(*c->keep));
    if (!c->keep)
        return error_sys(e, ENOMEM, "spawn");
    for (size_t i = 0; i < how->fds_len; i++) {
        if (fcntl(how->fds[i], F_GETFD) < 0)
            return error_set(e, RBXJ_E_BAD_REQUEST, EBADF, "spawn: descriptor %d", how->fds[i]);
        if (how->fds[i] > 2)
            c->keep[c->keep_len++] = how->fds[i];
    }
    return 0;
}

int spawn_child_prepare(struct spawn_child *c, const struct rbxj_spawn *how, int *ret_socket,
                        struct rbxj_error *e)
{
    size_t argc = 0;
    int ends[2];
    while (how->argv && how->argv[argc])
        argc++;
    if (!argc)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "spawn: no program");
    c->how = how;
    c->argv = (char *const *)how->argv;
    c->envp = how->envp ? (char *const *)how->envp : environ;
    c->shell = calloc(argc + 2, sizeof(*c->shell));
    if (!c->shell || list_paths(c, how->argv[0]) < 0)
        return error_sys(e, ENOMEM, "spawn");
    c->shell[0] = _PATH_BSHELL;
    memcpy(c->shell + 2, how->argv + 1, argc * sizeof(*how->argv)); /* with the NULL */
    int r = list_keep(c, how, e);
    if (r < 0)
        return r;
    c->caller = pidfd_open(getpid(), 0);
    if (c->caller < 0)
        return error_sys(e, errno, "spawn: a pidfd");
    c->caller = high_fd(c->caller);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return error_sys(e, errno, "spawn: a socket");
    *ret_socket = ends[0];
    c->socket = high_fd(ends[1]);
    c->keep[c->keep_len++] = c->socket;
    c->keep[c->keep_len++] = c->caller;
    qsort(c->keep, c->keep_len, sizeof(*c->keep), compare_fds);
    return 0;
}
