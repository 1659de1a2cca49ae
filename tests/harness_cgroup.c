/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The harness: cgroups of the test's own, and removing them.
 */
#include "harness.h"
#include "harness_parts.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_HIERARCHIES 32

static unsigned int cgroups_made;

static struct hierarchy {
    char *root;
    char *controllers; /* ",cpu,cpuacct," of a v1 hierarchy; NULL: cgroup2 */
} hierarchies[MAX_HIERARCHIES];
static size_t hierarchies_len;

void harness_find_hierarchies(void)
{
    _cleanup_free_ char *text = harness_read_file("/proc/self/mountinfo");
    char *rest;

    for (char *line = text ? strtok_r(text, "\n", &rest) : NULL; line; line = strtok_r(NULL, "\n", &rest)) {
        char root[PATH_MAX], type[32], options[256];
        if (hierarchies_len == MAX_HIERARCHIES ||
            sscanf(line, "%*s %*s %*s / %4095s %*[^-]- %31s %*s %255s", root, type, options) != 3)
            continue;
        struct hierarchy h = {0};
        if (strcmp(type, "cgroup") == 0)
            assert_true(asprintf(&h.controllers, ",%s,", options) > 0);
        else if (strcmp(type, "cgroup2") != 0)
            continue;
        h.root = strdup(root);
        assert_non_null(h.root);
        hierarchies[hierarchies_len++] = h;
    }
}

const char *harness_cgroup_root(const char *controller)
{
    for (size_t i = 0; i < hierarchies_len; i++) {
        const struct hierarchy *h = &hierarchies[i];
        if (!controller && !h->controllers)
            return h->root;
        if (controller && h->controllers && strstr(h->controllers, harness_format(",%s,", controller)))
            return h->root;
    }
    return NULL;
}

static const char *make_cgroup(const char *controller)
{
    harness_need_root();
    const char *root = harness_cgroup_root(controller);
    if (!root)
        harness_skip("no cgroup hierarchy with %s", controller ? controller : "cgroup2");
    const char *path = harness_format("%s/%s%u", root, harness_prefix, cgroups_made++);
    if (mkdir(path, 0755) < 0 && (errno == EROFS || errno == EACCES || errno == EPERM))
        harness_skip("%s can't be written here", root);
    if (!path_exists(path))
        fail_msg("mkdir %s: %s", path, strerror(errno));
    return path;
}

const char *harness_cgroup(void)
{
    return make_cgroup(NULL);
}

const char *harness_cgroup_v1(const char *controller)
{
    return make_cgroup(controller);
}

/* Calls act on dir and everything below it, deepest first. */
static void each_cgroup(const char *dir, void (*act)(const char *dir))
{
    _cleanup_closedir_ DIR *d = opendir(dir);
    const struct dirent *entry;

    while (d && (entry = readdir(d))) {
        char path[PATH_MAX];
        if (entry->d_type == DT_DIR && strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name) < (int)sizeof(path))
            each_cgroup(path, act);
    }
    act(dir);
}

/* A test may have moved itself in: it leaves before everybody else in there is killed. */
static void leave_cgroup(const char *dir)
{
    char path[PATH_MAX];
    char *rest;

    if (snprintf(path, sizeof(path), "%s/cgroup.procs", dir) >= (int)sizeof(path))
        return;
    _cleanup_free_ char *procs = harness_read_file(path);
    for (char *pid = procs ? strtok_r(procs, "\n", &rest) : NULL; pid; pid = strtok_r(NULL, "\n", &rest)) {
        for (size_t i = 0; atoi(pid) == getpid() && i < hierarchies_len; i++)
            if (harness_is_below(dir, hierarchies[i].root))
                harness_try_write(hierarchies[i].root, "cgroup.procs", "0");
    }
}

static void kill_cgroup(const char *dir)
{
    char path[PATH_MAX];
    char *rest;

    harness_try_write(dir, "cgroup.kill", "1");
    harness_try_write(dir, "freezer.state", "THAWED"); /* v1: a frozen process does not die */
    if (snprintf(path, sizeof(path), "%s/cgroup.procs", dir) >= (int)sizeof(path))
        return;
    _cleanup_free_ char *procs = harness_read_file(path);
    for (char *pid = procs ? strtok_r(procs, "\n", &rest) : NULL; pid; pid = strtok_r(NULL, "\n", &rest))
        if (atoi(pid) > 1 && atoi(pid) != getpid())
            (void)kill(atoi(pid), SIGKILL);
    (void)rmdir(dir);
}

static int remove_cgroup(const char *dir)
{
    each_cgroup(dir, leave_cgroup);
    for (int round = 0; path_exists(dir) && round < 1000; round++) {
        if (round > 0)
            (void)usleep(5000);
        each_cgroup(dir, kill_cgroup);
    }
    return path_exists(dir) ? -1 : 0;
}

int harness_remove_cgroups(void)
{
    int r = 0;

    for (size_t i = 0; i < hierarchies_len; i++) {
        _cleanup_closedir_ DIR *d = opendir(hierarchies[i].root);
        const struct dirent *entry;
        while (d && (entry = readdir(d))) {
            char path[PATH_MAX];
            if (strncmp(entry->d_name, harness_prefix, strlen(harness_prefix)) == 0 &&
                snprintf(path, sizeof(path), "%s/%s", hierarchies[i].root, entry->d_name) <
                    (int)sizeof(path) &&
                remove_cgroup(path) < 0)
                r = -1;
        }
    }
    return r;
}

void harness_forget_hierarchies(void)
{
    while (hierarchies_len > 0) {
        struct hierarchy *h = &hierarchies[--hierarchies_len];
        free(h->root);
        free(h->controllers);
    }
}
