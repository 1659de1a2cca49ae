/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whose turn it is: when a box of the dead is replayed again of which something was left. A box that is new
 * is, at once; after each replay that left it, it waits twice as long as before. A replay that could not be
 * done at all, because another reaper runs or the journal is damaged, is no turn of anybody: all wait until
 * the pause is over. One that died is the turn of those that it was to do: a box that kills its reaper (K34)
 * keeps no other from its turn.
 *
 * A turn that fails is a failed replay of its box, and so many of them in a row quarantine the worker (K31):
 * the first wait is long enough for whoever is in the way to go.
 */
#ifndef RBXJ_REAPER_TURNS_H
#define RBXJ_REAPER_TURNS_H

#include "reaper/monitor.h"

#include <stdbool.h>

/* Nanoseconds: the first wait, and the longest. */
#define TURNS_SECOND 1000000000LL
#define TURNS_LEFT_FIRST (60 * TURNS_SECOND)
#define TURNS_BUSY_FIRST (TURNS_SECOND / 20)
#define TURNS_BUSY_MOST TURNS_SECOND
#define TURNS_FAILED_FIRST TURNS_SECOND
#define TURNS_DAMAGED_FIRST (60 * TURNS_SECOND)
#define TURNS_MOST (300 * TURNS_SECOND)

struct turn {
    uint64_t incarnation;
    int64_t next_ns; /* CLOCK_MONOTONIC */
    int64_t wait_ns;
    bool now; /* it is its turn */
};

struct turns {
    struct turn *list; /* sorted */
    size_t len;
    int64_t pause_until_ns, pause_ns;
};

/* Of the boxes of the dead, those whose turn it is: their names in ret, which has room for all of them and
 * lives as long as view. How many, or -ENOMEM. */
ssize_t turns_choose(struct turns *t, const struct monitor_view *view, int64_t now_ns, const char **ret);

/* The replay of those has ended: result as of rbxj_replay(), or -ECHILD: it was killed. */
void turns_done(struct turns *t, int result, int64_t now_ns);

/* When somebody's turn will be; INT64_MAX: nobody waits. */
int64_t turns_next(const struct turns *t);
bool turns_are_paused(const struct turns *t, int64_t now_ns);
void turns_clear(struct turns *t);

#endif
