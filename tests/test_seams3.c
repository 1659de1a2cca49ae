/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Items of a box that stand in others of it, out of order (K13); rules that only a whole replay shows, in
 * another boot, too: the library's look at the boot id and at setxattr(2) comes here.
 */
#include "seams_fixture.h"

#include "base/fileid.h"
#include "journal/internal.h"

#include <sched.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <systemd/sd-id128.h>

static uint8_t boot_number; /* of the next boot; 0: the first one */

int sd_id128_get_boot(sd_id128_t *ret)
{
    static const sd_id128_t first = SD_ID128_MAKE(73, 65, 61, 6d, 73, 33, 40, 00, 80, 00, 00, 00, 00, 00, 00,
                                                  00);
    *ret = first;
    ret->bytes[15] = boot_number;
    return 0;
}

static bool stampless; /* the file system takes no attributes */

int setxattr(const char *path, const char *name, const void *value, size_t size, int flags)
{
    if (stampless && strstr(name, "rbxj")) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return (int)syscall(SYS_setxattr, path, name, value, size, flags);
}

static int teardown(void **state)
{
    boot_number = 0;
    return harness_teardown(state);
}
#define seams_test(f) cmocka_unit_test_setup_teardown(f, harness_setup, teardown)

static void run_out_of_order(const char *box, unsigned int parts)
{
    struct rbxj_error e = {0};
    (void)parts;
    struct rbxj *handle = begin_plan_here(box);
    must(rbxj_acquire(handle, box, 2, NULL, NULL, &e) == -RBXJ_E_BAD_REQUEST);
    must(!path_exists(plan[1].path));
    must(mkdir(plan[1].path, 0700) == 0);
    must(rbxj_acquired(handle, box, 2, &e) == -RBXJ_E_BAD_REQUEST);
    must(rmdir(plan[1].path) == 0);
    must_do(rbxj_acquire(handle, box, 1, NULL, NULL, &e), &e);
    must_do(rbxj_acquire(handle, box, 2, NULL, NULL, &e), &e);
}

/* It would be taken for gone with a lower one that never was. */
static void k13_k1_nothing_is_acquired_before_what_it_is_in(void **state)
{
    (void)state;
    world_open();
    harness_mkdir(in_work("m"));
    plan_is(
        (struct rbxj_resource){.kind = RBXJ_MOUNT, .path = in_work("m"), .fstype = "tmpfs", .source = "x"},
        (struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("m/in")});
    harness_kill(supervisor_fork(run_out_of_order, "a", 0));
    replay_tells(&(struct rbxj_replay){0}, 0, "a 2 present undone\na 1 present undone\n");
}

static void run_acquire_twice(const char *box, unsigned int parts)
{
    struct rbxj_error e = {0};
    (void)parts;
    struct rbxj *handle = begin_plan_here(box);
    for (uint32_t seq = 1; seq <= 2; seq++) {
        must_do(rbxj_acquire(handle, box, seq, NULL, NULL, &e), &e);
        must(rbxj_acquire(handle, box, seq, NULL, NULL, &e) == -RBXJ_E_EXISTS);
    }
}

/* A second mount on the first would be the one that the evidence names. */
static void i6_nothing_is_acquired_twice(void **state)
{
    (void)state;
    world_open();
    harness_mkdir(in_work("m"));
    plan_is(
        (struct rbxj_resource){.kind = RBXJ_MOUNT, .path = in_work("m"), .fstype = "tmpfs", .source = "x"},
        (struct rbxj_resource){.kind = RBXJ_MOUNT, .path = in_work("m"), .fstype = "tmpfs", .source = "x"});
    harness_kill(supervisor_fork(run_acquire_twice, "a", 0));
    assert_int_equal(harness_mounts_below(in_work("m")), 2);
    replay_is_clean(1);
    assert_int_equal(harness_mounts_below(in_work("m")), 0);
}

static void i6_k13_what_is_in_a_forgotten_one_is_undone(void **state)
{
    (void)state;
    struct rbxj_error e = {0};
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")},
            (struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T/in")});
    crash_with_plan("a");
    assert_int_equal(rbxj_forget(&world.options, "a", 1, "kept", &e), 0);
    replay_tells(&(struct rbxj_replay){0}, 0, "a 2 present undone\n");
    assert_true(path_exists(in_work("T")));
    assert_false(path_exists(in_work("T/in")));
}

static void run_cover_and_undo(const char *box, unsigned int parts)
{
    struct rbxj_error e = {0};
    (void)parts;
    must_do(rbxj_undo(take_plan_here(box), box, NULL, &e), &e);
}

/* The directory is in the first mount, which the second one covers: it is seen when that is gone. */
static void i8_k13_own_teardown_goes_on_as_a_replay_does(void **state)
{
    (void)state;
    world_open();
    harness_mkdir(in_work("m"));
    plan_is(
        (struct rbxj_resource){.kind = RBXJ_MOUNT, .path = in_work("m"), .fstype = "tmpfs", .source = "x"},
        (struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("m/in")},
        (struct rbxj_resource){.kind = RBXJ_MOUNT, .path = in_work("m"), .fstype = "tmpfs", .source = "x"});
    harness_kill(supervisor_fork(run_cover_and_undo, "a", 0));
    assert_int_equal(harness_mounts_below(in_work("m")), 0);
    replay_is_clean(1); /* it was not ended */
}

/* ---- what only a whole replay shows ---- */

/* The unmount itself went well; a process elsewhere has a copy. */
static void i6_what_is_not_gone_keeps_its_record(void **state)
{
    (void)state;
    int ready[2];
    char byte;
    world_open();
    harness_mkdir(in_work("m"));
    plan_is((struct rbxj_resource){
        .kind = RBXJ_MOUNT, .path = in_work("m"), .fstype = "tmpfs", .source = "x", .options = "size=1m"});
    crash_with_plan("a");
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            write(ready[1], "r", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    harness_track(pid);
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    replay_tells(&(struct rbxj_replay){0}, 1, "a 1 busy failed\n");
    assert_string_equal(state_of("a"), "stale");
    harness_kill(pid);
    replay_is_clean(1);
}

static void run_stampless(const char *box, unsigned int parts)
{
    stampless = true;
    (void)parts;
    (void)take_plan_here(box);
    char file[PATH_MAX];
    (void)snprintf(file, sizeof(file), "%s/content", plan[0].path);
    write_to(file, "of the box");
    die();
}

static void k1_where_no_stamp_can_be_set_the_evidence_is_on_disk(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    (void)supervisor_fork(run_stampless, "a", 0);
    boot_number = 1;
    replay_tells(&(struct rbxj_replay){0}, 0, "a 1 present undone\n");
}

static void run_and_fill(const char *box, unsigned int parts)
{
    (void)parts;
    (void)take_plan_here(box);
    char file[PATH_MAX];
    (void)snprintf(file, sizeof(file), "%s/content", plan[0].path);
    write_to(file, "precious");
    die();
}

/* cp -a copies stamps. In the next boot the evidence is lost, and what was born in it can't be what was
 * stamped in the boot before. (The machine's own boot is the next one here.) */
static void k1_a_stamp_on_what_was_born_in_this_boot_is_a_copy(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    (void)supervisor_fork(run_and_fill, "a", 0);
    boot_number = 1;
    replay_tells(&(struct rbxj_replay){0}, 1, "a 1 foreign refused\n");
    assert_string_equal(harness_read(in_work("T/content")), "precious");
}

/* ext4 gives an inode number out again at once. */
static void k3_an_inode_number_that_is_used_again(void **state)
{
    (void)state;
    struct stat before, after = {0};
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    crash_with_plan("a");
    assert_int_equal(stat(plan[0].path, &before), 0);
    for (int i = 0; i < 2000 && after.st_ino != before.st_ino; i++) {
        assert_int_equal(rmdir(plan[0].path), 0);
        harness_mkdir(plan[0].path);
        assert_int_equal(stat(plan[0].path, &after), 0);
    }
    if (after.st_ino != before.st_ino)
        harness_skip("inode numbers are not used again here");
    harness_write(in_work("T/precious"), "data");
    replay_tells(&(struct rbxj_replay){0}, 1, "a 1 foreign refused\n");
    assert_true(path_exists(in_work("T/precious")));
}

static void k3_device_numbers_hold_for_one_boot(void **state)
{
    (void)state;
    struct fileid a = {.fs = {1}, .fs_magic = 0xef53, .dev = makedev(8, 1), .ino = 2, .handle_len = 1}, b = a;
    b.dev = makedev(8, 9);
    assert_true(fileid_equal(&a, &b, false));
    assert_false(fileid_equal(&a, &b, true)); /* a copy of that disk */
    b.dev = a.dev;
    b.fs[0] = 2;
    assert_false(fileid_equal(&a, &b, false));
    assert_false(fileid_equal(&a, &b, true));
}

static void run_inside(const char *box, unsigned int parts)
{
    struct rbxj_box b = {.name = box, .parent = "a"};
    struct rbxj_error e = {0};
    (void)parts;
    must_do(rbxj_begin(open_here(), &b, NULL, &e), &e);
}

static void k4_i3_a_box_lives_as_long_as_one_in_it(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    pid_t outer = supervisor_fork(run_plan_and_live, "a", 0), inner = supervisor_fork(run_inside, "b", 0);
    harness_kill(outer);
    replay_tells(&(struct rbxj_replay){0}, 0, "");
    assert_true(path_exists(in_work("T")));
    assert_string_equal(state_of("a"), "live");
    harness_kill(inner);
    replay_is_clean(2);
    assert_false(path_exists(in_work("T")));
}

/* One wrong bit, and nothing is undone: neither of this box nor of another. */
static void i9_nothing_is_undone_from_a_damaged_journal(void **state)
{
    (void)state;
    struct journal_options o = {.map_size = 1 << 30, .preallocate = 4 << 20, .gate_timeout_ns = 10000000000};
    struct journal *j = NULL;
    struct rbxj_error e = {0};
    struct rbxj_result *result = NULL;
    uint8_t copy[4096];
    MDB_txn *txn;
    MDB_val data;
    world_open();
    o.state_dir = world.state;
    o.runtime_dir = world.run;
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    crash_with_plan("a");
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("U")});
    crash_with_plan("b");
    char *before = machine();
    assert_int_equal(journal_open(&o, &j, &e), 0);
    struct snapshot_box sb;
    assert_int_equal(journal_get(j, "a", &sb, &e), 0);
    struct record_key k = record_key(sb.box.incarnation, 1);
    MDB_val key = {sizeof(k), &k};
    snapshot_box_clear(&sb);
    assert_int_equal(mdb_txn_begin(j->boot.env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_get(txn, j->boot.records, &key, &data), 0);
    memcpy(copy, data.mv_data, data.mv_size);
    copy[data.mv_size - 1] ^= 1;
    data.mv_data = copy;
    assert_int_equal(mdb_put(txn, j->boot.records, &key, &data, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    journal_close(j);
    assert_int_equal(rbxj_replay(&world.options, &(struct rbxj_replay){0}, &result, &e),
                     -RBXJ_E_JOURNAL_DAMAGED);
    assert_null(result);
    is_as_before(before, "a replay of a damaged journal");
}

static void count_incidents(void *data, size_t done, size_t total)
{
    _cleanup_closedir_ DIR *dir = opendir(harness_format("%s/incidents", world.state));
    (void)done;
    (void)total;
    for (struct dirent *d; dir && (d = readdir(dir));)
        *(int *)data += path_exists(harness_format("%s/incidents/%s/incident.json", world.state, d->d_name));
}

/* While it works, not only when it has come to its end. */
static void i10_an_incident_is_there_before_the_first_undo(void **state)
{
    (void)state;
    int found = 0;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    crash_with_plan("a");
    replay_tells(&(struct rbxj_replay){.progress = count_incidents, .progress_data = &found}, 0,
                 "a 1 present undone\n");
    assert_int_equal(found, 1);
}

static void k19_what_cant_be_written_fails_no_undo(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    crash_with_plan("a");
    harness_write(harness_format("%s/incidents", world.state), "a file, not a directory");
    replay_tells(&(struct rbxj_replay){0}, 0, "a 1 present undone\n");
    assert_false(path_exists(in_work("T")));
}

static void k20_a_replays_last_act_is_a_commit(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    crash_with_plan("a");
    replay_is_clean(1);
    boot_number = 1;
    assert_null(state_of("a"));
}

static void run_on_a_mount_point(const char *box, unsigned int parts)
{
    struct rbxj_box b = {.name = box, .plan = plan, .plan_len = plan_len};
    struct rbxj_error e = {0};
    (void)parts;
    must(rbxj_begin(open_here(), &b, NULL, &e) == -RBXJ_E_PROTECTED_PATH);
}

static void k35_a_mount_point_of_a_disk_is_protected(void **state)
{
    (void)state;
    world_open();
    harness_mkdir(in_work("real"));
    harness_mkdir(in_work("m"));
    assert_int_equal(mount(in_work("real"), in_work("m"), NULL, MS_BIND, NULL), 0);
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("m")});
    harness_kill(supervisor_fork(run_on_a_mount_point, "a", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        seams_test(k13_k1_nothing_is_acquired_before_what_it_is_in),
        seams_test(i6_nothing_is_acquired_twice),
        seams_test(i8_k13_own_teardown_goes_on_as_a_replay_does),
        seams_test(i6_k13_what_is_in_a_forgotten_one_is_undone),
        seams_test(i6_what_is_not_gone_keeps_its_record),
        seams_test(k1_where_no_stamp_can_be_set_the_evidence_is_on_disk),
        seams_test(k3_an_inode_number_that_is_used_again),
        seams_test(k3_device_numbers_hold_for_one_boot),
        seams_test(k4_i3_a_box_lives_as_long_as_one_in_it),
        seams_test(i9_nothing_is_undone_from_a_damaged_journal),
        seams_test(i10_an_incident_is_there_before_the_first_undo),
        seams_test(k1_a_stamp_on_what_was_born_in_this_boot_is_a_copy),
        seams_test(k19_what_cant_be_written_fails_no_undo),
        seams_test(k20_a_replays_last_act_is_a_commit),
        seams_test(k35_a_mount_point_of_a_disk_is_protected),
    };
    cmocka_set_test_filter(getenv("RBXJ_TEST_ONLY"));
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
