/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The tmpdir kind, where a directory is not at its path: it is looked for (K2, K3), and nothing else is asked
 * (K16).
 */
#include "tmpdir_fixture.h"

/* Where each directory may be it, what is mounted beside it is not asked: it may hang. */
static void k16_a_mount_beside_it_is_not_asked(void **state)
{
    (void)state;
    harness_need_root();
    const char *const names[] = {"lower", "upper", "work", "m"};
    char *dirs[ARRAY_LEN(names)], options[80];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        dirs[i] = harness_format("%s/%s", harness_tmpfs(), names[i]);
        harness_mkdir(dirs[i]);
    }
    char *how = harness_format("lowerdir=%s,upperdir=%s,workdir=%s", dirs[0], dirs[1], dirs[2]);
    if (mount("overlay", dirs[3], "overlay", 0, how) < 0)
        harness_skip("no overlay here");
    acquire_in(dirs[3], 0);
    if (record.id.handle_len)
        harness_skip("it has handles");
    char *beside = harness_format("%s/beside", dirs[3]);
    int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fuse < 0)
        harness_skip("no /dev/fuse");
    harness_mkdir(beside);
    (void)snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
    assert_int_equal(mount("dead", beside, "fuse", 0, options), 0);
    (void)close(fuse); /* who asks it hears of that; who would be served might wait for ever */
    char *hidden = harness_format("%s/hidden", dirs[3]);
    assert_int_equal(rename(target, hidden), 0);
    assert_found(FOUND_PRESENT);
    assert_int_equal(rmdir(hidden), 0);
    assert_found(FOUND_GONE);
}

/* Where the directory in which it lies is bound upon itself, a mount is not seen, and would be carried along
 * all the same. */
static void k4_a_mount_behind_a_bind_of_its_directory_is_not_carried_along(void **state)
{
    (void)state;
    harness_need_root();
    char *at = harness_format("%s/at", harness_disk());
    harness_mkdir(at);
    acquire_in(at, 0);
    char *theirs = harness_format("%s/theirs", target);
    harness_mkdir(theirs);
    assert_int_equal(mount("stranger", theirs, "tmpfs", 0, NULL), 0);
    assert_int_equal(mount(at, at, NULL, MS_BIND, NULL), 0);
    assert_true(undo_it() < 0);
    assert_int_equal(finding.found, FOUND_BUSY);
    assert_true(path_exists(theirs));
    assert_int_equal(umount(at), 0);
    assert_int_equal(umount(theirs), 0);
    mounts_free(undo.mounts);
    undo.mounts = NULL;
    assert_undone();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k16_a_mount_beside_it_is_not_asked),
        harness_test(k4_a_mount_behind_a_bind_of_its_directory_is_not_carried_along),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, teardown);
}
