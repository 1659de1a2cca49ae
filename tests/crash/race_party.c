/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "race.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WAIT_S 60 /* for a round that takes milliseconds */

struct race *race;
static uint64_t random_state;
static int64_t end_ns;
static struct party {
    race_action *action;
    int how;
    pid_t pid;
} parties[RACE_PARTIES];
static bool started;

uint64_t race_draw(uint64_t n)
{
    return crash_random(&random_state) % n;
}

void race_open(const char *name, uint64_t seed)
{
    harness_need_root();
    setenv("RBXJ_DURABILITY", "resource", 1);
    random_state = seed;
    race = mmap(NULL, sizeof(*race), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(race != MAP_FAILED);
    race->state = harness_format("%s/state", harness_tmpfs()); /* no flush takes time */
    race->name = name;
    race->run = harness_format("%s/run", harness_tmpfs());
    race->work = harness_format("%s/work", harness_disk());
    race->config = harness_format("%s/conf", harness_disk());
    race->group = harness_cgroup();
    race->lock = harness_format("%s/7.lock", race->work);
    race->tmpdir = harness_format("%s/7.tmp", race->work);
    race->cgroup = harness_format("%s/7", race->group);
    race->options = (struct rbxj_options){
        .state_dir = race->state, .runtime_dir = race->run, .config = race->config};
    harness_mkdir(race->state);
    harness_mkdir(race->work);
    /* a box that is held, or torn down by another one, is no reason to stop here */
    harness_write(race->config,
                  "[journal]\ngate_timeout=30s\n[health]\nmin_free=0%\nquarantine_after=1000000\n"
                  "[replay]\njobs=1\n");
    race->second = harness_format("%s/7b", race->group);
    race->persistent = true;
    started = false;
    end_ns = now_monotonic_ns() + (int64_t)(crash_seconds() * 1e9);
}

void race_party(race_action *action, int how)
{
    assert_true(race->parties < RACE_PARTIES);
    parties[race->parties++] = (struct party){.action = action, .how = how};
}

/* ---- waiting for a word to change ---- */

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    struct timespec second = {.tv_sec = 1};
    (void)syscall(SYS_futex, word, FUTEX_WAIT, value, &second, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* ---- a party ---- */

static void take_part(uint32_t number, struct rbxj *handle)
{
    for (uint32_t seen = 0;;) {
        while (atomic_load(&race->round) == seen)
            futex_wait(&race->round, seen);
        seen = atomic_load(&race->round);
        uint32_t delay = race->delay_us[number];
        int64_t until = now_monotonic_ns() + delay * 1000;
        if (delay > 200)
            (void)usleep(delay - 100);
        while (now_monotonic_ns() < until)
            ;
        struct race_said *said = &race->said[number];
        *said = (struct race_said){.pid = (int)syscall(SYS_getpid)};
        parties[number].action(handle, said);
        atomic_fetch_add(&race->done, 1);
        futex_wake(&race->done);
    }
}

static struct rbxj *open_handle(void)
{
    struct rbxj *handle = NULL;
    struct rbxj_error e = {0};
    if (rbxj_open(&race->options, &handle, &e) < 0) {
        (void)dprintf(2, "open: %s\n", e.message);
        _exit(1);
    }
    return handle;
}

struct thread {
    uint32_t number;
    struct rbxj *handle;
};

static void *thread_main(void *data)
{
    struct thread *t = data;
    take_part(t->number, t->handle);
    return NULL;
}

static _Noreturn void run_threads(void)
{
    static struct thread threads[RACE_PARTIES];
    pthread_t thread;
    struct rbxj *handle = open_handle();
    for (uint32_t i = 0; i < race->parties; i++) {
        threads[i] = (struct thread){i, handle};
        if (parties[i].how & RACE_THREAD && pthread_create(&thread, NULL, thread_main, &threads[i]) != 0)
            _exit(1);
    }
    for (;;)
        pause();
}

/* The first process of a pid namespace, with its own /proc. */
static void enter_namespace(void)
{
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) < 0)
        _exit(1);
    pid_t inner = fork();
    if (inner > 0) {
        int status = 0;
        (void)waitpid(inner, &status, 0);
        _exit(status != 0);
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (inner < 0 || mount("proc", "/proc", "proc", 0, NULL) < 0)
        _exit(1);
}

static pid_t start(uint32_t number, bool threads)
{
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (threads)
            run_threads();
        if (parties[number].how & RACE_NAMESPACE)
            enter_namespace();
        take_part(number, parties[number].how & RACE_HANDLE ? open_handle() : NULL);
    }
    assert_true(pid > 0);
    harness_track(pid);
    return pid;
}

static void start_all(void)
{
    bool threads = false;
    for (uint32_t i = 0; i < race->parties; i++) {
        bool thread = parties[i].how & RACE_THREAD;
        if (!thread || !threads)
            parties[i].pid = start(i, thread);
        threads = threads || thread;
    }
}

/* ---- the rounds ---- */

bool race_goes_on(void)
{
    if (!started)
        start_all();
    started = true;
    return now_monotonic_ns() < end_ns;
}

void race_round(uint32_t delay_us)
{
    int64_t limit = now_monotonic_ns() + WAIT_S * 1000000000LL;
    uint32_t done;
    for (uint32_t i = 0; i < race->parties; i++)
        race->delay_us[i] = delay_us ? (uint32_t)race_draw(delay_us) : 0;
    atomic_store(&race->done, 0);
    atomic_fetch_add(&race->round, 1);
    futex_wake(&race->round);
    while ((done = atomic_load(&race->done)) < race->parties) {
        futex_wait(&race->done, done);
        for (uint32_t i = 0; i < race->parties; i++)
            if (parties[i].pid && waitpid(parties[i].pid, NULL, WNOHANG) == parties[i].pid)
                fail_msg("party %u died", i);
        if (now_monotonic_ns() > limit)
            fail_msg("a round does not end: %u of %u are done", done, race->parties);
    }
}

void race_close(void)
{
    for (uint32_t i = 0; i < race->parties; i++)
        if (parties[i].pid)
            harness_kill(parties[i].pid);
    memset(parties, 0, sizeof(parties));
    (void)munmap(race, sizeof(*race));
}
