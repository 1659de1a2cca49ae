/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For crash_alloc.c: the life of a supervisor in steps, each of which is one call, and what the system must
 * show after a call that said that it succeeded. It runs in a forked process, which tells by told->error.
 */
#ifndef RBXJ_TESTS_CRASH_ALLOC_LIFE_H
#define RBXJ_TESTS_CRASH_ALLOC_LIFE_H

#include "../replay_fixture.h"

#include "base/error.h"

#define LIFE_BOX "a"

struct life {
    struct rbxj *handle;
    unsigned int parts;
    bool begun, lock_lost, is_short;
    unsigned int not_taken;
    int lock_fd, taken_fd, pidfd;
    uint32_t hand_seq, taken_seq[5];
    pid_t payload;
    uint64_t incarnation;
    struct rbxj_result *result; /* of the undo */
};

/* The extra things that are not in the plan: taken one by one. */
static const enum part life_taken[] = {LOCK, GROUP, MOUNT, TMPDIR};
#define LIFE_TAKEN "a.taken"

static const char *life_path(const char *name)
{
    static char buf[4][PATH_MAX];
    static unsigned int next;
    char *path = buf[next++ % 4];
    (void)snprintf(path, PATH_MAX, "%s/a.%s", world.work, name);
    return path;
}

/* ---- what the system shows ---- */

static bool is_mounted(const char *path)
{
    struct stat st, up;
    char parent[PATH_MAX + 4];
    (void)snprintf(parent, sizeof(parent), "%s/..", path);
    return stat(path, &st) == 0 && stat(parent, &up) == 0 && st.st_dev != up.st_dev;
}

static bool is_flocked(const char *path)
{
    _cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);
    return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

static bool life_is_there(const char *box, enum part p)
{
    const char *path = part_path(box, p);
    return p == LOCK ? is_flocked(path) : p == MOUNT ? is_mounted(path) : path_exists(path);
}

static bool life_is_gone(const char *box, enum part p)
{
    const char *path = part_path(box, p);
    return p == MOUNT ? !is_mounted(path) : !path_exists(path);
}

/* How many records the journal has of the box; -1: there is no such box. */
static int life_records(void)
{
    struct rbxj_result *result = NULL;
    struct rbxj_result_box b;
    struct rbxj_error e = {0};
    int n = -1;
    must_do(rbxj_list(&world.options, NULL, &result, &e), &e);
    for (size_t i = 0; rbxj_result_box(result, i, &b) == 0; i++)
        if (strcmp(b.box, LIFE_BOX) == 0)
            n = (int)b.entries;
    rbxj_result_free(result);
    return n;
}

/* ---- the steps: i is the number of the part ---- */

static int life_open(struct life *l, int i, struct rbxj_error *e)
{
    (void)i;
    return rbxj_open(&world.options, &l->handle, e);
}

static int life_begin(struct life *l, int i, struct rbxj_error *e)
{
    struct rbxj_resource plan[PARTS];
    struct rbxj_box b = {.name = LIFE_BOX, .plan = plan};
    uint64_t incarnation;
    (void)i;
    for (enum part p = 0; p < PARTS; p++)
        if (l->parts & 1U << p)
            plan[b.plan_len++] = part_resource(LIFE_BOX, p);
    return rbxj_begin(l->handle, &b, &incarnation, e);
}

static void life_has_begun(struct life *l, int i)
{
    (void)i;
    l->begun = true;
    must(life_records() == __builtin_popcount(l->parts & ((1U << PARTS) - 1)));
}

static uint32_t life_seq(const struct life *l, int i)
{
    return (uint32_t)__builtin_popcount(l->parts & ((2U << i) - 1));
}

static int life_acquire(struct life *l, int i, struct rbxj_error *e)
{
    int fd = -1;
    int r = rbxj_acquire(l->handle, LIFE_BOX, life_seq(l, i), i == MOUNT ? "size=1m,nosuid" : NULL, &fd, e);
    if (fd >= 0)
        l->lock_fd = fd;
    return r;
}

/* It failed after the thing was made, perhaps: then it is told so. A lock whose descriptor is gone stays
 * lost. */
static int life_acquire_again(struct life *l, int i, struct rbxj_error *e)
{
    struct rbxj_error first = {0};
    int r = life_acquire(l, i, &first);
    if (r != -RBXJ_E_EXISTS)
        return error_pass(e, &first);
    l->lock_lost = l->lock_lost || i == LOCK;
    return rbxj_acquired(l->handle, LIFE_BOX, life_seq(l, i), e);
}

static void life_has_acquired(struct life *l, int i)
{
    must(i == LOCK && l->lock_lost ? path_exists(part_path(LIFE_BOX, LOCK))
                                   : life_is_there(LIFE_BOX, (enum part)i));
}

static int life_take(struct life *l, int i, struct rbxj_error *e)
{
    struct rbxj_resource r = part_resource(LIFE_TAKEN, life_taken[i]);
    int fd = -1;
    int rc = rbxj_take(l->handle, LIFE_BOX, &r, &l->taken_seq[i], &fd, e);
    if (fd >= 0)
        l->taken_fd = fd;
    return rc;
}

/* What could not be taken back for want of memory is left to the undo, as rbxj_take() says. */
static int life_take_again(struct life *l, int i, struct rbxj_error *e)
{
    int r = life_take(l, i, e);
    /* of a mount: what lies at the same place was never acquired */
    if (!l->is_short || (r != -RBXJ_E_EXISTS && r != -RBXJ_E_BAD_REQUEST))
        return r;
    *e = (struct rbxj_error){0};
    l->not_taken |= 1U << i;
    return 0;
}

static void life_has_taken(struct life *l, int i)
{
    must(l->not_taken & 1U << i || life_is_there(LIFE_TAKEN, life_taken[i]));
}

/* By hand: intend, make it, tell. */
static int life_intend(struct life *l, int i, struct rbxj_error *e)
{
    struct rbxj_resource r = {.kind = RBXJ_TMPDIR, .path = life_path("hand")};
    (void)i;
    return rbxj_intend(l->handle, LIFE_BOX, &r, &l->hand_seq, e);
}

static int life_acquired(struct life *l, int i, struct rbxj_error *e)
{
    (void)i;
    must(mkdir(life_path("hand"), 0700) == 0 || errno == EEXIST);
    return rbxj_acquired(l->handle, LIFE_BOX, l->hand_seq, e);
}

static int life_released(struct life *l, int i, struct rbxj_error *e)
{
    (void)i;
    must(rmdir(life_path("hand")) == 0 || errno == ENOENT);
    return rbxj_released(l->handle, LIFE_BOX, l->hand_seq, e);
}

static int life_spawn(struct life *l, int i, struct rbxj_error *e)
{
    const char *const argv[] = {"sleep", "1000000", NULL};
    uint32_t groups[2], seq;
    struct rbxj_spawn how = {.argv = argv, .cgroups = groups};
    (void)i;
    for (enum part p = GROUP; p <= GROUP_V1; p++)
        if (l->parts & 1U << p)
            groups[how.cgroups_len++] = life_seq(l, (int)p);
    return rbxj_spawn(l->handle, LIFE_BOX, &how, &l->payload, &l->pidfd, &seq, e);
}

static void life_has_spawned(struct life *l, int i)
{
    (void)i;
    must(kill(l->payload, 0) == 0);
    told->payload = l->payload;
}

static int life_undo(struct life *l, int i, struct rbxj_error *e)
{
    (void)i;
    rbxj_result_free(l->result);
    l->result = NULL;
    return rbxj_undo(l->handle, LIFE_BOX, &l->result, e);
}

static void must_be_gone(const char *box, enum part p)
{
    if (life_is_gone(box, p))
        return;
    (void)snprintf(told->error, sizeof(told->error), "%s is still there", part_path(box, p));
    _exit(1);
}

static void life_has_undone(struct life *l, int i)
{
    (void)i;
    for (enum part p = 0; p < PARTS; p++)
        if (l->parts & 1U << p)
            must_be_gone(LIFE_BOX, p);
    for (size_t k = 0; k < ARRAY_LEN(life_taken); k++)
        must_be_gone(LIFE_TAKEN, life_taken[k]);
    must(!path_exists(life_path("hand")));
    must(!l->payload || is_dead(l->payload));
    must(life_records() == 0);
    if (l->payload)
        (void)waitpid(l->payload, NULL, 0);
    rbxj_result_free(l->result);
    l->result = NULL;
}

static int life_end(struct life *l, int i, struct rbxj_error *e)
{
    (void)i;
    return rbxj_end(l->handle, LIFE_BOX, e);
}

static void life_has_ended(struct life *l, int i)
{
    (void)i;
    l->begun = false;
    must(life_records() == -1);
}

struct life_step {
    const char *name;
    int i;
    int (*run)(struct life *l, int i, struct rbxj_error *e);
    void (*check)(struct life *l, int i);                      /* it returned 0: is it so? */
    int (*again)(struct life *l, int i, struct rbxj_error *e); /* after a failure; NULL: run */
};

static const struct life_step life_steps[] = {
    {"open", 0, life_open, NULL, NULL},
    {"begin", 0, life_begin, life_has_begun, NULL},
    {"acquire", LOCK, life_acquire, life_has_acquired, life_acquire_again},
    {"acquire", GROUP, life_acquire, life_has_acquired, life_acquire_again},
    {"acquire", GROUP_V1, life_acquire, life_has_acquired, life_acquire_again},
    {"acquire", MOUNT, life_acquire, life_has_acquired, life_acquire_again},
    {"acquire", INNER, life_acquire, life_has_acquired, life_acquire_again},
    {"acquire", TMPDIR, life_acquire, life_has_acquired, life_acquire_again},
    {"take", 0, life_take, life_has_taken, life_take_again},
    {"take", 1, life_take, life_has_taken, life_take_again},
    {"take", 2, life_take, life_has_taken, life_take_again},
    {"take", 3, life_take, life_has_taken, life_take_again},
    {"intend", 0, life_intend, NULL, NULL},
    {"acquired", 0, life_acquired, NULL, NULL},
    {"released", 0, life_released, NULL, NULL},
    {"spawn", 0, life_spawn, life_has_spawned, NULL},
    {"undo", 0, life_undo, life_has_undone, NULL},
    {"end", 0, life_end, life_has_ended, NULL},
    {0},
};

/* Is there such a thing on this machine? */
static bool life_has_step(const struct life *l, const struct life_step *step)
{
    return step->check != life_has_acquired || l->parts & 1U << step->i;
}

#endif
