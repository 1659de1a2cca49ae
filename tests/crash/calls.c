/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "calls.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define NO_PATH (-1)

#define OPENS EMFILE, ENFILE, ENOMEM, EIO, EACCES, EINTR
#define READS EIO, EINTR, ENOMEM
#define WRITES ENOSPC, EIO, EINTR, EDQUOT
#define LOOKS EIO, ENOMEM, EACCES
#define MAKES ENOSPC, EIO, EROFS, EACCES, ENOMEM, EDQUOT
#define REMOVES EBUSY, EIO, EROFS, EACCES, EPERM, ENOMEM
#define RENAMES ENOSPC, EIO, EROFS, EACCES, EBUSY, ENOMEM
#define NEW_FDS EMFILE, ENFILE, ENOMEM
#define FORKS EAGAIN, ENOMEM

/* 0 at the end of a list. */
static const struct call {
    long nr;
    const char *name;
    int path; /* which argument, or NO_PATH */
    int errnos[CALL_ERRNOS_MAX];
} calls[] = {
#define CALL(name, path, ...)                                                                                \
    {                                                                                                        \
        SYS_##name, #name, path,                                                                             \
        {                                                                                                    \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }
    CALL(openat, 1, OPENS),
    CALL(openat2, 1, OPENS, EAGAIN),
    CALL(open_tree, 1, OPENS),
    CALL(read, NO_PATH, READS),
    CALL(pread64, NO_PATH, READS),
    CALL(readv, NO_PATH, READS),
    CALL(getdents64, NO_PATH, EIO, ENOMEM),
    CALL(write, NO_PATH, WRITES),
    CALL(pwrite64, NO_PATH, WRITES),
    CALL(writev, NO_PATH, WRITES),
    CALL(pwritev, NO_PATH, WRITES),
    CALL(sendfile, NO_PATH, EIO, ENOSPC, EINTR, ENOMEM),
    CALL(copy_file_range, NO_PATH, EIO, ENOSPC, EINTR, ENOMEM),
    CALL(close, NO_PATH, EIO | STEP_DONE, EINTR | STEP_DONE),
    CALL(fsync, NO_PATH, EIO, ENOSPC),
    CALL(fdatasync, NO_PATH, EIO, ENOSPC),
    CALL(msync, NO_PATH, EIO),
    CALL(ftruncate, NO_PATH, EIO, ENOSPC, EINTR),
    CALL(fallocate, NO_PATH, ENOSPC, EIO, EINTR, EOPNOTSUPP),
    CALL(fstat, NO_PATH, EIO, ENOMEM),
    CALL(newfstatat, 1, LOOKS),
    CALL(statx, 1, LOOKS),
    CALL(statfs, 0, LOOKS),
    CALL(fstatfs, NO_PATH, EIO, ENOMEM),
    CALL(readlinkat, 1, LOOKS),
    CALL(faccessat, 1, LOOKS),
    CALL(faccessat2, 1, LOOKS),
    CALL(name_to_handle_at, 1, EIO, ENOMEM),
    CALL(mkdirat, 1, MAKES),
    CALL(unlinkat, 1, REMOVES),
    CALL(renameat, 1, RENAMES),
    CALL(renameat2, 1, RENAMES),
    CALL(linkat, 3, MAKES),
    CALL(symlinkat, 2, MAKES),
    CALL(fchmod, NO_PATH, EIO, EROFS, EPERM),
    CALL(fchmodat, 1, EIO, EROFS, EPERM),
    CALL(fchown, NO_PATH, EIO, EROFS, EPERM),
    CALL(utimensat, 1, EIO, EROFS, EPERM),
    CALL(setxattr, 0, ENOSPC, EIO, EROFS, ENOMEM, EDQUOT),
    CALL(fsetxattr, NO_PATH, ENOSPC, EIO, EROFS, ENOMEM, EDQUOT),
    CALL(getxattr, 0, EIO, ENOMEM),
    CALL(fgetxattr, NO_PATH, EIO, ENOMEM),
    CALL(removexattr, 0, EIO, EROFS, ENOMEM),
    CALL(ioctl, NO_PATH, EIO, ENOMEM, EINTR),
    CALL(flock, NO_PATH, EWOULDBLOCK, EINTR, ENOLCK, ENOMEM),
    CALL(mmap, NO_PATH, ENOMEM, EAGAIN),
    CALL(mremap, NO_PATH, ENOMEM),
    CALL(mprotect, NO_PATH, ENOMEM),
    CALL(munmap, NO_PATH, ENOMEM),
    CALL(mount, 1, ENOMEM, EBUSY, EPERM, ENOSPC, EIO),
    CALL(umount2, 0, EBUSY, ENOMEM, EPERM, EIO),
    CALL(move_mount, 3, ENOMEM, EBUSY, EPERM),
    CALL(setns, NO_PATH, ENOMEM, EPERM),
    CALL(unshare, NO_PATH, ENOMEM, EPERM, ENOSPC),
    CALL(ppoll, NO_PATH, EINTR, ENOMEM),
    CALL(pselect6, NO_PATH, EINTR, ENOMEM),
    CALL(clock_nanosleep, NO_PATH, EINTR),
    CALL(getrandom, NO_PATH, EINTR),
    CALL(clone, NO_PATH, FORKS),
    CALL(clone3, NO_PATH, FORKS),
    CALL(execve, 0, ENOMEM, EIO, EACCES),
    CALL(wait4, NO_PATH, EINTR),
    CALL(waitid, NO_PATH, EINTR),
    CALL(kill, NO_PATH, EPERM),
    CALL(pidfd_open, NO_PATH, NEW_FDS),
    CALL(pidfd_send_signal, NO_PATH, EPERM, ENOMEM),
    CALL(pipe2, NO_PATH, NEW_FDS),
    CALL(dup, NO_PATH, EMFILE),
    CALL(dup3, NO_PATH, EMFILE, EINTR, EBUSY),
    CALL(memfd_create, NO_PATH, NEW_FDS),
    CALL(socket, NO_PATH, NEW_FDS),
    CALL(socketpair, NO_PATH, NEW_FDS),
    CALL(connect, NO_PATH, ECONNREFUSED, EAGAIN, EINTR),
    CALL(sendto, NO_PATH, EAGAIN, ENOBUFS, EINTR),
    CALL(sendmsg, NO_PATH, EAGAIN, ENOBUFS, EINTR),
    CALL(recvfrom, NO_PATH, EINTR, ENOMEM),
    CALL(recvmsg, NO_PATH, EINTR, ENOMEM),
    CALL(timerfd_create, NO_PATH, NEW_FDS),
    CALL(eventfd2, NO_PATH, NEW_FDS),
#ifdef __x86_64__
    CALL(open, 0, OPENS),
    CALL(stat, 0, LOOKS),
    CALL(lstat, 0, LOOKS),
    CALL(readlink, 0, LOOKS),
    CALL(access, 0, LOOKS),
    CALL(mkdir, 0, MAKES),
    CALL(rmdir, 0, REMOVES),
    CALL(unlink, 0, REMOVES),
    CALL(rename, 0, RENAMES),
    CALL(symlink, 1, MAKES),
    CALL(link, 1, MAKES),
    CALL(poll, NO_PATH, EINTR, ENOMEM),
    CALL(fork, NO_PATH, FORKS),
    CALL(vfork, NO_PATH, FORKS),
    CALL(pipe, NO_PATH, NEW_FDS),
    CALL(dup2, NO_PATH, EMFILE, EINTR, EBUSY),
#endif
#undef CALL
};

static const struct call *call_of(long nr)
{
    for (size_t i = 0; i < ARRAY_LEN(calls); i++)
        if (calls[i].nr == nr)
            return &calls[i];
    return NULL;
}

static size_t add(int ret[CALL_ERRNOS_MAX], size_t n, const int *errnos)
{
    for (; *errnos && n < CALL_ERRNOS_MAX; errnos++)
        ret[n++] = *errnos;
    return n;
}

static size_t errnos_of_fcntl(const struct step_call *call, int ret[CALL_ERRNOS_MAX])
{
    switch ((int)call->args[1]) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        return add(ret, 0, (const int[]){EMFILE, 0});
    case F_SETLK:
    case F_SETLKW:
    case F_GETLK:
    case F_OFD_SETLK:
    case F_OFD_GETLK:
        return add(ret, 0, (const int[]){ENOLCK, EINTR, ENOMEM, 0});
    default:
        return 0;
    }
}

size_t call_errnos(const struct step_call *call, int ret[CALL_ERRNOS_MAX])
{
    const struct call *known = call_of(call->nr);

    if (call->nr == SYS_fcntl)
        return errnos_of_fcntl(call, ret);
    if (call->nr == SYS_futex && ((int)call->args[1] & FUTEX_CMD_MASK) == FUTEX_WAIT)
        return add(ret, 0, (const int[]){EINTR, EAGAIN, 0});
    size_t n = known ? add(ret, 0, known->errnos) : 0;
    if (call->nr == SYS_openat && (call->args[2] & O_CREAT))
        n = add(ret, n, (const int[]){ENOSPC, EROFS, EDQUOT, 0});
    return n;
}

bool call_is_of_loader(const struct step_call *call)
{
    char path[40], line[4200];
    uint64_t start, end;

    (void)snprintf(path, sizeof(path), "/proc/%d/maps", call->pid);
    _cleanup_fclose_ FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) == 2 && call->from >= start &&
            call->from < end)
            return strstr(line, "/ld-") != NULL;
    return false;
}

void call_describe(const struct step_call *call, char *buf, size_t size)
{
    const struct call *known = call_of(call->nr);
    char text[200] = "";
    struct iovec local = {text, sizeof(text) - 1}, remote = {0};

    if (!known) {
        (void)snprintf(buf, size, "call %ld", call->nr);
        return;
    }
    if (known->path >= 0) {
        /* up to the end of the page: what follows may not be there */
        remote.iov_base = (void *)(uintptr_t)call->args[known->path];
        remote.iov_len = 4096 - (call->args[known->path] & 4095);
        if (remote.iov_len > local.iov_len)
            remote.iov_len = local.iov_len;
        if (process_vm_readv(call->tid, &local, 1, &remote, 1, 0) < 0)
            text[0] = '\0';
    }
    (void)snprintf(buf, size, known->path < 0 ? "%s(%ld)" : "%s(%ld, %s)", known->name, (long)call->args[0],
                   text);
}
