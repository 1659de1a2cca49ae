/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A data file that is shorter than its newest transaction says: LMDB never writes the pages at its end that
 * were freed by the transaction that took them. It is whole all the same, as long as no page that is used is
 * missing (K26, K27).
 */
#include "journal_fixture.h"

static int signals; /* come while it is asked */

/* A file system that reserves nothing. */
int fallocate64(int fd, int mode, off_t offset, off_t len)
{
    (void)fd;
    (void)mode;
    (void)offset;
    (void)len;
    errno = signals > 0 ? EINTR : EOPNOTSUPP;
    signals -= signals > 0;
    return -1;
}

/* The number of pages that the newest meta page tells of, and that are there. */
static void measure(const struct place *p, uint64_t *ret_told, uint64_t *ret_there)
{
    uint64_t meta[2][19];
    struct stat st;
    char *path = harness_format("%s/journal/data.mdb", p->state);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pread(fd, meta[i], sizeof(meta[i]), i * 4096), sizeof(meta[i]));
    *ret_told = meta[meta[1][18] > meta[0][18]][17] + 1; /* mm_txnid, mm_last_pg */
    *ret_there = (uint64_t)st.st_size / 4096;
}

/* A directory on the tmpfs of so long a path that a record of what is in it takes pages of its own. */
static char *deep_directory(const struct place *p)
{
    char *path = harness_format("%s", p->lost);
    while (strlen(path) < RECORD_PATH_MAX - 500) {
        path = harness_format("%s/%0240u", path, 0);
        harness_mkdir(path);
    }
    return path;
}

/* Many records that come and go within one commit of the disk journal. */
static void shorten(const struct place *p, struct journal *j)
{
    uint64_t told, there;
    char path[RECORD_PATH_MAX], *deep = deep_directory(p);
    struct rbxj_error e = {0};
    struct box box = must_begin(j, "a", harness_format("%s/a", p->kept));
    for (int round = 0; round < 20; round++) {
        uint32_t first = box.next_seq, n = 4 + 3 * (uint32_t)round;
        for (uint32_t i = 0; i < n; i++) {
            (void)snprintf(path, sizeof(path), "%s/%0200u", deep, i);
            assert_ok(intend(j, &box, RBXJ_TMPDIR, path, &e), e);
        }
        for (uint32_t i = 0; i < n; i++)
            assert_ok(journal_drop(j, box.incarnation, first + i, &e), e);
        box.next_seq += n;
        (void)must_begin(j, harness_format("b%d", round), harness_format("%s/b%d", p->kept, round));
        measure(p, &told, &there);
        if (told > there)
            return;
    }
    fail_msg("the file was never short");
}

static void k27_file_that_ends_early_is_whole(void **state)
{
    (void)state;
    struct place p = place_make();
    struct snapshot s;
    struct rbxj_error e = {0};
    shorten(&p, place_open(&p));
    place_close();
    next_boot(&p);
    assert_ok(snapshot_read(p.state, p.runtime, &s, &e), e);
    assert_non_null(find_box(&s, "a"));
    snapshot_clear(&s);
    (void)place_open(&p);
    (void)must_begin(place_journal, "c", harness_format("%s/c", p.kept));
    assert_ok(journal_snapshot(place_journal, &s, &e), e);
    assert_non_null(find_box(&s, "a"));
    assert_non_null(find_box(&s, "c"));
    snapshot_clear(&s);
}

/* One page less, and that one is used. */
static void k27_file_that_was_cut_is_refused(void **state)
{
    (void)state;
    struct place p = place_make();
    struct rbxj_error e = {0};
    uint64_t told, there;
    shorten(&p, place_open(&p));
    place_close();
    next_boot(&p);
    measure(&p, &told, &there);
    char *path = harness_format("%s/journal/data.mdb", p.state);
    assert_int_equal(truncate(path, (off_t)((there - 1) * 4096)), 0);
    assert_refused(place_try(&p, &e), e, RBXJ_E_JOURNAL_DAMAGED, "cut short");
}

/* A tmpfs breaks it off at any signal, before Linux 6.12 or so, even at one that restarts calls. */
static void k26_a_signal_is_no_full_disk(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    signals = 3;
    struct journal *j = place_open(&p);
    assert_int_equal(signals, 0);
    signals = 3;
    assert_ok(begin_one(j, "a", NULL, &e), e);
    assert_int_equal(signals, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k27_file_that_ends_early_is_whole),
        journal_test(k27_file_that_was_cut_is_refused),
        journal_test(k26_a_signal_is_no_full_disk),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
