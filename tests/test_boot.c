/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One truth per boot (K20), and what becomes of a boot journal that vanishes within its boot (K21).
 */
#include "journal_fixture.h"

#include <stdatomic.h>
#include <sys/syscall.h>

static void k20_records_of_an_earlier_boot_are_copied_unchanged(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct snapshot before, after;
    struct journal *j = place_open(&p);
    struct box a = must_begin(j, "a", harness_format("%s/a", p.kept));
    assert_int_equal(intend(j, &a, RBXJ_TMPDIR, harness_format("%s/a2", p.lost), &e), 0);
    (void)must_begin(j, "volatile", harness_format("%s/v", p.lost));
    (void)must_begin(j, "b", harness_format("%s/b", p.kept));
    assert_ok(journal_flush(j, &e), e);
    assert_ok(journal_snapshot(j, &before, &e), e);
    place_close();
    uint64_t covered = disk_look(&p).covered;

    next_boot(&p);
    j = place_open(&p);
    assert_ok(journal_snapshot(j, &after, &e), e);
    assert_int_equal(after.len, 2);
    const char *const names[] = {"a", "b"};
    for (size_t i = 0; i < 2; i++) {
        const struct snapshot_box *x = find_box(&before, names[i]), *y = find_box(&after, names[i]);
        assert_non_null(y);
        assert_memory_equal(&x->box, &y->box, sizeof(x->box));
        assert_int_equal(x->len, y->len);
        for (size_t k = 0; k < x->len; k++) {
            assert_string_equal(x->records[k].path, y->records[k].path);
            assert_int_equal(x->records[k].position, y->records[k].position);
            assert_int_equal(y->records[k].flags & REC_PENDING, 0);
        }
        /* its boot id says that it is of an earlier one */
        assert_int_equal(box_liveness(j, p.state, &y->box), LIVE_DEAD);
    }
    assert_int_equal(find_box(&after, "a")->len, 2);
    assert_memory_not_equal(after.boot_id, find_box(&after, "a")->box.supervisor.boot_id, 16);
    /* the first new entry is above everything that was covered */
    struct box c = must_begin(j, "c", harness_format("%s/c", p.kept));
    struct snapshot_box sb;
    assert_ok(journal_get(j, "c", &sb, &e), e);
    assert_true(sb.records[0].position > covered);
    assert_true(c.incarnation != a.incarnation);
    snapshot_box_clear(&sb);
    snapshot_clear(&before);
    snapshot_clear(&after);
    /* names and paths of the dead are taken until they are undone */
    assert_refused(begin_one(j, "a", NULL, &e), e, RBXJ_E_BOX_STALE, "dead supervisor");
    assert_refused(begin_one(j, "d", harness_format("%s/a/below", p.kept), &e), e, RBXJ_E_EXISTS, "box a");
    place_close();
    assert_int_equal(disk_look(&p).headers, 3);
    assert_int_equal(disk_look(&p).generations, 0);
}

/* What is dropped in the new boot goes from the disk too, at the latest by the flush that ends a replay. */
static void k20_drops_in_the_new_boot_reach_the_disk(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    struct box a = must_begin(j, "a", harness_format("%s/a", p.kept));
    place_close();
    next_boot(&p);
    j = place_open(&p);
    assert_ok(journal_claim(j, a.incarnation, &e), e);
    assert_ok(journal_drop(j, a.incarnation, 1, &e), e);
    assert_ok(journal_end(j, a.incarnation, &e), e);
    assert_ok(journal_flush(j, &e), e);
    assert_int_equal(begin_one(j, "a", harness_format("%s/a", p.kept), &e), 0);
    place_close();
    assert_int_equal(disk_look(&p).headers, 1);
    assert_int_equal(disk_look(&p).records, 1);
}

static void k20_unfinished_and_foreign_folders_are_removed_unread(void **state)
{
    (void)state;
    harness_need_root();
    /* on a disk, where folders of another boot stay */
    struct place p = place_in(harness_disk(), harness_disk());
    struct journal *j = place_open(&p);
    (void)must_begin(j, "volatile", harness_format("%s/v", p.lost));
    place_close();
    const char *old = place_folder(&p);
    boot_number++;
    const char *own = place_folder(&p),
               *making = harness_format("%s/journal-making-%s", p.runtime, strrchr(own, '-') + 1);
    harness_mkdir(making);
    harness_write(harness_format("%s/data.mdb", making), "garbage");
    harness_write(harness_format("%s/data.mdb", old), "garbage: unread");
    harness_write(harness_format("%s/journal-of-mine", p.runtime), "not ours");
    j = place_open(&p);
    struct snapshot s;
    struct rbxj_error e = {0};
    assert_ok(journal_snapshot(j, &s, &e), e);
    assert_int_equal(s.len, 0);
    snapshot_clear(&s);
    assert_false(path_exists(old));
    assert_false(path_exists(making));
    assert_true(path_exists(harness_format("%s/journal-of-mine", p.runtime)));
    assert_true(path_exists(own));
}

/* ---- K21 ---- */

static void k21_vanished_boot_journal_fails_intents_and_records_nothing(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    struct box a = must_begin(j, "a", harness_format("%s/a", p.lost));
    const char *folder = place_folder(&p), *aside = harness_format("%s/aside", harness_tmpfs());
    assert_int_equal(rename(folder, aside), 0);
    assert_refused(begin_one(j, "b", harness_format("%s/b", p.lost), &e), e, RBXJ_E_JOURNAL_DAMAGED,
                   "removed or replaced");
    assert_refused(begin_one(j, "c", harness_format("%s/c", p.kept), &e), e, RBXJ_E_JOURNAL_DAMAGED,
                   "removed or replaced");
    assert_refused(intend(j, &a, RBXJ_TMPDIR, harness_format("%s/a2", p.lost), &e), e, RBXJ_E_JOURNAL_DAMAGED,
                   folder);
    assert_int_equal(rename(aside, folder), 0);
    struct snapshot s;
    assert_ok(journal_snapshot(j, &s, &e), e);
    assert_int_equal(s.len, 1);
    assert_int_equal(s.boxes[0].len, 1);
    snapshot_clear(&s);
    /* lock.mdb alone: somebody else would make a new one, and two would write at once */
    const char *lock = harness_format("%s/lock.mdb", folder);
    assert_int_equal(unlink(lock), 0);
    assert_refused(begin_one(j, "b", NULL, &e), e, RBXJ_E_JOURNAL_DAMAGED, "removed or replaced");
    place_close();
    assert_int_equal(disk_look(&p).headers, 0);
}

/* A supervisor of the lost one neither succeeds nor commits; the loss is noted until it was audited. */
static void k21_second_generation_is_noted_and_the_first_one_commits_nothing(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct shared *s = shared_make();
    pid_t old = CHILD({
        struct rbxj_error error;
        struct journal *j = place_open(&p);
        CHECK(begin_one(j, "a", harness_format("%s/a", p.kept), &error) == 0);
        atomic_store(&s->step, 1);
        while (atomic_load(&s->step) < 2)
            (void)usleep(500);
        CHECK(begin_one(j, "b", harness_format("%s/b", p.kept), &error) == -RBXJ_E_JOURNAL_DAMAGED);
        error = (struct rbxj_error){0};
        CHECK(commit_through(j, 1000, true, &error) == -RBXJ_E_JOURNAL_DAMAGED);
        CHECK(strstr(error.message, "taken its place"));
    });
    wait_for(s, 1);
    assert_int_equal(system(harness_format("rm -r %s", place_folder(&p))), 0);
    struct journal *j = place_open(&p);
    atomic_store(&s->step, 2);
    assert_child(old);
    struct snapshot snapshot;
    assert_ok(journal_snapshot(j, &snapshot, &e), e);
    assert_int_equal(snapshot.len, 1);
    assert_non_null(find_box(&snapshot, "a"));
    snapshot_clear(&snapshot);
    assert_int_equal(begin_one(j, "b", harness_format("%s/b", p.kept), &e), 0);
    place_close();
    struct disk d = disk_look(&p);
    assert_int_equal(d.generations, 1);
    assert_int_equal(d.headers, 2);
    boot_number++;
    (void)place_open(&p);
    place_close();
    assert_int_equal(disk_look(&p).generations, 1); /* the next boot does not forgive it */
}

static void k21_container_restart_is_no_lost_generation(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    p.options.always = true;
    for (int i = 0; i < 2; i++) {
        (void)place_open(&p);
        place_close();
        assert_int_equal(system(harness_format("rm -r %s", p.runtime)), 0);
    }
    assert_int_equal(disk_look(&p).generations, 0);
    (void)place_open(&p);
    place_close();
    p.options.always = false; /* somebody who did not send everything to disk was here */
    (void)place_open(&p);
    place_close();
    assert_int_equal(system(harness_format("rm -r %s", p.runtime)), 0);
    (void)place_open(&p);
    place_close();
    assert_int_equal(disk_look(&p).generations, 1);
}

/* Killed between the disk's commit and the rename, and again before the gate was made: nobody has used that
 * journal. */
static void k21_creator_that_died_at_the_end_has_lost_nothing(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct snapshot snapshot;
    struct journal *j = place_open(&p);
    (void)must_begin(j, "a", harness_format("%s/a", p.kept));
    place_close();
    boot_number++;
    (void)place_open(&p);
    place_close();
    const char *folder = place_folder(&p);
    const char *making = harness_format("%s/journal-making-%s", p.runtime, strrchr(folder, '-') + 1);
    for (int gate = 1; gate >= 0; gate--) {
        assert_int_equal(rename(folder, making), 0);
        if (!gate)
            assert_int_equal(unlink(harness_format("%s/gate", making)), 0);
        j = place_open(&p);
        assert_ok(journal_snapshot(j, &snapshot, &e), e);
        assert_non_null(find_box(&snapshot, "a"));
        snapshot_clear(&snapshot);
        assert_int_equal(begin_one(j, gate ? "b" : "c", NULL, &e), 0);
        place_close();
        assert_false(path_exists(making));
        assert_int_equal(disk_look(&p).generations, 0);
    }
    /* one of an earlier generation is no excuse for the one that is missing */
    const char *kept = harness_format("%s/kept", p.runtime);
    assert_int_equal(rename(folder, kept), 0);
    for (uint32_t lost = 1; lost <= 2; lost++) {
        (void)place_open(&p);
        place_close();
        assert_int_equal(disk_look(&p).generations, lost);
        assert_int_equal(system(harness_format("rm -r %s", folder)), 0);
        assert_int_equal(lost == 1 ? rename(kept, making) : 0, 0);
    }
}

static void k21_in_use_elsewhere_is_refused_naming_pid_and_directory(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make(), other = p;
    struct rbxj_error e;
    struct shared *s = shared_make();
    pid_t holder = CHILD({
        (void)place_open(&p);
        atomic_store(&s->step, 1);
        pause();
    });
    wait_for(s, 1);
    other.options.runtime_dir = harness_format("%s/run2", harness_tmpfs());
    assert_refused(place_try(&other, &e), e, RBXJ_E_JOURNAL_DAMAGED,
                   harness_format("in use by pid %d with runtime directory %s", holder, p.runtime));
    boot_number++;
    assert_refused(place_try(&p, &e), e, RBXJ_E_JOURNAL_DAMAGED, harness_format("in use by pid %d", holder));
    boot_number--;
    assert_true(path_exists(place_folder(&p)));
    assert_int_equal(place_try(&p, &e), 0);
    harness_kill(holder);
    assert_int_equal(place_try(&other, &e), 0);
}

/* ---- K25, where the gate is lost ---- */

static _Atomic bool stops_in_flush;

int fdatasync(int fd)
{
    if (atomic_exchange(&stops_in_flush, false))
        (void)raise(SIGSTOP);
    return (int)syscall(SYS_fdatasync, fd);
}

static void k25_a_stopped_writer_of_a_lost_generation_is_named(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e;
    int status;
    pid_t old = CHILD({
        struct rbxj_error error;
        struct journal *j = place_open(&p);
        atomic_store(&stops_in_flush, true);
        CHECK(begin_one(j, "a", harness_format("%s/a", p.kept), &error) == -RBXJ_E_JOURNAL_DAMAGED);
    });
    assert_int_equal(waitpid(old, &status, WUNTRACED), old);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(system(harness_format("rm -r %s", place_folder(&p))), 0);
    p.options.gate_timeout_ns = 200000000;
    assert_refused(place_try(&p, &e), e, RBXJ_E_JOURNAL_BUSY, harness_format("held by pid %d", old));
    assert_int_equal(kill(old, SIGCONT), 0);
    assert_child(old);
    struct journal *j = place_open(&p);
    assert_int_equal(begin_one(j, "b", harness_format("%s/b", p.kept), &e), 0);

    /* one of it who had begun to write before it could see that it is lost */
    struct shared *s = shared_make();
    pid_t other = CHILD({
        int fd = open(harness_format("%s/alive", p.state), O_RDWR | O_CLOEXEC);
        CHECK(fd >= 0 && fd_record_lock(fd, F_WRLCK, ALIVE_DISK_BYTE) == 0);
        atomic_store(&s->step, 1);
        pause();
    });
    wait_for(s, 1);
    assert_refused(begin_one(j, "c", harness_format("%s/c", p.kept), &e), e, RBXJ_E_JOURNAL_BUSY,
                   harness_format("held by pid %d", other));
    harness_kill(other);
    assert_int_equal(begin_one(j, "c", harness_format("%s/c", p.kept), &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k20_records_of_an_earlier_boot_are_copied_unchanged),
        journal_test(k20_drops_in_the_new_boot_reach_the_disk),
        journal_test(k20_unfinished_and_foreign_folders_are_removed_unread),
        journal_test(k21_vanished_boot_journal_fails_intents_and_records_nothing),
        journal_test(k21_second_generation_is_noted_and_the_first_one_commits_nothing),
        journal_test(k21_container_restart_is_no_lost_generation),
        journal_test(k21_creator_that_died_at_the_end_has_lost_nothing),
        journal_test(k21_in_use_elsewhere_is_refused_naming_pid_and_directory),
        journal_test(k25_a_stopped_writer_of_a_lost_generation_is_named),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
