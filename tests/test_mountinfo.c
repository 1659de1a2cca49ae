/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Mountinfo, of this namespace and of others: read as bytes, whole or not at all, and once (K10, K12, K16).
 */
#include "harness.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "reading_fixture.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>

static const char *tmpfs_at(const char *path, const char *source)
{
    harness_mkdir(path);
    assert_int_equal(0, mount(source, path, "tmpfs", 0, "size=64k"));
    return path;
}

/* Of a process; 0: our own. */
static uint64_t ns_of(pid_t pid)
{
    uint64_t ns = 0;
    assert_int_equal(0, mount_ns_find(pid, &ns));
    return ns;
}

static struct mount *by_target(const struct mount_table *table, const char *target)
{
    return mount_table_top(table, target);
}

static struct mount_table *read_own(void)
{
    struct mount_table *table;
    struct rbxj_error e = {0};
    assert_int_equal(0, mount_table_read("/proc/self/mountinfo", &table, &e));
    return table;
}

static void names_are_bytes(void **state)
{
    (void)state;
    harness_need_root();
    static const char *const names[] = {"sp ace",      "tab\there",   "new\nline",
                                        "back\\slash", "esc\x1b[31m", "x\\040(deleted)",
                                        "\xff\xfe",    "cr\rend",     "hash#"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *path = tmpfs_at(harness_format("%s/%s", harness_disk(), names[i]), names[i]);
        struct mount_table *table = read_own();
        struct mount *m = by_target(table, path);
        assert_non_null(m);
        assert_string_equal(names[i], m->source);
        assert_string_equal("tmpfs", m->fstype);
        assert_string_equal("/", m->root);
        mount_table_free(table);
    }
    /* no source at all */
    const char *path = tmpfs_at(harness_format("%s/empty", harness_disk()), "");
    struct mount_table *table = read_own();
    assert_non_null(by_target(table, path));
    mount_table_free(table);
}

static void lookups_find_all_and_nothing_else(void **state)
{
    (void)state;
    harness_need_root();
    const char *a = tmpfs_at(harness_format("%s/a", harness_disk()), "source-a");
    const char *b = tmpfs_at(harness_format("%s/b", a), "source-b");
    const char *ab = harness_format("%s/ab", harness_disk());
    harness_mkdir(ab);
    assert_int_equal(0, mount(NULL, a, NULL, MS_SHARED, NULL));
    assert_int_equal(0, mount(a, ab, NULL, MS_BIND, NULL));
    const char *c = tmpfs_at(harness_format("%s/c", harness_disk()), "source-c");
    assert_int_equal(0, mount("on-top", c, "tmpfs", 0, NULL));
    struct mount_table *table = read_own();
    struct mount *ma = by_target(table, a), *mb = by_target(table, b);
    assert_int_equal(ma->id, mb->parent);
    assert_ptr_equal(mb, mount_table_by_id(table, mb->id));
    assert_null(mount_table_by_id(table, 1 << 30));
    struct mount_set set = mount_table_find(table, MOUNT_BY_PARENT, &(struct mount){.parent = ma->id});
    assert_int_equal(1, set.len);
    assert_ptr_equal(mb, set.mounts[0]);
    assert_true(ma->peers);
    assert_int_equal(2, mount_table_find(table, MOUNT_BY_PEERS, ma).len);
    assert_int_equal(2, mount_table_find(table, MOUNT_BY_DEV, ma).len);
    assert_int_equal(2, mount_table_find(table, MOUNT_BY_SOURCE, ma).len);
    assert_int_equal(2, mount_table_find(table, MOUNT_BY_TARGET, &(struct mount){.target = c}).len);
    assert_int_equal(0, mount_table_find(table, MOUNT_BY_TARGET, &(struct mount){.target = "/no/such"}).len);
    assert_string_equal("on-top", by_target(table, c)->source);
    by_target(table, c)->gone = true;
    assert_string_equal("source-c", by_target(table, c)->source);
    mount_table_free(table);
}

static void a_bad_line_fails_the_reading(void **state)
{
    (void)state;
    const char *path = harness_format("%s/mountinfo", harness_disk());
    struct mount_table *table = NULL;
    struct rbxj_error e = {0};
    harness_write(path, "21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
                        "22 21 0:20 / /a rw master:5 shared:7 - tmpfs t rw\n");
    assert_int_equal(0, mount_table_read(path, &table, &e));
    assert_int_equal(7, mount_table_by_id(table, 22)->peers);
    assert_int_equal(5, mount_table_by_id(table, 22)->master);
    mount_table_free(table);
    table = NULL;
    harness_write(path, "21 1 8:1 / / rw - ext4 /dev/sda1 rw\nnonsense\n23 21 0:20 / /a rw - tmpfs t rw\n");
    assert_true(mount_table_read(path, &table, &e) < 0);
    assert_null(table);
    assert_true(e.code);
    static const char *const bad[] = {
        "23 21 0:20 / /a rw - tmpfs t rw", /* cut off */
        "23 21 0:20 / /a rw - tmpfs t\n",  /* without options of the file system */
        "23 21 0:20 / /a rw shared:7\n",   /* without an end of the optional fields */
        "23 21 0:20 / /a rw shared:x - tmpfs t rw\n",
        "23 21 020 / /a rw - tmpfs t rw\n",
        "23 21 0: / /a rw - tmpfs t rw\n",
        "-3 21 0:20 / /a rw - tmpfs t rw\n",
        "99999999999 21 0:20 / /a rw - tmpfs t rw\n",
        "23 21 0:20 / a rw - tmpfs t rw\n",
        "\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        harness_write(path, harness_format("21 1 8:1 / / rw - ext4 /dev/sda1 rw\n%s", bad[i]));
        if (mount_table_read(path, &table, NULL) != -RBXJ_E_IO)
            fail_msg("it was read: %s", bad[i]);
    }
    harness_write(path, "");
    assert_true(mount_table_read(path, &table, NULL) < 0);
    assert_int_equal(-ENOENT, mount_table_read("/proc/999999999/mountinfo", &table, NULL));
}

static void k16_local_types(void **state)
{
    (void)state;
    static const char *const local[] = {"bcachefs", "ext4",      "tmpfs",    "cgroup2", "zfs",
                                        "iso9660",  "hugetlbfs", "squashfs", "sysfs"};
    static const char *const other[] = {"fuse", "fuse.sshfs", "nfs",     "nfs4", "cifs",
                                        "9p",   "autofs",     "overlay", "",     "ext"};
    for (size_t i = 0; i < ARRAY_LEN(local); i++)
        assert_true(fstype_is_local(local[i]));
    for (size_t i = 0; i < ARRAY_LEN(other); i++)
        assert_false(fstype_is_local(other[i]));
}

static void unique_ids_only_grow(void **state)
{
    (void)state;
    harness_need_root();
    uint64_t before = mount_newest();
    if (!before)
        harness_skip("the kernel has no unique mount ids");
    const char *path = tmpfs_at(harness_format("%s/a", harness_disk()), "a");
    struct mount_at at;
    int32_t id = 0;
    assert_int_equal(0, mount_at(AT_FDCWD, path, &at));
    assert_true(at.is_root);
    assert_true(at.unique > before);
    assert_true(mount_newest() > at.unique);
    if (mount_id_of_unique(at.unique, &id) == -ENOSYS)
        harness_skip("no statmount(2)");
    assert_int_equal(at.id, id);
    assert_int_equal(0, umount2(path, 0));
    assert_int_equal(-ENOENT, mount_id_of_unique(at.unique, &id));
}

/* A child in a mount namespace of its own, which has a mount that we have not. */
static pid_t other_namespace(const char *path)
{
    int ready[2];
    assert_int_equal(0, pipe(ready));
    pid_t pid = fork();
    if (pid == 0) {
        if (unshare(CLONE_NEWNS) < 0 || mount("elsewhere", path, "tmpfs", 0, NULL) < 0)
            _exit(1);
        (void)!write(ready[1], "x", 1);
        for (;;)
            pause();
    }
    harness_track(pid);
    char c;
    (void)close(ready[1]);
    assert_int_equal(1, read(ready[0], &c, 1));
    (void)close(ready[0]);
    return pid;
}

static void k12_each_namespace_is_read_once(void **state)
{
    (void)state;
    harness_need_root();
    const char *path = harness_format("%s/a", harness_disk());
    harness_mkdir(path);
    pid_t pid = other_namespace(path);
    struct mounts *mounts;
    struct mount_space space;
    mountinfo_readings = proc_searches = 0;
    assert_int_equal(0, mounts_read(&mounts, NULL));
    uint64_t ns = ns_of(pid);
    assert_true(ns && ns != mounts_own_ns(mounts));
    assert_int_equal(0, mounts_in(mounts, ns, &space, NULL));
    assert_int_equal(pid, space.pid);
    assert_true(space.whole);
    assert_non_null(mount_table_top(space.table, path));
    assert_null(mount_table_top(mounts_own(mounts), path));
    unsigned spaces = 0;
    for (size_t round = 0; round < 100; round++)
        for (size_t i = spaces = 0; mounts_other(mounts, i, &space, NULL) != 0; i++, spaces++)
            assert_int_equal(0, mounts_in(mounts, ns, &space, NULL));
    /* each once; a process that ends while we look costs one more */
    assert_true(mountinfo_readings <= 1 + 2 * spaces + 10);
    assert_true(proc_searches <= 10);
    mounts_free(mounts);
}

/* ---- in a pid namespace of its own, where nothing is hidden ---- */

#define NEED(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            return __LINE__;                                                                                 \
    } while (0)

static int in_pid_namespace(int (*body)(const char *path), const char *path)
{
    pid_t outer = fork();
    if (outer == 0) {
        /* the kernel binds only a namespace with a higher number than its own, and gives out numbers in a
         * batch for each processor (6.18): EINVAL now and then */
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET((size_t)sched_getcpu(), &one);
        if (sched_setaffinity(0, sizeof(one), &one) < 0 || unshare(CLONE_NEWPID | CLONE_NEWNS) < 0)
            _exit(1);
        pid_t inner = fork();
        if (inner == 0) {
            int line = mount("proc", "/proc", "proc", 0, NULL) < 0 ? __LINE__ : body(path);
            if (line)
                (void)fprintf(stderr, "failed at line %d\n", line);
            _exit(line != 0);
        }
        int status;
        _exit(waitpid(inner, &status, 0) == inner && WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    }
    harness_track(outer);
    int status = harness_wait(outer);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static pid_t spawn_elsewhere(int *ret_ns)
{
    int fds[2];
    char c;
    if (pipe(fds) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        if (unshare(CLONE_NEWNS) < 0)
            _exit(1);
        (void)!write(fds[1], "x", 1);
        for (;;)
            pause();
    }
    (void)!read(fds[0], &c, 1);
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)pid);
    *ret_ns = open(path, O_RDONLY | O_CLOEXEC);
    return pid;
}

static int who_holds_a_namespace(const char *path)
{
    struct mounts *mounts;
    struct mount_space space;
    struct rbxj_error e = {0};
    int fd = -1;
    pid_t pid = spawn_elsewhere(&fd);
    NEED(pid > 0 && fd >= 0);
    uint64_t ns = ns_of(pid);
    NEED(mounts_read(&mounts, NULL) == 0);
    NEED(mounts_in(mounts, ns, &space, NULL) == 0);
    /* the process goes, in the middle of the pass: our descriptor holds the namespace */
    NEED(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
    mounts_free(mounts);
    NEED(mounts_read(&mounts, NULL) == 0);
    NEED(mounts_in(mounts, ns, &space, &e) == -EBUSY);
    NEED(strstr(e.detail, "has it open"));
    NEED(strstr(e.detail, harness_format("pid %d ", (int)mounts_holder(mounts, ns))));
    NEED(mounts_holder(mounts, ns + 1) == 0);
    mounts_free(mounts);
    /* an nsfs mount instead */
    char link[64];
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    NEED(close(open(path, O_CREAT | O_WRONLY, 0600)) == 0);
    NEED(mount(link, path, NULL, MS_BIND, NULL) == 0 && close(fd) == 0);
    e = (struct rbxj_error){0};
    NEED(mounts_read(&mounts, NULL) == 0);
    NEED(mounts_in(mounts, ns, &space, &e) == -EBUSY);
    NEED(strstr(e.detail, "nsfs"));
    mounts_free(mounts);
    /* nothing */
    NEED(umount2(path, 0) == 0);
    NEED(mounts_read(&mounts, NULL) == 0);
    NEED(mounts_in(mounts, ns, &space, NULL) == -ENOENT);
    mounts_free(mounts);
    return 0;
}

static void k10_who_holds_a_namespace(void **state)
{
    (void)state;
    harness_need_root();
    assert_int_equal(0, in_pid_namespace(who_holds_a_namespace, harness_format("%s/ns", harness_disk())));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(names_are_bytes),
        harness_test(lookups_find_all_and_nothing_else),
        harness_test(a_bad_line_fails_the_reading),
        harness_test(k16_local_types),
        harness_test(unique_ids_only_grow),
        harness_test(k12_each_namespace_is_read_once),
        harness_test(k10_who_holds_a_namespace),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
