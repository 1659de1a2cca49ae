/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj_spawn(): what is started, and with what (K6, K7).
 */
#include "spawn_fixture.h"

#include <sys/resource.h>

/* Runs it, and its standard output goes to a file, of which this is the content. */
static int to_output(void *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    return fd < 0 || dup2(fd, 1) < 0 || close(fd) < 0 ? errno : 0;
}

static char *output_of(struct rbxj_spawn how)
{
    pid_t pid;
    char *path = harness_format("%s/out", world.work);
    how.setup = to_output;
    how.setup_data = path;
    if (spawn(&how, &pid) < 0)
        fail_msg("spawn: %s (%s)", error.message, error.detail);
    assert_int_equal(exit_status(pid), 0);
    return harness_read(path);
}

/* ---- the start ---- */

static void k6_it_is_journaled_and_undone(void **state)
{
    (void)state;
    open_with("a");
    const char *const argv[] = {"sleep", "300", NULL};
    struct rbxj_spawn how = {.argv = argv};
    pid_t pid = 0;
    int pidfd = -1;
    uint32_t seq = 0;
    assert_int_equal(0, rbxj_spawn(handle, "a", &how, &pid, &pidfd, &seq, &error));
    assert_int_equal(1, seq);
    assert_int_equal(1, records("a", "process"));
    assert_int_equal(FD_CLOEXEC, fcntl(pidfd, F_GETFD));
    struct pollfd fds = {.fd = pidfd, .events = POLLIN};
    assert_int_equal(0, poll(&fds, 1, 0));
    undo_and_end("a");
    assert_int_equal(1, poll(&fds, 1, 0));
    siginfo_t info = {0};
    assert_int_equal(0, waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED));
    assert_int_equal(pid, info.si_pid);
    assert_int_equal(SIGKILL, info.si_status);
    (void)close(pidfd);
}

static void k7_it_has_only_its_own_descriptors(void **state)
{
    (void)state;
    open_with("a");
    const char *const argv[] = {"ls", "/proc/self/fd", NULL};
    int leaked = open("/", O_RDONLY), kept = dup2(leaked, 40), low = dup2(leaked, 7);
    const int fds[] = {kept, low, 2};
    assert_true(leaked >= 0 && kept == 40 && low == 7);
    assert_int_equal(0, fcntl(low, F_SETFD, FD_CLOEXEC)); /* what it is to keep it keeps */
    /* 3 is that of ls */
    assert_string_equal("0\n1\n2\n3\n", output_of((struct rbxj_spawn){.argv = argv}));
    assert_string_equal("0\n1\n2\n3\n40\n7\n",
                        output_of((struct rbxj_spawn){.argv = argv, .fds = fds, .fds_len = 3}));
    assert_int_equal(FD_CLOEXEC, fcntl(low, F_GETFD)); /* here it stays */
    (void)close(leaked);
    (void)close(low);
    (void)close(kept);
    pid_t pid;
    assert_int_equal(-RBXJ_E_BAD_REQUEST,
                     spawn(&(struct rbxj_spawn){.argv = argv, .fds = fds, .fds_len = 1}, &pid));
}

/* In the child, before the exec: what it may see of its cgroups and descriptors. */
struct seen {
    char cgroup[4096];
    int open_fds[1024];
    int signal_blocked;
};

static int look_around(void *data)
{
    struct seen *seen = data;
    sigset_t mask;
    int fd = open("/proc/self/cgroup", O_RDONLY);
    if (fd < 0 || read(fd, seen->cgroup, sizeof(seen->cgroup) - 1) < 0 || close(fd) < 0)
        return errno;
    for (int i = 0; i < 1024; i++)
        seen->open_fds[i] = fcntl(i, F_GETFD) >= 0;
    (void)sigprocmask(SIG_BLOCK, NULL, &mask);
    seen->signal_blocked = sigismember(&mask, SIGUSR2);
    return 0;
}

static void k6_setup_runs_inside_the_cgroups(void **state)
{
    (void)state;
    struct seen *seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    open_with("a");
    uint32_t seqs[2];
    size_t n = 0;
    for (enum part p = GROUP; p <= GROUP_V1; p++) {
        struct rbxj_resource r = part_resource("a", p);
        if (p == GROUP || world.group_v1)
            assert_int_equal(0, rbxj_take(handle, "a", &r, &seqs[n++], NULL, &error));
    }
    struct rbxj_spawn how = {
        .argv = run_true, .cgroups = seqs, .cgroups_len = n, .setup = look_around, .setup_data = seen};
    sigset_t set, old;
    pid_t pid;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGUSR2);
    (void)sigprocmask(SIG_BLOCK, &set, &old);
    assert_int_equal(0, spawn(&how, &pid));
    (void)sigprocmask(SIG_SETMASK, &old, NULL);
    assert_int_equal(0, exit_status(pid));
    for (enum part p = GROUP; p < GROUP + n; p++) {
        const char *name = strrchr(p == GROUP ? world.group : world.group_v1, '/');
        if (!strstr(seen->cgroup, harness_format("%s/a\n", name)))
            fail_msg("not in %s/a:\n%s", name, seen->cgroup);
    }
    for (int i = 3; i < 512; i++)
        assert_false(seen->open_fds[i]);
    assert_true(seen->signal_blocked);
    (void)munmap(seen, sizeof(*seen));
    undo_and_end("a");
}

static void a_cgroup_must_be_the_box_own(void **state)
{
    (void)state;
    open_with("a");
    struct rbxj_resource group = part_resource("a", GROUP);
    uint32_t seq = 9;
    struct rbxj_spawn how = {.argv = run_true, .cgroups = &seq, .cgroups_len = 1};
    pid_t pid;
    assert_int_equal(-RBXJ_E_NO_SUCH_BOX, spawn(&how, &pid));
    nothing_is_left();
    assert_int_equal(0, rbxj_intend(handle, "a", &group, &seq, &error));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, spawn(&how, &pid)); /* not acquired */
    assert_int_equal(0, rbxj_acquire(handle, "a", seq, NULL, NULL, &error));
    /* another one of its name (I4) */
    assert_int_equal(0, rmdir(group.path));
    harness_mkdir(group.path);
    assert_int_equal(-RBXJ_E_FOREIGN, spawn(&how, &pid));
    assert_int_equal(1, records("a", NULL));
    assert_int_equal(0, rmdir(group.path));
    assert_int_equal(-RBXJ_E_FOREIGN, spawn(&how, &pid));
    assert_int_equal(1, records("a", NULL));
    undo_and_end("a");
}

static int fails_with(void *errnum)
{
    return *(int *)errnum;
}

static void what_fails_in_the_child_comes_back(void **state)
{
    (void)state;
    open_with("a");
    pid_t pid = -5;
    int pidfd = -5;
    uint32_t seq = 77;
    const int errnums[] = {EDOM, ENOENT, -1, 100000};
    for (size_t i = 0; i < ARRAY_LEN(errnums); i++) {
        int errnum = errnums[i];
        struct rbxj_spawn how = {.argv = run_true, .setup = fails_with, .setup_data = &errnum};
        int expected = errnum > 0 && errnum < 4096 ? errnum : EINVAL;
        assert_int_equal(-expected, rbxj_spawn(handle, "a", &how, &pid, &pidfd, &seq, &error));
        assert_non_null(strstr(error.message, "setup: true"));
        nothing_is_left();
    }
    char *plain = harness_format("%s/plain", world.work);
    harness_write(plain, "");
    const struct {
        const char *program;
        int errnum;
    } programs[] = {{"/nonexistent/program", ENOENT},
                    {"no-such-program", ENOENT},
                    {"", ENOENT},
                    {plain, EACCES},
                    {world.work, EACCES},
                    {"/proc/self/exe/x", ENOTDIR}};
    for (size_t i = 0; i < ARRAY_LEN(programs); i++) {
        const char *const argv[] = {programs[i].program, NULL};
        struct rbxj_spawn how = {.argv = argv};
        assert_int_equal(-programs[i].errnum, rbxj_spawn(handle, "a", &how, &pid, &pidfd, &seq, &error));
        nothing_is_left();
    }
    assert_int_equal(-RBXJ_E_BAD_REQUEST, spawn(&(struct rbxj_spawn){0}, &pid));
    assert_true(pid == -5 && pidfd == -5 && seq == 77); /* untouched */
    assert_int_equal(-RBXJ_E_NO_SUCH_BOX, rbxj_spawn(handle, "z", &(struct rbxj_spawn){.argv = run_true},
                                                     &pid, NULL, NULL, &error));
}

/* As execvp(3) does it: the order of PATH, over what may not be run, and a script without its first line. */
static void programs_are_found_in_path(void **state)
{
    (void)state;
    open_with("a");
    char *old = harness_format("%s", getenv("PATH"));
    harness_mkdir(harness_format("%s/p1", world.work));
    harness_mkdir(harness_format("%s/p2", world.work));
    harness_write(harness_format("%s/p1/rbxj-prog", world.work), "echo one\n");
    harness_write(harness_format("%s/p2/rbxj-prog", world.work), "echo two $1\n");
    assert_int_equal(0, chmod(harness_format("%s/p2/rbxj-prog", world.work), 0700));
    assert_int_equal(
        0, setenv("PATH", harness_format("/nonexistent::%s/p1:%s/p2:%s", world.work, world.work, old), 1));
    const char *const argv[] = {"rbxj-prog", "arg", NULL};
    assert_string_equal("two arg\n", output_of((struct rbxj_spawn){.argv = argv}));
    const char *const env[] = {"env", NULL}, *const envp[] = {"A=b", NULL};
    assert_string_equal("A=b\n", output_of((struct rbxj_spawn){.argv = env, .envp = envp}));
    const char *const other[] = {"PATH=/nonexistent", NULL}; /* says nothing about where it is looked for */
    assert_string_equal("PATH=/nonexistent\n", output_of((struct rbxj_spawn){.argv = env, .envp = other}));
    pid_t pid;
    assert_int_equal(0, setenv("PATH", harness_format("%s/p1", world.work), 1));
    assert_int_equal(-EACCES, spawn(&(struct rbxj_spawn){.argv = argv}, &pid));
    assert_int_equal(0, setenv("PATH", old, 1));
}

/* Without standard descriptors, and with no room for high ones. */
static void low_descriptors_are_free(void **state)
{
    (void)state;
    world_open();
    pid_t pid = fork();
    if (pid == 0) {
        handle = open_here();
        begin_here(handle, "a", 0);
        (void)setrlimit(RLIMIT_NOFILE, &(struct rlimit){64, 64});
        (void)close_range(0, 2, 0);
        const char *const argv[] = {"sh", "-c", "test $(ls /proc/self/fd | wc -l) -le 3 && exit 3", NULL};
        struct rbxj_spawn how = {.argv = argv};
        struct rbxj_error e = {0};
        int status;
        pid_t child;
        must_do(rbxj_spawn(handle, "a", &how, &child, NULL, NULL, &e), &e);
        must(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 3);
        const char *const none[] = {"/nonexistent", NULL};
        how.argv = none;
        must(rbxj_spawn(handle, "a", &how, &child, NULL, NULL, &e) == -ENOENT);
        _exit(0);
    }
    harness_track(pid);
    if (harness_wait(pid))
        fail_msg("%s", told->error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        spawn_test(k6_it_is_journaled_and_undone),      spawn_test(k7_it_has_only_its_own_descriptors),
        spawn_test(k6_setup_runs_inside_the_cgroups),   spawn_test(a_cgroup_must_be_the_box_own),
        spawn_test(what_fails_in_the_child_comes_back), spawn_test(programs_are_found_in_path),
        spawn_test(low_descriptors_are_free),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
