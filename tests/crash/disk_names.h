/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The names in one directory of a disk_image: those on disk, and what has happened to them since.
 */
#ifndef RBXJ_TESTS_CRASH_DISK_NAMES_H
#define RBXJ_TESTS_CRASH_DISK_NAMES_H

#include "disk_image.h"

/* Room for one more at the end of an array. */
#define DISK_GROW(array, len)                                                                                \
    ({                                                                                                       \
        if (!(array) || ((len) & ((len)-1)) == 0) {                                                          \
            (array) = reallocarray(array, (len) ? 2 * (len) : 1, sizeof(*(array)));                          \
            assert_non_null(array);                                                                          \
        }                                                                                                    \
        &(array)[(len)++];                                                                                   \
    })

struct disk_node;

struct disk_name {
    char *name;
    struct disk_node *node;
};

struct disk_names {
    struct disk_name *durable, *now;
    size_t durable_len, now_len;
    /* What is not on disk: from goes, to comes. Those of one group share names, and come about in order. */
    struct disk_change {
        char *from, *to;
        struct disk_node *node;
        size_t group;
    } * changes;
    size_t changes_len;
};

/* A name goes, comes, or both in one: NULL where there is none. */
void disk_names_change(struct disk_names *names, const char *from, const char *to, struct disk_node *node);
/* All is on disk. */
void disk_names_sync(struct disk_names *names);
/* As a reader sees it; NULL where there is no such name. */
struct disk_node *disk_names_find(const struct disk_names *names, const char *name);
void disk_names_clear(struct disk_names *names);

/* What is left after a cut: of each group of changes a beginning has come about. Freed by
 * disk_names_free(). */
struct disk_name *disk_names_cut(const struct disk_names *names, struct disk_cut *cut, size_t *ret_len);
void disk_names_free(struct disk_name *list, size_t n);

/* Which of n versions is on disk after a cut; the last one is the newest. */
size_t disk_choose(struct disk_cut *cut, size_t n);

#endif
