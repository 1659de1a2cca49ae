/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_work.h"

#include "base/cleanup.h"
#include "crash.h"
#include "disk_log.h"
#include "disk_look.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MAX_SLOTS 8

/* One box after the other under one name. */
struct slot {
    bool begun;
    uint32_t box;
    uint32_t acquired, gone; /* a bit for each seq */
    int locks[MODEL_RECORDS];
    size_t locks_len;
};

struct worker {
    const struct work *w;
    struct model *m;
    struct rbxj *handle;
    unsigned process;
    uint64_t random;
    struct slot slots[MAX_SLOTS];
};

static _Noreturn void give_up(const char *what, const char *why)
{
    (void)dprintf(STDERR_FILENO, "workload: %s: %s\n", what, why);
    _exit(1);
}

#define MUST(call, error)                                                                                    \
    do {                                                                                                     \
        if ((call) != 0)                                                                                     \
            give_up(#call, (error).message);                                                                 \
    } while (0)

static uint32_t draw(struct worker *k, uint32_t below)
{
    return (uint32_t)(crash_random(&k->random) % below);
}

/* A new record of the box: a path that it had before, when it was another incarnation, too. */
static struct model_record *new_record(struct worker *k, struct slot *s, struct rbxj_resource *ret,
                                       char *path, size_t size)
{
    struct model_box *box = &k->m->boxes[s->box];
    struct model_record *r = &box->records[box->len];
    uint32_t die = draw(k, 10);
    *r = (struct model_record){
        .kind = die < 3 ? RBXJ_LOCK : RBXJ_TMPDIR,
        .parent = die % 3 == 1 ? PARENT_LOST
                  : k->w->big  ? PARENT_DEEP
                               : PARENT_KEPT,
    };
    (void)snprintf(r->base, sizeof(r->base), "p%u-%u-%u-%s", k->process, (unsigned)(s - k->slots), box->len,
                   r->kind == RBXJ_LOCK ? "l" : "d");
    box->len++;
    model_path(k->m, r, path, size);
    *ret = (struct rbxj_resource){.kind = r->kind, .path = path};
    return r;
}

static void do_begin(struct worker *k, struct slot *s, unsigned number)
{
    static char paths[MODEL_RECORDS][4096];
    struct rbxj_resource plan[MODEL_RECORDS];
    struct rbxj_error e = {0};
    char name[24];
    uint32_t n = k->w->big ? 8 + draw(k, 20) : draw(k, 4);
    (void)snprintf(name, sizeof(name), "p%u-%u", k->process, number);
    *s = (struct slot){.begun = true, .box = model_box_new(k->m, k->process, name)};
    for (uint32_t i = 0; i < n; i++)
        (void)new_record(k, s, &plan[i], paths[i], sizeof(paths[i]));
    struct rbxj_box box = {.name = k->m->boxes[s->box].name, .plan = plan, .plan_len = n};
    struct model_op *op = model_start(k->m, k->process, MODEL_ADD, s->box, 0, n);
    MUST(rbxj_begin(k->handle, &box, &k->m->boxes[s->box].incarnation, &e), e);
    model_end(op);
}

static void do_intend(struct worker *k, struct slot *s)
{
    char path[4096];
    struct rbxj_error e = {0};
    struct rbxj_resource resource;
    uint32_t seq, want = k->m->boxes[s->box].len;
    if (want >= MODEL_RECORDS - 1)
        return;
    (void)new_record(k, s, &resource, path, sizeof(path));
    struct model_op *op = model_start(k->m, k->process, MODEL_ADD, s->box, want, want);
    MUST(rbxj_intend(k->handle, k->m->boxes[s->box].name, &resource, &seq, &e), e);
    model_end(op);
    if (seq != want)
        give_up("rbxj_intend", "gave another number");
}

static void fill(const char *dir)
{
    char path[4200];
    (void)snprintf(path, sizeof(path), "%s/file", dir);
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, "x", 1) != 1)
        give_up(path, strerror(errno));
}

static void do_acquire(struct worker *k, struct slot *s)
{
    const struct model_box *box = &k->m->boxes[s->box];
    struct rbxj_error e = {0};
    char path[4096];
    int fd = -1;
    for (uint32_t seq = 1; seq < box->len; seq++) {
        if (((s->acquired | s->gone) & (1u << seq)) || draw(k, 3) == 0)
            continue;
        MUST(rbxj_acquire(k->handle, box->name, seq, NULL, &fd, &e), e);
        s->acquired |= 1u << seq;
        model_path(k->m, &box->records[seq], path, sizeof(path));
        if (box->records[seq].kind == RBXJ_LOCK)
            s->locks[s->locks_len++] = fd;
        else if (draw(k, 2))
            fill(path);
    }
}

/* Gives one directory back by itself. */
static void do_release(struct worker *k, struct slot *s)
{
    const struct model_box *box = &k->m->boxes[s->box];
    struct rbxj_error e = {0};
    char path[4096];
    uint32_t seq = box->len > 1 ? 1 + draw(k, box->len - 1) : 0;
    if (!(s->acquired & (1u << seq)) || box->records[seq].kind != RBXJ_TMPDIR)
        return;
    model_path(k->m, &box->records[seq], path, sizeof(path));
    if (unlinkat(AT_FDCWD, path, AT_REMOVEDIR) < 0)
        return; /* not empty */
    s->acquired &= ~(1u << seq);
    s->gone |= 1u << seq;
    struct model_op *op = model_start(k->m, k->process, MODEL_DROP, s->box, seq, seq);
    MUST(rbxj_released(k->handle, box->name, seq, &e), e);
    model_end(op);
}

static void do_undo(struct worker *k, struct slot *s)
{
    const struct model_box *box = &k->m->boxes[s->box];
    struct rbxj_error e = {0};
    atomic_fetch_add(&k->m->cleanups, 1);
    struct model_op *op = model_start(k->m, k->process, MODEL_DROP, s->box, 1, box->len - 1);
    MUST(rbxj_undo(k->handle, box->name, NULL, &e), e);
    model_end(op);
    while (s->locks_len)
        (void)close(s->locks[--s->locks_len]);
    s->acquired = 0;
    s->gone = (1u << box->len) - 1;
    if (draw(k, 4) == 0)
        return;
    op = model_start(k->m, k->process, MODEL_DROP, s->box, 0, 0);
    MUST(rbxj_end(k->handle, box->name, &e), e);
    model_end(op);
    s->begun = false;
}

static void step(struct worker *k)
{
    unsigned number = draw(k, k->w->slots);
    struct slot *s = &k->slots[number];
    if (!s->begun) {
        do_begin(k, s, number);
        return;
    }
    switch (draw(k, 6)) {
    case 0:
        do_intend(k, s);
        break;
    case 1:
    case 2:
        if (!k->w->big)
            do_acquire(k, s);
        break;
    case 3:
        do_release(k, s);
        break;
    default:
        do_undo(k, s);
        break;
    }
}

void work_as(const struct work *w, unsigned process)
{
    struct worker k = {.w = w, .m = w->model, .process = process, .random = w->random + process * 0x1234567};
    struct rbxj_error e = {0};
    MUST(rbxj_open(&w->options, &k.handle, &e), e);
    if (w->killed && process > 0)
        disk_writes_left = 1 + draw(&k, 150);
    for (unsigned i = 0; i < w->operations; i++)
        step(&k);
    rbxj_close(k.handle);
}

void work_run(const struct work *w)
{
    pid_t pids[MODEL_PROCESSES];
    (void)fflush(NULL);
    for (unsigned p = 0; p < w->processes; p++) {
        pids[p] = fork();
        assert_true(pids[p] >= 0);
        if (pids[p] == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            work_as(w, p);
            _exit(0);
        }
        harness_track(pids[p]);
    }
    for (unsigned p = 0; p < w->processes; p++)
        assert_int_equal(harness_wait(pids[p]), 0);
}
