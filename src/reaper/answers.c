/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/answers.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/helper.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_NS (2LL * 1000000000)

int answers_hangs(struct answers *a, struct mount_table *table, const char *path)
{
    const struct mount *remote = mount_table_remote_above(table, path);
    if (!remote)
        return 0;
    uint64_t key = mount_table_hang_key(table, remote);
    for (size_t i = 0; i < a->len && i < ANSWERS_KNOWN; i++)
        if (a->known[i].key == key)
            return a->known[i].hangs;
    struct path_probe probe = {.path = path};
    char file[PATH_MAX];
    helper_file(a->runtime_dir, file);
    const struct probe_place place = {.file = file, .byte = key}; /* a look makes nothing */
    int r = path_probe(&probe, 1, mount_table_is_local, table, key, &place, now_monotonic_ns() + PATIENCE_NS,
                       NULL);
    if (r < 0 && errno_is_want(-r))
        return r;
    bool hangs = r < 0 || probe.result == -ETIMEDOUT; /* EBUSY: an earlier helper waits there still */
    size_t i = a->len++ % ANSWERS_KNOWN;
    a->known[i].key = key;
    a->known[i].hangs = hangs;
    return hangs;
}

/* What is left to resolve after a link, in rest. 0 or -errno. */
static int follow(const char *target, const char *behind, char rest[PATH_MAX])
{
    char next[PATH_MAX];
    if ((size_t)snprintf(next, sizeof(next), "%s/%s", target, behind) >= sizeof(next))
        return -ENAMETOOLONG;
    (void)strcpy(rest, next);
    return 0;
}

/* ret is what is resolved, without "/" at its end. */
static void go_up(char *ret)
{
    char *slash = strrchr(ret, '/');
    if (slash)
        *slash = 0;
}

/* One more part. 0: it is a link, to what is in link; 1: it might hang; -EINVAL: it is none; or -errno. */
static int enter(struct answers *a, struct mount_table *table, char ret[PATH_MAX], const char *part,
                 size_t len, char link[PATH_MAX])
{
    size_t used = strlen(ret);
    if (used + 1 + len >= PATH_MAX)
        return -ENAMETOOLONG;
    (void)sprintf(ret + used, "/%.*s", (int)len, part);
    int hangs = answers_hangs(a, table, ret);
    if (hangs)
        return hangs;
    ssize_t n = readlink(ret, link, PATH_MAX - 1);
    if (n < 0)
        return -errno;
    link[n] = 0;
    if (link[0] == '/')
        ret[0] = 0;
    else
        go_up(ret);
    return 0;
}

int answers_resolve(struct answers *a, struct mount_table *table, const char *path, char ret[PATH_MAX])
{
    enum { LINKS_MAX = 40 };
    char rest[PATH_MAX], link[PATH_MAX];
    int links = 0, r = follow(path, "", rest);
    ret[0] = 0;
    for (char *at = rest; r == 0 && *(at += strspn(at, "/"));) {
        const char *part = at;
        size_t len = strcspn(at, "/");
        at += len;
        if (len == 2 && memcmp(part, "..", 2) == 0)
            go_up(ret);
        if (part[0] == '.' && (len == 1 || (len == 2 && part[1] == '.')))
            continue;
        r = enter(a, table, ret, part, len, link);
        if (r == 0) {
            r = ++links > LINKS_MAX ? -ELOOP : follow(link, at, rest);
            at = rest;
        } else if (r == -EINVAL) {
            r = 0;
        }
    }
    if (r == 0 && !ret[0])
        (void)strcpy(ret, "/");
    return r;
}
