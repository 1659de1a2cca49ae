/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Durability: what goes to disk and when, pending and granted (K22, K23), a damaged log (K24), the group
 * commit.
 */
#include "flush_fixture.h"
#include "journal_fixture.h"

static void commit_follows_where_the_resource_lives(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    static const enum rbxj_kind by_place[] = {RBXJ_LOCK, RBXJ_TMPDIR, RBXJ_CGROUP};
    for (size_t i = 0; i < ARRAY_LEN(by_place); i++) {
        struct record kept = intent(by_place[i], harness_format("%s/x", p.kept));
        struct record lost = intent(by_place[i], harness_format("%s/x", p.lost));
        assert_true(commit_is_needed(false, &kept));
        assert_false(commit_is_needed(false, &lost));
        assert_true(commit_is_needed(true, &lost));
        lost.below = 1; /* K23: at or below a mount target of its own box */
        assert_true(commit_is_needed(false, &lost));
        lost.below = 0;
        lost.parent = (struct fileid){0}; /* K23: nobody knows where it will be */
        assert_true(commit_is_needed(false, &lost));
        record_clear(&kept);
        record_clear(&lost);
    }
    struct record mount = intent(RBXJ_MOUNT, harness_format("%s/x", p.kept));
    assert_false(commit_is_needed(false, &mount));
    assert_true(commit_is_needed(true, &mount));
    record_clear(&mount);
}

static void k23_volatile_box_leaves_the_disk_alone(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct journal *j;
    (void)place_open(&p);
    place_close();
    struct disk before = disk_look(&p);
    const char *data = harness_format("%s/journal/data.mdb", p.state);
    struct stat st, after;
    assert_int_equal(stat(data, &st), 0);
    j = place_open(&p);
    atomic_store(&flushes, 0);
    struct box a = must_begin(j, "a", harness_format("%s/a", p.lost));
    assert_int_equal(intend(j, &a, RBXJ_LOCK, harness_format("%s/b", p.lost), &e), 0);
    struct record r = intent(RBXJ_LOCK, harness_format("%s/b", p.lost));
    r.incarnation = a.incarnation;
    r.seq = 2;
    assert_ok(journal_update(j, &r, false, &e), e);
    record_clear(&r);
    assert_ok(journal_drop(j, a.incarnation, 2, &e), e);
    assert_ok(journal_drop(j, a.incarnation, 1, &e), e);
    assert_ok(journal_end(j, a.incarnation, &e), e);
    assert_ok(journal_flush(j, &e), e);
    place_close();
    assert_int_equal(atomic_load(&flushes), 0);
    assert_int_equal(disk_look(&p).txn, before.txn);
    assert_int_equal(stat(data, &after), 0);
    assert_memory_equal(&st.st_mtim, &after.st_mtim, sizeof(st.st_mtim));
}

static void k23_first_persistent_entry_takes_everything_along(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    struct box a = must_begin(j, "a", harness_format("%s/a", p.lost));
    (void)must_begin(j, "other", harness_format("%s/o", p.lost));
    assert_int_equal(intend(j, &a, RBXJ_MOUNT, harness_format("%s/m", p.kept), &e), 0);
    place_close();
    assert_int_equal(disk_look(&p).headers, 0);
    j = place_open(&p);
    assert_int_equal(intend(j, &a, RBXJ_TMPDIR, harness_format("%s/x", p.kept), &e), 0);
    place_close();
    struct disk d = disk_look(&p);
    assert_int_equal(d.headers, 1);
    assert_int_equal(d.records, 3);
    /* so does evidence that only the journal can hold (K1) */
    j = place_open(&p);
    struct box b = must_begin(j, "b", harness_format("%s/b", p.lost));
    struct record r = intent(RBXJ_TMPDIR, harness_format("%s/b", p.lost));
    r.incarnation = b.incarnation;
    r.seq = 1;
    assert_ok(journal_update(j, &r, true, &e), e);
    record_clear(&r);
    place_close();
    d = disk_look(&p);
    assert_int_equal(d.headers, 2);
    assert_int_equal(d.records, 4);
}

/* ---- pending and granted (K22) ---- */

static void k22_failed_disk_commit_leaves_nothing(void **state)
{
    (void)state;
    harness_need_root();
    const char *small = harness_format("%s/small", harness_disk());
    harness_mkdir(small);
    assert_int_equal(mount("rbxj-test", small, "tmpfs", 0, "mode=0700,size=2m"), 0);
    struct place p = place_in(small, harness_tmpfs());
    p.options.always = true;
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    struct box a = must_begin(j, "a", NULL);
    assert_int_equal(system(harness_format("head -c 8m /dev/zero >%s/rest 2>/dev/null", small)) == 0, 0);
    size_t n = 0;
    int r;
    do {
        r = intend(j, &a, RBXJ_TMPDIR, harness_format("%s/%zu/%0200zu", p.lost, n, n), &e);
        n += r == 0;
    } while (r == 0 && n < 10000);
    assert_refused(r, e, RBXJ_E_DISK_FULL, "");
    assert_true(n > 50);
    assert_refused(begin_one(j, "b", NULL, &e), e, RBXJ_E_DISK_FULL, "");
    struct snapshot s;
    assert_ok(journal_snapshot(j, &s, &e), e);
    assert_int_equal(s.len, 1);
    assert_int_equal(s.boxes[0].len, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(s.boxes[0].records[i].flags & REC_PENDING, 0);
    snapshot_clear(&s);
    /* K26: drops, ends and the flush still do */
    e = (struct rbxj_error){0};
    for (uint32_t seq = 1; seq <= n; seq++)
        assert_ok(journal_drop(j, a.incarnation, seq, &e), e);
    assert_ok(journal_end(j, a.incarnation, &e), e);
    assert_ok(journal_flush(j, &e), e);
    place_close();
    assert_int_equal(disk_look(&p).headers, 0);
    assert_int_equal(disk_look(&p).records, 0);
}

static void k22_killed_before_its_commit_it_stays_pending(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct snapshot s = {0};
    struct journal *j = place_open(&p);
    assert_ok(gate_lock(&j->gates->disk, "test", 1000000000, &e), e); /* nobody gets to the disk */
    pid_t pid = CHILD({
        struct rbxj_error error;
        (void)begin_one(place_open(&p), "a", harness_format("%s/a", p.kept), &error);
        CHECK(!"it succeeded without the disk");
    });
    int64_t deadline = now_monotonic_ns() + 10000000000;
    do {
        snapshot_clear(&s);
        assert_ok(journal_snapshot(j, &s, &e), e);
    } while (s.len == 0 && now_monotonic_ns() < deadline);
    assert_int_equal(s.len, 1);
    assert_true(s.boxes[0].records[0].flags & REC_PENDING);
    snapshot_clear(&s);
    harness_kill(pid);
    gate_unlock(&j->gates->disk);
    /* somebody else's commit takes it to disk: in this boot it is pending all the same, and goes untouched */
    assert_int_equal(begin_one(j, "b", harness_format("%s/b", p.kept), &e), 0);
    struct snapshot_box sb;
    assert_ok(journal_get(j, "a", &sb, &e), e);
    assert_true(sb.records[0].flags & REC_PENDING);
    assert_int_equal(box_liveness(j, p.state, &sb.box), LIVE_DEAD);
    uint64_t incarnation = sb.box.incarnation;
    snapshot_box_clear(&sb);
    place_close();
    assert_int_equal(disk_look(&p).records, 2);
    j = place_open(&p);
    assert_ok(journal_end(j, incarnation, &e), e);
    assert_refused(journal_get(j, "a", &sb, &e), e, RBXJ_E_NO_SUCH_BOX, "a");
}

static void k22_in_a_new_boot_what_is_on_disk_was_granted(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    struct box a = must_begin(j, "a", harness_format("%s/a", p.kept));
    struct write w; /* as a kill between the commit and the grant leaves it */
    assert_ok(write_begin(j, &w, &e), e);
    assert_ok(write_end(&w, 0, write_mark(&w, MARK_PENDING, a.incarnation, 1, NULL, 0), &e), e);
    place_close();
    boot_number++;
    j = place_open(&p);
    struct snapshot_box sb;
    assert_ok(journal_get(j, "a", &sb, &e), e);
    assert_int_equal(sb.records[0].flags & REC_PENDING, 0);
    snapshot_box_clear(&sb);
    assert_refused(journal_end(j, a.incarnation, &e), e, RBXJ_E_LEFT, "seq 1");
}

static void k26_plan_in_one_transaction_is_all_or_nothing(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    struct box b = {0};
    const char *paths[] = {harness_format("%s/1", p.lost), harness_format("%s/2", p.lost),
                           harness_format("%s/1", p.lost)};
    assert_refused(begin(j, &b, "a", paths, 3, &e), e, RBXJ_E_EXISTS, paths[0]);
    struct snapshot s;
    e = (struct rbxj_error){0};
    assert_ok(journal_snapshot(j, &s, &e), e);
    assert_int_equal(s.len, 0);
    snapshot_clear(&s);
    assert_ok(begin(j, &b, "a", paths, 2, &e), e); /* neither its name nor its paths are taken */
}

/* ---- a damaged log (K24) ---- */

static void damage_last_entry(struct journal *j, bool remove)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, data;
    assert_int_equal(mdb_txn_begin(j->boot.env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_cursor_open(txn, j->boot.log, &cursor), 0);
    assert_int_equal(mdb_cursor_get(cursor, &key, &data, MDB_LAST), 0);
    _cleanup_free_ uint8_t *copy = malloc(data.mv_size);
    memcpy(copy, data.mv_data, data.mv_size);
    copy[data.mv_size - 1] ^= 1;
    MDB_val changed = {data.mv_size, copy};
    assert_int_equal(remove ? mdb_cursor_del(cursor, 0) : mdb_cursor_put(cursor, &key, &changed, MDB_CURRENT),
                     0);
    mdb_cursor_close(cursor);
    assert_int_equal(mdb_txn_commit(txn), 0);
}

static void damaged_log(bool remove)
{
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct snapshot s;
    struct journal *j = place_open(&p);
    struct box a = must_begin(j, "a", harness_format("%s/a", p.kept));
    assert_int_equal(intend(j, &a, RBXJ_TMPDIR, harness_format("%s/a2", p.lost), &e),
                     0); /* in the log only */
    damage_last_entry(j, remove);
    /* nobody's durable begin hangs on it: the records are taken instead of the log, and what was dropped
     * goes */
    assert_ok(journal_drop(j, a.incarnation, 1, &e), e);
    assert_ok(begin_one(j, "b", harness_format("%s/b", p.kept), &e), e);
    assert_ok(journal_flush(j, &e), e);
    assert_ok(journal_snapshot(j, &s, &e), e);
    assert_int_equal(s.len, 2);
    snapshot_clear(&s);
    assert_int_equal(disk_look(&p).headers, 2);
    assert_int_equal(disk_look(&p).records, 2); /* a2 and b */
    assert_int_equal(begin_one(j, "volatile", harness_format("%s/v", p.lost), &e), 0);
    assert_ok(begin_one(j, "c", harness_format("%s/c", p.kept), &e), e); /* and the log goes on behind it */
    place_close();
    assert_int_equal(disk_look(&p).headers, 3);
    assert_int_equal(disk_look(&p).records, 3);
}

static void k24_damaged_log_entry_is_got_over(void **state)
{
    (void)state;
    harness_need_root();
    damaged_log(false);
}

static void k24_missing_log_entry_is_got_over(void **state)
{
    (void)state;
    harness_need_root();
    damaged_log(true);
}

/* Its maker died, or failed, after the rename and before the flush of the directory: the next opener makes up
 * for it. */
static void i1_the_name_of_a_new_journal_is_flushed_by_whoever_finds_it(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    uint64_t counts[2];
    (void)place_open(&p);
    place_close();
    for (int unfinished = 0; unfinished < 2; unfinished++) {
        assert_int_equal(system(harness_format("rm -r %s", p.runtime)), 0);
        if (unfinished)
            assert_int_equal(truncate(harness_format("%s/alive", p.state), 0), 0);
        atomic_store(&flushes, 0);
        (void)place_open(&p);
        place_close();
        counts[unfinished] = atomic_load(&flushes);
    }
    assert_int_equal(counts[1], counts[0] + 1);
}

/* ---- the numbers of a box ---- */

/* As after as many intents: one that lives as long as its machine may come to that. */
static void use_up(struct journal *j, struct box *box, uint32_t next)
{
    struct write w;
    struct rbxj_error e = {0};
    assert_ok(write_begin(j, &w, &e), e);
    assert_ok(write_get_box(&w, box->incarnation, box, &e), e);
    box->next_seq = next;
    assert_ok(write_end(&w, 0, write_put(&w, box, NULL, false), &e), e);
}

static void i1_a_box_that_has_used_up_its_numbers_is_refused_another(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct journal *j = place_open(&p);
    struct rbxj_error e = {0};
    struct snapshot_box sb;
    struct box box = must_begin(j, "a", harness_format("%s/a", p.kept));
    use_up(j, &box, UINT32_MAX - 1);
    (void)alarm(30);
    assert_ok(intend(j, &box, RBXJ_TMPDIR, harness_format("%s/b", p.kept), &e), e);
    for (int i = 0; i < 2; i++) /* and it is not the number of the box's header that comes next */
        assert_refused(intend(j, &box, RBXJ_TMPDIR, harness_format("%s/c", p.kept), &e), e,
                       RBXJ_E_JOURNAL_FULL, "has used up its numbers");
    (void)alarm(0);
    assert_ok(journal_get(j, "a", &sb, &e), e);
    assert_int_equal(sb.len, 2);
    assert_int_equal(sb.records[1].seq, UINT32_MAX - 1);
    snapshot_box_clear(&sb);
    use_up(j, &box, 0); /* of a salvaged one whose last record had the last number */
    assert_refused(intend(j, &box, RBXJ_TMPDIR, harness_format("%s/c", p.kept), &e), e, RBXJ_E_JOURNAL_FULL,
                   "has used up its numbers");
    place_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(commit_follows_where_the_resource_lives),
        journal_test(k23_volatile_box_leaves_the_disk_alone),
        journal_test(k23_first_persistent_entry_takes_everything_along),
        journal_test(k22_failed_disk_commit_leaves_nothing),
        journal_test(k22_killed_before_its_commit_it_stays_pending),
        journal_test(k22_in_a_new_boot_what_is_on_disk_was_granted),
        journal_test(k26_plan_in_one_transaction_is_all_or_nothing),
        journal_test(k24_damaged_log_entry_is_got_over),
        journal_test(k24_missing_log_entry_is_got_over),
        journal_test(i1_the_name_of_a_new_journal_is_flushed_by_whoever_finds_it),
        journal_test(i1_a_box_that_has_used_up_its_numbers_is_refused_another),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
