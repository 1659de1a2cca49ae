/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * An undo outlives a power cut before its record goes (I6): else the file system may give back a directory or
 * a lock of which the journal, which was flushed, knows nothing any more (ext4, when the journal's file needs
 * no new block: its fdatasync() then does not commit what was done to directories; 6.18).
 *
 * Only what lies on a persistent file system costs anything: the flush of the directory in which it was.
 */
#ifndef RBXJ_REAPER_DURABLE_H
#define RBXJ_REAPER_DURABLE_H

#include "base/error.h"
#include "journal/record.h"

#include <stddef.h>

struct durable {
    const struct record *record; /* its resource is gone, or as it was before */
    int result;                  /* out: 0, or <0: it may come back */
};

/* For all at once: a directory that several share is flushed once, and where there are many of one file
 * system, that is. Returns 0, or the first failure, with its error. */
int durable_sync(struct durable *list, size_t n, struct rbxj_error *e);

/* For one record, which is dropped then. */
struct journal;
int durable_drop(struct journal *journal, const struct record *r, struct rbxj_error *e);

#endif
