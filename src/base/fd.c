/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/fd.h"

#include "base/cleanup.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

int fd_openat2(int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
        .mode = flags & (O_CREAT | O_TMPFILE) ? mode : 0,
        .resolve = resolve,
    };
    for (;;) {
        long fd = syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
        if (fd >= 0)
            return (int)fd;
        /* EAGAIN without RESOLVE_CACHED: a rename or mount raced with the walk (openat2(2)) */
        if (errno == EINTR || (errno == EAGAIN && !(resolve & RESOLVE_CACHED)))
            continue;
        return -errno;
    }
}

int fd_open_parent(const char *path, const char **ret_base)
{
    if (!path_is_normal(path) || !path[1])
        return -EINVAL;
    const char *slash = strrchr(path, '/');
    _cleanup_free_ char *dir = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
    if (!dir)
        return -ENOMEM;
    int fd = fd_openat2(AT_FDCWD, dir, O_PATH | O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS);
    if (fd >= 0)
        *ret_base = slash + 1;
    return fd;
}

void fd_path(int fd, char *buf, size_t size)
{
    char proc[32];
    (void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(proc, buf, size - 1); /* too deep: ENAMETOOLONG */
    buf[n > 0 ? n : 0] = 0;
}

ssize_t fd_read_file(int dirfd, const char *path, char *buf, size_t size)
{
    _cleanup_close_ int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    size_t len = 0;
    for (;;) {
        char probe;
        bool full = len == size - 1;
        ssize_t n = read(fd, full ? &probe : buf + len, full ? 1 : size - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        if (full)
            return -EFBIG;
        len += (size_t)n;
    }
    buf[len] = 0;
    return (ssize_t)len;
}

ssize_t fd_read_all(int dirfd, const char *path, size_t limit, char **ret)
{
    for (size_t size = 4096;; size *= 4) {
        if (size > limit + 1)
            size = limit + 1;
        _cleanup_free_ char *buf = malloc(size);
        if (!buf)
            return -ENOMEM;
        ssize_t n = fd_read_file(dirfd, path, buf, size);
        if (n == -EFBIG && size <= limit)
            continue;
        if (n >= 0)
            *ret = steal_ptr(buf);
        return n;
    }
}

ssize_t fd_pread_all(int fd, void *buf, size_t len, uint64_t offset)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int fd_next_data(int fd, uint64_t *at, uint64_t end, uint64_t *ret_end)
{
    if (*at >= end)
        return 0;
    off_t data = lseek(fd, (off_t)*at, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? 0 : -errno;
    if ((uint64_t)data >= end)
        return 0;
    off_t hole = lseek(fd, data, SEEK_HOLE);
    if (hole < 0)
        return errno == ENXIO ? 0 : -errno; /* cut short since */
    *at = (uint64_t)data;
    *ret_end = (uint64_t)hole < end ? (uint64_t)hole : end;
    return 1;
}

int fd_write_all(int fd, const void *data, size_t len)
{
    const char *p = data;
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) /* 0: it takes nothing more, and says not why */
            return n < 0 ? -errno : -ENOSPC;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

int fd_write_file(int dirfd, const char *path, const char *text)
{
    _cleanup_close_ int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    return fd_write_all(fd, text, strlen(text));
}

int fd_send_datagram(const char *name, struct iovec *parts, size_t n, atomic_bool *deaf)
{
    const struct timeval patience = {.tv_sec = 1};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct msghdr message = {.msg_name = &address, .msg_iov = parts, .msg_iovlen = n};
    size_t len = strlen(name);
    if (len >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, name, len);
    if (name[0] == '@')
        address.sun_path[0] = 0;
    message.msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
        return -errno;
    int flags = MSG_NOSIGNAL | (atomic_load(deaf) ? MSG_DONTWAIT : 0);
    int r = sendmsg(fd, &message, flags) < 0 ? -errno : 0;
    atomic_store(deaf, r == -EAGAIN);
    return r;
}

int fd_replace_file(int dirfd, const char *name, const char *prefix, const void *data, size_t len,
                    mode_t mode, bool sync_dir)
{
    uint64_t number;
    char temporary[NAME_MAX + 1];
    random_bytes(&number, sizeof(number));
    int n = snprintf(temporary, sizeof(temporary), "%s%016llx", prefix, (unsigned long long)number);
    if (n < 0 || (size_t)n >= sizeof(temporary))
        return -ENAMETOOLONG;
    _cleanup_close_ int fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                                    mode);
    if (fd < 0)
        return -errno;
    int r = fchmod(fd, mode) < 0 ? -errno : fd_write_all(fd, data, len); /* whatever the umask is */
    if (r == 0 && (fdatasync(fd) < 0 || renameat(dirfd, temporary, dirfd, name) < 0))
        r = -errno;
    if (r < 0)
        (void)unlinkat(dirfd, temporary, 0);
    else if (sync_dir && fsync(dirfd) < 0) /* not O_PATH */
        r = -errno;
    return r;
}

int fd_open_dir(int dirfd, const char *path)
{
    int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

DIR *fd_open_names_at(int dirfd, const char *path)
{
    _cleanup_close_ int own = fd_open_dir(dirfd, path);
    DIR *names = own < 0 ? NULL : fdopendir(own);
    int errnum = errno;
    if (names)
        own = -1;
    cleanup_closep(&own);
    own = -1;
    errno = errnum;
    return names;
}

DIR *fd_open_names(int dirfd)
{
    return fd_open_names_at(dirfd, ".");
}

const struct dirent *fd_next_name(DIR *names)
{
    const struct dirent *entry = NULL;
    errno = 0; /* that of readdir(3) stays */
    while (names && (entry = readdir(names)) &&
           (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0))
        ;
    return entry;
}

int fd_is_named(int dirfd, const char *name, int fd)
{
    struct stat by_name, by_fd;
    if (fstatat(dirfd, name, &by_name, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (fstat(fd, &by_fd) < 0)
        return -errno;
    return by_name.st_dev == by_fd.st_dev && by_name.st_ino == by_fd.st_ino;
}

int fd_dir_is_empty(int dirfd)
{
    _cleanup_closedir_ DIR *names = fd_open_names(dirfd);
    if (!names)
        return errno ? -errno : -ENOMEM;
    bool empty = !fd_next_name(names);
    return empty && errno ? -errno : empty;
}

int fd_low_hold(struct fd_low *low)
{
    while (low->len < 3) {
        if (fcntl(STDIN_FILENO, F_GETFD) >= 0 && fcntl(STDOUT_FILENO, F_GETFD) >= 0 &&
            fcntl(STDERR_FILENO, F_GETFD) >= 0)
            return 0;
        int fd = open("/", O_PATH | O_CLOEXEC);
        if (fd < 0)
            return -errno;
        if (fd > STDERR_FILENO) { /* another thread was faster */
            (void)close(fd);
            return 0;
        }
        low->fds[low->len++] = fd;
    }
    return 0;
}

void fd_low_release(struct fd_low *low)
{
    while (low->len)
        (void)close(low->fds[--low->len]);
}

static struct flock record_lock(short type, uint64_t offset)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = 1};
}

int fd_record_lock(int fd, short type, uint64_t offset)
{
    struct flock lock = record_lock(type, offset);
    while (fcntl(fd, F_SETLK, &lock) < 0) {
        if (errno == EACCES)
            return -EAGAIN;
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int fd_record_holder(int fd, uint64_t offset, pid_t *ret_pid)
{
    struct flock lock = record_lock(F_WRLCK, offset);
    if (fcntl(fd, F_GETLK, &lock) < 0)
        return -errno;
    if (lock.l_type == F_UNLCK)
        return 0;
    if (ret_pid)
        *ret_pid = lock.l_pid > 0 ? lock.l_pid : 0; /* 0: in a pid namespace that we can't see */
    return 1;
}

bool path_is_normal(const char *path)
{
    size_t len = path ? strlen(path) : 0;
    if (len == 0 || len >= PATH_MAX || path[0] != '/')
        return false;
    if (len == 1)
        return true;
    for (const char *part = path; part;) {
        const char *end = strchrnul(part + 1, '/');
        size_t n = (size_t)(end - part - 1);
        if (n == 0 || n > NAME_MAX || (n == 1 && part[1] == '.') ||
            (n == 2 && part[1] == '.' && part[2] == '.'))
            return false;
        part = *end ? end : NULL;
    }
    return true;
}

bool path_is_below(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    if (n == 1)
        return true;
    return strncmp(path, dir, n) == 0 && (path[n] == 0 || path[n] == '/');
}

static int64_t now_ns(clockid_t clock)
{
    struct timespec ts;
    (void)clock_gettime(clock, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t now_monotonic_ns(void)
{
    return now_ns(CLOCK_MONOTONIC);
}

int64_t now_realtime_ns(void)
{
    return now_ns(CLOCK_REALTIME);
}

/* What nobody else has at any other time. */
static void mix_unique(uint8_t *buf, size_t len)
{
    static _Atomic uint64_t count;
    const uint64_t own[] = {(uint64_t)now_realtime_ns(), (uint64_t)now_monotonic_ns(), (uint64_t)getpid(),
                            count++};
    for (size_t at = 0; at < len; at += sizeof(XXH64_hash_t)) {
        XXH64_hash_t hash = XXH3_64bits_withSeed(own, sizeof(own), at);
        for (size_t i = 0; i < sizeof(hash) && at + i < len; i++)
            buf[at + i] ^= (uint8_t)(hash >> 8 * i);
    }
}

void random_bytes(void *buf, size_t len)
{
    if (getrandom(buf, len, GRND_NONBLOCK) == (ssize_t)len) /* never short for up to 256 bytes */
        return;
    /* Early in a boot, without a saved seed or an instruction for it: the kernel would first make entropy out
     * of jitter, for a second or so, or, before 5.4, wait until something happens. */
    if (getrandom(buf, len, GRND_INSECURE) != (ssize_t)len)
        memset(buf, 0, len); /* before 5.6 */
    mix_unique(buf, len);
}

void hex_encode(char *out, const void *data, size_t len)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = "0123456789abcdef"[p[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[p[i] & 15];
    }
    out[2 * len] = 0;
}
