/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The checks that all kinds share: is the path one that is never undone, is its parent the recorded one, does
 * anybody else have something there. Fail closed: in doubt it is refused.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/journal.h"
#include "reaper/undo.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

/* ---- protected paths ---- */

static const char *const never_exactly[] = {"/",    "/usr",     "/etc",  "/home", "/root",
                                            "/var", "/var/lib", "/run",  "/tmp",  "/boot",
                                            "/opt", "/srv",     "/lib*", "/bin",  "/sbin"};
static const char *const never_below[] = {"/usr", "/etc", "/boot", "/proc", "/sys", "/dev"};

static int protected(struct rbxj_error *e, const char *path, const char *why)
{
    return error_set(e, RBXJ_E_PROTECTED_PATH, 0, "%s: is protected (%s)", path, why);
}

static bool is_below_any(char *const *list, const char *path)
{
    for (; list && *list; list++)
        if (path_is_below(path, *list))
            return true;
    return false;
}

/* The own directories, with what is in them, and every directory above them. */
static bool is_ours(const char *own, const char *path)
{
    return own && (path_is_below(path, own) || path_is_below(own, path));
}

/* A mount point of a persistent file system is protected, but for a mount (K35). 1, 0, or -errno. */
static int is_persistent_mount_point(const char *path)
{
    struct statx sx;
    struct fileid id;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &sx) < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
    if (!(sx.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) || !(sx.stx_attributes & STATX_ATTR_MOUNT_ROOT))
        return 0;
    int res = fileid_of_name(AT_FDCWD, path, &id);
    return res < 0 ? res : !fs_is_volatile(id.fs_magic);
}

int guard_protected_name(const struct config *config, enum rbxj_kind kind, const char *path,
                         struct rbxj_error *e)
{
    for (size_t i = 0; i < ARRAY_LEN(never_exactly); i++)
        if (fnmatch(never_exactly[i], path, FNM_PATHNAME) == 0)
            return protected(e, path, "a directory of the system");
    for (size_t i = 0; i < ARRAY_LEN(never_below); i++) {
        if (!path_is_below(path, never_below[i]))
            continue;
        bool shm = path_is_below(path, "/dev/shm") && strcmp(path, "/dev/shm") != 0;
        if (!shm && !(kind == RBXJ_CGROUP && i == 4)) /* /sys: a cgroup's own checks say where one may be */
            return protected(e, path, never_below[i]);
    }
    if (is_ours(config->state_dir, path) || is_ours(config->runtime_dir, path))
        return protected(e, path, "the journal's own directories");
    if (is_below_any(config->protected_paths, path))
        return protected(e, path, "by the configuration");
    if (config->allowed_paths && config->allowed_paths[0] && !is_below_any(config->allowed_paths, path))
        return protected(e, path, "outside of what the configuration allows");
    return 0;
}

int guard_protected(const struct config *config, enum rbxj_kind kind, const char *path, struct rbxj_error *e)
{
    int res = guard_protected_name(config, kind, path, e);
    int mounted = res == 0 && kind != RBXJ_MOUNT ? is_persistent_mount_point(path) : 0;
    if (mounted < 0)
        return error_sys(e, -mounted, "%s: is it a mount point", path);
    return mounted ? protected(e, path, "the mount point of a persistent file system") : res;
}

/* ---- the way to a path ---- */

static bool is_hidden(int errnum)
{
    return errnum == ENOENT || errnum == EACCES || errnum == EPERM;
}

/* 0: not visible from here. */
static int mount_ns_inode(const char *path, uint64_t *ret)
{
    struct stat st = {0};
    if (stat(path, &st) < 0 && !is_hidden(errno))
        return -errno;
    *ret = st.st_ino;
    return 0;
}

int guard_namespace(struct record *r, const struct fileid *parent, struct rbxj_error *e)
{
    uint64_t first, threads = 0;
    int res = mount_ns_inode("/proc/1/ns/mnt", &first);
    if (res == 0)
        res = mount_ns_inode("/proc/self/ns/mnt", &r->mount_ns);
    if (res == 0 && gettid() != getpid())
        res = mount_ns_inode("/proc/thread-self/ns/mnt", &threads);
    if (res < 0)
        return error_sys(e, -res, "%s: its mount namespace", r->path);
    if (threads && threads != r->mount_ns)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0,
                         "%s: this thread has mounts of its own, which are looked for by process", r->path);
    if (!first || first == r->mount_ns)
        return 0; /* not visible from here, or the same namespace */
    _cleanup_close_ int root = open("/proc/1/root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return is_hidden(errno) ? 0 : error_sys(e, errno, "%s: the root of pid 1", r->path);
    const char *slash = strrchr(r->path, '/');
    _cleanup_free_ char *dir = slash == r->path ? strdup(".")
                                                : strndup(r->path + 1, (size_t)(slash - r->path - 1));
    if (!dir)
        return error_sys(e, ENOMEM, "%s", r->path);
    struct fileid theirs;
    _cleanup_close_ int fd = fd_openat2(root, dir, O_PATH | O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS);
    res = fd < 0 ? fd : fileid_of_fd(fd, &theirs);
    if (res < 0 && errno_is_want(-res))
        return error_sys(e, -res, "%s: what pid 1 finds there", r->path);
    if (res == -EACCES || res == -EPERM || (res == 0 && fileid_equal(parent, &theirs, true)))
        return 0;
    (void)error_set(e, RBXJ_E_BAD_REQUEST, 0,
                    "%s: its parent directory is not what pid 1 finds there: private /tmp?", r->path);
    error_detail(e, "no reaper outside of this mount namespace could undo it");
    return -RBXJ_E_BAD_REQUEST;
}

int guard_chain(struct record *r)
{
    const char *end = r->path + strlen(r->path), *base;
    size_t size = 0;
    _cleanup_close_ int fd = fd_open_parent(r->path, &base);
    if (fd < 0)
        return fd;
    for (const char *p = r->path; *p; p++)
        size += *p == '/';
    struct record_step *chain = calloc(size, sizeof(*chain));
    if (!chain)
        return -ENOMEM;
    free(r->chain);
    r->chain = chain;
    r->chain_len = 0;
    for (;;) {
        struct stat st;
        uint64_t handle;
        int res = fstat(fd, &st) < 0 ? -errno : fileid_handle_hash_of_fd(fd, &handle);
        if (res < 0)
            return res;
        r->chain[r->chain_len++] = (struct record_step){st.st_dev, st.st_ino,
                                                        XXH3_64bits(base, (size_t)(end - base)), handle};
        if (base - 1 == r->path || r->chain_len == size)
            return 0;
        int up = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (up < 0)
            return -errno;
        (void)close(fd);
        fd = up;
        end = base - 1;
        base = (const char *)memrchr(r->path, '/', (size_t)(end - r->path)) + 1;
    }
}

static int refuse(struct finding *f, bool not_mounted, int code, int errnum, const char *path,
                  const char *why)
{
    f->found = FOUND_BUSY;
    if (errno_is_want(errnum)) /* says nothing about it */
        return error_sys(&f->error, errnum, "%s: %s", path, why);
    f->found = FOUND_FOREIGN;
    f->refused = true;
    f->not_mounted = not_mounted;
    return error_set(&f->error, code, errnum, "%s: %s", path, why);
}

/* Is that directory on the file system of the recorded parent? Where a file system has no identity of its
 * own, only the recorded directory itself will do (K3). */
static bool on_recorded_fs(const struct fileid *parent, const struct fileid *found, bool same_boot)
{
    static const uint8_t none[16];
    if (!same_boot && memcmp(parent->fs, none, 16) == 0)
        return parent->fs_magic == found->fs_magic && parent->handle_len &&
               parent->handle_len == found->handle_len &&
               memcmp(parent->handle, found->handle, parent->handle_len) == 0 && parent->ino == found->ino;
    return fileid_same_fs(parent, found, same_boot);
}

/* A number is given again only when its file system is no more, and with one of these went all that was in
 * it; but cgroups are there as well where they are not mounted. */
static bool went_with_its_fs(const struct fileid *parent, const struct fileid *found, bool same_boot)
{
    return same_boot && parent->dev == found->dev && fs_is_volatile(parent->fs_magic) &&
           !fs_is_cgroup(parent->fs_magic) && !fileid_same_fs(parent, found, true);
}

/* Was its path meant in another mount namespace of this boot? What is missing here is not gone then (K10). */
static bool in_other_view(const struct undo *u, const struct record *r)
{
    return u->same_boot && !r->below && r->mount_ns && u->mount_ns && r->mount_ns != u->mount_ns;
}

/* The parent is not there: gone for sure only if the nearest ancestor is where the parent was (K14). */
static int judge_missing(struct undo *u, const struct record *r, struct finding *f)
{
    char path[RECORD_PATH_MAX], name[NAME_MAX + 1];
    struct fileid found;
    (void)snprintf(path, sizeof(path), "%s", r->path);
    for (;;) {
        char *slash = strrchr(path, '/');
        slash[slash == path] = 0;
        _cleanup_close_ int fd = fd_openat2(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS);
        if (fd < 0 && (fd == -ENOENT || fd == -ENOTDIR) && path[1])
            continue;
        int r2 = fd < 0 ? fd : fileid_of_fd(fd, &found);
        if (r2 < 0)
            return refuse(f, false, RBXJ_E_FOREIGN, -r2, path, "can't be looked at");
        if (in_other_view(u, r))
            return refuse(f, false, RBXJ_E_FOREIGN, 0, r->path, "can't be seen from this mount namespace");
        bool went = went_with_its_fs(&r->parent, &found, u->same_boot);
        if (!went && !on_recorded_fs(&r->parent, &found, u->same_boot))
            return refuse(f, true, RBXJ_E_FOREIGN, 0, r->path,
                          "the file system that it is on is not mounted");
        if (!went && (r->kind == RBXJ_TMPDIR || r->kind == RBXJ_CGROUP ||
                      (r->kind == RBXJ_LOCK && r->flags & REC_EVIDENCE)))
            r2 = guard_moved(u, r, fd, name, f);
        if (r2 > 0) /* two things at once have been renamed */
            return refuse(f, false, RBXJ_E_FOREIGN, 0, r->path, "was moved");
        if (r2 < 0)
            return r2;
        f->found = FOUND_GONE;
        return -ENOENT;
    }
}

int guard_open_parent(struct undo *u, const struct record *r, const char **ret_base, struct finding *f)
{
    struct fileid found;
    const char *base;
    _cleanup_close_ int fd = fd_open_parent(r->path, &base);
    if ((fd == -ENOENT || fd == -ENOTDIR) && r->below) { /* its lower item decides (K13) */
        f->found = FOUND_GONE;
        return -ENOENT;
    }
    if (fd == -ENOENT || fd == -ENOTDIR)
        return judge_missing(u, r, f);
    if (fd == -ELOOP)
        return refuse(f, false, RBXJ_E_FOREIGN, ELOOP, r->path, "a symbolic link is on the way");
    if (fd < 0)
        return refuse(f, false, RBXJ_E_FOREIGN, -fd, r->path, "its directory");
    int res = r->below ? 0 : u->same_boot ? fileid_fs_of_fd(fd, &found) : fileid_of_fd(fd, &found);
    if (res < 0)
        return refuse(f, false, RBXJ_E_FOREIGN, -res, r->path, "its directory");
    if (!r->below && went_with_its_fs(&r->parent, &found, u->same_boot)) {
        f->found = FOUND_GONE;
        return -ENOENT;
    }
    if (!r->below && !on_recorded_fs(&r->parent, &found, u->same_boot))
        return refuse(f, true, RBXJ_E_FOREIGN, 0, r->path,
                      "its directory is on another file system than recorded");
    res = in_other_view(u, r) ? fileid_of_fd(fd, &found) : 0;
    if (res < 0 || (in_other_view(u, r) && !fileid_equal(&r->parent, &found, true)))
        return refuse(f, false, RBXJ_E_FOREIGN, -res, r->path, "can't be seen from this mount namespace");
    *ret_base = base;
    return steal_fd(&fd);
}

int guard_parent_replaced(const struct undo *u, const struct record *r, int parent)
{
    struct fileid now;
    if (r->below || !fileid_is_set(&r->parent))
        return 0;
    int res = fileid_of_fd(parent, &now);
    if (res < 0 || fileid_equal(&now, &r->parent, u->same_boot) ||
        fileid_may_be(&now, &r->parent, u->same_boot))
        return res;
    return u->same_boot || (now.handle_len && r->parent.handle_len) || (now.btime_ns && r->parent.btime_ns);
}

bool guard_of_this_boot(const struct undo *u, const struct record *r)
{
    uint8_t boot[16];
    if (!(r->flags & REC_EVIDENCE))
        return u->same_boot;
    return procid_boot(boot) < 0 || memcmp(boot, r->evidence_boot, sizeof(boot)) == 0;
}

/* ---- other boxes ---- */

struct overlap {
    const char *path;
    struct finding *f;
};

static int found_overlap(void *data, const struct snapshot_box *box, const char *path)
{
    struct overlap *o = data;
    if (!path_is_below(path, o->path)) /* what contains it is the outer box of a nested one */
        return 0;
    o->f->found = FOUND_BUSY;
    (void)error_set(&o->f->error, EBUSY, EBUSY, "%s: box %s has %s there", o->path, box->box.name, path);
    return -EBUSY;
}

int guard_overlap(struct undo *u, const struct record *r, const char *path, struct finding *f)
{
    struct overlap o = {path, f};
    return u->snapshot ? snapshot_overlaps(u->snapshot, r->incarnation, path, found_overlap, &o) : 0;
}

/* ---- what is made ---- */

bool guard_may_have_made(int errnum)
{
    static const int doubt[] = {0,        EIO,       EINTR,  ETIMEDOUT,    ESTALE,
                                ENOTCONN, EREMOTEIO, EPROTO, ECONNABORTED, ECONNRESET};
    for (size_t i = 0; i < ARRAY_LEN(doubt); i++)
        if (errnum == doubt[i])
            return true;
    return false;
}

int guard_mkdir(struct undo *u, const struct record *r, int parent, const char *base, mode_t mode,
                struct rbxj_error *e)
{
    const char *kind = kind_of(r->kind)->name;
    int failed = mkdirat(parent, base, mode) < 0 ? errno : 0;
    u->made = guard_may_have_made(failed);
    if (failed == EEXIST)
        return error_set(e, RBXJ_E_EXISTS, EEXIST, "%s %s", kind, r->path);
    return failed ? error_sys(e, failed, "%s %s: make it", kind, r->path) : 0;
}
