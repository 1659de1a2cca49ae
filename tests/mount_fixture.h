/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A box with some mounts, and another box beside it: what the tests of the mount kind stand on.
 */
#ifndef RBXJ_TESTS_MOUNT_FIXTURE_H
#define RBXJ_TESTS_MOUNT_FIXTURE_H

#include "two_boxes.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/journal.h"
#include "reaper/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#define RECORDS_MAX 4

/* A box with some records, and another box beside it. */
static struct {
    struct config config;
    struct box box;
    struct snapshot_box boxes[2];
    struct snapshot snapshot;
    struct undo undo;
    struct record records[RECORDS_MAX];
    struct finding f;
    struct rbxj_error error;
} x;

static const struct kind *const kind = &kind_mount;

static inline int setup(void **state)
{
    int rc = harness_setup(state);
    memset(&x, 0, sizeof(x));
    if (rc)
        return rc;
    /* never used twice: a test that runs at the same time must not have our source elsewhere */
    uint64_t incarnation;
    random_bytes(&incarnation, sizeof(incarnation));
    two_boxes(&x.config, &x.box, x.boxes, &x.snapshot, incarnation);
    x.boxes[0].records = x.records;
    harness_mkdir(x.config.runtime_dir);
    x.undo = (struct undo){.config = &x.config,
                           .box = &x.box,
                           .records = x.records,
                           .snapshot = &x.snapshot,
                           .same_boot = true,
                           .busy_retries = 3,
                           .deadline_ns = now_monotonic_ns() + 20000000000LL};
    return 0;
}

static inline int teardown(void **state)
{
    for (size_t i = 0; i < RECORDS_MAX; i++)
        record_clear(&x.records[i]);
    mounts_free(x.undo.mounts);
    return harness_teardown(state);
}
#define mount_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static const char *dir(const char *name)
{
    const char *path = harness_format("%s/%s", harness_disk(), name);
    harness_mkdir(path);
    return path;
}

/* Of a process; 0: our own. */
static inline uint64_t ns_of(pid_t pid)
{
    uint64_t ns = 0;
    assert_int_equal(0, mount_ns_find(pid, &ns));
    return ns;
}

static inline void tmpfs_on(const char *path, const char *source)
{
    assert_int_equal(0, mount(source, path, "tmpfs", 0, "size=64k"));
}

/* The boxes' directory, shared as / is on a system with systemd. */
static inline const char *shared_dir(void)
{
    const char *path = dir("shared");
    tmpfs_on(path, "shared");
    assert_int_equal(0, mount(NULL, path, NULL, MS_SHARED, NULL));
    return path;
}

/* A child that does that, and then waits to be killed. */
static inline pid_t child_that_waits(bool (*make_ready)(const void *data), const void *data)
{
    int ready[2];
    char c;
    assert_int_equal(0, pipe2(ready, O_CLOEXEC));
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (!make_ready(data))
            _exit(1);
        (void)!write(ready[1], "x", 1);
        (void)close(ready[1]);
        for (;;)
            pause();
    }
    harness_track(pid);
    (void)close(ready[1]);
    assert_int_equal(1, read(ready[0], &c, 1));
    (void)close(ready[0]);
    return pid;
}

static inline struct record *add(const char *fstype, const char *source, const char *target)
{
    struct record *r = &x.records[x.undo.records_len++];
    *r = (struct record){
        .incarnation = x.box.incarnation, .seq = (uint32_t)x.undo.records_len, .kind = RBXJ_MOUNT};
    r->path = strdup(target);
    r->fstype = strdup(fstype);
    r->source = strdup(source);
    x.boxes[0].len = x.undo.records_len;
    return r;
}

static inline struct record *intend(const char *fstype, const char *source, const char *target)
{
    struct record *r = add(fstype, source, target);
    memset(&x.error, 0, sizeof(x.error));
    int rc = kind->prepare(&x.undo, r, &x.error);
    if (rc < 0)
        print_error("prepare: %s\n", x.error.message);
    assert_int_equal(0, rc);
    return r;
}

static inline struct record *acquire(const char *fstype, const char *source, const char *target,
                                     const char *options)
{
    int fd = 0;
    struct record *r = intend(fstype, source, target);
    int rc = kind->acquire(&x.undo, r, options, &fd, &x.error);
    if (rc < 0)
        print_error("acquire: %s\n", x.error.message);
    assert_int_equal(0, rc);
    assert_int_equal(-1, fd);
    assert_true(r->flags & REC_EVIDENCE);
    return r;
}

/* The caller mounted it. */
static inline void prove(struct record *r)
{
    int rc = kind->prove(&x.undo, r, &x.error);
    if (rc < 0)
        print_error("prove: %s\n", x.error.message);
    assert_int_equal(0, rc);
}

/* Another pass: mountinfo is read anew. */
static inline struct finding *pass(void)
{
    mounts_free(x.undo.mounts);
    x.undo.mounts = NULL;
    memset(&x.f, 0, sizeof(x.f));
    return &x.f;
}

static inline enum found look(struct record *r)
{
    int rc = kind->look(&x.undo, r, pass());
    if (rc < 0)
        print_error("look: %s\n", x.f.error.message);
    assert_int_equal(0, rc);
    return x.f.found;
}

/* Looks until it is found so: something else on the machine may show a device number that was just given
 * up. */
static inline void assert_becomes(enum found expected, struct record *r)
{
    for (int i = 0; i < 100 && look(r) != expected; i++)
        usleep(20000);
    assert_int_equal(expected, x.f.found);
}

static inline int undo(struct record *r)
{
    return kind->undo(&x.undo, r, pass());
}

static inline int verify(struct record *r)
{
    memset(&x.f, 0, sizeof(x.f));
    return kind->verify(&x.undo, r, &x.f);
}

static inline void assert_undone(struct record *r)
{
    assert_int_equal(FOUND_PRESENT, look(r));
    assert_true(x.f.identity != 0);
    int rc = undo(r);
    if (rc != 1)
        print_error("undo: %d: %s: %s\n", rc, x.f.error.message, x.f.error.detail);
    assert_int_equal(1, rc);
    assert_int_equal(0, verify(r));
    assert_int_equal(FOUND_GONE, look(r));
    assert_int_equal(0, undo(r)); /* I5 */
    assert_int_equal(0, verify(r));
}

static inline size_t mounted(const char *path)
{
    return harness_mounts_below(path);
}

#endif
