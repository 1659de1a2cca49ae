/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The last step of a teardown: what was undone is made durable, and only then are its records dropped (I6).
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/durable.h"
#include "reaper/teardown_steps.h"

#include <stdlib.h>

/* One that holds the journal costs a pass one timeout, not one for each box. */
static int if_not_busy(struct teardown *t, struct rbxj_error *e)
{
    if (t->reaper->busy.code)
        *e = t->reaper->busy;
    return -t->reaper->busy.code;
}

static int note_busy(struct teardown *t, int r, const struct rbxj_error *e)
{
    if (r == -RBXJ_E_JOURNAL_BUSY)
        t->reaper->busy = *e;
    return r;
}

int teardown_drop(struct teardown *t, const uint32_t *seqs, size_t n, enum settle how, struct rbxj_error *e)
{
    int r = if_not_busy(t, e);
    if (r == 0)
        r = note_busy(t, journal_settle(t->reaper->journal, t->sb->box.incarnation, seqs, n, how, e), e);
    return r;
}

/* Drops what was verified, in one transaction with the end of the box if nothing is left. */
static size_t settle(struct teardown *t)
{
    uint32_t *seqs = calloc(t->sb->len + 1, sizeof(*seqs));
    size_t n = 0, reported = 0;
    for (size_t i = 0; seqs && i < t->sb->len; i++)
        if (t->items[i].verified && !t->items[i].dropped)
            seqs[n++] = t->items[i].record->seq;
    enum settle how = teardown_left(t) ? SETTLE_KEEP : t->owner ? SETTLE_UNCLAIM : SETTLE_END;
    struct rbxj_error error = {0};
    int r = !seqs ? error_sys(&error, ENOMEM, "box %s: dropping its records", t->sb->box.name)
            : n || how != SETTLE_KEEP ? teardown_drop(t, seqs, n, how, &error)
                                      : 0;
    free(seqs);
    if (r < 0) { /* no failed cleanup: the next replay finds it all gone (K19) */
        t->error = error;
        return 0;
    }
    t->error = (struct rbxj_error){0}; /* of an earlier try, in a pass before this one */
    for (size_t i = 0; i < t->sb->len; i++) {
        struct teardown_item *item = &t->items[i];
        reported += item->verified && !item->dropped && !item->silent;
        item->dropped = item->verified;
    }
    t->claimed = how == SETTLE_KEEP;
    return reported;
}

static bool is_new(const struct teardown_item *item)
{
    return item->verified && !item->dropped && !item->silent;
}

/* Marks the boxes of which something may come back: their records stay, and the next replay finds it gone
 * (K19). */
static void make_durable(struct teardown *boxes, size_t n)
{
    size_t len = 0, k = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t m = 0; m < boxes[i].sb->len; m++)
            len += is_new(&boxes[i].items[m]);
    _cleanup_free_ struct durable *list = calloc(len + 1, sizeof(*list));
    struct rbxj_error error = {0};
    for (size_t i = 0; list && i < n; i++)
        for (size_t m = 0; m < boxes[i].sb->len; m++)
            if (is_new(&boxes[i].items[m]))
                list[k++].record = boxes[i].items[m].record;
    if (list)
        (void)durable_sync(list, len, &error);
    else
        (void)error_sys(&error, ENOMEM, "flushing what was undone");
    k = 0;
    for (size_t i = 0; error.code && i < n; i++)
        for (size_t m = 0; m < boxes[i].sb->len; m++)
            if (is_new(&boxes[i].items[m]) && (!list || list[k++].result < 0)) {
                boxes[i].fleeting = true;
                boxes[i].error = error;
            }
}

void teardown_let_go(struct teardown *t, bool all)
{
    for (size_t i = 0; i < t->sb->len; i++)
        if (all || t->items[i].verified) {
            cleanup_closep(&t->items[i].lock_fd);
            t->items[i].lock_fd = -1;
        }
}

size_t teardown_settle(struct teardown *boxes, size_t n)
{
    size_t dropped = 0;
    make_durable(boxes, n);
    for (size_t i = 0; i < n; i++) {
        struct teardown *t = &boxes[i];
        int64_t started = now_monotonic_ns();
        if (t->claimed && !t->fleeting)
            dropped += settle(t);
        teardown_let_go(t, !t->claimed);
        t->worked_ns += now_monotonic_ns() - started;
    }
    return dropped;
}
