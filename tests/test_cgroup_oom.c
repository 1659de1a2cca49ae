/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Out-of-memory kills in a box's cgroup are counted before it goes, with those in what is below it (I10).
 */
#include "cgroup_fixture.h"
#include "oom_fixture.h"

static void kills_in_a_v1_cgroup_and_below(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup_v1("memory"));
    const char *nested = child_of(child_of(path, "a"), "b");
    assert_int_equal(FOUND_PRESENT, look());
    assert_int_equal(x.finding.oom_kills, 0);
    oom_limit(path);
    oom_kill_in(path, "oom");
    oom_kill_in(nested, "oom");
    assert_int_equal(FOUND_PRESENT, look());
    assert_int_equal(x.finding.oom_kills, 2);
    assert_non_null(strstr(x.finding.error.detail, "2 out-of-memory kills in it"));
    assert_undone(path);
}

static void kills_in_a_v2_cgroup_and_below(void **state)
{
    (void)state;
    if (harness_cgroup_root("memory"))
        harness_skip("memory is a v1 hierarchy here");
    (void)oom_hierarchy();
    const char *path = box_in(harness_cgroup());
    oom_limit(path);
    oom_kill_in(path, "oom");
    assert_int_equal(FOUND_PRESENT, look());
    assert_int_equal(x.finding.oom_kills, 1);
    assert_undone(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(kills_in_a_v1_cgroup_and_below),
        harness_test(kills_in_a_v2_cgroup_and_below),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
