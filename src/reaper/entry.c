/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/entry.h"

#include "base/forked.h"

#include <pthread.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct {
    struct forked process; /* of which all this is */
    unsigned looking;      /* side by side */
    bool alone;            /* somebody is */
    unsigned waiting;      /* for being alone: nobody overtakes them */
    int handles;
} door;

static __thread unsigned depth; /* how often this thread is in */

/* In a child nobody is in, whoever was in its parent when it forked: nor can he ever unlock the mutex. */
static void lock(void)
{
    if (!forked_is_self(&door.process) && door.process.pid) {
        (void)pthread_mutex_init(&mutex, NULL);
        (void)pthread_cond_init(&changed, NULL);
        door.looking = door.waiting = 0;
        door.alone = false;
        door.handles = 0;
        door.process = forked_self();
    }
    (void)pthread_mutex_lock(&mutex);
    if (!door.process.pid)
        door.process = forked_self();
}

static struct entry enter(bool wants_alone)
{
    struct entry entry = {.inner = depth++ > 0};
    if (entry.inner)
        return entry;
    lock();
    for (;;) {
        entry.alone = wants_alone || door.handles == 0;
        if (!door.alone && (entry.alone ? door.looking == 0 : door.waiting == 0))
            break;
        door.waiting += entry.alone;
        (void)pthread_cond_wait(&changed, &mutex);
        door.waiting -= entry.alone;
    }
    door.alone = entry.alone;
    door.looking += !entry.alone;
    (void)pthread_mutex_unlock(&mutex);
    return entry;
}

struct entry entry_look(void)
{
    return enter(false);
}

struct entry entry_alone(void)
{
    return enter(true);
}

void entry_leave(struct entry *entry)
{
    depth--;
    if (entry->inner)
        return;
    lock();
    if (entry->alone)
        door.alone = false;
    else
        door.looking--;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&mutex);
}

void entry_count_handle(int change)
{
    lock();
    if (door.handles + change >= 0)
        door.handles += change;
    (void)pthread_mutex_unlock(&mutex);
}
