/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A helper that calls what may hang: who may wait for it, what it keeps, and what becomes of it (K16).
 */
#include "seccomp_fixture.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/helper.h"
#include "base/procid.h"
#include "hung_fuse.h"
#include "reaper/mountinfo.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

static int64_t in_ms(int ms)
{
    return now_monotonic_ns() + (int64_t)ms * 1000000;
}

/* Grows with each child that has come to its end. */
static long reaped(void)
{
    struct rusage usage;
    assert_int_equal(0, getrusage(RUSAGE_CHILDREN, &usage));
    return usage.ru_minflt;
}

static int answers(void *data, uint8_t output[HELPER_OUTPUT_MAX])
{
    memcpy(output, data, 5);
    return 4711;
}

static int counts_descriptors(void *data, uint8_t output[HELPER_OUTPUT_MAX])
{
    (void)data;
    (void)output;
    int open_ones = 0;
    for (int fd = 0; fd < 1024; fd++)
        open_ones += fcntl(fd, F_GETFD) >= 0;
    return open_ones;
}

static int sleeps(void *data, uint8_t output[HELPER_OUTPUT_MAX])
{
    (void)data;
    output[0] = 'x';
    return pause();
}

static int crashes(void *data, uint8_t output[HELPER_OUTPUT_MAX])
{
    (void)data;
    (void)output;
    return kill(getpid(), SIGKILL);
}

static void k16_answers_and_has_no_descriptors(void **state)
{
    (void)state;
    struct helper_result result;
    assert_int_equal(0, helper_run(answers, "hello", 0, in_ms(5000), &result));
    assert_int_equal(4711, result.code);
    assert_string_equal("hello", (char *)result.output);
    assert_int_equal(0, helper_run(counts_descriptors, NULL, 0, in_ms(5000), &result));
    assert_int_equal(0, result.code);
    assert_int_equal(-EPIPE, helper_run(crashes, NULL, 0, in_ms(5000), &result));
    /* all of them were reaped, and none is seen by the host program's wait */
    assert_int_equal(-1, waitpid(-1, NULL, WNOHANG | __WCLONE));
    assert_int_equal(ECHILD, errno);
}

static void k16_a_deadline_holds(void **state)
{
    (void)state;
    struct helper_result result;
    int64_t start = now_monotonic_ns();
    assert_int_equal(-ETIMEDOUT, helper_run(sleeps, NULL, 1, in_ms(300), &result));
    assert_true(now_monotonic_ns() - start < 5000000000);
    assert_int_equal(0, result.left.pid); /* it could be killed */
    assert_int_equal('x', result.output[0]);
}

static int stats_it(void *data, uint8_t output[HELPER_OUTPUT_MAX])
{
    (void)output;
    struct stat st;
    return stat(data, &st) < 0 ? -errno : 0;
}

static void k16_one_that_will_not_die_is_left_and_not_doubled(void **state)
{
    (void)state;
    harness_need_root();
    char *path = harness_format("%s/fuse", harness_disk());
    pid_t daemon = hung_fuse(path);
    struct helper_result result = {0}, again;
    /* where the machine is busy it is killed before it comes to hang */
    for (int ms = 100; ms < 20000 && result.left.pid <= 0; ms *= 2)
        assert_int_equal(-ETIMEDOUT, helper_run(stats_it, path, 42, in_ms(ms), &result));
    assert_true(result.left.pid > 0);
    assert_true(result.left.start_time > 0);
    assert_false(helper_left_gone(&result.left));
    assert_int_equal(-EBUSY, helper_run(stats_it, path, 42, in_ms(100), &again));
    assert_int_equal(result.left.pid, again.left.pid);
    harness_kill(daemon); /* the server is gone for good: its callers are let go */
    int64_t deadline = in_ms(5000);
    while (!helper_left_gone(&result.left) && now_monotonic_ns() < deadline)
        usleep(1000);
    assert_int_equal(0, helper_run(answers, "hello", 42, in_ms(5000), &again));
}

/* The program may have reaped it (waitpid(2) with __WALL), and a child of its own has the number since. */
static void k16_a_child_that_has_its_number_is_not_reaped(void **state)
{
    (void)state;
    struct procid id;
    siginfo_t info = {0};
    pid_t pid = fork();
    if (pid == 0)
        _exit(7);
    harness_track(pid);
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(procid_of(pid, &id), 0);
    assert_true(helper_left_gone(&(struct helper_left){.pid = pid, .start_time = id.start_time - 1}));
    assert_int_equal(harness_wait(pid), 7 << 8);
}

static void until_it_is_at(const char *file, bool is)
{
    struct helper_left left = {0};
    int64_t deadline = in_ms(30000);
    while (helper_is_at(file, 7, &left) != is && now_monotonic_ns() < deadline)
        usleep(1000);
    if (helper_is_at(file, 7, &left) == is)
        return;
    if (left.pid)
        (void)kill(left.pid, SIGKILL);
    fail_msg("pid %d %s", left.pid, is ? "is not at it" : "is at it still");
}

/* Whatever process started it. */
static void k16_one_that_is_alone_is_known_to_all_processes(void **state)
{
    (void)state;
    const char *file = harness_format("%s/helpers", harness_disk());
    struct helper_result result;
    assert_int_equal(0, helper_run_alone(file, 7, answers, "hello", in_ms(30000), &result));
    assert_int_equal(4711, result.code);
    assert_int_equal(0, helper_run_alone(file, 7, counts_descriptors, NULL, in_ms(30000), &result));
    assert_int_equal(1, result.code); /* that lock */
    pid_t pid = fork();
    if (pid == 0) {
        (void)helper_run_alone(file, 7, sleeps, NULL, in_ms(600000), &result);
        _exit(0);
    }
    harness_track(pid);
    until_it_is_at(file, true);
    assert_int_equal(-EBUSY, helper_run_alone(file, 7, answers, "hello", in_ms(30000), &result));
    assert_true(result.left.pid > 0 && result.left.start_time > 0 && result.left.pid != pid);
    assert_int_equal(0, helper_run_alone(file, 8, answers, "hello", in_ms(30000), &result));
    /* it does nothing more when whoever waits for it is dead */
    harness_kill(pid);
    until_it_is_at(file, false);
    assert_int_equal(0, helper_run_alone(file, 7, answers, "hello", in_ms(30000), &result));
}

static struct helper_left left_at(const struct probe_place *place)
{
    struct helper_left left = {0};
    (void)helper_is_at(place->file, place->byte, &left);
    return left;
}

/* A process asks, in vain, and dies. */
static void ask_and_die(struct mounts *mounts, const char *path, const struct probe_place *place)
{
    for (int ms = 200; ms < 20000 && !left_at(place).pid; ms *= 2) {
        pid_t pid = fork();
        if (pid == 0) {
            struct path_probe probe = {.path = path};
            (void)path_probe(&probe, 1, mount_table_is_local, mounts_own(mounts), 0, place, in_ms(ms), NULL);
            _exit(0);
        }
        assert_true(pid > 0);
        harness_track(pid);
        (void)harness_wait(pid); /* where the machine is busy its helper is killed before it comes to hang */
    }
    assert_true(left_at(place).pid > 0);
}

static void k16_what_hangs_is_not_asked_by_one_more(void **state)
{
    (void)state;
    harness_need_root();
    const char *path = harness_format("%s/fuse", harness_disk());
    const struct probe_place place = {harness_format("%s/helpers", harness_disk()), 7, true};
    struct mounts *mounts;
    pid_t server = hung_fuse(path);
    assert_int_equal(0, mounts_read(&mounts, NULL));
    ask_and_die(mounts, path, &place);
    struct helper_left first = left_at(&place), left = {0};
    struct path_probe probe = {.path = path};
    usleep(200000);
    for (int make = 0; make < 2; make++) {
        const struct probe_place again = {place.file, place.byte, make};
        assert_int_equal(-EBUSY, path_probe(&probe, 1, mount_table_is_local, mounts_own(mounts), 0, &again,
                                            in_ms(100), &left));
        assert_int_equal(first.pid, left.pid);
    }
    harness_kill(server);
    int64_t deadline = in_ms(30000);
    while (left_at(&place).pid && now_monotonic_ns() < deadline)
        usleep(1000);
    assert_int_equal(
        0, path_probe(&probe, 1, mount_table_is_local, mounts_own(mounts), 0, &place, in_ms(30000), NULL));
    assert_true(probe.result != -ETIMEDOUT);
    mounts_free(mounts);
}

/* One that asks at the same moment is no sign of anything: it may be answered any time. */
static void k16_who_asks_at_the_same_time_waits_for_the_answer(void **state)
{
    (void)state;
    const struct probe_place place = {harness_format("%s/helpers", harness_disk()), 7, true};
    struct mounts *mounts;
    struct path_probe probe = {.path = harness_format("%s/none", harness_disk())};
    assert_int_equal(0, mounts_read(&mounts, NULL));
    pid_t pid = fork();
    if (pid == 0) {
        struct helper_result result;
        (void)helper_run_alone(place.file, place.byte, sleeps, NULL, in_ms(500), &result);
        _exit(0);
    }
    harness_track(pid);
    until_it_is_at(place.file, true);
    assert_int_equal(
        0, path_probe(&probe, 1, mount_table_is_local, mounts_own(mounts), 0, &place, in_ms(30000), NULL));
    assert_int_equal(-ENOENT, probe.result);
    mounts_free(mounts);
}

static void k16_one_that_cant_be_alone_does_nothing(void **state)
{
    (void)state;
    const char *file = harness_format("%s/none/helpers", harness_disk());
    struct helper_result result;
    struct helper_left left;
    assert_int_equal(-ENOENT, helper_run_alone(file, 7, crashes, NULL, in_ms(30000), &result));
    assert_int_equal(0, helper_is_at(file, 7, &left));
    /* but for a look, which changes nothing: as where it may not write */
    const char *plain = harness_format("%s/plain", harness_disk());
    harness_write(plain, "");
    struct probe_place place = {harness_format("%s/helpers", plain), 7, false};
    struct path_probe probe = {.path = harness_format("%s/missing", harness_disk())};
    struct mounts *mounts;
    assert_int_equal(0, mounts_read(&mounts, NULL));
    for (int make = 0; make < 2; make++) {
        place.make = make;
        assert_int_equal(make ? -ENOTDIR : 0, path_probe(&probe, 1, mount_table_is_local, mounts_own(mounts),
                                                         0, &place, in_ms(30000), NULL));
    }
    mounts_free(mounts);
}

static void k16_local_paths_need_no_helper(void **state)
{
    (void)state;
    harness_need_root();
    struct mounts *mounts;
    struct stat st;
    const char *file = harness_format("%s/file", harness_tmpfs());
    harness_write(file, "");
    assert_int_equal(0, stat(file, &st));
    assert_int_equal(0, stat(harness_disk(), &st));
    assert_int_equal(0, mounts_read(&mounts, NULL));
    struct path_probe probes[] = {{.path = file}, {.path = harness_disk()}, {.path = "/proc"}};
    long before = reaped();
    assert_int_equal(0, path_probe(probes, ARRAY_LEN(probes), mount_table_is_local, mounts_own(mounts), 0,
                                   NULL, in_ms(1000), NULL));
    bool cached = probes[0].is_local && probes[1].is_local && probes[2].is_local;
    for (size_t i = 0; i < ARRAY_LEN(probes); i++)
        assert_int_equal(0, probes[i].result);
    /* the scratch directory may be on an overlay, where a helper is right */
    assert_true(probes[0].is_local);
    assert_true(cached ? reaped() == before : reaped() > before);
    struct mount_at at;
    assert_int_equal(0, mount_at(AT_FDCWD, file, &at));
    assert_int_equal(at.id, probes[0].mount_id);
    mounts_free(mounts);
}

static void k16_hung_paths_are_told_apart(void **state)
{
    (void)state;
    harness_need_root();
    struct mounts *mounts;
    const char *path = harness_format("%s/fuse", harness_disk());
    const char *missing = harness_format("%s/missing", harness_disk());
    (void)hung_fuse(path);
    assert_int_equal(0, mounts_read(&mounts, NULL));
    struct path_probe probes[] = {
        {.path = harness_disk()}, {.path = missing}, {.path = path}, {.path = "/proc/1/x"}};
    struct helper_left left = {0};
    int64_t start = now_monotonic_ns();
    assert_int_equal(0, path_probe(probes, ARRAY_LEN(probes), mount_table_is_local, mounts_own(mounts), 0,
                                   NULL, in_ms(500), &left));
    assert_true(now_monotonic_ns() - start < 5000000000);
    assert_int_equal(0, probes[0].result);
    assert_int_equal(-ENOENT, probes[1].result);
    assert_int_equal(-ETIMEDOUT, probes[2].result);
    assert_int_equal(-ETIMEDOUT, probes[3].result); /* behind it: not looked at */
    assert_true(left.pid > 0);
    mounts_free(mounts);
}

/* ---- where calls are refused, as the seccomp filters of containers do ---- */

static volatile sig_atomic_t handled;

static void handle(int number)
{
    (void)number;
    handled++;
}

/* What the host program has set does not count in the helper: the signal that it sends itself ends it. */
static int signals_itself(void *data, uint8_t output[HELPER_OUTPUT_MAX])
{
    sigset_t blocked;
    struct sigaction ignored;
    (void)sigprocmask(SIG_SETMASK, NULL, &blocked);
    (void)sigaction(SIGUSR2, NULL, &ignored);
    output[0] = sigismember(&blocked, SIGUSR1) == 0 && sigismember(&blocked, SIGHUP) == 1;
    output[1] = ignored.sa_handler == SIG_IGN;
    (void)kill(getpid(), *(int *)data);
    output[2] = 1;
    return 0;
}

#define EXPECT(condition)                                                                                    \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            return __LINE__ & 127 ? __LINE__ & 127 : 1;                                                      \
    } while (0)

static int helper_is_whole(void)
{
    struct helper_result result;
    int number = SIGUSR1;
    sigset_t hup, now;
    (void)sigemptyset(&hup);
    (void)sigaddset(&hup, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &hup, NULL);
    (void)signal(SIGUSR1, handle);
    (void)signal(SIGCHLD, handle);
    (void)signal(SIGUSR2, SIG_IGN);
    EXPECT(helper_run(answers, "hello", 0, in_ms(30000), &result) == 0);
    EXPECT(result.code == 4711 && strcmp("hello", (char *)result.output) == 0);
    EXPECT(helper_run(counts_descriptors, NULL, 0, in_ms(30000), &result) == 0 && result.code == 0);
    EXPECT(helper_run(sleeps, NULL, 1, in_ms(100), &result) == -ETIMEDOUT);
    EXPECT(helper_run(signals_itself, &number, 0, in_ms(30000), &result) == -EPIPE);
    EXPECT(result.output[0] && result.output[1] && !result.output[2]);
    /* the host program has noticed nothing */
    EXPECT(handled == 0 && waitpid(-1, NULL, WNOHANG | __WCLONE) == -1 && errno == ECHILD);
    EXPECT(sigprocmask(SIG_SETMASK, NULL, &now) == 0 && sigismember(&now, SIGHUP) == 1);
    EXPECT(sigismember(&now, SIGUSR1) == 0 && kill(getpid(), SIGUSR1) == 0 && handled == 1);
    return 0;
}

static int without_clone3(void)
{
    seccomp_fail(SYS_clone3, ENOSYS);
    return helper_is_whole();
}

static int with_a_forbidden_clone3(void)
{
    seccomp_fail(SYS_clone3, EPERM);
    return helper_is_whole();
}

static void k16_where_there_is_no_clone3(void **state)
{
    (void)state;
    child_says(helper_is_whole, 0);
    child_says(without_clone3, 0);
    child_says(with_a_forbidden_clone3, 0);
}

static int notes_that_it_ran(void *data, uint8_t output[HELPER_OUTPUT_MAX])
{
    (void)data;
    output[0] = 1;
    return 0;
}

static int without_close_range(void)
{
    struct helper_result result;
    seccomp_fail(SYS_close_range, ENOSYS);
    EXPECT(helper_run(notes_that_it_ran, NULL, 0, in_ms(30000), &result) == -ENOSYS);
    EXPECT(!result.output[0] && !result.left.pid);
    return 0;
}

static int without_any_clone(void)
{
    struct helper_result result;
    seccomp_fail(SYS_clone3, ENOSYS);
    seccomp_fail(SYS_clone, EPERM);
    EXPECT(helper_run(answers, "hello", 0, in_ms(30000), &result) == -EPERM);
    return 0;
}

static void k16_what_can_be_no_helper_is_refused(void **state)
{
    (void)state;
    child_says(without_close_range, 0);
    child_says(without_any_clone, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k16_answers_and_has_no_descriptors),
        harness_test(k16_a_deadline_holds),
        harness_test(k16_one_that_will_not_die_is_left_and_not_doubled),
        harness_test(k16_a_child_that_has_its_number_is_not_reaped),
        harness_test(k16_one_that_is_alone_is_known_to_all_processes),
        harness_test(k16_one_that_cant_be_alone_does_nothing),
        harness_test(k16_what_hangs_is_not_asked_by_one_more),
        harness_test(k16_who_asks_at_the_same_time_waits_for_the_answer),
        harness_test(k16_local_paths_need_no_helper),
        harness_test(k16_hung_paths_are_told_apart),
        harness_test(k16_where_there_is_no_clone3),
        harness_test(k16_what_can_be_no_helper_is_refused),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
