/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The payload's process. Between fork and exec the child makes system calls only: the library may have
 * threads.
 */
#include "cli/payload.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { EXIT_NOT_LET_GO = 125, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127 };

static void all_but_faults(sigset_t *set)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    (void)sigfillset(set);
    for (size_t i = 0; i < ARRAY_LEN(faults); i++)
        (void)sigdelset(set, faults[i]);
}

int payload_block_signals(void)
{
    sigset_t set;
    all_but_faults(&set);
    /* where it was inherited as ignored, children would be reaped by the kernel and their status lost */
    if (signal(SIGCHLD, SIG_DFL) == SIG_ERR)
        return -errno;
    return sigprocmask(SIG_BLOCK, &set, NULL) < 0 ? -errno : 0;
}

/* ---- in the child ---- */

/* The journal, its locks and the flock of the box stay with the supervisor (K7). */
static void close_all_but(int a, int b)
{
    unsigned first = (unsigned)(a < b ? a : b), second = (unsigned)(a < b ? b : a);
    if (first > 3)
        (void)close_range(3, first - 1, 0);
    if (second > first + 1)
        (void)close_range(first + 1, second - 1, 0);
    (void)close_range(second + 1, ~0U, 0);
}

static void default_signals(void)
{
    /* by the system call: glibc refuses the two that it uses itself, and make leaves them ignored */
    static const uint64_t default_action[4]; /* struct kernel_sigaction: SIG_DFL, no flags, empty mask */
    for (int number = 1; number < NSIG; number++)
        (void)syscall(SYS_rt_sigaction, number, default_action, NULL, sizeof(uint64_t));
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void child(int go, int exec, char **argv)
{
    close_all_but(go, exec);
    char byte;
    if (read(go, &byte, 1) != 1)
        _exit(EXIT_NOT_LET_GO);
    default_signals();
    (void)execvp(argv[0], argv);
    int cause = errno;
    (void)!write(exec, &cause, sizeof(cause));
    _exit(cause == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

/* ---- in the supervisor ---- */

static void payload_clear(struct payload *payload)
{
    int *fds[] = {&payload->pidfd, &payload->signals, &payload->go, &payload->exec};
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        cleanup_closep(fds[i]);
        *fds[i] = -1;
    }
}

/* Both pipes and the signalfd before the fork, so that after it only the pidfd can fail. */
static int open_descriptors(struct payload *payload, int *ret_go, int *ret_exec)
{
    int go[2], exec[2];
    if (pipe2(go, O_CLOEXEC) < 0)
        return -errno;
    payload->go = go[1];
    *ret_go = go[0];
    if (pipe2(exec, O_CLOEXEC) < 0)
        return -errno;
    payload->exec = exec[0];
    *ret_exec = exec[1];
    sigset_t set;
    all_but_faults(&set);
    payload->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return payload->signals < 0 ? -errno : 0;
}

int payload_start(struct payload *payload, char **argv)
{
    _cleanup_close_ int go = -1, exec = -1;
    *payload = (struct payload){.pid = -1, .pidfd = -1, .signals = -1, .go = -1, .exec = -1};
    int rc = open_descriptors(payload, &go, &exec);
    if (rc == 0) {
        payload->pid = fork();
        if (payload->pid == 0)
            child(go, exec, argv);
        rc = payload->pid < 0 ? -errno : 0;
    }
    if (rc == 0) {
        payload->pidfd = pidfd_open(payload->pid, 0);
        rc = payload->pidfd < 0 ? -errno : 0;
    }
    if (rc < 0)
        payload_abandon(payload);
    return rc;
}

void payload_abandon(struct payload *payload)
{
    payload_clear(payload); /* end of file: it exits */
    if (payload->pid > 0)
        (void)waitpid(payload->pid, NULL, 0);
    payload->pid = -1;
}

int payload_let_go(struct payload *payload)
{
    int cause = 0;
    /* A payload that was killed while it waited is no error here: payload_wait() tells how it ended. */
    (void)!write(payload->go, "", 1);
    if (read(payload->exec, &cause, sizeof(cause)) != sizeof(cause))
        cause = 0;
    return cause;
}

static void forward(const struct payload *payload, const struct signalfd_siginfo *info)
{
    int number = (int)info->ssi_signo;
    bool stops = number == SIGTSTP || number == SIGTTIN || number == SIGTTOU;
    if (number == SIGCHLD || number == SIGPIPE)
        return;
    /* What the terminal sends goes to the whole foreground group: the payload has it already. */
    if (info->ssi_code != SI_KERNEL || getpgid(payload->pid) != getpgrp())
        (void)pidfd_send_signal(payload->pidfd, number, NULL, 0);
    if (stops)
        (void)raise(SIGSTOP); /* here, outside of any call of the library */
}

int payload_wait(struct payload *payload)
{
    struct pollfd fds[] = {
        {.fd = payload->pidfd, .events = POLLIN},
        {.fd = payload->signals, .events = POLLIN},
    };
    while (!(fds[0].revents & POLLIN)) {
        if (poll(fds, ARRAY_LEN(fds), -1) < 0 && errno != EINTR)
            break; /* then without forwarding */
        struct signalfd_siginfo info;
        while (read(payload->signals, &info, sizeof(info)) == sizeof(info))
            forward(payload, &info);
    }
    int status = 0;
    (void)waitpid(payload->pid, &status, 0);
    payload_clear(payload);
    return status;
}
