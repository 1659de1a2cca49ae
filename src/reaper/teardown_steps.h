/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of a teardown share: teardown.c (the steps), teardown_look.c, teardown_adopted.c,
 * teardown_locks.c.
 */
#ifndef RBXJ_REAPER_TEARDOWN_STEPS_H
#define RBXJ_REAPER_TEARDOWN_STEPS_H

#include "reaper/teardown.h"

/* Kinds read mountinfo, and who is above us, when they first need it; what one read serves all. Around every
 * call of a kind. */
void teardown_enter(struct teardown *t);
void teardown_leave(struct teardown *t);
/* Before a box is touched, or looked at, and after that: one that kills the reaper is known by it (K34). */
void teardown_touch(struct teardown *t, bool begins);
/* This box's time begins. */
void teardown_start_clock(struct teardown *t);

/* journal_settle(); a busy journal is waited for once in a pass. */
int teardown_drop(struct teardown *t, const uint32_t *seqs, size_t n, enum settle how, struct rbxj_error *e);

/* The item with that seq, or NULL. */
struct teardown_item *teardown_item_of(struct teardown *t, uint32_t seq);
/* Is lower the directory on which item, a mount of the same box, lies? It can't be seen then. */
bool teardown_is_covered(const struct teardown_item *item, const struct teardown_item *lower);
/* Looks at one record. */
void teardown_look_at(struct teardown *t, struct teardown_item *item);

/* teardown_adopted.c: refuses what somebody uses of an adopted box. After all of it was looked at. */
void teardown_look_at_adopted(struct teardown *t);

/* Who uses it can't be known now, for want of memory or descriptors, or as it can't be seen: no held box, nor
 * a refusal, but one that is left this time. */
void teardown_cannot_ask(struct teardown *t, struct teardown_item *item, const struct rbxj_error *e);

/* Takes the flocks of the box's locks; t->held when somebody has one who is not its payload. after: the
 * payload is gone, nobody may have it now. In a dry run only looks. */
void teardown_take_flocks(struct teardown *t, bool after);

#endif
