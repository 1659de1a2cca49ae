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

int journal_claim(struct journal *j, uint64_t incarnation, struct rbxj_error *e)
{
    struct write w;
    struct box box;
    leftover_reclaim(j, incarnation);
    int r = write_begin_unclaimed(j, &w, incarnation, &box, RBXJ_E_BUSY, e);
    if (r < 0)
        return r;
    return write_end(&w, 0, write_mark(&w, MARK_CLAIM, incarnation, 0, &j->self, sizeof(j->self)), e);
}

void journal_unclaim(struct journal *j, uint64_t incarnation)
{
    leftover_withdraw(j, incarnation, &(struct withdrawal){.claim = true});
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
