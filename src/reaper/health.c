/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The worker's health, from evidence: what the journal names, what is found of it, the quarantine, and what
 * the incidents tell.
 *
 *   healthy       nothing of the dead is there
 *   unhealthy     a stale or held box, one of which nobody knows whether it lives, a boot journal that was
 *                 lost within its boot (K21), or a journal that can't be used though its content is not
 *                 wrong: it is another's, or its disk or the state directory is missing (K33), or there is no
 *                 room to make it, or for one more box in it. A box that only waits for its file system is
 *                 none, for a day and within one boot (K14)
 *   quarantined   the quarantine is set (K31), or the journal is damaged
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/entry.h"
#include "reaper/escalation.h"
#include "reaper/evidence.h"
#include "reaper/handle.h"
#include "reaper/incident.h"
#include "reaper/quarantine.h"
#include "reaper/result.h"

#include <string.h>

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
    int64_t waited = b->waiting_since_ns ? now_realtime_ns() - b->waiting_since_ns : 0;
    return this_boot && waited < DAY_NS &&
           waited > -DAY_NS; /* the clock may have been set back, or was wrong */
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
    struct incident_counts counts;
    int r = incidents_summary(config, now_realtime_ns() - DAY_NS, &counts, last, sizeof(last));
    if (!h->last_cleanup_error[0])
        (void)strcpy(h->last_cleanup_error, last);
    h->escalate |= escalation_of(config, h, &counts);
    return r;
}

/* ---- what is seen besides the boxes ---- */

struct around {
    const struct config *config;
    struct evidence *ev;
    bool looked;
};

static int look_around(void *data, struct snapshot *s, const enum liveness *live, struct rbxj_error *e)
{
    struct around *around = data;
    int r = room_look(around->config, s, around->ev);
    around->looked = true;
    if (r == 0)
        r = processes_look(around->config, s, live, around->ev);
    return r < 0 ? error_sys(e, -r, "health: what is around the boxes") : 0;
}

static int look_at_journals(const struct config *config, const struct journal_sizes *sizes,
                            struct evidence *ev)
{
    int r = room_look_at_journal(config, "boot", &sizes->boot, ev);
    return r < 0 ? r : room_look_at_journal(config, "disk", &sizes->disk, ev);
}

static int add_foreign(const struct rbxj_result *boxes, struct evidence *ev)
{
    int r = 0;
    for (size_t i = 0; i < boxes->len; i++) {
        const struct result_box *box = &boxes->boxes[i];
        for (size_t k = 0; r == 0 && strcmp(box->state, "live") != 0 && k < box->len; k++)
            if (box->entries[k].found == FOUND_FOREIGN && !box->entries[k].not_mounted)
                r = evidence_add(ev, EVIDENCE_FOREIGN, "box %s: %.300s", box->box.name,
                                 box->entries[k].error.message);
    }
    return r;
}

/* What of it makes unhealthy. */
static void judge_evidence(const struct evidence *ev, struct rbxj_health *h)
{
    const char *orphan = evidence_first(ev, EVIDENCE_ORPHAN), *full = evidence_first(ev, EVIDENCE_EXHAUSTED);
    h->orphan_processes = ev->counts[EVIDENCE_ORPHAN];
    h->zombie_processes = ev->counts[EVIDENCE_ZOMBIE];
    h->blocked_processes = ev->counts[EVIDENCE_BLOCKED];
    h->foreign_resources = ev->counts[EVIDENCE_FOREIGN];
    h->exhausted_resources = ev->counts[EVIDENCE_EXHAUSTED];
    h->not_looked_at = ev->counts[EVIDENCE_UNKNOWN];
    if (h->orphan_processes || h->exhausted_resources)
        h->status = "unhealthy";
    if (orphan && !h->last_cleanup_error[0])
        (void)snprintf(h->last_cleanup_error, sizeof(h->last_cleanup_error), "orphan_process_detected: %s",
                       orphan);
    if (full && !h->last_cleanup_error[0])
        (void)snprintf(h->last_cleanup_error, sizeof(h->last_cleanup_error), "resource_exhaustion: %s", full);
}

/* ---- all of it ---- */

/* The boxes, and what is around them. 0, JOURNAL_DAMAGED with why in damage, or another negative code. */
static int look_at_boxes(struct around *around, struct rbxj_health *h, struct counters *ret_counters,
                         struct rbxj_error *damage, struct rbxj_error *e)
{
    struct visitor visitor = {look_around, around};
    struct rbxj_result *boxes = NULL;
    int r = inspect_with(around->config, NULL, ret_counters, &visitor, &boxes, damage);
    if (r < 0 && r != -RBXJ_E_JOURNAL_DAMAGED)
        return error_pass(e, damage);
    if (r == 0 && !judge_boxes(boxes, h))
        h->status = "unhealthy";
    int want = boxes ? add_foreign(boxes, around->ev) : 0;
    rbxj_result_free(boxes);
    if (want == 0 && !around->looked) /* of a damaged journal's boxes nobody knows */
        want = room_look(around->config, NULL, around->ev);
    return want < 0 ? error_sys(e, -want, "health") : r;
}

/* Would a begin be let through? 0, a negative code with why not in *ret_why, or one without: it can't be
 * known. */
static int look_whether_usable(const struct config *config, const struct journal_sizes *sizes,
                               struct rbxj_error *ret_why, struct rbxj_error *e)
{
    struct rbxj_error why = {0};
    int r = journal_check_usable(config->state_dir, config->runtime_dir, config->preallocate, &sizes->boot,
                                 &sizes->disk, &why);
    /* without an errno: its directory is none to be trusted, whoever asks */
    bool known = r == -RBXJ_E_JOURNAL_DAMAGED || r == -RBXJ_E_DISK_FULL ||
                 (r == -RBXJ_E_IO && !errno_is_want(why.errnum)) ||
                 (r == -RBXJ_E_PERMISSION && (!why.errnum || why.errnum == EROFS || why.errnum == EPERM)) ||
                 (r == -RBXJ_E_BAD_REQUEST && !why.errnum);
    return r == 0 ? 0 : error_pass(known ? ret_why : e, &why);
}

static int look_at_all(struct around *around, const struct journal_sizes *sizes, struct rbxj_health *ret,
                       struct counters *ret_counters, struct rbxj_error *e)
{
    const struct config *config = around->config;
    struct rbxj_health h = {.status = "healthy", .can_accept_submissions = 1};
    struct rbxj_error error = {0}, unsized = {0};
    struct journal_sizes own;
    struct quarantine q;
    int r = look_at_boxes(around, &h, ret_counters, &error, e);
    if (r < 0 && r != -RBXJ_E_JOURNAL_DAMAGED)
        return r;
    if (!sizes) {
        (void)journal_sizes(config->state_dir, config->runtime_dir, &own.boot, &own.disk, &unsized);
        sizes = &own;
    }
    if (errno_is_want(unsized.errnum))
        return error_pass(e, &unsized);
    if (r == 0)
        r = look_whether_usable(config, sizes, &error, e);
    if (r < 0 && !error.code)
        return r;
    if (error_is_corruption(&unsized) && !error.code) /* of the disk journal */
        (void)error_pass(&error, &unsized);
    if (look_at_journals(config, sizes, around->ev) < 0)
        return error_sys(e, ENOMEM, "health");
    judge_evidence(around->ev, &h);
    if (r == 0 && sizes->disk.lost) {
        h.status = "unhealthy";
        (void)snprintf(h.last_cleanup_error, sizeof(h.last_cleanup_error),
                       "journal_lost: %u boot journals were lost while they were in use", sizes->disk.lost);
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
        (void)snprintf(h.last_cleanup_error, sizeof(h.last_cleanup_error), "%s: %s",
                       r == -RBXJ_E_JOURNAL_DAMAGED ? "journal_damaged"
                       : r == -RBXJ_E_IO            ? "journal_missing"
                                                    : "journal_unusable",
                       error.message);
    }
    if (q.there)
        set_quarantine(&h, &q);
    if (q.there && q.reason == QUARANTINE_CORRUPTION)
        h.escalate = RBXJ_ESCALATE_CORRUPTION;
    else if (r < 0)
        h.escalate = RBXJ_ESCALATE_JOURNAL;
    int history = add_history(config, &h);
    if (history < 0)
        return error_sys(e, -history, "health: the incidents");
    *ret = h;
    return 0;
}

int health_look(const struct config *config, const struct journal_sizes *sizes, struct rbxj_health *ret,
                struct counters *ret_counters, struct evidence *ev, struct rbxj_error *e)
{
    struct evidence own = {0};
    struct around around = {.config = config, .ev = ev ? ev : &own};
    int r = look_at_all(&around, sizes, ret, ret_counters, e);
    evidence_clear(&own);
    return r;
}

int rbxj_health(const struct rbxj_options *options, struct rbxj_health *ret, struct rbxj_error *error)
{
    _cleanup_(entry_leave) struct entry entry = entry_look();
    error_clear(error);
    _cleanup_(config_clear) struct config config = {0};
    int r = config_load(options, &config, error);
    return r < 0 ? r : health_look(&config, NULL, ret, NULL, NULL, error);
}
