/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is done about the worker's health: the quarantine by hand, and the recovery, after which the worker is
 * well only as far as that was seen.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/aftermath.h"
#include "reaper/baseline.h"
#include "reaper/entry.h"
#include "reaper/escalation.h"
#include "reaper/events.h"
#include "reaper/evidence.h"
#include "reaper/handle.h"
#include "reaper/incident.h"
#include "reaper/quarantine.h"

#include <string.h>
#include <syslog.h>

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

/* Counted where there is a journal that is sound. 1: it is news, 0: the worker was quarantined before. */
static int enter(const struct config *config, enum quarantine_reason reason, const char *detail,
                 struct rbxj_error *e)
{
    struct journal *j = NULL, *own = NULL;
    struct snapshot snapshot = {0};
    struct rbxj_error ignored = {0};
    if (open_sound(config, &j, &own, &snapshot, &ignored) != 0)
        j = NULL;
    int r = aftermath_quarantine(config, j, (int)reason, NULL, detail, e);
    snapshot_clear(&snapshot);
    journal_close(own);
    return r;
}

/* By hand: never without a reason. */
static int load_by_hand(const struct rbxj_options *options, const char *reason, struct config *ret,
                        struct rbxj_error *e)
{
    error_clear(e);
    if (!reason || !reason[0])
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "quarantine: a reason is needed");
    return config_load(options, ret, e);
}

int rbxj_quarantine(const struct rbxj_options *options, const char *reason, struct rbxj_error *error)
{
    _cleanup_(entry_leave) struct entry entry = entry_look();
    _cleanup_(config_clear) struct config config = {0};
    int r = load_by_hand(options, reason, &config, error);
    if (r == 0)
        r = enter(&config, QUARANTINE_MANUAL, reason, error);
    if (r >= 0)
        incident_note(&config, "quarantine", quarantine_name(QUARANTINE_MANUAL), NULL, 0, false, reason);
    return r < 0 ? r : 0;
}

int rbxj_unquarantine(const struct rbxj_options *options, const char *reason, struct rbxj_error *error)
{
    _cleanup_(entry_leave) struct entry entry = entry_look();
    _cleanup_(config_clear) struct config config = {0};
    int r = load_by_hand(options, reason, &config, error);
    if (r == 0)
        r = release(&config, QUARANTINE_BY_PERSON, reason, error);
    return r < 0 ? r : 0;
}

/* What was seen, and keeps new boxes out from now on. 1: the quarantine is news. */
static int quarantine_by_evidence(const struct config *config, const struct rbxj_result *undone,
                                  const struct evidence *ev, struct rbxj_error *e)
{
    char leftover[400];
    int left = baseline_look(config, undone, leftover, sizeof(leftover));
    if (left < 0)
        return error_sys(e, -left, "recovery: whether anything is left of what was undone");
    if (left > 0 && (left = enter(config, QUARANTINE_BASELINE, leftover, e)) != 0)
        return left;
    const char *orphan = evidence_first(ev, EVIDENCE_ORPHAN), *full = evidence_first(ev, EVIDENCE_EXHAUSTED);
    int r = orphan ? enter(config, QUARANTINE_ORPHAN_PROCESS, orphan, e) : 0;
    return r == 0 && full ? enter(config, QUARANTINE_EXHAUSTION, full, e) : r;
}

/* Is it known that what it is for is over? What can't be seen may be there. */
static bool is_verified(const char *reason, const struct evidence *ev)
{
    if (reason && strcmp(reason, quarantine_name(QUARANTINE_ORPHAN_PROCESS)) == 0)
        return !ev->processes_unseen;
    return !reason || strcmp(reason, quarantine_name(QUARANTINE_EXHAUSTION)) != 0 || !ev->room_unseen;
}

/* Is nothing of any dead box left, whatever this recovery was asked to look at, and does nothing else speak
 * against a release? */
static bool is_clean(const struct rbxj_health *h, const struct evidence *ev)
{
    return !h->stale_boxes && !h->unknown_boxes && !h->orphan_processes && !h->exhausted_resources &&
           !(h->escalate & RBXJ_ESCALATE_JOURNAL) && is_verified(h->quarantine_reason, ev);
}

/* Another replay may have found since what is to keep new boxes out, and have left it to the quarantine that
 * was there: so it is looked at once more while there is none. 1: it was released. */
static int release_if_clean(const struct config *config, const struct rbxj_health *h,
                            const struct evidence *ev, enum quarantine_by by, const char *why,
                            struct rbxj_error *e)
{
    _cleanup_(evidence_clear) struct evidence seen = {0};
    struct rbxj_health now;
    int fd;
    if (!h->quarantine_reason || !is_clean(h, ev))
        return 0;
    int r = replay_keep_out(config, &fd, e);
    if (r < 0)
        return r;
    r = health_look(config, NULL, &now, NULL, &seen, e);
    if (r == 0 && is_clean(&now, &seen))
        r = release(config, by, why, e);
    replay_let_in(&fd);
    return r;
}

int health_recover(const struct config *config, const struct rbxj_replay *how, const char *procedure,
                   enum quarantine_by by, struct rbxj_result **ret_result, struct rbxj_health *ret_health,
                   struct evidence *ev, struct rbxj_error *error)
{
    const char *why = strcmp(procedure, "reset") == 0 ? "a reset left nothing" : "a recovery left nothing";
    struct rbxj_result *result = NULL;
    struct rbxj_health health;
    struct rbxj_error second = {0};
    int r = replay_run(config, how, procedure, &result, error);
    int h = health_look(config, NULL, &health, NULL, ev, &second);
    if (h == 0 && r >= 0) {
        int changed = quarantine_by_evidence(config, result, ev, error);
        if (changed == 0)
            changed = release_if_clean(config, &health, ev, by, why, error);
        if (changed < 0)
            r = changed;
        if (changed > 0) {
            evidence_clear(ev);
            h = health_look(config, NULL, &health, NULL, ev, &second);
        }
    }
    if (r >= 0 && h < 0)
        r = error_pass(error, &second);
    if (h == 0) {
        escalation_tell(config, &health);
        *ret_health = health;
    }
    if (ret_result)
        *ret_result = steal_ptr(result);
    rbxj_result_free(result);
    return r;
}

int rbxj_recover(const struct rbxj_options *options, const struct rbxj_replay *how,
                 struct rbxj_result **ret_result, struct rbxj_health *ret_health, struct rbxj_error *error)
{
    _cleanup_(entry_leave) struct entry entry = entry_look();
    error_clear(error);
    static const struct rbxj_replay all;
    _cleanup_(config_clear) struct config config = {0};
    _cleanup_(evidence_clear) struct evidence ev = {0};
    int r = how && how->dry_run
                ? error_set(error, RBXJ_E_BAD_REQUEST, 0, "recover: it is no dry run, see rbxj_replay()")
                : config_load(options, &config, error);
    return r < 0 ? r
                 : health_recover(&config, how ? how : &all, "recover", QUARANTINE_BY_RECOVERY, ret_result,
                                  ret_health, &ev, error);
}
