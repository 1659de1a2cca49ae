/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Starting a process that cannot outlive its box (K6): the caller's side; see spawn.h.
 */
#include "reaper/spawn.h"
#include "reaper/entry.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/cgroup.h"
#include "reaper/handle.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define LOOK_AGAIN_MS 1000

struct started {
    const struct snapshot_box *sb;
    const struct rbxj_spawn *how;
    int64_t patience_ns; /* with one that is held up */
    pid_t pid;
    int pidfd;
    int socket;
    int status; /* reading end of its pipe; it waits to be let go */
};

#define STARTED_INIT                                                                                         \
    {                                                                                                        \
        .pid = -1, .pidfd = -1, .socket = -1, .status = -1                                                   \
    }

static void started_clear(struct started *s)
{
    cleanup_closep(&s->pidfd);
    cleanup_closep(&s->socket);
    cleanup_closep(&s->status);
    *s = (struct started)STARTED_INIT;
}

/* Until there is something to read of one of the two, at most for so long. */
static bool wait_for_either(int a, int b, int ms)
{
    struct pollfd fds[] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
    return poll(fds, ARRAY_LEN(fds), ms) > 0;
}

/* Whatever it was about to do: it is gone and reaped. By the pidfd, because the caller may reap too (a
 * SIGCHLD handler), and then the number is another's. False: it has been killed, and does not die yet: one in
 * a v1 cgroup that is frozen, or that waits for a server. */
static bool abandon(struct started *s)
{
    siginfo_t info;
    if (s->pidfd >= 0) {
        int64_t deadline = now_monotonic_ns() + s->patience_ns;
        (void)pidfd_send_signal(s->pidfd, SIGKILL, NULL, 0);
        while (!wait_for_either(s->pidfd, -1, LOOK_AGAIN_MS) && now_monotonic_ns() < deadline)
            ;
        while (waitid(P_PIDFD, (id_t)s->pidfd, &info, WEXITED | WNOHANG) < 0 && errno == EINTR)
            ;
        return wait_for_either(s->pidfd, -1, 0);
    }
    if (s->pid > 0) { /* in none of its cgroups yet, and on its way to wait */
        (void)kill(s->pid, SIGKILL);
        while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    return true;
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

static bool is_gone(int r)
{
    return r == -ENOENT || r == -ENOTDIR || r == -ELOOP || r == -ENODEV;
}

/* A descriptor of the cgroup that is r's, or a negative code. */
static int open_cgroup(const struct record *r, struct rbxj_error *e)
{
    struct fileid id;
    const char *base;
    _cleanup_close_ int parent = fd_open_parent(r->path, &base);
    _cleanup_close_ int fd = parent < 0 ? parent : cgroup_open(parent, base);
    int rc = fd < 0 ? fd : fileid_of_fd(fd, &id);
    if (is_gone(rc))
        return error_set(e, RBXJ_E_FOREIGN, -rc, "cgroup %s: is not there any more", r->path);
    if (rc < 0)
        return error_sys(e, -rc, "cgroup %s", r->path);
    if (!fileid_equal(&id, &r->id, true))
        return error_set(e, RBXJ_E_FOREIGN, 0, "cgroup %s: is another one now", r->path);
    return steal_fd(&fd);
}

/* The first of its cgroups that is frozen, NULL: none is. */
static const char *frozen_cgroup(const struct started *s)
{
    struct rbxj_error ignored;
    for (size_t i = 0; i < s->how->cgroups_len; i++) {
        const struct record *r;
        _cleanup_close_ int fd = find_cgroup(s->sb, s->how->cgroups[i], &r, &ignored) < 0
                                     ? -1
                                     : open_cgroup(r, &ignored);
        if (fd >= 0 && cgroup_is_frozen(fd))
            return r->path;
    }
    return NULL;
}

/* Until there is something to read of fd, or the child is dead: 0. BUSY: it is stopped, or its cgroup was
 * frozen under it, for too long. goes: it runs setup(), which may take its time and even stop itself: only
 * the freezer counts. */
static int wait_for_child(const struct started *s, int fd, bool goes, struct rbxj_error *e)
{
    int64_t since = now_monotonic_ns();
    const char *frozen = NULL;
    char who[160];
    while (!wait_for_either(fd, s->pidfd, LOOK_AGAIN_MS)) {
        int64_t now = now_monotonic_ns();
        frozen = frozen_cgroup(s);
        if (goes && !frozen)
            since = now;
        else if (now - since >= s->patience_ns)
            break;
    }
    if (wait_for_either(fd, s->pidfd, 0))
        return 0;
    procid_describe(s->pid, who, sizeof(who));
    return error_set(e, RBXJ_E_BUSY, ETIMEDOUT, "spawn: pid %d (%s) is held up%s%s%s", s->pid, who,
                     frozen ? ": cgroup " : "", frozen ? frozen : "", frozen ? " is frozen" : "");
}

static int died(const struct started *s, struct rbxj_error *e)
{
    return error_set(e, RBXJ_E_IO, ESRCH, "spawn: pid %d died before it was let go", s->pid);
}

/* Until the child waits: then it has the end of its status pipe sent. One that can't wait ran nothing. */
static int receive_status(struct started *s, struct rbxj_error *e)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    int errnum = 0;
    struct iovec iov = {.iov_base = &errnum, .iov_len = sizeof(errnum)};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    int rc = wait_for_child(s, s->socket, false, e);
    if (rc < 0)
        return rc;
    if (recvmsg(s->socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != sizeof(errnum))
        return died(s, e);
    if (errnum)
        return error_sys(e, errnum, "spawn: a pipe");
    if (message.msg_controllen < CMSG_LEN(sizeof(int))) /* the limit of this process */
        return error_sys(e, EMFILE, "spawn: a pipe");
    memcpy(&s->status, CMSG_DATA(&control.head), sizeof(int));
    return 0;
}

static int fork_child(struct spawn_child *c, struct started *s, struct rbxj_error *e)
{
    s->pid = fork();
    if (s->pid == 0) {
        (void)close(s->socket); /* where 0, 1 or 2 was free */
        spawn_child_main(c);
    }
    if (s->pid < 0)
        return error_sys(e, errno, "fork");
    cleanup_closep(&c->socket);
    c->socket = -1;
    s->pidfd = pidfd_open(s->pid, 0);
    return s->pidfd < 0 ? error_sys(e, errno, "pidfd of pid %d", s->pid) : receive_status(s, e);
}

/* Nobody is put into a cgroup that only has our name (I4). */
static int enter_cgroup(const struct record *r, pid_t pid, struct rbxj_error *e)
{
    char number[16];
    _cleanup_close_ int fd = open_cgroup(r, e);
    if (fd < 0)
        return fd;
    if (cgroup_is_frozen(fd)) /* in v1 not even SIGKILL would get it out again */
        return error_set(e, RBXJ_E_BUSY, EBUSY, "cgroup %s: is frozen: nothing can be started in it",
                         r->path);
    (void)snprintf(number, sizeof(number), "%d", pid);
    int rc = fd_write_file(fd, "cgroup.procs", number);
    if (rc == 0)
        return 0;
    if (is_gone(rc))
        return error_set(e, RBXJ_E_FOREIGN, -rc, "cgroup %s: was removed meanwhile", r->path);
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
        if (r == 0 &&
            wait_for_either(s->pidfd, -1, 0)) /* the caller may have reaped it: its number may be another's */
            r = died(s, e);
        if (r == 0)
            r = enter_cgroup(cgroup, s->pid, e);
    }
    return r;
}

/* One report of the child: 1; 0: there is none, and there will be none; or a negative code. It may have left
 * its end to somebody who goes on (setup() may fork): its own death is the end, too. */
static int read_report(const struct started *s, bool goes, struct spawn_report *ret, struct rbxj_error *e)
{
    ssize_t n;
    int rc = wait_for_child(s, s->status, goes, e);
    if (rc < 0)
        return rc;
    do
        n = read(s->status, ret, sizeof(*ret));
    while (n < 0 && errno == EINTR);
    return n == sizeof(*ret);
}

/* Lets it go; what came of that. A child that somebody killed after that was started all the same: who waits
 * for it sees how it ended. */
static int let_go(struct started *s, const struct rbxj_spawn *how, struct rbxj_error *e)
{
    struct spawn_report report;
    if (fcntl(s->status, F_SETFL, O_NONBLOCK) < 0 || send(s->socket, "", 1, MSG_NOSIGNAL) != 1)
        return errno == EPIPE ? died(s, e) : error_sys(e, errno, "spawn: letting pid %d go", s->pid);
    int rc = read_report(s, false, &report, e);
    if (rc <= 0)
        return rc < 0 ? rc : died(s, e);
    rc = read_report(s, true, &report, e);
    if (rc <= 0)
        return rc;
    int errnum = report.errnum;
    if (errnum <= 0 || errnum >= 4096) /* setup() may return anything */
        errnum = EINVAL;
    return error_set(e, errnum, errnum, "%s: %s", report.what == SPAWN_SETUP ? "setup" : "exec",
                     how->argv[0]);
}

int rbxj_spawn(struct rbxj *handle, const char *box, const struct rbxj_spawn *how, pid_t *ret_pid,
               int *ret_pidfd, uint32_t *ret_seq, struct rbxj_error *error)
{
    _cleanup_(entry_may_be_cancelled) int cancelled = entry_not_cancelled();
    struct snapshot_box sb;
    struct spawn_child child = SPAWN_CHILD_INIT;
    struct started started = STARTED_INIT;
    uint32_t seq = 0;
    bool gone = true;
    error_clear(error);
    int r = handle_get_own(handle, box, &sb, error);
    if (r < 0)
        return r;
    started.sb = &sb;
    started.how = how;
    started.patience_ns = handle->config.timeout_ns;
    r = spawn_child_prepare(&child, how, &started.socket, error);
    if (r == 0)
        r = fork_child(&child, &started, error);
    if (r == 0)
        r = journal_child(handle, &sb, how, &started, &seq, error);
    if (r == 0)
        r = let_go(&started, how, error);
    if (r < 0 && !(gone = abandon(&started)))
        error_detail(error, "pid %d was killed, but does not die yet", started.pid);
    if (r < 0 && seq && gone)
        journal_withdraw(handle->journal, &sb.box, seq, seq, false);
    if (r == 0) {
        *ret_pid = started.pid;
        if (ret_seq)
            *ret_seq = seq;
        if (ret_pidfd)
            *ret_pidfd = steal_fd(&started.pidfd);
    }
    snapshot_box_clear(&sb);
    spawn_child_clear(&child);
    started_clear(&started);
    return r;
}
