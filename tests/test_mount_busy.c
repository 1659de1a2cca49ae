/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The mount kind: who uses it, what is detached, and what hangs (K4, K15, K16).
 */
#include "base/helper.h"
#include "hung_fuse.h"
#include "mount_fixture.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* ---- busy ---- */

static bool go_in(const void *path)
{
    return chdir(path) == 0;
}

static pid_t spawn_in(const char *path)
{
    return child_that_waits(go_in, path);
}

static void k15_a_strangers_use_is_busy(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a");
    struct record *r = acquire("tmpfs", "x", a, NULL);
    pid_t pid = spawn_in(a);
    assert_int_equal(FOUND_PRESENT, look(r));
    assert_int_equal(-RBXJ_E_BUSY, undo(r));
    assert_int_equal(FOUND_BUSY, x.f.found);
    assert_int_equal(EBUSY, x.f.error.errnum);
    assert_non_null(strstr(x.f.error.detail, harness_format("pid %d", pid)));
    assert_int_equal(0, kill(pid, 0));
    assert_int_equal(0, waitpid(pid, NULL, WNOHANG));
    assert_int_equal(1, mounted(a));
    harness_kill(pid);
    /* an open file, and a mapped one */
    const char *file = harness_format("%s/file", a);
    harness_write(file, "x");
    int fd = open(file, O_RDWR | O_CLOEXEC);
    struct mount_holders holders;
    assert_int_equal(0, mount_holders_find(&x.undo, r->mount.id, r->mount.unique, 0, &holders));
    assert_int_equal(1, holders.len);
    assert_int_equal(getpid(), holders.at[0].pid);
    assert_int_equal('f', holders.at[0].how);
    void *map = mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0);
    (void)close(fd);
    assert_int_equal(0, mount_holders_find(&x.undo, r->mount.id, r->mount.unique, 0, &holders));
    assert_int_equal(1, holders.len);
    assert_int_equal('m', holders.at[0].how);
    assert_int_equal(0, munmap(map, 1));
    assert_undone(r);
}

static void k15_a_bind_is_not_held_through_its_original(void **state)
{
    (void)state;
    harness_need_root();
    const char *source = dir("source"), *a = dir("a");
    struct record *r = acquire("bind", source, a, NULL);
    pid_t pid = spawn_in(source);
    struct mount_holders holders;
    assert_int_equal(0, mount_holders_find(&x.undo, r->mount.id, r->mount.unique, 0, &holders));
    assert_int_equal(0, holders.len);
    r->mount.unique = 0;
    assert_undone(r);
    assert_int_equal(0, waitpid(pid, NULL, WNOHANG));
}

static void k4_own_processes_are_killed(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a");
    struct record *r = acquire("tmpfs", "x", a, NULL);
    pid_t pid = spawn_in(a), stranger = spawn_in(harness_disk());
    struct record *p = add("", "", "");
    p->kind = RBXJ_PROCESS;
    p->flags = REC_EVIDENCE;
    assert_int_equal(0, procid_of(pid, &p->process));
    memcpy(p->evidence_boot, p->process.boot_id, 16);
    assert_int_equal(1, undo(r));
    assert_int_equal(0, verify(r));
    assert_true(WIFSIGNALED(harness_wait(pid)));
    assert_int_equal(0, waitpid(stranger, NULL, WNOHANG));
}

static void k4_processes_in_own_cgroups_are_killed(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a"), *cgroup = harness_cgroup();
    struct record *r = acquire("tmpfs", "x", a, NULL);
    pid_t pid = spawn_in(a);
    struct record *c = add("", "", cgroup);
    c->kind = RBXJ_CGROUP;
    c->flags = REC_EVIDENCE;
    memcpy(c->evidence_boot, r->evidence_boot, 16);
    assert_int_equal(0, fileid_of_name(AT_FDCWD, cgroup, &c->id));
    assert_int_equal(-RBXJ_E_BUSY, undo(r)); /* not inside */
    harness_write(harness_format("%s/cgroup.procs", cgroup), harness_format("%d", pid));
    assert_int_equal(1, undo(r));
    assert_int_equal(0, verify(r));
    assert_true(WIFSIGNALED(harness_wait(pid)));
}

static void k15_detached_until_nobody_holds_it(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a"), *b = dir("b");
    struct record *r = acquire("tmpfs", "x", a, NULL);
    harness_mkdir(harness_format("%s/sub", a));
    tmpfs_on(harness_format("%s/sub", a), "sub");
    pid_t pid = spawn_in(a);
    x.undo.lazy_umount = true;
    assert_int_equal(-RBXJ_E_BUSY, undo(r));
    assert_true(x.f.partial);
    assert_non_null(strstr(x.f.error.detail, harness_format("pid %d", pid)));
    assert_true(r->flags & REC_DETACHED);
    assert_int_equal(0, mounted(a));
    tmpfs_on(a, "the next box");
    assert_int_equal(FOUND_BUSY, look(r));
    assert_int_equal(-RBXJ_E_BUSY, undo(r));
    assert_int_equal(-RBXJ_E_BUSY, verify(r));
    harness_kill(pid);
    assert_becomes(FOUND_GONE, r);
    assert_int_equal(1, mounted(a));
    /* a bind of it elsewhere still shows its device */
    r = acquire("tmpfs", "x", b, NULL);
    const char *c = dir("c");
    assert_int_equal(0, mount(b, c, NULL, MS_BIND, NULL));
    pid = spawn_in(b);
    assert_int_equal(-RBXJ_E_BUSY, undo(r));
    harness_kill(pid);
    assert_int_equal(FOUND_BUSY, look(r));
    assert_int_equal(0, umount2(c, 0));
    assert_becomes(FOUND_GONE, r);
}

/* As before 6.8. Ids are taken from the lowest free one: the next mount may have it, and users. */
static void k15_the_users_of_the_next_mount_with_its_id_are_none(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a");
    struct record *r = acquire("bind", dir("source"), a, NULL);
    pid_t pid = spawn_in(a);
    r->mount.unique = r->newest_mount = 0;
    x.undo.lazy_umount = true;
    assert_int_equal(-RBXJ_E_BUSY, undo(r));
    assert_int_equal(FOUND_BUSY, look(r));
    harness_kill(pid);
    struct mount_at at;
    tmpfs_on(a, "next");
    assert_int_equal(0, mount_at(AT_FDCWD, a, &at));
    r->mount.id = at.id;
    (void)spawn_in(a);
    assert_int_equal(FOUND_GONE, look(r));
    assert_int_equal(0, undo(r));
    assert_int_equal(1, mounted(a));
}

static uint32_t journaled;
static size_t mounted_then;

static int note(struct undo *u, const struct record *r, struct rbxj_error *e)
{
    (void)e;
    journaled = r->flags;
    mounted_then = mounted(r->path);
    return *(int *)u->data;
}

/* A reaper may die at any moment: before it has detached, and after that. */
static void k15_i5_it_is_journaled_before_it_is_detached(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a");
    struct record *r = acquire("tmpfs", "x", a, NULL);
    pid_t pid = spawn_in(a);
    int answer = -RBXJ_E_JOURNAL_BUSY;
    x.undo.lazy_umount = true;
    x.undo.write_ahead = note;
    x.undo.data = &answer;
    assert_int_equal(-RBXJ_E_JOURNAL_BUSY, undo(r));
    assert_int_equal(1, mounted(a));
    assert_false(r->flags & REC_DETACHED);
    r->flags = journaled;
    assert_true(r->flags & REC_DETACHED);
    assert_int_equal(FOUND_PRESENT, look(r));
    answer = 0;
    assert_int_equal(-RBXJ_E_BUSY, undo(r));
    assert_int_equal(1, mounted_then);
    assert_int_equal(0, mounted(a));
    r->flags = journaled;
    assert_int_equal(FOUND_BUSY, look(r));
    harness_kill(pid);
    assert_becomes(FOUND_GONE, r);
    /* died before it was detached, and nobody uses it any more */
    r = acquire("tmpfs", "x", a, NULL);
    r->flags |= REC_DETACHED;
    assert_undone(r);
    assert_false(r->flags & REC_DETACHED);
}

static void k15_a_detached_bind_waits_for_its_holders_only(void **state)
{
    (void)state;
    harness_need_root();
    const char *source = dir("source"), *a = dir("a");
    struct record *r = acquire("bind", source, a, NULL);
    pid_t pid = spawn_in(a);
    x.undo.lazy_umount = true;
    assert_int_equal(-RBXJ_E_BUSY, undo(r));
    assert_int_equal(FOUND_BUSY, look(r));
    harness_kill(pid);
    assert_int_equal(FOUND_GONE, look(r)); /* the host's file system goes on */
    assert_int_equal(0, undo(r));
    assert_int_equal(0, verify(r));
}

static void k16_a_hung_server_hangs_nobody(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a"), *hung = harness_format("%s/hung", a);
    struct record *r = acquire("tmpfs", "x", a, NULL);
    (void)hung_fuse(hung);
    int64_t start = now_monotonic_ns();
    assert_int_equal(FOUND_PRESENT, look(r));
    assert_int_equal(1, undo(r));
    assert_int_equal(0, verify(r));
    assert_int_equal(0, mounted(a));
    assert_true(now_monotonic_ns() - start < 3000000000);
}

static int stats_it(void *data, uint8_t output[HELPER_OUTPUT_MAX])
{
    struct stat st;
    (void)output;
    return stat(data, &st);
}

/* An undo of r hangs, and then dies: its helper stays. */
static void leave_helper_at(const struct record *r, const char *hung)
{
    char file[PATH_MAX];
    struct helper_left left = {0};
    uint64_t byte = mount_helper_of(&x.undo, r, file);
    for (int ms = 100; ms < 20000 && helper_is_at(file, byte, &left) != 1; ms *= 2) {
        pid_t pid = fork();
        if (pid == 0) {
            struct helper_result result;
            (void)helper_run_alone(file, byte, stats_it, (void *)hung, now_monotonic_ns() + ms * 1000000LL,
                                   &result);
            (void)kill(getpid(), SIGKILL);
        }
        assert_true(pid > 0);
        harness_track(pid);
        (void)harness_wait(pid); /* where the machine is busy the helper is killed before it comes to hang */
    }
    assert_int_equal(1, helper_is_at(file, byte, &left));
}

/* It may be in the last steps of an unmount, which end when it is let go, whatever is at that place then. */
static void k16_what_a_helper_is_left_at_is_busy(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a"), *b = dir("b");
    struct record *r = acquire("tmpfs", "x", a, NULL), *other = acquire("tmpfs", "x", b, NULL);
    const char *hung = harness_format("%s/hung", harness_disk());
    pid_t server = hung_fuse(hung);
    leave_helper_at(r, hung);
    assert_int_equal(FOUND_BUSY, look(r));
    assert_non_null(strstr(x.f.error.detail, "was left behind"));
    assert_int_equal(-RBXJ_E_BUSY, undo(r));
    assert_int_equal(1, mounted(a));
    assert_int_equal(1, undo(other)); /* it is at that one alone */
    /* also when it was unmounted meanwhile: its record is not to go before the helper is */
    assert_int_equal(0, umount2(a, 0));
    mounts_free(x.undo.mounts);
    x.undo.mounts = NULL;
    assert_int_equal(FOUND_BUSY, look(r));
    assert_int_equal(-RBXJ_E_BUSY, undo(r));
    harness_kill(server);
    assert_becomes(FOUND_GONE, r);
    assert_int_equal(0, undo(r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mount_test(k15_a_strangers_use_is_busy),
        mount_test(k15_a_bind_is_not_held_through_its_original),
        mount_test(k4_own_processes_are_killed),
        mount_test(k4_processes_in_own_cgroups_are_killed),
        mount_test(k15_detached_until_nobody_holds_it),
        mount_test(k15_the_users_of_the_next_mount_with_its_id_are_none),
        mount_test(k15_i5_it_is_journaled_before_it_is_detached),
        mount_test(k15_a_detached_bind_waits_for_its_holders_only),
        mount_test(k16_a_hung_server_hangs_nobody),
        mount_test(k16_what_a_helper_is_left_at_is_busy),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
