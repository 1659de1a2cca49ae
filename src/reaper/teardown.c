/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/teardown_steps.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/durable.h"

#include <inttypes.h>
#include <string.h>

/* Nobody else writes to a box that is claimed. */
static int write_ahead(struct undo *u, const struct record *r, struct rbxj_error *e)
{
    return journal_update(u->data, r, false, e);
}

int teardown_init(struct teardown *t, struct reaper *reaper, struct snapshot_box *sb, bool owner)
{
    int r = reaper->mount_ns ? 0 : mount_ns_find(0, &reaper->mount_ns);
    struct teardown_item *items = r == 0 ? calloc(sb->len + 1, sizeof(*items)) : NULL;
    if (!items)
        return r < 0 ? r : -ENOMEM;
    *t = (struct teardown){.reaper = reaper, .sb = sb, .items = items, .owner = owner};
    for (size_t i = 0; i < sb->len; i++)
        items[i] = (struct teardown_item){
            .record = &sb->records[i], .lock_fd = -1, .silent = sb->records[i].flags & REC_PENDING};
    t->u = (struct undo){
        .config = reaper->config,
        .snapshot = reaper->snapshot,
        .box = &sb->box,
        .records = sb->records,
        .records_len = sb->len,
        .dry_run = !reaper->journal,
        .foretells = reaper->foretells,
        .lazy_umount = reaper->lazy_umount,
        .same_boot = memcmp(sb->box.supervisor.boot_id, reaper->boot_id, 16) == 0,
        .busy_retries = reaper->config->busy_retries,
        .mount_ns = reaper->mount_ns,
        .write_ahead = reaper->journal ? write_ahead : NULL,
        .data = reaper->journal,
    };
    return 0;
}

void teardown_clear(struct teardown *t)
{
    if (t->items)
        teardown_let_go(t, true);
    free(t->items);
    t->items = NULL;
}

void teardown_only(struct teardown *t, uint32_t seq)
{
    t->single = true;
    for (size_t i = 0; i < t->sb->len; i++)
        t->items[i].aside = t->items[i].record->seq != seq;
}

/* Kinds read mountinfo, and who is above us, when they first need it; what one read serves all. */
void teardown_enter(struct teardown *t)
{
    t->u.mounts = t->reaper->mounts;
    memcpy(t->u.ancestors, t->reaper->ancestors, sizeof(t->u.ancestors));
    t->u.ancestors_len = t->reaper->ancestors_len;
}

void teardown_leave(struct teardown *t)
{
    t->reaper->mounts = t->u.mounts;
    memcpy(t->reaper->ancestors, t->u.ancestors, sizeof(t->u.ancestors));
    t->reaper->ancestors_len = t->u.ancestors_len;
}

void teardown_start_clock(struct teardown *t)
{
    int64_t deadline = now_monotonic_ns() + t->reaper->timeout_ns;
    t->u.deadline_ns = deadline < t->reaper->deadline_ns ? deadline : t->reaper->deadline_ns;
}

void teardown_leave_alone(struct teardown *t)
{
    for (size_t i = 0; i < t->sb->len; i++)
        t->items[i].outcome = OUTCOME_SKIPPED;
}

/* ---- quiesce ---- */

void teardown_touch(struct teardown *t, bool begins)
{
    if (t->reaper->journal && !t->owner)
        journal_touch(t->reaper->journal, t->reaper->worker, begins ? t->sb->box.incarnation : 0);
}

static void fail(struct teardown *t, struct teardown_item *item, int r)
{
    item->outcome = OUTCOME_FAILED;
    if (!item->done.error.code)
        (void)error_sys(&item->done.error, -r, "seq %" PRIu32, item->record->seq);
    t->stopped = true;
}

/* What may live in it can't be killed or seen now, as its lower one is busy: nothing is undone under it. */
static bool lives_on(const struct teardown_item *item)
{
    const struct kind *kind = kind_of(item->record->kind);
    return kind && kind->quiesce && item->look.found == FOUND_BUSY &&
           !(item->settled && item->look.refused) && !item->silent && !item->aside && !item->verified;
}

static void each_quiesce(struct teardown *t, bool wait)
{
    teardown_enter(t);
    for (size_t i = t->sb->len; i-- > 0;) {
        struct teardown_item *item = &t->items[i];
        const struct kind *kind = kind_of(item->record->kind);
        if (!wait && lives_on(item) && !item->hangs)
            teardown_look_at(t, item); /* what was in its way may be gone since */
        if (!wait && lives_on(item)) {
            item->done = item->look;
            fail(t, item, -EBUSY);
        }
        if (item->silent || item->aside || item->verified || !kind || item->look.found != FOUND_PRESENT)
            continue;
        int (*step)(struct undo *, const struct record *, struct finding *) = wait ? kind->quiesced
                                                                                   : kind->quiesce;
        item->done = wait ? item->done : (struct finding){.found = FOUND_PRESENT};
        int r = step && item->outcome != OUTCOME_FAILED ? step(&t->u, item->record, &item->done) : 0;
        if (r < 0)
            fail(t, item, r);
    }
    teardown_leave(t);
}

void teardown_quiesce(struct teardown *t)
{
    int64_t started = now_monotonic_ns();
    teardown_start_clock(t);
    teardown_touch(t, true);
    teardown_take_flocks(t, false);
    if (!t->held && !t->blind && !t->u.dry_run)
        each_quiesce(t, false);
    teardown_touch(t, false);
    t->worked_ns += now_monotonic_ns() - started;
}

void teardown_quiesced(struct teardown *t)
{
    if (t->held || t->blind)
        return;
    int64_t started = now_monotonic_ns();
    teardown_touch(t, true);
    each_quiesce(t, true);
    if (!t->stopped)
        teardown_take_flocks(t, true);
    teardown_touch(t, false);
    t->worked_ns += now_monotonic_ns() - started;
}

/* ---- undo ---- */

/* Its undo was verified: its record goes with the others of the box, in teardown_settle() (I6). */
static void drop(struct teardown *t, struct teardown_item *item)
{
    item->verified = true;
    item->record->flags |= REC_DROPPED;         /* it is in nobody's way any more (K4) */
    if (item->record->below && !item->silent) { /* the mount in which it was goes next */
        struct durable one = {.record = item->record};
        t->fleeting = durable_sync(&one, 1, &t->error) < 0 || t->fleeting;
    }
}

static void undo_present(struct teardown *t, struct teardown_item *item, const struct kind *kind)
{
    struct finding f = {.found = item->look.found};
    uint32_t flags = item->record->flags;
    int r = kind->undo(&t->u, item->record, &f);
    bool done = r >= 0;
    if (r == 1 || (r == 0 && item->look.found == FOUND_PRESENT)) { /* what was there a moment ago, too (I6) */
        int verified = kind->verify(&t->u, item->record, &f);
        r = verified < 0 ? verified : r;
    }
    struct rbxj_error error = {0};
    if (item->record->flags != flags && journal_update(t->reaper->journal, item->record, false, NULL) < 0)
        (void)journal_update(t->reaper->journal, item->record, false,
                             &error); /* once more: nothing shows it later */
    if (error.code)
        f.error = error;
    item->done = f;
    t->corrupt = t->corrupt || f.corrupt;
    if (done && r >= 0) {
        /* what the quiesce killed is undone, too */
        item->outcome = r == 1 || (kind->quiesce && item->look.found == FOUND_PRESENT) ? OUTCOME_UNDONE
                                                                                       : OUTCOME_ALREADY_GONE;
        drop(t, item);
    } else if (f.found == FOUND_FOREIGN && !f.refused) { /* ours is gone, another one is there (K2) */
        item->outcome = OUTCOME_ALREADY_GONE;
        drop(t, item);
    } else if (f.waits) {
        item->outcome = OUTCOME_SKIPPED;
    } else if (f.refused || (f.partial && item->record->kind != RBXJ_MOUNT)) {
        item->outcome = OUTCOME_REFUSED;
    } else if (f.partial) {
        item->outcome = OUTCOME_FAILED; /* detached: left, but stops nothing (K15) */
    } else {
        fail(t, item, r);
    }
}

/* What keeps this record from its turn though nothing failed: a newer one in it that was left (K2), or the
 * lower one, in which it is, being nothing that may be looked into (K13). */
static bool is_blocked(struct teardown *t, struct teardown_item *item)
{
    const struct record *r = item->record;
    for (size_t i = 0; r->path && i < t->sb->len; i++) {
        const struct teardown_item *o = &t->items[i];
        bool left = t->u.dry_run ? o->look.refused || o->look.found == FOUND_BUSY : !o->verified;
        if (o->silent || !left || !o->record->path || o->record->seq <= r->seq ||
            !path_is_below(o->record->path, r->path))
            continue;
        (void)error_set(&item->done.error, EBUSY, EBUSY, "seq %" PRIu32 ", which is left, is in it",
                        o->record->seq);
        return true;
    }
    const struct teardown_item *lower = teardown_item_of(t, r->below);
    if (!lower || lower->verified || lower->look.found == FOUND_PRESENT || lower->look.found == FOUND_GONE ||
        teardown_is_covered(item, lower) || !item->look.error.code)
        return false;
    item->done = item->look;
    return true;
}

/* It was not there when its flock was to be taken (K7). */
static bool lacks_flock(const struct teardown *t, const struct teardown_item *item)
{
    return item->record->kind == RBXJ_LOCK && item->look.found == FOUND_PRESENT && item->lock_fd < 0 &&
           (!t->owner || t->single);
}

static void undo_item(struct teardown *t, struct teardown_item *item)
{
    const struct kind *kind = kind_of(item->record->kind);
    if (item->outcome == OUTCOME_FAILED)
        return; /* in the quiesce */
    if (t->stopped || t->held || now_monotonic_ns() >= t->u.deadline_ns) {
        item->outcome = OUTCOME_SKIPPED;
        t->stopped = true;
        return;
    }
    if (is_blocked(t, item)) {
        /* if only its lower one is, that one stops the box in turn; what hides it may be older than this */
        if (item->look.found == FOUND_BUSY && !item->settled) {
            item->done = item->look;
            fail(t, item, -EBUSY);
            return;
        }
        item->outcome = item->look.refused ? OUTCOME_REFUSED : OUTCOME_SKIPPED;
        return;
    }
    item->done = item->look;
    if (item->hangs) {
        fail(t, item, -EBUSY);
        return;
    }
    /* that was before the quiesce: what was dying may have made it */
    if ((item->look.found == FOUND_GONE && !item->settled) || lacks_flock(t, item)) {
        teardown_look_at(t, item);
        item->done = item->look;
        if (item->look.found == FOUND_PRESENT || item->look.found == FOUND_BUSY) {
            (void)error_set(&item->done.error, EBUSY, EBUSY,
                            "seq %" PRIu32 ": came to be after it was looked for", item->record->seq);
            fail(t, item, -EBUSY);
            return;
        }
    }
    switch (item->look.found) {
    case FOUND_GONE:
        item->outcome = OUTCOME_ALREADY_GONE;
        drop(t, item);
        return;
    case FOUND_FOREIGN:
        item->outcome = item->look.refused ? OUTCOME_REFUSED : OUTCOME_ALREADY_GONE;
        if (!item->look.refused)
            drop(t, item);
        return;
    case FOUND_BUSY:
    case FOUND_PRESENT:
        undo_present(t, item, kind);
        return;
    }
}

/* Newest first. True: another round will get further, as something waited for what is gone now. */
static bool undo_round(struct teardown *t)
{
    bool waits = false, dropped = false;
    for (size_t i = t->sb->len; i-- > 0;) {
        struct teardown_item *item = &t->items[i];
        if (item->verified || item->aside ||
            (item->outcome != OUTCOME_NONE && item->outcome != OUTCOME_SKIPPED))
            continue;
        if (!item->silent)
            undo_item(t, item);
        else if (!t->held)
            drop(t, item);
        dropped |= item->verified && !item->silent;
        waits |= item->done.waits && !item->verified;
    }
    return waits && dropped && !t->stopped;
}

void teardown_undo(struct teardown *t)
{
    int64_t started = now_monotonic_ns();
    teardown_start_clock(t);
    teardown_touch(t, true);
    teardown_enter(t);
    while (undo_round(t))
        ;
    teardown_leave(t);
    teardown_touch(t, false);
    t->worked_ns += now_monotonic_ns() - started;
}

/* Does it fail before the first undo, so that nothing is tried? As in teardown_quiesce(). */
static bool fails_early(const struct teardown *t, const struct teardown_item *item)
{
    return t->held || t->blind ? item->withheld : lives_on(item);
}

void teardown_judge(struct teardown *t)
{
    bool stopped = t->held || t->blind;
    for (size_t i = 0; i < t->sb->len; i++)
        stopped |= lives_on(&t->items[i]);
    for (size_t i = t->sb->len; i-- > 0;) {
        struct teardown_item *item = &t->items[i];
        if (item->silent)
            continue;
        if (stopped && !fails_early(t, item)) {
            item->outcome = OUTCOME_SKIPPED;
            continue;
        }
        if (stopped || (item->look.found == FOUND_BUSY && !item->settled)) {
            item->outcome = OUTCOME_FAILED;
            stopped = true;
        } else if (is_blocked(t, item)) {
            item->outcome = item->look.refused ? OUTCOME_REFUSED : OUTCOME_SKIPPED;
        } else {
            item->outcome = item->look.refused ? OUTCOME_REFUSED : OUTCOME_PLANNED;
        }
    }
}

void teardown_again(struct teardown *t)
{
    for (size_t i = 0; i < t->sb->len; i++)
        if (!t->items[i].verified) {
            t->items[i].outcome = OUTCOME_NONE;
            t->items[i].done = (struct finding){0};
            t->items[i].withheld = false;
        }
    t->stopped = t->held = t->blind = false;
    if (!t->fleeting)
        t->error = (struct rbxj_error){0};
    teardown_look(t);
}

size_t teardown_left(const struct teardown *t)
{
    size_t left = 0;
    for (size_t i = 0; i < t->sb->len; i++) {
        enum outcome o = t->items[i].outcome;
        left += !t->items[i].silent && !t->items[i].aside && o != OUTCOME_UNDONE && o != OUTCOME_ALREADY_GONE;
    }
    return left;
}

/* Was it a failed replay of this box? A refusal, and a file system that is not there yet, are none (K2,
 * K14). */
static bool has_failed(const struct teardown *t)
{
    for (size_t i = 0; i < t->sb->len; i++)
        if (t->items[i].outcome == OUTCOME_FAILED)
            return true;
    return false;
}

/* Is everything that is left of it only not mounted yet (K14)? */
static bool only_waits(const struct teardown *t)
{
    for (size_t i = 0; i < t->sb->len; i++) {
        const struct teardown_item *item = &t->items[i];
        if (!item->silent && !item->verified && !item->look.not_mounted && !item->done.not_mounted)
            return false;
    }
    return !t->error.code;
}

/* Returns whether the header has changed. */
static bool note_waiting(struct box *box, bool waits, const uint8_t boot_id[16])
{
    if (waits == (box->waiting_since_ns != 0))
        return false;
    box->waiting_since_ns = waits ? now_realtime_ns() : 0;
    if (waits)
        memcpy(box->waiting_boot, boot_id, sizeof(box->waiting_boot));
    else
        memset(box->waiting_boot, 0, sizeof(box->waiting_boot));
    return true;
}

/* Failures count in a row: one more, or none any more. What was not worked on (held, out of time) says
 * neither. Returns whether the header has changed. */
static bool count_failures(struct teardown *t)
{
    struct box *box = &t->sb->box;
    uint32_t before = box->failures;
    /* two attempts that never ended count as one failed replay (K34) */
    t->failed = t->claimed && (has_failed(t) || t->sb->attempts >= 2);
    if (t->failed)
        box->failures++;
    else if (!t->held && !t->stopped)
        box->failures = 0;
    return box->failures != before;
}

void teardown_finish(struct teardown *t)
{
    struct box *box = &t->sb->box;
    bool kept = t->owner && !t->claimed &&
                teardown_left(t) == 0; /* by its owner: all is undone, it goes on */
    if (!t->claimed && !kept)
        return;
    bool changed = note_waiting(box, t->claimed && only_waits(t), t->reaper->boot_id);
    changed |= count_failures(t);
    if (changed && !t->reaper->busy.code)
        (void)journal_update_box(t->reaper->journal, box, NULL);
    if (t->claimed && teardown_drop(t, NULL, 0, SETTLE_UNCLAIM, &t->error) < 0)
        journal_unclaim_later(t->reaper->journal, box->incarnation);
    teardown_let_go(t, true);
    t->claimed = false;
}
