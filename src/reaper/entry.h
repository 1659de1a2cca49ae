/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The threads of a process at the library's door. A process has one journal open: that of its handle, or,
 * where it has no handle, one that a function without a handle has opened for itself. Whoever uses it must
 * not find it closed under him, nor one that is still being opened: so opening and closing a handle go alone,
 * and so does a function without a handle where the process has none. All others go side by side.
 *
 *     _cleanup_(entry_leave) struct entry entry = entry_look();
 *
 * A callback may call the library again: its thread is in already.
 *
 * And no thread is cancelled inside (pthread_cancel(3)): it would be in for ever, with locks that nobody
 * gives back.
 */
#ifndef RBXJ_REAPER_ENTRY_H
#define RBXJ_REAPER_ENTRY_H

#include "base/forked.h"

struct entry {
    struct forked process;
    bool inner, alone;
    int cancelled; /* whether it may be; as before the entry */
};

struct entry entry_look(void);  /* a function without a handle */
struct entry entry_alone(void); /* rbxj_open(), rbxj_close() */
void entry_leave(const struct entry *entry);
/* A function with a handle enters nothing: it is only not cancelled.
 *     _cleanup_(entry_may_be_cancelled) int cancelled = entry_not_cancelled(); */
int entry_not_cancelled(void);
void entry_may_be_cancelled(const int *before);
/* In entry_alone(): one handle more, or less. */
void entry_count_handle(int change);

#endif
