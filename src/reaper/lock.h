/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of the lock kind share: undo_lock.c (look, undo, verify), lock_make.c (prepare, acquire, prove, adopt)
 * and lock_content.c (what is there).
 *
 * What rbxj writes into a lock is one line of JSON that follows from the record alone, with the stamp in front,
 * so that an interrupted write is told from corruption: it is a strict prefix of that line.
 */
#ifndef RBXJ_REAPER_LOCK_H
#define RBXJ_REAPER_LOCK_H

#include "reaper/undo.h"

#include <sys/stat.h>

#define LOCK_LINE_MAX 256

/* ---- lock_content.c ---- */

/* Opens what is at base, if it is a regular file, with those flags; else O_PATH: whatever opening a FIFO, a device or
 * what a symlink leads to would do is not done. A descriptor, or -errno (-EWOULDBLOCK: it has a lease that is being
 * broken). ret: what it is. */
int lock_open(int parent, const char *base, int flags, struct stat *ret);

struct lock_reading {
    enum lock_content content;
    bool ours;    /* its stamp is that of the record */
    bool stamped; /* it has one, of incarnation and seq */
    uint64_t incarnation;
    uint32_t seq;
};
/* Tells what a regular file holds, of which at most LOCK_CONTENT_MAX + 1 bytes were read. 0 or -ENOMEM. */
int lock_classify(const struct box *box, const struct record *r, const char *bytes, size_t len,
                  struct lock_reading *ret);

/* Its word in JSON, NULL for LOCK_UNSEEN; and for "with ... in it". */
const char *lock_content_name(enum lock_content content);
const char *lock_content_said(enum lock_content content);

/* ---- lock_make.c ---- */

size_t lock_own_line(const struct undo *u, const struct record *r, char buf[LOCK_LINE_MAX]);

int lock_prepare(struct undo *u, struct record *r, struct rbxj_error *e);
int lock_confirm(const struct record *r, struct rbxj_error *e);
int lock_acquire(struct undo *u, struct record *r, const char *options, int *ret_fd, struct rbxj_error *e);
int lock_prove(struct undo *u, struct record *r, struct rbxj_error *e);
int lock_adopt(struct undo *u, struct record *r, struct rbxj_error *e);

#endif
