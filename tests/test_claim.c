/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who may tear a box down (K11), and that what is given back touches nobody else's: claims, the locks of
 * boxes (K9), other leftovers (K22).
 */
#include "journal_fixture.h"

#include "journal/internal.h"

static bool no_memory;

/* In place of the C library's. */
void *reallocarray(void *old, size_t n, size_t size)
{
    size_t bytes;
    if (no_memory || __builtin_mul_overflow(n, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(old, bytes);
}

/* The first of this program: it needs a process that owns one box. */
static void k9_withdrawing_anothers_box_keeps_the_lock_of_ours(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    struct box own = must_begin(j, "own", NULL), other = {0};
    assert_int_equal(procid_of(harness_spawn(NULL), &other.supervisor), 0);
    assert_ok(begin(j, &other, "other", NULL, 0, &e), e);
    journal_withdraw(j, &other, 1, 0, true);
    place_close();
    assert_child(CHILD({
        int fd = open(harness_format("%s/alive", p.state), O_RDONLY | O_CLOEXEC);
        CHECK(fd_record_holder(fd, alive_slot(own.incarnation), NULL) == 1);
    }));
}

/* In a child: claims the box, says so, and waits. */
static void claim_here(const struct place *p, uint64_t incarnation, struct shared *s, int step)
{
    struct rbxj_error error = {0};
    struct journal *own;
    CHECK_OK(journal_open(&p->options, &own, &error), error);
    CHECK_OK(journal_claim(own, incarnation, &error), error);
    atomic_store(&s->step, step);
    pause();
}

static pid_t start_claimer(const struct place *p, uint64_t incarnation, struct shared *s, int step)
{
    pid_t pid = CHILD({ claim_here(p, incarnation, s, step); });
    wait_for(s, step);
    return pid;
}

static int claim_box(const struct place *p, uint64_t incarnation, struct rbxj_error *e)
{
    return journal_claim(place_open(p), incarnation, e);
}

static void k11_one_of_many_claimers_wins(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    struct box box = must_begin(place_open(&p), "a", NULL);
    place_close();
    enum { N = 8 };
    pid_t pids[N];
    for (int i = 0; i < N; i++)
        pids[i] = CHILD({
            struct rbxj_error e = {0};
            int r = claim_box(&p, box.incarnation, &e);
            CHECK(r == 0 || (r == -RBXJ_E_BUSY && strstr(e.message, "torn down by pid")));
            atomic_fetch_add(&s->value[r == 0], 1);
            while (!atomic_load(&s->stop))
                (void)usleep(500);
        });
    int64_t deadline = now_monotonic_ns() + 20000000000;
    while (atomic_load(&s->value[0]) + atomic_load(&s->value[1]) < N && now_monotonic_ns() < deadline)
        (void)usleep(1000);
    assert_int_equal(atomic_load(&s->value[0]), N - 1);
    assert_int_equal(atomic_load(&s->value[1]), 1);
    atomic_store(&s->stop, 1);
    for (int i = 0; i < N; i++)
        assert_child(pids[i]);
    /* the winner is dead: its claim is void */
    struct rbxj_error e = {0};
    assert_ok(claim_box(&p, box.incarnation, &e), e);
}

static void k11_claimed_box_takes_no_intents_and_frees_with_its_end(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    struct rbxj_error e;
    struct snapshot snapshot;
    struct journal *j = place_open(&p);
    struct box box = must_begin(j, "a", NULL);
    pid_t reaper = CHILD({
        struct rbxj_error error = {0};
        struct journal *own;
        CHECK(journal_open(&p.options, &own, &error) == 0);
        CHECK(journal_claim(own, box.incarnation, &error) == 0);
        atomic_store(&s->step, 1);
        while (atomic_load(&s->step) < 2)
            (void)usleep(500);
        CHECK(journal_settle(own, box.incarnation, NULL, 0, SETTLE_UNCLAIM, &error) == 0);
        atomic_store(&s->step, 3);
        pause();
    });
    wait_for(s, 1);
    assert_refused(intend(j, &box, RBXJ_TMPDIR, harness_format("%s/x", p.lost), &e), e, RBXJ_E_BOX_STALE,
                   harness_format("torn down by pid %d", reaper));
    assert_refused(begin_one(j, "a", NULL, &e), e, RBXJ_E_BOX_LIVE, "");
    /* nor does anybody else end it: it would vanish under the one who tears it down */
    e = (struct rbxj_error){0};
    assert_refused(journal_end(j, box.incarnation, &e), e, RBXJ_E_BUSY, harness_format("pid %d", reaper));
    e = (struct rbxj_error){0};
    assert_ok(journal_snapshot(j, &snapshot, &e), e);
    assert_int_equal(snapshot.boxes[0].claimer.pid, reaper);
    snapshot_clear(&snapshot);
    atomic_store(&s->step, 2);
    wait_for(s, 3);
    assert_int_equal(intend(j, &box, RBXJ_TMPDIR, harness_format("%s/x", p.lost), &e), 0);
    assert_refused(journal_end(j, box.incarnation, &e), e, RBXJ_E_LEFT, "seq 1");
    e = (struct rbxj_error){0};
    assert_ok(journal_drop(j, box.incarnation, 1, &e), e);
    assert_ok(journal_end(j, box.incarnation, &e), e);
    assert_refused(journal_claim(j, box.incarnation, &e), e, RBXJ_E_NO_SUCH_BOX, "no such box");
    assert_int_equal(begin_one(j, "a", NULL, &e), 0);
}

/* Many boxes in one transaction: what is free, or claimed by one who is dead, and nothing else. */
static void k11_claims_of_a_replay_take_what_is_free(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    struct rbxj_error e = {0};
    struct snapshot snapshot;
    struct journal *j = place_open(&p);
    struct claim claims[4] = {{.incarnation = must_begin(j, "free", NULL).incarnation},
                              {.incarnation = must_begin(j, "dead", NULL).incarnation},
                              {.incarnation = must_begin(j, "taken", NULL).incarnation},
                              {.incarnation = 1}};
    pid_t pids[2];
    for (int i = 0; i < 2; i++) {
        pids[i] = start_claimer(&p, claims[i + 1].incarnation, s, i + 1);
    }
    harness_kill(pids[0]);
    assert_ok(journal_claim_all(j, claims, ARRAY_LEN(claims), &e), e);
    assert_int_equal(claims[0].result, 0);
    assert_int_equal(claims[1].result, 0);
    assert_int_equal(claims[2].result, -RBXJ_E_BUSY);
    assert_int_equal(claims[2].claimer.pid, pids[1]);
    assert_int_equal(claims[3].result, -RBXJ_E_NO_SUCH_BOX);
    /* given back is what was taken, and nobody else's */
    journal_unclaim_all(j, claims, ARRAY_LEN(claims));
    assert_ok(journal_snapshot(j, &snapshot, &e), e);
    assert_int_equal(find_box(&snapshot, "free")->claimer.pid, 0);
    assert_int_equal(find_box(&snapshot, "dead")->claimer.pid, 0);
    assert_int_equal(find_box(&snapshot, "taken")->claimer.pid, pids[1]);
    snapshot_clear(&snapshot);
}

/* A claimer in another pid namespace: its pid says nothing here, that it has the journals open does. */
static void k11_claim_from_another_namespace_ends_with_its_process(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    struct box box = must_begin(j, "a", NULL);
    pid_t pid = NAMESPACE_CHILD({ claim_here(&p, box.incarnation, s, 1); });
    wait_for(s, 1);
    assert_refused(journal_claim(j, box.incarnation, &e), e, RBXJ_E_BUSY, "torn down by pid 1");
    harness_kill(pid);
    int64_t deadline = now_monotonic_ns() + 10000000000; /* the inner one dies by its parent's death */
    int r;
    do {
        e = (struct rbxj_error){0};
        r = journal_claim(j, box.incarnation, &e);
    } while (r < 0 && now_monotonic_ns() < deadline);
    assert_ok(r, e);
}

/* It is to be given back later, and is given back in another way before that. */
static void k11_a_claim_that_another_took_since_stays(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    struct rbxj_error e = {0};
    struct snapshot snapshot;
    struct journal *j = place_open(&p);
    struct box box = must_begin(j, "a", NULL);
    assert_ok(journal_claim(j, box.incarnation, &e), e);
    journal_unclaim_later(j, box.incarnation);
    assert_ok(journal_settle(j, box.incarnation, NULL, 0, SETTLE_UNCLAIM, &e), e);
    pid_t reaper = start_claimer(&p, box.incarnation, s, 1);
    assert_ok(begin_one(j, "b", NULL, &e), e); /* later is now */
    assert_ok(journal_snapshot(j, &snapshot, &e), e);
    assert_int_equal(find_box(&snapshot, "a")->claimer.pid, reaper);
    snapshot_clear(&snapshot);
}

static int begin_inside(struct journal *j, const struct box *parent, const char *name, struct rbxj_error *e)
{
    struct box box = {.parent = parent->incarnation};
    *e = (struct rbxj_error){0};
    return begin(j, &box, name, NULL, 0, e);
}

static void k11_a_dead_claimer_of_the_parent_is_void(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    struct box box = must_begin(j, "outer", NULL);
    pid_t hook = start_claimer(&p, box.incarnation, s, 1);
    assert_refused(begin_inside(j, &box, "b", &e), e, RBXJ_E_BOX_STALE, harness_format("by pid %d", hook));
    harness_kill(hook);
    assert_ok(begin_inside(j, &box, "a", &e), e);
    /* nor beside another thread of this process that takes it down */
    assert_ok(journal_claim(j, box.incarnation, &e), e);
    assert_refused(begin_inside(j, &box, "b", &e), e, RBXJ_E_BOX_STALE, "by this process");
    journal_unclaim(j, box.incarnation);
    assert_ok(begin_inside(j, &box, "b", &e), e);
}

static void damage_record(struct journal *j, uint64_t incarnation, uint32_t seq)
{
    struct write w;
    struct rbxj_error e = {0};
    struct record_key k = record_key(incarnation, seq);
    MDB_val key = {sizeof(k), &k}, data = {4, (void *)(uintptr_t) "oops"};
    assert_ok(write_begin(j, &w, &e), e);
    int rc = mdb_put(w.txn, j->boot.records, &key, &data, 0);
    assert_ok(write_end(&w, 0, rc, &e), e);
}

static void k22_one_that_can_never_be_taken_back_is_in_no_others_way(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct snapshot_box sb;
    struct journal *j = place_open(&p);
    struct box good = must_begin(j, "good", harness_format("%s/good", p.lost));
    struct box bad = must_begin(j, "bad", harness_format("%s/bad", p.lost));
    damage_record(j, bad.incarnation, 1);
    leftover_remember(j, good.incarnation, &(struct withdrawal){.first_seq = 1, .last_seq = 1});
    leftover_remember(j, bad.incarnation, &(struct withdrawal){.first_seq = 1, .last_seq = 1});
    assert_ok(begin_one(j, "c", NULL, &e), e);
    assert_ok(journal_get(j, "good", &sb, &e), e);
    assert_int_equal(sb.len, 0);
    snapshot_box_clear(&sb);
    /* however many: only what may still be taken back holds up what is new */
    for (int i = 0; i < 100; i++)
        leftover_withdraw(j, bad.incarnation, &(struct withdrawal){.first_seq = 1, .last_seq = 1});
    assert_ok(begin_one(j, "d", NULL, &e), e);
    assert_false(leftover_done(j, bad.incarnation));
    /* of a boot journal that is lost */
    j->generation[0] ^= 1;
    for (int i = 0; i < 100; i++)
        leftover_remember(j, good.incarnation, &(struct withdrawal){.first_seq = 1, .last_seq = 1});
    j->generation[0] ^= 1;
    assert_ok(begin_one(j, "e", NULL, &e), e);
}

/* It is for want of memory that it is not taken back, and for want of memory it must not be forgotten. */
static void k22_remembered_without_memory(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct journal *j = place_open(&p);
    struct rbxj_error e;
    struct box box = must_begin(j, "a", NULL);
    no_memory = true;
    leftover_remember(j, box.incarnation, &(struct withdrawal){.first_seq = 1, .whole = true});
    no_memory = false;
    assert_ok(begin_one(j, "a", NULL, &e), e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k9_withdrawing_anothers_box_keeps_the_lock_of_ours),
        journal_test(k11_one_of_many_claimers_wins),
        journal_test(k11_claimed_box_takes_no_intents_and_frees_with_its_end),
        journal_test(k11_claims_of_a_replay_take_what_is_free),
        journal_test(k11_claim_from_another_namespace_ends_with_its_process),
        journal_test(k11_a_claim_that_another_took_since_stays),
        journal_test(k11_a_dead_claimer_of_the_parent_is_void),
        journal_test(k22_one_that_can_never_be_taken_back_is_in_no_others_way),
        journal_test(k22_remembered_without_memory),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
