/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of the harness share, and no test uses.
 */
#ifndef RBXJ_TESTS_HARNESS_PARTS_H
#define RBXJ_TESTS_HARNESS_PARTS_H

#include <stdbool.h>
#include <stddef.h>

/* ---- harness.c ---- */

/* Everything that is made outside of the private mount namespace bears this name: rbxj-test-<pid>-... */
extern char harness_prefix[32];

/* Kernel files have no size: read until the end. NULL with errno set when it can't be read. */
char *harness_read_file(const char *path);
/* For removals: what can't be written is somebody else's turn to notice. */
void harness_try_write(const char *dir, const char *name, const char *text);

/* ---- harness_mounts.c ---- */

bool harness_is_below(const char *path, const char *dir);
/* 0, or -1: something is left. */
int harness_unmount_below(const char *dir);

/* ---- harness_cgroup.c ---- */

void harness_find_hierarchies(void);
void harness_forget_hierarchies(void);
/* All of this program's cgroups, also those that a test made beside the harness under its prefix. 0, or
 * -1. */
int harness_remove_cgroups(void);

#endif
