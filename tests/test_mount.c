/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The mount kind: taking and giving back, and whose it is (K1, K2, K10, K12, K13).
 */
#include "base/helper.h"
#include "mount_fixture.h"

#include <sys/resource.h>

/* ---- prepare, acquire, prove ---- */

static const char *our_source(const struct record *r)
{
    return harness_format("rbxj:%llu:%u", (unsigned long long)r->incarnation, r->seq);
}

static void k1_there_and_back(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a b");
    struct record *r = acquire("tmpfs", "whatever", a, "size=1m,mode=0750,nodev,ro");
    assert_string_equal(our_source(r), r->found_source);
    assert_string_equal("/", r->root);
    assert_true(r->flags & REC_STAMPED);
    assert_true(r->mount.ns == ns_of(0));
    struct stat st;
    assert_int_equal(0, stat(a, &st));
    assert_int_equal(0750, st.st_mode & 07777);
    assert_int_equal(st.st_dev, r->mount.dev);
    assert_int_equal(st.st_dev, r->devices_held);
    assert_int_equal(-1, open(harness_format("%s/x", a), O_CREAT | O_WRONLY, 0600));
    assert_int_equal(EROFS, errno);
    assert_undone(r);
    assert_int_equal(0, mounted(a));
}

static void k10_targets_that_are_refused(void **state)
{
    (void)state;
    harness_need_root();
    const char *file = harness_format("%s/file", harness_disk());
    const char *link = harness_format("%s/link", harness_disk());
    harness_write(file, "");
    assert_int_equal(0, symlink(dir("a"), link));
    const char *const bad[] = {file,
                               link,
                               harness_format("%s/b", link),
                               harness_format("%s/missing", harness_disk()),
                               "relative",
                               "/a/../b",
                               ""};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct record *r = add("tmpfs", "x", bad[i]);
        memset(&x.error, 0, sizeof(x.error));
        assert_int_equal(-RBXJ_E_BAD_REQUEST, kind->prepare(&x.undo, r, &x.error));
        assert_int_equal(RBXJ_E_BAD_REQUEST, x.error.code);
        record_clear(r);
        x.undo.records_len--;
    }
    struct record *r = add("tmpfs", "x", "/");
    assert_true(kind->prepare(&x.undo, r, NULL) < 0);
    free(r->path);
    r->path = strdup("/etc/x");
    assert_int_equal(-RBXJ_E_PROTECTED_PATH, kind->prepare(&x.undo, r, NULL));
    free(r->path);
    r->path = strdup(dir("c"));
    r->fstype[0] = '\0';
    assert_int_equal(-RBXJ_E_BAD_REQUEST, kind->prepare(&x.undo, r, NULL));
    /* below an item that is yet to be made, the target need not be there (K13) */
    struct record *below = add("tmpfs", "x", harness_format("%s/missing/root", harness_disk()));
    below->below = 1;
    assert_int_equal(0, kind->prepare(&x.undo, below, NULL));
    assert_false(below->flags & REC_BEFORE_PRESENT);
}

static void k1_only_a_new_mount_of_the_intent_is_proven(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a");
    tmpfs_on(a, "older");
    struct record *r = intend("tmpfs", "older", a);
    assert_int_equal(-RBXJ_E_BAD_REQUEST, kind->prove(&x.undo, r, NULL));
    assert_int_equal(0, mount("other", a, "ramfs", 0, NULL));
    assert_int_equal(-RBXJ_E_EXISTS, kind->prove(&x.undo, r, NULL));
    assert_int_equal(0, umount2(a, 0));
    tmpfs_on(a, "another source");
    assert_int_equal(-RBXJ_E_EXISTS, kind->prove(&x.undo, r, NULL));
    assert_false(r->flags & REC_EVIDENCE);
    assert_int_equal(0, umount2(a, 0));
    tmpfs_on(a, "older");
    prove(r);
    assert_false(r->flags & REC_STAMPED);
    assert_undone(r);
    assert_int_equal(1, mounted(a)); /* the one from before */
}

static void k12_binds_have_no_peers_but_their_copies(void **state)
{
    (void)state;
    harness_need_root();
    const char *source = dir("source"), *a = dir("a");
    tmpfs_on(source, "s");
    assert_int_equal(0, mount(NULL, source, NULL, MS_SHARED, NULL));
    harness_mkdir(harness_format("%s/pts", source));
    tmpfs_on(harness_format("%s/pts", source), "pts");
    struct record *r = acquire("rbind", source, a, "ro,nosuid");
    assert_int_equal(0, r->devices_held);
    struct mount_table *table;
    assert_int_equal(0, mount_table_read("/proc/self/mountinfo", &table, NULL));
    assert_true(mount_table_top(table, source)->peers);
    assert_int_equal(1, mount_table_find(table, MOUNT_BY_PEERS, mount_table_top(table, source)).len);
    mount_table_free(table);
    assert_int_equal(2, mounted(a));
    assert_int_equal(-1, mkdir(harness_format("%s/x", a), 0700));
    assert_int_equal(EROFS, errno);
    assert_int_equal(0, mkdir(harness_format("%s/x", source), 0700));
    assert_undone(r);
    assert_int_equal(0, mounted(a));
    assert_int_equal(2, mounted(source));
}

static void bad_options_mount_nothing(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a");
    struct record *r = intend("tmpfs", "x", a);
    static const char *const bad[] = {"remount", "bind", "loop", "no-such-option-of-tmpfs"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_true(kind->acquire(&x.undo, r, bad[i], NULL, NULL) < 0);
    assert_int_equal(0, mounted(a));
    assert_int_equal(0, kind->acquire(&x.undo, r, "defaults,private,size=64k", NULL, NULL));
    assert_undone(r);
}

/* Grows with each child that has come to its end. */
static long reaped(void)
{
    struct rusage usage;
    assert_int_equal(0, getrusage(RUSAGE_CHILDREN, &usage));
    return usage.ru_minflt;
}

static void overlays_are_undone(void **state)
{
    (void)state;
    harness_need_root();
    const char *base = dir("t"), *a = dir("a");
    tmpfs_on(base, "t");
    static const char *const names[] = {"lower", "upper", "work"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        harness_mkdir(harness_format("%s/%s", base, names[i]));
    long before = reaped();
    struct record *r = acquire(
        "overlay", "overlay", a,
        harness_format("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", base, base, base));
    assert_undone(r);
    assert_true(reaped() > before); /* helpers: what is below it may hang */
}

/* ---- whose it is ---- */

static void forget_evidence(struct record *r)
{
    r->flags &= REC_BEFORE_PRESENT;
    memset(&r->mount, 0, sizeof(r->mount));
    memset(&r->id, 0, sizeof(r->id));
    r->devices_held = 0;
}

static void k1_without_evidence_the_source_tells(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a"), *b = dir("b");
    struct record *r = acquire("tmpfs", "x", a, NULL);
    forget_evidence(r);
    /* moved away: perhaps it is ours, perhaps a copy of it */
    assert_int_equal(0, mount(a, b, NULL, MS_MOVE, NULL));
    assert_int_equal(FOUND_FOREIGN, look(r));
    assert_true(x.f.refused);
    assert_true(undo(r) < 0);
    assert_int_equal(1, mounted(b));
    assert_int_equal(0, mount(b, a, NULL, MS_MOVE, NULL));
    assert_undone(r);
    assert_int_equal(0, mounted(a));
}

static void k1_without_evidence_a_stranger_is_left(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a"), *b = dir("b"), *c = dir("c");
    /* one that can't be ours: ours would have another source */
    struct record *r = intend("tmpfs", "x", a);
    assert_int_equal(FOUND_GONE, look(r));
    tmpfs_on(a, "stranger");
    assert_int_equal(FOUND_FOREIGN, look(r));
    assert_false(x.f.refused);
    assert_int_equal(0, undo(r));
    assert_int_equal(1, mounted(a));
    /* one that could be: in doubt it is left and its record kept */
    r = intend("bind", dir("source"), b);
    assert_int_equal(0, mount(harness_disk(), b, NULL, MS_BIND, NULL));
    assert_int_equal(FOUND_FOREIGN, look(r));
    assert_true(x.f.refused);
    assert_int_equal(-RBXJ_E_FOREIGN, undo(r));
    assert_int_equal(1, mounted(b));
    assert_int_equal(0, umount2(b, 0));
    /* one that was there before is no stranger */
    assert_int_equal(0, mount(harness_disk(), c, NULL, MS_BIND, NULL));
    r = intend("bind", dir("source2"), c);
    assert_int_equal(FOUND_GONE, look(r));
    r->newest_mount = 0; /* as before 6.8 */
    assert_int_equal(FOUND_GONE, look(r));
}

static void k1_without_evidence_a_block_device(void **state)
{
    (void)state;
    harness_need_root();
    const char *image = harness_format("%s/image", harness_disk()), *a = dir("a");
    int fd = open(image, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_int_equal(0, ftruncate(fd, 1 << 20));
    (void)close(fd);
    if (system(harness_format("mkfs.ext2 -q %s >/dev/null 2>&1", image)) != 0)
        harness_skip("no mkfs.ext2");
    FILE *pipe = popen(harness_format("losetup -f --show %s 2>/dev/null", image), "r");
    char device[64] = "";
    (void)!fgets(device, sizeof(device), pipe);
    device[strcspn(device, "\n")] = '\0';
    if (pclose(pipe) != 0 || !device[0])
        harness_skip("no loop devices");
    struct record *r = intend("ext2", device, a);
    int rc = kind->acquire(&x.undo, r, NULL, NULL, &x.error);
    (void)!system(harness_format("losetup -d %s", device)); /* from now on until it is unmounted */
    if (rc < 0)
        harness_skip("no ext2: %s", x.error.message);
    assert_string_equal(device, r->found_source);
    forget_evidence(r);
    uint64_t newest = r->newest_mount;
    r->newest_mount = newest ? UINT64_MAX : 0; /* somebody had mounted it already */
    assert_int_equal(newest ? FOUND_GONE : FOUND_FOREIGN, look(r));
    r->newest_mount = newest;
    if (newest)
        assert_undone(r);
}

static void k2_a_foreign_mount_of_our_name(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a");
    struct record *r = acquire("tmpfs", "x", a, NULL);
    assert_int_equal(0, umount2(a, 0));
    tmpfs_on(a, "stranger");
    assert_int_equal(FOUND_FOREIGN, look(r));
    assert_false(x.f.refused);
    assert_non_null(strstr(x.f.error.message, "stranger"));
    assert_int_equal(0, undo(r));
    assert_int_equal(0, verify(r));
    assert_int_equal(1, mounted(a));
}

static void k13_reused_ids_are_not_ours(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a");
    struct record *r = acquire("tmpfs", "x", a, NULL);
    assert_int_equal(0, umount2(a, 0));
    struct mount_at at = {.id = -1};
    /* old ids are taken from the lowest free one; the same content, as a copycat would have it */
    for (int i = 0; i < 20 && at.id != r->mount.id; i++) {
        if (at.id >= 0)
            assert_int_equal(0, umount2(a, 0));
        tmpfs_on(a, our_source(r));
        assert_int_equal(0, mount_at(AT_FDCWD, a, &at));
    }
    if (at.id != r->mount.id)
        harness_skip("the id was not reused");
    if (!r->mount.unique)
        harness_skip("the kernel has no unique mount ids");
    assert_int_equal(FOUND_FOREIGN, look(r));
    assert_int_equal(0, undo(r));
    assert_int_equal(1, mounted(a));
    /* before 6.8 the content has to tell */
    r->mount.unique = 0;
    tmpfs_on(harness_format("%s", dir("b")), "y");
    free(r->found_source);
    r->found_source = strdup("something else");
    assert_int_equal(FOUND_FOREIGN, look(r));
    assert_int_equal(0, undo(r));
    assert_int_equal(1, mounted(a));
}

static void k13_without_unique_ids(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a"), *b = dir("b");
    struct record *r = acquire("bind", dir("source"), a, NULL);
    r->mount.unique = 0;
    r->newest_mount = 0;
    tmpfs_on(b, "b");
    harness_mkdir(harness_format("%s/c", b));
    assert_int_equal(0, mount(a, harness_format("%s/c", b), NULL, MS_MOVE, NULL));
    assert_int_equal(FOUND_FOREIGN, look(r)); /* another parent: in doubt */
    assert_true(x.f.refused);
    assert_int_equal(0, mount(harness_format("%s/c", b), a, NULL, MS_MOVE, NULL));
    assert_undone(r);
    assert_int_equal(0, mounted(a));
}

/* mountinfo shows where the directory is by now, which says nothing of the mount. Another mount with its
 * number is none of ours all the same. */
static void k13_a_bind_whose_source_was_renamed(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a"), *source = dir("source"), *other = dir("other");
    struct record *r = acquire("bind", source, a, NULL);
    r->mount.unique = r->newest_mount = 0;
    assert_int_equal(0, rename(source, harness_format("%s.old", source)));
    assert_undone(r);
    assert_int_equal(0, mounted(a));
    assert_int_equal(0, mount(other, a, NULL, MS_BIND, NULL));
    struct mount_at at;
    assert_int_equal(0, mount_at(AT_FDCWD, a, &at));
    r->mount.id = at.id;
    assert_int_equal(FOUND_FOREIGN, look(r));
    assert_false(x.f.refused);
    assert_int_equal(0, undo(r));
    assert_int_equal(1, mounted(a));
}

static void k13_moved_is_still_ours(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a"), *b = dir("b");
    struct record *r = acquire("bind", dir("source"), a, NULL);
    assert_int_equal(0, mount(a, b, NULL, MS_MOVE, NULL));
    tmpfs_on(a, "stranger");
    if (!r->mount.unique)
        harness_skip("the kernel has no unique mount ids");
    assert_int_equal(FOUND_PRESENT, look(r));
    assert_int_equal(1, undo(r));
    assert_int_equal(0, verify(r));
    assert_int_equal(FOUND_FOREIGN, look(r)); /* now that is all there is */
    assert_int_equal(0, mounted(b));
    assert_int_equal(1, mounted(a));
}

static void k13_stranger_on_top_is_busy(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a");
    struct record *r = acquire("tmpfs", "x", a, NULL);
    tmpfs_on(a, "stranger");
    assert_int_equal(FOUND_BUSY, look(r));
    assert_non_null(strstr(x.f.error.message, "stranger"));
    assert_int_equal(-RBXJ_E_BUSY, undo(r));
    assert_int_equal(FOUND_BUSY, x.f.found);
    assert_int_equal(2, mounted(a));
    assert_int_equal(-RBXJ_E_BUSY, verify(r));
    assert_int_equal(0, umount2(a, 0));
    assert_undone(r);
}

static void k13_own_stack_goes_newest_first(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a");
    struct record *lower = acquire("tmpfs", "x", a, NULL);
    struct record *upper = acquire("tmpfs", "x", a, NULL);
    assert_int_equal(FOUND_PRESENT, look(lower));
    assert_undone(upper);
    assert_int_equal(1, mounted(a));
    assert_undone(lower);
}

static void k13_covered_by_one_above_is_busy(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a"), *b = dir("a/b");
    struct record *r = acquire("tmpfs", "x", b, NULL);
    tmpfs_on(a, "cover");
    assert_true(undo(r) < 0);
    assert_int_equal(FOUND_BUSY, x.f.found);
    harness_mkdir(b);
    tmpfs_on(b, "same name, in the cover");
    assert_int_equal(-RBXJ_E_BUSY, undo(r));
    uint64_t unique = r->mount.unique;
    r->mount.unique = 0;
    assert_int_equal(-RBXJ_E_BUSY, undo(r));
    r->mount.unique = unique;
    assert_int_equal(0, umount2(b, 0)); /* it is still there */
    assert_int_equal(0, umount2(a, 0));
    assert_undone(r);
}

static void k13_another_boot_is_gone(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a");
    struct record *r = acquire("tmpfs", "x", a, NULL);
    r->evidence_boot[3] ^= 1;
    assert_int_equal(FOUND_GONE, look(r));
    assert_int_equal(0, undo(r));
    assert_int_equal(0, verify(r));
    forget_evidence(r);
    x.undo.same_boot = false;
    assert_int_equal(FOUND_GONE, look(r));
    assert_int_equal(0, undo(r));
    assert_int_equal(1, mounted(a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mount_test(k1_there_and_back),
        mount_test(k10_targets_that_are_refused),
        mount_test(k1_only_a_new_mount_of_the_intent_is_proven),
        mount_test(k12_binds_have_no_peers_but_their_copies),
        mount_test(bad_options_mount_nothing),
        mount_test(overlays_are_undone),
        mount_test(k1_without_evidence_the_source_tells),
        mount_test(k1_without_evidence_a_stranger_is_left),
        mount_test(k1_without_evidence_a_block_device),
        mount_test(k2_a_foreign_mount_of_our_name),
        mount_test(k13_reused_ids_are_not_ours),
        mount_test(k13_without_unique_ids),
        mount_test(k13_a_bind_whose_source_was_renamed),
        mount_test(k13_moved_is_still_ours),
        mount_test(k13_stranger_on_top_is_busy),
        mount_test(k13_own_stack_goes_newest_first),
        mount_test(k13_covered_by_one_above_is_busy),
        mount_test(k13_another_boot_is_gone),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
