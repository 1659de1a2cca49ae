/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "life.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct life life;
struct life_told *life_told;

/* ---- a box ---- */

const char *life_path(const char *box, enum life_part part)
{
    static const char *const ends[] = {".lock", "", "", ".mnt", ".mnt/in", ".tmp", ".extra", ".own"};
    const char *dir = part == PART_GROUP ? life.group : part == PART_GROUP_V1 ? life.group_v1 : life.work;
    static char buf[8][PATH_MAX];
    static unsigned next;
    char *path = buf[next++ % ARRAY_LEN(buf)];

    (void)snprintf(path, PATH_MAX, "%s/%s%s", dir, box, ends[part]);
    return path;
}

static struct rbxj_resource resource_of(const char *box, enum life_part part)
{
    static const enum rbxj_kind kinds[] = {RBXJ_LOCK,   RBXJ_CGROUP, RBXJ_CGROUP, RBXJ_MOUNT,
                                           RBXJ_TMPDIR, RBXJ_TMPDIR, RBXJ_TMPDIR, RBXJ_TMPDIR};
    struct rbxj_resource r = {.kind = kinds[part], .path = life_path(box, part)};

    if (part == PART_MOUNT) {
        r.fstype = "tmpfs";
        r.source = "rbxj-test";
    }
    return r;
}

/* Parts that are possible here, in their order; seq is the index and one. */
static size_t parts_of(enum life_part parts[LIFE_PARTS])
{
    size_t n = 0;

    for (enum life_part p = 0; p < LIFE_PARTS; p++)
        if (p != PART_GROUP_V1 || life.group_v1)
            parts[n++] = p;
    return n;
}

/* ---- in the supervisor: no assertions ---- */

struct supervisor {
    const char *box;
    struct rbxj *handle;
    struct rbxj_error error;
    uint32_t seqs[LIFE_PARTS];
    pid_t payload;
};

static void own(bool begins)
{
    if (life.own)
        life.own(begins);
}

static void doing(const char *what)
{
    if (life_told->result == 0)
        (void)strcpy(life_told->step, what);
}

/* Keeps the first failure. */
static int noted(struct supervisor *s, int r)
{
    if (r < 0 && life_told->result == 0) {
        life_told->error = s->error;
        life_told->result = r;
    }
    s->error = (struct rbxj_error){0};
    return r;
}

static int own_failure(void)
{
    life_told->own_failed = true;
    return -ECANCELED;
}

static int begin(struct supervisor *s, bool empty)
{
    struct rbxj_resource plan[LIFE_PARTS];
    struct rbxj_box box = {.name = s->box, .plan = plan};
    enum life_part parts[LIFE_PARTS];
    size_t n = empty ? 0 : parts_of(parts);

    doing("open");
    int r = noted(s, rbxj_open(&life.options, &s->handle, &s->error));
    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        plan[box.plan_len++] = resource_of(s->box, parts[i]);
    doing("begin");
    return noted(s, rbxj_begin(s->handle, &box, NULL, &s->error));
}

static int acquire(struct supervisor *s)
{
    enum life_part parts[LIFE_PARTS];
    size_t n = parts_of(parts);
    static const char *const names[] = {"acquire the lock",  "acquire the cgroup",    "acquire the v1 cgroup",
                                        "acquire the mount", "acquire the inner dir", "acquire the tmpdir"};

    for (size_t i = 0; i < n; i++) {
        int fd = -1; /* the lock's: held until the end of the process */
        doing(names[parts[i]]);
        int r = noted(s, rbxj_acquire(s->handle, s->box, (uint32_t)i + 1,
                                      parts[i] == PART_MOUNT ? "size=1m" : NULL, &fd, &s->error));
        if (r < 0)
            return r;
    }
    return 0;
}

/* One directory by rbxj_take(), and one that the supervisor makes and removes itself. */
static int take_and_release(struct supervisor *s)
{
    struct rbxj_resource extra = resource_of(s->box, PART_EXTRA), made = resource_of(s->box, PART_OWN);
    uint32_t seq = 0;

    doing("take");
    int r = noted(s, rbxj_take(s->handle, s->box, &extra, NULL, NULL, &s->error));
    if (r < 0)
        return r;
    doing("intend");
    r = noted(s, rbxj_intend(s->handle, s->box, &made, &seq, &s->error));
    if (r < 0)
        return r;
    own(true);
    r = mkdir(made.path, 0700);
    own(false);
    if (r < 0)
        return own_failure();
    doing("acquired");
    r = noted(s, rbxj_acquired(s->handle, s->box, seq, &s->error));
    if (r < 0)
        return r;
    own(true);
    r = rmdir(made.path);
    own(false);
    if (r < 0)
        return own_failure();
    doing("released");
    return noted(s, rbxj_released(s->handle, s->box, seq, &s->error));
}

/* The payload fills its directories, says so, and stays. */
static const char script[] =
    "for d in \"$@\"; do mkdir -p \"$d/deep/er\" && echo content >\"$d/deep/er/file\" && "
    "ln -s /etc \"$d/link\" && : >\"$d/$(printf 'a\\nb')\" || exit 1; done; "
    "echo ready >&3; exec 3>&-; exec sleep 3600";

static int spawn(struct supervisor *s)
{
    const char *const argv[] = {
        "/bin/sh", "-c", script, "sh", life_path(s->box, PART_INNER), life_path(s->box, PART_TMPDIR), NULL};
    enum life_part parts[LIFE_PARTS];
    uint32_t groups[2];
    int ready[2];
    char byte = 0;
    struct rbxj_spawn how = {.argv = argv, .cgroups = groups, .fds = &ready[1], .fds_len = 1};
    size_t n = parts_of(parts);

    for (size_t i = 0; i < n; i++)
        if (parts[i] == PART_GROUP || parts[i] == PART_GROUP_V1)
            groups[how.cgroups_len++] = (uint32_t)i + 1;
    own(true);
    int r = pipe2(ready, O_CLOEXEC);
    if (r == 0 && ready[1] != 3 && (r = dup3(ready[1], 3, O_CLOEXEC)) == 3) {
        (void)close(ready[1]);
        ready[1] = 3;
    }
    own(false);
    if (r < 0)
        return own_failure();
    doing("spawn");
    r = noted(s, rbxj_spawn(s->handle, s->box, &how, &s->payload, NULL, NULL, &s->error));
    own(true);
    (void)close(ready[1]);
    if (r == 0)
        life_told->payload = s->payload;
    if (r == 0 && read(ready[0], &byte, 1) != 1)
        r = own_failure();
    (void)close(ready[0]);
    own(false);
    return r;
}

static int tear_down(struct supervisor *s)
{
    doing("undo");
    int r = noted(s, rbxj_undo(s->handle, s->box, NULL, &s->error));
    doing("end");
    if (r == 0)
        r = noted(s, rbxj_end(s->handle, s->box, &s->error));
    return r;
}

int life_live(const char *box, enum life_until until)
{
    struct supervisor s = {.box = box};

    own(true);
    life_told->supervisor = getpid();
    own(false);
    int r = begin(&s, until == LIFE_SHORT);
    if (r == 0 && until != LIFE_SHORT)
        r = acquire(&s);
    if (r == 0 && until != LIFE_SHORT)
        r = spawn(&s);
    if (r == 0 && until != LIFE_SHORT)
        r = take_and_release(&s);
    if (r == 0 && until == LIFE_HELD)
        return 0;
    if (s.handle && (tear_down(&s) < 0 || r < 0)) /* as a good supervisor does after a failure */
        life_told->again = tear_down(&s);
    rbxj_close(s.handle);
    own(true);
    if (s.payload > 0)
        (void)waitpid(s.payload, NULL, WNOHANG);
    own(false);
    return life_told->result;
}

struct life_paths life_paths(void)
{
    return (struct life_paths){
        .lock = harness_format("%s", life_path("a", PART_LOCK)),
        .group = harness_format("%s", life_path("a", PART_GROUP)),
        .mount = harness_format("%s", life_path("a", PART_MOUNT)),
        .inner = harness_format("%s", life_path("a", PART_INNER)),
        .tmpdir = harness_format("%s", life_path("a", PART_TMPDIR)),
    };
}

/* ---- the world ---- */

static void tell_nothing(void)
{
    if (!life_told)
        life_told = mmap(NULL, sizeof(*life_told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(life_told != MAP_FAILED);
    memset(life_told, 0, sizeof(*life_told));
}

/* Forks a supervisor that takes everything, and says so before it goes on to live or to die. */
static pid_t supervisor_fork(const char *box, enum life_until until, bool lives)
{
    int ready[2], status;
    char byte = 0;

    tell_nothing();
    (void)fflush(NULL);
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close(ready[0]);
        life.own = NULL;
        if (life_live(box, until) < 0 || write(ready[1], "r", 1) != 1)
            _exit(2);
        if (!lives)
            (void)raise(SIGKILL);
        for (;;)
            pause();
    }
    (void)close(ready[1]);
    ssize_t n = read(ready[0], &byte, 1);
    (void)close(ready[0]);
    if (n != 1 || life_told->result)
        fail_msg("the supervisor of %s failed: %s: %s", box, life_told->step, life_told->error.message);
    if (lives)
        harness_track(pid);
    else
        assert_int_equal(waitpid(pid, &status, 0), pid);
    return pid;
}

void life_open(unsigned flags)
{
    harness_need_root();
    setenv("RBXJ_DURABILITY", "resource", 1);
    const char *files = flags & LIFE_PERSISTENT ? harness_disk() : harness_tmpfs();
    const char *conf = harness_format("%s/conf", harness_disk());
    life = (struct life){
        .state = harness_format("%s/state", harness_disk()),
        .run = harness_format("%s/run", harness_tmpfs()),
        .work = harness_format("%s/work", files),
        .group = harness_cgroup(),
        .flags = flags,
    };
    life.group_v1 = harness_cgroup_root("freezer") ? harness_cgroup_v1("freezer") : NULL;
    life.options = (struct rbxj_options){.state_dir = life.state, .runtime_dir = life.run, .config = conf};
    harness_write(conf, flags & LIFE_TWO_JOBS ? "[replay]\njobs=2\n" : "[replay]\njobs=1\n");
    harness_mkdir(life.state);
    harness_mkdir(life.run);
    harness_mkdir(life.work);
    harness_mkdir(life_path("a", PART_MOUNT)); /* targets are there before (K5) */
    harness_mkdir(life_path("b", PART_MOUNT));
    harness_mkdir(life_path("c", PART_MOUNT));
    harness_mkdir(harness_format("%s/stranger", life.work));
    harness_write(harness_format("%s/stranger/precious", life.work), "data");
    if (flags & LIFE_BYSTANDER) {
        life.bystander = supervisor_fork("b", LIFE_HELD, true);
        life.bystander_payload = life_told->payload;
    }
    tell_nothing();
    life_judge_by(life_picture());
}

void life_killed(const char *box, enum life_until until)
{
    (void)supervisor_fork(box, until, false);
}

void life_stale(unsigned flags)
{
    life_open(flags);
    life_killed("a", LIFE_HELD);
    if (flags & LIFE_TWO_JOBS)
        life_killed("c", LIFE_HELD);
}
