/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What becomes of a journal that was salvaged, once it is in use (I9, K21).
 */
#include "salvage_fixture.h"

/* A state directory with what was salvaged of p's disk journal. */
static struct place salvage_of(const struct place *p)
{
    const struct journal_options options = {.map_size = 16 << 20, .preallocate = 1 << 20};
    struct place new = *p;
    struct salvaged salvaged;
    struct rbxj_error e = {0};
    struct autopsy a = must_read(disk_data(p));
    new.state = harness_format("%s.new", p->state);
    new.runtime = harness_format("%s.new", p->runtime);
    new.options.state_dir = new.state;
    new.options.runtime_dir = new.runtime;
    assert_ok(salvage_write(&a, 1, false, new.state, &options, &salvaged, &e), e);
    autopsy_clear(&a);
    return new;
}

static uint64_t last_position(const struct autopsy *a)
{
    uint64_t last = 0;
    for (size_t i = 0; i < a->records_len; i++)
        if (a->records[i].newest && a->records[i].head.position > last)
            last = a->records[i].head.position;
    return last;
}

/* A salvage of both, which are cleared. */
static size_t boxes_of_both(struct autopsy files[2])
{
    const struct journal_options options = {.map_size = 16 << 20, .preallocate = 1 << 20};
    struct salvaged salvaged;
    struct rbxj_error e = {0};
    assert_ok(
        salvage_write(files, 2, false, harness_format("%s/new", harness_disk()), &options, &salvaged, &e), e);
    autopsy_clear(&files[0]);
    autopsy_clear(&files[1]);
    return salvaged.boxes;
}

/* Both snapshots of the boot journal are lost, and an older disk journal than its own is there: its log
 * tells. */
static void k20_a_log_tells_what_was_deleted(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct journal *j = place_open(&p);
    struct rbxj_error e = {0};
    (void)must_begin(j, "a", harness_format("%s/a", p.kept));
    struct box ended = must_begin(j, "ended", harness_format("%s/ended", p.kept));
    struct autopsy files[2] = {{0}, must_read(disk_data(&p))};
    assert_ok(journal_drop(j, ended.incarnation, 1, &e), e);
    assert_ok(journal_end(j, ended.incarnation, &e), e);
    place_close();
    const char *data = harness_format("%s/data.mdb", place_folder(&p));
    for (int i = 0; i < 2; i++)
        write_at(data, i * 4096 + 128, "\xff\xff\0\0\0\0\0\0", 8);
    files[0] = must_read(data);
    assert_false(files[0].snapshots[0].sound || files[0].snapshots[1].sound);
    assert_int_equal(boxes_of_both(files), 1);
}

/* With the newest snapshot lost, the previous one says nothing of what the disk has since. */
static void k20_an_older_snapshot_knows_of_nothing_later(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct journal *j = place_open(&p);
    char *bytes;
    (void)must_begin(j, "a", harness_format("%s/a", p.kept));
    const char *data = harness_format("%s/data.mdb", place_folder(&p));
    ssize_t len = fd_read_all(AT_FDCWD, data, 64 << 20, &bytes);
    assert_true(len > 0);
    (void)must_begin(j, "later", harness_format("%s/later", p.kept));
    place_close();
    write_at(data, 0, bytes, (size_t)len);
    free(bytes);
    struct autopsy files[2] = {must_read(data), must_read(disk_data(&p))};
    write_at(data, files[0].snapshots[0].which * 4096 + 16, "xxxx", 4);
    autopsy_clear(&files[0]);
    files[0] = must_read(data);
    assert_true(!files[0].snapshots[0].sound && files[0].snapshots[1].sound);
    assert_int_equal(boxes_of_both(files), 2);
}

/* Spoils every copy of a box's header. */
static void lose_header(const char *data, uint64_t incarnation)
{
    struct autopsy a = must_read(data);
    for (size_t i = 0; i < a.records_len; i++)
        if (a.records[i].head.incarnation == incarnation && a.records[i].head.seq == 0)
            write_at(data, (off_t)a.records[i].offset + 60, "\xff\xff\xff\xff", 4);
    autopsy_clear(&a);
}

static bool is_unproven(const struct snapshot *s, const char *path)
{
    for (size_t i = 0; i < s->len; i++)
        for (size_t k = 0; k < s->boxes[i].len; k++)
            if (strcmp(s->boxes[i].records[k].path, path) == 0)
                return s->boxes[i].records[k].flags & REC_UNPROVEN;
    fail_msg("%s is not there", path);
    return false;
}

/* A box in a box has lost its header, and may live. */
static void k4_what_holds_a_box_that_is_left_out_is_in_doubt(void **state)
{
    (void)state;
    harness_need_root();
    struct place old = place_make();
    struct journal *j = place_open(&old);
    struct rbxj_error e = {0};
    const char *outer = harness_format("%s/outer", old.kept),
               *beside = harness_format("%s/outer-2", old.kept);
    struct box box = must_begin(j, "outer", outer), inner = {.parent = box.incarnation};
    (void)must_begin(j, "beside", beside);
    const char *inside = harness_format("%s/inner", outer);
    assert_ok(begin(j, &inner, "inner", &inside, 1, &e), e);
    place_close();
    lose_header(disk_data(&old), inner.incarnation);
    struct place p = salvage_of(&old);
    struct snapshot s;
    assert_ok(snapshot_read(p.state, p.runtime, &s, &e), e);
    assert_int_equal(s.len, 2);
    assert_true(is_unproven(&s, outer));
    assert_false(is_unproven(&s, beside));
    snapshot_clear(&s);
}

/* Nobody holds a lock in a directory in which it was never taken: who replays what was salvaged where it was
 * written. */
static void k9_i3_a_lock_that_was_taken_elsewhere_is_not_free(void **state)
{
    (void)state;
    harness_need_root();
    struct place old = place_make();
    struct shared *s = shared_make();
    pid_t pid = NAMESPACE_CHILD({
        struct rbxj_error e;
        CHECK(begin_one(place_open(&old), "a", harness_format("%s/a", old.kept), &e) == 0);
        atomic_store(&s->step, 1);
        pause();
    });
    wait_for(s, 1);
    struct snapshot snapshot;
    struct rbxj_error e = {0};
    assert_ok(snapshot_read(old.state, old.runtime, &snapshot, &e), e);
    struct box box = snapshot.boxes[0].box;
    snapshot_clear(&snapshot);
    assert_true(box.flags & BOX_OWNER_LOCK);
    struct place p = salvage_of(&old);
    (void)usleep(20000); /* at least: the clock of files is coarse */
    struct journal *j = place_open(&p);
    assert_int_equal(box_liveness(NULL, old.state, &box), LIVE_ALIVE);
    assert_int_equal(box_liveness(j, p.state, &box), LIVE_UNKNOWN);
    harness_kill(pid);
    for (int i = 0; i < 30000 && box_liveness(NULL, old.state, &box) != LIVE_DEAD; i++)
        (void)usleep(1000);
    assert_int_equal(box_liveness(NULL, old.state, &box), LIVE_DEAD);
}

/* Positions go on: of two versions of a record the younger one has the higher. Else a second salvage took the
 * older. */
static void k21_positions_go_on_after_a_salvage(void **state)
{
    (void)state;
    harness_need_root();
    struct place old = make_journal(), p = salvage_of(&old);
    struct autopsy a = must_read(disk_data(&p));
    uint64_t last = last_position(&a);
    assert_true(last > BOXES);
    autopsy_clear(&a);
    struct journal *j = place_open(&p);
    struct rbxj_error e = {0};
    struct box box = must_begin(j, "new", harness_format("%s/new", p.kept));
    assert_ok(journal_flush(j, &e), e);
    place_close();
    a = must_read(disk_data(&p));
    for (size_t i = 0; i < a.records_len; i++)
        if (a.records[i].head.incarnation == box.incarnation)
            assert_true(a.records[i].head.position > last);
    assert_true(last_position(&a) > last);
    autopsy_clear(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k20_a_log_tells_what_was_deleted),
        journal_test(k20_an_older_snapshot_knows_of_nothing_later),
        journal_test(k4_what_holds_a_box_that_is_left_out_is_in_doubt),
        journal_test(k9_i3_a_lock_that_was_taken_elsewhere_is_not_free),
        journal_test(k21_positions_go_on_after_a_salvage),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
