/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * I6: a record goes after its undo is on disk; where that can't be had, it stays. (That a power cut brings
 * nothing back is what crash_disk.c tries.)
 */
#include "base/cleanup.h"
#include "harness.h"
#include "rbxj.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- flushes of directories come here ---- */

static unsigned directories, file_systems;
static int failing; /* an errno: the next flush of a directory fails with it */

int fsync(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode))
        return (int)syscall(SYS_fsync, fd);
    directories++;
    errno = failing;
    failing = 0;
    return errno ? -1 : 0;
}

int syncfs(int fd)
{
    (void)fd;
    file_systems++;
    return 0;
}

/* ---- a box with directories ---- */

static struct rbxj *handle;
static struct rbxj_options options;
static struct rbxj_error e;

#define MUST(call)                                                                                           \
    do {                                                                                                     \
        if ((call) != 0)                                                                                     \
            fail_msg("%s: %s", #call, e.message);                                                            \
    } while (0)

static void open_journal(void)
{
    harness_need_root();
    options = (struct rbxj_options){.state_dir = harness_format("%s/state", harness_disk()),
                                    .runtime_dir = harness_format("%s/run", harness_tmpfs()),
                                    .config = harness_format("%s/conf", harness_disk())};
    harness_mkdir(options.state_dir);
    harness_write(options.config, "[journal]\ndurability=resource\n");
    MUST(rbxj_open(&options, &handle, &e));
}

static int close_journal(void **state)
{
    rbxj_close(handle);
    handle = NULL;
    return harness_teardown(state);
}

static void begin(void)
{
    MUST(rbxj_begin(handle, &(struct rbxj_box){.name = "a"}, NULL, &e));
    directories = file_systems = 0;
}

/* One directory more, in a directory. */
static uint32_t take(const char *parent, const char *name)
{
    struct rbxj_resource r = {.kind = RBXJ_TMPDIR, .path = harness_format("%s/%s", parent, name)};
    uint32_t seq = 0;
    MUST(rbxj_take(handle, "a", &r, &seq, NULL, &e));
    return seq;
}

static size_t records(void)
{
    struct rbxj_result *result = NULL;
    struct rbxj_result_box box;
    MUST(rbxj_list(&options, "a", &result, &e));
    assert_int_equal(rbxj_result_box(result, 0, &box), 0);
    rbxj_result_free(result);
    return box.entries;
}

static void i6_one_flush_for_one_directory(void **state)
{
    (void)state;
    open_journal();
    begin();
    for (unsigned i = 0; i < 20; i++)
        (void)take(harness_disk(), harness_format("d%u", i));
    (void)take(harness_tmpfs(), "volatile");
    directories = 0;
    MUST(rbxj_undo(handle, "a", NULL, &e));
    assert_int_equal(directories, 1);
    assert_int_equal(file_systems, 0);
    assert_int_equal(records(), 0);
}

static void i6_one_flush_for_many_directories(void **state)
{
    (void)state;
    open_journal();
    begin();
    for (unsigned i = 0; i < 20; i++) {
        const char *parent = harness_format("%s/parent%u", harness_disk(), i);
        harness_mkdir(parent);
        (void)take(parent, "d");
    }
    directories = 0;
    MUST(rbxj_undo(handle, "a", NULL, &e));
    assert_true(directories < 10);
    assert_int_equal(file_systems, 1);
    assert_int_equal(records(), 0);
}

static void i6_volatile_costs_none(void **state)
{
    (void)state;
    open_journal();
    begin();
    (void)take(harness_tmpfs(), "volatile");
    MUST(rbxj_undo(handle, "a", NULL, &e));
    assert_int_equal(directories + file_systems, 0);
    assert_int_equal(records(), 0);
}

/* What may come back keeps its record; the next one finds it gone, and flushes again. */
static void i6_a_failed_flush_keeps_the_record(void **state)
{
    (void)state;
    open_journal();
    begin();
    (void)take(harness_disk(), "d");
    failing = EIO;
    struct rbxj_result *result = NULL;
    assert_int_equal(rbxj_undo(handle, "a", &result, &e), -RBXJ_E_IO);
    assert_null(result); /* untouched, as nobody would free it */
    assert_int_equal(e.errnum, EIO);
    assert_non_null(strstr(e.message, harness_disk()));
    assert_false(path_exists(harness_format("%s/d", harness_disk())));
    assert_int_equal(records(), 1);
    directories = 0;
    MUST(rbxj_undo(handle, "a", NULL, &e));
    assert_int_equal(directories, 1);
    assert_int_equal(records(), 0);
}

static void i6_released_is_flushed_too(void **state)
{
    (void)state;
    open_journal();
    begin();
    uint32_t seq = take(harness_disk(), "d");
    assert_int_equal(rmdir(harness_format("%s/d", harness_disk())), 0);
    failing = EIO;
    assert_int_equal(rbxj_released(handle, "a", seq, &e), -RBXJ_E_IO);
    assert_int_equal(records(), 1);
    directories = 0;
    MUST(rbxj_released(handle, "a", seq, &e));
    assert_int_equal(directories, 1);
    assert_int_equal(records(), 0);
}

/* A path of which the directories went, too: the last that is left is flushed. */
static void i6_gone_with_its_directory(void **state)
{
    (void)state;
    open_journal();
    begin();
    const char *parent = harness_format("%s/parent", harness_disk());
    harness_mkdir(parent);
    (void)take(parent, "d");
    assert_int_equal(rmdir(harness_format("%s/d", parent)) + rmdir(parent), 0);
    directories = 0;
    MUST(rbxj_undo(handle, "a", NULL, &e));
    assert_int_equal(directories, 1);
    assert_int_equal(records(), 0);
}

int main(void)
{
#define durable_test(f) cmocka_unit_test_setup_teardown(f, harness_setup, close_journal)
    const struct CMUnitTest tests[] = {
        durable_test(i6_one_flush_for_one_directory), durable_test(i6_one_flush_for_many_directories),
        durable_test(i6_volatile_costs_none),         durable_test(i6_a_failed_flush_keeps_the_record),
        durable_test(i6_released_is_flushed_too),     durable_test(i6_gone_with_its_directory),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
