/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The gate before LMDB's mutex: bounded, robust, fair (K25); and what always fits (K26).
 */
#include "journal_fixture.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <time.h>

static bool time_stands; /* the wall clock does: no elder's turn comes to its end */

int clock_gettime(clockid_t clock, struct timespec *ret)
{
    if (time_stands && clock == CLOCK_REALTIME) {
        *ret = (struct timespec){.tv_sec = 1000};
        return 0;
    }
    return (int)syscall(SYS_clock_gettime, clock, ret);
}

static int teardown(void **state)
{
    time_stands = false;
    return journal_teardown(state);
}

/* Gates of no journal, which children share with the test. */
static struct gate_page *gates_make(void)
{
    static struct gate_page *page;
    if (!page)
        page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(page != MAP_FAILED);
    assert_int_equal(gate_page_init(page), 0);
    return page;
}

/* A child that stops (or whatever it is told) while it holds a gate. */
static pid_t hold(const struct place *p, bool disk, struct shared *s)
{
    pid_t pid = CHILD({
        struct journal *j = place_open(p);
        CHECK(gate_lock(disk ? &j->gates->disk : &j->gates->boot, "test", 1000000000, NULL) == 0);
        atomic_store(&s->step, 1);
        (void)raise(SIGSTOP);
        pause();
    });
    int status;
    wait_for(s, 1);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    return pid;
}

static void k25_stopped_holder_is_named_within_the_timeout(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    p.options.gate_timeout_ns = 300000000;
    struct rbxj_error e;
    for (int disk = 0; disk < 2; disk++) {
        struct shared *s = shared_make();
        pid_t holder = hold(&p, disk, s);
        struct journal *j = place_open(&p);
        int64_t start = now_monotonic_ns();
        assert_refused(begin_one(j, "a", harness_format("%s/a", p.kept), &e), e, RBXJ_E_JOURNAL_BUSY,
                       harness_format("held by pid %d", holder));
        int64_t took = now_monotonic_ns() - start;
        assert_non_null(strstr(e.message, "state T"));
        assert_in_range(took, 300000000, 3000000000);
        harness_kill(holder);
        /* nothing of the failed one is left, and the next proceeds at once */
        start = now_monotonic_ns();
        assert_int_equal(begin_one(j, "a", harness_format("%s/a", p.kept), &e), 0);
        assert_true(now_monotonic_ns() - start < 2000000000);
        struct snapshot_box sb;
        assert_ok(journal_get(j, "a", &sb, &e), e);
        uint64_t incarnation = sb.box.incarnation;
        snapshot_box_clear(&sb);
        assert_ok(journal_drop(j, incarnation, 1, &e), e);
        assert_ok(journal_end(j, incarnation, &e), e);
        place_close();
    }
}

static void k25_killed_holder_lets_the_waiter_in_at_once(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    struct rbxj_error e;
    pid_t holder = hold(&p, false, s);
    pid_t killer = CHILD({
        (void)usleep(200000);
        (void)kill(holder, SIGKILL);
    });
    struct journal *j = place_open(&p);
    int64_t start = now_monotonic_ns();
    assert_int_equal(begin_one(j, "a", NULL, &e), 0);
    int64_t took = now_monotonic_ns() - start;
    assert_true(took < 5000000000); /* its timeout is 10 s */
    assert_child(killer);
    assert_int_equal(begin_one(j, "b", NULL, &e), 0); /* consistent again */
}

/* Killed inside LMDB's transaction, too: what it wrote is not there. */
static void k25_killed_inside_a_transaction_leaves_nothing(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    struct rbxj_error e;
    pid_t pid = CHILD({
        struct journal *j = place_open(&p);
        struct write w;
        struct box box = {.name = "half", .incarnation = 1};
        CHECK(write_begin(j, &w, NULL) == 0);
        CHECK(write_put(&w, &box, NULL, false) == MDB_SUCCESS);
        atomic_store(&s->step, 1);
        pause();
    });
    wait_for(s, 1);
    harness_kill(pid);
    struct journal *j = place_open(&p);
    assert_int_equal(begin_one(j, "a", NULL, &e), 0);
    struct snapshot snapshot;
    assert_ok(journal_snapshot(j, &snapshot, &e), e);
    assert_int_equal(snapshot.len, 1);
    assert_string_equal(snapshot.boxes[0].box.name, "a");
    snapshot_clear(&snapshot);
}

/* A waiter in a time namespace whose clock is ahead of ours by days: its turn ends with its death all the
 * same. */
static void k25_k9_a_dead_elder_of_another_time_namespace_keeps_nobody_out(void **state)
{
    (void)state;
    harness_need_root();
    struct shared *s = shared_make();
    static _Atomic uint64_t done;
    struct gate_page *page = gates_make();
    assert_int_equal(gate_lock(&page->disk, "test", 1000000000, NULL), 0);
    pid_t outer = CHILD({
        if (unshare(CLONE_NEWTIME) < 0)
            _exit(2);
        harness_write("/proc/self/timens_offsets", "monotonic 1000000 0\n");
        pid_t inner = fork();
        if (inner == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            (void)gate_lock(&page->disk, "test", 60000000000, NULL);
            _exit(1);
        }
        atomic_store(&s->value[0], (uint64_t)inner);
        _exit(waitpid(inner, NULL, 0) == inner ? 0 : 1);
    });
    int64_t deadline = now_monotonic_ns() + 30000000000;
    siginfo_t info = {0};
    while (atomic_load(&page->disk.elder) == 0 && now_monotonic_ns() < deadline && info.si_pid == 0) {
        (void)waitid(P_PID, (id_t)outer, &info, WEXITED | WNOHANG | WNOWAIT);
        (void)usleep(1000);
    }
    if (info.si_pid)
        harness_skip("there are no time namespaces");
    assert_true(atomic_load(&page->disk.elder) != 0);
    assert_int_equal(kill((pid_t)atomic_load(&s->value[0]), SIGKILL), 0);
    assert_child(outer);
    assert_true(atomic_load(&page->disk.elder) != 0);
    gate_unlock(&page->disk);
    assert_int_equal(gate_lock_unless(&page->disk, &done, 1, "test", 10000000000, NULL), 1);
    gate_unlock(&page->disk);
}

/* Eight that take it all the time, until each of them has had it often. */
static void k25_nobody_is_overtaken_without_bound(void **state)
{
    (void)state;
    struct gate *gate = &gates_make()->boot;
    struct shared *s = shared_make();
    enum { N = 8, TURNS = 100 };
    pid_t pids[N];
    for (int i = 0; i < N; i++)
        pids[i] = CHILD({
            for (int turn = 1; atomic_load(&s->step) < N; turn++) {
                CHECK(gate_lock(gate, "test", 30000000000, NULL) == 0);
                CHECK(atomic_exchange(&s->stop, 1) == 0); /* it is alone */
                (void)usleep(20);
                atomic_fetch_add(&s->step, turn == TURNS);
                atomic_store(&s->stop, 0);
                gate_unlock(gate);
            }
        });
    for (int i = 0; i < N; i++)
        assert_child(pids[i]);
}

/* Until it has become the elder, whose turn has begun. */
static void wait_for_elder(struct gate *gate, pid_t pid)
{
    for (int i = 0; i < 30000; i++) {
        if (atomic_load(&gate->elder) == (uint32_t)pid && atomic_load(&gate->elder_until_ns) != 0)
            return;
        (void)usleep(1000);
    }
    fail_msg("it does not become the elder");
}

/* Until that child sleeps in wait for the elder, or for the gate to be passed on; or has got in. */
static void wait_for_comer(const struct gate *gate, pid_t pid, const struct shared *s)
{
    const char *call = harness_format("/proc/%d/syscall", pid);
    for (int i = 0; i < 30000 && atomic_load(&s->step) == 0; i++) {
        long number = -1;
        void *at = NULL;
        (void)sscanf(harness_read(call), "%ld %p", &number, &at);
        if (number == SYS_futex && (at == (void *)&gate->elder || at == (void *)&gate->turn))
            return;
        (void)usleep(1000);
    }
    assert_int_not_equal(atomic_load(&s->step), 0);
}

/* Waits for its turn, and says whose it was: step counts them. */
static pid_t come(struct gate *gate, bool unless, struct shared *s)
{
    return CHILD({
        CHECK(unless ? gate_lock_unless(gate, &s->value[0], 1, "test", 60000000000, NULL) == 1
                     : gate_lock(gate, "test", 60000000000, NULL) == 0);
        atomic_store(&s->value[1 + atomic_fetch_add(&s->step, 1)], (uint64_t)getpid());
        gate_unlock(gate);
    });
}

/* A stream of short holders, as the worst machine runs them: whoever waits is woken too late each time. Here
 * it does not run at all while the gate stands open and others come to it. */
static void k25_later_comers_overtake_no_elder(void **state)
{
    (void)state;
    struct gate *gate = &gates_make()->disk;
    struct shared *s = shared_make();
    enum { LATER = 4 };
    pid_t later[LATER];
    int status;
    time_stands = true;
    assert_int_equal(gate_lock(gate, "test", 1000000000, NULL), 0);
    pid_t elder = come(gate, false, s);
    wait_for_elder(gate, elder);
    assert_int_equal(kill(elder, SIGSTOP), 0);
    assert_int_equal(waitpid(elder, &status, WUNTRACED), elder);
    assert_true(WIFSTOPPED(status));
    gate_unlock(gate);
    for (int i = 0; i < LATER; i++) {
        later[i] = come(gate, i % 2, s);
        wait_for_comer(gate, later[i], s);
    }
    assert_int_equal(atomic_load(&s->step), 0);
    assert_int_equal(kill(elder, SIGCONT), 0);
    assert_child(elder);
    for (int i = 0; i < LATER; i++)
        assert_child(later[i]);
    assert_int_equal(atomic_load(&s->step), 1 + LATER);
    assert_int_equal(atomic_load(&s->value[1]), elder);
}

/* Ten boxes cost one timeout, not ten; and as soon as anybody else has it, it is waited for again. */
static void k25_one_holding_is_waited_for_once(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    const int64_t timeout = 1000000000;
    for (int disk = 0; disk < 2; disk++) {
        _Atomic uint64_t never = 0;
        for (int round = 0; round < 2; round++) {
            struct shared *s = shared_make();
            pid_t holder = hold(&p, disk, s);
            struct journal *j = place_open(&p);
            int64_t start = now_monotonic_ns(), first = 0;
            for (int i = 0; i < 30; i++) {
                struct rbxj_error e = {0};
                int r = disk ? gate_lock_unless(&j->gates->disk, &never, 1, "test", timeout, &e)
                             : gate_lock(&j->gates->boot, "test", timeout, &e);
                assert_refused(r, e, RBXJ_E_JOURNAL_BUSY, harness_format("held by pid %d", holder));
                first = first ? first : now_monotonic_ns() - start;
            }
            assert_true(first >= timeout);
            assert_true(now_monotonic_ns() - start < 15 * timeout);
            harness_kill(holder);
            assert_int_equal(gate_lock(disk ? &j->gates->disk : &j->gates->boot, "test", timeout, NULL), 0);
            gate_unlock(disk ? &j->gates->disk : &j->gates->boot);
            place_close();
        }
    }
}

/* ---- what always fits (K26) ---- */

/* Fills the journal with intents until it refuses one; how many it took. */
static size_t fill_up(const struct place *p, struct journal *j, const struct box *box, struct rbxj_error *e,
                      int *r)
{
    size_t n = 0;
    do {
        *r = intend(j, box, RBXJ_TMPDIR, harness_format("%s/%zu/%0200zu", p->lost, n, n), e);
        n += *r == 0;
    } while (*r == 0 && n < 4000);
    return n;
}

static void empty_again(struct journal *j, const struct box *box, size_t n)
{
    struct rbxj_error e = {0};
    for (uint32_t seq = 1; seq <= n; seq++)
        assert_ok(journal_drop(j, box->incarnation, seq, &e), e);
    assert_ok(journal_end(j, box->incarnation, &e), e);
    assert_ok(journal_flush(j, &e), e);
}

static void k26_full_map_refuses_intents_and_takes_every_end(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    p.options.map_size = 2 << 20;
    struct rbxj_error e;
    int r;
    struct journal *j = place_open(&p);
    struct box box = must_begin(j, "a", NULL);
    size_t n = fill_up(&p, j, &box, &e, &r);
    assert_refused(r, e, RBXJ_E_JOURNAL_FULL, "raise map_size");
    assert_true(n > 100);
    assert_refused(begin_one(j, "b", NULL, &e), e, RBXJ_E_JOURNAL_FULL, "");
    /* evidence, too */
    struct record record = intent(RBXJ_TMPDIR, harness_format("%s/1", p.lost));
    record.incarnation = box.incarnation;
    record.seq = 1;
    e = (struct rbxj_error){0};
    assert_ok(journal_update(j, &record, false, &e), e);
    record_clear(&record);
    empty_again(j, &box, n);
    /* the high-water mark stays, the pages are free again */
    assert_int_equal(begin_one(j, "b", NULL, &e), 0);
}

static void k26_map_is_raised_only_when_nobody_else_is_there(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make(), more = p;
    struct shared *s = shared_make();
    MDB_envinfo info;
    p.options.map_size = 2 << 20;
    more.options.map_size = 8 << 20;
    pid_t other = CHILD({
        (void)place_open(&p);
        atomic_store(&s->step, 1);
        pause();
    });
    wait_for(s, 1);
    struct journal *j = place_open(&more);
    assert_int_equal(mdb_env_info(j->boot.env, &info), 0);
    assert_int_equal(info.me_mapsize, 2 << 20);
    place_close();
    harness_kill(other);
    for (int i = 0; i < 2; i++) {
        j = place_open(i ? &p : &more); /* a smaller one later does not shrink it */
        assert_int_equal(mdb_env_info(j->boot.env, &info), 0);
        assert_int_equal(info.me_mapsize, 8 << 20);
        assert_int_equal(mdb_env_info(j->disk.env, &info), 0);
        assert_int_equal(info.me_mapsize, 8 << 20);
        place_close();
    }
}

static void k26_full_runtime_directory_takes_every_end(void **state)
{
    (void)state;
    harness_need_root();
    const char *small = harness_format("%s/small", harness_disk());
    harness_mkdir(small);
    assert_int_equal(mount("rbxj-test", small, "tmpfs", 0, "mode=0700,size=2m"), 0);
    struct place p = place_in(harness_disk(), small);
    struct rbxj_error e;
    int r;
    struct journal *j = place_open(&p);
    struct box box = must_begin(j, "a", NULL);
    assert_int_not_equal(system(harness_format("head -c 8m /dev/zero >%s/rest 2>/dev/null", small)), 0);
    size_t n = fill_up(&p, j, &box, &e, &r);
    assert_refused(r, e, RBXJ_E_DISK_FULL, "no room to grow");
    assert_true(n > 50);
    empty_again(j, &box, n);
}

static void k26_dead_reader_is_cleared_before_a_full_map_is_believed(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    p.options.map_size = 2 << 20;
    struct shared *s = shared_make();
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    struct box box = must_begin(j, "a", harness_format("%s/a", p.lost));
    pid_t reader = CHILD({
        MDB_txn *txn;
        struct journal *own = place_open(&p);
        CHECK(mdb_txn_begin(own->boot.env, NULL, MDB_RDONLY, &txn) == 0);
        atomic_store(&s->step, 1);
        pause();
    });
    wait_for(s, 1);
    harness_kill(reader); /* with its slot taken: no page is used again */
    struct record record = intent(RBXJ_TMPDIR, harness_format("%s/a", p.lost));
    record.incarnation = box.incarnation;
    record.seq = 1;
    for (int i = 0; i < 100; i++)
        assert_ok(journal_update(j, &record, false, &e), e);
    record_clear(&record);
    for (int i = 0; i < 600; i++) {
        int r = intend(j, &box, RBXJ_LOCK, harness_format("%s/l", p.lost), &e);
        if (r < 0)
            fail_msg("intent %d: %s", i, e.message);
        assert_ok(journal_drop(j, box.incarnation, (uint32_t)i + 2, &e), e);
    }
    MDB_envinfo info;
    assert_int_equal(mdb_env_info(j->boot.env, &info), 0);
    assert_true((info.me_last_pgno + 1) * 4096 < p.options.map_size * 7 / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k25_stopped_holder_is_named_within_the_timeout),
        journal_test(k25_killed_holder_lets_the_waiter_in_at_once),
        journal_test(k25_killed_inside_a_transaction_leaves_nothing),
        journal_test(k25_k9_a_dead_elder_of_another_time_namespace_keeps_nobody_out),
        journal_test(k25_nobody_is_overtaken_without_bound),
        cmocka_unit_test_setup_teardown(k25_later_comers_overtake_no_elder, harness_setup, teardown),
        journal_test(k25_one_holding_is_waited_for_once),
        journal_test(k26_full_map_refuses_intents_and_takes_every_end),
        journal_test(k26_map_is_raised_only_when_nobody_else_is_there),
        journal_test(k26_full_runtime_directory_takes_every_end),
        journal_test(k26_dead_reader_is_cleared_before_a_full_map_is_believed),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
