/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The removal of hostile trees, on real file systems: K4, K17, I5 and "What undo means: tmpdir".
 */
#include "harness.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/rmtree.h"
#include "reaper/undo.h"

#include <dirent.h>
#include <errno.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

static struct rbxj_error error;

static int64_t in_seconds(int seconds)
{
    return now_monotonic_ns() + seconds * INT64_C(1000000000);
}

/* Removes path the way a kind does. */
static int remove_tree_how(const char *path, const struct rmtree *how)
{
    const char *base;
    memset(&error, 0, sizeof(error));
    _cleanup_close_ int parent = fd_open_parent(path, &base);
    _cleanup_close_ int fd = parent < 0 ? -1 : rmtree_open(parent, base);
    if (fd < 0)
        return fd;
    return rmtree(parent, base, fd, how, &error);
}

static int remove_tree(const char *path)
{
    return remove_tree_how(path, &(struct rmtree){.deadline_ns = in_seconds(60)});
}

/* dir/d/d/d..., depth levels, with a file in every file_every-th; returns a descriptor of the lowest. */
static int make_chain(const char *dir, int depth, int file_every)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (int i = 0; i < depth; i++) {
        assert_int_equal(mkdirat(fd, "d", 0700), 0);
        int next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        if (file_every && i % file_every == 0)
            assert_int_equal(mknodat(next, "file", S_IFREG | 0600, 0), 0);
        (void)close(fd);
        fd = next;
    }
    return fd;
}

static char *make_top(const char *where)
{
    char *top = harness_format("%s/top", where);
    harness_mkdir(top);
    return top;
}

static bool set_flags(const char *path, int flags)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    assert_true(fd >= 0);
    return ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
}

static int get_flags(const char *path)
{
    int flags = 0;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ioctl(fd, FS_IOC_GETFLAGS, &flags), 0);
    return flags;
}

static void assert_only(const char *dir, const char *name)
{
    _cleanup_closedir_ DIR *list = opendir(dir);
    assert_non_null(list);
    for (struct dirent *d; (d = readdir(list));)
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
            assert_string_equal(d->d_name, name ? name : "nothing");
}

/* ---- depth, width, descriptors ---- */

static void deep_with_few_descriptors(const char *where, int depth)
{
    char *top = make_top(where);
    _cleanup_close_ int lowest = make_chain(top, depth, 100);
    struct rlimit before, few;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = (struct rlimit){.rlim_cur = (rlim_t)lowest + 40, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    int r = remove_tree(top);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(r, 0);
    assert_only(where, NULL);
}

static void k17_deep_tree_in_constant_descriptors(void **state)
{
    (void)state;
    deep_with_few_descriptors(harness_disk(), 2000);
}

static void k17_very_deep_tree(void **state)
{
    (void)state;
    harness_need_root();
    deep_with_few_descriptors(harness_tmpfs(), 100000);
}

/* A directory of an overlay's lower layer can't be renamed (EXDEV): the window slides. */
static void k17_deep_tree_where_hoisting_fails(void **state)
{
    (void)state;
    harness_need_root();
    const char *scratch = harness_tmpfs();
    static const char *const dirs[] = {"lower", "upper", "work", "merged"};
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
        harness_mkdir(harness_format("%s/%s", scratch, dirs[i]));
    harness_mkdir(harness_format("%s/lower/top", scratch));
    (void)close(make_chain(harness_format("%s/lower/top", scratch), 500, 7));
    const char *options = harness_format(
        "lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work,redirect_dir=off", scratch, scratch, scratch);
    const char *merged = harness_format("%s/merged", scratch);
    if (mount("rbxj-test", merged, "overlay", 0, options) < 0)
        harness_skip("no overlay: %s", strerror(errno));
    const char *one = harness_format("%s/top/d", merged);
    assert_int_equal(rename(one, harness_format("%s/x", merged)), -1);
    assert_int_equal(errno, EXDEV);
    const char *top = harness_format("%s/top", merged);
    /* one entry that can't go is kept with what is above it, and the rest goes */
    char *held = harness_format("%s", top);
    for (int i = 0; i < 100; i++)
        held = harness_format("%s/d", held);
    harness_mkdir(harness_format("%s/kept", held));
    assert_int_equal(mount("rbxj-test", harness_format("%s/kept", held), "tmpfs", 0, NULL), 0);
    assert_int_equal(remove_tree(top), -EBUSY);
    assert_int_equal(umount(harness_format("%s/kept", held)), 0);
    assert_int_equal(remove_tree(top), 0);
    assert_only(merged, NULL);
}

static void wide_tree(void **state)
{
    (void)state;
    char *top = make_top(harness_disk());
    _cleanup_close_ int fd = make_chain(top, 40, 0);
    for (int i = 0; i < 1000; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "%d", i);
        assert_int_equal(i % 10 ? mknodat(fd, name, S_IFREG | 0600, 0) : mkdirat(fd, name, 0700), 0);
    }
    assert_int_equal(remove_tree(top), 0);
    assert_only(harness_disk(), NULL);
}

/* ---- mounts ---- */

static void bind_mounted_at(const char *target, const char *top)
{
    char *victim = harness_format("%s/victim", harness_disk());
    harness_mkdir(victim);
    harness_write(harness_format("%s/precious", victim), "x");
    assert_int_equal(mount(victim, target, NULL, MS_BIND, NULL), 0);
    assert_int_equal(remove_tree(top), -EBUSY);
    assert_string_equal(harness_read(harness_format("%s/precious", victim)), "x");
    assert_int_equal(harness_mounts_below(top), 1);
}

static void mount_inside_is_busy_and_untouched(void **state)
{
    (void)state;
    harness_need_root();
    char *top = make_top(harness_disk());
    harness_mkdir(harness_format("%s/a", top));
    char *target = harness_format("%s/a/mounted", top);
    harness_mkdir(target);
    bind_mounted_at(target, top);
    assert_non_null(strstr(error.message, target));
    assert_int_equal(umount(target), 0);
    assert_int_equal(remove_tree(top), 0);
    assert_only(harness_disk(), "victim");
}

static void mount_far_below_is_busy_and_untouched(void **state)
{
    (void)state;
    harness_need_root();
    char *top = make_top(harness_disk());
    (void)close(make_chain(top, 50, 0));
    char *target = harness_format("%s", top);
    for (int i = 0; i < 50; i++)
        target = harness_format("%s/d", target);
    bind_mounted_at(target, top);
}

static void mounted_file_is_busy_and_untouched(void **state)
{
    (void)state;
    harness_need_root();
    char *top = make_top(harness_disk());
    char *victim = harness_format("%s/victim", harness_disk()), *target = harness_format("%s/file", top);
    harness_write(victim, "x");
    harness_write(target, "");
    assert_int_equal(mount(victim, target, NULL, MS_BIND, NULL), 0);
    assert_int_equal(remove_tree(top), -EBUSY);
    assert_non_null(strstr(error.message, target));
    assert_string_equal(harness_read(victim), "x");
}

/* Mounted on our directory by another way to it: not seen when it is opened, but rmdir is refused. */
static void mount_by_an_alias_is_busy(void **state)
{
    (void)state;
    harness_need_root();
    char *top = make_top(harness_tmpfs());
    char *alias = harness_format("%s/alias", harness_disk());
    harness_mkdir(alias);
    harness_mkdir(harness_format("%s/in", top));
    assert_int_equal(mount(top, alias, NULL, MS_BIND, NULL), 0);
    char *hidden = harness_format("%s/in", alias);
    assert_int_equal(mount("rbxj-test", hidden, "tmpfs", 0, NULL), 0);
    harness_write(harness_format("%s/precious", hidden), "x");
    assert_int_equal(harness_mounts_below(top), 0);
    assert_int_equal(remove_tree(top), -EBUSY);
    assert_string_equal(harness_read(harness_format("%s/precious", hidden)), "x");
}

static void mount_on_the_top_is_not_opened(void **state)
{
    (void)state;
    harness_need_root();
    char *top = make_top(harness_disk());
    assert_int_equal(mount("rbxj-test", top, "tmpfs", 0, NULL), 0);
    assert_int_equal(remove_tree(top), -EXDEV);
}

/* ---- what a box can leave behind ---- */

static void flags_are_cleared_only_where_they_must(void **state)
{
    (void)state;
    harness_need_root();
    char *top = make_top(harness_disk()), *outside = harness_format("%s/outside", harness_disk());
    char *dir = harness_format("%s/dir", top), *in = harness_format("%s/dir/immutable", top);
    char *appended = harness_format("%s/appended", top), *link_in = harness_format("%s/link", top);
    harness_mkdir(dir);
    harness_write(in, "");
    harness_write(appended, "");
    harness_write(outside, "");
    assert_int_equal(link(outside, link_in), 0);
    assert_int_equal(mkfifo(harness_format("%s/fifo", dir), 0600), 0);
    (void)close(make_chain(dir, 40, 0)); /* hoisted out of immutable directories */
    if (!set_flags(in, FS_IMMUTABLE_FL))
        harness_skip("no immutable flag here");
    char *lower = dir;
    for (int i = 0; i < 31; i++) {
        lower = harness_format("%s/d", lower);
        if (i >= 28)
            assert_true(set_flags(lower, FS_IMMUTABLE_FL));
    }
    assert_true(set_flags(appended, FS_APPEND_FL));
    assert_true(set_flags(outside, FS_IMMUTABLE_FL));
    assert_true(set_flags(dir, FS_APPEND_FL));
    assert_true(set_flags(top, FS_IMMUTABLE_FL));
    int r = remove_tree(top);
    int flags = get_flags(outside);
    assert_true(set_flags(outside, 0));
    assert_int_equal(r, 0);
    assert_true(flags & FS_IMMUTABLE_FL); /* another link's file got its flag back */
    assert_only(harness_disk(), "outside");
}

static void protected_parent_is_left_alone(void **state)
{
    (void)state;
    harness_need_root();
    char *parent = harness_format("%s/parent", harness_disk());
    harness_mkdir(parent);
    char *top = make_top(parent);
    harness_write(harness_format("%s/file", top), "");
    if (!set_flags(parent, FS_IMMUTABLE_FL))
        harness_skip("no immutable flag here");
    _cleanup_close_ int dirfd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_close_ int fd = rmtree_open(dirfd, "top");
    memset(&error, 0, sizeof(error));
    int r = rmtree(dirfd, "top", fd, &(struct rmtree){0}, &error);
    int flags = get_flags(parent);
    assert_true(set_flags(parent, 0));
    assert_true(r < 0);
    assert_int_equal(error.errnum, EPERM);
    assert_true(flags & FS_IMMUTABLE_FL);
    assert_int_equal(remove_tree(top), 0);
}

/* ext2 without file types: every entry has to be tried. */
static void entries_without_types(void **state)
{
    (void)state;
    harness_need_root();
    char *image = harness_format("%s/image", harness_disk()),
         *where = harness_format("%s/ext2", harness_disk());
    harness_mkdir(where);
    harness_write(image, "");
    assert_int_equal(truncate(image, 1 << 20), 0);
    if (system(harness_format("mkfs.ext2 -q -O ^filetype '%s' 2>/dev/null && mount -o loop '%s' '%s'", image,
                              image, where)) != 0)
        harness_skip("no ext2 on a loop device here");
    char *top = make_top(where);
    (void)close(make_chain(top, 40, 3));
    assert_int_equal(symlink("/", harness_format("%s/link", top)), 0);
    assert_int_equal(remove_tree(top), 0);
    assert_only(where, "lost+found");
}

static void make_hostile(const char *top, const char *outside)
{
    static const char *const names[] = {"new\nline", "\033[31mred", "-rf", " ",
                                        "\xff\xfe",  "...",         "*",   "a\\b"};
    _cleanup_close_ int fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_int_equal(mkdirat(fd, names[i], 0700), 0);
        _cleanup_close_ int in = openat(fd, names[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_int_equal(symlinkat(outside, in, "to a directory"), 0);
        assert_int_equal(symlinkat("/nowhere", in, "dangling"), 0);
        assert_int_equal(symlinkat("..", in, names[i]), 0);
        assert_int_equal(mknodat(in, "fifo", S_IFIFO | 0600, 0), 0);
        assert_int_equal(mkdirat(in, "unreadable", 0700), 0);
        assert_int_equal(mknodat(in, "unreadable/file", S_IFREG, 0), 0);
        assert_int_equal(fchmodat(in, "unreadable", 0, 0), 0);
        assert_int_equal(mkdirat(in, "unsearchable", 0700), 0);
        assert_int_equal(mkdirat(in, "unsearchable/dir", 0700), 0);
        assert_int_equal(fchmodat(in, "unsearchable", 0400, 0), 0);
        assert_int_equal(fchmod(in, 0500), 0);
    }
    char longest[NAME_MAX + 1];
    memset(longest, 'l', NAME_MAX);
    longest[NAME_MAX] = 0;
    assert_int_equal(mkdirat(fd, longest, 0700), 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/socket", fd);
    _cleanup_close_ int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(sock, (struct sockaddr *)&address, sizeof(address)), 0);
}

static void hostile_entries(void **state)
{
    (void)state;
    harness_need_root();
    char *top = make_top(harness_disk()), *outside = harness_format("%s/outside", harness_disk());
    harness_mkdir(outside);
    harness_write(harness_format("%s/precious", outside), "x");
    make_hostile(top, outside);
    assert_int_equal(mknod(harness_format("%s/device", top), S_IFCHR | 0600, makedev(1, 3)), 0);
    assert_int_equal(mknod(harness_format("%s/disk", top), S_IFBLK | 0600, makedev(259, 4095)), 0);
    assert_int_equal(remove_tree(top), 0);
    assert_string_equal(harness_read(harness_format("%s/precious", outside)), "x");
    assert_only(harness_disk(), "outside");
}

static void hostile_entries_without_root(void **state)
{
    (void)state;
    harness_need_root();
    char *place = harness_format("%s/place", harness_disk()), *top = harness_format("%s/top", place);
    harness_mkdir(place);
    assert_int_equal(chown(place, 65534, 65534), 0);
    assert_int_equal(chmod(harness_disk(), 0755), 0);
    _cleanup_close_ int fd = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    pid_t pid = fork();
    if (pid == 0) {
        /* relative to a descriptor: the way to the scratch directory may be closed to that user */
        if (setgid(65534) < 0 || setuid(65534) < 0 || fchdir(fd) < 0 || mkdir("top", 0700) < 0)
            _exit(1);
        make_hostile("top", "/");
        int open_top = rmtree_open(fd, "top");
        if (open_top < 0 || rmtree(fd, "top", open_top, &(struct rmtree){0}, &error) < 0) {
            print_message("%s\n", error.message);
            _exit(2);
        }
        _exit(0);
    }
    harness_track(pid);
    assert_int_equal(harness_wait(pid), 0);
    assert_false(path_exists(top));
}

/* What belongs to somebody else can't be removed without root: it is kept, with what is above it. */
static void what_cant_go_is_kept_and_the_rest_goes(void **state)
{
    (void)state;
    harness_need_root();
    char *top = make_top(harness_disk());
    _cleanup_close_ int parent = open(harness_disk(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)close(make_chain(top, 3, 1));
    for (int i = 0; i < 20; i++) /* some of them come after it */
        harness_mkdir(harness_format("%s/%d", top, i));
    char *kept = harness_format("%s/d/anothers", top);
    harness_mkdir(kept);
    harness_write(harness_format("%s/file", kept), "x");
    assert_int_equal(chmod(kept, 0755), 0);
    assert_int_equal(chmod(harness_disk(), 0777), 0);
    assert_int_equal(system(harness_format("chown -R 65534:65534 '%s' && chown 0:0 '%s'", top, kept)), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (setgid(65534) < 0 || setuid(65534) < 0)
            _exit(1);
        int fd = rmtree_open(parent, "top");
        int r = fd < 0 ? fd : rmtree(parent, "top", fd, &(struct rmtree){0}, &error);
        _exit(r == -RBXJ_E_PERMISSION && strstr(error.message, "anothers/file") ? 0 : 2);
    }
    harness_track(pid);
    assert_int_equal(harness_wait(pid), 0);
    assert_string_equal(harness_read(harness_format("%s/file", kept)), "x");
    assert_only(harness_format("%s/d", top), "anothers");
    assert_only(top, "d");
}

/* ---- others at work ---- */

static void stamp(const char *path, uint64_t incarnation, uint32_t seq)
{
    struct record r = {.incarnation = incarnation, .seq = seq};
    _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(stamp_set(fd, &r), 0);
}

struct refill {
    const char *top;
    int made;
};

/* Puts another stamped directory beside each that is entered: the last one of each pass is not seen in it. */
static int refill(void *data, int fd, uint64_t incarnation, uint32_t seq, struct rbxj_error *e)
{
    (void)fd;
    struct refill *refill = data;
    (void)e;
    char *name = harness_format("%s/%d", refill->top, refill->made++);
    harness_mkdir(name);
    stamp(name, incarnation, seq);
    return 0;
}

static void k17_refilled_three_times_is_busy_naming_the_writer(void **state)
{
    (void)state;
    harness_need_root();
    struct refill data = {.top = make_top(harness_disk())};
    struct rmtree how = {.deadline_ns = in_seconds(20), .stamped = refill, .data = &data};
    (void)refill(&data, -1, 1, 1, NULL);
    pid_t writer = fork();
    if (writer == 0) {
        if (chdir(data.top) < 0)
            _exit(1);
        for (;;)
            (void)pause();
    }
    harness_track(writer);
    char *cwd = harness_format("/proc/%d/cwd", writer);
    char link[PATH_MAX] = "";
    for (int i = 0; i < 1000 && strcmp(link, data.top) != 0; i++) {
        (void)usleep(1000);
        ssize_t n = readlink(cwd, link, sizeof(link) - 1);
        link[n > 0 ? n : 0] = 0;
    }
    assert_int_equal(remove_tree_how(data.top, &how), -EBUSY);
    assert_true(data.made >= 3);
    assert_non_null(strstr(error.message, "refilled"));
    assert_non_null(strstr(error.detail, harness_format("pid %d ", writer)));
    assert_int_equal(remove_tree(data.top), 0);
}

static _Atomic bool stop_writing;

static void *write_files(void *path)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; !stop_writing; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "file %u", i % 100);
        (void)mknodat(fd, name, S_IFREG | 0600, 0);
        (void)snprintf(name, sizeof(name), "dir %u", i % 100);
        (void)mkdirat(fd, name, 0700);
    }
    return NULL;
}

static void k17_ends_while_a_thread_refills(void **state)
{
    (void)state;
    char *top = make_top(harness_disk());
    pthread_t thread;
    stop_writing = false;
    assert_int_equal(pthread_create(&thread, NULL, write_files, top), 0);
    (void)usleep(10000);
    int64_t start = now_monotonic_ns();
    int r = remove_tree_how(top, &(struct rmtree){.deadline_ns = in_seconds(3)});
    int64_t took = now_monotonic_ns() - start;
    stop_writing = true;
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(r == 0 || r == -EBUSY || r == -ETIMEDOUT);
    assert_true(took < INT64_C(3500000000));
    if (r < 0)
        assert_int_equal(remove_tree(top), 0);
    assert_false(path_exists(top));
}

static int refuse_seven(void *data, int fd, uint64_t incarnation, uint32_t seq, struct rbxj_error *e)
{
    (void)fd;
    (*(int *)data)++;
    return incarnation == 7 ? error_set(e, EBUSY, EBUSY, "box %u is in there", seq) : 0;
}

static void k4_another_boxs_stamp_is_busy(void **state)
{
    (void)state;
    harness_need_root();
    char *top = make_top(harness_disk());
    (void)close(make_chain(top, 40, 0));
    char *dir = harness_format("%s", top);
    for (int i = 0; i < 32; i++)
        dir = harness_format("%s/d", dir); /* the first level that would be hoisted */
    stamp(dir, 7, 3);
    stamp(harness_format("%s/d", top), 6, 1);
    harness_write(harness_format("%s/precious", dir), "x");
    int asked = 0;
    struct rmtree how = {.stamped = refuse_seven, .data = &asked};
    assert_int_equal(remove_tree_how(top, &how), -EBUSY);
    assert_int_equal(asked, 2);
    assert_non_null(strstr(error.message, "box 3"));
    assert_string_equal(harness_read(harness_format("%s/precious", dir)), "x"); /* not moved either */
    assert_int_equal(remove_tree(top), 0);
}

/* Stopped below the first directory that is too deep: it is at the top by then. */
static void hoisted_into_an_immutable_top(void **state)
{
    (void)state;
    harness_need_root();
    char *top = make_top(harness_disk()), *dir = top, *hoisted = NULL;
    (void)close(make_chain(top, 40, 0));
    for (int i = 0; i < 36; i++) {
        dir = harness_format("%s/d", dir);
        hoisted = i == 31 ? dir : hoisted;
    }
    stamp(dir, 7, 3);
    if (!set_flags(top, FS_IMMUTABLE_FL))
        harness_skip("no immutable flag here");
    int asked = 0;
    struct rmtree how = {.stamped = refuse_seven, .data = &asked};
    assert_int_equal(remove_tree_how(top, &how), -EBUSY);
    assert_false(path_exists(hoisted));
    assert_int_equal(remove_tree(top), 0);
}

static void replaced_top_is_left_alone(void **state)
{
    (void)state;
    char *top = make_top(harness_disk()), *moved = harness_format("%s/moved", harness_disk());
    harness_write(harness_format("%s/file", top), "");
    _cleanup_close_ int fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const char *base;
    _cleanup_close_ int parent = fd_open_parent(top, &base);
    assert_int_equal(rename(top, moved), 0);
    harness_mkdir(top);
    assert_int_equal(rmtree(parent, base, fd, &(struct rmtree){0}, &error), -ESTALE);
    assert_true(path_exists(top));
    assert_true(path_exists(moved));
}

static void deadline_ends_it(void **state)
{
    (void)state;
    char *top = make_top(harness_disk());
    (void)close(make_chain(top, 10, 1));
    assert_int_equal(remove_tree_how(top, &(struct rmtree){.deadline_ns = now_monotonic_ns() - 1}),
                     -ETIMEDOUT);
    assert_int_equal(remove_tree(top), 0);
}

static void emptiness(void **state)
{
    (void)state;
    char *top = make_top(harness_disk());
    _cleanup_close_ int fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(rmtree_is_empty(fd), 1);
    harness_write(harness_format("%s/file", top), "");
    assert_int_equal(rmtree_is_empty(fd), 0);
    assert_int_equal(rmtree_is_empty(fd), 0);
}

/* ---- killed anywhere (I5) ---- */

static void i5_killed_anywhere_and_run_again(void **state)
{
    (void)state;
    harness_need_root();
    char *top = make_top(harness_disk()), *outside = harness_format("%s/outside", harness_disk());
    harness_mkdir(outside);
    harness_write(harness_format("%s/precious", outside), "x");
    make_hostile(top, outside);
    for (int i = 0; i < 20; i++) {
        char *dir = harness_format("%s/%d", top, i);
        harness_mkdir(dir);
        (void)close(make_chain(dir, 100, 3));
        (void)set_flags(dir, FS_IMMUTABLE_FL);
    }
    int killed = 0;
    for (int i = 0; i < 60 && path_exists(top); i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(remove_tree(top) < 0);
        harness_track(pid);
        (void)usleep((useconds_t)(random() % 4000));
        (void)kill(pid, SIGKILL);
        int status = harness_wait(pid);
        killed += WIFSIGNALED(status);
        assert_false(WIFEXITED(status) && WEXITSTATUS(status));
    }
    assert_true(killed >= 5);
    if (path_exists(top))
        assert_int_equal(remove_tree(top), 0);
    assert_string_equal(harness_read(harness_format("%s/precious", outside)), "x");
    assert_only(harness_disk(), "outside");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k17_deep_tree_in_constant_descriptors),
        harness_test(k17_very_deep_tree),
        harness_test(k17_deep_tree_where_hoisting_fails),
        harness_test(wide_tree),
        harness_test(mount_inside_is_busy_and_untouched),
        harness_test(mount_far_below_is_busy_and_untouched),
        harness_test(mounted_file_is_busy_and_untouched),
        harness_test(mount_by_an_alias_is_busy),
        harness_test(mount_on_the_top_is_not_opened),
        harness_test(flags_are_cleared_only_where_they_must),
        harness_test(entries_without_types),
        harness_test(protected_parent_is_left_alone),
        harness_test(hostile_entries),
        harness_test(hostile_entries_without_root),
        harness_test(what_cant_go_is_kept_and_the_rest_goes),
        harness_test(k17_refilled_three_times_is_busy_naming_the_writer),
        harness_test(k17_ends_while_a_thread_refills),
        harness_test(k4_another_boxs_stamp_is_busy),
        harness_test(hoisted_into_an_immutable_top),
        harness_test(replaced_top_is_left_alone),
        harness_test(deadline_ends_it),
        harness_test(emptiness),
        harness_test(i5_killed_anywhere_and_run_again),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
