/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The supervisors: forked processes that do what they are asked through a socket, until they are killed.
 */
#include "../harness.h"
#include "model_world.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

const char *const model_boxes[BOXES] = {"a", "b", "c"};

static struct {
    pid_t pid;
    int socket;
} supervisors[SUPERVISORS];

/* ---- in the supervisor ---- */

static struct rbxj *handle;
static int lock_fds[PLACES];

struct rbxj_resource place_resource(enum place p)
{
    struct rbxj_resource r = {.kind = model_places[p].kind, .path = world_path(p)};
    if (r.kind == RBXJ_MOUNT) {
        r.fstype = "tmpfs";
        r.source = SAME_SOURCE;
        r.options = "size=1m";
    }
    return r;
}

static void unlock(enum place p)
{
    if (lock_fds[p] > 0)
        (void)close(lock_fds[p]);
    lock_fds[p] = 0;
}

/* As a supervisor without rbxj_acquire() does it. */
static int make(const struct request *q)
{
    const char *path = world_path(q->place);
    char source[64];
    int fd;
    switch (model_places[q->place].kind) {
    case RBXJ_LOCK:
        fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | (q->present ? 0 : O_CREAT | O_EXCL), 0600);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
            return -errno;
        unlock(q->place);
        lock_fds[q->place] = fd;
        return 0;
    case RBXJ_MOUNT:
        (void)snprintf(source, sizeof(source), "rbxj:%" PRIu64 ":%u", q->incarnation, q->seq);
        return mount(q->same_source ? SAME_SOURCE : source, path, "tmpfs", 0, "size=1m") < 0 ? -errno : 0;
    case RBXJ_TMPDIR:
    case RBXJ_CGROUP:
        return mkdir(path, 0700) < 0 ? -errno : 0;
    case RBXJ_PROCESS:
        break;
    }
    return -EINVAL;
}

static int fill(const struct request *q)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/of-the-box", world_path(q->place));
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : close(fd);
}

static int give(const struct request *q)
{
    char text[32] = "";
    if (model_places[q->place].kind != RBXJ_LOCK || !q->present) {
        bool removed = world_remove(q->place);
        unlock(q->place);
        return removed ? 0 : -errno;
    }
    if (q->content)
        (void)snprintf(text, sizeof(text), "kept %" PRIu64 "\n", q->content);
    int fd = open(world_path(q->place), O_WRONLY | O_TRUNC | O_NOFOLLOW | O_CLOEXEC);
    int r = fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) ? -errno : 0;
    cleanup_closep(&fd);
    unlock(q->place);
    return r;
}

static int begin(const struct request *q, struct reply *p, struct rbxj_error *e)
{
    struct rbxj_resource plan[MAX_PLAN];
    struct rbxj_box box = {.name = model_boxes[q->box],
                           .plan = plan,
                           .plan_len = (size_t)q->n,
                           .parent = q->parent < 0 ? NULL : model_boxes[q->parent]};
    for (int i = 0; i < q->n; i++)
        plan[i] = place_resource(q->plan[i]);
    return rbxj_begin(handle, &box, &p->incarnation, e);
}

static int start_process(const struct request *q, struct reply *p, struct rbxj_error *e)
{
    const char *const argv[] = {"/bin/sleep", "10000", NULL};
    struct rbxj_spawn how = {.argv = argv, .cgroups = &q->group, .cgroups_len = q->group != 0};
    return rbxj_spawn(handle, model_boxes[q->box], &how, &p->pid, NULL, &p->seq, e);
}

static int undo(const struct request *q, struct reply *p, struct rbxj_error *e)
{
    struct rbxj_result *result = NULL;
    struct rbxj_result_entry entry;
    int r = rbxj_undo(handle, model_boxes[q->box], &result, e);
    for (p->n = 0; result && p->n < MAX_RECORDS && rbxj_result_entry(result, 0, (size_t)p->n, &entry) == 0;
         p->n++) {
        p->entries[p->n].seq = entry.seq;
        (void)snprintf(p->entries[p->n].outcome, sizeof(p->entries[0].outcome), "%s", entry.outcome);
        if (entry.error)
            (void)snprintf(p->message, sizeof(p->message), "%s (%s)", entry.error->message,
                           entry.error->detail);
    }
    rbxj_result_free(result);
    return r;
}

static int serve(const struct request *q, struct reply *p, struct rbxj_error *e)
{
    const char *box = model_boxes[q->box];
    struct rbxj_resource resource = {0};
    int fd = -1, r;
    if (q->kind == R_INTEND || q->kind == R_TAKE)
        resource = place_resource(q->place);
    switch (q->kind) {
    case R_BEGIN:
        return begin(q, p, e);
    case R_INTEND:
        return rbxj_intend(handle, box, &resource, &p->seq, e);
    case R_TAKE:
    case R_ACQUIRE:
        r = q->kind == R_TAKE ? rbxj_take(handle, box, &resource, &p->seq, &fd, e)
                              : rbxj_acquire(handle, box, q->seq, "size=1m", &fd, e);
        if (fd > 0) {
            unlock(q->place);
            lock_fds[q->place] = fd;
        }
        return r;
    case R_MAKE:
        return make(q);
    case R_ACQUIRED:
        return rbxj_acquired(handle, box, q->seq, e);
    case R_FILL:
        return fill(q);
    case R_GIVE:
        return give(q);
    case R_RELEASED:
        return rbxj_released(handle, box, q->seq, e);
    case R_SPAWN:
        return start_process(q, p, e);
    case R_END_PROCESS:
        return kill(q->pid, SIGKILL) < 0 || waitpid(q->pid, NULL, 0) != q->pid ? -errno : 0;
    case R_UNLOCK:
        unlock(q->place);
        return 0;
    case R_UNDO:
        return undo(q, p, e);
    case R_END:
        return rbxj_end(handle, box, e);
    }
    return -EINVAL;
}

static _Noreturn void supervise(int socket)
{
    struct request q;
    struct rbxj_error e = {0};
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    int r = rbxj_open(world_options(), &handle, &e);
    while (read(socket, &q, sizeof(q)) == sizeof(q)) {
        struct reply p = {0};
        p.r = r < 0 ? r : serve(&q, &p, &e);
        if (p.r < 0 && e.code)
            (void)snprintf(p.message, sizeof(p.message), "%s (%s)", e.message, e.detail);
        if (write(socket, &p, sizeof(p)) != sizeof(p))
            break;
    }
    _exit(0);
}

/* ---- in the test ---- */

static bool start(int supervisor)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < SUPERVISORS; i++)
            if (supervisors[i].pid)
                (void)close(supervisors[i].socket);
        (void)close(ends[0]);
        supervise(ends[1]);
    }
    (void)close(ends[1]);
    supervisors[supervisor].pid = pid;
    supervisors[supervisor].socket = ends[0];
    return pid > 0;
}

bool supervisor_ask(int supervisor, const struct request *request, struct reply *ret)
{
    if (!supervisors[supervisor].pid && !start(supervisor))
        return false;
    int socket = supervisors[supervisor].socket;
    return write(socket, request, sizeof(*request)) == sizeof(*request) &&
           read(socket, ret, sizeof(*ret)) == sizeof(*ret);
}

void supervisor_kill(int supervisor)
{
    pid_t pid = supervisors[supervisor].pid;
    if (!pid)
        return;
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    (void)close(supervisors[supervisor].socket);
    supervisors[supervisor].pid = 0;
}
