/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Hostile trees that stand still: flags, odd entries, stamps, overlays, file systems that are read-only or
 * away.
 */
#include "hostile.h"

#include <dirent.h>
#include <limits.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

static const char *tree;

static void set_flags_below(const char *dir)
{
    struct dirent **names;
    int n = scandir(dir, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX + NAME_MAX + 2];
        (void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
        if (names[i]->d_name[0] != '.' && names[i]->d_type == DT_DIR)
            set_flags_below(path);
        if (names[i]->d_name[0] != '.' && names[i]->d_type == DT_REG && draw(2))
            (void)set_flags(path, draw(2) ? FS_IMMUTABLE_FL : FS_APPEND_FL);
        free(names[i]);
    }
    free(names);
    if (draw(2))
        (void)set_flags(dir, draw(2) ? FS_IMMUTABLE_FL : FS_APPEND_FL);
}

void tree_flags(const struct crash_case *c, uint64_t point)
{
    (void)c;
    const char *cgroup;
    hostile_open(point);
    tree = plan_tree(&cgroup);
    crash();
    for (int i = 0; i < 5; i++)
        make_decoy(harness_format("%s/%d", tree, i));
    set_flags_below(tree);
    if (!set_flags(tree, FS_IMMUTABLE_FL))
        harness_skip("no immutable flag here");
    (void)reap();
    all_undone();
    over(NULL);
}

static void any_names(const char *dir)
{
    for (int i = 0; i < 300; i++) {
        char path[PATH_MAX];
        size_t n = (size_t)snprintf(path, sizeof(path), "%s/", dir), len = 1 + draw(NAME_MAX);
        for (size_t k = 0; k < len; k++) {
            char byte = (char)(1 + draw(255));
            path[n++] = byte == '/' ? '.' : byte;
        }
        path[n] = 0;
        if (draw(4) == 0)
            (void)mkdir(path, draw(2) ? 0 : 0700);
        else
            write_file(path);
    }
}

void tree_odd(const struct crash_case *c, uint64_t point)
{
    (void)c;
    const char *file = NULL;
    struct stat before, after;
    hostile_open(point);
    tree = plan(RBXJ_TMPDIR, in_work("T"));
    crash();
    any_names(tree);
    const char *dir = harness_format("%s/dir", tree);
    harness_mkdir(dir);
    any_names(dir);
    /* links to files outside of it: of those only the link goes */
    file = outside("file");
    harness_write(file, "whole\n");
    must(link(file, harness_format("%s/hard", dir)) == 0);
    must(draw(2) || set_flags(file, draw(2) ? FS_IMMUTABLE_FL : FS_APPEND_FL));
    int flags[2] = {0};
    _cleanup_close_ int fd = open(file, O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && fstat(fd, &before) == 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags[0]) == 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", tree);
    _cleanup_close_ int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)bind(sock, (struct sockaddr *)&address, sizeof(address)); /* too long a path: none */
    (void)mknod(harness_format("%s/sock", dir), S_IFSOCK | 0600, 0);
    must(mkfifo(harness_format("%s/fifo", tree), 0) == 0);
    must(mknod(harness_format("%s/null", tree), S_IFCHR, makedev(1, 3)) == 0);
    must(mknod(harness_format("%s/whiteout", tree), S_IFCHR, makedev(0, 0)) == 0);
    must(mknod(harness_format("%s/watchdog", tree), S_IFCHR, makedev(10, 130)) == 0); /* not to be opened */
    must(mknod(harness_format("%s/block", tree), S_IFBLK, makedev(7, 1)) == 0);
    must(symlink(etc(), harness_format("%s/etc", tree)) == 0);
    must(symlink("/proc/self/root", harness_format("%s/root", dir)) == 0);
    (void)reap();
    all_undone();
    must(fstat(fd, &after) == 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags[1]) == 0);
    assert_int_equal(after.st_nlink, before.st_nlink - 1);
    assert_int_equal(after.st_mode, before.st_mode);
    assert_int_equal(flags[1], flags[0]);
    assert_string_equal(harness_read(file), "whole\n");
    (void)set_flags(file, 0);
    over(NULL);
}

/* ---- stamps ---- */

static void stamp(const char *path, const char *text)
{
    must(setxattr(path, "trusted.rbxj", text, strlen(text), 0) == 0);
}

static char *stamp_of(const char *path)
{
    char text[64] = "";
    must(getxattr(path, "trusted.rbxj", text, sizeof(text) - 1) > 0);
    return harness_format("%s", text);
}

void tree_stamps(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    tree = plan(RBXJ_TMPDIR, in_work("T"));
    crash();
    const char *dir = harness_format("%s/dir", tree), *inner = harness_format("%s/inner", dir);
    harness_mkdir(dir);
    harness_mkdir(inner);
    switch (draw(5)) {
    case 0: /* removed */
        must(removexattr(tree, "trusted.rbxj") == 0);
        break;
    case 1: /* of the box beside it: a copy */
        stamp(inner, stamp_of(bystander(RBXJ_TMPDIR)));
        break;
    case 2: /* the same on the tmpdir itself */
        stamp(tree, stamp_of(bystander(RBXJ_TMPDIR)));
        break;
    case 3: /* of nobody, and no stamp at all */
        stamp(inner, "12345:1");
        stamp(dir, "\033[31m");
        break;
    case 4: /* ours */
        stamp(inner, stamp_of(tree));
        break;
    }
    (void)reap();
    all_undone();
    over(NULL);
}

/* ---- overlay ---- */

static const char *merged;

static void unmount_merged(void)
{
    if (harness_mounts_below(merged) > 0)
        must(umount2(merged, MNT_DETACH) == 0);
}

void tree_overlay(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    bool outside_of_it = draw(2), mounted = draw(2);
    tree = plan(RBXJ_TMPDIR, in_work("T"));
    crash();
    const char *upper = harness_format("%s/upper", tree), *work = harness_format("%s/work", tree);
    merged = outside_of_it ? outside("merged") : harness_format("%s/merged", tree);
    harness_mkdir(upper);
    harness_mkdir(work);
    harness_mkdir(merged);
    /* all boxes' directories are below it: that of b is copied up with its stamp */
    if (mount("overlay", merged, "overlay", 0,
              harness_format("lowerdir=%s/work,upperdir=%s,workdir=%s", harness_disk(), upper, work)) < 0)
        harness_skip("no overlay: %s", strerror(errno));
    must(chmod(harness_format("%s/b.tmp/tree", merged), 0711) == 0);
    must(unlink(harness_format("%s/b.tmp/tree/passwd", merged)) == 0);
    must(path_exists(harness_format("%s/b.tmp", upper)));
    if (!mounted)
        unmount_merged();
    (void)reap();
    if (mounted && !outside_of_it)
        left(RBXJ_TMPDIR, merged);
    else
        all_undone();
    over(unmount_merged);
}

/* ---- elsewhere ---- */

static const char *lies_on;

static void writable(void)
{
    must(mount(NULL, lies_on, NULL, MS_REMOUNT | MS_BIND, NULL) == 0 || errno == EINVAL);
    must(mount(NULL, lies_on, NULL, MS_REMOUNT, NULL) == 0);
}

/* On a file system that somebody has made read-only. */
void tree_readonly(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    lies_on = in_work("F");
    harness_mkdir(lies_on);
    must(mount("x", lies_on, "tmpfs", 0, NULL) == 0);
    tree = plan(RBXJ_TMPDIR, in_work("F/T"));
    crash();
    make_decoy(harness_format("%s/tree", tree));
    must(mount(NULL, lies_on, NULL, MS_REMOUNT | MS_RDONLY | (draw(2) ? MS_BIND : 0), NULL) == 0);
    (void)reap();
    left(RBXJ_TMPDIR, strerror(EROFS));
    assert_true(path_exists(harness_format("%s/tree/passwd", tree)));
    over(writable);
}

static const char *bound, *bound_from;

static void bind_again(void)
{
    if (harness_mounts_below(bound) == 0)
        must(mount(bound_from, bound, NULL, MS_BIND, NULL) == 0);
}

/* In a bind mount of the same file system, which is there or not: without it, nothing shows at its path. */
void tree_in_bind(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    bound = in_work("B");
    bound_from = outside("x");
    harness_mkdir(bound_from);
    bind_on(bound_from, bound);
    tree = plan(RBXJ_TMPDIR, in_work("B/T"));
    crash();
    make_decoy(harness_format("%s/tree", tree));
    bool there = draw(2);
    if (!there)
        must(umount2(bound, MNT_DETACH) == 0);
    (void)reap();
    if (there)
        all_undone();
    else
        left(RBXJ_TMPDIR, "");
    over(bind_again);
}
