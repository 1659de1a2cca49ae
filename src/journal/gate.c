/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "journal/gate.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/procid.h"

#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define GATES 3

/* For each gate: the holding that was waited for in vain by this process, as gate.id and gate.tenure. One
 * journal is open in a process; of another one the id is different. */
static _Atomic uint64_t stuck[GATES];

static int gate_init(struct gate *gate, uint32_t number, const pthread_mutexattr_t *attr)
{
    gate->number = number;
    random_bytes(&gate->id, sizeof(gate->id));
    return pthread_mutex_init(&gate->mutex, attr);
}

int gate_page_init(struct gate_page *page)
{
    pthread_mutexattr_t attr;
    memset(page, 0, sizeof(*page));
    int r = pthread_mutexattr_init(&attr);
    if (r != 0)
        return -r;
    (void)pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    (void)pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    struct gate *gates[GATES] = {&page->boot, &page->disk, &page->open};
    for (uint32_t i = 0; i < GATES && r == 0; i++)
        r = gate_init(gates[i], i, &attr);
    (void)pthread_mutexattr_destroy(&attr);
    page->size = sizeof(*page);
    page->magic = GATE_MAGIC;
    return -r;
}

/* ---- who has held it for too long ---- */

struct watch {
    uint32_t tenure;
    int64_t since;
};

static void watch(const struct gate *gate, struct watch *w)
{
    uint32_t tenure = atomic_load(&gate->tenure);
    if (w->since == 0 || tenure != w->tenure)
        *w = (struct watch){tenure, now_monotonic_ns()};
}

static uint64_t holding(const struct gate *gate, uint32_t tenure)
{
    return (uint64_t)gate->id << 32 | tenure;
}

static bool is_stuck(const struct gate *gate)
{
    return atomic_load(&stuck[gate->number % GATES]) == holding(gate, atomic_load(&gate->tenure));
}

/* The whole time was spent on one holding: it is not waited for again, unless it comes to its end. */
static void note_stuck(const struct gate *gate, const struct watch *w, int64_t timeout_ns)
{
    if (now_monotonic_ns() - w->since >= timeout_ns / 4 * 3)
        atomic_store(&stuck[gate->number % GATES], holding(gate, w->tenure));
}

/* ---- waiting ---- */

static struct timespec to_timespec(int64_t ns)
{
    return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

/* How long it still is the elder's turn; 0: there is no elder, or it has died or given up. By the one clock
 * that is the same in all time namespaces: by another one's, a dead elder's turn might last for years. A
 * clock that was set back ends the turn, too. */
static int64_t elder_left(const struct gate *gate)
{
    int64_t left = atomic_load(&gate->elder_until_ns) - now_realtime_ns();
    return atomic_load(&gate->elder) == 0 || left < 0 || left > GATE_ELDER_TURN_NS ? 0 : left;
}

/* Lets the elder go first; until it had its turn, or its time is up. */
static void wait_for_elder(struct gate *gate, uint32_t self, int64_t deadline)
{
    for (;;) {
        uint32_t elder = atomic_load(&gate->elder);
        int64_t left = elder_left(gate), own = deadline - now_monotonic_ns();
        if (elder == 0 || elder == self || left == 0 || own <= 0)
            return;
        struct timespec ts = to_timespec(left < own ? left : own);
        (void)syscall(SYS_futex, &gate->elder, FUTEX_WAIT, elder, &ts, NULL, 0);
    }
}

/* Becomes the elder, unless there is one. */
static void become_elder(struct gate *gate, uint32_t self)
{
    uint32_t elder = atomic_load(&gate->elder);
    if (elder_left(gate) > 0)
        return;
    if (atomic_compare_exchange_strong(&gate->elder, &elder, self))
        atomic_store(&gate->elder_until_ns, now_realtime_ns() + GATE_ELDER_TURN_NS);
}

static void resign_elder(struct gate *gate, uint32_t self)
{
    uint32_t expected = self;
    if (atomic_compare_exchange_strong(&gate->elder, &expected, 0))
        (void)syscall(SYS_futex, &gate->elder, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static int lock_until(struct gate *gate, uint32_t self, int64_t timeout_ns)
{
    int64_t start = now_monotonic_ns(), deadline = start + timeout_ns;
    struct watch w = {0};
    watch(gate, &w);
    wait_for_elder(gate, self, deadline);
    for (;;) {
        int64_t now = now_monotonic_ns();
        bool elder = atomic_load(&gate->elder) == self;
        int64_t until = elder ? now + 50 * (int64_t)GATE_ELDER_AFTER_NS : now + GATE_ELDER_AFTER_NS;
        struct timespec ts = to_timespec(until < deadline ? until : deadline);
        int r = pthread_mutex_clocklock(&gate->mutex, CLOCK_MONOTONIC, &ts);
        if (r != ETIMEDOUT)
            return r;
        now = now_monotonic_ns();
        watch(gate, &w);
        if (now >= deadline) {
            note_stuck(gate, &w, timeout_ns);
            return ETIMEDOUT;
        }
        if (now - start >= GATE_ELDER_AFTER_NS)
            become_elder(gate, self);
    }
}

static int held_too_long(const struct gate *gate, const char *what, struct rbxj_error *e)
{
    char who[160];
    pid_t pid = gate->holder_pid;
    procid_describe(pid, who, sizeof(who));
    return error_set(e, RBXJ_E_JOURNAL_BUSY, ETIMEDOUT, "%s: its writers' gate is held by pid %d (%s)", what,
                     pid, who);
}

/* What a lock call of the mutex said, but for EBUSY and ETIMEDOUT. */
static int enter(struct gate *gate, int r, const char *what, struct rbxj_error *e)
{
    if (r == EOWNERDEAD) /* what it guards recovers by itself: LMDB drops the unfinished transaction */
        r = pthread_mutex_consistent(&gate->mutex);
    if (r != 0)
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, r, "%s: its writers' gate", what);
    gate->holder_pid = getpid();
    atomic_fetch_add(&gate->tenure, 1);
    return 0;
}

/* The elder's turn is the elder's. */
static int try_lock(struct gate *gate)
{
    return elder_left(gate) > 0 ? EBUSY : pthread_mutex_trylock(&gate->mutex);
}

int gate_lock(struct gate *gate, const char *what, int64_t timeout_ns, struct rbxj_error *e)
{
    int r = try_lock(gate);
    if (r == EBUSY && is_stuck(gate))
        return held_too_long(gate, what, e);
    if (r == EBUSY) {
        uint32_t self = (uint32_t)gettid();
        r = lock_until(gate, self, timeout_ns);
        resign_elder(gate, self);
    }
    return r == ETIMEDOUT ? held_too_long(gate, what, e) : enter(gate, r, what, e);
}

void gate_unlock(struct gate *gate)
{
    (void)pthread_mutex_unlock(&gate->mutex);
}

int gate_lock_unless(struct gate *gate, const _Atomic uint64_t *done, uint64_t wanted, const char *what,
                     int64_t timeout_ns, struct rbxj_error *e)
{
    int64_t deadline = now_monotonic_ns() + timeout_ns;
    struct watch w = {0};
    for (;;) {
        uint32_t turn = atomic_load(&gate->turn); /* before the look: a change after it wakes us */
        if (atomic_load(done) >= wanted)
            return 0;
        watch(gate, &w);
        int r = try_lock(gate);
        if (r != EBUSY) {
            r = enter(gate, r, what, e);
            return r < 0 ? r : 1;
        }
        int64_t left = deadline - now_monotonic_ns();
        if (left <= 0)
            note_stuck(gate, &w, timeout_ns);
        if (left <= 0 || is_stuck(gate))
            return held_too_long(gate, what, e);
        /* a holder that died wakes nobody: look again */
        struct timespec ts = to_timespec(left < GATE_LOOK_AGAIN_NS ? left : GATE_LOOK_AGAIN_NS);
        (void)syscall(SYS_futex, &gate->turn, FUTEX_WAIT, turn, &ts, NULL, 0);
    }
}

void gate_pass(struct gate *gate)
{
    gate_unlock(gate);
    atomic_fetch_add(&gate->turn, 1);
    (void)syscall(SYS_futex, &gate->turn, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}
