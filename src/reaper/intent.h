/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * From what a caller asks to a record: paths resolved once, the before-image taken.
 */
#ifndef RBXJ_REAPER_INTENT_H
#define RBXJ_REAPER_INTENT_H

#include "reaper/undo.h"

/* Makes the record of one resource. earlier: the records that the box has already, and those of its plan
 * before this one; an item below one of them is written with `below` instead of a parent identity (K13).
 * r->seq is set by the caller before. Clear r with record_clear() on failure, too. */
int intent_prepare(struct undo *u, const struct rbxj_resource *resource, const struct record *earlier,
                   size_t n, struct record *r, struct rbxj_error *e);

/* The same for what is there and was never journaled (K30): a record with evidence, as if nothing had been
 * there before. Not for a process. */
int intent_adopt(struct undo *u, const struct rbxj_resource *resource, const struct record *earlier, size_t n,
                 struct record *r, struct rbxj_error *e);

#endif
