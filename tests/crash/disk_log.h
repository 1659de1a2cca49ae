/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the processes of a workload do to the files below one directory, in the order in which it came about:
 * the log that crash_disk.c makes power cuts of. disk_calls.h writes it, disk_image.c reads it.
 */
#ifndef RBXJ_TESTS_CRASH_DISK_LOG_H
#define RBXJ_TESTS_CRASH_DISK_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum disk_op {
    DISK_WRITE,  /* path: data at offset */
    DISK_SIZE,   /* path: is offset bytes long from now on */
    DISK_SYNC,   /* path: a file or a directory is on disk as it is now; none: everything is */
    DISK_DSYNC,  /* path: so are len bytes at offset */
    DISK_CREATE, /* path: an empty file, new */
    DISK_MKDIR,
    DISK_RENAME, /* path to path2 */
    DISK_REMOVE, /* a file or an empty directory */
    DISK_MARK,   /* nothing: a moment (see disk_log_mark()) */
};

/* Which call a flush came by; each can be left out. */
enum disk_flush {
    FLUSH_NONE,
    FLUSH_FDATASYNC,
    FLUSH_FSYNC,
    FLUSH_DSYNC,     /* a write through a descriptor that flushes by itself */
    FLUSH_DIRECTORY, /* in the state directory */
    FLUSH_RESOURCE,  /* of the directory in which resources are */
};

struct disk_entry {
    enum disk_op op;
    enum disk_flush flush;
    const char *path, *path2; /* below the root, without a leading '/' */
    const uint8_t *data;
    uint64_t offset, len;
};

/* Makes the log, empty, shared with every child from here on. root: an absolute path without symlinks. */
void disk_log_open(const char *root);
/* A number that rises with everything that happens: the log's length afterwards. */
uint64_t disk_log_mark(void);
/* From now on nothing is recorded, and everything is done as it is asked for. */
void disk_log_stop(void);
size_t disk_log_len(void);
const struct disk_entry *disk_log_get(size_t i);

/* ---- for disk_calls.h ---- */

bool disk_log_is_on(void);
/* The path of a descriptor, or of a name below a directory's descriptor: below the root, or NULL. Valid until
 * the second next call. */
const char *disk_log_path(int dirfd, const char *name);
/* Around a call and what is written of it: one at a time. */
void disk_log_lock(void);
void disk_log_unlock(void);
void disk_log_add(const struct disk_entry *entry);

#endif
