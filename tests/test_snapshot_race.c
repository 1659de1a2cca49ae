/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reading while others write (K28), and what LMDB is shown of a journal that nobody has validated (K27).
 */
#include "snapshot_fixture.h"

#include <sys/syscall.h>

/* A box with one record or two, as fast as it can. */
static void churn(const struct place *p, struct shared *s, int number)
{
    struct rbxj_error e;
    struct journal *j = place_open(p);
    char name[16], path[4200];
    (void)snprintf(name, sizeof(name), "w%d", number);
    (void)snprintf(path, sizeof(path), "%s/w%d", p->lost, number);
    struct box box = {0};
    const char *paths = path;
    CHECK(begin(j, &box, name, &paths, 1, &e) == 0);
    atomic_fetch_add(&s->step, 1);
    for (uint32_t seq = 2; !atomic_load(&s->stop); seq++) {
        CHECK(intend(j, &box, RBXJ_LOCK, harness_format("%s/l", path), &e) == 0);
        CHECK(journal_drop(j, box.incarnation, seq, &e) == 0);
    }
}

static void k28_reading_while_others_write_is_consistent(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    pid_t pids[2];
    for (int i = 0; i < 2; i++)
        pids[i] = CHILD(churn(&p, s, i));
    wait_for(s, 2);
    for (int i = 0; i < 200; i++) {
        struct rbxj_error e = {0};
        struct snapshot snapshot;
        assert_ok(snapshot_read(p.state, p.runtime, &snapshot, &e), e);
        assert_int_equal(snapshot.damaged, 0);
        assert_int_equal(snapshot.len, 2);
        for (int k = 0; k < 2; k++)
            assert_in_range(snapshot.boxes[k].len, 1, 2);
        snapshot_clear(&snapshot);
    }
    atomic_store(&s->stop, 1);
    for (int i = 0; i < 2; i++)
        assert_child(pids[i]);
}

/* The library's copying comes here: with a fast writer, the journal has moved on after every piece. */
static struct shared *fast_writer;

/* So many readings of both meta pages have that writer between the one and the other. */
static struct shared *between;
static int torn;

static bool unsteady; /* whoever looks again sees something else, of no meaning to LMDB */

static void let_write(struct shared *writer)
{
    int turn = atomic_fetch_add(&writer->step, 1) + 1;
    int64_t deadline = now_monotonic_ns() + 30000000000;
    while (atomic_load(&writer->value[0]) < (uint64_t)turn && now_monotonic_ns() < deadline)
        (void)usleep(100);
}

static ssize_t read_torn(int fd, uint8_t *buf, size_t len)
{
    ssize_t n = syscall(SYS_pread64, fd, buf, 4096, 0), rest;
    let_write(between);
    let_write(between);
    rest = syscall(SYS_pread64, fd, buf + 4096, len - 4096, 4096);
    return n < 0 || rest < 0 ? -1 : n + rest;
}

ssize_t pread(int fd, void *buf, size_t len, off_t offset)
{
    if (torn && len == 65536 && offset == 0) {
        torn--;
        return read_torn(fd, buf, len);
    }
    if (unsteady && len == 152) {
        ssize_t n = syscall(SYS_pread64, fd, buf, len, offset);
        ((uint8_t *)buf)[8] ^= 1;
        return n;
    }
    /* before the metas are read, with or without a slot, and at the look at them after what they name was
     * read; LMDB's, too */
    if (fast_writer && (len == 65536 || len == 152))
        let_write(fast_writer);
    return syscall(SYS_pread64, fd, buf, len, offset);
}

static void write_in_turns(const struct place *p, struct shared *s)
{
    struct rbxj_error e;
    struct journal *j = place_open(p);
    atomic_store(&s->value[1], 1);
    for (uint64_t turn = 1;; turn++) {
        while (atomic_load(&s->step) < (int)turn)
            (void)usleep(100);
        for (int i = 0; i < 2; i++)
            CHECK(begin_one(j, harness_format("t%lu-%d", turn, i), NULL, &e) == 0);
        atomic_store(&s->value[0], turn);
    }
}

/* Its journal is open. */
static pid_t start_writer(const struct place *p, struct shared *s)
{
    pid_t writer = CHILD(write_in_turns(p, s));
    for (int i = 0; i < 30000 && !atomic_load(&s->value[1]); i++)
        (void)usleep(1000);
    assert_true(atomic_load(&s->value[1]));
    return writer;
}

static void k28_too_fast_for_a_copy_takes_a_reader_or_says_busy(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_boxes();
    struct shared *s = shared_make();
    struct rbxj_error e = {0};
    struct snapshot snapshot;
    pid_t writer = start_writer(&p, s);
    fast_writer = s;
    int r = snapshot_read(p.state, p.runtime, &snapshot, &e);
    fast_writer = NULL;
    assert_ok(r, e);
    int turns = atomic_load(&s->step);
    assert_true(turns >= 5); /* so many tries, and one that nobody can disturb */
    assert_int_equal(snapshot.len, 3 + 2 * turns);
    snapshot_clear(&snapshot);
    read_only(p.runtime); /* no reader slot can be had there: pages would be used again below it */
    fast_writer = s;
    r = snapshot_read(p.state, p.runtime, &snapshot, &e);
    fast_writer = NULL;
    assert_refused(r, e, RBXJ_E_JOURNAL_BUSY, "too fast");
    harness_kill(writer);
    e = (struct rbxj_error){0};
    assert_ok(snapshot_read(p.state, p.runtime, &snapshot, &e), e);
    assert_int_equal(snapshot.len, 3 + 2 * atomic_load(&s->step));
    snapshot_clear(&snapshot);
}

/* The meta pages are not read at one moment, however often; neither from outside nor through a reader
 * slot. */
static void k28_metas_of_different_moments_are_no_damage(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_boxes();
    struct shared *s = shared_make();
    struct rbxj_error e = {0};
    struct snapshot snapshot;
    pid_t writer = start_writer(&p, s);
    between = s;
    for (int open = 0; open < 2; open++) {
        struct journal *j = open ? place_open(&p) : NULL;
        torn = 12;
        int r = open ? journal_snapshot(j, &snapshot, &e) : snapshot_read(p.state, p.runtime, &snapshot, &e);
        int left = torn;
        torn = 0;
        assert_ok(r, e);
        assert_int_equal(left, 0);
        snapshot_clear(&snapshot);
        if (open)
            assert_true(atomic_load(&j->boot.sound->ino) != 0); /* nobody has to look at it as a whole */
    }
    harness_kill(writer);
}

/* The main database's root page of the newest snapshot, as LMDB dies of it. */
static void damage_root(const char *data)
{
    uint64_t txn[2], root;
    uint16_t lower = 0;
    _cleanup_close_ int fd = open(data, O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pread(fd, &txn[i], sizeof(txn[i]), i * 4096 + 144), sizeof(txn[i]));
    assert_int_equal(pread(fd, &root, sizeof(root), (txn[1] > txn[0]) * 4096 + 128), sizeof(root));
    assert_int_equal(pwrite(fd, &lower, sizeof(lower), (off_t)root * 4096 + 12), sizeof(lower));
}

static void k27_reader_slot_shows_lmdb_nothing_that_is_damaged(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = make_boxes();
    struct rbxj_error e = {0};
    struct snapshot snapshot;
    unsteady = true;
    int r = snapshot_read(p.state, p.runtime, &snapshot, &e);
    unsteady = false;
    assert_ok(r, e);
    assert_int_equal(snapshot.len, 3);
    snapshot_clear(&snapshot);
    damage_root(harness_format("%s/data.mdb", place_folder(&p)));
    pid_t reader = CHILD({
        (void)signal(SIGSEGV, SIG_DFL); /* cmocka's would go on in the child */
        unsteady = true;
        r = snapshot_read(p.state, p.runtime, &snapshot, &e);
        CHECK(r == -RBXJ_E_JOURNAL_DAMAGED);
    });
    assert_child(reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k28_reading_while_others_write_is_consistent),
        journal_test(k27_reader_slot_shows_lmdb_nothing_that_is_damaged),
        journal_test(k28_too_fast_for_a_copy_takes_a_reader_or_says_busy),
        journal_test(k28_metas_of_different_moments_are_no_damage),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
