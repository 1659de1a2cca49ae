/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * K12, I4: an unmount goes wherever its parent propagates to, and takes what it finds there.
 */
#include "mount_fixture.h"

#include <sched.h>

static bool listen_to_us(void)
{
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) == 0;
}

static bool listen_and_pass_on(void)
{
    return listen_to_us() && mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL) == 0;
}

static bool mount_its_own(const void *target)
{
    return umount(target) == 0 && mount("stranger", target, "tmpfs", 0, "size=64k") == 0;
}

static bool serve(const void *target)
{
    return listen_to_us() && mount_its_own(target);
}

static bool serve_behind_another(const void *target)
{
    for (int i = 0; i < 2; i++)
        if (!listen_and_pass_on())
            return false;
    return mount_its_own(target);
}

/* A service whose namespace hears of ours: it has unmounted its copy, and mounted what it likes. shared: it
 * passes on what it hears, and lives behind another one that does. */
static pid_t service(const char *target, bool shared)
{
    return child_that_waits(shared ? serve_behind_another : serve, target);
}

static bool has_stranger(pid_t pid, const char *target)
{
    struct mount_table *table;
    assert_int_equal(0, mount_table_read(harness_format("/proc/%d/mountinfo", pid), &table, NULL));
    const struct mount *top = mount_table_top(table, target);
    bool has = top && strcmp(top->source, "stranger") == 0;
    mount_table_free(table);
    return has;
}

static void is_left_until(pid_t pid, struct record *r, const char *target)
{
    assert_int_equal(FOUND_PRESENT, look(r));
    x.undo.foretells = true; /* as a dry run does */
    assert_int_equal(FOUND_BUSY, look(r));
    assert_non_null(strstr(x.f.error.message, "stranger"));
    x.undo.foretells = false;
    for (int lazy = 0; lazy < 2; lazy++) {
        x.undo.lazy_umount = lazy;
        assert_true(undo(r) < 0);
        assert_int_equal(FOUND_BUSY, x.f.found);
        assert_non_null(strstr(x.f.error.message, "stranger"));
        assert_non_null(strstr(x.f.error.detail, harness_format("pid %d", pid)));
        assert_true(has_stranger(pid, target));
        assert_true(mounted(r->path) > 0);
    }
    x.undo.lazy_umount = false;
    harness_kill(pid);
    assert_undone(r);
}

static void k12_a_strangers_mount_in_a_slave_is_not_taken_along(void **state)
{
    (void)state;
    harness_need_root();
    const char *base = shared_dir();
    for (int shared = 0; shared < 2; shared++) {
        const char *a = harness_format("%s/a%d", base, shared);
        harness_mkdir(a);
        struct record *r = acquire("tmpfs", "x", a, NULL);
        is_left_until(service(a, shared), r, a);
    }
}

static void k12_nor_one_below_ours(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = harness_format("%s/a", shared_dir()), *sub = harness_format("%s/sub", a);
    harness_mkdir(a);
    struct record *r = acquire("tmpfs", "x", a, "shared");
    harness_mkdir(sub);
    tmpfs_on(sub, "sub");
    is_left_until(service(sub, false), r, sub);
}

/* A mount of ours in a directory that has another name, too, which hears of it: where it is by that name. */
static const char *acquire_with_a_copy(struct record **r)
{
    const char *base = shared_dir(), *a = harness_format("%s/a", base), *b = dir("b");
    harness_mkdir(a);
    assert_int_equal(0, mount(base, b, NULL, MS_BIND, NULL));
    assert_int_equal(0, mount(NULL, b, NULL, MS_SLAVE, NULL));
    *r = acquire("tmpfs", "x", a, NULL);
    const char *there = harness_format("%s/a", b);
    assert_int_equal(1, mounted(there));
    return there;
}

/* In our own namespace it is seen through another name of the same directory. */
static void k12_nor_one_behind_a_bind_mount(void **state)
{
    (void)state;
    harness_need_root();
    struct record *r;
    const char *there = acquire_with_a_copy(&r);
    assert_int_equal(0, umount(there));
    tmpfs_on(there, "stranger");
    assert_true(undo(r) < 0);
    assert_non_null(strstr(x.f.error.message, "stranger"));
    assert_int_equal(1, mounted(there));
    assert_int_equal(0, umount(there));
    assert_undone(r);
}

/* On our copy, which is below it, it is safe: the kernel puts it in the place of that. */
static void k12_one_on_a_copy_of_ours_is_in_nobodys_way(void **state)
{
    (void)state;
    harness_need_root();
    struct record *r;
    const char *there = acquire_with_a_copy(&r);
    tmpfs_on(there, "stranger");
    assert_int_equal(2, mounted(there));
    assert_undone(r);
    assert_int_equal(1, mounted(there));
}

static const char *bound; /* by somebody in a namespace of his own */

static bool bind_of_its_own(const void *target)
{
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount(bound, target, NULL, MS_BIND, NULL) == 0;
}

/* It shows the same at the same place, and is no copy of ours: that would be younger. */
static void k12_what_was_there_before_ours_is_no_copy(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a");
    bound = dir("source");
    (void)child_that_waits(bind_of_its_own, a);
    struct record *r = acquire("bind", bound, a, NULL);
    if (!r->mount.unique)
        harness_skip("the kernel has no unique mount ids");
    assert_undone(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mount_test(k12_a_strangers_mount_in_a_slave_is_not_taken_along),
        mount_test(k12_nor_one_below_ours),
        mount_test(k12_nor_one_behind_a_bind_mount),
        mount_test(k12_one_on_a_copy_of_ours_is_in_nobodys_way),
        mount_test(k12_what_was_there_before_ours_is_no_copy),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
