/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The flocks of a teardown (K7): taken before the first undo, held to the end; or somebody else has them.
 */
#include "reaper/teardown_steps.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/flocks.h"
#include "reaper/lock.h"

#include <sys/file.h>
#include <time.h>

struct holders {
    struct teardown *t;
    struct rbxj_error *e;
    struct keepers keepers;
    size_t payload;
};

/* A reaper that is at the box has taken its flocks; it is not held by that. */
static bool is_claimer(const struct teardown *t, pid_t pid)
{
    struct procid id;
    return t->u.dry_run && t->sb->claimer.pid == pid && procid_of(pid, &id) == 0 &&
           procid_equal(&id, &t->sb->claimer);
}

static int judge_holder(void *data, pid_t pid)
{
    struct holders *h = data;
    char who[128];
    if (is_claimer(h->t, pid)) {
        h->payload++;
        return 0;
    }
    int payload = flocks_is_payload(&h->t->u, pid);
    h->payload += payload > 0;
    if (payload)
        return payload < 0 ? payload : 0;
    procid_describe(pid, who, sizeof(who));
    keepers_add(&h->keepers, pid);
    error_detail(h->e, "held by pid %d (%s)", pid, who);
    return 1;
}

void teardown_cannot_ask(struct teardown *t, struct teardown_item *item, const struct rbxj_error *e)
{
    item->look.found = FOUND_BUSY;
    item->look.error = *e;
    if (!t->u.dry_run)
        item->outcome = OUTCOME_FAILED;
    item->withheld = t->stopped = t->blind = true;
}

/* Somebody has the flock. Its proven payload will be killed in the quiesce; anybody else makes the box held
 * (K7). */
static void judge_held(struct teardown *t, struct teardown_item *item, const struct stat *st)
{
    struct rbxj_error error = {0};
    struct holders h = {.t = t, .e = &error};
    bool blind = false;
    (void)error_set(&error, RBXJ_E_BUSY, EWOULDBLOCK, "lock %s: is held by somebody who is not of this box",
                    item->record->path);
    int r = flocks_holders(st->st_dev, st->st_ino, judge_holder, &h, &blind);
    if (r == 0 && h.payload)
        return;
    if (r < 0 && errno_is_want(-r)) {
        error = (struct rbxj_error){0};
        (void)error_sys(&error, -r, "lock %s: finding out who holds it", item->record->path);
        teardown_cannot_ask(t, item, &error);
        return;
    }
    if (r <= 0)
        error_detail(&error, "its holder is not visible from here");
    item->withheld = t->held = true;
    item->look.found = FOUND_BUSY;
    item->look.error = error;
    item->look.keepers = h.keepers;
}

/* Who holds it can't be known: why is in error, or errno. */
static void not_known(struct teardown *t, struct teardown_item *item, const struct rbxj_error *error)
{
    struct rbxj_error own = {0};
    if (!error)
        (void)error_sys(&own, errno, "lock %s: taking it", item->record->path);
    error = error ? error : &own;
    if (errno_is_want(error->errnum)) {
        teardown_cannot_ask(t, item, error);
        return;
    }
    item->withheld = t->held = true;
    item->look.found = FOUND_BUSY;
    item->look.error = *error;
}

/* Could it not be looked at? Then anybody may have it, and nothing is undone before it is seen. Asked once
 * more, as that may be over. */
static bool is_unseen(struct teardown *t, struct teardown_item *item)
{
    struct teardown_item *why = item;
    if (item->withheld) /* known to be unknown: of what was adopted, by more than this look */
        return true;
    if (item->look.found == FOUND_BUSY && !item->hangs) {
        teardown_enter(t);
        teardown_look_at(t, item);
        teardown_leave(t);
    }
    if (item->look.found != FOUND_BUSY)
        return false;
    for (uint32_t below = item->record->below; below; below = why->record->below) { /* in which it is */
        struct teardown_item *lower = teardown_item_of(t, below);
        if (!lower || lower->look.found != FOUND_BUSY || below >= why->record->seq)
            break;
        why = lower;
    }
    struct rbxj_error error = why->look.error;
    teardown_cannot_ask(t, why, &error);
    return true;
}

/* Takes the flock of a lock that is there, or says who has it. after: the payload is gone, nobody may have it
 * now. */
static void take_flock(struct teardown *t, struct teardown_item *item, bool after)
{
    if (item->record->kind != RBXJ_LOCK || item->lock_fd >= 0 || (t->owner && !t->single) ||
        is_unseen(t, item))
        return;
    struct finding f = {0};
    struct stat st;
    const char *base;
    /* one that was there before, with its content as it was, may be held all the same */
    bool before = item->look.found == FOUND_GONE && (item->record->flags & REC_BEFORE_PRESENT) &&
                  t->u.same_boot && !t->single; /* then nothing of ours is in it, whoever holds it */
    if (item->look.found != FOUND_PRESENT && !before)
        return;
    _cleanup_close_ int parent = guard_open_parent(&t->u, item->record, &base, &f);
    if (parent < 0 && f.found == FOUND_GONE)
        return;
    int fd = parent < 0 ? -1 : lock_open(parent, base, O_RDONLY, &st);
    if (parent >= 0 && (fd == -ENOENT || (fd >= 0 && !S_ISREG(st.st_mode)))) {
        cleanup_closep(&fd);
        return; /* gone meanwhile: undo will see */
    }
    if (fd < 0) {
        errno = -fd;
        not_known(t, item, parent < 0 ? &f.error : NULL);
        return;
    }
    if (before && (st.st_dev != item->record->before.dev || st.st_ino != item->record->before.ino)) {
        (void)close(fd);
        return;
    }
    if (t->u.dry_run) {
        (void)close(fd);
        int held = flocks_is_held(st.st_dev, st.st_ino);
        if (held < 0 && errno_is_want(-held)) {
            (void)error_sys(&f.error, -held, "lock %s: finding out whether it is held", item->record->path);
            teardown_cannot_ask(t, item, &f.error);
        } else if (held != 0) {
            judge_held(t, item, &st);
        }
        return;
    }
    int r = flock(fd, LOCK_EX | LOCK_NB);
    while (r < 0 && (errno == EINTR || (errno == EWOULDBLOCK && after)) &&
           now_monotonic_ns() < t->u.deadline_ns) {
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 1000000}, NULL);
        r = flock(fd, LOCK_EX | LOCK_NB);
    }
    if (r == 0) {
        item->lock_fd = fd;
        return;
    }
    if (errno != EWOULDBLOCK) {
        not_known(t, item, NULL);
        (void)close(fd);
        return;
    }
    (void)close(fd);
    judge_held(t, item, &st);
    if (after && !t->held && !t->blind) { /* even its payload has it no longer to have */
        item->withheld = t->held = true;
        item->look.found = FOUND_BUSY;
        (void)error_set(&item->look.error, RBXJ_E_BUSY, EWOULDBLOCK, "lock %s: is still held",
                        item->record->path);
    }
}

void teardown_take_flocks(struct teardown *t, bool after)
{
    for (size_t i = 0; i < t->sb->len; i++)
        if (!t->items[i].silent && !t->items[i].aside && !t->items[i].verified)
            take_flock(t, &t->items[i], after);
}
