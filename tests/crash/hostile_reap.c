/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The reapers of crash_hostile.c, and the judgement of what they did: by the kernel's own view, never by
 * their word alone.
 */
#include "hostile_world.h"

#include <ctype.h>
#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define MEMORY_KB (64 * 1024)
#define PATIENCE_MS 40000 /* beyond the reaper's own time: then it hangs */

void reaper_has(unsigned descriptors, double seconds)
{
    world.descriptors = descriptors;
    world.seconds = seconds;
}

void reaper_is_lazy(bool lazy)
{
    world.lazy = lazy;
}

/* ---- in the reaper ---- */

static void tell_entry(struct told_entry *to, const struct rbxj_result_entry *from)
{
    to->seq = from->seq;
    for (enum rbxj_kind k = RBXJ_LOCK; k <= RBXJ_PROCESS; k++) {
        static const char *const names[] = {[RBXJ_LOCK] = "lock",
                                            [RBXJ_CGROUP] = "cgroup",
                                            [RBXJ_MOUNT] = "mount",
                                            [RBXJ_TMPDIR] = "tmpdir",
                                            [RBXJ_PROCESS] = "process"};
        if (strcmp(from->kind, names[k]) == 0)
            to->kind = k;
    }
    to->done = strcmp(from->outcome, "undone") == 0 || strcmp(from->outcome, "already_gone") == 0;
    (void)snprintf(to->outcome, sizeof(to->outcome), "%s", from->outcome);
    (void)snprintf(to->message, sizeof(to->message), "%s", from->error ? from->error->message : "");
    (void)snprintf(to->detail, sizeof(to->detail), "%s", from->error ? from->error->detail : "");
}

static void replay_here(void)
{
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    struct rbxj_result_entry entry;
    struct rbxj_replay how = {.timeout = world.seconds, .lazy_umount = world.lazy ? 2 : 1};
    struct told *told = world.told;
    told->result = rbxj_replay(&world.options, &how, &result, &e);
    if (told->result < 0) {
        (void)snprintf(told->error, sizeof(told->error), "%s (%s)", e.message, e.detail);
        return;
    }
    told->boxes = rbxj_result_boxes(result);
    for (size_t i = 0; i < told->boxes; i++)
        for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0 && told->entries_len < ENTRIES_MAX;
             k++)
            tell_entry(&told->entries[told->entries_len++], &entry);
    rbxj_result_free(result);
}

static _Noreturn void reaper(void)
{
    const struct rlimit files = {world.descriptors, world.descriptors};
    (void)close_range(3, ~0U, 0);
    if (setrlimit(RLIMIT_NOFILE, &files) < 0)
        _exit(1);
    for (int sig = 1; sig < SIGSYS; sig++)
        (void)signal(sig, SIG_DFL); /* it dies of what it does wrong, it does not go on testing */
    replay_here();
    _exit(0);
}

/* ---- the judgement ---- */

static void show_told(void)
{
    for (size_t i = 0; i < world.told->entries_len; i++) {
        const struct told_entry *e = &world.told->entries[i];
        print_error("  seq %u: %s: %s (%s)\n", e->seq, e->outcome, e->message, e->detail);
    }
}

static bool is_one_line(const char *text)
{
    for (; *text; text++)
        if (iscntrl((unsigned char)*text))
            return false;
    return true;
}

/* What is said to be gone is gone; what is left has a reason that can be printed. */
static void judge_entry(const struct told_entry *e)
{
    if (!is_one_line(e->message) || !is_one_line(e->detail)) {
        show_told();
        fail_msg("seq %u: its reason is more than a line", e->seq);
    }
    if (!e->done && !e->message[0] && strcmp(e->outcome, "skipped") != 0) {
        show_told();
        fail_msg("seq %u: %s without a reason", e->seq, e->outcome);
    }
    bool gone = e->kind == RBXJ_PROCESS ? process_is_dead(world.told->process)
                                        : e->seq > world.a.len || thing_is_gone(e->seq - 1);
    if (e->done && !gone) {
        show_told();
        fail_msg("seq %u: %s, but it is still there", e->seq, e->outcome);
    }
}

static void nobody_else_is_hurt(void)
{
    must_be_whole(etc(), world.etc_before, true);
    char *now = bystander_picture();
    if (strcmp(now, world.before) != 0)
        fail_msg("the box beside it has changed:\n--- before\n%s--- now\n%s", world.before, now);
}

static void judge(const struct rusage *usage, int status)
{
    const struct told *told = world.told;
    if (status != 0 || told->result < 0)
        fail_msg("the reaper ended with %#x, %d: %s", status, told->result, told->error);
    if (usage->ru_maxrss > MEMORY_KB)
        fail_msg("the reaper took %ld KB of memory", usage->ru_maxrss);
    bool all = true;
    for (size_t i = 0; i < told->entries_len; i++) {
        judge_entry(&told->entries[i]);
        all = all && told->entries[i].done;
        crash_count(told->entries[i].outcome, 1);
    }
    if (all != (told->result == 0)) {
        show_told();
        fail_msg("the replay returned %d", told->result);
    }
    nobody_else_is_hurt();
}

void reap_killed(unsigned us)
{
    pid_t pid = fork();
    if (pid == 0)
        reaper();
    must(pid > 0);
    harness_track(pid);
    (void)usleep(us);
    harness_kill(pid);
    nobody_else_is_hurt();
    crash_count("killed", 1);
}

int reap(void)
{
    struct rusage usage;
    int status;
    struct told *told = world.told;
    told->error[0] = 0;
    told->boxes = told->entries_len = 0;
    told->result = -1;
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        reaper();
    must(pid > 0);
    harness_track(pid);
    _cleanup_close_ int pidfd = pidfd_open(pid, 0);
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    if (poll(&p, 1, (int)(world.seconds * 1000) + PATIENCE_MS) <= 0) {
        attackers_kill();
        fail_msg("the reaper hangs");
    }
    must(wait4(pid, &status, 0, &usage) == pid);
    judge(&usage, status);
    return told->result;
}

void all_undone(void)
{
    if (world.told->result == 0 && world.told->boxes == 1)
        return;
    show_told();
    fail_msg("something is left, or there was no box");
}

static const struct told_entry *entry_of(enum rbxj_kind kind)
{
    for (size_t i = 0; i < world.told->entries_len; i++)
        if (world.told->entries[i].kind == kind)
            return &world.told->entries[i];
    fail_msg("nothing of kind %d in the result", (int)kind);
    return NULL;
}

bool is_left(enum rbxj_kind kind)
{
    return !entry_of(kind)->done;
}

void left(enum rbxj_kind kind, const char *text)
{
    const struct told_entry *e = entry_of(kind);
    if (!e->done && (strstr(e->message, text) || strstr(e->detail, text)))
        return;
    show_told();
    fail_msg("seq %u: not left with the reason \"%s\"", e->seq, text);
}

void over(void (*release)(void))
{
    int left_over = 1;
    attackers_kill();
    reaper_has(64, 20);
    for (int i = 0; i < 3 && left_over;
         i++) { /* what is in the way may itself be covered by what is undone */
        if (release)
            release();
        left_over = reap();
        if (!release)
            break;
    }
    if (left_over) {
        show_told();
        fail_msg("the attack is over, but something is left");
    }
    for (size_t i = 0; i < world.a.len; i++)
        if (!thing_is_gone(i))
            fail_msg("the attack is over, but seq %zu is still there", i + 1);
    if (reap() != 0 || world.told->boxes != 0)
        fail_msg("another replay still finds a box");
    crash_count("points", 1);
}
