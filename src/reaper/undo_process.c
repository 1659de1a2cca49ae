/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The process kind (K6): one process, made waiting by the caller, journaled before it is let go. The intent
 * is its own evidence, so there is nothing to acquire and nothing to prove. It is only ever acted on through
 * a pidfd that was opened before its start time was read.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/journal.h"
#include "reaper/undo.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>

/* r->process.pid says which: everything else of the identity is read here. */
static int process_prepare(struct undo *u, struct record *r, struct rbxj_error *e)
{
    struct finding f = {0};
    struct procid id;
    pid_t pid = r->process.pid;
    if (pid <= 1)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "pid %d: not a process to undo", pid);
    if (guard_kill(u, pid, &f) < 0)
        return f.error.code == EBUSY ? error_set(e, RBXJ_E_BAD_REQUEST, 0, "pid %d: %s", pid, f.error.message)
                                     : error_sys(e, f.error.errnum, "pid %d: may it be killed", pid);
    int rc = procid_of(pid, &id);
    _cleanup_close_ int pidfd = rc < 0 ? rc : procid_open(&id);
    if (pidfd == -ESRCH)
        return error_set(e, RBXJ_E_BAD_REQUEST, ESRCH, "pid %d", pid);
    if (pidfd < 0)
        return error_sys(e, -pidfd, "pid %d", pid);
    r->process = id;
    r->flags |= REC_EVIDENCE;
    memcpy(r->evidence_boot, id.boot_id, sizeof(id.boot_id));
    return 0;
}

static int process_prove(struct undo *u, struct record *r, struct rbxj_error *e)
{
    (void)u;
    (void)r;
    (void)e;
    return 0;
}

/* Another process may have got the number: ours is gone then, and that one is nobody's business (K2). */
static int gone(const struct record *r, struct finding *f)
{
    struct procid now;
    f->found = FOUND_GONE;
    if (procid_of(r->process.pid, &now) < 0 || now.start_time == r->process.start_time)
        return -ESRCH;
    f->found = FOUND_FOREIGN;
    f->identity = now.start_time;
    (void)error_set(&f->error, RBXJ_E_FOREIGN, 0, "pid %d: ours is gone, another process has its number now",
                    now.pid);
    return -ESRCH;
}

/* Of another namespace: its pid says nothing here. -ESRCH: it is gone with that; another negative code. */
static int locate_elsewhere(const struct undo *u, const struct record *r, struct finding *f)
{
    int rc = journal_pid_ns_is_gone(u->config->state_dir, &r->process);
    if (rc > 0) {
        f->found = FOUND_GONE;
        return -ESRCH;
    }
    f->refused = rc == 0;
    f->found = f->refused ? FOUND_FOREIGN : FOUND_BUSY;
    if (rc < 0)
        return error_sys(&f->error, -rc, "pid %d", r->process.pid);
    return error_set(&f->error, RBXJ_E_FOREIGN, 0,
                     "pid %d: of another pid or time namespace, not visible from here", r->process.pid);
}

/* A pidfd of it; -ESRCH: it is gone (f says how); another negative code: refused. */
static int locate(const struct undo *u, const struct record *r, struct finding *f)
{
    struct procid self;
    int rc = procid_of(getpid(), &self);
    if (rc == 0 && memcmp(self.boot_id, r->process.boot_id, sizeof(self.boot_id)) != 0) {
        f->found = FOUND_GONE;
        return -ESRCH;
    }
    if (rc == 0 && !procid_comparable(&self, &r->process))
        return locate_elsewhere(u, r, f);
    int pidfd = rc < 0 ? rc : procid_open(&r->process);
    if (pidfd == -ESRCH)
        return gone(r, f);
    if (pidfd < 0) {
        f->refused = !errno_is_want(-pidfd); /* which says nothing about it */
        f->found = f->refused ? FOUND_FOREIGN : FOUND_BUSY;
        return error_sys(&f->error, -pidfd, "pid %d", r->process.pid);
    }
    f->found = FOUND_PRESENT;
    f->identity = r->process.start_time;
    return pidfd;
}

static int may_kill(struct undo *u, const struct record *r, struct finding *f)
{
    int rc = guard_kill(u, r->process.pid, f);
    if (rc < 0)
        f->found = FOUND_BUSY;
    return rc;
}

static int would_not_die(const struct record *r, struct finding *f)
{
    char state[128];
    procid_describe(r->process.pid, state, sizeof(state));
    f->found = FOUND_BUSY;
    keepers_add(&f->keepers, r->process.pid);
    (void)error_set(&f->error, RBXJ_E_BUSY, 0, "pid %d: killed, but does not die: %s", r->process.pid, state);
    return -ETIMEDOUT;
}

static int process_look(struct undo *u, const struct record *r, struct finding *f)
{
    _cleanup_close_ int pidfd = locate(u, r, f);
    if (pidfd >= 0)
        (void)may_kill(u, r, f);
    return 0;
}

static int process_quiesce(struct undo *u, const struct record *r, struct finding *f)
{
    _cleanup_close_ int pidfd = locate(u, r, f);
    if (pidfd < 0)
        return f->found == FOUND_BUSY ? pidfd : 0; /* nothing that may be killed */
    int rc = may_kill(u, r, f);
    if (rc == 0 && pidfd_send_signal(pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
        rc = error_sys(&f->error, errno, "kill: pid %d", r->process.pid);
    return rc;
}

static int process_quiesced(struct undo *u, const struct record *r, struct finding *f)
{
    _cleanup_close_ int pidfd = locate(u, r, f);
    if (pidfd < 0)
        return f->found == FOUND_BUSY ? pidfd : 0;
    int rc = pidfd_wait(pidfd, u->deadline_ns);
    if (rc == -ETIMEDOUT)
        return would_not_die(r, f);
    return rc < 0 ? error_sys(&f->error, -rc, "waiting for pid %d", r->process.pid) : 0;
}

static int process_undo(struct undo *u, struct record *r, struct finding *f)
{
    _cleanup_close_ int pidfd = locate(u, r, f);
    if (pidfd < 0)
        return pidfd == -ESRCH ? 0 : pidfd;
    int rc = may_kill(u, r, f);
    if (rc < 0)
        return rc;
    rc = pidfd_kill_wait(pidfd, u->deadline_ns);
    if (rc == -ETIMEDOUT)
        return would_not_die(r, f);
    return rc < 0 ? error_sys(&f->error, -rc, "kill: pid %d", r->process.pid) : 1;
}

static int process_verify(struct undo *u, const struct record *r, struct finding *f)
{
    _cleanup_close_ int pidfd = locate(u, r, f);
    if (pidfd >= 0)
        return error_set(&f->error, RBXJ_E_LEFT, 0, "pid %d: is still alive", r->process.pid);
    return pidfd == -ESRCH ? 0 : pidfd;
}

const struct kind kind_process = {
    .name = "process",
    .action = "kill",
    .prepare = process_prepare,
    .prove = process_prove,
    .look = process_look,
    .quiesce = process_quiesce,
    .quiesced = process_quiesced,
    .undo = process_undo,
    .verify = process_verify,
};
