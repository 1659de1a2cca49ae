/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The mount kind: what is mounted below it, and its copies in other mount namespaces (K4, K10, K12).
 */
#include "mount_fixture.h"
#include "reading_fixture.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* ---- what is below ---- */

static void k12_submounts_go_first(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a");
    struct record *r = acquire("tmpfs", "x", a, NULL);
    harness_mkdir(harness_format("%s/1", a));
    tmpfs_on(harness_format("%s/1", a), "1");
    harness_mkdir(harness_format("%s/1/2", a));
    tmpfs_on(harness_format("%s/1/2", a), "2");
    tmpfs_on(harness_format("%s/1/2", a), "2, once more");
    harness_mkdir(harness_format("%s/3", a));
    assert_int_equal(0, mount(harness_disk(), harness_format("%s/3", a), NULL, MS_BIND, NULL));
    /* beside it, with a longer name */
    const char *beside = dir("ab");
    tmpfs_on(beside, "beside");
    assert_undone(r);
    assert_int_equal(0, mounted(a));
    assert_int_equal(1, mounted(beside));
}

static void k12_rbind_leaves_the_original(void **state)
{
    (void)state;
    harness_need_root();
    const char *dev = dir("dev"), *pts = harness_format("%s/pts", dev), *a = dir("a");
    tmpfs_on(dev, "dev");
    assert_int_equal(0, mount(NULL, dev, NULL, MS_SHARED, NULL));
    harness_mkdir(pts);
    tmpfs_on(pts, "pts");
    struct record *r = intend("rbind", dev, a);
    assert_int_equal(0, mount(dev, a, NULL, MS_BIND | MS_REC, NULL)); /* as a careless supervisor does it */
    prove(r);
    assert_int_equal(2, mounted(a));
    assert_undone(r);
    assert_int_equal(0, mounted(a));
    assert_int_equal(2, mounted(dev));
}

static void k4_anothers_record_below_is_busy(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a"), *b = harness_format("%s/b", a);
    struct record *r = acquire("tmpfs", "x", a, NULL);
    harness_mkdir(b);
    tmpfs_on(b, "of the other box");
    struct record theirs = {.incarnation = x.boxes[1].box.incarnation,
                            .seq = 1,
                            .kind = RBXJ_MOUNT,
                            .path = harness_format("%s", b)};
    x.boxes[1].records = &theirs;
    x.boxes[1].len = 1;
    struct snapshot_path paths[] = {{.path = a, .box = 0}, {.path = b, .box = 1}};
    x.snapshot.paths = paths;
    x.snapshot.paths_len = 2;
    assert_true(undo(r) < 0);
    assert_int_equal(FOUND_BUSY, x.f.found);
    assert_int_equal(2, mounted(a));
    x.boxes[1].len = 0;
    x.snapshot.paths_len = 1;
    assert_undone(r);
    x.snapshot.paths = NULL;
    x.snapshot.paths_len = 0;
}

/* As before 6.8, where the id of ours was given to a stranger's mount of the same: what it shows, and where,
 * has to tell. */
static void k13_a_reused_id_elsewhere_is_in_doubt(void **state)
{
    (void)state;
    harness_need_root();
    const char *source = dir("source"), *places[] = {dir("a"), dir("b")};
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        struct record *r = acquire(i ? "tmpfs" : "bind", i ? "x" : source, places[0], NULL);
        assert_int_equal(0, umount2(places[0], 0));
        if (i) { /* another one, at the same place */
            (void)strcpy(r->found_source, "y");
            tmpfs_on(places[0], "y");
        } else { /* the same, elsewhere */
            assert_int_equal(0, mount(source, places[1], NULL, MS_BIND, NULL));
        }
        struct mount_at at;
        assert_int_equal(0, mount_at(AT_FDCWD, places[!i], &at));
        r->mount.unique = r->newest_mount = 0;
        r->mount.id = at.id;
        r->mount.dev = at.dev;
        r->id.dev = at.dev;
        assert_int_equal(FOUND_FOREIGN, look(r));
        assert_int_equal(x.f.refused, !i);
        assert_int_equal(i ? 0 : -RBXJ_E_FOREIGN, undo(r));
        assert_int_equal(1, mounted(places[!i]));
        assert_int_equal(0, umount2(places[!i], 0));
        assert_int_equal(FOUND_GONE, look(r));
    }
}

/* ---- other namespaces ---- */

static bool copy_namespace(const void *propagation)
{
    return unshare(CLONE_NEWNS) == 0 &&
           mount(NULL, "/", NULL, MS_REC | *(const unsigned long *)propagation, NULL) == 0;
}

/* A child in a copy of this mount namespace, in which all mounts have been given that propagation. */
static pid_t copy_of_namespace(unsigned long propagation)
{
    return child_that_waits(copy_namespace, &propagation);
}

static void k12_a_private_copy_elsewhere_is_named(void **state)
{
    (void)state;
    harness_need_root();
    const char *fstypes[] = {"tmpfs", "bind"};
    for (size_t i = 0; i < ARRAY_LEN(fstypes); i++) {
        const char *a = dir(harness_format("a%zu", i));
        struct record *r = acquire(fstypes[i], dir(harness_format("source%zu", i)), a, NULL);
        pid_t pid = copy_of_namespace(MS_PRIVATE);
        assert_int_equal(1, undo(r));
        assert_int_equal(0, mounted(a));
        assert_int_equal(-RBXJ_E_BUSY, verify(r));
        assert_true(x.f.partial);
        assert_non_null(strstr(x.f.error.detail, harness_format("pid %d", pid)));
        assert_int_equal(FOUND_BUSY, look(r));
        assert_true(undo(r) < 0);
        harness_kill(pid);
        assert_int_equal(FOUND_GONE, look(r));
        assert_int_equal(0, verify(r));
    }
}

/* mountinfo shows the new name of what was bound. */
static void k12_a_copy_of_what_was_renamed_is_named(void **state)
{
    (void)state;
    harness_need_root();
    const char *source = dir("source"), *a = dir("a");
    struct record *r = acquire("bind", source, a, NULL);
    pid_t pid = copy_of_namespace(MS_PRIVATE);
    assert_int_equal(0, rename(source, harness_format("%s.old", source)));
    assert_int_equal(1, undo(r));
    assert_int_equal(-RBXJ_E_BUSY, verify(r));
    assert_non_null(strstr(x.f.error.detail, harness_format("pid %d", pid)));
    harness_kill(pid);
    assert_int_equal(0, verify(r));
}

static bool tmpfs_of_its_own(const void *target)
{
    static const unsigned long alone = MS_PRIVATE;
    return copy_namespace(&alone) && mount("y", target, "tmpfs", 0, "size=64k") == 0;
}

/* The number of a tmpfs is given to the next one, which may be a container's, by the same name. */
static void k12_another_file_system_of_its_number_is_no_copy(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a"), *b = dir("b");
    struct record *r = acquire("tmpfs", "x", a, NULL);
    struct stat st;
    assert_int_equal(0, umount2(a, 0));
    pid_t pid = child_that_waits(tmpfs_of_its_own, b);
    assert_int_equal(0, stat(harness_format("/proc/%d/root%s", pid, b), &st));
    (void)strcpy(r->found_source, "y");
    r->devices_held = r->mount.dev = r->id.dev = st.st_dev;
    assert_int_equal(FOUND_GONE, look(r));
    assert_int_equal(0, verify(r));
}

/* As a container's start: its namespace is a copy of ours, and then it is not any more. It is not left for
 * that. */
static void k12_a_copy_that_goes_by_itself_is_waited_for(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a");
    struct record *r = acquire("tmpfs", dir("source"), a, NULL);
    pid_t pid = copy_of_namespace(MS_PRIVATE);
    x.undo.busy_retries = 100000; /* until the deadline, or the event */
    assert_int_equal(1, undo(r));
    pid_t killer = fork();
    if (killer == 0) {
        (void)usleep(20000); /* verify() has looked by then, or finds nothing at once */
        (void)kill(pid, SIGKILL);
        _exit(0);
    }
    harness_track(killer);
    assert_int_equal(0, verify(r));
    assert_false(x.f.partial);
}

static void k12_copies_that_hear_of_it_go_too(void **state)
{
    (void)state;
    harness_need_root();
    const char *base = shared_dir();
    static const char *const fstypes[] = {"tmpfs", "bind", "tmpfs", "bind"};
    for (size_t i = 0; i < ARRAY_LEN(fstypes); i++) {
        const char *a = harness_format("%s/a%zu", base, i);
        harness_mkdir(a);
        /* before it is mounted: it is propagated there; after: it is copied with the namespace */
        pid_t pid = i < 2 ? copy_of_namespace(MS_SLAVE) : 0;
        struct record *r = acquire(fstypes[i], dir(harness_format("source%zu", i)), a, NULL);
        pid = pid ? pid : copy_of_namespace(MS_SLAVE);
        harness_mkdir(harness_format("%s/sub", a));
        tmpfs_on(harness_format("%s/sub", a), "sub");
        struct mount_table *table;
        assert_int_equal(0, mount_table_read(harness_format("/proc/%d/mountinfo", pid), &table, NULL));
        assert_non_null(mount_table_top(table, a));
        mount_table_free(table);
        assert_undone(r);
        assert_int_equal(0, mount_table_read(harness_format("/proc/%d/mountinfo", pid), &table, NULL));
        assert_null(mount_table_top(table, a));
        mount_table_free(table);
        harness_kill(pid);
    }
}

static void k10_a_mount_in_another_namespace(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = dir("a");
    int home = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    assert_int_equal(0, unshare(CLONE_NEWNS));
    struct record *r = acquire("tmpfs", "x", a, NULL);
    harness_mkdir(harness_format("%s/sub", a));
    tmpfs_on(harness_format("%s/sub", a), "sub");
    pid_t pid = harness_spawn(NULL); /* keeps that namespace, once we have left it */
    assert_int_equal(0, setns(home, CLONE_NEWNS));
    (void)close(home);
    assert_int_equal(0, mounted(a));
    assert_int_equal(ns_of(pid), r->mount.ns);
    if (r->mount.unique) { /* one that has its number there, but is another one */
        uint64_t device = r->devices_held;
        r->mount.unique++;
        r->devices_held = 0; /* so that it does not count as a copy */
        assert_int_equal(FOUND_FOREIGN, look(r));
        r->devices_held = device;
        r->mount.unique--;
    }
    /* a stranger of the same name here is not it */
    tmpfs_on(a, "stranger");
    assert_undone(r);
    assert_int_equal(1, mounted(a));
    struct mount_table *table;
    assert_int_equal(0, mount_table_read(harness_format("/proc/%d/mountinfo", pid), &table, NULL));
    assert_null(mount_table_top(table, a));
    mount_table_free(table);
}

#define NEED(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            return __LINE__;                                                                                 \
    } while (0)

/* In a pid namespace of its own, where nothing is hidden and pid 1 is the test's. */
static void in_pid_namespace(int (*body)(void))
{
    pid_t outer = fork();
    if (outer == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        pid_t inner = unshare(CLONE_NEWPID | CLONE_NEWNS) < 0 ? -1 : fork();
        if (inner == 0) {
            int line = mount("proc", "/proc", "proc", 0, NULL) < 0 ? __LINE__ : body();
            if (line)
                (void)fprintf(stderr, "failed at line %d: %s: %s\n", line, x.error.message,
                              x.f.error.message);
            _exit(line != 0);
        }
        int status;
        _exit(inner > 0 && waitpid(inner, &status, 0) == inner && WIFEXITED(status) ? WEXITSTATUS(status)
                                                                                    : 1);
    }
    harness_track(outer);
    assert_int_equal(0, harness_wait(outer));
}

static struct record *record_of_test;

static int namespace_dies(void)
{
    struct record *r = record_of_test;
    int home = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    NEED(home >= 0 && unshare(CLONE_NEWNS) == 0);
    NEED(kind->prepare(&x.undo, r, &x.error) == 0);
    NEED(kind->acquire(&x.undo, r, NULL, NULL, &x.error) == 0);
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    NEED(setns(home, CLONE_NEWNS) == 0);
    NEED(kind->look(&x.undo, r, pass()) == 0 && x.f.found == FOUND_PRESENT);
    NEED(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
    NEED(kind->look(&x.undo, r, pass()) == 0 && x.f.found == FOUND_GONE);
    NEED(kind->undo(&x.undo, r, pass()) == 0);
    NEED(kind->verify(&x.undo, r, pass()) == 0);
    return 0;
}

static void k10_gone_only_with_its_namespace(void **state)
{
    (void)state;
    harness_need_root();
    record_of_test = add("tmpfs", "x", dir("a"));
    in_pid_namespace(namespace_dies);
}

static int private_tmp(void)
{
    struct record *r = record_of_test;
    char parent[4096];
    (void)strcpy(parent, r->path);
    *strrchr(parent, '/') = '\0';
    pid_t pid = fork();
    if (pid == 0) { /* pid 1 stays behind */
        if (unshare(CLONE_NEWNS) < 0 || kind->prepare(&x.undo, r, &x.error) != 0)
            _exit(1); /* the same directory in another namespace is fine */
        if (mount("private-tmp", parent, "tmpfs", 0, NULL) < 0 || mkdir(r->path, 0700) < 0)
            _exit(2);
        if (kind->prepare(&x.undo, r, &x.error) != -RBXJ_E_BAD_REQUEST ||
            !strstr(x.error.message, "private /tmp?"))
            _exit(3);
        _exit(0);
    }
    int status = -1;
    NEED(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : __LINE__;
}

static void k10_private_tmp_is_refused(void **state)
{
    (void)state;
    harness_need_root();
    (void)dir("tmp");
    record_of_test = add("tmpfs", "x", dir("tmp/box7"));
    in_pid_namespace(private_tmp);
}

/* ---- many ---- */

static void k12_a_thousand_mounts_few_readings(void **state)
{
    (void)state;
    harness_need_root();
    enum { COUNT = 1000 };
    static struct record many[COUNT];
    const char *base = dir("many");
    tmpfs_on(base, "many");
    for (int i = 0; i < COUNT; i++) {
        const char *path = harness_format("%s/%d", base, i);
        harness_mkdir(path);
        many[i] = (struct record){.incarnation = x.box.incarnation,
                                  .seq = (uint32_t)i + 1,
                                  .kind = RBXJ_MOUNT,
                                  .path = strdup(path),
                                  .fstype = strdup(i % 2 ? "tmpfs" : "bind"),
                                  .source = strdup(base)};
        /* the evidence is taken from one reading below: proving each costs one */
        many[i].mount_ns = ns_of(0);
        assert_int_equal(0, i % 2 ? mount("many", path, "tmpfs", 0, NULL)
                                  : mount(base, path, NULL, MS_BIND, NULL));
    }
    struct mount_table *table;
    assert_int_equal(0, mount_table_read("/proc/self/mountinfo", &table, NULL));
    for (int i = 0; i < COUNT; i++) {
        const struct mount *m = mount_table_top(table, many[i].path);
        struct mount_at at;
        assert_int_equal(0, mount_at(AT_FDCWD, m->target, &at));
        many[i].mount = (struct mountid){
            .unique = at.unique, .ns = many[i].mount_ns, .dev = m->dev, .id = m->id, .parent = m->parent};
        many[i].root = strdup(m->root);
        many[i].found_source = strdup(m->source);
        many[i].flags = REC_EVIDENCE;
        memcpy(many[i].evidence_boot, x.box.supervisor.boot_id, 16);
    }
    mount_table_free(table);
    (void)pass();
    unsigned first = 0;
    mountinfo_readings = proc_searches = 0;
    int64_t start = now_monotonic_ns();
    for (int i = COUNT - 1; i >= 0; i--) {
        struct finding f = {0};
        assert_int_equal(0, kind->look(&x.undo, &many[i], &f));
        assert_int_equal(FOUND_PRESENT, f.found);
        assert_int_equal(1, kind->undo(&x.undo, &many[i], &f));
        f = (struct finding){0};
        assert_int_equal(0, kind->verify(&x.undo, &many[i], &f));
        if (i == COUNT - 1)
            first = mountinfo_readings;
    }
    print_message("%d mounts undone in %d ms, %u readings\n", COUNT,
                  (int)((now_monotonic_ns() - start) / 1000000), first);
    /* a process elsewhere that ends meanwhile costs another reading, and a device number that is given out
     * again; not a mount */
    assert_true(mountinfo_readings - first < COUNT / 4);
    assert_true(proc_searches <= 10);
    assert_int_equal(1, mounted(base));
    for (int i = 0; i < COUNT; i++)
        record_clear(&many[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mount_test(k12_submounts_go_first),
        mount_test(k12_rbind_leaves_the_original),
        mount_test(k4_anothers_record_below_is_busy),
        mount_test(k13_a_reused_id_elsewhere_is_in_doubt),
        mount_test(k12_a_private_copy_elsewhere_is_named),
        mount_test(k12_a_copy_of_what_was_renamed_is_named),
        mount_test(k12_another_file_system_of_its_number_is_no_copy),
        mount_test(k12_a_copy_that_goes_by_itself_is_waited_for),
        mount_test(k12_copies_that_hear_of_it_go_too),
        mount_test(k10_a_mount_in_another_namespace),
        mount_test(k10_gone_only_with_its_namespace),
        mount_test(k10_private_tmp_is_refused),
        mount_test(k12_a_thousand_mounts_few_readings),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
