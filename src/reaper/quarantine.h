/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The quarantine (K31): one file in the state directory, replaced atomically, synced, that survives reboots;
 * mirrored by a flag in the runtime directory, on which units can condition. Either of them is enough to make
 * begin fail, and whatever can't be looked at counts as being there: fail closed. So it is entered file
 * first, flag second, and left in the same order: killed between, the worker stays quarantined.
 */
#ifndef RBXJ_REAPER_QUARANTINE_H
#define RBXJ_REAPER_QUARANTINE_H

#include "base/config.h"
#include "base/error.h"

#include <stdbool.h>

/* In the order of struct counters. */
enum quarantine_reason {
    QUARANTINE_CLEANUP_FAILURE,
    QUARANTINE_ORPHAN_PROCESS,
    QUARANTINE_BASELINE,
    QUARANTINE_EXHAUSTION,
    QUARANTINE_CORRUPTION,
    QUARANTINE_MANUAL,
    QUARANTINE_REASONS
};

struct quarantine {
    bool there;
    enum quarantine_reason reason;
    int64_t since_ns; /* CLOCK_REALTIME; 0: not known */
    char detail[400]; /* escaped */
};

/* "cleanup_failure", ...: a contract. */
const char *quarantine_name(enum quarantine_reason reason);

/* Is the worker quarantined, and why? What can't be read is: manual_quarantine, and detail says so. */
void quarantine_read(const struct config *config, struct quarantine *ret);
/* The same as a question only: two system calls, for begin. */
bool quarantine_is_set(const struct config *config);

/* Enters it. One that is there already is replaced only by a reason that a person must release. 1: entered or
 * replaced, 0: it was there already. */
int quarantine_enter(const struct config *config, enum quarantine_reason reason, const char *detail,
                     struct rbxj_error *e);
/* Leaves it; 0 also when there was none. */
int quarantine_leave(const struct config *config, struct rbxj_error *e);
/* Is it one that a recovery which leaves nothing releases by itself? */
bool quarantine_is_released_by_recovery(enum quarantine_reason reason);

#endif
