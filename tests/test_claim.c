/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is given back touches nobody else's: claims (K11), the locks of boxes (K9), other leftovers (K22).
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
    pid_t reaper = CHILD({
        struct rbxj_error error = {0};
        struct journal *own;
        CHECK_OK(journal_open(&p.options, &own, &error), error);
        CHECK_OK(journal_claim(own, box.incarnation, &error), error);
        atomic_store(&s->step, 1);
        pause();
    });
    wait_for(s, 1);
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
    pid_t hook = CHILD({
        struct rbxj_error error = {0};
        struct journal *own;
        CHECK_OK(journal_open(&p.options, &own, &error), error);
        CHECK_OK(journal_claim(own, box.incarnation, &error), error);
        atomic_store(&s->step, 1);
        pause();
    });
    wait_for(s, 1);
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
        journal_test(k11_a_claim_that_another_took_since_stays),
        journal_test(k11_a_dead_claimer_of_the_parent_is_void),
        journal_test(k22_one_that_can_never_be_taken_back_is_in_no_others_way),
        journal_test(k22_remembered_without_memory),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
