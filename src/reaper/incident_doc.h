/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The document of an incident, in memory: how it is begun, told of a replay, and closed. No file is touched
 * here; of a process that keeps something /proc is asked. Fields (rbxj-incidents(1)): id, detected, updated,
 * cause, boxes, executions, procedure, recovery_s, outcome,
 * count, left, notes, evidence, kernel (incident_kernel.h), version, open, entries, entries_omitted.
 *
 *   cause     the worst of its boxes at detection: lock_corruption, cleanup_failure, system_crash,
 *             supervisor_crash
 *   boxes     at most 10,000 names; executions is how many there were
 *   outcome   "unfinished" from before the first undo until the replay's end; then "success": nothing is
 *             open, "failure": no box of it came to its end and nothing of them was undone, else "partial"
 *   open      incarnations, in decimal, of the boxes that are not at their end
 *   left      entries that were not undone, of boxes that are open
 *   entries   at most 1,000, and about 2 MiB of them, those with an error first; a later replay of a box
 *             replaces what had been left of it and keeps what was undone
 */
#ifndef RBXJ_REAPER_INCIDENT_DOC_H
#define RBXJ_REAPER_INCIDENT_DOC_H

#include "base/doc.h"
#include "reaper/incarnations.h"

/* A new one, unfinished, of these boxes of found. */
void document_begin(struct doc *doc, const char *id, const char *procedure, const struct rbxj_result *found,
                    const struct incarnations *boxes);
/* A new one that is closed: cause and box may be NULL. */
void document_note(struct doc *doc, const char *id, const char *procedure, const char *cause,
                   const char *box);
/* One that was read is worked on again. */
void document_again(struct doc *doc);
/* A replay has come to its end; boxes: those of result that belong here. */
void document_end(struct doc *doc, const struct rbxj_result *result, const struct incarnations *boxes);
/* Takes those that over() names from the open ones. True if there was any. */
bool document_drop_open(struct doc *doc, bool (*over)(const void *data, uint64_t incarnation),
                        const void *data);
/* None of it is open any more: notes how long it took. */
void document_close(struct doc *doc, int64_t recovery_ns);
/* Adds text to the notes, which are bounded; NULL: nothing. */
void document_add_note(struct doc *doc, const char *text);
/* Takes kernel over; NULL: without memory for it. */
void document_set_kernel(struct doc *doc, cJSON *kernel);
void document_set_evidence(struct doc *doc, char *const *names, size_t n);

/* The open boxes: to be walked with cJSON_ArrayForEach(); NULL: none. */
const cJSON *document_open(const struct doc *doc);
int64_t document_detected(const struct doc *doc); /* CLOCK_REALTIME; 0: it does not say */
/* Nanoseconds since then, for what an earlier replay detected. */
int64_t document_age(const struct doc *doc);

/* "mount_unmount_failed: ..." of the first entry that has one; false: there is none. */
bool document_last_error(const cJSON *root, char *buf, size_t size);

/* One line of pure ASCII in fresh memory, or NULL without memory for it. */
char *document_text_of(const cJSON *root);

#endif
