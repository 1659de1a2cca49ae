/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "damage.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/procid.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_SEEN 128

uint64_t damage_draw(struct damage_world *w, uint64_t below)
{
    return crash_random(&w->random) % below;
}

static const char *path_of(const struct damage_world *w, const char *box, int i)
{
    return harness_format("%s/%s.%d", w->work, box, i);
}

/* ---- what stands there ---- */

/* The point's process looks, so it is its own. */
static struct seen {
    char path[PATH_MAX];
    struct stat st;
    enum owner { OTHERS, DEAD, LIVE } owner;
} seen[MAX_SEEN];
static size_t seen_len;

static void see(const char *path, enum owner owner)
{
    struct seen *s = &seen[seen_len++];
    assert_true(seen_len <= MAX_SEEN);
    (void)snprintf(s->path, sizeof(s->path), "%s", path);
    assert_int_equal(0, lstat(path, &s->st));
    s->owner = owner;
}

static void see_dir(const char *path, enum owner owner)
{
    see(path, owner);
    see(harness_format("%s/file", path), owner);
}

/* A directory with something in it, which no box has. */
static void make_others(const char *path)
{
    harness_mkdir(path);
    harness_write(harness_format("%s/file", path), "not ours");
    see_dir(path, OTHERS);
}

void damage_look(const struct damage_world *w, bool undone)
{
    struct stat st;
    (void)w;
    for (size_t i = 0; i < seen_len; i++) {
        const struct seen *s = &seen[i];
        bool there = lstat(s->path, &st) == 0, may_go = s->owner == DEAD || (undone && s->owner == LIVE);
        if (!there && !may_go)
            fail_msg("%s is gone", s->path);
        if (there && !may_go &&
            (st.st_ino != s->st.st_ino || st.st_mode != s->st.st_mode || st.st_size != s->st.st_size ||
             st.st_mtim.tv_sec != s->st.st_mtim.tv_sec || st.st_mtim.tv_nsec != s->st.st_mtim.tv_nsec))
            fail_msg("%s was changed", s->path);
    }
}

/* ---- supervisors ---- */

static struct rbxj_options options_of(const struct damage_world *w)
{
    return (struct rbxj_options){.state_dir = w->state, .runtime_dir = w->run, .config = w->config};
}

static bool is_given_back(int i)
{
    return i % 5 == 4;
}

/* A few directories, of which some come and go, and a lock. */
static int take_all(const struct damage_world *w, struct rbxj *handle, const char *box, int n)
{
    struct rbxj_box begin = {.name = box};
    struct rbxj_resource lock = {.kind = RBXJ_LOCK, .path = harness_format("%s/%s.lock", w->work, box)};
    int fd, r = rbxj_begin(handle, &begin, NULL, NULL);
    if (r == 0)
        r = rbxj_take(handle, box, &lock, NULL, &fd, NULL);
    for (int i = 0; i < n && r == 0; i++) {
        struct rbxj_resource dir = {.kind = RBXJ_TMPDIR, .path = path_of(w, box, i)};
        uint32_t seq;
        r = rbxj_take(handle, box, &dir, &seq, NULL, NULL);
        if (r == 0 && is_given_back(i))
            r = rmdir(dir.path) < 0 ? -errno : rbxj_released(handle, box, seq, NULL);
    }
    return r;
}

static void serve(const struct damage_world *w, struct rbxj *handle, const char *box, int in, int out)
{
    struct rbxj_resource more = {.kind = RBXJ_TMPDIR, .path = path_of(w, box, 1000)};
    char what = 0;
    uint32_t seq;
    while (write(out, &what, 1) == 1 && read(in, &what, 1) == 1) {
        if (what == 'w')
            (void)rbxj_intend(handle, box, &more, &seq, NULL); /* whatever it says */
        else if (what == 'u' && rbxj_undo(handle, box, NULL, NULL) == 0)
            (void)rbxj_end(handle, box, NULL);
    }
}

/* A crash must be one: cmocka would catch it. */
static void die_of_signals(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGSYS};
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        (void)signal(signals[i], SIG_DFL);
}

static _Noreturn void supervise(const struct damage_world *w, const char *box, int n, int in, int out)
{
    struct rbxj_options options = options_of(w);
    struct rbxj *handle = NULL;
    die_of_signals();
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (rbxj_open(&options, &handle, NULL) < 0 || take_all(w, handle, "ended", 2) < 0 ||
        rbxj_undo(handle, "ended", NULL, NULL) < 0 || rbxj_end(handle, "ended", NULL) < 0 ||
        take_all(w, handle, box, n) < 0)
        _exit(1);
    serve(w, handle, box, in, out);
    _exit(0);
}

static bool is_answered(const struct supervisor *s)
{
    char byte;
    return read(s->out, &byte, 1) == 1;
}

static struct supervisor start(const struct damage_world *w, const char *box, int n)
{
    int to[2], from[2];
    assert_int_equal(0, pipe2(to, O_CLOEXEC));
    assert_int_equal(0, pipe2(from, O_CLOEXEC));
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(to[1]);
        (void)close(from[0]);
        supervise(w, box, n, to[0], from[1]);
    }
    harness_track(pid);
    (void)close(to[0]);
    (void)close(from[1]);
    struct supervisor s = {pid, to[1], from[0]};
    assert_true(is_answered(&s));
    return s;
}

static bool ask(struct damage_world *w, char what)
{
    if (write(w->live.in, &what, 1) == 1 && is_answered(&w->live))
        return true;
    int status = harness_wait(w->live.pid);
    assert_true(WIFSIGNALED(status));
    w->live.pid = 0;
    return false;
}

bool damage_write(struct damage_world *w)
{
    return ask(w, 'w');
}

bool damage_undo(struct damage_world *w)
{
    return ask(w, 'u');
}

static void see_box(const struct damage_world *w, const char *box, int n, enum owner owner)
{
    see(harness_format("%s/%s.lock", w->work, box), owner);
    for (int i = 0; i < n; i++) {
        const char *path = path_of(w, box, i);
        if (is_given_back(i)) {
            make_others(path);
            continue;
        }
        harness_write(harness_format("%s/file", path), "ours");
        see_dir(path, owner);
    }
}

void damage_make(struct damage_world *w, bool live, bool always)
{
    const char *top = harness_tmpfs();
    int n = 6 + (int)damage_draw(w, 12);
    (void)signal(SIGPIPE, SIG_IGN);
    w->state = harness_format("%s/state", top);
    w->run = harness_format("%s/run", top);
    w->work = harness_format("%s/work", top);
    w->config = harness_format("%s/rbxj.conf", top);
    harness_mkdir(w->state);
    harness_mkdir(w->run);
    harness_mkdir(w->work);
    /* everything goes to both journals, or to the boot journal alone; small ones, so that most of a file is
     * in use */
    harness_write(w->config, harness_format("[journal]\ndurability=%s\npreallocate=1M\nmap_size=16M\n",
                                            always ? "always" : "resource"));
    make_others(harness_format("%s/beside", w->work));
    make_others(path_of(w, "dead", 100));
    w->live.pid = 0;
    if (live) {
        w->live = start(w, "live", 3);
        see_box(w, "live", 3, LIVE);
    }
    harness_kill(start(w, "dead", n).pid);
    see_box(w, "dead", n, DEAD);
    for (int i = 0; i < 2; i++)
        make_others(path_of(w, "ended", i));
}

const char *damage_data(const struct damage_world *w, bool boot)
{
    char hex[33];
    uint8_t id[16];
    assert_int_equal(0, procid_boot(id));
    hex_encode(hex, id, 16);
    return boot ? harness_format("%s/journal-%s/data.mdb", w->run, hex)
                : harness_format("%s/journal/data.mdb", w->state);
}

/* ---- commands ---- */

/* The program's own code, without an exec of it each time. */
static _Noreturn void run_command(const struct damage_world *w, const char *const argv[])
{
    const char *full[24] = {"rbxj", "--state-dir", w->state, "--runtime-dir", w->run, "--config", w->config};
    int argc = 7, null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        (void)dup2(null, fd);
    die_of_signals();
    while (*argv)
        full[argc++] = *argv++;
    _exit(cli_main(argc, (char **)(uintptr_t)full));
}

int damage_try(const struct damage_world *w, const char *const argv[])
{
    pid_t pid = fork();
    if (pid == 0)
        run_command(w, argv);
    harness_track(pid);
    int status = harness_wait(pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int damage_call(const struct damage_world *w, const char *const argv[])
{
    int status = damage_try(w, argv);
    if (status < 0)
        fail_msg("rbxj %s: killed by SIG%s", argv[0], sigabbrev_np(-status));
    return status;
}
