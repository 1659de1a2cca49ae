/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of the journal share with each other, and with nobody else.
 */
#ifndef RBXJ_JOURNAL_INTERNAL_H
#define RBXJ_JOURNAL_INTERNAL_H

#include "base/forked.h"
#include "journal/gate.h"
#include "journal/journal.h"

#include <lmdb.h>
#include <pthread.h>
#include <sys/stat.h>

#define JOURNAL_FORMAT 1
#define JOURNAL_MAX_DBS 8
#define JOURNAL_MAX_READERS 1024
#define JOURNAL_LOCK_BYTES (JOURNAL_MAX_READERS * 64ull + 4096) /* of cache lines, and a head */

/* One LMDB environment and its named databases. The disk journal has only meta and records. */
struct store {
    MDB_env *env;
    int fd;                       /* LMDB's own, made close-on-exec; for fstat and fallocate */
    struct stat data_st, lock_st; /* what was opened, for the look before each intent (K21) */
    char *path;
    struct sound *sound; /* its stamp, which an error takes away (K27); NULL: none yet */
    MDB_dbi meta;        /* name -> value, see META_* */
    MDB_dbi records;     /* record_key -> record */
    MDB_dbi log;         /* position, big-endian -> log_frame [record] */
    MDB_dbi marks;       /* mark_key -> see enum mark: what dies with the boot */
    MDB_dbi names;       /* see names.c: paths, for the overlap check (K4) */
    MDB_dbi boxes;       /* box name -> incarnation */
};

/* Their names. */
#define DB_META "meta"
#define DB_RECORDS "records"
#define DB_LOG "log"
#define DB_MARKS "marks"
#define DB_NAMES "names"
#define DB_BOXES "boxes"

/* Keys of meta. */
#define META_FORMAT "format"           /* uint32_t */
#define META_INSTANCE "instance"       /* 16 bytes: binds the two journals */
#define META_BOOT "boot"               /* 16 bytes: boot id; on disk: of the last commit */
#define META_GENERATION "generation"   /* 16 bytes: of the boot journal; on disk: of the last commit */
#define META_POSITION "position"       /* boot: the last position given out */
#define META_COVERED "covered"         /* disk: complete up to this position of that generation */
#define META_STATE_DIR "state"         /* boot: device and inode of the state directory (K33) */
#define META_ALWAYS "always"           /* disk: uint32_t, has everything of this generation gone to disk? */
#define META_GENERATIONS "generations" /* disk: boot journals lost within a boot, not yet audited (K21) */
#define META_SALVAGED                                                                                        \
    "salvaged" /* both: int64_t: when it was made from what was left of a damaged one; 0: never */
#define META_COUNTERS "counters" /* both: see counters.h; the boot's is ahead */

enum mark {
    MARK_PENDING = 'p',  /* (incarnation, seq): not granted yet (K22); no value */
    MARK_CLAIM = 'c',    /* (incarnation, 0): struct procid of the claimer (K11) */
    MARK_ATTEMPTS = 'a', /* (incarnation, 0): uint32_t, attempts that did not end (K34) */
};

struct mark_key {
    uint8_t mark;
    struct record_key key;
};
static_assert(sizeof(struct mark_key) == 13, "no padding in the mark key");

struct journal {
    struct journal_options options;
    char *state_dir, *runtime_dir, *folder; /* folder: RUNTIME/journal-<boot id> */
    int state_fd, runtime_fd, alive_fd;     /* O_PATH, O_PATH, rw */
    struct stat alive_st;
    struct store boot, disk;
    struct gate_page *gates;
    struct journal *next_lost;
    uint8_t boot_id[16], instance[16], generation[16];
    struct forked opener; /* set first: tells a child of fork() */
    struct procid self;
    bool alone; /* nobody else had the journals open when this process entered */
};

/* ---- paths and files (files.c) ---- */

/* Opens a directory of the journal: no symlink on the way, ours, not writable by others, local. O_PATH-less
 * descriptor, or a negative code; -ENOENT without an error set when it does not exist. */
int files_open_dir(const char *path, const char *what, struct rbxj_error *e);

/* Looks at a data file before LMDB does: a regular file, whole as its metas say; ours: owner and mode count
 * too. 0, -ENOENT (no error set), or JOURNAL_DAMAGED, PERMISSION. */
int files_check_data(int dirfd, const char *name, const char *shown, bool ours, struct rbxj_error *e);

/* Removes a folder of the runtime directory with the files that a boot journal consists of. */
int files_remove_folder(int dirfd, const char *name);

/* The one journal of this process, whatever it is of; false: there is one. */
bool journal_become_the_one(struct journal *j);
void journal_step_down(struct journal *j);
/* Has a damaged journal been moved aside there? Then the directory was used. 1, 0, or -errno. */
int files_have_aside(int dirfd);

/* ---- sound, or aside (sound.c) ---- */

/* Before LMDB sees a data file: unless it is the one of the stamp, it is walked as a whole, with the gate's
 * writers kept out, and stamped. stamp and gate NULL: there are none yet. 0 or JOURNAL_DAMAGED, with page and
 * reason. */
int sound_check(int dirfd, const char *name, const char *shown, struct sound *stamp, struct gate *gate,
                int64_t timeout_ns, struct rbxj_error *e);
void sound_stamp(struct sound *stamp, int dirfd, const char *name);

/* ---- environments (store.c) ---- */

#define STORE_CREATE                                                                                         \
    0x80000000u /* to store_open(): none of LMDB's flags, whose MDB_CREATE is also MDB_NOMETASYNC */
#define STORE_SLOTS                                                                                          \
    0x40000000u /* the same: for its reader slots alone. LMDB looks at nothing of the file but its metas */

int store_open(struct store *s, const char *path, unsigned flags, bool all,
               const struct journal_options *options, struct rbxj_error *e);
void store_close(struct store *s);
/* Makes the map larger and stores its size. Only while nobody else has the journals open: in another process
 * it would fail every transaction from then on (MDB_MAP_RESIZED). */
int store_raise_map(struct store *s, uint64_t size, struct rbxj_error *e);
/* Are data.mdb and lock.mdb still the files that were opened? 0 or JOURNAL_DAMAGED. */
int store_is_in_place(const struct store *s, struct rbxj_error *e);
/* Grows the file ahead of its use and refuses intents beyond the reserve (K26). Outside of a transaction. */
int store_make_room(struct store *s, const char *what, const struct journal_options *options,
                    struct rbxj_error *e);
/* An LMDB error as ours. */
int store_error(struct rbxj_error *e, int rc, const struct store *s, const char *what);

int meta_get(MDB_txn *txn, MDB_dbi meta, const char *name, void *value, size_t len); /* MDB_* */
int meta_put(MDB_txn *txn, MDB_dbi meta, const char *name, const void *value, size_t len);
/* One value, in a transaction of its own; MDB_*. */
int store_read_meta(struct store *s, const char *name, void *value, size_t len);

/* ---- counters (counters.c), in one meta database or from one to another ---- */

/* Of a value as it is stored; zeros where it is not sound. */
void counters_parse(const void *stored, size_t len, struct counters *ret);
/* Adds to what is stored; keeps what a newer version counts (K24). MDB_* */
int counters_write(MDB_txn *txn, MDB_dbi meta, const struct counters *more);
/* What from has that to has not: nothing, only the time of a later replay, or more. */
enum counters_news { COUNTERS_SAME, COUNTERS_TIME, COUNTERS_MORE };
enum counters_news counters_compare(MDB_txn *from, MDB_dbi from_meta, MDB_txn *to, MDB_dbi to_meta);
/* As they are, whatever version counted them. MDB_* */
int counters_copy(MDB_txn *from, MDB_dbi from_meta, MDB_txn *to, MDB_dbi to_meta);

/* ---- what belongs together (belongs.c) ---- */

/* Of a boot journal, and what it must be. */
struct belongs {
    uint8_t instance[16], boot[16];
    uint8_t generation[16]; /* zero: no boot has used that disk journal */
    /* the last that it has given out; of the disk's, which is read first: that it has covered */
    uint64_t position;
};
/* Each 0, or a negative code: JOURNAL_DAMAGED with ESTALE or EPROTONOSUPPORT, nothing of it is wrong in
 * itself. */
int belongs_check(const struct belongs *boot, const struct belongs *disk, const char *folder,
                  const char *state_dir, struct rbxj_error *e);
/* Does the disk follow that boot journal, or one that was made since (K21)? Zeros: not known, then it counts
 * as following. */
int belongs_check_generation(const uint8_t boot[16], const uint8_t disk[16], const char *folder,
                             struct rbxj_error *e);
int belongs_check_state(uint64_t ino, int state_fd, const char *state_dir, struct rbxj_error *e); /* K33 */
int belongs_check_gate(int gate_fd, const char *path, struct rbxj_error *e);
/* The error of a state directory that is not there: it may be on a disk that isn't mounted yet (K33). */
int belongs_missing(const char *state_dir, struct rbxj_error *e);

/* ---- what a begin takes of the file systems (demand.c) ---- */

struct demands {
    const char *state_dir, *runtime_dir;
    int state_fd, runtime_fd; /* -1: it is not there yet, and is made */
    bool has_disk, has_boot;
    const char *boot_folder;                /* its name in the runtime directory */
    const struct journal_size *boot, *disk; /* of those that are there */
    uint64_t preallocate;
};
/* Have they that, and may it be written there? 0, DISK_FULL, PERMISSION (EROFS, EPERM: to nobody), IO
 * (nothing can be made there, or it can't be seen). */
int demand_check(const struct demands *what, struct rbxj_error *e);
/* May a state directory that is not there be made by who asks? 0, or PERMISSION, IO. */
int demand_check_dir(const char *dir, struct rbxj_error *e);

/* ---- reading (scan.c, copy.c) ---- */

/* Was the boot journal made for another state directory, as one that lies below a mount point whose disk is
 * missing (K33)? 0: it was not, or is damaged itself. Else a negative code: JOURNAL_DAMAGED, it was; or it
 * could not be read now, and what it was made for is not known. */
int copy_check_state(int runtime_fd, const char *data, const char *folder, int state_fd,
                     const char *state_dir, struct rbxj_error *e);

struct image;
struct pages;
/* What is read of a snapshot: 0, -ENOMEM, or -EBADMSG: it lacks what every journal has. */
typedef int scan_function(const struct pages *p, bool boot, void *ret);
int scan_snapshot(const struct pages *p, bool boot, void *ret_snapshot); /* everything; a struct snapshot */
int scan_headers(const struct pages *p, bool boot,
                 void *ret_snapshot); /* boxes without records, in no order */
/* One value of its meta database (scan_meta.c). */
int scan_meta(const struct pages *p, const char *name, void *value, size_t len);
/* Has it what every opener needs, of a boot journal or of the disk's? 0 or -EBADMSG. */
int scan_lacks(const struct pages *p);
/* Reads an image, or an open environment through one. */
int scan_image(const struct image *image, bool boot, const char *shown, scan_function *scan, void *ret,
               struct rbxj_error *e);
int scan_store(struct store *store, bool boot, const char *shown, scan_function *scan, void *ret,
               struct rbxj_error *e);
int snapshot_index(struct snapshot *s, struct rbxj_error *e); /* clears it on failure */
int snapshot_index_numbers(struct snapshot *s);               /* 0 or -ENOMEM (numbered.c) */

/* ---- a damaged log (resync.c) ---- */

/* Makes the disk the state of the boot journal's boxes, by their records instead of the log (K24). MDB_*. */
int resync(struct journal *j, MDB_txn *from, MDB_txn *to);
/* Keeps a copy of the boot journal for whoever wants to know what happened: STATE/damaged-<time>.mdb. Best
 * effort (K19). */
void resync_keep_aside(struct journal *j);

/* ---- creation (create.c) ---- */

/* Makes the boot's folder, filled from the disk journal, and removes those of other boots. The caller holds
 * the creation lock. */
int create_boot_journal(struct journal *j, struct rbxj_error *e);
/* Makes STATE/journal, empty but for what fill() puts into it (MDB_*; NULL: nothing). */
typedef int create_fill(MDB_txn *txn, struct store *s, void *data);
int create_disk_journal(int state_fd, const char *state_dir, const struct journal_options *options,
                        const uint8_t instance[16], create_fill *fill, void *data, struct rbxj_error *e);
/* Its name is on disk after this; 0 or -errno. */
int create_sync_dir(int dirfd);
/* How much the unfinished journals in that directory, and those of other boots, have allocated, which go
 * before one is made. 0 or -errno. */
int create_leftovers(int dirfd, uint64_t *ret);

/* ---- liveness (alive.c) ---- */

#define ALIVE_OPEN_BYTE 0 /* shared: has the journals open */
#define ALIVE_CREATE_BYTE                                                                                    \
    ((1ull << 62) + 16) /* exclusive: creates a journal, or is alone; shared: opens one */
#define ALIVE_DISK_BYTE                                                                                      \
    ((1ull << 62) + 17) /* exclusive: has, or waits for, LMDB's lock of the disk journal */
/* Byte of an incarnation: never reused (K9). */
uint64_t alive_slot(uint64_t incarnation);
/* Opens STATE/alive: a descriptor or -errno. alive_close() keeps it while a box of this process goes on. */
int alive_open(int state_fd);
void alive_close(int fd);
/* Takes and gives back the lock of a box of this process. */
int alive_own(struct journal *j, uint64_t incarnation);
void alive_disown(struct journal *j, uint64_t incarnation);
/* Settles who may use which runtime directory (K21), and takes the shared lock. The caller holds the creation
 * lock; who has it only shared, and finds nobody in, must come again with it alone: -EAGAIN, without an error
 * set. */
int alive_enter(struct journal *j, bool exclusive, struct rbxj_error *e);

/* Before a write transaction of the disk journal, and after it. Its gate went with a lost runtime directory,
 * but not those who were inside: stopped there, one of them would have LMDB make everybody wait without a
 * bound (K21, K25). 0, or JOURNAL_BUSY, which names him. */
int alive_lock_disk(const struct journal *j, struct rbxj_error *e);
void alive_unlock_disk(const struct journal *j);

/* The open journal of this process whose STATE/alive that is, or NULL. */
const struct journal *journal_with_alive(const struct stat *alive);

/* ---- write transactions (write.c): every writer of the boot journal goes through these. LMDB's codes,
 * unless there is an error argument ---- */

struct write {
    struct journal *j;
    MDB_txn *txn;
    uint64_t position; /* the last one given out */
    uint64_t first;    /* META_POSITION at begin */
};

/* Is it still this process' handle, with its locks? 0, FORKED or BAD_REQUEST. */
int journal_check_handle(const struct journal *j, struct rbxj_error *e);

int write_begin(struct journal *j, struct write *w, struct rbxj_error *e);
void write_abort(struct write *w);
/* Commits when nothing went wrong, else aborts and says what. r: our code, rc: LMDB's. */
int write_end(struct write *w, int r, int rc, struct rbxj_error *e);

/* Header and record of a box: 0, NO_SUCH_BOX, JOURNAL_DAMAGED. */
int write_get_box(struct write *w, uint64_t incarnation, struct box *ret, struct rbxj_error *e);
int write_get_record(struct write *w, uint64_t incarnation, uint32_t seq, struct record *ret,
                     struct rbxj_error *e);
/* The first record of a box from seq on, the header being seq 0. MDB_NOTFOUND at the end. */
int write_next(struct write *w, uint64_t incarnation, uint32_t seq, uint32_t *ret_seq, MDB_val *ret_data);

/* Stores a record, record NULL: the header; and logs it when the box is on disk (J2). */
int write_put(struct write *w, const struct box *box, const struct record *record, bool needs_disk);
/* Takes one record away with its index entries and marks, and from the disk in log order. r NULL: the
 * header. */
int write_remove(struct write *w, const struct box *box, uint32_t seq, const struct record *r);
/* The header, the name if it is this incarnation's, and the box's own marks. */
int write_remove_box(struct write *w, const struct box *box);
/* The first entry of a box that goes to disk takes its header and all its earlier records along (K23). */
int write_move_to_disk(struct write *w, struct box *box);

int write_mark(struct write *w, enum mark mark, uint64_t incarnation, uint32_t seq, const void *value,
               size_t len);
int write_mark_get(struct write *w, enum mark mark, uint64_t incarnation, uint32_t seq, void *value,
                   size_t len);
int write_unmark(struct write *w, enum mark mark, uint64_t incarnation, uint32_t seq);

/* ---- claims (claim.c) ---- */

/* write_begin(), and reads the header of a box that no other living process has claimed. code: the error if
 * one has. */
int write_begin_unclaimed(struct journal *j, struct write *w, uint64_t incarnation, struct box *ret, int code,
                          struct rbxj_error *e);
/* The same, or BOX_STALE; nor has another thread of this process claimed it: own, the error if one has. */
int write_begin_free(struct journal *j, struct write *w, uint64_t incarnation, struct box *ret, int own,
                     struct rbxj_error *e);

/* ---- what could not be taken back (leftover.c) ---- */

struct withdrawal {
    uint32_t first_seq, last_seq; /* records; none: last_seq < first_seq */
    bool whole;                   /* and the box, if nobody has gone on with it */
    bool claim;                   /* not records: the claim on the box */
    uint32_t mark;                /* the records stay, with these flags */
};
/* Takes it back now, or remembers it. */
void leftover_withdraw(struct journal *j, uint64_t incarnation, const struct withdrawal *what);
void leftover_remember(struct journal *j, uint64_t incarnation, const struct withdrawal *what);
/* Does what was remembered, as far as can be. JOURNAL_BUSY: no more could be remembered, so nothing is
 * begun. */
int leftover_retry(struct journal *j, struct rbxj_error *e);
/* The same; is no record of that box remembered any more? */
bool leftover_done(struct journal *j, uint64_t incarnation);
/* The box is claimed again, or was given back: what was remembered of an earlier claim counts no more. */
void leftover_reclaim(struct journal *j, uint64_t incarnation);

/* ---- the names index (names.c) ---- */

int names_add(MDB_txn *txn, MDB_dbi names, const struct record *r, const uint8_t boot_id[16]);
int names_remove(MDB_txn *txn, MDB_dbi names, const struct record *r);
/* Does a recorded path of another box equal r's path, contain it or lie inside it? 0, MDB_KEYEXIST with the
 * other's incarnation, or an MDB_* error. related: incarnations of the box itself and of those in which it
 * lives. */
int names_overlap(MDB_txn *txn, MDB_dbi names, const struct record *r, const uint64_t *related, size_t n,
                  uint64_t *ret_other);

#endif
