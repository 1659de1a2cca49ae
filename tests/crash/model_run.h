/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Sequences of operations: drawn from a seed, done on the system and in the model, printed.
 */
#ifndef RBXJ_TESTS_CRASH_MODEL_RUN_H
#define RBXJ_TESTS_CRASH_MODEL_RUN_H

#include "model_world.h"

enum op_kind {
    OP_BEGIN,
    OP_INTEND,
    OP_TAKE,
    OP_ACQUIRE,
    OP_MAKE,
    OP_ACQUIRED,
    OP_GIVE,
    OP_RELEASED,
    OP_SPAWN,
    OP_UNDO,
    OP_END,
    OP_CRASH,
    OP_POWER_LOSS,
    OP_REPLAY,
    OP_DRY_RUN,
    OP_OTHER_PLAN,
    OP_FORGET,
    OP_HEALTH,
    OP_QUARANTINE,
    OP_UNQUARANTINE,
    OP_ADD,
    OP_REMOVE,
    OP_REPLACE,
    OP_SCRIBBLE,
    OP_HOLD,
    OP_LET_GO,
    OPS
};

struct op {
    enum op_kind kind;
    int supervisor, box, parent, plan_len; /* parent of a box that is begun, -1: none */
    enum place place, plan[MAX_PLAN];
    uint32_t pick; /* which record, by what there is then */
};

/* What a sequence is drawn from. */
struct swarm {
    uint64_t random; /* 0: it is drawn */
    unsigned weights[OPS];
    bool places[PLACES];
    uint32_t boxes; /* the first few */
    bool nests;     /* many boxes live in others */
};

enum { MAX_OPS = 48 };
struct sequence {
    bool always, real_disk; /* durability; a state directory that is flushed to a disk */
    bool slow;              /* the list, and for what is left over, after each operation, not every third */
    struct swarm from;
    struct op ops[MAX_OPS];
    int n;
};

struct run {
    struct model m;
    bool forgotten; /* a process may be left that no record names */
    char trouble[1500];
};

/* model_draw.c: from what there is in the model, so that most operations find something to do. */
struct sequence sequence_draw(uint64_t seed);
struct op op_draw(struct swarm *s, struct model *m);
void op_print(const struct op *op, char *buf, size_t size);

extern const struct op_info {
    bool (*act)(struct run *run,
                const struct op *op); /* false: run->trouble says what was not as it must be */
    unsigned weight;
    const char *text; /* %B box, %S supervisor, %P place, %I parent, %L plan, %R record */
} op_infos[OPS];
/* model_calls.c: those of supervisors. */
bool op_begin(struct run *run, const struct op *op);
bool op_intend(struct run *run, const struct op *op);
bool op_take(struct run *run, const struct op *op);
bool op_acquire(struct run *run, const struct op *op);
bool op_make(struct run *run, const struct op *op);
bool op_acquired(struct run *run, const struct op *op);
bool op_give(struct run *run, const struct op *op);
bool op_released(struct run *run, const struct op *op);
bool op_spawn(struct run *run, const struct op *op);
bool op_undo(struct run *run, const struct op *op);
bool op_end(struct run *run, const struct op *op);
/* Which record an operation is about: mostly one that waits for it, if there is one. */
struct mrecord *op_record(struct model *m, const struct op *op, bool made);
bool op_is_mounted_in(const struct model *m, int id);
bool op_is_populated(const struct mrecord *group, const struct mbox *b);
/* What the system shows, and the journal, against the model. */
bool run_check(struct run *run, bool list);
bool trouble(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* model_check.c: a replay's or an undo's report. */
bool check_answer(struct run *run, const char *call, const struct answer *a, int r, const char *message);
bool check_replay(struct run *run, const struct rbxj_result *result, unsigned which);

#endif
