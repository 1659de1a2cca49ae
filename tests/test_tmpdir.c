/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The tmpdir kind, on real file systems: what is found and undone: K1, K2, K14, I4.
 */
#include "tmpdir_fixture.h"

#include <linux/btrfs.h>
#include <sys/xattr.h>

/* ---- look, undo, verify ---- */

static void ours_is_removed(void **state)
{
    (void)state;
    harness_need_root();
    const char *const places[] = {harness_disk(), harness_tmpfs()};
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        acquire_in(places[i], 0);
        fill(target);
        assert_true(verify() < 0);
        assert_undone();
    }
}

static void ours_is_removed_in_another_boot(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    undo.same_boot = false;
    record.parent.dev++;
    record.id.dev++; /* another number for the same disk */
    fill(target);
    assert_found(FOUND_PRESENT);
    assert_undone();
}

static void owner_and_mode_may_have_changed(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    fill(target);
    assert_int_equal(chown(target, 12345, 12345), 0);
    assert_int_equal(chmod(target, 0), 0);
    assert_undone();
}

static bool set_flags(const char *path, int flags)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
}

static void k17_immutable_itself_is_renamed_aside_too(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    fill(target);
    if (!set_flags(target, FS_IMMUTABLE_FL))
        harness_skip("no immutable flag here");
    undo.deadline_ns = now_monotonic_ns() - 1;
    assert_int_equal(undo_it(), -ETIMEDOUT);
    assert_false(path_exists(target)); /* free for another box at once */
    undo.deadline_ns = 0;
    assert_undone();
}

static void k1_stamp_speaks_without_evidence(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    record.flags = 0;
    fill(target);
    assert_undone();
}

static void k1_unproven_is_at_most_rmdired(void **state)
{
    (void)state;
    harness_need_root();
    begin_in(harness_disk(), 0);
    harness_mkdir(target);
    fill(target);
    assert_refused();
    assert_filled(target);
    assert_int_equal(rename(target, harness_format("%s/away", harness_disk())), 0);
    harness_mkdir(target);
    assert_int_equal(chown(target, 12345, 12345), 0);
    assert_refused();
    assert_int_equal(chown(target, 0, 0), 0);
    assert_undone();
    harness_write(target, "");
    assert_refused();
}

static void k1_unproven_is_rmdired_as_it_is(void **state)
{
    (void)state;
    harness_need_root();
    begin_in(harness_disk(), 0);
    harness_mkdir(target);
    if (!set_flags(target, FS_IMMUTABLE_FL))
        harness_skip("no immutable flag here");
    assert_found(FOUND_PRESENT);
    assert_true(undo_it() < 0);
    assert_true(path_exists(target));
    assert_true(set_flags(target, 0));
    assert_undone();
}

/* Ours would be in the directory that was there then, wherever that is. */
static void k1_unproven_in_another_directory_is_foreign(void **state)
{
    (void)state;
    char *parent = harness_format("%s/p", harness_disk()), *old = harness_format("%s/old", harness_disk());
    harness_mkdir(parent);
    begin_in(parent, 0);
    harness_mkdir(target);
    assert_found(FOUND_PRESENT);
    assert_int_equal(rename(parent, old), 0);
    harness_mkdir(parent);
    harness_mkdir(target);
    assert_int_equal(look(), 0);
    assert_true(finding.found == FOUND_FOREIGN && finding.refused);
    assert_true(undo_it() < 0);
    assert_true(path_exists(target));
}

static void k1_anothers_stamp_is_foreign_even_if_empty(void **state)
{
    (void)state;
    harness_need_root();
    begin_in(harness_disk(), 0);
    harness_mkdir(target);
    struct record other = {.incarnation = record.incarnation, .seq = record.seq + 1};
    _cleanup_close_ int fd = open(target, O_RDONLY | O_CLOEXEC);
    assert_int_equal(stamp_set(fd, &other), 0);
    assert_refused();
}

static void k2_another_directory_is_foreign(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    assert_int_equal(rmdir(target), 0);
    harness_mkdir(target); /* ext4 gives it the same inode number */
    assert_refused();
    /* a copy of the stamp does not help: evidence decides alone */
    _cleanup_close_ int fd = open(target, O_RDONLY | O_CLOEXEC);
    (void)stamp_set(fd, &record);
    fill(target);
    assert_refused();
    assert_filled(target);
    assert_int_equal(verify(), 0); /* what is there is not ours */
}

static void k2_symlink_in_its_place_is_foreign(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    char *ours = harness_format("%s/ours", harness_disk()),
         *other = harness_format("%s/other", harness_disk());
    fill(target);
    assert_int_equal(rename(target, ours), 0);
    harness_mkdir(other);
    fill(other);
    assert_int_equal(symlink(other, target), 0);
    assert_found(FOUND_PRESENT); /* under the name that it has now */
    assert_int_equal(undo_it(), 1);
    assert_int_equal(verify(), 0);
    assert_false(path_exists(ours));
    assert_true(path_exists(target));
    assert_filled(other);
    assert_refused();
}

static void k2_file_is_foreign(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    assert_int_equal(rmdir(target), 0);
    harness_write(target, "x");
    assert_refused();
    assert_string_equal(harness_read(target), "x");
}

/* Where the next directory gets the number of ours, and nothing else tells them apart (9p, FUSE), our stamp
 * must. */
static void k3_a_number_alone_is_not_enough(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    if (!(record.flags & REC_STAMPED))
        harness_skip("no extended attributes");
    record.id.handle_len = 0;
    record.id.btime_ns = 0;
    assert_found(FOUND_PRESENT);
    assert_int_equal(removexattr(target, "trusted.rbxj"), 0);
    assert_found(FOUND_FOREIGN);
    assert_true(undo_it() < 0);
    assert_true(path_exists(target));
    record.flags &= ~(uint32_t)REC_STAMPED; /* it can't bear one */
    assert_undone();
}

/* An overlay over two file systems numbers its directories anew when they are read into memory again, and has
 * no handles: birth time and stamp tell. */
static void k3_an_overlays_directory_with_another_number_is_ours(void **state)
{
    (void)state;
    harness_need_root();
    char *lower = harness_format("%s/lower", harness_disk()),
         *merged = harness_format("%s/m", harness_disk());
    char *upper = harness_format("%s/u", harness_tmpfs()), *work = harness_format("%s/w", harness_tmpfs());
    const char *const dirs[] = {lower, merged, upper, work};
    struct stat before, after;
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
        harness_mkdir(dirs[i]);
    char *options = harness_format("lowerdir=%s,upperdir=%s,workdir=%s,xino=off", lower, upper, work);
    if (mount("overlay", merged, "overlay", 0, options) < 0)
        harness_skip("no overlay here");
    begin_in(merged, 0);
    for (int anew = 0; anew < 2; anew++) { /* the kernel lets go of all that is not in use */
        assert_int_equal(mount(NULL, merged, NULL, MS_REMOUNT, NULL), 0);
        if (!anew)
            assert_int_equal(kind_tmpdir.acquire(&undo, &record, NULL, &(int){0}, &error), 0);
        assert_int_equal(stat(target, anew ? &after : &before), 0);
    }
    if (before.st_ino == after.st_ino || record.id.handle_len || !(record.flags & REC_STAMPED))
        harness_skip("it keeps its number");
    assert_found(FOUND_PRESENT);
    char *hidden = harness_format("%s/hidden", merged);
    assert_int_equal(rename(target, hidden), 0);
    assert_found(FOUND_PRESENT);
    assert_int_equal(removexattr(hidden, "trusted.rbxj"), 0); /* who was born in the same instant has none */
    assert_int_equal(rename(hidden, target), 0);
    assert_found(FOUND_FOREIGN);
    _cleanup_close_ int fd = open(target, O_RDONLY | O_CLOEXEC);
    assert_int_equal(stamp_set(fd, &record), 0);
    assert_undone();
}

/* What has no device of its own comes back under another number, within a boot (btrfs, overlay). */
static void k14_mounted_again_it_is_the_same(void **state)
{
    (void)state;
    harness_need_root();
    const char *const names[] = {"l", "u", "w", "m", "other"};
    char *dirs[ARRAY_LEN(names)];
    struct stat before, after = {0};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        dirs[i] = harness_format("%s/%s", harness_disk(), names[i]);
        harness_mkdir(dirs[i]);
    }
    char *options = harness_format("lowerdir=%s,upperdir=%s,workdir=%s,uuid=on", dirs[0], dirs[1], dirs[2]);
    if (mount("overlay", dirs[3], "overlay", 0, options) < 0)
        harness_skip("no overlay with an identity here");
    acquire_in(dirs[3], 0);
    harness_write(harness_format("%s/f", target), "x");
    assert_int_equal(stat(dirs[3], &before), 0);
    assert_int_equal(umount(dirs[3]), 0);
    for (int i = 0; i < 100 && after.st_dev != before.st_dev; i++) { /* until its number is taken */
        assert_int_equal(mount("rbxj-test", dirs[4], "tmpfs", 0, NULL), 0);
        assert_int_equal(stat(dirs[4], &after), 0);
    }
    assert_int_equal(mount("overlay", dirs[3], "overlay", 0, options), 0);
    assert_int_equal(stat(dirs[3], &after), 0);
    if (before.st_dev == after.st_dev)
        harness_skip("it got its number again");
    assert_undone();
}

/* Anybody who may write to a directory of a btrfs can make a subvolume in it, and forbid to write to that. */
static void k17_a_read_only_subvolume_is_removed(void **state)
{
    (void)state;
    harness_need_root();
    char *image = harness_format("%s/image", harness_disk()), *at = harness_format("%s/b", harness_disk());
    harness_mkdir(at);
    if (system(harness_format(
            "{ truncate -s 400M %s && mkfs.btrfs -q %s && mount -o loop %s %s; } >/dev/null 2>&1", image,
            image, image, at)) != 0)
        harness_skip("no btrfs here");
    acquire_in(at, 0);
    struct btrfs_ioctl_vol_args args = {.name = "sub"};
    uint64_t flags = BTRFS_SUBVOL_RDONLY;
    _cleanup_close_ int fd = open(target, O_RDONLY | O_CLOEXEC);
    assert_int_equal(ioctl(fd, BTRFS_IOC_SUBVOL_CREATE, &args), 0);
    harness_mkdir(harness_format("%s/sub/d", target));
    harness_write(harness_format("%s/sub/d/f", target), "x");
    _cleanup_close_ int sub = open(harness_format("%s/sub", target), O_RDONLY | O_CLOEXEC);
    assert_int_equal(ioctl(sub, BTRFS_IOC_SUBVOL_SETFLAGS, &flags), 0);
    assert_int_equal(unlink(harness_format("%s/sub/d/f", target)), -1);
    assert_undone();
    cleanup_closep(&fd);
    cleanup_closep(&sub);
    fd = sub = -1;
    assert_int_equal(umount(at), 0);
}

static void identity_tells_what_was_seen(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    assert_found(FOUND_PRESENT);
    uint64_t first = finding.identity;
    assert_found(FOUND_PRESENT);
    assert_true(finding.identity == first);
    assert_int_equal(rmdir(target), 0);
    harness_mkdir(target);
    assert_found(FOUND_FOREIGN);
    assert_true(finding.identity != first);
}

static void k14_not_mounted_is_not_gone(void **state)
{
    (void)state;
    harness_need_root();
    char *late = harness_format("%s/late", harness_disk()), *parent = harness_format("%s/parent", late);
    harness_mkdir(late);
    assert_int_equal(mount("rbxj-test", late, "tmpfs", 0, NULL), 0);
    harness_mkdir(parent);
    acquire_in(parent, 0);
    char *away = harness_format("%s/away", harness_disk());
    harness_mkdir(away);
    assert_int_equal(mount(late, away, NULL, MS_MOVE, NULL), 0);
    assert_int_equal(look(), 0);
    assert_true(finding.refused && finding.not_mounted);
    assert_true(undo_it() < 0);
    assert_true(finding.refused && finding.not_mounted);
    assert_true(verify() < 0);
    assert_int_equal(mount(away, late, NULL, MS_MOVE, NULL), 0);
    assert_undone();
}

/* Of a removable disk, a loop device, an NFS mount: the number is the next one's as soon as it is free (ext4,
 * 6.18). */
static void k14_another_file_system_of_that_number_is_not_the_one(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    if (!fileid_same_fs(&record.parent, &record.parent, false))
        harness_skip("a file system without an identity");
    record.parent.fs[0] ^= 1;
    record.id.fs[0] ^= 1;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(look(), 0);
        assert_true(finding.refused && finding.not_mounted);
        assert_true(undo_it() < 0);
        assert_true(verify() < 0);
        assert_int_equal(i ? mkdir(target, 0700) : rmdir(target), 0);
    }
}

/* But what was on a tmpfs is gone with it. */
static void k14_a_tmpfs_that_is_no_more_is_gone(void **state)
{
    (void)state;
    harness_need_root();
    struct stat before, after;
    char *at = harness_format("%s/t", harness_disk());
    harness_mkdir(at);
    for (int i = 0; i < 100; i++) { /* others mount, too */
        assert_int_equal(mount("rbxj-test", at, "tmpfs", 0, NULL), 0);
        acquire_in(at, 0);
        assert_int_equal(stat(at, &before), 0);
        assert_int_equal(umount(at), 0);
        assert_int_equal(mount("rbxj-test", at, "tmpfs", 0, NULL), 0);
        assert_int_equal(stat(at, &after), 0);
        if (before.st_dev == after.st_dev) {
            assert_found(FOUND_GONE);
            return;
        }
        assert_int_equal(umount(at), 0);
    }
    harness_skip("its number was given to somebody else");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(ours_is_removed),
        harness_test(ours_is_removed_in_another_boot),
        harness_test(owner_and_mode_may_have_changed),
        harness_test(k17_immutable_itself_is_renamed_aside_too),
        harness_test(k1_stamp_speaks_without_evidence),
        harness_test(k1_unproven_is_at_most_rmdired),
        harness_test(k1_unproven_is_rmdired_as_it_is),
        harness_test(k1_unproven_in_another_directory_is_foreign),
        harness_test(k1_anothers_stamp_is_foreign_even_if_empty),
        harness_test(k2_another_directory_is_foreign),
        harness_test(k2_symlink_in_its_place_is_foreign),
        harness_test(k2_file_is_foreign),
        harness_test(k3_a_number_alone_is_not_enough),
        harness_test(k3_an_overlays_directory_with_another_number_is_ours),
        harness_test(k14_mounted_again_it_is_the_same),
        harness_test(k17_a_read_only_subvolume_is_removed),
        harness_test(identity_tells_what_was_seen),
        harness_test(k14_not_mounted_is_not_gone),
        harness_test(k14_another_file_system_of_that_number_is_not_the_one),
        harness_test(k14_a_tmpfs_that_is_no_more_is_gone),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, teardown);
}
