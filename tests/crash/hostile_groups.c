/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Hostile processes: that fork without end, leave, hide in deep, frozen and threaded cgroups, or can't die.
 */
#include "hostile.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#define BOMB_MAX 150 /* processes of a bomb, where the cgroup itself does not bound it */

static const char *cgroup, *cgroup_v1, *second;
static bool is_v1;

/* In v2, or in the v1 hierarchy that was drawn: those have no cgroup.kill. */
static void plan_group(void)
{
    static const char *const hierarchies[] = {"pids", "freezer", "cpu"};
    is_v1 = draw(2);
    cgroup = plan(
        RBXJ_CGROUP,
        harness_format("%s/a", is_v1 ? group_v1(hierarchies[draw(ARRAY_LEN(hierarchies))]) : group()));
}

static void write_to(const char *dir, const char *name, const char *text)
{
    harness_write(harness_format("%s/%s", dir, name), text);
}

/* ---- forking ---- */

/* A tree of processes that are replaced as fast as they die; each can have BOMB_MAX children at most. */
static void bomb(void)
{
    for (;;) {
        pid_t pid = fork();
        if (pid == 0 || (pid < 0 && errno != EAGAIN))
            (void)usleep(1000);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}

/* Where nothing bounds it: children that die at once, and new ones. */
static void quick_bomb(void)
{
    for (int alive = 0;;) {
        pid_t pid = alive < BOMB_MAX ? fork() : -1;
        if (pid == 0) {
            (void)usleep(2000);
            if (fork() > 0)
                _exit(0);
            (void)usleep(2000);
            _exit(0);
        }
        alive += pid > 0;
        while (waitpid(-1, NULL, WNOHANG) > 0)
            alive--;
    }
}

void group_bomb(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    plan_group();
    const char *tree = plan(RBXJ_TMPDIR, in_work("T"));
    bool bounded = is_v1 && strstr(cgroup, "/pids/");
    crash();
    make_decoy(harness_format("%s/tree", tree));
    if (bounded)
        write_to(cgroup, "pids.max", "200");
    for (int i = 0; i < 2; i++)
        (void)attacker(bounded ? bomb : quick_bomb, cgroup);
    (void)usleep((useconds_t)draw(50000));
    (void)reap();
    if (!is_v1 || bounded || strstr(cgroup, "/freezer/")) /* else it is who has more of the processor */
        all_undone();
    over(NULL);
}

/* ---- leaving ---- */

static void leave(void)
{
    enter_cgroup(second);
    sleeper();
}

static void hop(void)
{
    for (;;) {
        enter_cgroup(second);
        enter_cgroup(cgroup);
    }
}

static void leave_and_write(void)
{
    char path[PATH_MAX];
    enter_cgroup(second);
    for (unsigned i = 0;; i++) {
        (void)snprintf(path, sizeof(path), "%s/work/T/%u", harness_disk(), i % 100);
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        cleanup_closep(&fd);
    }
}

void group_escape(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    cgroup = plan(RBXJ_CGROUP, harness_format("%s/a", group()));
    (void)plan(RBXJ_TMPDIR, in_work("T"));
    crash();
    uint64_t where = draw(3), how = draw(3);
    second = where == 0   ? bystander(RBXJ_CGROUP)
             : where == 1 ? harness_format("%s/nested", cgroup)
                          : harness_format("%s/other", group());
    if (where != 0)
        harness_mkdir(second);
    pid_t pid = attacker(how == 0 ? leave : how == 1 ? hop : leave_and_write, cgroup);
    (void)usleep((useconds_t)draw(20000));
    reaper_has(64, 5);
    (void)reap();
    if (where == 1) {
        all_undone();
        assert_int_equal(kill(pid, 0), 0); /* our zombie */
    }
    over(NULL);
    if (where == 2)
        must(rmdir(second) == 0);
}

static void daemons(void)
{
    for (int i = 0; i < 10; i++)
        if (fork() == 0) {
            (void)setsid();
            if (fork() > 0)
                _exit(0);
            (void)signal(SIGTERM, SIG_IGN);
            (void)signal(SIGHUP, SIG_IGN);
            sleeper();
        }
    sleeper();
}

void group_daemons(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    plan_group();
    (void)plan(RBXJ_PROCESS, NULL);
    crash();
    (void)attacker(daemons, cgroup);
    (void)usleep((useconds_t)draw(20000));
    (void)reap();
    all_undone();
    over(NULL);
}

/* ---- deep, frozen, threaded ---- */

void group_deep(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    plan_group();
    crash();
    char *path = harness_format("%s", cgroup);
    for (uint64_t depth = 50; depth > 0; depth--) {
        path = harness_format("%s/%c", path, (char)('a' + draw(3)));
        harness_mkdir(path);
        if (draw(4) == 0)
            harness_mkdir(harness_format("%s/beside", path));
        if (depth % 20 == 0 || depth == 1)
            (void)attacker(draw(2) ? sleeper : daemons, path);
    }
    reaper_has(32, 20);
    (void)reap();
    all_undone();
    over(NULL);
}

static void thaw(void)
{
    if (second && path_exists(second)) {
        write_to(second, "freezer.state", "THAWED");
        (void)rmdir(second);
    }
}

static void wait_until_frozen(const char *dir)
{
    char *state = harness_format("%s/freezer.state", dir);
    for (int i = 0; i < 1000; i++) {
        char text[32] = "";
        _cleanup_fclose_ FILE *f = fopen(state, "re");
        (void)!(f && fread(text, 1, sizeof(text) - 1, f));
        if (strncmp(text, "FROZEN", 6) == 0)
            return;
        (void)usleep(10000);
    }
    fail_msg("%s does not freeze", dir);
}

void group_frozen(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    uint64_t how = draw(3);
    second = NULL;
    cgroup = plan(RBXJ_CGROUP, harness_format("%s/a", how == 1 ? group_v1("freezer") : group()));
    crash();
    const char *nested = harness_format("%s/nested", cgroup);
    harness_mkdir(nested);
    pid_t pid = attacker(sleeper, nested);
    (void)attacker(daemons, nested);
    if (how == 0) {
        write_to(nested, "cgroup.freeze", "1");
    } else if (how == 1) {
        write_to(nested, "freezer.state", "FROZEN");
        if (draw(2))
            write_to(cgroup, "freezer.state", "FROZEN");
    } else { /* in a freezer that is not the box's: it can't die before somebody thaws it */
        second = harness_format("%s/z", group_v1("freezer"));
        harness_mkdir(second);
        write_to(second, "cgroup.procs", harness_format("%d", pid));
        write_to(second, "freezer.state", "FROZEN");
        wait_until_frozen(second);
    }
    reaper_has(64, how == 2 ? 2 : 20);
    (void)reap();
    if (how == 2) /* a frozen process of v1 */
        left(RBXJ_CGROUP, harness_format("pid %d", pid));
    else
        all_undone();
    if (second)
        write_to(second, "freezer.state", "THAWED");
    over(thaw);
}

static void *thread(void *data)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/cgroup.threads", (const char *)data);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    (void)!write(fd, "0", 1);
    sleeper();
    return NULL;
}

static void threads(void)
{
    pthread_t t;
    for (int i = 0; i < 3; i++)
        (void)pthread_create(&t, NULL, thread, (void *)(uintptr_t)second);
    sleeper();
}

void group_threaded(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    cgroup = plan(RBXJ_CGROUP, harness_format("%s/a", group()));
    crash();
    second = harness_format("%s/threaded", cgroup);
    harness_mkdir(second);
    write_to(second, "cgroup.type", "threaded");
    if (draw(2)) {
        second = harness_format("%s/inner", second);
        harness_mkdir(second);
        write_to(second, "cgroup.type", "threaded");
    }
    (void)attacker(threads, cgroup);
    (void)usleep((useconds_t)draw(30000));
    (void)reap();
    all_undone();
    over(NULL);
}

/* ---- stopped, traced ---- */

static pid_t traced;

static void trace(void)
{
    if (ptrace(PTRACE_SEIZE, traced, NULL, PTRACE_O_TRACEEXIT) < 0 ||
        ptrace(PTRACE_INTERRUPT, traced, NULL, NULL))
        _exit(2);
    (void)waitpid(traced, NULL, __WALL);
    sleeper();
}

void group_stopped(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    uint64_t how = draw(3);
    plan_group();
    (void)plan(RBXJ_PROCESS, NULL);
    crash();
    traced = attacker(sleeper, cgroup);
    if (how == 0)
        must(kill(traced, SIGSTOP) == 0 && kill(planned_process(), SIGSTOP) == 0);
    if (how == 1)
        (void)attacker(trace, NULL); /* at its end it stops once more, and waits for a stranger */
    if (how == 2)
        (void)attacker(trace, cgroup);
    (void)usleep((useconds_t)draw(20000));
    reaper_has(64, how == 1 ? 2 : 20);
    (void)reap();
    if (how == 1 && is_left(RBXJ_CGROUP))
        left(RBXJ_CGROUP, harness_format("pid %d", traced));
    else
        all_undone();
    over(NULL);
}

/* ---- renamed, recreated ---- */

static const char *renamed_from, *renamed_to;

static void rename_back(void)
{
    if (renamed_to && path_exists(renamed_to))
        must(rename(renamed_to, renamed_from) == 0);
}

void group_renamed(const struct crash_case *c, uint64_t point)
{
    (void)c;
    static const char *const hierarchies[] = {"pids", "freezer", "cpu"};
    hostile_open(point);
    uint64_t how = draw(3);
    cgroup_v1 = group_v1(hierarchies[draw(ARRAY_LEN(hierarchies))]);
    const char *parent = harness_format("%s/p", cgroup_v1);
    harness_mkdir(parent);
    cgroup = plan(RBXJ_CGROUP, harness_format("%s/a", parent));
    crash();
    pid_t pid = attacker(sleeper, cgroup);
    renamed_from = how == 2 ? parent : cgroup;
    renamed_to = how == 2 ? harness_format("%s/q", cgroup_v1) : harness_format("%s/z", parent);
    must(rename(renamed_from, renamed_to) == 0);
    if (how == 1) /* an empty one of its name */
        harness_mkdir(cgroup);
    (void)reap();
    if (how < 2)
        all_undone();
    else
        left(RBXJ_CGROUP, "");
    assert_int_equal(kill(pid, 0), 0); /* a zombie of ours, or alive */
    if (how == 1)
        must(rmdir(cgroup) == 0);
    if (how == 2)
        rename_back();
    over(NULL);
    if (how < 2 && path_exists(renamed_to))
        fail_msg("%s is still there", renamed_to);
}

void group_recreated(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    plan_group();
    (void)plan(RBXJ_TMPDIR, in_work("T"));
    crash();
    must(rmdir(cgroup) == 0);
    bool again = draw(2);
    pid_t pid = 0;
    if (again) {
        harness_mkdir(cgroup);
        pid = harness_spawn(cgroup);
    }
    (void)reap();
    all_undone();
    if (again) { /* a stranger's */
        assert_true(path_exists(cgroup));
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    }
    over(NULL);
}

/* ---- many ---- */

static unsigned children;

static void many(void)
{
    for (unsigned i = 0; i < children; i++)
        if (fork() == 0)
            sleeper();
    sleeper();
}

void group_many(const struct crash_case *c, uint64_t point)
{
    (void)c;
    hostile_open(point);
    plan_group();
    (void)plan(RBXJ_TMPDIR, in_work("T"));
    crash();
    children = (unsigned)sized(150, 1500);
    (void)attacker(many, cgroup);
    char *procs = harness_format("%s/cgroup.procs", cgroup);
    for (int i = 0; i < 1000; i++) {
        size_t n = 0;
        for (const char *p = harness_read(procs); *p; p++)
            n += *p == '\n';
        if (n > children)
            break;
        (void)usleep(20000);
    }
    reaper_has(32, 30);
    (void)reap();
    all_undone();
    over(NULL);
}
