/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/fileid.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"

#include <assert.h>
#include <errno.h>
#include <linux/btrfs.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <xxhash.h>

#ifndef FS_IOC_GETFSUUID /* Linux 6.9 */
struct fsuuid2 {
    uint8_t len;
    uint8_t uuid[16];
};
#define FS_IOC_GETFSUUID _IOR(0x15, 0, struct fsuuid2)
#endif
#define EXT4_IOC_GETFSUUID_OLD _IOR('f', 44, struct ext4_fsuuid) /* ext4, since 6.0 */
struct ext4_fsuuid {
    uint32_t len;
    uint32_t flags;
    uint8_t uuid[16];
};
/* struct xfs_fsop_geom_v1 of xfsprogs' <xfs/xfs_fs.h> */
struct xfs_geometry {
    uint32_t sizes[8];
    uint64_t blocks[4];
    uint8_t uuid[16];
    uint32_t rest[8];
};
#define XFS_IOC_FSGEOMETRY_V1_ _IOR('X', 100, struct xfs_geometry)
#ifndef CIFS_SUPER_MAGIC
#define CIFS_SUPER_MAGIC 0xff534d42u
#endif
#ifndef SMB2_SUPER_MAGIC
#define SMB2_SUPER_MAGIC 0xfe534d42u
#endif
#define CEPH_SUPER_MAGIC_ 0x00c36400u
#define GFS2_MAGIC_ 0x01161970u
#define OCFS2_MAGIC_ 0x7461636fu
#define LUSTRE_MAGIC_ 0x0bd00bd0u
#define FUSE_MAGIC_ 0x65735546u
#define RAMFS_MAGIC_ 0x858458f6u

bool fs_is_volatile(uint32_t magic)
{
    switch (magic) {
    case TMPFS_MAGIC:
    case RAMFS_MAGIC_:
    case CGROUP_SUPER_MAGIC:
    case CGROUP2_SUPER_MAGIC:
    case PROC_SUPER_MAGIC:
    case SYSFS_MAGIC:
    case DEVPTS_SUPER_MAGIC:
        return true;
    default:
        return false;
    }
}

bool fs_is_network(uint32_t magic)
{
    switch (magic) {
    case NFS_SUPER_MAGIC:
    case SMB_SUPER_MAGIC:
    case CIFS_SUPER_MAGIC:
    case SMB2_SUPER_MAGIC:
    case CEPH_SUPER_MAGIC_:
    case AFS_SUPER_MAGIC:
    case AFS_FS_MAGIC:
    case CODA_SUPER_MAGIC:
    case V9FS_MAGIC:
    case GFS2_MAGIC_:
    case OCFS2_MAGIC_:
    case LUSTRE_MAGIC_:
    case FUSE_MAGIC_:
        return true;
    default:
        return false;
    }
}

bool fs_is_cgroup(uint32_t magic)
{
    return magic == CGROUP_SUPER_MAGIC || magic == CGROUP2_SUPER_MAGIC;
}

/* What failed for a moment: an identity that is made without it would be another one. */
static bool is_passing(int errnum)
{
    return errno_is_want(errnum) || errnum == EIO;
}

/* An ioctl; *failed: not for being unknown here. */
static bool ask(int fd, unsigned long request, void *answer, int *failed)
{
    if (ioctl(fd, request, answer) == 0)
        return true;
    if (is_passing(errno))
        *failed = -errno;
    return false;
}

/* The UUID that the file system itself tells, by whichever call its version knows. Needs a real descriptor,
 * not O_PATH. Returns its length, 0 for none, or -errno. */
static int fs_uuid(int fd, uint32_t magic, uint8_t uuid[16])
{
    struct fsuuid2 u2 = {0};
    struct xfs_geometry xfs;
    struct btrfs_ioctl_fs_info_args btrfs;
    int failed = 0;
    if (ask(fd, FS_IOC_GETFSUUID, &u2, &failed) && u2.len > 0 && u2.len <= 16) {
        memcpy(uuid, u2.uuid, u2.len);
        return u2.len;
    }
    struct ext4_fsuuid e4 = {.len = 16};
    if (magic == EXT4_SUPER_MAGIC && ask(fd, EXT4_IOC_GETFSUUID_OLD, &e4, &failed) && e4.len == 16) {
        memcpy(uuid, e4.uuid, 16);
        return 16;
    }
    if (magic == XFS_SUPER_MAGIC && ask(fd, XFS_IOC_FSGEOMETRY_V1_, &xfs, &failed)) {
        memcpy(uuid, xfs.uuid, 16);
        return 16;
    }
    if (magic == BTRFS_SUPER_MAGIC && ask(fd, BTRFS_IOC_FS_INFO, &btrfs, &failed)) {
        memcpy(uuid, btrfs.fsid, 16);
        return 16;
    }
    return failed;
}

/* What /sys knows of the block device below: its partition or disk identity outlives the boot, its number
 * does not. Returns its length, 0 for none, or -errno. */
static int block_identity(uint64_t dev, char *buf, size_t size)
{
    char path[64], text[2048];
    (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/uevent", major(dev), minor(dev));
    ssize_t n = fd_read_file(AT_FDCWD, path, text, sizeof(text));
    if (n < 0 && is_passing((int)-n))
        return (int)n;
    char *uuid = n > 0 ? strstr(text, "PARTUUID=") : NULL;
    if (!uuid)
        return 0;
    uuid[strcspn(uuid, "\n")] = 0;
    (void)snprintf(buf, size, "%s", uuid);
    return (int)strlen(buf);
}

struct fs_key {
    uint32_t magic;
    char text[128];
};

/* Nothing was told (n is 0): the bytes stay zero. */
static void set_fs(uint8_t fs[16], const struct fs_key *key, int n)
{
    XXH128_canonical_t c;
    if (n <= 0)
        return;
    XXH128_canonicalFromHash(&c, XXH3_128bits(key, offsetof(struct fs_key, text) + (size_t)n));
    memcpy(fs, c.digest, sizeof(c.digest));
}

/* What the device tells, where the file system itself does not. As fs_uuid(). */
static int tell_by_device(uint64_t dev, struct fs_key *key)
{
    int n = block_identity(dev, key->text, sizeof(key->text));
    if (n == 0 && fs_is_volatile(key->magic)) /* lives within one boot, where its number tells it apart */
        n = snprintf(key->text, sizeof(key->text), "dev %llu", (unsigned long long)dev);
    return n;
}

/* The identity of the file system, in the order of K3; never f_fsid. Nothing found: the bytes stay zero, and
 * the file handle of the parent directory must do. 0 or -errno. */
static int find_fs_identity(int fd, struct fileid *id)
{
    struct fs_key key = {.magic = id->fs_magic};
    int n = 0;
    if (!fs_is_network(id->fs_magic)) {
        /* an O_PATH descriptor answers no ioctl: reopen the directory it names; files answer through their
         * own */
        char proc[40];
        (void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
        bool safe = S_ISDIR(id->mode) || S_ISREG(id->mode);
        _cleanup_close_ int real = safe ? open(proc, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOATIME) : -1;
        if (real < 0 && safe)
            real = open(proc, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (real >= 0)
            n = fs_uuid(real, id->fs_magic, (uint8_t *)key.text);
        else if (safe && is_passing(errno))
            n = -errno;
    }
    if (n == 0)
        n = tell_by_device(id->dev, &key);
    set_fs(id->fs, &key, n);
    return n < 0 ? n : 0;
}

/* Is its f_fsid the device number (XFS, F2FS, vfat)? Another file system may come to have that. */
static bool fsid_is_device(const struct statfs *sf, uint64_t dev)
{
    uint32_t fsid[2], number = (minor(dev) & 0xff) | major(dev) << 8 | (minor(dev) & ~0xffU) << 12;
    static_assert(sizeof(fsid) == sizeof(sf->f_fsid), "f_fsid is two numbers");
    memcpy(fsid, &sf->f_fsid, sizeof(fsid));
    return fsid[0] == number && fsid[1] == 0;
}

/* The same, asked once for each file system: f_fsid says whether it still is the one that was asked. */
static int fs_identity(int fd, const struct statfs *sf, struct fileid *id)
{
    static _Thread_local struct {
        uint64_t dev;
        struct statfs sf;
        uint8_t fs[16];
        bool used;
    } known[4];
    static _Thread_local unsigned next;
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (known[i].used && known[i].dev == id->dev && known[i].sf.f_type == sf->f_type &&
            memcmp(&known[i].sf.f_fsid, &sf->f_fsid, sizeof(sf->f_fsid)) == 0) {
            memcpy(id->fs, known[i].fs, sizeof(id->fs));
            return 0;
        }
    int r = find_fs_identity(fd, id);
    if (r < 0 || fsid_is_device(sf, id->dev))
        return r;
    size_t slot = next++ % ARRAY_LEN(known);
    known[slot].dev = id->dev;
    known[slot].sf = *sf;
    memcpy(known[slot].fs, id->fs, sizeof(id->fs));
    known[slot].used = true;
    return 0;
}

/* File systems that have none are told apart by other things; 0 or -errno. */
static int take_handle(int dirfd, const char *name, int flags, struct fileid *id)
{
    union {
        struct file_handle h;
        char space[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    } u = {.h.handle_bytes = MAX_HANDLE_SZ};
    int mount_id;
    if (name_to_handle_at(dirfd, name, &u.h, &mount_id, flags) < 0)
        return is_passing(errno) ? -errno : 0;
    id->handle_type = u.h.handle_type;
    if (u.h.handle_bytes <= FILEID_HANDLE_MAX) {
        id->handle_len = (uint8_t)u.h.handle_bytes;
        memcpy(id->handle, u.h.f_handle, u.h.handle_bytes);
    } else {
        XXH128_canonical_t c;
        XXH128_canonicalFromHash(&c, XXH3_128bits(u.h.f_handle, u.h.handle_bytes));
        id->handle_len = sizeof(c.digest);
        memcpy(id->handle, c.digest, sizeof(c.digest));
    }
    return 0;
}

static uint64_t handle_hash(const struct fileid *id)
{
    return XXH3_64bits_withSeed(id->handle, id->handle_len, (uint64_t)id->handle_type) | 1;
}

uint64_t fileid_handle_hash(const struct fileid *id)
{
    return id->handle_len && !fs_is_network(id->fs_magic) ? handle_hash(id) : 0;
}

int fileid_handle_hash_of_fd(int fd, uint64_t *ret)
{
    struct fileid id = {0};
    int r = take_handle(fd, "", AT_EMPTY_PATH, &id);
    if (r == 0)
        *ret = id.handle_len ? handle_hash(&id) : 0;
    return r;
}

static int of_fd(int fd, bool handle, struct fileid *ret)
{
    struct statx sx;
    struct statfs sf;
    struct fileid id = {0};
    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_SYNC_AS_STAT, STATX_BASIC_STATS | STATX_BTIME, &sx) < 0)
        return -errno;
    if (fstatfs(fd, &sf) < 0)
        return -errno;
    id.fs_magic = (uint32_t)sf.f_type;
    id.uid = sx.stx_uid;
    id.dev = makedev(sx.stx_dev_major, sx.stx_dev_minor);
    id.ino = sx.stx_ino;
    id.mode = sx.stx_mode;
    if (sx.stx_mask & STATX_BTIME)
        id.btime_ns = (int64_t)sx.stx_btime.tv_sec * 1000000000 + sx.stx_btime.tv_nsec;
    bool tells_fs = id.fs_magic == BTRFS_SUPER_MAGIC; /* is_same_subvolume() */
    int r = handle || tells_fs ? take_handle(fd, "", AT_EMPTY_PATH, &id) : 0;
    if (r == 0)
        r = fs_identity(fd, &sf, &id);
    if (r == 0)
        *ret = id;
    return r;
}

int fileid_of_fd(int fd, struct fileid *ret)
{
    return of_fd(fd, true, ret);
}

int fileid_fs_of_fd(int fd, struct fileid *ret)
{
    return of_fd(fd, false, ret);
}

int fileid_of_name(int dirfd, const char *name, struct fileid *ret)
{
    _cleanup_close_ int fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return fileid_of_fd(fd, ret);
}

/* ENOMEM is said of an inode number, too, that another process is just giving to a new file (ext4 6.18:
 * iget_locked() has no other answer): it passes as soon as that one is on, which may wait for the disk; only
 * want of memory lasts. Two seconds at most. */
static int open_handle(int dirfd, struct file_handle *handle)
{
    for (useconds_t wait = 500, waited = 0;; waited += wait) {
        int fd = open_by_handle_at(dirfd, handle, O_PATH | O_CLOEXEC);
        if (fd >= 0 || errno != ENOMEM || waited > 2000000)
            return fd < 0 ? -errno : fd;
        (void)usleep(wait);
        wait = wait < 50000 ? wait * 2 : wait;
    }
}

int fileid_open(int dirfd, const struct fileid *id, bool same_boot)
{
    union {
        struct file_handle h;
        char space[sizeof(struct file_handle) + FILEID_HANDLE_MAX];
    } u = {.h = {.handle_bytes = id->handle_len, .handle_type = id->handle_type}};
    struct fileid found;
    struct stat st;
    if (!id->handle_len || id->handle_len == sizeof(XXH128_canonical_t) || fs_is_network(id->fs_magic))
        return -EOPNOTSUPP; /* of that length it may be the hash of a longer one */
    memcpy(u.h.f_handle, id->handle, id->handle_len);
    _cleanup_close_ int dir = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* O_PATH will not do */
    if (dir < 0)
        return errno == EACCES || errno == EPERM ? -EOPNOTSUPP : -errno;
    _cleanup_close_ int fd = open_handle(dir, &u.h);
    if (fd < 0)
        return fd == -EPERM || fd == -EACCES ? -EOPNOTSUPP : fd;
    int r = fstat(fd, &st) < 0 ? -errno : fileid_of_fd(fd, &found);
    if (r == 0 && (st.st_nlink == 0 || !fileid_equal(&found, id, same_boot)))
        r = -ESTALE;
    return r < 0 ? r : steal_fd(&fd);
}

/* Did only its device tell what it is, as of a directory that whoever looked may not read? In doubt it
 * did. */
static bool is_told_by_device(const struct fileid *a)
{
    struct fs_key key = {.magic = a->fs_magic};
    uint8_t fs[16] = {0};
    int n = tell_by_device(a->dev, &key);
    set_fs(fs, &key, n);
    return n < 0 || memcmp(a->fs, fs, sizeof(fs)) == 0;
}

/* The subvolumes of a btrfs are mounted one by one, and where one is missing another one may be seen (K14).
 * Each handle has the number of its own: struct btrfs_fid of the kernel. */
static bool is_same_subvolume(const struct fileid *a, const struct fileid *b)
{
    enum { WITHOUT_PARENT = 0x4d, AT = 8, LEN = 8 };
    return a->fs_magic != BTRFS_SUPER_MAGIC || a->handle_type != WITHOUT_PARENT ||
           b->handle_type != WITHOUT_PARENT || a->handle_len < AT + LEN || b->handle_len < AT + LEN ||
           memcmp(a->handle + AT, b->handle + AT, LEN) == 0;
}

bool fileid_same_fs(const struct fileid *a, const struct fileid *b, bool same_boot)
{
    static const uint8_t none[16];
    if (a->fs_magic != b->fs_magic)
        return false;
    bool same = memcmp(a->fs, b->fs, 16) == 0;
    bool named = memcmp(a->fs, none, 16) != 0 && memcmp(b->fs, none, 16) != 0;
    /* cgroups outlive their mounts, of which each has an identity of its own (6.18) */
    if (same_boot && a->dev == b->dev)
        return same || !named || fs_is_cgroup(a->fs_magic) || is_told_by_device(a) || is_told_by_device(b);
    /* without a device of its own (btrfs, overlay) it has another number each time that it is mounted */
    return same && named && is_same_subvolume(a, b) &&
           (!same_boot || (major(a->dev) == 0 && major(b->dev) == 0));
}

/* File systems without an identity of their own (K3): the handle must do, and there must be one. */
static bool both_unnamed(const struct fileid *a, const struct fileid *b)
{
    static const uint8_t none[16];
    return a->fs_magic == b->fs_magic && memcmp(a->fs, none, 16) == 0 && memcmp(b->fs, none, 16) == 0 &&
           a->handle_len && b->handle_len;
}

bool fileid_equal(const struct fileid *a, const struct fileid *b, bool same_boot)
{
    if ((!fileid_same_fs(a, b, same_boot) && (same_boot || !both_unnamed(a, b))) || a->ino != b->ino ||
        (a->mode & S_IFMT) != (b->mode & S_IFMT))
        return false;
    bool handles = a->handle_len && b->handle_len;
    bool births = a->btime_ns && b->btime_ns;
    if (handles && (a->handle_len != b->handle_len || a->handle_type != b->handle_type ||
                    memcmp(a->handle, b->handle, a->handle_len) != 0))
        return false;
    if (births && a->btime_ns != b->btime_ns)
        return false;
    return handles || births || same_boot;
}

bool fileid_may_be(const struct fileid *a, const struct fileid *b, bool same_boot)
{
    return a->fs_magic == OVERLAYFS_SUPER_MAGIC && fileid_same_fs(a, b, same_boot) && !a->handle_len &&
           !b->handle_len && S_ISDIR(a->mode) && S_ISDIR(b->mode) && a->btime_ns &&
           a->btime_ns == b->btime_ns;
}

bool fileid_is_weak(const struct fileid *a)
{
    bool generation = a->handle_len && a->fs_magic != FUSE_MAGIC_;
    return a->fs_magic == CGROUP_SUPER_MAGIC || !(generation || a->btime_ns);
}

bool fileid_is_set(const struct fileid *a)
{
    return a->ino != 0;
}
