/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who keeps a thing from being undone: noted when it is found, told a moment later (I10).
 */
#include "harness.h"

#include "base/cleanup.h"
#include "reaper/keepers.h"

#include <string.h>

/* The list, as text, that lives until the end of the test. */
static const char *told(const struct keepers *keepers)
{
    struct doc doc;
    doc_init(&doc);
    keepers_tell(&doc, doc.root, keepers);
    char *text = doc_finish(&doc);
    assert_non_null(text);
    const char *copy = harness_format("%s", text);
    free(text);
    return copy;
}

static void each_is_noted_once_and_the_first_ones(void **state)
{
    (void)state;
    struct keepers keepers = {0};
    assert_string_equal(told(&keepers), "{}");
    keepers_add(&keepers, 0); /* none */
    keepers_add(&keepers, -1);
    assert_int_equal(keepers.len, 0);
    for (int i = 0; i < 3; i++)
        keepers_add(&keepers, getpid());
    assert_int_equal(keepers.len, 1);
    for (int i = 0; i < 10; i++)
        keepers_add(&keepers, harness_spawn(NULL));
    assert_int_equal(keepers.len, KEEPERS_MAX);
    assert_int_equal(keepers.at[0].pid, getpid());
}

static void who_it_is(void **state)
{
    (void)state;
    struct keepers keepers = {0};
    const char *group = harness_cgroup();
    pid_t pid = harness_spawn(group);
    keepers_add(&keepers, pid);
    const char *text = told(&keepers);
    assert_non_null(strstr(text, harness_format("\"pid\":%d,\"comm\":\"", pid)));
    assert_null(strstr(text, "null"));
    assert_non_null(strstr(text, harness_format("%s\"", strrchr(group, '/'))));
    assert_non_null(strstr(text, "\"started\":\"20"));
}

/* Its pid may be another's by then. */
static void what_is_gone_is_told_so(void **state)
{
    (void)state;
    struct keepers keepers = {0};
    pid_t pid = harness_spawn(NULL);
    const char *gone = harness_format("{\"held_by\":[{\"pid\":%d,\"comm\":null,\"state\":null,"
                                      "\"started\":null,\"cgroup\":null}]}",
                                      pid);
    keepers_add(&keepers, pid);
    keepers.at[0].start_time++;
    assert_string_equal(told(&keepers), gone);
    keepers.at[0].start_time--;
    assert_string_not_equal(told(&keepers), gone);
    harness_kill(pid);
    assert_string_equal(told(&keepers), gone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(each_is_noted_once_and_the_first_ones),
        harness_test(who_it_is),
        harness_test(what_is_gone_is_told_so),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
