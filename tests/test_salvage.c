/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is read of a damaged journal, and a new one from it (I9, K20).
 */
#include "salvage_fixture.h"

#include <sys/file.h>

static void a_sound_one_is_read_and_copied_as_it_is(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    struct autopsy a = must_read(disk_data(&p));
    struct salvaged salvaged;
    assert_true(autopsy_is_sound(&a));
    assert_true(a.snapshots[0].sound && a.snapshots[1].sound);
    assert_int_equal(a.count[CARVED_INTACT], BOXES * 4);
    assert_int_equal(a.count[CARVED_DAMAGED], 0);
    assert_true(a.count[CARVED_SUPERSEDED] > 0);
    assert_int_equal(salvaged_records(&a, harness_format("%s/new", harness_disk()), &salvaged), BOXES * 3);
    assert_int_equal(salvaged.boxes, BOXES);
    assert_int_equal(salvaged.records, BOXES * 3);
    assert_int_equal(salvaged.without_header + salvaged.same_name, 0);
    autopsy_clear(&a);
}

static void the_previous_snapshot_is_there_when_the_newest_is_lost(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    struct autopsy a = must_read(disk_data(&p));
    int newest = a.snapshots[0].which;
    uint64_t txn = a.metas[!newest].meta.txn;
    write_at(disk_data(&p), newest * 4096 + 16, "xxxx", 4);
    autopsy_clear(&a);
    a = must_read(disk_data(&p));
    assert_false(autopsy_is_sound(&a));
    assert_false(a.metas[newest].sound);
    assert_true(a.snapshots[1].sound);
    assert_int_equal(a.metas[a.snapshots[1].which].meta.txn, txn);
    assert_true(a.count[CARVED_INTACT] >= BOXES * 4);
    autopsy_clear(&a);
}

/* The older one's made the larger, or the newest one's another: nothing of the last transaction is lost. */
static void a_damaged_transaction_number_loses_nothing(void **state)
{
    (void)state;
    harness_need_root();
    const int64_t wrong[][2] = {
        {2, 0}, {6, 0}, {0, -4}, {0, 8}}; /* added to the older one's, the newest one's */
    struct place p = make_journal();
    struct journal *j = place_open(&p);
    struct rbxj_error e = {0};
    struct box last = must_begin(j, "last", harness_format("%s/last", p.kept));
    assert_ok(journal_flush(j, &e), e);
    place_close();
    struct autopsy a = must_read(disk_data(&p));
    int newest = a.snapshots[0].which;
    const uint64_t txn[2] = {a.metas[!newest].meta.txn, a.metas[newest].meta.txn};
    autopsy_clear(&a);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        for (int k = 0; k < 2; k++) {
            uint64_t number = txn[k] + (uint64_t)wrong[i][k];
            write_at(disk_data(&p), (k ? newest : !newest) * 4096 + 144, &number, sizeof(number));
        }
        a = must_read(disk_data(&p));
        assert_false(autopsy_is_sound(&a));
        int of_last = 0;
        for (size_t k = 0; k < a.records_len; k++)
            of_last += a.records[k].state == CARVED_INTACT &&
                       a.records[k].head.incarnation == last.incarnation;
        assert_int_equal(of_last, 2);
        autopsy_clear(&a);
    }
}

/* One that is in the boot journal alone has no place in the log: what is younger than all of the previous
 * snapshot may have come after it. What is salvaged is on disk, and says so. */
static void the_last_box_of_this_boot_is_not_lost(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct journal *j = place_open(&p);
    struct salvaged salvaged;
    (void)must_begin(j, "a", harness_format("%s/a", p.lost));
    struct box last = must_begin(j, "last", harness_format("%s/last", p.lost));
    assert_false(last.flags & BOX_ON_DISK);
    place_close();
    const char *data = harness_format("%s/data.mdb", place_folder(&p));
    struct autopsy a = must_read(data);
    assert_int_equal(salvaged_records(&a, harness_format("%s/whole", harness_disk()), &salvaged), 2);
    write_at(data, a.snapshots[0].which * 4096 + 16, "xxxx", 4);
    autopsy_clear(&a);
    a = must_read(data);
    assert_int_equal(salvaged_records(&a, harness_format("%s/new", harness_disk()), &salvaged), 2);
    autopsy_clear(&a);
}

static void a_damaged_record_is_told_and_its_box_left_out(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    struct autopsy a = must_read(disk_data(&p));
    struct salvaged salvaged;
    size_t i = 0;
    while (!a.records[i].newest || a.records[i].head.seq != 0)
        i++;
    uint64_t incarnation = a.records[i].head.incarnation;
    /* every copy of that header */
    for (size_t k = 0; k < a.records_len; k++)
        if (a.records[k].head.incarnation == incarnation && a.records[k].head.seq == 0)
            write_at(disk_data(&p), (off_t)a.records[k].offset + 60, "\xff\xff\xff\xff", 4);
    autopsy_clear(&a);
    a = must_read(disk_data(&p));
    assert_false(autopsy_is_sound(&a));
    assert_true(a.count[CARVED_DAMAGED] >= 1);
    assert_int_equal(salvaged_records(&a, harness_format("%s/new", harness_disk()), &salvaged),
                     (BOXES - 1) * 3);
    assert_int_equal(salvaged.without_header, 3);
    autopsy_clear(&a);
}

/* Writes two bytes into the newest copy of a record that is no header, and sets its checksum right. at 0:
 * into its path. */
static void change_under_checksum(const struct place *p, size_t at, const char bytes[2])
{
    struct autopsy a = must_read(disk_data(p));
    size_t i = 0;
    while (!a.records[i].newest || a.records[i].head.seq == 0)
        i++;
    const struct carved *c = &a.records[i];
    uint8_t *copy = malloc(c->head.length);
    assert_non_null(copy);
    memcpy(copy, c->bytes, c->head.length);
    uint8_t *path = memmem(copy, c->head.length, p->kept, strlen(p->kept));
    assert_non_null(path);
    memcpy(at ? copy + at : path, bytes, 2);
    uint64_t sum = record_checksum(copy, c->head.length);
    memcpy(copy + offsetof(struct record_head, checksum), &sum, sizeof(sum));
    write_at(disk_data(p), (off_t)c->offset, copy, c->head.length);
    free(copy);
    autopsy_clear(&a);
}

static void a_right_checksum_is_no_form_yet(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    struct salvaged salvaged;
    change_under_checksum(&p, 0, "x/");
    struct autopsy a = must_read(disk_data(&p));
    assert_false(autopsy_is_sound(&a));
    size_t intact = a.count[CARVED_INTACT]; /* an older version may stand in for it */
    assert_in_range(intact, BOXES * 4 - 1, BOXES * 4);
    assert_int_equal(a.count[CARVED_DAMAGED], 1);
    assert_int_equal(salvaged_records(&a, harness_format("%s/new", harness_disk()), &salvaged),
                     intact - BOXES);
    assert_int_equal(salvaged.newer_version, 0);
    autopsy_clear(&a);
}

/* How many of its records are listed only. */
static size_t count_unproven(const struct autopsy *files, size_t n, const char *dir)
{
    const struct journal_options options = {.map_size = 16 << 20, .preallocate = 1 << 20};
    struct salvaged salvaged;
    struct snapshot s;
    struct rbxj_error e = {0};
    size_t unproven = 0;
    assert_ok(salvage_write(files, n, false, dir, &options, &salvaged, &e), e);
    assert_ok(snapshot_read(dir, harness_format("%s.run", dir), &s, &e), e);
    for (size_t i = 0; i < s.len; i++)
        for (size_t k = 0; k < s.boxes[i].len; k++)
            unproven += (s.boxes[i].records[k].flags & REC_UNPROVEN) != 0;
    snapshot_clear(&s);
    return unproven;
}

static void what_a_newer_version_wrote_is_no_damage_and_left_out(void **state)
{
    (void)state;
    harness_need_root();
    const uint16_t version = RECORD_VERSION + 1;
    char bytes[2];
    struct place p = make_journal();
    struct salvaged salvaged;
    memcpy(bytes, &version, sizeof(bytes));
    change_under_checksum(&p, offsetof(struct record_head, version), bytes);
    struct autopsy a = must_read(disk_data(&p));
    assert_true(autopsy_is_sound(&a));
    assert_int_equal(salvaged_records(&a, harness_format("%s/new", harness_disk()), &salvaged),
                     BOXES * 3 - 1);
    assert_int_equal(salvaged.records, BOXES * 3 - 1);
    assert_int_equal(salvaged.newer_version, 1);
    assert_int_equal(count_unproven(&a, 1, harness_format("%s/again", harness_disk())), 2); /* of its box */
    autopsy_clear(&a);
}

/* An older version is the best that is left where the newest is damaged: of a header, so that its box is not
 * lost, and of a record. Its number may be damaged, too: the tree knows it. */
static void an_older_version_stands_in_for_a_damaged_one(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    struct autopsy a = must_read(disk_data(&p));
    struct salvaged salvaged;
    size_t i = 0;
    while (a.records[i].state != CARVED_INTACT || a.records[i].head.seq != 0 ||
           a.records[i + 1].state != CARVED_SUPERSEDED)
        i++;
    const off_t places[] = {60, 20}; /* its content; its incarnation, in its head */
    for (size_t k = 0; k < ARRAY_LEN(places); k++) {
        off_t at = (off_t)a.records[i].offset + places[k];
        write_at(disk_data(&p), at, "\xff\xff\xff", 3);
        struct autopsy b = must_read(disk_data(&p));
        assert_false(autopsy_is_sound(&b));
        assert_int_equal(b.count[CARVED_DAMAGED], 1);
        assert_int_equal(b.count[CARVED_INTACT], BOXES * 4);
        const char *dir = harness_format("%s/new%zu", harness_disk(), k);
        assert_int_equal(salvaged_records(&b, dir, &salvaged), BOXES * 3);
        struct autopsy new = must_read(harness_format("%s/journal/data.mdb", dir));
        for (size_t n = 0; n < new.records_len; n++) { /* its next number is above that of its records */
            struct box box;
            const struct carved *c = &new.records[n];
            if (c->state == CARVED_INTACT && c->head.seq == 0) {
                assert_int_equal(record_decode_box(c->bytes, c->head.length, NULL, &box), 0);
                assert_int_equal(box.next_seq, 4);
            }
        }
        autopsy_clear(&new);
        autopsy_clear(&b);
    }
    autopsy_clear(&a);
}

static bool is_salvaged(const struct autopsy *a, uint64_t incarnation, uint32_t seq)
{
    for (size_t i = 0; i < a->records_len; i++)
        if (a->records[i].state == CARVED_INTACT && a->records[i].head.incarnation == incarnation &&
            a->records[i].head.seq == seq)
            return true;
    return false;
}

/* And so it is where the newest snapshot is lost, and the record damaged in the one before. */
static void an_older_version_stands_in_for_one_of_the_previous_snapshot(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    struct autopsy a = must_read(disk_data(&p));
    size_t i = 0;
    while (!a.records[i].newest || !a.records[i].previous || a.records[i + 1].state != CARVED_SUPERSEDED)
        i++;
    struct record_head head = a.records[i].head;
    write_at(disk_data(&p), (off_t)a.records[i].offset + 60, "\xff\xff\xff", 3);
    write_at(disk_data(&p), a.snapshots[0].which * 4096 + 16, "xxxx", 4);
    autopsy_clear(&a);
    a = must_read(disk_data(&p));
    assert_false(a.snapshots[0].sound);
    assert_true(a.snapshots[1].sound);
    assert_true(is_salvaged(&a, head.incarnation, head.seq));
    autopsy_clear(&a);
}

/* It was never flushed, and whatever it says, it says of that boot. */
static void k20_a_boot_journal_of_another_boot_proves_nothing(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    struct autopsy boot = must_read(harness_format("%s/data.mdb", place_folder(&p))),
                   disk = must_read(disk_data(&p));
    assert_false(autopsy_is_of_another_boot(&boot));
    assert_int_equal(count_unproven(&boot, 1, harness_format("%s/same", harness_disk())), 0);
    boot_number = 1;
    assert_true(autopsy_is_of_another_boot(&boot));
    assert_false(autopsy_is_of_another_boot(&disk));
    assert_int_equal(count_unproven(&boot, 1, harness_format("%s/other", harness_disk())), BOXES * 3);
    assert_int_equal(count_unproven(&disk, 1, harness_format("%s/disk", harness_disk())), 0);
    boot_number = 0;
    autopsy_clear(&disk);
    autopsy_clear(&boot);
}

static size_t salvaged_boxes(const struct autopsy files[2], const char *name)
{
    const struct journal_options options = {.map_size = 16 << 20, .preallocate = 1 << 20};
    struct salvaged salvaged;
    struct rbxj_error e = {0};
    assert_ok(salvage_write(files, 2, false, harness_format("%s/%s", harness_disk(), name), &options,
                            &salvaged, &e),
              e);
    return salvaged.boxes;
}

/* The disk learns of a box's end with the next commit. */
static void k20_the_boot_journal_tells_what_was_dropped(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct journal *j = place_open(&p);
    struct rbxj_error e = {0};
    (void)must_begin(j, "a", harness_format("%s/a", p.kept));
    struct box ended = must_begin(j, "ended", harness_format("%s/ended", p.kept));
    assert_ok(journal_drop(j, ended.incarnation, 1, &e), e);
    assert_ok(journal_end(j, ended.incarnation, &e), e);
    (void)must_begin(j, "v", harness_format("%s/v", p.lost));
    const char *data = harness_format("%s/data.mdb", place_folder(&p));
    struct autopsy files[2] = {must_read(data), must_read(disk_data(&p))};
    assert_true(is_salvaged(&files[1], ended.incarnation, 1));
    assert_int_equal(salvaged_boxes(files, "newest"), 2);
    autopsy_clear(&files[1]);
    /* what the disk has since */
    (void)must_begin(j, "later", harness_format("%s/later", p.kept));
    files[1] = must_read(disk_data(&p));
    assert_int_equal(salvaged_boxes(files, "later"), 3);
    autopsy_clear(&files[0]);
    autopsy_clear(&files[1]);
    place_close();
}

/* And the previous snapshot does, with the newest lost. */
static void k20_its_previous_snapshot_tells_it_too(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct journal *j = place_open(&p);
    struct rbxj_error e = {0};
    struct box ended = must_begin(j, "ended", harness_format("%s/ended", p.kept));
    assert_ok(journal_drop(j, ended.incarnation, 1, &e), e);
    assert_ok(journal_end(j, ended.incarnation, &e), e);
    (void)must_begin(j, "v", harness_format("%s/v", p.lost));
    place_close();
    const char *data = harness_format("%s/data.mdb", place_folder(&p));
    struct autopsy files[2] = {must_read(data), must_read(disk_data(&p))};
    write_at(data, files[0].snapshots[0].which * 4096 + 16, "xxxx", 4);
    autopsy_clear(&files[0]);
    files[0] = must_read(data);
    assert_true(is_salvaged(&files[1], ended.incarnation, 1));
    assert_int_equal(salvaged_boxes(files, "previous"), 1);
    autopsy_clear(&files[0]);
    autopsy_clear(&files[1]);
}

/* What is dropped is gone (I6): one snapshot that has it proves it, whatever became of the others. */
static void the_disk_proves_what_the_boot_journal_no_longer_can(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    const char *data = harness_format("%s/data.mdb", place_folder(&p));
    for (int i = 0; i < 2; i++)
        write_at(data, i * 4096 + 128, "\xff\xff\0\0\0\0\0\0", 8); /* its trees lead nowhere */
    struct autopsy files[2] = {must_read(data), must_read(disk_data(&p))};
    assert_false(files[0].snapshots[0].sound || files[0].snapshots[1].sound);
    assert_true(count_unproven(files, 1, harness_format("%s/boot", harness_disk())) >= BOXES * 3);
    size_t both = count_unproven(files, 2, harness_format("%s/both", harness_disk()));
    assert_int_equal(both, count_unproven(files, 1, harness_format("%s/again", harness_disk())) - BOXES * 3);
    autopsy_clear(&files[0]);
    autopsy_clear(&files[1]);
}

static void a_full_directory_is_not_written_to(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    const struct journal_options options = {.map_size = 16 << 20, .preallocate = 1 << 20};
    struct autopsy a = must_read(disk_data(&p));
    struct salvaged salvaged;
    struct rbxj_error e = {0};
    assert_refused(salvage_write(&a, 1, false, p.state, &options, &salvaged, &e), e, RBXJ_E_BAD_REQUEST,
                   "not empty");
    autopsy_clear(&a);
}

/* They would take each other's unfinished journal for a leftover. */
static void two_do_not_write_into_one_directory(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    const struct journal_options options = {.map_size = 16 << 20, .preallocate = 1 << 20};
    const char *dir = harness_format("%s/there", harness_disk());
    struct autopsy a = must_read(disk_data(&p));
    struct salvaged salvaged;
    struct rbxj_error e = {0};
    harness_mkdir(dir);
    int other = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(other, LOCK_EX), 0);
    assert_refused(salvage_write(&a, 1, false, dir, &options, &salvaged, &e), e, RBXJ_E_BUSY,
                   "another salvage");
    assert_int_equal(close(other), 0);
    e = (struct rbxj_error){0};
    assert_ok(salvage_write(&a, 1, false, dir, &options, &salvaged, &e), e);
    autopsy_clear(&a);
}

static void one_that_fails_leaves_nothing(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    const struct journal_options small = {.map_size = 32 << 10, .preallocate = 4096};
    const char *made = harness_format("%s/made", harness_disk()), *there = harness_format("%s/there", p.kept);
    struct autopsy a = must_read(disk_data(&p));
    struct salvaged salvaged;
    struct rbxj_error e = {0};
    assert_refused(salvage_write(&a, 1, false, made, &small, &salvaged, &e), e, RBXJ_E_JOURNAL_FULL, "map");
    assert_false(path_exists(made));
    harness_mkdir(there);
    assert_refused(salvage_write(&a, 1, false, there, &small, &salvaged, &e), e, RBXJ_E_JOURNAL_FULL, "map");
    assert_int_equal(rmdir(there), 0); /* it is empty, and was not ours to remove */
    autopsy_clear(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(a_sound_one_is_read_and_copied_as_it_is),
        journal_test(the_previous_snapshot_is_there_when_the_newest_is_lost),
        journal_test(a_damaged_transaction_number_loses_nothing),
        journal_test(the_last_box_of_this_boot_is_not_lost),
        journal_test(a_damaged_record_is_told_and_its_box_left_out),
        journal_test(a_right_checksum_is_no_form_yet),
        journal_test(what_a_newer_version_wrote_is_no_damage_and_left_out),
        journal_test(an_older_version_stands_in_for_a_damaged_one),
        journal_test(an_older_version_stands_in_for_one_of_the_previous_snapshot),
        journal_test(k20_a_boot_journal_of_another_boot_proves_nothing),
        journal_test(k20_the_boot_journal_tells_what_was_dropped),
        journal_test(k20_its_previous_snapshot_tells_it_too),
        journal_test(the_disk_proves_what_the_boot_journal_no_longer_can),
        journal_test(two_do_not_write_into_one_directory),
        journal_test(one_that_fails_leaves_nothing),
        journal_test(a_full_directory_is_not_written_to),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
