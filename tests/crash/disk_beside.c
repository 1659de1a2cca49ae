/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_beside.h"

#include "crash.h"
#include "disk_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <signal.h>

#define MAX_STEPS 64

struct beside {
    uint32_t len;
    struct beside_step {
        uint64_t start, end; /* end 0: not yet */
        unsigned reason;     /* 0: released */
    } steps[MAX_STEPS];
};

static void reason_text(unsigned reason, char text[32])
{
    (void)snprintf(text, 32, "reason %u", reason);
}

static void step(struct beside *b, const struct rbxj_options *options, unsigned reason)
{
    struct beside_step *s = &b->steps[b->len];
    struct rbxj_error e = {0};
    char text[32];
    reason_text(reason, text);
    *s = (struct beside_step){.reason = reason, .start = disk_log_mark()};
    b->len++;
    int r = reason ? rbxj_quarantine(options, text, &e) : rbxj_unquarantine(options, "over", &e);
    if (r != 0) {
        (void)dprintf(STDERR_FILENO, "quarantine: %s\n", e.message);
        _exit(1);
    }
    s->end = disk_log_mark();
}

static void work(struct beside *b, const struct rbxj_options *options, unsigned operations, uint64_t random)
{
    struct rbxj *handle = NULL;
    struct rbxj_error e = {0};
    unsigned opened = (unsigned)(crash_random(&random) % operations);
    for (unsigned i = 0; i < operations; i++) {
        if (i == opened && rbxj_open(options, &handle, &e) != 0) {
            (void)dprintf(STDERR_FILENO, "open: %s\n", e.message);
            _exit(1);
        }
        step(b, options, crash_random(&random) % 3 ? i + 1 : 0);
    }
    rbxj_close(handle);
}

struct beside *beside_run(const struct rbxj_options *options, unsigned operations, uint64_t random)
{
    struct beside *b = mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(b != MAP_FAILED && operations <= MAX_STEPS);
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        work(b, options, operations, random);
        _exit(0);
    }
    harness_track(pid);
    assert_int_equal(harness_wait(pid), 0);
    return b;
}

static bool is_as_told(const struct rbxj_health *health, unsigned reason)
{
    char text[32];
    reason_text(reason, text);
    bool quarantined = strcmp(health->status, "quarantined") == 0;
    return quarantined == (reason != 0) && (!reason || strcmp(health->quarantine_detail, text) == 0);
}

const char *beside_judge(const struct beside *b, uint64_t cut, const struct rbxj_options *options)
{
    static char text[1024];
    struct rbxj_health health = {0};
    struct rbxj_error e = {0};
    unsigned told = 0, doing = 0;
    for (uint32_t i = 0; i < b->len && b->steps[i].start <= cut; i++) {
        doing = b->steps[i].reason;
        if (b->steps[i].end && b->steps[i].end <= cut)
            told = doing;
    }
    int r = rbxj_health(options, &health, &e);
    if (r == 0 && (is_as_told(&health, told) || is_as_told(&health, doing)))
        return NULL;
    (void)snprintf(text, sizeof(text), "health: %d %s; %s (%s) instead of reason %u or %u", r, e.message,
                   r == 0 ? health.status : "", health.quarantine_detail, told, doing);
    return text;
}
