/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the two files of the cgroup kind share: cgroup_make.c (prepare, acquire, prove, adopt), undo_cgroup.c
 * (look, quiesce, undo, verify).
 */
#ifndef RBXJ_REAPER_CGROUP_MAKE_H
#define RBXJ_REAPER_CGROUP_MAKE_H

#include "reaper/cgroup.h"
#include "reaper/undo.h"

int cgroup_prepare(struct undo *u, struct record *r, struct rbxj_error *e);
int cgroup_acquire(struct undo *u, struct record *r, const char *options, int *ret_fd, struct rbxj_error *e);
int cgroup_prove(struct undo *u, struct record *r, struct rbxj_error *e);
int cgroup_adopt(struct undo *u, struct record *r, struct rbxj_error *e);

#endif
