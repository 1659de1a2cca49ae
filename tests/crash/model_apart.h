/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Where sequences run: on a disk in memory, whose flushes cost next to nothing, and each in a pid and a mount
 * namespace of its own, with which its processes and mounts go; and what is read of /proc is its own.
 */
#ifndef RBXJ_TESTS_CRASH_MODEL_APART_H
#define RBXJ_TESTS_CRASH_MODEL_APART_H

/* For main(): makes the disk, of which nothing stays; where that can't be, apart_disk() is the harness'
 * one. */
void apart_make_disk(void);
/* An empty directory on it, for one sequence after the other. */
const char *apart_disk(void);
/* Runs it in a process of its own; its wait status. group: its cgroup, in which nothing stays. */
int apart_run(void (*run)(const void *data), const void *data, const char *group);

#endif
