/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The tmpdir kind: the name aside, and others inside: K4, K17, K18, I5.
 */
#include "tmpdir_fixture.h"

/* ---- the name aside ---- */

static void k17_killed_after_the_rename(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    fill(target);
    assert_int_equal(rename(target, aside), 0);
    assert_true(verify() < 0);
    assert_undone();
}

static void k17_stranger_at_the_freed_name_is_left_alone(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    fill(target);
    assert_int_equal(rename(target, aside), 0);
    harness_mkdir(target);
    fill(target);
    assert_found(FOUND_PRESENT);
    assert_int_equal(undo_it(), 1);
    assert_int_equal(verify(), 0);
    assert_false(path_exists(aside));
    assert_filled(target);
}

static void k17_deleted_in_place_where_it_cant_be_renamed(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    fill(target);
    harness_mkdir(aside);
    fill(aside);
    assert_found(FOUND_PRESENT);
    assert_int_equal(undo_it(), 1);
    assert_int_equal(verify(), 0);
    assert_false(path_exists(target));
    assert_filled(aside);
    assert_found(FOUND_FOREIGN);
}

static void k17_never_renamed_over_something(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    fill(target);
    harness_mkdir(aside); /* an empty directory could be renamed over */
    struct stat before, after;
    assert_int_equal(lstat(aside, &before), 0);
    assert_int_equal(undo_it(), 1);
    assert_int_equal(lstat(aside, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
}

static void k18_rmdir_only_leaves_what_is_not_empty(void **state)
{
    (void)state;
    acquire_in(harness_disk(), REC_RMDIR_ONLY);
    fill(target);
    assert_found(FOUND_PRESENT);
    assert_int_equal(undo_it(), -ENOTEMPTY);
    assert_true(finding.partial);
    assert_false(finding.refused);
    assert_filled(target);
    assert_int_equal(rename(target, harness_format("%s/away", harness_disk())), 0);
    acquire_in(harness_disk(), REC_RMDIR_ONLY);
    assert_undone();
}

/* ---- others inside ---- */

static void mount_below_is_busy_and_nothing_is_touched(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    fill(target);
    char *inside = harness_format("%s/dir/mounted", target);
    harness_mkdir(inside);
    assert_int_equal(mount(harness_disk(), inside, NULL, MS_BIND, NULL), 0);
    assert_int_equal(undo_it(), -EBUSY);
    assert_int_equal(finding.found, FOUND_BUSY);
    assert_non_null(strstr(finding.error.message, inside));
    assert_filled(target);
    assert_int_equal(umount(inside), 0);
    mounts_free(undo.mounts);
    undo.mounts = NULL;
    assert_undone();
}

static void mount_made_meanwhile_is_busy_and_untouched(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    assert_int_equal(mounts_read(&undo.mounts, &error), 0);
    char *inside = harness_format("%s/mounted", target);
    harness_mkdir(inside);
    assert_int_equal(mount("rbxj-test", inside, "tmpfs", 0, NULL), 0);
    fill(inside);
    assert_int_equal(undo_it(), -EBUSY);
    assert_int_equal(finding.found, FOUND_BUSY);
    char *now = harness_format("%s/mounted", path_exists(aside) ? aside : target);
    assert_filled(now);
    assert_int_equal(umount(now), 0);
    assert_undone();
}

static void mounted_over_is_busy(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    assert_int_equal(mount("rbxj-test", target, "tmpfs", 0, NULL), 0);
    assert_int_equal(look(), 0);
    assert_int_equal(finding.found, FOUND_BUSY);
    assert_int_equal(undo_it(), -EBUSY);
    assert_int_equal(harness_mounts_below(target), 1);
}

static void k4_another_boxs_directory_inside_is_busy(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    struct snapshot_box boxes[] = {
        {.box = {.name = "own", .incarnation = record.incarnation}},
        {.box = {.name = "nested", .incarnation = 99}},
    };
    struct snapshot snapshot = {.boxes = boxes, .len = ARRAY_LEN(boxes)};
    struct record nested = {.incarnation = 99, .seq = 2}, old = {.incarnation = 98, .seq = 2};
    undo.snapshot = &snapshot;
    undo.box = &boxes[0].box;
    char *dir = harness_format("%s/nested", target);
    harness_mkdir(dir);
    fill(dir);
    _cleanup_close_ int fd = open(dir, O_RDONLY | O_CLOEXEC);
    assert_int_equal(stamp_set(fd, &nested), 0);
    assert_int_equal(undo_it(), -EBUSY);
    assert_int_equal(finding.found, FOUND_BUSY);
    assert_non_null(strstr(finding.error.message, "nested"));
    assert_filled(harness_format("%s/nested", path_exists(aside) ? aside : target));
    harness_mkdir(harness_format("%s/copy", path_exists(aside) ? aside : target));
    _cleanup_close_ int copy = open(harness_format("%s/copy", path_exists(aside) ? aside : target),
                                    O_RDONLY | O_CLOEXEC);
    assert_int_equal(stamp_set(copy, &record), 0);
    assert_int_equal(stamp_set(fd, &old), 0); /* of a box that is in no journal */
    assert_undone();
}

static void deadline_leaves_it_for_the_next_run(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    fill(target);
    undo.deadline_ns = now_monotonic_ns() - 1;
    assert_int_equal(undo_it(), -ETIMEDOUT);
    undo.deadline_ns += INT64_C(60000000000);
    assert_undone();
}

static void i5_killed_anywhere_and_run_again(void **state)
{
    (void)state;
    acquire_in(harness_disk(), 0);
    for (int i = 0; i < 400; i++) {
        char *dir = harness_format("%s/%d", target, i);
        harness_mkdir(dir);
        fill(dir);
    }
    int killed = 0;
    for (int i = 0; i < 100 && (look(), finding.found) == FOUND_PRESENT; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(undo_it() < 0);
        harness_track(pid);
        (void)usleep((useconds_t)(random() % 2000));
        (void)kill(pid, SIGKILL);
        int status = harness_wait(pid);
        killed += WIFSIGNALED(status);
        assert_false(WIFEXITED(status) && WEXITSTATUS(status));
    }
    assert_true(killed >= 3);
    look(); /* the last one may have been killed after it was done */
    if (finding.found == FOUND_PRESENT)
        assert_int_equal(undo_it(), 1);
    assert_int_equal(verify(), 0);
    assert_false(path_exists(target));
    assert_false(path_exists(aside));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k17_killed_after_the_rename),
        harness_test(k17_stranger_at_the_freed_name_is_left_alone),
        harness_test(k17_deleted_in_place_where_it_cant_be_renamed),
        harness_test(k17_never_renamed_over_something),
        harness_test(k18_rmdir_only_leaves_what_is_not_empty),
        harness_test(mount_below_is_busy_and_nothing_is_touched),
        harness_test(mount_made_meanwhile_is_busy_and_untouched),
        harness_test(mounted_over_is_busy),
        harness_test(k4_another_boxs_directory_inside_is_busy),
        harness_test(deadline_leaves_it_for_the_next_run),
        harness_test(i5_killed_anywhere_and_run_again),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, teardown);
}
