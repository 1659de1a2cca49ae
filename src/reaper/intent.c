/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/intent.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

/* The nearest earlier item at or above path: the longest, and of those the youngest. */
static const struct record *lower_of(const char *path, const struct record *earlier, size_t n)
{
    const struct record *best = NULL;
    for (size_t i = 0; i < n; i++) {
        const struct record *r = &earlier[i];
        if (!r->path || (r->kind != RBXJ_MOUNT && r->kind != RBXJ_TMPDIR) || !path_is_below(path, r->path))
            continue;
        if (!best || strlen(r->path) >= strlen(best->path))
            best = r;
    }
    return best;
}

/* Its directory is missing, but what exists of the way may lead by a symlink to where an earlier item will be
 * made. */
static bool resolve_missing(const char *path, const struct record *earlier, size_t n, char **ret)
{
    char head[PATH_MAX], real[PATH_MAX];
    (void)snprintf(head, sizeof(head), "%s", path);
    for (char *slash; (slash = strrchr(head, '/')) && slash != head;) {
        *slash = 0;
        if (!realpath(head, real))
            continue;
        if (asprintf(ret, "%s%s", real[1] ? real : "", path + (slash - head)) < 0)
            *ret = NULL;
        if (*ret && lower_of(*ret, earlier, n) && path_is_normal(*ret))
            return true;
        free(*ret);
        *ret = NULL;
        return false;
    }
    return false;
}

/* Resolves the directory part, where nothing of this box is on the way; the last component is never
 * followed. */
static int resolve(const char *path, const struct record *earlier, size_t n, char **ret, struct rbxj_error *e)
{
    char real[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (lower_of(path, earlier, n)) {
        *ret = strdup(path);
        return *ret ? 0 : error_sys(e, ENOMEM, "intent");
    }
    _cleanup_free_ char *dir = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
    if (!dir)
        return error_sys(e, ENOMEM, "intent");
    if (!realpath(dir, real) && errno == ENOENT && resolve_missing(path, earlier, n, ret))
        return 0;
    if (!realpath(dir, real)) {
        bool missing = errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == ENAMETOOLONG;
        return missing ? error_set(e, RBXJ_E_BAD_REQUEST, errno, "%s: its directory", path)
                       : error_sys(e, errno, "%s: its directory", path);
    }
    if (asprintf(ret, "%s%s", real[1] ? real : "", slash) < 0) {
        *ret = NULL;
        return error_sys(e, ENOMEM, "intent");
    }
    return 0;
}

static int set_string(char **to, const char *from, const char *what, struct rbxj_error *e)
{
    if (!from)
        return 0;
    if (!from[0] || strlen(from) >= RECORD_PATH_MAX)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "mount: its %s is empty or too long", what);
    *to = strdup(from);
    return *to ? 0 : error_sys(e, ENOMEM, "intent");
}

static int make_record(struct undo *u, const struct rbxj_resource *resource, const struct record *earlier,
                       size_t n, bool adopt, struct record *r, struct rbxj_error *e)
{
    const struct kind *kind = kind_of(resource->kind);
    if (!kind || (adopt && !kind->adopt))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "resource: kind %d is not known", (int)resource->kind);
    if (resource->flags & ~(uint32_t)RBXJ_RMDIR_ONLY || (resource->flags && resource->kind != RBXJ_TMPDIR))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "%s: flags %#x are not known", kind->name,
                         resource->flags);
    r->kind = resource->kind;
    r->time_ns = now_realtime_ns();
    r->owner = geteuid();
    random_bytes(r->nonce, sizeof(r->nonce));
    if (resource->flags & RBXJ_RMDIR_ONLY)
        r->flags |= REC_RMDIR_ONLY;
    if (resource->kind == RBXJ_PROCESS) {
        r->process.pid = resource->pid;
        return kind->prepare(u, r, e);
    }
    if (!path_is_normal(resource->path) || !resource->path[1])
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "%s %s: is not an absolute path without . or .. or //",
                         kind->name, resource->path ? resource->path : "(none)");
    int res = resolve(resource->path, earlier, n, &r->path, e);
    if (res == 0 && resource->kind == RBXJ_MOUNT && (!resource->fstype || !resource->source))
        res = error_set(e, RBXJ_E_BAD_REQUEST, 0, "mount %s: needs a type and a source", resource->path);
    if (res == 0)
        res = set_string(&r->fstype, resource->kind == RBXJ_MOUNT ? resource->fstype : NULL, "type", e);
    if (res == 0)
        res = set_string(&r->source, resource->kind == RBXJ_MOUNT ? resource->source : NULL, "source", e);
    if (res < 0)
        return res;
    const struct record *lower = lower_of(r->path, earlier, n);
    r->below = lower ? lower->seq : 0;
    res = (adopt ? kind->adopt : kind->prepare)(u, r, e);
    if (res == 0 && !r->below && (r->kind == RBXJ_LOCK || r->kind == RBXJ_TMPDIR))
        res = guard_namespace(r, &r->parent, e);
    if (res == 0 && !r->below && (res = guard_chain(r)) < 0)
        res = error_sys(e, -res, "%s %s: the way to it", kind->name, r->path);
    return res;
}

int intent_prepare(struct undo *u, const struct rbxj_resource *resource, const struct record *earlier,
                   size_t n, struct record *r, struct rbxj_error *e)
{
    return make_record(u, resource, earlier, n, false, r, e);
}

int intent_adopt(struct undo *u, const struct rbxj_resource *resource, const struct record *earlier, size_t n,
                 struct record *r, struct rbxj_error *e)
{
    return make_record(u, resource, earlier, n, true, r, e);
}
