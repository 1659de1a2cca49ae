/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For crash_race.c: parties, each a process or a thread of one, that do something at the same moment, round
 * after round, each after a random delay.
 *
 *     race_open(...);                                  a journal of its own
 *     race_party(begin_seven, RACE_HANDLE);            as many as there are
 *     while (race_goes_on()) { race_round(); ... }     what came of it: race->said[i]
 *     race_close();
 */
#ifndef RBXJ_TESTS_RACE_H
#define RBXJ_TESTS_RACE_H

#include "crash.h"

#include "rbxj.h"

#include <stdatomic.h>

#define RACE_PARTIES 4

/* What a party came to. */
struct race_said {
    int r;
    int pid;
    size_t boxes;      /* of a replay: those that it handled, */
    size_t unfinished; /* and those of them of which something is left */
    struct rbxj_error error;
};

/* handle: the party's own, or its process'; NULL without RACE_HANDLE. */
typedef void race_action(struct rbxj *handle, struct race_said *said);

enum race_how {
    RACE_HANDLE = 1,    /* has the journal open all the time */
    RACE_THREAD = 2,    /* a thread of the same process as the other ones with this flag, and of its handle */
    RACE_NAMESPACE = 4, /* in a pid namespace of its own */
};

struct race {
    const char *name;
    const char *state, *run, *work, *group, *config;
    const char *lock, *tmpdir, *cgroup, *second; /* of box 7 */
    volatile bool persistent;                    /* this round: with what a flush is needed for */
    struct rbxj_options options;
    _Atomic uint32_t round, done; /* futexes */
    _Atomic uint32_t phase;       /* the main program's, for actions that do one thing after the other */
    uint32_t parties;
    volatile int victim; /* a pid */
    uint32_t delay_us[RACE_PARTIES];
    struct race_said said[RACE_PARTIES];
};
extern struct race *race;

void race_open(const char *name, uint64_t seed);
/* The n-th party; before the first round. */
void race_party(race_action *action, int how);
/* Is there time for another round? Also starts the processes. */
bool race_goes_on(void);
/* One thing at once, each party after up to so many microseconds; returns when all have done it. */
void race_round(uint32_t delay_us);
void race_close(void);
uint64_t race_draw(uint64_t n);

/* ---- box 7: a lock, a tmpdir and a cgroup; or, in rounds that shall be quick, two cgroups ---- */

/* Which of the two, for the next round: by chance. */
void race_choose(void);
/* The plan of this round, and how many there are in it. */
size_t race_plan(const struct rbxj_resource **ret);
int race_begin(struct rbxj *handle, struct rbxj_error *e);
int race_acquire(struct rbxj *handle, struct rbxj_error *e);
/* Undoes and ends it. */
int race_end(struct rbxj *handle, struct rbxj_error *e);
/* It is there, in the hands of a dead supervisor. */
void race_leave_stale(bool acquired);
void race_replay(const struct rbxj_replay *how, struct race_said *said);

/* Judged by the system's own view, and the journal's. */
void race_all_is_there(void);
void race_nothing_is_left(void);

#endif
