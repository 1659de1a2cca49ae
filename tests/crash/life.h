/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The life of a supervisor, through the public API and with every kind of resource, the bystander that lives
 * beside it, and the judgement, from the system's own view, of what is left.
 *
 *     life_open(LIFE_PERSISTENT | LIFE_BYSTANDER);
 *     ... a process calls life_live(LIFE_WHOLE), and something happens to it ...
 *     life_replay();                   a replay that leaves nothing
 *     life_judge("what happened");     nothing is left of the box, the bystander is whole, another replay
 *                                      does nothing
 */
#ifndef RBXJ_TESTS_CRASH_LIFE_H
#define RBXJ_TESTS_CRASH_LIFE_H

#include "../harness.h"

#include "rbxj.h"

/* Where things are; of life_open(). */
extern struct life {
    const char *state, *run, *work; /* work: where the boxes' files are */
    const char *group, *group_v1;   /* in which the boxes' cgroups are made; v1 NULL: there is none */
    struct rbxj_options options;
    unsigned flags;
    pid_t bystander, bystander_payload; /* 0: there is none */
    /* Called by life_live() when it begins, and when it has ended, to do something of its own in which the
     * product has no part. NULL: nobody cares. */
    void (*own)(bool begins);
} life;

/* What the supervisor tells, in shared memory. */
extern struct life_told {
    volatile pid_t supervisor, payload;
    volatile int result;      /* the first failure, or 0 */
    volatile int again;       /* what the teardown said when it was tried a second time, or 0 */
    char step[32];            /* what it was doing, lastly or when it failed first */
    struct rbxj_error error;  /* of the first failure */
    volatile bool own_failed; /* a call of its own failed: nothing can be concluded */
} * life_told;

enum life_flags {
    LIFE_PERSISTENT = 1, /* the box's files are on the disk, else on a tmpfs; RBXJ_DURABILITY=resource */
    LIFE_BYSTANDER = 2,  /* the box "b" lives beside it, of another process */
    LIFE_TWO_JOBS = 4,   /* a replay has two workers */
};

/* A world with a journal directory that was never used (but by the bystander). Skips where there is no root.
 * Its own picture is what life_judge() compares with. */
void life_open(unsigned flags);

enum life_until {
    LIFE_WHOLE, /* open, begin, acquire, work, undo, end, close */
    LIFE_HELD,  /* returns when everything is acquired and the payload works */
    LIFE_SHORT, /* open, begin, undo, end, close: nothing is acquired */
};
/* In the supervisor's process: the life of a box, "a" or another. Returns 0 or what failed first; it has
 * tried to tear down then. Nothing in it asserts. */
int life_live(const char *box, enum life_until until);

/* The parts of a box, in the order of its plan; the last two come later. */
enum life_part {
    PART_LOCK,
    PART_GROUP,
    PART_GROUP_V1,
    PART_MOUNT,
    PART_INNER,
    PART_TMPDIR,
    LIFE_PARTS,
    PART_EXTRA = LIFE_PARTS,
    PART_OWN
};
/* Where a part is. Until the eighth call from now. */
const char *life_path(const char *box, enum life_part part);
/* Where the things of "a" are. They live until the end of the point. */
struct life_paths {
    const char *lock, *group, *mount, *inner, *tmpdir;
};
struct life_paths life_paths(void);

/* Forks a supervisor that lives so long and is then killed by SIGKILL; fails the test if it does not come to
 * that. */
void life_killed(const char *box, enum life_until until);

/* life_open(), and the supervisor of "a", with two workers also that of "c", was killed when it had
 * everything. */
void life_stale(unsigned flags);

/* What the machine looks like, to be freed; and what life_differs() compares with. */
char *life_picture(void);
void life_judge_by(char *picture);
/* The pictures are the same as at life_open() now? Else NULL is not returned, but what differs, as a text. An
 * empty lock file may be left where a supervisor was killed (K1); it is removed. */
const char *life_differs(void);

/* A replay in this process that must say that nothing is left. */
void life_replay(void);
/* Nothing is left of the boxes, the bystander is whole, and a further replay finds nothing to do. */
void life_judge(const char *what);
/* The worker takes new boxes, and a whole life succeeds. */
void life_goes_on(void);

#endif
