/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A lock file whose content a power cut took: it was never flushed (K1, K5). In another boot: the library's
 * look at the boot id and at the time since the start comes here.
 */
#include "seams_fixture.h"

#include <sys/syscall.h>
#include <sys/xattr.h>
#include <systemd/sd-id128.h>
#include <time.h>

static uint8_t boot_number; /* of the next boot; 0: the first one */

int sd_id128_get_boot(sd_id128_t *ret)
{
    static const sd_id128_t first = SD_ID128_MAKE(6c, 6f, 73, 74, 63, 6f, 40, 00, 80, 00, 00, 00, 00, 00, 00,
                                                  00);
    *ret = first;
    ret->bytes[15] = boot_number;
    return 0;
}

/* The next boot is a moment old. */
int clock_gettime(clockid_t clock, struct timespec *ret)
{
    if (boot_number && clock == CLOCK_BOOTTIME) {
        *ret = (struct timespec){0};
        return 0;
    }
    return (int)syscall(SYS_clock_gettime, clock, ret);
}

static int stamp_error; /* of each reading of one; 0: none */

ssize_t getxattr(const char *path, const char *name, void *value, size_t size)
{
    if (stamp_error) {
        errno = stamp_error;
        return -1;
    }
    return (ssize_t)syscall(SYS_getxattr, path, name, value, size);
}

static int teardown(void **state)
{
    boot_number = 0;
    stamp_error = 0;
    return harness_teardown(state);
}

enum { BEFORE_MAX = 300 };

/* What is left of the content: size bytes of nothing, in the same inode. */
static void lose_content(const char *path, off_t size)
{
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(truncate(path, size), 0);
}

static void lost(const char *before, off_t size)
{
    struct rbxj_result_box box;
    world_open();
    char *path = in_work("a.lock");
    if (before)
        harness_write(path, before);
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = path});
    crash_with_plan("a");
    lose_content(path, size);
    boot_number = 1;
    struct rbxj_result *result = replay_how(&(struct rbxj_replay){0}, 0);
    assert_int_equal(rbxj_result_box(result, 0, &box), 0);
    assert_string_equal(box.cause, "system_crash");
    assert_string_equal(box.outcome, "success");
    rbxj_result_free(result);
    if (before)
        assert_string_equal(harness_read(path), before);
    else
        assert_false(path_exists(path));
}

static void k1_a_lock_whose_content_never_reached_the_disk(void **state)
{
    (void)state;
    lost(NULL, 0);
}

/* What can't be known now is not ours: it is left, and tried again. */
static void k1_a_stamp_that_cant_be_read_proves_nothing(void **state)
{
    (void)state;
    static const int errors[] = {EIO, ENOMEM};
    world_open();
    char *path = in_work("a.lock");
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = path});
    crash_with_plan("a");
    lose_content(path, 0);
    boot_number = 1;
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        stamp_error = errors[i];
        replay_tells(&(struct rbxj_replay){0}, 1, "a 1 busy failed\n");
        assert_true(path_exists(path));
    }
    stamp_error = 0;
    replay_tells(&(struct rbxj_replay){0}, 0, "a 1 present undone\n");
}

static void k1_a_lock_of_which_only_the_size_reached_the_disk(void **state)
{
    (void)state;
    lost(NULL, 137);
}

static void k5_a_present_locks_content_is_in_the_journal(void **state)
{
    (void)state;
    lost("precious", 0);
}

static void k5_only_the_size_of_a_present_lock_reached_the_disk(void **state)
{
    (void)state;
    lost("precious", 137);
}

/* A file that grew longer than what was written to the disk would be left with the line and the rest of what
 * it held. */
static void k5_what_a_long_one_held_does_not_follow_the_line(void **state)
{
    char before[BEFORE_MAX + 1];
    (void)state;
    memset(before, 'Q', BEFORE_MAX);
    before[BEFORE_MAX] = 0;
    world_open();
    char *path = in_work("a.lock");
    harness_write(path, before);
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = path});
    crash_with_plan("a");
    assert_null(strchr(harness_read(path), 'Q'));
    replay_is_clean(1);
    assert_string_equal(harness_read(path), before);
}

static void run_and_give_back(const char *box, unsigned int parts)
{
    (void)parts;
    struct rbxj *handle = take_plan_here(box);
    struct rbxj_error e = {0};
    must(truncate(plan[0].path, 0) == 0);
    write_to(plan[0].path, "before");
    must_do(rbxj_released(handle, box, 1, &e), &e);
    must_do(rbxj_end(handle, box, &e), &e);
    die();
}

static void k5_a_supervisor_may_write_back_itself(void **state)
{
    (void)state;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_LOCK, .path = in_work("a.lock")});
    harness_write(plan[0].path, "before");
    (void)supervisor_fork(run_and_give_back, "a", 0);
    assert_null(state_of("a"));
}

#define lost_test(f) cmocka_unit_test_setup_teardown(f, harness_setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        lost_test(k1_a_lock_whose_content_never_reached_the_disk),
        lost_test(k1_a_stamp_that_cant_be_read_proves_nothing),
        lost_test(k1_a_lock_of_which_only_the_size_reached_the_disk),
        lost_test(k5_a_present_locks_content_is_in_the_journal),
        lost_test(k5_only_the_size_of_a_present_lock_reached_the_disk),
        lost_test(k5_what_a_long_one_held_does_not_follow_the_line),
        lost_test(k5_a_supervisor_may_write_back_itself),
    };
    cmocka_set_test_filter(getenv("RBXJ_TEST_ONLY"));
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
