/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is at a lock's place, whoever put it there, and whose it says that it is.
 *
 * What rbxj writes into a lock is one line of JSON that follows from the record alone, with the stamp in
 * front, so that an interrupted write is told from corruption: it is a strict prefix of that line.
 */
#ifndef RBXJ_REAPER_LOCK_CONTENT_H
#define RBXJ_REAPER_LOCK_CONTENT_H

#include "reaper/undo.h"

#include <sys/stat.h>

#define LOCK_LINE_MAX 256

size_t lock_own_line(const struct undo *u, const struct record *r, char buf[LOCK_LINE_MAX]);

/* Opens what is at base with those flags if it is a regular file; else O_PATH: what opening a FIFO or a
 * device would do is not done, and no symlink is followed. ret: what it is. A descriptor, or -errno
 * (-EWOULDBLOCK: there is a lease on it, which is being broken). */
int lock_open(int parent, const char *base, int flags, struct stat *ret);

enum lock_whose {
    LOCK_SAYS_NOT,
    LOCK_OURS,
    LOCK_BEGUN,   /* ours, and its writing was interrupted */
    LOCK_ADOPTED, /* as it was when it was adopted */
    LOCK_BEFORE,  /* as it was before */
    LOCK_OTHERS,
};

struct lock_reading {
    enum lock_content content;
    enum lock_whose whose;
};

/* Reads a regular file: 0 or -errno. Bounded: no more is read than a lock file can hold. */
int lock_read(const struct undo *u, const struct record *r, int fd, struct lock_reading *ret);
/* The same, of what was read: at most LOCK_CONTENT_MAX + 1 bytes. 0 or -ENOMEM. */
int lock_judge(const struct undo *u, const struct record *r, const char *bytes, size_t len,
               struct lock_reading *ret);
/* Lock corruption: neither JSON nor what rbxj writes, whole or not, nor what it was before. */
bool lock_is_corrupt(const struct lock_reading *reading);

/* Its word in JSON, NULL for LOCK_UNSEEN; and for "with ... in it". */
const char *lock_content_name(enum lock_content content);
const char *lock_content_said(enum lock_content content);

#endif
