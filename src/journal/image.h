/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A copy of a journal's data file in memory, as of one moment, for the independent reader (pages.h). Nothing is changed
 * and nothing is mapped: a file that is cut short meanwhile gives a short read, not SIGBUS.
 *
 * LMDB never overwrites a page of its newest two snapshots, so a copy of snapshot N is whole if at the end the newest
 * is at most N + 1. Where a writer is faster than that, a reader slot keeps the pages of a snapshot from being used
 * again.
 */
#ifndef RBXJ_JOURNAL_IMAGE_H
#define RBXJ_JOURNAL_IMAGE_H

#include "base/error.h"
#include "journal/pages.h"

struct store;

struct image {
    uint8_t *bytes;
    size_t len;
    int which; /* the meta page of the snapshot */
};

/* Copies the newest snapshot of the file fd: 0, -EAGAIN (writers are too fast), -EBADMSG (no sound metas; fault says
 * why), or -errno. */
int image_copy(int fd, struct image *ret, struct pages_fault *fault);
/* The same of an open environment, through a reader slot. */
int image_of_store(struct store *s, struct image *ret, struct pages_fault *fault);
void image_clear(struct image *image);

/* What one of the two said as an error of ours: JOURNAL_DAMAGED with page and reason, JOURNAL_BUSY, or -errno. */
int image_error(struct rbxj_error *e, int r, const struct pages_fault *fault, const char *shown);

/* The snapshot in the image, accepted, or JOURNAL_DAMAGED with page and reason. pages_clear() it. */
int image_open(const struct image *image, const char *shown, struct pages *ret, struct rbxj_error *e);

#endif
