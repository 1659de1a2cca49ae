/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The inside of a handle, and what the API's files share.
 */
#ifndef RBXJ_REAPER_HANDLE_H
#define RBXJ_REAPER_HANDLE_H

#include "base/config.h"
#include "base/forked.h"
#include "journal/journal.h"
#include "reaper/quarantine.h"
#include "reaper/undo.h"

struct rbxj {
    struct config config;
    struct journal *journal;
    /* boxes that this handle began for another process, for which it may act (a hook) */
    struct forked_mutex mutex;
    uint64_t *begun;
    size_t begun_len;
    size_t begun_look; /* from that many on those that have ended are looked for */
};

int handle_open_journal(const struct config *config, struct journal **ret, struct rbxj_error *e);
/* The journal that this process has open, or one that is opened now: then *ret_own is it, to be closed, else
 * NULL. */
int handle_borrow_journal(const struct config *config, struct journal **ret, struct journal **ret_own,
                          struct rbxj_error *e);

/* Reads the box and makes sure that this handle may act for it, and that its supervisor is alive. */
int handle_get_own(struct rbxj *handle, const char *name, struct snapshot_box *ret, struct rbxj_error *e);
/* What the kinds need to know of a box. Free its mounts. */
struct undo handle_undo(const struct rbxj *handle, const struct box *box, struct record *records, size_t n);

/* rbxj_intend() that tells the box's header, too, and rbxj_acquire() that tells whether there may be
 * something to be taken back (else *ret_made is false, or untouched), and leaves it to the caller; with NULL
 * the record tells it later. The latter is in acquired.c. */
int handle_intend(struct rbxj *handle, const char *box, const struct rbxj_resource *resource,
                  struct box *ret_box, uint32_t *ret_seq, struct rbxj_error *error);
int handle_acquire(struct rbxj *handle, const char *box, uint32_t seq, const char *options, int *ret_fd,
                   bool *ret_made, struct rbxj_error *error);

/* ---- teardown_own.c ---- */

/* Undoes and drops one record of a box of this handle, as far as can be; the box's others are left alone. */
void handle_take_back(struct rbxj *handle, const char *box, uint32_t seq);

/* ---- replay.c ---- */

struct teardown;
/* Liveness of each box of a snapshot, to be freed; a box in which a living one lives counts as live. */
int classify(struct journal *j, const struct config *config, const struct snapshot *s, enum liveness **ret,
             struct rbxj_error *e);
/* For who only looks: reads the boxes, and who of them is alive. Where one is dead, as of a second reading: a
 * supervisor that was alive at the first may have ended its box, and itself, before it was asked for. Who
 * died since the first is the next look's, and counts as alive. s, which is zero, is to be cleared whatever
 * it returns; where it has damaged records *ret is untouched. */
int read_and_judge(const struct config *config, struct snapshot *s, enum liveness **ret,
                   struct rbxj_error *e);
/* A box in which another one lives counts as live while that does (K4). */
void count_outer_as_live(const struct snapshot *s, enum liveness *live);
/* Whoever finds a journal's content damaged while something is to be undone: it is moved aside, told and
 * quarantined for, and e says where it is. Nothing for other errors: for a journal that is another's (K21) or
 * whose disk is missing (K33) begin fails by itself, for as long as that lasts. Nothing is written to a
 * damaged one: it is not counted. */
void replay_quarantine_damaged(const struct config *config, struct rbxj_error *e);
/* Does that make sense? 0, or BAD_REQUEST. */
int replay_check_how(const struct rbxj_replay *how, struct rbxj_error *e);
/* rbxj_replay() with a configuration that is loaded; procedure: for the incident. */
int replay_run(const struct config *config, const struct rbxj_replay *how, const char *procedure,
               struct rbxj_result **ret, struct rbxj_error *e);
/* From then on no replay begins: waits for one that runs, for as long as one box may take. 0, BUSY, or
 * another negative code; *ret_fd is for replay_let_in(). */
int replay_keep_out(const struct config *config, int *ret_fd, struct rbxj_error *e);
void replay_let_in(int *fd);
/* Why a stale box is there, after teardown_look(). */
const char *cause_of(const struct teardown *t);

/* ---- inspect.c ---- */

/* The boxes of the journal (box NULL: all) as of one moment, and what is found of them; changes nothing.
 * ret_counters may be NULL; it is set even where the error is JOURNAL_DAMAGED, if the journal could be
 * read. */
int inspect(const struct config *config, const char *box, struct counters *ret_counters,
            struct rbxj_result **ret, struct rbxj_error *e);

/* The same, and who wants to see more of it is shown the boxes with their records, and which of them live. 0
 * or a negative code. */
struct visitor {
    int (*visit)(void *data, struct snapshot *s, const enum liveness *live, struct rbxj_error *e);
    void *data;
};
int inspect_with(const struct config *config, const char *box, struct counters *ret_counters,
                 const struct visitor *visitor, struct rbxj_result **ret, struct rbxj_error *e);

/* ---- health.c ---- */

struct evidence;
struct journal_sizes {
    struct journal_size boot, disk;
};
/* rbxj_health() with a configuration that is loaded. sizes: what journal_sizes() says of them, NULL: that is
 * asked here; ret_counters may be NULL; ev gets what was seen besides the boxes, whatever is returned. */
int health_look(const struct config *config, const struct journal_sizes *sizes, struct rbxj_health *ret,
                struct counters *ret_counters, struct evidence *ev, struct rbxj_error *e);

/* A replay, and what becomes of the quarantine then: the recovery, or the end of a reset (procedure). ev gets
 * what was seen last. */
int health_recover(const struct config *config, const struct rbxj_replay *how, const char *procedure,
                   enum quarantine_by by, struct rbxj_result **ret_result, struct rbxj_health *ret_health,
                   struct evidence *ev, struct rbxj_error *error);

#endif
