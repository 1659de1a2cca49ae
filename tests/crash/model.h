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
    NOWHERE,
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
    bool same_source; /* a mount that names the source of the intent itself */
    uint64_t stamp;   /* whose it says it is: model_line(), 0 nobody's */
    uint64_t content; /* of a lock: 0 empty, a stranger's number, or model_line() */
    bool held;        /* a stranger has its flock */
    int locked_by;    /* the supervisor that has its flock, plus 1 */
    uint64_t seen;    /* what the system showed of it */
};

/* ---- the journal ---- */

struct mrecord {
    uint32_t seq, below;
    enum place place; /* NOWHERE: a process */
    bool evidence;
    bool anothers; /* its acquisition found something there (K1) */
    int got;       /* the thing, with evidence */
    int before;    /* the thing that stood there when the intent was written */
    int newest;    /* things up to this one were there when the intent was written */
    int fs;        /* the file system of its directory then */
    int ground;    /* and the thing that it was */
    uint64_t before_content;
    pid_t pid;
    bool dead;       /* the process */
    uint32_t group;  /* seq of the cgroup in which it is, or 0 */
    const char *out; /* of the last teardown: CLI.md's word */
    bool dropped;
};

struct mbox {
    bool there, on_disk;
    uint64_t incarnation, parent;    /* the box in which it lives */
    int order;                       /* in which they were begun */
    int boot, owner, life, failures; /* life: of the supervisor */
    uint32_t next_seq;
    struct mrecord records[MAX_RECORDS];
    int n;
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

/* ---- the rules ---- */

enum verdict { IS_GONE, IS_OURS, IS_ANOTHER, IS_REFUSED, IS_WAITING, IS_BUSY };

/* What a call may answer: 0 if codes is empty, else one of them. */
struct answer {
    int codes[8], n;
};

#define MODEL_LINE (1ULL << 63) /* in a content: a box's line, else a stranger's number */
uint64_t model_line(const struct mbox *b, uint32_t seq);
/* Whose line it is: 0 nobody's. */
uint64_t model_line_incarnation(const struct model *m, uint64_t line);
/* Is p that place, or in it? The thing in which it is, and the file system: 0 the disk, -1 a volatile one,
 * else a mount. */
bool model_contains(enum place outer, enum place p);
int model_ground(struct model *m, enum place p);
int model_fs(struct model *m, enum place p);
struct thing *model_top(struct model *m, enum place p);
struct thing *model_add(struct model *m, enum place p);
void model_remove(struct model *m, int id);
bool model_reachable(struct model *m, enum place p);
/* Is its supervisor alive? And does the box count as live (K4)? */
bool model_is_owned(const struct model *m, const struct mbox *b);
bool model_is_live(const struct model *m, const struct mbox *b);
struct mrecord *model_record(struct mbox *b, uint32_t seq);
bool model_is_empty(const struct model *m, const struct thing *t);

/* By an owner, for a box: NO_SUCH_BOX, BOX_LIVE, BOX_STALE. */
struct answer model_owns(const struct model *m, int supervisor, int box);
struct answer model_begin(struct model *m, int box, int parent, const enum place *plan,
                          int n); /* parent -1: none */
struct answer model_intend(struct model *m, int supervisor, int box, enum place p);
struct answer model_acquire(struct model *m, int supervisor, int box, uint32_t seq);
struct answer model_acquired(struct model *m, int supervisor, int box, uint32_t seq);
struct answer model_released(struct model *m, int supervisor, int box, uint32_t seq);
/* What they change when they succeed. */
void model_do_begin(struct model *m, int supervisor, int box, int parent, uint64_t incarnation,
                    const enum place *plan, int n);
struct mrecord *model_do_intend(struct model *m, int box, enum place p);
void model_do_acquire(struct model *m, int supervisor, int box, uint32_t seq);
void model_do_find(struct model *m, struct mrecord *r); /* it did not, as something is there already */
void model_drop(struct mbox *b, uint32_t seq);

/* Is it a mount that another record of the box names? */
bool model_is_of_box(struct mbox *b, const struct mrecord *but, const struct thing *t);
bool model_is_in_newer(struct model *m, struct mbox *b, const struct mrecord *r);
/* A mount of this box on the place of its lower item, which can't be seen then. */
bool model_is_covering(const struct mrecord *r, const struct mrecord *lower, enum verdict v);
/* Looks, as a list does; alone: whatever became of the item in which it is. */
enum verdict model_judge_alone(struct model *m, struct mbox *b, struct mrecord *r);
enum verdict model_judge(struct model *m, struct mbox *b, struct mrecord *r);
bool model_is_held(struct model *m, struct mbox *b, struct mrecord *r);
bool model_holds(struct model *m, struct mbox *b);
/* A teardown by the owner, or a replay of the boxes in which: what each record comes to goes to ret, which
 * is a copy of the boxes as they were before. 1: something is left. Unless it is dry, things and records
 * change. */
int model_teardown(struct model *m, unsigned which, bool owner, bool dry, struct mbox ret[BOXES]);
unsigned model_stale(const struct model *m);
/* CLI.md's word for why a stale box is one. */
const char *model_cause(struct model *m, struct mbox *b);
void model_commit(struct model *m);
void model_power_loss(struct model *m);
void model_crash(struct model *m, int supervisor);
const char *model_health(struct model *m);

#endif
