/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The inside of a handle, and what the API's files share.
 */
#ifndef RBXJ_REAPER_HANDLE_H
#define RBXJ_REAPER_HANDLE_H

#include "base/config.h"
#include "journal/journal.h"

#include <pthread.h>

struct rbxj {
    struct config config;
    struct journal *journal;
    /* boxes that this handle began for another process, for which it may act (a hook) */
    pthread_mutex_t mutex;
    uint64_t *begun;
    size_t begun_len;
};

int handle_open_journal(const struct config *config, struct journal **ret, struct rbxj_error *e);

/* ---- replay.c ---- */

struct teardown;
/* Liveness of each box of a snapshot; a box in which a living one lives counts as live. Free it; NULL: no
 * memory. */
enum liveness *classify(struct journal *j, const struct config *config, const struct snapshot *s);
/* Why a stale box is there, after teardown_look(). */
const char *cause_of(const struct teardown *t);

#endif
