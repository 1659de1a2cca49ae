/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A supervisor's own teardown, by the code that a replay runs (I8): of its whole box (rbxj_undo()), or of the
 * one record that it could not acquire after all (rbxj_take()).
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/aftermath.h"
#include "reaper/entry.h"
#include "reaper/handle.h"
#include "reaper/replay_passes.h"
#include "reaper/teardown.h"

#include <limits.h>
#include <stdlib.h>

static int report_undo(const struct teardown *t, struct rbxj_result **ret, struct rbxj_error *e)
{
    int64_t now = now_realtime_ns();
    struct rbxj_result *result = calloc(1, sizeof(*result));
    if (result)
        result->boxes = calloc(1, sizeof(*result->boxes));
    if (!result || !result->boxes || teardown_report(t, false, &result->boxes[0]) < 0) {
        rbxj_result_free(result);
        return error_sys(e, ENOMEM, "undo: its report");
    }
    result->len = 1;
    result->started_ns = now - t->worked_ns;
    result->duration_ns = t->worked_ns;
    result->boxes[0].state = "live";
    if (t->corrupt || teardown_left(t)) /* it is an incident */
        result->boxes[0].cause = t->corrupt ? "lock_corruption" : "cleanup_failure";
    result->boxes[0].alive = true;
    *ret = result;
    return 0;
}

/* after: NULL: it is no incident. */
static void take_down(struct teardown *t, struct aftermath *after)
{
    struct reaper *reaper = t->reaper;
    teardown_look(t);
    if (after)
        aftermath_prepare(after, t);
    bool again = false;
    do { /* what a thing covered that is undone now (a second mount on the same target) is seen only then */
        if (again)
            teardown_again(t);
        teardown_quiesce(t);
        teardown_quiesced(t);
        mounts_free(reaper->mounts);
        reaper->mounts = NULL;
        teardown_undo(t);
        again = teardown_settle(t, 1) > 0;
    } while (again && teardown_left(t) > 0);
}

static int undo_box(struct reaper *reaper, struct snapshot_box *sb, bool *claimed, struct rbxj_result **ret,
                    struct rbxj_error *e)
{
    struct teardown t;
    struct rbxj_result *result = NULL;
    struct aftermath after = {.reaper = reaper, .procedure = "undo"};
    int r = teardown_init(&t, reaper, sb, true);
    if (r < 0)
        return error_sys(e, -r, "box %s", sb->box.name);
    t.claimed = true;
    take_down(&t, &after);
    teardown_finish(&t);
    *claimed = t.claimed;
    size_t left = teardown_left(&t);
    r = report_undo(&t, &result, e);
    if (r == 0) {
        if (result->boxes[0].cause)
            aftermath_begin(&after, &t, 1, result);
        aftermath_end(&after, &t, 1, result);
    }
    if (r == 0 && left) {
        r = error_set(e, RBXJ_E_LEFT, EBUSY, "box %s: %zu of its records are left", sb->box.name, left);
        error_detail(e, "%s", teardown_why(&t));
    } else if (r == 0 && t.error.code) { /* all is gone, but its records could not be dropped */
        r = error_pass(e, &t.error);
    }
    if ((r == 0 || r == -RBXJ_E_LEFT) && result && ret)
        *ret = steal_ptr(result);
    rbxj_result_free(result);
    teardown_clear(&t);
    return r;
}

/* No incident: its supervisor lives, and has the error. */
static int undo_record(struct reaper *reaper, struct snapshot_box *sb, uint32_t seq, bool *claimed)
{
    struct teardown t;
    int r = teardown_init(&t, reaper, sb, true);
    if (r < 0)
        return r;
    t.claimed = true;
    teardown_only(&t, seq);
    take_down(&t, NULL);
    *claimed = t.claimed;
    r = teardown_left(&t) || t.error.code ? -RBXJ_E_LEFT : 0;
    teardown_clear(&t);
    return r;
}

/* ---- one thread at a time ---- */

/* Of this process; a claim is the process', and the first of two to end would give it back under the other.
 * Each lies on the stack of its thread. */
struct undoing {
    uint64_t incarnation;
    struct undoing *next;
};
static struct forked_mutex undoing_mutex;
static struct undoing *undoing;

/* False: another one is at it. */
static bool undoing_enter(struct undoing *own, uint64_t incarnation)
{
    bool found = false;
    if (forked_lock(&undoing_mutex)) /* in a child they are its parent's */
        undoing = NULL;
    for (const struct undoing *u = undoing; u; u = u->next)
        found = found || u->incarnation == incarnation;
    *own = (struct undoing){incarnation, undoing};
    if (!found)
        undoing = own;
    forked_unlock(&undoing_mutex);
    return !found;
}

static void undoing_leave(const struct undoing *own)
{
    (void)forked_lock(&undoing_mutex);
    for (struct undoing **u = &undoing; *u; u = &(*u)->next)
        if (*u == own) {
            *u = own->next;
            break;
        }
    forked_unlock(&undoing_mutex);
}

/* Claims the box; the snapshot is taken after that: nothing can have begun inside it since (K4). As in a
 * replay nothing is undone beside damaged records: a box whose header is one of them is not in the snapshot,
 * and what it has may lie inside this one. only: the record, or 0: all. */
static int undo_alone(struct rbxj *handle, uint64_t incarnation, uint32_t only, struct rbxj_result **ret,
                      struct rbxj_error *e)
{
    struct snapshot snapshot;
    struct snapshot_box *sb = NULL;
    struct reaper reaper = {
        .config = &handle->config,
        .journal = handle->journal,
        .snapshot = &snapshot,
        .deadline_ns = INT64_MAX,
        .timeout_ns = handle->config.timeout_ns,
        .lazy_umount = handle->config.lazy_umount,
    };
    int r = journal_claim(handle->journal, incarnation, e);
    if (r < 0)
        return r;
    bool claimed = true, read = false;
    r = procid_boot(reaper.boot_id);
    if (r < 0)
        r = error_sys(e, -r, "boot id");
    if (r == 0)
        r = journal_snapshot(handle->journal, &snapshot, e);
    read = r == 0;
    if (r == 0)
        r = replay_check(&snapshot, e);
    for (size_t i = 0; r == 0 && i < snapshot.len && !sb; i++)
        if (snapshot.boxes[i].box.incarnation == incarnation)
            sb = &snapshot.boxes[i];
    if (r == 0 && !sb)
        r = error_set(e, RBXJ_E_NO_SUCH_BOX, 0, "undo: the box has ended meanwhile");
    if (r == 0)
        r = only ? undo_record(&reaper, sb, only, &claimed) : undo_box(&reaper, sb, &claimed, ret, e);
    mounts_free(reaper.mounts);
    if (read)
        snapshot_clear(&snapshot);
    if (claimed) /* the box lives on, and so may this process */
        journal_unclaim(handle->journal, incarnation);
    return r;
}

static int undo(struct rbxj *handle, const char *box, uint64_t incarnation, uint32_t only,
                struct rbxj_result **ret, struct rbxj_error *e)
{
    struct undoing own;
    if (!undoing_enter(&own, incarnation))
        return error_set(e, RBXJ_E_BUSY, EBUSY, "box %s: is being undone by another thread", box);
    int r = undo_alone(handle, incarnation, only, ret, e);
    undoing_leave(&own);
    return r;
}

int rbxj_undo(struct rbxj *handle, const char *box, struct rbxj_result **ret, struct rbxj_error *error)
{
    _cleanup_(entry_may_be_cancelled) int cancelled = entry_not_cancelled();
    error_clear(error);
    struct snapshot_box own;
    int r = handle_get_own(handle, box, &own, error);
    if (r < 0)
        return r;
    uint64_t incarnation = own.box.incarnation;
    snapshot_box_clear(&own);
    return undo(handle, box, incarnation, 0, ret, error);
}

void handle_take_back(struct rbxj *handle, const char *box, uint32_t seq)
{
    struct snapshot_box own;
    if (handle_get_own(handle, box, &own, NULL) < 0)
        return;
    uint64_t incarnation = own.box.incarnation;
    snapshot_box_clear(&own);
    (void)undo(handle, box, incarnation, seq, NULL, NULL);
}
