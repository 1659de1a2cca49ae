/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj_spawn(): who dies meanwhile, and who forks beside it.
 */
#include "spawn_fixture.h"

#include <pthread.h>

/* ---- the supervisor dies ---- */

static char victim[16]; /* the name of the process that is not let go yet, this test's own */

static bool has_victim(void)
{
    bool found = false;
    DIR *dir = opendir("/proc");
    for (struct dirent *d; !found && (d = readdir(dir));) {
        char path[300], name[32] = "";
        (void)snprintf(path, sizeof(path), "/proc/%s/comm", d->d_name);
        int fd = d->d_name[0] > '0' && d->d_name[0] <= '9' ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (fd < 0)
            continue;
        found = read(fd, name, sizeof(name) - 1) > 0 && strncmp(name, victim, strlen(victim)) == 0 &&
                !is_dead(atoi(d->d_name));
        (void)close(fd);
    }
    (void)closedir(dir);
    return found;
}

static void run_spawn(const char *box, unsigned int parts)
{
    struct rbxj_error e = {0};
    const char *const argv[] = {"sh", "-c", harness_format("echo $$ >%s/ran; exec sleep 300", world.work),
                                NULL};
    struct rbxj_spawn how = {.argv = argv, .cgroups = (const uint32_t[]){1}, .cgroups_len = 1};
    pid_t pid;
    handle = open_here();
    begin_here(handle, box, parts);
    acquire_here(handle, box, parts);
    (void)prctl(PR_SET_NAME, victim);
    start_counting();
    must_do(rbxj_spawn(handle, box, &how, &pid, NULL, NULL, &e), &e);
    stop_counting();
}

/* Killed at each system call: what was not let go is gone by itself and has run nothing; what may have run is
 * journaled. */
static void k6_caller_killed_at_each_call(void **state)
{
    (void)state;
    world_open();
    (void)snprintf(victim, sizeof(victim), "victim-%d", getpid() % 1000000);
    char *ran = harness_format("%s/ran", world.work), *before = machine();
    unsigned long calls = kill_at(ULONG_MAX, run_spawn, "a", 1U << GROUP), waited = 0;
    replay_is_clean(1);
    (void)unlink(ran);
    is_as_before(before, "spawned");
    assert_true(calls > 30);
    for (unsigned long n = 0; n <= calls; n++) {
        (void)kill_at(n, run_spawn, "a", 1U << GROUP);
        for (int i = 0; i < 400 && has_victim(); i++)
            (void)usleep(5000);
        if (has_victim())
            fail_msg("killed at call %lu of %lu: its child waits on", n, calls);
        bool journaled = records("a", "process");
        assert_false(!journaled && path_exists(ran));
        replay_is_clean(1);
        waited += journaled && !path_exists(ran);
        if (path_exists(ran) && atoi(harness_read(ran)) > 0)
            assert_true(is_dead(atoi(harness_read(ran))));
        (void)unlink(ran);
        is_as_before(before, "spawn killed at call %lu of %lu", n, calls);
    }
    assert_true(waited > 0);
}

static int stop;

/* Children that don't exec, and have every descriptor that was open in the moment of their fork. */
static void *fork_on_and_on(void *data)
{
    pid_t *last = data;
    for (int i = 0; i < 300 && !stop; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            (void)usleep(3000000);
            _exit(0);
        }
        last[i] = pid;
        (void)usleep(200);
    }
    return NULL;
}

static void a_fork_beside_it_does_not_hold_it_up(void **state)
{
    (void)state;
    static pid_t forked[300];
    pthread_t thread;
    open_with("a");
    stop = 0;
    memset(forked, 0, sizeof(forked));
    assert_int_equal(0, pthread_create(&thread, NULL, fork_on_and_on, forked));
    double longest = 0;
    for (int i = 0; i < 60; i++) {
        struct timespec start, end;
        pid_t pid;
        (void)clock_gettime(CLOCK_MONOTONIC, &start);
        int r = spawn(&(struct rbxj_spawn){.argv = run_true}, &pid);
        (void)clock_gettime(CLOCK_MONOTONIC, &end);
        assert_int_equal(0, r);
        (void)waitpid(pid, NULL, 0);
        double took = (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) * 1e-9;
        longest = took > longest ? took : longest;
    }
    stop = 1;
    (void)pthread_join(thread, NULL);
    for (size_t i = 0; i < ARRAY_LEN(forked); i++)
        if (forked[i] > 0) {
            (void)kill(forked[i], SIGKILL);
            (void)waitpid(forked[i], NULL, 0);
        }
    assert_true(longest < 1.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        spawn_test(k6_caller_killed_at_each_call),
        spawn_test(a_fork_beside_it_does_not_hold_it_up),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
