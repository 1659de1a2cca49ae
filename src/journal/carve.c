/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Finding records in a damaged file, and telling which of them count.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/deletions.h"
#include "journal/image.h"
#include "journal/internal.h"
#include "journal/salvage.h"

#include <stdlib.h>
#include <string.h>

#define CHEAP 4096 /* as long as nearly every record is */
#define SPARE 8
#define READ_TRIES 50
#define META_BYTES 152
#define HEAD_BYTES 65536 /* both metas, whatever the page size is */

static const char magic[4] = {'R', 'B', 'X', 'J'}; /* RECORD_MAGIC, as stored */

/* ---- carving ---- */

static int add(struct autopsy *a, size_t *room, const struct carved *c)
{
    if (a->records_len == *room) {
        *room = *room ? *room * 2 : 256;
        struct carved *larger = reallocarray(a->records, *room, sizeof(*larger));
        if (!larger)
            return -ENOMEM;
        a->records = larger;
    }
    a->records[a->records_len++] = *c;
    return 0;
}

/* Does it look like the head of a record? What only has its first letters does not count as damaged. */
static bool is_head(const struct record_head *head)
{
    return head->version >= 1 && head->version <= 255 &&
           (head->type == RECORD_BOX || head->type == RECORD_RESOURCE) &&
           (head->type == RECORD_BOX) == (head->seq == 0) && head->length >= sizeof(*head) &&
           head->length <= RECORD_MAX;
}

/* The next magic from at on, or NULL. By its third letter, which is rare in text and in numbers: memchr() is
 * several times as fast as memmem(). */
static const uint8_t *find_magic(const uint8_t *at, const uint8_t *end)
{
    while (end - at >= (ptrdiff_t)sizeof(magic)) {
        const uint8_t *third = memchr(at + 2, magic[2], (size_t)(end - at - 3));
        if (!third)
            return NULL;
        if (memcmp(third - 2, magic, sizeof(magic)) == 0)
            return third - 2;
        at = third - 1;
    }
    return NULL;
}

struct carving {
    struct autopsy *a;
    size_t room;
    uint64_t spare; /* bytes that may yet be looked at in vain */
};

/* Heads may claim what other heads claim, too: one that is longer than nearly every record is only believed
 * to be one as long as not too much was looked at in vain. The work is bounded by the length of the file. */
static bool is_record(struct carving *k, const struct carved *c, size_t left)
{
    uint32_t length = c->head.length;
    bool costs = length > CHEAP;
    if (length > left || (costs && length > k->spare))
        return false;
    if (record_check(c->bytes, length, NULL, NULL) != -EBADMSG)
        return true;
    k->spare -= costs ? length : 0;
    return false;
}

static int carve_stretch(struct carving *k, const struct stretch *s)
{
    const struct whole *file = &k->a->file;
    const uint8_t *start = file->bytes, *end = start + file->len, *at = start + s->start;
    while ((at = find_magic(at, start + s->end))) {
        struct carved c = {.bytes = at, .offset = (uint64_t)(at - start), .state = CARVED_ORPHAN};
        size_t left = (size_t)(end - at);
        at++;
        if (left < sizeof(c.head))
            continue;
        memcpy(&c.head, c.bytes, sizeof(c.head));
        if (!is_head(&c.head))
            continue;
        if (is_record(k, &c, left))
            at = c.bytes + c.head.length;
        else
            c.state = CARVED_DAMAGED;
        int r = add(k->a, &k->room, &c);
        if (r < 0)
            return r;
    }
    return 0;
}

int autopsy_carve(struct autopsy *a)
{
    struct carving k = {.a = a, .spare = RECORD_MAX + SPARE * (uint64_t)a->file.len};
    int r = 0;
    for (size_t i = 0; i < a->file.stretches_len && r == 0; i++)
        r = carve_stretch(&k, &a->file.stretches[i]);
    return r;
}

/* ---- placing ---- */

static int compare_offset(const void *a, const void *b)
{
    uint64_t x = ((const struct carved *)a)->offset, y = ((const struct carved *)b)->offset;
    return (x > y) - (x < y);
}

struct placing {
    struct autopsy *a;
    size_t carved; /* of a->records, in the order of offsets */
    size_t room;
    int snapshot;
};

/* What the tree says, not what a damaged head does. */
static void set_key(struct carved *c, const struct pages_entry *e)
{
    struct record_key k;
    if (e->key_len != sizeof(k))
        return;
    memcpy(&k, e->key, sizeof(k));
    record_key_parse(&k, &c->head.incarnation, &c->head.seq);
}

/* Nothing but the walk vouches for what the tree says of it. */
static bool is_in_place(const struct carved *c, const struct pages_entry *e)
{
    struct record_key own = record_key(c->head.incarnation, c->head.seq);
    return e->key_len == sizeof(own) && memcmp(e->key, &own, sizeof(own)) == 0 &&
           e->value_len == c->head.length;
}

static int place_entry(void *data, const struct pages_entry *e)
{
    struct placing *p = data;
    struct autopsy *a = p->a;
    struct carved key = {.offset = (uint64_t)(e->value - a->file.bytes)};
    struct carved *found = p->carved
                               ? bsearch(&key, a->records, p->carved, sizeof(*a->records), compare_offset)
                               : NULL;
    if (found) {
        struct autopsy_snapshot *s = &a->snapshots[p->snapshot];
        found->newest = found->newest || p->snapshot == 0;
        found->previous = found->previous || p->snapshot == 1;
        if (found->state == CARVED_DAMAGED) {
            set_key(found, e);
            return 0;
        }
        a->misplaced += p->snapshot == 0 && !is_in_place(found, e);
        if (found->head.time_ns > s->latest_ns)
            s->latest_ns = found->head.time_ns;
        return 0;
    }
    /* a value that does not even look like a record */
    key.state = CARVED_DAMAGED;
    key.bytes = e->value;
    key.newest = p->snapshot == 0;
    key.previous = p->snapshot == 1;
    set_key(&key, e);
    return add(a, &p->room, &key);
}

static int place(struct autopsy *a)
{
    struct placing p = {.a = a, .carved = a->records_len, .room = a->records_len};
    for (p.snapshot = 0; p.snapshot < 2; p.snapshot++) {
        const struct autopsy_snapshot *s = &a->snapshots[p.snapshot];
        int r = s->sound ? pages_each(&s->pages, DB_RECORDS, place_entry, &p) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- classifying ---- */

/* By key; of one key first what counts most. */
static int compare_worth(const void *a, const void *b)
{
    const struct carved *x = a, *y = b;
    int r = record_compare(&x->head, &y->head);
    if (r)
        return r;
    if ((x->state == CARVED_DAMAGED) != (y->state == CARVED_DAMAGED))
        return x->state == CARVED_DAMAGED ? 1 : -1;
    if (x->newest != y->newest)
        return x->newest ? -1 : 1;
    if (x->head.position != y->head.position)
        return x->head.position > y->head.position ? -1 : 1;
    if (x->previous != y->previous)
        return x->previous ? -1 : 1;
    if (x->head.length != y->head.length) /* evidence makes it longer */
        return x->head.length > y->head.length ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static bool same_key(const struct carved *x, const struct carved *y)
{
    return x->head.incarnation == y->head.incarnation && x->head.seq == y->head.seq;
}

/* Half of a record is damage where something was lost by it: the newest snapshot that can be read has it.
 * Else it is what LMDB leaves in the room that it does not use: of a key that is whole elsewhere, or of one
 * that a sound snapshot does not have. */
static void leave_out_remnants(struct autopsy *a)
{
    size_t len = 0;
    bool whole = false;
    for (size_t i = 0; i < a->records_len; i++) {
        struct carved *c = &a->records[i];
        whole = c->state != CARVED_DAMAGED || (whole && same_key(c - 1, c));
        bool counts = a->snapshots[0].sound ? c->newest : c->previous || !whole;
        if (c->state != CARVED_DAMAGED || counts)
            a->records[len++] = *c;
    }
    a->records_len = len;
}

/* Was it dropped since, as far as can be known? With the newest snapshot lost, the previous one tells of all
 * that was written before it; of what came after, a record that went through the log says when, and of the
 * others one may come after it that is younger than everything in it. With neither, only the log tells, and
 * what is in no snapshot is nobody's word for it (REC_UNPROVEN). */
static bool is_dropped(const struct autopsy *a, const struct carved *c)
{
    const struct autopsy_snapshot *previous = &a->snapshots[1];
    if (a->snapshots[0].sound)
        return !c->newest;
    if (!previous->sound || c->previous || c->head.position > previous->position)
        return deletions_have(a->deletions, &c->head);
    return c->head.position || c->head.time_ns <= previous->latest_ns;
}

/* Is what the checksum vouches for a record in its form, too? What a newer version wrote is taken for one. */
static bool has_form(const struct carved *c)
{
    struct box box;
    struct record r = {0};
    int res = c->head.type == RECORD_BOX ? record_decode_box(c->bytes, c->head.length, NULL, &box)
                                         : record_decode(c->bytes, c->head.length, NULL, &r);
    record_clear(&r);
    return res != -EBADMSG;
}

/* Has the newest readable snapshot that key, but damaged? Then an older version is the best that is left. */
static bool is_damaged_there(const struct autopsy *a, size_t first)
{
    for (size_t i = first; i < a->records_len && same_key(&a->records[first], &a->records[i]); i++) {
        const struct carved *c = &a->records[i];
        if (c->state == CARVED_DAMAGED && (a->snapshots[0].sound ? c->newest : c->previous))
            return true;
    }
    return false;
}

static void classify(struct autopsy *a)
{
    bool first = true;
    size_t start = 0; /* of those of one key */
    if (a->records_len)
        qsort(a->records, a->records_len, sizeof(*a->records), compare_worth);
    leave_out_remnants(a);
    for (size_t i = 0; i < a->records_len; i++) {
        struct carved *c = &a->records[i];
        if (i && !same_key(c - 1, c)) {
            first = true;
            start = i;
        }
        if (c->state != CARVED_DAMAGED && first && !has_form(c)) {
            c->state = CARVED_DAMAGED; /* the next one of its key counts */
        } else if (c->state != CARVED_DAMAGED) {
            bool dropped = is_dropped(a, c) && !is_damaged_there(a, start);
            c->state = !first ? CARVED_SUPERSEDED : dropped ? CARVED_ORPHAN : CARVED_INTACT;
            first = false;
        }
        a->count[c->state]++;
    }
}

/* ---- the whole ---- */

static int open_snapshot(const struct autopsy *a, int which, struct autopsy_snapshot *s)
{
    s->which = which;
    int r = pages_open(a->file.bytes, a->file.len, which, &s->pages, &s->fault);
    if (r == -ENOMEM)
        return r;
    s->sound = r == 0;
    /* how far it had come: the boot's, or the disk's */
    if (s->sound && scan_meta(&s->pages, META_POSITION, &s->position, sizeof(s->position)) < 0)
        (void)scan_meta(&s->pages, META_COVERED, &s->position, sizeof(s->position));
    for (size_t k = 0; k < s->pages.dbs_len; k++)
        if (strcmp(s->pages.dbs[k].name, DB_RECORDS) == 0)
            s->records = s->pages.dbs[k].tree.entries;
    return 0;
}

static void leave_snapshot(struct autopsy_snapshot *s, const struct pages_fault *fault)
{
    pages_clear(&s->pages);
    *s = (struct autopsy_snapshot){.which = -1, .fault = *fault};
}

/* Both metas are well-formed: do they follow each other? The number of one that is sound as a whole is its
 * own. */
static void check_relation(struct autopsy *a)
{
    const struct pages_meta both[2] = {a->metas[0].meta, a->metas[1].meta};
    if (pages_metas_follow(both))
        return;
    int wrong = a->snapshots[0].sound == a->snapshots[1].sound ? both[0].txn > both[1].txn
                                                               : a->snapshots[0].sound;
    a->metas[wrong].sound = false;
    a->metas[wrong].fault = (struct pages_fault){(uint64_t)wrong, PAGES_UNRELATED};
    leave_snapshot(&a->snapshots[wrong], &a->metas[wrong].fault);
}

/* First in the order of their pages, then the newest first. */
static int open_snapshots(struct autopsy *a)
{
    for (int i = 0; i < 2; i++) {
        struct autopsy_meta *m = &a->metas[i];
        m->sound = pages_read_meta(a->file.bytes, a->file.len, i, &m->meta, &m->fault) == 0;
        int r = m->sound ? open_snapshot(a, i, &a->snapshots[i]) : 0;
        if (r < 0)
            return r;
        if (!m->sound)
            leave_snapshot(&a->snapshots[i], &m->fault);
    }
    if (a->metas[0].sound && a->metas[1].sound)
        check_relation(a);
    /* one meta that is unreadable may be the newer: what the other one has is not known to be the newest */
    bool swap = a->metas[0].sound && (!a->metas[1].sound || a->metas[1].meta.txn > a->metas[0].meta.txn);
    if (swap) {
        struct autopsy_snapshot first = a->snapshots[0];
        a->snapshots[0] = a->snapshots[1];
        a->snapshots[1] = first;
    }
    a->lacks = a->snapshots[0].sound && scan_lacks(&a->snapshots[0].pages) < 0;
    return 0;
}

/* As far as they are there; the second by the page size that the first one names. */
static void copy_metas(const uint8_t *head, size_t len, uint8_t ret[2][META_BYTES])
{
    struct pages_meta first;
    memset(ret, 0, 2UL * META_BYTES);
    size_t at = pages_read_meta(head, len, 0, &first, NULL) == 0 ? first.page_size : 4096;
    if (len >= META_BYTES)
        memcpy(ret[0], head, META_BYTES);
    if (len >= at + META_BYTES)
        memcpy(ret[1], head + at, META_BYTES);
}

/* The whole file as of one moment: where a transaction ends meanwhile, what was read is of several, and says
 * nothing about damage (K28). */
static int read_file(int fd, struct whole *ret)
{
    _cleanup_free_ uint8_t *head = malloc(HEAD_BYTES);
    for (int i = 0; i < READ_TRIES; i++) {
        uint8_t before[2][META_BYTES], after[2][META_BYTES];
        int r = head ? whole_read(fd, ret) : -ENOMEM;
        if (r < 0)
            return r;
        ssize_t n = fd_pread_all(fd, head, HEAD_BYTES, 0);
        copy_metas(ret->bytes, ret->len, before);
        copy_metas(head, n < 0 ? 0 : (size_t)n, after);
        if (n < 0 || memcmp(before, after, sizeof(before)) == 0)
            return 0;
        whole_clear(ret);
    }
    return -EAGAIN;
}

int autopsy_read(int dirfd, const char *name, const char *shown, struct autopsy *ret, struct rbxj_error *e)
{
    struct autopsy a = {0};
    struct stat st;
    _cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_sys(e, errno, "journal %s", shown);
    if (!S_ISREG(st.st_mode))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "journal %s: is not a regular file", shown);
    int r = (a.path = strdup(shown)) ? read_file(fd, &a.file) : -ENOMEM;
    if (r == 0)
        r = open_snapshots(&a);
    if (r == 0)
        r = autopsy_carve(&a);
    if (r == 0)
        r = place(&a);
    if (r == 0)
        r = deletions_find(&a, &a.deletions);
    if (r == 0)
        classify(&a);
    if (r < 0) {
        autopsy_clear(&a);
        return r == -EAGAIN ? image_error(e, r, NULL, shown) : error_sys(e, -r, "journal %s", shown);
    }
    *ret = a;
    return 0;
}

void autopsy_clear(struct autopsy *a)
{
    for (int i = 0; i < 2; i++)
        pages_clear(&a->snapshots[i].pages);
    whole_clear(&a->file);
    deletions_free(a->deletions);
    free(a->records);
    free(a->path);
    *a = (struct autopsy){0};
}

bool autopsy_is_sound(const struct autopsy *a)
{
    if (!a->metas[0].sound || !a->metas[1].sound || !a->snapshots[0].sound || a->file.unreadable ||
        a->misplaced || a->lacks)
        return false;
    for (size_t i = 0; i < a->records_len; i++)
        if (a->records[i].state == CARVED_DAMAGED && a->records[i].newest)
            return false;
    return true;
}
