/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The supervisor's side of rbxj.h: begin, intend, end; what is between is in acquired.c, its teardown in
 * teardown_own.c. The reaper's is replay.c, list and forget
 * are in inspect.c.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/entry.h"
#include "reaper/handle.h"
#include "reaper/intent.h"
#include "reaper/mountinfo.h"
#include "reaper/quarantine.h"

#include <stdlib.h>
#include <string.h>

int handle_open_journal(const struct config *config, struct journal **ret, struct rbxj_error *e)
{
    struct journal_options options = {
        .state_dir = config->state_dir,
        .runtime_dir = config->runtime_dir,
        .always = config->durability == DURABILITY_ALWAYS,
        .map_size = config->map_size,
        .preallocate = config->preallocate,
        .gate_timeout_ns = config->gate_timeout_ns,
    };
    return journal_open(&options, ret, e);
}

int handle_borrow_journal(const struct config *config, struct journal **ret, struct journal **ret_own,
                          struct rbxj_error *e)
{
    *ret_own = NULL;
    *ret = journal_of_process(config->state_dir, config->runtime_dir);
    if (*ret)
        return 0;
    int r = handle_open_journal(config, ret_own, e);
    *ret = *ret_own;
    return r;
}

static void close_handle(struct rbxj *handle)
{
    journal_close(handle->journal);
    config_clear(&handle->config);
    free(handle->begun);
    free(handle);
}

int rbxj_open(const struct rbxj_options *options, struct rbxj **ret, struct rbxj_error *error)
{
    _cleanup_(entry_leave) struct entry entry = entry_alone();
    error_clear(error);
    struct rbxj *handle = calloc(1, sizeof(*handle));
    if (!handle)
        return error_sys(error, ENOMEM, "rbxj");
    int r = config_load(options, &handle->config, error);
    if (r == 0)
        r = handle_open_journal(&handle->config, &handle->journal, error);
    if (r < 0) {
        close_handle(handle);
        return r;
    }
    entry_count_handle(1);
    *ret = handle;
    return 0;
}

void rbxj_close(struct rbxj *handle)
{
    if (!handle)
        return;
    _cleanup_(entry_leave) struct entry entry = entry_alone();
    entry_count_handle(-1);
    close_handle(handle);
}

static void clear_records(struct record *records, size_t n)
{
    for (size_t i = 0; records && i < n; i++)
        record_clear(&records[i]);
    free(records);
}

/* Who owns the box: alive, and who it is, read after that (K8). */
static int identify_supervisor(pid_t pid, struct procid *ret, struct rbxj_error *e)
{
    struct procid self;
    int r = procid_of(pid ? pid : getpid(), ret);
    int fd = r < 0 ? r : procid_open(ret);
    if (fd >= 0) {
        (void)close(fd);
        return 0;
    }
    if (fd == -ESRCH)
        return error_set(e, RBXJ_E_BAD_REQUEST, ESRCH, "supervisor pid %d: is not alive", pid);
    r = fd == -EXDEV ? journal_find_self(&self, e) : 0; /* it says what is wrong with /proc */
    return r < 0 ? r : error_sys(e, -fd, "supervisor pid %d: is it alive", pid ? pid : getpid());
}

struct undo handle_undo(const struct rbxj *handle, const struct box *box, struct record *records, size_t n)
{
    return (struct undo){
        .config = &handle->config,
        .box = box,
        .records = records,
        .records_len = n,
        .deadline_ns = now_monotonic_ns() + handle->config.timeout_ns,
        .same_boot = true,
        .busy_retries = handle->config.busy_retries,
    };
}

/* Is the box's supervisor dead? 1, 0 (it lives, or nobody can know), or a negative code: not known for
 * want. */
static int is_dead(struct rbxj *handle, const struct box *box, struct rbxj_error *e)
{
    enum liveness live;
    int r = box_find_liveness(handle->journal, handle->config.state_dir, box, &live);
    return r < 0
               ? error_sys(e, -r, "box %s: is its supervisor, pid %d, alive", box->name, box->supervisor.pid)
               : live == LIVE_DEAD;
}

static int find_parent(struct rbxj *handle, const char *name, uint64_t *ret, struct rbxj_error *e)
{
    struct snapshot_box parent;
    if (!name)
        return 0;
    int r = journal_get(handle->journal, name, &parent, e);
    if (r < 0)
        return r;
    r = is_dead(handle, &parent.box, e);
    if (r > 0)
        r = error_set(e, RBXJ_E_BOX_STALE, EBUSY, "box %s: its supervisor is dead, nothing begins inside it",
                      name);
    else if (r == 0)
        *ret = parent.box.incarnation;
    snapshot_box_clear(&parent);
    return r;
}

/* Is he this process' parent? 1, 0 or a negative errno. A pid alone says nothing: it may be another one's by
 * now. */
static int is_parent(const struct procid *supervisor)
{
    struct procid parent;
    if (supervisor->pid != getppid())
        return 0;
    int r = procid_of(supervisor->pid, &parent);
    return r < 0 ? (errno_is_want(-r) ? r : 0) : procid_equal(&parent, supervisor);
}

/* Does this handle act for the box's supervisor: is it him, did it begin the box, is it his child (a hook)?
 * 1, 0 or a negative errno. */
static int acts_for(struct rbxj *handle, const struct box *box)
{
    bool found = procid_equal(journal_self(handle->journal), &box->supervisor);
    (void)forked_lock(&handle->mutex);
    for (size_t i = 0; i < handle->begun_len; i++)
        found = found || handle->begun[i] == box->incarnation;
    forked_unlock(&handle->mutex);
    return found ? 1 : is_parent(&box->supervisor);
}

static bool has_box(const struct snapshot *s, uint64_t incarnation)
{
    for (size_t i = 0; i < s->len; i++)
        if (s->boxes[i].box.incarnation == incarnation)
            return true;
    return false;
}

/* A replay ended those whose supervisors died, and nobody tells this handle: looked for each time as many
 * boxes have come as there were. */
static void forget_ended(struct rbxj *handle)
{
    struct snapshot snapshot;
    if (handle->begun_len < 16 || handle->begun_len < handle->begun_look ||
        journal_snapshot(handle->journal, &snapshot, NULL) < 0)
        return;
    for (size_t i = handle->begun_len; i-- > 0;)
        if (!has_box(&snapshot, handle->begun[i]))
            handle->begun[i] = handle->begun[--handle->begun_len];
    snapshot_clear(&snapshot);
    handle->begun_look = 2 * handle->begun_len;
}

/* A box that was begun for another process. What can't be remembered can't be acted for; its supervisor's
 * death ends it. */
static void remember_begun(struct rbxj *handle, uint64_t incarnation)
{
    (void)forked_lock(&handle->mutex);
    forget_ended(handle);
    uint64_t *grown = reallocarray(handle->begun, handle->begun_len + 1, sizeof(*grown));
    if (grown) {
        handle->begun = grown;
        handle->begun[handle->begun_len++] = incarnation;
    }
    forked_unlock(&handle->mutex);
}

static void forget_begun(struct rbxj *handle, uint64_t incarnation)
{
    (void)forked_lock(&handle->mutex);
    for (size_t i = handle->begun_len; i-- > 0;)
        if (handle->begun[i] == incarnation)
            handle->begun[i] = handle->begun[--handle->begun_len];
    forked_unlock(&handle->mutex);
}

/* Whoever passes in the instant in which the worker is quarantined counts as begun before (K31). */
static int refuse_quarantined(const struct config *config, const char *box, struct rbxj_error *e)
{
    struct quarantine q;
    int set = quarantine_is_set(config);
    if (set > 0)
        set = quarantine_read(config, &q);
    if (set <= 0)
        return set < 0 ? error_sys(e, -set, "box %s: is the worker quarantined", box) : 0;
    if (q.hidden) /* a supervisor that has dropped its privileges, for instance */
        return error_sys(e, EACCES, "box %s: is the worker quarantined", box);
    return error_set(e, RBXJ_E_QUARANTINED, 0, "box %s: the worker is quarantined: %s: %s", box,
                     quarantine_name(q.reason), q.detail);
}

/* What is there already may be that of a box of this name that began after the name was looked at: then that
 * is why. */
static int explain_exists(struct rbxj *handle, const char *name, struct rbxj_error *e)
{
    struct rbxj_error taken = {0};
    int r = journal_check_name(handle->journal, name, &taken);
    if (r != -RBXJ_E_BOX_LIVE && r != -RBXJ_E_BOX_STALE)
        return -RBXJ_E_EXISTS;
    if (e)
        *e = taken;
    return r;
}

/* The intents are journaled: from here on nobody else takes what they name. Their before-images were taken
 * before that, and may be of what a dead box had there, and a replay has undone since. */
static int confirm(const struct record *records, size_t n, struct rbxj_error *e)
{
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        const struct kind *kind = kind_of(records[i].kind);
        r = kind->confirm ? kind->confirm(&records[i], e) : 0;
    }
    return r;
}

int rbxj_begin(struct rbxj *handle, const struct rbxj_box *box, uint64_t *ret_incarnation,
               struct rbxj_error *error)
{
    _cleanup_(entry_may_be_cancelled) int cancelled = entry_not_cancelled();
    error_clear(error);
    struct box new = {.begun_ns = now_realtime_ns()};
    if (!box_name_is_valid(box->name))
        return error_set(error, RBXJ_E_BAD_REQUEST, 0,
                         "box %s: a name is 1 to 64 of A-Z a-z 0-9 . _ - and starts with "
                         "a letter, digit or _",
                         box->name ? box->name : "(none)");
    if (box->plan_len > 10000)
        return error_set(error, RBXJ_E_BAD_REQUEST, 0, "box %s: a plan of %zu resources is too long",
                         box->name, box->plan_len);
    (void)strcpy(new.name, box->name);
    int r = refuse_quarantined(&handle->config, box->name, error);
    if (r == 0)
        r = identify_supervisor(box->supervisor, &new.supervisor, error);
    if (r == 0)
        r = journal_check_name(handle->journal, box->name, error);
    if (r == 0)
        r = find_parent(handle, box->parent, &new.parent, error);
    struct record *plan = calloc(box->plan_len + 1, sizeof(*plan));
    if (r == 0 && !plan)
        r = error_sys(error, ENOMEM, "box %s", box->name);
    struct undo u = handle_undo(handle, &new, plan, 0);
    for (size_t i = 0; i < box->plan_len && r == 0; i++) {
        plan[i].seq = (uint32_t)i + 1;
        r = intent_prepare(&u, &box->plan[i], plan, i, &plan[i], error);
        u.records_len = i + 1;
    }
    mounts_free(u.mounts);
    if (r == -RBXJ_E_EXISTS)
        r = explain_exists(handle, box->name, error);
    if (r == 0)
        r = journal_begin(handle->journal, &new, plan, box->plan_len, error);
    if (r == 0 && (r = confirm(plan, box->plan_len, error)) < 0)
        journal_withdraw(handle->journal, &new, 1, (uint32_t)box->plan_len, true);
    clear_records(plan, box->plan_len);
    if (r == 0 && box->supervisor && box->supervisor != getpid())
        remember_begun(handle, new.incarnation);
    if (r == 0 && ret_incarnation)
        *ret_incarnation = new.incarnation;
    return r;
}

int handle_get_own(struct rbxj *handle, const char *name, struct snapshot_box *ret, struct rbxj_error *e)
{
    struct snapshot_box sb;
    if (!name || !box_name_is_valid(name)) /* the journal would choke on an empty key */
        return error_set(e, RBXJ_E_NO_SUCH_BOX, 0, "box %s: no such box", name ? name : "(none)");
    int r = journal_get(handle->journal, name, &sb, e);
    if (r < 0)
        return r;
    r = is_dead(handle, &sb.box, e);
    int ours = r == 0 ? acts_for(handle, &sb.box) : 0;
    if (r > 0)
        r = error_set(e, RBXJ_E_BOX_STALE, 0, "box %s: its supervisor (pid %d) is dead", name,
                      sb.box.supervisor.pid);
    else if (ours < 0)
        r = error_sys(e, -ours, "box %s: is its supervisor, pid %d, the parent", name, sb.box.supervisor.pid);
    else if (r == 0 && ours == 0)
        r = error_set(e, RBXJ_E_BOX_LIVE, EBUSY, "box %s is held by pid %d", name, sb.box.supervisor.pid);
    if (r < 0) {
        snapshot_box_clear(&sb);
        return r;
    }
    *ret = sb;
    return 0;
}

int handle_intend(struct rbxj *handle, const char *box, const struct rbxj_resource *resource,
                  struct box *ret_box, uint32_t *ret_seq, struct rbxj_error *error)
{
    error_clear(error);
    struct snapshot_box sb;
    struct record record = {0};
    int r = handle_get_own(handle, box, &sb, error);
    if (r < 0)
        return r;
    struct undo u = handle_undo(handle, &sb.box, sb.records, sb.len);
    r = intent_prepare(&u, resource, sb.records, sb.len, &record, error);
    mounts_free(u.mounts);
    if (r == 0)
        r = journal_intend(handle->journal, sb.box.incarnation, &record, error);
    if (r == 0 && (r = confirm(&record, 1, error)) < 0)
        journal_withdraw(handle->journal, &sb.box, record.seq, record.seq, false);
    if (r == 0) {
        *ret_box = sb.box;
        *ret_seq = record.seq;
    }
    record_clear(&record);
    snapshot_box_clear(&sb);
    return r;
}

int rbxj_intend(struct rbxj *handle, const char *box, const struct rbxj_resource *resource, uint32_t *ret_seq,
                struct rbxj_error *error)
{
    _cleanup_(entry_may_be_cancelled) int cancelled = entry_not_cancelled();
    struct box known;
    return handle_intend(handle, box, resource, &known, ret_seq, error);
}

int rbxj_end(struct rbxj *handle, const char *box, struct rbxj_error *error)
{
    _cleanup_(entry_may_be_cancelled) int cancelled = entry_not_cancelled();
    error_clear(error);
    struct snapshot_box sb;
    int r = handle_get_own(handle, box, &sb, error);
    if (r < 0)
        return r;
    r = journal_end(handle->journal, sb.box.incarnation, error);
    if (r == 0)
        forget_begun(handle, sb.box.incarnation);
    snapshot_box_clear(&sb);
    return r;
}
