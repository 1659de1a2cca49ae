/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The cgroup kind: taking and giving back, and whose it is (K1 to K3, K5, K14, I4 to I6).
 */
#include "cgroup_fixture.h"

/* ---- taking and giving back ---- */

static void lives_and_dies(const char *cgroup)
{
    const char *path = box_in(cgroup);
    assert_int_equal(FOUND_PRESENT, look());
    assert_int_equal(x.record.id.ino, x.finding.identity);
    const char *nested = child_of(child_of(path, "a"), "b");
    pid_t pids[] = {harness_spawn(path), harness_spawn(nested), harness_spawn(nested)};
    assert_undone(path);
    for (size_t i = 0; i < ARRAY_LEN(pids); i++)
        assert_killed(pids[i]);
    assert_true(path_exists(cgroup));
}

static void i6_v2_is_killed_removed_and_verified(void **state)
{
    (void)state;
    lives_and_dies(harness_cgroup());
}

static void i6_v1_pids_is_killed_removed_and_verified(void **state)
{
    (void)state;
    lives_and_dies(harness_cgroup_v1("pids"));
}

static void i6_v1_freezer_is_killed_removed_and_verified(void **state)
{
    (void)state;
    lives_and_dies(harness_cgroup_v1("freezer"));
}

static void i6_v1_memory_is_killed_removed_and_verified(void **state)
{
    (void)state;
    lives_and_dies(harness_cgroup_v1("memory"));
}

/* libcgroup does not know this one. */
static void i6_v1_named_hierarchy_is_removed(void **state)
{
    (void)state;
    lives_and_dies(harness_cgroup_v1("name=systemd"));
}

static void i6_a_leftover_fails_the_verification(void **state)
{
    (void)state;
    (void)box_in(harness_cgroup());
    assert_true(kind->verify(&x.undo, &x.record, fresh()) < 0);
}

static void i5_a_removal_cut_in_the_middle_goes_on(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup());
    (void)child_of(path, "a");
    assert_int_equal(0, kind->quiesce(&x.undo, &x.record, fresh()));
    assert_int_equal(0, rmdir(harness_format("%s/a", path)));
    assert_undone(path);
}

/* ---- preparing and proving ---- */

static void k5_present_before_is_refused(void **state)
{
    (void)state;
    const char *path = child_of(harness_cgroup(), "there");
    assert_int_equal(-RBXJ_E_EXISTS, intend(path));
}

static void own_cgroup_its_ancestors_and_mount_points_are_protected(void **state)
{
    (void)state;
    const char *top = harness_cgroup(), *inner = child_of(top, "inner"), *bound = child_of(top, "bound");
    harness_write(harness_format("%s/cgroup.procs", inner), "0");
    int own = intend(inner), above = intend(top);
    harness_write(harness_format("%s/cgroup.procs", harness_cgroup_root(NULL)), "0");
    assert_int_equal(-RBXJ_E_PROTECTED_PATH, own);
    assert_int_equal(-RBXJ_E_PROTECTED_PATH, above);
    assert_int_equal(-RBXJ_E_EXISTS, intend(inner));
    assert_int_equal(0, mount(inner, bound, NULL, MS_BIND, NULL));
    int mounted = intend(bound);
    assert_int_equal(0, umount2(bound, MNT_DETACH));
    assert_int_equal(-RBXJ_E_PROTECTED_PATH, mounted);
    assert_true(intend(harness_cgroup_root(NULL)) < 0);
    assert_true(intend(harness_cgroup_root("pids")) < 0);
}

static void what_is_no_plain_cgroup_path_is_a_bad_request(void **state)
{
    (void)state;
    const char *cgroup = harness_cgroup(), *link = harness_format("%s/link", harness_disk());
    assert_int_equal(0, symlink(cgroup, link));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(harness_format("%s/box", link)));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(harness_format("%s/box", harness_disk())));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(harness_format("%s/../box", cgroup)));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(harness_format("%s/missing/box", cgroup)));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend("box"));
}

static void k1_what_is_not_new_is_not_proven(void **state)
{
    (void)state;
    const char *cgroup = harness_cgroup(), *path = harness_format("%s/box", cgroup);
    assert_int_equal(0, intend(path));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, kind->prove(&x.undo, &x.record, NULL)); /* not there */
    harness_mkdir(path);
    pid_t pid = harness_spawn(path);
    assert_int_equal(-RBXJ_E_EXISTS, kind->prove(&x.undo, &x.record, NULL));
    harness_kill(pid);
    const char *child = child_of(path, "child");
    assert_int_equal(-RBXJ_E_EXISTS, kind->prove(&x.undo, &x.record, NULL));
    assert_int_equal(0, rmdir(child));
    x.record.owner = 4711;
    assert_int_equal(-RBXJ_E_EXISTS, kind->prove(&x.undo, &x.record, NULL));
    x.record.owner = 0;
    x.record.seq = 9;
    assert_int_equal(0, kind->prove(&x.undo, &x.record, NULL));
    assert_true(x.record.flags & REC_STAMPED);
    x.record.seq = 1;
    assert_int_equal(-RBXJ_E_EXISTS, kind->prove(&x.undo, &x.record, NULL));
    assert_int_equal(-RBXJ_E_EXISTS, kind->acquire(&x.undo, &x.record, NULL, NULL, NULL));
}

/* ---- whose is it ---- */

static void k1_without_evidence_the_stamp_decides(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup());
    pid_t pid = harness_spawn(path);
    x.record.flags &= ~(uint32_t)REC_EVIDENCE;
    assert_undone(path);
    assert_killed(pid);
}

static void k1_with_neither_only_an_empty_one_is_removed(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup());
    assert_int_equal(0, removexattr(path, "trusted.rbxj"));
    x.record.flags &= ~(uint32_t)REC_EVIDENCE;
    pid_t pid = harness_spawn(path);
    assert_int_equal(FOUND_FOREIGN, look());
    assert_true(x.finding.refused);
    assert_int_equal(0, kind->quiesce(&x.undo, &x.record, fresh()));
    assert_int_equal(-RBXJ_E_FOREIGN, kind->undo(&x.undo, &x.record, fresh()));
    assert_true(x.finding.refused && lives(pid));
    harness_kill(pid);
    const char *child = child_of(path, "child");
    assert_int_equal(-RBXJ_E_FOREIGN, kind->undo(&x.undo, &x.record, fresh()));
    assert_true(path_exists(child));
    assert_int_equal(0, rmdir(child));
    assert_undone(path);
}

static void k2_a_stranger_of_our_name_proves_ours_gone(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup());
    assert_int_equal(0, rmdir(path));
    harness_mkdir(path);
    /* a copied stamp does not count where there is evidence */
    assert_int_equal(0, setxattr(path, "trusted.rbxj", "77:1", 4, 0));
    pid_t pid = harness_spawn(path);
    assert_int_equal(FOUND_FOREIGN, look());
    assert_false(x.finding.refused);
    assert_true(x.finding.error.code == RBXJ_E_FOREIGN);
    assert_int_equal(0, replay());
    assert_true(lives(pid) && path_exists(path));
}

static void another_boot_is_gone(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup());
    pid_t pid = harness_spawn(path);
    x.record.evidence_boot[0] ^= 1;
    assert_int_equal(FOUND_GONE, look());
    assert_int_equal(0, replay());
    x.record.flags &= ~(uint32_t)REC_EVIDENCE;
    x.undo.same_boot = false;
    assert_int_equal(0, replay());
    assert_true(lives(pid) && path_exists(path));
}

/* A service that is started again has a new cgroup; in it there is nothing of an intent for the old one. */
static void k1_in_another_parent_even_an_empty_one_is_anothers(void **state)
{
    (void)state;
    const char *slice = child_of(harness_cgroup(), "slice"), *path = harness_format("%s/box 7", slice);
    assert_int_equal(0, intend(path));
    x.undo.snapshot = &x.snapshot;
    assert_int_equal(0, rmdir(slice));
    harness_mkdir(slice);
    harness_mkdir(path);
    assert_int_equal(FOUND_FOREIGN, look());
    assert_false(x.finding.refused);
    assert_int_equal(0, replay());
    assert_true(path_exists(path));
}

/* As a named hierarchy that was unmounted and mounted again gives it: the same path, device, number and
 * handle (6.1; since 6.9 it has an identity of its own). */
static void k3_in_v1_the_id_alone_is_not_enough(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup_v1("pids"));
    pid_t pid = harness_spawn(path);
    assert_int_equal(FOUND_PRESENT, look());
    assert_int_equal(0, removexattr(path, "trusted.rbxj"));
    assert_int_equal(FOUND_FOREIGN, look());
    assert_true(x.finding.refused);
    assert_int_equal(0, kind->quiesce(&x.undo, &x.record, fresh()));
    assert_int_equal(0, kind->quiesced(&x.undo, &x.record, fresh()));
    assert_true(kind->undo(&x.undo, &x.record, fresh()) < 0);
    assert_true(x.finding.refused);
    assert_true(lives(pid) && path_exists(path));
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(0, stamp_set(fd, &x.record));
    assert_undone(path);
    assert_killed(pid);
}

/* Its cgroups go on where a hierarchy is unmounted, and are the same when it is mounted again, under another
 * identity. */
static void k14_cgroups_do_not_go_with_their_mount(void **state)
{
    (void)state;
    struct stat st;
    const char *path = box_in(harness_cgroup_v1("pids"));
    x.record.parent.fs[0] ^= 1;
    x.record.id.fs[0] ^= 1;
    assert_int_equal(FOUND_PRESENT, look());
    assert_undone(path);
    if (geteuid() != 0)
        return;
    /* meanwhile another file system is there, and has got its number */
    assert_int_equal(0, stat(harness_tmpfs(), &st));
    x.record.path = harness_format("%s/box", harness_tmpfs());
    x.record.parent.dev = st.st_dev;
    assert_int_equal(FOUND_FOREIGN, look());
    assert_true(x.finding.refused && x.finding.not_mounted);
}

static void i4_a_symlink_on_the_way_is_not_followed(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup()), *link = harness_format("%s/link", harness_disk());
    pid_t pid = harness_spawn(path);
    assert_int_equal(0, symlink(harness_format("%.*s", (int)(strrchr(path, '/') - path), path), link));
    x.record.path = harness_format("%s/box 7", link);
    (void)kind->quiesce(&x.undo, &x.record, fresh());
    assert_true(kind->undo(&x.undo, &x.record, fresh()) < 0);
    assert_true(lives(pid) && path_exists(path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(i6_v2_is_killed_removed_and_verified),
        harness_test(i6_v1_pids_is_killed_removed_and_verified),
        harness_test(i6_v1_freezer_is_killed_removed_and_verified),
        harness_test(i6_v1_memory_is_killed_removed_and_verified),
        harness_test(i6_v1_named_hierarchy_is_removed),
        harness_test(i6_a_leftover_fails_the_verification),
        harness_test(i5_a_removal_cut_in_the_middle_goes_on),
        harness_test(k5_present_before_is_refused),
        harness_test(own_cgroup_its_ancestors_and_mount_points_are_protected),
        harness_test(what_is_no_plain_cgroup_path_is_a_bad_request),
        harness_test(k1_what_is_not_new_is_not_proven),
        harness_test(k1_without_evidence_the_stamp_decides),
        harness_test(k1_with_neither_only_an_empty_one_is_removed),
        harness_test(k2_a_stranger_of_our_name_proves_ours_gone),
        harness_test(another_boot_is_gone),
        harness_test(k1_in_another_parent_even_an_empty_one_is_anothers),
        harness_test(k3_in_v1_the_id_alone_is_not_enough),
        harness_test(k14_cgroups_do_not_go_with_their_mount),
        harness_test(i4_a_symlink_on_the_way_is_not_followed),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
