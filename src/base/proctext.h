/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The texts of /proc and of cgroup directories, parsed: each function reads the text that it is given, up to
 * its NUL, and nothing else. (mountinfo: reaper/mountinfo.h)
 */
#ifndef RBXJ_BASE_PROCTEXT_H
#define RBXJ_BASE_PROCTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* /proc/PID/stat; comm may hold anything, so it is read from behind the last ')' (proc(5)). 0 or -EBADMSG. */
struct proc_stat {
    char state;
    pid_t parent;
    uint64_t start_time; /* field 22 */
};
int proctext_stat(const char *text, struct proc_stat *ret);

/* /proc/TID/status: the process of that thread; 0: it does not say. */
pid_t proctext_tgid(const char *text);

/* /proc/PID/fdinfo/N: the mount, or -ENODATA. */
int proctext_mount_id(const char *text);
/* Does it show the open file that has the flock on that inode (dev 0: of any device)? Only that one has a
 * lock: line; whoever waits has the file open, too. Asks no file system. ("ino:" is there since 5.14) */
bool proctext_shows_flock(const char *text, uint64_t dev, uint64_t ino);

/* /proc/locks: is there a flock on that file? One that waits for it is none. */
bool proctext_has_flock(const char *text, uint64_t dev, uint64_t ino);

/* /proc/PID/cgroup: is it in the cgroup that is at path, or below it? By names: both end in the same path
 * within the hierarchy. */
bool proctext_is_in_cgroup(const char *text, const char *path);

/* /proc/PID/cgroup: the path within its hierarchy, of v2's, or where that is the root of the first that is
 * not. */
bool proctext_cgroup(const char *text, char *buf, size_t size);

/* cgroup.procs: the next line's pid, 0 for one that can't be seen from here; false: there is none. */
bool proctext_next_pid(const char **text, pid_t *ret);

/* One record of /dev/kmsg, "3,1234,5678901,-;text\n KEY=value\n" (the kernel's
 * Documentation/ABI/testing/dev-kmsg): facility 0 is the kernel's own. The text, which ends before the
 * newline, holds no control character: the kernel writes \x1b for one. 0 or -EBADMSG. */
struct kmsg_record {
    unsigned int level, facility;
    uint64_t sequence; /* each boot counts from 0 */
    uint64_t time_us;  /* since the machine was switched on */
    const char *text;
    size_t len;
};
int proctext_kmsg(const char *text, struct kmsg_record *ret);

/* /proc/PID/environ, of len bytes and a NUL behind them: is there a container=, and is it not empty? */
bool proctext_names_container(const char *environment, size_t len);

#endif
