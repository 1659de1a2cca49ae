/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Removes a directory tree that somebody hostile may have made, and may still be changing, as root.
 *
 *  - Everything is done below descriptors: no symlink is followed, no mount is crossed (a bind of the same
 * file system is one too), nothing that is mounted on or in is touched: -EBUSY, naming it.
 *  - Memory, stack and descriptors are constant, however deep or wide the tree.
 *  - It can be killed anywhere and run again: what it changes in a tree on its way is still in the tree.
 *  - Immutable and append-only flags are cleared, only where something was refused for them.
 *  - A directory that is full again after each of three rounds is -EBUSY, naming who is in there; with the
 * deadline it ends whatever is done to the tree.
 *  - An entry that can't be removed for another reason is kept, the rest goes; the first such error is
 * returned.
 */
#ifndef RBXJ_REAPER_RMTREE_H
#define RBXJ_REAPER_RMTREE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct rmtree {
    int64_t deadline_ns; /* CLOCK_MONOTONIC; past it -ETIMEDOUT; 0: none */
    /* Called for the stamp of each directory inside, open at fd, before anything in it is touched and before
     * it is moved (K4): 0 to go on, or a negative code, with e set, that ends the removal. */
    int (*stamped)(void *data, int fd, uint64_t incarnation, uint32_t seq, struct rbxj_error *e);
    void *data;
    pid_t *writer; /* who refilled it, where that was seen; may be NULL */
};

/* Opens a directory for reading, as an entry of dirfd (O_PATH will do) or "." for dirfd itself, and gives its
 * owner the permissions if it has none. A descriptor; -EXDEV: something is mounted on it; -ENOTDIR, -ELOOP;
 * or -errno. */
int rmtree_open(int dirfd, const char *name);

/* Removes the directory that is open at fd (from rmtree_open) and is called name in parentfd. Neither the
 * parent's flags nor its permissions are changed. 0 when it is gone; -EBUSY, -ETIMEDOUT, -ESTALE (name is no
 * longer this directory), what stamped() said, or another negative code, with e set. */
int rmtree(int parentfd, const char *name, int fd, const struct rmtree *how, struct rbxj_error *e);

/* Is the directory open at fd empty? 1, 0 or -errno. */
int rmtree_is_empty(int fd);

/* Names, as the error's detail, a process that has its working directory, its root or a descriptor in the
 * tree, if one can be seen, and returns its pid; else 0. */
pid_t rmtree_name_writer(int top_fd, struct rbxj_error *e);

/* Clears the immutable and append-only flags of the directory open at fd; true if there were any. */
bool rmtree_unprotect(int fd);

#endif
