/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who a file is (K3). An inode number is reused at once and a device number holds for one boot only: the
 * identity is the file system's own, plus the file handle (inode and generation), plus the birth time where
 * there is one.
 */
#ifndef RBXJ_BASE_FILEID_H
#define RBXJ_BASE_FILEID_H

#include <stdbool.h>
#include <stdint.h>

#define FILEID_HANDLE_MAX 36

struct fileid {
    uint8_t fs[16]; /* XXH128 of the file system's identity: type, then UUID, source or what there is; all 0:
                       none */
    uint32_t fs_magic; /* statfs f_type */
    uint32_t uid;
    uint64_t dev; /* st_dev: holds within one boot */
    uint64_t ino;
    int64_t btime_ns; /* birth time, CLOCK_REALTIME; 0: unknown */
    uint32_t mode;    /* st_mode with its type */
    int32_t handle_type;
    uint8_t handle_len;                /* 0: the file system has no handles */
    uint8_t handle[FILEID_HANDLE_MAX]; /* longer ones: their XXH128 */
};

/* Identity of an open file (O_PATH will do). 0 or -errno. */
int fileid_of_fd(int fd, struct fileid *ret);
/* The same without its handle: where only its file system matters. */
int fileid_fs_of_fd(int fd, struct fileid *ret);
/* Of a name below dirfd, not followed if it is a symlink. */
int fileid_of_name(int dirfd, const char *name, struct fileid *ret);

/* A number for its handle: two that differ, of one inode number, are two files. 0: it has none that would
 * tell. */
uint64_t fileid_handle_hash(const struct fileid *id);
/* That of an open file, and nothing else of it; 0 or -errno. */
int fileid_handle_hash_of_fd(int fd, uint64_t *ret);

/* Opens the file itself (O_PATH), wherever on the file system of the directory dirfd and under whichever name
 * it is now. -ESTALE: it is no more. -EOPNOTSUPP: it can't be found so (no handle, no privilege). Or
 * -errno. */
int fileid_open(int dirfd, const struct fileid *id, bool same_boot);

/* The same file? same_boot: both were read in this boot, so device and inode count as well. With neither
 * handle nor birth time on both sides the answer in another boot is no. */
bool fileid_equal(const struct fileid *a, const struct fileid *b, bool same_boot);
/* The same file system? Within one boot, too, another one may get the number of one that was unmounted,
 * and one without a device may come back under another. */
bool fileid_same_fs(const struct fileid *a, const struct fileid *b, bool same_boot);
/* A directory of an overlay with layers on several file systems gets another number each time that it is read
 * into memory. May it be the same but for that? The birth time is coarse: only with more proof, or where
 * nothing hangs on it. */
bool fileid_may_be(const struct fileid *a, const struct fileid *b, bool same_boot);
/* Does only a number tell it from the next file that gets it? So on 9p and FUSE; and a v1 hierarchy that is
 * mounted anew counts its cgroups from the start, maybe under the old device number. */
bool fileid_is_weak(const struct fileid *a);
/* Was it read at all? */
bool fileid_is_set(const struct fileid *a);

/* What lives on a file system of this type cannot survive the boot (K23): tmpfs, ramfs, cgroup, proc, sysfs,
 * devpts. */
bool fs_is_volatile(uint32_t fs_magic);
/* Served by somebody else, over a network or by a process: calls on it may hang (K16), locks and mmap are
 * unsafe. */
bool fs_is_network(uint32_t fs_magic);
bool fs_is_cgroup(uint32_t fs_magic);

#endif
