/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Starting a process that cannot outlive its box (K6).
 *
 *   the caller                                        the child
 *     fork                                              dies with the caller (PDEATHSIG, end of file)
 *                                                       closes what is not its own (K7)
 *                                                       makes the status pipe and sends its reading end
 *     journals it (I1), puts it into its cgroups        waits
 *     lets it go with a byte                            setup(), exec
 *     reads the status: end of file after the exec      else what failed, and its errno
 *
 * The status pipe is made in the child, so that its writing end is in no other process: a child that another
 * thread forks at the same time, and that does not exec, would hold it open, and the caller would wait for
 * that one. For the same reason end of file alone does not tell the child of the caller's death.
 *
 * Between fork and exec there are only system calls, on memory that was made before: the caller may have
 * threads.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/cgroup.h"
#include "reaper/handle.h"

#include <paths.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* Our descriptors in the child, out of the way of what setup() may want to put at low numbers. */
#define HIGH_FD 512

struct failure {
    int errnum;
    bool in_setup;
};

/* All that the child needs, made before the fork. */
struct child {
    const struct rbxj_spawn *how;
    char *const *argv, *const *envp;
    char **paths;       /* to be tried in this order; NULL-terminated */
    const char **shell; /* argv for what is executable but no program; [1] is the path (execvp(3)) */
    int *keep;          /* ascending, from 3; the socket is one of them */
    size_t keep_len;
    pid_t parent;
    int socket;
};

struct started {
    pid_t pid;
    int pidfd;
    int socket;
};

/* ---- in the child ---- */

static int high_fd(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);
    if (high < 0) /* RLIMIT_NOFILE */
        return fd;
    (void)close(fd);
    return high;
}

static void close_others(const struct child *c)
{
    unsigned next = 3;
    for (size_t i = 0; i < c->keep_len; i++) {
        unsigned fd = (unsigned)c->keep[i];
        if (fd > next)
            (void)close_range(next, fd - 1, 0);
        next = fd + 1;
        if (c->keep[i] != c->socket)
            (void)fcntl(c->keep[i], F_SETFD, 0);
    }
    (void)close_range(next, ~0U, 0);
}

/* Sends the reading end of the status pipe; the writing end. */
static int open_status(int socket)
{
    int ends[2];
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec byte = {.iov_base = "", .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    control.head = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.head), &ends[0], sizeof(int));
    if (sendmsg(socket, &message, MSG_NOSIGNAL) != 1)
        return -1;
    (void)close(ends[0]);
    return high_fd(ends[1]);
}

/* As execvp(3): the first that can be run, else EACCES if one may not be run, else the last errno. */
static int try_exec(const struct child *c)
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

static _Noreturn void child_main(struct child *c)
{
    struct failure failure = {0};
    char byte;
    /* The thread that forked is in rbxj_spawn() for as long as this holds. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != c->parent)
        _exit(127);
    close_others(c);
    int status = open_status(c->socket);
    ssize_t n;
    do
        n = status < 0 ? 0 : recv(c->socket, &byte, 1, 0);
    while (n < 0 && errno == EINTR);
    if (n != 1)
        _exit(127);
    (void)close(c->socket);
    (void)prctl(PR_SET_PDEATHSIG, 0);
    failure.errnum = c->how->setup ? c->how->setup(c->how->setup_data) : 0;
    failure.in_setup = failure.errnum != 0;
    if (!failure.errnum)
        failure.errnum = try_exec(c);
    (void)!write(status, &failure, sizeof(failure));
    _exit(127);
}

/* ---- before the fork ---- */

static void child_clear(struct child *c)
{
    for (size_t i = 0; c->paths && c->paths[i]; i++)
        free(c->paths[i]);
    free(c->paths);
    free(c->shell);
    free(c->keep);
    cleanup_closep(&c->socket);
}

/* Where argv[0] may be, in the order of PATH; an empty part is the working directory. */
static int list_paths(struct child *c, const char *name)
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

static int list_keep(struct child *c, const struct rbxj_spawn *how, struct rbxj_error *e)
{
    c->keep = calloc(how->fds_len + 1, sizeof(*c->keep));
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

static int prepare_child(struct child *c, struct started *s, const struct rbxj_spawn *how,
                         struct rbxj_error *e)
{
    size_t argc = 0;
    int ends[2];
    while (how->argv && how->argv[argc])
        argc++;
    if (!argc)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "spawn: no program");
    c->argv = (char *const *)how->argv;
    c->envp = how->envp ? (char *const *)how->envp : environ;
    c->parent = getpid();
    c->shell = calloc(argc + 2, sizeof(*c->shell));
    if (!c->shell || list_paths(c, how->argv[0]) < 0)
        return error_sys(e, ENOMEM, "spawn");
    c->shell[0] = _PATH_BSHELL;
    memcpy(c->shell + 2, how->argv + 1, argc * sizeof(*how->argv)); /* with the NULL */
    int r = list_keep(c, how, e);
    if (r < 0)
        return r;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return error_sys(e, errno, "spawn: a socket");
    s->socket = ends[0];
    c->socket = high_fd(ends[1]);
    c->keep[c->keep_len++] = c->socket;
    qsort(c->keep, c->keep_len, sizeof(*c->keep), compare_fds);
    return 0;
}

/* ---- in the caller ---- */

static int fork_child(struct child *c, struct started *s, struct rbxj_error *e)
{
    s->pid = fork();
    if (s->pid == 0) {
        (void)close(s->socket); /* where 0, 1 or 2 was free */
        child_main(c);
    }
    if (s->pid < 0)
        return error_sys(e, errno, "fork");
    cleanup_closep(&c->socket);
    c->socket = -1;
    s->pidfd = pidfd_open(s->pid, 0);
    return s->pidfd < 0 ? error_sys(e, errno, "pidfd of pid %d", s->pid) : 0;
}

/* Whatever it was about to do: it is gone and reaped. By the pidfd, because the caller may reap too (a
 * SIGCHLD handler), and then the number is another's. */
static void abandon(struct started *s)
{
    siginfo_t info;
    cleanup_closep(&s->socket);
    s->socket = -1;
    if (s->pidfd >= 0) {
        (void)pidfd_send_signal(s->pidfd, SIGKILL, NULL, 0);
        while (waitid(P_PIDFD, (id_t)s->pidfd, &info, WEXITED) < 0 && errno == EINTR)
            ;
    } else if (s->pid > 0) {
        (void)kill(s->pid, SIGKILL);
        while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
}

static int find_cgroup(const struct snapshot_box *sb, uint32_t seq, const struct record **ret,
                       struct rbxj_error *e)
{
    for (size_t i = 0; i < sb->len; i++) {
        const struct record *r = &sb->records[i];
        if (r->seq != seq || r->kind != RBXJ_CGROUP || (r->flags & REC_PENDING))
            continue;
        if (!(r->flags & REC_EVIDENCE))
            return error_set(e, RBXJ_E_BAD_REQUEST, 0, "cgroup %s: was not acquired yet", r->path);
        *ret = r;
        return 0;
    }
    return error_set(e, RBXJ_E_NO_SUCH_BOX, 0, "box %s: seq %u is no cgroup of it", sb->box.name, seq);
}

/* Nobody is put into a cgroup that only has our name (I4). */
static int enter_cgroup(const struct record *r, pid_t pid, struct rbxj_error *e)
{
    struct fileid id;
    const char *base;
    char number[16];
    _cleanup_close_ int parent = fd_open_parent(r->path, &base);
    _cleanup_close_ int fd = parent < 0 ? parent : cgroup_open(parent, base);
    int rc = fd < 0 ? fd : fileid_of_fd(fd, &id);
    if (rc < 0)
        return error_sys(e, -rc, "cgroup %s", r->path);
    if (!fileid_equal(&id, &r->id, true))
        return error_set(e, RBXJ_E_FOREIGN, 0, "cgroup %s: is another one now", r->path);
    (void)snprintf(number, sizeof(number), "%d", pid);
    rc = fd_write_file(fd, "cgroup.procs", number);
    if (rc == 0)
        return 0;
    int code = error_sys(e, -rc, "cgroup %s: moving pid %d into it", r->path, pid);
    if (rc == -ENOSPC)
        error_detail(e, "a v1 cpuset group takes nobody before its cpuset.cpus and cpuset.mems are set");
    return code;
}

/* Journaled first: from here on a replay kills it. */
static int journal_child(struct rbxj *handle, const struct snapshot_box *sb, const struct rbxj_spawn *how,
                         const struct started *s, uint32_t *ret_seq, struct rbxj_error *e)
{
    struct rbxj_resource process = {.kind = RBXJ_PROCESS, .pid = s->pid};
    int r = rbxj_intend(handle, sb->box.name, &process, ret_seq, e);
    for (size_t i = 0; i < how->cgroups_len && r == 0; i++) {
        const struct record *cgroup = NULL;
        r = find_cgroup(sb, how->cgroups[i], &cgroup, e);
        if (r == 0)
            r = enter_cgroup(cgroup, s->pid, e);
    }
    return r;
}

/* The status pipe; -1: the child died before it sent it. */
static int receive_status(const struct started *s)
{
    struct pollfd fds[] = {{.fd = s->socket, .events = POLLIN}, {.fd = s->pidfd, .events = POLLIN}};
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    int fd;
    while (poll(fds, ARRAY_LEN(fds), -1) < 0 && errno == EINTR)
        ;
    if (recvmsg(s->socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != 1 ||
        message.msg_controllen < CMSG_LEN(sizeof(int)))
        return -1;
    memcpy(&fd, CMSG_DATA(&control.head), sizeof(int));
    return fd;
}

/* Lets it go; what came of that. A child that somebody killed meanwhile was started all the same: who waits
 * for it sees how it ended. */
static int let_go(struct started *s, const struct rbxj_spawn *how, struct rbxj_error *e)
{
    struct failure failure;
    ssize_t n;
    (void)!send(s->socket, "", 1, MSG_NOSIGNAL);
    _cleanup_close_ int status = receive_status(s);
    do
        n = status < 0 ? 0 : read(status, &failure, sizeof(failure));
    while (n < 0 && errno == EINTR);
    if (n != sizeof(failure))
        return 0;
    if (failure.errnum <= 0 || failure.errnum >= 4096) /* setup() may return anything */
        failure.errnum = EINVAL;
    return error_set(e, failure.errnum, failure.errnum, "%s: %s", failure.in_setup ? "setup" : "exec",
                     how->argv[0]);
}

int rbxj_spawn(struct rbxj *handle, const char *box, const struct rbxj_spawn *how, pid_t *ret_pid,
               int *ret_pidfd, uint32_t *ret_seq, struct rbxj_error *error)
{
    struct snapshot_box sb;
    struct child child = {.how = how, .socket = -1};
    struct started started = {.pid = -1, .pidfd = -1, .socket = -1};
    uint32_t seq = 0;
    error_clear(error);
    int r = handle_get_own(handle, box, &sb, error);
    if (r < 0)
        return r;
    r = prepare_child(&child, &started, how, error);
    if (r == 0)
        r = fork_child(&child, &started, error);
    if (r == 0)
        r = journal_child(handle, &sb, how, &started, &seq, error);
    if (r == 0)
        r = let_go(&started, how, error);
    if (r < 0)
        abandon(&started);
    if (r < 0 && seq) /* a record that can't be dropped names a process that is gone: harmless */
        (void)journal_drop(handle->journal, sb.box.incarnation, seq, NULL);
    snapshot_box_clear(&sb);
    child_clear(&child);
    cleanup_closep(&started.socket);
    if (r < 0) {
        cleanup_closep(&started.pidfd);
        return r;
    }
    *ret_pid = started.pid;
    if (ret_seq)
        *ret_seq = seq;
    if (ret_pidfd)
        *ret_pidfd = started.pidfd;
    else
        cleanup_closep(&started.pidfd);
    return 0;
}
