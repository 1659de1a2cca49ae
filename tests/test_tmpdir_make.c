/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The tmpdir kind: before it is there, and whose it is then: K1, K5, K18.
 */
#include "tmpdir_fixture.h"

/* ---- prepare ---- */

static void k5_present_before_is_exists(void **state)
{
    (void)state;
    intend(harness_disk(), 0);
    harness_mkdir(target);
    assert_int_equal(prepare(), -RBXJ_E_EXISTS);
    assert_non_null(strstr(error.message, target));
    assert_int_equal(rmdir(target), 0);
    assert_int_equal(symlink("/nowhere", target), 0);
    assert_int_equal(prepare(), -RBXJ_E_EXISTS);
    assert_int_equal(unlink(target), 0);
    assert_int_equal(prepare(), 0);
}

static void k18_missing_parent_is_an_error_but_below(void **state)
{
    (void)state;
    intend(harness_format("%s/missing", harness_disk()), 0);
    assert_int_equal(prepare(), -RBXJ_E_BAD_REQUEST);
    record.below = 1;
    assert_int_equal(prepare(), 0);
    assert_false(fileid_is_set(&record.parent));
}

static void symlink_on_the_way_is_refused(void **state)
{
    (void)state;
    char *link = harness_format("%s/link", harness_disk());
    assert_int_equal(symlink(harness_disk(), link), 0);
    intend(link, 0);
    assert_int_equal(prepare(), -RBXJ_E_BAD_REQUEST);
}

static void bad_and_protected_paths_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"relative", "/tmp/../tmp/x", "/tmp//x", "/tmp/x/", ""};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        intend(harness_disk(), 0);
        record.path = harness_format("%s", bad[i]);
        assert_int_equal(prepare(), -RBXJ_E_BAD_REQUEST);
    }
    intend("/usr", 0);
    assert_int_equal(prepare(), -RBXJ_E_PROTECTED_PATH);
}

static void prepare_keeps_a_nonce(void **state)
{
    (void)state;
    begin_in(harness_disk(), 0);
    uint8_t nonce[sizeof(record.nonce)];
    memcpy(nonce, record.nonce, sizeof(nonce));
    assert_int_equal(prepare(), 0);
    assert_memory_equal(nonce, record.nonce, sizeof(nonce));
    begin_in(harness_disk(), 0);
    assert_memory_not_equal(nonce, record.nonce, sizeof(nonce));
    assert_int_equal(record.owner, geteuid());
}

/* ---- acquire, prove ---- */

static void acquired_has_evidence_and_a_stamp(void **state)
{
    (void)state;
    harness_need_root();
    acquire_in(harness_disk(), 0);
    struct stat st;
    uint64_t incarnation;
    uint32_t seq;
    assert_int_equal(lstat(target, &st), 0);
    assert_int_equal(st.st_mode, S_IFDIR | 0700);
    assert_int_equal(record.flags, REC_EVIDENCE | REC_STAMPED);
    assert_int_equal(record.id.ino, st.st_ino);
    _cleanup_close_ int fd = open(target, O_RDONLY | O_CLOEXEC);
    assert_int_equal(stamp_get(fd, &incarnation, &seq), 1);
    assert_true(incarnation == record.incarnation);
    assert_int_equal(seq, record.seq);
}

static void acquire_never_takes_what_is_there(void **state)
{
    (void)state;
    begin_in(harness_disk(), 0);
    harness_mkdir(target);
    assert_int_equal(kind_tmpdir.acquire(&undo, &record, NULL, NULL, &error), -RBXJ_E_EXISTS);
    assert_int_equal(record.flags, 0);
}

static void acquire_refuses_another_parent(void **state)
{
    (void)state;
    char *parent = harness_format("%s/parent", harness_disk());
    harness_mkdir(parent);
    begin_in(parent, 0);
    assert_int_equal(rename(parent, harness_format("%s/old", harness_disk())), 0);
    harness_mkdir(parent);
    assert_int_equal(kind_tmpdir.acquire(&undo, &record, NULL, NULL, &error), -RBXJ_E_BAD_REQUEST);
    assert_false(path_exists(target));
}

static int prove(void)
{
    memset(&error, 0, sizeof(error));
    int r = kind_tmpdir.prove(&undo, &record, &error);
    if (r < 0)
        assert_int_equal(record.flags, 0);
    return r;
}

static void k1_prove_refuses_what_is_not_new(void **state)
{
    (void)state;
    harness_need_root();
    begin_in(harness_disk(), 0);
    char *elsewhere = harness_format("%s/elsewhere", harness_disk());
    harness_mkdir(elsewhere);
    assert_int_equal(prove(), -RBXJ_E_BAD_REQUEST); /* not made */
    assert_int_equal(symlink(elsewhere, target), 0);
    assert_int_equal(prove(), -RBXJ_E_EXISTS);
    assert_int_equal(unlink(target), 0);
    harness_write(target, "");
    assert_int_equal(prove(), -RBXJ_E_EXISTS);
    assert_int_equal(unlink(target), 0);
    harness_mkdir(target);
    assert_int_equal(chown(target, 12345, 12345), 0);
    assert_int_equal(prove(), -RBXJ_E_EXISTS);
    assert_int_equal(chown(target, 0, 0), 0);
    harness_mkdir(harness_format("%s/in", target));
    assert_int_equal(prove(), -RBXJ_E_EXISTS);
    assert_int_equal(rmdir(harness_format("%s/in", target)), 0);
    struct record other = {.incarnation = 5, .seq = 1};
    _cleanup_close_ int fd = open(target, O_RDONLY | O_CLOEXEC);
    assert_int_equal(stamp_set(fd, &other), 0);
    assert_int_equal(prove(), -RBXJ_E_EXISTS);
    assert_int_equal(stamp_set(fd, &record), 0); /* killed before the evidence was written: again */
    assert_int_equal(prove(), 0);
}

static void k1_mount_in_place_of_it_is_not_new(void **state)
{
    (void)state;
    harness_need_root();
    begin_in(harness_disk(), 0);
    harness_mkdir(target);
    assert_int_equal(mount("rbxj-test", target, "tmpfs", 0, "mode=0700"), 0);
    assert_int_equal(prove(), -RBXJ_E_EXISTS);
}

static void k1_where_no_stamp_can_be_set(void **state)
{
    (void)state;
    harness_need_root();
    char *where = harness_format("%s/ramfs", harness_disk());
    harness_mkdir(where);
    assert_int_equal(mount("rbxj-test", where, "ramfs", 0, NULL), 0);
    acquire_in(where, 0);
    assert_int_equal(record.flags, REC_EVIDENCE | REC_NO_STAMP);
    fill(target);
    assert_undone();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k5_present_before_is_exists),
        harness_test(k18_missing_parent_is_an_error_but_below),
        harness_test(symlink_on_the_way_is_refused),
        harness_test(bad_and_protected_paths_are_refused),
        harness_test(prepare_keeps_a_nonce),
        harness_test(acquired_has_evidence_and_a_stamp),
        harness_test(acquire_never_takes_what_is_there),
        harness_test(acquire_refuses_another_parent),
        harness_test(k1_prove_refuses_what_is_not_new),
        harness_test(k1_mount_in_place_of_it_is_not_new),
        harness_test(k1_where_no_stamp_can_be_set),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, teardown);
}
