/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What was renamed, moved, bound elsewhere or copied is neither gone nor somebody else's for that; and want
 * of descriptors is no answer: I4, K2, K4, K12, K14.
 */
#include "journal/journal.h"
#include "reaper/cgroup.h"
#include "reaper/undo.h"
#include "seams_fixture.h"

#include <sys/resource.h>
#include <sys/xattr.h>

static struct rbxj_resource tmpdir(const char *path)
{
    return (struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = path};
}

static struct rbxj_resource mount_on(const char *fstype, const char *source, const char *target)
{
    if (!path_exists(target))
        harness_mkdir(target);
    return (struct rbxj_resource){.kind = RBXJ_MOUNT, .path = target, .fstype = fstype, .source = source};
}

static const struct rbxj_replay plain;

/* ---- tmpdirs ---- */

static void a_renamed_tmpdir_is_undone(void **state)
{
    (void)state;
    world_open();
    plan_is(tmpdir(in_work("T")));
    crash_with_plan("a");
    harness_write(in_work("T/file"), "x");
    assert_int_equal(rename(in_work("T"), in_work("U")), 0);
    replay_tells(&plain, 0, "a 1 present undone\n");
    assert_false(path_exists(in_work("U")));
    replay_is_clean(0);
}

static void a_renamed_tmpdir_is_undone_beside_a_stranger(void **state)
{
    (void)state;
    world_open();
    plan_is(tmpdir(in_work("T")));
    crash_with_plan("a");
    assert_int_equal(rename(in_work("T"), in_work("U")), 0);
    harness_mkdir(in_work("T"));
    harness_write(in_work("T/file"), "x");
    replay_tells(&plain, 0, "a 1 present undone\n");
    assert_false(path_exists(in_work("U")));
    assert_string_equal(harness_read(in_work("T/file")), "x");
}

static void a_tmpdir_that_was_moved_is_left(void **state)
{
    (void)state;
    world_open();
    static const char *const moves[][2] = {{"P/T", "U"}, {"P", "Q"}};
    harness_mkdir(in_work("P"));
    plan_is(tmpdir(in_work("P/T")));
    for (size_t i = 0; i < ARRAY_LEN(moves); i++) {
        crash_with_plan("a");
        assert_int_equal(rename(in_work(moves[i][0]), in_work(moves[i][1])), 0);
        replay_says(1, "tmpdir", "foreign", "refused", in_work(i ? "Q/T" : "U"));
        assert_true(path_exists(in_work(i ? "Q/T" : "U")));
        assert_int_equal(rename(in_work(moves[i][1]), in_work(moves[i][0])), 0);
        replay_tells(&plain, 0, "a 1 present undone\n");
    }
}

static void k14_without_its_bind_mount_it_is_not_gone(void **state)
{
    (void)state;
    world_open();
    harness_mkdir(in_work("source"));
    harness_mkdir(in_work("B"));
    assert_int_equal(mount(in_work("source"), in_work("B"), NULL, MS_BIND, NULL), 0);
    plan_is(tmpdir(in_work("B/T")));
    crash_with_plan("a");
    assert_int_equal(umount2(in_work("B"), 0), 0);
    replay_says(1, "tmpdir", "foreign", "refused", in_work("source/T"));
    assert_int_equal(mount(in_work("source"), in_work("B"), NULL, MS_BIND, NULL), 0);
    replay_tells(&plain, 0, "a 1 present undone\n");
}

static void run_make_and_die(const char *box, unsigned int parts)
{
    (void)parts;
    (void)begin_plan_here(box);
    must(mkdir(in_work("P/T"), 0700) == 0);
    die();
}

/* Nothing tells of the directory itself: the one in which it was made does. */
static void k14_without_evidence_its_parent_tells(void **state)
{
    (void)state;
    world_open();
    harness_mkdir(in_work("P"));
    plan_is(tmpdir(in_work("P/T")));
    (void)supervisor_fork(run_make_and_die, "a", 0);
    assert_int_equal(rename(in_work("P"), in_work("Q")), 0);
    harness_mkdir(in_work("P"));
    replay_says(1, "tmpdir", "foreign", "refused", in_work("Q"));
    assert_int_equal(rmdir(in_work("P")), 0);
    assert_int_equal(rename(in_work("Q"), in_work("P")), 0);
    replay_tells(&plain, 0, "a 1 present undone\n");
}

/* As an overlay copies it up: with its stamp. */
static void k4_a_copy_of_a_stamp_is_not_the_box(void **state)
{
    (void)state;
    char text[64] = "";
    world_open();
    (void)supervisor_start("b", 1 << TMPDIR, LIVES);
    plan_is(tmpdir(in_work("T")));
    crash_with_plan("a");
    harness_mkdir(in_work("T/copy"));
    assert_true(getxattr(part_path("b", TMPDIR), "trusted.rbxj", text, sizeof(text)) > 0);
    assert_int_equal(setxattr(in_work("T/copy"), "trusted.rbxj", text, strlen(text), 0), 0);
    replay_tells(&plain, 0, "a 1 present undone\n");
}

/* ---- cgroups ---- */

static void a_renamed_v1_cgroup_is_undone(void **state)
{
    (void)state;
    world_open();
    if (!world.group_v1)
        harness_skip("no v1 hierarchy");
    char *from = harness_format("%s/a", world.group_v1), *to = harness_format("%s/z", world.group_v1);
    plan_is((struct rbxj_resource){.kind = RBXJ_CGROUP, .path = from});
    for (int stranger = 0; stranger < 2; stranger++) {
        crash_with_plan("a");
        pid_t pid = harness_spawn(from);
        assert_int_equal(rename(from, to), 0);
        if (stranger)
            harness_mkdir(from);
        replay_tells(&plain, 0, "a 1 present undone\n");
        assert_true(WIFSIGNALED(harness_wait(pid)));
        assert_false(path_exists(to));
        assert_int_equal(path_exists(from), stranger);
    }
}

static void a_renamed_cgroup_is_not_removed(void **state)
{
    (void)state;
    world_open();
    if (!world.group_v1)
        harness_skip("no v1 hierarchy");
    char *from = harness_format("%s/a", world.group_v1), *to = harness_format("%s/z", world.group_v1);
    harness_mkdir(from);
    _cleanup_close_ int fd = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(cgroup_is_removed(fd), 0);
    assert_int_equal(rmdir(to), 0);
    assert_int_equal(cgroup_is_removed(fd), 1);
}

/* ---- mounts ---- */

static void k12_a_bind_of_it_elsewhere_is_a_copy(void **state)
{
    (void)state;
    world_open();
    plan_is(mount_on("tmpfs", "x", in_work("M")));
    crash_with_plan("a");
    harness_mkdir(in_work("M/sub"));
    harness_mkdir(in_work("elsewhere"));
    assert_int_equal(mount(in_work("M/sub"), in_work("elsewhere"), NULL, MS_BIND, NULL), 0);
    replay_says(1, "mount", "busy", "failed", in_work("elsewhere"));
    replay_says(1, "mount", "busy", "failed", in_work("elsewhere"));
    assert_int_equal(umount2(in_work("elsewhere"), 0), 0);
    replay_tells(&plain, 0, "a 1 gone already_gone\n");
}

static void k12_its_own_binds_are_no_copies(void **state)
{
    (void)state;
    world_open();
    plan_is(mount_on("tmpfs", "x", in_work("M")), mount_on("bind", in_work("M"), in_work("B")));
    crash_with_plan("a");
    assert_int_equal(umount2(in_work("M"), MNT_DETACH), 0);
    replay_tells(&(struct rbxj_replay){.dry_run = 1}, 0, "a 2 present planned\na 1 gone planned\n");
    replay_tells(&plain, 0, "a 2 present undone\na 1 gone already_gone\n");
}

/* Another tmpfs of the same source got the number that ours gave up. */
static void k12_another_file_system_is_no_copy(void **state)
{
    (void)state;
    world_open();
    plan_is(mount_on("tmpfs", "x", in_work("M")));
    crash_with_plan("a");
    struct stat ours, other = {0};
    assert_int_equal(stat(in_work("M"), &ours), 0);
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char line[1024], source[100] = "";
    while (f && fgets(line, sizeof(line), f))
        if (strstr(line, in_work("M")))
            (void)sscanf(strstr(line, " - "), " - tmpfs %99s", source);
    (void)fclose(f);
    assert_int_equal(umount2(in_work("M"), 0), 0);
    harness_mkdir(in_work("other"));
    for (int i = 0; i < 20 && other.st_dev != ours.st_dev; i++) {
        assert_int_equal(mount(source, in_work("other"), "tmpfs", 0, NULL), 0);
        assert_int_equal(stat(in_work("other"), &other), 0);
    }
    if (other.st_dev != ours.st_dev)
        harness_skip("the number was not reused");
    replay_tells(&plain, 0, "a 1 gone already_gone\n");
}

static void k13_a_mount_moved_into_the_tmpdir_goes_first(void **state)
{
    (void)state;
    world_open();
    plan_is(mount_on("tmpfs", "x", in_work("M")), tmpdir(in_work("T")));
    for (int on_it = 0; on_it < 2; on_it++) {
        crash_with_plan("a");
        const char *to = in_work(on_it ? "T" : "T/moved");
        if (!on_it)
            harness_mkdir(to);
        harness_mkdir(in_work("M/sub"));
        assert_int_equal(mount("y", in_work("M/sub"), "tmpfs", 0, NULL), 0);
        assert_int_equal(mount(in_work("M"), to, NULL, MS_MOVE, NULL), 0);
        replay_tells(&plain, 0,
                     on_it ? "a 2 busy undone\na 1 present undone\n"
                           : "a 2 present undone\na 1 present undone\n");
    }
}

/* A stranger's mount that a mount of the box covers has the name of a directory in that, and lies
 * elsewhere. */
static void k13_a_covered_mount_of_its_name_is_no_hindrance(void **state)
{
    (void)state;
    world_open();
    plan_is(mount_on("tmpfs", "x", in_work("M")), tmpdir(in_work("M/in")));
    harness_mkdir(in_work("M/in"));
    harness_mkdir(in_work("M/in/deep"));
    const char *const at[] = {in_work("M/in/deep"), in_work("M/in")};
    for (size_t i = 0; i < ARRAY_LEN(at); i++) {
        assert_int_equal(mount("stranger", at[i], "tmpfs", 0, NULL), 0);
        crash_with_plan("a");
        replay_tells(&plain, 0, "a 2 present undone\na 1 present undone\n");
        assert_int_equal(umount2(at[i], UMOUNT_NOFOLLOW), 0);
    }
}

/* ---- few descriptors ---- */

static void few_descriptors(void)
{
    (void)close_range(3, ~0U, 0);
    (void)setrlimit(RLIMIT_NOFILE, &(struct rlimit){30, 30});
}

static void a_deep_tree_with_few_descriptors(void **state)
{
    (void)state;
    world_open();
    plan_is(tmpdir(in_work("T")));
    crash_with_plan("a");
    int fd = open(in_work("T"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(mkdirat(fd, "d", 0700), 0);
        int next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        (void)close(fd);
        fd = next;
    }
    (void)close(fd);
    replay_apart_tells(few_descriptors, 0, &plain, 0, "a 1 present undone\n");
}

static void many_processes_with_few_descriptors(void **state)
{
    (void)state;
    world_open();
    if (!world.group_v1)
        harness_skip("no v1 hierarchy");
    const char *group = harness_format("%s/a", world.group_v1);
    plan_is((struct rbxj_resource){.kind = RBXJ_CGROUP, .path = group});
    crash_with_plan("a");
    for (int i = 0; i < 60; i++)
        (void)harness_spawn(group);
    replay_apart_tells(few_descriptors, 0, &plain, 0, "a 1 present undone\n");
}

/* With not one descriptor left it can't be known who is a supervisor, and who is above us: nobody is
 * killed. */
static void k4_want_of_descriptors_kills_nobody(void **state)
{
    (void)state;
    harness_need_root();
    struct snapshot_box live = {.box = {.name = "live"}};
    struct snapshot snapshot = {.boxes = &live, .len = 1};
    struct rlimit limit;
    pid_t pid = harness_spawn(NULL);
    assert_int_equal(procid_of(pid, &live.box.supervisor), 0);
    int next = dup(0);
    (void)close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    for (int known = 0; known < 2; known++) {
        struct undo u = {.snapshot = &snapshot, .ancestors = {getpid()}, .ancestors_len = (size_t)known};
        struct finding supervisor = {0}, parent = {0};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)next, limit.rlim_max}), 0);
        int of_supervisor = guard_kill(&u, pid, &supervisor), of_parent = guard_kill(&u, getppid(), &parent);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        assert_true(of_supervisor < 0);
        assert_int_equal(supervisor.found, FOUND_BUSY);
        assert_true(known || of_parent < 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(a_renamed_tmpdir_is_undone),
        harness_test(a_renamed_tmpdir_is_undone_beside_a_stranger),
        harness_test(a_tmpdir_that_was_moved_is_left),
        harness_test(k14_without_its_bind_mount_it_is_not_gone),
        harness_test(k14_without_evidence_its_parent_tells),
        harness_test(k4_a_copy_of_a_stamp_is_not_the_box),
        harness_test(a_renamed_cgroup_is_not_removed),
        harness_test(a_renamed_v1_cgroup_is_undone),
        harness_test(k12_a_bind_of_it_elsewhere_is_a_copy),
        harness_test(k12_its_own_binds_are_no_copies),
        harness_test(k12_another_file_system_is_no_copy),
        harness_test(k13_a_mount_moved_into_the_tmpdir_goes_first),
        harness_test(k13_a_covered_mount_of_its_name_is_no_hindrance),
        harness_test(a_deep_tree_with_few_descriptors),
        harness_test(many_processes_with_few_descriptors),
        harness_test(k4_want_of_descriptors_kills_nobody),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
