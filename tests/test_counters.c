/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The counters in the journals: what they survive, what they cost, and versions side by side (K24).
 */
#include "counters_fixture.h"

/* ---- the sums ---- */

static void histogram_puts_each_value_below_its_bound(void **state)
{
    (void)state;
    static const int64_t bounds[] = COUNTERS_BOUNDS;
    struct histogram h = {0};
    for (size_t i = 0; i < ARRAY_LEN(bounds); i++) {
        assert_true(i == 0 || bounds[i] > bounds[i - 1]);
        histogram_add(&h, bounds[i]);     /* an upper bound is inclusive */
        histogram_add(&h, bounds[i] + 1); /* the next one's */
    }
    histogram_add(&h, -5);
    assert_int_equal(h.buckets[0], 2);
    for (size_t i = 1; i < ARRAY_LEN(bounds); i++)
        assert_int_equal(h.buckets[i], 2);
    assert_int_equal(h.buckets[COUNTERS_BUCKETS - 1], 1);
    uint64_t sum = 0;
    for (size_t i = 0; i < ARRAY_LEN(bounds); i++)
        sum += 2 * (uint64_t)bounds[i] + 1;
    assert_true(h.sum_ns == sum);
}

static void the_last_replay_is_the_one_that_was_told_of_last(void **state)
{
    (void)state;
    struct counters sum = {.last_replay_ns = 7, .orphans = 1}, more = {.last_replay_ns = 9, .orphans = 2};
    counters_add(&sum, &more);
    assert_int_equal(sum.last_replay_ns, 9);
    assert_int_equal(sum.orphans, 3);
    more.last_replay_ns = 5; /* the clock was ahead, or nobody would see any more that there is none */
    counters_add(&sum, &more);
    assert_int_equal(sum.last_replay_ns, 5);
    more.last_replay_ns = 0; /* it tells of something else */
    counters_add(&sum, &more);
    assert_int_equal(sum.last_replay_ns, 5);
}

/* ---- what they survive ---- */

static void counting_costs_no_flush_and_survives_close_and_open(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct journal *j = place_open(&p);
    uint64_t before = atomic_load(&flushes);
    must_count(j, 3);
    must_count(j, 4);
    (void)must_begin(j, "volatile",
                     harness_format("%s/v", p.lost)); /* counters that differ cost it nothing */
    assert_int_equal(atomic_load(&flushes), before);
    assert_int_equal(must_read(&p).orphans, 7); /* in the process that has them open */
    place_close();
    assert_int_equal(must_read(&p).orphans, 7);
    assert_int_equal(must_read(&p).last_replay_ns, 104);
    j = place_open(&p);
    must_count(j, 1);
    assert_int_equal(must_read(&p).orphans, 8);
}

static void a_commit_takes_them_along_and_the_next_boot_takes_them_over(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct journal *j = place_open(&p);
    (void)must_begin(j, "warm", harness_format("%s/warm", p.kept));
    uint64_t before = atomic_load(&flushes);
    (void)must_begin(j, "before", harness_format("%s/before", p.kept));
    uint64_t cost = atomic_load(&flushes) - before;
    must_count(j, 5);
    before = atomic_load(&flushes);
    (void)must_begin(j, "after", harness_format("%s/after", p.kept));
    assert_int_equal(atomic_load(&flushes) - before, cost); /* in the same commit */
    must_count(j, 6);                                       /* since the last commit */
    place_close();
    next_boot(&p);
    assert_int_equal(must_read(&p).orphans, 5); /* the disk's, there being no boot journal */
    j = place_open(&p);
    assert_int_equal(must_read(&p).orphans, 5);
    must_count(j, 1);
    assert_int_equal(must_read(&p).orphans, 6);
    assert_int_equal(must_read(&p).last_replay_ns, 101);
}

static void a_flush_commits_for_them_alone_and_once(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    (void)place_open(&p);
    place_close();
    size_t txn = disk_look(&p).txn;
    struct journal *j = place_open(&p);
    assert_ok(journal_flush(j, &e), e);
    place_close();
    assert_int_equal(disk_look(&p).txn, txn); /* nothing differs */
    j = place_open(&p);
    must_count(j, 5);
    assert_ok(journal_flush(j, &e), e);
    uint64_t before = atomic_load(&flushes);
    assert_ok(journal_flush(j, &e), e);
    assert_int_equal(atomic_load(&flushes), before);
    place_close();
    assert_int_equal(disk_look(&p).txn, txn + 1);
    next_boot(&p);
    (void)place_open(&p);
    assert_int_equal(must_read(&p).orphans, 5);
}

/* A replay that finds nothing: at each boot, and every five minutes. */
static void the_time_of_the_last_replay_alone_costs_no_flush(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    must_count(j, 5);
    assert_ok(journal_flush(j, &e), e);
    uint64_t before = atomic_load(&flushes);
    assert_ok(journal_count(j, &(struct counters){.last_replay_ns = 200}, &e), e);
    assert_ok(journal_flush(j, &e), e);
    assert_int_equal(atomic_load(&flushes), before);
    assert_int_equal(must_read(&p).last_replay_ns, 200);
    assert_ok(journal_count(j, &(struct counters){.cleanups = {1}, .last_replay_ns = 300}, &e), e);
    assert_ok(journal_flush(j, &e), e);
    assert_true(atomic_load(&flushes) > before);
    place_close();
    next_boot(&p);
    (void)place_open(&p);
    assert_int_equal(must_read(&p).last_replay_ns, 300);
}

static void they_survive_the_loss_of_the_runtime_directory(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    p.options.always = true;
    struct journal *j = place_open(&p);
    must_count(j, 5);
    (void)must_begin(j, "a", harness_format("%s/a", p.lost)); /* always: a commit */
    place_close();
    assert_int_equal(system(harness_format("rm -r %s", p.runtime)), 0);
    (void)place_open(&p);
    assert_int_equal(must_read(&p).orphans, 5);
}

/* A count is there whole or not at all: what was answered is, at most one more is. */
static void a_killed_writer_loses_nothing_that_was_answered(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    uint64_t answered = 0, found = 0;
    for (int round = 0; round < 20; round++) {
        atomic_store(&s->value[0], 0);
        atomic_store(&s->step, 0);
        pid_t pid = CHILD({
            struct rbxj_error error = {0};
            struct counters more = {.orphans = 1, .containment_violations = 1};
            struct journal *j = place_open(&p);
            for (;;) {
                CHECK_OK(journal_count(j, &more, &error), error);
                atomic_fetch_add(&s->value[0], 1);
                atomic_store(&s->step, 1);
            }
        });
        wait_for(s, 1);
        (void)usleep(100 * (useconds_t)round);
        harness_kill(pid);
        answered = found + atomic_load(&s->value[0]);
        struct counters c = must_read(&p);
        assert_int_equal(c.orphans, c.containment_violations);
        found = c.orphans;
        assert_true(found == answered || found == answered + 1);
    }
}

static void counts_of_many_processes_add_up(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    pid_t pids[8];
    for (uint64_t i = 0; i < 8; i++)
        pids[i] = CHILD({
            struct rbxj_error error = {0};
            struct counters more = {.orphans = 1, .cleanups = {i}};
            struct journal *j = place_open(&p);
            for (int k = 0; k < 200; k++) {
                CHECK_OK(journal_count(j, &more, &error), error);
                if (k % 50 == 0)
                    CHECK_OK(journal_flush(j, &error), error);
            }
            CHECK_OK(journal_flush(j, &error), error);
        });
    for (size_t i = 0; i < 8; i++)
        assert_child(pids[i]);
    struct counters c = must_read(&p);
    assert_int_equal(c.orphans, 8 * 200);
    assert_int_equal(c.cleanups[0], 200 * (0 + 1 + 2 + 3 + 4 + 5 + 6 + 7));
    next_boot(&p);
    assert_int_equal(must_read(&p).orphans, 8 * 200); /* and the last flush has brought all of it to disk */
}

/* ---- what is stored: other versions' and damaged ---- */

static void put_raw(struct store *store, const void *value, size_t len)
{
    MDB_txn *txn;
    assert_int_equal(mdb_txn_begin(store->env, NULL, 0, &txn), MDB_SUCCESS);
    assert_int_equal(meta_put(txn, store->meta, META_COUNTERS, value, len), MDB_SUCCESS);
    assert_int_equal(mdb_txn_commit(txn), MDB_SUCCESS);
}

/* n numbers: 1, 2, 3, ... */
static void put_numbers(struct store *store, size_t n)
{
    uint64_t numbers[KNOWN + 3];
    for (size_t i = 1; i <= n; i++)
        numbers[i] = htole64(i);
    numbers[0] = htole64(XXH3_64bits(numbers + 1, n * sizeof(*numbers)));
    put_raw(store, numbers, (n + 1) * sizeof(*numbers));
}

static void expect_numbers(struct store *store, const uint64_t *want, size_t n)
{
    uint64_t numbers[KNOWN + 3];
    MDB_txn *txn;
    assert_int_equal(mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn), MDB_SUCCESS);
    assert_int_equal(meta_get(txn, store->meta, META_COUNTERS, numbers, (n + 1) * sizeof(*numbers)),
                     MDB_SUCCESS);
    mdb_txn_abort(txn);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(le64toh(numbers[i + 1]), want[i]);
    assert_true(le64toh(numbers[0]) == XXH3_64bits(numbers + 1, n * sizeof(*numbers)));
}

static void k24_a_newer_version_s_counters_are_kept(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    uint64_t want[KNOWN + 2];
    for (size_t i = 0; i < KNOWN + 2; i++)
        want[i] = i + 1;
    put_numbers(&j->boot, KNOWN + 2);
    struct counters more = {.cleanups = {10}}, c = must_read(&p);
    assert_memory_equal(&c, want, sizeof(c));
    assert_ok(journal_count(j, &more, &e), e);
    want[0] += 10;
    expect_numbers(&j->boot, want, KNOWN + 2);
    assert_ok(journal_flush(j, &e), e);
    expect_numbers(&j->disk, want, KNOWN + 2);
    place_close();
    next_boot(&p);
    j = place_open(&p);
    expect_numbers(&j->boot, want, KNOWN + 2);
}

static void k24_an_older_version_s_counters_lack_some(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct journal *j = place_open(&p);
    put_numbers(&j->boot, 2);
    struct counters c = must_read(&p);
    assert_int_equal(c.cleanups[0], 1);
    assert_int_equal(c.cleanups[1], 2);
    assert_int_equal(c.cleanups[2], 0);
    must_count(j, 3);
    c = must_read(&p);
    assert_int_equal(c.cleanups[1], 2);
    assert_int_equal(c.orphans, 3);
}

static void i9_damaged_counters_read_as_zero_and_stay_where_they_are(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    uint64_t wrong[KNOWN + 1];
    memset(wrong, 'x', sizeof(wrong)); /* of the right length, with a wrong checksum */
    const struct {
        const void *value;
        size_t len;
    } garbage[] = {{"", 0}, {"oops", 4}, {"oopsoops", 8}, {wrong, sizeof(wrong)}, {wrong, sizeof(wrong) - 3}};
    const struct counters zero = {0};
    struct journal *j = place_open(&p);
    must_count(j, 5);
    assert_ok(journal_flush(j, &e), e);
    for (size_t i = 0; i < ARRAY_LEN(garbage); i++) {
        put_raw(&j->boot, garbage[i].value, garbage[i].len);
        struct counters c = must_read(&p);
        assert_memory_equal(&c, &zero, sizeof(c));
        assert_ok(journal_flush(j, &e), e); /* it does not get to disk */
    }
    place_close();
    next_boot(&p);
    assert_int_equal(must_read(&p).orphans, 5);
    for (size_t i = 0; i < ARRAY_LEN(garbage); i++) {
        j = place_open(&p);
        put_raw(&j->disk, garbage[i].value, garbage[i].len);
        place_close();
        next_boot(&p);
        j = place_open(&p);
        struct counters c = must_read(&p);
        assert_memory_equal(&c, &zero, sizeof(c));
        must_count(j, 2);
        assert_int_equal(must_read(&p).orphans, 2);
        assert_ok(journal_flush(j, &e), e);
        place_close();
        next_boot(&p);
        assert_int_equal(must_read(&p).orphans, 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(histogram_puts_each_value_below_its_bound),
        journal_test(the_last_replay_is_the_one_that_was_told_of_last),
        journal_test(counting_costs_no_flush_and_survives_close_and_open),
        journal_test(a_commit_takes_them_along_and_the_next_boot_takes_them_over),
        journal_test(a_flush_commits_for_them_alone_and_once),
        journal_test(the_time_of_the_last_replay_alone_costs_no_flush),
        journal_test(they_survive_the_loss_of_the_runtime_directory),
        journal_test(a_killed_writer_loses_nothing_that_was_answered),
        journal_test(counts_of_many_processes_add_up),
        journal_test(k24_a_newer_version_s_counters_are_kept),
        journal_test(k24_an_older_version_s_counters_lack_some),
        journal_test(i9_damaged_counters_read_as_zero_and_stay_where_they_are),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
