/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * begin and intend: from nothing to pending to granted (K22). What fails on the way is taken back
 * (leftover.c).
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"

#include <string.h>

#define NESTED_MAX 16 /* boxes, the outermost one included */

/* The incarnations to which overlap is no stranger: the box's own, and those of the boxes it lives in. */
static size_t related_boxes(struct write *w, const struct box *box, uint64_t *related, size_t max)
{
    struct box outer = *box;
    size_t n = 0;
    related[n++] = box->incarnation;
    while (n < max && outer.parent && write_get_box(w, outer.parent, &outer, NULL) == 0)
        related[n++] = outer.incarnation;
    return n;
}

static int check_depth(struct write *w, const struct box *box, struct rbxj_error *e)
{
    struct box outer = *box;
    for (int depth = 1; outer.parent && write_get_box(w, outer.parent, &outer, NULL) == 0; depth++)
        if (depth == NESTED_MAX)
            return error_set(e, RBXJ_E_BAD_REQUEST, 0, "box %s: would be nested deeper than %d", box->name,
                             NESTED_MAX);
    return 0;
}

/* Stores one new intent: index, record, pending mark where the disk comes first (K22). */
static int add_intent(struct write *w, struct box *box, struct record *r, bool pending, struct rbxj_error *e)
{
    uint64_t related[NESTED_MAX], other;
    size_t n = related_boxes(w, box, related, ARRAY_LEN(related));
    int rc = names_overlap(w->txn, w->j->boot.names, r, related, n, &other);
    if (rc == MDB_KEYEXIST) {
        struct box owner = {0};
        if (write_get_box(w, other, &owner, NULL) < 0)
            (void)strcpy(owner.name, "?");
        return error_set(e, RBXJ_E_EXISTS, EEXIST, "overlaps what box %s has journaled: %s", owner.name,
                         r->path);
    }
    r->incarnation = box->incarnation;
    if (rc == MDB_SUCCESS)
        rc = names_add(w->txn, w->j->boot.names, r, w->j->boot_id);
    if (rc == MDB_SUCCESS)
        rc = write_put(w, box, r, true);
    if (rc == MDB_SUCCESS && pending)
        rc = write_mark(w, MARK_PENDING, r->incarnation, r->seq, NULL, 0);
    return rc == MDB_SUCCESS ? 0 : store_error(e, rc, &w->j->boot, w->j->folder);
}

/* A name that is taken: by a living supervisor, or by a dead one's records. */
static int refuse_name(struct journal *j, const struct box *found, struct rbxj_error *e)
{
    enum liveness live;
    int r = box_find_liveness(j, j->state_dir, found, &live);
    if (r < 0)
        return error_sys(e, -r, "box %s: is its supervisor, pid %d, alive", found->name,
                         found->supervisor.pid);
    if (live == LIVE_DEAD)
        return error_set(e, RBXJ_E_BOX_STALE, EBUSY,
                         "box %s: records of a dead supervisor (pid %d) are there: run "
                         "rbxj replay first",
                         found->name, found->supervisor.pid);
    return error_set(e, RBXJ_E_BOX_LIVE, EBUSY, "box %s is held by pid %d", found->name,
                     found->supervisor.pid);
}

int journal_check_name(struct journal *j, const char *name, struct rbxj_error *e)
{
    struct snapshot_box taken;
    struct rbxj_error error = {0};
    (void)leftover_retry(j, NULL); /* it may be this process that still has it */
    int r = journal_get(j, name, &taken, &error);
    if (r == -RBXJ_E_NO_SUCH_BOX)
        return 0;
    if (r < 0)
        return error_set(e, error.code, error.errnum, "%s", error.message);
    r = refuse_name(j, &taken.box, e);
    snapshot_box_clear(&taken);
    return r;
}

/* Is the name free? 0, BOX_LIVE with *ret_taken (to be judged outside of the transaction),
 * JOURNAL_DAMAGED. */
static int check_name(struct write *w, const char *name, struct box *ret_taken, struct rbxj_error *e)
{
    MDB_val key = {strlen(name), (void *)(uintptr_t)name}, data;
    uint64_t incarnation;
    int rc = mdb_get(w->txn, w->j->boot.boxes, &key, &data);
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc == MDB_SUCCESS && data.mv_size != sizeof(incarnation))
        rc = MDB_CORRUPTED;
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, &w->j->boot, w->j->folder);
    memcpy(&incarnation, data.mv_data, sizeof(incarnation));
    int r = write_get_box(w, incarnation, ret_taken, e);
    return r < 0 ? r : -RBXJ_E_BOX_LIVE;
}

static int fresh_incarnation(struct write *w, uint64_t *ret)
{
    for (;;) {
        random_bytes(ret, sizeof(*ret));
        struct record_key k = record_key(*ret, 0);
        MDB_val key = {sizeof(k), &k}, data;
        int rc = *ret ? mdb_get(w->txn, w->j->boot.records, &key, &data) : MDB_SUCCESS;
        if (rc == MDB_NOTFOUND)
            return MDB_SUCCESS;
        if (rc != MDB_SUCCESS)
            return rc;
    }
}

/* Before an intent is accepted: this process' handle, what it still has to take back, and room (K26). */
static int check_room(struct journal *j, struct rbxj_error *e)
{
    int r = journal_check_handle(j, e);
    if (r == 0)
        r = leftover_retry(j, e);
    return r < 0 ? r : store_make_room(&j->boot, j->folder, &j->options, e);
}

/* The disk has it: the marks go, and only now may the caller acquire (K22). */
static int grant(struct journal *j, uint64_t incarnation, uint32_t first_seq, uint32_t last_seq,
                 struct rbxj_error *e)
{
    struct write w;
    int rc = MDB_SUCCESS, r = write_begin(j, &w, e);
    if (r < 0)
        return r;
    for (uint32_t seq = first_seq; seq <= last_seq && rc == MDB_SUCCESS; seq++)
        rc = write_unmark(&w, MARK_PENDING, incarnation, seq);
    return write_end(&w, 0, rc, e);
}

/* From the boot journal's commit to success. A boot journal that has vanished is noticed here, after the
 * write: what was written to a lost one counts for nothing (K21). */
static int make_granted(struct journal *j, const struct box *box, uint32_t first_seq, uint32_t last_seq,
                        bool disk, uint64_t position, struct rbxj_error *e)
{
    int r = store_is_in_place(&j->boot, e);
    if (r < 0 || !disk)
        return r;
    r = commit_through(j, position, true, e);
    if (r == 0)
        r = grant(j, box->incarnation, first_seq, last_seq, e);
    return r < 0 ? r : store_is_in_place(&j->boot, e);
}

static int begin_locked(struct write *w, struct box *box, struct record *plan, size_t n, struct box *taken,
                        struct rbxj_error *e)
{
    int r = check_name(w, box->name, taken, e);
    if (r == 0)
        r = check_depth(w, box, e);
    if (r < 0)
        return r;
    MDB_val name = {strlen(box->name), box->name}, data = {sizeof(box->incarnation), &box->incarnation};
    int rc = mdb_put(w->txn, w->j->boot.boxes, &name, &data, 0);
    if (rc == MDB_SUCCESS)
        rc = write_put(w, box, NULL, true);
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, &w->j->boot, w->j->folder);
    for (size_t i = 0; i < n && r == 0; i++)
        r = add_intent(w, box, &plan[i], box->flags & BOX_ON_DISK, e);
    return r;
}

/* Nothing begins inside a box that somebody takes down, who has looked for what is in it already (K4):
 * another process, or another thread of this one. A dead one's claim is void (K11). */
static int write_begin_inside(struct journal *j, struct write *w, uint64_t parent, struct rbxj_error *e)
{
    struct box box;
    return write_begin_free(j, w, parent, &box, RBXJ_E_BOX_STALE, e);
}

/* One transaction with header and plan; position: the last log entry's. */
static int begin_pending(struct journal *j, struct box *new, struct record *plan, size_t n,
                         uint64_t *ret_position, struct rbxj_error *e)
{
    struct write w;
    struct box taken = {0};
    int r = new->parent ? write_begin_inside(j, &w, new->parent, e) : write_begin(j, &w, e);
    if (r < 0)
        return r;
    uint64_t incarnation;
    int rc = fresh_incarnation(&w, &incarnation);
    if (rc == MDB_SUCCESS && (new->flags &BOX_OWNER_LOCK)) { /* before anybody can see the box (K9) */
        r = alive_own(j, incarnation);
        if (r < 0)
            r = error_sys(e, -r, "%s/alive: the lock of box %s", j->state_dir, new->name);
    }
    if (r == 0 && rc == MDB_SUCCESS)
        new->incarnation = incarnation;
    if (r == 0 && rc == MDB_SUCCESS)
        r = begin_locked(&w, new, plan, n, &taken, e);
    *ret_position = w.position;
    r = write_end(&w, r, rc, e);
    return r == -RBXJ_E_BOX_LIVE ? refuse_name(j, &taken, e) : r;
}

int journal_begin(struct journal *j, struct box *box, struct record *plan, size_t n, struct rbxj_error *e)
{
    struct box new = *box;
    uint64_t position;
    bool disk = j->options.always;
    for (size_t i = 0; i < n; i++) {
        plan[i].seq = (uint32_t)i + 1;
        disk = disk || commit_is_needed(false, &plan[i]);
    }
    new.flags &= ~(uint32_t)(BOX_ON_DISK | BOX_OWNER_LOCK);
    if (disk)
        new.flags |= BOX_ON_DISK;
    if (procid_equal(&box->supervisor, &j->self))
        new.flags |= BOX_OWNER_LOCK;
    new.incarnation = 0;
    new.planned = (uint32_t)n;
    new.next_seq = (uint32_t)n + 1;
    int r = check_room(j, e);
    if (r == 0)
        r = begin_pending(j, &new, plan, n, &position, e);
    if (r == 0) {
        r = make_granted(j, &new, 1, (uint32_t)n, disk, position, e);
        if (r < 0)
            leftover_withdraw(j, new.incarnation,
                              &(struct withdrawal){.first_seq = 1, .last_seq = (uint32_t)n, .whole = true});
    }
    if (r < 0) {
        if (new.incarnation && (new.flags &BOX_OWNER_LOCK))
            alive_disown(j, new.incarnation);
        return r;
    }
    *box = new;
    return 0;
}

/* The last number is never given out, so that whoever counts up to one comes to an end; 0, the header's, is
 * what would come after it. 0, or JOURNAL_FULL. */
static int take_number(struct box *box, uint32_t *ret, struct rbxj_error *e)
{
    if (box->next_seq == 0 || box->next_seq == UINT32_MAX) {
        (void)error_set(e, RBXJ_E_JOURNAL_FULL, 0, "box %s: has used up its numbers", box->name);
        error_detail(e, "end it and begin it anew");
        return -RBXJ_E_JOURNAL_FULL;
    }
    *ret = box->next_seq++;
    return 0;
}

int journal_intend(struct journal *j, uint64_t incarnation, struct record *r, struct rbxj_error *e)
{
    struct write w;
    struct box box;
    bool disk = commit_is_needed(j->options.always, r);
    int rc, res = check_room(j, e);
    if (res == 0)
        res = write_begin_unclaimed(j, &w, incarnation, &box, RBXJ_E_BOX_STALE, e);
    if (res < 0)
        return res;
    if ((res = take_number(&box, &r->seq, e)) < 0)
        return write_end(&w, res, MDB_SUCCESS, e);
    rc = disk && !(box.flags & BOX_ON_DISK) ? write_move_to_disk(&w, &box) : write_put(&w, &box, NULL, disk);
    if (rc == MDB_SUCCESS)
        res = add_intent(&w, &box, r, disk, e);
    uint64_t position = w.position;
    res = write_end(&w, res, rc, e);
    if (res == 0) {
        res = make_granted(j, &box, r->seq, r->seq, disk, position, e);
        if (res < 0)
            leftover_withdraw(j, incarnation, &(struct withdrawal){.first_seq = r->seq, .last_seq = r->seq});
    }
    return res;
}
