/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For crash_alloc.c: the world in which an allocation fails, what a failure must say, and what is told of one
 * that does not.
 */
#ifndef RBXJ_TESTS_CRASH_ALLOC_JUDGE_H
#define RBXJ_TESTS_CRASH_ALLOC_JUDGE_H

#include "crash.h"

#include "alloc_shim.h"

#include "../replay_fixture.h"

static uint64_t allocation_now; /* that fails; UINT64_MAX: none */

/* ---- judging ---- */

/* What libraries keep, by a function of theirs:
 *   libcgroup 2.0.2: cgroup_init() frees nothing of what it has where it fails. We call it once in a process.
 *   glibc 2.36: the stacks of threads that have ended are kept for others, with their thread-local
 *   storage. */
static bool tolerated(const struct shim_block *b)
{
    static const struct {
        const char *library, *function;
    } sites[] = {
        {"libcgroup.so", "cgroup_init"},
        {"ld-linux", "_dl_allocate_tls"},
    };
    for (size_t i = 0; i < ARRAY_LEN(sites); i++)
        if (shim_passes(b, sites[i].library, sites[i].function))
            return true;
    return false;
}

static bool says_no_memory(int r, const struct rbxj_error *e)
{
    bool code = r == -ENOMEM || (r == -RBXJ_E_IO && e->errnum == ENOMEM);
    return code && (strstr(e->message, "annot allocate memory") || strstr(e->message, "out of memory"));
}

/* Of something that was left: one entry says why. */
static bool result_says_no_memory(const struct rbxj_result *result)
{
    struct rbxj_result_entry entry;
    for (size_t i = 0; result && i < rbxj_result_boxes(result); i++)
        for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0; k++)
            if ((entry.error && says_no_memory(-entry.error->code, entry.error)) ||
                (entry.note && strstr(entry.note, "annot allocate memory")))
                return true;
    return false;
}

static void describe_result(FILE *out, const struct rbxj_result *result)
{
    struct rbxj_result_entry entry;
    struct rbxj_result_box box;
    for (size_t i = 0; result && rbxj_result_box(result, i, &box) == 0; i++)
        for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0; k++)
            fprintf(out, "  %s %u %s: %s, %s: %s (%s)\n", box.box, entry.seq, entry.kind, entry.found,
                    entry.outcome ? entry.outcome : "", entry.error ? entry.error->message : "",
                    entry.error ? entry.error->detail : "");
}

/* Says where the allocation was that failed, and what came of it; to standard output, as tests do. */
static void tell_failure(const char *step, int r, const struct rbxj_error *e,
                         const struct rbxj_result *result)
{
    shim_disarm();
    printf("allocation %" PRIu64 ": %s: %d %s: %s (%s)\n", allocation_now, step, r, rbxj_strerror(r),
           e ? e->message : "", e ? e->detail : "");
    describe_result(stdout, result);
    if (shim_failed())
        shim_show(stdout, "there was no memory in", shim->frames, shim->frames_len);
    (void)fflush(stdout);
}

static size_t open_fds(void)
{
    _cleanup_closedir_ DIR *dir = opendir("/proc/self/fd");
    size_t n = 0;
    while (dir && readdir(dir))
        n++;
    return n;
}

/* A world with a bystander, and a configuration with a drop-in. */
static void world_start(void)
{
    world_open();
    shim_init();
    const char *conf_d = harness_format("%s/rbxj.conf.d", harness_disk());
    harness_mkdir(conf_d);
    harness_write(harness_format("%s/1.conf", conf_d), "[paths]\nprotected = /srv/b\\ c /srv/d\n");
    harness_write(harness_format("%s/2.conf", conf_d), "[incidents]\nkeep = 50\n");
    world.options.config = harness_format("%s/rbxj.conf", harness_disk());
    harness_write(world.options.config, "[replay]\njobs = 1\n[paths]\nprotected = /srv/a\n"
                                        "[discover]\nlocks = /srv/*.lock\ncgroups =\nmounts =\ntmpdirs =\n");
    (void)supervisor_start("by", ALL, LIVES);
}

/* How many boxes of the dead there are. */
static size_t stale_boxes(void)
{
    struct rbxj_health health;
    assert_int_equal(rbxj_health(&world.options, &health, NULL), 0);
    return health.stale_boxes;
}

#endif
