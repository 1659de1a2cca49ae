/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Opening the journals: what is refused, who may use them, and how they come to be in each boot (K9, K24,
 * K27, K33).
 */
#include "journal_fixture.h"

#include <sys/mount.h>

/* ---- what is refused (K27), and what never comes of it: an empty journal in the place of a lost one ---- */

/* Makes a journal with one box, then puts something else in the place of its data file. */
static struct place damaged(void)
{
    struct place p = place_make();
    struct journal *j = place_open(&p);
    (void)must_begin(j, "a", harness_format("%s/x", p.kept));
    place_close();
    return p;
}

static void refused(const struct place *p, const char *file, int code, const char *text)
{
    struct rbxj_error e;
    struct snapshot s;
    struct stat before, after;
    bool there = lstat(file, &before) == 0;
    assert_refused(place_try(p, &e), e, code, text);
    if (there) {
        assert_int_equal(lstat(file, &after), 0);
        assert_int_equal(before.st_ino, after.st_ino);
        assert_int_equal(before.st_size, after.st_size);
    } else {
        assert_false(path_exists(file));
    }
    if (code == RBXJ_E_JOURNAL_DAMAGED) {
        e = (struct rbxj_error){0};
        assert_refused(snapshot_read(p->state, p->runtime, &s, &e), e, code, text);
    }
}

static void k27_data_file_that_is_not_one_is_damaged(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = damaged();
    for (int boot = 0; boot < 2; boot++) {
        const char *file = harness_format(boot ? "%s/data.mdb" : "%s/journal/data.mdb",
                                          boot ? place_folder(&p) : p.state);
        const char *aside = harness_format("%s.aside", file);
        struct stat st;
        assert_int_equal(stat(file, &st), 0);
        assert_int_equal(rename(file, aside), 0);
        if (!boot) /* the boot's folder without its file: a look at it is enough for a new one */
            refused(&p, file, RBXJ_E_JOURNAL_DAMAGED, "is missing");
        assert_int_equal(symlink(aside, file), 0);
        refused(&p, file, RBXJ_E_JOURNAL_DAMAGED, "symbolic link");
        assert_int_equal(unlink(file), 0);
        assert_int_equal(mkfifo(file, 0600), 0);
        refused(&p, file, RBXJ_E_JOURNAL_DAMAGED, "not a regular file");
        assert_int_equal(unlink(file), 0);
        harness_mkdir(file);
        refused(&p, file, RBXJ_E_JOURNAL_DAMAGED, "not a regular file");
        assert_int_equal(rmdir(file), 0);
        harness_write(file, "");
        refused(&p, file, RBXJ_E_JOURNAL_DAMAGED, "is empty");
        harness_write(file, "something else");
        refused(&p, file, RBXJ_E_JOURNAL_DAMAGED, "cut short");
        assert_int_equal(unlink(file), 0);
        assert_int_equal(rename(aside, file), 0);
        assert_int_equal(truncate(file, 3 * 4096), 0); /* behind the metas, before the last page */
        refused(&p, file, RBXJ_E_JOURNAL_DAMAGED, "cut short");
        assert_int_equal(truncate(file, st.st_size), 0);
    }
}

static void k27_folder_that_is_a_symlink_is_damaged(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = damaged();
    const char *folder = harness_format("%s/journal", p.state),
               *aside = harness_format("%s/elsewhere", harness_disk());
    assert_int_equal(rename(folder, aside), 0);
    assert_int_equal(symlink(aside, folder), 0);
    refused(&p, folder, RBXJ_E_JOURNAL_DAMAGED, "symbolic link");
}

static void open_refuses_what_others_could_change(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = damaged();
    struct rbxj_error e;
    const char *data = harness_format("%s/journal/data.mdb", p.state);
    const char *dirs[] = {p.state, p.runtime};
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        assert_int_equal(chmod(dirs[i], 0770), 0);
        assert_refused(place_try(&p, &e), e, RBXJ_E_PERMISSION, "writable by others");
        assert_int_equal(chmod(dirs[i], 0700), 0);
        assert_int_equal(chown(dirs[i], 12345, 0), 0);
        assert_refused(place_try(&p, &e), e, RBXJ_E_PERMISSION, "belongs to uid 12345");
        assert_int_equal(chown(dirs[i], 0, 0), 0);
    }
    assert_int_equal(chmod(harness_disk(), 0777), 0);
    assert_refused(place_try(&p, &e), e, RBXJ_E_PERMISSION, "not sticky");
    assert_int_equal(chmod(harness_disk(), 01777), 0);
    assert_int_equal(place_try(&p, &e), 0);
    assert_int_equal(chmod(harness_disk(), 0700), 0);
    assert_int_equal(chmod(data, 0640), 0);
    refused(&p, data, RBXJ_E_PERMISSION, "0600");
    assert_int_equal(chmod(data, 0600), 0);
    assert_int_equal(chown(data, 12345, 0), 0);
    refused(&p, data, RBXJ_E_PERMISSION, "0600");
    assert_int_equal(chown(data, 0, 0), 0);
    assert_int_equal(symlink(p.state, harness_format("%s/link", harness_disk())), 0);
    p.options.state_dir = harness_format("%s/link", harness_disk());
    assert_refused(place_try(&p, &e), e, RBXJ_E_BAD_REQUEST, "not a directory");
}

static void open_refuses_a_newer_format(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = damaged();
    struct journal *j = place_open(&p);
    struct rbxj_error e;
    uint32_t format = JOURNAL_FORMAT + 1;
    MDB_txn *txn;
    assert_int_equal(mdb_txn_begin(j->disk.env, NULL, 0, &txn), 0);
    assert_int_equal(meta_put(txn, j->disk.meta, META_FORMAT, &format, sizeof(format)), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    place_close();
    assert_refused(place_try(&p, &e), e, RBXJ_E_BAD_REQUEST, "format 2");
}

/* ---- one handle per process ---- */

static void open_is_once_per_process_and_not_for_children(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct journal *j = place_open(&p);
    struct rbxj_error e;
    assert_refused(place_try(&p, &e), e, RBXJ_E_BAD_REQUEST, "open already");
    struct box box = must_begin(j, "a", harness_format("%s/x", p.lost));
    pid_t pid = CHILD({
        struct rbxj_error error;
        struct snapshot s;
        struct snapshot_box sb;
        struct record r = intent(RBXJ_TMPDIR, harness_format("%s/y", p.lost));
        struct box other = {.name = "b"};
        CHECK(journal_begin(j, &other, NULL, 0, NULL) == -RBXJ_E_FORKED);
        CHECK(journal_intend(j, box.incarnation, &r, NULL) == -RBXJ_E_FORKED);
        CHECK(journal_update(j, &r, false, NULL) == -RBXJ_E_FORKED);
        CHECK(journal_drop(j, box.incarnation, 1, NULL) == -RBXJ_E_FORKED);
        CHECK(journal_end(j, box.incarnation, NULL) == -RBXJ_E_FORKED);
        CHECK(journal_claim(j, box.incarnation, NULL) == -RBXJ_E_FORKED);
        CHECK(journal_get(j, "a", &sb, NULL) == -RBXJ_E_FORKED);
        CHECK(journal_snapshot(j, &s, NULL) == -RBXJ_E_FORKED);
        CHECK(journal_flush(j, NULL) == -RBXJ_E_FORKED);
        /* one of its own; what is done with the inherited one does not hurt it */
        struct journal *own;
        CHECK(journal_open(&p.options, &own, &error) == 0);
        CHECK(begin_one(own, "b", r.path, &error) == 0);
        journal_close(j);
        CHECK(begin_one(own, "c", NULL, &error) == 0);
        CHECK(fd_record_holder(own->alive_fd, ALIVE_OPEN_BYTE, NULL) == 1);
        pid_t looker = fork();
        if (looker == 0)
            _exit(fd_record_holder(own->alive_fd, alive_slot(1), NULL) != 0);
        CHECK(waitpid(looker, NULL, 0) == looker);
    });
    assert_child(pid);
    assert_int_equal(begin_one(j, "d", NULL, &e), 0);
    place_close();
}

static void open_keeps_every_descriptor_from_payloads(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    bool before[64];
    for (int fd = 0; fd < 64; fd++)
        before[fd] = fcntl(fd, F_GETFD) >= 0;
    struct journal *j = place_open(&p);
    (void)must_begin(j, "a", harness_format("%s/x", p.kept));
    int seen = 0;
    for (int fd = 0; fd < 64; fd++) {
        int flags = fcntl(fd, F_GETFD);
        if (before[fd] || flags < 0)
            continue;
        seen++;
        assert_true(flags & FD_CLOEXEC);
    }
    assert_true(seen >= 7); /* two directories, alive, and data and lock file of both */
    place_close();
}

static void open_on_a_closed_alive_file_fails_the_call(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct journal *j = place_open(&p);
    struct rbxj_error e;
    (void)close(j->alive_fd);
    assert_refused(begin_one(j, "a", NULL, &e), e, RBXJ_E_BAD_REQUEST, "descriptor was closed");
    j->alive_fd = -1;
    place_close();
}

/* ---- where the state directory is not (K33) ---- */

static void k33_state_directory_is_never_made(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct snapshot s;
    assert_int_equal(rmdir(p.state), 0);
    assert_refused(place_try(&p, &e), e, RBXJ_E_IO, p.state);
    assert_false(path_exists(p.state));
    assert_ok(snapshot_read(p.state, p.runtime, &s, &e), e);
    assert_true(s.nothing);
    assert_false(path_exists(p.state));
}

static void k33_empty_state_directory_beside_a_boot_journal_is_damaged(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = damaged();
    struct rbxj_error e;
    struct snapshot s;
    /* as if its disk were not mounted */
    assert_int_equal(mount("none", p.state, "tmpfs", 0, "mode=0700"), 0);
    assert_refused(place_try(&p, &e), e, RBXJ_E_JOURNAL_DAMAGED, "not mounted?");
    assert_false(path_exists(harness_format("%s/alive", p.state)));
    e = (struct rbxj_error){0};
    assert_refused(snapshot_read(p.state, p.runtime, &s, &e), e, RBXJ_E_JOURNAL_DAMAGED, "not mounted?");
    assert_int_equal(umount(p.state), 0);
    assert_int_equal(place_try(&p, &e), 0);
}

static void k33_another_state_directory_is_refused(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = damaged();
    struct rbxj_error e;
    /* a copy with the same instance id, in its place */
    const char *aside = harness_format("%s.old", p.state);
    assert_int_equal(rename(p.state, aside), 0);
    assert_int_equal(system(harness_format("cp -a %s %s", aside, p.state)), 0);
    assert_refused(place_try(&p, &e), e, RBXJ_E_JOURNAL_DAMAGED, "not mounted?");
    /* one with another */
    assert_int_equal(system(harness_format("rm -rf %s && mkdir -m 0700 %s", p.state, p.state)), 0);
    struct place other = p;
    other.options.runtime_dir = harness_format("%s/run2", harness_tmpfs());
    assert_int_equal(place_try(&other, &e), 0);
    assert_refused(place_try(&p, &e), e, RBXJ_E_JOURNAL_DAMAGED, "does not belong");
}

static void open_after_a_kill_at_any_step_works(void **state)
{
    (void)state;
    harness_need_root();
    /* each half-made thing that a killed opener may leave */
    struct place p = place_make();
    struct rbxj_error e;
    harness_write(harness_format("%s/alive", p.state), "");
    harness_mkdir(harness_format("%s/making", p.state));
    harness_write(harness_format("%s/making/data.mdb", p.state), "half");
    assert_int_equal(place_try(&p, &e), 0);
    assert_false(path_exists(harness_format("%s/making", p.state)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k27_data_file_that_is_not_one_is_damaged),
        journal_test(k27_folder_that_is_a_symlink_is_damaged),
        journal_test(open_refuses_what_others_could_change),
        journal_test(open_refuses_a_newer_format),
        journal_test(open_is_once_per_process_and_not_for_children),
        journal_test(open_keeps_every_descriptor_from_payloads),
        journal_test(open_on_a_closed_alive_file_fails_the_call),
        journal_test(k33_state_directory_is_never_made),
        journal_test(k33_empty_state_directory_beside_a_boot_journal_is_damaged),
        journal_test(k33_another_state_directory_is_refused),
        journal_test(open_after_a_kill_at_any_step_works),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
