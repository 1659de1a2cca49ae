/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A journal's data file in memory, as of one moment, accepted by the independent reader (pages.h) or not.
 * Only the pages that the snapshot uses are read, each once. Nothing is changed and nothing is mapped: a file
 * that is cut short meanwhile gives a short read, not SIGBUS.
 *
 * LMDB never overwrites a page of its newest two snapshots, so what was read of snapshot N is whole if at the
 * end the newest is at most N + 1; only then is it called damaged, too. Where a writer is faster than that, a
 * reader slot keeps the pages of its snapshot, and of later ones, from being used again.
 */
#ifndef RBXJ_JOURNAL_IMAGE_H
#define RBXJ_JOURNAL_IMAGE_H

#include "base/error.h"
#include "journal/pages.h"

struct store;

struct image {
    struct pages pages;
    uint8_t *bytes; /* the pages that are used, in the order in which they were read */
    size_t len;     /* there is room for */
};

/* The newest snapshot of the file fd: 0, -EAGAIN (writers are too fast), -EBADMSG (fault says where and why),
 * or -errno. */
int image_read(int fd, struct image *ret, struct pages_fault *fault);
/* The same of a file by its name, with the error set, but for -EAGAIN: the caller may know another way. */
int image_read_file(int dirfd, const char *name, const char *shown, struct image *ret, struct rbxj_error *e);
/* The same of an open environment, through a reader slot. */
int image_read_store(struct store *s, struct image *ret, struct pages_fault *fault);
void image_clear(struct image *image);

/* What one of the two said as an error of ours: JOURNAL_DAMAGED with page and reason, JOURNAL_BUSY, or
 * -errno. */
int image_error(struct rbxj_error *e, int r, const struct pages_fault *fault, const char *shown);

#endif
