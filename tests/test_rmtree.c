/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The removal of hostile trees, on real file systems: K4, K17 and "What undo means: tmpdir".
 */
#include "rmtree_fixture.h"

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
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
