/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of the lock kind share: undo_lock.c (look, undo, verify) and lock_make.c (prepare, acquire,
 * prove, adopt).
 */
#ifndef RBXJ_REAPER_LOCK_H
#define RBXJ_REAPER_LOCK_H

#include "reaper/lock_content.h"

/* ---- lock_make.c ---- */

int lock_prepare(struct undo *u, struct record *r, struct rbxj_error *e);
int lock_confirm(const struct record *r, struct rbxj_error *e);
int lock_acquire(struct undo *u, struct record *r, const char *options, int *ret_fd, struct rbxj_error *e);
int lock_prove(struct undo *u, struct record *r, struct rbxj_error *e);
int lock_adopt(struct undo *u, struct record *r, struct rbxj_error *e);

#endif
