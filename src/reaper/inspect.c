/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Looking at the journal from outside, and dropping one record by hand.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/entry.h"
#include "reaper/events.h"
#include "reaper/handle.h"
#include "reaper/incident.h"
#include "reaper/teardown.h"

#include <limits.h>
#include <string.h>
#include <syslog.h>

static const char *state_name(enum liveness live, bool held)
{
    return live == LIVE_ALIVE ? "live" : live == LIVE_UNKNOWN ? "unknown" : held ? "held" : "stale";
}

static int list_box(struct reaper *reaper, struct snapshot_box *sb, enum liveness live,
                    struct result_box *ret)
{
    struct teardown t;
    int r = teardown_init(&t, reaper, sb, live != LIVE_DEAD);
    if (r < 0)
        return r;
    teardown_look(&t);
    if (live == LIVE_DEAD)
        teardown_quiesce(&t); /* dry: only who holds its locks */
    r = teardown_report(&t, true, ret);
    if (r == 0) {
        ret->state = state_name(live, t.held);
        ret->claimed = sb->claimer.pid != 0;
        ret->cause = live == LIVE_DEAD ? cause_of(&t) : NULL;
        ret->outcome = NULL;
        /* a box in which a living one lives counts as live, whatever became of its own supervisor */
        ret->alive = live == LIVE_ALIVE &&
                     box_liveness(NULL, reaper->config->state_dir, &sb->box) == LIVE_ALIVE;
    }
    teardown_clear(&t);
    return r;
}

static int list_all(struct reaper *reaper, const char *box, const enum liveness *live,
                    struct rbxj_result *result, struct rbxj_error *e)
{
    struct snapshot *s = reaper->snapshot;
    result->list = true;
    result->boxes = calloc(s->len + 1, sizeof(*result->boxes));
    if (!result->boxes)
        return error_sys(e, ENOMEM, "list");
    for (size_t i = 0; i < s->len; i++) {
        if (box && strcmp(box, s->boxes[i].box.name) != 0)
            continue;
        int r = list_box(reaper, &s->boxes[i], live[i], &result->boxes[result->len]);
        if (r < 0)
            return error_sys(e, -r, "list");
        result->live += live[i] == LIVE_ALIVE;
        result->len++;
    }
    return 0;
}

int inspect_with(const struct config *config, const char *box, struct counters *ret_counters,
                 const struct visitor *visitor, struct rbxj_result **ret, struct rbxj_error *e)
{
    _cleanup_free_ enum liveness *live = NULL;
    struct snapshot snapshot = {0};
    struct reaper reaper = {
        .config = config, .snapshot = &snapshot, .deadline_ns = INT64_MAX, .timeout_ns = config->timeout_ns};
    struct rbxj_result *result = calloc(1, sizeof(*result));
    int r = result ? procid_boot(reaper.boot_id) : -ENOMEM;
    r = r < 0 ? error_sys(e, -r, "list") : read_and_judge(config, &snapshot, &live, e);
    if (r == 0 && ret_counters)
        *ret_counters = snapshot.counters;
    if (r == 0)
        r = snapshot_check(&snapshot, e);
    if (r == 0)
        r = list_all(&reaper, box, live, result, e);
    if (r == 0 && visitor)
        r = visitor->visit(visitor->data, &snapshot, live, e);
    mounts_free(reaper.mounts);
    adopted_free(reaper.adopted);
    snapshot_clear(&snapshot);
    if (r < 0)
        rbxj_result_free(result);
    else
        *ret = result;
    return r;
}

int inspect(const struct config *config, const char *box, struct counters *ret_counters,
            struct rbxj_result **ret, struct rbxj_error *e)
{
    return inspect_with(config, box, ret_counters, NULL, ret, e);
}

int rbxj_list(const struct rbxj_options *options, const char *box, struct rbxj_result **ret,
              struct rbxj_error *error)
{
    _cleanup_(entry_leave) struct entry entry = entry_look();
    error_clear(error);
    _cleanup_(config_clear) struct config config = {0};
    if (box && !box_name_is_valid(box))
        return error_set(error, RBXJ_E_BAD_REQUEST, 0, "box %s: is no name of a box", box);
    int r = config_load(options, &config, error);
    return r < 0 ? r : inspect(&config, box, NULL, ret, error);
}

static void note_forgotten(const struct config *config, const struct snapshot_box *sb,
                           const struct record *record, const char *reason)
{
    const char *name = record->path ? record->path : "a process";
    const struct kind *kind = kind_of(record->kind);
    _cleanup_free_ char *note = NULL;
    event_send(config,
               &(struct event){.event = "record_forgotten",
                               .priority = LOG_WARNING,
                               .box = sb->box.name,
                               .incarnation = sb->box.incarnation,
                               .kind = kind ? kind->name : "unknown",
                               .name = name},
               "box %s: seq %u (%s) was forgotten: %s", sb->box.name, record->seq, name, reason);
    if (asprintf(&note, "seq %u (%s) was forgotten: %s", record->seq, name, reason) < 0)
        note = NULL;
    incident_note(config, "forget", "cleanup_failure", sb->box.name, sb->box.incarnation, sb->len == 1,
                  note ? note : reason);
}

static const struct record *find_seq(const struct snapshot_box *sb, uint32_t seq, struct rbxj_error *e)
{
    for (size_t i = 0; i < sb->len; i++)
        if (sb->records[i].seq == seq)
            return &sb->records[i];
    (void)error_set(e, RBXJ_E_NO_SUCH_BOX, 0, "box %s: has no seq %u", sb->box.name, seq);
    return NULL;
}

/* The box is claimed: nobody writes to it any more, and it is read again. */
static int forget_claimed(struct journal *j, const struct config *config, const struct box *box, uint32_t seq,
                          const char *reason, struct rbxj_error *e)
{
    struct snapshot_box sb;
    int r = journal_get(j, box->name, &sb, e);
    if (r < 0)
        return r;
    if (sb.box.incarnation != box->incarnation)
        r = error_set(e, RBXJ_E_NO_SUCH_BOX, 0, "box %s: has ended meanwhile", box->name);
    const struct record *record = r == 0 ? find_seq(&sb, seq, e) : NULL;
    if (r == 0 && !record)
        r = -RBXJ_E_NO_SUCH_BOX;
    if (r == 0)
        r = journal_settle(j, box->incarnation, &seq, 1, sb.len == 1 ? SETTLE_END : SETTLE_UNCLAIM, e);
    if (r == 0)
        note_forgotten(config, &sb, record, reason);
    snapshot_box_clear(&sb);
    return r;
}

static int forget(struct journal *j, const struct config *config, const char *name, uint32_t seq,
                  const char *reason, struct rbxj_error *e)
{
    struct snapshot_box sb;
    int r = journal_get(j, name, &sb, e);
    if (r < 0)
        return r;
    struct box box = sb.box;
    enum liveness live;
    r = box_find_liveness(j, config->state_dir, &box, &live);
    if (r < 0)
        r = error_sys(e, -r, "box %s: is its supervisor, pid %d, alive", name, box.supervisor.pid);
    else if (live != LIVE_DEAD)
        r = error_set(e, RBXJ_E_BOX_LIVE, EBUSY,
                      "box %s: its supervisor, pid %d, may be alive: forget is for what the "
                      "dead left",
                      name, box.supervisor.pid);
    else if (!find_seq(&sb, seq, e))
        r = -RBXJ_E_NO_SUCH_BOX;
    snapshot_box_clear(&sb);
    if (r == 0)
        r = journal_claim(j, box.incarnation, e);
    if (r < 0)
        return r;
    r = forget_claimed(j, config, &box, seq, reason, e);
    if (r == 0) {
        r = journal_flush(j, e);
        return r < 0 ? r : journal_seal(j, e);
    }
    journal_unclaim(j, box.incarnation); /* this process may live on */
    return r;
}

int rbxj_forget(const struct rbxj_options *options, const char *box, uint32_t seq, const char *reason,
                struct rbxj_error *error)
{
    _cleanup_(entry_leave) struct entry entry = entry_look();
    error_clear(error);
    _cleanup_(config_clear) struct config config = {0};
    struct journal *j, *own = NULL;
    if (!box || !reason || !reason[0])
        return error_set(error, RBXJ_E_BAD_REQUEST, 0, "a box and a reason are needed");
    if (!box_name_is_valid(box))
        return error_set(error, RBXJ_E_BAD_REQUEST, 0, "box %s: is no name of a box", box);
    int r = config_load(options, &config, error);
    int nothing = r < 0 ? r : snapshot_is_nothing(config.state_dir, config.runtime_dir, error);
    if (nothing < 0)
        return nothing;
    if (nothing)
        return error_set(error, RBXJ_E_NO_SUCH_BOX, 0, "box %s: no such box", box);
    r = handle_borrow_journal(&config, &j, &own, error);
    if (r == 0)
        r = forget(j, &config, box, seq, reason, error);
    journal_close(own);
    return r;
}
