/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the cases of crash_hostile.c stand on: a stale box "a" whose things are under attack, a living box "b"
 * beside it, a decoy of /etc, reapers with few descriptors and little memory, and the kernel's own view of
 * what is left. A case goes like this:
 *
 *     hostile_open(point);
 *     plan(RBXJ_TMPDIR, in_work("T"));
 *     crash();                            box a is stale, its things are there
 *     ... the attack: attacker(function, cgroup) ...
 *     reap();                             judged: each thing is gone, or left with a reason; b, /etc whole
 *     ... all_undone(), or left(kind, text) ...
 *     over(release);                      the attackers are killed; a second replay undoes the rest
 */
#ifndef RBXJ_TESTS_HOSTILE_H
#define RBXJ_TESTS_HOSTILE_H

#include "crash.h"

#include "base/cleanup.h"
#include "rbxj.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- hostile_world.c: the world ---- */

void hostile_open(uint64_t point);
/* Of this point: 0 to n - 1. */
uint64_t draw(uint64_t n);
/* A size: small in the sample of a check, large with --all (a point that is one of the first few). */
uint64_t sized(uint64_t small, uint64_t large);

const char *in_work(const char *name); /* where boxes are, on the disk */
const char *outside(const char *name); /* beside it, on the same file system */
const char *etc(void);                 /* the decoy, on the same file system */
const char *group(void);               /* in which boxes' cgroups are: v2 */
const char *
group_v1(const char *which); /* the same of a v1 hierarchy; the case is skipped where there is none */
const char *bystander(enum rbxj_kind kind); /* the path of b's */

/* ---- the box ---- */

/* One more thing of box a; returns its path. A mount takes an existing or fresh target. */
const char *plan(enum rbxj_kind kind, const char *path);
const char *plan_mount(const char *fstype, const char *source, const char *target);
/* A cgroup (*ret_cgroup) and a tmpdir, on the disk or on a tmpfs of the box. */
const char *plan_tree(const char **ret_cgroup);
/* A supervisor acquires all of it and dies. */
void crash(void);
/* The process of the plan's kind process. */
pid_t planned_process(void);

/* ---- the attack ---- */

/* A process that does what run does, in that cgroup (of the box) or outside of any (a stranger). It has no
 * descriptor of ours. run is called once and should not return. */
pid_t attacker(void (*run)(void), const char *cgroup);
void sleeper(void); /* for attacker(): does nothing */
void enter_cgroup(const char *cgroup);

/* ---- the reaper ---- */

/* The next reapers' limit of descriptors, and their time for one box in seconds. */
void reaper_has(unsigned descriptors, double seconds);
/* It may detach busy mounts lazily. */
void reaper_is_lazy(bool lazy);
/* A replay in a process of its own, and the judgement of what it did. Its result: 0 or 1. */
int reap(void);
/* A replay that is killed after so many microseconds. */
void reap_killed(unsigned us);
/* Of the last one. */
void all_undone(void);
void left(enum rbxj_kind kind, const char *text);
bool is_left(enum rbxj_kind kind);
/* Is box a's thing of that kind nowhere any more, whatever has its name? */
bool is_gone(enum rbxj_kind kind);
/* Kills what attacks, lets release() take away what only the test can, and replays: nothing may be left. */
void over(void (*release)(void));

/* ---- hostile_view.c: what is there ---- */

/* All of a tree as text, for comparisons: contents, modes, owners, times, inodes, attributes. Lives until the
 * end of the point. links: also link counts and change times. */
char *picture(const char *dir, bool links);
/* The same, compared. */
void must_be_whole(const char *dir, const char *before, bool links);
/* Makes a directory with all kinds of content. */
void make_decoy(const char *dir);
/* Any namespace of these that shows a mount with that source: how many. */
size_t mounts_with_source(const char *source);

/* ---- a few calls that must work ---- */

#define must(expression)                                                                                     \
    do {                                                                                                     \
        if (!(expression))                                                                                   \
            fail_msg("%s:%d: %s: %s", __FILE__, __LINE__, #expression, strerror(errno));                     \
    } while (0)
void bind_on(const char *source, const char *target); /* the target is made */
void tmpfs_on(const char *target);
bool set_flags(const char *path, int flags); /* FS_IMMUTABLE_FL, FS_APPEND_FL; false: not here */
void write_file(const char *path);           /* for attackers: it may fail */

/* ---- the cases ---- */

typedef void hostile_case(const struct crash_case *c, uint64_t point);
hostile_case tree_race, tree_swap, tree_moved, tree_deep, tree_wide, tree_flags, tree_odd, tree_stamps,
    tree_overlay, tree_readonly, tree_in_bind;
hostile_case mount_decoys, mount_stacked, mount_shared, mount_busy, mount_hung, mount_bound_elsewhere,
    mount_moved, mount_readonly, mount_own_binds, mount_race;
hostile_case group_bomb, group_escape, group_daemons, group_deep, group_frozen, group_threaded, group_stopped,
    group_renamed, group_recreated, group_many, group_race;

#endif
