/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * An independent reader of LMDB's file format (0.9, 64 bits, little-endian), of as much of it as the journals
 * use: named databases with plain keys and one value each. liblmdb believes what it reads: on a damaged file
 * it crashes or returns other data (K27). This one believes nothing, and what it accepts liblmdb can use.
 *
 * It works on an image of the file in memory, and changes nothing. pages_open() walks the whole snapshot:
 * every page that a tree needs is where it says it is and belongs to one tree only, nodes fill their page
 * exactly, keys ascend within their bounds, counts are those that are stored, the list of free pages names no
 * page that is in use. The walk needs no recursion, and memory for one bit per page.
 *
 * Both snapshots, of the newest and of the previous transaction, are always complete on disk: LMDB reuses
 * only pages that neither of them uses.
 */
#ifndef RBXJ_JOURNAL_PAGES_H
#define RBXJ_JOURNAL_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGES_NAME_MAX 15
#define PAGES_DBS_MAX 8

/* Why an image was not accepted. */
struct pages_fault {
    uint64_t page;   /* where */
    const char *why; /* a literal */
};

/* One of the two meta pages. */
struct pages_meta {
    uint32_t page_size;
    uint64_t map_size, txn, last_page;
    struct pages_tree {
        uint64_t root; /* PAGES_NONE: empty */
        uint64_t branch_pages, leaf_pages, overflow_pages, entries;
        uint16_t depth;
    } free, main;
};
#define PAGES_NONE UINT64_MAX
#define PAGES_UNRELATED "its transaction is neither the one before nor the one after the other meta page's"

/* Reads len bytes of fd at offset: 0, -EBADMSG (they are not there), or -errno. */
typedef int pages_read(int fd, void *to, size_t len, uint64_t offset);

/* A snapshot that was accepted. The image is the caller's, and must stay. */
struct pages {
    const uint8_t *image;
    size_t len;
    struct pages_meta meta;
    struct pages_db {
        char name[PAGES_NAME_MAX + 1];
        struct pages_tree tree;
    } dbs[PAGES_DBS_MAX];
    size_t dbs_len;
    uint64_t live, free; /* pages, the metas included; what is neither is lost but harmless */
    uint8_t *used;       /* a bit for each page: in a tree, or free */
    /* of a file that is read as the walk goes: where in the image a page is, in the order in which they were
     * read */
    uint32_t *slots; /* NULL: each is at its place */
    uint32_t slots_used;
    pages_read *read;
    int fd;
};

/* One meta page by itself: 0 or -EBADMSG. which: 0 or 1. Its trees are pages_open()'s: where the write of a
 * meta page failed, LMDB puts back its old number and leaves the roots of the transaction that came to
 * nothing, in the page that is not the newest. */
int pages_read_meta(const void *image, size_t len, int which, struct pages_meta *ret,
                    struct pages_fault *fault);
/* Are they of one transaction and of the next? Each commit writes the page of the one before the last; both
 * are 0 in a file that is being made. */
static inline bool pages_metas_follow(const struct pages_meta m[2])
{
    return m[0].txn + 1 == m[1].txn || m[1].txn + 1 == m[0].txn || (m[0].txn == 0 && m[1].txn == 0);
}

/* Accepts the snapshot of meta page which, or not: 0, -EBADMSG with fault, -ENOMEM. pages_clear() it. */
int pages_open(const void *image, size_t len, int which, struct pages *ret, struct pages_fault *fault);
/* The same of a file of which only the two metas have been read yet. Those pages that the walk comes to are
 * read, each once, into the image behind them, which has room for len bytes; what read() returns ends the
 * walk. */
int pages_open_as_read(void *image, size_t len, int which, pages_read *read, int fd, struct pages *ret,
                       struct pages_fault *fault);
void pages_clear(struct pages *p);

/* Every entry of a database in the order of keys, until entry() returns non-zero, which is returned. Key and
 * value lie in the image, unaligned. A database that is not there is empty. */
struct pages_entry {
    const uint8_t *key, *value;
    size_t key_len, value_len;
    uint64_t page; /* on which the node is */
};
int pages_each(const struct pages *p, const char *db, int (*entry)(void *data, const struct pages_entry *e),
               void *data);
/* One value: 0 or -ENOENT. */
int pages_get(const struct pages *p, const char *db, const void *key, size_t key_len,
              struct pages_entry *ret);

#endif
