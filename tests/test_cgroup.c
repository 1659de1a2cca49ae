/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "harness.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/journal.h"
#include "reaper/cgroup.h"
#include "reaper/undo.h"

#include <errno.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>

/* A box with one cgroup, and another box beside it that may be given a supervisor or a record. */
static struct {
    struct config config;
    struct box box;
    struct snapshot_box boxes[2];
    struct snapshot snapshot;
    struct undo undo;
    struct record record, other;
    struct finding finding;
    struct rbxj_error error;
} x;

static const struct kind *const kind = &kind_cgroup;

static int64_t in_ms(int ms)
{
    return now_monotonic_ns() + (int64_t)ms * 1000000;
}

/* The intent for path; the supervisor is a process that does not exist. */
static int intend(const char *path)
{
    memset(&x, 0, sizeof(x));
    x.config.state_dir = harness_format("%s/state", harness_disk());
    x.config.runtime_dir = harness_format("%s/run", harness_disk());
    x.box = (struct box){.name = "b", .incarnation = 77, .planned = 1, .next_seq = 2};
    assert_int_equal(0, procid_of(getpid(), &x.box.supervisor));
    x.box.supervisor.start_time--;
    x.record = (struct record){.incarnation = 77, .seq = 1, .kind = RBXJ_CGROUP, .owner = geteuid()};
    x.record.path = harness_format("%s", path);
    x.boxes[0] = (struct snapshot_box){.box = x.box, .records = &x.record, .len = 1};
    x.boxes[1].box = x.box;
    x.boxes[1].box.incarnation = 78;
    (void)strcpy(x.boxes[1].box.name, "other");
    x.snapshot = (struct snapshot){.boxes = x.boxes, .len = 2};
    memcpy(x.snapshot.boot_id, x.box.supervisor.boot_id, 16);
    x.undo = (struct undo){.config = &x.config,
                           .box = &x.box,
                           .records = &x.record,
                           .records_len = 1,
                           .same_boot = true,
                           .deadline_ns = in_ms(5000)};
    return kind->prepare(&x.undo, &x.record, &x.error);
}

static const char *box_in(const char *cgroup)
{
    const char *path = harness_format("%s/box 7", cgroup);
    int fd = 0;
    assert_int_equal(0, intend(path));
    assert_int_equal(0, kind->acquire(&x.undo, &x.record, NULL, &fd, &x.error));
    assert_int_equal(-1, fd);
    assert_true(x.record.flags & REC_EVIDENCE);
    x.undo.snapshot = &x.snapshot;
    return path;
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

static void assert_undone(const char *path)
{
    int rc = replay();
    if (rc != 1)
        fail_msg("%s: %d: %s", path, rc, x.finding.error.message);
    assert_false(path_exists(path));
    assert_int_equal(0, replay()); /* I5 */
    assert_int_equal(FOUND_GONE, look());
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

static const char *child_of(const char *cgroup, const char *name)
{
    const char *path = harness_format("%s/%s", cgroup, name);
    harness_mkdir(path);
    return path;
}

/* A child that has been moved to cgroup before it runs act. */
static pid_t fork_into(const char *cgroup, void (*act)(void))
{
    int go[2];
    char byte = 0;
    assert_int_equal(0, pipe2(go, O_CLOEXEC));
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (read(go[0], &byte, 1) == 1)
            act();
        _exit(0);
    }
    harness_track(pid);
    harness_write(harness_format("%s/cgroup.procs", cgroup), harness_format("%d", pid));
    assert_int_equal(1, write(go[1], &byte, 1));
    (void)close(go[0]);
    (void)close(go[1]);
    return pid;
}

static bool has(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

/* ---- taking and giving back ---- */

static void lives_and_dies(const char *cgroup)
{
    const char *path = box_in(cgroup);
    assert_int_equal(FOUND_PRESENT, look());
    assert_int_equal(x.record.id.ino, x.finding.identity);
    const char *nested = child_of(child_of(path, "a"), "b");
    pid_t pids[] = {harness_spawn(path), harness_spawn(nested), harness_spawn(nested)};
    assert_undone(path);
    for (size_t i = 0; i < ARRAY_LEN(pids); i++)
        assert_killed(pids[i]);
    assert_true(path_exists(cgroup));
}

static void i6_v2_is_killed_removed_and_verified(void **state)
{
    (void)state;
    lives_and_dies(harness_cgroup());
}

static void i6_v1_pids_is_killed_removed_and_verified(void **state)
{
    (void)state;
    lives_and_dies(harness_cgroup_v1("pids"));
}

static void i6_v1_freezer_is_killed_removed_and_verified(void **state)
{
    (void)state;
    lives_and_dies(harness_cgroup_v1("freezer"));
}

static void i6_v1_memory_is_killed_removed_and_verified(void **state)
{
    (void)state;
    lives_and_dies(harness_cgroup_v1("memory"));
}

/* libcgroup does not know this one. */
static void i6_v1_named_hierarchy_is_removed(void **state)
{
    (void)state;
    lives_and_dies(harness_cgroup_v1("name=systemd"));
}

static void i6_a_leftover_fails_the_verification(void **state)
{
    (void)state;
    (void)box_in(harness_cgroup());
    assert_true(kind->verify(&x.undo, &x.record, fresh()) < 0);
}

static void i5_a_removal_cut_in_the_middle_goes_on(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup());
    (void)child_of(path, "a");
    assert_int_equal(0, kind->quiesce(&x.undo, &x.record, fresh()));
    assert_int_equal(0, rmdir(harness_format("%s/a", path)));
    assert_undone(path);
}

/* ---- preparing and proving ---- */

static void k5_present_before_is_refused(void **state)
{
    (void)state;
    const char *path = child_of(harness_cgroup(), "there");
    assert_int_equal(-RBXJ_E_EXISTS, intend(path));
}

static void own_cgroup_its_ancestors_and_mount_points_are_protected(void **state)
{
    (void)state;
    const char *top = harness_cgroup(), *inner = child_of(top, "inner"), *bound = child_of(top, "bound");
    harness_write(harness_format("%s/cgroup.procs", inner), "0");
    int own = intend(inner), above = intend(top);
    harness_write(harness_format("%s/cgroup.procs", harness_cgroup_root(NULL)), "0");
    assert_int_equal(-RBXJ_E_PROTECTED_PATH, own);
    assert_int_equal(-RBXJ_E_PROTECTED_PATH, above);
    assert_int_equal(-RBXJ_E_EXISTS, intend(inner));
    assert_int_equal(0, mount(inner, bound, NULL, MS_BIND, NULL));
    int mounted = intend(bound);
    assert_int_equal(0, umount2(bound, MNT_DETACH));
    assert_int_equal(-RBXJ_E_PROTECTED_PATH, mounted);
    assert_true(intend(harness_cgroup_root(NULL)) < 0);
    assert_true(intend(harness_cgroup_root("pids")) < 0);
}

static void what_is_no_plain_cgroup_path_is_a_bad_request(void **state)
{
    (void)state;
    const char *cgroup = harness_cgroup(), *link = harness_format("%s/link", harness_disk());
    assert_int_equal(0, symlink(cgroup, link));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(harness_format("%s/box", link)));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(harness_format("%s/box", harness_disk())));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(harness_format("%s/../box", cgroup)));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend(harness_format("%s/missing/box", cgroup)));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, intend("box"));
}

static void k1_what_is_not_new_is_not_proven(void **state)
{
    (void)state;
    const char *cgroup = harness_cgroup(), *path = harness_format("%s/box", cgroup);
    assert_int_equal(0, intend(path));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, kind->prove(&x.undo, &x.record, NULL)); /* not there */
    harness_mkdir(path);
    pid_t pid = harness_spawn(path);
    assert_int_equal(-RBXJ_E_EXISTS, kind->prove(&x.undo, &x.record, NULL));
    harness_kill(pid);
    const char *child = child_of(path, "child");
    assert_int_equal(-RBXJ_E_EXISTS, kind->prove(&x.undo, &x.record, NULL));
    assert_int_equal(0, rmdir(child));
    x.record.owner = 4711;
    assert_int_equal(-RBXJ_E_EXISTS, kind->prove(&x.undo, &x.record, NULL));
    x.record.owner = 0;
    x.record.seq = 9;
    assert_int_equal(0, kind->prove(&x.undo, &x.record, NULL));
    assert_true(x.record.flags & REC_STAMPED);
    x.record.seq = 1;
    assert_int_equal(-RBXJ_E_EXISTS, kind->prove(&x.undo, &x.record, NULL));
    assert_int_equal(-RBXJ_E_EXISTS, kind->acquire(&x.undo, &x.record, NULL, NULL, NULL));
}

/* ---- whose is it ---- */

static void k1_without_evidence_the_stamp_decides(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup());
    pid_t pid = harness_spawn(path);
    x.record.flags &= ~(uint32_t)REC_EVIDENCE;
    assert_undone(path);
    assert_killed(pid);
}

static void k1_with_neither_only_an_empty_one_is_removed(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup());
    assert_int_equal(0, removexattr(path, "trusted.rbxj"));
    x.record.flags &= ~(uint32_t)REC_EVIDENCE;
    pid_t pid = harness_spawn(path);
    assert_int_equal(FOUND_FOREIGN, look());
    assert_true(x.finding.refused);
    assert_int_equal(0, kind->quiesce(&x.undo, &x.record, fresh()));
    assert_int_equal(-RBXJ_E_FOREIGN, kind->undo(&x.undo, &x.record, fresh()));
    assert_true(x.finding.refused && lives(pid));
    harness_kill(pid);
    const char *child = child_of(path, "child");
    assert_int_equal(-RBXJ_E_FOREIGN, kind->undo(&x.undo, &x.record, fresh()));
    assert_true(path_exists(child));
    assert_int_equal(0, rmdir(child));
    assert_undone(path);
}

static void k2_a_stranger_of_our_name_proves_ours_gone(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup());
    assert_int_equal(0, rmdir(path));
    harness_mkdir(path);
    /* a copied stamp does not count where there is evidence */
    assert_int_equal(0, setxattr(path, "trusted.rbxj", "77:1", 4, 0));
    pid_t pid = harness_spawn(path);
    assert_int_equal(FOUND_FOREIGN, look());
    assert_false(x.finding.refused);
    assert_true(x.finding.error.code == RBXJ_E_FOREIGN);
    assert_int_equal(0, replay());
    assert_true(lives(pid) && path_exists(path));
}

static void another_boot_is_gone(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup());
    pid_t pid = harness_spawn(path);
    x.record.evidence_boot[0] ^= 1;
    assert_int_equal(FOUND_GONE, look());
    assert_int_equal(0, replay());
    x.record.flags &= ~(uint32_t)REC_EVIDENCE;
    x.undo.same_boot = false;
    assert_int_equal(0, replay());
    assert_true(lives(pid) && path_exists(path));
}

static void i4_a_symlink_on_the_way_is_not_followed(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup()), *link = harness_format("%s/link", harness_disk());
    pid_t pid = harness_spawn(path);
    assert_int_equal(0, symlink(harness_format("%.*s", (int)(strrchr(path, '/') - path), path), link));
    x.record.path = harness_format("%s/box 7", link);
    (void)kind->quiesce(&x.undo, &x.record, fresh());
    assert_true(kind->undo(&x.undo, &x.record, fresh()) < 0);
    assert_true(lives(pid) && path_exists(path));
}

/* ---- who is in it ---- */

static void k4_a_live_supervisor_makes_it_busy(void **state)
{
    (void)state;
    static const char *const controllers[] = {NULL, "pids", "freezer"};
    for (size_t i = 0; i < ARRAY_LEN(controllers); i++) {
        const char *path = box_in(controllers[i] ? harness_cgroup_v1(controllers[i]) : harness_cgroup());
        const char *nested = child_of(path, "nested");
        pid_t payload = harness_spawn(path), supervisor = harness_spawn(nested);
        assert_int_equal(0, procid_of(supervisor, &x.boxes[1].box.supervisor));
        assert_int_equal(-EBUSY, kind->quiesce(&x.undo, &x.record, fresh()));
        assert_int_equal(FOUND_BUSY, x.finding.found);
        assert_true(has(x.finding.error.message, "other"));
        assert_int_equal(-EBUSY, kind->undo(&x.undo, &x.record, fresh()));
        assert_int_equal(FOUND_BUSY, look());
        assert_true(lives(payload) && lives(supervisor));
        harness_kill(supervisor);
        assert_undone(path);
        assert_killed(payload);
    }
}

static void k25_a_live_supervisor_is_never_frozen(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup_v1("freezer"));
    pid_t supervisor = harness_spawn(path);
    assert_int_equal(0, procid_of(supervisor, &x.boxes[1].box.supervisor));
    assert_int_equal(-EBUSY, kind->quiesce(&x.undo, &x.record, fresh()));
    assert_string_equal("THAWED\n", harness_read(harness_format("%s/freezer.state", path)));
    assert_string_equal("0\n", harness_read(harness_format("%s/freezer.self_freezing", path)));
}

static void k4_another_boxes_record_inside_makes_it_busy(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup()), *nested = child_of(path, "nested");
    pid_t pid = harness_spawn(nested);
    x.other = (struct record){.incarnation = 78, .seq = 1, .kind = RBXJ_CGROUP};
    x.other.path = harness_format("%s", nested);
    x.boxes[1].records = &x.other;
    x.boxes[1].len = 1;
    assert_int_equal(0, procid_of(getppid(), &x.boxes[1].box.supervisor));
    struct snapshot_path paths[] = {{.path = path}, {.path = nested, .box = 1}};
    x.snapshot.paths = paths;
    x.snapshot.paths_len = 2;
    assert_int_equal(-EBUSY, kind->quiesce(&x.undo, &x.record, fresh()));
    assert_int_equal(-EBUSY, kind->undo(&x.undo, &x.record, fresh()));
    assert_int_equal(FOUND_BUSY, x.finding.found);
    assert_true(lives(pid) && path_exists(nested));
}

/* We live in the box's cgroup, or below it. As its supervisor we step out; as anybody else we make it busy.
 */
static void ourselves_inside(const char *cgroup, const char *outside)
{
    const char *path = box_in(cgroup), *nested = child_of(path, "nested");
    pid_t payload = harness_spawn(path);
    harness_write(harness_format("%s/cgroup.procs", nested), "0");
    int stranger = kind->quiesce(&x.undo, &x.record, fresh());
    bool spared = lives(payload);
    assert_int_equal(0, procid_of(getpid(), &x.box.supervisor));
    x.boxes[0].box = x.box;
    enum found seen = look();
    int rc = replay();
    bool parent = has(harness_read(harness_format("%s/cgroup.procs", cgroup)),
                      harness_format("%d\n", getpid()));
    harness_write(harness_format("%s/cgroup.procs", outside), "0");
    assert_int_equal(-EBUSY, stranger);
    assert_true(spared);
    assert_int_equal(FOUND_PRESENT, seen);
    assert_int_equal(1, rc);
    assert_true(parent);
    assert_killed(payload);
}

static void k4_a_supervisor_steps_out_of_its_box_v2(void **state)
{
    (void)state;
    ourselves_inside(harness_cgroup(), harness_cgroup_root(NULL));
}

static void k4_a_supervisor_steps_out_of_its_box_v1(void **state)
{
    (void)state;
    ourselves_inside(harness_cgroup_v1("pids"), harness_cgroup_root("pids"));
}

/* Seen from a pid namespace below, the processes outside have no number. */
static void i4_whom_we_cant_see_makes_it_busy(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup());
    pid_t inside = harness_spawn(path), pid = fork();
    if (pid == 0) {
        int status = 1;
        pid_t below = unshare(CLONE_NEWPID) == 0 ? fork() : -1;
        if (below == 0)
            _exit(kind->quiesce(&x.undo, &x.record, fresh()) == -RBXJ_E_BUSY &&
                          has(x.finding.error.message, "another pid namespace")
                      ? 0
                      : 1);
        (void)waitpid(below, &status, 0);
        _exit(status != 0);
    }
    harness_track(pid);
    assert_int_equal(0, harness_wait(pid));
    assert_true(lives(inside));
}

static void zombies_do_not_count(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup());
    pid_t pid = harness_spawn(path);
    siginfo_t info;
    assert_int_equal(0, kill(pid, SIGKILL));
    assert_int_equal(0, waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
    assert_undone(path);
}

static void k17_refilled_after_the_quiesce_is_emptied_again(void **state)
{
    (void)state;
    static const char *const controllers[] = {NULL, "pids"};
    for (size_t i = 0; i < ARRAY_LEN(controllers); i++) {
        const char *path = box_in(controllers[i] ? harness_cgroup_v1(controllers[i]) : harness_cgroup());
        assert_int_equal(0, kind->quiesce(&x.undo, &x.record, fresh()));
        pid_t early = harness_spawn(path);
        assert_int_equal(0, kind->quiesced(&x.undo, &x.record, fresh()));
        assert_killed(early);
        pid_t pid = harness_spawn(child_of(path, "late"));
        int64_t start = now_monotonic_ns();
        assert_int_equal(1, kind->undo(&x.undo, &x.record, fresh()));
        assert_true(now_monotonic_ns() - start < 400000000); /* woken, not slept */
        assert_killed(pid);
    }
}

static void a_mount_inside_is_busy(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup()), *child = child_of(path, "child");
    assert_int_equal(0, mount("none", child, "tmpfs", 0, NULL));
    int inside = kind->undo(&x.undo, &x.record, fresh());
    assert_int_equal(0, umount2(child, MNT_DETACH));
    assert_int_equal(0, mount("none", path, "tmpfs", 0, NULL));
    enum found over = look();
    int rc = kind->undo(&x.undo, &x.record, fresh());
    assert_int_equal(0, umount2(path, MNT_DETACH));
    assert_true(inside < 0 && rc < 0);
    assert_int_equal(FOUND_BUSY, over);
    assert_undone(path);
}

/* ---- shapes of trees ---- */

/* Deeper than there are descriptors, and with many children: what has to be found is at the ends. */
static void deep_and_wide(const char *cgroup)
{
    enum { DEPTH = 150, WIDTH = 150 };
    const char *path = box_in(cgroup), *deep = path, *wide = child_of(path, "wide");
    for (int i = 0; i < DEPTH; i++)
        deep = child_of(deep, "d");
    for (int i = 0; i < WIDTH; i++)
        (void)child_of(wide, harness_format("w%d", i));
    pid_t pids[] = {harness_spawn(deep), harness_spawn(harness_format("%s/w0", wide)),
                    harness_spawn(harness_format("%s/w%d", wide, WIDTH - 1))};
    struct rlimit old, low = {40, 4096};
    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &old));
    low.rlim_max = old.rlim_max;
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &low));
    int rc = replay();
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &old));
    if (rc != 1)
        fail_msg("%d: %s", rc, x.finding.error.message);
    assert_false(path_exists(path));
    for (size_t i = 0; i < ARRAY_LEN(pids); i++)
        assert_killed(pids[i]);
}

static void deep_and_wide_v2(void **state)
{
    (void)state;
    deep_and_wide(harness_cgroup());
}

static void deep_and_wide_v1(void **state)
{
    (void)state;
    deep_and_wide(harness_cgroup_v1("pids"));
}

static void members_are_found_at_any_depth(void **state)
{
    (void)state;
    const char *top = harness_cgroup(), *deep = top;
    for (int i = 0; i < 60; i++) {
        (void)child_of(deep, "aside");
        deep = child_of(deep, "deep");
    }
    pid_t pids[] = {harness_spawn(top), harness_spawn(deep), harness_spawn(harness_format("%s/aside", top))};
    _cleanup_close_ int fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_(cgroup_members_clear) struct cgroup_members members = {0};
    assert_int_equal(0, cgroup_members(fd, &members));
    assert_int_equal(3, members.len);
    for (size_t i = 0; i < ARRAY_LEN(pids); i++)
        assert_true(cgroup_members_have(&members, pids[i]));
    assert_false(cgroup_members_have(&members, getpid()));
    assert_int_equal(0, cgroup_is_empty(fd));
}

static char thread_cgroup[4200];

static void *move_thread(void *data)
{
    (void)data;
    _cleanup_close_ int fd = open(thread_cgroup, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "0", 1) == 1)
        (void)kill(getpid(), SIGSTOP); /* tells the test that it is there */
    while (pause() < 0)
        ;
    return NULL;
}

static void run_two_threads(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, move_thread, NULL) == 0)
        for (;;)
            pause();
}

/* A process that stays in cgroup but for one thread, which is in threaded. */
static pid_t spawn_threaded(const char *cgroup, const char *threaded)
{
    int status;
    (void)snprintf(thread_cgroup, sizeof(thread_cgroup), "%s/cgroup.threads", threaded);
    pid_t pid = fork_into(cgroup, run_two_threads);
    assert_int_equal(pid, waitpid(pid, &status, WUNTRACED));
    assert_true(WIFSTOPPED(status));
    assert_int_equal(0, kill(pid, SIGCONT));
    return pid;
}

static void threaded_children_die_with_their_domain(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup()), *child = child_of(path, "threads");
    harness_write(harness_format("%s/cgroup.type", child), "threaded");
    pid_t pid = spawn_threaded(path, child);
    assert_undone(path);
    assert_killed(pid);
}

/* The box's cgroup itself is threaded: its domain is not the box's, and whoever is only there lives on. */
static void i2_a_threaded_box_spares_its_domain(void **state)
{
    (void)state;
    const char *domain = harness_cgroup(), *path = box_in(domain);
    harness_write(harness_format("%s/cgroup.type", path), "threaded");
    pid_t ours = spawn_threaded(domain, path), bystander = harness_spawn(domain);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(-EOPNOTSUPP, cgroup_kill_at_once(fd));
    assert_undone(path);
    assert_killed(ours);
    assert_true(lives(bystander));
}

/* ---- killing ---- */

static void frozen_v2_dies(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup()), *nested = child_of(path, "nested");
    pid_t pid = harness_spawn(nested);
    harness_write(harness_format("%s/cgroup.freeze", nested), "1");
    assert_undone(path);
    assert_killed(pid);
}

static void frozen_v1_dies_in_each_cgroup_that_was_frozen(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup_v1("freezer")), *nested = child_of(path, "nested");
    pid_t pids[] = {harness_spawn(path), harness_spawn(nested)};
    harness_write(harness_format("%s/freezer.state", nested), "FROZEN");
    harness_write(harness_format("%s/freezer.state", path), "FROZEN");
    assert_undone(path);
    assert_killed(pids[0]);
    assert_killed(pids[1]);
}

static int everybody(pid_t pid, void *data)
{
    (void)pid;
    ++*(int *)data;
    return 0;
}

static int nobody(pid_t pid, void *data)
{
    (void)pid;
    (void)data;
    return -EBUSY;
}

/* The ways of older kernels, on v2. */
static void k25_the_fallbacks_kill_and_thaw_and_ask(void **state)
{
    (void)state;
    static int (*const ways[])(int, cgroup_guard, void *) = {cgroup_kill_frozen, cgroup_kill_round};
    const char *path = box_in(harness_cgroup()), *nested = child_of(path, "nested");
    _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        int asked = 0;
        pid_t pids[] = {harness_spawn(path), harness_spawn(nested)};
        assert_int_equal(-EBUSY, ways[i](fd, nobody, NULL));
        assert_true(lives(pids[0]) && lives(pids[1]));
        assert_string_equal("0\n", harness_read(harness_format("%s/cgroup.freeze", path)));
        assert_int_equal(0, ways[i](fd, everybody, &asked));
        assert_int_equal(2, asked);
        assert_int_equal(0, cgroup_wait_empty(fd, in_ms(2000)));
        assert_killed(pids[0]);
        assert_killed(pids[1]);
    }
}

static void bomb(void)
{
    for (;;)
        (void)fork();
}

/* The bomb is held at 60 processes by a pids cgroup above. Where its box can stop forks itself, and where it
 * can't. */
static void fork_bomb(const char *cgroup, bool stops_forks)
{
    const char *path = box_in(cgroup), *limit = harness_cgroup_v1("pids");
    harness_write(harness_format("%s/pids.max", stops_forks ? cgroup : limit), "60");
    int go[2];
    assert_int_equal(0, pipe2(go, O_CLOEXEC));
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        if (read(go[0], &byte, 1) == 1)
            bomb();
        _exit(0);
    }
    harness_track(pid);
    if (!stops_forks)
        harness_write(harness_format("%s/cgroup.procs", limit), harness_format("%d", pid));
    harness_write(harness_format("%s/cgroup.procs", path), harness_format("%d", pid));
    assert_int_equal(1, write(go[1], "", 1));
    (void)close(go[0]);
    (void)close(go[1]);
    (void)usleep(50000);
    assert_undone(path);
    (void)harness_wait(pid);
}

static void fork_bomb_in_v1_pids(void **state)
{
    (void)state;
    fork_bomb(harness_cgroup_v1("pids"), true);
}

static void fork_bomb_in_v1_memory(void **state)
{
    (void)state;
    fork_bomb(harness_cgroup_v1("memory"), false);
}

static void fork_bomb_in_v1_freezer(void **state)
{
    (void)state;
    fork_bomb(harness_cgroup_v1("freezer"), false);
}

static void fork_bomb_in_v2(void **state)
{
    (void)state;
    fork_bomb(harness_cgroup(), false);
}

/* libcgroup's delete would move the process to the parent cgroup, out of the box. */
static void a_populated_v1_group_is_never_emptied_by_the_removal(void **state)
{
    (void)state;
    const char *cgroup = harness_cgroup_v1("pids"), *path = box_in(cgroup);
    pid_t pid = harness_spawn(path);
    _cleanup_close_ int parent = open(cgroup, O_PATH | O_CLOEXEC);
    assert_int_equal(-EBUSY, cgroup_remove(parent, "box 7", path, &x.record.id));
    assert_string_equal(harness_format("%d\n", pid), harness_read(harness_format("%s/cgroup.procs", path)));
    harness_kill(pid);
    struct fileid another = x.record.id;
    another.ino++;
    assert_int_equal(-ESTALE, cgroup_remove(parent, "box 7", path, &another));
    assert_int_equal(0, cgroup_remove(parent, "box 7", path, &x.record.id));
    assert_int_equal(-ENOENT, cgroup_remove(parent, "box 7", path, &x.record.id));
}

static void eat_memory(void)
{
    for (;;) {
        char *block = malloc(1 << 20);
        if (block)
            memset(block, 1, 1 << 20);
    }
}

static void out_of_memory_kills_are_noted(void **state)
{
    (void)state;
    const char *path = box_in(harness_cgroup_v1("memory"));
    harness_write(harness_format("%s/memory.limit_in_bytes", path), "8M");
    pid_t pid = fork_into(path, eat_memory);
    (void)harness_wait(pid);
    assert_int_equal(FOUND_PRESENT, look());
    assert_true(has(x.finding.error.detail, "1 out-of-memory kill"));
    assert_int_equal(0, x.finding.error.code);
    assert_int_equal(0, kind->quiesce(&x.undo, &x.record, fresh()));
    assert_true(has(x.finding.error.detail, "1 out-of-memory kill"));
    assert_undone(path);
}

/* ---- what will not die ---- */

static char frozen_file[4200];

static void write_frozen(void)
{
    int fd = open(frozen_file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    _exit(fd < 0);
}

static const char *mount_loop(void)
{
    const char *image = harness_format("%s/image", harness_disk()),
               *at = harness_format("%s/at", harness_disk());
    harness_write(image, "");
    harness_mkdir(at);
    assert_int_equal(0, truncate(image, 8 << 20));
    if (system(harness_format("mkfs.ext4 -q %s 2>/dev/null && mount -o loop %s %s 2>/dev/null", image, image,
                              at)))
        harness_skip("no ext4 on a loop device here");
    return at;
}

static bool state_is(pid_t pid, char letter)
{
    const char *stat = harness_read(harness_format("/proc/%d/stat", pid));
    return strrchr(stat, ')')[2] == letter;
}

static void what_will_not_die_is_named_with_its_state(void **state)
{
    (void)state;
    const char *at = mount_loop();
    _cleanup_close_ int fs = open(at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    static const char *const controllers[] = {NULL, "pids"};
    for (size_t i = 0; i < ARRAY_LEN(controllers); i++) {
        const char *path = box_in(controllers[i] ? harness_cgroup_v1(controllers[i]) : harness_cgroup());
        (void)snprintf(frozen_file, sizeof(frozen_file), "%s/file%zu", at, i);
        assert_int_equal(0, ioctl(fs, FIFREEZE, 0));
        pid_t pid = fork_into(path, write_frozen);
        for (int k = 0; k < 1000 && !state_is(pid, 'D'); k++)
            (void)usleep(1000);
        int64_t start = now_monotonic_ns();
        x.undo.deadline_ns = in_ms(150);
        int first = replay();
        int64_t took = now_monotonic_ns() - start;
        struct finding waited = x.finding;
        int second = kind->undo(&x.undo, &x.record, fresh());
        assert_int_equal(0, ioctl(fs, FITHAW, 0)); /* before anything may fail */
        assert_int_equal(-EBUSY, first);
        assert_int_equal(-EBUSY, second);
        assert_true(took >= 140000000 && took < 1500000000);
        assert_int_equal(FOUND_BUSY, waited.found);
        if (!has(waited.error.message, harness_format("pid %d (", pid)) ||
            !has(waited.error.message, "state D"))
            fail_msg("%s", waited.error.message);
        assert_true(path_exists(path));
        if (controllers[i]) /* nothing forks in it any more, whoever wins the race */
            assert_string_equal("0\n", harness_read(harness_format("%s/pids.max", path)));
        x.undo.deadline_ns = in_ms(5000);
        assert_undone(path);
        assert_killed(pid);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(i6_v2_is_killed_removed_and_verified),
        harness_test(i6_v1_pids_is_killed_removed_and_verified),
        harness_test(i6_v1_freezer_is_killed_removed_and_verified),
        harness_test(i6_v1_memory_is_killed_removed_and_verified),
        harness_test(i6_v1_named_hierarchy_is_removed),
        harness_test(i6_a_leftover_fails_the_verification),
        harness_test(i5_a_removal_cut_in_the_middle_goes_on),
        harness_test(k5_present_before_is_refused),
        harness_test(own_cgroup_its_ancestors_and_mount_points_are_protected),
        harness_test(what_is_no_plain_cgroup_path_is_a_bad_request),
        harness_test(k1_what_is_not_new_is_not_proven),
        harness_test(k1_without_evidence_the_stamp_decides),
        harness_test(k1_with_neither_only_an_empty_one_is_removed),
        harness_test(k2_a_stranger_of_our_name_proves_ours_gone),
        harness_test(another_boot_is_gone),
        harness_test(i4_a_symlink_on_the_way_is_not_followed),
        harness_test(k4_a_live_supervisor_makes_it_busy),
        harness_test(k25_a_live_supervisor_is_never_frozen),
        harness_test(k4_another_boxes_record_inside_makes_it_busy),
        harness_test(k4_a_supervisor_steps_out_of_its_box_v2),
        harness_test(k4_a_supervisor_steps_out_of_its_box_v1),
        harness_test(i4_whom_we_cant_see_makes_it_busy),
        harness_test(zombies_do_not_count),
        harness_test(k17_refilled_after_the_quiesce_is_emptied_again),
        harness_test(a_mount_inside_is_busy),
        harness_test(deep_and_wide_v2),
        harness_test(deep_and_wide_v1),
        harness_test(members_are_found_at_any_depth),
        harness_test(threaded_children_die_with_their_domain),
        harness_test(i2_a_threaded_box_spares_its_domain),
        harness_test(frozen_v2_dies),
        harness_test(frozen_v1_dies_in_each_cgroup_that_was_frozen),
        harness_test(k25_the_fallbacks_kill_and_thaw_and_ask),
        harness_test(fork_bomb_in_v1_pids),
        harness_test(fork_bomb_in_v1_memory),
        harness_test(fork_bomb_in_v1_freezer),
        harness_test(fork_bomb_in_v2),
        harness_test(a_populated_v1_group_is_never_emptied_by_the_removal),
        harness_test(out_of_memory_kills_are_noted),
        harness_test(what_will_not_die_is_named_with_its_state),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
