/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/audit.h"
#include "reaper/cgroup.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

void audit_item_clear(struct audit_item *item)
{
    free(item->name);
    free(item->fstype);
    free(item->source);
}

void audit_clear(struct audit *a)
{
    for (size_t i = 0; i < a->len; i++)
        audit_item_clear(&a->items[i]);
    free(a->items);
    mount_table_free(a->table);
    *a = (struct audit){0};
}

/* The new one, with its name, or NULL without memory. */
static struct audit_item *add(struct audit *a, enum rbxj_kind kind, const char *name, const char *pattern)
{
    if (a->len == a->room) {
        size_t room = a->room ? 2 * a->room : 64;
        struct audit_item *grown = reallocarray(a->items, room, sizeof(*grown));
        if (!grown)
            return NULL;
        a->items = grown;
        a->room = room;
    }
    char *copy = strdup(name);
    if (!copy)
        return NULL;
    a->items[a->len] = (struct audit_item){.kind = kind, .name = copy, .pattern = pattern};
    return &a->items[a->len++];
}

static void fill_file(struct audit_item *item, const struct stat *st)
{
    item->dev = st->st_dev;
    item->ino = st->st_ino;
    item->time_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

/* ---- paths ---- */

/* Then it is left out, and counted. 1, 0, or a negative code. */
static int might_hang(struct audit *a, const char *path, struct rbxj_error *e)
{
    int r = answers_hangs(&a->answers, a->table, path);
    a->unseen += r > 0;
    return r < 0 ? error_sys(e, -r, "%s: does its file system answer", path) : r;
}

struct expansion {
    struct audit *a;
    enum rbxj_kind kind;
    const char *pattern;
};

static bool is_pattern(const char *part)
{
    return part[strcspn(part, "*?[\\")] != 0;
}

static int expand(const struct expansion *x, int dirfd, const char *dir, const char *rest,
                  struct rbxj_error *e);

/* name in dir matches the first part of a pattern; rest: what follows it. */
static int take_part(const struct expansion *x, int dirfd, const char *dir, const char *name,
                     const char *rest, struct rbxj_error *e)
{
    char path[PATH_MAX];
    struct stat st;
    if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) >= sizeof(path))
        return 0;
    int hangs = might_hang(x->a, path, e);
    if (hangs)
        return hangs < 0 ? hangs : 0;
    if (rest) {
        _cleanup_close_ int fd = fd_open_dir(dirfd, name);
        if (fd < 0)
            return errno_is_want(-fd) ? error_sys(e, -fd, "%s", path) : 0;
        return expand(x, fd, path, rest, e);
    }
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
        return errno_is_want(errno) ? error_sys(e, errno, "%s", path) : 0;
    if (S_ISDIR(st.st_mode) != (x->kind == RBXJ_TMPDIR))
        return 0;
    struct audit_item *item = add(x->a, x->kind, path, x->pattern);
    if (!item)
        return error_sys(e, ENOMEM, "audit");
    fill_file(item, &st);
    int r = fileid_of_name(dirfd, name, &item->id);
    return r < 0 && errno_is_want(-r) ? error_sys(e, -r, "%s", path) : 0;
}

/* rest is relative to dir. Links on the way are not followed. */
static int expand(const struct expansion *x, int dirfd, const char *dir, const char *rest,
                  struct rbxj_error *e)
{
    char part[NAME_MAX + 1];
    const char *slash = strchrnul(rest, '/'), *next = *slash ? slash + 1 : NULL;
    if ((size_t)(slash - rest) >= sizeof(part))
        return 0;
    (void)snprintf(part, sizeof(part), "%.*s", (int)(slash - rest), rest);
    if (!is_pattern(part))
        return take_part(x, dirfd, dir, part, next, e);
    _cleanup_closedir_ DIR *names = fd_open_names(dirfd);
    int r = 0;
    if (!names)
        return errno_is_want(errno) ? error_sys(e, errno, "%s", dir) : 0;
    for (const struct dirent *d; r == 0 && (d = fd_next_name(names));)
        if (fnmatch(part, d->d_name, FNM_PERIOD) == 0)
            r = take_part(x, dirfd, dir, d->d_name, next, e);
    return r < 0 ? r : errno && errno_is_want(errno) ? error_sys(e, errno, "%s", dir) : 0;
}

/* The part without a pattern may lead through links: what is found has the name that a record of it would
 * have. */
static int find_paths(struct audit *a, enum rbxj_kind kind, const char *pattern, struct rbxj_error *e)
{
    struct expansion x = {a, kind, pattern};
    char fixed[PATH_MAX], real[PATH_MAX];
    size_t len = 0;
    for (const char *p = pattern; p[0] == '/';) {
        const char *slash = strchrnul(p + 1, '/');
        (void)snprintf(fixed, sizeof(fixed), "%.*s", (int)(slash - p), p);
        if (is_pattern(fixed) || !*slash)
            break;
        len = (size_t)(slash - pattern);
        p = slash;
    }
    (void)snprintf(fixed, sizeof(fixed), "%.*s", (int)len, pattern);
    int r = answers_resolve(&a->answers, a->table, len ? fixed : "/", real);
    a->unseen += r > 0;
    if (r)
        return r < 0 && errno_is_want(-r) ? error_sys(e, -r, "%s", fixed) : 0;
    _cleanup_close_ int fd = fd_open_dir(AT_FDCWD, real);
    if (fd < 0)
        return errno_is_want(-fd) ? error_sys(e, -fd, "%s", real) : 0;
    return expand(&x, fd, real[1] ? real : "", pattern + len + 1, e);
}

/* ---- cgroups ---- */

static const char *match_cgroup(const struct config *config, const char *name)
{
    for (char **p = config->cgroups; p && *p; p++)
        if (fnmatch(*p, name, 0) == 0)
            return *p;
    return NULL;
}

struct cgroup_search {
    struct audit *a;
    struct rbxj_error *e;
};

/* A cgroup in one that matches is undone with it; the walk comes to it right after that. */
static bool is_in_last(const struct audit *a, const char *path)
{
    return a->len && path_is_below(path, a->items[a->len - 1].name);
}

static int visit_cgroup(int fd, void *data)
{
    struct cgroup_search *s = data;
    char path[PATH_MAX];
    struct stat st;
    fd_path(fd, path, sizeof(path));
    const char *slash = strrchr(path, '/');
    const char *pattern = path[0] == '/' ? match_cgroup(s->a->config, slash + 1) : NULL;
    if (!pattern || is_in_last(s->a, path))
        return 0;
    if (fstat(fd, &st) < 0)
        return error_sys(s->e, errno, "%s", path);
    if (st.st_nlink == 0) /* removed meanwhile */
        return 0;
    struct audit_item *item = add(s->a, RBXJ_CGROUP, path, pattern);
    if (!item)
        return error_sys(s->e, ENOMEM, "audit");
    fill_file(item, &st);
    return 0;
}

static int find_cgroups(struct audit *a, struct rbxj_error *e)
{
    struct rbxj_error own = {0};
    struct cgroup_search s = {a, &own};
    int r = a->config->cgroups ? cgroup_each(a->table, visit_cgroup, &s) : 0;
    if (r < 0 && !own.code)
        return error_sys(e, -r, "audit: the cgroups");
    return own.code ? error_pass(e, &own) : 0;
}

/* ---- mounts ---- */

/* Its number is given to another as soon as it is unmounted: who it is takes more. 0 or -errno. */
static int identify_mount(struct audit_item *item)
{
    struct mount_at at;
    int r = mount_at(AT_FDCWD, item->name, &at);
    if (r == 0 && at.id == item->mount_id)
        item->mount_unique = at.unique;
    return r < 0 ? r : fileid_of_name(AT_FDCWD, item->name, &item->id);
}

static int find_mounts(struct audit *a, struct rbxj_error *e)
{
    struct mount_set all = mount_table_all(a->table);
    for (size_t i = 0; i < all.len; i++) {
        const struct mount *m = all.mounts[i];
        char **p = a->config->mounts;
        while (p && *p && fnmatch(*p, m->target, FNM_PERIOD) != 0)
            p++;
        if (!p || !*p)
            continue;
        struct audit_item *item = add(a, RBXJ_MOUNT, m->target, *p);
        if (!item)
            return error_sys(e, ENOMEM, "audit");
        item->mount_id = m->id;
        item->fstype = strdup(m->fstype);
        item->source = strdup(m->source[0] ? m->source : "none");
        if (!item->fstype || !item->source)
            return error_sys(e, ENOMEM, "audit");
        int hangs = might_hang(a, m->target, e);
        int r = hangs ? 0 : identify_mount(item);
        if (hangs < 0 || (r < 0 && errno_is_want(-r)))
            return hangs < 0 ? hangs : error_sys(e, -r, "%s", m->target);
    }
    return 0;
}

static int compare_items(const void *a, const void *b)
{
    const struct audit_item *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    int r = strcmp(x->name, y->name);
    return r ? r : x->mount_id < y->mount_id ? -1 : x->mount_id > y->mount_id;
}

/* Two patterns may match the same. */
static void drop_doubles(struct audit *a)
{
    size_t n = 0;
    for (size_t i = 0; i < a->len; i++) {
        if (n && compare_items(&a->items[n - 1], &a->items[i]) == 0)
            audit_item_clear(&a->items[i]);
        else
            a->items[n++] = a->items[i];
    }
    a->len = n;
}

int audit_find(struct audit *a, struct rbxj_error *e)
{
    int r = mount_table_read("/proc/self/mountinfo", &a->table, e);
    if (r == 0)
        r = find_cgroups(a, e); /* first: its search looks at the end of the list */
    for (char **p = a->config->locks; r == 0 && p && *p; p++)
        r = find_paths(a, RBXJ_LOCK, *p, e);
    for (char **p = a->config->tmpdirs; r == 0 && p && *p; p++)
        r = find_paths(a, RBXJ_TMPDIR, *p, e);
    if (r == 0)
        r = find_mounts(a, e);
    if (r == 0 && a->len) {
        qsort(a->items, a->len, sizeof(*a->items), compare_items);
        drop_doubles(a);
    }
    return r;
}
