/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a disk may hold when the power is cut after the first entries of the log: of every page that was
 * written since the last flush, any version, and so of every file's size and of every name in a directory.
 * POSIX promises no more than that; real file systems keep some order.
 *
 *   page       4 KiB of a file, whole or not at all; or torn, each 512 bytes by themselves (disk_cut.torn)
 *   flush      fsync() and fdatasync() of a file: its pages and its size; of a directory: the names in it
 *   names      what happens to one name, or to two by a rename, happens in order
 */
#ifndef RBXJ_TESTS_CRASH_DISK_IMAGE_H
#define RBXJ_TESTS_CRASH_DISK_IMAGE_H

#include "disk_log.h"

struct disk_image;

/* The directories that were there, and empty, before the log began. */
struct disk_image *disk_image_new(const char *const *directories, size_t n);
void disk_image_free(struct disk_image *image);

/* One entry more. ignore: flushes of these kinds (1 << enum disk_flush) did not come about. */
void disk_image_apply(struct disk_image *image, const struct disk_entry *entry, unsigned ignore);

struct disk_cut {
    uint64_t random; /* the generator's state */
    unsigned newest; /* of 100: how often the newest version of what is not flushed is taken */
    bool torn;
    bool whole; /* no cut at all: the newest of everything */
};

/* Writes what is left of a directory of the log into an existing, empty one. */
void disk_image_write(struct disk_image *image, struct disk_cut *cut, const char *directory, const char *to);

/* Calls back for each name that is left in a directory: name is the one that it was made by. */
void disk_image_names(struct disk_image *image, struct disk_cut *cut, const char *directory,
                      void (*found)(void *data, const char *name), void *data);

/* Fails the test unless the image, uncut, is what lies in that directory; skip: a name that is not looked
 * at. */
void disk_image_compare(struct disk_image *image, const char *directory, const char *real, const char *skip);

#endif
