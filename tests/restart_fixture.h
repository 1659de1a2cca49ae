/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For test_restart.c and test_clocks.c: the library's looks at the boot id and the clocks come here.
 */
#ifndef RBXJ_TESTS_RESTART_FIXTURE_H
#define RBXJ_TESTS_RESTART_FIXTURE_H

#include "base/fd.h"
#include "seams_fixture.h"

#include <sys/syscall.h>
#include <systemd/sd-id128.h>
#include <time.h>

static uint8_t boot_number; /* of the next boot; 0: the first one */

int sd_id128_get_boot(sd_id128_t *ret)
{
    static const sd_id128_t first = SD_ID128_MAKE(72, 65, 73, 74, 61, 72, 40, 00, 80, 00, 00, 00, 00, 00, 00,
                                                  00);
    *ret = first;
    ret->bytes[15] = boot_number;
    return 0;
}

static time_t clock_shift;    /* seconds by which the wall clock is wrong */
static bool same_uptime;      /* as that of the first boot */
static int64_t boot_began_ns; /* CLOCK_MONOTONIC; 0: when it is looked at */
static unsigned int slowness; /* whoever asks for the uptime is stopped for so many seconds then */

/* A later boot begins when it is looked at, if nothing else is said: what is there is older. */
int clock_gettime(clockid_t clock, struct timespec *ret)
{
    if (boot_number && clock == CLOCK_BOOTTIME && !same_uptime) {
        int64_t up = boot_began_ns ? now_monotonic_ns() - boot_began_ns : 0;
        *ret = (struct timespec){.tv_sec = up / 1000000000, .tv_nsec = up % 1000000000};
        (void)sleep(slowness);
        return 0;
    }
    int r = (int)syscall(SYS_clock_gettime, clock, ret);
    if (clock == CLOCK_REALTIME)
        ret->tv_sec += clock_shift;
    return r;
}

static inline int restart_teardown(void **state)
{
    boot_number = 0;
    clock_shift = 0;
    same_uptime = false;
    boot_began_ns = 0;
    slowness = 0;
    return harness_teardown(state);
}
#define restart_test(f) cmocka_unit_test_setup_teardown(f, harness_setup, restart_teardown)

static const struct rbxj_replay all;

static inline void is_healthy(void)
{
    struct rbxj_health health;
    struct rbxj_error e = {0};
    assert_int_equal(rbxj_health(&world.options, &health, &e), 0);
    if (strcmp(health.status, "healthy") != 0)
        fail_msg("%s: %s", health.status, health.last_cleanup_error);
}

#endif
