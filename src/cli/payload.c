/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/payload.h"

#include "base/cleanup.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void all_but_faults(sigset_t *set)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    (void)sigfillset(set);
    for (size_t i = 0; i < ARRAY_LEN(faults); i++)
        (void)sigdelset(set, faults[i]);
}

int payload_block_signals(struct payload *payload)
{
    sigset_t set;
    all_but_faults(&set);
    /* where it was inherited as ignored, children would be reaped by the kernel and their status lost */
    if (signal(SIGCHLD, SIG_DFL) == SIG_ERR || sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    payload->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return payload->signals < 0 ? -errno : 0;
}

int payload_default_signals(void *unused)
{
    (void)unused;
    /* by the system call: glibc refuses the two that it uses itself, and make leaves them ignored */
    static const uint64_t default_action[4]; /* struct kernel_sigaction: SIG_DFL, no flags, empty mask */
    for (int number = 1; number < NSIG; number++)
        (void)syscall(SYS_rt_sigaction, number, default_action, NULL, sizeof(uint64_t));
    sigset_t none;
    (void)sigemptyset(&none);
    return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? errno : 0;
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

int payload_wait(const struct payload *payload)
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
    return status;
}

void payload_clear(struct payload *payload)
{
    cleanup_closep(&payload->pidfd);
    cleanup_closep(&payload->signals);
    *payload = (struct payload)PAYLOAD_INIT;
}
