/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Claims (K11): who tears a box down; and the attempts that did not end (K34). Marks in the boot journal:
 * they die with the boot.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"

/* A dead claimer's claim is void. Whoever has claimed had the journals open: where its pid says nothing here
 * and nobody else has them open, it is dead too. */
static bool claimer_is_dead(struct journal *j, const struct procid *claimer)
{
    if (!procid_comparable(claimer, &j->self))
        return fd_record_holder(j->alive_fd, ALIVE_OPEN_BYTE, NULL) == 0;
    int fd = procid_open(claimer);
    if (fd >= 0)
        (void)close(fd);
    return fd == -ESRCH;
}

int write_begin_unclaimed(struct journal *j, struct write *w, uint64_t incarnation, struct box *ret, int code,
                          struct rbxj_error *e)
{
    struct procid claimer = {0}, dead = {.pid = -1};
    for (;;) {
        int r = write_begin(j, w, e);
        if (r < 0)
            return r;
        r = write_get_box(w, incarnation, ret, e);
        int rc = r < 0 ? MDB_SUCCESS
                       : write_mark_get(w, MARK_CLAIM, incarnation, 0, &claimer, sizeof(claimer));
        if (r == 0 &&
            (rc == MDB_NOTFOUND || procid_equal(&claimer, &j->self) || procid_equal(&claimer, &dead)))
            return 0;
        if (r < 0 || rc != MDB_SUCCESS)
            return write_end(w, r, rc, e);
        /* judged outside of the transaction (J5); it stays dead, so the second look is a comparison */
        write_abort(w);
        if (!claimer_is_dead(j, &claimer))
            return error_set(e, code, EBUSY, "box %s is being torn down by pid %d", ret->name, claimer.pid);
        dead = claimer;
    }
}

int write_begin_free(struct journal *j, struct write *w, uint64_t incarnation, struct box *ret, int own,
                     struct rbxj_error *e)
{
    struct procid claimer;
    int r = write_begin_unclaimed(j, w, incarnation, ret, RBXJ_E_BOX_STALE, e);
    if (r < 0)
        return r;
    int rc = write_mark_get(w, MARK_CLAIM, incarnation, 0, &claimer, sizeof(claimer));
    if (rc == MDB_NOTFOUND || (rc == MDB_SUCCESS && !procid_equal(&claimer, &j->self)))
        return 0;
    if (rc == MDB_SUCCESS)
        r = error_set(e, own, EBUSY, "box %s is being torn down by this process", ret->name);
    return write_end(w, r, rc, e);
}

int journal_check_unclaimed(struct journal *j, uint64_t incarnation, struct rbxj_error *e)
{
    struct write w;
    struct box box;
    (void)leftover_retry(j, NULL); /* it may be that a claim of this process is still to be given back */
    int r = write_begin_free(j, &w, incarnation, &box, RBXJ_E_BUSY, e);
    if (r == 0)
        write_abort(&w);
    return r;
}

int journal_claim(struct journal *j, uint64_t incarnation, struct rbxj_error *e)
{
    struct write w;
    struct box box;
    leftover_reclaim(j, incarnation);
    if (!leftover_done(j, incarnation)) /* it would be undone as if it had been acquired */
        return error_set(e, RBXJ_E_JOURNAL_BUSY, 0,
                         "journal %s: an intent that was taken back is still in it", j->folder);
    int r = write_begin_unclaimed(j, &w, incarnation, &box, RBXJ_E_BUSY, e);
    if (r < 0)
        return r;
    return write_end(&w, 0, write_mark(&w, MARK_CLAIM, incarnation, 0, &j->self, sizeof(j->self)), e);
}

void journal_unclaim(struct journal *j, uint64_t incarnation)
{
    leftover_withdraw(j, incarnation, &(struct withdrawal){.claim = true});
}

void journal_unclaim_later(struct journal *j, uint64_t incarnation)
{
    leftover_remember(j, incarnation, &(struct withdrawal){.claim = true});
}

/* One box of many. *ret_unknown: somebody has it of whom it is not known whether he lives. MDB_* */
static int claim_one(struct write *w, struct claim *c, bool *ret_unknown)
{
    struct box box;
    struct procid claimer = {0};
    c->result = write_get_box(w, c->incarnation, &box, NULL);
    if (c->result < 0) /* it has ended; a damaged one is told of by who reads it next */
        return MDB_SUCCESS;
    int rc = write_mark_get(w, MARK_CLAIM, c->incarnation, 0, &claimer, sizeof(claimer));
    if (rc != MDB_SUCCESS && rc != MDB_NOTFOUND)
        return rc;
    if (rc == MDB_SUCCESS && !procid_equal(&claimer, &w->j->self)) {
        bool judged = c->judged && procid_equal(&claimer, &c->claimer);
        if (!judged || c->alive) {
            c->claimer = claimer;
            c->judged = judged;
            c->result = -RBXJ_E_BUSY;
            *ret_unknown = *ret_unknown || !judged;
            return MDB_SUCCESS;
        }
    }
    return write_mark(w, MARK_CLAIM, c->incarnation, 0, &w->j->self, sizeof(w->j->self));
}

int journal_claim_all(struct journal *j, struct claim *claims, size_t n, struct rbxj_error *e)
{
    for (size_t i = 0; i < n; i++)
        leftover_reclaim(j, claims[i].incarnation);
    for (bool unknown = n > 0; unknown;) {
        struct write w;
        int rc = MDB_SUCCESS, r = write_begin(j, &w, e);
        if (r < 0)
            return r;
        unknown = false;
        for (size_t i = 0; i < n && rc == MDB_SUCCESS; i++)
            rc = claim_one(&w, &claims[i], &unknown);
        if (!unknown || rc != MDB_SUCCESS) {
            r = write_end(&w, 0, rc, e);
            if (r < 0)
                return r;
            continue;
        }
        write_abort(&w);
        /* judged outside of the transaction (J5); who is dead stays dead */
        for (size_t i = 0; i < n; i++) {
            struct claim *c = &claims[i];
            if (c->result != -RBXJ_E_BUSY || c->judged)
                continue;
            c->judged = true;
            c->alive = !claimer_is_dead(j, &c->claimer);
        }
    }
    return 0;
}

static int unclaim_all(struct journal *j, const struct claim *claims, size_t n)
{
    struct write w;
    struct procid claimer;
    int rc = MDB_SUCCESS, r = write_begin(j, &w, NULL);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n && rc == MDB_SUCCESS; i++)
        if (claims[i].result == 0 &&
            write_mark_get(&w, MARK_CLAIM, claims[i].incarnation, 0, &claimer, sizeof(claimer)) ==
                MDB_SUCCESS &&
            procid_equal(&claimer, &j->self))
            rc = write_unmark(&w, MARK_CLAIM, claims[i].incarnation, 0);
    return write_end(&w, 0, rc, NULL);
}

void journal_unclaim_all(struct journal *j, const struct claim *claims, size_t n)
{
    bool done = unclaim_all(j, claims, n) == 0;
    for (size_t i = 0; i < n; i++)
        if (claims[i].result == 0 && done)
            leftover_reclaim(j, claims[i].incarnation);
        else if (claims[i].result == 0)
            journal_unclaim_later(j, claims[i].incarnation);
}

static_assert(GATE_WORKERS == JOURNAL_WORKERS, "a word for each worker");

void journal_touch(struct journal *j, unsigned worker, uint64_t incarnation)
{
    atomic_store(&j->gates->touched[worker], incarnation);
}

static int count_attempt(struct write *w, uint64_t incarnation)
{
    struct box box;
    uint32_t attempts = 0;
    if (write_get_box(w, incarnation, &box, NULL) < 0)
        return MDB_SUCCESS; /* it came to its end after all */
    int rc = write_mark_get(w, MARK_ATTEMPTS, incarnation, 0, &attempts, sizeof(attempts));
    attempts++;
    return rc == MDB_SUCCESS || rc == MDB_NOTFOUND
               ? write_mark(w, MARK_ATTEMPTS, incarnation, 0, &attempts, sizeof(attempts))
               : rc;
}

int journal_count_attempts(struct journal *j, struct rbxj_error *e)
{
    uint64_t died[GATE_WORKERS];
    size_t n = 0;
    struct write w;
    int rc = MDB_SUCCESS;
    for (size_t i = 0; i < GATE_WORKERS; i++)
        if ((died[n] = atomic_load(&j->gates->touched[i])) != 0)
            n++;
    if (n == 0)
        return 0;
    int r = write_begin(j, &w, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n && rc == MDB_SUCCESS; i++)
        rc = count_attempt(&w, died[i]);
    r = write_end(&w, 0, rc, e);
    for (size_t i = 0; i < GATE_WORKERS && r == 0; i++)
        atomic_store(&j->gates->touched[i], 0);
    return r;
}
