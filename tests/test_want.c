/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Want of descriptors says nothing about what is there: whoever meets it fails, and takes nothing for gone,
 * for empty, for another, or for nobody's (K1, K3, K4, K8, K10, K33, I10). (Every call of a whole life
 * failing once is tried by crash/crash_fail.c.)
 */
#include "seccomp_fixture.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"
#include "reaper/incident_store.h"
#include "reaper/mountinfo.h"
#include "reaper/undo.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* In a child, in which what earlier calls have found is not known: with no descriptor left to be had. */
static void without_descriptors(int (*run)(void))
{
    int status;
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit none = {.rlim_cur = 0, .rlim_max = 4096};
        _exit(setrlimit(RLIMIT_NOFILE, &none) < 0 ? 100 : -run());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), EMFILE);
}

static int open_fd;
static pid_t other;

static int ask_identity(void)
{
    struct fileid id;
    return fileid_of_fd(open_fd, &id);
}

static void k3_identity_is_not_another_one(void **state)
{
    (void)state;
    open_fd = open(harness_disk(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(open_fd >= 0);
    without_descriptors(ask_identity);
    (void)close(open_fd);
}

static int ask_emptiness(void)
{
    return fd_dir_is_empty(open_fd);
}

static void k1_directory_is_not_empty(void **state)
{
    (void)state;
    open_fd = open(harness_disk(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(open_fd >= 0);
    without_descriptors(ask_emptiness);
    (void)close(open_fd);
}

static int ask_whose_journal(void)
{
    struct rbxj_error e = {0};
    int r = copy_check_state(open_fd, "data.mdb", "run", open_fd, "state", &e);
    return r < 0 ? -e.errnum : 0;
}

/* Else the journal on the disk would count as missing, and the worker be quarantined. */
static void k33_the_boot_journal_is_not_of_this_state_directory(void **state)
{
    (void)state;
    open_fd = open(harness_disk(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(open_fd >= 0);
    harness_write(harness_format("%s/data.mdb", harness_disk()), "what is in it was not read");
    without_descriptors(ask_whose_journal);
    (void)close(open_fd);
}

static struct box box;

static int ask_liveness(void)
{
    enum liveness live;
    return box_find_liveness(NULL, harness_disk(), &box, &live);
}

static void k8_supervisor_is_not_dead_nor_unknown(void **state)
{
    (void)state;
    other = harness_spawn(NULL);
    assert_int_equal(procid_of(other, &box.supervisor), 0);
    without_descriptors(ask_liveness);
}

static int ask_to_kill(void)
{
    struct snapshot_box sb = {.box = box};
    struct snapshot snapshot = {.boxes = &sb, .len = 1};
    struct undo u = {.snapshot = &snapshot, .ancestors = {getpid()}, .ancestors_len = 1};
    struct finding f = {0};
    int r = guard_kill(&u, other, &f); /* a box's supervisor, perhaps */
    return r < 0 && f.found == FOUND_BUSY ? -f.error.errnum : 0;
}

static int ask_to_kill_a_parent(void)
{
    struct undo u = {0};
    struct finding f = {0};
    (void)guard_kill(&u, getppid(), &f);
    return -f.error.errnum;
}

static void k4_nobody_is_killed(void **state)
{
    (void)state;
    other = harness_spawn(NULL);
    assert_int_equal(procid_of(other, &box.supervisor), 0);
    without_descriptors(ask_to_kill);
    without_descriptors(ask_to_kill_a_parent);
}

/* ---- a list that can't be read to its end, a link that can't be read ---- */

/* In this process from now on: that call on that descriptor. */
static void fail_on(long call, int fd, int errnum)
{
    seccomp_when(call, 0, (uint32_t)fd, SECCOMP_RET_ERRNO | (uint32_t)errnum);
}

/* The n-th descriptor that is opened from now on. */
static int next_fd(int n)
{
    int fds[4] = {0};
    for (int i = 0; i < n; i++)
        fds[i] = dup(STDERR_FILENO);
    for (int i = 0; i < n; i++)
        (void)close(fds[i]);
    return fds[n - 1];
}

static int ask_liveness_without_pidfds(void)
{
    enum liveness live = LIVE_DEAD;
    seccomp_fail(SYS_pidfd_open, ENOSYS);
    return box_find_liveness(NULL, harness_disk(), &box, &live) == 0 && live == LIVE_UNKNOWN ? 0 : 1;
}

static void k8_nobody_is_dead_where_pidfds_are_refused(void **state)
{
    (void)state;
    other = harness_spawn(NULL);
    assert_int_equal(procid_of(other, &box.supervisor), 0);
    child_says(ask_liveness_without_pidfds, 0);
}

static int list_incidents(void)
{
    struct incident_store_names names = {0};
    fail_on(SYS_getdents64, next_fd(1), ENOMEM);
    return -incident_store_list(open_fd, &names);
}

static void i10_a_part_of_the_incidents_is_not_all(void **state)
{
    (void)state;
    open_fd = open(harness_disk(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(open_fd >= 0);
    child_says(list_incidents, ENOMEM);
    (void)close(open_fd);
}

static long failing;

static int look_for_holder(void)
{
    struct mounts *mounts;
    struct mount_space space;
    struct rbxj_error e = {0};
    if (mounts_read(&mounts, &e) < 0)
        return 101;
    fail_on(failing, next_fd(2), ENOMEM); /* of /proc/PID/fd; the first one is /proc */
    int r = mounts_in(mounts, 1, &space, &e);
    mounts_free(mounts);
    return r == -ENOENT ? 102 : e.errnum;
}

/* Nobody is in it, and who has it open was not seen. */
static void k10_a_namespace_is_not_gone(void **state)
{
    (void)state;
    harness_need_root();
    failing = SYS_readlinkat;
    child_says(look_for_holder, ENOMEM);
    failing = SYS_getdents64;
    child_says(look_for_holder, ENOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k3_identity_is_not_another_one),
        harness_test(k1_directory_is_not_empty),
        harness_test(k33_the_boot_journal_is_not_of_this_state_directory),
        harness_test(k8_supervisor_is_not_dead_nor_unknown),
        harness_test(k8_nobody_is_dead_where_pidfds_are_refused),
        harness_test(k4_nobody_is_killed),
        harness_test(i10_a_part_of_the_incidents_is_not_all),
        harness_test(k10_a_namespace_is_not_gone),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
