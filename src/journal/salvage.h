/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What can still be read of a data file, however damaged: without LMDB, without changing it, from any copy of
 * it.
 *
 *   carve     every record in the file, by its magic and its checksum, on any page: live, free or orphan
 *   place     which of them the two snapshots have, as far as those are sound
 *   classify  of each key the one that counts, the older versions of it, and what was dropped since
 *
 * Nothing that a box could write looks like a record: strings hold no NUL, which a head does, and the content
 * of a lock file is stored under a mask (record.c).
 */
#ifndef RBXJ_JOURNAL_SALVAGE_H
#define RBXJ_JOURNAL_SALVAGE_H

#include "journal/journal.h"
#include "journal/pages.h"
#include "journal/whole.h"

enum carved_state {
    CARVED_INTACT, /* counts: it is what the newest readable state has of its key, as far as can be known */
    CARVED_SUPERSEDED, /* an older version of it */
    CARVED_ORPHAN,     /* whole, but dropped since, as far as can be known */
    CARVED_DAMAGED,    /* its checksum or form is wrong; the head is what it says of itself */
};

struct carved {
    struct record_head head;
    const uint8_t *bytes; /* head.length of them, unless it is damaged */
    uint64_t offset;      /* in the file */
    enum carved_state state;
    bool newest, previous; /* one of these snapshots has it */
};

struct deletions;
struct autopsy {
    char *path;
    struct whole file;
    struct autopsy_meta {
        bool sound;
        struct pages_meta meta;
        struct pages_fault fault;
    } metas[2];
    struct autopsy_snapshot { /* the newest first; which < 0: there is none */
        int which;
        bool sound;
        struct pages pages;
        struct pages_fault fault;
        uint64_t records, position; /* the last position that it knows of */
        int64_t latest_ns;          /* the youngest of its records */
    } snapshots[2];
    struct carved *records; /* in the order of their keys, the one that counts first */
    size_t records_len;
    size_t count[CARVED_DAMAGED + 1];
    struct deletions *deletions; /* what its log says, of a boot journal */
    size_t misplaced;            /* records that are whole, but are another's in the newest snapshot's tree */
    bool lacks;                  /* the newest snapshot lacks what every journal has */
};

/* Reads a data file: 0, or PERMISSION, IO, BAD_REQUEST (not a regular file). It may be of any form. */
int autopsy_read(int dirfd, const char *name, const char *shown, struct autopsy *ret, struct rbxj_error *e);
void autopsy_clear(struct autopsy *a);
/* The first of its steps: every record of a->file, in the order of their places. 0 or -ENOMEM. */
int autopsy_carve(struct autopsy *a);
/* Nothing is wrong with it at all. */
bool autopsy_is_sound(const struct autopsy *a);

/* Is it a boot journal, but not this boot's, as far as can be read? It was never flushed, and whatever it
 * says, it says of that boot alone (K20). */
bool autopsy_is_of_another_boot(const struct autopsy *a);

/* The boot journal that this disk journal follows, if it is one of the files and can be read; else NULL. */
const struct autopsy *salvage_boot_of(const struct autopsy *files, size_t n, const struct autopsy *disk);
/* Is the other one another journal, which was salvaged and took its place? False where that can't be read. */
bool salvage_is_replaced(const struct autopsy *a, const struct autopsy *other);
/* Is that an old copy of a boot journal, by one of the files, the disk journal that followed it? Then it
 * proves nothing. */
bool salvage_is_behind(const struct autopsy *files, size_t n, const struct autopsy *boot);
/* Does another of the files say that this record of files[which] was dropped? boot: its boot journal, or
 * NULL. */
bool salvage_is_dropped(const struct autopsy *files, size_t n, size_t which, const struct autopsy *boot,
                        const struct carved *c);

/* What a salvage has taken, and left out. */
struct salvaged {
    size_t boxes, records;
    size_t without_header; /* records of a box whose header is not intact */
    size_t same_name;      /* boxes of a name that a younger one has */
    size_t newer_version;  /* records that only a newer version knows: nothing is undone beside them */
};

/* Writes a new journal below dir (an empty directory, or one that is made, 0700) from what counts in the
 * files. boot_is_all: the first is the boot journal, and sound: it has everything (K20). The journal is
 * marked: what is replayed from it treats doubt as a refusal (I4), and what no sound snapshot has is listed
 * only. */
int salvage_write(const struct autopsy *files, size_t n, bool boot_is_all, const char *dir,
                  const struct journal_options *options, struct salvaged *ret, struct rbxj_error *e);

#endif
