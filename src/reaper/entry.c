/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/entry.h"

#include <string.h>

static struct forked_mutex mutex;
static struct {
    pthread_cond_t changed;
    unsigned looking; /* side by side */
    bool alone;       /* somebody is */
    /* Each waits for its turn: who comes again at once, before the one that he wakes is awake, would be in
     * again. */
    uint64_t last, turn;
    int handles;
} door;

static __thread unsigned depth; /* how often this thread is in */

/* In a child nobody is in, whoever was in its parent when it forked. */
static void lock(void)
{
    if (forked_lock(&mutex)) {
        memset(&door, 0, sizeof(door));
        (void)pthread_cond_init(&door.changed, NULL);
    }
}

int entry_not_cancelled(void)
{
    int before = PTHREAD_CANCEL_ENABLE;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    return before;
}

void entry_may_be_cancelled(const int *before)
{
    (void)pthread_setcancelstate(*before, NULL);
}

static struct entry enter(bool wants_alone)
{
    struct entry entry = {.cancelled = entry_not_cancelled(), .inner = depth++ > 0, .process = forked_self()};
    if (entry.inner)
        return entry;
    lock();
    for (uint64_t own = door.last++;;) {
        entry.alone = wants_alone || door.handles == 0;
        if (own == door.turn && !door.alone && !(entry.alone && door.looking))
            break;
        (void)pthread_cond_wait(&door.changed, &mutex.mutex);
    }
    door.turn++;
    door.alone = entry.alone;
    door.looking += !entry.alone;
    (void)pthread_cond_broadcast(&door.changed); /* the next may look, too */
    forked_unlock(&mutex);
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

static void leave(const struct entry *entry)
{
    depth--;
    if (entry->inner || !forked_is_self(&entry->process)) /* a child, of a callback for instance */
        return;
    lock();
    if (entry->alone)
        door.alone = false;
    else
        door.looking--;
    (void)pthread_cond_broadcast(&door.changed);
    forked_unlock(&mutex);
}

void entry_leave(const struct entry *entry)
{
    leave(entry);
    entry_may_be_cancelled(&entry->cancelled);
}

void entry_count_handle(int change)
{
    lock();
    if (door.handles + change >= 0)
        door.handles += change;
    forked_unlock(&mutex);
}
