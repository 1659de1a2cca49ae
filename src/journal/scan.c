/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reading everything at one moment: an image of the data file, accepted by the independent reader and decoded
 * into a snapshot. Only one box alone, for its own supervisor, is read through LMDB.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/sorted.h"
#include "journal/image.h"
#include "journal/internal.h"

#include <stdlib.h>
#include <string.h>

static int grow(void *array, size_t *len, size_t *size, size_t width)
{
    void **p = array;
    if (*len < *size)
        return 0;
    size_t more = *size ? *size * 2 : 8;
    void *grown = reallocarray(*p, more, width);
    if (!grown)
        return -ENOMEM;
    *p = grown;
    *size = more;
    return 0;
}

struct building {
    struct snapshot *s;
    size_t boxes_size, records_size;
    bool header; /* the box at the end of s->boxes has its header */
};

/* A box whose header is missing or damaged is not undone: what it is can't be known. */
static void close_box(struct building *b)
{
    struct snapshot *s = b->s;
    if (s->len && !b->header) {
        snapshot_box_clear(&s->boxes[s->len - 1]);
        s->len--;
        s->damaged++;
    }
    b->records_size = 0;
}

static int add_entry(void *data, const struct pages_entry *e)
{
    struct building *b = data;
    struct snapshot *s = b->s;
    struct record_key key;
    uint64_t incarnation;
    uint32_t seq;
    if (e->key_len != sizeof(key)) {
        s->damaged++;
        return 0;
    }
    memcpy(&key, e->key, sizeof(key));
    record_key_parse(&key, &incarnation, &seq);
    if (s->len == 0 || s->boxes[s->len - 1].box.incarnation != incarnation) {
        close_box(b);
        if (grow(&s->boxes, &s->len, &b->boxes_size, sizeof(*s->boxes)) < 0)
            return -ENOMEM;
        s->boxes[s->len++] = (struct snapshot_box){.box.incarnation = incarnation};
        b->header = false;
    }
    struct snapshot_box *box = &s->boxes[s->len - 1];
    if (seq == 0) {
        b->header = record_decode_box(e->value, e->value_len, &key, &box->box) == 0;
        return 0;
    }
    struct record r;
    int res = record_decode(e->value, e->value_len, &key, &r);
    if (res == -ENOMEM)
        return res;
    if (res < 0) {
        box->damaged++;
        s->damaged++;
        return 0;
    }
    if (grow(&box->records, &box->len, &b->records_size, sizeof(r)) < 0) {
        record_clear(&r);
        return -ENOMEM;
    }
    box->records[box->len++] = r;
    return 0;
}

static int scan_records(const struct pages *p, struct snapshot *s)
{
    struct building b = {.s = s};
    int r = pages_each(p, DB_RECORDS, add_entry, &b);
    close_box(&b);
    return r;
}

static int compare_incarnation(const void *a, const void *b)
{
    uint64_t x = ((const struct snapshot_box *)a)->box.incarnation,
             y = ((const struct snapshot_box *)b)->box.incarnation;
    return (x > y) - (x < y);
}

static int compare_begun(const void *a, const void *b)
{
    int64_t x = ((const struct snapshot_box *)a)->order_ns, y = ((const struct snapshot_box *)b)->order_ns;
    return x != y ? (x > y) - (x < y) : compare_incarnation(a, b);
}

/* In the order begun: by the clock, unless it was set back while an outer box was there (K4). Sorted by
 * incarnation when this begins. */
static void sort_begun(struct snapshot *s)
{
    bool changed = true;
    for (size_t i = 0; i < s->len; i++)
        s->boxes[i].order_ns = s->boxes[i].box.begun_ns;
    for (size_t depth = 0; changed && depth < s->len; depth++) {
        changed = false;
        for (size_t i = 0; i < s->len; i++) {
            struct snapshot_box *inner = &s->boxes[i], key = {.box.incarnation = inner->box.parent};
            const struct snapshot_box *outer = key.box.incarnation ? bsearch(&key, s->boxes, s->len,
                                                                             sizeof(key), compare_incarnation)
                                                                   : NULL;
            if (!outer || outer->order_ns < inner->order_ns)
                continue;
            inner->order_ns = outer->order_ns + 1;
            changed = true;
        }
    }
    if (s->len)
        qsort(s->boxes, s->len, sizeof(*s->boxes), compare_begun);
}

static int apply_mark(void *data, const struct pages_entry *e)
{
    struct snapshot *s = data;
    struct snapshot_box wanted = {0};
    struct mark_key k;
    uint32_t seq;
    if (e->key_len != sizeof(k))
        return 0;
    memcpy(&k, e->key, sizeof(k));
    record_key_parse(&k.key, &wanted.box.incarnation, &seq);
    struct snapshot_box *box =
        s->len ? bsearch(&wanted, s->boxes, s->len, sizeof(*s->boxes), compare_incarnation) : NULL;
    if (!box)
        return 0;
    switch ((enum mark)k.mark) {
    case MARK_PENDING:
        for (size_t i = 0; i < box->len; i++)
            if (box->records[i].seq == seq)
                box->records[i].flags |= REC_PENDING;
        return 0;
    case MARK_CLAIM:
        if (e->value_len == sizeof(box->claimer))
            memcpy(&box->claimer, e->value, sizeof(box->claimer));
        return 0;
    case MARK_ATTEMPTS:
        if (e->value_len == sizeof(box->attempts))
            memcpy(&box->attempts, e->value, sizeof(box->attempts));
        return 0;
    }
    return 0;
}

/* Headers alone; what can't be read is left to whoever reads everything. */
static int add_header(void *data, const struct pages_entry *e)
{
    struct building *b = data;
    struct record_key key;
    struct box box;
    uint64_t incarnation;
    uint32_t seq;
    if (e->key_len != sizeof(key))
        return 0;
    memcpy(&key, e->key, sizeof(key));
    record_key_parse(&key, &incarnation, &seq);
    if (seq != 0 || record_decode_box(e->value, e->value_len, &key, &box) < 0)
        return 0;
    if (grow(&b->s->boxes, &b->s->len, &b->boxes_size, sizeof(*b->s->boxes)) < 0)
        return -ENOMEM;
    b->s->boxes[b->s->len++] = (struct snapshot_box){.box = box};
    return 0;
}

/* To which journal it belongs, and to which boot. */
static int scan_whose(const struct pages *p, bool boot, struct snapshot *s)
{
    int r = scan_lacks(p);
    if (r == 0)
        r = scan_meta(p, META_INSTANCE, s->instance, 16);
    if (r < 0 || !boot)
        return r;
    (void)scan_meta(p, META_GENERATION, s->generation, 16); /* it has them */
    (void)scan_meta(p, META_POSITION, &s->position, sizeof(s->position));
    return scan_meta(p, META_BOOT, s->boot_id, 16);
}

int scan_headers(const struct pages *p, bool boot, void *ret)
{
    struct snapshot s = {.txn = p->meta.txn};
    struct building b = {.s = &s};
    int r = scan_whose(p, boot, &s);
    if (r == 0)
        r = pages_each(p, DB_RECORDS, add_header, &b);
    if (r < 0)
        snapshot_clear(&s);
    else
        *(struct snapshot *)ret = s;
    return r;
}

int scan_snapshot(const struct pages *p, bool boot, void *ret)
{
    struct snapshot s = {.txn = p->meta.txn};
    struct pages_entry counters = {0};
    int r = scan_whose(p, boot, &s);
    if (r == 0)
        r = scan_records(p, &s); /* in the order of incarnations: marks are found by it */
    if (r == 0 && boot)
        r = pages_each(p, DB_MARKS, apply_mark, &s);
    if (r < 0) {
        snapshot_clear(&s);
        return r;
    }
    (void)scan_meta(p, META_SALVAGED, &s.salvaged_ns, sizeof(s.salvaged_ns)); /* most have none */
    if (pages_get(p, DB_META, META_COUNTERS, strlen(META_COUNTERS), &counters) == 0)
        counters_parse(counters.value, counters.value_len, &s.counters);
    sort_begun(&s);
    *(struct snapshot *)ret = s;
    return 0;
}

/* One box out of a read transaction: its header by name, then its range of records, then its pending
 * marks. */
static int scan_box(struct journal *j, MDB_txn *txn, const char *name, struct snapshot *s)
{
    struct building b = {.s = s};
    MDB_val key = {strlen(name), (void *)(uintptr_t)name}, data;
    MDB_cursor *cursor;
    uint64_t incarnation, found;
    uint32_t seq;
    int rc = mdb_get(txn, j->boot.boxes, &key, &data), r = 0;
    if (rc == MDB_SUCCESS && data.mv_size != sizeof(incarnation))
        rc = MDB_CORRUPTED;
    if (rc != MDB_SUCCESS)
        return rc;
    memcpy(&incarnation, data.mv_data, sizeof(incarnation));
    struct record_key start = record_key(incarnation, 0);
    key = (MDB_val){sizeof(start), &start};
    rc = mdb_cursor_open(txn, j->boot.records, &cursor);
    if (rc != MDB_SUCCESS)
        return rc;
    for (rc = mdb_cursor_get(cursor, &key, &data, MDB_SET_RANGE); rc == MDB_SUCCESS && r == 0;
         rc = mdb_cursor_get(cursor, &key, &data, MDB_NEXT)) {
        if (key.mv_size != sizeof(start))
            continue;
        record_key_parse(key.mv_data, &found, &seq);
        if (found != incarnation)
            break;
        const struct pages_entry e = {
            .key = key.mv_data, .key_len = key.mv_size, .value = data.mv_data, .value_len = data.mv_size};
        r = add_entry(&b, &e);
    }
    close_box(&b);
    mdb_cursor_close(cursor);
    for (size_t i = 0; s->len && i < s->boxes[0].len; i++) {
        struct mark_key mark = {MARK_PENDING, record_key(incarnation, s->boxes[0].records[i].seq)};
        key = (MDB_val){sizeof(mark), &mark};
        int marked = mdb_get(txn, j->boot.marks, &key, &data);
        if (marked == MDB_SUCCESS)
            s->boxes[0].records[i].flags |= REC_PENDING;
        else if (marked != MDB_NOTFOUND)
            rc = marked;
    }
    if (r < 0)
        return -r;
    return rc == MDB_NOTFOUND ? MDB_SUCCESS : rc;
}

int journal_get(struct journal *j, const char *name, struct snapshot_box *ret, struct rbxj_error *e)
{
    struct snapshot s = {0};
    MDB_txn *txn;
    int r = journal_check_handle(j, e);
    if (r < 0)
        return r;
    int rc = mdb_txn_begin(j->boot.env, NULL, MDB_RDONLY, &txn);
    if (rc == MDB_SUCCESS) {
        rc = scan_box(j, txn, name, &s);
        mdb_txn_abort(txn);
    }
    if (rc == MDB_NOTFOUND)
        r = error_set(e, RBXJ_E_NO_SUCH_BOX, 0, "box %s: no such box", name);
    else if (rc != MDB_SUCCESS)
        r = store_error(e, rc, &j->boot, j->folder);
    else if (s.damaged || s.len != 1)
        r = error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0, "journal %s: records of box %s are damaged", j->folder,
                      name);
    else
        *ret = s.boxes[0];
    if (r < 0)
        snapshot_clear(&s);
    else
        free(s.boxes);
    return r;
}

bool journal_has(struct journal *j, uint64_t incarnation)
{
    struct record_key k = record_key(incarnation, 0);
    MDB_val key = {sizeof(k), &k}, data;
    MDB_txn *txn;
    if (journal_check_handle(j, NULL) < 0 ||
        mdb_txn_begin(j->boot.env, NULL, MDB_RDONLY, &txn) != MDB_SUCCESS)
        return true;
    int rc = mdb_get(txn, j->boot.records, &key, &data);
    mdb_txn_abort(txn);
    return rc != MDB_NOTFOUND;
}

int scan_image(const struct image *image, bool boot, const char *shown, scan_function *scan, void *ret,
               struct rbxj_error *e)
{
    int r = scan(&image->pages, boot, ret);
    if (r == -EBADMSG)
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0, "journal %s: lacks what every journal has", shown);
    return r < 0 ? error_sys(e, -r, "journal %s", shown) : r;
}

int scan_store(struct store *store, bool boot, const char *shown, scan_function *scan, void *ret,
               struct rbxj_error *e)
{
    _cleanup_(image_clear) struct image image = {0};
    struct pages_fault fault = {0};
    int r = image_read_store(store, &image, &fault);
    return r < 0 ? image_error(e, r, &fault, shown) : scan_image(&image, boot, shown, scan, ret, e);
}

int journal_snapshot(struct journal *j, struct snapshot *ret, struct rbxj_error *e)
{
    int r = journal_check_handle(j, e);
    if (r == 0)
        r = scan_store(&j->boot, true, j->folder, scan_snapshot, ret, e);
    return r == 0 ? snapshot_index(ret, e) : r;
}

void snapshot_box_clear(struct snapshot_box *box)
{
    for (size_t k = 0; k < box->len; k++)
        record_clear(&box->records[k]);
    free(box->records);
    *box = (struct snapshot_box){0};
}

void snapshot_clear(struct snapshot *s)
{
    for (size_t i = 0; i < s->len; i++)
        snapshot_box_clear(&s->boxes[i]);
    free(s->boxes);
    free(s->paths);
    free(s->numbers);
    *s = (struct snapshot){0};
}

/* ---- which recorded paths overlap (K4) ---- */

/* Like strcmp, but '/' sorts before everything else: what lies inside a path follows it at once. */
static int compare_path(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    int x = *a == '/' ? 1
            : *a      ? (unsigned char)*a + 1
                      : 0,
        y = *b == '/' ? 1
            : *b      ? (unsigned char)*b + 1
                      : 0;
    return x - y;
}

static int compare_paths(const void *a, const void *b)
{
    return compare_path(((const struct snapshot_path *)a)->path, ((const struct snapshot_path *)b)->path);
}

int snapshot_index(struct snapshot *s, struct rbxj_error *e)
{
    size_t n = 0;
    for (size_t i = 0; i < s->len; i++)
        n += s->boxes[i].len;
    s->paths = calloc(n + 1, sizeof(*s->paths));
    if (!s->paths || snapshot_index_numbers(s) < 0) {
        snapshot_clear(s);
        return error_sys(e, ENOMEM, "journal");
    }
    for (size_t i = 0; i < s->len; i++)
        for (size_t k = 0; k < s->boxes[i].len; k++)
            if (s->boxes[i].records[k].path)
                s->paths[s->paths_len++] = (struct snapshot_path){s->boxes[i].records[k].path, i,
                                                                  &s->boxes[i].records[k]};
    if (s->paths_len)
        qsort(s->paths, s->paths_len, sizeof(*s->paths), compare_paths);
    return 0;
}

static int compare_path_key(const void *path, const void *item)
{
    return compare_path(path, ((const struct snapshot_path *)item)->path);
}

/* The first entry that is not before path. */
static size_t first_path(const struct snapshot *s, const char *path)
{
    return lower_bound(path, s->paths, s->paths_len, sizeof(*s->paths), compare_path_key);
}

int snapshot_overlaps(const struct snapshot *s, uint64_t own, const char *path,
                      int (*found)(void *data, const struct snapshot_box *box, const char *path), void *data)
{
    char ancestor[RECORD_PATH_MAX];
    size_t len = strlen(path);
    if (len >= sizeof(ancestor))
        return 0;
    for (size_t at = 1; at <= len; at++) {
        if (path[at] != '/' && path[at] != 0)
            continue;
        memcpy(ancestor, path, at);
        ancestor[at] = 0;
        for (size_t i = first_path(s, ancestor); i < s->paths_len; i++) {
            const struct snapshot_path *p = &s->paths[i];
            /* an ancestor must be equal; for path itself, what lies inside counts too */
            if (at < len ? strcmp(p->path, ancestor) != 0 : !path_is_below(p->path, path))
                break;
            bool dropped = p->record && (p->record->flags & REC_DROPPED);
            int r = !dropped && s->boxes[p->box].box.incarnation != own
                        ? found(data, &s->boxes[p->box], p->path)
                        : 0;
            if (r != 0)
                return r;
        }
    }
    return 0;
}
