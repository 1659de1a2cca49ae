/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is renamed just while it is looked for is neither gone nor undone: I4, I6. The C library's calls after
 * which that matters are this program's own.
 */
#include "seams_fixture.h"

#include <dirent.h>
#include <dlfcn.h>
#include <sys/syscall.h>

static const struct rbxj_replay plain;

/* ---- the calls ---- */

static struct {
    int renames; /* this many times it is renamed right after its name was asked for */
    int at;      /* its name is that of n0, n1, ... */
    bool no_handles;
    int seen;         /* how often it came up in a directory that was read */
    int first, count; /* from the first-th time on, so often, it does not */
    bool changes;     /* and the directory is another one then */
} hooks;

static char *nth(int n)
{
    return harness_format("%s/n%d", world.work, n);
}

/* Is it the present name? */
static bool is_its_name(const char *name)
{
    char own[16];
    (void)snprintf(own, sizeof(own), "n%d", hooks.at);
    return strcmp(name, own) == 0;
}

int fstatat(int dirfd, const char *name, struct stat *st, int flags)
{
    int r = (int)syscall(SYS_newfstatat, dirfd, name, st, flags);
    if (r == 0 && hooks.renames > 0 && is_its_name(name)) {
        hooks.renames--;
        assert_int_equal(rename(nth(hooks.at), nth(hooks.at + 1)), 0);
        hooks.at++;
    }
    return r;
}

int open_by_handle_at(int dirfd, struct file_handle *handle, int flags)
{
    if (hooks.no_handles) {
        errno = EPERM;
        return -1;
    }
    return (int)syscall(SYS_open_by_handle_at, dirfd, handle, flags);
}

/* One that is renamed behind the reader's position is not read. */
struct dirent *readdir(DIR *names)
{
    static struct dirent *(*real)(DIR *);
    static time_t moment = 1000;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "readdir64");
    struct dirent *d = real(names);
    if (!d || !is_its_name(d->d_name))
        return d;
    hooks.seen++;
    if (hooks.seen < hooks.first || hooks.seen >= hooks.first + hooks.count)
        return d;
    const struct timespec times[2] = {{.tv_sec = moment}, {.tv_sec = moment}};
    moment++;
    assert_int_equal(hooks.changes ? futimens(dirfd(names), times) : 0, 0);
    return real(names);
}

/* ---- the tests ---- */

/* A dead box's directory, under the name of n0. */
static void open_renamed(void)
{
    memset(&hooks, 0, sizeof(hooks));
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    crash_with_plan("a");
    harness_write(in_work("T/file"), "x");
    assert_int_equal(rename(in_work("T"), nth(0)), 0);
}

static void i4_a_tmpdir_that_is_renamed_all_the_time_is_busy(void **state)
{
    (void)state;
    world_open();
    for (int stranger = 0; stranger < 2; stranger++) {
        open_renamed();
        if (stranger)
            harness_mkdir(in_work("T"));
        hooks.renames = 1000;
        replay_tells(&plain, 1, "a 1 busy failed\n");
        assert_true(hooks.at > 0);
        assert_true(path_exists(nth(hooks.at)));
        hooks.renames = 0;
        replay_tells(&plain, 0, "a 1 present undone\n");
        assert_false(path_exists(nth(hooks.at)));
        assert_int_equal(path_exists(in_work("T")), stranger);
    }
}

/* Without handles its directory is read; in that it can be missed. */
static void i4_a_reading_that_may_have_missed_it_is_no_proof(void **state)
{
    (void)state;
    world_open();
    open_renamed();
    hooks.no_handles = true;
    hooks.changes = true;
    hooks.first = 1;
    hooks.count = 1000;
    replay_tells(&plain, 1, "a 1 busy failed\n");
    assert_true(path_exists(nth(0)));
    hooks.count = hooks.seen + 3;
    replay_tells(&plain, 0, "a 1 present undone\n");
    assert_false(path_exists(nth(0)));
    /* and what is really gone is gone */
    open_renamed();
    hooks.no_handles = true;
    assert_int_equal(unlink(harness_format("%s/file", nth(0))), 0);
    assert_int_equal(rmdir(nth(0)), 0);
    replay_tells(&plain, 0, "a 1 gone already_gone\n");
}

/* Twice in a row it is not seen, from the first, second, ... time on: in the look, in the undo, between
 * them. */
static void i6_what_undo_did_not_find_any_more_is_looked_for_again(void **state)
{
    (void)state;
    world_open();
    for (int first = 1; first <= 6; first++) {
        open_renamed();
        hooks.no_handles = true;
        hooks.first = first;
        hooks.count = 2;
        struct rbxj_result *result = NULL;
        struct rbxj_error e = {0};
        int r = rbxj_replay(&world.options, &plain, &result, &e);
        rbxj_result_free(result);
        if (r < 0 || (r == 0 && path_exists(nth(0))))
            fail_msg("missed from the time %d on: %d, and it is left: %s", first, r, e.message);
        hooks.count = 0;
        rbxj_result_free(replay(0));
        if (path_exists(nth(0)))
            fail_msg("missed from the time %d on it was forgotten", first);
    }
}

/* A lock is told by its name: one that was given another one is not gone, nor undone there. What it is linked
 * to besides is nobody's business. */
static void i4_a_lock_that_was_renamed_is_not_gone(void **state)
{
    (void)state;
    world_open();
    const char *lock = in_work("lock"), *other = in_work("other");
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = lock});
    crash_with_plan("a");
    assert_int_equal(rename(lock, other), 0);
    for (int dry = 1; dry >= 0; dry--)
        replay_tells(&(struct rbxj_replay){.dry_run = dry}, 1, "a 1 foreign refused\n");
    assert_true(path_exists(other));
    assert_int_equal(rename(other, lock), 0);
    assert_int_equal(link(lock, other), 0);
    replay_tells(&plain, 0, "a 1 present undone\n");
    assert_false(path_exists(lock));
    assert_true(path_exists(other));
    assert_int_equal(unlink(other), 0);

    crash_with_plan("a");
    assert_int_equal(unlink(lock), 0);
    replay_tells(&plain, 0, "a 1 gone already_gone\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(i4_a_lock_that_was_renamed_is_not_gone),
        harness_test(i4_a_tmpdir_that_is_renamed_all_the_time_is_busy),
        harness_test(i4_a_reading_that_may_have_missed_it_is_no_proof),
        harness_test(i6_what_undo_did_not_find_any_more_is_looked_for_again),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
