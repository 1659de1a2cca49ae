/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj watch: replays each box as soon as its supervisor is dead.
 *
 *     look: whose supervisors are dead (reaper/monitor.h), whose turn it is (reaper/turns.h)
 *       |  somebody's:  a child calls rbxj_replay() for those boxes; look again when it has ended
 *       |  nobody's:    wait for a commit, a death, a turn, a signal
 *
 * The replay is in a child of its own: a box whose undo kills the reaper (K34) does not end the watch, the
 * watchdog is fed and signals are heard while an undo takes its time, and a signal to both of them breaks off
 * no undo. There is one child at a time, as there is one reaper; what happens meanwhile is seen by the look
 * after it. A watch that is killed leaves its child to finish, and has nothing to lose (W2); another one
 * waits for that child as for any reaper. One that is told to stop gives it a little time, and kills it:
 * whoever stops it wants nothing to be undone any more, and a replay may be killed at any instruction (I5).
 * What it was at stays stale, with its incident, and is the next one's.
 *
 * It ends when it is told to, or at its start when it may not read the journal. Whatever else is wrong, a
 * damaged journal too, may be mended beside it: it stays, says so once, and tries again after a while.
 */
#include "cli/cli.h"

#include "base/cleanup.h"
#include "base/config.h"
#include "base/fd.h"
#include "cli/notify.h"
#include "reaper/monitor.h"
#include "reaper/turns.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#define NEVER INT64_MAX
#define MILLISECOND 1000000LL

/* After a commit: a begin is followed by what is acquired, and a look sees all of it. */
#define SETTLE_NS (5 * MILLISECOND)
/* Looks take at most so much of the time: one part in so many after a commit, and after a death. */
#define COMMIT_SHARE 4
#define DEATH_SHARE 1
#define UNWATCHED_NS (10 * TURNS_SECOND)
#define TRY_AGAIN_NS TURNS_SECOND
#define MANY 1000
/* Whoever has standard output takes it within that: the next replay waits. */
#define READER_S 10
/* After SIGKILL: what it takes to die, unless it hangs. */
#define DEATH_NS (2 * TURNS_SECOND)

const struct cli_option watch_options[] = {
    {0},
};

struct watch {
    struct cli *cli;
    struct monitor *monitor;
    struct monitor_view view;
    struct turns turns;
    sigset_t signals;
    int signal_fd;
    pid_t child;      /* that replays; 0: none */
    int ended;        /* the exit status of the last one */
    int start_failed; /* errno: the last one could not be started; 0 */
    bool ready, told_ready, stopping;
    int64_t look_at;                  /* NEVER: nothing asks for it */
    int64_t looked_at, look_took;     /* when the last one was over */
    int64_t watchdog_ns, watchdog_at; /* NEVER: nobody waits for us */
    int64_t stop_ns, stop_at;         /* when the child is broken off; NEVER: it may go on */
    bool broken_off;
    char at[BOX_NAME_MAX + 8]; /* what the child was told to replay */
    char said[600], status[200];
};

static void look_no_later(struct watch *w, int64_t at)
{
    if (at < w->look_at)
        w->look_at = at;
}

/* ---- telling ---- */

/* A problem that lasts is told once; another one, or the same after it was over, again. */
static void say(struct watch *w, const char *text)
{
    if (strcmp(w->said, text) == 0)
        return;
    (void)snprintf(w->said, sizeof(w->said), "%s", text);
    if (*text)
        print_problem("watch: %s", text);
}

static void tell_status(struct watch *w)
{
    char text[sizeof(w->status)];
    const struct monitor_view *v = &w->view;
    int n = snprintf(text, sizeof(text), "%zu boxes of %zu supervisors", v->boxes, v->supervisors);
    if (v->unwatched)
        n += snprintf(text + n, sizeof(text) - (size_t)n, ", %zu of which can't be waited for", v->unwatched);
    if (w->child)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "; undoing");
    else if (v->dead_len)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "; %zu boxes of dead ones are left", v->dead_len);
    if (w->said[0])
        (void)snprintf(text + n, sizeof(text) - (size_t)n, "; %.100s", w->said);
    if (w->told_ready && strcmp(text, w->status) == 0)
        return;
    (void)strcpy(w->status, text);
    w->told_ready = notify_send("%sSTATUS=%s", w->told_ready ? "" : "READY=1\n", text) != -EAGAIN ||
                    w->told_ready;
    if (!w->told_ready) /* who starts it waits for that */
        look_no_later(w, now_monotonic_ns() + UNWATCHED_NS);
    w->ready = true;
}

/* ---- the child ---- */

static void report(const struct cli *cli, const struct rbxj_result *result)
{
    struct print_style style = cli->style;
    struct rbxj_result_info info;
    rbxj_result_info(result, &info);
    if (!info.boxes)
        return;
    style.quiet = style.quiet || !(style.verbose || isatty(STDOUT_FILENO));
    print_replay(&style, result);
    (void)print_finish();
}

static volatile sig_atomic_t exit_status;

static void nobody_reads(int number)
{
    (void)number;
    _exit(exit_status);
}

/* The exit status is that of `rbxj replay`. */
static _Noreturn void replay(struct watch *w, const char *const *names, size_t n)
{
    struct rbxj_replay how = {.boxes = names, .boxes_len = names ? n : 0};
    struct rbxj_result *result = NULL;
    struct rbxj_error error = {0};
    sigset_t child;
    monitor_leave(w->monitor); /* an undo needs descriptors of its own */
    (void)close(w->signal_fd);
    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    (void)sigaddset(&child, SIGALRM);
    (void)sigprocmask(SIG_UNBLOCK, &child, NULL);
    int rc = rbxj_replay(&w->cli->options, &how, &result, &error);
    int status = rc > 0 ? STATUS_LEFT : rc < 0 ? (int)status_of(rc) : STATUS_DONE;
    /* another reaper is nobody's trouble; and what lasts is told once */
    if (rc < 0 && rc != -RBXJ_E_BUSY && status != w->ended)
        print_failure(&w->cli->style, "watch", rc, &error);
    exit_status = status;
    (void)signal(SIGALRM, nobody_reads);
    (void)alarm(READER_S);
    if (rc >= 0) /* what can't be printed is told, and is done all the same (K19) */
        report(w->cli, result);
    _exit(status);
}

/* names NULL: all boxes. */
static void start_child(struct watch *w, const char *const *names, size_t n)
{
    (void)fflush(NULL);
    pid_t pid = fork();
    w->start_failed = pid < 0 ? errno : 0; /* the look that follows says so */
    if (pid == 0)
        replay(w, names, n);
    if (names && n == 1)
        (void)snprintf(w->at, sizeof(w->at), "box %s", names[0]);
    else if (names)
        (void)snprintf(w->at, sizeof(w->at), "%zu boxes", n);
    else
        (void)strcpy(w->at, "all boxes");
    if (pid > 0)
        w->child = pid;
    else
        turns_done(&w->turns, -w->start_failed, now_monotonic_ns());
}

static int result_of(int status)
{
    if (!WIFEXITED(status))
        return -ECHILD;
    switch (WEXITSTATUS(status)) {
    case STATUS_DONE:
    case STATUS_LEFT:
        return 0;
    case STATUS_DAMAGED:
        return -RBXJ_E_JOURNAL_DAMAGED;
    case STATUS_BUSY:
        return -RBXJ_E_BUSY;
    default:
        return -EIO;
    }
}

static void child_ended(struct watch *w, int status)
{
    int64_t now = now_monotonic_ns();
    w->child = 0;
    w->ended = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (WIFSIGNALED(status) && !w->broken_off)
        print_problem("watch: a replay was killed by signal %d; it is tried again", WTERMSIG(status));
    turns_done(&w->turns, result_of(status), now);
    w->look_at = now;
}

/* The first process of a container is also given those whose parent has died, payloads of dead boxes among
 * them, and nobody else takes them away. */
static void reap_children(struct watch *w)
{
    bool first = getpid() == 1;
    int status;
    for (pid_t pid; (first || w->child) && (pid = waitpid(first ? -1 : w->child, &status, WNOHANG)) > 0;)
        if (pid == w->child)
            child_ended(w, status);
}

/* It has had its time since we were told to stop. */
static void break_off(struct watch *w, int64_t now)
{
    if (w->broken_off) { /* it hangs where nobody can be killed; it goes on no further */
        print_problem("watch: a replay of %s, pid %d, can't be killed, and is left behind", w->at, w->child);
        w->child = 0;
        return;
    }
    print_problem("watch: told to stop while a replay of %s goes on: it is broken off, and the next replay's",
                  w->at);
    (void)kill(w->child, SIGKILL);
    w->broken_off = true;
    w->stop_at = now + DEATH_NS;
}

/* ---- looking ---- */

/* 0, or the status to exit with. */
static int look_failed(struct watch *w, int rc, const struct rbxj_error *error, int64_t now)
{
    enum status status = status_of(rc);
    if (!w->ready && (status == STATUS_PERMISSION || status == STATUS_USAGE)) {
        print_failure(&w->cli->style, "watch", rc, error);
        return status;
    }
    if (status != STATUS_BUSY)
        say(w, error->message);
    if (status == STATUS_DAMAGED && !turns_are_paused(&w->turns, now))
        start_child(w, NULL, 0); /* it keeps new boxes out, and moves the journal aside */
    look_no_later(w, turns_are_paused(&w->turns, now) ? w->turns.pause_until_ns : now + TRY_AGAIN_NS);
    return 0;
}

static void look_worked(struct watch *w, int64_t now)
{
    _cleanup_free_ const char **names = calloc(w->view.dead_len + 1, sizeof(*names));
    ssize_t n = names ? turns_choose(&w->turns, &w->view, now, names) : -ENOMEM;
    int wanting = n < 0 ? ENOMEM : w->view.wanting;
    char text[200];
    if (w->start_failed)
        (void)snprintf(text, sizeof(text), "no replay can be started now: %s",
                       strerrordesc_np(w->start_failed));
    else
        (void)snprintf(text, sizeof(text), "not all boxes can be watched now: %s",
                       wanting == ENOSPC ? "fs.inotify.max_user_watches" : strerrordesc_np(wanting));
    say(w, w->start_failed || wanting ? text : "");
    look_no_later(w, n < 0 ? now + TRY_AGAIN_NS : turns_next(&w->turns));
    if (w->view.unwatched)
        look_no_later(w, now + UNWATCHED_NS);
    /* a replay compares names one by one; without, it takes whoever died since, too, who will have another
     * try */
    bool all = n > MANY && (size_t)n == w->view.dead_len;
    if (n > 0)
        start_child(w, all ? NULL : names, (size_t)n);
}

static int look(struct watch *w)
{
    struct rbxj_error error = {0};
    int64_t before = now_monotonic_ns();
    int status = 0, rc = monitor_look(w->monitor, &w->view, &error);
    w->looked_at = now_monotonic_ns();
    w->look_took = w->looked_at - before;
    w->look_at = NEVER;
    if (rc < 0)
        status = look_failed(w, rc, &error, w->looked_at);
    else
        look_worked(w, w->looked_at);
    if (status == 0)
        tell_status(w);
    return status;
}

/* ---- waiting ---- */

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void read_signals(struct watch *w)
{
    struct signalfd_siginfo info;
    while (read(w->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGCHLD)
            continue;
        if (!w->stopping) {
            (void)notify_send("STOPPING=1\nSTATUS=%s\nEXTEND_TIMEOUT_USEC=%" PRId64,
                              w->child ? "finishing an undo" : "",
                              (int64_t)((w->stop_ns + 5 * DEATH_NS) / 1000));
            w->stop_at = now_monotonic_ns() + w->stop_ns;
        }
        w->stopping = true;
    }
    reap_children(w);
}

/* While a replay runs nothing but its end is waited for: its own commits would wake us. */
static void wait_for_something(struct watch *w)
{
    struct pollfd signals = {.fd = w->signal_fd, .events = POLLIN};
    int64_t until = w->child ? NEVER : w->look_at, now = now_monotonic_ns();
    until = until < w->watchdog_at ? until : w->watchdog_at;
    until = until < w->stop_at ? until : w->stop_at;
    int64_t left = until == NEVER ? -1 : until <= now ? 0 : (until - now) / MILLISECOND + 1;
    int ms = left > 3600000 ? 3600000 : (int)left;
    int events = w->child ? poll(&signals, 1, ms) : monitor_wait(w->monitor, &signals, 1, ms);
    if (events < 0 && !w->child && events != -EINTR) /* want of memory: it passes */
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 100 * MILLISECOND}, NULL);
    now = now_monotonic_ns();
    if (now >= w->watchdog_at) {
        (void)notify_send("WATCHDOG=1");
        w->watchdog_at = now + w->watchdog_ns;
    }
    if (!w->child && events > 0 && (events & MONITOR_COMMIT))
        look_no_later(w, later(now + SETTLE_NS, w->looked_at + COMMIT_SHARE * w->look_took));
    if (!w->child && events > 0 && (events & MONITOR_DEATH))
        look_no_later(w, w->looked_at + DEATH_SHARE * w->look_took);
    if (signals.revents)
        read_signals(w);
    if (w->child && now >= w->stop_at)
        break_off(w, now);
}

static int run(struct watch *w)
{
    while (!w->stopping || w->child) {
        int status = !w->child && now_monotonic_ns() >= w->look_at ? look(w) : 0;
        if (status)
            return status;
        wait_for_something(w);
    }
    return STATUS_DONE;
}

static int prepare(struct watch *w)
{
    struct rlimit limit;
    uint64_t watchdog_us = 0;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) { /* a descriptor for each supervisor */
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    (void)sigemptyset(&w->signals);
    (void)sigaddset(&w->signals, SIGTERM);
    (void)sigaddset(&w->signals, SIGINT);
    (void)sigaddset(&w->signals, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &w->signals, NULL);
    w->signal_fd = signalfd(-1, &w->signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (w->signal_fd < 0) {
        print_problem("watch: signalfd: %s", strerror(errno));
        return STATUS_SYSTEM;
    }
    if (sd_watchdog_enabled(0, &watchdog_us) > 0) {
        w->watchdog_ns = (int64_t)watchdog_us * 1000 / 2;
        w->watchdog_at = now_monotonic_ns() + w->watchdog_ns;
    }
    return 0;
}

int cmd_watch(struct cli *cli, int argc, char **argv)
{
    _cleanup_(config_clear) struct config config = {0};
    struct watch w = {.cli = cli, .signal_fd = -1, .watchdog_at = NEVER, .stop_at = NEVER};
    struct rbxj_error error = {0};
    const char *value;
    if (cli_next(cli, argc, argv, &value) == CLI_LEAVE || cli_no_operands(cli, argc, argv) == CLI_LEAVE)
        return cli->status;
    print_without_waiting();
    /* A lock that it inherited, of a supervisor's that started it for instance, would keep a box held whose
     * supervisor has died (K7). */
    (void)close_range(STDERR_FILENO + 1, ~0U, 0);
    int status = prepare(&w);
    int rc = status ? 0 : config_load(&cli->options, &config, &error);
    w.stop_ns = config.stop_timeout_ns;
    if (!status && rc == 0)
        rc = monitor_open(&cli->options, &w.monitor, &error);
    if (rc < 0) {
        print_failure(&cli->style, "watch", rc, &error);
        status = (int)status_of(rc);
    }
    if (!status)
        status = run(&w);
    monitor_close(w.monitor);
    turns_clear(&w.turns);
    cleanup_closep(&w.signal_fd);
    return status;
}
