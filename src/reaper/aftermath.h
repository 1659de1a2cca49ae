/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a teardown leaves behind besides a clean machine: the incident record, the counters, the quarantine,
 * and events. None of it blocks or fails an undo (K19).
 */
#ifndef RBXJ_REAPER_AFTERMATH_H
#define RBXJ_REAPER_AFTERMATH_H

#include "reaper/events.h"
#include "reaper/incident.h"
#include "reaper/teardown.h"

struct aftermath {
    const struct reaper *reaper;
    const char *procedure; /* "replay", "boot", "recover", "undo" */
    const char *note;      /* for the incident; NULL: none */
    bool late;             /* a deadline at boot has passed */
    char id[INCIDENT_ID_MAX];
    struct incidents *incidents; /* NULL: there was no memory to begin them */
    bool begun;
};

/* Before an owner's undo, of which nobody knows yet whether it is an incident: where its evidence goes. */
void aftermath_prepare(struct aftermath *a, struct teardown *box);
/* Before the first undo; found has the boxes in their order, NULL: there was no memory for it. */
void aftermath_begin(struct aftermath *a, struct teardown *boxes, size_t n, const struct rbxj_result *found);
/* After the last one; result NULL: there was no memory for it. Puts the incidents' ids into it. */
void aftermath_end(struct aftermath *a, const struct teardown *boxes, size_t n, struct rbxj_result *result);

/* Enters the quarantine, and counts and tells it if that is news. journal NULL: it is not counted. about: the
 * box and the incident that it is about, or NULL. 1: it is news, 0: it was there before, or a negative
 * code. */
int aftermath_quarantine(const struct config *config, struct journal *journal, int reason,
                         const struct event *about, const char *detail, struct rbxj_error *e);

#endif
