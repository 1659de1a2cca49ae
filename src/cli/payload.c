/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/payload.h"

#include "base/cleanup.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void all_but_faults(sigset_t *set)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    (void)sigfillset(set);
    for (size_t i = 0; i < ARRAY_LEN(faults); i++)
        (void)sigdelset(set, faults[i]);
}

/* What keeps its default for it: without SIGPIPE pipelines don't end, service managers ignore it; SIGXFSZ is
 * ours. */
static void note_ignored(sigset_t *set)
{
    struct sigaction action;
    (void)sigemptyset(set);
    for (int number = 1; number < __SIGRTMIN; number++)
        if (number != SIGCHLD && number != SIGPIPE && number != SIGXFSZ &&
            sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
            (void)sigaddset(set, number);
}

int payload_block_signals(struct payload *payload)
{
    sigset_t set;
    all_but_faults(&set);
    note_ignored(&payload->ignored);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    payload->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return payload->signals < 0 ? -errno : 0;
}

int payload_default_signals(void *data)
{
    const struct payload *payload = data;
    /* by the system call: glibc refuses the two that it uses itself, and make leaves them ignored */
    static const uint64_t default_action[4]; /* struct kernel_sigaction: SIG_DFL, no flags, empty mask */
    for (int number = 1; number < NSIG; number++)
        if (number >= __SIGRTMIN || !sigismember(&payload->ignored, number))
            (void)syscall(SYS_rt_sigaction, number, default_action, NULL, sizeof(uint64_t));
    sigset_t none;
    (void)sigemptyset(&none);
    return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? errno : 0;
}

/* ---- signals for it ---- */

static bool next_signal(const struct payload *payload, struct signalfd_siginfo *ret)
{
    return read(payload->signals, ret, sizeof(*ret)) == sizeof(*ret);
}

static bool is_for_it(int number)
{
    return number != SIGCHLD && number != SIGPIPE;
}

static bool is_stop(int number)
{
    return number == SIGTSTP || number == SIGTTIN || number == SIGTTOU;
}

void payload_note_signals(struct payload *payload)
{
    struct signalfd_siginfo info;
    (void)sigemptyset(&payload->early);
    while (next_signal(payload, &info))
        (void)sigaddset(&payload->early, (int)info.ssi_signo);
}

static void send_early(const struct payload *payload)
{
    for (int number = 1; number < NSIG; number++)
        if (is_for_it(number) && sigismember(&payload->early, number) == 1)
            (void)pidfd_send_signal(payload->pidfd, number, NULL, 0);
}

/* What the terminal sends goes to the whole foreground group: the payload has it already, if it is in ours.
 * But that the terminal is gone it tells the leader of its session alone. */
static bool has_it_already(const struct payload *payload, const struct signalfd_siginfo *info)
{
    if (info->ssi_code != SI_KERNEL || getpgid(payload->pid) != getpgrp())
        return false;
    switch ((int)info->ssi_signo) {
    case SIGINT:
    case SIGQUIT:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
    case SIGWINCH:
        return true;
    case SIGHUP:
    case SIGCONT:
        return getsid(0) != getpid();
    default: /* our own, by what was set up before we were executed: a timer, a limit */
        return false;
    }
}

static void forward(struct payload *payload, const struct signalfd_siginfo *info)
{
    int number = (int)info->ssi_signo;
    if (is_for_it(number) && !has_it_already(payload, info))
        (void)pidfd_send_signal(payload->pidfd, number, NULL, 0);
    if (is_stop(number) || number == SIGCONT)
        payload->stop = is_stop(number) ? number : 0;
}

/* It has stopped: so do we, outside of any call of the library, or a shell would wait for us in vain. Not by
 * SIGSTOP: where nobody is there to let us on (an orphaned process group) the kernel ignores the others. Who
 * sends it SIGSTOP alone does not mean us, but many programs stop themselves by that when they were told to
 * stop. */
static void stop_with_it(struct payload *payload)
{
    siginfo_t info = {0};
    sigset_t set;
    if (waitid(P_PID, (id_t)payload->pid, &info, WSTOPPED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
        return;
    int number = info.si_status == SIGSTOP ? payload->stop : info.si_status;
    if (!is_stop(number))
        return;
    payload->stop = 0;
    (void)signal(number, SIG_DFL);
    (void)raise(number);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, number);
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL); /* here we stop; the SIGCONT is forwarded */
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
}

int payload_wait(struct payload *payload)
{
    struct pollfd fds[] = {
        {.fd = payload->pidfd, .events = POLLIN},
        {.fd = payload->signals, .events = POLLIN},
    };
    send_early(payload);
    while (!(fds[0].revents & POLLIN)) {
        if (poll(fds, ARRAY_LEN(fds), -1) < 0 && errno != EINTR)
            break; /* then without forwarding */
        struct signalfd_siginfo info;
        while (next_signal(payload, &info))
            forward(payload, &info);
        stop_with_it(payload);
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
