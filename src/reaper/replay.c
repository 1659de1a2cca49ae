/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The reaper (DESIGN "Replay"): which boxes are stale (replay_choose.c), a look at all of them, what was
 * found is written down, the passes that undo them (replay_passes.c), and what became of it is told.
 */
#include "base/cleanup.h"
#include "base/doc.h"
#include "base/fd.h"
#include "reaper/aftermath.h"
#include "reaper/entry.h"
#include "reaper/events.h"
#include "reaper/handle.h"
#include "reaper/quarantine.h"
#include "reaper/replay_passes.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <xxhash.h>

#define NOTE_MAX 4096

const char *cause_of(const struct teardown *t)
{
    if (t->corrupt)
        return "lock_corruption";
    if (t->sb->box.failures || t->sb->attempts >= 2)
        return "cleanup_failure";
    return t->u.same_boot ? "supervisor_crash" : "system_crash";
}

/* ---- the work ---- */

static void replay_clear(struct replay *p)
{
    for (size_t i = 0; i < p->len; i++)
        teardown_clear(&p->boxes[i]);
    free(p->boxes);
    free(p->causes);
    free(p->claims);
    orphans_clear(&p->orphans);
    mounts_free(p->reaper.mounts);
    adopted_free(p->reaper.adopted);
    snapshot_clear(&p->snapshot);
}

static int look_at_all(struct replay *p, struct rbxj_error *e)
{
    XXH3_state_t *state = XXH3_createState();
    if (!state)
        return error_sys(e, ENOMEM, "replay");
    (void)XXH3_64bits_reset(state);
    for (size_t i = 0; i < p->len; i++) {
        if (replay_plans(p) || i < p->sound)
            teardown_look(&p->boxes[i]);
        else
            teardown_look_later(&p->boxes[i]);
        teardown_hash(&p->boxes[i], state);
        p->causes[i] = cause_of(&p->boxes[i]);
    }
    XXH64_canonical_t hash;
    XXH64_canonicalFromHash(&hash, XXH3_64bits_digest(state));
    (void)XXH3_freeState(state);
    hex_encode(p->plan, hash.digest, sizeof(hash.digest));
    p->changed_plan = p->how->plan && strcmp(p->how->plan, p->plan) != 0;
    return 0;
}

/* A dry run says what would be; a plan that has changed is not done at all. */
static void judge_only(struct replay *p)
{
    for (size_t i = 0; i < p->len; i++) {
        struct teardown *t = &p->boxes[i];
        if (!p->changed_plan) {
            teardown_quiesce(t); /* dry: only who holds its locks */
            teardown_judge(t);
            continue;
        }
        for (size_t k = 0; k < t->sb->len; k++)
            t->items[k].outcome = OUTCOME_SKIPPED;
        (void)error_set(&t->error, RBXJ_E_LEFT, 0, "the plan is %s now: something has changed", p->plan);
    }
}

static int make_result(struct replay *p, struct rbxj_result **ret, struct rbxj_error *e)
{
    struct rbxj_result *result = calloc(1, sizeof(*result));
    if (!result || !(result->boxes = calloc(p->len + 1, sizeof(*result->boxes)))) {
        rbxj_result_free(result);
        return error_sys(e, ENOMEM, "replay: its report");
    }
    for (size_t i = 0; i < p->len; i++) {
        struct result_box *box = &result->boxes[i];
        if (teardown_report(&p->boxes[i], false, box) < 0) {
            rbxj_result_free(result);
            return error_sys(e, ENOMEM, "replay: its report");
        }
        box->cause = p->causes[i];
        if (p->how->dry_run)
            box->outcome = "planned";
        result->len++;
    }
    memcpy(result->plan, p->plan, sizeof(result->plan));
    hex_encode(result->boot, p->reaper.boot_id, 16);
    result->started_ns = p->started_ns;
    result->duration_ns = now_monotonic_ns() - p->started_mono;
    result->dry_run = p->how->dry_run;
    result->live = p->live;
    *ret = result;
    return 0;
}

/* Is one of its boxes older than the salvage that made this journal? */
static bool is_salvaged(const struct replay *p)
{
    for (size_t i = 0; i < p->len; i++)
        if (p->boxes[i].sb->box.begun_ns <= p->snapshot.salvaged_ns)
            return true;
    return false;
}

/* For the incident: the reason that was given, and where the journal came from. Empty: nothing. */
static void make_note(const struct replay *p, char *ret, size_t size)
{
    const char *reason = p->how->assume_dead ? p->how->reason : "";
    char when[32];
    if (is_salvaged(p)) {
        doc_format_time(when, p->snapshot.salvaged_ns);
        (void)snprintf(ret, size, "from a journal that was salvaged at %s%s%s", when, *reason ? "; " : "",
                       reason);
    } else {
        (void)snprintf(ret, size, "%s", reason);
    }
}

/* The incident is written before the first undo: a reaper that dies half-way leaves a trace. */
static int undo_and_tell(struct replay *p, struct rbxj_result **ret, struct rbxj_error *e)
{
    struct rbxj_result *found = NULL, *result = NULL;
    char note[NOTE_MAX];
    struct aftermath after = {.reaper = &p->reaper, .procedure = p->procedure, .note = note};
    make_note(p, note, sizeof(note));
    incident_new_id(after.id);
    (void)make_result(p, &found, NULL);
    aftermath_begin(&after, p->boxes, p->len, found); /* of no box, too: it closes incidents that are over */
    replay_find_orphans(p, 0, replay_plans(p) ? p->len : p->sound);
    replay_undo(p);
    after.late = now_monotonic_ns() >= p->reaper.deadline_ns;
    int r = make_result(p, &result, e);
    aftermath_end(&after, p->boxes, p->len, result);
    replay_tell_orphans(p);
    rbxj_result_free(found);
    /* its last act: the disk learns what is gone (K20). If it can't, nothing is lost: the next replay finds
     * it gone (K19) */
    struct rbxj_error flush = {0};
    if (journal_flush(p->reaper.journal, &flush) < 0)
        event_send(p->reaper.config,
                   &(struct event){.event = "note", .priority = LOG_WARNING, .errnum = flush.errnum},
                   "replay: %s", flush.message);
    if (r == 0)
        *ret = result;
    return r;
}

static int run(struct replay *p, struct rbxj_result **ret, struct rbxj_error *e)
{
    int r = replay_choose(p, e);
    if (r == 0)
        r = look_at_all(p, e);
    if (r < 0)
        return r;
    if (p->how->dry_run || p->changed_plan) {
        judge_only(p);
        return make_result(p, ret, e);
    }
    return undo_and_tell(p, ret, e);
}

/* ---- the two ways in ---- */

static int dry_run(struct replay *p, struct rbxj_result **ret, struct rbxj_error *e)
{
    int r = replay_foretell(p, e);
    return r < 0 ? r : run(p, ret, e);
}

/* Record locks do not exclude two threads of one process. In a child of fork() nobody reaps, whoever did in
 * its parent. */
static struct forked_mutex reaping_mutex;
static bool reaping;

/* What it was. */
static bool set_reaping(bool value)
{
    bool before = !forked_lock(&reaping_mutex) && reaping;
    reaping = value;
    forked_unlock(&reaping_mutex);
    return before;
}

static int take_reaper_lock(const struct config *config, int *ret_fd, struct rbxj_error *e)
{
    char path[RECORD_PATH_MAX + 16];
    pid_t pid = 0;
    (void)snprintf(path, sizeof(path), "%s/reaper.lock", config->runtime_dir);
    _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_sys(e, errno, "%s", path);
    int r = fd_record_lock(fd, F_WRLCK, 0);
    if (r == -EAGAIN) {
        (void)fd_record_holder(fd, 0, &pid);
        return error_set(e, RBXJ_E_BUSY, EBUSY, "another reaper runs, pid %d", pid);
    }
    if (r < 0)
        return error_sys(e, -r, "%s", path);
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* Without a runtime directory nobody has a journal of this boot. */
static int try_to_keep_out(const struct config *config, int *ret_fd, struct rbxj_error *e)
{
    struct stat st;
    if (set_reaping(true))
        return error_set(e, RBXJ_E_BUSY, EBUSY, "another reaper runs in this process");
    bool none = stat(config->runtime_dir, &st) < 0 && errno == ENOENT;
    int r = none ? 0 : take_reaper_lock(config, ret_fd, e);
    if (r < 0)
        (void)set_reaping(false);
    return r;
}

int replay_keep_out(const struct config *config, int *ret_fd, struct rbxj_error *e)
{
    int64_t deadline = now_monotonic_ns() + config->timeout_ns;
    int r;
    *ret_fd = -1;
    while ((r = try_to_keep_out(config, ret_fd, e)) == -RBXJ_E_BUSY && now_monotonic_ns() < deadline) {
        error_clear(e);
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    return r;
}

void replay_let_in(int *fd)
{
    cleanup_closep(fd);
    (void)set_reaping(false);
}

static void note_damage(const struct config *config, const struct rbxj_error *e)
{
    char note[sizeof(e->message) + sizeof(e->detail) + 2];
    (void)snprintf(note, sizeof(note), "%s%s%s", e->message, e->detail[0] ? "; " : "", e->detail);
    incident_note(config, "quarantine", "journal_corruption", NULL, 0, false, note);
}

void replay_quarantine_damaged(const struct config *config, struct rbxj_error *e)
{
    char where[RECORD_PATH_MAX];
    if (!error_is_corruption(e))
        return;
    bool aside = journal_set_aside(config->state_dir, config->runtime_dir, where, sizeof(where), NULL) > 0;
    if (aside)
        error_detail(e, "moved aside to %s; see rbxj forensics", where);
    event_send(config,
               &(struct event){.event = "journal_corruption",
                               .priority = LOG_CRIT,
                               .name = aside ? where : NULL,
                               .errnum = e->errnum},
               "%s", e->message);
    if (aftermath_quarantine(config, NULL, QUARANTINE_CORRUPTION, NULL, e->message, NULL) > 0)
        note_damage(config, e); /* once, however often it is found until somebody has looked into it */
}

/* Units condition on the flag, and a boot takes it away. */
static void repair_quarantine(const struct config *config)
{
    struct rbxj_error e = {0};
    if (quarantine_repair(config, &e) < 0)
        event_send(config, &(struct event){.event = "note", .priority = LOG_WARNING, .errnum = e.errnum},
                   "the quarantine could not be made whole: %s", e.message);
}

/* Before LMDB sees them: what was damaged in place since they were opened last (I9). Whatever else is wrong,
 * opening them says better. ret_looked: both are sound, as many as there are. */
static int look_first(const struct config *config, bool *ret_looked, struct rbxj_error *e)
{
    struct journal_size boot = {0}, disk = {0};
    struct rbxj_error error = {0};
    if (journal_of_process(config->state_dir, config->runtime_dir))
        return 0; /* it is open: see journal_validate() */
    int r = journal_sizes(config->state_dir, config->runtime_dir, &boot, &disk, &error);
    *ret_looked = r == 0;
    return r == -RBXJ_E_JOURNAL_DAMAGED ? error_pass(e, &error) : 0;
}

/* A damaged journal was moved aside, and what is here now is not known to be what was salvaged of it, as
 * where a clock was ahead: nothing is undone before a person has looked into it. */
static int refuse_after_damage(const struct replay *p, struct rbxj_error *e)
{
    struct quarantine q;
    int r = quarantine_read(p->reaper.config, &q);
    if (r < 0)
        return error_sys(e, -r, "why the worker is quarantined");
    int64_t salvaged = p->snapshot.salvaged_ns;
    if (!q.there || q.reason != QUARANTINE_CORRUPTION ||
        (salvaged > q.since_ns && salvaged <= now_realtime_ns()))
        return 0;
    r = error_set(e, RBXJ_E_JOURNAL_DAMAGED, EUCLEAN,
                  "journal: was damaged, and nobody has looked into it yet");
    error_detail(e, "see rbxj forensics; rbxj health --unquarantine ends this");
    return r;
}

static int real_run(struct replay *p, struct rbxj_result **ret, struct rbxj_error *e)
{
    const struct config *config = p->reaper.config;
    repair_quarantine(config);
    int r = snapshot_is_nothing(config->state_dir, config->runtime_dir, e);
    if (r < 0)
        replay_quarantine_damaged(config, e);
    if (r < 0)
        return r;
    if (r > 0) { /* nothing was ever journaled, and nothing is made */
        p->snapshot.nothing = true;
        p->changed_plan = p->how->plan != NULL;
        return make_result(p, ret, e);
    }
    if (set_reaping(true)) /* before the journal: the other one's would be closed under us */
        return error_set(e, RBXJ_E_BUSY, EBUSY, "another reaper runs in this process");
    struct journal *own = NULL, *j = NULL;
    int lock = -1;
    bool looked = false;
    r = look_first(config, &looked, e);
    if (r == 0)
        r = handle_borrow_journal(config, &j, &own, e);
    if (r == 0)
        r = take_reaper_lock(config, &lock, e);
    if (r == 0 && !looked)
        r = journal_validate(j, e);
    if (r == 0)
        r = journal_count_attempts(j, e);
    p->reaper.journal = j;
    if (r == 0)
        r = replay_claim(p, e);
    if (r == 0)
        r = refuse_after_damage(p, e);
    bool damaged = r == -RBXJ_E_JOURNAL_DAMAGED;
    if (r == 0)
        r = run(p, ret, e);
    if (p->claims_len && !p->busy.code) /* what was not even tried, and what now has a living box in it */
        journal_unclaim_all(j, p->claims, p->claims_len);
    cleanup_closep(&lock);
    journal_close(own);
    if (damaged) /* only now can it be moved aside */
        replay_quarantine_damaged(config, e);
    (void)set_reaping(false);
    return r;
}

int replay_check_how(const struct rbxj_replay *how, struct rbxj_error *e)
{
    for (size_t i = 0; i < how->boxes_len; i++)
        if (!box_name_is_valid(how->boxes[i]))
            return error_set(e, RBXJ_E_BAD_REQUEST, 0, "box %s: is no name of a box", how->boxes[i]);
    if (how->assume_dead && (!how->boxes_len || !how->reason || !how->reason[0]))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "assume-dead needs a box and a reason");
    bool in_time = how->timeout >= 0 && how->timeout <= 1e6; /* no number is neither */
    if (how->lazy_umount < 0 || how->lazy_umount > 2 || !in_time)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "a policy or time that makes no sense");
    return 0;
}

int replay_run(const struct config *config, const struct rbxj_replay *how, const char *procedure,
               struct rbxj_result **ret, struct rbxj_error *e)
{
    struct rbxj_result *result = NULL;
    struct rbxj_error own = {0};
    e = e ? e : &own;
    struct replay p = {.how = how,
                       .procedure = how->boot ? "boot" : procedure,
                       .started_ns = now_realtime_ns(),
                       .started_mono = now_monotonic_ns()};
    p.reaper = (struct reaper){
        .config = config,
        .snapshot = &p.snapshot,
        .deadline_ns = how->boot ? p.started_mono + config->boot_deadline_ns : INT64_MAX,
        .timeout_ns = config->timeout_ns,
        .lazy_umount = how->lazy_umount ? how->lazy_umount == 2 : config->lazy_umount,
        .foretells = how->dry_run || how->plan,
    };
    int r = replay_check_how(how, e);
    if (r == 0 && how->timeout > 0)
        p.reaper.timeout_ns = (int64_t)(how->timeout * 1e9);
    if (r == 0 && (r = procid_boot(p.reaper.boot_id)) < 0)
        r = error_sys(e, -r, "boot id");
    if (r == 0)
        r = how->dry_run ? dry_run(&p, &result, e) : real_run(&p, &result, e);
    bool changed = p.changed_plan;
    replay_clear(&p);
    if (r < 0 || !result)
        return r;
    struct rbxj_result_info info;
    rbxj_result_info(result, &info);
    bool left = info.left > 0;
    for (size_t i = 0; i < result->len; i++)
        left = left || (!how->dry_run && strcmp(result->boxes[i].outcome, "success") != 0);
    *ret = result;
    return left || changed;
}

int rbxj_replay(const struct rbxj_options *options, const struct rbxj_replay *how, struct rbxj_result **ret,
                struct rbxj_error *error)
{
    _cleanup_(entry_leave) struct entry entry = entry_look();
    error_clear(error);
    _cleanup_(config_clear) struct config config = {0};
    int r = config_load(options, &config, error);
    return r < 0 ? r : replay_run(&config, how, "replay", ret, error);
}
