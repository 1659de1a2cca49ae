/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Which records are found in a file, whatever it is, and at what cost (I9, K28).
 */
#include "salvage_fixture.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

/* The library's reading comes here: a writer may come between the first piece and the next. */
static struct shared *between;
static int disturbed; /* so often it does */

ssize_t pread(int fd, void *buf, size_t len, off_t offset)
{
    if (disturbed && offset == 65536) {
        int turn = atomic_fetch_add(&between->step, 1) + 1;
        int64_t deadline = now_monotonic_ns() + 30000000000;
        disturbed--;
        while (atomic_load(&between->stop) < turn && now_monotonic_ns() < deadline)
            (void)usleep(100);
    }
    return syscall(SYS_pread64, fd, buf, len, offset);
}

/* The last page of the newest snapshot on which a record is. */
static off_t last_page_of(const struct autopsy *a)
{
    uint64_t last = 0;
    for (size_t i = 0; i < a->records_len; i++)
        if (a->records[i].newest && a->records[i].offset > last)
            last = a->records[i].offset;
    return (off_t)(last / 4096 * 4096);
}

/* Trees that can't be followed lose no record that is whole. */
static void what_is_whole_is_found_without_the_trees(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    uint8_t zeros[4096] = {0};
    struct salvaged salvaged;
    struct autopsy a = must_read(disk_data(&p));
    /* both metas' main trees lead nowhere */
    for (int i = 0; i < 2; i++)
        write_at(disk_data(&p), i * 4096 + 128, zeros, 8);
    autopsy_clear(&a);
    a = must_read(disk_data(&p));
    assert_false(autopsy_is_sound(&a));
    assert_false(a.snapshots[0].sound);
    assert_true(a.count[CARVED_INTACT] >= BOXES * 4);
    (void)salvaged_records(&a, harness_format("%s/new", harness_disk()), &salvaged);
    assert_in_range(salvaged.boxes, BOXES, BOXES + 4); /* those that ended can't be told any more */
    autopsy_clear(&a);
}

/* Meta page 0 has the page size, and tells where the other one is; but that one says of itself where it
 * is. */
static void a_lost_meta_page_hides_not_the_other(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    const char *copy = harness_format("%s/copy", harness_disk());
    uint8_t zeros[4096] = {0};
    char *bytes;
    ssize_t len = fd_read_all(AT_FDCWD, disk_data(&p), 64 << 20, &bytes);
    assert_true(len > 0);
    for (int lost = 0; lost < 2; lost++) {
        _cleanup_close_ int fd = open(copy, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_int_equal(fd_write_all(fd, bytes, (size_t)len), 0);
        write_at(copy, (off_t)lost * 4096, zeros, sizeof(zeros));
        struct autopsy a = must_read(copy);
        assert_false(autopsy_is_sound(&a));
        assert_false(a.metas[lost].sound);
        assert_int_equal(a.snapshots[1].which, !lost);
        assert_true(a.snapshots[1].sound);
        assert_in_range(a.count[CARVED_INTACT], BOXES * 4, (BOXES + 4) * 4); /* the last to end */
        autopsy_clear(&a);
    }
    free(bytes);
}

/* The write of a meta page was lost, more than once: what it says was true then. Each snapshot vouches for
 * its number. */
static void a_stale_meta_page_is_not_the_newest(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct journal *j = place_open(&p);
    struct rbxj_error e = {0};
    const char *data = harness_format("%s/data.mdb", place_folder(&p));
    uint8_t metas[2][4096];
    struct box ended = must_begin(j, "ended", harness_format("%s/ended", p.lost));
    _cleanup_close_ int fd = open(data, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, metas, sizeof(metas), 0), sizeof(metas));
    assert_ok(journal_drop(j, ended.incarnation, 1, &e), e);
    assert_ok(journal_end(j, ended.incarnation, &e), e);
    (void)must_begin(j, "a", harness_format("%s/a", p.lost));
    (void)must_begin(j, "b", harness_format("%s/b", p.lost));
    place_close();
    char *bytes;
    ssize_t len = fd_read_all(AT_FDCWD, data, 64 << 20, &bytes);
    assert_true(len > 0);
    for (int stale = 0; stale < 2; stale++) {
        write_at(data, 0, bytes, (size_t)len);
        write_at(data, (off_t)stale * 4096, metas[stale], sizeof(metas[stale]));
        struct autopsy a = must_read(data);
        assert_false(autopsy_is_sound(&a));
        assert_int_equal(a.snapshots[1].which, !stale);
        for (size_t i = 0; i < a.records_len; i++)
            if (a.records[i].head.incarnation == ended.incarnation)
                assert_int_not_equal(a.records[i].state, CARVED_INTACT);
        autopsy_clear(&a);
    }
    free(bytes);
}

static void anything_may_be_read(void **state)
{
    (void)state;
    struct autopsy a;
    struct rbxj_error e = {0};
    const char *path = harness_format("%s/file", harness_disk());
    harness_write(path, "");
    a = must_read(path);
    assert_false(autopsy_is_sound(&a));
    assert_int_equal(a.records_len, 0);
    autopsy_clear(&a);
    harness_write(path, "RBXJ RBXJ no record at all RBXJ");
    a = must_read(path);
    assert_int_equal(a.records_len, 0);
    autopsy_clear(&a);
    assert_refused(autopsy_read(AT_FDCWD, harness_disk(), "here", &a, &e), e, RBXJ_E_BAD_REQUEST, "regular");
    e = (struct rbxj_error){0};
    assert_true(autopsy_read(AT_FDCWD, "/nowhere", "nowhere", &a, &e) < 0);
    assert_int_equal(e.errnum, ENOENT);
}

static bool is_found(const struct autopsy *a, const struct carved *wanted)
{
    for (size_t i = 0; i < a->records_len; i++)
        if (a->records[i].offset == wanted->offset)
            return a->records[i].state != CARVED_DAMAGED;
    return false;
}

static void a_truncated_one_gives_what_is_left(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    struct autopsy whole = must_read(disk_data(&p));
    off_t page = last_page_of(&whole);
    size_t before = 0, n = 0;
    assert_int_equal(truncate(disk_data(&p), page), 0);
    struct autopsy a = must_read(disk_data(&p));
    assert_false(autopsy_is_sound(&a));
    assert_false(a.snapshots[0].sound);
    for (size_t i = 0; i < whole.records_len; i++) {
        const struct carved *c = &whole.records[i];
        bool is_before = (off_t)c->offset < page;
        before += is_before;
        n += is_found(&a, c);
        assert_int_equal(is_found(&a, c), is_before);
    }
    assert_true(before > 0 && n < whole.records_len);
    autopsy_clear(&a);
    autopsy_clear(&whole);
}

/* Forensics, and who only reads: damaged to one of them, damaged to all. */
static void assert_all_call_it_damaged(const struct place *p, const char *data)
{
    struct autopsy a = must_read(data);
    struct snapshot s = {0};
    struct rbxj_error e = {0};
    assert_false(autopsy_is_sound(&a));
    assert_true(a.snapshots[0].sound); /* its structure is */
    autopsy_clear(&a);
    int r = snapshot_read(p->state, p->runtime, &s, &e);
    assert_true(r == -RBXJ_E_JOURNAL_DAMAGED || (r == 0 && s.damaged > 0));
    snapshot_clear(&s);
}

static void what_is_at_another_key_is_damage(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    const char *data = harness_format("%s/data.mdb", place_folder(&p));
    struct autopsy a = must_read(data);
    size_t i = 0;
    while (!a.records[i].newest || a.records[i].head.seq != 3)
        i++;
    off_t key = (off_t)a.records[i].offset - (off_t)sizeof(struct record_key);
    assert_int_equal(a.file.bytes[key + 11], 3);
    autopsy_clear(&a);
    write_at(data, key + 11, "\x7f", 1); /* in order with the others still */
    assert_all_call_it_damaged(&p, data);
}

/* A name that its meta database needs, misspelt in every copy of it. */
static void what_every_journal_has_is_missed(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_journal();
    const char *const names[] = {META_FORMAT, META_INSTANCE, META_GENERATION, META_POSITION, DB_MARKS};
    const char *data = harness_format("%s/data.mdb", place_folder(&p));
    char *bytes;
    ssize_t len = fd_read_all(AT_FDCWD, data, 64 << 20, &bytes);
    assert_true(len > 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        size_t name = strlen(names[i]);
        for (char *at = bytes; (at = memmem(at, (size_t)(bytes + len - at), names[i], name)); at += name)
            write_at(data, at - bytes + (off_t)name - 1, "m", 1);
        assert_all_call_it_damaged(&p, data);
        struct rbxj_error e;
        if (strcmp(names[i], META_POSITION) != 0) /* which is read with the first write */
            assert_int_equal(place_try(&p, &e), -RBXJ_E_JOURNAL_DAMAGED);
        write_at(data, 0, bytes, (size_t)len);
    }
    free(bytes);
}

/* On a damaged list of free pages LMDB writes wherever that leads. Neither memory nor time go by the file's
 * length. */
static void a_page_far_away_costs_nothing(void **state)
{
    (void)state;
    struct place p = make_journal();
    const char *path = harness_format("%s/far", harness_tmpfs()); /* some others hold no such file */
    const off_t far[] = {(off_t)1 << 30, (off_t)1 << 50};
    char *bytes;
    ssize_t len = fd_read_all(AT_FDCWD, disk_data(&p), 64 << 20, &bytes);
    assert_true(len > 0);
    for (size_t i = 0; i < ARRAY_LEN(far); i++) {
        struct rusage before, after;
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_int_equal(fd_write_all(fd, bytes, (size_t)len), 0);
        write_at(path, far[i], bytes, 4096);
        assert_int_equal(getrusage(RUSAGE_SELF, &before), 0);
        struct autopsy a = must_read(path);
        assert_int_equal(getrusage(RUSAGE_SELF, &after), 0);
        assert_in_range(after.ru_maxrss - before.ru_maxrss, 0, 256 << 10);
        assert_int_equal(a.count[CARVED_INTACT], BOXES * 4);
        assert_int_equal(a.file.size, far[i] + 4096);
        autopsy_clear(&a);
    }
    free(bytes);
}

/* Heads that claim a quarter of a mebibyte each, one in the other: the work is bounded by the length of the
 * file. */
static void heads_in_heads_cost_little(void **state)
{
    (void)state;
    struct place p = make_journal();
    const char *path = harness_format("%s/heads", harness_tmpfs());
    const size_t n = (32 << 20) / sizeof(struct record_head);
    struct record_head head = {.magic = RECORD_MAGIC, .version = 1, .type = RECORD_BOX, .length = RECORD_MAX};
    char *journal;
    ssize_t len = fd_read_all(AT_FDCWD, disk_data(&p), 64 << 20, &journal);
    FILE *f = fopen(path, "we");
    assert_true(f && len > 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(fwrite(&head, sizeof(head), 1, f), 1);
    assert_int_equal(fwrite(journal, (size_t)len, 1, f), 1);
    assert_int_equal(fclose(f), 0);
    free(journal);
    struct timespec before, after;
    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before), 0);
    struct autopsy a = must_read(path);
    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after), 0);
    assert_in_range(after.tv_sec - before.tv_sec, 0, 5); /* unbounded: twice as many, and more */
    assert_true(a.count[CARVED_INTACT] >= BOXES * 4);
    assert_true(a.count[CARVED_DAMAGED] >= n);
    autopsy_clear(&a);
}

/* What a box wrote into a lock file that was there before must not be taken for a record. */
static void nothing_that_a_box_writes_looks_like_a_record(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct record forged = {.kind = RBXJ_TMPDIR, .path = strdup("/etc"), .incarnation = 7, .seq = 1};
    uint8_t *bytes;
    size_t len;
    assert_int_equal(record_encode(&forged, 1, &bytes, &len), 0);
    record_clear(&forged);
    struct journal *j = place_open(&p);
    struct box box = must_begin(j, "a", NULL);
    struct record lock = intent(RBXJ_LOCK, harness_format("%s/lock", p.kept));
    struct rbxj_error e = {0};
    lock.content = bytes;
    lock.content_len = len;
    random_bytes(lock.nonce, sizeof(lock.nonce));
    assert_ok(journal_intend(j, box.incarnation, &lock, &e), e);
    struct snapshot s;
    assert_ok(journal_snapshot(j, &s, &e), e);
    assert_int_equal(s.boxes[0].records[0].content_len, len);
    assert_memory_equal(s.boxes[0].records[0].content, bytes, len);
    snapshot_clear(&s);
    record_clear(&lock);
    place_close();
    struct autopsy a = must_read(disk_data(&p));
    for (size_t i = 0; i < a.records_len; i++)
        assert_int_not_equal(a.records[i].head.incarnation, 7);
    assert_int_equal(a.count[CARVED_INTACT], 2);
    autopsy_clear(&a);
}

/* More boxes than lie in what is read first; some more in each turn. */
static void write_in_turns(const struct place *p, struct shared *s)
{
    struct journal *j = place_open(p);
    for (int turn = 0;; turn++) {
        struct rbxj_error e = {0};
        while (atomic_load(&s->step) < turn)
            (void)usleep(100);
        for (int i = 0; i < (turn ? 20 : 400); i++)
            CHECK(begin_one(j, harness_format("t%d-%d", turn, i), NULL, &e) == 0);
        atomic_store(&s->stop, turn);
        atomic_store(&s->value[0], 1);
    }
}

static void k28_what_is_read_at_several_moments_is_no_damage(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    pid_t writer = CHILD(write_in_turns(&p, s));
    for (int i = 0; i < 30000 && !atomic_load(&s->value[0]); i++)
        (void)usleep(1000);
    const char *data = harness_format("%s/data.mdb", place_folder(&p));
    struct rbxj_error e = {0};
    struct autopsy a;
    between = s;
    disturbed = 3;
    int r = autopsy_read(AT_FDCWD, data, data, &a, &e), left = disturbed;
    disturbed = 0;
    assert_ok(r, e);
    assert_int_equal(left, 0);
    assert_true(autopsy_is_sound(&a));
    autopsy_clear(&a);
    disturbed = INT_MAX;
    r = autopsy_read(AT_FDCWD, data, data, &a, &e);
    disturbed = 0;
    assert_refused(r, e, RBXJ_E_JOURNAL_BUSY, "too fast");
    harness_kill(writer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(what_is_whole_is_found_without_the_trees),
        journal_test(a_lost_meta_page_hides_not_the_other),
        journal_test(what_is_at_another_key_is_damage),
        journal_test(what_every_journal_has_is_missed),
        journal_test(a_stale_meta_page_is_not_the_newest),
        journal_test(anything_may_be_read),
        journal_test(a_truncated_one_gives_what_is_left),
        journal_test(a_page_far_away_costs_nothing),
        journal_test(heads_in_heads_cost_little),
        journal_test(nothing_that_a_box_writes_looks_like_a_record),
        journal_test(k28_what_is_read_at_several_moments_is_no_damage),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
