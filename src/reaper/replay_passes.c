/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The passes of a replay (DESIGN "Replay").
 *
 *   pass:  quiesce each; wait for each; read mountinfo; undo each, newest box first; settle all
 *
 * Passes repeat while something changes: what was busy may be free once another box is gone. It always ends:
 * each pass but the last drops at least one record.
 */
#include "reaper/replay_passes.h"

#include "base/fd.h"
#include "reaper/handle.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <unistd.h>

#define WORKER_STACK (512 * 1024) /* whatever the process gives its threads by default: some take 64 KiB */

/* ---- undoing, with several boxes at once: each worker reads mountinfo for itself ---- */

struct workers {
    struct replay *p;
    size_t end; /* boxes[next..end) */
    atomic_size_t next, done;
    atomic_uint workers;
};

static void work(struct workers *w, struct reaper *reaper, bool reports)
{
    struct replay *p = w->p;
    for (size_t i; (i = atomic_fetch_add(&w->next, 1)) < w->end;) {
        struct teardown *t = &p->boxes[i];
        if (t->claimed) {
            t->reaper = reaper;
            teardown_undo(t);
            t->reaper = &p->reaper;
        }
        size_t done = atomic_fetch_add(&w->done, 1) + 1;
        if (reports && p->how->progress)
            p->how->progress(p->how->progress_data, done, p->len);
    }
}

static void *work_in_thread(void *data)
{
    struct workers *w = data;
    struct reaper reaper = w->p->reaper;
    reaper.mounts = NULL;
    reaper.worker = atomic_fetch_add(&w->workers, 1) + 1;
    work(w, &reaper, false);
    mounts_free(reaper.mounts);
    return NULL;
}

static void undo_each(struct replay *p, size_t from, size_t to)
{
    pthread_t threads[JOURNAL_WORKERS - 1];
    struct workers w = {.p = p, .next = from, .done = from, .end = to};
    size_t jobs = p->reaper.config->jobs ? (size_t)p->reaper.config->jobs
                                         : (size_t)sysconf(_SC_NPROCESSORS_ONLN);
    size_t started = 0;
    pthread_attr_t attr;
    sigset_t all, before;
    bool can = jobs > 1 && pthread_attr_init(&attr) == 0;
    if (can)
        (void)pthread_attr_setstacksize(&attr, WORKER_STACK);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the caller's own threads */
    /* a thread that can't be had is no loss: the others do its boxes */
    while (can && started + 1 < jobs && started + 1 < to - from && started < JOURNAL_WORKERS - 1 &&
           pthread_create(&threads[started], &attr, work_in_thread, &w) == 0)
        started++;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (can)
        (void)pthread_attr_destroy(&attr);
    work(&w, &p->reaper, true);
    for (size_t i = 0; i < started; i++)
        (void)pthread_join(threads[i], NULL);
}

/* A pass over the boxes of which something is left; keep: those stay locked until the next one. Returns how
 * many records were dropped. */
static size_t pass(struct replay *p, size_t from, size_t to, bool again, bool keep)
{
    if (again) { /* from before the last pass, whose workers have changed what it shows */
        mounts_free(p->reaper.mounts);
        p->reaper.mounts = NULL;
    }
    for (size_t i = from; i < to; i++) {
        struct teardown *t = &p->boxes[i];
        if (!t->claimed || (again && teardown_left(t) == 0))
            continue;
        if (again)
            teardown_again(t);
        teardown_quiesce(t);
    }
    for (size_t i = from; i < to; i++)
        if (p->boxes[i].claimed)
            teardown_quiesced(&p->boxes[i]);
    /* what the dead held is free now: this is what there is to be undone */
    mounts_free(p->reaper.mounts);
    p->reaper.mounts = NULL;
    undo_each(p, from, to);
    size_t dropped = teardown_settle(&p->boxes[from], to - from);
    for (size_t i = from; i < to && !keep; i++)
        teardown_let_go(&p->boxes[i], true);
    return dropped;
}

/* A box holds a descriptor for each of its locks until it is done: as many boxes at once as there are
 * descriptors for, which is all of them where the limit was raised. Where not, the next ones need those of a
 * box of which something is left: it takes its flocks anew in the next pass, and is held if somebody was
 * faster (K7). */
static size_t batch_size(const struct replay *p)
{
    struct rlimit limit;
    size_t locks = 1;
    for (size_t i = 0; i < p->len; i++)
        for (size_t k = 0, n = 0; k < p->boxes[i].sb->len; k++)
            if (p->boxes[i].sb->records[k].kind == RBXJ_LOCK && ++n > locks)
                locks = n;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < 512)
        return 1;
    size_t n = (size_t)(limit.rlim_cur - 384) / locks;
    return n ? n : 1;
}

/* A plan is of all of them; else one that may kill the reaper waits for its turn (K34). */
bool replay_plans(const struct replay *p)
{
    return p->how->dry_run || p->how->plan;
}

/* It was passed over when all were looked at. */
static void look_now(struct replay *p, size_t i)
{
    if (!p->boxes[i].claimed)
        return;
    mounts_free(p->reaper.mounts); /* from before what was undone */
    p->reaper.mounts = NULL;
    teardown_look(&p->boxes[i]);
    p->causes[i] = cause_of(&p->boxes[i]);
    journal_touch(p->reaper.journal, p->reaper.worker, p->boxes[i].sb->box.incarnation);
    replay_find_orphans(p, i, i + 1);
    journal_touch(p->reaper.journal, p->reaper.worker, 0);
}

/* All boxes together, then one by one those of which an earlier attempt never ended: one that kills the
 * reaper keeps nobody from its turn, and is known by its count (K34). */
void replay_undo(struct replay *p)
{
    bool again = false;
    size_t dropped, left, n = batch_size(p);
    bool keep = n >= p->len;
    do {
        dropped = 0;
        p->reaper.busy = (struct rbxj_error){0};
        for (size_t i = 0; i < p->sound; i += n)
            dropped += pass(p, i, i + n < p->sound ? i + n : p->sound, again, keep);
        for (size_t i = p->sound; i < p->len; i++) {
            if (!again && !replay_plans(p))
                look_now(p, i);
            dropped += pass(p, i, i + 1, again, keep);
        }
        left = 0;
        for (size_t i = 0; i < p->len; i++)
            left += p->boxes[i].claimed;
        again = true;
    } while (dropped && left && now_monotonic_ns() < p->reaper.deadline_ns);
    for (size_t i = 0; i < p->len; i++)
        teardown_finish(&p->boxes[i]);
}
