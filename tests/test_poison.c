/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A box that kills the reaper before anything of it is undone: where it is looked at, and where its end is
 * waited for (K34). test_replay.c has the one that does so in its undo. And one that has more locks than the
 * reaper descriptors.
 */
#include "seams_fixture.h"

#include <sys/resource.h>
#include <sys/syscall.h>

#define STATMOUNT 457 /* nothing but the look at a mount asks that */

static const struct rbxj_replay plain, patient = {.timeout = 1000};

static void run_replay(const char *box, unsigned int parts)
{
    (void)box;
    (void)parts;
    start_counting();
    replay_here(&plain);
    stop_counting();
}

static void k34_a_look_that_kills_the_reaper(void **state)
{
    (void)state;
    world_open();
    world.options.config = harness_format("%s/conf", harness_disk()); /* one box after the other */
    (void)supervisor_start("a", 1U << LOCK, AFTER_EVIDENCE);
    (void)supervisor_start("c", 1U << MOUNT, AFTER_EVIDENCE); /* newest: first */
    die_of(STATMOUNT, 3, run_replay);
    assert_null(state_of("a"));
    assert_non_null(state_of("c"));
    assert_false(path_exists(part_path("a", LOCK)));
    replay_is_clean(1);
}

/* Processes that outlive their boxes are looked for before the first one is killed. */
static void k34_a_look_for_orphans_that_kills_the_reaper(void **state)
{
    (void)state;
    world_open();
    if (!world.group_v1)
        harness_skip("no v1 freezer here");
    world.options.config = harness_format("%s/conf", harness_disk());
    (void)supervisor_start("a", 1U << LOCK, AFTER_EVIDENCE);
    (void)supervisor_start("c", 1U << GROUP_V1, AFTER_EVIDENCE);
    die_of(SYS_getxattr, 3, run_replay); /* only a cgroup of v1 is asked for its stamp */
    assert_null(state_of("a"));
    assert_non_null(state_of("c"));
    replay_is_clean(1);
}

static void freeze(const char *group)
{
    const char *file = harness_format("%s/freezer.state", group);
    for (int i = 0; i < 1000; i++) {
        harness_write(file, "FROZEN");
        if (strstr(harness_read(file), "FROZEN"))
            return;
        (void)usleep(10000);
    }
    fail_msg("%s does not freeze", group);
}

/* A replay that waits for that process, and is killed once it has asked it to die, or once that box is
 * gone. */
static void replay_until(pid_t process, const char *box)
{
    pid_t reaper = fork();
    if (reaper == 0) {
        replay_here(&patient);
        _exit(0);
    }
    harness_track(reaper);
    const char *status = harness_format("/proc/%d/status", process);
    for (int i = 0; i < 3000; i++) {
        const char *pending = strstr(harness_read(status), "ShdPnd:");
        bool asked = pending && strtoull(pending + strlen("ShdPnd:"), NULL, 16) & 1ULL << (SIGKILL - 1);
        if (box ? !state_of(box) : asked)
            break;
        (void)usleep(10000);
    }
    harness_kill(reaper);
}

/* In a frozen v1 cgroup not even SIGKILL works. */
static void k34_a_wait_in_which_the_reaper_is_killed(void **state)
{
    (void)state;
    world_open();
    const char *group = harness_cgroup_v1("freezer");
    world.options.config = harness_format("%s/conf", harness_disk());
    (void)supervisor_start("a", 1U << LOCK, AFTER_EVIDENCE);
    (void)supervisor_start("c", 1U << PROCESS, AFTER_EVIDENCE);
    pid_t process = told->payload;
    harness_write(harness_format("%s/cgroup.procs", group), harness_format("%d", process));
    freeze(group);
    replay_until(process, NULL);
    replay_until(process, "a");
    assert_null(state_of("a"));
    assert_false(path_exists(part_path("a", LOCK)));
    harness_write(harness_format("%s/freezer.state", group), "THAWED");
    payload_is_dead();
    replay_tells(&plain, 0, "c 1 gone already_gone\n");
}

enum { LOCKS = 150 }; /* with a limit of 512 a replay keeps 128 for them */

static void limit_descriptors(rlim_t limit)
{
    struct rlimit now;
    must(getrlimit(RLIMIT_NOFILE, &now) == 0);
    now.rlim_cur = limit;
    must(setrlimit(RLIMIT_NOFILE, &now) == 0);
}

static void run_many_locks(const char *box, unsigned int parts)
{
    struct rbxj *handle = open_here();
    const struct rbxj_box b = {.name = box};
    struct rbxj_error e = {0};
    (void)parts;
    must_do(rbxj_begin(handle, &b, NULL, &e), &e);
    for (int i = 0; i < LOCKS; i++) {
        char path[PATH_MAX];
        (void)snprintf(path, sizeof(path), "%s/lock%d", world.work, i);
        const struct rbxj_resource r = {.kind = RBXJ_LOCK, .path = path};
        uint32_t seq;
        int fd;
        must_do(rbxj_intend(handle, box, &r, &seq, &e), &e);
        must_do(rbxj_acquire(handle, box, seq, NULL, &fd, &e), &e);
    }
    die();
}

static void few_descriptors(void)
{
    limit_descriptors(512);
}

static void a_box_with_more_locks_than_a_batch_has_descriptors(void **state)
{
    (void)state;
    world_open();
    (void)supervisor_fork(run_many_locks, "a", 0);
    replay_apart_tells(few_descriptors, 0, &plain, 0, "a 150 present undone\n");
    assert_false(path_exists(in_work("lock0")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k34_a_look_that_kills_the_reaper),
        harness_test(k34_a_look_for_orphans_that_kills_the_reaper),
        harness_test(k34_a_wait_in_which_the_reaper_is_killed),
        harness_test(a_box_with_more_locks_than_a_batch_has_descriptors),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
