/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What becomes of a mount between the reading of mountinfo and its unmounting (K12).
 */
#include "mount_fixture.h"

#include <sys/syscall.h>
#include <unistd.h>

static const char *from, *to; /* somebody binds it there at the last moment */

int umount2(const char *target, int flags)
{
    if (from && mount(from, to, NULL, MS_BIND, NULL) < 0)
        return -1;
    from = NULL;
    return (int)syscall(SYS_umount2, target, flags);
}

static void k12_a_copy_that_is_younger_than_the_reading_is_seen(void **state)
{
    (void)state;
    harness_need_root();
    if (mount_device_exists(0xfffff) < 0)
        harness_skip("the kernel does not tell (ustat(2))");
    const char *a = dir("a");
    to = dir("b");
    struct record *r = acquire("tmpfs", "x", a, "size=64k");
    assert_int_equal(1, mount_device_exists(r->devices_held));
    assert_int_equal(FOUND_PRESENT, look(r));
    (void)pass();
    from = a;
    assert_int_equal(1, kind->undo(&x.undo, r, &x.f));
    assert_null(from);
    assert_true(verify(r) < 0);
    assert_int_equal(FOUND_BUSY, x.f.found);
    assert_non_null(strstr(x.f.error.message, to));
    assert_int_equal(FOUND_BUSY, look(r)); /* the record stays until it is gone there, too */
    assert_int_equal(0, umount2(to, 0));
    assert_becomes(FOUND_GONE, r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {mount_test(k12_a_copy_that_is_younger_than_the_reading_is_seen)};
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
