/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reading without a trace (K28): from the outside, on read-only mounts, from a copy; and what is damaged
 * (I9). While others write: test_snapshot_race.c.
 */
#include "snapshot_fixture.h"

#include <dirent.h>
#include <xxhash.h>

/* ---- a picture of a directory: names, content, and everything that stat tells but the access time ---- */

static void picture_file(XXH3_state_t *hash, int dirfd, const char *name)
{
    struct stat st;
    assert_int_equal(fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
    memset(&st.st_atim, 0, sizeof(st.st_atim));
    XXH3_64bits_update(hash, name, strlen(name));
    XXH3_64bits_update(hash, &st, sizeof(st));
    if (!S_ISREG(st.st_mode))
        return;
    _cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_NOATIME | O_CLOEXEC);
    _cleanup_free_ char *buf = malloc(1 << 16);
    ssize_t n;
    while ((n = read(fd, buf, 1 << 16)) > 0)
        XXH3_64bits_update(hash, buf, (size_t)n);
    assert_int_equal(n, 0);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void picture_dir(XXH3_state_t *hash, const char *dir)
{
    char *names[64] = {NULL};
    size_t n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d));)
        if (strcmp(entry->d_name, "..") != 0)
            names[n++] = harness_format("%s", entry->d_name);
    qsort(names, n, sizeof(*names), compare);
    for (size_t i = 0; i < n; i++) {
        picture_file(hash, dirfd(d), names[i]);
        char *path = harness_format("%s/%s", dir, names[i]);
        struct stat st;
        assert_int_equal(lstat(path, &st), 0);
        if (S_ISDIR(st.st_mode) && strcmp(names[i], ".") != 0)
            picture_dir(hash, path);
    }
    (void)closedir(d);
}

static uint64_t picture(const struct place *p)
{
    XXH3_state_t *hash = XXH3_createState();
    (void)XXH3_64bits_reset(hash);
    picture_dir(hash, p->state);
    picture_dir(hash, p->runtime);
    uint64_t sum = XXH3_64bits_digest(hash);
    (void)XXH3_freeState(hash);
    return sum;
}

static void has_boxes(const struct place *p, size_t n)
{
    static const char *const names[] = {"a", "b", "c"};
    struct rbxj_error e = {0};
    struct snapshot s;
    assert_ok(snapshot_read(p->state, p->runtime, &s, &e), e);
    assert_int_equal(s.len, n);
    assert_int_equal(s.damaged, 0);
    for (size_t i = 0; i < s.len; i++)
        assert_string_equal(s.boxes[i].box.name, names[i]); /* in the order begun */
    if (n) {
        assert_int_equal(box_liveness(NULL, p->state, &s.boxes[0].box), LIVE_DEAD);
        assert_string_equal(s.boxes[0].records[0].path, harness_format("%s/a", p->kept));
    }
    snapshot_clear(&s);
}

static void k28_reading_changes_no_byte(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_boxes();
    uint64_t before = picture(&p);
    has_boxes(&p, 3);
    assert_true(picture(&p) == before);
    boot_number++; /* a boot that has no journal yet: the disk's */
    has_boxes(&p, 1);
    assert_true(picture(&p) == before);
}

static void k28_reading_nothing_makes_nothing(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct snapshot s;
    for (int i = 0; i < 3; i++) {
        assert_ok(snapshot_read(p.state, p.runtime, &s, &e), e);
        assert_true(s.nothing);
        assert_int_equal(snapshot_is_nothing(p.state, p.runtime, &e), 1);
        assert_false(path_exists(p.runtime));
        if (i == 0)
            harness_write(harness_format("%s/alive", p.state),
                          ""); /* all that a killed first opener may leave */
        if (i == 1)
            assert_int_equal(system(harness_format("rm -r %s", p.state)), 0);
    }
}

static void k28_reading_works_on_read_only_mounts(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_boxes();
    read_only(p.state);
    read_only(p.runtime);
    has_boxes(&p, 3);
    boot_number++;
    has_boxes(&p, 1);
}

static void k28_reading_works_from_a_copy(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_boxes(), copy = p;
    copy.state = harness_format("%s/state-copy", harness_disk());
    copy.runtime = harness_format("%s/run-copy", harness_disk());
    assert_int_equal(
        system(harness_format("cp -a %s %s && cp -a %s %s", p.state, copy.state, p.runtime, copy.runtime)),
        0);
    assert_int_equal(system(harness_format("rm -r %s %s", p.state, p.runtime)), 0);
    has_boxes(&copy, 3);
    boot_number++; /* another machine */
    has_boxes(&copy, 1);
}

/* A process that has the journal open must not lose its locks to its own look, under any spelling. */
static void k9_reading_keeps_the_locks_of_this_process(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct snapshot s;
    struct journal *j = place_open(&p);
    struct box box = must_begin(j, "a", NULL);
    const char *state_dir = harness_format("%s/../state", p.state),
               *runtime = harness_format("%s/../run", p.runtime);
    assert_ok(snapshot_read(state_dir, runtime, &s, &e), e);
    box = s.boxes[0].box;
    box.supervisor.pid_ns++; /* as from another namespace: its slot is looked at */
    (void)box_liveness(NULL, state_dir, &box);
    snapshot_clear(&s);
    pid_t pid = CHILD({
        CHECK(fd_record_holder(j->alive_fd, ALIVE_OPEN_BYTE, NULL) == 1);
        CHECK(fd_record_holder(j->alive_fd, alive_slot(box.incarnation), NULL) == 1);
    });
    assert_child(pid);
}

/* ---- damage ---- */

static void i9_damaged_record_is_counted_and_its_box_marked(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    struct box a = must_begin(j, "a", harness_format("%s/a", p.lost)),
               b = must_begin(j, "b", harness_format("%s/b", p.lost));
    MDB_txn *txn;
    struct record_key keys[] = {record_key(a.incarnation, 1), record_key(b.incarnation, 0)};
    struct snapshot s;
    struct snapshot_box sb;
    assert_int_equal(intend(j, &a, RBXJ_LOCK, harness_format("%s/l", p.lost), &e), 0);
    assert_int_equal(mdb_txn_begin(j->boot.env, NULL, 0, &txn), 0);
    for (size_t i = 0; i < 2; i++) {
        MDB_val key = {sizeof(keys[i]), &keys[i]}, data;
        uint8_t copy[1024];
        assert_int_equal(mdb_get(txn, j->boot.records, &key, &data), 0);
        memcpy(copy, data.mv_data, data.mv_size);
        copy[data.mv_size - 1] ^= 1;
        data.mv_data = copy;
        assert_int_equal(mdb_put(txn, j->boot.records, &key, &data, 0), 0);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
    assert_ok(journal_snapshot(j, &s, &e), e);
    assert_int_equal(s.damaged, 2);
    assert_int_equal(s.len, 1);
    assert_int_equal(s.boxes[0].damaged, 1); /* K24: it is not undone */
    assert_int_equal(s.boxes[0].len, 1);
    snapshot_clear(&s);
    assert_refused(journal_get(j, "a", &sb, &e), e, RBXJ_E_JOURNAL_DAMAGED, "box a");
    e = (struct rbxj_error){0};
    assert_refused(journal_get(j, "b", &sb, &e), e, RBXJ_E_JOURNAL_DAMAGED, "box b");
    e = (struct rbxj_error){0};
    assert_refused(journal_drop(j, a.incarnation, 1, &e), e, RBXJ_E_JOURNAL_DAMAGED, "seq 1");
    e = (struct rbxj_error){0};
    assert_refused(journal_end(j, a.incarnation, &e), e, RBXJ_E_LEFT, "seq 1");
    /* its name stays taken, the others go on */
    e = (struct rbxj_error){0};
    assert_refused(begin_one(j, "b", NULL, &e), e, RBXJ_E_JOURNAL_DAMAGED, "header");
    assert_int_equal(begin_one(j, "c", harness_format("%s/c", p.kept), &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k28_reading_changes_no_byte),
        journal_test(k28_reading_nothing_makes_nothing),
        journal_test(k28_reading_works_on_read_only_mounts),
        journal_test(k28_reading_works_from_a_copy),
        journal_test(k9_reading_keeps_the_locks_of_this_process),
        journal_test(i9_damaged_record_is_counted_and_its_box_marked),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
