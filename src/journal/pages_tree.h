/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the independent reader's two files share: the walk over one tree.
 */
#ifndef RBXJ_JOURNAL_PAGES_TREE_H
#define RBXJ_JOURNAL_PAGES_TREE_H

#include "journal/pages.h"

#include <errno.h>
#include <string.h>

#define PAGE_HEAD 16
#define TREE_LEN 48  /* a tree, as it is stored */
#define DEPTH_MAX 32 /* LMDB's cursor stack */
#define PAGE_SIZE_MAX 32768

static inline uint16_t u16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}
static inline uint32_t u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}
static inline uint64_t u64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static inline int pages_bad(struct pages_fault *fault, uint64_t page, const char *why)
{
    if (fault)
        *fault = (struct pages_fault){page, why};
    return -EBADMSG;
}

/* The snapshot being read, and whether its pages are being claimed (the first walk) or are known to be
 * sound. */
struct walk {
    struct pages *p;
    bool claims;
    uint64_t freed; /* the last transaction in the list of free pages */
    struct pages_fault *fault;
};

struct tree {
    const struct pages_tree *stored;
    bool integer; /* the list of free pages */
    bool trees;   /* the main database: its values are trees */
};

struct counts {
    uint64_t branch, leaf, overflow, entries;
};

typedef int on_entry(void *data, const struct pages_entry *e);

/* Each page is used once: 0 or -EBADMSG. */
int tree_claim(struct walk *w, uint64_t page, uint64_t n);
/* Every entry, until entry() returns non-zero. Checks the pages if the walk claims them. */
int tree_walk(struct walk *w, const struct tree *t, struct counts *ret, on_entry *entry, void *data);

#endif
