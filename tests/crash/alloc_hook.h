/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For crash_alloc.c: the same life by lines of JSON, as rbxj hook answers them. What the lines name is made
 * by hand. Without memory for a reply the hook exits (with status 6): then its supervisor, which is this
 * process, dies, too.
 */
#ifndef RBXJ_TESTS_CRASH_ALLOC_HOOK_H
#define RBXJ_TESTS_CRASH_ALLOC_HOOK_H

#include "alloc_life.h"

#include "cli/hook.h"

/* One line; a reply that is no "ok" becomes an error. *ret_reply may be NULL. */
static int hook_line(struct life *l, struct rbxj_error *e, char *ret_reply, size_t size, const char *line)
{
    struct hook hook = {.handle = l->handle};
    char *reply = hook_answer(&hook, line, strlen(line));
    bool ok = strstr(reply, "\"ok\":true"), left = strstr(reply, "\"left\":");
    if (ret_reply)
        (void)snprintf(ret_reply, size, "%s", reply);
    if (!ok || left)
        *e = (struct rbxj_error){.code = RBXJ_E_IO, .errnum = strstr(reply, "\"errno\":12,") ? ENOMEM : 0};
    if (!ok || left)
        (void)snprintf(e->message, sizeof(e->message), "%.399s",
                       strstr(reply, "annot allocate") ? strstr(reply, "annot allocate") - 1 : reply);
    free(reply);
    return ok && !left ? 0 : -RBXJ_E_IO;
}

static int hook_begin(struct life *l, int i, struct rbxj_error *e)
{
    char line[8192], reply[1024];
    int n = snprintf(line, sizeof(line), "{\"op\":\"begin\",\"box\":\"" LIFE_BOX "\",\"pid\":%d,\"plan\":[",
                     (int)getpid());
    (void)i;
    for (enum part p = 0; p < PARTS; p++) {
        struct rbxj_resource r = part_resource(LIFE_BOX, p);
        if (!(l->parts & 1U << p))
            continue;
        const char *const kinds[] = {
            [RBXJ_LOCK] = "lock", [RBXJ_CGROUP] = "cgroup", [RBXJ_MOUNT] = "mount", [RBXJ_TMPDIR] = "tmpdir"};
        n += snprintf(line + n, sizeof(line) - (size_t)n, "%s{\"kind\":\"%s\",\"%s\":\"%s\"", p ? "," : "",
                      kinds[r.kind], p == MOUNT ? "target" : "path", r.path);
        n += snprintf(line + n, sizeof(line) - (size_t)n, "%s}",
                      p == MOUNT ? ",\"fstype\":\"tmpfs\",\"source\":\"rbxj-test\"" : "");
    }
    (void)snprintf(line + n, sizeof(line) - (size_t)n, "]}");
    int r = hook_line(l, e, reply, sizeof(reply), line);
    const char *incarnation = r == 0 ? strstr(reply, "\"incarnation\":\"") : NULL;
    if (r == 0)
        must(incarnation && strstr(reply, "\"sources\":["));
    if (r == 0)
        l->incarnation = strtoull(incarnation + strlen("\"incarnation\":\""), NULL, 10);
    return r;
}

/* Makes it, unless an earlier try has, and tells. */
static int hook_acquired(struct life *l, int i, struct rbxj_error *e)
{
    const char *path = part_path(LIFE_BOX, (enum part)i);
    char source[64], line[100];
    if (i == LOCK && l->lock_fd < 0) {
        l->lock_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        must(l->lock_fd >= 0 && flock(l->lock_fd, LOCK_EX | LOCK_NB) == 0);
    }
    (void)snprintf(source, sizeof(source), "rbxj:%" PRIu64 ":%u", l->incarnation, life_seq(l, i));
    if (i == MOUNT)
        must(is_mounted(path) || mount(source, path, "tmpfs", 0, "size=1m") == 0);
    else if (i != LOCK)
        must(path_exists(path) || mkdir(path, 0700) == 0);
    (void)snprintf(line, sizeof(line), "{\"op\":\"acquired\",\"box\":\"" LIFE_BOX "\",\"seq\":%u}",
                   life_seq(l, i));
    return hook_line(l, e, NULL, 0, line);
}

static int hook_intend(struct life *l, int i, struct rbxj_error *e)
{
    char line[PATH_MAX + 200], reply[1024];
    (void)i;
    (void)snprintf(line, sizeof(line),
                   "{\"op\":\"intend\",\"box\":\"" LIFE_BOX
                   "\",\"resource\":{\"kind\":\"mount\",\"target\":\"%s\","
                   "\"fstype\":\"tmpfs\",\"source\":\"x\"}}",
                   part_path(LIFE_TAKEN, MOUNT));
    int r = hook_line(l, e, reply, sizeof(reply), line);
    const char *seq = r == 0 ? strstr(reply, "\"seq\":") : NULL;
    if (r == 0)
        must(seq && strstr(reply, "\"source\":\"rbxj:"));
    if (r == 0)
        l->hand_seq = (uint32_t)atoi(seq + strlen("\"seq\":"));
    return r;
}

static int hook_released(struct life *l, int i, struct rbxj_error *e)
{
    char line[100];
    (void)i;
    (void)snprintf(line, sizeof(line), "{\"op\":\"released\",\"box\":\"" LIFE_BOX "\",\"seq\":%u}",
                   l->hand_seq);
    return hook_line(l, e, NULL, 0, line);
}

static int hook_undo(struct life *l, int i, struct rbxj_error *e)
{
    (void)i;
    return hook_line(l, e, NULL, 0, "{\"op\":\"undo\",\"box\":\"" LIFE_BOX "\"}");
}

static int hook_end(struct life *l, int i, struct rbxj_error *e)
{
    (void)i;
    return hook_line(l, e, NULL, 0, "{\"op\":\"end\",\"box\":\"" LIFE_BOX "\"}");
}

static const struct life_step hook_steps[] = {
    {"open", 0, life_open, NULL, NULL},
    {"begin", 0, hook_begin, life_has_begun, NULL},
    {"acquired", LOCK, hook_acquired, life_has_acquired, NULL},
    {"acquired", GROUP, hook_acquired, life_has_acquired, NULL},
    {"acquired", GROUP_V1, hook_acquired, life_has_acquired, NULL},
    {"acquired", MOUNT, hook_acquired, life_has_acquired, NULL},
    {"acquired", INNER, hook_acquired, life_has_acquired, NULL},
    {"acquired", TMPDIR, hook_acquired, life_has_acquired, NULL},
    {"intend", 0, hook_intend, NULL, NULL},
    {"released", 0, hook_released, NULL, NULL},
    {"undo", 0, hook_undo, life_has_undone, NULL},
    {"end", 0, hook_end, life_has_ended, NULL},
    {0},
};

#endif
