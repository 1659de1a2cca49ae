/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whatever a lock file holds: looking at it ends, reads within bounds, and finds it ours only by its
 * evidence.
 */
#include "fuzz.h"

#include "base/fd.h"
#include "reaper/undo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/rbxj-fuzz-XXXXXX", path[64];

static void clean(void)
{
    (void)unlink(path);
    (void)rmdir(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config;
    static struct box box = {.name = "7", .incarnation = 42};
    static struct record r = {.incarnation = 42, .seq = 1, .kind = RBXJ_LOCK, .path = path};
    struct undo u = {.config = &config, .box = &box, .records = &r, .records_len = 1, .same_boot = true};
    struct finding f = {0};
    if (!path[0]) {
        if (!mkdtemp(dir) || atexit(clean) != 0)
            abort();
        (void)snprintf(path, sizeof(path), "%s/lock", dir);
        const char *base;
        int parent = fd_open_parent(path, &base);
        if (parent < 0 || fileid_of_fd(parent, &r.parent) < 0)
            abort();
        (void)close(parent);
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || fd_write_all(fd, data, size) < 0)
        abort();
    (void)close(fd);
    if (kind_lock.look(&u, &r, &f) < 0)
        abort();
    if (f.found == FOUND_PRESENT && !memmem(data, size, "42:", 3)) /* no evidence: only a stamp speaks */
        abort();
    return 0;
}
