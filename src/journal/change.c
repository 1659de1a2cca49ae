/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The rest of a record's life, after it was granted; and the end of a box.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"

#include <string.h>

/* In a write transaction, which it ends. */
static int update(struct write *begun, struct box box, const struct record *r, bool durable,
                  struct rbxj_error *e)
{
    struct write w = *begun;
    struct journal *j = w.j;
    struct record old = {0};
    int rc = MDB_SUCCESS, res = write_get_record(&w, r->incarnation, r->seq, &old, e);
    if (res == 0 && durable && !(box.flags & BOX_ON_DISK))
        rc = write_move_to_disk(&w, &box);
    if (res == 0 && rc == MDB_SUCCESS)
        rc = write_put(&w, &box, r, durable);
    if (res == 0 && rc == MDB_SUCCESS && (old.id.ino != r->id.ino || old.id.dev != r->id.dev)) {
        rc = names_remove(w.txn, j->boot.names, &old);
        if (rc == MDB_SUCCESS)
            rc = names_add(w.txn, j->boot.names, r, j->boot_id);
    }
    record_clear(&old);
    uint64_t position = w.position;
    res = write_end(&w, res, rc, e);
    return res == 0 && durable ? commit_through(j, position, false, e) : res;
}

int journal_update(struct journal *j, const struct record *r, bool durable, struct rbxj_error *e)
{
    struct write w;
    struct box box;
    int res = write_begin_unclaimed(j, &w, r->incarnation, &box, RBXJ_E_BOX_STALE, e);
    return res < 0 ? res : update(&w, box, r, durable, e);
}

int journal_prove(struct journal *j, const struct record *r, bool durable, struct rbxj_error *e)
{
    struct write w;
    struct box box;
    int res = write_begin_free(j, &w, r->incarnation, &box, RBXJ_E_BUSY, e);
    return res < 0 ? res : update(&w, box, r, durable, e);
}

int journal_update_box(struct journal *j, const struct box *changed, struct rbxj_error *e)
{
    struct write w;
    struct box box;
    int rc = MDB_SUCCESS, res = write_begin(j, &w, e);
    if (res < 0)
        return res;
    res = write_get_box(&w, changed->incarnation, &box, e);
    if (res == 0) {
        box.failures = changed->failures;
        box.waiting_since_ns = changed->waiting_since_ns;
        memcpy(box.waiting_boot, changed->waiting_boot, sizeof(box.waiting_boot));
        rc = write_put(&w, &box, NULL, false);
    }
    return write_end(&w, res, rc, e);
}

static int drop(struct write *w, const struct box *box, uint32_t seq, struct rbxj_error *e)
{
    struct record old = {0};
    int r = write_get_record(w, box->incarnation, seq, &old, e);
    int rc = r == 0 ? write_remove(w, box, seq, &old) : MDB_SUCCESS;
    record_clear(&old);
    return rc == MDB_SUCCESS ? r : store_error(e, rc, &w->j->boot, w->j->folder);
}

int journal_drop(struct journal *j, uint64_t incarnation, uint32_t seq, struct rbxj_error *e)
{
    return journal_settle(j, incarnation, &seq, 1, SETTLE_KEEP, e);
}

/* Takes the pending records of a box away; LEFT at the first granted one. */
static int remove_pending(struct write *w, const struct box *box, struct rbxj_error *e)
{
    uint32_t seq = 0;
    MDB_val data;
    int rc, r = 0;
    while ((rc = write_next(w, box->incarnation, seq + 1, &seq, &data)) == MDB_SUCCESS) {
        struct record record = {0};
        if (write_mark_get(w, MARK_PENDING, box->incarnation, seq, NULL, 0) == MDB_NOTFOUND)
            return error_set(e, RBXJ_E_LEFT, EBUSY, "box %s: seq %u is still there: undo first", box->name,
                             seq);
        r = write_get_record(w, box->incarnation, seq, &record, e);
        if (r == 0)
            rc = write_remove(w, box, seq, &record);
        record_clear(&record);
        if (r < 0 || rc != MDB_SUCCESS)
            break;
    }
    return r < 0 ? r : rc == MDB_NOTFOUND ? 0 : store_error(e, rc, &w->j->boot, w->j->folder);
}

int journal_settle(struct journal *j, uint64_t incarnation, const uint32_t *seqs, size_t n, enum settle how,
                   struct rbxj_error *e)
{
    struct write w;
    struct box box;
    /* whoever has not claimed it may do this only while nobody has */
    int rc = MDB_SUCCESS, r = write_begin_unclaimed(j, &w, incarnation, &box, RBXJ_E_BUSY, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n && r == 0; i++)
        r = drop(&w, &box, seqs[i], e);
    if (r == 0 && how == SETTLE_END)
        r = remove_pending(&w, &box, e);
    if (r == 0 && how == SETTLE_END)
        rc = write_remove_box(&w, &box);
    if (r == 0 && how == SETTLE_UNCLAIM && (rc = write_unmark(&w, MARK_CLAIM, incarnation, 0)) == MDB_SUCCESS)
        rc = write_unmark(&w, MARK_ATTEMPTS, incarnation, 0);
    r = write_end(&w, r, rc, e);
    if (r == 0 && how == SETTLE_END && (box.flags & BOX_OWNER_LOCK) &&
        procid_equal(&box.supervisor, &j->self))
        alive_disown(j, incarnation);
    return r;
}

int journal_end(struct journal *j, uint64_t incarnation, struct rbxj_error *e)
{
    (void)leftover_done(j, incarnation); /* else it is left: the end says so */
    return journal_settle(j, incarnation, NULL, 0, SETTLE_END, e);
}

int journal_count(struct journal *j, const struct counters *more, struct rbxj_error *e)
{
    struct write w;
    int r = write_begin(j, &w, e);
    return r < 0 ? r : write_end(&w, 0, counters_write(w.txn, j->boot.meta, more), e);
}
