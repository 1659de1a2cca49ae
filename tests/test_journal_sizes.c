/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How large the journals are, and the boot journals that were lost (K21).
 */
#include "counters_fixture.h"

/* ---- how large the journals are ---- */

static uint64_t allocated(const char *path)
{
    struct stat st;
    assert_int_equal(lstat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static void expect_sizes(const struct place *p, uint64_t boot, uint64_t disk, uint32_t lost)
{
    struct rbxj_error e = {0};
    struct journal_size b, d;
    assert_ok(journal_sizes(p->state, p->runtime, &b, &d, &e), e);
    assert_true(b.there && d.there);
    assert_int_equal(b.records, boot);
    assert_int_equal(d.records, disk);
    assert_int_equal(b.bytes, allocated(harness_format("%s/data.mdb", place_folder(p))));
    assert_int_equal(d.bytes, allocated(harness_format("%s/journal/data.mdb", p->state)));
    assert_int_equal(b.lost, 0);
    assert_int_equal(d.lost, lost);
}

/* Everything that stat tells of the files but the access time, and their content. */
static const char *picture(const struct place *p)
{
    const char *file = harness_format("%s/picture", harness_disk());
    assert_int_equal(system(harness_format("{ find %s %s -printf '%%p %%i %%m %%n %%s %%b %%T@ %%C@\\n'; "
                                           "find %s %s -type f -exec cksum {} +; } | sort >%s",
                                           p->state, p->runtime, p->state, p->runtime, file)),
                     0);
    return harness_read(file);
}

static void k28_sizes_are_told_and_nothing_is_changed(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct journal_size b = {.records = 1}, d = b;
    assert_ok(journal_sizes(p.state, p.runtime, &b, &d, &e), e);
    assert_false(b.there || d.there || b.records || d.records || b.bytes || d.bytes || d.lost);
    assert_false(path_exists(p.runtime));
    struct journal *j = place_open(&p);
    (void)must_begin(j, "a", harness_format("%s/a", p.kept));
    (void)must_begin(j, "b", harness_format("%s/b", p.lost));
    expect_sizes(&p, 4, 2, 0); /* in the process that has them open */
    place_close();
    const char *before = picture(&p);
    expect_sizes(&p, 4, 2, 0);
    assert_string_equal(picture(&p), before);
    next_boot(&p);
    assert_ok(journal_sizes(p.state, p.runtime, &b, &d, &e), e);
    assert_false(b.there);
    assert_int_equal(d.records, 2);
}

/* Not even where they change too fast to be copied: a second close would drop the first one's locks. */
static void k28_in_the_process_that_has_them_open_nothing_is_opened_again(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    struct rbxj_error e = {0};
    struct journal_size b, d;
    (void)place_open(&p);
    pid_t busy = CHILD({
        struct rbxj_error error = {0};
        struct counters more = {.orphans = 1};
        journal_close(place_journal);
        struct journal *j = place_open(&p);
        for (;;) {
            CHECK_OK(journal_count(j, &more, &error), error);
            atomic_store(&s->step, 1);
        }
    });
    wait_for(s, 1);
    for (int i = 0; i < 500; i++)
        assert_ok(journal_sizes(p.state, p.runtime, &b, &d, &e), e);
    harness_kill(busy);
    pid_t pid = CHILD({
        const char *const files[] = {harness_format("%s/lock.mdb", place_folder(&p)),
                                     harness_format("%s/journal/lock.mdb", p.state),
                                     harness_format("%s/alive", p.state)};
        for (size_t i = 0; i < ARRAY_LEN(files); i++) {
            int fd = open(files[i], O_RDWR | O_CLOEXEC);
            CHECK(fd >= 0 && fd_record_lock(fd, F_WRLCK, 0) == -EAGAIN);
        }
    });
    assert_child(pid);
}

static void i9_one_that_can_not_be_read_does_not_hide_the_other(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct journal_size b, d;
    (void)place_open(&p);
    place_close();
    const char *data = harness_format("%s/data.mdb", place_folder(&p));
    assert_int_equal(truncate(data, 5000), 0);
    assert_refused(journal_sizes(p.state, p.runtime, &b, &d, &e), e, RBXJ_E_JOURNAL_DAMAGED,
                   place_folder(&p));
    assert_false(b.there);
    assert_true(d.there && d.bytes > 0);
    next_boot(&p);
    (void)place_open(&p);
    place_close();
    assert_int_equal(truncate(harness_format("%s/journal/data.mdb", p.state), 0), 0);
    e = (struct rbxj_error){0};
    assert_refused(journal_sizes(p.state, p.runtime, &b, &d, &e), e, RBXJ_E_JOURNAL_DAMAGED, "/journal");
    assert_true(b.there && b.bytes > 0);
    assert_false(d.there);
}

/* ---- boot journals that were lost ---- */

static void k21_lost_ones_are_told_until_somebody_has_looked(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct shared *s = shared_make();
    pid_t old = CHILD({
        struct rbxj_error error = {0};
        struct journal *j = place_open(&p);
        atomic_store(&s->step, 1);
        while (atomic_load(&s->step) < 2)
            (void)usleep(500);
        CHECK(journal_audited(j, &error) == -RBXJ_E_JOURNAL_DAMAGED);
        CHECK(strstr(error.message, "taken its place"));
    });
    wait_for(s, 1);
    assert_int_equal(system(harness_format("rm -r %s", place_folder(&p))), 0);
    struct journal *j = place_open(&p);
    expect_sizes(&p, 0, 0, 1);
    atomic_store(&s->step, 2);
    assert_child(old);
    expect_sizes(&p, 0, 0, 1);
    assert_ok(journal_audited(j, &e), e);
    expect_sizes(&p, 0, 0, 0);
    uint64_t before = atomic_load(&flushes);
    assert_ok(journal_audited(j, &e), e);
    assert_int_equal(atomic_load(&flushes), before);
    place_close();
    expect_sizes(&p, 0, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k28_sizes_are_told_and_nothing_is_changed),
        journal_test(k28_in_the_process_that_has_them_open_nothing_is_opened_again),
        journal_test(i9_one_that_can_not_be_read_does_not_hide_the_other),
        journal_test(k21_lost_ones_are_told_until_somebody_has_looked),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
