/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who a process is: (boot id, pid namespace, pid, start time). A pid alone is never an identity.
 */
#ifndef RBXJ_BASE_PROCID_H
#define RBXJ_BASE_PROCID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct procid {
    uint8_t boot_id[16];
    uint64_t pid_ns;     /* inode of the pid namespace in which pid and start_time were read; 0: unknown */
    uint64_t time_ns;    /* inode of the time namespace; 0: unknown or no such thing */
    uint64_t start_time; /* clock ticks since boot, field 22 of /proc/PID/stat */
    int32_t pid;
};

#define PROCID_INITIAL_PID_NS 0xEFFFFFFCu /* PROC_PID_INIT_INO: fixed in every kernel since 3.8 */

/* The boot id; 0 or -errno. Cached after the first call. (sd_id128_get_boot(3)) */
int procid_boot(uint8_t ret[16]);

/* Identity of a process as seen from here. 0, -ESRCH when there is none, or -errno; -EXDEV: /proc is not that
 * of this pid namespace, and says nothing of any. */
int procid_of(pid_t pid, struct procid *ret);

/* Same process? */
bool procid_equal(const struct procid *a, const struct procid *b);

/* True if a and b count pids and start times alike: same boot, pid namespace and time namespace. */
bool procid_comparable(const struct procid *a, const struct procid *b);

/* Is a process in that pid namespace, as far as that can be seen from here? 1, 0, or -errno: that can't be
 * told. */
int procid_pid_ns_is_used(uint64_t pid_ns);

/* Opens a pidfd and checks the start time after it was opened (K8). Only for a process comparable with our
 * own. Returns the pidfd, or -ESRCH when that process is gone or a zombie without living threads, or -errno,
 * as procid_of(). */
int procid_open(const struct procid *id);

/* SIGKILL through the pidfd, then waits until it is gone: 0, -ETIMEDOUT, or -errno. deadline_ns:
 * CLOCK_MONOTONIC. */
int pidfd_kill_wait(int pidfd, int64_t deadline_ns);
/* Waits only. */
int pidfd_wait(int pidfd, int64_t deadline_ns);

/* "sleep, state D in folio_wait" for reports: name, state and where it waits; "gone" if there is no such
 * process. */
void procid_describe(pid_t pid, char *buf, size_t size);

#endif
