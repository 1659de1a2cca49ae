/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/forked.h"

#include "base/fd.h"

#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

/* A page that is empty in a child, whichever call made it (since 4.14). */
static _Atomic(_Atomic uint64_t *) page;

static _Atomic uint64_t *find_page(void)
{
    _Atomic uint64_t *found = atomic_load(&page), *none = NULL;
    if (found)
        return found;
    found = mmap(NULL, sizeof(*found), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED)
        return NULL;
    if (madvise(found, sizeof(*found), MADV_WIPEONFORK) == 0 &&
        atomic_compare_exchange_strong(&page, &none, found))
        return found;
    (void)munmap(found, sizeof(*found));
    return none; /* another thread was faster */
}

struct forked forked_self(void)
{
    struct forked self = {.pid = getpid()};
    _Atomic uint64_t *number = find_page();
    uint64_t drawn, none = 0;
    if (!number)
        return self;
    self.number = atomic_load(number);
    if (self.number)
        return self;
    random_bytes(&drawn, sizeof(drawn));
    drawn |= 1;
    self.number = atomic_compare_exchange_strong(number, &none, drawn) ? drawn : none;
    return self;
}

bool forked_is_self(const struct forked *then)
{
    struct forked self = forked_self();
    return self.pid == then->pid && (!then->number || self.number == then->number);
}

bool forked_lock(struct forked_mutex *m)
{
    struct forked self = forked_self();
    uint64_t by_pid = (uint64_t)self.pid << 1 | 1; /* there was no number yet, for want of memory */
    uint64_t making = self.number ? self.number << 1 : by_pid - 1, ready = making | 1;
    uint64_t seen = atomic_load(&m->process);
    bool first = false;
    while (seen != ready && seen != by_pid && !first) {
        if (seen == making) { /* another thread is about it */
            (void)sched_yield();
            seen = atomic_load(&m->process);
        } else {
            first = atomic_compare_exchange_weak(&m->process, &seen, making);
        }
    }
    if (first)
        (void)pthread_mutex_init(&m->mutex, NULL);
    (void)pthread_mutex_lock(&m->mutex);
    if (first)
        atomic_store(&m->process, ready);
    return first;
}

void forked_unlock(struct forked_mutex *m)
{
    (void)pthread_mutex_unlock(&m->mutex);
}
