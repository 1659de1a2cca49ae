/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * An audit of a busy worker: boxes begin and end while it looks. What they have is journaled ahead, so it is never told as
 * journaled nowhere. How it looks to an operator: audit.sh.
 */
#include "journal_fixture.h"

#include <dlfcn.h>
#include <fnmatch.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(a_box_that_begins_meanwhile_is_journaled),
        journal_test(a_box_that_ends_meanwhile_is_gone),
        journal_test(one_that_is_followed_by_another_is_gone),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
