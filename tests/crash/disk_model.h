/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a workload was told, and when: the operations of each of its processes, between two moments of the log
 * (disk_log_mark()). After a power cut the journal must hold what a beginning of each process' operations
 * leaves, one that has everything in it that was acknowledged to anybody as durable, or came before that.
 */
#ifndef RBXJ_TESTS_CRASH_DISK_MODEL_H
#define RBXJ_TESTS_CRASH_DISK_MODEL_H

#include "rbxj.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_PROCESSES 8
#define MODEL_OPS 512
#define MODEL_BOXES 512
#define MODEL_RECORDS 32 /* of a box; seq 0 is its header */

enum model_parent { PARENT_KEPT, PARENT_LOST, PARENT_DEEP, PARENTS };

struct model_record {
    enum rbxj_kind kind;
    enum model_parent parent;
    char base[32];
};

struct model_box {
    char name[24];
    uint64_t incarnation;
    unsigned process;
    uint32_t len; /* of records; the next seq */
    struct model_record records[MODEL_RECORDS];
};

struct model_op {
    enum model_kind {
        MODEL_ADD,    /* records first to last of the box, the header as 0 */
        MODEL_DROP,   /* the same records go, in any number of steps */
        MODEL_REPLAY, /* everything of everybody goes, in any number of steps */
    } kind;
    uint32_t box, first, last;
    bool durable;        /* acknowledged when it is on disk */
    uint64_t start, end; /* end 0: not yet */
};

/* Shared by the processes of a workload. */
struct model {
    bool always;
    char parents[PARENTS][4096];
    _Atomic uint32_t boxes_len;
    struct model_box boxes[MODEL_BOXES];
    uint32_t ops_len[MODEL_PROCESSES];
    struct model_op ops[MODEL_PROCESSES][MODEL_OPS];
    _Atomic uint64_t cleanups; /* teardowns that were started */
    bool incident;             /* the replay says that there is one */
};

struct model *model_new(void);

/* A box more, of that process; its number. */
uint32_t model_box_new(struct model *m, unsigned process, const char *name);
/* The path of a record; as snprintf(). */
void model_path(const struct model *m, const struct model_record *r, char *to, size_t size);
/* Must it be on disk before its intent is acknowledged? */
bool model_is_durable(const struct model *m, const struct model_record *r);

/* Around an operation. */
struct model_op *model_start(struct model *m, unsigned process, enum model_kind kind, uint32_t box,
                             uint32_t first, uint32_t last);
void model_end(struct model_op *op);

/* found[box]: bit seq is set for each record, bit 0 for its header. The power was cut after that many entries
 * of the log. NULL, or what is wrong with it. */
const char *model_judge(const struct model *m, uint64_t cut, const uint32_t *found);
/* Has anything been acknowledged by then, or begun? */
bool model_has_begun(const struct model *m, uint64_t cut);

#endif
