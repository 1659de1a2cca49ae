/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The supervisor's side of a mount: what is there before (prepare), mounting (acquire), whose it is now
 * (prove).
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/mount.h"

#include <errno.h>
#include <libmount/libmount.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#define PROPAGATION (MS_PRIVATE | MS_SLAVE | MS_SHARED | MS_UNBINDABLE)

/* ---- what kind of mount it is ---- */

void mount_source_format(char buf[MOUNT_SOURCE_MAX], const struct record *r)
{
    char stamp[STAMP_MAX];
    stamp_format(stamp, r->incarnation, r->seq);
    (void)snprintf(buf, MOUNT_SOURCE_MAX, "rbxj:%s", stamp);
}

/* Types that show whatever source they were given. Others look for it: a device, a server, a tag. */
bool mount_source_is_free(const char *fstype)
{
    static const char *const types[] = {"tmpfs",  "ramfs",  "overlay",   "proc",   "sysfs",
                                        "devpts", "mqueue", "hugetlbfs", "cgroup", "cgroup2"};
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (strcmp(types[i], fstype) == 0)
            return true;
    return false;
}

bool mount_source(char buf[MOUNT_SOURCE_MAX], const char *fstype, uint64_t incarnation, uint32_t seq)
{
    if (!mount_source_is_free(fstype))
        return false;
    mount_source_format(buf, &(struct record){.incarnation = incarnation, .seq = seq});
    return true;
}

bool mount_is_bind(const struct record *r)
{
    return strcmp(r->fstype, "bind") == 0 || strcmp(r->fstype, "rbind") == 0 ||
           strcmp(r->fstype, "none") == 0;
}

bool mount_has_fstype(const struct record *r, const struct mount *m)
{
    if (mount_is_bind(r) || strcmp(r->fstype, m->fstype) == 0)
        return true;
    if (strcmp(r->fstype, "nfs") == 0)
        return strcmp(m->fstype, "nfs4") == 0;
    size_t len = strlen(r->fstype); /* fuse shows its subtype: fuse.sshfs */
    return strncmp(r->fstype, "fuse", len) == 0 && strncmp(m->fstype, r->fstype, len) == 0 &&
           m->fstype[len] == '.';
}

bool mount_is_device(const struct record *r, const struct mount *m)
{
    struct stat st;
    return r->source[0] == '/' && stat(r->source, &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == m->dev &&
           strcmp(m->root, "/") == 0;
}

/* ---- prepare ---- */

static int open_parent(const struct record *r, const char **ret_base, struct rbxj_error *e)
{
    int fd = fd_open_parent(r->path, ret_base);
    if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP)
        return error_set(e, RBXJ_E_BAD_REQUEST, -fd, "mount %s: its parent directory", r->path);
    return fd < 0 ? error_sys(e, -fd, "mount %s: its parent directory", r->path) : fd;
}

static int open_target(const struct record *r, int parent, const char *base, struct rbxj_error *e)
{
    int fd = fd_openat2(parent, base, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0, RESOLVE_NO_SYMLINKS);
    if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP)
        return error_set(e, RBXJ_E_BAD_REQUEST, -fd, "mount %s: the target is no directory", r->path);
    return fd < 0 ? error_sys(e, -fd, "mount %s", r->path) : fd;
}

int mount_prepare(struct undo *u, struct record *r, struct rbxj_error *e)
{
    if (!path_is_normal(r->path))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "mount %s: not an absolute, plain path",
                         r->path ? r->path : "");
    if (!r->fstype || !r->fstype[0] || !r->source || !r->source[0])
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "mount %s: without file system type or source", r->path);
    int rc = guard_protected(u->config, RBXJ_MOUNT, r->path, e);
    if (rc < 0)
        return rc;
    rc = mount_ns_find(0, &r->mount_ns);
    if (rc < 0)
        return error_sys(e, -rc, "mount %s: its mount namespace", r->path);
    if (!r->below) { /* below an item that is yet to be made there is nothing to look at (K13) */
        const char *base;
        _cleanup_close_ int parent = open_parent(r, &base, e);
        _cleanup_close_ int target = parent < 0 ? parent : open_target(r, parent, base, e);
        if (target < 0)
            return target;
        struct fileid parent_id, before;
        rc = fileid_of_fd(parent, &parent_id);
        rc = rc < 0 ? rc : fileid_of_fd(target, &before);
        if (rc < 0)
            return error_sys(e, -rc, "mount %s", r->path);
        rc = guard_namespace(r, &parent_id, e);
        if (rc < 0)
            return rc;
        r->parent = parent_id;
        r->before = before;
        r->flags |= REC_BEFORE_PRESENT;
    }
    r->newest_mount = mount_newest(); /* last: what was seen before is older */
    return 0;
}

/* ---- acquire ---- */

static void how_clear(struct mount_how *how)
{
    free(how->data);
}

/* mnt_split_optstr() takes what it can't read for the end (2.38). */
static bool is_list(const char *options)
{
    char *next = (char *)(uintptr_t)options, *name, *value;
    size_t name_len, value_len;
    int rc;
    while ((rc = mnt_optstr_next_option(&next, &name, &name_len, &value, &value_len)) == 0)
        ;
    return rc == 1 && !next[strspn(next, ",")];
}

static int parse_options(const struct record *r, const char *options, struct mount_how *ret,
                         struct rbxj_error *e)
{
    static const char *const of_mount_only[] = {"loop", "offset", "sizelimit"};
    _cleanup_free_ char *user = NULL;
    _cleanup_free_ char *vfs = NULL;
    if (!options || !*options)
        return 0;
    if (!is_list(options))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "mount %s: bad options: %s", r->path, options);
    int rc = mnt_split_optstr(options, &user, &vfs, &ret->data, 0, 0);
    if (rc == 0 && vfs)
        rc = mnt_optstr_get_flags(vfs, &ret->flags, mnt_get_builtin_optmap(MNT_LINUX_MAP));
    if (rc == -ENOMEM)
        return error_sys(e, ENOMEM, "mount %s: its options", r->path);
    if (rc < 0)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "mount %s: bad options: %s", r->path, options);
    for (size_t i = 0; user && i < ARRAY_LEN(of_mount_only); i++)
        if (mnt_optstr_get_option(user, of_mount_only[i], NULL, NULL) == 0)
            return error_set(e, RBXJ_E_BAD_REQUEST, 0, "mount %s: option %s is not supported", r->path,
                             of_mount_only[i]);
    if (ret->flags & (MS_REMOUNT | MS_MOVE))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "mount %s: not a new mount: %s", r->path, options);
    ret->propagation = ret->flags & PROPAGATION;
    if (ret->propagation & (ret->propagation - 1)) /* it would fail once the mount is there */
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "mount %s: more than one propagation: %s", r->path,
                         options);
    ret->flags &= ~(unsigned long)PROPAGATION;
    return 0;
}

int mount_refused(const struct record *r, int errnum, const char *source, struct rbxj_error *e)
{
    if (errnum == EINVAL || errnum == ENODEV || errnum == ENOTBLK)
        return error_set(e, RBXJ_E_BAD_REQUEST, errnum, "mount %s: type %s, source %s", r->path, r->fstype,
                         source);
    return error_sys(e, errnum, "mount %s: type %s, source %s", r->path, r->fstype, source);
}

static int mount_new(struct undo *u, const struct record *r, const struct mount_how *how, int target,
                     struct rbxj_error *e)
{
    char path[40], ours[MOUNT_SOURCE_MAX];
    const char *source = mount_source(ours, r->fstype, r->incarnation, r->seq) ? ours : r->source;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", target);
    if (mount(source, path, r->fstype, how->flags, how->data) < 0)
        return mount_refused(r, errno, source, e);
    u->made = true;
    if (!how->propagation)
        return 0;
    /* the descriptor is below the new mount: the name is needed once more */
    const char *base;
    struct mount_attr attr = {.propagation = how->propagation};
    _cleanup_close_ int parent = open_parent(r, &base, e);
    if (parent < 0)
        return parent;
    if (mount_setattr(parent, base, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, &attr, sizeof(attr)) < 0)
        return error_sys(e, errno, "mount %s: its propagation", r->path);
    return 0;
}

/* Is the mount that is there new since the intent? */
static bool is_new(const struct record *r, const struct mount_at *at, int parent, const char *base)
{
    struct fileid id;
    if (!at->is_root)
        return false;
    if (r->newest_mount && at->unique)
        return at->unique > r->newest_mount;
    /* before 6.8: another directory shows there, if it is not one that was bound to itself */
    return mount_is_bind(r) || !(r->flags & REC_BEFORE_PRESENT) ||
           (fileid_of_name(parent, base, &id) == 0 && !fileid_equal(&id, &r->before, true));
}

/* Since the intent something was mounted on the target: only an earlier mount of the same box may lie below
 * (K4). */
static int check_stack(const struct undo *u, const struct record *r, int32_t id, struct rbxj_error *e)
{
    struct mount_table *table;
    int rc = mount_table_read("/proc/self/mountinfo", &table, e);
    if (rc < 0)
        return rc;
    const struct mount *m = mount_table_by_id(table, id);
    if (!m || !mount_is_of_box(u, r, m))
        rc = error_set(e, RBXJ_E_EXISTS, EEXIST, "mount %s: something was mounted there since the intent",
                       r->path);
    mount_table_free(table);
    return rc;
}

/* It was made. Does it lie where the intent says? */
static int prove_ahead(struct record *r, struct rbxj_error *e)
{
    const char *base;
    struct mount_at at;
    _cleanup_close_ int parent = open_parent(r, &base, e);
    if (parent < 0)
        return parent;
    int rc = mount_at(parent, base, &at);
    if (rc < 0)
        return error_sys(e, -rc, "mount %s", r->path);
    if (!at.is_root || at.unique != r->mount.unique)
        return error_set(e, RBXJ_E_EXISTS, 0, "mount %s: another mount is there", r->path);
    r->flags &= ~(uint32_t)REC_AHEAD;
    return 0;
}

int mount_acquire(struct undo *u, struct record *r, const char *options, int *ret_fd, struct rbxj_error *e)
{
    _cleanup_(how_clear) struct mount_how how = {0};
    const char *base;
    struct fileid id;
    struct mount_at at;
    int rc = parse_options(r, options, &how, e);
    if (rc < 0)
        return rc;
    bool asks_bind = how.flags & MS_BIND || strcmp(r->fstype, "none") != 0;
    if (mount_is_bind(r) ? !asks_bind : (how.flags & MS_BIND) != 0)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "mount %s: a bind mount has the type bind or rbind",
                         r->path);
    _cleanup_close_ int parent = open_parent(r, &base, e);
    _cleanup_close_ int target = parent < 0 ? parent : open_target(r, parent, base, e);
    if (target < 0)
        return target;
    rc = fileid_of_fd(target, &id);
    if (rc < 0)
        return error_sys(e, -rc, "mount %s", r->path);
    if (r->flags & REC_BEFORE_PRESENT && !fileid_equal(&id, &r->before, true) &&
        !fileid_may_be(&id, &r->before, true))
        return error_set(e, RBXJ_E_EXISTS, 0, "mount %s: the target is another directory by now", r->path);
    rc = mount_at(parent, base, &at) == 0 && at.unique && is_new(r, &at, parent, base)
             ? check_stack(u, r, at.id, e)
             : 0;
    if (rc < 0)
        return rc;
    rc = mount_is_bind(r) ? mount_bind(u, r, &how, target, e) : mount_new(u, r, &how, target, e);
    if (rc == 0)
        rc = mount_is_bind(r) && r->flags & REC_AHEAD ? prove_ahead(r, e) : mount_prove(u, r, e);
    if (rc == 0 && ret_fd)
        *ret_fd = -1;
    return rc;
}

/* ---- prove ---- */

/* 1, 0, or -errno. */
static int is_same_directory(const char *source, int dirfd, const char *base)
{
    struct stat a, b;
    if (stat(source, &a) < 0 || fstatat(dirfd, base, &b, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Is it what the intent says? 0, or EXISTS. */
static int check_intended(const struct record *r, const struct mount *m, int parent, const char *base,
                          struct rbxj_error *e)
{
    char ours[MOUNT_SOURCE_MAX];
    mount_source_format(ours, r);
    if (!mount_has_fstype(r, m))
        return error_set(e, RBXJ_E_EXISTS, 0, "mount %s: it has the type %s, not %s", r->path, m->fstype,
                         r->fstype);
    int same = mount_is_bind(r) ? is_same_directory(r->source, parent, base) : 0;
    if (same < 0)
        return error_sys(e, -same, "mount %s: is it of %s", r->path, r->source);
    if (mount_is_bind(r)
            ? same
            : strcmp(m->source, ours) == 0 || strcmp(m->source, r->source) == 0 || mount_is_device(r, m))
        return 0;
    if (!mount_is_bind(r) && !mount_source_is_free(r->fstype) && m->source[0] != '/')
        return 0; /* a server's name, a tag: the file system may write it in another way */
    return error_set(e, RBXJ_E_EXISTS, 0, "mount %s: it shows the source %s, not %s", r->path, m->source,
                     r->source);
}

/* Did this mount bring its file system into being? Then no other mount shows the device (K15). */
static bool is_own_file_system(const struct mount_table *table, const struct mount *m)
{
    return mount_table_find(table, MOUNT_BY_DEV, m).len == 1;
}

static int fill_evidence(struct record *r, const struct mount_table *table, const struct mount *m,
                         const struct mount_at *at, int parent, const char *base)
{
    char ours[MOUNT_SOURCE_MAX];
    struct fileid id = {0};
    uint8_t boot[16];
    uint64_t ns;
    _cleanup_free_ char *root = strdup(m->root);
    _cleanup_free_ char *source = strdup(m->source);
    int rc = root && source ? procid_boot(boot) : -ENOMEM;
    if (rc == 0)
        rc = mount_ns_find(0, &ns);
    if (rc == 0 && fstype_is_local(m->fstype))
        rc = fileid_of_name(parent, base, &id);
    if (rc < 0)
        return rc;
    mount_source_format(ours, r);
    free(r->root);
    free(r->found_source);
    r->root = steal_ptr(root);
    r->found_source = steal_ptr(source);
    r->id = id;
    r->mount = (struct mountid){
        .unique = at->unique, .ns = ns, .dev = m->dev, .id = m->id, .parent = m->parent};
    r->devices_held = is_own_file_system(table, m) ? m->dev : 0;
    r->flags &= ~(uint32_t)REC_AHEAD;
    r->flags |= REC_EVIDENCE | (strcmp(m->source, ours) == 0 ? REC_STAMPED : 0);
    memcpy(r->evidence_boot, boot, sizeof(boot));
    return 0;
}

int mount_prove(struct undo *u, struct record *r, struct rbxj_error *e)
{
    (void)u; /* its reading of mountinfo, if any, is older than the mount */
    const char *base;
    struct mount_at at;
    _cleanup_close_ int parent = open_parent(r, &base, e);
    if (parent < 0)
        return parent;
    int rc = mount_at(parent, base, &at);
    if (rc < 0)
        return error_sys(e, -rc, "mount %s", r->path);
    if (!is_new(r, &at, parent, base))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "mount %s: nothing was mounted there since the intent",
                         r->path);
    struct mount_table *table;
    rc = mount_table_read("/proc/self/mountinfo", &table, e);
    if (rc < 0)
        return rc;
    const struct mount *m = mount_table_by_id(table, at.id);
    if (!m || strcmp(m->target, r->path))
        rc = error_set(e, RBXJ_E_EXISTS, 0, "mount %s: mountinfo shows another mount there", r->path);
    rc = rc < 0 ? rc : check_intended(r, m, parent, base, e);
    if (rc == 0) {
        rc = fill_evidence(r, table, m, &at, parent, base);
        if (rc < 0)
            rc = error_sys(e, -rc, "mount %s", r->path);
    }
    mount_table_free(table);
    return rc;
}

/* ---- adopt ---- */

/* What the machine mounts by itself no box has left behind. As it is written there: nothing on the way is
 * asked. */
static int refuse_of_fstab(const struct record *r, struct rbxj_error *e)
{
    static const char fstab[] = "/etc/fstab";
    errno = ENOMEM;
    struct libmnt_table *table = mnt_new_table_from_file(fstab);
    if (!table)
        return errno == ENOENT ? 0 : error_sys(e, errno, "mount %s: is it of %s", r->path, fstab);
    bool is = mnt_table_find_target(table, r->path, MNT_ITER_FORWARD);
    mnt_unref_table(table);
    return is ? error_set(e, RBXJ_E_PROTECTED_PATH, 0, "mount %s: is protected (a mount point of %s)",
                          r->path, fstab)
              : 0;
}

int mount_adopt(struct undo *u, struct record *r, struct rbxj_error *e)
{
    const char *base;
    struct fileid parent_id;
    struct mount_at at;
    struct mount_table *table;
    int rc = guard_protected(u->config, RBXJ_MOUNT, r->path, e);
    rc = rc < 0 ? rc : refuse_of_fstab(r, e);
    if (rc < 0)
        return rc;
    _cleanup_close_ int parent = open_parent(r, &base, e);
    if (parent < 0)
        return parent;
    rc = fileid_of_fd(parent, &parent_id);
    rc = rc < 0 ? rc : mount_ns_find(0, &r->mount_ns);
    rc = rc < 0 ? rc : mount_at(parent, base, &at);
    if (rc < 0)
        return error_sys(e, -rc, "mount %s", r->path);
    rc = r->below ? 0 : guard_namespace(r, &parent_id, e);
    rc = rc < 0 ? rc : mount_table_read("/proc/self/mountinfo", &table, e);
    if (rc < 0)
        return rc;
    const struct mount *m = mount_table_by_id(table, at.id);
    if (!at.is_root || !m || strcmp(m->target, r->path) != 0 || strcmp(m->fstype, r->fstype) != 0)
        rc = error_set(e, RBXJ_E_EXISTS, 0, "mount %s: another one is there by now", r->path);
    else if ((rc = fill_evidence(r, table, m, &at, parent, base)) < 0)
        rc = error_sys(e, -rc, "mount %s", r->path);
    mount_table_free(table);
    if (!r->below)
        r->parent = parent_id;
    r->newest_mount = mount_newest();
    return rc;
}
