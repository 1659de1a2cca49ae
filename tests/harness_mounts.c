/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The harness: what is mounted, and unmounting it.
 */
#include "harness.h"
#include "harness_parts.h"

#include "base/cleanup.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#define MAX_MOUNTS 4096

bool harness_is_below(const char *path, const char *dir)
{
    size_t len = strlen(dir);
    return strncmp(path, dir, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

/* \040 and its like in mountinfo, in place. */
static void unescape(char *text)
{
    char *out = text;

    for (const char *in = text; *in; in++) {
        if (in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] && in[3]) {
            *out++ = (char)((in[1] - '0') * 64 + (in[2] - '0') * 8 + (in[3] - '0'));
            in += 3;
        } else {
            *out++ = *in;
        }
    }
    *out = '\0';
}

/* Counts the mounts at or below dir; up to max of their targets go to ret. */
static size_t mounts_below(const char *dir, char **ret, size_t max)
{
    _cleanup_free_ char *text = harness_read_file("/proc/self/mountinfo");
    size_t n = 0;
    char *rest;

    for (char *line = text ? strtok_r(text, "\n", &rest) : NULL; line; line = strtok_r(NULL, "\n", &rest)) {
        char *fields, *target = strtok_r(line, " ", &fields);
        for (int i = 0; i < 4 && target; i++)
            target = strtok_r(NULL, " ", &fields);
        if (!target)
            continue;
        unescape(target);
        if (!harness_is_below(target, dir))
            continue;
        if (n < max)
            ret[n] = strdup(target);
        n++;
    }
    return n;
}

size_t harness_mounts_below(const char *dir)
{
    return mounts_below(dir, NULL, 0);
}

/* The youngest of them that can be: one that is covered can't be reached before what covers it is gone. */
static bool unmount_one(const char *dir)
{
    char *targets[MAX_MOUNTS];
    size_t n = mounts_below(dir, targets, MAX_MOUNTS);
    n = n < MAX_MOUNTS ? n : MAX_MOUNTS;
    bool done = false;

    for (size_t i = n; i-- > 0; free(targets[i]))
        done = done || umount2(targets[i], MNT_DETACH | UMOUNT_NOFOLLOW) == 0;
    return done;
}

int harness_unmount_below(const char *dir)
{
    if (!*dir)
        return 0;
    for (int round = 0; round < 20000 && harness_mounts_below(dir) > 0; round++)
        if (!unmount_one(dir))
            return -1;
    return harness_mounts_below(dir) > 0 ? -1 : 0;
}
