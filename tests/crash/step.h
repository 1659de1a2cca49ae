/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A stepper: runs a process and counts its system calls, over all its threads and children, one count for all
 * of them; at each one it is asked what shall happen. strace's injection counts per thread and call number,
 * and can't say "the n-th call of all".
 *
 *     static void run(void *data) { step_on(); ...; step_off(); ... }
 *     static int decide(void *data, const struct step_call *call)
 *     {
 *         return call->n == 17 ? STEP_KILL : STEP_GO;
 *     }
 *
 *     struct step_end end = step_run(run, data, decide, data);
 *
 * Who belongs to it: the process that runs run(), its threads, and the children that it forks, until they
 * execute a program: those are somebody's payload, which is neither counted nor killed. Not counted is a read
 * of the next record of /dev/kmsg, from the third in succession on: nothing differs from the one before.
 */
#ifndef RBXJ_TESTS_CRASH_STEP_H
#define RBXJ_TESTS_CRASH_STEP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct step_call {
    uint64_t n; /* from 0 */
    pid_t tid, pid;
    long nr;
    uint64_t args[6];
    uint64_t from; /* the address of the instruction */
};

/* What shall happen at a call: it is done, or everything is killed before it is done, or it fails. */
enum {
    STEP_GO = 0,
    STEP_KILL = -1,       /* the process and its children */
    STEP_KILL_ALONE = -2, /* its children live on until they come to their end */
    STEP_DONE =
        1 << 16, /* an errno with this: the call is done, and says all the same that it failed (close) */
};
/* An errno, or one of these. Runs in the stepper, while the thread that calls stands still. */
typedef int step_decide(void *data, const struct step_call *call);

struct step_end {
    uint64_t calls;      /* counted */
    bool struck;         /* something else than STEP_GO was decided, lastly at: */
    struct step_call at; /* the last such call */
    int status;          /* of the process, as of waitpid(2) */
};

/* In the process: counting begins and ends. Outside of these marks nothing is counted and decide() is not
 * asked. */
void step_on(void);
void step_off(void);

/* Forks, lets run() do what it does and waits for its end. The process exits with 0 after run(). Fails the
 * test where tracing is not possible. Other children of the test must not end meanwhile. */
struct step_end step_run(void (*run)(void *), void *run_data, step_decide *decide, void *decide_data);
/* The same with a program, counted from its start. out: its standard input and output, or -1. */
struct step_end step_program(const char *const *argv, const int fds[2], step_decide *decide,
                             void *decide_data);

#endif
