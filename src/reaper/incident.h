/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Incident records: what a replay found, what became of it, and what is left (DESIGN "Replay", 5). An
 * incident is a directory STATE/incidents/<id>/ with incident.json, replaced atomically, and the evidence
 * that was kept (copies of corrupt lock files). Files, not journal records: they can be read when the journal
 * can't, and copied by anybody.
 *
 *   (none) --incidents_begin--> open, as found --incidents_end--> closed, or open with what is left
 *   open   --incidents_end of a later replay of one of its boxes--> the same, count + 1
 *
 * An incident is open while something of it is left. A box of an open incident belongs to that one: the same
 * trouble every five minutes counts up instead of repeating. It is written before the first undo, so a
 * reaper that is killed half-way leaves a trace (I10).
 *
 * Reports never block an undo (K19): everything here may fail, and then only an event says so. What
 * failed in incidents_begin() is tried again in incidents_end(), from what is on disk by then. The state
 * directory is never made here, and neither is the first file in it (K33).
 */
#ifndef RBXJ_REAPER_INCIDENT_H
#define RBXJ_REAPER_INCIDENT_H

#include "base/config.h"
#include "base/error.h"
#include "journal/counters.h"

/* 20261124T030000Z-1a2b3c4d: the time of detection, UTC: the second, 20 bits of its fraction, and 12 random
 * bits. So names sort by age. */
#define INCIDENT_ID_MAX 32
void incident_new_id(char id[INCIDENT_ID_MAX]);

struct incidents;

/* Before the first undo. found: the stale boxes as they were found; none is fine, too: it closes what is over
 * by now. procedure: "replay", "boot", "undo", "recover". new_id: for what belongs to no open incident. note:
 * may be NULL (the reason of --assume-dead). exists: is this incarnation in the journal now? A box of an open
 * incident that is not, is over, whoever undid it; NULL: all are, as for a supervisor that undoes its own
 * box: what becomes of the others is for the one reaper to tell. NULL: memory or descriptors are short; it
 * may be called again, with the result. */
struct incidents *incidents_begin(const struct config *config, const char *procedure, const char *new_id,
                                  const char *note, const struct rbxj_result *found,
                                  bool (*exists)(const void *data, uint64_t incarnation), const void *data);
/* The open incident to which that incarnation belongs, if there is one. */
bool incident_find(const struct config *config, uint64_t incarnation, char id[INCIDENT_ID_MAX]);
/* The incident of box i of found, for its evidence and events. */
const char *incidents_of(const struct incidents *in, size_t i);
/* Was box i in no open incident before? */
bool incidents_is_new(const struct incidents *in, size_t i);
/* After the last one: result has the same boxes in the same order; NULL: it came to none, and the incidents
 * stay as they were found. Puts the incidents' ids into result, empty where none is kept. Adds the recovery
 * times of incidents that are closed now to more; one that could not be written is counted when that
 * succeeds. Applies retention. Frees in, which may be NULL. */
void incidents_end(struct incidents *in, struct rbxj_result *result, struct counters *more);

/* Nothing is kept of it, and only an event says so. r: why, a negative errno. */
void incident_complain(const struct config *config, const char *id, int r);

/* An incident about one thing that a person did or that is no box's: "forget", "quarantine", "unquarantine".
 * cause and box may be NULL. Closed at once. For a box that has ended by it, open incidents are told
 * (incarnation). */
void incident_note(const struct config *config, const char *procedure, const char *cause, const char *box,
                   uint64_t incarnation, bool box_ended, const char *note);

/* Copies what fd holds, at most 64 KiB, to STATE/incidents/<id>/<name>; 0 also where there is no state
 * directory, or that name already; -EDQUOT: there is enough of it. Thread-safe, so it tells nobody: its
 * caller does. */
int incident_keep(const struct config *config, const char *id, const char *name, int fd);

/* For the health. */
struct incident_counts {
    size_t detected; /* by a replay, since then */
    size_t corrupt;  /* of these: of a lock */
    size_t kernel;   /* since then: with hung tasks, bugs, or kills for want of memory of the machine */
    size_t held;     /* so often was the open one found that is held for the longest */
};
/* And what the newest open one could not do ("mount_unmount_failed: ..."), where size is not 0; last_error
 * may be empty afterwards. 0, or a negative errno where memory or descriptors are short. */
int incidents_summary(const struct config *config, int64_t since_ns, struct incident_counts *ret,
                      char *last_error, size_t size);

#endif
