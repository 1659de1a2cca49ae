/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Stamps (K1): which record a thing is of, in an extended attribute of the thing itself, and as durable as
 * that.
 *
 * After a reboot a stamp counts only on what was born before this boot began, as cp -a copies it. Both sides
 * are the wall clock's; what may be wrong with them makes the boot begin too early, or a birth too late, and
 * the thing is left:
 *
 *   the birth            the file system's word, by the kernel's clock of ticks: up to 10 ms too early. That
 *                        is before this boot only for what is born within its first tick, in which no program
 *                        runs.
 *   the boot's begin     what it is now, less how long the machine is up (CLOCK_BOOTTIME, which counts sleep
 *                        and which nobody sets). Now is asked first: who is stopped between the two is wrong
 *                        to the safe side. A time namespace has another uptime, and says by how much.
 *   the clock itself     may be wrong at first: it comes from a chip that counts whole seconds, or from
 *                        nowhere. Behind by T, it makes what was born in the last T before a power cut look
 *                        like a copy, where the machine is back within T: no slack can be given for that, as
 *                        the first programs run within the first second, too. Such a thing is left until the
 *                        clock is right, or until the next boot.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/undo.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* The extended attributes of an open file, by a name that works for O_PATH as well. */
static const char *proc_fd(int fd, char buf[32])
{
    (void)snprintf(buf, 32, "/proc/self/fd/%d", fd);
    return buf;
}

int stamp_set(int fd, const struct record *r)
{
    char path[32], text[STAMP_MAX];
    stamp_format(text, r->incarnation, r->seq);
    if (setxattr(proc_fd(fd, path), "trusted.rbxj", text, strlen(text), 0) == 0)
        return 0;
    if (errno != EPERM && errno != EOPNOTSUPP)
        return -errno;
    if (setxattr(path, "user.rbxj", text, strlen(text), 0) == 0)
        return 0;
    return errno == EPERM ? -EOPNOTSUPP : -errno;
}

int stamp_get(int fd, uint64_t *incarnation, uint32_t *seq)
{
    char path[32], text[STAMP_MAX + 1];
    struct fileid id;
    ssize_t n = getxattr(proc_fd(fd, path), "trusted.rbxj", text, STAMP_MAX);
    if (n < 0 && (errno == ENODATA || errno == EPERM || errno == EOPNOTSUPP)) {
        n = getxattr(path, "user.rbxj", text, STAMP_MAX);
        /* anybody who owns a file can write that one: it counts on files of our own user */
        int res = n < 0 ? 0 : fileid_of_fd(fd, &id);
        if (res < 0 || (n >= 0 && id.uid != geteuid()))
            return res;
    }
    if (n < 0)
        return errno == ENODATA || errno == EOPNOTSUPP || errno == EPERM || errno == ERANGE ? 0 : -errno;
    text[n] = 0;
    return stamp_parse(text, incarnation, seq);
}

/* Whose it is matters not. 1, 0, or -errno. */
static int has_stamp(int fd, const struct record *r)
{
    static const char *const names[] = {"trusted.rbxj", "user.rbxj"};
    char path[32], text[STAMP_MAX + 1];
    uint64_t incarnation;
    uint32_t seq;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        ssize_t n = getxattr(proc_fd(fd, path), names[i], text, STAMP_MAX);
        if (n < 0 && errno != ENODATA && errno != EPERM && errno != EOPNOTSUPP && errno != ERANGE)
            return -errno;
        text[n < 0 ? 0 : n] = 0;
        if (n > 0 && stamp_parse(text, &incarnation, &seq) > 0 && incarnation == r->incarnation &&
            seq == r->seq)
            return 1;
    }
    return 0;
}

int stamp_is_missing(int fd, const struct record *r)
{
    int has = (r->flags & REC_STAMPED) && fileid_is_weak(&r->id) ? has_stamp(fd, r) : 1;
    return has < 0 ? has : !has;
}

int stamp_tells(int fd, const struct record *r, const struct fileid *found, bool same_boot)
{
    return (r->flags & REC_STAMPED) && fileid_may_be(&r->id, found, same_boot) ? has_stamp(fd, r) : 0;
}

void stamp_remove(int fd)
{
    char path[32];
    (void)removexattr(proc_fd(fd, path), "trusted.rbxj");
    (void)removexattr(path, "user.rbxj");
}

/* By how much CLOCK_BOOTTIME is ahead of the machine's here. 0, or a negative code: that can't be known. */
static int uptime_offset(int64_t *ret)
{
    char text[256], *end;
    struct stat own, childrens;
    ssize_t n = fd_read_file(AT_FDCWD, "/proc/self/timens_offsets", text, sizeof(text));
    *ret = 0;
    if (n == -ENOENT) /* before 5.6 */
        return 0;
    if (n < 0)
        return (int)n;
    /* they are those of our children */
    if (stat("/proc/self/ns/time", &own) < 0 || stat("/proc/self/ns/time_for_children", &childrens) < 0)
        return -errno;
    const char *line = strstr(text, "boottime");
    if (!line || own.st_ino != childrens.st_ino)
        return -EOPNOTSUPP;
    long long seconds = strtoll(line + strlen("boottime"), &end, 10);
    *ret = seconds * 1000000000 + strtoll(end, NULL, 10);
    return 0;
}

/* When this boot began, by the wall clock as it is now, or earlier; never later. */
static int boot_began(int64_t *ret)
{
    struct timespec up = {0};
    int64_t now = now_realtime_ns(), offset;
    if (clock_gettime(CLOCK_BOOTTIME, &up) < 0)
        return -errno;
    int r = uptime_offset(&offset);
    if (r == 0)
        *ret = now - ((int64_t)up.tv_sec * 1000000000 + up.tv_nsec - offset);
    return r;
}

int stamp_is_ours(int fd, const struct record *r, const struct fileid *id, bool same_boot,
                  const char **ret_why)
{
    uint64_t incarnation;
    uint32_t seq;
    int64_t boot_start = 0;
    int found = stamp_get(fd, &incarnation, &seq);
    if (found <= 0 || incarnation != r->incarnation || seq != r->seq)
        return found < 0 && found != -EOPNOTSUPP ? found : 0;
    if (same_boot || !id->btime_ns)
        return 1;
    /* what was born after the record's boot is a copy; this boot's start is after that one's end */
    int known = boot_began(&boot_start);
    if (known < 0 && known != -EOPNOTSUPP)
        return known;
    if (known == 0 && id->btime_ns < boot_start)
        return 1;
    if (ret_why)
        *ret_why = known < 0 ? "its stamp may be a copy's: when this boot began can't be known in here"
                             : "its stamp is a copy's: it was born in this boot, or the clock is behind";
    return 0;
}
