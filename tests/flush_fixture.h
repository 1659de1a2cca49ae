/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Counts flushes: LMDB's calls, and our own, come here. For one file of a program.
 */
#ifndef RBXJ_TESTS_FLUSH_FIXTURE_H
#define RBXJ_TESTS_FLUSH_FIXTURE_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic uint64_t flushes;

int fdatasync(int fd)
{
    atomic_fetch_add(&flushes, 1);
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    atomic_fetch_add(&flushes, 1);
    return (int)syscall(SYS_fsync, fd);
}

int msync(void *address, size_t len, int flags)
{
    atomic_fetch_add(&flushes, 1);
    return (int)syscall(SYS_msync, address, len, flags);
}

#endif
