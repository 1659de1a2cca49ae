/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is mounted: mountinfo of this mount namespace and of the others, each read at most once per pass, with
 * look-ups that stay cheap with thousands of mounts. Not by libmount: where it finds no memory for a line it
 * returns a short table and success, and what is missing there would be taken for unmounted (2.38.1); and its
 * mnt_context_umount() reads mountinfo anew for each call, follows symlinks and runs helper programs.
 *
 * A struct mounts belongs to one thread. Names are bytes as the kernel has them: octal escapes are decoded,
 * control bytes are raw. Sets are in the order of mountinfo: since 6.8 that of unique ids, so the oldest
 * comes first.
 */
#ifndef RBXJ_REAPER_MOUNTINFO_H
#define RBXJ_REAPER_MOUNTINFO_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct mount {
    int32_t id, parent;
    uint32_t peers;  /* N of shared:N, 0: not shared */
    uint32_t master; /* N of master:N, 0: no slave */
    uint64_t dev;
    const char *target; /* seen from the root of the process whose mountinfo it is */
    const char
        *root; /* within the file system; "//deleted" is appended when a bind mount's source was removed */
    const char *fstype;
    const char *source;  /* may be empty */
    const char *options; /* those of the file system */
    bool gone;           /* unmounted by us since; never found again */
};

/* One reading of one namespace. */
struct mount_table;

enum mount_key {
    MOUNT_BY_ID,
    MOUNT_BY_PARENT,
    MOUNT_BY_PEERS,
    MOUNT_BY_MASTER,
    MOUNT_BY_DEV,
    MOUNT_BY_TARGET,
    MOUNT_BY_SOURCE
};
#define MOUNT_KEYS 7

/* Some of a table's mounts; valid as long as the table is. Skip those that are gone. */
struct mount_set {
    struct mount *const *mounts;
    size_t len;
};

/* Reads path, "/proc/self/mountinfo" or the one of another process. A line that can't be parsed fails all of
 * it: what was skipped would count as unmounted. 0, or a negative code (-ENOENT: no such process). */
int mount_table_read(const char *path, struct mount_table **ret, struct rbxj_error *e);
void mount_table_free(struct mount_table *table);
/* All of them. */
struct mount_set mount_table_all(const struct mount_table *table);
/* Those whose field equals the one in key. */
struct mount_set mount_table_find(const struct mount_table *table, enum mount_key by,
                                  const struct mount *key);
/* The one with that id, NULL: none. */
struct mount *mount_table_by_id(const struct mount_table *table, int32_t id);
/* The one that a path lookup of exactly that target ends in: the one on which no other lies. NULL: none. */
struct mount *mount_table_top(const struct mount_table *table, const char *target);
/* The deepest mount at or above path, by names, on which a call may hang (K16), never the root; NULL: there
 * is none. */
const struct mount *mount_table_remote_above(const struct mount_table *table, const char *path);
/* What is known not to answer where m does not: its file system, by whatever mount, unless another one on the
 * way to m may be what hangs. From 2^62 on, for offsets of record locks (struct probe_place). */
uint64_t mount_table_hang_key(const struct mount_table *table, const struct mount *m);
/* For path_probe(): data is a table. */
bool mount_table_is_local(void *table, int id);

/* Is it one of the local types, on which no call can hang (K16)? fuse, nfs, overlay (on what?) are not. */
bool fstype_is_local(const char *fstype);

/* ---- all namespaces, of one pass (mount_spaces.c) ---- */

struct mounts;

/* Starts a pass: reads this namespace's mountinfo. */
int mounts_read(struct mounts **ret, struct rbxj_error *e);
void mounts_free(struct mounts *mounts);

/* This namespace. */
struct mount_table *mounts_own(struct mounts *mounts);
uint64_t mounts_own_ns(const struct mounts *mounts);

/* Reads this namespace once more, where the reading is known to be out of date; earlier pointers into it are
 * void. */
int mounts_reload(struct mounts *mounts, struct rbxj_error *e);

/* The other mount namespaces, found through one look at /proc per pass. Namespace i, its mountinfo read when
 * first asked for: 1, 0 past the end, -ENODATA when its processes went away, or another negative code. */
struct mount_space {
    uint64_t ns;
    pid_t pid;                 /* a process in it */
    bool whole;                /* that process sees all of it: it is in no chroot */
    struct mount_table *table; /* as pid sees it */
    bool stays;                /* mounts_note_stays() */
};
int mounts_other(struct mounts *mounts, size_t i, struct mount_space *ret, struct rbxj_error *e);
/* Reads namespace i once more, through whatever process is in it now. Same returns, -ENODATA: none is. */
int mounts_other_reload(struct mounts *mounts, uint64_t ns, struct mount_space *ret, struct rbxj_error *e);

/* For mounts_other() alone: another reading of them, from before the first unmount of the pass, where what
 * verifies the unmounts is from after it. NULL: want of memory. Belongs to mounts. */
struct mounts *mounts_before(struct mounts *mounts);

/* A copy of a mount that was there was waited for in vain: no other one is in this pass. */
void mounts_note_stays(struct mounts *mounts, uint64_t ns);

/* One of the other namespaces, by its inode (K10):
 *   0         ret is set
 *   -ENOENT   nothing holds it: no process is in it or has it open, no nsfs mount keeps it
 *   -EBUSY    something holds it, but no process is in it; e says what
 *   -EACCES   not to be known: /proc hides processes from us */
int mounts_in(struct mounts *mounts, uint64_t ns, struct mount_space *ret, struct rbxj_error *e);
/* Then it is kept by this process; 0: by none that was seen. */
pid_t mounts_holder(const struct mounts *mounts, uint64_t ns);

/* ---- identity of a mount, through the kernel and not through names ---- */

/* Where a path ends. */
struct mount_at {
    int32_t id;
    uint64_t unique; /* never reused in a boot; 0: the kernel has none (before 6.8) */
    uint64_t dev, ino;
    bool is_root; /* it is the root of that mount */
};
/* name relative to dirfd, not followed; name "": dirfd itself. Asks no server for attributes. 0 or -errno. */
int mount_at(int dirfd, const char *name, struct mount_at *ret);
/* The same, but a last symlink is followed, for the links in /proc/PID; and only one of the ids, for there
 * are many. */
int mount_at_link(int dirfd, const char *name, bool unique, struct mount_at *ret);

/* The id of the mount with a unique id in this namespace: 0, -ENOENT (there is none), or -ENOSYS: can't be
 * told. */
int mount_id_of_unique(uint64_t unique, int32_t *ret);
/* The highest unique id given out so far, 0 where the kernel has none. O(1). */
uint64_t mount_newest(void);
/* Is there a file system with that number, mounted anywhere, in any namespace? 1; 0: there is none, and none
 * of its mounts can be copied any more; or -ENOSYS: can't be told. Not of one that may not answer (K16). */
int mount_device_exists(uint64_t dev);
/* The inode of the mount namespace of a process, 0 for pid: our own. 0 or -errno. */
int mount_ns_find(pid_t pid, uint64_t *ret);

#endif
