/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/procid.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/proctext.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <systemd/sd-id128.h>

int procid_boot(uint8_t ret[16])
{
    sd_id128_t id;
    int r = sd_id128_get_boot(&id); /* cached per thread by libsystemd */
    if (r < 0)
        return r;
    memcpy(ret, id.bytes, 16);
    return 0;
}

/* Whose numbers /proc shows: those of this pid namespace, or of another one (unshare --pid, a container with
 * its host's /proc, or one's with another's), where each is another process. 0, or -EXDEV. */
static int check_proc(void)
{
    char self[24];
    ssize_t n = readlink("/proc/self", self, sizeof(self) - 1);
    if (n < 0) /* ENOENT: this process is not in there, or there is no /proc */
        return errno == ENOENT ? -EXDEV : -errno;
    self[n] = 0;
    return atoi(self) == getpid() ? 0 : -EXDEV;
}

/* The inode of a namespace of ours; 0 where the kernel has none of that kind. */
static int ns_inode(const char *path, uint64_t *ret)
{
    struct stat st = {0};
    if (stat(path, &st) < 0 && errno != ENOENT)
        return -errno;
    *ret = st.st_ino;
    return 0;
}

/* Start time and state letter from /proc/PID/stat. */
static int read_stat(pid_t pid, uint64_t *ret_start, char *ret_state)
{
    char path[64], buf[1024];
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    ssize_t n = fd_read_file(AT_FDCWD, path, buf, sizeof(buf));
    if (n < 0)
        return n == -ENOENT ? -ESRCH : (int)n;
    struct proc_stat stat;
    int r = proctext_stat(buf, &stat);
    if (r < 0)
        return r;
    *ret_start = stat.start_time;
    if (ret_state)
        *ret_state = stat.state;
    return 0;
}

int procid_of(pid_t pid, struct procid *ret)
{
    struct procid id = {.pid = pid};
    if (pid <= 0)
        return -ESRCH;
    int r = check_proc();
    if (r < 0 || (r = procid_boot(id.boot_id)) < 0)
        return r;
    r = read_stat(pid, &id.start_time, NULL);
    if (r < 0)
        return r;
    /* pid and start time were read in *our* namespaces, whatever the process' own are */
    if ((r = ns_inode("/proc/self/ns/pid", &id.pid_ns)) < 0 ||
        (r = ns_inode("/proc/self/ns/time", &id.time_ns)) < 0)
        return r;
    *ret = id;
    return 0;
}

bool procid_equal(const struct procid *a, const struct procid *b)
{
    return a->pid == b->pid && a->start_time == b->start_time && procid_comparable(a, b);
}

bool procid_comparable(const struct procid *a, const struct procid *b)
{
    return memcmp(a->boot_id, b->boot_id, 16) == 0 && a->pid_ns == b->pid_ns && a->time_ns == b->time_ns;
}

int procid_pid_ns_is_used(uint64_t pid_ns)
{
    _cleanup_closedir_ DIR *proc = opendir("/proc");
    const struct dirent *entry;
    bool sees_init = false; /* who may look at that one may look at all, whatever /proc hides from others */
    char path[300];
    struct stat st;
    if (!proc)
        return -errno;
    while (errno = 0, (entry = readdir(proc))) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        (void)snprintf(path, sizeof(path), "%s/ns/pid", entry->d_name);
        if (fstatat(dirfd(proc), path, &st, 0) < 0) {
            if (errno != ENOENT && errno != ESRCH)
                return -errno;
            continue;
        }
        if (st.st_ino == pid_ns)
            return 1;
        sees_init = sees_init || strcmp(entry->d_name, "1") == 0;
    }
    return errno ? -errno : sees_init ? 0 : -EACCES;
}

int procid_open(const struct procid *id)
{
    if (id->pid <= 0)
        return -ESRCH;
    _cleanup_close_ int fd = pidfd_open(id->pid, 0);
    if (fd < 0) /* a thread has its number: ENOENT since 6.16, before that EINVAL */
        return errno == EINVAL || errno == ENOENT ? -ESRCH : -errno;
    uint64_t start;
    int r = check_proc();
    if (r < 0)
        return r;
    r = read_stat(id->pid, &start, NULL);
    if (r == 0 && start != id->start_time)
        return -ESRCH;
    /* readable: the process is dead, all of its threads are; a zombie leader with living threads is not
     * (K8) */
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int dead = poll(&p, 1, 0);
    if (dead != 0)
        return dead < 0 ? -errno : -ESRCH;
    if (r < 0) /* alive, but /proc hides it: who it is can't be known */
        return r == -ESRCH ? -EACCES : r;
    return steal_fd(&fd);
}

int pidfd_wait(int pidfd, int64_t deadline_ns)
{
    for (;;) {
        int64_t left = deadline_ns - now_monotonic_ns();
        int ms = left <= 0 ? 0 : left > 1000000000 ? 1000 : (int)(left / 1000000) + 1;
        struct pollfd p = {.fd = pidfd, .events = POLLIN};
        int r = poll(&p, 1, ms);
        if (r > 0)
            return 0;
        if (r < 0 && errno != EINTR)
            return -errno;
        if (left <= 0)
            return -ETIMEDOUT;
    }
}

int pidfd_kill_wait(int pidfd, int64_t deadline_ns)
{
    if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0)
        return errno == ESRCH ? 0 : -errno;
    return pidfd_wait(pidfd, deadline_ns);
}

void procid_describe(pid_t pid, char *buf, size_t size)
{
    char path[64], comm[64], wchan[64];
    uint64_t start;
    char state = '?';
    if (read_stat(pid, &start, &state) < 0) {
        (void)snprintf(buf, size, "gone");
        return;
    }
    (void)snprintf(path, sizeof(path), "/proc/%d/comm", pid);
    if (fd_read_file(AT_FDCWD, path, comm, sizeof(comm)) < 0)
        (void)strcpy(comm, "?");
    comm[strcspn(comm, "\n")] = 0;
    for (char *p = comm; *p; p++)
        if (!isprint((unsigned char)*p))
            *p = '?';
    (void)snprintf(path, sizeof(path), "/proc/%d/wchan", pid);
    if (state != 'D' || fd_read_file(AT_FDCWD, path, wchan, sizeof(wchan)) < 0 || wchan[0] == '0')
        wchan[0] = 0;
    (void)snprintf(buf, size, "%s, state %c%s%s", comm, state, wchan[0] ? " in " : "", wchan);
}
