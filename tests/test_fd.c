/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * base/fd.h. The kernel of a machine that has just booted, whose pool of random numbers is not seeded.
 */
#include "seccomp_fixture.h"

#include "base/fd.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

enum { IDS = 200, BYTES = 16 };

/* As before the pool is seeded; who waits for that is killed. */
static void unseed(void)
{
    seccomp_when(SYS_getrandom, 2, 0, SECCOMP_RET_KILL_PROCESS);
    seccomp_when(SYS_getrandom, 2, GRND_NONBLOCK, SECCOMP_RET_ERRNO | EAGAIN);
}

/* 0: no two are the same, and no byte is the same in all. */
static int ids_differ(void)
{
    static uint8_t ids[IDS][BYTES];
    for (size_t i = 0; i < IDS; i++)
        random_bytes(ids[i], BYTES);
    for (size_t i = 0; i < IDS; i++)
        for (size_t k = i + 1; k < IDS; k++)
            if (memcmp(ids[i], ids[k], BYTES) == 0)
                return 1;
    for (size_t byte = 0; byte < BYTES; byte++) {
        size_t same = 1;
        while (same < IDS && ids[same][byte] == ids[0][byte])
            same++;
        if (same == IDS)
            return 2;
    }
    return 0;
}

static int before_the_pool_is_seeded(void)
{
    unseed();
    return ids_differ();
}

/* GRND_INSECURE is since 5.6. */
static int on_an_old_kernel(void)
{
    unseed();
    seccomp_when(SYS_getrandom, 2, GRND_INSECURE, SECCOMP_RET_ERRNO | EINVAL);
    return ids_differ();
}

static void a_boot_does_not_wait_for_random_numbers(void **state)
{
    (void)state;
    assert_int_equal(0, ids_differ());
    child_says(before_the_pool_is_seeded, 0);
    child_says(on_an_old_kernel, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(a_boot_does_not_wait_for_random_numbers),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
