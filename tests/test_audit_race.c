/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * An audit of a busy worker: boxes begin and end while it looks. What they have is journaled ahead, so it is
 * never told as journaled nowhere, and what has changed is not adopted (K30). How it looks to an operator:
 * audit.sh.
 */
#include "journal_fixture.h"

#include "reaper/mountinfo.h"

#include <dlfcn.h>
#include <fnmatch.h>
#include <sys/mount.h>

/* ---- just when the search has come to that name, something happens ---- */

static const char *awaited;
static void (*happens)(void);

int fnmatch(const char *pattern, const char *name, int flags)
{
    static int (*real)(const char *, const char *, int);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "fnmatch");
    if (awaited && strcmp(name, awaited) == 0) {
        awaited = NULL;
        happens();
    }
    return real(pattern, name, flags);
}

static struct rbxj_options options;
static struct rbxj *handle;
static const char *directory; /* of the box */

static void setup(void)
{
    static struct place p;
    struct rbxj_error e = {0};
    p = place_make();
    options = (struct rbxj_options){.state_dir = p.state,
                                    .runtime_dir = p.runtime,
                                    .config = harness_format("%s/rbxj.conf", harness_disk())};
    harness_write(options.config,
                  harness_format("[discover]\nlocks =\ncgroups =\nmounts =\ntmpdirs =\ntmpdirs = %s/box-*\n"
                                 "tmpdirs = %s/box-*\n",
                                 p.kept, p.lost));
    harness_mkdir(harness_format("%s/box-last", p.lost)); /* which is looked at after what is in p.kept */
    directory = harness_format("%s/box-1", p.kept);
    awaited = NULL;
    handle = NULL;
    assert_ok(rbxj_open(&options, &handle, &e), e);
}

static void teardown_handle(void)
{
    rbxj_close(handle);
    handle = NULL;
}

static void box_begins(void)
{
    struct rbxj_error e = {0};
    struct rbxj_resource plan = {.kind = RBXJ_TMPDIR, .path = directory};
    struct rbxj_box box = {.name = "a", .plan = &plan, .plan_len = 1};
    assert_ok(rbxj_begin(handle, &box, NULL, &e), e);
    assert_ok(rbxj_acquire(handle, "a", 1, NULL, NULL, &e), e);
}

static void box_ends(void)
{
    struct rbxj_error e = {0};
    assert_ok(rbxj_undo(handle, "a", NULL, &e), e);
    assert_ok(rbxj_end(handle, "a", &e), e);
}

static void another_box_begins(void)
{
    box_ends();
    box_begins();
}

/* Of what is told only the directory that is nobody's. */
static void audit_tells_one(void)
{
    struct rbxj_error e = {0};
    struct rbxj_clean clean = {0};
    char *json = NULL;
    assert_int_equal(rbxj_audit(&options, NULL, &json, &e), 1);
    if (strstr(json, "box-1") || !strstr(json, "box-last"))
        fail_msg("%s", json);
    free(json);
    assert_null(awaited);
    assert_ok(rbxj_verify_clean(&options, &clean, &e), e);
    assert_int_equal(clean.unjournaled, 1);
}

static void a_box_that_begins_meanwhile_is_journaled(void **state)
{
    (void)state;
    harness_need_root();
    setup();
    harness_mkdir(harness_format("%s/kept/first", harness_disk()));
    directory = harness_format("%s/lost/box-1", harness_tmpfs());
    happens = box_begins;
    awaited = "first";
    audit_tells_one();
    box_ends();
    teardown_handle();
}

static void a_box_that_ends_meanwhile_is_gone(void **state)
{
    (void)state;
    harness_need_root();
    setup();
    box_begins();
    happens = box_ends;
    awaited = "box-last";
    audit_tells_one();
    teardown_handle();
}

/* Its directory has the name, and on many file systems the inode number, of the one that was found. */
static void one_that_is_followed_by_another_is_gone(void **state)
{
    (void)state;
    harness_need_root();
    setup();
    box_begins();
    happens = another_box_begins;
    awaited = "box-last";
    audit_tells_one();
    box_ends();
    teardown_handle();
}

/* ---- while a person is asked, another takes the place, name and number of what he is asked for ---- */

static bool (*follow)(const char *name);
static bool alike;

static int replace_and_say_yes(void *data, const char *kind, const char *name)
{
    (void)data, (void)kind;
    alike = follow(name);
    return 1;
}

static void none_is_adopted(const char *config, bool (*follows)(const char *name))
{
    struct rbxj_error e = {0};
    struct rbxj_audit how = {.adopt = 1, .ask = replace_and_say_yes};
    char *json = NULL;
    harness_write(options.config, config);
    follow = follows;
    alike = false;
    int r = rbxj_audit(&options, &how, &json, &e);
    if (r != 1 || !json || strstr(json, "\"adopted\":\""))
        fail_msg("%d %s %s", r, e.message, json ? json : "");
    free(json);
    teardown_handle();
    if (!alike)
        skip(); /* this file system, or kernel, gives another number */
}

static const char *only(const char *key, const char *pattern)
{
    return harness_format("[discover]\nlocks =\ncgroups =\nmounts =\ntmpdirs =\n%s = %s\n", key, pattern);
}

static bool another_directory(const char *name)
{
    struct stat a, b;
    assert_int_equal(lstat(name, &a), 0);
    assert_int_equal(rmdir(name), 0);
    harness_mkdir(name);
    assert_int_equal(lstat(name, &b), 0);
    return a.st_ino == b.st_ino;
}

static void another_directory_of_that_number_is_not_adopted(void **state)
{
    (void)state;
    harness_need_root();
    setup();
    harness_mkdir(directory);
    none_is_adopted(only("tmpdirs", directory), another_directory);
}

static bool another_file(const char *name)
{
    struct stat a, b;
    assert_int_equal(lstat(name, &a), 0);
    assert_int_equal(unlink(name), 0);
    harness_write(name, "another's");
    assert_int_equal(lstat(name, &b), 0);
    return a.st_ino == b.st_ino;
}

static void another_lock_of_that_number_is_not_adopted(void **state)
{
    (void)state;
    harness_need_root();
    setup();
    harness_write(directory, "ours");
    none_is_adopted(only("locks", directory), another_file);
}

static int id_of_mount(const char *name)
{
    struct mount_table *table;
    assert_int_equal(mount_table_read("/proc/self/mountinfo", &table, NULL), 0);
    const struct mount *m = mount_table_top(table, name);
    int id = m ? m->id : -1;
    mount_table_free(table);
    return id;
}

/* The lowest that is free is given out: until it is that one, those below it are taken. */
static bool another_mount(const char *name)
{
    int id = id_of_mount(name), now = -1;
    assert_int_equal(umount2(name, 0), 0);
    for (int i = 0; i < 50 && now != id; i++) {
        const char *aside = harness_format("%s/aside-%d", harness_disk(), i);
        harness_mkdir(aside);
        if (now >= 0)
            assert_int_equal(mount(name, aside, NULL, MS_MOVE, NULL), 0);
        assert_int_equal(mount("scratch", name, "tmpfs", 0, NULL), 0);
        now = id_of_mount(name);
    }
    return now == id;
}

static void another_mount_of_that_number_is_not_adopted(void **state)
{
    (void)state;
    harness_need_root();
    setup();
    harness_mkdir(directory);
    assert_int_equal(mount("scratch", directory, "tmpfs", 0, NULL), 0);
    none_is_adopted(only("mounts", directory), another_mount);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(a_box_that_begins_meanwhile_is_journaled),
        journal_test(a_box_that_ends_meanwhile_is_gone),
        journal_test(one_that_is_followed_by_another_is_gone),
        journal_test(another_directory_of_that_number_is_not_adopted),
        journal_test(another_lock_of_that_number_is_not_adopted),
        journal_test(another_mount_of_that_number_is_not_adopted),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
