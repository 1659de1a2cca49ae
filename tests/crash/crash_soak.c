/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Many supervisors at once: they begin, acquire and end boxes in a loop, a third of them is killed at random,
 * now and then one is stopped, also while it holds the gate, a reaper runs every 100 ms, and readers run all
 * the time. At the end every box ended or was undone, once; the system's own view shows nothing of them; the
 * journals are as small as before; who lived throughout has not grown; and who holds the gate too long is
 * named, and hangs no reaper (K25).
 *
 * 64 supervisors where there is time for them (two minutes, or --all), else 16.
 */
#include "soak.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"
#include "reaper/handle.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LONGEST 120 /* seconds that a program may run: nobody stops the others for more than two */

static struct soak *soak;

static double seconds(void)
{
    return (double)now_monotonic_ns() / 1e9;
}

/* ---- the world ---- */

static void world_open(void)
{
    harness_need_root();
    setenv("RBXJ_DURABILITY", "resource", 1);
    soak = mmap(NULL, sizeof(*soak), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                0);
    assert_true(soak != MAP_FAILED);
    soak->state = harness_format("%s/state", harness_disk());
    soak->run = harness_format("%s/run", harness_tmpfs());
    soak->work = harness_format("%s/work", harness_disk());
    soak->config = harness_format("%s/conf", harness_disk());
    soak->short_config = harness_format("%s/short", harness_disk());
    soak->group = harness_cgroup();
    soak->group_v1 = harness_cgroup_root("freezer") ? harness_cgroup_v1("freezer") : NULL;
    soak->options = (struct rbxj_options){
        .state_dir = soak->state, .runtime_dir = soak->run, .config = soak->config};
    soak->slots = crash_seconds() >= 120 ? SOAK_SLOTS : 16;
    harness_mkdir(soak->state);
    harness_mkdir(soak->work);
    /* nobody holds the gate for long: who waits so long has found a defect */
    harness_write(soak->config,
                  "[journal]\ngate_timeout=30s\n[health]\nmin_free=0%\nquarantine_after=1000000\n");
    harness_write(soak->short_config, "[journal]\ngate_timeout=2s\n");
    for (unsigned i = 0; i < soak->slots; i++)
        harness_mkdir(harness_format("%s/s%02u.mnt", soak->work, i));
}

/* ---- supervisors ---- */

static struct slot {
    pid_t pid;
    double dies, goes_on; /* 0: not */
} slots[SOAK_SLOTS];

static uint64_t random_state;

static uint64_t draw(uint64_t n)
{
    return crash_random(&random_state) % n;
}

static double soon(uint64_t ms)
{
    return seconds() + (double)draw(ms) / 1000;
}

/* Slot 0 lives throughout. Of the others a third is going to be killed. */
static void start_supervisor(unsigned i)
{
    uint64_t random = crash_random(&random_state);
    unsigned boxes = 1 + (unsigned)draw(30);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (i == 0)
            soak_long_lived(soak, i, random);
        else
            soak_supervisor(soak, i, boxes, random);
        _exit(atomic_load(&soak->failed));
    }
    assert_true(pid > 0);
    slots[i].pid = pid;
    slots[i].dies = i && draw(3) == 0 ? soon(500) : 0;
    crash_count("supervisors", 1);
}

static void kill_supervisor(unsigned i)
{
    (void)kill(slots[i].pid, SIGKILL);
    crash_count("killed", 1);
    slots[i].dies = 0;
}

/* One is stopped for a while, or told to stop itself where it hurts most. */
static void stop_one(void)
{
    unsigned i = 1 + (unsigned)draw(soak->slots - 1);
    if (!slots[i].pid || slots[i].goes_on > 0)
        return;
    int wish = (int)draw(3);
    if (wish == WISH_NONE)
        (void)kill(slots[i].pid, SIGSTOP);
    else
        atomic_store(&soak->slot[i].wish, wish);
    slots[i].goes_on = seconds() + 0.05 + (double)draw(1500) / 1000;
    crash_count(wish == WISH_NONE ? "stopped" : "stopped in a gate", 1);
}

static void tend_supervisors(bool stopping)
{
    for (unsigned i = 0; i < soak->slots; i++) {
        struct slot *slot = &slots[i];
        double now = seconds();
        if (stopping || (slot->goes_on > 0 && now >= slot->goes_on)) {
            /* it may come to its stop only now: it is sent on for a while */
            atomic_store(&soak->slot[i].wish, WISH_NONE);
            if (slot->pid)
                (void)kill(slot->pid, SIGCONT);
            slot->goes_on = now < slot->goes_on + 60 ? slot->goes_on : 0;
        }
        if (slot->pid && slot->dies > 0 && now >= slot->dies)
            kill_supervisor(i);
        if (!slot->pid && !stopping)
            start_supervisor(i);
    }
}

static bool supervisor_ended(pid_t pid, int status)
{
    for (unsigned i = 0; i < soak->slots; i++) {
        if (slots[i].pid != pid)
            continue;
        slots[i].pid = 0;
        slots[i].dies = 0;
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            if (status != 0 && !atomic_load(&soak->failed))
                (void)soak_fail(soak, "supervisor s%02u ended with %#x", i, (unsigned)status);
        return true;
    }
    return false;
}

static unsigned supervisors_alive(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < soak->slots; i++)
        n += slots[i].pid != 0;
    return n;
}

/* ---- the program beside them ---- */

#define DONE (1u << 0)
#define LEFT (1u << 1)

static struct soak_program programs[] = {
    {.name = "replay",
     .args = {"--json", "replay"},
     .alternate = "--boot",
     .pause_ms = 100,
     .legal = DONE | LEFT,
     .output = soak_account_report},
    {.name = "list", .args = {"list", "--json"}, .pause_ms = 20, .legal = DONE},
    /* what it sees may be in the middle of being undone */
    {.name = "dry run", .args = {"replay", "--dry-run", "--json"}, .pause_ms = 20, .legal = DONE | LEFT},
    {.name = "metrics", .args = {"metrics"}, .pause_ms = 20, .legal = DONE},
};

static void tend_programs(bool stopping)
{
    for (size_t i = 0; i < ARRAY_LEN(programs); i++)
        if (!programs[i].pid && !stopping && seconds() >= programs[i].ended + programs[i].pause_ms / 1000.0)
            soak_program_start(soak, &programs[i]);
}

static bool program_ended(pid_t pid, int status)
{
    for (size_t i = 0; i < ARRAY_LEN(programs); i++) {
        if (programs[i].pid != pid)
            continue;
        soak_program_ended(soak, &programs[i], status);
        programs[i].ended = seconds();
        return true;
    }
    return false;
}

static bool programs_run(void)
{
    for (size_t i = 0; i < ARRAY_LEN(programs); i++)
        if (programs[i].pid)
            return true;
    return false;
}

/* Whoever has ended; also what a killed supervisor left, which is ours now. */
static void reap(void)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (!program_ended(pid, status))
            (void)supervisor_ended(pid, status);
}

static void run_until(double end)
{
    double stops = soon(1000);
    while (seconds() < end && !atomic_load(&soak->failed)) {
        reap();
        tend_supervisors(false);
        tend_programs(false);
        if (seconds() >= stops) {
            stop_one();
            stops = seconds() + 0.3 + (double)draw(1000) / 1000;
        }
        (void)poll(NULL, 0, 3);
    }
}

/* Nobody is killed any more: whoever lives ends its box. */
static void wind_down(void)
{
    double limit = seconds() + 120;
    atomic_store(&soak->stop, true);
    while ((supervisors_alive() || programs_run()) && seconds() < limit) {
        reap();
        for (unsigned i = 0; i < soak->slots; i++)
            slots[i].dies = 0;
        tend_supervisors(true);
        (void)poll(NULL, 0, 3);
    }
    if (supervisors_alive() || programs_run())
        (void)soak_fail(soak, "%u supervisors and %d programs do not end", supervisors_alive(),
                        programs_run());
}

/* The last replay, to its end; a box that nobody is near any more is undone at once. */
static void replay_the_rest(void)
{
    struct soak_program *replay = &programs[0];
    for (int i = 0; i < 2; i++) {
        soak_program_start(soak, replay);
        pid_t pid = replay->pid;
        int status;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        soak_program_ended(soak, replay, status);
        soak_check_failure(soak);
    }
}

/* ---- a holder that does not go on (K25) ---- */

static pid_t stop_in_gate(bool disk)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct rbxj *handle;
        struct rbxj_error e;
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (rbxj_open(&soak->options, &handle, &e) < 0)
            _exit(1);
        struct gate_page *gates = handle->journal->gates;
        if (gate_lock(disk ? &gates->disk : &gates->boot, "soak", 1000000000, &e) == 0)
            (void)raise(SIGSTOP);
        _exit(1);
    }
    int status;
    assert_true(pid > 0 && waitpid(pid, &status, WUNTRACED) == pid);
    assert_true(WIFSTOPPED(status));
    return pid;
}

/* What it held when it died is left for the reaper. */
static void leave_a_dead_box(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct rbxj *handle;
        struct rbxj_error e = {0};
        const struct rbxj_resource plan = {.kind = RBXJ_CGROUP,
                                           .path = harness_format("%s/dead", soak->group)};
        const struct rbxj_box box = {.name = "s01", .plan = &plan, .plan_len = 1};
        if (rbxj_open(&soak->options, &handle, &e) < 0 || rbxj_begin(handle, &box, NULL, &e) < 0 ||
            rbxj_acquire(handle, box.name, 1, NULL, NULL, &e) < 0)
            (void)soak_fail(soak, "a dead box: %s", e.message);
        _exit(0);
    }
    assert_true(pid > 0 && waitpid(pid, NULL, 0) == pid);
    soak_check_failure(soak);
}

/* The reaper at boot waits for the timeout once, names who it waits for, and a later one does what it could
 * not. */
static void check_stopped_holder(bool disk)
{
    const char *config = soak->config;
    int status;
    leave_a_dead_box();
    pid_t holder = stop_in_gate(disk);
    /* what the boot journal says is undone without the disk, which learns of it later (K19) */
    struct soak_program boot = {.name = "replay at boot",
                                .args = {"--json", "replay", "--boot"},
                                .legal = disk ? DONE : LEFT,
                                .said = harness_format("pid %d", holder),
                                .output = disk ? soak_account_report : NULL};
    double began = seconds();
    soak->config = soak->short_config;
    soak_program_start(soak, &boot);
    soak->config = config;
    assert_true(waitpid(boot.pid, &status, 0) == boot.pid);
    double took = seconds() - began;
    (void)kill(holder, SIGKILL);
    assert_true(waitpid(holder, NULL, 0) == holder);
    soak_program_ended(soak, &boot, status);
    soak_check_failure(soak);
    if (took > 20)
        fail_msg("replay --boot took %.1f s where it may wait for 2 s", took);
    replay_the_rest();
    soak_check_system(soak);
}

static void run(const struct crash_case *c, uint64_t point)
{
    struct soak_pages floor[2];
    (void)c;
    random_state = point;
    world_open();
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    soak_look_at_pages(soak, floor);
    run_until(seconds() + crash_seconds());
    wind_down();
    crash_count("boxes", atomic_load(&soak->next));
    crash_count("opens", atomic_load(&soak->opens));
    crash_count("slowest open (ms)", atomic_load(&soak->slowest_open_ms));
    crash_count("left for a copy", atomic_load(&soak->copied));
    crash_count("begins refused as stale", atomic_load(&soak->stale));
    for (size_t i = 0; i < ARRAY_LEN(programs); i++)
        crash_count(programs[i].name, programs[i].runs);
    soak_check_failure(soak);
    replay_the_rest();
    crash_count("undone", soak_account_undone());
    soak_account_close(soak);
    soak_check_failure(soak);
    soak_check_system(soak);
    soak_check_pages(soak, floor);
    soak_check_growth(soak);
    check_stopped_holder(false);
    check_stopped_holder(true);
}

int main(int argc, char **argv)
{
    static const struct crash_case cases[] = {
        {.name = "soak", .run = run, .all = 1, .timeout = 300, .whole = true}};
    return crash_main(argc, argv, 40, cases, ARRAY_LEN(cases));
}
