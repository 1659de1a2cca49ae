/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The worker's health, from evidence: what the journal names, what is found of it, the quarantine, and what
 * the incidents tell.
 *
 *   healthy       nothing of the dead is there
 *   unhealthy     a stale or held box, one of which nobody knows whether it lives, a boot journal that was
 *                 lost within its boot (K21), or a journal that can't be used though its content is not
 *                 wrong: it is another's, or its disk is missing (K33). A box that only waits for its file
 *                 system is none, for a day and within one boot (K14)
 *   quarantined   the quarantine is set (K31), or the journal is damaged
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/aftermath.h"
#include "reaper/events.h"
#include "reaper/handle.h"
#include "reaper/quarantine.h"

#include <string.h>
#include <syslog.h>

#define DAY_NS (24LL * 3600 * 1000000000)

/* ---- looking ---- */

static bool is_left(const struct result_entry *entry)
{
    return entry->found != FOUND_GONE;
}

/* Is all that is left of it what is not mounted yet, and not for too long (K14)? */
static bool only_waits(const struct result_box *box)
{
    static const uint8_t none[16];
    uint8_t boot[16];
    const struct box *b = &box->box;
    size_t waiting = 0;
    for (size_t k = 0; k < box->len; k++) {
        waiting += box->entries[k].not_mounted;
        if (is_left(&box->entries[k]) && !box->entries[k].not_mounted)
            return false;
    }
    if (!waiting || procid_boot(boot) < 0)
        return false;
    bool this_boot = memcmp(b->waiting_boot, boot, 16) == 0 || memcmp(b->waiting_boot, none, 16) == 0;
    return this_boot && (!b->waiting_since_ns || now_realtime_ns() - b->waiting_since_ns < DAY_NS);
}

/* Counts the boxes; returns whether they are in order. */
static bool judge_boxes(const struct rbxj_result *boxes, struct rbxj_health *h)
{
    bool well = true;
    for (size_t i = 0; i < boxes->len; i++) {
        const struct result_box *box = &boxes->boxes[i];
        bool live = strcmp(box->state, "live") == 0, unknown = strcmp(box->state, "unknown") == 0,
             held = strcmp(box->state, "held") == 0;
        h->live_boxes += live;
        h->unknown_boxes += unknown;
        h->held_boxes += held;
        h->stale_boxes += !live && !unknown;
        if (!live && box->box.failures > h->failed_cleanup_count)
            h->failed_cleanup_count = box->box.failures;
        well = well && (live || (!unknown && only_waits(box)));
        for (size_t k = 0; held && !h->last_cleanup_error[0] && k < box->len; k++)
            if (box->entries[k].found == FOUND_BUSY)
                (void)snprintf(h->last_cleanup_error, sizeof(h->last_cleanup_error),
                               "orphan_process_detected: %.250s; %.150s", box->entries[k].error.message,
                               box->entries[k].error.detail);
    }
    return well;
}

static void set_quarantine(struct rbxj_health *h, const struct quarantine *q)
{
    h->status = "quarantined";
    h->quarantine_reason = quarantine_name(q->reason);
    h->quarantine_ns = q->since_ns;
    h->can_accept_submissions = 0;
    (void)snprintf(h->quarantine_detail, sizeof(h->quarantine_detail), "%s", q->detail);
}

/* What the files beside the journal tell. */
static int add_history(const struct config *config, struct rbxj_health *h)
{
    char last[sizeof(h->last_cleanup_error)] = "";
    size_t today = 0;
    int r = incidents_summary(config, now_realtime_ns() - DAY_NS, &today, last, sizeof(last));
    if (!h->last_cleanup_error[0])
        (void)strcpy(h->last_cleanup_error, last);
    h->escalate = h->escalate || h->failed_cleanup_count > (uint32_t)config->escalate_failures ||
                  today > (size_t)config->escalate_per_day;
    return r;
}

int health_look(const struct config *config, const struct journal_size *disk, struct rbxj_health *ret,
                struct counters *ret_counters, struct rbxj_error *e)
{
    struct rbxj_health h = {.status = "healthy", .can_accept_submissions = 1};
    struct rbxj_error error = {0}, sizes = {0};
    struct rbxj_result *boxes = NULL;
    struct journal_size own;
    struct quarantine q;
    int r = inspect(config, NULL, ret_counters, &boxes, &error);
    if (r < 0 && r != -RBXJ_E_JOURNAL_DAMAGED)
        return error_pass(e, &error);
    if (r == 0 && !judge_boxes(boxes, &h))
        h.status = "unhealthy";
    rbxj_result_free(boxes);
    if (r == 0 && !disk && journal_sizes(config->state_dir, config->runtime_dir, NULL, &own, &sizes) == 0)
        disk = &own;
    if (errno_is_want(sizes.errnum))
        return error_pass(e, &sizes);
    if (error_is_corruption(&sizes) && !error.code) /* of the disk journal */
        (void)error_pass(&error, &sizes);
    if (r == 0 && disk && disk->lost) {
        h.status = "unhealthy";
        (void)snprintf(h.last_cleanup_error, sizeof(h.last_cleanup_error),
                       "journal_lost: %u boot journals were lost while they were in use", disk->lost);
    }
    int set = quarantine_read(config, &q);
    if (set < 0)
        return error_sys(e, -set, "why the worker is quarantined");
    if (error_is_corruption(&error) && (!q.there || q.reason != QUARANTINE_CORRUPTION)) {
        q = (struct quarantine){.there = true, .reason = QUARANTINE_CORRUPTION};
        (void)snprintf(q.detail, sizeof(q.detail), "%s", error.message);
    }
    if (r < 0) {
        h.status = "unhealthy";
        h.can_accept_submissions = 0;
        (void)snprintf(h.last_cleanup_error, sizeof(h.last_cleanup_error), "journal_damaged: %s",
                       error.message);
    }
    if (q.there)
        set_quarantine(&h, &q);
    h.escalate = r < 0;
    int history = add_history(config, &h);
    if (history < 0)
        return error_sys(e, -history, "health: the incidents");
    *ret = h;
    return 0;
}

int rbxj_health(const struct rbxj_options *options, struct rbxj_health *ret, struct rbxj_error *error)
{
    error_clear(error);
    _cleanup_(config_clear) struct config config = {0};
    int r = config_load(options, &config, error);
    return r < 0 ? r : health_look(&config, NULL, ret, NULL, error);
}

int rbxj_verify_clean(const struct rbxj_options *options, struct rbxj_clean *ret, struct rbxj_error *error)
{
    error_clear(error);
    _cleanup_(config_clear) struct config config = {0};
    struct rbxj_clean clean = {.clean = 1};
    struct rbxj_result *boxes = NULL;
    struct quarantine q = {0};
    int r = config_load(options, &config, error);
    if (r == 0)
        r = inspect(&config, NULL, NULL, &boxes, error);
    if (r < 0)
        return r;
    /* what a damaged journal knew may be there, and nobody has looked into it yet */
    if (quarantine_read(&config, &q) < 0 || (q.there && q.reason == QUARANTINE_CORRUPTION))
        clean.clean = 0;
    uint32_t *const counts[] = {[RBXJ_LOCK] = &clean.locks,
                                [RBXJ_CGROUP] = &clean.cgroups,
                                [RBXJ_MOUNT] = &clean.mounts,
                                [RBXJ_TMPDIR] = &clean.temp_dirs,
                                [RBXJ_PROCESS] = &clean.processes};
    for (size_t i = 0; boxes && i < boxes->len; i++) {
        const struct result_box *box = &boxes->boxes[i];
        if (strcmp(box->state, "live") == 0)
            continue;
        clean.clean = 0;
        for (size_t k = 0; k < box->len; k++)
            if (is_left(&box->entries[k]) && kind_of(box->entries[k].kind))
                (*counts[box->entries[k].kind])++;
    }
    rbxj_result_free(boxes);
    *ret = clean;
    return 0;
}

/* ---- acting ---- */

/* The journal, with what is in it, if there is one to which something may be written: 0, 1 there is none, or
 * an error. Close *ret_own and clear *ret whatever it returns. */
static int open_sound(const struct config *config, struct journal **ret_journal, struct journal **ret_own,
                      struct snapshot *ret, struct rbxj_error *e)
{
    int r = snapshot_is_nothing(config->state_dir, config->runtime_dir, e);
    if (r == 0)
        r = handle_borrow_journal(config, ret_journal, ret_own, e);
    if (r == 0)
        r = journal_snapshot(*ret_journal, ret, e);
    if (r == 0)
        r = snapshot_check(ret, e);
    return r;
}

/* Releasing counts failures from none again (K31); a person has looked into lost boot journals, too (K21). */
static int reset_counts(const struct config *config, bool audited, struct rbxj_error *e)
{
    struct journal *j = NULL, *own = NULL;
    struct snapshot s = {0};
    int r = open_sound(config, &j, &own, &s, e);
    if (r == 0 && audited)
        r = journal_audited(j, e);
    for (size_t i = 0; r == 0 && i < s.len; i++) {
        if (!s.boxes[i].box.failures)
            continue;
        s.boxes[i].box.failures = 0;
        r = journal_update_box(j, &s.boxes[i].box, e);
        if (r == -RBXJ_E_NO_SUCH_BOX) { /* it has ended meanwhile */
            *e = (struct rbxj_error){0};
            r = 0;
        }
    }
    if (r < 0)
        event_send(config, &(struct event){.event = "note", .priority = LOG_WARNING, .errnum = e->errnum},
                   "the counts of failures stay: %s", e->message);
    snapshot_clear(&s);
    journal_close(own);
    return r;
}

/* By a person: whatever it is, and the counts begin anew even where there was none. 1: it was released. */
static int release(const struct config *config, enum quarantine_by by, const char *why, struct rbxj_error *e)
{
    struct quarantine q;
    struct rbxj_error counts = {0};
    int r = quarantine_leave(config, by, &q, e);
    if (r > 0 || (r == 0 && by == QUARANTINE_BY_PERSON))
        (void)reset_counts(config, by != QUARANTINE_BY_RECOVERY, &counts);
    int told = by != QUARANTINE_BY_RECOVERY && errno_is_want(counts.errnum) ? error_pass(e, &counts) : r;
    if (r <= 0)
        return r < 0 ? r : told;
    event_send(config,
               &(struct event){
                   .event = "worker_released", .priority = LOG_NOTICE, .cause = quarantine_name(q.reason)},
               "%s: %s", quarantine_name(q.reason), why);
    incident_note(config, "unquarantine", quarantine_name(q.reason), NULL, 0, false, why);
    return told; /* once more resets them */
}

static int check_reason(const char *reason, struct rbxj_error *e)
{
    return reason && reason[0] ? 0 : error_set(e, RBXJ_E_BAD_REQUEST, 0, "quarantine: a reason is needed");
}

int rbxj_quarantine(const struct rbxj_options *options, const char *reason, struct rbxj_error *error)
{
    error_clear(error);
    _cleanup_(config_clear) struct config config = {0};
    struct journal *j = NULL, *own = NULL;
    struct snapshot snapshot = {0};
    struct rbxj_error ignored = {0};
    int r = check_reason(reason, error);
    if (r == 0)
        r = config_load(options, &config, error);
    if (r < 0)
        return r;
    if (open_sound(&config, &j, &own, &snapshot, &ignored) !=
        0) /* it is entered all the same, only not counted */
        j = NULL;
    r = aftermath_quarantine(&config, j, QUARANTINE_MANUAL, NULL, reason, error);
    if (r == 0)
        incident_note(&config, "quarantine", quarantine_name(QUARANTINE_MANUAL), NULL, 0, false, reason);
    snapshot_clear(&snapshot);
    journal_close(own);
    return r;
}

int rbxj_unquarantine(const struct rbxj_options *options, const char *reason, struct rbxj_error *error)
{
    error_clear(error);
    _cleanup_(config_clear) struct config config = {0};
    int r = check_reason(reason, error);
    if (r == 0)
        r = config_load(options, &config, error);
    if (r == 0)
        r = release(&config, QUARANTINE_BY_PERSON, reason, error);
    return r < 0 ? r : 0;
}

/* Released only if nothing of any dead box is left, whatever this recovery was asked to look at. 1: it was.
 */
static int release_if_clean(const struct config *config, const struct rbxj_health *h, enum quarantine_by by,
                            const char *why, struct rbxj_error *e)
{
    if (h->stale_boxes || h->unknown_boxes)
        return 0;
    return release(config, by, why, e);
}

/* A replay, and what becomes of the quarantine then. */
static int recover(const struct config *config, const struct rbxj_replay *how, const char *procedure,
                   enum quarantine_by by, const char *why, struct rbxj_result **ret_result,
                   struct rbxj_health *ret_health, struct rbxj_error *error)
{
    struct rbxj_result *result = NULL;
    struct rbxj_health health;
    struct rbxj_error second = {0};
    int r = replay_run(config, how, procedure, &result, error);
    int h = health_look(config, NULL, &health, NULL, &second);
    if (h == 0 && r >= 0) {
        int released = release_if_clean(config, &health, by, why, error);
        if (released < 0)
            r = released;
        if (released > 0)
            h = health_look(config, NULL, &health, NULL, &second);
    }
    if (r >= 0 && h < 0)
        r = error_pass(error, &second);
    if (h == 0)
        *ret_health = health;
    if (ret_result)
        *ret_result = steal_ptr(result);
    rbxj_result_free(result);
    return r;
}

int rbxj_recover(const struct rbxj_options *options, const struct rbxj_replay *how,
                 struct rbxj_result **ret_result, struct rbxj_health *ret_health, struct rbxj_error *error)
{
    error_clear(error);
    static const struct rbxj_replay all;
    _cleanup_(config_clear) struct config config = {0};
    int r = config_load(options, &config, error);
    return r < 0 ? r
                 : recover(&config, how ? how : &all, "recover", QUARANTINE_BY_RECOVERY,
                           "a recovery left nothing", ret_result, ret_health, error);
}

int health_reset(const struct config *config, const struct rbxj_replay *how, bool stays,
                 struct rbxj_result **ret_result, struct rbxj_health *ret_health, struct rbxj_error *e)
{
    return recover(config, how, "reset", stays ? QUARANTINE_BY_RECOVERY : QUARANTINE_BY_RESET,
                   "a reset left nothing", ret_result, ret_health, e);
}
