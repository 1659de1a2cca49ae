/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A real out-of-memory kill, in a cgroup of the test's own.
 */
#ifndef RBXJ_TESTS_OOM_FIXTURE_H
#define RBXJ_TESTS_OOM_FIXTURE_H

#include "harness.h"

#include "base/fd.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Is there a memory controller, v1 or v2, for cgroups that the test makes in that hierarchy? */
static inline const char *oom_hierarchy(void)
{
    const char *root = harness_cgroup_root("memory");
    const char *all = root ? NULL : harness_cgroup_root(NULL);
    if (root)
        return root;
    if (!all || !strstr(harness_read(harness_format("%s/cgroup.subtree_control", all)), "memory"))
        harness_skip("no memory controller for a cgroup of the test's own");
    return all;
}

/* The group is allowed 8 MiB, and no swap. */
static inline void oom_limit(const char *group)
{
    static const char *const settings[][2] = {{"memory.limit_in_bytes", "8388608"},
                                              {"memory.memsw.limit_in_bytes", "8388608"},
                                              {"memory.swappiness", "0"},
                                              {"memory.max", "8388608"},
                                              {"memory.swap.max", "0"}};
    for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++)
        if (path_exists(harness_format("%s/%s", group, settings[i][0])))
            harness_write(harness_format("%s/%s", group, settings[i][0]), settings[i][1]);
}

/* Of a process, that nobody else on this machine has. */
static inline const char *oom_name(const char *prefix)
{
    uint32_t number;
    random_bytes(&number, sizeof(number));
    return harness_format("%s%08x", prefix, number);
}

/* In the group a process of that name takes more than it is allowed, and is killed for it. */
static inline void oom_kill_in(const char *group, const char *name)
{
    const char *procs = harness_format("%s/cgroup.procs", group);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        enum { MUCH = 64 << 20 };
        (void)prctl(PR_SET_NAME, name);
        if (fd_write_file(AT_FDCWD, procs, "0") < 0)
            _exit(1);
        char *all = mmap(NULL, MUCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (size_t i = 0; all != MAP_FAILED && i < MUCH; i += 4096)
            all[i] = 1;
        _exit(2);
    }
    harness_track(pid);
    int status = harness_wait(pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

#endif
