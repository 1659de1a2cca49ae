/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A supervisor that changes itself when it has the journal open: its user, its root, its namespaces, its
 * limits. What it begins then is refused for the reason that there is; what it has taken before is undone, or
 * left for a reaper that finds it all (I1, I4).
 */
#include "journal_fixture.h"

#include <stdlib.h>
#include <sys/resource.h>

enum { NOBODY = 65534 };

static const char *new_root; /* with /proc in it, on the file system of what is taken */

static int change_user(void)
{
    return setresgid(NOBODY, NOBODY, NOBODY) < 0 ? -1 : setresuid(NOBODY, NOBODY, NOBODY);
}

static int change_root(void)
{
    return chroot(new_root) < 0 ? -1 : chdir("/");
}

static int change_root_without_proc(void)
{
    return change_root() < 0 ? -1 : umount2("/proc", MNT_DETACH);
}

static int leave_the_mounts(void)
{
    return unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ? -1
                                                                                             : change_root();
}

static int leave_the_pids(void)
{
    return unshare(CLONE_NEWPID | CLONE_NEWCGROUP | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS);
}

static int open_nothing_more(void)
{
    return setrlimit(RLIMIT_NOFILE, &(struct rlimit){0, 0});
}

static const struct change {
    const char *name;
    int (*change)(void);
    const char *says; /* why a box is refused that is begun afterwards */
    int refused;      /* its code; 0: it is not refused */
    bool left;        /* what was taken before is left by its own undo */
} changes[] = {
    {"user", change_user, "is the worker quarantined: Permission denied", RBXJ_E_PERMISSION, true},
    {"root", change_root, "its directory: No such file or directory", RBXJ_E_BAD_REQUEST, true},
    {"root without /proc", change_root_without_proc, "/proc: is not that of", RBXJ_E_BAD_REQUEST, true},
    {"mounts", leave_the_mounts, "its directory: No such file or directory", RBXJ_E_BAD_REQUEST, true},
    {"pids", leave_the_pids, "", 0, false},
    {"limits", open_nothing_more, "Too many open files", RBXJ_E_IO, true},
};

static void must(int r, const struct rbxj_error *e, const char *what)
{
    if (r == 0)
        return;
    (void)dprintf(2, "%s: %d: %s; %s\n", what, r, e->message, e->detail);
    _exit(1);
}

static void take(struct rbxj *handle, const struct rbxj_box *box)
{
    struct rbxj_error e = {0};
    int lock = -1;
    must(rbxj_begin(handle, box, NULL, &e), &e, "begin");
    for (uint32_t seq = 1; seq <= box->plan_len; seq++)
        must(rbxj_acquire(handle, box->name, seq, NULL, &lock, &e), &e, "acquire");
}

/* In a supervisor, whose first box is there when it changes. */
static void change_and_go_on(const struct rbxj_options *options, const struct change *c,
                             const struct rbxj_resource *taken, const struct rbxj_resource *wanted)
{
    const struct rbxj_box before = {.name = "before", .plan = taken, .plan_len = 2},
                          after = {.name = "after", .plan = wanted, .plan_len = 1};
    struct rbxj_error e = {0};
    struct rbxj *handle;
    must(rbxj_open(options, &handle, &e), &e, "open");
    take(handle, &before);
    CHECK(c->change() == 0);
    int r = rbxj_begin(handle, &after, NULL, &e);
    if (r != -c->refused || (r < 0 && !strstr(e.message, c->says)))
        must(r ? r : 1, &e, "begin afterwards");
    if (r == 0)
        must(rbxj_undo(handle, "after", NULL, &e) < 0 ? -1 : rbxj_end(handle, "after", &e), &e, "end");
    r = rbxj_undo(handle, "before", NULL, &e);
    if ((r < 0) != c->left)
        must(r ? r : 1, &e, "undo");
    r = rbxj_end(handle, "before", &e);
    if ((r < 0) != c->left)
        must(r ? r : 1, &e, "end");
    rbxj_close(handle);
    _exit(0);
}

static void nothing_is_left(const struct rbxj_options *options, bool left)
{
    struct rbxj_error e = {0};
    struct rbxj_result *result;
    struct rbxj_result_info info;
    assert_ok(rbxj_replay(options, &(struct rbxj_replay){0}, &result, &e), e);
    rbxj_result_info(result, &info);
    assert_int_equal(info.boxes, left);
    assert_int_equal(info.undone, left ? 2 : 0);
    rbxj_result_free(result);
}

static void a_supervisor_that_changes_itself(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_options options = {.state_dir = p.state, .runtime_dir = p.runtime};
    const char *lock = harness_format("%s/lock", p.kept), *dir = harness_format("%s/dir", p.kept);
    const struct rbxj_resource taken[] = {{.kind = RBXJ_LOCK, .path = lock},
                                          {.kind = RBXJ_TMPDIR, .path = dir}};
    const struct rbxj_resource wanted = {.kind = RBXJ_TMPDIR, .path = harness_format("%s/more", p.kept)};
    new_root = harness_format("%s/root", harness_disk());
    harness_mkdir(new_root);
    harness_mkdir(harness_format("%s/proc", new_root));
    for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
        assert_int_equal(mount("/proc", harness_format("%s/proc", new_root), NULL, MS_BIND, NULL), 0);
        pid_t pid = CHILD(change_and_go_on(&options, &changes[i], taken, &wanted));
        int status = harness_wait(pid);
        if (status)
            fail_msg("%s: %d", changes[i].name, status);
        nothing_is_left(&options, changes[i].left);
        assert_false(path_exists(lock) || path_exists(dir));
        (void)umount2(harness_format("%s/proc", new_root), MNT_DETACH);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(a_supervisor_that_changes_itself),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
