/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The two journals behind one handle.
 *
 *   RUNTIME/journal-<boot id>/   the boot journal (LMDB, MDB_NOSYNC): every record of this boot; the truth
 *       data.mdb lock.mdb gate
 *   STATE/journal/               the disk journal (LMDB, durable): what could outlive the boot
 *       data.mdb lock.mdb
 *   STATE/alive                  byte 0: whoever has the journals open (shared);
 *                                a byte per incarnation: its supervisor
 *
 * The life of a record, and which function makes which transition (each is one transaction on the boot
 * journal):
 *
 *      (none) --journal_begin, journal_intend--> pending --(disk commit, if it needs one)--> granted
 *      pending --(that commit failed)--> (none)         nobody was told to acquire
 *      granted --journal_update--> granted + evidence   no flush
 *      granted --journal_drop--> (none)                 after the undo was verified
 *
 * and of a box:   journal_begin --> live or stale --journal_claim--> claimed --journal_end--> (none)
 *                                                  claimed --journal_settle--> live or stale
 *
 * Invariants
 *   J1  A record in the boot journal that is not pending was granted: its caller may have acquired.
 *   J2  If a box has BOX_ON_DISK, every change to it is a log entry; the disk journal is the state of those
 *       boxes as of the entry `covered`, no more and no less. If it has not, nothing of it is in the log or
 *       on disk.
 *   J3  Positions rise without gaps; an entry is trimmed from the log only when the disk has covered it.
 *   J4  The names index holds exactly the paths of the records, the boxes index exactly the headers.
 *   J5  A process holds at most one gate, and never waits, calls back or does I/O but the commit inside a
 *       transaction. Liveness is judged before the transaction; a dead process stays dead.
 *   J6  Nothing but journal_open() creates a file; the boot's folder appears whole, by rename.
 */
#ifndef RBXJ_JOURNAL_JOURNAL_H
#define RBXJ_JOURNAL_JOURNAL_H

#include "base/error.h"
#include "journal/counters.h"
#include "journal/record.h"

struct journal;

struct journal_options {
    const char *state_dir;
    const char *runtime_dir;
    bool always;       /* durability=always: everything goes to disk */
    uint64_t map_size; /* bytes, both journals */
    uint64_t preallocate;
    int64_t gate_timeout_ns;
};

/* Opens for writing; creates what is missing inside an existing state directory. One per process. */
int journal_open(const struct journal_options *options, struct journal **ret, struct rbxj_error *e);
void journal_close(struct journal *j);

/* The open journal of this process if it is of these directories, or NULL. */
struct journal *journal_of_process(const char *state_dir, const char *runtime_dir);

/* ---- state transitions (begin.c, change.c, claim.c) ---- */

/* box: name, supervisor, parent, flags in; incarnation, next_seq and flags out. plan[i]: seq i + 1 and the
 * incarnation out. Refuses a box of that name (BOX_LIVE, BOX_STALE) and a path that overlaps another box's
 * (EXISTS). */
int journal_begin(struct journal *j, struct box *box, struct record *plan, size_t n, struct rbxj_error *e);

/* Would journal_begin() refuse that name now? 0, BOX_LIVE, BOX_STALE. Before the caller looks at what a box
 * of that name may have made. */
int journal_check_name(struct journal *j, const char *name, struct rbxj_error *e);

/* One more intent of a box of this journal; r->seq and r->incarnation out. */
int journal_intend(struct journal *j, uint64_t incarnation, struct record *r, struct rbxj_error *e);

/* Takes records that were just begun or intended away again, of which nobody was told, or for which nothing
 * was acquired; whole: and their box. Where that can't be done now it is done later, as for
 * journal_unclaim(): at the latest before the box is claimed or ended by this process. */
void journal_withdraw(struct journal *j, const struct box *box, uint32_t first_seq, uint32_t last_seq,
                      bool whole);

/* Adds flags to a record; where that can't be done now it is done as late as that. */
void journal_mark(struct journal *j, uint64_t incarnation, uint32_t seq, uint32_t flags);

/* Writes a record again (evidence, marks); durable: not before the disk has it. BOX_STALE while another
 * living process has claimed the box. */
int journal_update(struct journal *j, const struct record *r, bool durable, struct rbxj_error *e);
/* The same for who acquires: BUSY while another thread of this process has claimed it, who has looked at it
 * already. */
int journal_prove(struct journal *j, const struct record *r, bool durable, struct rbxj_error *e);

/* Writes a box's header again: failures and the like. Keeps what others may have changed (flags,
 * next_seq). */
int journal_update_box(struct journal *j, const struct box *box, struct rbxj_error *e);

int journal_drop(struct journal *j, uint64_t incarnation, uint32_t seq, struct rbxj_error *e);

/* Drops the header; LEFT while granted records are there (pending ones go along), BUSY while another living
 * process has claimed it. */
int journal_end(struct journal *j, uint64_t incarnation, struct rbxj_error *e);

/* Takes the box for a teardown (K11). The caller has judged the box stale, or is its live supervisor. BUSY:
 * somebody living has it. */
int journal_claim(struct journal *j, uint64_t incarnation, struct rbxj_error *e);

/* BOX_STALE while another living process has claimed it, BUSY while another thread of this one has: before a
 * supervisor makes what the claimer may have found not to be there. */
int journal_check_unclaimed(struct journal *j, uint64_t incarnation, struct rbxj_error *e);

/* Claims for a replay, all its boxes in one transaction, before it reads what they hold. */
struct claim {
    uint64_t incarnation;
    struct procid claimer; /* BUSY: who has it */
    int result;            /* 0, BUSY, NO_SUCH_BOX (it has ended) */
    bool judged, alive;    /* the claimer: asked outside of the transaction */
};
int journal_claim_all(struct journal *j, struct claim *claims, size_t n, struct rbxj_error *e);
/* Gives back what of it was not torn down. */
void journal_unclaim_all(struct journal *j, const struct claim *claims, size_t n);

/* The reaper's worker is about to touch that box, or (0) has come to an end with it (K34). Costs nothing: it
 * is a word in shared memory that outlives the process. worker: below JOURNAL_WORKERS; one reaper at a
 * time. */
#define JOURNAL_WORKERS 16
void journal_touch(struct journal *j, unsigned worker, uint64_t incarnation);
/* At a reaper's start: what an earlier one was touching when it died has one more attempt that never
 * ended. */
int journal_count_attempts(struct journal *j, struct rbxj_error *e);

/* What a teardown has come to, in one transaction: drops the records whose undo was verified, and then */
enum settle {
    SETTLE_KEEP,    /* nothing more: there will be another try */
    SETTLE_UNCLAIM, /* gives the box back; its attempts count from none again (K34) */
    SETTLE_END,     /* ends the box, as journal_end() does */
};
int journal_settle(struct journal *j, uint64_t incarnation, const uint32_t *seqs, size_t n, enum settle how,
                   struct rbxj_error *e);

/* Gives a claimed box back. Where that can't be done now it is done before this journal's next intent, or
 * when it is closed. A box that is no more, or is not claimed, is fine. */
void journal_unclaim(struct journal *j, uint64_t incarnation);
/* The same, without a try now: the journal is known to be busy. */
void journal_unclaim_later(struct journal *j, uint64_t incarnation);

/* Adds to the counters: one transaction on the boot journal, no flush. */
int journal_count(struct journal *j, const struct counters *more, struct rbxj_error *e);

/* One disk commit, if the disk lacks anything, the counters included. A replay's last act (K20). */
int journal_flush(struct journal *j, struct rbxj_error *e);

/* One more transaction of each, after a drop of what is there all the same: a salvage believes the snapshot
 * before the newest where that is lost, and neither of the two shall have it. */
int journal_seal(struct journal *j, struct rbxj_error *e);

/* Reads one box with its records, as of one moment: 0, or NO_SUCH_BOX. Free with snapshot_box_clear(). */
struct snapshot_box;
int journal_get(struct journal *j, const char *name, struct snapshot_box *ret, struct rbxj_error *e);

/* Is there a box of that incarnation at this moment? What can't be read counts as one. */
bool journal_has(struct journal *j, uint64_t incarnation);

/* ---- durability (commit.c) ---- */

/* Does this record need the disk before its intent is granted? (DESIGN "durability follows the resource",
 * K23) */
bool commit_is_needed(bool always, const struct record *r);

/* Returns when the disk has covered position: N waiting callers share one commit. intent: refused when the
 * room that is kept for undoing would be needed (K26). */
int commit_through(struct journal *j, uint64_t position, bool intent, struct rbxj_error *e);

/* ---- reading (scan.c) ---- */

struct snapshot_box {
    struct box box;
    struct record *records; /* oldest first, pending ones with REC_PENDING */
    size_t len;
    struct procid claimer; /* pid 0: not claimed */
    uint32_t attempts;     /* attempts on it that did not end, in a row (K34) */
    size_t damaged;        /* records of it that can't be read: it is not undone (K24) */
    int64_t
        order_ns; /* when it was begun, but after the box in which it lives, whatever the clock said (K4) */
};

struct snapshot {
    struct snapshot_box *boxes; /* in the order begun, each after the one in which it lives */
    size_t len;
    uint8_t boot_id[16]; /* of the boot whose journal was read; zero: the disk journal, or nothing */
    uint8_t instance[16];
    uint8_t generation[16]; /* of a boot journal, as is */
    uint64_t position;      /* the last one given out */
    uint64_t txn;           /* LMDB's number of the transaction that was read */
    size_t damaged;         /* records whose checksum or form is wrong, and boxes without a header */
    bool nothing;           /* there is no journal at all */
    /* CLOCK_REALTIME; 0: never. What is older was salvaged from a damaged journal: doubt is a refusal (I4) */
    int64_t salvaged_ns;
    struct counters counters;
    /* all paths, sorted, for the overlap checks of undo (K4); made by snapshot_index() */
    struct snapshot_path {
        const char *path;
        size_t box;
        const struct record *record; /* NULL or with REC_DROPPED: see below */
    } * paths;
    size_t paths_len;
    /* the same for what has a number, by kind and number */
    struct snapshot_number {
        enum rbxj_kind kind;
        int32_t number;
        size_t box;
        const struct record *record;
    } * numbers;
    size_t numbers_len;
};

/* Of an open journal: one short read transaction on the boot journal. */
int journal_snapshot(struct journal *j, struct snapshot *ret, struct rbxj_error *e);

/* Of directories, changing nothing at all (K28): a private copy is read; if the journal changes too fast for
 * that, an ordinary reader. No state directory, or an empty one: ret->nothing. */
int snapshot_read(const char *state_dir, const char *runtime_dir, struct snapshot *ret, struct rbxj_error *e);

/* The boxes alone, without their records and in no order, of directories that this process has not open: for
 * who only wants to know whose they are. A header that can't be read is left out. */
int snapshot_read_headers(const char *state_dir, const char *runtime_dir, struct snapshot *ret,
                          struct rbxj_error *e);

/* Is that state directory this worker's, so that what is not in it was not journaled? 0, or why that is not
 * known: JOURNAL_DAMAGED (this boot's journal was made for another), IO or PERMISSION (there is none, as
 * where its disk is not mounted, K33; but one of a user who has never run anything is not there either, and
 * he may make it), or it can't be seen. */
int journal_check_own(const char *state_dir, const char *runtime_dir, struct rbxj_error *e);
/* The error of a state directory that is empty beside a journal of this boot (K33). */
int belongs_emptied(const char *state_dir, struct rbxj_error *e);

/* Where this boot's journal is, or would be. */
int journal_boot_folder(const char *runtime_dir, char *ret, size_t size, struct rbxj_error *e);

/* How large the two journals are; changes nothing. A journal that is not there, or can't be read, has none;
 * in the latter case its error is returned, and the other one is filled in all the same. */
struct journal_size {
    bool there;
    uint64_t records; /* boxes' headers included */
    uint64_t bytes;   /* allocated */
    uint64_t used;    /* by the newest snapshot */
    uint64_t map;     /* as stored: whoever opens it may raise it */
    uint32_t lost;    /* disk journal: boot journals that were lost within a boot, not yet audited (K21) */
    uint8_t generation[16]; /* the boot journal's; the disk's: of that which it follows. Zeros: not known */
};
/* ret_boot NULL: only the disk journal is looked at. */
int journal_sizes(const char *state_dir, const char *runtime_dir, struct journal_size *ret_boot,
                  struct journal_size *ret_disk, struct rbxj_error *e);
/* Would an opener be let in, and the next intent, as far as can be seen without a change? boot, disk: what
 * journal_sizes() says of them. 0, or why not: JOURNAL_DAMAGED (it is another's, or of another layout), IO
 * (no state directory, K33), DISK_FULL, PERMISSION with EROFS or EPERM (nobody can write there), PERMISSION
 * or BAD_REQUEST without an errno (a directory is not to be trusted), or it can't be seen. */
int journal_check_usable(const char *state_dir, const char *runtime_dir, uint64_t preallocate,
                         const struct journal_size *boot, const struct journal_size *disk,
                         struct rbxj_error *e);

/* Of a map of that size intents may use so much; the rest is kept for undoing (K26). */
uint64_t journal_room(uint64_t map);
/* Somebody has looked into the boot journals that were lost: none is any more (K21). */
int journal_audited(struct journal *j, struct rbxj_error *e);

/* Walks both journals as a whole: 0 or JOURNAL_DAMAGED. Before a reaper writes: what was damaged in place
 * since they were opened must not meet LMDB (I9). The disk's is left out while somebody holds its gate for
 * too long. */
int journal_validate(struct journal *j, struct rbxj_error *e);

/* Moves a journal that is damaged, as a whole or in a record that counts, to journal.damaged-<time> beside
 * it, where nobody opens it and nobody removes it. Only while no process has the journals open. How many;
 * their paths in ret. */
int journal_set_aside(const char *state_dir, const char *runtime_dir, char *ret, size_t size,
                      struct rbxj_error *e);

/* JOURNAL_DAMAGED where a record of it can't be read, else 0. */
int snapshot_check(const struct snapshot *s, struct rbxj_error *e);
void snapshot_clear(struct snapshot *s);
void snapshot_box_clear(struct snapshot_box *box);
/* Is there nothing at all: no state directory or an empty one, and no boot journal? 1, 0, or a negative
 * code. */
int snapshot_is_nothing(const char *state_dir, const char *runtime_dir, struct rbxj_error *e);

/* Recorded paths (but for records that were dropped since, REC_DROPPED) of boxes other than the incarnation
 * own that equal path, lie below it or contain it: calls back for each until it returns non-zero, and returns
 * that. */
int snapshot_overlaps(const struct snapshot *s, uint64_t own, const char *path,
                      int (*found)(void *data, const struct snapshot_box *box, const char *path), void *data);
/* The same for what others have recorded with that number: the id of a mount of which there is evidence of
 * this boot, or the pid of a process. Numbers are given again: is it that one? (numbered.c) */
int snapshot_numbered(const struct snapshot *s, uint64_t own, enum rbxj_kind kind, int32_t number,
                      int (*found)(void *data, const struct snapshot_box *box, const struct record *r),
                      void *data);

/* ---- liveness (alive.c) ---- */

/* Who has it open. */
const struct procid *journal_self(const struct journal *j);

enum liveness { LIVE_DEAD, LIVE_ALIVE, LIVE_UNKNOWN };

/* Is the box's supervisor alive? j may be NULL (a reader): then state_dir's alive file is only looked at. */
enum liveness box_liveness(struct journal *j, const char *state_dir, const struct box *box);
/* The same; a negative errno where memory or descriptors are wanting to know it: then it must not pass for
 * unknown. */
int box_find_liveness(struct journal *j, const char *state_dir, const struct box *box, enum liveness *ret);
/* This process, as it is in the journals. 0, or BAD_REQUEST: /proc is of another pid namespace, or not
 * there. */
int journal_find_self(struct procid *ret, struct rbxj_error *e);
/* Is the pid namespace in which that process was gone, and the process with it? 1; 0: nobody knows; or a
 * negative errno where memory or descriptors are wanting to know it. */
int journal_pid_ns_is_gone(const char *state_dir, const struct procid *id);
/* Who holds the lock of that box, as a pid of this namespace, whatever namespace its supervisor's pid is of;
 * 0: nobody, or nobody who can be seen from here; or a negative errno. */
pid_t box_owner_pid(const char *state_dir, const struct box *box);
/* A pidfd of the box's supervisor, for who waits for its death; not in a process that has the journals open.
 * -ESRCH: it is dead; -EAGAIN: it is not known to be, and can't be seen from here; or another negative errno:
 * ask again. */
int box_open_supervisor(const char *state_dir, const struct box *box);

#endif
