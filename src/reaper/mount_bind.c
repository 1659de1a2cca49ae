/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Making a bind mount. It bears no source of ours by which a replay could know it (K1), but it exists, with
 * its unique id, before it is attached: so its evidence is journaled first. A supervisor that dies at any
 * moment leaves nothing that can't be proven.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/mount.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

/* mount(2)'s flags of one mount as mount_setattr(2) names them. */
static struct mount_attr attributes(unsigned long flags)
{
    static const struct {
        unsigned long flag;
        uint64_t attribute;
    } names[] = {
        {MS_RDONLY, MOUNT_ATTR_RDONLY},
        {MS_NOSUID, MOUNT_ATTR_NOSUID},
        {MS_NODEV, MOUNT_ATTR_NODEV},
        {MS_NOEXEC, MOUNT_ATTR_NOEXEC},
        {MS_NODIRATIME, MOUNT_ATTR_NODIRATIME},
        {MS_NOATIME, MOUNT_ATTR_NOATIME},
        {MS_STRICTATIME, MOUNT_ATTR_STRICTATIME},
    };
    struct mount_attr attr = {0};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (flags & names[i].flag)
            attr.attr_set |= names[i].attribute;
    if (flags & (MS_NOATIME | MS_STRICTATIME | MS_RELATIME))
        attr.attr_clr = MOUNT_ATTR__ATIME;
    return attr;
}

/* ---- evidence, ahead ---- */

/* The directory that fd is as mountinfo will show it: a path within the file system of m. 0, -ENOENT: m is
 * not where that directory is named, or -errno. */
static int root_of(int fd, const struct mount *m, char **ret)
{
    char link[40], path[RECORD_PATH_MAX];
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof(path) - 1);
    if (len < 0)
        return -errno;
    path[len] = '\0';
    if (!path_is_below(path, m->target))
        return -ENOENT;
    const char *below = path + (m->target[1] ? strlen(m->target) : 0);
    bool all = !m->root[1] && *below; /* the file system's own root: no slash twice */
    if (asprintf(ret, "%s%s", all ? "" : m->root, below) < 0)
        return -ENOMEM;
    len = (ssize_t)strlen(*ret);
    if (len > 1 && (*ret)[len - 1] == '/') /* the source is the root of everything */
        (*ret)[len - 1] = '\0';
    return 0;
}

/* What prove() would find once it is attached. 1; 0: that can't be told, or (before 6.8) the id may be
 * another's soon; or -errno. */
static int fill_ahead(struct record *r, const struct mount_table *table, int source, int clone, int target)
{
    struct mount_at of_source, of_clone, of_target;
    _cleanup_free_ char *root = NULL;
    struct fileid id = {0};
    uint8_t boot[16];
    uint64_t ns;
    int rc = mount_at(source, "", &of_source);
    rc = rc < 0 ? rc : mount_at(clone, "", &of_clone);
    rc = rc < 0 ? rc : mount_at(target, "", &of_target);
    const struct mount *m = rc < 0 ? NULL : mount_table_by_id(table, of_source.id);
    if (rc < 0 || !m || !of_clone.unique)
        return rc;
    rc = root_of(source, m, &root);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    _cleanup_free_ char *shown = strdup(m->source);
    rc = shown ? procid_boot(boot) : -ENOMEM;
    rc = rc < 0 ? rc : mount_ns_find(0, &ns);
    if (rc == 0 && fstype_is_local(m->fstype))
        rc = fileid_of_fd(clone, &id);
    if (rc < 0)
        return rc;
    free(r->root);
    free(r->found_source);
    r->root = steal_ptr(root);
    r->found_source = steal_ptr(shown);
    r->id = id;
    r->mount = (struct mountid){
        .unique = of_clone.unique, .ns = ns, .dev = m->dev, .id = of_clone.id, .parent = of_target.id};
    r->devices_held = 0; /* another mount, the source's, shows its device */
    r->flags |= REC_EVIDENCE | REC_AHEAD;
    memcpy(r->evidence_boot, boot, sizeof(boot));
    return 1;
}

static int write_ahead(struct undo *u, struct record *r, int source, int clone, int target,
                       struct rbxj_error *e)
{
    struct mount_table *table;
    r->flags &= ~(uint32_t)(REC_EVIDENCE | REC_AHEAD); /* an earlier attempt's */
    int rc = mount_table_read("/proc/self/mountinfo", &table, e);
    if (rc < 0)
        return rc;
    rc = fill_ahead(r, table, source, clone, target);
    mount_table_free(table);
    if (rc < 0)
        return error_sys(e, -rc, "mount %s: type %s, source %s", r->path, r->fstype, r->source);
    return rc == 1 && u->write_ahead ? u->write_ahead(u, r, e) : 0;
}

/* ---- the mount ---- */

/* K12: private before it is attached. Attached first, on a shared parent, its copies in other namespaces
 * would be peers of the source, and unmounting below it would unmount below the source. This way it has no
 * peers but its own copies, and they go with it. */
int mount_bind(struct undo *u, struct record *r, const struct mount_how *how, int target,
               struct rbxj_error *e)
{
    unsigned recursive = strcmp(r->fstype, "rbind") == 0 || how->flags & MS_REC ? AT_RECURSIVE : 0;
    struct mount_attr alone = {.propagation = MS_PRIVATE};
    struct mount_attr asked = attributes(how->flags);
    struct mount_attr propagation = {.propagation = how->propagation};
    _cleanup_close_ int source = open_tree(AT_FDCWD, r->source, OPEN_TREE_CLOEXEC);
    if (source < 0)
        return mount_refused(r, errno, r->source, e);
    _cleanup_close_ int fd = open_tree(source, "",
                                       AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive);
    if (fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH | recursive, &alone, sizeof(alone)) < 0 ||
        mount_setattr(fd, "", AT_EMPTY_PATH, &asked, sizeof(asked)) < 0)
        return mount_refused(r, errno, r->source, e);
    int rc = write_ahead(u, r, source, fd, target, e);
    if (rc < 0)
        return rc;
    if (move_mount(fd, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        return mount_refused(r, errno, r->source, e);
    u->made = true;
    if (how->propagation &&
        mount_setattr(fd, "", AT_EMPTY_PATH | recursive, &propagation, sizeof(propagation)) < 0)
        return mount_refused(r, errno, r->source, e);
    return 0;
}
