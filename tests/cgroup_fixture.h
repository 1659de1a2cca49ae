/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A box with one cgroup, and another box beside it: what the tests of the cgroup kind stand on.
 */
#ifndef RBXJ_TESTS_CGROUP_FIXTURE_H
#define RBXJ_TESTS_CGROUP_FIXTURE_H

#include "two_boxes.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/journal.h"
#include "reaper/cgroup.h"
#include "reaper/undo.h"

#include <errno.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>

/* A box with one cgroup, and another box beside it that may be given a supervisor or a record. */
static struct {
    struct config config;
    struct box box;
    struct snapshot_box boxes[2];
    struct snapshot snapshot;
    struct undo undo;
    struct record record, other;
    struct finding finding;
    struct rbxj_error error;
} x;

static const struct kind *const kind = &kind_cgroup;

static inline int64_t in_ms(int ms)
{
    return now_monotonic_ns() + (int64_t)ms * 1000000;
}

/* The intent for path; the supervisor is a process that does not exist. */
static inline int intend(const char *path)
{
    memset(&x, 0, sizeof(x));
    two_boxes(&x.config, &x.box, x.boxes, &x.snapshot, 77);
    x.record = (struct record){.incarnation = 77, .seq = 1, .kind = RBXJ_CGROUP, .owner = geteuid()};
    x.record.path = harness_format("%s", path);
    x.boxes[0].records = &x.record;
    x.boxes[0].len = 1;
    x.undo = (struct undo){.config = &x.config,
                           .box = &x.box,
                           .records = &x.record,
                           .records_len = 1,
                           .same_boot = true,
                           .deadline_ns = in_ms(5000)};
    return kind->prepare(&x.undo, &x.record, &x.error);
}

static const char *box_in(const char *cgroup)
{
    const char *path = harness_format("%s/box 7", cgroup);
    int fd = 0;
    assert_int_equal(0, intend(path));
    assert_int_equal(0, kind->acquire(&x.undo, &x.record, NULL, &fd, &x.error));
    assert_int_equal(-1, fd);
    assert_true(x.record.flags & REC_EVIDENCE);
    x.undo.snapshot = &x.snapshot;
    return path;
}

static inline struct finding *fresh(void)
{
    memset(&x.finding, 0, sizeof(x.finding));
    return &x.finding;
}

static inline enum found look(void)
{
    assert_int_equal(0, kind->look(&x.undo, &x.record, fresh()));
    return x.finding.found;
}

/* What a replay does: quiesce, wait, undo, verify. */
static inline int replay(void)
{
    int rc = kind->quiesce(&x.undo, &x.record, fresh());
    if (rc == 0)
        rc = kind->quiesced(&x.undo, &x.record, fresh());
    if (rc == 0)
        rc = kind->undo(&x.undo, &x.record, fresh());
    if (rc >= 0) {
        struct finding f = {0};
        assert_int_equal(0, kind->verify(&x.undo, &x.record, &f));
    }
    return rc;
}

static inline void assert_undone(const char *path)
{
    int rc = replay();
    if (rc != 1)
        fail_msg("%s: %d: %s", path, rc, x.finding.error.message);
    assert_false(path_exists(path));
    assert_int_equal(0, replay()); /* I5 */
    assert_int_equal(FOUND_GONE, look());
}

static inline bool lives(pid_t pid)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

static inline void assert_killed(pid_t pid)
{
    int status = harness_wait(pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static const char *child_of(const char *cgroup, const char *name)
{
    const char *path = harness_format("%s/%s", cgroup, name);
    harness_mkdir(path);
    return path;
}

/* A child that has been moved to cgroup before it runs act. */
static inline pid_t fork_into(const char *cgroup, void (*act)(void))
{
    int go[2];
    char byte = 0;
    assert_int_equal(0, pipe2(go, O_CLOEXEC));
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (read(go[0], &byte, 1) == 1)
            act();
        _exit(0);
    }
    harness_track(pid);
    harness_write(harness_format("%s/cgroup.procs", cgroup), harness_format("%d", pid));
    assert_int_equal(1, write(go[1], &byte, 1));
    (void)close(go[0]);
    (void)close(go[1]);
    return pid;
}

static inline bool has(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

#endif
