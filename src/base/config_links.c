/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/config_links.h"

#include "base/cleanup.h"
#include "base/config_value.h"
#include "base/fd.h"
#include "base/helper.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define WAIT_NS 2000000000

/* In a helper: what exists of the way, resolved, and the rest as it is. */
static int resolve(void *data, uint8_t output[HELPER_OUTPUT_MAX])
{
    const char *path = data;
    char head[PATH_MAX], proc[32], *out = (char *)output;
    size_t len = strlen(path);
    for (memcpy(head, path, len + 1); len > 0; head[len] = 0) {
        int fd = fd_openat2(AT_FDCWD, head, O_PATH, 0, 0);
        if (fd >= 0) {
            (void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
            ssize_t n = readlink(proc, out, HELPER_OUTPUT_MAX - 1);
            size_t rest = strlen(path + len), used = n == 1 ? 0 : (size_t)n; /* "/" */
            if (n < 1 || used + rest >= PATH_MAX)
                return -ENAMETOOLONG;
            memcpy(out + used, path + len, rest + 1);
            return 0;
        }
        while (len > 0 && head[--len] != '/')
            ;
    }
    memcpy(out, path, strlen(path) + 1);
    return 0;
}

/* Of one that leads to itself, or to nothing, nothing need be asked: that is in the cache after the first
 * time. */
static bool has_no_link(const char *path)
{
    _cleanup_close_ int fd = fd_openat2(AT_FDCWD, path, O_PATH, 0, RESOLVE_CACHED | RESOLVE_NO_SYMLINKS);
    return fd >= 0 || fd == -ENOENT || fd == -ENOTDIR;
}

/* One that hangs is asked by one helper at a time, of all processes, where there is the file that tells of
 * it: it is made by those who write. Who meets one that works waits for its end. */
static int ask(const char *helpers, char *path, struct helper_result *ret)
{
    int64_t deadline = now_monotonic_ns() + WAIT_NS;
    uint64_t byte = XXH3_64bits(path, strlen(path)) >> 2 | 1;
    struct helper_left other;
    int r = access(helpers, W_OK) < 0 ? -ENOENT : -EBUSY;
    while (r == -EBUSY) {
        r = helper_run_alone(helpers, byte, resolve, path, deadline, ret);
        if (r != -EBUSY || now_monotonic_ns() >= deadline)
            return r;
        while (helper_is_at(helpers, byte, &other) > 0 && now_monotonic_ns() < deadline)
            (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return helper_run(resolve, path, 0, deadline, ret);
}

static int add_target(char ***list, size_t i, const char *helpers)
{
    struct helper_result result;
    if (has_no_link((*list)[i]))
        return 0;
    int r = ask(helpers, (*list)[i], &result);
    if (r == -ETIMEDOUT || r == -EBUSY) /* nobody comes to it: nor to what is below it */
        return 0;
    if (r < 0 || result.code < 0)
        return r < 0 ? r : result.code;
    const char *target = (const char *)result.output;
    return target[0] != '/' || strcmp(target, (*list)[i]) == 0 ? 0 : config_append_word(list, target);
}

int config_add_targets(char ***list, const char *runtime_dir)
{
    char helpers[PATH_MAX];
    size_t len = 0;
    int r = 0;
    helper_file(runtime_dir, helpers);
    while (*list && (*list)[len])
        len++;
    for (size_t i = 0; i < len && r == 0; i++)
        r = add_target(list, i, helpers);
    return r;
}
