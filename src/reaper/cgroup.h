/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Control groups through directory descriptors: v2, v1, nested, threaded, frozen. Nothing here asks whose a
 * cgroup is; that is undo_cgroup.c's business, and so is the permission to kill.
 *
 * Every walk goes down a tree in constant stack and descriptors, however deep a payload nested it. It climbs
 * by "..", which is safe here and only here: a cgroup can't be moved to another parent.
 *
 * libcgroup finds the v1 hierarchies and removes emptied v1 groups. It never empties one: its delete moves
 * tasks to the parent, out of the box (2.0.2). It does not know v2 hierarchies without controllers, as on a
 * hybrid system.
 */
#ifndef RBXJ_REAPER_CGROUP_H
#define RBXJ_REAPER_CGROUP_H

#include "base/fileid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The processes in a cgroup and below it, sorted, each once. */
struct cgroup_members {
    pid_t *pids;
    size_t len;
    bool hidden; /* there are more, in a pid namespace that can't be seen from here */
};
void cgroup_members_clear(struct cgroup_members *members);

/* Opens the cgroup directory base of parent: -EXDEV when something is mounted over it, -ENOENT, -ENOTDIR,
 * -errno. */
int cgroup_open(int parent, const char *base);

/* Calls visit for the cgroup and for all below, a parent before its children; stops at what is not 0, and
 * returns it. Where one can't be looked into, as something is mounted over it, the others are visited all the
 * same, and then that is what it returns. */
int cgroup_walk(int fd, int (*visit)(int fd, void *data), void *data);

/* The same for all cgroups of all hierarchies that are mounted here, each once; those that can't be read are
 * left out. 0, or what visit returned if it is a code of ours or a want of memory or descriptors.
 * (cgroup_each.c) */
struct mount_table;
int cgroup_each(const struct mount_table *table, int (*visit)(int fd, void *data), void *data);

/* Has it neither processes nor children? 1, 0 or -errno. */
int cgroup_is_empty(int fd);

/* Whole processes, also where only a thread of one is inside (threaded cgroups). 0 or -errno. */
int cgroup_members(int fd, struct cgroup_members *ret);
bool cgroup_members_have(const struct cgroup_members *members, pid_t pid);

/* How often the kernel killed for memory in it and below, 0 where that can't be known. */
uint64_t cgroup_oom_kills(int fd);

/* May this process be killed? 0, or a negative code that stops the killing. */
typedef int (*cgroup_guard)(pid_t pid, void *data);

/* Who is in it and in what state, for reports: "pid 7 (sleep, state D in folio_wait) and 3 more". */
void cgroup_describe(int fd, char *buf, size_t size);

/* ---- cgroup_kill.c ---- */

/* Kills what is inside and below, by the best way that the kernel has, without waiting. The guard has been
 * asked for every member before; ways that go process by process ask it again. 0 or a negative code.
 * cgroup_kill() chooses among the three others, which are here for the tests:
 *   at_once   cgroup.kill (5.14); -EOPNOTSUPP in a threaded cgroup, whose domain is not the box's to kill
 *   frozen    freeze, kill, thaw: v2 cgroup.freeze (5.2) or v1's freezer hierarchy; nothing forks away
 *   round     one round through pidfds, forks stopped by pids.max where that hierarchy has it; to be
 *             repeated */
int cgroup_kill(int fd, cgroup_guard guard, void *data);
int cgroup_kill_at_once(int fd);
int cgroup_kill_frozen(int fd, cgroup_guard guard, void *data);
int cgroup_kill_round(int fd, cgroup_guard guard, void *data);

/* Waits until nothing lives in it or below. 0, -ETIMEDOUT, -EAGAIN (v1: one died, kill and wait again),
 * -errno. */
int cgroup_wait_empty(int fd, int64_t deadline_ns);

/* Does nothing in it run, until it or one above is thawed? What can't be read does not say so. */
bool cgroup_is_frozen(int fd);

/* Moves the calling process into the cgroup. */
int cgroup_enter(int dirfd);

/* ---- cgroup.c ---- */

/* Removes all cgroups below it, deepest first. 0, -EBUSY (one is populated, or a mount is on it), -errno. */
int cgroup_remove_children(int fd, int64_t deadline_ns);

/* Is the cgroup that is open at fd no more, under any name? 1, 0 or -errno. */
int cgroup_is_removed(int fd);

/* Removes the cgroup base of parent, if it still is id. path is its whole path. 0, -ENOENT, -ESTALE (it is
 * another one), -EBUSY, -errno. */
int cgroup_remove(int parent, const char *base, const char *path, const struct fileid *id);

#endif
