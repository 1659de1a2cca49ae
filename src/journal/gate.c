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

int gate_page_init(struct gate_page *page)
{
    pthread_mutexattr_t attr;
    memset(page, 0, sizeof(*page));
    int r = pthread_mutexattr_init(&attr);
    if (r != 0)
        return -r;
    (void)pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    (void)pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    r = pthread_mutex_init(&page->boot.mutex, &attr);
    if (r == 0)
        r = pthread_mutex_init(&page->disk.mutex, &attr);
    (void)pthread_mutexattr_destroy(&attr);
    page->size = sizeof(*page);
    page->magic = GATE_MAGIC;
    return -r;
}

static struct timespec to_timespec(int64_t ns)
{
    return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

/* Lets the elder go first; until it had its turn, or its time is up. */
static void wait_for_elder(struct gate *gate, uint32_t self, int64_t deadline)
{
    for (;;) {
        uint32_t elder = atomic_load(&gate->elder);
        int64_t now = now_monotonic_ns();
        int64_t until = atomic_load(&gate->elder_until_ns);
        if (elder == 0 || elder == self || now >= until || now >= deadline)
            return;
        struct timespec ts = to_timespec((until < deadline ? until : deadline) - now);
        (void)syscall(SYS_futex, &gate->elder, FUTEX_WAIT, elder, &ts, NULL, 0);
    }
}

/* Becomes the elder, unless there is one. */
static void become_elder(struct gate *gate, uint32_t self, int64_t now)
{
    uint32_t elder = atomic_load(&gate->elder);
    if (elder != 0 && now < atomic_load(&gate->elder_until_ns))
        return;
    if (atomic_compare_exchange_strong(&gate->elder, &elder, self))
        atomic_store(&gate->elder_until_ns, now + 100 * (int64_t)GATE_ELDER_AFTER_NS);
}

static void resign_elder(struct gate *gate, uint32_t self)
{
    uint32_t expected = self;
    if (atomic_compare_exchange_strong(&gate->elder, &expected, 0))
        (void)syscall(SYS_futex, &gate->elder, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static int lock_until(struct gate *gate, uint32_t self, int64_t deadline)
{
    int64_t start = now_monotonic_ns();
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
        if (now >= deadline)
            return ETIMEDOUT;
        if (now - start >= GATE_ELDER_AFTER_NS)
            become_elder(gate, self, now);
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
    return 0;
}

int gate_lock(struct gate *gate, const char *what, int64_t timeout_ns, struct rbxj_error *e)
{
    int r = atomic_load(&gate->elder) == 0 ? pthread_mutex_trylock(&gate->mutex) : EBUSY;
    if (r == EBUSY) {
        uint32_t self = (uint32_t)gettid();
        r = lock_until(gate, self, now_monotonic_ns() + timeout_ns);
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
    for (;;) {
        uint32_t turn = atomic_load(&gate->turn); /* before the look: a change after it wakes us */
        if (atomic_load(done) >= wanted)
            return 0;
        int r = pthread_mutex_trylock(&gate->mutex);
        if (r != EBUSY) {
            r = enter(gate, r, what, e);
            return r < 0 ? r : 1;
        }
        int64_t left = deadline - now_monotonic_ns();
        if (left <= 0)
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
