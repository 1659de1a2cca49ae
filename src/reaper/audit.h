/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj audit: what looks like ours by the configured patterns, and is journaled nowhere. A pattern finds, and
 * does nothing else: what it finds is undone only after a person has adopted it, and then by its identity, as
 * everything else (I2, I4, K30).
 *
 * audit_find.c finds what matches, audit_use.c who uses it, audit_spaces.c who has it mounted in another
 * place, audit_unopened.c who uses it without a descriptor,
 * audit_adopt.c writes it into the journal, audit.c does one after the other and tells it.
 */
#ifndef RBXJ_REAPER_AUDIT_H
#define RBXJ_REAPER_AUDIT_H

#include "reaper/answers.h"
#include "reaper/undo.h"

struct audit_item {
    enum rbxj_kind kind;   /* lock, cgroup, mount, tmpdir */
    char *name;            /* its path; the directory part is resolved */
    const char *pattern;   /* of the configuration */
    char *fstype, *source; /* mount */
    int32_t mount_id;      /* mount */
    uint64_t mount_unique; /* mount; 0: not known, or it is covered */
    uint64_t dev, ino;     /* all but mounts */
    struct fileid
        id; /* all but cgroups, whose inode is never used again; of a mount its root; not set: not known */
    int64_t time_ns;  /* last change of its content, CLOCK_REALTIME; 0: unknown (mount) */
    pid_t pid;        /* lock: the one that its content names; 0: none */
    bool pid_is_dead; /* that one is no more, or began after the lock was written */
    bool live;        /* somebody uses it, or that can't be known */
    char user[200];   /* who */
    bool journaled;
    bool left;                  /* not to be adopted */
    struct rbxj_error refused;  /* why it was not adopted */
    char box[BOX_NAME_MAX + 1]; /* into which it was adopted, or empty */
};

struct audit {
    const struct config *config;
    struct mount_table *table; /* this namespace's mounts, read at the start */
    uint32_t unseen;           /* places that could not be looked at */
    struct answers answers;
    struct audit_item *items; /* sorted by kind, then name; mounts of one target by their ids */
    size_t len, room;
};

void audit_clear(struct audit *a);
void audit_item_clear(struct audit_item *item);

/* Fills items with all that matches. What lies on a file system that does not answer is left out (K16), and
 * counted in unseen. 0 or a negative code. */
int audit_find(struct audit *a, struct rbxj_error *e);

/* What matches and is journaled nowhere, and the boxes, to be freed. In this order: what there is, then the
 * journal, then what there is once more. What was there before and after is older than a record of it would
 * be, as that is written ahead; what a box that began meanwhile has is in the journal, what one had that has
 * ended is gone. 0 or a negative code. */
int audit_look(struct audit *a, struct rbxj_result **ret_journaled, struct rbxj_error *e);
/* What was acquired, and is no more: a process that has ended is not missing. */
struct result_entry;
bool audit_is_missing(const struct result_entry *entry);
/* What a supervisor that lives gives back while it is looked at is not missing: a second look must say so,
 * too. Else audit_is_missing() is false of it from then on. 0 or a negative code. */
int audit_confirm_missing(const struct config *config, struct rbxj_result *boxes, struct rbxj_error *e);

/* Fills live and user (and pid, pid_is_dead): a held flock or a living pid in it, a process in the cgroup, a
 * process with a working directory, a root, a program, a descriptor or a map in the directory, mount or
 * cgroup, or with the lock file open; a loop device or a bound socket in it; a mount of it in another place,
 * in this namespace (but for a mount, of which that is none) or another one. 0 or a negative code. */
int audit_use(struct audit *a, struct rbxj_error *e);
int audit_use_elsewhere(struct audit *a, struct rbxj_error *e); /* for that one */
/* And for it, too: calls back for each path that is in use though no descriptor leads to it, the file of a
 * loop device or the address of a socket. path may be changed for the time of the call. 0 or a negative
 * code. */
int audit_use_unopened(struct audit *a, void (*used)(void *data, char *path, const char *how), void *data,
                       struct rbxj_error *e);

/* Writes those of items that are neither live nor refused into the journal, with the identity that they have
 * now, and as durably as a begin: what lies in one another becomes one box, each of which is stale at once.
 * Fills box or refused of each. 0, or a negative code where the journal can't be used. */
int audit_adopt(struct audit *a, struct rbxj_error *e);
/* Is the box one that was made so? */
bool box_is_adopted(const struct box *box);

#endif
