/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The contract of a kind of resource, and the one table of them. A kind lives in one file, undo_<kind>.c, and
 * answers the same questions; nothing else in the program knows a kind's details.
 *
 *   prepare   before the intent: is the target allowed and sound, what is there now (the before-image)
 *   confirm   when the intent is written: is the before-image still true (optional)
 *   acquire   takes it (optional: a process is the caller's). Where it fails u->made says whether there is
 *             anything to be taken back
 *   prove     after the acquisition: is it new, empty and the expected owner's; stamp it; record its identity
 *             (evidence)
 *   adopt     instead of all these, for what is there and was never journaled: is it allowed and sound; its
 *             identity as evidence, as if nothing had been there before (K30; not for a process)
 *   look      changes nothing: present, gone, foreign or busy, judged by before-image, evidence and stamp
 *             (K1, K2)
 *   quiesce   kills what lives in it, when it is proven ours (cgroup, process); returns without waiting
 *   quiesced  waits until that is gone
 *   undo      takes it back. Checks identity immediately before the act, through descriptors. 1 undone,
 *             0 there was nothing to undo, <0 not undone (u->finding says why)
 *   verify    the postcondition, on the live system (I6): 0, or <0 with the reason
 *
 * All of them are safe to call again after having been killed anywhere (I5). None of them follows a symlink,
 * and none touches what look() would not call present.
 */
#ifndef RBXJ_REAPER_UNDO_H
#define RBXJ_REAPER_UNDO_H

#include "base/config.h"
#include "base/error.h"
#include "journal/record.h"
#include "reaper/keepers.h"

#include <limits.h>

struct mounts;   /* reaper/mountinfo.h: one reading of this namespace's mountinfo */
struct snapshot; /* journal/journal.h: all boxes and records, read at one moment */
struct undo;

/* What is at a lock's place, whoever put it there (lock_content.c). */
enum lock_content {
    LOCK_UNSEEN, /* nothing is there, it was not looked at, or it is no lock */
    LOCK_VALID,
    LOCK_OTHER_BOX,   /* valid, and says that it is another box's */
    LOCK_NOT_JSON,    /* text */
    LOCK_TRUNCATED,   /* text that begins as JSON and ends too early */
    LOCK_BINARY,      /* no text */
    LOCK_EMPTY,       /* no byte */
    LOCK_NOT_REGULAR, /* a directory, FIFO, device, socket or symlink: not opened */
};

enum found { FOUND_PRESENT, FOUND_GONE, FOUND_FOREIGN, FOUND_BUSY };

/* What look() or undo() saw. */
struct finding {
    enum found found;
    bool refused;     /* not ours or not allowed: left alone; stops no older entry (K2) */
    bool not_mounted; /* refused only because a file system is not there yet (K14): no failed replay */
    bool partial;     /* done in part, the record stays (detached, K15; only-rmdir left, K18) */
    bool waits;       /* not undone, as an older one of this box was moved into it: that one goes first */
    bool corrupt;     /* a lock whose content is neither ours nor JSON: lock corruption */
    enum lock_content content;
    uint64_t oom_kills; /* of a cgroup that is there and ours: how often the kernel killed in it for memory */
    uint64_t identity;  /* a number for what was seen, for the plan id; 0: nothing there */
    struct keepers keepers;  /* who keeps it busy, as far as was seen */
    struct rbxj_error error; /* why, when it is foreign, busy, refused or failed */
};

struct kind {
    const char *name;   /* as in JSON */
    const char *action; /* what undo is called in reports: "unlink", "rmdir", "unmount", "remove", "kill" */
    int (*prepare)(struct undo *u, struct record *r, struct rbxj_error *e);
    int (*confirm)(const struct record *r, struct rbxj_error *e);
    int (*acquire)(struct undo *u, struct record *r, const char *options, int *ret_fd, struct rbxj_error *e);
    int (*prove)(struct undo *u, struct record *r, struct rbxj_error *e);
    int (*adopt)(struct undo *u, struct record *r, struct rbxj_error *e);
    int (*look)(struct undo *u, const struct record *r, struct finding *f);
    int (*quiesce)(struct undo *u, const struct record *r, struct finding *f);
    int (*quiesced)(struct undo *u, const struct record *r,
                    struct finding *f); /* waits, until u->deadline_ns */
    int (*undo)(struct undo *u, struct record *r, struct finding *f);
    int (*verify)(struct undo *u, const struct record *r, struct finding *f);
};

/* The table: NULL for a kind that this version does not know. */
const struct kind *kind_of(enum rbxj_kind kind);
extern const struct kind kind_lock, kind_cgroup, kind_mount, kind_tmpdir, kind_process; /* undo_<kind>.c */

/* What the kinds need to know; one per box that is worked on, never shared between threads. */
struct undo {
    const struct config *config;
    const struct snapshot *snapshot; /* all other boxes' records (K4); NULL in prepare, acquire and prove */
    const struct box *box;           /* the box at hand */
    struct record *records; /* all of its records, oldest first: for K13's below and K12's submounts */
    size_t records_len;
    struct mounts *mounts; /* of this pass, read after the quiesce; NULL: read when first needed */
    int64_t deadline_ns;   /* CLOCK_MONOTONIC: give up on waiting */
    bool dry_run;          /* look only */
    bool foretells;        /* a look says of what is there, too, what is known to keep it from being undone */
    bool given_back; /* its live supervisor says that it is, and left the stamp of a lock's inode to nobody */
    bool lazy_umount; /* the policy allows a lazy detach as the last resort (K15) */
    bool same_boot;   /* the box began in this boot */
    int busy_retries;
    uint64_t mount_ns;   /* ours; 0: not asked (K10) */
    pid_t ancestors[64]; /* this process and those above it, which guard_kill() spares; filled by it */
    size_t ancestors_len;
    struct procid self; /* filled by guard_kill(), too; pid 0: not yet */
    /* by acquire: something was made or changed, or may have been. Else what is there is another's */
    bool made;
    const char *incident; /* id of the incident that takes the evidence */
    struct {
        uint32_t seq;
        int errnum; /* 0: all was kept */
    } not_kept; /* the first evidence that could not be; told by aftermath_end(), in the caller's thread */
    /* NULL: none: journals what is known before the thing is there (acquire: evidence, REC_AHEAD) or out of
     * sight (undo: REC_DETACHED). 0, or a negative code: then it is not made, nor detached */
    int (*write_ahead)(struct undo *u, const struct record *r, struct rbxj_error *e);
    void *data; /* the caller's */
};

/* ---- guards.c, guards_moved.c, guards_kill.c: the checks that all kinds share ---- */

/* Is it a path that rbxj never undoes? 0, or -RBXJ_E_PROTECTED_PATH. (DESIGN "Protected paths", K35) */
int guard_protected(const struct config *config, enum rbxj_kind kind, const char *path, struct rbxj_error *e);
/* The part of it that the name alone decides, for a path that may be covered by a mount of its own box. */
int guard_protected_name(const struct config *config, enum rbxj_kind kind, const char *path,
                         struct rbxj_error *e);

/* A path is gone only if its nearest existing ancestor is on the file system that the intent recorded for its
 * parent (K14). Opens the parent of r->path without following symlinks: a descriptor (then *ret_base is the
 * last component and the parent proved to be the recorded one or at least on the recorded file system), or
 *   -ENOENT with f->found GONE: the path is gone, for sure;
 *   another negative code with f->refused set: not mounted, a symlink on the way, another namespace. */
int guard_open_parent(struct undo *u, const struct record *r, const char **ret_base, struct finding *f);

/* Is the directory, which guard_open_parent() has opened, another one than the one of the intent? Then what
 * is in it was not made for that. 1, 0 (it is the one, or nobody can tell), or -errno. */
int guard_parent_replaced(const struct undo *u, const struct record *r, int parent);

/* Was it acquired in this boot? In doubt it was. */
bool guard_of_this_boot(const struct undo *u, const struct record *r);

/* The directory that r names is not at its path, and dirfd is one on its file system: the one in which it
 * should be, or an ancestor. 0: it is gone for sure. 1: it is in dirfd, under *name. Or a negative code: it
 * has been moved to where nothing of ours is (f refused), or that can't be known now (f busy). */
int guard_moved(struct undo *u, const struct record *r, int dirfd, char name[NAME_MAX + 1],
                struct finding *f);

/* For u->made: has a call that makes a thing, and ended so (0 or a positive errno), made it, for all that is
 * known? Not where somebody was faster; an error of the device or of a server leaves it open. */
bool guard_may_have_made(int errnum);
/* Makes a directory of r, with u->made; a negative code. */
int guard_mkdir(struct undo *u, const struct record *r, int parent, const char *base, mode_t mode,
                struct rbxj_error *e);

/* Before every kill, rename, unmount and delete (K4): is a recorded resource of another box at or below path
 * (or, for what is renamed or deleted, is path where another's lies)? 0, or -EBUSY with f->error naming the
 * box. */
int guard_overlap(struct undo *u, const struct record *r, const char *path, struct finding *f);

/* May this process be killed (K4)? Not ourselves, not an ancestor of ours, not the supervisor of a live box,
 * nor what another box has recorded. */
int guard_kill(struct undo *u, pid_t pid, struct finding *f);

/* Records the mount namespace of an intent, and refuses one whose parent directory is another one for pid 1:
 * with a private /tmp no reaper would find what was made there (K10). 0, or -RBXJ_E_BAD_REQUEST. */
int guard_namespace(struct record *r, const struct fileid *parent, struct rbxj_error *e);

/* Fills r->chain, the way to r->path, for the overlap check of a new intent (K4). 0 or -errno. */
int guard_chain(struct record *r);

/* ---- stamp.c: the stamp of what is open: trusted.rbxj, or user.rbxj without the privilege ---- */

int stamp_set(int fd, const struct record *r); /* 0, -EOPNOTSUPP: it can't bear one, or -errno */
int stamp_get(int fd, uint64_t *incarnation, uint32_t *seq); /* 1 there is one, 0 none, or -errno */
void stamp_remove(int fd);
/* Does a file that has the identity of r's evidence lack the stamp that ours has, where that identity is
 * weak? Then it may be another one that got its number: 1, 0, or -errno. Whose it is matters not: it is no
 * proof by itself. */
int stamp_is_missing(int fd, const struct record *r);
/* Is a file that has not the identity of r's evidence ours all the same, as only its number may have changed,
 * and it bears our stamp? 1, 0, or -errno. */
int stamp_tells(int fd, const struct record *r, const struct fileid *found, bool same_boot);
/* Does the stamp speak for r? Only for a birth time before the end of the record's boot (K1); *ret_why, which
 * may be NULL, is set where that alone is against it. 1, 0 or -errno. */
int stamp_is_ours(int fd, const struct record *r, const struct fileid *id, bool same_boot,
                  const char **ret_why);

#endif
