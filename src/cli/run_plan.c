/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The plan of `rbxj run`.
 */
#include "cli/run_plan.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *path_absolute(const char *path)
{
    if (!*path) {
        errno = EINVAL;
        return NULL;
    }
    _cleanup_free_ char *cwd = NULL;
    if (*path != '/') {
        cwd = getcwd(NULL, 0);
        if (!cwd)
            return NULL;
        if (*cwd != '/') { /* "(unreachable)/..." */
            errno = ENOENT;
            return NULL;
        }
    }
    _cleanup_free_ char *whole = NULL;
    if (asprintf(&whole, "%s/%s", cwd ? cwd : "", path) < 0) {
        errno = ENOMEM;
        return NULL;
    }

    char *normal = malloc(strlen(whole) + 2), *save = NULL;
    if (!normal)
        return NULL;
    size_t used = 0;
    for (char *part = strtok_r(whole, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
        if (strcmp(part, ".") == 0)
            continue;
        if (strcmp(part, "..") == 0) {
            while (used && normal[--used] != '/')
                ;
            continue;
        }
        normal[used++] = '/';
        memcpy(normal + used, part, strlen(part));
        used += strlen(part);
    }
    if (!used)
        normal[used++] = '/';
    normal[used] = '\0';
    return normal;
}

static bool is_bind(const struct run_item *item)
{
    return strcmp(item->fstype, "bind") == 0 || strcmp(item->fstype, "rbind") == 0 ||
           strcmp(item->fstype, "none") == 0;
}

/* What it shows when it is mounted is known beforehand: nothing. */
static bool is_mounted_empty(const struct run_item *item)
{
    return strcmp(item->fstype, "tmpfs") == 0 || strcmp(item->fstype, "ramfs") == 0;
}

/* FSTYPE,SOURCE,TARGET[,OPTIONS] */
static int parse_mount(struct run_item *item, const char *argument, const char **ret_why)
{
    item->text = strdup(argument);
    if (!item->text)
        return -ENOMEM;
    char *rest = item->text;
    item->fstype = strsep(&rest, ",");
    item->source = strsep(&rest, ",");
    const char *target = strsep(&rest, ",");
    item->options = rest && *rest ? rest : NULL;
    if (!target || !*item->fstype || !*item->source || !*target) {
        *ret_why = "takes FSTYPE,SOURCE,TARGET[,OPTIONS], for instance tmpfs,scratch,/srv/box/7/tmp,size=64m";
        return -EINVAL;
    }
    item->path = path_absolute(target);
    if (item->path && is_bind(item)) {
        item->bind = path_absolute(item->source);
        if (!item->bind)
            return -errno;
        item->source = item->bind;
    }
    return item->path ? 0 : -errno;
}

static void item_clear(struct run_item *item)
{
    free(item->path);
    free(item->text);
    free(item->bind);
}

int run_plan_add(struct run_plan *plan, enum rbxj_kind kind, const char *argument, const char **ret_why)
{
    struct run_item *items = realloc(plan->items, (plan->len + 1) * sizeof(*items));
    if (!items)
        return -ENOMEM;
    plan->items = items;

    struct run_item item = {.kind = kind};
    int rc = 0;
    if (!*argument) {
        *ret_why = "takes a path that is not empty";
        rc = -EINVAL;
    } else if (kind == RBXJ_MOUNT) {
        rc = parse_mount(&item, argument, ret_why);
    } else {
        item.path = path_absolute(argument);
        rc = item.path ? 0 : -errno;
    }
    if (rc < 0) {
        item_clear(&item);
        return rc;
    }
    plan->items[plan->len++] = item;
    return 0;
}

void run_plan_clear(struct run_plan *plan)
{
    for (size_t i = 0; i < plan->len; i++)
        item_clear(&plan->items[i]);
    free(plan->items);
    *plan = (struct run_plan){0};
}

/* Is there something at path on the system as it is now? 1, 0, or -errno. */
static int is_there(const char *path)
{
    struct stat st;
    if (lstat(path, &st) == 0)
        return 1;
    return errno == ENOENT ? 0 : -errno;
}

/* Will the target of mount i be there when the items before it are acquired? The latest of them that has to
 * do with the path decides, because it covers what was there. 1, 0, -EAGAIN, or -errno. */
static int will_be_there(const struct run_plan *plan, size_t i)
{
    const char *target = plan->items[i].path;
    for (size_t k = i; k-- > 0;) {
        const struct run_item *earlier = &plan->items[k];
        if (earlier->kind != RBXJ_MOUNT && earlier->kind != RBXJ_TMPDIR)
            continue;
        if (strcmp(earlier->path, target) == 0)
            return 1;
        if (path_is_below(target, earlier->path))
            return earlier->kind == RBXJ_TMPDIR || is_mounted_empty(earlier) ? 0 : -EAGAIN;
    }
    return is_there(target);
}

int run_plan_resources(const struct run_plan *plan, size_t i, int acquired,
                       struct rbxj_resource ret[RUN_RESOURCES_MAX])
{
    const struct run_item *item = &plan->items[i];
    int count = 0;
    if (item->kind == RBXJ_MOUNT) {
        int there = acquired ? is_there(item->path) : will_be_there(plan, i);
        if (there < 0)
            return there;
        if (!there)
            ret[count++] = (struct rbxj_resource){
                .kind = RBXJ_TMPDIR, .flags = RBXJ_RMDIR_ONLY, .path = item->path};
    }
    ret[count++] = (struct rbxj_resource){
        .kind = item->kind,
        .path = item->path,
        .fstype = item->fstype,
        .source = item->source,
        .options = item->options,
    };
    return count;
}
