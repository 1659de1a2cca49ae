/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A write transaction on the boot journal, and the steps that the transitions of journal.h are made of. A
 * failed transaction leaves the journal as it was.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"

#include <endian.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#define TRIM_MAX 64 /* covered log entries that one transaction takes away */

/* Has this thread other descriptors than its process (unshare(2) with CLONE_FILES)? Record locks belong to
 * them, and end with the thread; and /proc/self/fd has the process'. A process whose first thread has ended
 * has none that could differ. */
static bool thread_is_apart(void)
{
    char link[2];
    pid_t process = getpid(), thread = gettid();
    return thread != process && syscall(SYS_kcmp, process, thread, KCMP_FILES, 0, 0) > 0 &&
           readlink("/proc/self/cwd", link, sizeof(link)) > 0;
}

int journal_check_handle(const struct journal *j, struct rbxj_error *e)
{
    struct stat st;
    if (!forked_is_self(&j->opener))
        return error_set(e, RBXJ_E_FORKED, 0, "journal %s: was opened by pid %d, open it after the fork",
                         j->state_dir, j->opener.pid);
    if (thread_is_apart())
        return error_set(e, RBXJ_E_BAD_REQUEST, 0,
                         "journal %s: this thread has descriptors of its own, and the process' locks are not "
                         "among them",
                         j->state_dir);
    int r = fstat(j->alive_fd, &st);
    if (r < 0 && errno != EBADF)
        return error_sys(e, errno, "%s/alive", j->state_dir);
    if (r < 0 || st.st_dev != j->alive_st.st_dev || st.st_ino != j->alive_st.st_ino)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0,
                         "%s/alive: its descriptor was closed by this program, and its locks "
                         "with it",
                         j->state_dir);
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
    uint64_t covered = atomic_load(&w->j->gates->covered), position;
    MDB_cursor *cursor;
    MDB_val key, data;
    int rc = mdb_cursor_open(w->txn, w->j->boot.log, &cursor);
    if (rc != MDB_SUCCESS)
        return rc;
    for (int i = 0; i < TRIM_MAX && rc == MDB_SUCCESS; i++) {
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

void write_abort(struct write *w)
{
    mdb_txn_abort(w->txn);
    gate_unlock(&w->j->gates->boot);
}

static int commit(struct write *w)
{
    int rc = MDB_SUCCESS;
    if (w->position != w->first) {
        rc = trim_log(w);
        if (rc == MDB_SUCCESS)
            rc = meta_put(w->txn, w->j->boot.meta, META_POSITION, &w->position, sizeof(w->position));
    }
    if (rc == MDB_SUCCESS)
        return mdb_txn_commit(w->txn);
    mdb_txn_abort(w->txn);
    return rc;
}

int write_end(struct write *w, int r, int rc, struct rbxj_error *e)
{
    struct journal *j = w->j;
    if (r == 0 && rc == MDB_SUCCESS) {
        rc = commit(w);
        gate_unlock(&j->gates->boot);
    } else {
        write_abort(w);
    }
    return r < 0 ? r : rc == MDB_SUCCESS ? 0 : store_error(e, rc, &j->boot, j->folder);
}

/* ---- the parts of a transition ---- */

static int log_append(struct write *w, const struct box *box, uint32_t seq, bool needs_disk,
                      const void *record, size_t len)
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

int write_put(struct write *w, const struct box *box, const struct record *record, bool needs_disk)
{
    _cleanup_free_ uint8_t *bytes = NULL;
    size_t len;
    uint32_t seq = record ? record->seq : 0;
    uint64_t position = box->flags & BOX_ON_DISK ? ++w->position : 0;
    int r = record ? record_encode(record, position, &bytes, &len)
                   : record_encode_box(box, position, &bytes, &len);
    if (r < 0)
        return -r;
    struct record_key k = record_key(box->incarnation, seq);
    MDB_val key = {sizeof(k), &k}, data = {len, bytes};
    int rc = mdb_put(w->txn, w->j->boot.records, &key, &data, 0);
    if (rc == MDB_SUCCESS && position)
        rc = log_append(w, box, seq, needs_disk, bytes, len);
    return rc;
}

int write_mark(struct write *w, enum mark mark, uint64_t incarnation, uint32_t seq, const void *value,
               size_t len)
{
    struct mark_key k = {(uint8_t)mark, record_key(incarnation, seq)};
    MDB_val key = {sizeof(k), &k}, data = {len, (void *)(uintptr_t)value};
    return mdb_put(w->txn, w->j->boot.marks, &key, &data, 0);
}

int write_mark_get(struct write *w, enum mark mark, uint64_t incarnation, uint32_t seq, void *value,
                   size_t len)
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

int write_unmark(struct write *w, enum mark mark, uint64_t incarnation, uint32_t seq)
{
    struct mark_key k = {(uint8_t)mark, record_key(incarnation, seq)};
    MDB_val key = {sizeof(k), &k};
    int rc = mdb_del(w->txn, w->j->boot.marks, &key, NULL);
    return rc == MDB_NOTFOUND ? MDB_SUCCESS : rc;
}

int write_get_box(struct write *w, uint64_t incarnation, struct box *ret, struct rbxj_error *e)
{
    struct journal *j = w->j;
    struct record_key k = record_key(incarnation, 0);
    MDB_val key = {sizeof(k), &k}, data;
    int rc = mdb_get(w->txn, j->boot.records, &key, &data);
    if (rc == MDB_NOTFOUND)
        return error_set(e, RBXJ_E_NO_SUCH_BOX, 0, "incarnation %llu: no such box",
                         (unsigned long long)incarnation);
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, &j->boot, j->folder);
    if (record_decode_box(data.mv_data, data.mv_size, &k, ret) < 0)
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0,
                         "journal %s: the header of incarnation %llu is damaged", j->folder,
                         (unsigned long long)incarnation);
    return 0;
}

int write_get_record(struct write *w, uint64_t incarnation, uint32_t seq, struct record *ret,
                     struct rbxj_error *e)
{
    struct journal *j = w->j;
    struct record_key k = record_key(incarnation, seq);
    MDB_val key = {sizeof(k), &k}, data;
    int rc = mdb_get(w->txn, j->boot.records, &key, &data);
    if (rc == MDB_NOTFOUND || seq == 0)
        return error_set(e, RBXJ_E_NO_SUCH_BOX, 0, "seq %u of incarnation %llu: no such record", seq,
                         (unsigned long long)incarnation);
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, &j->boot, j->folder);
    int r = record_decode(data.mv_data, data.mv_size, &k, ret);
    if (r == -ENOMEM)
        return error_sys(e, ENOMEM, "journal %s", j->folder);
    if (r < 0)
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0, "journal %s: seq %u of incarnation %llu is damaged",
                         j->folder, seq, (unsigned long long)incarnation);
    return 0;
}

int write_next(struct write *w, uint64_t incarnation, uint32_t seq, uint32_t *ret_seq, MDB_val *ret_data)
{
    MDB_cursor *cursor;
    struct record_key k = record_key(incarnation, seq);
    MDB_val key = {sizeof(k), &k};
    uint64_t found;
    int rc = mdb_cursor_open(w->txn, w->j->boot.records, &cursor);
    if (rc != MDB_SUCCESS)
        return rc;
    rc = mdb_cursor_get(cursor, &key, ret_data, MDB_SET_RANGE);
    mdb_cursor_close(cursor);
    if (rc == MDB_SUCCESS && key.mv_size != sizeof(k))
        return MDB_CORRUPTED;
    if (rc != MDB_SUCCESS)
        return rc;
    record_key_parse(key.mv_data, &found, ret_seq);
    return found == incarnation ? MDB_SUCCESS : MDB_NOTFOUND;
}

int write_move_to_disk(struct write *w, struct box *box)
{
    MDB_val data;
    uint32_t seq = 0;
    int rc;
    box->flags |= BOX_ON_DISK;
    while ((rc = write_next(w, box->incarnation, seq + 1, &seq, &data)) == MDB_SUCCESS) {
        /* what LMDB returned is valid only until the next put */
        _cleanup_free_ void *copy = malloc(data.mv_size);
        if (!copy)
            return ENOMEM;
        memcpy(copy, data.mv_data, data.mv_size);
        w->position++;
        rc = log_append(w, box, seq, true, copy, data.mv_size);
        if (rc != MDB_SUCCESS)
            return rc;
    }
    return rc == MDB_NOTFOUND ? write_put(w, box, NULL, true) : rc;
}

int write_remove(struct write *w, const struct box *box, uint32_t seq, const struct record *r)
{
    struct record_key k = record_key(box->incarnation, seq);
    MDB_val key = {sizeof(k), &k};
    int rc = r ? names_remove(w->txn, w->j->boot.names, r) : MDB_SUCCESS;
    if (rc == MDB_SUCCESS)
        rc = write_unmark(w, MARK_PENDING, box->incarnation, seq);
    if (rc == MDB_SUCCESS)
        rc = mdb_del(w->txn, w->j->boot.records, &key, NULL);
    if (rc == MDB_SUCCESS && (box->flags & BOX_ON_DISK)) {
        w->position++;
        rc = log_append(w, box, seq, false, NULL, 0);
    }
    return rc;
}

int write_remove_box(struct write *w, const struct box *box)
{
    MDB_val name = {strlen(box->name), (void *)(uintptr_t)box->name}, data;
    int rc = mdb_get(w->txn, w->j->boot.boxes, &name, &data);
    if (rc == MDB_SUCCESS && data.mv_size == sizeof(box->incarnation) &&
        memcmp(data.mv_data, &box->incarnation, sizeof(box->incarnation)) == 0)
        rc = mdb_del(w->txn, w->j->boot.boxes, &name, NULL);
    if (rc == MDB_SUCCESS || rc == MDB_NOTFOUND)
        rc = write_remove(w, box, 0, NULL);
    if (rc == MDB_SUCCESS)
        rc = write_unmark(w, MARK_CLAIM, box->incarnation, 0);
    return rc == MDB_SUCCESS ? write_unmark(w, MARK_ATTEMPTS, box->incarnation, 0) : rc;
}
