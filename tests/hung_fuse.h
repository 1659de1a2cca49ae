/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A FUSE file system whose server said hello and then never answers anything: what a dead network server
 * looks like.
 */
#ifndef RBXJ_TESTS_HUNG_FUSE_H
#define RBXJ_TESTS_HUNG_FUSE_H

#include "harness.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

/* errnum: what is answered; 0: nothing is. */
static inline void fuse_serve(int fd, int errnum)
{
    static char request[1 << 17];
    struct {
        struct fuse_out_header head;
        struct fuse_init_out init;
    } reply = {.head = {.len = sizeof(reply)},
               .init = {.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION}};
    const struct fuse_in_header *in = (const void *)request;
    while (read(fd, request, sizeof(request)) > 0) {
        if (in->opcode != FUSE_INIT) { /* taken, so that the caller can't even be killed, and kept */
            struct fuse_out_header failed = {sizeof(failed), -errnum, in->unique};
            if (errnum)
                (void)!write(fd, &failed, sizeof(failed));
            continue;
        }
        reply.head.unique = in->unique;
        reply.init.max_write = 4096;
        (void)!write(fd, &reply, sizeof(reply));
    }
}

/* Mounts one on path, which is made; returns the server, which harness_kill() ends. */
static inline pid_t hung_fuse(const char *path)
{
    char options[100];
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        harness_skip("no /dev/fuse");
    harness_mkdir(path);
    (void)snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
    assert_int_equal(0, mount("hung", path, "fuse", 0, options));
    pid_t pid = fork();
    if (pid == 0) {
        fuse_serve(fd, 0);
        _exit(0);
    }
    (void)close(fd);
    assert_true(pid > 0);
    harness_track(pid);
    return pid;
}

/* Helpers of this thread, in the state of one that hangs and was killed. */
static inline int count_hanging(void)
{
    int n = 0;
    long pid;
    _cleanup_fclose_ FILE *f = fopen("/proc/thread-self/children", "re");
    assert_non_null(f);
    while (fscanf(f, "%ld", &pid) == 1)
        n += strstr(harness_read(harness_format("/proc/%ld/stat", pid)), ") D ") != NULL;
    return n;
}

#endif
