/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Pid namespaces within namespaces: whose a handle is, and whose numbers /proc shows.
 */
#include "journal_fixture.h"

/* In a child that is the first process of a new pid namespace; proc: with a /proc of its own. */
#define FIRST(proc, ...)                                                                                     \
    CHILD({                                                                                                  \
        CHECK(unshare(CLONE_NEWPID | CLONE_NEWNS) == 0);                                                     \
        pid_t first = fork();                                                                                \
        if (first == 0) {                                                                                    \
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);                                                          \
            CHECK(getpid() == 1);                                                                            \
            CHECK(!(proc) || mount("proc", "/proc", "proc", 0, NULL) == 0);                                  \
            __VA_ARGS__                                                                                      \
            _exit(0);                                                                                        \
        }                                                                                                    \
        int how = 0;                                                                                         \
        CHECK(waitpid(first, &how, 0) == first);                                                             \
        CHECK(how == 0);                                                                                     \
    })

/* A supervisor that is a container's first process, and starts a sandbox's first process: both are pid 1. */
static void a_child_of_the_same_number_is_a_child(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    pid_t pid = FIRST(true, {
        struct rbxj_error error = {0};
        struct journal *j;
        int inner_how = 0;
        CHECK(journal_open(&p.options, &j, &error) == 0);
        CHECK(begin_one(j, "a", harness_format("%s/x", p.lost), &error) == 0);
        CHECK(unshare(CLONE_NEWPID) == 0);
        pid_t inner = fork();
        if (inner == 0) {
            CHECK(getpid() == 1);
            CHECK(begin_one(j, "b", NULL, &error) == -RBXJ_E_FORKED);
            CHECK(!journal_of_process(p.state, p.runtime));
            journal_close(j);
            _exit(0);
        }
        CHECK(waitpid(inner, &inner_how, 0) == inner);
        CHECK(inner_how == 0);
        CHECK(begin_one(j, "c", NULL, &error) == 0);
        journal_close(j);
    });
    assert_child(pid);
}

/* unshare --pid without --mount-proc, a container with its host's /proc: a number there is another process. */
static void the_proc_of_another_namespace_is_refused(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    pid_t pid = FIRST(false, {
        struct rbxj_error error = {0};
        struct journal *j;
        struct procid id;
        CHECK(journal_open(&p.options, &j, &error) < 0);
        CHECK(strstr(error.message, "/proc"));
        CHECK(procid_of(getpid(), &id) == -EXDEV);
        CHECK(procid_of(2, &id) == -EXDEV);
        id = (struct procid){.pid = 1};
        CHECK(procid_open(&id) == -EXDEV);
    });
    assert_child(pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(a_child_of_the_same_number_is_a_child),
        journal_test(the_proc_of_another_namespace_is_refused),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
