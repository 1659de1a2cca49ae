/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The same box id, at once: in each round two or three parties want box 7 in the same moment. One of them
 * gets it, the others are told clearly why not, and at the end of the round nothing is left.
 */
#include "race.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DELAY_US 300 /* about what a begin takes */

#define SAID(i) (&race->said[i])

/* A word that is legal, or the failure says all. */
#define said_one_of(i, ...)                                                                                  \
    do {                                                                                                     \
        const int legal_[] = {__VA_ARGS__};                                                                  \
        bool found_ = false;                                                                                 \
        for (size_t k_ = 0; k_ < ARRAY_LEN(legal_); k_++)                                                    \
            found_ = found_ || SAID(i)->r == legal_[k_];                                                     \
        if (!found_)                                                                                         \
            fail_msg("%s:%d: party %d says %d: %s (%s)", __FILE__, __LINE__, i, SAID(i)->r,                  \
                     SAID(i)->error.message, SAID(i)->error.detail);                                         \
    } while (0)

enum { PHASE_RACE, PHASE_END };

static void next_phase(uint32_t phase)
{
    atomic_store(&race->phase, phase);
    race_round(phase == PHASE_RACE ? DELAY_US : 0);
}

static void round_is_over(void)
{
    race_nothing_is_left();
    crash_count("rounds", 1);
    crash_count(race->name, 1);
}

/* ---- two that begin ---- */

static _Thread_local bool won;

static void begin_or_end(struct rbxj *handle, struct race_said *said)
{
    if (atomic_load(&race->phase) == PHASE_RACE) {
        said->r = race_begin(handle, &said->error);
        won = said->r == 0;
        if (won)
            said->r = race_acquire(handle, &said->error);
    } else if (won) {
        said->r = race_end(handle, &said->error);
    }
}

static void run_two_begin(const struct crash_case *c, uint64_t point)
{
    int how = *(const int *)c->data;
    race_open(c->name, point);
    race_party(begin_or_end, how);
    race_party(begin_or_end, how);
    while (race_goes_on()) {
        race_choose();
        next_phase(PHASE_RACE);
        int winner = SAID(0)->r == 0 ? 0 : 1;
        said_one_of(winner, 0);
        said_one_of(!winner, -RBXJ_E_BOX_LIVE);
        char holder[32];
        (void)snprintf(holder, sizeof(holder), "pid %d", SAID(winner)->pid);
        if (!strstr(SAID(!winner)->error.message, holder))
            fail_msg("it does not name pid %d: %s", SAID(winner)->pid, SAID(!winner)->error.message);
        race_all_is_there();
        next_phase(PHASE_END);
        said_one_of(winner, 0);
        round_is_over();
    }
    race_close();
}

/* ---- one that begins while the reaper undoes the old one ---- */

/* Refused as long as the old one is there: box_stale, whatever of it is gone already. */
static void begin_at_last(struct rbxj *handle, struct race_said *said)
{
    if (atomic_load(&race->phase) == PHASE_END) {
        said->r = race_end(handle, &said->error);
        return;
    }
    while ((said->r = race_begin(handle, &said->error)) == -RBXJ_E_BOX_STALE)
        (void)usleep(50);
    if (said->r == 0)
        said->r = race_acquire(handle, &said->error);
}

static void replay_once(struct rbxj *handle, struct race_said *said)
{
    (void)handle;
    if (atomic_load(&race->phase) == PHASE_RACE)
        race_replay(&(struct rbxj_replay){0}, said);
}

static void run_begin_and_replay(const struct crash_case *c, uint64_t point)
{
    int how = *(const int *)c->data;
    race_open(c->name, point);
    race_party(begin_at_last, RACE_HANDLE | how);
    race_party(replay_once, how);
    while (race_goes_on()) {
        race_choose();
        race_leave_stale(race_draw(2));
        next_phase(PHASE_RACE);
        said_one_of(0, 0);
        said_one_of(1, 0);
        assert_int_equal(SAID(1)->boxes, 1);
        race_all_is_there();
        next_phase(PHASE_END);
        said_one_of(0, 0);
        round_is_over();
    }
    race_close();
}

/* ---- one that dies while the reaper reads ---- */

/* Takes one thing after the other, and gives them back, until it is killed. */
static _Noreturn void live_and_die(void)
{
    struct rbxj *handle;
    struct rbxj_error e = {0};
    const struct rbxj_resource *plan;
    size_t n = race_plan(&plan);
    int fd = -1, r = rbxj_open(&race->options, &handle, &e);
    while (r == 0) {
        const struct rbxj_box box = {.name = "7"};
        r = rbxj_begin(handle, &box, NULL, &e);
        for (size_t i = 0; r == 0 && i < n; i++)
            r = rbxj_take(handle, "7", &plan[i], NULL, &fd, &e);
        if (r == 0)
            r = race_end(handle, &e);
    }
    (void)dprintf(2, "it should be killed, not end: %d: %s\n", r, e.message);
    _exit(1);
}

static void kill_it(struct rbxj *handle, struct race_said *said)
{
    (void)handle;
    if (atomic_load(&race->phase) == PHASE_RACE)
        (void)kill((pid_t)race->victim, SIGKILL);
    said->r = 0;
}

/* It was killed between making and writing it: then it is nobody's (K1). */
static void unlink_empty_lock(void)
{
    struct stat st;
    if (lstat(race->lock, &st) == 0 && st.st_size == 0)
        assert_int_equal(unlink(race->lock), 0);
}

/* Whatever it had come to when it died: what the reaper calls done is done, and nothing is too much for
 * it. */
static void run_death_and_replay(const struct crash_case *c, uint64_t point)
{
    race_open(c->name, point);
    race_party(kill_it, 0);
    race_party(replay_once, RACE_HANDLE);
    while (race_goes_on()) {
        race_choose();
        pid_t pid = fork();
        if (pid == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            live_and_die();
        }
        assert_true(pid > 0);
        race->victim = pid;
        (void)usleep((useconds_t)race_draw(4000));
        next_phase(PHASE_RACE);
        int status;
        assert_true(waitpid(pid, &status, 0) == pid);
        assert_true(WIFSIGNALED(status));
        said_one_of(1, 0);
        size_t first = SAID(1)->boxes;
        atomic_store(&race->phase, PHASE_RACE);
        race_round(0);
        said_one_of(1, 0);
        assert_true(first + SAID(1)->boxes <= 1);
        unlink_empty_lock();
        round_is_over();
    }
    race_close();
}

/* ---- a reaper that comes while a supervisor has the lock, and has not begun yet (K7) ---- */

static void lock_then_begin(struct rbxj *handle, struct race_said *said)
{
    if (atomic_load(&race->phase) == PHASE_END) {
        said->r = race_end(handle, &said->error);
        return;
    }
    int fd = open(race->lock, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    bool locked = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (locked && race->delay_us[0] % 2)
        (void)usleep(100);
    said->r = race_begin(handle, &said->error);
    if (fd >= 0)
        (void)close(fd); /* box_stale: let go of it, or both wait for each other */
    while (said->r == -RBXJ_E_BOX_STALE) {
        (void)usleep(50);
        said->r = race_begin(handle, &said->error);
    }
    if (said->r == 0)
        said->r = race_acquire(handle, &said->error);
}

/* Held is told, with the holder, and left; the next one does it. */
static void replay_until_done(struct rbxj *handle, struct race_said *said)
{
    (void)handle;
    if (atomic_load(&race->phase) != PHASE_RACE)
        return;
    for (;;) {
        race_replay(&(struct rbxj_replay){0}, said);
        if (said->r != 1 || !strstr(said->error.message, "is held by somebody") || !said->error.detail[0])
            return;
        said->error = (struct rbxj_error){0};
    }
}

static void run_lock_and_replay(const struct crash_case *c, uint64_t point)
{
    race_open(c->name, point);
    race_party(lock_then_begin, RACE_HANDLE);
    race_party(replay_until_done, 0);
    while (race_goes_on()) {
        race_leave_stale(true);
        next_phase(PHASE_RACE);
        said_one_of(0, 0);
        said_one_of(1, 0);
        race_all_is_there();
        next_phase(PHASE_END);
        said_one_of(0, 0);
        round_is_over();
    }
    race_close();
}

/* ---- an owner's teardown, and a replay that takes it for dead ---- */

/* Its supervisor is a process of that namespace, and the box is begun for it: from outside nobody knows if it
 * lives. */
static void own_from_inside(struct rbxj *handle, struct race_said *said)
{
    static pid_t sleeper;
    if (!sleeper && (sleeper = fork()) == 0)
        for (;;)
            pause();
    struct rbxj_box box = {.name = "7", .supervisor = sleeper};
    box.plan_len = race_plan(&box.plan);
    if (atomic_load(&race->phase) == PHASE_RACE) {
        said->r = race_end(handle, &said->error);
    } else {
        said->r = rbxj_begin(handle, &box, NULL, &said->error);
        if (said->r == 0)
            said->r = race_acquire(handle, &said->error);
    }
}

static void assume_dead(struct rbxj *handle, struct race_said *said)
{
    static const char *const seven[] = {"7"};
    (void)handle;
    if (atomic_load(&race->phase) == PHASE_RACE)
        race_replay(
            &(struct rbxj_replay){.assume_dead = 1, .reason = "a race", .boxes = seven, .boxes_len = 1},
            said);
}

static void run_undo_and_assume_dead(const struct crash_case *c, uint64_t point)
{
    race_open(c->name, point);
    race_party(own_from_inside, RACE_HANDLE | RACE_NAMESPACE);
    race_party(assume_dead, 0);
    while (race_goes_on()) {
        next_phase(PHASE_END);
        said_one_of(0, 0);
        race_all_is_there();
        next_phase(PHASE_RACE);
        said_one_of(0, 0, -RBXJ_E_BUSY, -RBXJ_E_NO_SUCH_BOX);
        said_one_of(1, 0, 1);
        if (SAID(1)->r == 1 && !strstr(SAID(1)->error.message, "is being torn down by pid"))
            fail_msg("the replay left: %s", SAID(1)->error.message);
        if (SAID(0)->r != 0 && SAID(1)->r != 0)
            fail_msg("nobody won: %s; %s", SAID(0)->error.message, SAID(1)->error.message);
        round_is_over();
    }
    race_close();
}

/* ---- forget, replay and begin ---- */

static void replay_until_free(struct rbxj *handle, struct race_said *said)
{
    (void)handle;
    if (atomic_load(&race->phase) != PHASE_RACE)
        return;
    for (;;) {
        race_replay(&(struct rbxj_replay){0}, said);
        if (said->r != 1 || !strstr(said->error.message, "is being torn down by pid"))
            return;
        said->error = (struct rbxj_error){0};
    }
}

static void forget_it(struct rbxj *handle, struct race_said *said)
{
    (void)handle;
    if (atomic_load(&race->phase) == PHASE_RACE)
        said->r = rbxj_forget(&race->options, "7", 1, "a race", &said->error);
}

static void run_forget(const struct crash_case *c, uint64_t point)
{
    race_open(c->name, point);
    race_party(begin_at_last, RACE_HANDLE);
    race_party(replay_until_free, 0);
    race_party(forget_it, 0);
    while (race_goes_on()) {
        race_choose();
        race_leave_stale(false);
        next_phase(PHASE_RACE);
        said_one_of(0, 0);
        said_one_of(1, 0);
        /* it was faster, or somebody else is at it, has done it, or lives there now */
        said_one_of(2, 0, -RBXJ_E_BUSY, -RBXJ_E_NO_SUCH_BOX, -RBXJ_E_BOX_LIVE);
        race_all_is_there();
        next_phase(PHASE_END);
        said_one_of(0, 0);
        round_is_over();
    }
    race_close();
}

/* ---- quarantine and begin ---- */

static void begin_unless_quarantined(struct rbxj *handle, struct race_said *said)
{
    if (atomic_load(&race->phase) == PHASE_RACE) {
        said->r = race_begin(handle, &said->error);
        won = said->r == 0;
        return;
    }
    /* a box that runs goes on; no other one begins */
    if (won)
        said->r = race_end(handle, &said->error);
    if (said->r == 0)
        said->r = race_begin(handle, &said->error);
}

static void quarantine(struct rbxj *handle, struct race_said *said)
{
    (void)handle;
    if (atomic_load(&race->phase) == PHASE_RACE)
        said->r = rbxj_quarantine(&race->options, "a race", &said->error);
}

static void run_quarantine(const struct crash_case *c, uint64_t point)
{
    struct rbxj_error e;
    race_open(c->name, point);
    race_party(begin_unless_quarantined, RACE_HANDLE);
    race_party(quarantine, 0);
    while (race_goes_on()) {
        race_choose();
        next_phase(PHASE_RACE);
        said_one_of(0, 0, -RBXJ_E_QUARANTINED);
        said_one_of(1, 0);
        next_phase(PHASE_END);
        said_one_of(0, -RBXJ_E_QUARANTINED);
        if (rbxj_unquarantine(&race->options, "the end of a round", &e) < 0)
            fail_msg("unquarantine: %s", e.message);
        round_is_over();
    }
    race_close();
}

int main(int argc, char **argv)
{
    static const int processes = RACE_HANDLE, threads = RACE_HANDLE | RACE_THREAD, none;
#define CASE(n, f, d)                                                                                        \
    {                                                                                                        \
        .name = (n), .run = (f), .data = (d), .all = 1, .timeout = 120, .whole = true                        \
    }
    static const struct crash_case cases[] = {
        CASE("two begin", run_two_begin, &processes),
        CASE("two threads begin", run_two_begin, &threads),
        CASE("begin, replay", run_begin_and_replay, &none),
        CASE("begin, replay in threads", run_begin_and_replay, &threads),
        CASE("death, replay", run_death_and_replay, NULL),
        CASE("lock, replay", run_lock_and_replay, NULL),
        CASE("undo, assume-dead", run_undo_and_assume_dead, NULL),
        CASE("begin, replay, forget", run_forget, NULL),
        CASE("begin, quarantine", run_quarantine, NULL),
    };
    return crash_main(argc, argv, 25, cases, ARRAY_LEN(cases));
}
