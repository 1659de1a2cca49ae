/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A replay at work: which boxes (replay_choose.c), and the passes over them (replay_passes.c). replay.c looks
 * and tells.
 */
#ifndef RBXJ_REAPER_REPLAY_PASSES_H
#define RBXJ_REAPER_REPLAY_PASSES_H

#include "journal/journal.h"
#include "reaper/orphans.h"
#include "reaper/teardown.h"

struct replay {
    const struct rbxj_replay *how;
    struct reaper reaper;
    struct snapshot snapshot;
    struct claim *claims; /* what was taken, or could not be; of a dry run: what would be */
    size_t claims_len;
    struct rbxj_error busy; /* the journal was: nothing could be claimed */
    struct teardown *boxes; /* the stale ones, in the order undone */
    size_t len, live;
    size_t sound;      /* the first so many have no attempt that did not end (K34) */
    bool changed_plan; /* --plan named another one: nothing is done */
    char plan[33];
    int64_t started_ns, started_mono;
    const char **causes;
    const char *procedure;  /* for the incident */
    struct orphans orphans; /* of the boxes whose turn has come */
};

/* 0 or JOURNAL_DAMAGED. */
int replay_check(const struct snapshot *s, struct rbxj_error *e);
/* Claims what is stale, and reads the snapshot. */
int replay_claim(struct replay *p, struct rbxj_error *e);
/* The same for a dry run, which claims nothing. */
int replay_foretell(struct replay *p, struct rbxj_error *e);
/* Fills p->boxes, from the snapshot. */
int replay_choose(struct replay *p, struct rbxj_error *e);
/* Undoes the boxes as far as can be. It always ends. */
void replay_undo(struct replay *p);

/* Does this one look at all boxes before it undoes the first? */
bool replay_plans(const struct replay *p);

/* Before it, of boxes[from..to), and after it: what outlives them. (replay_orphans.c) */
void replay_find_orphans(struct replay *p, size_t from, size_t to);
void replay_tell_orphans(struct replay *p);

#endif
