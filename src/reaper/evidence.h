/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is seen of the worker besides its boxes, and says whether it is well: room on its disks and in its
 * journals (room.c), processes (orphans.c), strangers where something of a dead box stood. A look changes
 * nothing, is bounded in time and memory, and takes what goes away meanwhile for gone. What could not be
 * looked at is told as that, and counts as neither well nor ill; want of memory or descriptors is an error of
 * the whole look, which is to be tried again.
 */
#ifndef RBXJ_REAPER_EVIDENCE_H
#define RBXJ_REAPER_EVIDENCE_H

#include "base/config.h"
#include "journal/journal.h"

enum evidence_kind {
    EVIDENCE_ORPHAN,    /* a process that outlived its box, and that no record names */
    EVIDENCE_ZOMBIE,    /* a dead process of a box that its parent has not asked for */
    EVIDENCE_BLOCKED,   /* a process of a box in state D */
    EVIDENCE_FOREIGN,   /* something of somebody else where something of a dead box stood */
    EVIDENCE_EXHAUSTED, /* less room than [health] min_free */
    EVIDENCE_UNKNOWN,   /* could not be looked at */
    EVIDENCE_KINDS
};

struct evidence_item {
    enum evidence_kind kind;
    char text[400]; /* escaped */
};

struct evidence {
    uint32_t counts[EVIDENCE_KINDS];
    struct evidence_item *items; /* of each kind the first EVIDENCE_TOLD */
    size_t len;
    bool processes_unseen, room_unseen; /* there may be more of it than is told */
};
#define EVIDENCE_TOLD 20

/* "orphan_process", ...: a contract. */
const char *evidence_name(enum evidence_kind kind);
void evidence_clear(struct evidence *ev);
/* One more. 0 or -ENOMEM. */
int evidence_add(struct evidence *ev, enum evidence_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* "evidence", an array of "kind" and "message". */
struct doc;
void evidence_tell(const struct evidence *ev, struct doc *doc);
/* The first of that kind, or NULL. */
const char *evidence_first(const struct evidence *ev, enum evidence_kind kind);

/* The file systems of the state and the runtime directory, of what the patterns of [discover] look at, and of
 * what the boxes of this boot have recorded (s may be NULL); space and inodes. 0 or -errno for want of memory
 * or descriptors. */
int room_look(const struct config *config, const struct snapshot *s, struct evidence *ev);
/* How much of what it may hold a journal has in use (K26). */
int room_look_at_journal(const struct config *config, const char *name, const struct journal_size *size,
                         struct evidence *ev);

/* Processes: orphans (orphans.h), and those of boxes that are zombies or blocked. live: of each box of s. 0
 * or -errno for want of memory or descriptors. (evidence_processes.c) */
int processes_look(const struct config *config, struct snapshot *s, const enum liveness *live,
                   struct evidence *ev);

#endif
