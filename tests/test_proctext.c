/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The texts of /proc, parsed: real ones, and those that a name in them, or a kernel, could make misleading.
 */
#include "harness.h"

#include "base/proctext.h"

#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>

static void a_name_in_stat_misleads_nobody(void **state)
{
    (void)state;
    struct proc_stat stat;
    const char *const rest = " S 17 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 9\n";
    const char *const names[] = {"sleep", "a) Z 4 4", ") R 1 (", "\n", ""};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        assert_int_equal(proctext_stat(harness_format("42 (%s)%s", names[i], rest), &stat), 0);
        assert_int_equal(stat.state, 'S');
        assert_int_equal(stat.parent, 17);
        assert_int_equal(stat.start_time, 123456);
    }
    const char *const bad[] = {
        "",
        "42 (sleep)",
        "42 (sleep) S",
        "42 (sleep) S 17 1 1 0",
        "42 (sleep) S x 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 9\n",
        "42 (sleep) S 99999999999 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 9\n"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_int_equal(proctext_stat(bad[i], &stat), -EBADMSG);
}

static void ids_are_read(void **state)
{
    (void)state;
    assert_int_equal(proctext_tgid("Name:\tx\nUmask:\t0022\nTgid:\t4711\nNgid:\t0\n"), 4711);
    assert_int_equal(proctext_tgid("Name:\tTgid: 1\nPid:\t1\n"), 0);
    assert_int_equal(proctext_tgid("Name:\tx\nTgid:\t99999999999\n"), 0);
    assert_int_equal(proctext_mount_id("pos:\t0\nflags:\t012000000\nmnt_id:\t29\nino:\t2\n"), 29);
    assert_int_equal(proctext_mount_id("pos:\t0\n"), -ENODATA);
}

static void a_flock_is_its_inodes(void **state)
{
    (void)state;
    const char *const locks = "1: POSIX  ADVISORY  WRITE 708 fe:01:1234 0 EOF\n"
                              "2: FLOCK  ADVISORY  WRITE 708 fe:01:77 0 EOF\n"
                              "2: -> FLOCK  ADVISORY  WRITE 709 fe:01:88 0 EOF\n";
    assert_true(proctext_has_flock(locks, makedev(0xfe, 1), 77));
    assert_false(proctext_has_flock(locks, makedev(0xfe, 1), 7));
    assert_false(proctext_has_flock(locks, makedev(0xfe, 2), 77));
    assert_false(proctext_has_flock(locks, makedev(0xfe, 1), 88));   /* waits for it */
    assert_false(proctext_has_flock(locks, makedev(0xfe, 1), 1234)); /* another kind of lock */
    const char *const info = "pos:\t0\nflags:\t0100000\nmnt_id:\t29\nino:\t77\n"
                             "lock:\t1: FLOCK  ADVISORY  WRITE 708 fe:01:77 0 EOF\n";
    assert_true(proctext_shows_flock(info, 0, 77));
    assert_false(proctext_shows_flock(info, 0, 7));
    assert_false(proctext_shows_flock("pos:\t0\nino:\t77\n", 0, 77)); /* has it open only */
}

static void a_cgroup_is_known_by_its_end(void **state)
{
    (void)state;
    const char *const text = "4:memory:/other\n1:name=systemd:/user/box7\n0::/rbxj/box7/in\n";
    assert_true(proctext_is_in_cgroup(text, "/sys/fs/cgroup/rbxj/box7"));
    assert_true(proctext_is_in_cgroup(text, "/sys/fs/cgroup/unified/rbxj/box7/in"));
    assert_false(proctext_is_in_cgroup(text, "/sys/fs/cgroup/rbxj/box"));
    assert_false(proctext_is_in_cgroup("0::/\n", "/sys/fs/cgroup/rbxj/box7"));
    assert_false(proctext_is_in_cgroup("", "/sys/fs/cgroup/rbxj/box7"));
}

static void a_cgroup_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *path;
    } rows[] = {
        {"0::/rbxj/box7\n", "/rbxj/box7"},
        {"4:memory:/m:x\n1:name=systemd:/s\n0::/rbxj/box7\n", "/rbxj/box7"},
        {"9:pids:/\n4:memory:/m\n1:name=systemd:/s\n0::/\n", "/m"},
        {"9:pids:/\n0::/\n", "/"},
        {"0::/a path that is too long\n4:memory:/m\n", "/m"},
    };
    char path[16];
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        assert_true(proctext_cgroup(rows[i].text, path, sizeof(path)));
        assert_string_equal(path, rows[i].path);
    }
    assert_false(proctext_cgroup("", path, sizeof(path)));
    assert_false(proctext_cgroup("4:memory\n\n::\n", path, sizeof(path)));
}

static void every_line_is_a_pid(void **state)
{
    (void)state;
    const char *text = "1\n0\n\n22\nx\n\t\n4711";
    const pid_t want[] = {1, 0, 0, 22, 0, 0, 4711};
    pid_t pid;
    for (size_t i = 0; i < sizeof(want) / sizeof(*want); i++) {
        assert_true(proctext_next_pid(&text, &pid));
        assert_int_equal(pid, want[i]);
    }
    assert_false(proctext_next_pid(&text, &pid));
}

static void a_kernel_message_is_taken_apart(void **state)
{
    (void)state;
    struct kmsg_record r;
    assert_int_equal(proctext_kmsg("3,7001,14092730217,-;blk: I/O error; dev x\n SUBSYSTEM=block\n", &r), 0);
    assert_int_equal(r.level, 3);
    assert_int_equal(r.facility, 0);
    assert_int_equal(r.sequence, 7001);
    assert_int_equal(r.time_us, 14092730217);
    assert_int_equal(r.len, strlen("blk: I/O error; dev x"));
    assert_memory_equal(r.text, "blk: I/O error; dev x", r.len);
    assert_int_equal(proctext_kmsg("30,1,2,c,caller=T1;", &r), 0);
    assert_int_equal(r.level, 6);
    assert_int_equal(r.facility, 3);
    assert_int_equal(r.len, 0);
    const char *const bad[] = {"", "x", "3,1,2,-", "3,1;x", ";x", "3,1,99999999999999999999,-;x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_int_equal(proctext_kmsg(bad[i], &r), -EBADMSG);
}

static void a_container_says_which(void **state)
{
    (void)state;
    static const char yes[] = "A=1\0container=lxc\0B=2", empty[] = "container=\0B=2",
                      other[] = "xcontainer=lxc\0B=container=lxc";
    assert_true(proctext_names_container(yes, sizeof(yes) - 1));
    assert_false(proctext_names_container(empty, sizeof(empty) - 1));
    assert_false(proctext_names_container(other, sizeof(other) - 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(a_name_in_stat_misleads_nobody),
        harness_test(ids_are_read),
        harness_test(a_flock_is_its_inodes),
        harness_test(a_cgroup_is_known_by_its_end),
        harness_test(a_cgroup_is_named),
        harness_test(every_line_is_a_pid),
        harness_test(a_kernel_message_is_taken_apart),
        harness_test(a_container_says_which),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
