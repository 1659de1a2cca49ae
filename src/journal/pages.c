/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The format is described in LMDB's mdb.c (MDB_page, MDB_node, MDB_db, MDB_meta); offsets are those of
 * x86-64.
 */
#include "journal/pages_tree.h"

#include <stdlib.h>

#define PAGE_META 0x08
#define PAGE_SIZE_MIN 512
#define META_MAGIC 0xBEEFC0DEu
#define META_LEN 152
#define UNWRITTEN_MAX 65536
#define FREE_FLAGS 0x08 /* integer keys */

/* ---- the metas ---- */

static void read_tree(const uint8_t *at, struct pages_tree *ret)
{
    *ret = (struct pages_tree){
        .depth = u16(at + 6),
        .branch_pages = u64(at + 8),
        .leaf_pages = u64(at + 16),
        .overflow_pages = u64(at + 24),
        .entries = u64(at + 32),
        .root = u64(at + 40),
    };
}

static bool tree_is_sound(const struct pages_tree *t, uint64_t last_page)
{
    if (t->root == PAGES_NONE)
        return t->depth == 0 && t->branch_pages == 0 && t->leaf_pages == 0 && t->overflow_pages == 0 &&
               t->entries == 0;
    return t->depth >= 1 && t->depth <= DEPTH_MAX && t->root >= 2 && t->root <= last_page;
}

static bool is_meta(const uint8_t *page, int which)
{
    return u64(page) == (uint64_t)which && u16(page + 10) == PAGE_META;
}

/* Where meta page 0 is damaged, the other one is where it says of itself that it is. 0: nowhere. */
static uint32_t find_second(const uint8_t *image, size_t len)
{
    for (uint32_t size = PAGE_SIZE_MIN; size <= PAGE_SIZE_MAX && len >= (size_t)size * 2; size *= 2)
        if (is_meta(image + size, 1) && u32(image + size + 16) == META_MAGIC &&
            u32(image + size + 40) == size)
            return size;
    return 0;
}

int pages_read_meta(const void *image, size_t len, int which, struct pages_meta *ret,
                    struct pages_fault *fault)
{
    const uint8_t *first = image, *at;
    struct pages_meta unused;
    uint32_t size;
    if (len < META_LEN)
        return pages_bad(fault, 0, "the file is too short");
    size = which && pages_read_meta(image, len, 0, &unused, NULL) < 0 ? find_second(image, len) : 0;
    size = size ? size : u32(first + 40);
    if (size < PAGE_SIZE_MIN || size > PAGE_SIZE_MAX || (size & (size - 1)))
        return pages_bad(fault, 0, "no page size");
    if (len < (size_t)size * 2)
        return pages_bad(fault, 0, "the file is too short");
    at = first + (which ? size : 0);
    if (!is_meta(at, which))
        return pages_bad(fault, (uint64_t)which, "is no meta page");
    if (u32(at + 16) != META_MAGIC || u32(at + 20) != 1)
        return pages_bad(fault, (uint64_t)which, "is not of LMDB's format 1");
    struct pages_meta m = {.page_size = u32(at + 40),
                           .map_size = u64(at + 32),
                           .last_page = u64(at + 136),
                           .txn = u64(at + 144)};
    read_tree(at + 40, &m.free);
    read_tree(at + 88, &m.main);
    if (m.page_size != size || u64(at + 24) != 0)
        return pages_bad(fault, (uint64_t)which, "the two meta pages differ in what is the same for ever");
    if (u16(at + 44) != FREE_FLAGS || u32(at + 88) != 0 || u16(at + 92) != 0)
        return pages_bad(fault, (uint64_t)which, "a database is of a form that no journal has");
    if (m.last_page < 1 || m.last_page >= UINT64_MAX / size || m.map_size % size ||
        m.last_page >= m.map_size / size)
        return pages_bad(fault, (uint64_t)which, "its pages do not fit into its map");
    /* transaction N is in page N & 1; both are 0 in a file that is being made */
    if (m.txn && (m.txn & 1) != (uint64_t)which)
        return pages_bad(fault, (uint64_t)which, "its transaction belongs to the other meta page");
    *ret = m;
    return 0;
}

static int check_tree(struct walk *w, const struct tree *t, on_entry *entry, void *data)
{
    struct counts c = {0};
    const struct pages_tree *s = t->stored;
    int r = tree_walk(w, t, &c, entry, data);
    if (r < 0)
        return r;
    if (c.branch != s->branch_pages || c.leaf != s->leaf_pages || c.overflow != s->overflow_pages ||
        c.entries != s->entries)
        return pages_bad(w->fault, s->root, "the tree below it is not the one that was counted");
    w->p->live += c.branch + c.leaf + c.overflow;
    return 0;
}

/* ---- the databases ---- */

static int add_db(void *data, const struct pages_entry *e)
{
    struct walk *w = data;
    struct pages *p = w->p;
    if (p->dbs_len == PAGES_DBS_MAX || e->key_len > PAGES_NAME_MAX || memchr(e->key, 0, e->key_len))
        return pages_bad(w->fault, e->page, "names a database that no journal has");
    struct pages_db *db = &p->dbs[p->dbs_len++];
    memcpy(db->name, e->key, e->key_len);
    read_tree(e->value, &db->tree);
    if (u32(e->value) != 0 || u16(e->value + 4) != 0 || !tree_is_sound(&db->tree, p->meta.last_page))
        return pages_bad(w->fault, e->page, "a database is of a form that no journal has");
    return 0;
}

static int accept_entry(void *data, const struct pages_entry *e)
{
    (void)data;
    (void)e;
    return 0;
}

/* The key is the transaction that freed them; the value is their number, and they, descending. */
static int add_free(void *data, const struct pages_entry *e)
{
    struct walk *w = data;
    uint64_t last = UINT64_MAX, n = e->value_len >= 8 ? u64(e->value) : UINT64_MAX;
    if (e->value_len % 8 || n != e->value_len / 8 - 1 || u64(e->key) > w->p->meta.txn)
        return pages_bad(w->fault, e->page, "its list of free pages has no sound form");
    for (uint64_t i = 1; i <= n; i++) {
        uint64_t page = u64(e->value + 8 * i);
        if (page >= last)
            return pages_bad(w->fault, e->page, "its list of free pages does not descend");
        int r = tree_claim(w, page, 1);
        if (r < 0)
            return r;
        last = page;
    }
    w->p->free += n;
    w->freed = u64(e->key);
    return 0;
}

static int check_all(struct walk *w)
{
    struct pages *p = w->p;
    int r = check_tree(w, &(struct tree){.stored = &p->meta.main, .trees = true}, add_db, w);
    for (size_t i = 0; i < p->dbs_len && r == 0; i++)
        r = check_tree(w, &(struct tree){.stored = &p->dbs[i].tree}, accept_entry, NULL);
    if (r == 0)
        r = check_tree(w, &(struct tree){.stored = &p->meta.free, .integer = true}, add_free, w);
    /* each commit but the first frees pages: its own number is the last in the list. Else the number was
     * damaged, and the other snapshot may be the newest */
    if (r == 0 && p->meta.txn > 1 && w->freed != p->meta.txn)
        r = pages_bad(w->fault, p->meta.txn & 1,
                      "its transaction is not the one that its list of free pages ends with");
    return r;
}

/* The two metas are in the image. */
static int make_slots(struct pages *p)
{
    p->slots = calloc(p->meta.last_page + 1, sizeof(*p->slots));
    if (!p->slots)
        return -ENOMEM;
    p->slots[1] = 1;
    p->slots_used = 2;
    return 0;
}

int pages_open_as_read(void *image, size_t len, int which, pages_read *read, int fd, struct pages *ret,
                       struct pages_fault *fault)
{
    struct pages p = {.image = image, .len = len, .live = 2, .read = read, .fd = fd};
    struct walk w = {.p = &p, .claims = true, .fault = fault};
    int r = pages_read_meta(image, len, which, &p.meta, fault);
    if (r < 0)
        return r;
    if (!tree_is_sound(&p.meta.free, p.meta.last_page) || !tree_is_sound(&p.meta.main, p.meta.last_page))
        return pages_bad(fault, (uint64_t)which, "a tree's root is out of range");
    /* a few pages at the end may never have been written, but not as many as there are */
    if (p.meta.last_page / 2 > len / p.meta.page_size + UNWRITTEN_MAX)
        return pages_bad(fault, (uint64_t)which, "it has far more pages than the file");
    p.used = calloc(1, p.meta.last_page / 8 + 1);
    r = !p.used ? -ENOMEM : read ? make_slots(&p) : 0;
    if (r == 0)
        r = check_all(&w);
    if (r < 0)
        pages_clear(&p);
    else
        *ret = p;
    return r;
}

int pages_open(const void *image, size_t len, int which, struct pages *ret, struct pages_fault *fault)
{
    return pages_open_as_read((void *)(uintptr_t)image, len, which, NULL, -1, ret, fault);
}

void pages_clear(struct pages *p)
{
    free(p->used);
    free(p->slots);
    *p = (struct pages){0};
}

int pages_each(const struct pages *p, const char *db, on_entry *entry, void *data)
{
    struct pages copy = *p;
    struct walk w = {.p = &copy};
    struct counts c = {0};
    for (size_t i = 0; i < p->dbs_len; i++)
        if (strcmp(p->dbs[i].name, db) == 0)
            return tree_walk(&w, &(struct tree){.stored = &p->dbs[i].tree}, &c, entry, data);
    return 0;
}

struct search {
    const void *key;
    size_t len;
    struct pages_entry *ret;
};

static int match(void *data, const struct pages_entry *e)
{
    struct search *s = data;
    if (e->key_len != s->len || memcmp(e->key, s->key, s->len) != 0)
        return 0;
    *s->ret = *e;
    return 1;
}

int pages_get(const struct pages *p, const char *db, const void *key, size_t key_len, struct pages_entry *ret)
{
    struct search s = {key, key_len, ret};
    return pages_each(p, db, match, &s) == 1 ? 0 : -ENOENT;
}
