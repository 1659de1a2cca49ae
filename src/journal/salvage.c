/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A new journal from what counts in damaged ones.
 */
#include "journal/salvage.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/sorted.h"
#include "journal/internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

/* One record that is taken. */
struct taken {
    const struct carved *carved;
    size_t file;
    bool kept;   /* its box has a header and a name of its own */
    bool proven; /* a sound snapshot has its key */
};

struct taking {
    struct taken *list;
    size_t len;
    struct salvaged result;
};

static int compare_taken(const void *a, const void *b)
{
    const struct taken *x = a, *y = b;
    int r = record_compare(&x->carved->head, &y->carved->head);
    if (r)
        return r;
    uint64_t px = x->carved->head.position, py = y->carved->head.position;
    return px != py ? (px < py) - (px > py) : (x->file > y->file) - (x->file < y->file);
}

/* ---- what is taken ---- */

static void take_of(const struct autopsy *files, size_t n, size_t which, struct taking *t)
{
    const struct autopsy *file = &files[which], *boot = salvage_boot_of(files, n, file);
    bool elsewhen = autopsy_is_of_another_boot(file) || salvage_is_behind(files, n, file);
    for (size_t i = 0; i < file->records_len; i++) {
        const struct carved *c = &file->records[i];
        if (c->state == CARVED_INTACT && !salvage_is_dropped(files, n, which, boot, c))
            t->list[t->len++] = (struct taken){
                .carved = c, .file = which, .kept = true, .proven = (c->newest || c->previous) && !elsewhen};
    }
}

/* Of each key the newest. What is dropped is gone (I6; forget flushes), so that it is proven by any snapshot
 * that has the key, as the disk's, whose version may be an older one. */
static int take_newest(const struct autopsy *files, size_t n, struct taking *t)
{
    size_t room = 1, len = 0;
    for (size_t i = 0; i < n; i++)
        room += files[i].count[CARVED_INTACT];
    t->list = calloc(room, sizeof(*t->list));
    if (!t->list)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        take_of(files, n, i, t);
    if (t->len)
        qsort(t->list, t->len, sizeof(*t->list), compare_taken);
    for (size_t i = 0; i < t->len; i++) {
        const struct record_head *last = len ? &t->list[len - 1].carved->head : NULL,
                                 *head = &t->list[i].carved->head;
        if (last && last->incarnation == head->incarnation && last->seq == head->seq)
            t->list[len - 1].proven |= t->list[i].proven;
        else
            t->list[len++] = t->list[i];
    }
    t->len = len;
    return 0;
}

static bool header_of(const struct taken *t, struct box *ret)
{
    const struct record_head *head = &t->carved->head;
    return head->seq == 0 && record_decode_box(t->carved->bytes, head->length, NULL, ret) == 0;
}

/* A box that is found: where its records are, the header first. */
struct found {
    struct box box;
    size_t start, end;
};

static int compare_found(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    int r = strcmp(x->box.name, y->box.name);
    if (r)
        return r;
    if (x->box.begun_ns != y->box.begun_ns)
        return x->box.begun_ns > y->box.begun_ns ? -1 : 1;
    return (x->box.incarnation < y->box.incarnation) - (x->box.incarnation > y->box.incarnation);
}

static void leave_out_range(struct taking *t, size_t start, size_t end)
{
    for (size_t i = start; i < end; i++)
        t->list[i].kept = false;
}

/* What a newer version wrote can't be marked, and who replays could not read it; as beside it in any journal,
 * nothing of its box is undone. Returns how many. */
static size_t leave_out_newer(struct taking *t, size_t start, size_t end)
{
    size_t n = 0;
    for (size_t i = start; i < end; i++)
        if (t->list[i].carved->head.version > RECORD_VERSION) {
            t->list[i].kept = false;
            n++;
        }
    for (size_t i = start; i < end && n; i++)
        t->list[i].proven = false;
    return n;
}

/* 0, with no path where it has none or can't be read; -ENOMEM. */
static int path_of(const struct taken *t, char **ret)
{
    struct record r;
    const struct record_head *head = &t->carved->head;
    int res = head->seq ? record_decode(t->carved->bytes, head->length, NULL, &r) : -EBADMSG;
    *ret = NULL;
    if (res < 0)
        return res == -ENOMEM ? res : 0;
    *ret = steal_ptr(r.path);
    record_clear(&r);
    return 0;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* 0: item lies inside that directory. */
static int compare_inside(const void *directory, const void *item)
{
    const char *path = *(char *const *)item;
    size_t len = strlen(directory);
    int r = strncmp(directory, path, len);
    return r ? r : '/' - (unsigned char)path[len];
}

/* Does one of the paths, which are sorted, lie inside this one? */
static bool holds_any(char *const *paths, size_t n, const char *path)
{
    size_t first = lower_bound(path, paths, n, sizeof(*paths), compare_inside);
    return first < n && compare_inside(path, &paths[first]) == 0;
}

static int doubt_holders_of(struct taking *t, char **paths, size_t *n)
{
    for (size_t i = 0; i < t->len; i++) {
        int r = t->list[i].kept ? 0 : path_of(&t->list[i], &paths[*n]);
        if (r < 0)
            return r;
        *n += !t->list[i].kept && paths[*n];
    }
    if (*n)
        qsort(paths, *n, sizeof(*paths), compare_paths);
    for (size_t i = 0; i < t->len && *n; i++) {
        _cleanup_free_ char *path = NULL;
        int r = t->list[i].kept ? path_of(&t->list[i], &path) : 0;
        if (r < 0)
            return r;
        if (path && holds_any(paths, *n, path))
            t->list[i].proven = false;
    }
    return 0;
}

/* What was left out so far has no header: whether its supervisor lives nobody knows, and nothing in the new
 * journal keeps a replay from what it has (K4, I3). So what it lies in is left alone, too. */
static int doubt_holders(struct taking *t)
{
    size_t n = 0;
    char **paths = calloc(t->result.without_header + 1, sizeof(*paths));
    if (!paths)
        return -ENOMEM;
    int r = doubt_holders_of(t, paths, &n);
    while (n)
        free(paths[--n]);
    free(paths);
    return r;
}

/* What has no header, and boxes of a name that a younger one has. */
static int leave_out(struct taking *t)
{
    _cleanup_free_ struct found *boxes = calloc(t->len + 1, sizeof(*boxes));
    size_t n = 0;
    if (!boxes)
        return -ENOMEM;
    for (size_t i = 0, next; i < t->len; i = next) {
        uint64_t incarnation = t->list[i].carved->head.incarnation;
        for (next = i; next < t->len && t->list[next].carved->head.incarnation == incarnation;)
            next++;
        if (header_of(&t->list[i], &boxes[n].box)) {
            boxes[n].start = i;
            boxes[n++].end = next;
        } else {
            leave_out_range(t, i, next);
            t->result.without_header += next - i;
        }
    }
    int r = t->result.without_header ? doubt_holders(t) : 0;
    if (r < 0)
        return r;
    if (n)
        qsort(boxes, n, sizeof(*boxes), compare_found);
    for (size_t i = 0; i < n; i++) {
        if (i && strcmp(boxes[i - 1].box.name, boxes[i].box.name) == 0) {
            leave_out_range(t, boxes[i].start, boxes[i].end);
            t->result.same_name++;
        } else {
            size_t newer = leave_out_newer(t, boxes[i].start, boxes[i].end);
            t->result.boxes++;
            t->result.newer_version += newer;
            t->result.records += boxes[i].end - boxes[i].start - 1 - newer;
        }
    }
    return 0;
}

/* A box that was in the boot journal alone is on disk now: its header says so (J2). It may be older than its
 * records, the last of which has the number last. */
static int put_header(MDB_txn *txn, struct store *s, const struct carved *c, uint32_t last, MDB_val *key)
{
    struct box box;
    _cleanup_free_ uint8_t *bytes = NULL;
    size_t len;
    int r = record_decode_box(c->bytes, c->head.length, NULL, &box);
    box.flags |= BOX_ON_DISK;
    if (box.next_seq <= last)
        box.next_seq = last + 1;
    if (r == 0)
        r = record_encode_box(&box, c->head.position, &bytes, &len);
    if (r < 0)
        return -r;
    MDB_val value = {len, bytes};
    return mdb_put(txn, s->records, key, &value, 0);
}

/* One that no sound snapshot has may have been dropped long ago: it is listed, and nothing is done about it
 * (I4). */
static int put_unproven(MDB_txn *txn, struct store *s, const struct carved *c, MDB_val *key)
{
    struct record r;
    _cleanup_free_ uint8_t *bytes = NULL;
    size_t len;
    int rc = record_decode(c->bytes, c->head.length, NULL, &r);
    if (rc < 0)
        return -rc;
    r.flags |= REC_UNPROVEN;
    rc = record_encode(&r, c->head.position, &bytes, &len);
    record_clear(&r);
    if (rc < 0)
        return -rc;
    MDB_val value = {len, bytes};
    return mdb_put(txn, s->records, key, &value, 0);
}

static int put_record(MDB_txn *txn, struct store *s, const struct taken *t, MDB_val *key)
{
    const struct carved *c = t->carved;
    MDB_val value = {c->head.length, (void *)(uintptr_t)c->bytes};
    return t->proven ? mdb_put(txn, s->records, key, &value, 0) : put_unproven(txn, s, c, key);
}

/* After everything that was salvaged, whatever the clock did. */
static int64_t salvage_time(const struct taking *t)
{
    int64_t latest = now_realtime_ns();
    for (size_t i = 0; i < t->len; i++)
        if (t->list[i].carved->head.time_ns > latest)
            latest = t->list[i].carved->head.time_ns;
    return latest;
}

/* What is logged from now on comes after all that was: the younger of two versions has the higher position
 * (K21). */
static uint64_t last_position(const struct taking *t)
{
    uint64_t last = 0;
    for (size_t i = 0; i < t->len; i++)
        if (t->list[i].carved->head.position > last)
            last = t->list[i].carved->head.position;
    return last;
}

static uint32_t last_of(const struct taking *t, size_t header)
{
    size_t i = header;
    while (i + 1 < t->len &&
           t->list[i + 1].carved->head.incarnation == t->list[header].carved->head.incarnation)
        i++;
    return t->list[i].carved->head.seq;
}

static int fill(MDB_txn *txn, struct store *s, void *data)
{
    struct taking *t = data;
    int64_t time = salvage_time(t);
    uint64_t covered = last_position(t);
    int rc = meta_put(txn, s->meta, META_SALVAGED, &time, sizeof(time));
    if (rc == MDB_SUCCESS)
        rc = meta_put(txn, s->meta, META_COVERED, &covered, sizeof(covered));
    for (size_t i = 0; i < t->len && rc == MDB_SUCCESS; i++) {
        const struct carved *c = t->list[i].carved;
        struct record_key k = record_key(c->head.incarnation, c->head.seq);
        MDB_val key = {sizeof(k), &k};
        if (t->list[i].kept)
            rc = c->head.seq == 0 ? put_header(txn, s, c, last_of(t, i), &key)
                                  : put_record(txn, s, &t->list[i], &key);
    }
    return rc;
}

/* Into an empty directory. */
static int write_into(int fd, const char *dir, const struct autopsy *files, size_t n,
                      const struct journal_options *options, struct salvaged *ret, struct rbxj_error *e)
{
    struct taking t = {0};
    uint8_t instance[16];
    int r = take_newest(files, n, &t);
    if (r == 0)
        r = leave_out(&t);
    r = r < 0 ? error_sys(e, -r, "salvage") : 0;
    random_bytes(instance, sizeof(instance));
    if (r == 0)
        r = create_disk_journal(fd, dir, options, instance, fill, &t, e);
    free(t.list);
    if (r == 0)
        *ret = t.result;
    return r;
}

/* Two at once would each take what the other has not finished for the leftover of a dead one. While fd is
 * open. */
static int lock_dir(int fd, const char *dir, struct rbxj_error *e)
{
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    return errno == EWOULDBLOCK ? error_set(e, RBXJ_E_BUSY, EBUSY, "%s: another salvage writes into it", dir)
                                : error_sys(e, errno, "%s", dir);
}

static int check_empty(int fd, const char *dir, struct rbxj_error *e)
{
    int r = fd_dir_is_empty(fd);
    if (r == 0)
        return error_set(e, RBXJ_E_BAD_REQUEST, ENOTEMPTY, "%s: is not empty", dir);
    return r < 0 ? error_sys(e, -r, "%s", dir) : 0;
}

/* Else an empty journal would say that nothing was left behind. */
static bool has_anything(const struct autopsy *files, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (files[i].snapshots[0].sound || files[i].snapshots[1].sound || files[i].count[CARVED_INTACT])
            return true;
    return false;
}

int salvage_write(const struct autopsy *files, size_t n, bool boot_is_all, const char *dir,
                  const struct journal_options *options, struct salvaged *ret, struct rbxj_error *e)
{
    if (!has_anything(files, n))
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0,
                         "salvage: neither a snapshot nor a record can be read: what was left behind is not "
                         "known; 'rbxj audit' looks for it");
    bool made = mkdir(dir, 0700) == 0;
    if (!made && errno != EEXIST)
        return error_sys(e, errno, "%s", dir);
    _cleanup_close_ int fd = files_open_dir(dir, "directory", e);
    int r = fd == -ENOENT ? error_sys(e, ENOENT, "%s", dir) : fd < 0 ? fd : lock_dir(fd, dir, e);
    if (r == 0)
        r = check_empty(fd, dir, e);
    if (r == 0)
        r = write_into(fd, dir, files, boot_is_all && n ? 1 : n, options, ret, e);
    if (made && r < 0)
        (void)rmdir(dir);
    return r;
}
