/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who lives (K8, K9), who holds a flock (K7), and what an attempt leaves behind (K34).
 */
#include "journal_fixture.h"
#include "reaper/flocks.h"

#include <sys/file.h>
#include <sys/resource.h>

static enum liveness look(const struct place *p, struct journal *j, const char *name)
{
    struct rbxj_error e = {0};
    struct snapshot s;
    assert_ok(snapshot_read(p->state, p->runtime, &s, &e), e);
    const struct snapshot_box *sb = find_box(&s, name);
    assert_non_null(sb);
    enum liveness live = box_liveness(j, p->state, &sb->box);
    snapshot_clear(&s);
    return live;
}

static void k8_box_lives_as_long_as_its_supervisor(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    pid_t pid = CHILD({
        struct rbxj_error e;
        CHECK(begin_one(place_open(&p), "a", harness_format("%s/a", p.kept), &e) == 0);
        atomic_store(&s->step, 1);
        pause();
    });
    wait_for(s, 1);
    assert_int_equal(look(&p, NULL, "a"), LIVE_ALIVE);
    struct journal *j = place_open(&p);
    struct rbxj_error e;
    assert_int_equal(look(&p, j, "a"), LIVE_ALIVE);
    assert_refused(begin_one(j, "a", NULL, &e), e, RBXJ_E_BOX_LIVE, harness_format("held by pid %d", pid));
    /* stopped is not dead, a zombie is */
    assert_int_equal(kill(pid, SIGSTOP), 0);
    assert_int_equal(look(&p, j, "a"), LIVE_ALIVE);
    assert_int_equal(kill(pid, SIGKILL), 0);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(look(&p, j, "a"), LIVE_DEAD);
    assert_refused(begin_one(j, "a", NULL, &e), e, RBXJ_E_BOX_STALE, "dead supervisor");
    (void)must_begin(j, "own", NULL);
    assert_int_equal(look(&p, j, "own"), LIVE_ALIVE);
}

static void k9_lock_decides_across_pid_namespaces(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    struct journal *j = place_open(&p);
    struct journal_options other = p.options;
    other.state_dir = harness_format("%s/state2", harness_disk());
    other.runtime_dir = harness_format("%s/run2", harness_tmpfs());
    harness_mkdir(other.state_dir);
    pid_t pid = NAMESPACE_CHILD({
        struct rbxj_error e;
        struct journal *own;
        CHECK(getpid() == 1);
        CHECK(journal_open(&p.options, &own, &e) == 0);
        CHECK(begin_one(own, "a", harness_format("%s/a", p.kept), &e) == 0);
        CHECK(begin_one(own, "b", NULL, &e) == 0);
        atomic_store(&s->step, 1);
        while (atomic_load(&s->step) < 2)
            (void)usleep(500);
        journal_close(own); /* it lives on, and so do its boxes */
        CHECK(journal_open(&p.options, &own, &e) == 0);
        CHECK(begin_one(own, "c", NULL, &e) == 0);
        journal_close(own);
        CHECK(journal_open(&other, &own, &e) == 0); /* and of another state directory, too */
        CHECK(begin_one(own, "e", NULL, &e) == 0);
        journal_close(own);
        CHECK(look(&p, NULL, "d") == LIVE_ALIVE); /* it looks at another's, and keeps its own */
        atomic_store(&s->step, 3);
        pause();
    });
    wait_for(s, 1);
    /* its pid, 1, is alive here as well: that says nothing */
    assert_int_equal(look(&p, j, "a"), LIVE_ALIVE);
    assert_int_equal(look(&p, j, "b"), LIVE_ALIVE);
    place_close();
    assert_int_equal(look(&p, NULL, "a"), LIVE_ALIVE);
    j = place_open(&p);
    struct rbxj_error e;
    assert_refused(begin_one(j, "a", NULL, &e), e, RBXJ_E_BOX_LIVE, "");
    (void)must_begin(j, "d", NULL);
    atomic_store(&s->step, 2);
    wait_for(s, 3);
    assert_int_equal(look(&p, j, "a"), LIVE_ALIVE);
    assert_int_equal(look(&p, j, "c"), LIVE_ALIVE);
    harness_kill(pid);
    for (int i = 0; i < 2000 && look(&p, j, "a") != LIVE_DEAD; i++)
        (void)usleep(1000); /* the inner one dies by its parent's death */
    assert_int_equal(look(&p, j, "a"), LIVE_DEAD);
    assert_int_equal(look(&p, j, "c"), LIVE_DEAD);
    assert_refused(begin_one(j, "a", NULL, &e), e, RBXJ_E_BOX_STALE, "");
}

/* A box begun for another process has no lock: from another namespace it is unknown, never dead. */
static void k9_without_a_lock_it_is_unknown(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    struct rbxj_error e = {0};
    pid_t supervisor = harness_spawn(NULL);
    pid_t hook = CHILD({
        struct box new = {0};
        struct rbxj_error error = {0};
        CHECK(procid_of(supervisor, &new.supervisor) == 0);
        CHECK(begin(place_open(&p), &new, "a", NULL, 0, &error) == 0);
        atomic_store(&s->step, 1);
        pause();
    });
    wait_for(s, 1);
    struct snapshot snapshot;
    assert_ok(snapshot_read(p.state, p.runtime, &snapshot, &e), e);
    struct box box = snapshot.boxes[0].box;
    snapshot_clear(&snapshot);
    assert_false(box.flags & BOX_OWNER_LOCK);
    assert_int_equal(look(&p, NULL, "a"), LIVE_ALIVE);
    pid_t inside = NAMESPACE_CHILD({
        struct box copy = box;
        CHECK(box_liveness(NULL, p.state, &copy) == LIVE_UNKNOWN);
        copy.flags |= BOX_OWNER_LOCK; /* it would have had one */
        CHECK(box_liveness(NULL, p.state, &copy) == LIVE_DEAD);
    });
    assert_child(inside);
    /* a container in which nobody has the journals open: what is of another pid namespace is of an earlier
     * life */
    harness_kill(hook);
    inside = NAMESPACE_CHILD(CHECK(box_liveness(NULL, p.state, &box) == LIVE_DEAD));
    assert_child(inside);
    /* the host has no earlier life */
    struct box foreign = box;
    foreign.supervisor.pid_ns++;
    struct stat st;
    assert_int_equal(stat("/proc/self/ns/pid", &st), 0);
    assert_int_equal(box_liveness(NULL, p.state, &foreign),
                     st.st_ino == 0xEFFFFFFC ? LIVE_UNKNOWN : LIVE_DEAD);
    harness_kill(supervisor);
    assert_int_equal(look(&p, NULL, "a"), LIVE_DEAD);
}

static void k34_attempts_are_remembered_until_they_end(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct snapshot s;
    struct journal *j = place_open(&p);
    struct box box = must_begin(j, "a", NULL);
    assert_ok(journal_claim(j, box.incarnation, &e), e);
    for (int i = 0; i < 2; i++) { /* two reapers in a row die of it */
        journal_touch(j, 3, box.incarnation);
        assert_ok(journal_count_attempts(j, &e), e);
    }
    assert_ok(journal_count_attempts(j, &e), e);
    place_close(); /* the reaper died */
    j = place_open(&p);
    assert_ok(journal_snapshot(j, &s, &e), e);
    assert_int_equal(s.boxes[0].attempts, 2);
    snapshot_clear(&s);
    assert_ok(journal_settle(j, box.incarnation, NULL, 0, SETTLE_UNCLAIM, &e), e);
    assert_ok(journal_snapshot(j, &s, &e), e);
    assert_int_equal(s.boxes[0].attempts, 0);
    assert_int_equal(s.boxes[0].claimer.pid, 0);
    snapshot_clear(&s);
    assert_refused(journal_claim(j, box.incarnation + 1, &e), e, RBXJ_E_NO_SUCH_BOX, "");
}

static void k32_writing_a_record_again_replaces_it(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct snapshot_box sb;
    struct journal *j = place_open(&p);
    struct box box = must_begin(j, "a", harness_format("%s/a", p.kept));
    for (uint32_t i = 1; i <= 3; i++) {
        assert_ok(journal_get(j, "a", &sb, &e), e);
        assert_int_equal(sb.len, 1);
        assert_int_equal(sb.records[0].seq, 1);
        assert_int_equal(sb.records[0].failures, i - 1);
        sb.records[0].failures = i;
        sb.records[0].flags |= REC_PENDING | REC_DROPPED; /* never stored */
        assert_ok(journal_update(j, &sb.records[0], i == 3, &e), e);
        snapshot_box_clear(&sb);
    }
    /* what others changed in the header stays */
    assert_int_equal(intend(j, &box, RBXJ_LOCK, harness_format("%s/l", p.kept), &e), 0);
    box.failures = 7;
    assert_ok(journal_update_box(j, &box, &e), e);
    assert_ok(journal_get(j, "a", &sb, &e), e);
    assert_int_equal(sb.box.failures, 7);
    assert_int_equal(sb.box.next_seq, 3);
    assert_int_equal(sb.records[0].flags & (REC_PENDING | REC_DROPPED), 0);
    snapshot_box_clear(&sb);
    struct record gone = intent(RBXJ_LOCK, harness_format("%s/x", p.kept));
    gone.incarnation = box.incarnation;
    gone.seq = 9;
    assert_refused(journal_update(j, &gone, false, &e), e, RBXJ_E_NO_SUCH_BOX, "seq 9");
    record_clear(&gone);
    place_close();
    assert_int_equal(disk_look(&p).records, 2);
}

/* Without a descriptor for its pidfd nobody knows: that is neither "live" nor "stale". */
static void k8_want_of_descriptors_is_no_answer(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    struct rbxj_error e;
    struct rlimit before, none;
    pid_t pid = CHILD({
        struct rbxj_error error;
        CHECK(begin_one(place_open(&p), "a", NULL, &error) == 0);
        atomic_store(&s->step, 1);
        pause();
    });
    wait_for(s, 1);
    struct journal *j = place_open(&p);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int r = begin_one(j, "a", NULL, &e);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_refused(r, e, RBXJ_E_IO, "Too many open files");
    assert_refused(begin_one(j, "a", NULL, &e), e, RBXJ_E_BOX_LIVE, "is held by");
    harness_kill(pid);
    assert_refused(begin_one(j, "a", NULL, &e), e, RBXJ_E_BOX_STALE, "dead supervisor");
}

/* /proc/locks does not show it there (since 4.9): who took it is dead. */
static void k7_flock_of_the_dead_in_a_pid_namespace(void **state)
{
    (void)state;
    harness_need_root();
    const char *path = harness_format("%s/lock", harness_disk());
    harness_write(path, "");
    assert_child(NAMESPACE_CHILD({
        struct stat st;
        int held[2];
        CHECK(stat(path, &st) == 0 && flocks_is_held(st.st_dev, st.st_ino) == 0);
        CHECK(pipe2(held, 0) == 0);
        pid_t taker = fork();
        if (taker == 0) {
            int fd = open(path, O_RDWR);
            CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
            pid_t keeper = fork();
            if (keeper == 0)
                for (;;)
                    pause();
            CHECK(keeper > 0 && write(held[1], &keeper, sizeof(keeper)) == sizeof(keeper));
            _exit(0);
        }
        pid_t keeper;
        CHECK(read(held[0], &keeper, sizeof(keeper)) == sizeof(keeper) && waitpid(taker, NULL, 0) == taker);
        CHECK(flocks_is_held(st.st_dev, st.st_ino) == 1);
        CHECK(flocks_is_held(st.st_dev + 1, st.st_ino) == 0);
        CHECK(kill(keeper, SIGKILL) == 0 && waitpid(keeper, NULL, 0) == keeper);
        CHECK(flocks_is_held(st.st_dev, st.st_ino) == 0);
    }));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k7_flock_of_the_dead_in_a_pid_namespace),
        journal_test(k8_box_lives_as_long_as_its_supervisor),
        journal_test(k9_lock_decides_across_pid_namespaces),
        journal_test(k9_without_a_lock_it_is_unknown),
        journal_test(k34_attempts_are_remembered_until_they_end),
        journal_test(k32_writing_a_record_again_replaces_it),
        journal_test(k8_want_of_descriptors_is_no_answer),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
