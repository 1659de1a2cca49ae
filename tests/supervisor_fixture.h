/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A world with a journal of its own, and supervisors in it that are killed at a chosen moment; see
 * replay_fixture.h.
 */
#ifndef RBXJ_TESTS_SUPERVISOR_FIXTURE_H
#define RBXJ_TESTS_SUPERVISOR_FIXTURE_H

#include "harness.h"
#include "picture.h"

#include "base/cleanup.h"
#include "rbxj.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- the world ---- */

static struct world {
    const char *state, *run, *work;
    const char *group, *group_v1; /* boxes' cgroups are made in them; v1 NULL: there is none */
    struct rbxj_options options;
} world;

/* What a forked supervisor tells the test. */
static struct told {
    volatile pid_t payload;
    volatile uint64_t incarnation;
    volatile int lock_fd, result;
    char error[600];
} * told;

static inline void world_open(void)
{
    harness_need_root();
    setenv("RBXJ_DURABILITY", "resource", 1);
    world = (struct world){
        .state = harness_format("%s/state", harness_disk()),
        .run = harness_format("%s/run", harness_disk()),
        .work = harness_format("%s/work", harness_disk()),
        .group = harness_cgroup(),
    };
    world.group_v1 = harness_cgroup_root("freezer") ? harness_cgroup_v1("freezer") : NULL;
    world.options.state_dir = world.state;
    world.options.runtime_dir = world.run;
    harness_write(harness_format("%s/conf", harness_disk()), "[replay]\njobs=1\n");
    harness_mkdir(world.state);
    harness_mkdir(world.run);
    harness_mkdir(world.work);
    if (!told)
        told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(told != MAP_FAILED);
    memset(told, 0, sizeof(*told));
}

/* ---- a box ---- */

enum part { LOCK, GROUP, GROUP_V1, MOUNT, INNER, TMPDIR, PARTS, PROCESS = PARTS };
enum { ALL = (1 << (PROCESS + 1)) - 1 };
static const char *const part_names[] = {"lock",         "cgroup", "cgroup v1", "mount",
                                         "inner tmpdir", "tmpdir", "process"};

static inline const char *part_path(const char *box, enum part part)
{
    static const char *const forms[] = {"%s/%s.lock", "%s/%s",        "%s/%s",
                                        "%s/%s.mnt",  "%s/%s.mnt/in", "%s/%s.tmp"};
    const char *dir = part == GROUP ? world.group : part == GROUP_V1 ? world.group_v1 : world.work;
    static char buf[8][PATH_MAX];
    static unsigned int next;
    char *path = buf[next++ % 8];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)snprintf(path, PATH_MAX, forms[part], dir, box);
#pragma GCC diagnostic pop
    return path;
}

/* The parts of which this machine has the means. */
static inline unsigned int possible(unsigned int parts)
{
    return world.group_v1 ? parts : parts & ~(1U << GROUP_V1);
}

static inline struct rbxj_resource part_resource(const char *box, enum part part)
{
    static const enum rbxj_kind kinds[] = {RBXJ_LOCK,  RBXJ_CGROUP, RBXJ_CGROUP,
                                           RBXJ_MOUNT, RBXJ_TMPDIR, RBXJ_TMPDIR};
    struct rbxj_resource r = {.kind = kinds[part], .path = part_path(box, part)};
    if (part == MOUNT) {
        r.fstype = "tmpfs";
        r.source = "rbxj-test";
        r.options = "size=1m";
    }
    return r;
}

/* ---- in the supervisor: no assertions, its exit status tells ---- */

#define must(expression)                                                                                     \
    do {                                                                                                     \
        if (!(expression)) {                                                                                 \
            (void)snprintf(told->error, sizeof(told->error), "%s:%d: %s: %s", __FILE__, __LINE__,            \
                           #expression, strerror(errno));                                                    \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)

static inline void must_do(int r, const struct rbxj_error *e)
{
    if (r < 0) {
        (void)snprintf(told->error, sizeof(told->error), "%s (%s)", e->message, e->detail);
        _exit(1);
    }
}

static inline void die(void)
{
    (void)raise(SIGKILL);
}

static inline void write_to(const char *path, const char *text)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

static inline struct rbxj *open_here(void)
{
    struct rbxj_error e = {0};
    struct rbxj *handle = NULL;
    must_do(rbxj_open(&world.options, &handle, &e), &e);
    return handle;
}

static inline void begin_here(struct rbxj *handle, const char *box, unsigned int parts)
{
    struct rbxj_resource plan[PARTS];
    struct rbxj_box b = {.name = box, .plan = plan};
    struct rbxj_error e = {0};
    uint64_t incarnation;
    for (enum part p = 0; p < PARTS; p++)
        if (parts & 1U << p)
            plan[b.plan_len++] = part_resource(box, p);
    must_do(rbxj_begin(handle, &b, &incarnation, &e), &e);
    told->incarnation = incarnation;
}

static inline void acquire_here(struct rbxj *handle, const char *box, unsigned int parts)
{
    struct rbxj_error e = {0};
    uint32_t seq = 0;
    for (enum part p = 0; p < PARTS; p++) {
        int fd = -1;
        if (!(parts & 1U << p))
            continue;
        must_do(rbxj_acquire(handle, box, ++seq, p == MOUNT ? "size=1m" : NULL, &fd, &e), &e);
        if (p == LOCK)
            told->lock_fd = fd;
    }
}

/* What a supervisor that does not use rbxj_acquire() does itself, and never comes to tell. */
static inline void acquire_bare(const char *box, unsigned int parts)
{
    uint32_t seq = 0;
    for (enum part p = 0; p < PARTS; p++) {
        const char *path = part_path(box, p);
        if (!(parts & 1U << p))
            continue;
        seq++;
        if (p == LOCK) {
            int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
            must(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0);
        } else if (p == MOUNT) {
            char source[64];
            (void)snprintf(source, sizeof(source), "rbxj:%" PRIu64 ":%u", told->incarnation, seq);
            must(mount(source, path, "tmpfs", 0, "size=1m") == 0);
        } else {
            must(mkdir(path, 0700) == 0);
        }
    }
}

/* A child that waits until it is let go, journaled in between (K6): at end of file it exits. */
static inline void payload_here(struct rbxj *handle, const char *box, unsigned int parts, bool journaled,
                                bool let_go)
{
    struct rbxj_error e = {0};
    int pipefd[2];
    char byte;
    must(pipe2(pipefd, O_CLOEXEC) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)dup2(pipefd[0], 3);
        (void)close_range(4, ~0U, 0);
        if (read(3, &byte, 1) != 1)
            _exit(0);
        for (;;)
            pause();
    }
    must(pid > 0);
    told->payload = pid;
    if (journaled) {
        struct rbxj_resource r = {.kind = RBXJ_PROCESS, .pid = pid};
        uint32_t seq;
        must_do(rbxj_intend(handle, box, &r, &seq, &e), &e);
    }
    char text[16];
    (void)snprintf(text, sizeof(text), "%d", pid);
    for (enum part p = GROUP; p <= GROUP_V1; p++)
        if (let_go && parts & 1U << p) {
            char procs[PATH_MAX + 16];
            (void)snprintf(procs, sizeof(procs), "%s/cgroup.procs", part_path(box, p));
            write_to(procs, text);
        }
    if (let_go)
        must(write(pipefd[1], "x", 1) == 1);
}

static inline void fill_here(const char *box, unsigned int parts)
{
    for (enum part p = INNER; p <= TMPDIR; p++) {
        char path[PATH_MAX + 32];
        if (!(parts & 1U << p))
            continue;
        (void)snprintf(path, sizeof(path), "%s/deep", part_path(box, p));
        must(mkdir(path, 0700) == 0);
        (void)snprintf(path, sizeof(path), "%s/deep/a\n\033[31mname", part_path(box, p));
        write_to(path, "content");
        (void)snprintf(path, sizeof(path), "%s/link", part_path(box, p));
        must(symlink("/etc", path) == 0);
    }
}

static inline void take_all_here(struct rbxj *handle, const char *box, unsigned int parts)
{
    begin_here(handle, box, parts);
    acquire_here(handle, box, parts);
    fill_here(box, parts);
    if (parts & 1U << PROCESS)
        payload_here(handle, box, parts, true, true);
}

/* ---- from the test ---- */

enum moment { AFTER_INTENT, AFTER_ACQUISITION, AFTER_EVIDENCE, LIVES };
static const char *const moment_names[] = {"the intent", "the acquisition", "the evidence"};

static int ready_fd; /* of the supervisor */

static inline void ready_here(void)
{
    must(write(ready_fd, "r", 1) == 1);
}

/* A forked supervisor calls run(box, parts), and is then waited for: killed by SIGKILL, or living and
 * waiting. */
static inline pid_t supervisor_fork(void (*run)(const char *box, unsigned int parts), const char *box,
                                    unsigned int parts)
{
    int ready[2];
    char byte = 0;
    told->error[0] = 0;
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close(ready[0]);
        ready_fd = ready[1];
        run(box, possible(parts));
        ready_here();
        for (;;)
            pause();
    }
    assert_true(pid > 0);
    (void)close(ready[1]);
    ssize_t n = read(ready[0], &byte,
                     1); /* nobody but the supervisor has the other end: end of file is its death */
    (void)close(ready[0]);
    if (n == 1) {
        harness_track(pid);
        return pid;
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("the supervisor of %s ended with %#x: %s", box, status, told->error);
    return 0;
}

static inline void run_after_intent(const char *box, unsigned int parts)
{
    begin_here(open_here(), box, parts);
    die();
}

static inline void run_after_acquisition(const char *box, unsigned int parts)
{
    struct rbxj *handle = open_here();
    begin_here(handle, box, parts);
    acquire_bare(box, parts);
    if (parts & 1U << PROCESS)
        payload_here(handle, box, parts, false, false);
    die();
}

static inline void run_after_evidence(const char *box, unsigned int parts)
{
    take_all_here(open_here(), box, parts);
    die();
}

static inline void run_lives(const char *box, unsigned int parts)
{
    take_all_here(open_here(), box, parts);
}

/* Mount targets are there before (K5). */
static inline void make_target(const char *box, unsigned int parts)
{
    if (parts & 1U << MOUNT && !path_exists(part_path(box, MOUNT)))
        harness_mkdir(part_path(box, MOUNT));
}

static inline pid_t supervisor_start(const char *box, unsigned int parts, enum moment moment)
{
    void (*const runs[])(const char *, unsigned int) = {run_after_intent, run_after_acquisition,
                                                        run_after_evidence, run_lives};
    make_target(box, parts);
    return supervisor_fork(runs[moment], box, parts);
}

#endif
