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

/* Both snapshots of the boot journal are lost, and an older disk journal than its own is there: its log tells. */
static void k20_a_log_tells_what_was_deleted(void **state)
{
    (void)state;
    harness_need_root();
    const struct journal_options options = {.map_size = 16 << 20, .preallocate = 1 << 20};
    struct place p = place_make();
    struct journal *j = place_open(&p);
    struct salvaged salvaged;
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
    assert_ok(
        salvage_write(files, 2, false, harness_format("%s/new", harness_disk()), &options, &salvaged, &e), e);
    assert_int_equal(salvaged.boxes, 1);
    autopsy_clear(&files[0]);
    autopsy_clear(&files[1]);
}

/* Positions go on: of two versions of a record the younger one has the higher. Else a second salvage took the older. */
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
        journal_test(k21_positions_go_on_after_a_salvage),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
