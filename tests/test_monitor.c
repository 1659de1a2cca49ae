/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who waits for the deaths of supervisors (W1 to W5 of reaper/monitor.h; I3, K4, K8, K9, K21).
 */
#include "journal_fixture.h"

#include "reaper/monitor.h"

#include <sys/resource.h>

static struct monitor *monitor;
static struct monitor_view view;

static int monitor_teardown(void **state)
{
    monitor_close(monitor);
    monitor = NULL;
    return journal_teardown(state);
}
#define monitor_test(f) cmocka_unit_test_setup_teardown(f, harness_setup, monitor_teardown)

static void start(const struct place *p)
{
    struct rbxj_error e = {0};
    struct rbxj_options options = {.state_dir = p->state, .runtime_dir = p->runtime};
    assert_ok(monitor_open(&options, &monitor, &e), e);
}

static void look(void)
{
    struct rbxj_error e = {0};
    assert_ok(monitor_look(monitor, &view, &e), e);
}

/* Waits for one of these events, looks, and goes on until check() holds: a box may be seen before its
 * supervisor, and a commit is more than one write. */
static void until(int events, bool (*check)(void))
{
    int64_t deadline = now_monotonic_ns() + 30000000000;
    for (;;) {
        int r = monitor_wait(monitor, NULL, 0, 30000);
        assert_true(r >= 0);
        look();
        if ((r & events) && check())
            return;
        if (now_monotonic_ns() >= deadline)
            fail_msg("%zu boxes, %zu supervisors, %zu dead, %zu unwatched", view.boxes, view.supervisors,
                     view.dead_len, view.unwatched);
    }
}

static bool one_box(void)
{
    return view.boxes == 1;
}
static bool two_boxes(void)
{
    return view.boxes == 2;
}
static bool one_dead(void)
{
    return view.dead_len == 1;
}
static bool two_dead(void)
{
    return view.dead_len == 2;
}

static bool is_dead_box(const char *name)
{
    for (size_t i = 0; i < view.dead_len; i++)
        if (strcmp(view.dead[i].name, name) == 0)
            return true;
    return false;
}

/* A supervisor with boxes of those names, one on disk, the other not; NULL: none. */
static pid_t supervisor(const struct place *p, struct shared *s, const char *kept, const char *lost)
{
    int step = atomic_load(&s->step) + 1;
    pid_t pid = CHILD({
        struct rbxj_error e = {0};
        struct journal *j;
        CHECK_OK(journal_open(&p->options, &j, &e), e);
        if (kept)
            CHECK_OK(begin_one(j, kept, harness_format("%s/%s", p->kept, kept), &e), e);
        if (lost)
            CHECK_OK(begin_one(j, lost, harness_format("%s/%s", p->lost, lost), &e), e);
        atomic_store(&s->step, step);
        pause();
    });
    wait_for(s, step);
    return pid;
}

static void w2_begins_and_deaths_are_seen(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    start(&p); /* nothing was ever journaled, there is no runtime directory */
    look();
    assert_int_equal(view.boxes, 0);
    assert_false(path_exists(p.runtime));
    pid_t a = supervisor(&p, s, "a", NULL);
    until(MONITOR_COMMIT, one_box);
    pid_t b = supervisor(&p, s, NULL, "b");
    until(MONITOR_COMMIT, two_boxes);
    assert_int_equal(view.supervisors, 2);
    assert_int_equal(view.dead_len + view.unwatched, 0);
    harness_kill(a);
    until(MONITOR_DEATH, one_dead);
    assert_true(is_dead_box("a"));
    harness_kill(b);
    until(MONITOR_DEATH, two_dead);
    assert_int_equal(view.supervisors, 0);
}

/* One supervisor has one pidfd, however many boxes; what was begun and what died while nobody watched is
 * found. */
static void w2_what_is_there_at_the_start(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    (void)supervisor(&p, s, "a", "b");
    harness_kill(supervisor(&p, s, "c", "d"));
    start(&p);
    look();
    assert_int_equal(view.boxes, 4);
    assert_int_equal(view.supervisors, 1);
    assert_int_equal(view.dead_len, 2);
    assert_true(is_dead_box("c") && is_dead_box("d"));
}

/* A zombie is dead, a stopped one is not (K8). */
static void k8_zombie_and_stopped(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    pid_t a = supervisor(&p, s, "a", NULL);
    start(&p);
    look();
    assert_int_equal(kill(a, SIGSTOP), 0);
    assert_int_equal(monitor_wait(monitor, NULL, 0, 50) & MONITOR_DEATH, 0);
    look();
    assert_int_equal(view.dead_len, 0);
    assert_int_equal(kill(a, SIGKILL), 0); /* and not reaped */
    until(MONITOR_DEATH, one_dead);
}

/* Nobody is waited for who has no box any more. */
static void w2_a_box_that_ended(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct shared *s = shared_make();
    pid_t a = CHILD({
        struct rbxj_error error = {0};
        struct journal *j = place_open(&p);
        struct box box = must_begin(j, "a", NULL);
        atomic_store(&s->step, 1);
        while (atomic_load(&s->step) < 2)
            (void)usleep(500);
        CHECK_OK(journal_end(j, box.incarnation, &error), error);
        atomic_store(&s->step, 3);
        pause();
    });
    wait_for(s, 1);
    start(&p);
    look();
    assert_int_equal(view.supervisors, 1);
    atomic_store(&s->step, 2);
    wait_for(s, 3);
    assert_ok(monitor_look(monitor, &view, &e), e);
    assert_int_equal(view.boxes + view.supervisors, 0);
    harness_kill(a);
    assert_int_equal(monitor_wait(monitor, NULL, 0, 50) & MONITOR_DEATH, 0);
}

/* K4: the outer box's turn comes when the inner one has ended, without anybody's death. */
static void k4_outer_box_lives_as_long_as_the_inner_one(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    pid_t outer = supervisor(&p, s, "outer", NULL);
    struct journal *j = place_open(&p);
    struct snapshot snapshot;
    struct rbxj_error e = {0};
    assert_ok(journal_snapshot(j, &snapshot, &e), e);
    struct box inner = {.parent = find_box(&snapshot, "outer")->box.incarnation};
    snapshot_clear(&snapshot);
    assert_ok(begin(j, &inner, "inner", NULL, 0, &e), e);
    place_close();
    start(&p);
    look();
    harness_kill(outer);
    assert_true(monitor_wait(monitor, NULL, 0, 30000) & MONITOR_DEATH);
    look();
    assert_int_equal(view.boxes, 2);
    assert_int_equal(view.dead_len, 0);
    j = place_open(&p);
    assert_ok(journal_end(j, inner.incarnation, &e), e);
    place_close();
    until(MONITOR_COMMIT, one_dead);
    assert_true(is_dead_box("outer"));
}

/* K21: the runtime directory goes while somebody has it open, and comes again. W1: nobody is told that the
 * journals are in use. */
static void k21_runtime_directory_made_anew(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    pid_t a = supervisor(&p, s, "a", NULL);
    start(&p);
    look();
    _cleanup_close_ int held = open(p.runtime, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(held >= 0);
    assert_int_equal(system(harness_format("rm -r %s", p.runtime)), 0);
    look(); /* what is on disk is known */
    assert_int_equal(view.boxes, 1);
    assert_int_equal(view.supervisors, 1);
    harness_kill(a);
    until(MONITOR_DEATH, one_dead);
    (void)supervisor(&p, s, NULL, "b");
    until(MONITOR_COMMIT, two_boxes);
    (void)supervisor(&p, s, NULL, "c"); /* the new folder is the one that is looked at */
    int64_t deadline = now_monotonic_ns() + 30000000000;
    while (view.boxes < 3 && now_monotonic_ns() < deadline) {
        assert_true(monitor_wait(monitor, NULL, 0, 30000) & MONITOR_COMMIT);
        look();
    }
    assert_int_equal(view.boxes, 3);
    /* the folder alone */
    assert_int_equal(rename(place_folder(&p), harness_format("%s/aside", harness_tmpfs())), 0);
    look();
    assert_int_equal(rename(harness_format("%s/aside", harness_tmpfs()), place_folder(&p)), 0);
    assert_true(monitor_wait(monitor, NULL, 0, 30000) & MONITOR_COMMIT);
}

/* The runtime directory, and what it lies in, come later. */
static void k21_nothing_above_is_there_yet(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    const char *above = harness_format("%s/x", harness_tmpfs());
    p.runtime = p.options.runtime_dir = harness_format("%s/y/run", above);
    start(&p);
    look();
    harness_mkdir(above);
    assert_true(monitor_wait(monitor, NULL, 0, 30000) & MONITOR_COMMIT);
    look();
    harness_mkdir(harness_format("%s/y", above));
    (void)supervisor(&p, s, NULL, "a");
    until(MONITOR_COMMIT, one_box);
    /* what else comes beside it is nothing to look at */
    while (monitor_wait(monitor, NULL, 0, 100))
        look();
    harness_write(harness_format("%s/y/other", above), "");
    assert_int_equal(monitor_wait(monitor, NULL, 0, 100), 0);
}

/* W5 */
static void w5_nothing_happens(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    harness_kill(supervisor(&p, s, "dead", NULL)); /* who is dead is no news for ever */
    (void)supervisor(&p, s, "a", "b");
    start(&p);
    look();
    while (monitor_wait(monitor, NULL, 0, 100))
        look();
    assert_int_equal(view.dead_len, 1);
    assert_int_equal(monitor_wait(monitor, NULL, 0, 300), 0);
}

/* ---- who can't be waited for ---- */

static void k9_supervisor_in_an_inner_pid_namespace(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    pid_t outer = NAMESPACE_CHILD({
        struct rbxj_error e = {0};
        CHECK_OK(begin_one(place_open(&p), "a", NULL, &e), e);
        CHECK_OK(begin_one(place_journal, "b", NULL, &e), e);
        atomic_store(&s->step, 1);
        pause();
    });
    wait_for(s, 1);
    start(&p);
    look();
    assert_int_equal(view.boxes, 2);
    assert_int_equal(view.supervisors, 2); /* one for each box */
    assert_int_equal(view.unwatched, 0);
    harness_kill(outer);
    until(MONITOR_DEATH, two_dead);
}

/* What a host's supervisor is to a container: it is asked for again and again. */
static void k9_supervisor_that_is_not_visible(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    pid_t a = supervisor(&p, s, "a", NULL);
    int step = atomic_load(&s->step);
    pid_t inside = NAMESPACE_CHILD({
        struct rbxj_error e = {0};
        struct rbxj_options options = {.state_dir = p.state, .runtime_dir = p.runtime};
        CHECK_OK(monitor_open(&options, &monitor, &e), e);
        CHECK_OK(monitor_look(monitor, &view, &e), e);
        CHECK(view.boxes == 1 && view.supervisors == 0 && view.unwatched == 1 && view.dead_len == 0);
        CHECK(view.wanting == 0);
        atomic_store(&s->step, step + 1);
        while (atomic_load(&s->step) < step + 2)
            (void)usleep(500);
        CHECK_OK(monitor_look(monitor, &view, &e), e);
        CHECK(view.unwatched == 0 && view.dead_len == 1);
    });
    wait_for(s, step + 1);
    harness_kill(a);
    atomic_store(&s->step, step + 2);
    assert_child(inside);
}

/* Its start time says nothing here, its lock does. */
static void k9_supervisor_in_another_time_namespace(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    if (!path_exists("/proc/self/timens_offsets"))
        harness_skip("no time namespaces");
    pid_t outer = CHILD({
        CHECK(unshare(CLONE_NEWTIME) == 0);
        CHECK(fd_write_file(AT_FDCWD, "/proc/self/timens_offsets", "boottime 86400 0\n") == 0);
        pid_t inner = fork();
        if (inner == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            struct rbxj_error e = {0};
            CHECK_OK(begin_one(place_open(&p), "a", NULL, &e), e);
            atomic_store(&s->step, 1);
            pause();
        }
        CHECK(waitpid(inner, NULL, 0) == inner);
    });
    wait_for(s, 1);
    start(&p);
    look();
    assert_int_equal(view.boxes, 1);
    assert_int_equal(view.supervisors, 1);
    assert_int_equal(view.dead_len + view.unwatched, 0);
    harness_kill(outer);
    until(MONITOR_DEATH, one_dead);
}

/* Said, and never taken for death; seen as soon as there are descriptors. */
static void want_of_descriptors_is_not_lost(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    struct rlimit before, few;
    pid_t a = supervisor(&p, s, "a", "b");
    start(&p);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = (struct rlimit){.rlim_cur = 60, .rlim_max = before.rlim_max}; /* all of it is kept for others */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    look();
    assert_int_equal(view.supervisors + view.dead_len, 0);
    assert_int_equal(view.unwatched, 1);
    assert_int_equal(view.wanting, EMFILE);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    look();
    assert_int_equal(view.supervisors, 1);
    assert_int_equal(view.unwatched + (size_t)view.wanting, 0);
    harness_kill(a);
    until(MONITOR_DEATH, two_dead);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        monitor_test(w2_begins_and_deaths_are_seen),
        monitor_test(w2_what_is_there_at_the_start),
        monitor_test(k8_zombie_and_stopped),
        monitor_test(w2_a_box_that_ended),
        monitor_test(k4_outer_box_lives_as_long_as_the_inner_one),
        monitor_test(k21_runtime_directory_made_anew),
        monitor_test(k21_nothing_above_is_there_yet),
        monitor_test(w5_nothing_happens),
        monitor_test(k9_supervisor_in_an_inner_pid_namespace),
        monitor_test(k9_supervisor_that_is_not_visible),
        monitor_test(k9_supervisor_in_another_time_namespace),
        monitor_test(want_of_descriptors_is_not_lost),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
