/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the kernel says of a time: which of its messages are wanted, a real one that this test brings about,
 * and its taint (I10).
 */
#include "harness.h"
#include "oom_fixture.h"

#include "base/cleanup.h"
#include "reaper/kernel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int word_of(unsigned int priority, const char *text)
{
    struct kmsg_record r = {
        .level = priority & 7, .facility = priority >> 3, .text = text, .len = strlen(text)};
    return kernel_word_of(&r);
}

static void what_is_wanted(void **state)
{
    (void)state;
    assert_int_equal(word_of(4, "process 'x' started with executable stack"), KERNEL_NOTED);
    assert_int_equal(word_of(6, "EXT4-fs (loop0): mounted filesystem"), -1);
    assert_int_equal(word_of(6, "oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/7"), KERNEL_NOTED);
    assert_int_equal(word_of(3, "Memory cgroup out of memory: Killed process 1 (x)"), KERNEL_OOM_CGROUP);
    assert_int_equal(word_of(3, "Out of memory: Killed process 1 (x) total-vm:4kB"), KERNEL_OOM_MACHINE);
    assert_int_equal(word_of(3, "INFO: task x:1 blocked for more than 120 seconds."), KERNEL_HUNG_TASK);
    assert_int_equal(word_of(3, "rcu: INFO: rcu_sched self-detected stall on CPU"), KERNEL_HUNG_TASK);
    assert_int_equal(word_of(0, "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [x:1]"), KERNEL_BUG);
    assert_int_equal(word_of(1, "BUG: kernel NULL pointer dereference, address: 0"), KERNEL_BUG);
    assert_int_equal(word_of(0, "mce: [Hardware Error]: CPU 0: Machine Check Exception"), KERNEL_BUG);
    assert_int_equal(word_of(3, "I/O error, dev sda, sector 1 op 0x1"), KERNEL_IO_ERROR);
    assert_int_equal(word_of(2, "EXT4-fs error (device sda1): ext4_find_entry"), KERNEL_IO_ERROR);
    assert_int_equal(word_of(3, ""), KERNEL_NOTED);
}

/* Names of processes are in messages; and whoever may write to /dev/kmsg is another facility. */
static void a_name_is_no_bug(void **state)
{
    (void)state;
    assert_int_equal(word_of(4, "BUG: x invoked oom-killer: gfp_mask=0xcc0"), KERNEL_NOTED);
    assert_int_equal(word_of(6, "BUG: x[12]: segfault at 0 ip 0 sp 0 error 4 in x"), -1);
    assert_int_equal(word_of(3, "INFO: taskforce"), KERNEL_NOTED);
    assert_int_equal(word_of(3, "a task: BUG: x"), KERNEL_NOTED);
    assert_int_equal(word_of(1 << 3 | 3, "BUG: kernel NULL pointer dereference"), -1);
}

/* ---- a real one ---- */

static const struct kernel_line *find(const struct kernel_log *log, const char *text)
{
    for (size_t i = 0; i < log->len; i++)
        if (strstr(kernel_log_line(log, i)->text, text))
            return kernel_log_line(log, i);
    return NULL;
}

static void a_real_oom_kill_is_read(void **state)
{
    (void)state;
    (void)oom_hierarchy();
    const char *group = harness_cgroup_root("memory") ? harness_cgroup_v1("memory") : harness_cgroup();
    struct kernel_log *log = kernel_log_read(now_realtime_ns());
    assert_non_null(log);
    int error = log->error;
    free(log);
    if (error == -ENOENT || error == -EPERM)
        harness_skip("/dev/kmsg: %s", strerror(-error));
    assert_int_equal(error, 0);
    oom_limit(group);
    const char *name = oom_name("oom");
    int64_t before_ns = now_realtime_ns();
    oom_kill_in(group, name);
    log = kernel_log_read(before_ns - 10000000000); /* the clocks are not the same */
    assert_non_null(log);
    assert_int_equal(log->error, 0);
    const struct kernel_line *line = find(log, harness_format("(%s)", name));
    assert_non_null(line);
    assert_int_equal(line->word, KERNEL_OOM_CGROUP);
    assert_true(line->at_ns >= before_ns - 60000000000 && line->at_ns <= now_realtime_ns() + 60000000000);
    for (size_t i = 1; i < log->len; i++)
        assert_true(kernel_log_line(log, i - 1)->sequence < kernel_log_line(log, i)->sequence);
    assert_true(kernel_log_line(log, log->len - 1)->sequence < log->next);
    free(log);
    log = kernel_log_read(now_realtime_ns() + 10000000000); /* of a later time, it is none */
    assert_non_null(log);
    assert_null(find(log, name));
    free(log);
}

static int error_of(void)
{
    struct kernel_log *log = kernel_log_read(0);
    assert_non_null(log);
    int error = log->error;
    assert_true(error == 0 || log->len == 0);
    free(log);
    return error;
}

/* Another thing in its place is not read, nor waited for. */
static void what_is_not_the_log(void **state)
{
    (void)state;
    harness_need_root();
    if (!path_exists("/dev/kmsg"))
        harness_skip("there is no /dev/kmsg");
    const char *pipe = harness_format("%s/pipe", harness_disk()),
               *file = harness_format("%s/file", harness_disk());
    assert_int_equal(mkfifo(pipe, 0600), 0);
    harness_write(file, "0,1,1,-;BUG: x\n");
    const char *const others[] = {pipe, file, "/dev/null"};
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        assert_int_equal(mount(others[i], "/dev/kmsg", NULL, MS_BIND, NULL), 0);
        int error = error_of();
        assert_int_equal(umount("/dev/kmsg"), 0);
        assert_int_equal(error, -ENODEV);
    }
}

static void without_the_privilege(void **state)
{
    (void)state;
    harness_need_root();
    if (error_of() != 0)
        harness_skip("/dev/kmsg can't be read here");
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int r = prctl(PR_CAPBSET_DROP, 34 /* CAP_SYSLOG */) | setuid(65534);
        _exit(r < 0 ? 1 : -error_of());
    }
    harness_track(pid);
    int status = harness_wait(pid);
    assert_true(WIFEXITED(status));
    bool restricted = harness_read("/proc/sys/kernel/dmesg_restrict")[0] == '1';
    assert_true(restricted ? WEXITSTATUS(status) == EPERM || WEXITSTATUS(status) == EACCES
                           : WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == EACCES);
}

/* ---- taint ---- */

static void taint_is_decoded(void **state)
{
    (void)state;
    uint64_t taint = UINT64_MAX;
    assert_int_equal(kernel_taint_read(&taint), 0);
    assert_int_equal(taint, strtoull(harness_read("/proc/sys/kernel/tainted"), NULL, 10));
    assert_string_equal(kernel_taint_word(0), "proprietary_module");
    assert_string_equal(kernel_taint_word(4), "machine_check");
    assert_string_equal(kernel_taint_word(7), "oops");
    assert_string_equal(kernel_taint_word(14), "soft_lockup");
    assert_null(kernel_taint_word(63));
    assert_null(kernel_taint_word(64));
    for (unsigned int bit = 0; bit < 64; bit++)
        if (KERNEL_TAINT_TROUBLE >> bit & 1)
            assert_non_null(kernel_taint_word(bit));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(what_is_wanted),          harness_test(a_name_is_no_bug),
        harness_test(a_real_oom_kill_is_read), harness_test(what_is_not_the_log),
        harness_test(without_the_privilege),   harness_test(taint_is_decoded),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
