/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The process kind: which one it is, who is spared, and whether it is dead (K2, K4, K6, K8, K9, I4, I6).
 */
#include "two_boxes.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/journal.h"
#include "reaper/undo.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* A box with one process, and another box beside it that may be given a supervisor. */
static struct {
    struct config config;
    struct box box;
    struct snapshot_box boxes[2];
    struct snapshot snapshot;
    struct undo undo;
    struct record record;
    struct finding finding;
    struct rbxj_error error;
} x;

static const struct kind *const kind = &kind_process;

static int intend(pid_t pid)
{
    memset(&x, 0, sizeof(x));
    two_boxes(&x.config, &x.box, x.boxes, &x.snapshot, 77);
    x.record = (struct record){.incarnation = 77, .seq = 1, .kind = RBXJ_PROCESS, .process.pid = pid};
    x.boxes[0].records = &x.record;
    x.boxes[0].len = 1;
    x.undo = (struct undo){.config = &x.config,
                           .box = &x.box,
                           .records = &x.record,
                           .records_len = 1,
                           .same_boot = true,
                           .deadline_ns = now_monotonic_ns() + 5000000000};
    return kind->prepare(&x.undo, &x.record, &x.error);
}

static pid_t recorded_child(void)
{
    pid_t pid = harness_spawn(NULL);
    assert_int_equal(0, intend(pid));
    x.undo.snapshot = &x.snapshot;
    return pid;
}

static struct finding *fresh(void)
{
    memset(&x.finding, 0, sizeof(x.finding));
    return &x.finding;
}

static enum found look(void)
{
    assert_int_equal(0, kind->look(&x.undo, &x.record, fresh()));
    return x.finding.found;
}

/* What a replay does: quiesce, wait, undo, verify. */
static int replay(void)
{
    int rc = kind->quiesce(&x.undo, &x.record, fresh());
    if (rc == 0)
        rc = kind->quiesced(&x.undo, &x.record, fresh());
    if (rc == 0)
        rc = kind->undo(&x.undo, &x.record, fresh());
    if (rc >= 0) {
        struct finding f = {0};
        assert_int_equal(0, kind->verify(&x.undo, &x.record, &f));
    }
    return rc;
}

static bool lives(pid_t pid)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

static void assert_killed(pid_t pid)
{
    int status = harness_wait(pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static bool has(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

/* ---- the life of a record ---- */

static void k6_the_intent_is_its_own_evidence(void **state)
{
    (void)state;
    pid_t pid = recorded_child();
    struct procid id;
    assert_int_equal(0, procid_of(pid, &id));
    assert_true(procid_equal(&id, &x.record.process));
    assert_true(x.record.flags & REC_EVIDENCE);
    assert_memory_equal(id.boot_id, x.record.evidence_boot, 16);
    assert_null(kind->acquire);
    assert_int_equal(0, kind->prove(&x.undo, &x.record, &x.error));
    assert_int_equal(FOUND_PRESENT, look());
    assert_true(x.finding.identity != 0);
}

static void i6_it_is_killed_and_verified(void **state)
{
    (void)state;
    pid_t pid = recorded_child();
    assert_true(kind->verify(&x.undo, &x.record, fresh()) < 0);
    assert_int_equal(1, kind->undo(&x.undo, &x.record, fresh()));
    assert_int_equal(0, kind->verify(&x.undo, &x.record, fresh()));
    /* dead is dead, also as a zombie that nobody has waited for (K8), and undone once (I5) */
    assert_int_equal(FOUND_GONE, look());
    assert_int_equal(0, replay());
    assert_killed(pid);
    assert_int_equal(FOUND_GONE, look());
}

static void the_quiesce_kills_already(void **state)
{
    (void)state;
    pid_t pid = recorded_child();
    assert_int_equal(0, kill(pid, SIGSTOP)); /* stopped ones die as well */
    assert_int_equal(0, kind->quiesce(&x.undo, &x.record, fresh()));
    assert_int_equal(0, kind->quiesced(&x.undo, &x.record, fresh()));
    assert_false(lives(pid));
    assert_killed(pid);
}

static void k4_we_our_ancestors_and_init_are_refused(void **state)
{
    (void)state;
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(getpid()));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(getppid()));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(1));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(0));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(-1));
    pid_t pid = harness_spawn(NULL);
    siginfo_t info;
    assert_int_equal(0, kill(pid, SIGKILL));
    assert_int_equal(0, waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(pid)); /* a zombie */
    (void)harness_wait(pid);
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(pid));
}

static void k4_a_live_supervisor_is_never_killed(void **state)
{
    (void)state;
    pid_t pid = recorded_child();
    assert_int_equal(0, procid_of(pid, &x.boxes[1].box.supervisor));
    assert_int_equal(-EBUSY, kind->quiesce(&x.undo, &x.record, fresh()));
    assert_int_equal(-EBUSY, kind->undo(&x.undo, &x.record, fresh()));
    assert_int_equal(FOUND_BUSY, x.finding.found);
    assert_true(has(x.finding.error.message, "other"));
    assert_int_equal(x.finding.keepers.at[0].pid, pid);
    assert_int_equal(FOUND_BUSY, look());
    assert_true(lives(pid));
}

/* ---- whose is it ---- */

static void k2_a_reused_pid_is_spared(void **state)
{
    (void)state;
    pid_t pid = recorded_child();
    x.record.process.start_time--;
    assert_int_equal(FOUND_FOREIGN, look());
    assert_false(x.finding.refused);
    assert_int_equal(RBXJ_E_FOREIGN, x.finding.error.code);
    assert_int_equal(0, replay());
    assert_true(lives(pid));
}

static void another_boot_is_gone(void **state)
{
    (void)state;
    pid_t pid = recorded_child();
    x.record.process.boot_id[0] ^= 1;
    assert_int_equal(FOUND_GONE, look());
    assert_int_equal(0, replay());
    assert_true(lives(pid));
}

static void k9_another_namespace_is_refused(void **state)
{
    (void)state;
    pid_t pid = recorded_child();
    uint64_t *const namespaces[] = {&x.record.process.pid_ns, &x.record.process.time_ns};
    for (size_t i = 0; i < 2; i++) {
        ++*namespaces[i];
        assert_int_equal(FOUND_FOREIGN, look());
        assert_true(x.finding.refused);
        assert_int_equal(0, kind->quiesce(&x.undo, &x.record, fresh()));
        assert_int_equal(-RBXJ_E_FOREIGN, kind->undo(&x.undo, &x.record, fresh()));
        assert_true(kind->verify(&x.undo, &x.record, fresh()) < 0);
        --*namespaces[i];
    }
    assert_true(lives(pid));
}

/* A process in a pid namespace of its own; its parent ends it, and itself, when *ret_end is closed. */
static pid_t apart(uint64_t *ret_ns, int *ret_end)
{
    struct stat st;
    int up[2], down[2];
    char byte;
    assert_int_equal(pipe2(up, O_CLOEXEC), 0);
    assert_int_equal(pipe2(down, O_CLOEXEC), 0);
    pid_t outer = fork();
    assert_true(outer >= 0);
    if (outer == 0) {
        (void)close(down[1]);
        pid_t inner = unshare(CLONE_NEWPID) < 0 ? -1 : fork();
        if (inner == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            (void)!write(up[1], "", 1);
            (void)pause();
        }
        (void)!read(down[0], &byte, 1);
        (void)kill(inner, SIGKILL);
        (void)waitpid(inner, NULL, 0);
        _exit(0);
    }
    harness_track(outer);
    (void)close(up[1]);
    (void)close(down[0]);
    assert_int_equal(read(up[0], &byte, 1), 1);
    (void)close(up[0]);
    assert_int_equal(stat(harness_format("/proc/%d/ns/pid_for_children", outer), &st), 0);
    *ret_ns = st.st_ino;
    *ret_end = down[1];
    return outer;
}

/* Of one that is over, in a container: nobody is seen in it, and nobody elsewhere has the journals open. */
static void k9_a_pid_namespace_that_is_over_is_gone(void **state)
{
    (void)state;
    int end;
    pid_t pid = recorded_child(), outer = apart(&x.record.process.pid_ns, &end);
    assert_int_equal(FOUND_FOREIGN, look()); /* it is not over, and there is no state directory */
    harness_mkdir(x.config.state_dir);
    harness_write(harness_format("%s/alive", x.config.state_dir), "");
    assert_int_equal(FOUND_FOREIGN, look());
    assert_true(x.finding.refused);
    assert_int_equal(close(end), 0);
    assert_int_equal(harness_wait(outer), 0);
    assert_int_equal(FOUND_GONE, look());
    assert_int_equal(0, replay());
    assert_true(lives(pid));

    int up[2];
    char byte;
    assert_int_equal(pipe2(up, O_CLOEXEC), 0);
    pid_t holder = fork(); /* stands for one in a container beside this one */
    if (holder == 0) {
        int fd = open(harness_format("%s/alive", x.config.state_dir), O_RDWR | O_CLOEXEC);
        if (fd >= 0 && fd_record_lock(fd, F_RDLCK, 0) == 0)
            (void)!write(up[1], "", 1);
        (void)pause();
    }
    harness_track(holder);
    assert_int_equal(read(up[0], &byte, 1), 1);
    assert_int_equal(FOUND_FOREIGN, look());
    assert_true(x.finding.refused);
    harness_kill(holder);
    assert_int_equal(FOUND_GONE, look());
    (void)close(up[0]);
    (void)close(up[1]);
}

/* ---- dead or not ---- */

/* Our own limits say nothing about it (neither gone nor foreign). */
static void i4_without_descriptors_it_is_busy(void **state)
{
    (void)state;
    struct rlimit before, none;
    pid_t pid = recorded_child();
    int lowest = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(lowest >= 0);
    assert_int_equal(close(lowest), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = (rlim_t)lowest, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    enum found found = look();
    bool refused = x.finding.refused;
    int errnum = x.finding.error.errnum, rc = kind->undo(&x.undo, &x.record, fresh());
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(found, FOUND_BUSY);
    assert_false(refused);
    assert_int_equal(errnum, EMFILE);
    assert_true(rc < 0);
    assert_int_equal(look(), FOUND_PRESENT);
    assert_true(lives(pid));
}

static void *sleep_on(void *data)
{
    (void)data;
    while (pause() < 0)
        ;
    return NULL;
}

/* A process whose leader is a zombie while a thread of it lives. */
static pid_t spawn_headless(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t thread;
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (pthread_create(&thread, NULL, sleep_on, NULL) == 0)
            (void)syscall(SYS_exit, 0); /* the leader alone */
        _exit(1);
    }
    harness_track(pid);
    for (int i = 0; i < 1000; i++) {
        const char *stat = harness_read(harness_format("/proc/%d/stat", pid));
        if (strrchr(stat, ')')[2] == 'Z')
            return pid;
        (void)usleep(1000);
    }
    fail_msg("the leader did not die");
    return -1;
}

static void k8_a_zombie_leader_with_a_living_thread_is_alive(void **state)
{
    (void)state;
    pid_t pid = spawn_headless();
    assert_int_equal(0, intend(pid));
    assert_int_equal(FOUND_PRESENT, look());
    assert_int_equal(1, kind->undo(&x.undo, &x.record, fresh()));
    assert_int_equal(FOUND_GONE, look());
    (void)harness_wait(pid);
}

/* Some thread of it that is not the leader. */
static const char *other_thread(pid_t pid)
{
    _cleanup_closedir_ DIR *dir = opendir(harness_format("/proc/%d/task", pid));
    const struct dirent *d;
    while (dir && (d = readdir(dir)))
        if (d->d_name[0] != '.' && atoi(d->d_name) != pid)
            return harness_format("%s", d->d_name);
    fail_msg("no other thread");
    return NULL;
}

/* The kernel gives out numbers to processes and threads alike. */
static void k2_a_pid_that_a_thread_has_by_now_is_gone(void **state)
{
    (void)state;
    pid_t pid = spawn_headless(), tid = atoi(other_thread(pid));
    assert_int_equal(0, intend(pid));
    x.undo.snapshot = &x.snapshot;
    x.record.process.pid = x.boxes[1].box.supervisor.pid = tid;
    x.record.process.start_time--;
    assert_int_equal(FOUND_FOREIGN, look());
    assert_false(x.finding.refused);
    assert_int_equal(0, kind->undo(&x.undo, &x.record, fresh()));
    assert_int_equal(LIVE_DEAD, box_liveness(NULL, x.config.state_dir, &x.boxes[1].box));
    assert_int_equal(0, guard_kill(&x.undo, tid, fresh())); /* it is no supervisor */
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(tid));
    harness_kill(pid);
}

static void freeze(const char *cgroup)
{
    const char *file = harness_format("%s/freezer.state", cgroup);
    for (int i = 0; i < 1000; i++) {
        harness_write(file, "FROZEN");
        if (has(harness_read(file), "FROZEN"))
            return;
        (void)usleep(1000);
    }
    fail_msg("%s does not freeze", cgroup);
}

/* In a frozen v1 cgroup not even SIGKILL works. */
static void will_not_die(const char *cgroup, pid_t pid, const char *state)
{
    assert_int_equal(0, intend(pid));
    freeze(cgroup);
    x.undo.deadline_ns = now_monotonic_ns() + 100000000;
    assert_int_equal(0, kind->quiesce(&x.undo, &x.record, fresh()));
    assert_int_equal(-ETIMEDOUT, kind->quiesced(&x.undo, &x.record, fresh()));
    assert_int_equal(-ETIMEDOUT, kind->undo(&x.undo, &x.record, fresh()));
    assert_int_equal(FOUND_BUSY, x.finding.found);
    if (!has(x.finding.error.message, state))
        fail_msg("%s", x.finding.error.message);
    assert_int_equal(x.finding.keepers.at[0].pid, pid);
    harness_write(harness_format("%s/freezer.state", cgroup), "THAWED");
    (void)harness_wait(pid);
    assert_int_equal(FOUND_GONE, look());
}

static void k8_what_will_not_die_is_named_with_its_state(void **state)
{
    (void)state;
    const char *cgroup = harness_cgroup_v1("freezer");
    will_not_die(cgroup, harness_spawn(cgroup), "state D");
    pid_t pid = spawn_headless();
    harness_write(harness_format("%s/tasks", cgroup), other_thread(pid));
    will_not_die(cgroup, pid, "state Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k6_the_intent_is_its_own_evidence),
        harness_test(i6_it_is_killed_and_verified),
        harness_test(the_quiesce_kills_already),
        harness_test(k4_we_our_ancestors_and_init_are_refused),
        harness_test(k4_a_live_supervisor_is_never_killed),
        harness_test(k2_a_reused_pid_is_spared),
        harness_test(another_boot_is_gone),
        harness_test(k9_another_namespace_is_refused),
        harness_test(k9_a_pid_namespace_that_is_over_is_gone),
        harness_test(i4_without_descriptors_it_is_busy),
        harness_test(k8_a_zombie_leader_with_a_living_thread_is_alive),
        harness_test(k2_a_pid_that_a_thread_has_by_now_is_gone),
        harness_test(k8_what_will_not_die_is_named_with_its_state),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
