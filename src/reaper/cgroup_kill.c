/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How what lives in a cgroup is killed, and waited for.
 */
#include "reaper/cgroup.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"

#include <errno.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/vfs.h>
#include <unistd.h>

#define PIDFDS_MAX 128 /* descriptors held at once, where there are as many */
#define PIDFDS_SPARE 8 /* for what is read meanwhile */

static bool is_v2(int fd)
{
    struct statfs sf;
    return fstatfs(fd, &sf) == 0 && sf.f_type == CGROUP2_SUPER_MAGIC;
}

/* ---- killing ---- */

static void close_all(int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
}

/* Opens the first n of these, or as many as leave some descriptors free; -1 for who is dead. Returns how
 * many, 0: not one. */
static size_t open_pidfds(const pid_t *pids, size_t n, int fds[PIDFDS_MAX])
{
    int spare[PIDFDS_SPARE];
    size_t len = 0;
    bool want = false;
    for (size_t i = 0; i < PIDFDS_SPARE; i++)
        spare[i] = open("/", O_PATH | O_CLOEXEC);
    for (; len < n && len < PIDFDS_MAX && !want; len += !want) {
        fds[len] = pidfd_open(pids[len], 0);
        want = fds[len] < 0 && errno_is_want(errno);
    }
    close_all(spare, PIDFDS_SPARE);
    return len;
}

/* Kills up to PIDFDS_MAX processes; *ret_n: how many it looked at. A pid may have been given to a stranger
 * since the list was read: the pidfds are opened first, then the list is read again, and only who is on both
 * is killed. */
static int kill_batch(int fd, const pid_t *pids, size_t len, cgroup_guard guard, void *data, size_t *ret_n)
{
    _cleanup_(cgroup_members_clear) struct cgroup_members again = {0};
    int fds[PIDFDS_MAX];
    size_t n = *ret_n = open_pidfds(pids, len, fds);
    int r = n ? cgroup_members(fd, &again) : -EMFILE;
    for (size_t i = 0; i < n && r == 0; i++) {
        if (fds[i] < 0 || !cgroup_members_have(&again, pids[i]))
            continue;
        r = guard(pids[i], data);
        if (r == 0 && pidfd_send_signal(fds[i], SIGKILL, NULL, 0) < 0 && errno != ESRCH)
            r = -errno;
    }
    close_all(fds, n);
    return r;
}

int cgroup_kill_round(int fd, cgroup_guard guard, void *data)
{
    _cleanup_(cgroup_members_clear) struct cgroup_members members = {0};
    (void)fd_write_file(fd, "pids.max", "0"); /* a fork bomb would win the race for ever */
    int r = cgroup_members(fd, &members);
    for (size_t i = 0, n; i < members.len && r == 0; i += n)
        r = kill_batch(fd, members.pids + i, members.len - i, guard, data, &n);
    return r;
}

/* Opened before anything is frozen: to thaw it must not want for a descriptor, or what was killed never
 * dies. */
static int open_freezer(int fd, bool v2)
{
    int file = openat(fd, v2 ? "cgroup.freeze" : "freezer.state", O_RDWR | O_CLOEXEC);
    return file < 0 ? -errno : file;
}

static int write_freezer(int file, const char *text)
{
    int r = -1;
    for (int i = 0; i < 3 && r < 0; i++)
        r = pwrite(file, text, strlen(text), 0) < 0 ? -errno : 0;
    return r == -ENODEV ? 0 : r; /* it has been removed: nobody is in it */
}

/* In each cgroup that was frozen by itself. */
static int thaw_v1(int fd, void *data)
{
    (void)data;
    _cleanup_close_ int file = open_freezer(fd, false);
    if (file < 0)
        return file == -ENOENT || file == -ENODEV ? 0 : file;
    return write_freezer(file, "THAWED");
}

/* v1: FROZEN takes more than one write while processes come and go; without it the round is only less
 * sure. */
static int freeze_v1(int file)
{
    for (int i = 0; i < 20; i++) {
        char state[32] = "";
        int r = write_freezer(file, "FROZEN");
        if (r < 0)
            return r;
        if (pread(file, state, sizeof(state) - 1, 0) > 0 && strncmp(state, "FROZEN", 6) == 0)
            break;
        (void)poll(NULL, 0, 1);
    }
    return 0;
}

int cgroup_kill_frozen(int fd, cgroup_guard guard, void *data)
{
    bool v2 = is_v2(fd);
    _cleanup_close_ int file = open_freezer(fd, v2);
    int r = file < 0 ? file : v2 ? write_freezer(file, "1") : freeze_v1(file);
    if (file < 0 || (r < 0 && v2))
        return r;
    if (r == 0)
        r = cgroup_kill_round(fd, guard, data);
    /* v1: the signal works only once thawed, also where it could not be frozen to the last; v2: the killed
     * die frozen. */
    int thawed = write_freezer(file, v2 ? "0" : "THAWED");
    if (!v2 && thawed == 0)
        thawed = cgroup_walk(fd, thaw_v1, NULL);
    return r ? r : thawed == -ENOENT || thawed == -ENODEV ? 0 : thawed;
}

int cgroup_kill_at_once(int fd)
{
    return fd_write_file(fd, "cgroup.kill", "1");
}

int cgroup_kill(int fd, cgroup_guard guard, void *data)
{
    int r = cgroup_kill_at_once(fd);
    if (r == -ENOENT)
        r = cgroup_kill_frozen(fd, guard, data);
    if (r == -ENOENT || r == -EOPNOTSUPP)
        r = cgroup_kill_round(fd, guard, data);
    return r == -ENODEV ? 0 : r;
}

/* ---- waiting ---- */

/* Milliseconds to wait for, at least 1 while there is time left, at most a second. */
static int wait_ms(int64_t deadline_ns)
{
    int64_t left = deadline_ns - now_monotonic_ns();
    return left <= 0 ? 0 : left > 1000000000 ? 1000 : (int)(left / 1000000) + 1;
}

static int wait_events(int fd, int64_t deadline_ns)
{
    _cleanup_close_ int events = openat(fd, "cgroup.events", O_RDONLY | O_CLOEXEC);
    if (events < 0)
        return errno == ENOENT || errno == ENODEV ? 0 : -errno;
    for (;;) {
        char text[256];
        ssize_t n = pread(events, text, sizeof(text) - 1, 0); /* also arms the poll */
        if (n < 0)
            return errno == ENODEV ? 0 : -errno;
        text[n] = 0;
        if (strstr(text, "populated 0"))
            return 0;
        struct pollfd p = {.fd = events, .events = POLLPRI};
        int ms = wait_ms(deadline_ns);
        if (ms == 0)
            return -ETIMEDOUT;
        if (poll(&p, 1, ms) < 0 && errno != EINTR)
            return -errno;
    }
}

/* v1 has no event to wait for: the first of its members to die, then the caller looks again. */
static int wait_members(int fd, int64_t deadline_ns)
{
    _cleanup_(cgroup_members_clear) struct cgroup_members members = {0};
    struct pollfd fds[PIDFDS_MAX];
    int pidfds[PIDFDS_MAX];
    nfds_t n = 0;
    int r = cgroup_members(fd, &members);
    if (r < 0 || (members.len == 0 && !members.hidden))
        return r;
    size_t opened = open_pidfds(members.pids, members.len, pidfds);
    if (!opened && members.len)
        return -EMFILE;
    for (size_t i = 0; i < opened; i++)
        if (pidfds[i] >= 0)
            fds[n++] = (struct pollfd){.fd = pidfds[i], .events = POLLIN};
    int ms = wait_ms(deadline_ns);
    bool gone = n == 0 && members.len > 0; /* all of them died under our hands */
    r = gone ? 1 : poll(fds, n, ms < 100 ? ms : 100);
    r = r > 0 || (r < 0 && errno == EINTR) ? -EAGAIN : r < 0 ? -errno : ms == 0 ? -ETIMEDOUT : -EAGAIN;
    for (nfds_t i = 0; i < n; i++)
        (void)close(fds[i].fd);
    return r;
}

int cgroup_wait_empty(int fd, int64_t deadline_ns)
{
    return is_v2(fd) ? wait_events(fd, deadline_ns) : wait_members(fd, deadline_ns);
}

bool cgroup_is_frozen(int fd)
{
    char text[256];
    if (!is_v2(fd))
        return fd_read_file(fd, "freezer.state", text, sizeof(text)) > 0 && strncmp(text, "THAWED", 6) != 0;
    /* by itself, also while somebody in it does not stop yet; or by one above */
    return (fd_read_file(fd, "cgroup.freeze", text, sizeof(text)) > 0 && text[0] == '1') ||
           (fd_read_file(fd, "cgroup.events", text, sizeof(text)) > 0 && strstr(text, "frozen 1"));
}

int cgroup_enter(int dirfd)
{
    return fd_write_file(dirfd, "cgroup.procs", "0");
}
