/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Crashes and replays: supervisors that are killed (supervisor_fixture.h), the picture of the machine by
 * which "as before" is judged, and the stepper that kills a process at its n-th system call.
 *
 *     world_open();                             a journal and places of its own
 *     supervisor_start("b", ALL, LIVES);        a box beside it
 *     char *before = machine();
 *     supervisor_start("a", ALL, AFTER_EVIDENCE);
 *     replay_is_clean(1);                       one box, nothing left
 *     assert_string_equal(machine(), before);
 */
#ifndef RBXJ_TESTS_REPLAY_FIXTURE_H
#define RBXJ_TESTS_REPLAY_FIXTURE_H

#include "supervisor_fixture.h"

/* ---- what the machine looks like ---- */

static inline char *picture_now(void)
{
    const char *const groups[] = {world.group, world.group_v1};
    return picture_take(world.work, groups, ARRAY_LEN(groups));
}

/* Lives until the end of the test. */
static inline char *machine(void)
{
    _cleanup_free_ char *text = picture_now();
    return harness_format("%s", text);
}

static inline void payload_is_dead(void)
{
    for (int i = 0; i < 6000 && !is_dead(told->payload); i++)
        (void)usleep(5000);
    assert_true(is_dead(told->payload));
}

__attribute__((format(printf, 2, 3))) static inline void is_as_before(const char *before, const char *format,
                                                                      ...)
{
    char what[200];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    _cleanup_free_ char *now = picture_now();
    if (strcmp(now, before) != 0)
        fail_msg("%s: the machine is not as before:\n--- before\n%s--- now\n%s", what, before, now);
}

/* ---- replays ---- */

static inline struct rbxj_result *replay_how(const struct rbxj_replay *how, int expected)
{
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    int r = rbxj_replay(&world.options, how, &result, &e);
    if (r != expected) {
        struct rbxj_result_entry entry;
        for (size_t i = 0; result && i < rbxj_result_boxes(result); i++)
            for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0; k++)
                print_error("  seq %u %s %s: %s, %s: %s (%s)\n", entry.seq, entry.kind, entry.name,
                            entry.found, entry.outcome, entry.error ? entry.error->message : "",
                            entry.error ? entry.error->detail : "");
        fail_msg("the replay returned %d, not %d: %s (%s)", r, expected, e.message, e.detail);
    }
    return result;
}

static inline struct rbxj_result *replay(int expected)
{
    return replay_how(&(struct rbxj_replay){0}, expected);
}

/* A replay that leaves nothing of that many boxes; then one that finds nothing. */
static inline void replay_is_clean(size_t boxes)
{
    for (int again = 0; again < 2; again++) {
        struct rbxj_result_info info;
        struct rbxj_result *result = replay(0);
        rbxj_result_info(result, &info);
        rbxj_result_free(result);
        assert_int_equal(info.boxes, again ? 0 : boxes);
        assert_int_equal(info.left, 0);
    }
}

/* The entry of that kind in the only box of a result; its strings live until the end of the test. */
static inline struct rbxj_result_entry entry_of(const struct rbxj_result *result, const char *kind)
{
    struct rbxj_result_entry entry;
    assert_int_equal(rbxj_result_boxes(result), 1);
    for (size_t k = 0; rbxj_result_entry(result, 0, k, &entry) == 0; k++)
        if (strcmp(entry.kind, kind) == 0)
            return entry;
    fail_msg("no %s in the result", kind);
    return entry;
}

/* One replay of one box: what it says of the record of that kind, and its error's text. */
static inline void replay_says(int expected, const char *kind, const char *found, const char *outcome,
                               const char *text)
{
    struct rbxj_result *result = replay(expected);
    struct rbxj_result_entry entry = entry_of(result, kind);
    if (strcmp(entry.found, found) != 0 || strcmp(entry.outcome, outcome) != 0 ||
        (text &&
         (!entry.error || !(strstr(entry.error->message, text) || strstr(entry.error->detail, text)))))
        fail_msg("%s: %s, %s: %s (%s); not %s, %s: %s", kind, entry.found, entry.outcome,
                 entry.error ? entry.error->message : "", entry.error ? entry.error->detail : "", found,
                 outcome, text ? text : "");
    rbxj_result_free(result);
}

/* The state of a box as list tells it, until the next call; NULL: no such box. */
static inline const char *state_of(const char *box)
{
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    struct rbxj_result_box b;
    static char kept[32];
    const char *state = NULL;
    if (rbxj_list(&world.options, NULL, &result, &e) < 0)
        fail_msg("list: %s", e.message);
    for (size_t i = 0; rbxj_result_box(result, i, &b) == 0; i++)
        if (strcmp(b.box, box) == 0)
            state = strncpy(kept, b.state, sizeof(kept) - 1);
    rbxj_result_free(result);
    return state;
}

/* ---- the stepper ---- */

/* A traced process counts its system calls from here to stop_counting(). */
static inline void start_counting(void)
{
    must(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    (void)raise(SIGSTOP);
}

static inline void stop_counting(void)
{
    (void)raise(SIGSTOP);
}

/* A system call that is not survived, whatever its number in the order; -1: none. */
static long poison = -1;

/* Forks, lets run() do what it does, and kills it when it is about to do its n-th system call after
 * start_counting(), counted over all its threads. Returns how many it did: n, or fewer when it came to its
 * end, where it is killed, too. No other child of the test may end meanwhile. */
static inline unsigned long kill_at(unsigned long n, void (*run)(const char *box, unsigned int parts),
                                    const char *box, unsigned int parts)
{
    told->error[0] = 0;
    pid_t pid = fork();
    if (pid == 0) {
        run(box, possible(parts));
        _exit(0);
    }
    assert_true(pid > 0);
    unsigned long calls = 0;
    bool counting = false;
    int status;
    for (;;) {
        pid_t tid = counting ? waitpid(-1, &status, __WALL) : waitpid(pid, &status, __WALL);
        assert_true(tid > 0);
        if (tid == pid && !WIFSTOPPED(status))
            break;
        if (!WIFSTOPPED(status))
            continue;                                  /* a thread that came to its end */
        int sig = status >> 16 ? 0 : WSTOPSIG(status); /* else the birth of a thread */
        if (sig == (SIGTRAP | 0x80)) {
            struct __ptrace_syscall_info info;
            sig = 0;
            if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info) > 0 &&
                info.op == PTRACE_SYSCALL_INFO_ENTRY && (calls++ == n || (long)info.entry.nr == poison))
                break;
        } else if (sig == SIGSTOP && tid != pid) {
            sig = 0; /* a thread's first */
        } else if (sig == SIGSTOP && counting) {
            break;
        } else if (sig == SIGSTOP) {
            counting = true;
            assert_int_equal(ptrace(PTRACE_SETOPTIONS, pid, NULL,
                                    PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL),
                             0);
            sig = 0;
        }
        if (ptrace(PTRACE_SYSCALL, tid, NULL, sig) < 0)
            assert_int_equal(errno, ESRCH);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status))
        fail_msg("what was to be killed at call %lu failed: %s", n, told->error);
    if (WIFSTOPPED(status)) {
        (void)kill(pid, SIGKILL);
        while (waitpid(-1, &status, __WALL) != pid || WIFSTOPPED(status))
            ; /* its threads first */
    }
    return calls > n ? n : calls;
}

/* So many runs, one after the other, each of which dies of its first such call. */
static inline void die_of(long call, int times, void (*run)(const char *box, unsigned int parts))
{
    poison = call;
    for (int i = 0; i < times; i++)
        (void)kill_at(ULONG_MAX, run, "", 0);
    poison = -1;
}

#endif
