/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/mountinfo.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

struct mount_table {
    char *text;           /* has the strings */
    struct mount *mounts; /* in the order of mountinfo */
    size_t len;
    const struct mount **remote; /* those that are not local; most hosts have none */
    size_t remote_len;
    struct mount **by[MOUNT_KEYS]; /* sorted by that field, then by position */
};

/* ---- reading ---- */

/* All of it, with a NUL behind it. */
static int read_text(const char *path, char **ret, size_t *ret_len)
{
    _cleanup_free_ char *text = NULL;
    size_t len = 0, room = 0;
    ssize_t n = 1;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    while (n) {
        if (room - len < 4097) { /* the kernel gives a page at most */
            room = room ? room * 2 : 1 << 16;
            char *larger = realloc(text, room);
            if (!larger)
                return -ENOMEM;
            text = larger;
        }
        n = read(fd, text + len, room - len - 1);
        if (n < 0 && errno != EINTR)
            return -errno;
        len += n > 0 ? (size_t)n : 0;
    }
    text[len] = '\0';
    *ret = steal_ptr(text);
    *ret_len = len;
    return 0;
}

/* Blanks, control characters and backslashes of names are in octal: \040. */
static char *decode(char *text)
{
    char *out = text;
    for (const char *in = text; *in; out++) {
        if (in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] >= '0' && in[2] <= '7' && in[3] >= '0' &&
            in[3] <= '7') {
            *out = (char)((in[1] - '0') << 6 | (in[2] - '0') << 3 | (in[3] - '0'));
            in += 4;
        } else {
            *out = *in++;
        }
    }
    *out = '\0';
    return text;
}

/* The next field, which may be empty; NULL past the last. */
static char *field(char **line)
{
    return strsep(line, " ");
}

static bool parse_number(const char *text, uint32_t *ret)
{
    char *end;
    if (!text || *text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (errno || *end || number > UINT32_MAX)
        return false;
    *ret = (uint32_t)number;
    return true;
}

static bool parse_device(char *text, uint64_t *ret)
{
    uint32_t major, minor;
    const char *first = strsep(&text, ":");
    if (!parse_number(first, &major) || !parse_number(text, &minor))
        return false;
    *ret = makedev(major, minor);
    return true;
}

/* The optional fields end with a "-". */
static bool parse_optional(char **line, struct mount *m)
{
    char *text;
    while ((text = field(line)) && strcmp(text, "-") != 0)
        if ((strncmp(text, "shared:", 7) == 0 && !parse_number(text + 7, &m->peers)) ||
            (strncmp(text, "master:", 7) == 0 && !parse_number(text + 7, &m->master)))
            return false;
    return text;
}

/* ID PARENT MAJOR:MINOR ROOT TARGET OPTIONS [shared:N] [master:N] ... - TYPE SOURCE OPTIONS: proc(5) */
static bool parse_line(char *line, struct mount *ret)
{
    struct mount m = {0};
    uint32_t id, parent;
    if (!parse_number(field(&line), &id) || !parse_number(field(&line), &parent) ||
        !parse_device(field(&line), &m.dev))
        return false;
    char *root = field(&line), *target = field(&line);
    if (!field(&line) || target[0] != '/' || !parse_optional(&line, &m))
        return false;
    char *fstype = field(&line), *source = field(&line);
    if (!line || !fstype[0])
        return false;
    m.id = (int32_t)id;
    m.parent = (int32_t)parent;
    m.root = decode(root);
    m.target = decode(target);
    m.fstype = decode(fstype);
    m.source = decode(source);
    m.options = decode(line);
    *ret = m;
    return true;
}

#define COMPARE(a, b) (((a) > (b)) - ((a) < (b)))

static int compare(enum mount_key by, const struct mount *a, const struct mount *b)
{
    switch (by) {
    case MOUNT_BY_ID:
        return COMPARE(a->id, b->id);
    case MOUNT_BY_PARENT:
        return COMPARE(a->parent, b->parent);
    case MOUNT_BY_PEERS:
        return COMPARE(a->peers, b->peers);
    case MOUNT_BY_MASTER:
        return COMPARE(a->master, b->master);
    case MOUNT_BY_DEV:
        return COMPARE(a->dev, b->dev);
    case MOUNT_BY_TARGET:
        return strcmp(a->target, b->target);
    case MOUNT_BY_SOURCE:
        return strcmp(a->source, b->source);
    }
    return 0;
}

static int compare_for_sort(const void *a, const void *b, void *by)
{
    const struct mount *x = *(struct mount *const *)a, *y = *(struct mount *const *)b;
    int order = compare(*(enum mount_key *)by, x, y);
    return order ? order : COMPARE(x, y);
}

static int sort_all(struct mount_table *t)
{
    for (enum mount_key by = 0; by < MOUNT_KEYS; by++) {
        t->by[by] = calloc(t->len + 1, sizeof(*t->by[by]));
        if (!t->by[by])
            return -ENOMEM;
        for (size_t i = 0; i < t->len; i++)
            t->by[by][i] = &t->mounts[i];
        qsort_r(t->by[by], t->len, sizeof(*t->by[by]), compare_for_sort, &by);
    }
    return 0;
}

static int parse_all(struct mount_table *t, size_t len)
{
    size_t lines = 0;
    for (const char *at = t->text; at && (at = strchr(at, '\n')); at++)
        lines++;
    if (!lines && !len) /* there always is a root; a dying process has an empty mountinfo */
        return -ENOENT;
    t->mounts = calloc(lines + 1, sizeof(*t->mounts));
    t->remote = calloc(lines + 1, sizeof(*t->remote));
    if (!t->mounts || !t->remote)
        return -ENOMEM;
    for (char *rest = t->text; *rest;) {
        char *line = strsep(&rest, "\n");
        if (!rest || !parse_line(line, &t->mounts[t->len])) /* also one without its end */
            return -EBADMSG;
        t->len++;
        len -= (size_t)(rest - line);
    }
    return len ? -EBADMSG : 0; /* a NUL is in it */
}

static int read_into(struct mount_table *t, const char *path)
{
    size_t len = 0;
    int rc = read_text(path, &t->text, &len);
    if (rc == -ESRCH || rc == -EINVAL) /* EINVAL: of a zombie (6.18) */
        rc = -ENOENT;
    if (rc == 0)
        rc = parse_all(t, len);
    if (rc < 0)
        return rc;
    /* the root answers, whatever it is (a container's is an overlay): this program came from it */
    for (size_t i = 0; i < t->len; i++)
        if (!fstype_is_local(t->mounts[i].fstype) && strcmp(t->mounts[i].target, "/") != 0)
            t->remote[t->remote_len++] = &t->mounts[i];
    return sort_all(t);
}

int mount_table_read(const char *path, struct mount_table **ret, struct rbxj_error *e)
{
    struct mount_table *t = calloc(1, sizeof(*t));
    int rc = t ? read_into(t, path) : -ENOMEM;
    if (rc == 0) {
        *ret = t;
        return 0;
    }
    mount_table_free(t);
    if (rc == -ENOENT)
        return error_set(e, ENOENT, ENOENT, "read %s", path);
    return error_sys(e, -rc, "read %s", path);
}

void mount_table_free(struct mount_table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < MOUNT_KEYS; i++)
        free(table->by[i]);
    free(table->mounts);
    free(table->remote);
    free(table->text);
    free(table);
}

/* ---- look-ups ---- */

struct mount_set mount_table_all(const struct mount_table *table)
{
    return (struct mount_set){.mounts = table->by[MOUNT_BY_ID], .len = table->len};
}

/* The first index whose field is not below key's (or is above it). */
static size_t bound(const struct mount_table *t, enum mount_key by, const struct mount *key, bool above)
{
    size_t low = 0, high = t->len;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare(by, t->by[by][middle], key);
        if (order < 0 || (above && order == 0))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct mount_set mount_table_find(const struct mount_table *table, enum mount_key by, const struct mount *key)
{
    size_t first = bound(table, by, key, false);
    return (struct mount_set){.mounts = table->by[by] + first, .len = bound(table, by, key, true) - first};
}

struct mount *mount_table_by_id(const struct mount_table *table, int32_t id)
{
    struct mount key = {.id = id};
    struct mount_set set = mount_table_find(table, MOUNT_BY_ID, &key);
    return set.len && !set.mounts[0]->gone ? set.mounts[0] : NULL;
}

/* Does another mount lie exactly on m? */
static bool is_covered(const struct mount_table *table, const struct mount *m)
{
    struct mount key = {.parent = m->id};
    struct mount_set children = mount_table_find(table, MOUNT_BY_PARENT, &key);
    for (size_t i = 0; i < children.len; i++) {
        const struct mount *child = children.mounts[i];
        if (!child->gone && child != m && strcmp(child->target, m->target) == 0)
            return true;
    }
    return false;
}

struct mount *mount_table_top(const struct mount_table *table, const char *target)
{
    struct mount key = {.target = target};
    struct mount_set set = mount_table_find(table, MOUNT_BY_TARGET, &key);
    for (size_t i = set.len; i-- > 0;)
        if (!set.mounts[i]->gone && !is_covered(table, set.mounts[i]))
            return set.mounts[i];
    return NULL;
}

/* Not autofs, which waits for its daemon, nor overlay, which is as good as what is below it. */
static const char *const local_types[] = {
    "bcachefs", "binfmt_misc", "bpf",       "btrfs",   "cgroup",     "cgroup2",   "configfs", "debugfs",
    "devpts",   "devtmpfs",    "efivarfs",  "erofs",   "exfat",      "ext2",      "ext3",     "ext4",
    "f2fs",     "fusectl",     "hugetlbfs", "iso9660", "jfs",        "mqueue",    "nsfs",     "ntfs3",
    "proc",     "pstore",      "ramfs",     "rootfs",  "securityfs", "selinuxfs", "squashfs", "sysfs",
    "tmpfs",    "tracefs",     "udf",       "vfat",    "xfs",        "zfs",
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

bool fstype_is_local(const char *fstype)
{
    return bsearch(&fstype, local_types, ARRAY_LEN(local_types), sizeof(*local_types), compare_names) != NULL;
}

const struct mount *mount_table_remote_above(const struct mount_table *table, const char *path)
{
    const struct mount *deepest = NULL;
    for (size_t i = 0; i < table->remote_len; i++) {
        const struct mount *m = table->remote[i];
        if (!m->gone && path_is_below(path, m->target) &&
            (!deepest || strlen(m->target) >= strlen(deepest->target)))
            deepest = m;
    }
    return deepest;
}

uint64_t mount_table_hang_key(const struct mount_table *table, const struct mount *m)
{
    char dir[PATH_MAX];
    (void)snprintf(dir, sizeof(dir), "%s", m->target);
    *strrchr(dir, '/') = 0;
    if (mount_table_remote_above(table, dir[0] ? dir : "/"))
        return 1ULL << 62 | 1ULL << 61 | (uint32_t)m->id;
    return 1ULL << 62 | m->dev;
}

bool mount_table_is_local(void *table, int id)
{
    const struct mount *m = mount_table_by_id(table, id);
    return m && fstype_is_local(m->fstype);
}

/* ---- identity ---- */

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000U /* 6.8 */
#endif

/* One of the two ids, as mask says: the kernel gives only one at a time. */
static int look_at(int dirfd, const char *name, int flags, unsigned mask, struct mount_at *ret)
{
    struct statx st;
    if (statx(dirfd, name, flags | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, STATX_INO | mask, &st) < 0)
        return -errno;
    ret->dev = makedev(st.stx_dev_major, st.stx_dev_minor);
    ret->ino = st.stx_ino;
    ret->is_root = st.stx_attributes & STATX_ATTR_MOUNT_ROOT;
    if (!(st.stx_mask & mask)) /* the id since 5.8, the unique one since 6.8 */
        return mask == STATX_MNT_ID ? -EOPNOTSUPP : 0;
    if (mask == STATX_MNT_ID)
        ret->id = (int32_t)st.stx_mnt_id;
    else
        ret->unique = st.stx_mnt_id;
    return 0;
}

int mount_at(int dirfd, const char *name, struct mount_at *ret)
{
    struct mount_at at = {0};
    int flags = AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
    int rc = look_at(dirfd, name, flags, STATX_MNT_ID_UNIQUE, &at);
    rc = rc < 0 ? rc : look_at(dirfd, name, flags, STATX_MNT_ID, &at);
    if (rc == 0)
        *ret = at;
    return rc;
}

int mount_at_link(int dirfd, const char *name, bool unique, struct mount_at *ret)
{
    *ret = (struct mount_at){0};
    return look_at(dirfd, name, 0, unique ? STATX_MNT_ID_UNIQUE : STATX_MNT_ID, ret);
}

/* statmount(2) since 6.8; Debian 12's headers have neither its number nor its structures. */
#define SYS_STATMOUNT 457
#define STATMOUNT_MNT_BASIC 2U
struct statmount_request {
    uint32_t size;
    uint32_t spare;
    uint64_t mnt_id;
    uint64_t param;
};
struct statmount_answer {
    uint32_t size, mnt_opts;
    uint64_t mask;
    uint32_t sb_dev_major, sb_dev_minor;
    uint64_t sb_magic;
    uint32_t sb_flags, fs_type;
    uint64_t mnt_id, mnt_parent_id;
    uint32_t mnt_id_old, mnt_parent_id_old;
    uint64_t rest[64];
};

int mount_id_of_unique(uint64_t unique, int32_t *ret)
{
    struct statmount_request request = {
        .size = sizeof(request), .mnt_id = unique, .param = STATMOUNT_MNT_BASIC};
    struct statmount_answer answer = {0};
    if (syscall(SYS_STATMOUNT, &request, &answer, sizeof(answer), 0) < 0)
        return errno == ENOENT ? -ENOENT : -ENOSYS; /* also where a seccomp filter says EPERM */
    if (!(answer.mask & STATMOUNT_MNT_BASIC))
        return -ENOSYS;
    *ret = (int32_t)answer.mnt_id_old;
    return 0;
}

int mount_device_exists(uint64_t dev)
{
#ifdef SYS_ustat         /* not on newer architectures, nor in many a container */
    uint64_t answer[16]; /* struct ustat, whose header is gone; four times its size */
    unsigned number = (minor(dev) & 0xff) | major(dev) << 8 | (minor(dev) & ~0xffU) << 12;
    if (syscall(SYS_ustat, number, answer) == 0)
        return 1;
    return errno == EINVAL ? 0 : -ENOSYS;
#else
    (void)dev;
    return -ENOSYS;
#endif
}

uint64_t mount_newest(void)
{
    /* unique ids only ever grow, so that of a mount made now and seen by nobody is the highest */
    _cleanup_close_ int fd = open_tree(AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    struct mount_at at;
    return fd >= 0 && mount_at(fd, "", &at) == 0 ? at.unique : 0;
}
