/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The quarantine (K31): one file in the state directory, replaced atomically, synced, that survives reboots;
 * mirrored by a flag in the runtime directory, on which units can condition. Either of them is enough to make
 * begin fail, and whatever can't be looked at counts as being there: fail closed. So it is entered file
 * first, flag second, and left in the same order: killed between, the worker stays quarantined.
 *
 * Both have the same content; the file's counts where both are there. Where one is missing (the flag after
 * every boot) the next replay, recovery or quarantine makes it again.
 *
 * Whoever changes it holds a lock from the reading to the last write, so that nobody overwrites or releases
 * what he has not read. It is a flock on the state directory itself: no file is made for it where nothing may
 * be (K33), and it ends with its holder.
 */
#ifndef RBXJ_REAPER_QUARANTINE_H
#define RBXJ_REAPER_QUARANTINE_H

#include "base/config.h"
#include "base/error.h"

#include <stdbool.h>

/* The detail of a manual_quarantine by which a reset knows its own. */
#define QUARANTINE_RESET_DETAIL "for a reset; ends with one that leaves nothing"

/* Who leaves it. */
enum quarantine_by { QUARANTINE_BY_PERSON, QUARANTINE_BY_RECOVERY, QUARANTINE_BY_RESET };

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
    bool hidden; /* this process may not read it: it may be there or not */
    enum quarantine_reason reason;
    int64_t since_ns; /* CLOCK_REALTIME; 0: not known */
    char detail[400]; /* escaped */
};

/* "cleanup_failure", ...: a contract. */
const char *quarantine_name(enum quarantine_reason reason);

/* Is the worker quarantined, and why? What can't be read is: manual_quarantine, and detail says so. 1, 0, or
 * -errno for want of memory or descriptors: then it is not known why. */
int quarantine_read(const struct config *config, struct quarantine *ret);
/* The same as a question only: two system calls, for begin. 1, 0, or -errno for want of memory. */
int quarantine_is_set(const struct config *config);

/* Enters it. One that is there already is replaced only by a person's, and one that a recovery would release,
 * or a reset's, by one that a recovery would not; a reset's replaces no person's and no corruption. 1:
 * entered or replaced, 0: it was there already. Where it could not be written down it holds as far as it
 * could be. */
int quarantine_enter(const struct config *config, enum quarantine_reason reason, const char *detail,
                     struct rbxj_error *e);
/* Leaves it: whatever it is, or only one that a recovery which leaves nothing releases by itself, or only a
 * reset's own. 1: left, ret_was is what it was; 0: there is none, or it stays. */
int quarantine_leave(const struct config *config, enum quarantine_by by, struct quarantine *ret_was,
                     struct rbxj_error *e);
/* Makes the file or the flag again where only the other one is there; nothing in an empty state directory. */
int quarantine_repair(const struct config *config, struct rbxj_error *e);

#endif
