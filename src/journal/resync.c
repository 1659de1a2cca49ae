/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * When the log of a boot journal is damaged (K24): what goes to disk is then taken from its records
 * themselves, each of which bears its own checksum. The log says what has changed; the records say what is:
 * after a resync the disk is the state of the boxes on disk, as if the whole log had been applied (J2).
 *
 * A box whose header can't be read, and a record that can't be, stay on disk as they were.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>

/* The box at hand of a walk over records, which come header first. */
struct walk {
    uint64_t incarnation;
    bool on_disk; /* its header is intact, and says so */
};

/* Does that record of the boot journal go to disk? Keeps the box at hand. */
static bool goes_to_disk(struct walk *w, const MDB_val *key, const MDB_val *data)
{
    struct box box;
    uint64_t incarnation;
    uint32_t seq;
    if (key->mv_size != sizeof(struct record_key))
        return false;
    record_key_parse(key->mv_data, &incarnation, &seq);
    if (incarnation != w->incarnation)
        *w = (struct walk){.incarnation = incarnation};
    if (seq == 0)
        w->on_disk = record_decode_box(data->mv_data, data->mv_size, key->mv_data, &box) == 0 &&
                     (box.flags & BOX_ON_DISK);
    return w->on_disk && record_check(data->mv_data, data->mv_size, key->mv_data, NULL) == 0;
}

static int put_all(struct journal *j, MDB_txn *from, MDB_txn *to)
{
    struct walk walk = {0};
    MDB_cursor *cursor;
    MDB_val key, data;
    int rc = mdb_cursor_open(from, j->boot.records, &cursor);
    if (rc != MDB_SUCCESS)
        return rc;
    while ((rc = mdb_cursor_get(cursor, &key, &data, MDB_NEXT)) == MDB_SUCCESS)
        if (goes_to_disk(&walk, &key, &data) &&
            (rc = mdb_put(to, j->disk.records, &key, &data, 0)) != MDB_SUCCESS)
            break;
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? MDB_SUCCESS : rc;
}

/* What the boot journal no longer has was dropped. */
static int delete_dropped(struct journal *j, MDB_txn *from, MDB_txn *to)
{
    MDB_cursor *cursor;
    MDB_val key, data, found;
    int rc = mdb_cursor_open(to, j->disk.records, &cursor);
    if (rc != MDB_SUCCESS)
        return rc;
    while ((rc = mdb_cursor_get(cursor, &key, &data, MDB_NEXT)) == MDB_SUCCESS) {
        rc = mdb_get(from, j->boot.records, &key, &found);
        if (rc == MDB_NOTFOUND)
            rc = mdb_cursor_del(cursor, 0);
        if (rc != MDB_SUCCESS)
            break;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? MDB_SUCCESS : rc;
}

int resync(struct journal *j, MDB_txn *from, MDB_txn *to)
{
    int rc = put_all(j, from, to);
    return rc == MDB_SUCCESS ? delete_dropped(j, from, to) : rc;
}

void resync_keep_aside(struct journal *j)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "damaged-%lld.mdb", (long long)(now_realtime_ns() / 1000000000));
    _cleanup_close_ int out = openat(j->state_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                                     0600);
    struct stat st;
    if (out < 0 || fstat(j->boot.fd, &st) < 0)
        return;
    /* without its holes: damaged, it may end petabytes from its start */
    for (uint64_t at = 0, end; fd_next_data(j->boot.fd, &at, (uint64_t)st.st_size, &end) > 0; at = end) {
        off_t offset = (off_t)at;
        if (lseek(out, offset, SEEK_SET) < 0)
            return;
        while (offset < (off_t)end && sendfile(out, j->boot.fd, &offset, end - (size_t)offset) > 0)
            ;
    }
}
