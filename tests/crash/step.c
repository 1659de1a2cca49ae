/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "step.h"

#include "../harness.h"

#include "base/cleanup.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define MARK 0x72627873 /* a prctl(2) that does not exist */
#define MAX_TASKS 256
#define OPTIONS                                                                                              \
    (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |                \
     PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)

struct task {
    pid_t tid, pid;
    int errnum; /* with which the call that it is in will return; 0: as it likes */
};

struct stepper {
    pid_t root;
    struct task tasks[MAX_TASKS];
    size_t len;
    step_decide *decide;
    void *data;
    bool counting, over, program;
    struct step_call last; /* counted or not */
    unsigned repeats;      /* in how many calls before the last one it read on */
    struct step_end end;
};

void step_on(void)
{
    (void)prctl(MARK, 1, 0, 0, 0);
}

void step_off(void)
{
    (void)prctl(MARK, 0, 0, 0, 0);
}

/* ---- who is traced ---- */

/* A number in /proc/TID/status; 0: there is none. */
static int status_of(pid_t tid, const char *format)
{
    char path[40], line[128];
    int number = 0;

    (void)snprintf(path, sizeof(path), "/proc/%d/status", tid);
    _cleanup_fclose_ FILE *f = fopen(path, "re");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, format, &number) == 1)
            break;
#pragma GCC diagnostic pop
    return number;
}

static struct task *task_of(struct stepper *s, pid_t tid)
{
    for (size_t i = 0; i < s->len; i++)
        if (s->tasks[i].tid == tid)
            return &s->tasks[i];
    assert_true(s->len < MAX_TASKS);
    pid_t pid = status_of(tid, "Tgid: %d");
    s->tasks[s->len] = (struct task){.tid = tid,
                                     .pid = pid > 0 ? pid : tid}; /* dead already, or its thread */
    return &s->tasks[s->len++];
}

static void task_gone(struct stepper *s, const struct task *task)
{
    s->tasks[task - s->tasks] = s->tasks[--s->len];
}

/* ---- registers ---- */

#if defined(__x86_64__)
#define RESULT(regs) ((regs).rax)
#elif defined(__aarch64__)
#define RESULT(regs) ((regs).regs[0])
#define NT_ARM_SYSTEM_CALL 0x404
#else
#define RESULT(regs) which_register_holds_the_result_of_a_system_call_here
#endif

/* Of a thread that is about to enter a call: it will enter none. */
static void skip_call(pid_t tid)
{
#if defined(__x86_64__)
    struct user_regs_struct regs;
    assert_int_equal(ptrace(PTRACE_GETREGS, tid, NULL, &regs), 0);
    regs.orig_rax = (unsigned long long)-1;
    assert_int_equal(ptrace(PTRACE_SETREGS, tid, NULL, &regs), 0);
#else
    int none = -1;
    struct iovec v = {&none, sizeof(none)};
    assert_int_equal(ptrace(PTRACE_SETREGSET, tid, (void *)(uintptr_t)NT_ARM_SYSTEM_CALL, &v), 0);
#endif
}

static void set_result(pid_t tid, long result)
{
    struct user_regs_struct regs;
    struct iovec v = {&regs, sizeof(regs)};
    void *which = (void *)(uintptr_t)NT_PRSTATUS;

    assert_int_equal(ptrace(PTRACE_GETREGSET, tid, which, &v), 0);
    RESULT(regs) = (unsigned long long)result;
    assert_int_equal(ptrace(PTRACE_SETREGSET, tid, which, &v), 0);
}

/* ---- what happens ---- */

static void kill_all(struct stepper *s, bool alone)
{
    s->over = true;
    (void)kill(s->root, SIGKILL);
    for (size_t i = 0; !alone && i < s->len; i++)
        (void)kill(s->tasks[i].pid, SIGKILL);
}

/* From the third on in succession the kernel log's next record: killed there, or failing, is what it was at
 * the one before, and there are thousands. */
static bool is_more_of_log(struct stepper *s, const struct step_call *call)
{
    char path[48], target[16];
    bool reads_on = call->nr == SYS_read && s->last.nr == SYS_read && s->last.tid == call->tid &&
                    s->last.args[0] == call->args[0];

    s->repeats = reads_on ? s->repeats + 1 : 0;
    s->last = *call;
    if (s->repeats < 2)
        return false;
    (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", call->pid, (int)call->args[0]);
    ssize_t n = readlink(path, target, sizeof(target));
    return n == (ssize_t)strlen("/dev/kmsg") && memcmp(target, "/dev/kmsg", (size_t)n) == 0;
}

static void entered(struct stepper *s, struct task *task, const struct __ptrace_syscall_info *info)
{
    struct step_call call = {.n = s->end.calls,
                             .tid = task->tid,
                             .pid = task->pid,
                             .nr = (long)info->entry.nr,
                             .from = info->instruction_pointer};

    memcpy(call.args, info->entry.args, sizeof(call.args));
    if (call.nr == SYS_prctl && call.args[0] == MARK) {
        s->counting = call.args[1] != 0;
        return;
    }
    if (!s->counting || s->over || is_more_of_log(s, &call))
        return;
    s->end.calls++;
    int what = s->decide(s->data, &call);
    if (what == STEP_GO)
        return;
    s->end.struck = true;
    s->end.at = call;
    if (what < 0) {
        kill_all(s, what == STEP_KILL_ALONE);
        return;
    }
    task->errnum = what & ~STEP_DONE;
    if (!(what & STEP_DONE))
        skip_call(task->tid);
}

/* Ours no longer: it goes its own way. */
static bool is_payload(struct stepper *s, const struct task *task, int event)
{
    if (event != PTRACE_EVENT_EXEC || task->pid == s->root)
        return false;
    return ptrace(PTRACE_DETACH, task->tid, NULL, NULL) == 0;
}

/* Waited for from now on, also if its maker dies before its first stop is seen. */
static void born(struct stepper *s, pid_t parent)
{
    unsigned long tid = 0;

    /* it may have come to its end, and been waited for, before this news of its birth */
    if (ptrace(PTRACE_GETEVENTMSG, parent, NULL, &tid) == 0 &&
        status_of((pid_t)tid, "TracerPid: %d") == getpid())
        (void)task_of(s, (pid_t)tid);
}

static void stopped(struct stepper *s, struct task *task, int status)
{
    int event = status >> 16, sig = WSTOPSIG(status);
    struct __ptrace_syscall_info info;

    if (is_payload(s, task, event)) {
        task_gone(s, task);
        return;
    }
    if (event == PTRACE_EVENT_EXEC && s->program)
        s->counting = true;
    if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE)
        born(s, task->tid);
    if (sig == (SIGTRAP | 0x80) && ptrace(PTRACE_GET_SYSCALL_INFO, task->tid, sizeof(info), &info) > 0) {
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
            entered(s, task, &info);
        } else if (info.op == PTRACE_SYSCALL_INFO_EXIT && task->errnum) {
            set_result(task->tid, -task->errnum);
            task->errnum = 0;
        }
    }
    if (event || sig == (SIGTRAP | 0x80))
        sig = 0;                                        /* what ptrace made of it, not a signal */
    (void)ptrace(PTRACE_SYSCALL, task->tid, NULL, sig); /* ESRCH: it has been killed meanwhile */
}

static struct step_end trace(pid_t pid, int go, struct stepper *s)
{
    int status;

    s->root = pid;
    if (ptrace(PTRACE_SEIZE, pid, NULL, OPTIONS) < 0 || ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) < 0)
        fail_msg("ptrace: %s", strerror(errno));
    (void)task_of(s, pid);
    assert_int_equal(write(go, "g", 1), 1);
    while (s->len > 0) {
        pid_t tid = waitpid(-1, &status, __WALL);
        if (tid < 0 && errno == EINTR)
            continue;
        assert_true(tid > 0);
        if (tid == pid && !WIFSTOPPED(status))
            s->end.status = status;
        if (WIFSTOPPED(status))
            stopped(s, task_of(s, tid), status);
        else
            task_gone(s, task_of(s, tid));
    }
    return s->end;
}

/* Forks a child that waits until it is traced. */
static pid_t fork_waiting(int *ret_go)
{
    int go[2];
    char byte;

    (void)fflush(NULL);
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)close(go[1]);
        if (read(go[0], &byte, 1) != 1)
            _exit(125);
        (void)close(go[0]);
        return 0;
    }
    (void)close(go[0]);
    *ret_go = go[1];
    return pid;
}

struct step_end step_run(void (*run)(void *), void *run_data, step_decide *decide, void *decide_data)
{
    struct stepper s = {.decide = decide, .data = decide_data};
    _cleanup_close_ int go = -1;
    pid_t pid = fork_waiting(&go);

    if (pid == 0) {
        run(run_data);
        _exit(0);
    }
    return trace(pid, go, &s);
}

struct step_end step_program(const char *const *argv, const int fds[2], step_decide *decide,
                             void *decide_data)
{
    struct stepper s = {.decide = decide, .data = decide_data, .program = true};
    _cleanup_close_ int go = -1;
    pid_t pid = fork_waiting(&go);

    if (pid == 0) {
        for (int i = 0; i < 2; i++)
            if (fds[i] >= 0 && dup2(fds[i], i) < 0)
                _exit(125);
        (void)execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    return trace(pid, go, &s);
}
