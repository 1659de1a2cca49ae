/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is there, as the kernel shows it: trees to the last byte, and whether a thing is gone for sure,
 * whatever it is called now.
 */
#include "hostile_world.h"

#include "reaper/mountinfo.h"

#include <dirent.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

/* ---- trees ---- */

static void picture_attributes(FILE *out, const char *path)
{
    char names[1024], value[256];
    ssize_t n = llistxattr(path, names, sizeof(names));
    for (ssize_t at = 0; at < n; at += (ssize_t)strlen(names + at) + 1) {
        ssize_t len = lgetxattr(path, names + at, value, sizeof(value));
        fprintf(out, " %s=%.*s", names + at, (int)(len > 0 ? len : 0), value);
    }
}

static void picture_content(FILE *out, const char *path, const struct stat *st)
{
    char text[4096];
    ssize_t n = 0;
    if (S_ISLNK(st->st_mode))
        n = readlink(path, text, sizeof(text));
    if (S_ISREG(st->st_mode)) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);
        n = fd < 0 ? 0 : read(fd, text, sizeof(text));
    }
    fprintf(out, " %.*s\n", (int)(n > 0 ? n : 0), text);
}

static void picture_one(FILE *out, const char *path, bool links)
{
    struct stat st;
    struct dirent **names;
    if (lstat(path, &st) < 0) {
        fprintf(out, "%s: %s\n", path, strerror(errno));
        return;
    }
    fprintf(out, "%s %o %u:%u inode %lu size %ld modified %ld.%09ld", path, st.st_mode, st.st_uid, st.st_gid,
            (unsigned long)st.st_ino, (long)st.st_size, (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    if (links)
        fprintf(out, " links %lu changed %ld.%09ld", (unsigned long)st.st_nlink, (long)st.st_ctim.tv_sec,
                st.st_ctim.tv_nsec);
    picture_attributes(out, path);
    picture_content(out, path, &st);
    int n = S_ISDIR(st.st_mode) ? scandir(path, &names, NULL, alphasort) : -1;
    for (int i = 0; i < n; i++) {
        char child[PATH_MAX + NAME_MAX + 2];
        (void)snprintf(child, sizeof(child), "%s/%s", path, names[i]->d_name);
        if (strcmp(names[i]->d_name, ".") != 0 && strcmp(names[i]->d_name, "..") != 0)
            picture_one(out, child, links);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
}

static char *kept(char *text)
{
    char *copy = harness_format("%s", text);
    free(text);
    return copy;
}

char *picture(const char *dir, bool links)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    picture_one(out, dir, links);
    (void)fclose(out);
    return kept(text);
}

void must_be_whole(const char *dir, const char *before, bool links)
{
    char *now = picture(dir, links);
    if (strcmp(now, before) != 0)
        fail_msg("%s has changed:\n--- before\n%s--- now\n%s", dir, before, now);
}

void make_decoy(const char *dir)
{
    const char *passwd = harness_format("%s/passwd", dir), *sub = harness_format("%s/ssl", dir);
    const struct timespec old[] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000, .tv_nsec = 5}};
    harness_mkdir(dir);
    harness_mkdir(sub);
    harness_write(passwd, "root:x:0:0:root:/root:/bin/bash\n");
    harness_write(harness_format("%s/key\n\033[31m", sub), "secret\n");
    harness_write(harness_format("%s/shadow", dir), "root:!:1::::::\n");
    must(symlink("passwd", harness_format("%s/link", dir)) == 0);
    must(link(passwd, harness_format("%s/passwd-", dir)) == 0);
    must(mkfifo(harness_format("%s/fifo", dir), 0600) == 0);
    must(setxattr(passwd, "trusted.decoy", "x", 1, 0) == 0);
    must(chmod(passwd, 04644) == 0 && chown(sub, 12345, 54321) == 0);
    must(utimensat(AT_FDCWD, passwd, old, 0) == 0 && utimensat(AT_FDCWD, sub, old, 0) == 0);
}

/* ---- the things of a box ---- */

static int statx_mount(const char *path, struct thing *thing)
{
    struct mount_at at;
    int r = mount_at(AT_FDCWD, path, &at);
    thing->mount = r < 0 ? 0 : at.unique;
    thing->device = at.dev;
    return r;
}

void things_note(void)
{
    for (size_t i = 0; i < world.a.len; i++) {
        struct thing *t = &world.things[i];
        const struct rbxj_resource *r = &world.a.resources[i];
        int id;
        t->file.handle.handle_bytes = MAX_HANDLE_SZ;
        if (r->kind == RBXJ_MOUNT) {
            must(statx_mount(r->path, t) == 0);
            t->device = strcmp(r->fstype, "tmpfs") == 0 ? t->device : 0;
        } else {
            if (r->kind == RBXJ_TMPDIR && name_to_handle_at(AT_FDCWD, r->path, &t->file.handle, &id, 0) < 0)
                t->file.handle.handle_bytes = 0; /* covered by now, or of a file system without handles */
            if (r->kind != RBXJ_TMPDIR)
                must(name_to_handle_at(AT_FDCWD, r->path, &t->file.handle, &id, 0) == 0);
        }
    }
}

static bool shows(const char *path, const char *text)
{
    _cleanup_fclose_ FILE *f = fopen(path, "re");
    _cleanup_free_ char *line = NULL;
    size_t size = 0;
    while (f && getline(&line, &size, f) > 0)
        if (strstr(line, text))
            return true;
    return false;
}

size_t mounts_with_source(const char *source)
{
    char path[64];
    const struct dirent *d;
    _cleanup_closedir_ DIR *proc = opendir("/proc");
    size_t n = 0;
    while (proc && (d = readdir(proc))) {
        (void)snprintf(path, sizeof(path), "/proc/%.32s/mountinfo", d->d_name);
        n += d->d_name[0] >= '1' && d->d_name[0] <= '9' && shows(path, source);
    }
    return n;
}

/* The source that rbxj gave to its file system names it in every namespace. */
static bool mount_is_gone(size_t i)
{
    const struct thing *t = &world.things[i];
    int32_t id;
    if (t->device &&
        mounts_with_source(harness_format(" rbxj:%lu:%zu ", (unsigned long)world.incarnation, i + 1)) > 0)
        return false;
    return t->mount ? mount_id_of_unique(t->mount, &id) == -ENOENT
                    : harness_mounts_below(world.a.resources[i].path) == 0;
}

bool thing_is_gone(size_t i)
{
    struct thing *t = &world.things[i];
    const struct rbxj_resource *r = &world.a.resources[i];
    struct stat st;
    if (r->kind == RBXJ_MOUNT)
        return mount_is_gone(i);
    if (!t->file.handle.handle_bytes)
        return !path_exists(r->path);
    /* on which file system: that of its directory, if it still is there */
    _cleanup_close_ int root = open(harness_disk(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char *parent = harness_format("%s", r->path);
    *strrchr(parent, '/') = 0;
    _cleanup_close_ int dir = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_close_ int fd = -1;
    for (int tries = 0; tries < 200;
         tries++) { /* ENOMEM: its number is just given to a new file (ext4 6.18) */
        fd = open_by_handle_at(dir >= 0 ? dir : root, &t->file.handle, O_PATH);
        if (fd >= 0 || errno != ENOMEM)
            break;
        (void)usleep(10000);
    }
    if (fd < 0 && errno != ESTALE)
        print_error("%s: %s\n", r->path, strerror(errno));
    if (fd < 0)
        return errno == ESTALE;
    if (fstat(fd, &st) == 0 && st.st_nlink == 0)
        return true;
    char proc[40], now[PATH_MAX] = "";
    (void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
    (void)!readlink(proc, now, sizeof(now) - 1);
    print_error("%s is there, as %s\n", r->path, now);
    return false;
}

bool is_gone(enum rbxj_kind kind)
{
    for (size_t i = 0; i < world.a.len; i++)
        if (world.a.resources[i].kind == kind && !thing_is_gone(i))
            return false;
    return true;
}

bool process_is_dead(pid_t pid)
{
    char path[32], text[512] = "";
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
    if (f)
        (void)fclose(f);
    const char *paren = strrchr(text, ')');
    return n == 0 || !paren || paren[2] == 'Z' || paren[2] == 'X';
}

/* The living box: its files, mount, cgroup, processes. */
char *bystander_picture(void)
{
    const char *mount = bystander(RBXJ_MOUNT), *cgroup = bystander(RBXJ_CGROUP);
    struct stat st;
    must(stat(cgroup, &st) == 0);
    return harness_format(
        "%s%s%s%zu mounts, cgroup %lu, supervisor %s, payload %s\n", picture(bystander(RBXJ_TMPDIR), true),
        picture(mount, true), picture(bystander(RBXJ_LOCK), true), harness_mounts_below(mount),
        (unsigned long)st.st_ino, process_is_dead(world.bystander_supervisor) ? "dead" : "alive",
        process_is_dead(world.bystander_payload) ? "dead" : "alive");
}
