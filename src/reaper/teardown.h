/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Taking one box down: the one path of a supervisor's normal teardown, a crash replay and a reset (I8). In
 * steps, so that a replay can take each step for all its boxes before the next: everything is quiesced before
 * mountinfo is read, and mountinfo is read once for all.
 *
 *   look       every record, oldest first (a record may lie below an older one, K13); changes nothing
 *   quiesce    kills what lives in it: cgroups and processes that are proven ours; one that can't be killed
 *              now fails, and nothing at all is undone under it
 *   quiesced   waits until they are gone, and takes the flocks of its locks, each held until its lock is
 *              undone, the box has ended or teardown_finish() gives it back (K7)
 *   undo       newest first: undo and verify one by one (I6, I7)
 *   settle     makes what was undone durable; then drops what was verified, and the box if nothing is left,
 *              in one transaction
 *   finish     gives a box of which something is left back, with its failures in a row counted
 *
 * A failed or busy record stops the older ones of its box; a refused one does not (K2). Everything may be
 * killed at any instruction: the next one starts again from what the journal and the system show (I5).
 */
#ifndef RBXJ_REAPER_TEARDOWN_H
#define RBXJ_REAPER_TEARDOWN_H

#include "journal/journal.h"
#include "reaper/mountinfo.h"
#include "reaper/result.h"

/* What all boxes of a replay share. */
struct reaper {
    const struct config *config;
    struct journal *journal; /* NULL: only looking */
    struct snapshot *snapshot;
    struct mounts *mounts; /* of this pass; read when first needed */
    uint8_t boot_id[16];
    int64_t deadline_ns; /* of the whole replay, CLOCK_MONOTONIC */
    int64_t timeout_ns;  /* for one box */
    bool lazy_umount;
    bool foretells;    /* a plan is made, or checked: see struct undo */
    uint64_t mount_ns; /* ours */
    uint64_t dead[16]; /* what did not answer: mount_table_hang_key() */
    size_t dead_len;
    struct adopted
        *adopted;           /* where nothing is undone: who uses what was adopted; of the first look at one */
    unsigned worker;        /* of a replay, below JOURNAL_WORKERS */
    struct rbxj_error busy; /* the journal was, in this pass: it is not waited for again */
    pid_t ancestors[64];    /* see struct undo; read once for all boxes */
    size_t ancestors_len;
};

/* What struct reaper has of them; NULL will do. */
void adopted_free(struct adopted *all);

struct teardown_item {
    struct record *record;
    struct finding look, done;
    enum outcome outcome;
    int lock_fd;   /* the flock that is held until the end, or -1 */
    bool verified; /* gone for sure: its record may be dropped (I6) */
    bool dropped;  /* its record is gone from the journal */
    bool settled; /* what look() says needs no second look: it follows from another record or from the boot */
    bool
        hangs; /* its file system does not answer, or can't be asked now: nothing more is asked of it (K16) */
    bool withheld; /* this lock, or what it is in, is why the box is held or blind */
    bool aside;    /* another record of the box is taken back: this one is only looked at */
    bool silent;   /* pending: dropped without touching anything (K22), not reported */
};

struct teardown {
    struct reaper *reaper;
    struct snapshot_box *sb;
    struct undo u;
    struct teardown_item *items; /* as the records, oldest first */
    bool owner;                  /* a normal teardown by the box's own supervisor: it has the flocks itself */
    bool single;                 /* teardown_only() */
    bool claimed;                /* ours; a replay claims before it reads the records */
    bool stopped;                /* something failed: what is older stays */
    bool held;                   /* somebody who is not its payload holds a lock (K7) */
    bool blind;                  /* who holds its locks can't be known now: all is left */
    bool corrupt;
    bool failed;             /* this time: says teardown_finish() */
    bool fleeting;           /* something was undone that a power cut may bring back: its records stay */
    int64_t worked_ns;       /* what was spent on this box */
    struct rbxj_error error; /* why the whole box was left */
};

int teardown_init(struct teardown *t, struct reaper *reaper, struct snapshot_box *sb, bool owner);
void teardown_clear(struct teardown *t);
/* From here on it is about that one record, which the box's living supervisor could not acquire: unlike for
 * the others it has no flock of it. */
void teardown_only(struct teardown *t, uint32_t seq);

void teardown_look(struct teardown *t);
void teardown_look_later(struct teardown *t);  /* it will be, before it is quiesced */
void teardown_leave_alone(struct teardown *t); /* not claimed; t->error says why */
void teardown_quiesce(struct teardown *t);
void teardown_quiesced(struct teardown *t);
void teardown_undo(struct teardown *t);
/* For n boxes at once; those that are not claimed are left alone. Returns how many records were dropped. When
 * nothing is left a box has ended, or was given back to its owner. */
size_t teardown_settle(struct teardown *boxes, size_t n);
/* Lets go of the flocks: of all, or of what was verified alone. */
void teardown_let_go(struct teardown *t, bool all);
/* Gives back a box of which something is left. */
void teardown_finish(struct teardown *t);

/* A dry run: what would become of each record. */
void teardown_judge(struct teardown *t);
/* Another try at what is left: looks again. */
void teardown_again(struct teardown *t);

/* How many records are left, and the box's outcome for the report. */
size_t teardown_left(const struct teardown *t);

/* Why the first of them is, in the order undone; empty where nothing says so. */
const char *teardown_why(const struct teardown *t);

/* Copies the outcome into a report; oldest_first for a list. 0 or -ENOMEM. */
int teardown_report(const struct teardown *t, bool oldest_first, struct result_box *ret);

/* Feeds what was seen into the plan's hash. */
struct XXH3_state_s;
void teardown_hash(const struct teardown *t, struct XXH3_state_s *state);

#endif
