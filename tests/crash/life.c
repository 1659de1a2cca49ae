/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "life.h"

#include "../picture.h"

#include <errno.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

struct life life;
struct life_told *life_told;

static char *picture;             /* of life_open() */
static pid_t bystander, byes_own; /* the bystander's supervisor and payload */

/* ---- a box ---- */

enum part { LOCK, GROUP, GROUP_V1, MOUNT, INNER, TMPDIR, PARTS, EXTRA = PARTS, OWN };

static const char *path_of(const char *box, enum part part)
{
    static const char *const ends[] = {".lock", "", "", ".mnt", ".mnt/in", ".tmp", ".extra", ".own"};
    const char *dir = part == GROUP ? life.group : part == GROUP_V1 ? life.group_v1 : life.work;
    static char buf[8][PATH_MAX];
    static unsigned next;
    char *path = buf[next++ % ARRAY_LEN(buf)];

    (void)snprintf(path, PATH_MAX, "%s/%s%s", dir, box, ends[part]);
    return path;
}

static struct rbxj_resource resource_of(const char *box, enum part part)
{
    static const enum rbxj_kind kinds[] = {RBXJ_LOCK,   RBXJ_CGROUP, RBXJ_CGROUP, RBXJ_MOUNT,
                                           RBXJ_TMPDIR, RBXJ_TMPDIR, RBXJ_TMPDIR, RBXJ_TMPDIR};
    struct rbxj_resource r = {.kind = kinds[part], .path = path_of(box, part)};

    if (part == MOUNT) {
        r.fstype = "tmpfs";
        r.source = "rbxj-test";
    }
    return r;
}

/* Parts that are possible here, in their order; seq is the index and one. */
static size_t parts_of(enum part parts[PARTS])
{
    size_t n = 0;

    for (enum part p = 0; p < PARTS; p++)
        if (p != GROUP_V1 || life.group_v1)
            parts[n++] = p;
    return n;
}

/* ---- in the supervisor: no assertions ---- */

struct supervisor {
    const char *box;
    struct rbxj *handle;
    struct rbxj_error error;
    uint32_t seqs[PARTS];
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
    struct rbxj_resource plan[PARTS];
    struct rbxj_box box = {.name = s->box, .plan = plan};
    enum part parts[PARTS];
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
    enum part parts[PARTS];
    size_t n = parts_of(parts);
    static const char *const names[] = {"acquire the lock",  "acquire the cgroup",    "acquire the v1 cgroup",
                                        "acquire the mount", "acquire the inner dir", "acquire the tmpdir"};

    for (size_t i = 0; i < n; i++) {
        int fd = -1; /* the lock's: held until the end of the process */
        doing(names[parts[i]]);
        int r = noted(s, rbxj_acquire(s->handle, s->box, (uint32_t)i + 1,
                                      parts[i] == MOUNT ? "size=1m" : NULL, &fd, &s->error));
        if (r < 0)
            return r;
    }
    return 0;
}

/* One directory by rbxj_take(), and one that the supervisor makes and removes itself. */
static int take_and_release(struct supervisor *s)
{
    struct rbxj_resource extra = resource_of(s->box, EXTRA), made = resource_of(s->box, OWN);
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
        "/bin/sh", "-c", script, "sh", path_of(s->box, INNER), path_of(s->box, TMPDIR), NULL};
    enum part parts[PARTS];
    uint32_t groups[2];
    int ready[2];
    char byte = 0;
    struct rbxj_spawn how = {.argv = argv, .cgroups = groups, .fds = &ready[1], .fds_len = 1};
    size_t n = parts_of(parts);

    for (size_t i = 0; i < n; i++)
        if (parts[i] == GROUP || parts[i] == GROUP_V1)
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
        .lock = harness_format("%s", path_of("a", LOCK)),
        .group = harness_format("%s", path_of("a", GROUP)),
        .mount = harness_format("%s", path_of("a", MOUNT)),
        .inner = harness_format("%s", path_of("a", INNER)),
        .tmpdir = harness_format("%s", path_of("a", TMPDIR)),
    };
}

/* The program that was built with this one, or $RBXJ. */
static const char *program(void)
{
    char own[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);
    assert_true(n > 0);
    own[n] = '\0';
    char *tests = strstr(own, "/tests/");
    if (tests)
        *tests = '\0';
    const char *rbxj = getenv("RBXJ") ? getenv("RBXJ") : harness_format("%s/rbxj", own);
    if (access(rbxj, X_OK) < 0)
        harness_skip("no program %s", rbxj);
    return rbxj;
}

const char *const *life_hook(void)
{
    static const char *argv[16];
    const char *const words[] = {program(),       "hook",   "--state-dir", life.state,
                                 "--runtime-dir", life.run, "--config",    life.options.config};
    memcpy(argv, words, sizeof(words));
    argv[ARRAY_LEN(words)] = NULL;
    return argv;
}

const char *const *life_command(void)
{
    static const char script_here[] =
        "exec 3>/dev/null; (exec sleep 3600) & "
        "for d; do mkdir -p \"$d/deep/er\" && echo x >\"$d/deep/er/file\"; done";
    static const char *argv[32];
    struct life_paths p = life_paths();
    const char *const words[] = {program(),
                                 "run",
                                 "--quiet",
                                 "--state-dir",
                                 life.state,
                                 "--runtime-dir",
                                 life.run,
                                 "--config",
                                 life.options.config,
                                 "--box",
                                 "a",
                                 "--lock",
                                 p.lock,
                                 "--cgroup",
                                 p.group,
                                 "--mount",
                                 harness_format("tmpfs,rbxj-test,%s,size=1m", p.mount),
                                 "--tmpdir",
                                 p.inner,
                                 "--tmpdir",
                                 p.tmpdir,
                                 "--",
                                 "/bin/sh",
                                 "-c",
                                 script_here,
                                 "sh",
                                 p.inner,
                                 p.tmpdir};
    memcpy(argv, words, sizeof(words));
    argv[ARRAY_LEN(words)] = NULL;
    return argv;
}

/* ---- the world ---- */

static char *picture_now(void)
{
    const char *const groups[] = {life.group, life.group_v1};

    return picture_take(life.work, groups, ARRAY_LEN(groups));
}

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
        if (life_live(box, until) == 0 && write(ready[1], "r", 1) != 1)
            _exit(2);
        while (lives)
            pause();
        (void)raise(SIGKILL);
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
    harness_mkdir(path_of("a", MOUNT)); /* targets are there before (K5) */
    harness_mkdir(path_of("b", MOUNT));
    harness_mkdir(path_of("c", MOUNT));
    harness_mkdir(harness_format("%s/stranger", life.work));
    harness_write(harness_format("%s/stranger/precious", life.work), "data");
    bystander = 0;
    if (flags & LIFE_BYSTANDER) {
        bystander = supervisor_fork("b", LIFE_HELD, true);
        byes_own = life_told->payload;
    }
    tell_nothing();
    free(picture);
    picture = picture_now();
}

void life_killed(const char *box, enum life_until until)
{
    (void)supervisor_fork(box, until, false);
}

/* ---- the judgement ---- */

/* K1: an empty lock file that nothing proves ours is left. */
static void remove_empty_locks(void)
{
    for (const char *box = "a\0c\0"; *box; box += 2) {
        struct stat st;
        if (lstat(path_of(box, LOCK), &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0)
            assert_int_equal(unlink(path_of(box, LOCK)), 0);
    }
}

const char *life_differs(void)
{
    remove_empty_locks();
    _cleanup_free_ char *now = picture_now();
    if (strcmp(now, picture) == 0)
        return NULL;
    return harness_format("the machine is not as before:\n--- before\n%s--- now\n%s", picture, now);
}

static void print_entries(const struct rbxj_result *result)
{
    struct rbxj_result_entry x;

    for (size_t i = 0; result && i < rbxj_result_boxes(result); i++)
        for (size_t k = 0; rbxj_result_entry(result, i, k, &x) == 0; k++)
            print_error("  seq %u %s %s: %s, %s: %s (%s)\n", x.seq, x.kind, x.name, x.found,
                        x.outcome ? x.outcome : "", x.error ? x.error->message : "",
                        x.error ? x.error->detail : "");
}

/* Returns how many boxes it handled. */
static size_t replay(const char *what)
{
    struct rbxj_result *result = NULL;
    struct rbxj_result_info info;
    struct rbxj_error e = {0};

    int r = rbxj_replay(&life.options, &(struct rbxj_replay){0}, &result, &e);
    if (r != 0) {
        print_entries(result);
        fail_msg("%s: the replay returned %d: %s (%s)", what, r, e.message, e.detail);
    }
    rbxj_result_info(result, &info);
    rbxj_result_free(result);
    assert_int_equal(info.left, 0);
    return info.boxes;
}

void life_replay(void)
{
    (void)replay("a clean replay");
}

static void bystander_is_whole(const char *what)
{
    struct rbxj_result *result = NULL;
    struct rbxj_result_box box;
    struct rbxj_error e = {0};
    bool lives = false;

    if (rbxj_list(&life.options, NULL, &result, &e) < 0)
        fail_msg("%s: list: %s", what, e.message);
    for (size_t i = 0; rbxj_result_box(result, i, &box) == 0; i++) {
        if (!bystander || strcmp(box.box, "b") != 0)
            fail_msg("%s: box %s is still in the journal", what, box.box);
        lives = strcmp(box.state, "live") == 0;
        for (size_t k = 0; lives && k < box.entries; k++) {
            struct rbxj_result_entry entry;
            assert_int_equal(rbxj_result_entry(result, i, k, &entry), 0);
            if (strcmp(entry.found, "present") != 0)
                fail_msg("%s: the bystander's %s is %s", what, entry.kind, entry.found);
        }
    }
    rbxj_result_free(result);
    if (!bystander)
        return;
    _cleanup_close_ int lock = open(path_of("b", LOCK), O_RDONLY | O_CLOEXEC);
    assert_true(lock >= 0);
    if (!lives || is_dead(bystander) || is_dead(byes_own) || flock(lock, LOCK_EX | LOCK_NB) == 0)
        fail_msg("%s: the bystander is not whole", what);
}

static void payload_is_dead(const char *what)
{
    for (int i = 0; i < 6000 && life_told->payload && !is_dead(life_told->payload); i++)
        (void)usleep(5000);
    if (life_told->payload && !is_dead(life_told->payload))
        fail_msg("%s: the payload lives", what);
}

void life_judge(const char *what)
{
    payload_is_dead(what);
    for (int again = 0; again < 2; again++) {
        const char *differs = life_differs();
        if (differs)
            fail_msg("%s%s: %s", what, again ? ", replayed again" : "", differs);
        bystander_is_whole(what);
        if (!again && replay(what) != 0)
            fail_msg("%s: the second replay had something to do", what);
    }
}

void life_goes_on(void)
{
    struct rbxj_error e = {0};
    struct rbxj_health health;

    if (rbxj_health(&life.options, &health, &e) < 0)
        fail_msg("health: %s", e.message);
    if (!health.can_accept_submissions || strcmp(health.status, "healthy") != 0)
        fail_msg("the worker is %s afterwards: %s %s %s", health.status,
                 health.quarantine_reason ? health.quarantine_reason : "", health.quarantine_detail,
                 health.last_cleanup_error);
    life_killed("a", LIFE_WHOLE);
    life_judge("a life afterwards");
}
