/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Directories and data files, looked at before they are trusted.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/fileid.h"
#include "journal/image.h"
#include "journal/internal.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>

/* In a user namespace whoever is not mapped into it shows as the overflow uid, the host's root among them. */
static bool is_unmapped(uid_t uid)
{
    char map[128];
    return uid == 65534 && fd_read_file(AT_FDCWD, "/proc/self/uid_map", map, sizeof(map)) > 0 &&
           !strstr(map, "4294967295");
}

/* Whoever can write to a directory above ours can put another one in its place: every one of them must be
 * root's or ours, and not writable by others unless it is sticky. */
static int check_parents(int dirfd, const char *path, const char *what, struct rbxj_error *e)
{
    _cleanup_close_ int fd = fcntl(dirfd, F_DUPFD_CLOEXEC, 3);
    struct stat st, up_st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_sys(e, errno, "%s %s", what, path);
    for (;;) {
        _cleanup_close_ int up = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (up < 0 || fstat(up, &up_st) < 0)
            return error_sys(e, errno, "%s %s: a directory above it", what, path);
        if (up_st.st_dev == st.st_dev && up_st.st_ino == st.st_ino)
            return 0;
        if (up_st.st_uid != 0 && up_st.st_uid != geteuid() && !is_unmapped(up_st.st_uid))
            return error_set(e, RBXJ_E_PERMISSION, 0, "%s %s: a directory above it belongs to uid %u", what,
                             path, up_st.st_uid);
        bool group = (up_st.st_mode & S_IWGRP) && up_st.st_gid != 0 && up_st.st_gid != getegid();
        if ((group || (up_st.st_mode & S_IWOTH)) && !(up_st.st_mode & S_ISVTX))
            return error_set(e, RBXJ_E_PERMISSION, 0,
                             "%s %s: a directory above it is writable by others and not sticky", what, path);
        st = up_st;
        int next = steal_fd(&up);
        (void)close(fd);
        fd = next;
    }
}

int files_open_dir(const char *path, const char *what, struct rbxj_error *e)
{
    struct stat st;
    struct statfs sf;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOENT)
            return -ENOENT;
        if (errno == ENOTDIR || errno == ELOOP)
            return error_set(e, RBXJ_E_BAD_REQUEST, 0, "%s %s: is not a directory", what, path);
        return error_sys(e, errno, "%s %s", what, path);
    }
    if (fstat(fd, &st) < 0 || fstatfs(fd, &sf) < 0)
        return error_sys(e, errno, "%s %s", what, path);
    if (fs_is_network((uint32_t)sf.f_type))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0,
                         "%s %s: is on a network file system, where locks and shared maps can't be trusted",
                         what, path);
    if (st.st_uid != geteuid())
        return error_set(e, RBXJ_E_PERMISSION, 0, "%s %s: belongs to uid %u, not to uid %u", what, path,
                         st.st_uid, geteuid());
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return error_set(e, RBXJ_E_PERMISSION, 0, "%s %s: is writable by others (mode %04o): chmod 0700",
                         what, path, st.st_mode & 07777);
    int r = check_parents(fd, path, what, e);
    if (r < 0)
        return r;
    return steal_fd(&fd);
}

#define LMDB_MAGIC 0xBEEFC0DE

/* The two meta pages of LMDB's file format, as far as they are needed to know that the file is whole. */
struct lmdb_meta {
    uint64_t pgno;
    uint16_t pad, flags;
    uint32_t lower_upper;
    uint32_t magic, version;
    uint64_t address, mapsize;
    uint32_t page_size; /* md_pad of the free database */
    uint8_t dbs[92];
    uint64_t last_page, txn;
};
static_assert(sizeof(struct lmdb_meta) == 152, "LMDB's meta page is 152 bytes long");

static bool meta_is_sound(const struct lmdb_meta *m, uint64_t page)
{
    return m->pgno == page && (m->flags & 8) && m->magic == LMDB_MAGIC && m->version == 1 &&
           m->page_size >= 512 && m->page_size <= 32768 && (m->page_size & (m->page_size - 1)) == 0 &&
           m->last_page >= 1;
}

static int refuse_short(struct rbxj_error *e, const char *shown)
{
    return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0, "journal %s: is cut short or not a journal", shown);
}

/* A file that ends before its last page, where LMDB does not write what one transaction both took and freed:
 * whole as long as every page that is used is there. Seldom: only where nothing could be reserved (K26). */
static int check_short(int fd, const char *shown, struct rbxj_error *e)
{
    struct image image = {0};
    struct pages_fault fault = {0};
    int r = image_read(fd, &image, &fault);
    image_clear(&image);
    return r == -EBADMSG ? refuse_short(e, shown) : r < 0 ? image_error(e, r, &fault, shown) : 0;
}

int files_check_data(int dirfd, const char *name, const char *shown, bool ours, struct rbxj_error *e)
{
    struct stat st;
    struct lmdb_meta meta[2];
    _cleanup_close_ int fd = fd_openat2(dirfd, name, O_RDONLY | O_NONBLOCK, 0, RESOLVE_NO_SYMLINKS);
    if (fd == -ENOENT)
        return -ENOENT;
    if (fd == -ELOOP)
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0, "journal %s: is a symbolic link, or its folder is",
                         shown);
    if (fd < 0)
        return error_sys(e, -fd, "journal %s", shown);
    if (fstat(fd, &st) < 0)
        return error_sys(e, errno, "journal %s", shown);
    if (!S_ISREG(st.st_mode))
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0, "journal %s: is not a regular file", shown);
    if (st.st_size == 0)
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0, "journal %s: is empty, its content is lost", shown);
    if (ours && (st.st_uid != geteuid() || (st.st_mode & 077)))
        return error_set(e, RBXJ_E_PERMISSION, 0, "journal %s: must be mode 0600 and belong to uid %u", shown,
                         geteuid());
    /* the size last: a writer may extend the file, then say so in a meta page, while it is looked at */
    ssize_t n0 = pread(fd, &meta[0], sizeof(meta[0]), 0);
    ssize_t n1 = n0 == sizeof(meta[0]) ? pread(fd, &meta[1], sizeof(meta[1]), meta[0].page_size) : -1;
    if (n0 < 0 || (n1 < 0 && n0 == sizeof(meta[0])) || fstat(fd, &st) < 0)
        return error_sys(e, errno, "journal %s", shown);
    if (n0 == sizeof(meta[0]) && meta[0].magic == LMDB_MAGIC && meta[0].version > 1)
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, EPROTONOSUPPORT, "journal %s: has another layout", shown);
    /* both must do: LMDB picks the newer, and falls back on neither */
    if (n1 != sizeof(meta[1]) || !meta_is_sound(&meta[0], 0) || !meta_is_sound(&meta[1], 1))
        return refuse_short(e, shown);
    uint64_t there = (uint64_t)st.st_size / meta[0].page_size;
    return meta[0].last_page < there && meta[1].last_page < there ? 0 : check_short(fd, shown, e);
}

int files_have_aside(int dirfd)
{
    int copy = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (copy < 0)
        return -errno;
    _cleanup_closedir_ DIR *dir = fdopendir(copy);
    if (!dir) {
        int r = -errno;
        (void)close(copy);
        return r;
    }
    for (;;) {
        errno = 0;
        struct dirent *d = readdir(dir);
        if (!d)
            return -errno;
        if (strncmp(d->d_name, "journal.damaged-", 16) == 0)
            return 1;
    }
}

int files_remove_folder(int dirfd, const char *name)
{
    static const char *const files[] = {"data.mdb", "lock.mdb", "gate"};
    _cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        if (unlinkat(fd, files[i], 0) < 0 && errno != ENOENT)
            return -errno;
    return unlinkat(dirfd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}
