/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Durability: which record needs the disk, and the group commit.
 *
 * Whoever needs position P on disk takes the disk gate and looks whether it is covered already; if not it
 * leads: it opens the disk's write transaction, then a snapshot of the boot journal, copies every log entry
 * that the disk lacks, stores up to which one it is complete, and commits: one commit (two flushes) for
 * everybody who waits. A leader that dies before its commit loses nothing, since only the disk journal says
 * what is durable.
 *
 *   C1  covered on disk never decreases within a generation, and is written with the entries it covers,
 *       in one commit.
 *   C2  gates->covered is set after that commit only: it may lag, never lead.
 *   C3  a leader of a lost boot journal (another generation on disk) commits nothing (K21).
 *   C4  a damaged log never reaches the disk: then the records are copied instead of it (resync.c, K24).
 *   C5  every commit takes the counters along; for them alone only a flush commits, and not for the time of
 *       the last replay alone: one that finds nothing, at boot or every five minutes, costs no flush.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"

#include <endian.h>
#include <string.h>

#define EVERYTHING UINT64_MAX /* as a position: what there is, and the counters; never covered */

bool commit_is_needed(bool always, const struct record *r)
{
    if (always)
        return true;
    switch (r->kind) {
    case RBXJ_LOCK:
    case RBXJ_TMPDIR:
    case RBXJ_CGROUP:
        /* below a mount target of its own box, or of unknown parent: who knows what will be there (K23) */
        return r->below || !fileid_is_set(&r->parent) || !fs_is_volatile(r->parent.fs_magic);
    case RBXJ_MOUNT:
    case RBXJ_PROCESS:
        return false; /* dies with the boot; a target that had to be made is a record of its own */
    }
    return true;
}

static int apply_entry(struct journal *j, MDB_txn *to, MDB_val *data, uint64_t position)
{
    struct log_frame frame;
    if (log_check(data->mv_data, data->mv_size, position, &frame) < 0)
        return EBADMSG;
    struct record_key k = record_key(frame.incarnation, frame.seq);
    MDB_val key = {sizeof(k), &k};
    if (frame.op == LOG_DELETE) {
        int rc = mdb_del(to, j->disk.records, &key, NULL);
        return rc == MDB_NOTFOUND ? MDB_SUCCESS : rc;
    }
    MDB_val record = {data->mv_size - sizeof(frame), (uint8_t *)data->mv_data + sizeof(frame)};
    return mdb_put(to, j->disk.records, &key, &record, 0);
}

/* Copies what follows *covered; moves it along. */
static int apply_log(struct journal *j, MDB_txn *from, MDB_txn *to, uint64_t *covered)
{
    MDB_cursor *cursor;
    uint64_t start = htobe64(*covered + 1), position;
    MDB_val key = {sizeof(start), &start}, data;
    int rc = mdb_cursor_open(from, j->boot.log, &cursor);
    if (rc != MDB_SUCCESS)
        return rc;
    rc = mdb_cursor_get(cursor, &key, &data, MDB_SET_RANGE);
    for (; rc == MDB_SUCCESS; rc = mdb_cursor_get(cursor, &key, &data, MDB_NEXT)) {
        memcpy(&position, key.mv_data, sizeof(position));
        position = be64toh(position);
        /* positions have no gaps (J3): an entry that is missing is as bad as a wrong one */
        rc = position == *covered + 1 ? apply_entry(j, to, &data, position) : EBADMSG;
        if (rc != MDB_SUCCESS)
            break;
        *covered = position;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? MDB_SUCCESS : rc;
}

static int check_generation(struct journal *j, MDB_txn *to, struct rbxj_error *e)
{
    uint8_t generation[16];
    int rc = meta_get(to, j->disk.meta, META_GENERATION, generation, 16);
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, &j->disk, "disk journal");
    return belongs_check_generation(j->generation, generation, j->folder, e);
}

/* Under the disk gate, inside the disk's write transaction. *ret_covered: what the disk has after the
 * commit. */
static int lead(struct journal *j, MDB_txn *to, uint64_t position, uint64_t *ret_covered, bool *ret_changed,
                bool *ret_damaged, struct rbxj_error *e)
{
    uint64_t covered, last;
    MDB_txn *from;
    int r = check_generation(j, to, e);
    if (r < 0)
        return r;
    int rc = meta_get(to, j->disk.meta, META_COVERED, &covered, sizeof(covered));
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, &j->disk, "disk journal");
    *ret_covered = covered;
    *ret_changed = false;
    if (covered >= position)
        return 0;
    uint64_t before = covered;
    rc = mdb_txn_begin(j->boot.env, NULL, MDB_RDONLY, &from);
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, &j->boot, j->folder);
    rc = meta_get(from, j->boot.meta, META_POSITION, &last, sizeof(last));
    if (rc == MDB_SUCCESS)
        rc = apply_log(j, from, to, &covered);
    /* EBADMSG: the checksum of an entry is wrong; else one is missing between what the disk has and what was
     * given out: the records themselves say what is (K24) */
    if (rc == EBADMSG || (rc == MDB_SUCCESS && covered != last)) {
        *ret_damaged = true;
        covered = last;
        rc = resync(j, from, to);
    }
    enum counters_news counted = rc == MDB_SUCCESS ? counters_compare(from, j->boot.meta, to, j->disk.meta)
                                                   : COUNTERS_SAME;
    if (counted != COUNTERS_SAME)
        rc = counters_copy(from, j->boot.meta, to, j->disk.meta);
    mdb_txn_abort(from);
    if (rc == MDB_SUCCESS)
        rc = meta_put(to, j->disk.meta, META_COVERED, &covered, sizeof(covered));
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, &j->disk, "disk journal");
    *ret_covered = covered;
    *ret_changed = covered != before || counted == COUNTERS_MORE || *ret_damaged;
    return 0;
}

/* Under the disk gate. A failed write of the meta page leaves LMDB unusable until it is opened again; where
 * that fails, too, it is tried again the next time. */
static int revive_disk(struct journal *j, struct rbxj_error *e)
{
    char path[RECORD_PATH_MAX + 32];
    MDB_txn *txn;
    int rc = j->disk.env ? mdb_txn_begin(j->disk.env, NULL, MDB_RDONLY, &txn) : MDB_PANIC;
    if (rc == MDB_SUCCESS)
        mdb_txn_abort(txn);
    if (rc != MDB_PANIC)
        return 0; /* whatever it is: whoever writes will meet it, too */
    _cleanup_(fd_low_release) struct fd_low low = {.len = 0};
    int r = fd_low_hold(&low);
    if (r < 0)
        return error_sys(e, -r, "disk journal");
    store_close(&j->disk);
    (void)snprintf(path, sizeof(path), "%s/journal", j->state_dir);
    r = sound_check(j->state_fd, "journal/data.mdb", path, NULL, NULL, 0, e);
    if (r == 0)
        r = store_open(&j->disk, path, 0, false, &j->options, e);
    j->disk.sound = &j->gates->sound_disk;
    return r;
}

/* Under the disk gate. */
static int begin_on_disk(struct journal *j, MDB_txn **ret, struct rbxj_error *e)
{
    int r = revive_disk(j, e);
    if (r < 0)
        return r;
    r = alive_lock_disk(j, e);
    if (r < 0)
        return r;
    int rc = mdb_txn_begin(j->disk.env, NULL, 0, ret);
    if (rc == MDB_SUCCESS)
        return 0;
    alive_unlock_disk(j);
    return store_error(e, rc, &j->disk, "disk journal");
}

/* Commits or aborts, as lead() and the like say. */
static int end_on_disk(struct journal *j, MDB_txn *to, int r, bool changed, struct rbxj_error *e)
{
    if (r < 0 || !changed) {
        mdb_txn_abort(to);
        alive_unlock_disk(j);
        return r;
    }
    int rc = mdb_txn_commit(to);
    alive_unlock_disk(j);
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, &j->disk, "disk journal");
    return store_is_in_place(&j->disk, e); /* before anybody counts as covered (K21) */
}

static int commit_locked(struct journal *j, uint64_t position, bool *ret_damaged, struct rbxj_error *e)
{
    MDB_txn *to;
    uint64_t covered = 0;
    bool changed = false;
    int r = begin_on_disk(j, &to, e);
    if (r < 0)
        return r;
    r = lead(j, to, position, &covered, &changed, ret_damaged, e);
    r = end_on_disk(j, to, r, changed, e);
    if (r == 0)
        atomic_store(&j->gates->covered, covered);
    return r;
}

int commit_through(struct journal *j, uint64_t position, bool intent, struct rbxj_error *e)
{
    int64_t timeout = j->options.gate_timeout_ns;
    /* a flush is nobody else's work: it waits for its turn */
    int r = position == EVERYTHING
                ? gate_lock(&j->gates->disk, "disk journal", timeout, e)
                : gate_lock_unless(&j->gates->disk, &j->gates->covered, position, "disk journal", timeout, e);
    if (r < 0 || (r == 0 && position != EVERYTHING))
        return r;
    bool damaged = false;
    r = revive_disk(j, e);
    if (r == 0 && intent)
        r = store_make_room(&j->disk, "disk journal", &j->options, e);
    if (r == 0)
        r = commit_locked(j, position, &damaged, e);
    if (damaged && r == 0)
        resync_keep_aside(j);
    gate_pass(&j->gates->disk);
    return r;
}

int journal_flush(struct journal *j, struct rbxj_error *e)
{
    int r = journal_check_handle(j, e);
    return r < 0 ? r : commit_through(j, EVERYTHING, false, e);
}

static int seal_boot(struct journal *j, struct rbxj_error *e)
{
    struct write w;
    int r = write_begin(j, &w, e);
    if (r < 0)
        return r;
    return write_end(&w, 0, meta_put(w.txn, j->boot.meta, META_POSITION, &w.position, sizeof(w.position)), e);
}

/* A change of the disk journal alone: nothing of the log. */
static int change_disk(struct journal *j, int (*change)(struct journal *j, MDB_txn *to, bool *ret_changed),
                       struct rbxj_error *e)
{
    bool changed = false;
    MDB_txn *to;
    int r = gate_lock(&j->gates->disk, "disk journal", j->options.gate_timeout_ns, e);
    if (r < 0)
        return r;
    r = begin_on_disk(j, &to, e);
    if (r == 0) {
        r = check_generation(j, to, e);
        int rc = r < 0 ? MDB_SUCCESS : change(j, to, &changed);
        if (rc != MDB_SUCCESS)
            r = store_error(e, rc, &j->disk, "disk journal");
        r = end_on_disk(j, to, r, changed, e);
    }
    gate_pass(&j->gates->disk);
    return r;
}

static int write_again(struct journal *j, MDB_txn *to, bool *ret_changed)
{
    uint64_t covered;
    int rc = meta_get(to, j->disk.meta, META_COVERED, &covered, sizeof(covered));
    *ret_changed = true;
    return rc != MDB_SUCCESS ? rc : meta_put(to, j->disk.meta, META_COVERED, &covered, sizeof(covered));
}

int journal_seal(struct journal *j, struct rbxj_error *e)
{
    int r = journal_check_handle(j, e);
    if (r == 0)
        r = seal_boot(j, e);
    return r == 0 ? change_disk(j, write_again, e) : r;
}

static int forget_lost(struct journal *j, MDB_txn *to, bool *ret_changed)
{
    uint32_t lost = 0;
    (void)meta_get(to, j->disk.meta, META_GENERATIONS, &lost, sizeof(lost));
    *ret_changed = lost != 0;
    lost = 0;
    return *ret_changed ? meta_put(to, j->disk.meta, META_GENERATIONS, &lost, sizeof(lost)) : MDB_SUCCESS;
}

int journal_audited(struct journal *j, struct rbxj_error *e)
{
    int r = journal_check_handle(j, e);
    return r < 0 ? r : change_disk(j, forget_lost, e);
}
