/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a lock file says.
 *
 * What rbxj writes into it is one line of JSON that follows from the record alone, with the stamp in front,
 * so that an interrupted write is told from corruption: it is a strict prefix of that line.
 */
#ifndef RBXJ_REAPER_LOCK_CONTENT_H
#define RBXJ_REAPER_LOCK_CONTENT_H

#include "reaper/undo.h"

#define LOCK_LINE_MAX 256

enum lock_content {
    CONTENT_EMPTY, /* or what a power cut leaves of any content: as many NULs */
    CONTENT_OURS,
    CONTENT_PREFIX,
    CONTENT_BEFORE,
    CONTENT_OTHER_BOX,
    CONTENT_JSON,
    CONTENT_CORRUPT
};

size_t lock_own_line(const struct undo *u, const struct record *r, char buf[LOCK_LINE_MAX]);

/* An enum lock_content, or -errno. Bounded: no more is read than a lock file can hold. */
int lock_judge_content(const struct undo *u, const struct record *r, int fd);

#endif
