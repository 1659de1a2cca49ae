/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * STATE/alive: who has the journals open, and who owns a box (K9, K21). The locks are POSIX record locks: the
 * kernel drops them when the process dies, they are not inherited, and they are seen across pid namespaces.
 * Closing any descriptor of the file in this process would drop them all: only alive_open() opens it.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <time.h>

uint64_t alive_slot(uint64_t incarnation)
{
    return incarnation % (1ull << 62) + 1;
}

/* A handle may be closed while a box of this process goes on: the locks last as long as the process, and so
 * does a descriptor of each file in which there are some. Changed only by who opens or closes a handle,
 * alone. */
#define KEPT_MAX 16
static _Atomic int owned_boxes;
static int kept[KEPT_MAX];
static size_t kept_len;

/* The one of that file: its place, -ENOENT: there is none; or another -errno. */
static int find_kept(const struct stat *alive)
{
    struct stat st;
    for (size_t i = 0; i < kept_len; i++) {
        if (fstat(kept[i], &st) < 0) {
            if (errno != EBADF) /* closed by the program: its locks went with it */
                return -errno;
        } else if (st.st_dev == alive->st_dev && st.st_ino == alive->st_ino) {
            return (int)i;
        }
    }
    return -ENOENT;
}

int alive_open(int state_fd)
{
    struct stat st;
    int found = fstatat(state_fd, "alive", &st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : find_kept(&st);
    if (found >= 0) {
        int fd = kept[found];
        kept[found] = kept[--kept_len];
        return fd;
    }
    if (found != -ENOENT) /* to close a second descriptor of it would drop the locks */
        return found;
    int fd = openat(state_fd, "alive", O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

void alive_close(int fd)
{
    if (fd < 0)
        return;
    if (atomic_load(&owned_boxes) == 0)
        (void)close(fd);
    else if (kept_len < KEPT_MAX) /* else it stays open, too, and nobody uses it */
        kept[kept_len++] = fd;
}

int alive_own(struct journal *j, uint64_t incarnation)
{
    int r = fd_record_lock(j->alive_fd, F_WRLCK, alive_slot(incarnation));
    if (r == 0)
        atomic_fetch_add(&owned_boxes, 1);
    return r;
}

void alive_disown(struct journal *j, uint64_t incarnation)
{
    (void)fd_record_lock(j->alive_fd, F_UNLCK, alive_slot(incarnation));
    atomic_fetch_sub(&owned_boxes, 1);
}

/* The content: which boot and which runtime directory the holders of byte 0 use. */
static int describe_self(const struct journal *j, char *buf, size_t size)
{
    struct stat st;
    char boot[33];
    hex_encode(boot, j->boot_id, 16);
    if (fstat(j->runtime_fd, &st) < 0)
        return -errno;
    (void)snprintf(buf, size, "%s %llu:%llu %s\n", boot, (unsigned long long)st.st_dev,
                   (unsigned long long)st.st_ino, j->runtime_dir);
    return 0;
}

int alive_enter(struct journal *j, bool exclusive, struct rbxj_error *e)
{
    char own[RECORD_PATH_MAX + 128], found[RECORD_PATH_MAX + 128];
    pid_t pid;
    int r = describe_self(j, own, sizeof(own));
    if (r < 0)
        return error_sys(e, -r, "runtime directory %s", j->runtime_dir);
    ssize_t n = pread(j->alive_fd, found, sizeof(found) - 1, 0);
    if (n < 0)
        return error_sys(e, errno, "%s/alive", j->state_dir);
    found[n] = 0;
    int others = fd_record_holder(j->alive_fd, ALIVE_OPEN_BYTE, &pid);
    if (others < 0)
        return error_sys(e, -others, "%s/alive", j->state_dir);
    if (!others && !exclusive)
        return -EAGAIN;
    j->alone = others == 0;
    if (strcmp(own, found) != 0) {
        /* another boot or another runtime directory: only if nobody is at work there */
        if (others) {
            found[strcspn(found, "\n")] = 0;
            char *dir = strchr(found, '/');
            return error_set(e, RBXJ_E_JOURNAL_DAMAGED, EBUSY,
                             "journal %s: is in use by pid %d with runtime directory %s", j->state_dir, pid,
                             dir ? dir : "unknown");
        }
        if (ftruncate(j->alive_fd, 0) < 0 || pwrite(j->alive_fd, own, strlen(own), 0) != (ssize_t)strlen(own))
            return error_sys(e, errno ? errno : EIO, "%s/alive", j->state_dir);
    }
    r = fd_record_lock(j->alive_fd, F_RDLCK, ALIVE_OPEN_BYTE);
    return r < 0 ? error_sys(e, -r, "%s/alive: its lock", j->state_dir) : 0;
}

int alive_lock_disk(const struct journal *j, struct rbxj_error *e)
{
    int64_t deadline = now_monotonic_ns() + j->options.gate_timeout_ns;
    char who[160];
    pid_t pid = 0;
    int r;
    while ((r = fd_record_lock(j->alive_fd, F_WRLCK, ALIVE_DISK_BYTE)) == -EAGAIN &&
           now_monotonic_ns() < deadline)
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 2000000}, NULL);
    if (r != -EAGAIN)
        return r < 0 ? error_sys(e, -r, "%s/alive: its lock", j->state_dir) : 0;
    (void)fd_record_holder(j->alive_fd, ALIVE_DISK_BYTE, &pid);
    procid_describe(pid, who, sizeof(who));
    return error_set(e, RBXJ_E_JOURNAL_BUSY, ETIMEDOUT, "%s: its disk journal is held by pid %d (%s)",
                     j->state_dir, pid, who);
}

void alive_unlock_disk(const struct journal *j)
{
    (void)fd_record_lock(j->alive_fd, F_UNLCK, ALIVE_DISK_BYTE);
}

/* Does anybody else hold that byte? 1 (*ret_pid: who, 0 when he can't be seen from here; may be NULL), 0 or a
 * negative errno. */
static int byte_is_held(const struct journal *j, const char *state_dir, uint64_t byte, pid_t *ret_pid)
{
    char path[RECORD_PATH_MAX + 8];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/alive", state_dir);
    /* a second descriptor would drop this process' locks when it is closed */
    if (!j && lstat(path, &st) < 0)
        return -errno;
    if (!j)
        j = journal_with_alive(&st);
    if (j)
        return fd_record_holder(j->alive_fd, byte, ret_pid);
    int found = find_kept(&st); /* of a handle that was closed */
    if (found != -ENOENT)
        return found < 0 ? found : fd_record_holder(kept[found], byte, ret_pid);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return fd < 0 ? -errno : fd_record_holder(fd, byte, ret_pid);
}

const struct procid *journal_self(const struct journal *j)
{
    return &j->self;
}

/* Its lock was taken in another file where this one is younger than the box: a state directory that was
 * salvaged into, or copied. One that seems to be of the future was made by a clock that was wrong, and tells
 * nothing. */
static bool lock_is_elsewhere(const char *state_dir, const struct box *box)
{
    char path[RECORD_PATH_MAX + 8];
    struct statx sx;
    (void)snprintf(path, sizeof(path), "%s/alive", state_dir);
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BTIME, &sx) < 0)
        return true;
    int64_t made_ns = sx.stx_btime.tv_sec * 1000000000LL + sx.stx_btime.tv_nsec;
    return (sx.stx_mask & STATX_BTIME) && made_ns > box->begun_ns && made_ns <= now_realtime_ns();
}

/* Of another pid or time namespace: only its record lock tells. */
static enum liveness liveness_by_lock(const struct journal *j, const char *state_dir, const struct box *box,
                                      const struct procid *self)
{
    int slot = byte_is_held(j, state_dir, alive_slot(box->incarnation), NULL);
    if (slot > 0)
        return LIVE_ALIVE;
    if (slot == 0 && (box->flags & BOX_OWNER_LOCK) && !lock_is_elsewhere(state_dir, box))
        return LIVE_DEAD;
    /* A box that was begun for another process has no lock. In a container, where nobody has the journals
     * open, it is one of an earlier life of the container: that pid namespace is gone, unless it is one in
     * this container, whose processes are seen. The host can't tell. */
    if (self->pid_ns != PROCID_INITIAL_PID_NS && byte_is_held(j, state_dir, ALIVE_OPEN_BYTE, NULL) == 0 &&
        (box->supervisor.pid_ns == self->pid_ns || procid_pid_ns_is_used(box->supervisor.pid_ns) != 1))
        return LIVE_DEAD;
    return LIVE_UNKNOWN;
}

int box_find_liveness(struct journal *j, const char *state_dir, const struct box *box, enum liveness *ret)
{
    struct procid self;
    *ret = LIVE_UNKNOWN;
    int r = j ? 0 : procid_of(getpid(), &self);
    if (r < 0)
        return r;
    if (j)
        self = j->self;
    if (memcmp(self.boot_id, box->supervisor.boot_id, 16) != 0) {
        *ret = LIVE_DEAD;
    } else if (procid_comparable(&self, &box->supervisor)) {
        int fd = procid_equal(&box->supervisor, &self) ? -EEXIST : procid_open(&box->supervisor);
        if (fd >= 0)
            (void)close(fd);
        else if (errno_is_want(-fd) || fd == -EIO)
            return fd;
        *ret = fd >= 0 || fd == -EEXIST ? LIVE_ALIVE : fd == -ESRCH ? LIVE_DEAD : LIVE_UNKNOWN;
    } else {
        *ret = liveness_by_lock(j, state_dir, box, &self);
    }
    return 0;
}

enum liveness box_liveness(struct journal *j, const char *state_dir, const struct box *box)
{
    enum liveness live;
    (void)box_find_liveness(j, state_dir, box, &live);
    return live;
}

int journal_pid_ns_is_gone(const char *state_dir, const struct procid *id)
{
    struct procid self;
    int r = procid_of(getpid(), &self);
    if (r < 0 || !id->pid_ns || id->pid_ns == self.pid_ns)
        return errno_is_want(-r) ? r : 0;
    int used = procid_pid_ns_is_used(id->pid_ns);
    if (used)
        return errno_is_want(-used) ? used : 0;
    if (self.pid_ns == PROCID_INITIAL_PID_NS) /* from where all are seen */
        return 1;
    /* one beside this container's is not: as with supervisors, it is one of an earlier life of this container
     * if nobody in it has the journals open */
    int held = byte_is_held(NULL, state_dir, ALIVE_OPEN_BYTE, NULL);
    return held < 0 ? (errno_is_want(-held) ? held : 0) : !held;
}

/* In another pid or time namespace: the kernel tells the lock's holder as a pid of ours, if it has one. It
 * still held it when the pidfd was open, so it is no other process of that pid. */
static int open_holder(const char *state_dir, const struct box *box)
{
    pid_t pid = 0, again = 0;
    int held = byte_is_held(NULL, state_dir, alive_slot(box->incarnation), &pid);
    if (held <= 0 || pid <= 0)
        return held < 0 ? held : -EAGAIN;
    _cleanup_close_ int fd = pidfd_open(pid, 0);
    if (fd < 0)
        return errno == ESRCH ? -EAGAIN : -errno;
    held = byte_is_held(NULL, state_dir, alive_slot(box->incarnation), &again);
    return held > 0 && again == pid ? steal_fd(&fd) : held < 0 ? held : -EAGAIN;
}

pid_t box_owner_pid(const char *state_dir, const struct box *box)
{
    pid_t pid = 0;
    int held = byte_is_held(NULL, state_dir, alive_slot(box->incarnation), &pid);
    return held < 0 && held != -ENOENT ? held : held > 0 ? pid : 0;
}

int box_open_supervisor(const char *state_dir, const struct box *box)
{
    struct procid self;
    enum liveness live;
    int r = procid_of(getpid(), &self);
    if (r < 0)
        return r;
    if (procid_comparable(&self, &box->supervisor)) {
        r = procid_open(&box->supervisor);
        return r >= 0 || r == -ESRCH || errno_is_want(-r) ? r : -EAGAIN;
    }
    r = box_find_liveness(NULL, state_dir, box, &live);
    if (r < 0 || live == LIVE_DEAD)
        return r < 0 ? r : -ESRCH;
    return live == LIVE_ALIVE ? open_holder(state_dir, box) : -EAGAIN;
}
