/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the tests stand on: mounts and a process table of their own, scratch directories, cgroups and
 * processes of their own, and the certainty that nothing of it stays, whatever happens to the test.
 *
 *     static void k17_refilled_is_busy(void **state) { harness_need_root(); ... harness_disk() ... }
 *
 *     const struct CMUnitTest tests[] = {harness_test(k17_refilled_is_busy)};
 *     return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
 *
 * Each harness_test() starts with fresh, empty scratch directories; after it, failed or not, its processes
 * are killed, its mounts unmounted, its cgroups and directories removed. A guardian process does the same
 * when the test program itself dies (a sanitizer's abort, a timeout). Helpers fail the test when they can't
 * do their work.
 */
#ifndef RBXJ_TESTS_HARNESS_H
#define RBXJ_TESTS_HARNESS_H

/* cmocka.h needs these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <sys/types.h>

int harness_group_setup(void **state);
int harness_group_teardown(void **state);
int harness_setup(void **state);
int harness_teardown(void **state);
#define harness_test(f) cmocka_unit_test_setup_teardown(f, harness_setup, harness_teardown)

/* Skips the test, with the reason, where it has no root or no mount namespace of its own. */
void harness_need_root(void);
/* Skips the test for a reason of its own. */
void harness_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The scratch directories of this test: on the disk, and on a tmpfs of its own (needs root). Resolved
 * paths. */
const char *harness_disk(void);
const char *harness_tmpfs(void);

/* A formatted string that lives until the end of the test. */
char *harness_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A new cgroup of this test: in the cgroup2 hierarchy, or that of a v1 controller. Skips where there is
 * none. */
const char *harness_cgroup(void);
const char *harness_cgroup_v1(const char *controller);
/* Where a hierarchy is mounted (controller NULL: cgroup2), or NULL. */
const char *harness_cgroup_root(const char *controller);

/* A child that sleeps for ever and holds no descriptor of ours; in cgroup unless that is NULL. */
pid_t harness_spawn(const char *cgroup);
/* A child that the test forked itself: killed and reaped at the end of the test like the others. */
void harness_track(pid_t pid);
/* Kills and reaps a child now. */
void harness_kill(pid_t pid);
/* Reaps a tracked child that dies by itself; its wait status. */
int harness_wait(pid_t pid);

/* Files. Paths are not followed if they are symlinks. */
bool path_exists(const char *path);
void harness_mkdir(const char *path);
void harness_write(const char *path, const char *text); /* creates or truncates; kernel files too */
char *harness_read(const char *path);                   /* lives until the end of the test */

/* How many mounts of this namespace are at or below a directory. */
size_t harness_mounts_below(const char *prefix);

#endif
