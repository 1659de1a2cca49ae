/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj_spawn(): who dies meanwhile, and who forks beside it (K6, K7, I4).
 */
#include "gate_fixture.h"
#include "spawn_fixture.h"

#include <pthread.h>
#include <sched.h>

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

static bool unshared; /* the supervisor has its children in another pid namespace */

static void run_spawn(const char *box, unsigned int parts)
{
    struct rbxj_error e = {0};
    /* its pid as this /proc has it: in a namespace of its own it is 1 */
    const char *const argv[] = {
        "sh", "-c",
        harness_format("read -r pid rest </proc/self/stat; echo $pid >%s/ran; exec sleep 300", world.work),
        NULL};
    struct rbxj_spawn how = {.argv = argv, .cgroups = (const uint32_t[]){1}, .cgroups_len = 1};
    pid_t pid;
    handle = open_here();
    begin_here(handle, box, parts);
    acquire_here(handle, box, parts);
    (void)prctl(PR_SET_NAME, victim);
    must(!unshared || unshare(CLONE_NEWPID) == 0);
    start_counting();
    must_do(rbxj_spawn(handle, box, &how, &pid, NULL, NULL, &e), &e);
    stop_counting();
}

/* Killed at each system call: what was not let go is gone by itself and has run nothing; what may have run is
 * journaled. */
static void killed_at_each_call(void)
{
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

static void k6_caller_killed_at_each_call(void **state)
{
    (void)state;
    unshared = false;
    killed_at_each_call();
}

static void k6_unshared_caller_killed_at_each_call(void **state)
{
    (void)state;
    unshared = true;
    killed_at_each_call();
}

/* getppid() is 0 in its child. */
static void k6_it_runs_in_a_new_pid_namespace(void **state)
{
    (void)state;
    world_open();
    pid_t pid = fork();
    if (pid == 0) {
        const char *const argv[] = {"sh", "-c", "test $$ = 1 && exit 3", NULL};
        struct rbxj_spawn how = {.argv = argv};
        struct rbxj_error e = {0};
        int status = 0;
        pid_t child;
        handle = open_here();
        begin_here(handle, "a", 0);
        must(unshare(CLONE_NEWPID) == 0);
        must_do(rbxj_spawn(handle, "a", &how, &child, NULL, NULL, &e), &e);
        must(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 3);
        /* its init has died: nothing starts there any more */
        must(rbxj_spawn(handle, "a", &how, &child, NULL, NULL, &e) == -RBXJ_E_IO && e.errnum == ENOMEM);
        must_do(rbxj_undo(handle, "a", NULL, &e), &e);
        must_do(rbxj_end(handle, "a", &e), &e);
        _exit(0);
    }
    harness_track(pid);
    if (harness_wait(pid))
        fail_msg("%s", told->error);
}

/* ---- a start that is held up between its fork and its intent ---- */

static void (*at_start)(void); /* of the supervisor; may be NULL */
static bool in_group;          /* the box has a cgroup, into which the process goes */

/* A supervisor that has begun the box, and then starts a process when it is told to. secret: a descriptor
 * that is not for its child. */
static pid_t start_spawner(int secret, int said[2], int asked[2])
{
    assert_int_equal(0, pipe2(said, O_CLOEXEC));
    assert_int_equal(0, pipe2(asked, O_CLOEXEC));
    pid_t pid = fork();
    if (pid == 0) {
        struct rbxj_error e = {0};
        pid_t child = 0;
        struct rbxj_spawn how = {.argv = run_true, .cgroups = (const uint32_t[]){1}, .cgroups_len = in_group};
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        must(fcntl(secret, F_SETFD, 0) == 0);
        handle = open_here();
        begin_here(handle, "a", in_group ? 1U << GROUP : 0);
        acquire_here(handle, "a", in_group ? 1U << GROUP : 0);
        if (at_start)
            at_start();
        tell(said[1]);
        hear(asked[0]);
        told->result = rbxj_spawn(handle, "a", &how, &child, NULL, NULL, &e);
        (void)snprintf(told->error, sizeof(told->error), "%s", e.message);
        if (told->result == 0)
            (void)waitpid(child, NULL, 0);
        tell(said[1]);
        for (;;)
            pause();
    }
    harness_track(pid);
    (void)close(said[1]);
    heard(said[0]);
    return pid;
}

static pid_t child_of(pid_t pid)
{
    pid_t child = 0;
    FILE *f = fopen(harness_format("/proc/%d/task/%d/children", pid, pid), "re");
    assert_true(f && fscanf(f, "%d", &child) == 1);
    (void)fclose(f);
    return child;
}

/* Starts it, and comes back when it has forked and waits for the gate, which the test has. */
static pid_t hold_up(struct gate_page *gates, pid_t pid, int asked)
{
    assert_int_equal(0, gate_lock(&gates->boot, "test", 10000000000, NULL));
    tell(asked);
    wait_for_waiter(gates, pid);
    return child_of(pid);
}

static void let_on(struct gate_page *gates, int said)
{
    gate_unlock(&gates->boot);
    heard(said);
    (void)munmap(gates, sizeof(*gates));
}

static void k6_what_died_before_it_was_let_go_was_not_started(void **state)
{
    (void)state;
    int said[2], asked[2], secret = open("/", O_RDONLY | O_CLOEXEC);
    world_open_with_gate_timeout("60s");
    pid_t pid = start_spawner(secret, said, asked);
    struct gate_page *gates = map_gate();
    pid_t child = hold_up(gates, pid, asked[1]);
    assert_int_equal(0, kill(child, SIGKILL));
    for (int i = 0; i < 6000 && !is_dead(child); i++)
        (void)usleep(5000);
    let_on(gates, said[0]);
    if (told->result != -RBXJ_E_IO)
        fail_msg("spawn: %d: %s", told->result, told->error);
    assert_non_null(strstr(told->error, "died before it was let go"));
    assert_int_equal(0, records("a", NULL));
    assert_false(path_exists(harness_format("/proc/%d", child))); /* it was reaped */
    (void)close(secret);
}

static void leave_no_zombies(void)
{
    (void)signal(SIGCHLD, SIG_IGN);
}

/* A process of that number, which is free. */
static pid_t stranger_with(pid_t number)
{
    for (int i = 0; i < 100; i++) {
        harness_write("/proc/sys/kernel/ns_last_pid", harness_format("%d", number - 1));
        pid_t pid = harness_spawn(NULL);
        if (pid == number)
            return pid;
        harness_kill(pid);
    }
    harness_skip("somebody else takes each number first");
    return -1;
}

static void i4_who_was_given_its_number_is_not_put_into_the_cgroup(void **state)
{
    (void)state;
    int said[2], asked[2], secret = open("/", O_RDONLY | O_CLOEXEC);
    world_open_with_gate_timeout("60s");
    at_start = leave_no_zombies;
    in_group = true;
    pid_t pid = start_spawner(secret, said, asked);
    at_start = NULL;
    in_group = false;
    struct gate_page *gates = map_gate();
    pid_t child = hold_up(gates, pid, asked[1]);
    assert_int_equal(0, kill(child, SIGKILL));
    for (int i = 0; i < 6000 && path_exists(harness_format("/proc/%d", child)); i++)
        (void)usleep(5000);
    pid_t stranger = stranger_with(child);
    const char *procs = harness_format("%s/cgroup.procs", part_path("a", GROUP));
    let_on(gates, said[0]);
    assert_int_equal(told->result, -RBXJ_E_IO);
    assert_non_null(strstr(told->error, "died before it was let go"));
    assert_string_equal(harness_read(procs), "");
    harness_kill(pid);
    replay_is_clean(1);
    assert_false(is_dead(stranger));
    (void)close(secret);
}

static int life[2], fork_now[2];

/* What another thread forked meanwhile has the caller's end of the socket, too, and lives on. */
static void *fork_beside(void *data)
{
    (void)data;
    hear(fork_now[0]);
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        (void)prctl(PR_SET_PDEATHSIG, 0);
        (void)!read(life[0], &byte, 1); /* to the end of the test */
        _exit(0);
    }
    told->payload = pid;
    return NULL;
}

static void start_forker(void)
{
    pthread_t thread;
    (void)close(life[1]);
    must(pthread_create(&thread, NULL, fork_beside, NULL) == 0);
}

static void k6_it_sees_its_caller_die_past_a_fork_beside_it(void **state)
{
    (void)state;
    int said[2], asked[2], secret = open("/", O_RDONLY | O_CLOEXEC);
    world_open_with_gate_timeout("60s");
    assert_int_equal(0, pipe2(life, O_CLOEXEC));
    assert_int_equal(0, pipe2(fork_now, O_CLOEXEC));
    at_start = start_forker;
    pid_t pid = start_spawner(secret, said, asked);
    at_start = NULL;
    struct gate_page *gates = map_gate();
    pid_t child = hold_up(gates, pid, asked[1]);
    tell(fork_now[1]);
    for (int i = 0; i < 6000 && !told->payload; i++)
        (void)usleep(5000);
    harness_kill(pid);
    for (int i = 0; i < 6000 && !is_dead(child); i++)
        (void)usleep(5000);
    bool waits = !is_dead(child), beside = told->payload && !is_dead(told->payload);
    gate_unlock(&gates->boot);
    (void)munmap(gates, sizeof(*gates));
    for (int i = 0; i < 2; i++) {
        (void)close(life[i]);
        (void)close(fork_now[i]);
    }
    (void)close(secret);
    assert_true(beside);
    assert_false(waits);
    world.options.config = NULL;
    replay_is_clean(1);
}

static void k7_it_waits_with_nothing_of_its_caller(void **state)
{
    (void)state;
    int said[2], asked[2], secret = open(harness_disk(), O_RDONLY | O_CLOEXEC), found = 0;
    world_open_with_gate_timeout("60s");
    pid_t pid = start_spawner(secret, said, asked);
    struct gate_page *gates = map_gate();
    pid_t child = hold_up(gates, pid, asked[1]);
    DIR *dir = opendir(harness_format("/proc/%d/fd", child));
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir));) {
        char to[PATH_MAX] = "";
        if (atoi(d->d_name) < 3)
            continue;
        (void)!readlinkat(dirfd(dir), d->d_name, to, sizeof(to) - 1);
        found++;
        if (to[0] == '/')
            fail_msg("it has %s, %s", d->d_name, to);
    }
    (void)closedir(dir);
    assert_int_equal(3, found); /* the socket, the status pipe, its caller */
    let_on(gates, said[0]);
    if (told->result < 0)
        fail_msg("spawn: %d: %s", told->result, told->error);
    (void)close(secret);
}

static int stop;

/* Children that neither exec nor end, and have every descriptor that was open in the moment of their fork. */
static void *fork_on_and_on(void *data)
{
    pid_t *last = data, parent = getpid();
    for (int i = 0; i < 300 && !stop; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            while (getppid() == parent)
                (void)usleep(100000);
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
    for (int i = 0; i < 60; i++) { /* held up, it would not come back */
        pid_t pid;
        assert_int_equal(0, spawn(&(struct rbxj_spawn){.argv = run_true}, &pid));
        (void)waitpid(pid, NULL, 0);
    }
    stop = 1;
    (void)pthread_join(thread, NULL);
    for (size_t i = 0; i < ARRAY_LEN(forked); i++)
        if (forked[i] > 0) {
            (void)kill(forked[i], SIGKILL);
            (void)waitpid(forked[i], NULL, 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        spawn_test(k6_caller_killed_at_each_call),
        spawn_test(k6_unshared_caller_killed_at_each_call),
        spawn_test(k6_it_runs_in_a_new_pid_namespace),
        spawn_test(k6_what_died_before_it_was_let_go_was_not_started),
        spawn_test(i4_who_was_given_its_number_is_not_put_into_the_cgroup),
        spawn_test(k6_it_sees_its_caller_die_past_a_fork_beside_it),
        spawn_test(k7_it_waits_with_nothing_of_its_caller),
        spawn_test(a_fork_beside_it_does_not_hold_it_up),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
