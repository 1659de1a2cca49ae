/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Records: the whole on-disk format in one header. No I/O here.
 *
 * A record is one frame: a fixed head, then fields. It is self-describing and carvable: magic, version, type,
 * length, and a checksum (XXH3, 64 bits, libxxhash) over key and content. Integers are little-endian. A field
 * is a 16-bit tag, a 32-bit length, and that many bytes; an unknown tag is kept out of the way (additions are
 * optional fields); an unknown version is refused. Paths are bytes.
 *
 * Two types: a box (its header, seq 0) and a resource (seq 1, 2, ...: the intent with its before-image, and
 * later the evidence in the same record). The key of a record is (incarnation, seq): writing it again
 * replaces it (K32).
 *
 * A log entry (boot journal only) wraps a record in a frame of its own that is fixed for ever (K24): a leader
 * copies records byte for byte and need not understand them.
 */
#ifndef RBXJ_JOURNAL_RECORD_H
#define RBXJ_JOURNAL_RECORD_H

#include "base/fileid.h"
#include "base/procid.h"
#include "rbxj.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECORD_MAGIC 0x4a584252u /* "RBXJ" */
#define RECORD_VERSION 1
#define RECORD_MAX (256 * 1024) /* no valid record is larger */
#define RECORD_PATH_MAX 4096
#define LOCK_CONTENT_MAX 4096 /* K5 */
#define BOX_NAME_MAX 64

enum record_type { RECORD_BOX = 1, RECORD_RESOURCE = 2 };

/* The head of every record, as stored. */
struct record_head {
    uint32_t magic;
    uint16_t version;
    uint8_t type;    /* enum record_type */
    uint8_t kind;    /* enum rbxj_kind, 0 for a box */
    uint32_t length; /* of the whole record, this head included */
    uint32_t seq;
    uint64_t incarnation;
    uint64_t position; /* of the log entry that carried it, 0: it never needed one */
    int64_t time_ns;   /* when the intent was written or the box begun, CLOCK_REALTIME */
    uint64_t checksum; /* XXH3 of what follows it, seeded with the XXH3 of what precedes it */
};
static_assert(sizeof(struct record_head) == 48, "the record head is 48 bytes on disk");

/* Keys sort by incarnation, then seq, so a box is one range. */
struct record_key {
    uint8_t incarnation[8]; /* big-endian */
    uint8_t seq[4];         /* big-endian */
};
static_assert(sizeof(struct record_key) == 12, "the record key is 12 bytes on disk");

enum log_op { LOG_PUT = 1, LOG_DELETE = 2 };

/* The frame of a log entry, fixed for ever; followed by the record for LOG_PUT. Its key is the position,
 * big-endian. */
struct log_frame {
    uint32_t length; /* of the frame with its record */
    uint8_t op;
    uint8_t needs_disk;
    uint16_t reserved;
    uint64_t incarnation;
    uint64_t position;
    uint32_t seq;
    uint32_t reserved2;
    uint64_t checksum; /* XXH3 of the record, seeded with the XXH3 of the frame with this field zero */
    char box[BOX_NAME_MAX + 8];
};
static_assert(sizeof(struct log_frame) == 112, "the log frame is 112 bytes on disk");

/* ---- decoded ---- */

enum box_flags {
    BOX_OWNER_LOCK = 1, /* its supervisor holds the record lock at its slot of STATE/alive (K9) */
    BOX_ON_DISK = 2,    /* its records go to the disk journal too (K23) */
};

struct box {
    char name[BOX_NAME_MAX + 1];
    uint64_t incarnation;
    struct procid supervisor;
    uint64_t parent; /* incarnation of the box in which this one lives, 0: none */
    int64_t begun_ns;
    uint32_t flags;
    uint32_t planned;
    uint32_t next_seq; /* the next number to give out */
    uint32_t failures; /* replays of it that failed, in a row */
    /* since when, and first in which boot, it is left only for what is not mounted yet (K14); 0: it is not */
    int64_t waiting_since_ns; /* CLOCK_REALTIME */
    uint8_t waiting_boot[16];
};

enum record_flags {
    REC_BEFORE_PRESENT = 1, /* before-image: something was there (K5) */
    REC_EVIDENCE = 2,       /* the identity of what was acquired is known */
    REC_RMDIR_ONLY = 4,     /* K18 */
    REC_DETACHED = 8,       /* a mount that was detached lazily (K15), or was to be when its reaper died */
    REC_OURS_TO_MAKE =
        16, /* rbxj itself makes it: a mount's source is rbxj:incarnation:seq where it is free text */
    REC_STAMPED = 32,  /* the stamp was set in the resource itself (K1) */
    REC_NO_STAMP = 64, /* it can't bear a stamp: its evidence must be on disk */
    REC_UNPROVEN =
        128, /* salvaged, and in no snapshot that is sound: never undone, whatever its evidence (I4) */
    REC_AHEAD = 256,     /* its evidence was written before it was made: it may not have been made (K1) */
    REC_TRIED = 512,     /* rbxj_acquire() failed after it may have made it */
    REC_ANOTHERS = 1024, /* rbxj_acquire() found something there and made nothing: see record_is_anothers() */
    REC_DROPPED = 1 << 29, /* never stored: dropped from the journal since it was read */
    REC_PENDING = 1 << 30, /* never stored: nobody was told yet to acquire it (K22) */
};

/* What a mount is. unique is 0 where the kernel has no unique ids (before 6.8). */
struct mountid {
    uint64_t unique;
    uint64_t ns; /* inode of the mount namespace */
    uint64_t dev;
    int32_t id;
    int32_t parent;
};

/* A directory on the way to a path, and what is named in it. */
struct record_step {
    uint64_t dev, ino, base_hash; /* base_hash: XXH3 of the name */
    uint64_t handle_hash;         /* fileid_handle_hash_of_fd() */
};

/* A resource's record. Owns its strings; record_clear() frees them. */
struct record {
    uint64_t incarnation;
    uint32_t seq;
    enum rbxj_kind kind;
    uint32_t flags;
    uint32_t below; /* seq of the earlier item below whose path this one lies, 0: none (K13) */
    uint32_t failures;
    uint32_t owner; /* uid expected */
    int64_t time_ns;
    uint64_t position;

    char *path;         /* resolved; mount: the target; process: NULL */
    char *fstype;       /* mount */
    char *source;       /* mount, as the caller will name it */
    char *root;         /* mount evidence: the root within its file system */
    char *found_source; /* mount evidence: the source as mountinfo shows it */

    /* before-image */
    struct fileid parent;  /* the directory in which it is; not set when below is */
    struct fileid before;  /* what was there (lock, mount target), when REC_BEFORE_PRESENT */
    uint64_t mount_ns;     /* inode of the mount namespace in which path is meant (K10) */
    uint64_t newest_mount; /* highest unique mount id when the intent was written (K1); 0: unknown */
    uint8_t *content;      /* lock: what the file held */
    size_t content_len;

    uint8_t nonce[16]; /* random: names aside (K17); in a lock file */

    /* evidence, when REC_EVIDENCE */
    struct fileid id; /* lock, tmpdir, cgroup (its inode is the cgroup id), a mount's root */
    struct mountid mount;
    struct procid process;     /* set with the intent: a process is its own evidence (K6) */
    uint8_t evidence_boot[16]; /* the boot in which it was read */
    /* never stored: the way to path, for the overlap check of a new intent (K4); NULL in a record that was
     * read */
    struct record_step *chain;
    size_t chain_len;

    uint64_t devices_held; /* REC_DETACHED: the device that must vanish; 0: not to be waited for (K15) */
};

/* Its acquisition found something there, and nothing of ours was ever made (K1). */
bool record_is_anothers(const struct record *r);

void record_clear(struct record *r);

struct record_key record_key(uint64_t incarnation, uint32_t seq);
void record_key_parse(const struct record_key *key, uint64_t *incarnation, uint32_t *seq);
/* In the order of their keys, as qsort(3) asks for it. */
int record_compare(const struct record_head *a, const struct record_head *b);

/* Encode into fresh memory; 0 or -ENOMEM, -E2BIG. position and time are stamped into the head. */
int record_encode_box(const struct box *box, uint64_t position, uint8_t **ret, size_t *ret_len);
int record_encode(const struct record *r, uint64_t position, uint8_t **ret, size_t *ret_len);

/* The checksum of an encoded record of at least a head's length; its checksum field is left out. */
uint64_t record_checksum(const void *data, size_t len);

/* Checks magic, version, length, checksum and key (key NULL: a carver, which has none).
 * 0, -EBADMSG (damaged), -EPROTONOSUPPORT (a newer version). Never reads past len. */
int record_check(const void *data, size_t len, const struct record_key *key, struct record_head *ret);

/* Decode what record_check() accepted; they call it. Outputs are untouched on failure. */
int record_decode_box(const void *data, size_t len, const struct record_key *key, struct box *ret);
int record_decode(const void *data, size_t len, const struct record_key *key, struct record *ret);

/* Fills a frame for the record (NULL for a delete); log_check() verifies it. */
void log_frame_fill(struct log_frame *frame, const char *box, uint64_t incarnation, uint32_t seq,
                    uint64_t position, bool needs_disk, const void *record, size_t len);
int log_check(const void *data, size_t len, uint64_t position, struct log_frame *ret);

/* The stamp of a resource, "incarnation:seq" in decimal (K1). */
#define STAMP_MAX 40
void stamp_format(char buf[STAMP_MAX], uint64_t incarnation, uint32_t seq);
bool stamp_parse(const char *text, uint64_t *incarnation, uint32_t *seq);

/* 1 to 64 of A-Z a-z 0-9 . _ -, not starting with . or - */
bool box_name_is_valid(const char *name);

#endif
