/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of the lock kind share: undo_lock.c (look, undo, verify) and lock_make.c (prepare, acquire, prove, adopt).
 *
 * What rbxj writes into a lock is one line of JSON that follows from the record alone, with the stamp in front,
 * so that an interrupted write is told from corruption: it is a strict prefix of that line.
 */
#ifndef RBXJ_REAPER_LOCK_H
#define RBXJ_REAPER_LOCK_H

#include "reaper/undo.h"

#define LOCK_LINE_MAX 256

/* ---- lock_make.c ---- */

size_t lock_own_line(const struct undo *u, const struct record *r, char buf[LOCK_LINE_MAX]);
/* The stamp in a lock file's JSON: 1 there is one, 0 none, or -ENOMEM. */
int lock_json_stamp(const char *text, size_t len, uint64_t *incarnation, uint32_t *seq, bool *ret_is_json);

int lock_prepare(struct undo *u, struct record *r, struct rbxj_error *e);
int lock_confirm(const struct record *r, struct rbxj_error *e);
int lock_acquire(struct undo *u, struct record *r, const char *options, int *ret_fd, struct rbxj_error *e);
int lock_prove(struct undo *u, struct record *r, struct rbxj_error *e);
int lock_adopt(struct undo *u, struct record *r, struct rbxj_error *e);

#endif
