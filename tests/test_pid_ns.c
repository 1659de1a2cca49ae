/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Pid namespaces within namespaces: whose a handle is, and whose numbers /proc shows (K4, K9, I3).
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

/* unshare --pid without --mount-proc, a container with its host's /proc: a number there is another
 * process. */
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

static pid_t child_of(pid_t pid)
{
    const char *children = harness_read(harness_format("/proc/%d/task/%d/children", pid, pid));
    assert_true(atoi(children) > 0);
    return atoi(children);
}

/* A supervisor in a container, whose pid there is another one than here: in a cgroup, it would be killed with
 * the rest. */
static void k4_a_supervisor_in_another_namespace_is_spared(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    pid_t pid = NAMESPACE_CHILD({
        struct rbxj_error error = {0};
        struct journal *j;
        CHECK(journal_open(&p.options, &j, &error) == 0);
        CHECK(begin_one(j, "inside", NULL, &error) == 0);
        atomic_store(&s->step, 1);
        for (;;)
            pause();
    });
    wait_for(s, 1);
    pid_t supervisor = child_of(pid);
    struct config config = {.state_dir = (char *)(uintptr_t)p.state};
    struct snapshot snapshot;
    struct rbxj_error e = {0};
    assert_ok(snapshot_read(p.state, p.runtime, &snapshot, &e), e);
    assert_int_equal(snapshot.len, 1);
    struct undo u = {.config = &config, .snapshot = &snapshot};
    struct finding f = {0};
    assert_int_equal(guard_kill(&u, supervisor, &f), -EBUSY);
    assert_non_null(strstr(f.error.message, "the supervisor of box inside"));
    f = (struct finding){0};
    assert_int_equal(guard_kill(&u, pid, &f), 0);
    assert_int_equal(kill(supervisor, SIGKILL), 0); /* its parent reaps it */
    (void)harness_wait(pid);
    assert_int_equal(guard_kill(&u, supervisor, &f), 0);
    snapshot_clear(&snapshot);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(a_child_of_the_same_number_is_a_child),
        journal_test(the_proc_of_another_namespace_is_refused),
        journal_test(k4_a_supervisor_in_another_namespace_is_spared),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
