/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The look of a teardown: what is there of each record, asked of nobody who might hang.
 */
#include "reaper/teardown_steps.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/helper.h"

#include <inttypes.h>
#include <string.h>

struct teardown_item *teardown_item_of(struct teardown *t, uint32_t seq)
{
    for (size_t i = 0; i < t->sb->len; i++)
        if (t->items[i].record->seq == seq)
            return &t->items[i];
    return NULL;
}

/* A directory on which a mount of its own box lies can't be seen: that mount is looked at all the same. */
bool teardown_is_covered(const struct teardown_item *item, const struct teardown_item *lower)
{
    return item->record->kind == RBXJ_MOUNT && lower->look.found == FOUND_BUSY && item->record->path &&
           lower->record->path && strcmp(item->record->path, lower->record->path) == 0;
}

/* Does the lower one's being gone say nothing about it? A mount is looked for by itself: at the place of one
 * that never came to be, or was dropped, it is mounted all the same. */
static bool stands_alone(const struct teardown_item *item, const struct teardown_item *lower)
{
    const struct record *r = item->record;
    return r->kind == RBXJ_MOUNT &&
           ((r->flags & REC_EVIDENCE) ||
            (r->path && lower->record->path && strcmp(r->path, lower->record->path) == 0));
}

/* What lies below another record of this box is there only as far as that one is (K13). True: settled. */
static bool look_at_lower(struct teardown *t, struct teardown_item *item)
{
    struct teardown_item *lower = teardown_item_of(t, item->record->below);
    if (!lower || lower->look.found == FOUND_PRESENT || teardown_is_covered(item, lower))
        return false;
    if (lower->look.found == FOUND_GONE && stands_alone(item, lower))
        return false;
    if (lower->look.found == FOUND_GONE || (lower->look.found == FOUND_FOREIGN && !lower->look.refused)) {
        item->look.found = FOUND_GONE;
        return true;
    }
    item->look.found = lower->look.found;
    item->look.refused = lower->look.refused;
    (void)error_set(&item->look.error, RBXJ_E_FOREIGN, 0, "seq %" PRIu32 ", in which it is, is left alone",
                    lower->record->seq);
    return true;
}

/* Files on a tmpfs did not outlive their boot, whatever is there now. */
static bool died_with_its_boot(const struct teardown *t, struct teardown_item *item)
{
    const struct record *r = item->record;
    bool file = r->kind == RBXJ_LOCK || r->kind == RBXJ_TMPDIR;
    item->look.found = FOUND_GONE;
    return !t->u.same_boot && file && !r->below && fileid_is_set(&r->parent) &&
           fs_is_volatile(r->parent.fs_magic);
}

/* Salvaged from a damaged journal, and in doubt: its evidence, or that it was dropped, may have been lost;
 * and what a lock held before may not be what is to be restored. Doubt is a refusal (I4). */
static bool is_doubtful(const struct teardown *t, const struct record *r)
{
    if (!t->reaper->snapshot->salvaged_ns || r->time_ns > t->reaper->snapshot->salvaged_ns)
        return false;
    return !(r->flags & REC_EVIDENCE) || (r->flags & REC_UNPROVEN) ||
           (r->kind == RBXJ_LOCK && (r->flags & REC_BEFORE_PRESENT));
}

void teardown_look_at(struct teardown *t, struct teardown_item *item)
{
    const struct kind *kind = kind_of(item->record->kind);
    item->look = (struct finding){0};
    if (!kind) {
        item->look.found = FOUND_FOREIGN;
        item->look.refused = true;
        (void)error_set(&item->look.error, RBXJ_E_BAD_REQUEST, 0,
                        "seq %" PRIu32 ": of a kind that this version does not "
                        "know",
                        item->record->seq);
        return;
    }
    item->settled = look_at_lower(t, item) || died_with_its_boot(t, item);
    if (item->settled)
        return;
    /* refused when the intent was written, and again now: the configuration may have changed (K35: a mount's
     * own kind asks, once it knows whether it is ours) */
    if (item->record->path && item->record->kind != RBXJ_MOUNT &&
        guard_protected_name(t->u.config, item->record->kind, item->record->path, &item->look.error) < 0) {
        item->look.found = FOUND_FOREIGN;
        item->look.refused = true;
        return;
    }
    int r = kind->look(&t->u, item->record, &item->look);
    /* its lower one was given back, and this one with it, or forgotten, and this one stands in it still:
     * there is no telling, so it decides by itself; a stranger at its place proves that it is gone */
    bool orphan = item->record->below && item->record->kind != RBXJ_MOUNT &&
                  !teardown_item_of(t, item->record->below);
    if (orphan && r == 0 && item->look.found == FOUND_FOREIGN)
        item->look = (struct finding){.found = FOUND_GONE};
    if (r < 0 && item->look.found != FOUND_FOREIGN) {
        item->look.found = FOUND_BUSY;
        if (!item->look.error.code)
            (void)error_sys(&item->look.error, -r, "seq %" PRIu32 ": looking at it", item->record->seq);
    }
    if (item->look.found == FOUND_PRESENT && is_doubtful(t, item->record)) {
        item->look.found = FOUND_FOREIGN;
        item->look.refused = true;
        (void)error_set(&item->look.error, RBXJ_E_FOREIGN, 0,
                        "seq %" PRIu32 ": was salvaged from a damaged journal, and is in doubt",
                        item->record->seq);
    }
}

/* ---- what might hang (K16) ---- */

/* One that does not answer takes a part of what is left of a replay's time, so that something is left for
 * those that do, however many are dead. */
static int64_t probe_deadline(const struct teardown *t, int64_t now)
{
    int64_t left = t->reaper->deadline_ns - now, part = now + left / 8;
    return part < t->u.deadline_ns ? part : t->u.deadline_ns;
}

/* A dead server hangs whoever asks it: a directory on a mount that is not local is first probed where that
 * can't hang. What did not answer once is not asked again by this replay. 1, 0, or a negative code: that
 * can't be known now. */
static int path_hangs(struct teardown *t, const char *path, struct rbxj_error *e)
{
    struct reaper *reaper = t->reaper;
    char dir[RECORD_PATH_MAX];
    (void)snprintf(dir, sizeof(dir), "%s", path);
    char *slash = strrchr(dir, '/');
    slash[slash == dir] = 0;
    int r = t->u.mounts ? 0 : mounts_read(&t->u.mounts, e);
    if (r < 0)
        return r;
    const struct mount *remote = mount_table_remote_above(mounts_own(t->u.mounts), dir);
    if (!remote)
        return 0;
    /* or a bind of it: that is the same file system, which asks the same server */
    uint64_t key = mount_table_hang_key(mounts_own(t->u.mounts), remote);
    for (size_t i = 0; i < reaper->dead_len; i++)
        if (reaper->dead[i] == key)
            return 1;
    int64_t now = now_monotonic_ns();
    if (now >= t->u.deadline_ns) /* who is not asked has not failed to answer */
        return error_set(e, EBUSY, ETIMEDOUT, "%s: the time is over before its file system was asked", path);
    struct path_probe probe = {.path = dir};
    char file[PATH_MAX];
    helper_file(t->u.config->runtime_dir, file);
    const struct probe_place place = {.file = file, .byte = key, .make = !t->u.dry_run};
    r = path_probe(&probe, 1, mount_table_is_local, mounts_own(t->u.mounts), key, &place,
                   probe_deadline(t, now), NULL);
    if (r == 0 && probe.result != -ETIMEDOUT)
        return 0;
    if (r < 0 && r != -EBUSY) /* no helper could be had; EBUSY: an earlier one still waits there */
        return error_sys(e, -r, "%s: asking its file system", path);
    if (reaper->dead_len < ARRAY_LEN(reaper->dead))
        reaper->dead[reaper->dead_len++] = key;
    return 1;
}

void teardown_look(struct teardown *t)
{
    teardown_start_clock(t);
    teardown_touch(t, true);
    teardown_enter(t);
    for (size_t i = 0; i < t->sb->len; i++) {
        struct teardown_item *item = &t->items[i];
        if (item->silent || item->verified)
            continue;
        struct rbxj_error error = {0};
        int hangs = item->record->path ? path_hangs(t, item->record->path, &error) : 0;
        item->hangs = hangs != 0;
        if (item->hangs) {
            item->look = (struct finding){.found = FOUND_BUSY, .error = error};
            (void)error_set(&item->look.error, EBUSY, ETIMEDOUT, "%s: its file system does not answer",
                            item->record->path);
            continue;
        }
        teardown_look_at(t, item);
        struct teardown_item *lower = item->look.found == FOUND_PRESENT
                                          ? teardown_item_of(t, item->record->below)
                                          : NULL;
        /* a directory, by nothing but ours: it will be seen once that is gone; a mount is busy by a
         * stranger's alone */
        if (lower && lower->record->kind != RBXJ_MOUNT && teardown_is_covered(item, lower))
            lower->look = (struct finding){.found = FOUND_PRESENT};
        t->corrupt = t->corrupt || item->look.corrupt;
    }
    teardown_look_at_adopted(t);
    teardown_leave(t);
    teardown_touch(t, false);
}

void teardown_look_later(struct teardown *t)
{
    for (size_t i = 0; i < t->sb->len; i++) {
        t->items[i].look = (struct finding){.found = FOUND_BUSY};
        (void)error_set(&t->items[i].look.error, EBUSY, EBUSY,
                        "seq %" PRIu32 ": was not looked at yet, as an attempt on its box did not end",
                        t->items[i].record->seq);
    }
}
