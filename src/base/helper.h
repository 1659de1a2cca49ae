/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Calls that may hang (K16). A dead FUSE or NFS server hangs stat, open and unmount for ever, in a state in
 * which not even SIGKILL helps; so such a call is made by a forked helper with a deadline, and a helper that
 * does not answer is left behind: it holds no descriptor of ours, hence no lock, and its pid and start time
 * are told.
 *
 * What runs in a helper runs between fork and exit of a process that may have other threads: system calls and
 * memory of its own, no malloc, no stdio, no lock. The helper has no descriptors at all and must open what it
 * needs.
 *
 * One that is left behind does no more than to finish the call in which it hangs: it was killed, or is as
 * soon as whoever waits for it dies. Where that one call may do harm later, as an unmount may, it is run
 * alone (helper_run_alone): it holds a record lock for as long as it lives, so that every other process knows
 * of it, whatever became of the one that started it.
 */
#ifndef RBXJ_BASE_HELPER_H
#define RBXJ_BASE_HELPER_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define HELPER_OUTPUT_MAX 4096

/* A helper that did not answer. pid 0: none. */
struct helper_left {
    pid_t pid;
    uint64_t start_time; /* field 22 of /proc/PID/stat; 0: could not be read */
};

struct helper_result {
    int code;                /* what the function returned, any int */
    struct helper_left left; /* with -ETIMEDOUT and -EBUSY */
    _Alignas(max_align_t)
        uint8_t output[HELPER_OUTPUT_MAX]; /* what the function wrote, also until -ETIMEDOUT; zero beyond */
};

/* Runs in the helper; output is zeroed and shared with the caller. */
typedef int helper_function(void *data, uint8_t output[HELPER_OUTPUT_MAX]);

/* Runs function in a helper until deadline_ns (CLOCK_MONOTONIC). job names what it works on (0: nothing that
 * is worth remembering): while a helper that was left behind on the same job lives, no second one is started.
 * Returns
 *   0           it answered: ret->code, ret->output
 *   -ETIMEDOUT  it did not, and was killed (ret->left.pid 0) or would not die either (ret->left)
 *   -EBUSY      one for this job that was left behind earlier is still there (ret->left)
 *   -EPIPE      it died without an answer
 *   -ECHILD     the children of this process go to a pid namespace that has no first process
 *   -errno      it could not be started, or could not let go of our descriptors: function was not run */
int helper_run(helper_function *function, void *data, uint64_t job, int64_t deadline_ns,
               struct helper_result *ret);

/* RUNTIME/helpers, in which a helper that is alone (below) has its lock. A byte of it is one thing to work
 * on: from 2^62 on a file system that is asked (mount_table_hang_key()), below that a hash of a record
 * (mount_helper_of()) or of a path of the configuration (config_links.c). Offsets are positive, hence below
 * 2^63. */
void helper_file(const char *runtime_dir, char ret[PATH_MAX]);

/* The same, for what no two helpers may work on at once, of whatever processes: byte is what it is, in a file
 * that is made if there is none. -EBUSY (ret->left; pid 0: not visible from here): a helper of any process is
 * at it. */
int helper_run_alone(const char *file, uint64_t byte, helper_function *function, void *data,
                     int64_t deadline_ns, struct helper_result *ret);
/* Is one at it now? 1 (*ret), 0, or -errno: that can't be known. Takes no lock and makes no file. */
int helper_is_at(const char *file, uint64_t byte, struct helper_left *ret);

/* Is it gone meanwhile? Reaps it if it is. */
bool helper_left_gone(const struct helper_left *left);

/* ---- may a path be touched? ---- */

/* Is the mount with that id one whose calls cannot hang? Asked in the calling process, not in a helper. */
typedef bool path_local_function(void *data, int mount_id);

struct path_probe {
    const char *path; /* absolute; no symlink is followed */
    /* 0: calls on it answer. -ETIMEDOUT: they hang. Else the error of opening it, -ENOENT for one */
    int result;
    int mount_id;  /* with 0: the mount it is on */
    bool is_local; /* with 0: found in the cache, on a local file system: nothing was asked of anybody */
};

#define PATH_PROBE_MAX 256 /* paths in one call */

/* Who asks that file system, as helper_run_alone() has it. */
struct probe_place {
    const char *file;
    uint64_t byte;
    bool make; /* the file, if there is none; else nobody knows of this probe then */
};

/* Probes len paths: each one from the cache if it can be (openat2 with RESOLVE_CACHED never waits), and all
 * the others by one helper that looks at one after the other until deadline_ns; behind one that hangs, the
 * rest is -ETIMEDOUT as well. job as in helper_run(). 0, or the error of helper_run() other than -ETIMEDOUT;
 * ret_left may be NULL.
 * With a place, which may be NULL, a helper of another process that has waited there for as long as this one
 * would is answer enough (-EBUSY): a file system that hangs is not asked by one more helper for each look at
 * it. */
int path_probe(struct path_probe *probes, size_t len, path_local_function *is_local, void *data, uint64_t job,
               const struct probe_place *place, int64_t deadline_ns, struct helper_left *ret_left);

/* The mount id of an open file, from fdinfo: asks nothing of the file system. An id, or -errno. */
int mount_id_of_fd(int fd);

#endif
