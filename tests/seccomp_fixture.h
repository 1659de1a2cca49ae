/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A system call that fails as it does elsewhere: on another kernel, in a container, in want. For the rest of
 * the calling process' life: in a child of the test.
 */
#ifndef RBXJ_TESTS_SECCOMP_FIXTURE_H
#define RBXJ_TESTS_SECCOMP_FIXTURE_H

#include "harness.h"

#include "base/cleanup.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static inline void seccomp_add(struct sock_filter *code, unsigned short len)
{
    struct sock_fprog program = {.len = len, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        _exit(100);
}

/* What becomes of the call where that argument has that value: SECCOMP_RET_ERRNO | errnum,
 * SECCOMP_RET_KILL_PROCESS. */
static inline void seccomp_when(long call, int argument, uint32_t value, uint32_t becomes)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 8 * (uint32_t)argument),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, becomes),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    seccomp_add(code, ARRAY_LEN(code));
}

/* Whatever its arguments are. */
static inline void seccomp_fail(long call, int errnum)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)errnum),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    seccomp_add(code, ARRAY_LEN(code));
}

/* Runs it in a child, which must end by itself with that status. */
static inline void child_says(int (*run)(void), int expected)
{
    int status;
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(run());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), expected);
}

#endif
