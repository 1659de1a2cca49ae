/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a process could not take back when it should have, because the journal was busy or memory was short:
 * an intent of which nobody was told (K22), a claim on a box of which something is left (K11). Nobody else
 * does it while this process lives: such a box would stay held by it. So it is remembered and done later:
 * before the next intent, and when a journal is closed.
 *
 * One list for the process, since a claim is the process', whichever handle made it.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/forked.h"
#include "journal/internal.h"

#include <string.h>

#define INTENTS_MAX 64       /* that may still be taken back: then nothing more is begun */
#define LEFTOVERS_MAX 100000 /* claims of one replay; what is beyond is given back when the process ends */

static struct forked_mutex mutex; /* taken before a gate, never inside one */
struct leftover {
    uint8_t generation[16];
    uint64_t incarnation;
    struct withdrawal what;
    bool damaged; /* it keeps its box from being undone, and nobody else from anything (K24) */
};
/* Room for the first of them is always there: it is mostly for want of memory that there are any. */
static struct leftover first[INTENTS_MAX], *leftovers = first;
static size_t leftovers_len, leftovers_room = ARRAY_LEN(first);

/* In a child of fork() none of them is about it. */
static void lock(void)
{
    if (forked_lock(&mutex)) {
        leftovers = first;
        leftovers_len = 0;
        leftovers_room = ARRAY_LEN(first);
    }
}

static int withdraw_records(struct write *w, const struct box *box, const struct withdrawal *what,
                            int *ret_rc)
{
    int r = 0, rc = MDB_SUCCESS;
    for (uint32_t seq = what->first_seq; seq <= what->last_seq && r == 0 && rc == MDB_SUCCESS; seq++) {
        struct record record = {0};
        r = write_get_record(w, box->incarnation, seq, &record, NULL);
        record.flags |= what->mark;
        if (r == 0)
            rc = what->mark ? write_put(w, box, &record, false) : write_remove(w, box, seq, &record);
        else if (r == -RBXJ_E_NO_SUCH_BOX)
            r = 0;
        record_clear(&record);
    }
    *ret_rc = rc;
    return r;
}

/* Only this process' claim: another one may have the box by now, if this one was given back already (K11).
 * MDB_* */
static int withdraw_claim(struct write *w, uint64_t incarnation)
{
    struct procid claimer = {0};
    int rc = write_mark_get(w, MARK_CLAIM, incarnation, 0, &claimer, sizeof(claimer));
    if (rc == MDB_NOTFOUND || (rc == MDB_SUCCESS && !procid_equal(&claimer, &w->j->self)))
        return MDB_SUCCESS;
    if (rc == MDB_SUCCESS)
        rc = write_unmark(w, MARK_CLAIM, incarnation, 0);
    return rc == MDB_SUCCESS ? write_unmark(w, MARK_ATTEMPTS, incarnation, 0) : rc;
}

/* In one transaction; NO_SUCH_BOX: there is nothing to do any more. */
static int withdraw_now(struct journal *j, uint64_t incarnation, const struct withdrawal *what)
{
    struct write w;
    struct box box;
    int rc = MDB_SUCCESS, r = write_begin(j, &w, NULL);
    if (r < 0)
        return r;
    r = write_get_box(&w, incarnation, &box, NULL);
    if (r == 0 && what->claim) {
        rc = withdraw_claim(&w, incarnation);
    } else if (r == 0 && what->whole && box.next_seq != what->last_seq + 1) {
        r = -RBXJ_E_NO_SUCH_BOX; /* somebody goes on with it */
    } else if (r == 0) {
        r = withdraw_records(&w, &box, what, &rc);
        if (r == 0 && rc == MDB_SUCCESS && what->whole)
            rc = write_remove_box(&w, &box);
    }
    return write_end(&w, r, rc, NULL);
}

static bool is_of(const struct leftover *l, const struct journal *j)
{
    return memcmp(l->generation, j->generation, sizeof(l->generation)) == 0;
}

static void forget(size_t i)
{
    leftovers[i] = leftovers[--leftovers_len];
    if (leftovers_len == 0 && leftovers != first) {
        free(leftovers);
        leftovers = first;
        leftovers_room = ARRAY_LEN(first);
    }
}

/* Intents that may still be taken back. */
static size_t count_intents(const struct journal *j)
{
    size_t n = 0;
    for (size_t i = 0; i < leftovers_len; i++)
        n += is_of(&leftovers[i], j) && !leftovers[i].what.claim && !leftovers[i].damaged;
    return n;
}

static struct leftover *add(void)
{
    if (leftovers_len == leftovers_room) {
        size_t room = 2 * leftovers_room;
        struct leftover *grown = reallocarray(leftovers == first ? NULL : leftovers, room, sizeof(*grown));
        if (!grown)
            return NULL;
        if (leftovers == first)
            memcpy(grown, first, sizeof(first));
        leftovers = grown;
        leftovers_room = room;
    }
    return &leftovers[leftovers_len++];
}

static void remember(struct journal *j, uint64_t incarnation, const struct withdrawal *what, bool damaged)
{
    struct leftover *l = NULL;
    lock();
    if (leftovers_len < LEFTOVERS_MAX)
        l = add();
    if (l) {
        *l = (struct leftover){.incarnation = incarnation, .what = *what, .damaged = damaged};
        memcpy(l->generation, j->generation, sizeof(l->generation));
    }
    forked_unlock(&mutex);
}

void leftover_withdraw(struct journal *j, uint64_t incarnation, const struct withdrawal *what)
{
    int r = withdraw_now(j, incarnation, what);
    if (r < 0 && r != -RBXJ_E_NO_SUCH_BOX)
        remember(j, incarnation, what, r == -RBXJ_E_JOURNAL_DAMAGED);
}

void leftover_remember(struct journal *j, uint64_t incarnation, const struct withdrawal *what)
{
    remember(j, incarnation, what, false);
}

void journal_withdraw(struct journal *j, const struct box *box, uint32_t first_seq, uint32_t last_seq,
                      bool whole)
{
    leftover_withdraw(j, box->incarnation,
                      &(struct withdrawal){.first_seq = first_seq, .last_seq = last_seq, .whole = whole});
    if (whole && (box->flags & BOX_OWNER_LOCK)) /* or it was never taken: one for another process */
        alive_disown(j, box->incarnation);
}

void journal_mark(struct journal *j, uint64_t incarnation, uint32_t seq, uint32_t flags)
{
    leftover_withdraw(j, incarnation, &(struct withdrawal){.first_seq = seq, .last_seq = seq, .mark = flags});
}

int leftover_retry(struct journal *j, struct rbxj_error *e)
{
    bool full;
    lock();
    for (size_t i = leftovers_len; i-- > 0;) {
        if (!is_of(&leftovers[i], j))
            continue;
        int r = withdraw_now(j, leftovers[i].incarnation, &leftovers[i].what);
        if (r == -RBXJ_E_JOURNAL_BUSY) /* not yet; for the others neither */
            break;
        if (r == 0 || r == -RBXJ_E_NO_SUCH_BOX)
            forget(i);
        else
            leftovers[i].damaged = r == -RBXJ_E_JOURNAL_DAMAGED;
    }
    full = count_intents(j) >= INTENTS_MAX;
    forked_unlock(&mutex);
    return full ? error_set(e, RBXJ_E_JOURNAL_BUSY, 0,
                            "journal %s: too much of this process waits to be withdrawn", j->folder)
                : 0;
}

bool leftover_done(struct journal *j, uint64_t incarnation)
{
    bool done = true;
    (void)leftover_retry(j, NULL);
    lock();
    for (size_t i = 0; i < leftovers_len; i++)
        if (is_of(&leftovers[i], j) && leftovers[i].incarnation == incarnation && !leftovers[i].what.claim)
            done = false;
    forked_unlock(&mutex);
    return done;
}

void leftover_reclaim(struct journal *j, uint64_t incarnation)
{
    lock();
    for (size_t i = leftovers_len; i-- > 0;)
        if (is_of(&leftovers[i], j) && leftovers[i].incarnation == incarnation && leftovers[i].what.claim)
            forget(i);
    forked_unlock(&mutex);
}
