/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One tree of an LMDB file: its pages, its nodes, the walk.
 */
#include "journal/pages_tree.h"

#define PAGE_BRANCH 0x01
#define PAGE_LEAF 0x02
#define PAGE_OVERFLOW 0x04

#define NODE_HEAD 8
#define NODE_OVERFLOW 0x01
#define NODE_TREE 0x02
#define KEY_MAX 511

/* ---- pages ---- */

static const uint8_t *page_at(const struct pages *p, uint64_t page)
{
    return p->image + (p->slots ? p->slots[page] : page) * p->meta.page_size;
}

/* The file may end before its last page: where the ones at the end were freed by the transaction that took
 * them, they were never written. */
static bool is_in_image(const struct pages *p, uint64_t page, uint64_t n)
{
    uint64_t there = p->len / p->meta.page_size;
    return page < there && n <= there - page;
}

/* Each page is used once. */
int tree_claim(struct walk *w, uint64_t page, uint64_t n)
{
    struct pages *p = w->p;
    if (page < 2 || page > p->meta.last_page || n > p->meta.last_page - page + 1)
        return pages_bad(w->fault, page, "is out of range");
    for (; n--; page++) {
        if (p->used[page / 8] & (1U << (page % 8)))
            return pages_bad(w->fault, page, "is used twice");
        p->used[page / 8] |= (uint8_t)(1U << (page % 8));
    }
    return 0;
}

struct key {
    const uint8_t *at; /* NULL: no bound */
    size_t len;
};

static int compare(const struct tree *t, const struct key *a, const struct key *b)
{
    if (t->integer) {
        uint64_t x = u64(a->at), y = u64(b->at);
        return (x > y) - (x < y);
    }
    int r = memcmp(a->at, b->at, a->len < b->len ? a->len : b->len);
    return r ? r : (a->len > b->len) - (a->len < b->len);
}

static uint16_t page_keys(const uint8_t *page)
{
    return (uint16_t)((u16(page + 12) - PAGE_HEAD) / 2);
}

static const uint8_t *node_at(const uint8_t *page, unsigned i)
{
    return page + u16(page + PAGE_HEAD + 2 * i);
}

static struct key node_key(const uint8_t *node)
{
    return (struct key){node + NODE_HEAD, u16(node + 6)};
}

static uint64_t node_child(const uint8_t *node)
{
    return u16(node) | (uint64_t)u16(node + 2) << 16 | (uint64_t)u16(node + 4) << 32;
}

static uint32_t node_value_len(const uint8_t *node)
{
    return u16(node) | (uint32_t)u16(node + 2) << 16;
}

/* How many bytes the node takes in its page; 0: it is none. room: what is left of the page behind its
 * start. */
static size_t node_size(const struct pages *p, const struct tree *t, const uint8_t *node, size_t room,
                        bool leaf, bool first)
{
    if (room < NODE_HEAD)
        return 0;
    size_t key = u16(node + 6), size = NODE_HEAD + key;
    if (key > KEY_MAX || (key == 0 && (leaf || !first)) || (t->integer && key != 8 && (leaf || !first)))
        return 0;
    if (leaf) {
        uint16_t flags = u16(node + 4);
        if (flags != (t->trees ? NODE_TREE : flags & NODE_OVERFLOW))
            return 0;
        /* two keys have room in a page: what is larger is in pages of its own */
        size_t max = (((p->meta.page_size - PAGE_HEAD) / 2) & ~(size_t)1) - 2;
        size += flags & NODE_OVERFLOW ? 8 : node_value_len(node);
        if (size > max || (t->trees && node_value_len(node) != TREE_LEN))
            return 0;
    }
    size = (size + 1) & ~(size_t)1;
    return size <= room ? size : 0;
}

/* Nodes fill their page from its end without a gap and without an overlap; keys ascend between the bounds. */
static int check_nodes(struct walk *w, const struct tree *t, uint64_t number, bool leaf,
                       const struct key bounds[2])
{
    const struct pages *p = w->p;
    const uint8_t *page = page_at(p, number);
    uint8_t starts[PAGE_SIZE_MAX / 16] = {0}; /* a bit for each even offset */
    size_t size = p->meta.page_size, upper = u16(page + 14), sum = 0;
    unsigned n = page_keys(page);
    struct key last = bounds[0];
    for (unsigned i = 0; i < n; i++) {
        size_t offset = u16(page + PAGE_HEAD + 2 * i);
        if (offset % 2 || offset < upper || offset >= size)
            return pages_bad(w->fault, number, "a node is out of the page");
        size_t bytes = node_size(p, t, page + offset, size - offset, leaf, i == 0);
        if (!bytes)
            return pages_bad(w->fault, number, "a node has no sound form");
        sum += bytes;
        starts[offset / 16] |= (uint8_t)(1U << (offset / 2 % 8));
        struct key key = node_key(page + offset);
        if (!leaf && i == 0) /* never looked at */
            continue;
        bool equal_is_fine = leaf && i == 0; /* a bound is the lowest key that may be there */
        if (last.at && (compare(t, &key, &last) < (equal_is_fine ? 0 : 1)))
            return pages_bad(w->fault, number, "its keys do not ascend");
        if (bounds[1].at && compare(t, &key, &bounds[1]) >= 0)
            return pages_bad(w->fault, number, "a key is beyond the page's bound");
        last = key;
    }
    if (sum != size - upper)
        return pages_bad(w->fault, number, "its nodes do not fill it");
    for (size_t at = upper; at < size;) { /* in the order of offsets they must meet */
        if (!(starts[at / 16] & (1U << (at / 2 % 8))))
            return pages_bad(w->fault, number, "its nodes overlap");
        size_t bytes = node_size(p, t, page + at, size - at, leaf, true);
        if (!bytes)
            return pages_bad(w->fault, number, "its nodes overlap");
        at += bytes;
    }
    return 0;
}

/* Into the image, where that is read as the walk goes: each page once, so there is room. */
static int load(const struct walk *w, uint64_t page, uint64_t n)
{
    struct pages *p = w->p;
    size_t size = p->meta.page_size;
    if (!w->claims || !p->slots || !n)
        return 0;
    void *to = (uint8_t *)(uintptr_t)p->image + p->slots_used * size;
    p->slots[page] = p->slots_used; /* the others of a run lie behind it */
    p->slots_used += (uint32_t)n;
    int r = p->read(p->fd, to, n * size, page * size);
    return r == -EBADMSG ? pages_bad(w->fault, page, "is behind the end of the file") : r;
}

static int check_page(struct walk *w, const struct tree *t, uint64_t number, bool leaf,
                      const struct key bounds[2])
{
    if (!w->claims)
        return 0;
    int r = tree_claim(w, number, 1);
    if (r == 0 && !is_in_image(w->p, number, 1))
        r = pages_bad(w->fault, number, "is behind the end of the file");
    if (r == 0)
        r = load(w, number, 1);
    if (r < 0)
        return r;
    const uint8_t *page = page_at(w->p, number);
    unsigned lower = u16(page + 12), upper = u16(page + 14);
    if (u64(page) != number)
        return pages_bad(w->fault, number, "is another page");
    if (u16(page + 10) != (leaf ? PAGE_LEAF : PAGE_BRANCH))
        return pages_bad(w->fault, number, "is of another kind than the tree needs");
    if (lower < PAGE_HEAD || lower % 2 || lower > upper || upper > w->p->meta.page_size)
        return pages_bad(w->fault, number, "its bounds make no sense");
    if (page_keys(page) < (leaf || t->integer ? 1 : 2))
        return pages_bad(w->fault, number, "has too few keys");
    return check_nodes(w, t, number, leaf, bounds);
}

static int check_overflow(struct walk *w, uint64_t number, uint32_t len, uint64_t *ret_pages)
{
    const struct pages *p = w->p;
    if (number < 2 || !is_in_image(p, number, 1))
        return pages_bad(w->fault, number, "is out of range");
    int r = w->claims ? tree_claim(w, number, 1) : 0; /* first its head, which says how many follow */
    if (r == 0)
        r = load(w, number, 1);
    if (r < 0)
        return r;
    const uint8_t *page = page_at(p, number);
    uint32_t n = u32(page + 12);
    if (u64(page) != number || u16(page + 10) != PAGE_OVERFLOW)
        return pages_bad(w->fault, number, "is no overflow page");
    /* more than it needs: LMDB keeps the pages of a longer value that was replaced */
    if (n < (PAGE_HEAD - 1 + (uint64_t)len) / p->meta.page_size + 1)
        return pages_bad(w->fault, number, "a value does not fit into its pages");
    if (!is_in_image(p, number, n))
        return pages_bad(w->fault, number, "is behind the end of the file");
    *ret_pages = n;
    r = w->claims && n > 1 ? tree_claim(w, number + 1, n - 1) : 0;
    return r < 0 ? r : load(w, number + 1, n - 1);
}

/* ---- trees ---- */

static int each_in_leaf(struct walk *w, uint64_t number, struct counts *c, on_entry *entry, void *data)
{
    const uint8_t *page = page_at(w->p, number);
    int r = 0;
    for (unsigned i = 0, n = page_keys(page); i < n && r == 0; i++) {
        const uint8_t *node = node_at(page, i);
        struct key key = node_key(node);
        struct pages_entry e = {.key = key.at,
                                .key_len = key.len,
                                .value = key.at + key.len,
                                .value_len = node_value_len(node),
                                .page = number};
        if (u16(node + 4) & NODE_OVERFLOW) {
            uint64_t run = u64(e.value), pages = 0;
            r = check_overflow(w, run, node_value_len(node), &pages);
            c->overflow += pages;
            if (r == 0)
                e.value = page_at(w->p, run) + PAGE_HEAD;
        }
        c->entries++;
        if (r == 0)
            r = entry(data, &e);
    }
    return r;
}

struct level {
    uint64_t page;
    unsigned next; /* child */
    struct key bounds[2];
};

/* Depth first, with a stack of one level for each of the tree's depth. */
int tree_walk(struct walk *w, const struct tree *t, struct counts *c, on_entry *entry, void *data)
{
    struct level stack[DEPTH_MAX];
    unsigned depth = 0, deepest = t->stored->depth;
    int r = 0;
    if (t->stored->root == PAGES_NONE)
        return 0;
    if (deepest < 1 || deepest > DEPTH_MAX)
        return pages_bad(w->fault, t->stored->root, "its tree is of no depth that there is");
    stack[depth++] = (struct level){.page = t->stored->root};
    r = check_page(w, t, t->stored->root, deepest == 1, stack[0].bounds);
    while (r == 0 && depth) {
        struct level *l = &stack[depth - 1];
        if (depth == deepest) {
            c->leaf++;
            r = each_in_leaf(w, l->page, c, entry, data);
            depth--;
            continue;
        }
        const uint8_t *page = page_at(w->p, l->page);
        unsigned n = page_keys(page);
        if (l->next == n) {
            c->branch++;
            depth--;
            continue;
        }
        struct level child = {.page = node_child(node_at(page, l->next)),
                              .bounds = {l->bounds[0], l->bounds[1]}};
        if (l->next > 0)
            child.bounds[0] = node_key(node_at(page, l->next));
        if (l->next + 1 < n)
            child.bounds[1] = node_key(node_at(page, l->next + 1));
        l->next++;
        r = check_page(w, t, child.page, depth + 1 == deepest, child.bounds);
        stack[depth++] = child;
    }
    return r;
}
