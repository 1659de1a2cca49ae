/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The world of crash_hostile.c: the journal, the box that is attacked, the one beside it, and the attackers.
 */
#include "hostile_world.h"

#include <linux/fs.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#define ATTACKERS_MAX 32
#define LARGE_POINTS 1000 /* --all counts from 0; a sample draws from a thousand million */

struct hostile_world world;
static uint64_t random_state, this_point;
static pid_t attackers[ATTACKERS_MAX];
static size_t attackers_len;

/* ---- the world ---- */

uint64_t draw(uint64_t n)
{
    return crash_random(&random_state) % n;
}

uint64_t sized(uint64_t small, uint64_t large)
{
    return this_point < LARGE_POINTS ? large : small;
}

const char *in_work(const char *name)
{
    return harness_format("%s/work/%s", harness_disk(), name);
}

const char *outside(const char *name)
{
    return harness_format("%s/outside/%s", harness_disk(), name);
}

const char *etc(void)
{
    return outside("etc");
}

const char *group(void)
{
    return world.group;
}

const char *group_v1(const char *which)
{
    if (!harness_cgroup_root(which))
        harness_skip("no v1 hierarchy %s", which);
    return harness_cgroup_v1(which);
}

static struct rbxj_resource part_of_bystander(enum rbxj_kind kind)
{
    struct rbxj_resource r = {.kind = kind};
    r.path = kind == RBXJ_CGROUP   ? harness_format("%s/b", world.group)
             : kind == RBXJ_LOCK   ? in_work("b.lock")
             : kind == RBXJ_TMPDIR ? in_work("b.tmp")
                                   : in_work("b.mnt");
    r.fstype = kind == RBXJ_MOUNT ? "tmpfs" : NULL;
    r.source = kind == RBXJ_MOUNT ? "b" : NULL;
    return r;
}

const char *bystander(enum rbxj_kind kind)
{
    return part_of_bystander(kind).path;
}

static void open_bystander(void)
{
    static const enum rbxj_kind kinds[] = {RBXJ_LOCK, RBXJ_CGROUP, RBXJ_MOUNT, RBXJ_TMPDIR};
    struct box_plan b = {.name = "b"};
    harness_mkdir(bystander(RBXJ_MOUNT));
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        b.resources[b.len++] = part_of_bystander(kinds[i]);
    world.bystander_supervisor = supervise(&b, true);
    world.bystander_payload = harness_spawn(bystander(RBXJ_CGROUP));
    make_decoy(harness_format("%s/tree", bystander(RBXJ_TMPDIR)));
    make_decoy(harness_format("%s/tree", bystander(RBXJ_MOUNT)));
}

void hostile_open(uint64_t point)
{
    harness_need_root();
    setenv("RBXJ_DURABILITY", "resource", 1);
    this_point = random_state = point;
    (void)crash_random(&random_state);
    attackers_len = 0;
    world = (struct hostile_world){
        .group = harness_cgroup(), .a.name = "a", .descriptors = 64, .seconds = 20};
    world.options.state_dir = harness_format("%s/state", harness_disk());
    world.options.runtime_dir = harness_format("%s/run", harness_disk());
    harness_mkdir(world.options.state_dir);
    harness_mkdir(world.options.runtime_dir);
    harness_mkdir(harness_format("%s/work", harness_disk()));
    harness_mkdir(harness_format("%s/outside", harness_disk()));
    make_decoy(etc());
    world.told = mmap(NULL, sizeof(*world.told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(world.told != MAP_FAILED);
    open_bystander();
}

/* ---- supervisors ---- */

static void in_child(int r, const struct rbxj_error *e)
{
    if (r >= 0)
        return;
    (void)snprintf(world.told->error, sizeof(world.told->error), "%s (%s)", e->message, e->detail);
    _exit(1);
}

static void take_plan(const struct box_plan *plan)
{
    static const char *const argv[] = {"sleep", "100000", NULL};
    struct rbxj *handle;
    struct rbxj_error e = {0};
    struct rbxj_box b = {.name = plan->name, .plan = plan->resources, .plan_len = plan->len};
    uint64_t incarnation;
    in_child(rbxj_open(&world.options, &handle, &e), &e);
    in_child(rbxj_begin(handle, &b, &incarnation, &e), &e);
    for (uint32_t seq = 1; seq <= plan->len; seq++) {
        int fd = -1; /* a lock's: kept open */
        in_child(rbxj_acquire(handle, plan->name, seq, plan->resources[seq - 1].options, &fd, &e), &e);
    }
    if (plan->process) {
        struct rbxj_spawn how = {.argv = argv};
        pid_t pid;
        in_child(rbxj_spawn(handle, plan->name, &how, &pid, NULL, NULL, &e), &e);
        world.told->process = pid;
    }
    world.told->incarnation = incarnation;
}

pid_t supervise(const struct box_plan *plan, bool lives)
{
    int status, done[2];
    char byte;
    world.told->error[0] = 0;
    must(pipe2(done, O_CLOEXEC) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        take_plan(plan);
        if (!lives)
            (void)raise(SIGKILL);
        (void)!write(done[1], "r", 1);
        for (;;)
            pause();
    }
    must(pid > 0);
    (void)close(done[1]);
    ssize_t n = read(done[0], &byte, 1);
    (void)close(done[0]);
    if (n == 1) {
        harness_track(pid);
        return pid;
    }
    must(waitpid(pid, &status, 0) == pid);
    if (lives || !WIFSIGNALED(status))
        fail_msg("the supervisor of %s: %#x: %s", plan->name, status, world.told->error);
    return 0;
}

static void add(struct rbxj_resource r)
{
    assert_true(world.a.len < PLAN_MAX);
    world.a.resources[world.a.len++] = r;
}

const char *plan(enum rbxj_kind kind, const char *path)
{
    if (kind == RBXJ_PROCESS)
        world.a.process = true;
    else
        add((struct rbxj_resource){.kind = kind, .path = path});
    return path;
}

const char *plan_mount(const char *fstype, const char *source, const char *target)
{
    if (!path_exists(target))
        harness_mkdir(target);
    add((struct rbxj_resource){.kind = RBXJ_MOUNT,
                               .path = target,
                               .fstype = fstype,
                               .source = source,
                               .options = strcmp(fstype, "tmpfs") == 0 ? "size=16m" : NULL});
    return target;
}

const char *plan_tree(const char **ret_cgroup)
{
    const char *path = in_work("T");
    *ret_cgroup = plan(RBXJ_CGROUP, harness_format("%s/a", group()));
    if (draw(3) == 0)
        path = harness_format("%s/T", plan_mount("tmpfs", "x", in_work("M")));
    return plan(RBXJ_TMPDIR, path);
}

void crash(void)
{
    (void)supervise(&world.a, false);
    world.incarnation = world.told->incarnation;
    things_note();
    world.before = bystander_picture();
    world.etc_before = picture(etc(), true);
}

pid_t planned_process(void)
{
    return world.told->process;
}

/* ---- attackers ---- */

void enter_cgroup(const char *cgroup)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
        _exit(3);
}

void sleeper(void)
{
    for (;;)
        pause();
}

pid_t attacker(void (*run)(void), const char *cgroup)
{
    char byte;
    int ready[2];
    assert_true(attackers_len < ATTACKERS_MAX);
    must(pipe2(ready, O_CLOEXEC) == 0);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        (void)dup2(ready[1], 3);
        (void)close_range(4, ~0U, 0);
        if (cgroup)
            enter_cgroup(cgroup);
        (void)!write(3, "r", 1);
        (void)close(3);
        run();
        _exit(0);
    }
    must(pid > 0);
    harness_track(pid);
    attackers[attackers_len++] = pid;
    (void)close(ready[1]);
    must(read(ready[0], &byte, 1) == 1);
    (void)close(ready[0]);
    return pid;
}

void attackers_kill(void)
{
    for (size_t i = 0; i < attackers_len; i++) {
        (void)kill(attackers[i], SIGKILL);
        (void)kill(attackers[i], SIGCONT);
    }
    while (attackers_len > 0)
        (void)harness_wait(attackers[--attackers_len]);
}

/* ---- calls that must work ---- */

void bind_on(const char *source, const char *target)
{
    if (!path_exists(target))
        harness_mkdir(target);
    must(mount(source, target, NULL, MS_BIND, NULL) == 0);
}

void tmpfs_on(const char *target)
{
    if (!path_exists(target))
        harness_mkdir(target);
    must(mount("hostile", target, "tmpfs", 0, "size=1m") == 0);
}

bool set_flags(const char *path, int flags)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return fd >= 0 && ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
}

void write_file(const char *path)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0)
        (void)!write(fd, "x", 1);
}
