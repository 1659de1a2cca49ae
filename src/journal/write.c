/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The state transitions of journal.h, each one transaction on the boot journal. A failed one leaves the journal as it
 * was.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define TRIM_MAX 64 /* covered log entries that one transaction takes away */

int journal_check_handle(const struct journal *j, struct rbxj_error *e)
{
    struct stat st;
    if (j->self.pid != getpid())
        return error_set(e, RBXJ_E_FORKED, 0, "journal %s: was opened by pid %d, open it after the fork", j->state_dir,
                         j->self.pid);
    if (fstat(j->alive_fd, &st) < 0 || st.st_dev != j->alive_st.st_dev || st.st_ino != j->alive_st.st_ino)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "%s/alive: its descriptor was closed by this program, and its locks "
                         "with it", j->state_dir);
    return 0;
}

int write_begin(struct journal *j, struct write *w, struct rbxj_error *e)
{
    struct write new = {.j = j};
    int r = journal_check_handle(j, e);
    if (r == 0)
        r = gate_lock(&j->gates->boot, j->folder, j->options.gate_timeout_ns, e);
    if (r < 0)
        return r;
    int rc = mdb_txn_begin(j->boot.env, NULL, 0, &new.txn);
    if (rc == MDB_SUCCESS) {
        rc = meta_get(new.txn, j->boot.meta, META_POSITION, &new.position, sizeof(new.position));
        if (rc != MDB_SUCCESS)
            mdb_txn_abort(new.txn);
    }
    if (rc != MDB_SUCCESS) {
        gate_unlock(&j->gates->boot);
        return store_error(e, rc, &j->boot, j->folder);
    }
    new.first = new.position;
    *w = new;
    return 0;
}

/* What the disk has covered need not stay in the log (J3). */
static int trim_log(struct write *w)
{
    uint64_t covered = atomic_load(&w->j->gates->covered);
    MDB_cursor *cursor;
    MDB_val key, data;
    int rc = mdb_cursor_open(w->txn, w->j->boot.log, &cursor);
    for (int i = 0; i < TRIM_MAX && rc == MDB_SUCCESS; i++) {
        uint64_t position;
        rc = mdb_cursor_get(cursor, &key, &data, MDB_FIRST);
        if (rc != MDB_SUCCESS)
            break;
        memcpy(&position, key.mv_data, sizeof(position));
        if (be64toh(position) > covered)
            break;
        rc = mdb_cursor_del(cursor, 0);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? MDB_SUCCESS : rc;
}

int write_commit(struct write *w, struct rbxj_error *e)
{
    struct journal *j = w->j;
    int rc = MDB_SUCCESS;
    if (w->position != w->first) {
        rc = trim_log(w);
        if (rc == MDB_SUCCESS)
            rc = meta_put(w->txn, j->boot.meta, META_POSITION, &w->position, sizeof(w->position));
    }
    if (rc == MDB_SUCCESS)
        rc = mdb_txn_commit(w->txn);
    else
        mdb_txn_abort(w->txn);
    gate_unlock(&j->gates->boot);
    return rc == MDB_SUCCESS ? 0 : store_error(e, rc, &j->boot, j->folder);
}

void write_abort(struct write *w)
{
    mdb_txn_abort(w->txn);
    gate_unlock(&w->j->gates->boot);
}

/* Ends a transaction: commits when nothing went wrong, else aborts and says what. r: our code, rc: LMDB's. */
static int write_end(struct write *w, int r, int rc, struct rbxj_error *e)
{
    if (r == 0 && rc == MDB_SUCCESS)
        return write_commit(w, e);
    write_abort(w);
    return r < 0 ? r : store_error(e, rc, &w->j->boot, w->j->folder);
}

/* ---- the parts of a transition ---- */

static int log_append(struct write *w, const struct box *box, uint32_t seq, bool needs_disk, const void *record,
                      size_t len)
{
    struct log_frame frame;
    uint64_t position = htobe64(w->position); /* given out by the caller */
    log_frame_fill(&frame, box->name, box->incarnation, seq, w->position, needs_disk, record, len);
    MDB_val key = {sizeof(position), &position}, data = {sizeof(frame) + len, NULL};
    int rc = mdb_put(w->txn, w->j->boot.log, &key, &data, MDB_RESERVE);
    if (rc == MDB_SUCCESS) {
        memcpy(data.mv_data, &frame, sizeof(frame));
        if (len)
            memcpy((uint8_t *)data.mv_data + sizeof(frame), record, len);
    }
    return rc;
}

/* Stores an encoded record, and logs it when its box is on disk (J2). */
static int put_encoded(struct write *w, const struct box *box, uint32_t seq, bool needs_disk, void *bytes, size_t len)
{
    struct record_key k = record_key(box->incarnation, seq);
    MDB_val key = {sizeof(k), &k}, data = {len, bytes};
    int rc = mdb_put(w->txn, w->j->boot.records, &key, &data, 0);
    if (rc == MDB_SUCCESS && (box->flags & BOX_ON_DISK))
        rc = log_append(w, box, seq, needs_disk, bytes, len);
    return rc;
}

/* record NULL: the header. */
static int put(struct write *w, const struct box *box, const struct record *record, bool needs_disk)
{
    _cleanup_free_ uint8_t *bytes = NULL;
    size_t len;
    uint64_t position = box->flags & BOX_ON_DISK ? ++w->position : 0;
    int r = record ? record_encode(record, position, &bytes, &len) : record_encode_box(box, position, &bytes, &len);
    if (r < 0)
        return -r;
    return put_encoded(w, box, record ? record->seq : 0, needs_disk, bytes, len);
}

static int mark_put(struct write *w, enum mark mark, uint64_t incarnation, uint32_t seq, const void *value, size_t len)
{
    struct mark_key k = {(uint8_t)mark, record_key(incarnation, seq)};
    MDB_val key = {sizeof(k), &k}, data = {len, (void *)(uintptr_t)value};
    return mdb_put(w->txn, w->j->boot.marks, &key, &data, 0);
}

static int mark_get(struct write *w, enum mark mark, uint64_t incarnation, uint32_t seq, void *value, size_t len)
{
    struct mark_key k = {(uint8_t)mark, record_key(incarnation, seq)};
    MDB_val key = {sizeof(k), &k}, data;
    int rc = mdb_get(w->txn, w->j->boot.marks, &key, &data);
    if (rc == MDB_SUCCESS && data.mv_size != len)
        return MDB_CORRUPTED;
    if (rc == MDB_SUCCESS && len)
        memcpy(value, data.mv_data, len);
    return rc;
}

static int mark_delete(struct write *w, enum mark mark, uint64_t incarnation, uint32_t seq)
{
    struct mark_key k = {(uint8_t)mark, record_key(incarnation, seq)};
    MDB_val key = {sizeof(k), &k};
    int rc = mdb_del(w->txn, w->j->boot.marks, &key, NULL);
    return rc == MDB_NOTFOUND ? MDB_SUCCESS : rc;
}

/* Reads a box's header: 0, NO_SUCH_BOX, JOURNAL_DAMAGED. */
static int get_box(MDB_txn *txn, struct journal *j, uint64_t incarnation, struct box *ret, struct rbxj_error *e)
{
    struct record_key k = record_key(incarnation, 0);
    MDB_val key = {sizeof(k), &k}, data;
    int rc = mdb_get(txn, j->boot.records, &key, &data);
    if (rc == MDB_NOTFOUND)
        return error_set(e, RBXJ_E_NO_SUCH_BOX, 0, "incarnation %llu: no such box", (unsigned long long)incarnation);
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, &j->boot, j->folder);
    if (record_decode_box(data.mv_data, data.mv_size, &k, ret) < 0)
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0, "journal %s: the header of incarnation %llu is damaged",
                         j->folder, (unsigned long long)incarnation);
    return 0;
}

static int get_record(MDB_txn *txn, struct journal *j, uint64_t incarnation, uint32_t seq, struct record *ret,
                      struct rbxj_error *e)
{
    struct record_key k = record_key(incarnation, seq);
    MDB_val key = {sizeof(k), &k}, data;
    int rc = mdb_get(txn, j->boot.records, &key, &data);
    if (rc == MDB_NOTFOUND || seq == 0)
        return error_set(e, RBXJ_E_NO_SUCH_BOX, 0, "seq %u of incarnation %llu: no such record", seq,
                         (unsigned long long)incarnation);
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, &j->boot, j->folder);
    if (record_decode(data.mv_data, data.mv_size, &k, ret) < 0)
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0, "journal %s: seq %u of incarnation %llu is damaged", j->folder,
                         seq, (unsigned long long)incarnation);
    return 0;
}

/* Steps over the records of a box, seq 0 included; first: the cursor's first step. MDB_NOTFOUND at the end. */
static int next_of_box(MDB_cursor *cursor, uint64_t incarnation, bool first, uint32_t *ret_seq, MDB_val *data)
{
    struct record_key start = record_key(incarnation, 0);
    MDB_val key = {sizeof(start), &start};
    uint64_t found;
    int rc = mdb_cursor_get(cursor, &key, data, first ? MDB_SET_RANGE : MDB_NEXT);
    if (rc != MDB_SUCCESS)
        return rc;
    if (key.mv_size != sizeof(start))
        return MDB_CORRUPTED;
    memcpy(&start, key.mv_data, sizeof(start));
    record_key_parse(&start, &found, ret_seq);
    return found == incarnation ? MDB_SUCCESS : MDB_NOTFOUND;
}

/* The first entry of a box that goes to disk takes its header and all its earlier records along (K23). */
static int move_to_disk(struct write *w, struct box *box)
{
    MDB_cursor *cursor;
    MDB_val data;
    uint32_t seq;
    box->flags |= BOX_ON_DISK;
    int rc = mdb_cursor_open(w->txn, w->j->boot.records, &cursor);
    if (rc != MDB_SUCCESS)
        return rc;
    for (bool first = true; rc == MDB_SUCCESS; first = false) {
        rc = next_of_box(cursor, box->incarnation, first, &seq, &data);
        if (rc != MDB_SUCCESS || seq == 0)
            continue; /* the header is written by the caller, with the flag */
        w->position++;
        rc = log_append(w, box, seq, true, data.mv_data, data.mv_size);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? MDB_SUCCESS : rc;
}

/* ---- begin and intend ---- */

/* Before an intent is accepted: the journals are where they were opened (K21), and have room (K26). */
static int check_for_intent(struct journal *j, struct rbxj_error *e)
{
    int r = journal_check_handle(j, e);
    if (r == 0)
        r = store_is_in_place(&j->boot, e);
    if (r == 0)
        r = store_is_in_place(&j->disk, e);
    if (r == 0)
        r = store_make_room(&j->boot, j->folder, &j->options, e);
    return r;
}

/* The incarnations to which overlap is no stranger: the box's own, and those of the boxes it lives in. */
static size_t related_boxes(struct write *w, const struct box *box, uint64_t *related, size_t max)
{
    struct box outer = *box;
    size_t n = 0;
    related[n++] = box->incarnation;
    while (n < max && outer.parent && get_box(w->txn, w->j, outer.parent, &outer, NULL) == 0)
        related[n++] = outer.incarnation;
    return n;
}

/* Stores one new intent: index, record, pending mark where the disk comes first (K22). */
static int add_intent(struct write *w, struct box *box, struct record *r, bool pending, struct rbxj_error *e)
{
    uint64_t related[16], other;
    size_t n = related_boxes(w, box, related, ARRAY_LEN(related));
    int rc = names_overlap(w->txn, &w->j->boot, r, related, n, &other);
    if (rc == MDB_KEYEXIST) {
        struct box owner = {0};
        if (get_box(w->txn, w->j, other, &owner, NULL) < 0)
            (void)strcpy(owner.name, "?");
        return error_set(e, RBXJ_E_EXISTS, EEXIST, "%s: overlaps what box %s has journaled", r->path, owner.name);
    }
    r->incarnation = box->incarnation;
    if (rc == MDB_SUCCESS)
        rc = names_add(w->txn, w->j->boot.names, r, w->j->boot_id);
    if (rc == MDB_SUCCESS)
        rc = put(w, box, r, true);
    if (rc == MDB_SUCCESS && pending)
        rc = mark_put(w, MARK_PENDING, r->incarnation, r->seq, NULL, 0);
    return rc == MDB_SUCCESS ? 0 : store_error(e, rc, &w->j->boot, w->j->folder);
}

/* A name that is taken: by a living supervisor, or by a dead one's records. */
static int refuse_name(struct journal *j, const struct box *found, struct rbxj_error *e)
{
    enum liveness live = box_liveness(j, j->state_dir, found);
    if (live == LIVE_DEAD)
        return error_set(e, RBXJ_E_BOX_STALE, EBUSY, "box %s: records of a dead supervisor (pid %d) are there: run "
                         "rbxj replay first", found->name, found->supervisor.pid);
    return error_set(e, RBXJ_E_BOX_LIVE, EBUSY, "box %s is held by pid %d", found->name, found->supervisor.pid);
}

static int lookup_name(MDB_txn *txn, struct journal *j, const char *name, struct box *ret, struct rbxj_error *e)
{
    MDB_val key = {strlen(name), (void *)(uintptr_t)name}, data;
    uint64_t incarnation;
    int rc = mdb_get(txn, j->boot.boxes, &key, &data);
    if (rc == MDB_NOTFOUND)
        return error_set(e, RBXJ_E_NO_SUCH_BOX, 0, "box %s: no such box", name);
    if (rc == MDB_SUCCESS && data.mv_size != sizeof(incarnation))
        rc = MDB_CORRUPTED;
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, &j->boot, j->folder);
    memcpy(&incarnation, data.mv_data, sizeof(incarnation));
    return get_box(txn, j, incarnation, ret, e);
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

/* Takes back what was written as pending: nobody was told. */
static void withdraw(struct journal *j, const struct box *box, uint32_t first_seq, uint32_t last_seq, bool whole)
{
    for (uint32_t seq = first_seq; seq <= last_seq; seq++)
        (void)journal_drop(j, box->incarnation, seq, NULL);
    if (whole)
        (void)journal_end(j, box->incarnation, NULL);
}

/* The disk has it: the marks go, and only now may the caller acquire (K22). */
static int grant(struct journal *j, uint64_t incarnation, uint32_t first_seq, uint32_t last_seq, struct rbxj_error *e)
{
    struct write w;
    int r = write_begin(j, &w, e), rc = MDB_SUCCESS;
    if (r < 0)
        return r;
    for (uint32_t seq = first_seq; seq <= last_seq && rc == MDB_SUCCESS; seq++)
        rc = mark_delete(&w, MARK_PENDING, incarnation, seq);
    return write_end(&w, 0, rc, e);
}

static int begin_locked(struct write *w, struct box *box, struct record *plan, size_t n, struct box *taken,
                        struct rbxj_error *e)
{
    struct rbxj_error ignored = {0};
    int r = lookup_name(w->txn, w->j, box->name, taken, &ignored);
    if (r == 0)
        return -RBXJ_E_BOX_LIVE; /* judged outside of the transaction */
    if (r != -RBXJ_E_NO_SUCH_BOX)
        return error_set(e, -r, ignored.errnum, "%s", ignored.message);
    MDB_val name = {strlen(box->name), box->name}, data = {sizeof(box->incarnation), &box->incarnation};
    int rc = mdb_put(w->txn, w->j->boot.boxes, &name, &data, 0);
    if (rc == MDB_SUCCESS)
        rc = put(w, box, NULL, true);
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, &w->j->boot, w->j->folder);
    for (size_t i = 0; i < n; i++) {
        r = add_intent(w, box, &plan[i], box->flags & BOX_ON_DISK, e);
        if (r < 0)
            return r;
    }
    return 0;
}

int journal_begin(struct journal *j, struct box *box, struct record *plan, size_t n, struct rbxj_error *e)
{
    struct write w;
    struct box new = *box, taken;
    int r = check_for_intent(j, e);
    new.flags &= ~(uint32_t)(BOX_ON_DISK | BOX_OWNER_LOCK);
    for (size_t i = 0; i < n; i++) {
        plan[i].seq = (uint32_t)i + 1;
        if (commit_is_needed(j->options.always, &plan[i]))
            new.flags |= BOX_ON_DISK;
    }
    if (j->options.always)
        new.flags |= BOX_ON_DISK;
    if (procid_equal(&box->supervisor, &j->self))
        new.flags |= BOX_OWNER_LOCK;
    new.planned = (uint32_t)n;
    new.next_seq = (uint32_t)n + 1;
    if (r == 0)
        r = write_begin(j, &w, e);
    if (r < 0)
        return r;
    int rc = fresh_incarnation(&w, &new.incarnation);
    if (rc == MDB_SUCCESS && (new.flags & BOX_OWNER_LOCK)) /* before anybody can see the box (K9) */
        r = fd_record_lock(j->alive_fd, F_WRLCK, alive_slot(new.incarnation));
    if (r < 0)
        r = error_sys(e, -r, "%s/alive: the lock of box %s", j->state_dir, box->name);
    taken.name[0] = 0;
    if (r == 0 && rc == MDB_SUCCESS)
        r = begin_locked(&w, &new, plan, n, &taken, e);
    uint64_t position = w.position;
    r = write_end(&w, r, rc, e);
    if (r == -RBXJ_E_BOX_LIVE && taken.name[0])
        r = refuse_name(j, &taken, e);
    if (r == 0 && (new.flags & BOX_ON_DISK)) {
        r = commit_through(j, position, e);
        if (r == 0)
            r = grant(j, new.incarnation, 1, (uint32_t)n, e);
        if (r < 0)
            withdraw(j, &new, 1, (uint32_t)n, true);
    }
    if (r < 0) {
        if (new.flags & BOX_OWNER_LOCK)
            (void)fd_record_lock(j->alive_fd, F_UNLCK, alive_slot(new.incarnation));
        return r;
    }
    *box = new;
    return 0;
}

static int claimed_by_other(struct write *w, uint64_t incarnation, struct procid *ret)
{
    int rc = mark_get(w, MARK_CLAIM, incarnation, 0, ret, sizeof(*ret));
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc != MDB_SUCCESS)
        return -rc;
    if (procid_equal(ret, &w->j->self))
        return 0;
    if (!procid_comparable(ret, &w->j->self))
        return 1; /* can't be seen from here: never free */
    int fd = procid_open(ret);
    if (fd >= 0)
        (void)close(fd);
    return fd != -ESRCH; /* a dead claimer's claim is void */
}

int journal_intend(struct journal *j, uint64_t incarnation, struct record *r, struct rbxj_error *e)
{
    struct write w;
    struct box box;
    struct procid claimer;
    bool disk = commit_is_needed(j->options.always, r);
    int res = check_for_intent(j, e), rc = MDB_SUCCESS;
    if (res == 0)
        res = write_begin(j, &w, e);
    if (res < 0)
        return res;
    res = get_box(w.txn, j, incarnation, &box, e);
    if (res == 0 && claimed_by_other(&w, incarnation, &claimer))
        res = error_set(e, RBXJ_E_BOX_STALE, EBUSY, "box %s is being torn down by pid %d", box.name, claimer.pid);
    if (res == 0) {
        r->seq = box.next_seq++;
        if (disk && !(box.flags & BOX_ON_DISK))
            rc = move_to_disk(&w, &box);
        if (rc == MDB_SUCCESS)
            rc = put(&w, &box, NULL, disk);
        if (rc == MDB_SUCCESS)
            res = add_intent(&w, &box, r, disk, e);
    }
    uint64_t position = w.position;
    res = write_end(&w, res, rc, e);
    if (res == 0 && disk) {
        res = commit_through(j, position, e);
        if (res == 0)
            res = grant(j, incarnation, r->seq, r->seq, e);
        if (res < 0)
            withdraw(j, &box, r->seq, r->seq, false);
    }
    return res;
}

/* ---- the rest of a record's life ---- */

int journal_update(struct journal *j, const struct record *r, bool durable, struct rbxj_error *e)
{
    struct write w;
    struct box box;
    struct record old = {0};
    int rc = MDB_SUCCESS, res = write_begin(j, &w, e);
    if (res < 0)
        return res;
    res = get_box(w.txn, j, r->incarnation, &box, e);
    if (res == 0)
        res = get_record(w.txn, j, r->incarnation, r->seq, &old, e);
    if (res == 0 && durable && !(box.flags & BOX_ON_DISK)) {
        rc = move_to_disk(&w, &box);
        if (rc == MDB_SUCCESS)
            rc = put(&w, &box, NULL, true);
    }
    if (res == 0 && rc == MDB_SUCCESS)
        rc = put(&w, &box, r, durable);
    record_clear(&old);
    uint64_t position = w.position;
    res = write_end(&w, res, rc, e);
    return res == 0 && durable ? commit_through(j, position, e) : res;
}

int journal_update_box(struct journal *j, const struct box *changed, struct rbxj_error *e)
{
    struct write w;
    struct box box;
    int rc = MDB_SUCCESS, res = write_begin(j, &w, e);
    if (res < 0)
        return res;
    res = get_box(w.txn, j, changed->incarnation, &box, e);
    if (res == 0) {
        box.failures = changed->failures;
        box.refused_boots = changed->refused_boots;
        rc = put(&w, &box, NULL, false);
    }
    return write_end(&w, res, rc, e);
}

/* Takes one record away, with its index entries, marks, and from the disk in log order. */
static int remove_record(struct write *w, const struct box *box, uint32_t seq, const struct record *r)
{
    struct record_key k = record_key(box->incarnation, seq);
    MDB_val key = {sizeof(k), &k};
    int rc = r ? names_remove(w->txn, w->j->boot.names, r) : MDB_SUCCESS;
    if (rc == MDB_SUCCESS)
        rc = mark_delete(w, MARK_PENDING, box->incarnation, seq);
    if (rc == MDB_SUCCESS)
        rc = mdb_del(w->txn, w->j->boot.records, &key, NULL);
    if (rc == MDB_SUCCESS && (box->flags & BOX_ON_DISK)) {
        w->position++;
        rc = log_append(w, box, seq, false, NULL, 0);
    }
    return rc;
}

int journal_drop(struct journal *j, uint64_t incarnation, uint32_t seq, struct rbxj_error *e)
{
    struct write w;
    struct box box;
    struct record old = {0};
    int rc = MDB_SUCCESS, r = write_begin(j, &w, e);
    if (r < 0)
        return r;
    r = get_box(w.txn, j, incarnation, &box, e);
    if (r == 0)
        r = get_record(w.txn, j, incarnation, seq, &old, e);
    if (r == 0)
        rc = remove_record(&w, &box, seq, &old);
    record_clear(&old);
    return write_end(&w, r, rc, e);
}

/* Takes the pending records of a box away; fails with LEFT at the first granted one. */
static int remove_pending(struct write *w, const struct box *box, struct rbxj_error *e)
{
    for (;;) {
        MDB_cursor *cursor;
        MDB_val data;
        uint32_t seq = 0;
        struct record r = {0};
        int rc = mdb_cursor_open(w->txn, w->j->boot.records, &cursor);
        if (rc != MDB_SUCCESS)
            return store_error(e, rc, &w->j->boot, w->j->folder);
        rc = next_of_box(cursor, box->incarnation, true, &seq, &data);
        if (rc == MDB_SUCCESS && seq == 0)
            rc = next_of_box(cursor, box->incarnation, false, &seq, &data);
        mdb_cursor_close(cursor);
        if (rc == MDB_NOTFOUND)
            return 0;
        if (rc == MDB_SUCCESS && mark_get(w, MARK_PENDING, box->incarnation, seq, NULL, 0) == MDB_NOTFOUND)
            return error_set(e, RBXJ_E_LEFT, EBUSY, "box %s: seq %u is still there: undo first", box->name, seq);
        int res = rc == MDB_SUCCESS ? get_record(w->txn, w->j, box->incarnation, seq, &r, e) : 0;
        if (res == 0 && rc == MDB_SUCCESS)
            rc = remove_record(w, box, seq, &r);
        record_clear(&r);
        if (res < 0)
            return res;
        if (rc != MDB_SUCCESS)
            return store_error(e, rc, &w->j->boot, w->j->folder);
    }
}

int journal_end(struct journal *j, uint64_t incarnation, struct rbxj_error *e)
{
    struct write w;
    struct box box;
    int rc = MDB_SUCCESS, r = write_begin(j, &w, e);
    if (r < 0)
        return r;
    r = get_box(w.txn, j, incarnation, &box, e);
    if (r == 0)
        r = remove_pending(&w, &box, e);
    if (r == 0) {
        MDB_val name = {strlen(box.name), box.name};
        rc = mdb_del(w.txn, j->boot.boxes, &name, NULL);
        if (rc == MDB_SUCCESS)
            rc = remove_record(&w, &box, 0, NULL);
        if (rc == MDB_SUCCESS)
            rc = mark_delete(&w, MARK_CLAIM, incarnation, 0);
        if (rc == MDB_SUCCESS)
            rc = mark_delete(&w, MARK_ATTEMPTS, incarnation, 0);
    }
    r = write_end(&w, r, rc, e);
    if (r == 0 && (box.flags & BOX_OWNER_LOCK) && procid_equal(&box.supervisor, &j->self))
        (void)fd_record_lock(j->alive_fd, F_UNLCK, alive_slot(incarnation));
    return r;
}

/* ---- claims (K11, K34) ---- */

int journal_claim(struct journal *j, uint64_t incarnation, struct rbxj_error *e)
{
    struct write w;
    struct box box;
    struct procid claimer;
    int rc = MDB_SUCCESS, r = write_begin(j, &w, e);
    if (r < 0)
        return r;
    r = get_box(w.txn, j, incarnation, &box, e);
    if (r == 0 && claimed_by_other(&w, incarnation, &claimer))
        r = error_set(e, RBXJ_E_BUSY, EBUSY, "box %s is being torn down by pid %d", box.name, claimer.pid);
    if (r == 0)
        rc = mark_put(&w, MARK_CLAIM, incarnation, 0, &j->self, sizeof(j->self));
    return write_end(&w, r, rc, e);
}

int journal_note_attempts(struct journal *j, uint64_t incarnation, uint32_t attempts, struct rbxj_error *e)
{
    struct write w;
    int r = write_begin(j, &w, e);
    if (r < 0)
        return r;
    return write_end(&w, 0, mark_put(&w, MARK_ATTEMPTS, incarnation, 0, &attempts, sizeof(attempts)), e);
}

int journal_unclaim(struct journal *j, uint64_t incarnation, struct rbxj_error *e)
{
    struct write w;
    int r = write_begin(j, &w, e);
    if (r < 0)
        return r;
    int rc = mark_delete(&w, MARK_CLAIM, incarnation, 0);
    if (rc == MDB_SUCCESS)
        rc = mark_delete(&w, MARK_ATTEMPTS, incarnation, 0);
    return write_end(&w, 0, rc, e);
}
