/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whatever a lock file holds: looking at it ends, reads within bounds, says of what kind it is, and finds it
 * ours only by its evidence; and JSON that is cut anywhere is told to be that.
 */
#include "fuzz.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/utf8.h"
#include "reaper/lock.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/rbxj-fuzz-XXXXXX", path[64];
static struct config config;
static struct box box = {.name = "7", .incarnation = 42, .supervisor.pid = 4711};
static struct undo u = {.config = &config, .box = &box, .same_boot = true};
static struct record r = {.incarnation = 42, .seq = 1, .kind = RBXJ_LOCK, .path = path};

static void clean(void)
{
    (void)unlink(path);
    (void)rmdir(dir);
}

static void prepare(void)
{
    const char *base;
    if (!mkdtemp(dir) || atexit(clean) != 0)
        abort();
    (void)snprintf(path, sizeof(path), "%s/lock", dir);
    _cleanup_close_ int parent = fd_open_parent(path, &base);
    if (parent < 0 || fileid_of_fd(parent, &r.parent) < 0)
        abort();
}

static enum lock_content judge(const uint8_t *data, size_t size)
{
    struct lock_reading reading;
    uint8_t *exact = malloc(size ? size : 1);
    if (!exact)
        abort();
    memcpy(exact, data, size);
    if (lock_judge(&u, &r, (const char *)exact, size, &reading) != 0 || !lock_content_name(reading.content))
        abort();
    free(exact);
    return reading.content;
}

/* Plain text all through, spaces being spaces: cJSON takes any control byte for one. */
static bool is_plain(const uint8_t *data, size_t size)
{
    for (size_t at = 0, n; at < size; at += n) {
        n = utf8_printable(data + at, size - at);
        if (!n)
            return false;
    }
    return true;
}

/* What a power cut leaves of any content counts as none in another boot. */
static bool is_lost(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (data[i])
            return false;
    return size == 0 || !u.same_boot;
}

static void try_content(const uint8_t *data, size_t size)
{
    size_t len = size > LOCK_CONTENT_MAX ? LOCK_CONTENT_MAX + 1 : size;
    enum lock_content content = judge(data, len);
    if ((content == LOCK_EMPTY) != is_lost(data, len) || content == LOCK_NOT_REGULAR)
        abort();
    if (content != LOCK_VALID && content != LOCK_OTHER_BOX)
        return;
    cJSON *json = cJSON_ParseWithLength((const char *)data, len);
    if (!json)
        abort();
    size_t whole = len;
    while (whole && strchr(" \t\r\n", data[whole - 1]))
        whole--;
    if (data[0] == '{' && is_plain(data, whole) &&
        judge(data, 1 + (data[whole / 2] * 257u) % (whole - 1)) != LOCK_TRUNCATED)
        abort();
    cJSON_Delete(json);
}

static void try_look(const uint8_t *data, size_t size)
{
    struct finding f = {0};
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || fd_write_all(fd, data, size) < 0)
        abort();
    if (kind_lock.look(&u, &r, &f) < 0 || !lock_content_name(f.content))
        abort();
    if (f.found == FOUND_PRESENT && !memmem(data, size, "42:", 3)) /* no evidence: only a stamp speaks */
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!path[0])
        prepare();
    u.records = &r;
    u.records_len = 1;
    u.same_boot = size % 2;
    try_content(data, size);
    try_look(data, size);
    return 0;
}
