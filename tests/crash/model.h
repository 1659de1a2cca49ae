/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A model of DESIGN.md, small enough to be read whole: boxes with their records, what stands at each of a
 * few places, what is on disk; and what each call must answer and change (model_rules.c). crash_model.c
 * draws sequences of operations, does each on the real journal (model_world.c, model_supervisor.c) and in
 * the model, and compares: answers, lists, and the places as the system shows them.
 */
#ifndef RBXJ_TESTS_CRASH_MODEL_H
#define RBXJ_TESTS_CRASH_MODEL_H

#include "rbxj.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

enum { BOXES = 3, SUPERVISORS = 3, MAX_RECORDS = 24, MAX_THINGS = 128, MAX_PLAN = 4 };

/* ---- places: where things may stand ---- */

enum place {
    NOWHERE, /* a process */
    LOCK_DISK,
    LOCK_DISK2,
    LOCK_LOST, /* on a tmpfs that a power loss empties */
    DIR_DISK,
    DIR_IN_DIR, /* inside DIR_DISK */
    DIR_DISK2,
    DIR_LOST,
    MOUNT_A,
    DIR_IN_MOUNT, /* inside MOUNT_A, or in the directory that it covers */
    MOUNT_B,
    GROUP_A,
    GROUP_B,
    PLACES
};

struct place_info {
    const char *name;
    enum rbxj_kind kind;
    enum place in;
    bool lost; /* on a volatile file system */
};
extern const struct place_info model_places[PLACES];

/* ---- the system ---- */

/* A file, directory, cgroup or mount; younger ones have higher numbers. */
struct thing {
    int id; /* never 0 */
    enum place place;
    int in; /* the thing in which it stands; 0: none that comes and goes */
    bool mount;
    bool full;        /* something was put into it */
    bool aside;       /* under the name that an undo gave it (K17) */
    bool same_source; /* a mount that names the source of the intent itself */
    uint64_t stamp;   /* whose it says it is: model_line(), 0 nobody's */
    uint64_t content; /* of a lock: 0 empty, a stranger's number, or model_line() */
    bool held;        /* a stranger has its flock */
    int locked_by;    /* the supervisor that has its flock, plus 1 */
    uint64_t seen;    /* what the system showed of it */
};

/* ---- the journal ---- */

enum verdict { IS_GONE, IS_OURS, IS_ANOTHER, IS_REFUSED, IS_WAITING, IS_BUSY };

struct mrecord {
    uint32_t seq, below;
    enum place place;
    bool evidence;
    bool anothers; /* its acquisition found something there (K1) */
    int got;       /* the thing, once it is made */
    int before;    /* the thing that stood there when the intent was written */
    int newest;    /* things up to this one were there then */
    int fs;        /* the file system of its directory then */
    int ground;    /* and the thing that it was */
    uint64_t before_content;
    pid_t pid;
    bool dead;      /* the process */
    uint32_t group; /* seq of the cgroup in which it is, or 0 */
    /* model_look(): and is it what became of its lower one? */
    enum verdict verdict;
    bool settled;
    /* model_teardown(): CLI.md's word */
    const char *out;
    bool dropped;
};

struct mbox {
    bool there, on_disk;
    uint64_t incarnation, parent;    /* the box in which it lives */
    int order;                       /* in which they were begun */
    int boot, owner, life, failures; /* life: of the supervisor */
    int waits; /* since that boot a teardown has found that something only waits (K14), plus 1; or 0 */
    uint32_t next_seq;
    struct mrecord records[MAX_RECORDS];
    int n;
    const char *cause; /* model_teardown(): CLI.md's word for why it is stale */
};

struct model {
    struct mbox now[BOXES], disk[BOXES]; /* what the boot journal says, and the disk */
    struct thing things[MAX_THINGS];
    int n, last_id, begun;
    int boot;
    bool always, quarantined;
    struct {
        bool up;
        int life;
    } supervisor[SUPERVISORS];
    uint64_t incarnations[MAX_THINGS]; /* by order */
};

/* for (EACH_RECORD(r, b)) ... */
#define EACH(type, at, list, n)                                                                              \
    type *at = (list);                                                                                       \
    (at) < (list) + (n);                                                                                     \
    (at)++
#define EACH_BOX(b, m) EACH(struct mbox, b, (m)->now, BOXES)
#define EACH_RECORD(r, b) EACH(struct mrecord, r, (b)->records, (b)->n)
#define EACH_THING(t, m) EACH(struct thing, t, (m)->things, (m)->n)

/* ---- what stands where ---- */

enum rbxj_kind model_kind(const struct mrecord *r);
#define MODEL_LINE (1ULL << 63) /* in a content: a box's line, else a stranger's number */
uint64_t model_line(const struct mbox *b, uint32_t seq);
/* Whose line it is: 0 nobody's. */
uint64_t model_line_incarnation(const struct model *m, uint64_t line);
/* Is p that place, or in it? */
bool model_contains(enum place outer, enum place p);
bool model_reachable(struct model *m, enum place p);
/* What is to be seen there, or NULL; and the thing in which the place is, or 0. */
struct thing *model_top(struct model *m, enum place p);
int model_ground(struct model *m, enum place p);
/* The file system in which the place is: 0 the disk, -1 a volatile one of the boot, else a mount. */
int model_fs(struct model *m, enum place p);
bool model_is_empty(struct model *m, const struct thing *t);
struct thing *model_add(struct model *m, enum place p);
void model_remove(struct model *m, int id); /* with everything in it */

/* ---- calls ---- */

/* What a call may answer: 0 if codes is empty, else one of them. */
struct answer {
    int codes[8], n;
};

/* Is its supervisor alive? And does the box count as live (K4)? */
bool model_is_owned(const struct model *m, const struct mbox *b);
bool model_is_live(struct model *m, const struct mbox *b);
struct mrecord *model_record(struct mbox *b, uint32_t seq);
void model_drop(struct mbox *b, uint32_t seq);
/* By an owner, for a box: NO_SUCH_BOX, BOX_LIVE, BOX_STALE. */
struct answer model_owns(const struct model *m, int supervisor, int box);
/* parent -1: none; ret: the box as it will be. */
struct answer model_begin(struct model *m, int supervisor, int box, int parent, const enum place *plan, int n,
                          struct mbox *ret);
struct answer model_intend(struct model *m, int supervisor, int box, enum place p);
struct answer model_acquire(struct model *m, int supervisor, int box, uint32_t seq);
struct answer model_acquired(struct model *m, int supervisor, int box, uint32_t seq);
struct answer model_released(struct model *m, int supervisor, int box, uint32_t seq);
/* What they change when they succeed. */
void model_do_begin(struct model *m, int box, const struct mbox *begun);
struct mrecord *model_do_intend(struct model *m, int box, enum place p);
struct thing *model_do_make(struct model *m, int supervisor, struct mrecord *r); /* acquires it itself */
void model_do_acquire(struct model *m, int supervisor, int box, struct mrecord *r);
void model_do_find(struct model *m, struct mrecord *r); /* it did not, as something is there already */

/* ---- looks and teardowns ---- */

/* Is it a mount that is newer than the record, and that no other one of the box names? */
bool model_is_strange(struct model *m, struct mbox *b, const struct mrecord *r, const struct thing *t);
/* Is it in a mount of the box that is undone before it, or, being a mount, under it? */
bool model_is_in_newer(struct model *m, struct mbox *b, const struct mrecord *r);
/* A mount of this box on the place of its lower item, which can't be seen then. */
bool model_is_covering(const struct mrecord *r, const struct mrecord *lower, enum verdict v);
/* A lock that holds what it held before. */
bool model_is_as_before(struct model *m, const struct mrecord *r);
/* Whatever became of the item in which it is. */
enum verdict model_judge_alone(struct model *m, struct mbox *b, const struct mrecord *r);
/* Gives each record its verdict. */
void model_look(struct model *m, struct mbox *b);
bool model_is_held(struct model *m, const struct mbox *b, const struct mrecord *r); /* after a look */
bool model_holds(struct model *m, struct mbox *b);                                  /* looks */
unsigned model_stale(struct model *m);
/* A teardown by the owner, or a replay, of those boxes: not 0 if something is left. Until it is settled the
 * records that it dropped are still there. */
int model_teardown(struct model *m, unsigned which, bool owner, bool dry);
void model_settle(struct model *m, unsigned which, bool owner);
void model_commit(struct model *m);
void model_crash(struct model *m, int supervisor);
void model_power_loss(struct model *m);
const char *model_health(struct model *m);

#endif
