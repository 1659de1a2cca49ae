/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/teardown.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/helper.h"
#include "reaper/flocks.h"

#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <xxhash.h>

int teardown_init(struct teardown *t, struct reaper *reaper, struct snapshot_box *sb, bool owner)
{
    struct teardown_item *items = calloc(sb->len + 1, sizeof(*items));
    if (!items)
        return -ENOMEM;
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
        .lazy_umount = reaper->lazy_umount,
        .same_boot = memcmp(sb->box.supervisor.boot_id, reaper->boot_id, 16) == 0,
        .busy_retries = reaper->config->busy_retries,
        .mount_ns = reaper->mount_ns ? reaper->mount_ns : (reaper->mount_ns = mount_ns_of(0)),
    };
    return 0;
}

void teardown_clear(struct teardown *t)
{
    for (size_t i = 0; t->items && i < t->sb->len; i++)
        cleanup_closep(&t->items[i].lock_fd);
    free(t->items);
    t->items = NULL;
}

/* Kinds read mountinfo, and who is above us, when they first need it; what one read serves all. */
static void enter(struct teardown *t)
{
    t->u.mounts = t->reaper->mounts;
    memcpy(t->u.ancestors, t->reaper->ancestors, sizeof(t->u.ancestors));
    t->u.ancestors_len = t->reaper->ancestors_len;
}

static void leave(struct teardown *t)
{
    t->reaper->mounts = t->u.mounts;
    memcpy(t->reaper->ancestors, t->u.ancestors, sizeof(t->u.ancestors));
    t->reaper->ancestors_len = t->u.ancestors_len;
}

static void start_clock(struct teardown *t)
{
    int64_t deadline = now_monotonic_ns() + t->reaper->timeout_ns;
    t->u.deadline_ns = deadline < t->reaper->deadline_ns ? deadline : t->reaper->deadline_ns;
}

/* ---- look ---- */

static struct teardown_item *item_of(struct teardown *t, uint32_t seq)
{
    for (size_t i = 0; i < t->sb->len; i++)
        if (t->items[i].record->seq == seq)
            return &t->items[i];
    return NULL;
}

/* A directory on which a mount of its own box lies can't be seen: that mount is looked at all the same. */
static bool is_covered(const struct teardown_item *item, const struct teardown_item *lower)
{
    return item->record->kind == RBXJ_MOUNT && lower->look.found == FOUND_BUSY && item->record->path &&
           lower->record->path && strcmp(item->record->path, lower->record->path) == 0;
}

/* What lies below another record of this box is there only as far as that one is (K13). True: settled. */
static bool look_at_lower(struct teardown *t, struct teardown_item *item)
{
    struct teardown_item *lower = item_of(t, item->record->below);
    if (!item->record->below || (lower && (lower->look.found == FOUND_PRESENT || is_covered(item, lower))))
        return false;
    if (!lower || lower->look.found == FOUND_GONE ||
        (lower->look.found == FOUND_FOREIGN && !lower->look.refused)) {
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

static void look_at(struct teardown *t, struct teardown_item *item)
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
    if (r < 0 && item->look.found != FOUND_FOREIGN) {
        item->look.found = FOUND_BUSY;
        if (!item->look.error.code)
            (void)error_sys(&item->look.error, -r, "seq %" PRIu32 ": looking at it", item->record->seq);
    }
}

/* ---- what might hang (K16) ---- */

/* A dead server hangs whoever asks it: a directory on a mount that is not local is first probed where that
 * can't hang. What did not answer once is not asked again by this replay. */
static bool path_hangs(struct teardown *t, const char *path)
{
    struct reaper *reaper = t->reaper;
    char dir[RECORD_PATH_MAX];
    (void)snprintf(dir, sizeof(dir), "%s", path);
    char *slash = strrchr(dir, '/');
    slash[slash == dir] = 0;
    if (!t->u.mounts && mounts_read(&t->u.mounts, &t->error) < 0)
        return true;
    const struct mount *remote = mount_table_remote_above(mounts_own(t->u.mounts), dir);
    if (!remote)
        return false;
    for (size_t i = 0; i < reaper->dead_len; i++)
        if (reaper->dead[i] == remote->id)
            return true;
    struct path_probe probe = {.path = dir};
    int r = path_probe(&probe, 1, mount_table_is_local, mounts_own(t->u.mounts), (uint64_t)remote->id,
                       t->u.deadline_ns, NULL);
    if (r == 0 && probe.result != -ETIMEDOUT)
        return false;
    if (reaper->dead_len < ARRAY_LEN(reaper->dead))
        reaper->dead[reaper->dead_len++] = remote->id;
    return true;
}

void teardown_look(struct teardown *t)
{
    start_clock(t);
    enter(t);
    for (size_t i = 0; i < t->sb->len; i++) {
        struct teardown_item *item = &t->items[i];
        if (item->silent || item->verified)
            continue;
        item->hangs = item->record->path && path_hangs(t, item->record->path);
        if (item->hangs) {
            item->look = (struct finding){.found = FOUND_BUSY};
            (void)error_set(&item->look.error, EBUSY, ETIMEDOUT, "%s: its file system does not answer",
                            item->record->path);
            continue;
        }
        look_at(t, item);
        struct teardown_item *lower = item->look.found == FOUND_PRESENT ? item_of(t, item->record->below)
                                                                        : NULL;
        if (lower && is_covered(item, lower)) /* by nothing but ours: it will be seen once that is gone */
            lower->look = (struct finding){.found = FOUND_PRESENT};
        t->corrupt = t->corrupt || item->look.corrupt;
    }
    leave(t);
}

/* ---- claim and locks ---- */

int teardown_claim(struct teardown *t)
{
    int r = journal_claim(t->reaper->journal, t->sb->box.incarnation, &t->error);
    t->claimed = r == 0;
    for (size_t i = 0; r < 0 && i < t->sb->len; i++)
        t->items[i].outcome = OUTCOME_SKIPPED;
    return r;
}

struct holders {
    struct teardown *t;
    struct rbxj_error *e;
    size_t payload;
};

static int judge_holder(void *data, pid_t pid)
{
    struct holders *h = data;
    char who[128];
    if (flocks_is_payload(&h->t->u, pid)) {
        h->payload++;
        return 0;
    }
    procid_describe(pid, who, sizeof(who));
    error_detail(h->e, "held by pid %d (%s)", pid, who);
    return 1;
}

/* Somebody has the flock. Its proven payload will be killed in the quiesce; anybody else makes the box held
 * (K7). */
static void judge_held(struct teardown *t, struct teardown_item *item, uint64_t ino)
{
    struct rbxj_error error = {0};
    struct holders h = {t, &error, 0};
    bool blind = false;
    (void)error_set(&error, RBXJ_E_BUSY, EWOULDBLOCK, "lock %s: is held by somebody who is not of this box",
                    item->record->path);
    int r = flocks_holders(ino, judge_holder, &h, &blind);
    if (r == 0 && h.payload)
        return;
    if (r <= 0)
        error_detail(&error, "its holder is not visible from here");
    t->held = true;
    item->look.found = FOUND_BUSY;
    item->look.error = error;
}

/* Takes the flock of a lock that is there, or says who has it. after: the payload is gone, nobody may have it
 * now. */
static void take_flock(struct teardown *t, struct teardown_item *item, bool after)
{
    struct finding f = {0};
    struct stat st;
    const char *base;
    /* one that was there before, with its content as it was, may be held all the same */
    bool before = item->look.found == FOUND_GONE && (item->record->flags & REC_BEFORE_PRESENT) &&
                  t->u.same_boot;
    if (item->record->kind != RBXJ_LOCK || item->lock_fd >= 0 || t->owner || item->hangs ||
        (item->look.found != FOUND_PRESENT && !before))
        return;
    _cleanup_close_ int parent = guard_open_parent(&t->u, item->record, &base, &f);
    if (parent < 0 && f.found == FOUND_GONE)
        return;
    int fd = parent < 0 ? -1 : openat(parent, base, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && parent >= 0 && errno == ENOENT)
        return;                         /* gone meanwhile: undo will see */
    if (fd < 0 || fstat(fd, &st) < 0) { /* who holds it can't be known */
        t->held = true;
        item->look.found = FOUND_BUSY;
        (void)error_sys(&item->look.error, errno, "lock %s: taking it", item->record->path);
        cleanup_closep(&fd);
        return;
    }
    if (before && (st.st_dev != item->record->before.dev || st.st_ino != item->record->before.ino)) {
        (void)close(fd);
        return;
    }
    if (t->u.dry_run) {
        (void)close(fd);
        if (flocks_is_held(st.st_dev, st.st_ino) != 0)
            judge_held(t, item, st.st_ino);
        return;
    }
    int r = flock(fd, LOCK_EX | LOCK_NB);
    while (r < 0 && errno == EWOULDBLOCK && after && now_monotonic_ns() < t->u.deadline_ns) {
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 1000000}, NULL);
        r = flock(fd, LOCK_EX | LOCK_NB);
    }
    if (r == 0) {
        item->lock_fd = fd;
        return;
    }
    (void)close(fd);
    judge_held(t, item, st.st_ino);
    if (after && !t->held) { /* even its payload has it no longer to have */
        t->held = true;
        item->look.found = FOUND_BUSY;
        (void)error_set(&item->look.error, RBXJ_E_BUSY, EWOULDBLOCK, "lock %s: is still held",
                        item->record->path);
    }
}

static void take_flocks(struct teardown *t, bool after)
{
    for (size_t i = 0; i < t->sb->len; i++)
        if (!t->items[i].silent && !t->items[i].verified)
            take_flock(t, &t->items[i], after);
}

/* ---- quiesce ---- */

/* Before a box is touched, so that one that kills the reaper is known by it (K34). */
static void touch(struct teardown *t, bool begins)
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

static void each_quiesce(struct teardown *t, bool wait)
{
    enter(t);
    for (size_t i = t->sb->len; i-- > 0;) {
        struct teardown_item *item = &t->items[i];
        const struct kind *kind = kind_of(item->record->kind);
        if (item->silent || item->verified || !kind || item->look.found != FOUND_PRESENT)
            continue;
        int (*step)(struct undo *, const struct record *, struct finding *) = wait ? kind->quiesced
                                                                                   : kind->quiesce;
        item->done = wait ? item->done : (struct finding){.found = FOUND_PRESENT};
        int r = step && item->outcome != OUTCOME_FAILED ? step(&t->u, item->record, &item->done) : 0;
        if (r < 0)
            fail(t, item, r);
    }
    leave(t);
}

void teardown_quiesce(struct teardown *t)
{
    start_clock(t);
    touch(t, true);
    take_flocks(t, false);
    if (!t->held && !t->u.dry_run)
        each_quiesce(t, false);
    touch(t, false);
}

void teardown_quiesced(struct teardown *t)
{
    if (t->held)
        return;
    each_quiesce(t, true);
    if (!t->stopped)
        take_flocks(t, true);
}

/* ---- undo ---- */

/* Its undo was verified: its record goes with the others of the box, in teardown_undo() (I6). */
static void drop(struct teardown_item *item)
{
    item->verified = true;
    item->record->flags |= REC_DROPPED; /* it is in nobody's way any more (K4) */
}

static void undo_present(struct teardown *t, struct teardown_item *item, const struct kind *kind)
{
    struct finding f = {.found = item->look.found};
    uint32_t flags = item->record->flags;
    int r = kind->undo(&t->u, item->record, &f);
    bool done = r >= 0;
    if (r == 1 && (r = kind->verify(&t->u, item->record, &f)) == 0)
        r = 1;
    if (item->record->flags != flags)
        (void)journal_update(t->reaper->journal, item->record, false, NULL);
    item->done = f;
    if (done && r >= 0) {
        /* what the quiesce killed is undone, too */
        item->outcome = r == 1 || (kind->quiesce && item->look.found == FOUND_PRESENT) ? OUTCOME_UNDONE
                                                                                       : OUTCOME_ALREADY_GONE;
        drop(item);
    } else if (f.found == FOUND_FOREIGN && !f.refused) { /* ours is gone, another one is there (K2) */
        item->outcome = OUTCOME_ALREADY_GONE;
        drop(item);
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
    const struct teardown_item *lower = item_of(t, r->below);
    if (!lower || lower->verified || lower->look.found == FOUND_PRESENT || lower->look.found == FOUND_GONE ||
        is_covered(item, lower) || !item->look.error.code)
        return false;
    item->done = item->look;
    return true;
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
        if (item->look.found == FOUND_BUSY && !item->settled) { /* it would be in the way by itself */
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
    if (item->look.found == FOUND_GONE &&
        !item->settled) { /* that was before the quiesce: what was dying may have made it */
        look_at(t, item);
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
        drop(item);
        return;
    case FOUND_FOREIGN:
        item->outcome = item->look.refused ? OUTCOME_REFUSED : OUTCOME_ALREADY_GONE;
        if (!item->look.refused)
            drop(item);
        return;
    case FOUND_BUSY:
    case FOUND_PRESENT:
        undo_present(t, item, kind);
        return;
    }
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
    int r = !seqs ? -ENOMEM
            : n || how != SETTLE_KEEP
                ? journal_settle(t->reaper->journal, t->sb->box.incarnation, seqs, n, how, &error)
                : 0;
    free(seqs);
    if (r < 0) { /* no failed cleanup: the next replay finds it all gone (K19) */
        t->error = error;
        return 0;
    }
    for (size_t i = 0; i < t->sb->len; i++) {
        struct teardown_item *item = &t->items[i];
        reported += item->verified && !item->dropped && !item->silent;
        item->dropped = item->verified;
    }
    t->claimed = how == SETTLE_KEEP;
    return reported;
}

size_t teardown_undo(struct teardown *t)
{
    start_clock(t);
    touch(t, true);
    enter(t);
    for (size_t i = t->sb->len; i-- > 0;) {
        struct teardown_item *item = &t->items[i];
        if (item->verified)
            continue;
        if (!item->silent)
            undo_item(t, item);
        else if (!t->held)
            drop(item);
    }
    leave(t);
    size_t dropped = settle(t);
    for (size_t i = 0; i < t->sb->len; i++) { /* held to here (K7) */
        cleanup_closep(&t->items[i].lock_fd);
        t->items[i].lock_fd = -1;
    }
    touch(t, false);
    return dropped;
}

void teardown_judge(struct teardown *t)
{
    bool stopped = t->held;
    for (size_t i = t->sb->len; i-- > 0;) {
        struct teardown_item *item = &t->items[i];
        if (item->silent)
            continue;
        if (stopped && !(t->held && item->look.found == FOUND_BUSY)) {
            item->outcome = OUTCOME_SKIPPED;
            continue;
        }
        stopped = item->look.found == FOUND_BUSY && !item->settled;
        if (stopped)
            item->outcome = OUTCOME_FAILED;
        else if (is_blocked(t, item))
            item->outcome = item->look.refused ? OUTCOME_REFUSED : OUTCOME_SKIPPED;
        else
            item->outcome = item->look.refused ? OUTCOME_REFUSED : OUTCOME_PLANNED;
    }
}

void teardown_again(struct teardown *t)
{
    for (size_t i = 0; i < t->sb->len; i++)
        if (!t->items[i].verified) {
            t->items[i].outcome = OUTCOME_NONE;
            t->items[i].done = (struct finding){0};
        }
    t->stopped = t->held = false;
    t->error = (struct rbxj_error){0};
    teardown_look(t);
}

size_t teardown_left(const struct teardown *t)
{
    size_t left = 0;
    for (size_t i = 0; i < t->sb->len; i++) {
        enum outcome o = t->items[i].outcome;
        left += !t->items[i].silent && o != OUTCOME_UNDONE && o != OUTCOME_ALREADY_GONE;
    }
    return left;
}

/* Was it a failed replay of this box? A refusal, and a file system that is not there yet, are none (K2, K14).
 */
static bool has_failed(const struct teardown *t)
{
    for (size_t i = 0; i < t->sb->len; i++)
        if (t->items[i].outcome == OUTCOME_FAILED)
            return true;
    return false;
}

void teardown_finish(struct teardown *t)
{
    if (!t->claimed)
        return;
    if (has_failed(t) ||
        t->sb->attempts >= 2) { /* two attempts that never ended count as one failed replay (K34) */
        t->sb->box.failures++;
        (void)journal_update_box(t->reaper->journal, &t->sb->box, NULL);
    }
    t->claimed = journal_settle(t->reaper->journal, t->sb->box.incarnation, NULL, 0, SETTLE_UNCLAIM,
                                &t->error) < 0;
}

/* ---- reports ---- */

static char *name_of(const struct record *r)
{
    char *name = NULL;
    if (r->kind == RBXJ_PROCESS)
        return asprintf(&name, "pid %d", r->process.pid) < 0 ? NULL : name;
    return strdup(r->path);
}

static const char *action_of(const struct record *r)
{
    const struct kind *kind = kind_of(r->kind);
    if (r->kind == RBXJ_LOCK && (r->flags & REC_BEFORE_PRESENT))
        return "restore";
    if (r->flags & REC_RMDIR_ONLY)
        return "rmdir";
    return kind ? kind->action : NULL;
}

static int report_item(const struct teardown *t, const struct teardown_item *item, struct result_entry *ret)
{
    static const struct finding nothing;
    const struct finding *f = item->done.error.code             ? &item->done
                              : item->outcome == OUTCOME_UNDONE ? &nothing
                                                                : &item->look;
    const char *detail = item->done.error.detail[0] ? item->done.error.detail : item->look.error.detail;
    *ret = (struct result_entry){
        .seq = item->record->seq,
        .kind = item->record->kind,
        .name = name_of(item->record),
        .found = item->look.found,
        .outcome = item->outcome,
        .evidence = item->record->flags & REC_EVIDENCE,
        .action = action_of(item->record),
        .time_ns = item->record->time_ns,
        .error = f->error,
    };
    if (!ret->error.code && detail[0]) /* a note on what was undone: OOM kills */
        (void)snprintf(ret->note, sizeof(ret->note), "%s", detail);
    if (item->done.error.code && (item->done.found == FOUND_BUSY || item->done.found == FOUND_FOREIGN))
        ret->found = item->done.found;
    if (item->outcome == OUTCOME_SKIPPED && !ret->error.code && t->error.code)
        ret->error = t->error;
    return ret->name ? 0 : -ENOMEM;
}

int teardown_report(const struct teardown *t, bool oldest_first, struct result_box *ret)
{
    struct result_box box = {.box = t->sb->box};
    box.entries = calloc(t->sb->len + 1, sizeof(*box.entries));
    if (!box.entries)
        return -ENOMEM;
    size_t left = teardown_left(t);
    int r = 0;
    for (size_t k = 0; k < t->sb->len && r == 0; k++) {
        const struct teardown_item *item = &t->items[oldest_first ? k : t->sb->len - 1 - k];
        if (!item->silent)
            r = report_item(t, item, &box.entries[box.len++]);
    }
    if (r < 0) {
        for (size_t k = 0; k < box.len; k++)
            free(box.entries[k].name);
        free(box.entries);
        return r;
    }
    box.state = t->held ? "held" : "stale";
    box.outcome = left == 0 && !t->error.code ? "success" : left == box.len ? "failure" : "partial";
    *ret = box;
    return 0;
}

void teardown_hash(const struct teardown *t, struct XXH3_state_s *state)
{
    (void)XXH3_64bits_update(state, &t->sb->box.incarnation, sizeof(t->sb->box.incarnation));
    (void)XXH3_64bits_update(state, &t->u.lazy_umount, sizeof(t->u.lazy_umount));
    for (size_t i = 0; i < t->sb->len; i++) {
        const struct teardown_item *item = &t->items[i];
        uint64_t seen[] = {item->record->seq, item->silent, item->look.found, item->look.refused,
                           item->look.identity};
        (void)XXH3_64bits_update(state, seen, sizeof(seen));
    }
}
