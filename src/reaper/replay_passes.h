/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A replay at work: which boxes, and the passes over them. Shared by replay.c, which chooses, looks and tells, and
 * replay_passes.c, which undoes.
 */
#ifndef RBXJ_REAPER_REPLAY_PASSES_H
#define RBXJ_REAPER_REPLAY_PASSES_H

#include "journal/journal.h"
#include "reaper/teardown.h"

struct replay {
    const struct rbxj_replay *how;
    struct reaper reaper;
    struct snapshot snapshot;
    struct teardown *boxes; /* the stale ones, in the order undone */
    size_t len, live;
    size_t sound;      /* the first so many have no attempt that did not end (K34) */
    bool changed_plan; /* --plan named another one: nothing is done */
    char plan[33];
    int64_t started_ns, started_mono;
    const char **causes;
    const char *procedure; /* for the incident */
};

/* Undoes the boxes as far as can be. It always ends. */
void replay_undo(struct replay *p);

#endif
