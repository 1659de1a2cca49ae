/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a replay, an undo or a list found: the inside of struct rbxj_result.
 */
#ifndef RBXJ_REAPER_RESULT_H
#define RBXJ_REAPER_RESULT_H

#include "reaper/undo.h"

enum outcome {
    OUTCOME_NONE,
    OUTCOME_PLANNED,
    OUTCOME_UNDONE,
    OUTCOME_ALREADY_GONE,
    OUTCOME_REFUSED,
    OUTCOME_FAILED,
    OUTCOME_SKIPPED,
};

struct result_entry {
    uint32_t seq;
    enum rbxj_kind kind;
    char *name;
    enum found found;
    enum lock_content content;
    enum outcome outcome;
    bool evidence;
    bool not_mounted;   /* refused only because a file system is not there yet (K14) */
    const char *action; /* literal: what undoing it is called */
    struct keepers keepers;
    uint64_t oom_kills; /* in a cgroup, as far as was seen */
    char note[200];     /* what was seen besides, or empty */
    int64_t time_ns;
    struct rbxj_error error;
};

struct result_box {
    struct box box;
    const char *state, *cause, *outcome; /* literals */
    char incident[32];                   /* its id, or empty */
    bool alive;
    bool claimed; /* somebody is tearing it down; only in a list */
    struct result_entry *entries;
    size_t len;
};

struct rbxj_result {
    char plan[33], boot[33];
    int64_t started_ns, duration_ns;
    bool dry_run, list;
    size_t live;
    struct result_box *boxes;
    size_t len;
};

#endif
