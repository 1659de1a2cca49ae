/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of the mount kind share: undo_mount.c (look, undo, verify), mount_make.c (prepare, acquire,
 * prove), mount_bind.c (a bind mount), mount_find.c (which is ours), mount_take.c (unmounting a tree),
 * mount_strangers.c (what would go with it), mount_holders.c (who keeps it busy).
 */
#ifndef RBXJ_REAPER_MOUNT_H
#define RBXJ_REAPER_MOUNT_H

#include "reaper/mountinfo.h"
#include "reaper/undo.h"

/* ---- mount_make.c ---- */

int mount_prepare(struct undo *u, struct record *r, struct rbxj_error *e);
int mount_acquire(struct undo *u, struct record *r, const char *options, int *ret_fd, struct rbxj_error *e);
int mount_prove(struct undo *u, struct record *r, struct rbxj_error *e);
int mount_adopt(struct undo *u, struct record *r, struct rbxj_error *e);

/* The source that rbxj gives to its own mounts, "rbxj:incarnation:seq". */
#define MOUNT_SOURCE_MAX (STAMP_MAX + 8)
void mount_source_format(char buf[MOUNT_SOURCE_MAX], const struct record *r);
/* Is the source of this type free text, so that it can bear that? */
bool mount_source_is_free(const char *fstype);
/* The source that marks a mount of that type as that record's (K1); false: the type needs its own. */
bool mount_source(char buf[MOUNT_SOURCE_MAX], const char *fstype, uint64_t incarnation, uint32_t seq);
/* Does the intent ask for a bind mount? */
bool mount_is_bind(const struct record *r);
/* Is m of the type that the intent asks for? A bind mount has any. */
bool mount_has_fstype(const struct record *r, const struct mount *m);
/* Is m the root of the block device that the intent names? */
bool mount_is_device(const struct record *r, const struct mount *m);

/* What the options of an acquisition ask for. */
struct mount_how {
    unsigned long flags;       /* MS_*, without propagation */
    unsigned long propagation; /* 0: none asked for */
    char *data;                /* what the file system itself is to parse */
};
/* What the kernel has against it: wrong options or no such type, or its own trouble. A negative code. */
int mount_refused(const struct record *r, int errnum, const char *source, struct rbxj_error *e);

/* ---- mount_bind.c ---- */

/* Attaches what r->source is to target. u->write_ahead is called with the evidence (REC_AHEAD) before, where
 * the kernel has unique ids; after success that flag is set if the evidence is all that prove() would
 * find. */
int mount_bind(struct undo *u, struct record *r, const struct mount_how *how, int target,
               struct rbxj_error *e);

/* ---- mount_find.c ---- */

/* The namespace in which the mount was made (K10). 1, 0: f says why not, or a negative code. */
int mount_find_space(struct undo *u, const struct record *r, struct mount_space *ret, struct finding *f);

/* The mount of r in space, by evidence or by K1's rule. 0: *ret, or NULL: it is not there, and f is set only
 * where something might be it (foreign, refused). May read our own mountinfo again (space->table is set
 * then). */
int mount_find(struct undo *u, const struct record *r, struct mount_space *space, struct mount **ret,
               struct finding *f);
/* Does m look like what the record names? */
bool mount_is_of_record(const struct record *r, const struct mount *m);
/* Is it known to have been there when the intent was written? */
bool mount_is_older(const struct record *r, const struct mount_space *space, const struct mount *m);
/* Is m still mounted where the reading has it? 1, 0, or a negative code: a look-up does not tell. */
int mount_peek(const struct mount_space *space, const struct mount *m);
/* Is m what another record of this box names? */
bool mount_is_of_box(const struct undo *u, const struct record *r, const struct mount *m);
/* A copy of r's mount in any namespace (K12): 1 (*ret_space, *ret), 0 none, or a negative code. In ns, where
 * it was itself, what shows the file system that it brought into being, but for the binds that the box has
 * journaled. */
int mount_find_copy(struct undo *u, const struct record *r, uint64_t ns, struct mount_space *ret_space,
                    struct mount **ret, struct rbxj_error *e);
/* Does another file system show the number of the one that r's mount brought into being? Then that is no
 * more: 1, 0, or a negative code. */
int mount_device_is_reused(struct undo *u, const struct record *r, struct rbxj_error *e);
/* Has another mount the id of r's, which was detached? Unique ids are never given again. As above. */
int mount_id_is_reused(struct undo *u, const struct record *r, struct rbxj_error *e);

/* ---- mount_strangers.c ---- */

struct mount_tree;
/* Would unmounting the tree unmount what is not ours, in this namespace or another one? 0, BUSY: e says what,
 * or another negative code. ahead: that is asked before the quiesce, and what the payload has mounted will be
 * gone. */
int mount_check_strangers(struct undo *u, const struct record *r, const struct mount_space *space,
                          const struct mount_tree *tree, bool ahead, struct rbxj_error *e);

/* ---- mount_take.c ---- */

/* Do all file systems that a look-up of m's target comes across answer? */
bool mount_path_is_local(const struct mount_table *table, const struct mount *m);
/* Where the target of m leads to by now, as space sees it: 0, -EAGAIN if asking might hang, or -errno. */
int mount_look_up(const struct mount_space *space, const struct mount *m, struct mount_at *ret);
/* Is it the root of m that has that identity? 1, 0, or a negative code: it can't be looked at, -ESTALE where
 * it is covered, or asking might hang. */
int mount_shows(const struct mount_space *space, const struct mount *m, const struct fileid *id);

/* A mount with all that is mounted below it, by parent ids and not by names; parents before children. */
struct mount_tree {
    struct mount **mounts;
    size_t len;
    bool *alone; /* to be made private first: its peer group has a member here outside the tree (K12) */
};
void mount_tree_clear(struct mount_tree *tree);
int mount_tree_collect(const struct mount_table *table, struct mount *top, struct mount_tree *ret);

/* Unmounts r's tree, newest first. With lazy only the top, and all with it,
 * detached. Each one is looked up and its id checked immediately before. 0, or
 *   -EBUSY    somebody uses *ret_stuck
 *   -ESTALE   another mount is where *ret_stuck was: gone, moved or covered since mountinfo was read
 *   -ETIMEDOUT, -errno; e is set then */
int mount_tree_take(struct undo *u, const struct record *r, const struct mount_space *space,
                    struct mount_tree *tree, bool lazy, struct mount **ret_stuck, struct rbxj_error *e);
/* What helper_run_alone() is to know r's unmount by: of the runtime directory, as no helper outlives a
 * boot. */
uint64_t mount_helper_of(const struct undo *u, const struct record *r, char file[PATH_MAX]);
/* Does a helper that an earlier undo of r left behind live still (K16)? It may unmount what is at the place
 * of r when it is let go: until then r is busy, whatever is there, and its record keeps the place. 1 (f is
 * set), 0, or a negative code. */
int mount_is_worked_at(const struct undo *u, const struct record *r, struct finding *f);

/* The time until which a helper may take, CLOCK_MONOTONIC. */
int64_t mount_deadline(const struct undo *u);

/* ---- mount_holders.c ---- */

#define MOUNT_HOLDERS_MAX 500
struct mount_holders {
    size_t len;
    struct mount_holder {
        int32_t pid;
        char how; /* c: working directory, r: root, x: executable, f: descriptor, m: memory map */
    } at[MOUNT_HOLDERS_MAX];
};

/* The processes that hold a mount, which may be detached already: by unique id, or by id where the kernel has
 * none; and those that show device (0: none). 0 or a negative code: it is not known. */
int mount_holders_find(struct undo *u, int32_t id, uint64_t unique, uint64_t device,
                       struct mount_holders *ret);
/* Is it a process of this box, which a quiesce kills? */
bool mount_is_payload(const struct undo *u, pid_t pid);
/* Kills those that are proven of this box and waits for them; how many. */
size_t mount_holders_kill(struct undo *u, const struct mount_holders *holders);
/* "working directory of pid 4711 (sleep, ...) and 2 more" as the error's detail. */
void mount_holders_describe(const struct mount_holders *holders, struct finding *f);

#endif
