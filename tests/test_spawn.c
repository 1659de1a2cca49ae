/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj_spawn() and rbxj_take().
 */
#include "replay_fixture.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/xattr.h>

static struct rbxj *handle;
static struct rbxj_error error;

static const char *const run_true[] = {"true", NULL};

static void begin(const char *box, const struct rbxj_resource *plan, size_t len)
{
    struct rbxj_box b = {.name = box, .plan = plan, .plan_len = len};
    if (rbxj_begin(handle, &b, NULL, &error) < 0)
        fail_msg("begin: %s", error.message);
}

static void open_with(const char *box)
{
    world_open();
    if (rbxj_open(&world.options, &handle, &error) < 0)
        fail_msg("open: %s", error.message);
    begin(box, NULL, 0);
}

static void undo_and_end(const char *box)
{
    if (rbxj_undo(handle, box, NULL, &error) < 0 || rbxj_end(handle, box, &error) < 0)
        fail_msg("undo, end: %s (%s)", error.message, error.detail);
}

static int close_handle(void **state)
{
    rbxj_close(handle);
    handle = NULL;
    return harness_teardown(state);
}

#define spawn_test(f) cmocka_unit_test_setup_teardown(f, harness_setup, close_handle)

/* How many records the box has, of that kind or (NULL) of any. */
static size_t records(const char *box, const char *kind)
{
    struct rbxj_result *result = NULL;
    struct rbxj_result_entry entry;
    size_t n = 0;
    if (rbxj_list(&world.options, box, &result, &error) < 0)
        fail_msg("list: %s", error.message);
    for (size_t k = 0; rbxj_result_entry(result, 0, k, &entry) == 0; k++)
        n += !kind || strcmp(entry.kind, kind) == 0;
    rbxj_result_free(result);
    return n;
}

static int spawn(const struct rbxj_spawn *how, pid_t *pid)
{
    return rbxj_spawn(handle, "a", how, pid, NULL, NULL, &error);
}

static int exit_status(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

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

/* Nothing is left of a start that failed: no record, no child. */
static void nothing_is_left(void)
{
    siginfo_t info = {0};
    assert_int_equal(records("a", NULL), 0);
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid)
        fail_msg("pid %d was not reaped", info.si_pid);
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

/* ---- threads ---- */

static struct {
    int stop;
    char failed[600];
} shared;

static void thread_failed(const char *what, const struct rbxj_error *e)
{
    (void)snprintf(shared.failed, sizeof(shared.failed), "%s: %s (%s)", what, e->message, e->detail);
}

static void *whole_lives(void *name)
{
    struct rbxj_error e = {0};
    const char *box = name;
    struct rbxj_box b = {.name = box};
    for (int i = 0; i < 5 && !shared.failed[0]; i++) {
        uint32_t seq;
        pid_t pid;
        int status, lock = -1;
        struct rbxj_resource group = part_resource("x", GROUP), dir = part_resource("x", TMPDIR),
                             file = part_resource("x", LOCK);
        char paths[3][PATH_MAX];
        (void)snprintf(paths[0], PATH_MAX, "%s/%s", world.group, box);
        (void)snprintf(paths[1], PATH_MAX, "%s/%s.tmp", world.work, box);
        (void)snprintf(paths[2], PATH_MAX, "%s/%s.lock", world.work, box);
        group.path = paths[0], dir.path = paths[1], file.path = paths[2];
        struct rbxj_spawn how = {.argv = run_true, .cgroups = &seq, .cgroups_len = 1};
        if (rbxj_begin(handle, &b, NULL, &e) < 0 || rbxj_take(handle, box, &file, NULL, &lock, &e) < 0 ||
            rbxj_take(handle, box, &dir, NULL, NULL, &e) < 0 ||
            rbxj_take(handle, box, &group, &seq, NULL, &e) < 0)
            thread_failed("begin and take", &e);
        else if (rbxj_spawn(handle, box, &how, &pid, NULL, NULL, &e) < 0)
            thread_failed("spawn", &e);
        else if (waitpid(pid, &status, 0) != pid || status)
            thread_failed("the process", &e);
        else if (rbxj_undo(handle, box, NULL, &e) < 0 || rbxj_end(handle, box, &e) < 0)
            thread_failed("undo and end", &e);
        cleanup_closep(&lock);
    }
    return NULL;
}

static void eight_threads_on_one_handle(void **state)
{
    (void)state;
    pthread_t threads[8];
    static const char *const names[] = {"t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8"};
    open_with("a");
    shared.failed[0] = 0;
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(0, pthread_create(&threads[i], NULL, whole_lives, (void *)(uintptr_t)names[i]));
    for (size_t i = 0; i < 8; i++)
        (void)pthread_join(threads[i], NULL);
    if (shared.failed[0])
        fail_msg("%s", shared.failed);
    undo_and_end("a");
    assert_int_equal(0, records(NULL, NULL));
}

/* Children that don't exec, and have every descriptor that was open in the moment of their fork. */
static void *fork_on_and_on(void *data)
{
    pid_t *last = data;
    for (int i = 0; i < 300 && !shared.stop; i++) {
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
    shared.stop = 0;
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
    shared.stop = 1;
    (void)pthread_join(thread, NULL);
    for (size_t i = 0; i < ARRAY_LEN(forked); i++)
        if (forked[i] > 0) {
            (void)kill(forked[i], SIGKILL);
            (void)waitpid(forked[i], NULL, 0);
        }
    assert_true(longest < 1.5);
}

/* ---- take ---- */

static void take_of_each_kind(void **state)
{
    (void)state;
    open_with("a");
    make_target("a", ALL);
    int lock = -1, none = 5;
    uint32_t seq = 0;
    for (enum part p = 0; p < PARTS; p++) {
        struct rbxj_resource r = part_resource("a", p);
        if (!(possible(ALL) & 1U << p))
            continue;
        if (rbxj_take(handle, "a", &r, &seq, p == LOCK ? &lock : &none, &error) < 0)
            fail_msg("%s: %s (%s)", part_names[p], error.message, error.detail);
        assert_true(path_exists(r.path));
        assert_true(p == LOCK || none == -1);
    }
    assert_int_equal(records("a", NULL), seq);
    assert_int_equal(FD_CLOEXEC, fcntl(lock, F_GETFD));
    assert_int_equal(1, harness_mounts_below(part_path("a", MOUNT)));
    undo_and_end("a");
    assert_false(path_exists(part_path("a", TMPDIR)) || path_exists(part_path("a", LOCK)));
    assert_int_equal(0, harness_mounts_below(part_path("a", MOUNT)));
    (void)close(lock);

    begin("a", NULL, 0);
    struct rbxj_resource process = {.kind = RBXJ_PROCESS, .pid = harness_spawn(NULL)};
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_take(handle, "a", &process, NULL, NULL, &error));
    struct rbxj_resource file = part_resource("a", LOCK), unknown = {.kind = 77};
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_take(handle, "a", &file, NULL, NULL, &error));
    assert_int_equal(-RBXJ_E_BAD_REQUEST, rbxj_take(handle, "a", &unknown, NULL, NULL, &error));
    nothing_is_left();
}

static void take_that_fails(struct rbxj_resource r, int code)
{
    int fd = -7;
    uint32_t seq = 77;
    int rc = rbxj_take(handle, "a", &r, &seq, &fd, &error);
    if (code ? rc != code : rc >= 0)
        fail_msg("take of %s: %d, not %d: %s", r.path, rc, code, error.message);
    assert_true(fd == -7 && seq == 77); /* untouched */
    nothing_is_left();
}

static void a_take_that_fails_leaves_no_record(void **state)
{
    (void)state;
    open_with("a");
    make_target("a", ALL);
    /* before the intent */
    harness_mkdir(part_path("a", TMPDIR));
    take_that_fails(part_resource("a", TMPDIR), -RBXJ_E_EXISTS);
    assert_true(path_exists(part_path("a", TMPDIR)));
    /* after it: the kernel refuses the options */
    struct rbxj_resource wrong = part_resource("a", MOUNT);
    wrong.options = "no-such-option=1";
    take_that_fails(wrong, 0);
    assert_int_equal(0, harness_mounts_below(part_path("a", MOUNT)));
    /* somebody holds the lock: his file stays as it is */
    harness_write(part_path("a", LOCK), "{\"pid\":1}");
    int held = open(part_path("a", LOCK), O_RDWR | O_CLOEXEC);
    assert_int_equal(0, flock(held, LOCK_EX));
    take_that_fails(part_resource("a", LOCK), -RBXJ_E_BUSY);
    assert_string_equal("{\"pid\":1}", harness_read(part_path("a", LOCK)));
    (void)close(held);
    /* no room for a group */
    harness_write(harness_format("%s/cgroup.max.descendants", world.group), "0");
    take_that_fails(part_resource("a", GROUP), -RBXJ_E_IO);
    harness_write(harness_format("%s/cgroup.max.descendants", world.group), "max");
    /* and then it goes */
    struct rbxj_resource group = part_resource("a", GROUP);
    assert_int_equal(0, rbxj_take(handle, "a", &group, NULL, NULL, &error));
    undo_and_end("a");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        spawn_test(k6_it_is_journaled_and_undone),
        spawn_test(k7_it_has_only_its_own_descriptors),
        spawn_test(k6_setup_runs_inside_the_cgroups),
        spawn_test(a_cgroup_must_be_the_box_own),
        spawn_test(what_fails_in_the_child_comes_back),
        spawn_test(programs_are_found_in_path),
        spawn_test(low_descriptors_are_free),
        spawn_test(k6_caller_killed_at_each_call),
        spawn_test(eight_threads_on_one_handle),
        spawn_test(a_fork_beside_it_does_not_hold_it_up),
        spawn_test(take_of_each_kind),
        spawn_test(a_take_that_fails_leaves_no_record),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
