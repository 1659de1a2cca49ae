/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The supervisor's side of rbxj.h, from an intent to its evidence, or to its being given back.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/durable.h"
#include "reaper/entry.h"
#include "reaper/handle.h"
#include "reaper/mount.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* A record of a box of ours. */
struct own {
    struct snapshot_box sb;
    struct undo u;
    struct record *record;
};

static void own_close(struct own *own)
{
    mounts_free(own->u.mounts);
    snapshot_box_clear(&own->sb);
}

static int own_open(struct rbxj *handle, const char *box, uint32_t seq, struct own *ret, struct rbxj_error *e)
{
    error_clear(e);
    int r = handle_get_own(handle, box, &ret->sb, e);
    if (r < 0)
        return r;
    ret->u = handle_undo(handle, &ret->sb.box, ret->sb.records, ret->sb.len);
    for (size_t i = 0; i < ret->sb.len; i++)
        if (ret->sb.records[i].seq == seq && !(ret->sb.records[i].flags & REC_PENDING))
            ret->record = &ret->sb.records[i];
    return ret->record ? 0 : error_set(e, RBXJ_E_NO_SUCH_BOX, 0, "box %s: has no seq %u", box, seq);
}

int rbxj_mount_source(struct rbxj *handle, const char *box, uint32_t seq, char **ret_source,
                      struct rbxj_error *error)
{
    _cleanup_(entry_may_be_cancelled) int cancelled = entry_not_cancelled();
    _cleanup_(own_close) struct own own = {0};
    char source[MOUNT_SOURCE_MAX], *copy = NULL;
    int r = own_open(handle, box, seq, &own, error);
    if (r < 0)
        return r;
    if (own.record->kind != RBXJ_MOUNT)
        return error_set(error, RBXJ_E_BAD_REQUEST, 0, "box %s: seq %u is no mount", box, seq);
    if (mount_source(source, own.record->fstype, own.record->incarnation, seq) && !(copy = strdup(source)))
        return error_sys(error, ENOMEM, "box %s: a source", box);
    *ret_source = copy;
    return 0;
}

/* Journals the evidence: without a flush, unless only the journal can tell that it is ours (K1). */
static int record_evidence(struct rbxj *handle, const struct record *r, struct rbxj_error *e)
{
    bool always = handle->config.durability == DURABILITY_ALWAYS;
    bool durable = (r->flags & REC_NO_STAMP) && commit_is_needed(always, r);
    return journal_prove(handle->journal, r, durable, e);
}

static int write_ahead(struct undo *u, const struct record *r, struct rbxj_error *e)
{
    return record_evidence(u->data, r, e);
}

/* What was only written ahead does not count. */
static bool was_acquired(const struct record *r)
{
    return (r->flags & (REC_EVIDENCE | REC_AHEAD)) == REC_EVIDENCE;
}

/* The mount in which r is or will be, of a reading of mountinfo that has it. NULL: one that has been there
 * since before the unique id oldest was given out, or none. */
static int find_mount(struct undo *u, const struct record *r, uint64_t oldest, const struct mount **ret,
                      struct rbxj_error *e)
{
    const char *base;
    struct mount_at at;
    _cleanup_close_ int parent = fd_open_parent(r->path, &base);
    int rc = parent < 0 ? parent : mount_at(parent, r->kind == RBXJ_MOUNT ? base : "", &at);
    *ret = NULL;
    if (rc == -ENOENT || rc == -ENOTDIR || rc == -ELOOP)
        return 0; /* its kind says it better */
    if (rc < 0)
        return error_sys(e, -rc, "seq %u: the mount in which it lies", r->seq);
    if (at.unique && at.unique <= oldest)
        return 0;
    for (int i = 0; i < 2 && !*ret; i++) {
        rc = !u->mounts ? mounts_read(&u->mounts, e) : i ? mounts_reload(u->mounts, e) : 0;
        if (rc < 0)
            return rc;
        *ret = mount_table_by_id(mounts_own(u->mounts), at.id);
    }
    return *ret ? 0 : error_set(e, RBXJ_E_BUSY, EBUSY, "seq %u: what is mounted there changes", r->seq);
}

static const struct record *record_of_mount(const struct undo *u, const struct record *but,
                                            const struct mount *m)
{
    for (size_t i = 0; i < u->records_len; i++)
        if (u->records[i].seq != but->seq && mount_is_of_record(&u->records[i], m))
            return &u->records[i];
    return NULL;
}

/* What is acquired under a mount of the box that is to be undone before it goes out of sight with that one,
 * and would pass for gone (I7, K13). */
static int check_mounts(struct undo *u, const struct record *r, const struct record *lower,
                        struct rbxj_error *e)
{
    bool in_lower = !lower || lower->kind != RBXJ_MOUNT, asks = !in_lower;
    uint64_t oldest = in_lower ? UINT64_MAX : 0; /* all that matter are younger */
    const struct mount *m = NULL;
    for (size_t i = 0; i < u->records_len; i++) {
        const struct record *other = &u->records[i];
        if (other->kind != RBXJ_MOUNT || other->seq <= r->seq)
            continue;
        asks = true;
        oldest = other->newest_mount < oldest ? other->newest_mount : oldest;
    }
    int rc = asks && r->path ? find_mount(u, r, oldest, &m, e) : 0;
    if (rc < 0 || !m)
        return rc;
    for (size_t depth = 0; m && depth < PATH_MAX; depth++) {
        const struct record *own = record_of_mount(u, r, m);
        if (own && own->seq > r->seq)
            return error_set(e, RBXJ_E_BAD_REQUEST, 0, "seq %u: would lie in seq %u (%s), which is newer",
                             r->seq, own->seq, own->path);
        in_lower = in_lower || (own && own->seq == lower->seq);
        m = m->parent == m->id ? NULL : mount_table_by_id(mounts_own(u->mounts), m->parent);
    }
    return in_lower ? 0
                    : error_set(e, RBXJ_E_BAD_REQUEST, 0, "seq %u: seq %u (%s), in which it lies, is hidden",
                                r->seq, lower->seq, lower->path);
}

/* What lies below another record of the box is that record's only if that one is there, and ours: before that
 * the path leads elsewhere, and what was made there would be lost once the lower one hides it (K13). */
static int check_lower(struct undo *u, const struct record *r, struct rbxj_error *e)
{
    struct finding f = {0};
    const struct record *lower = NULL;
    for (size_t i = 0; i < u->records_len && !lower; i++)
        if (r->below && u->records[i].seq == r->below)
            lower = &u->records[i];
    if (!lower)
        return check_mounts(u, r, NULL, e);
    int rc = kind_of(lower->kind)->look(u, lower, &f);
    if (rc < 0)
        return error_set(e, f.error.code ? f.error.code : RBXJ_E_IO, f.error.errnum,
                         "seq %u, in which it lies: %s", lower->seq, f.error.message);
    /* a directory is covered by the mount on it */
    bool covered = f.found == FOUND_BUSY && r->kind == RBXJ_MOUNT && strcmp(r->path, lower->path) == 0;
    if (f.found == FOUND_PRESENT || covered)
        return check_mounts(u, r, lower, e);
    return error_set(e, RBXJ_E_BAD_REQUEST, 0, "seq %u: seq %u (%s), in which it lies, was not acquired yet",
                     r->seq, lower->seq, lower->path);
}

/* Its evidence stands: another thing in its place never becomes ours by being looked at again (I4). */
static int check_again(struct undo *u, const struct record *r, struct rbxj_error *e)
{
    struct finding f = {0};
    int rc = kind_of(r->kind)->look(u, r, &f);
    if (rc == 0 && f.found == FOUND_PRESENT)
        return 0;
    if (rc < 0 || f.found == FOUND_BUSY)
        return error_set(e, RBXJ_E_BUSY, f.error.errnum, "seq %u: %s", r->seq, f.error.message);
    return error_set(e, RBXJ_E_EXISTS, 0, "seq %u: was acquired before, and %s now", r->seq,
                     f.found == FOUND_GONE ? "is gone" : "another one is there");
}

static int prove(struct undo *u, struct record *r, struct rbxj_error *e)
{
    if (r->kind == RBXJ_PROCESS) /* the intent is its evidence */
        return 0;
    int rc = check_lower(u, r, e);
    return rc < 0 ? rc : kind_of(r->kind)->prove(u, r, e);
}

int rbxj_acquired(struct rbxj *handle, const char *box, uint32_t seq, struct rbxj_error *error)
{
    _cleanup_(entry_may_be_cancelled) int cancelled = entry_not_cancelled();
    _cleanup_(own_close) struct own own = {0};
    int r = own_open(handle, box, seq, &own, error);
    if (r < 0)
        return r;
    if (own.record->kind != RBXJ_PROCESS && was_acquired(own.record))
        return check_again(&own.u, own.record, error);
    r = journal_check_unclaimed(handle->journal, own.sb.box.incarnation, error);
    if (r == 0)
        r = prove(&own.u, own.record, error);
    return r < 0 ? r : record_evidence(handle, own.record, error);
}

/* A reaper that took the living for dead, or another thread of this process that undoes the box, has dropped
 * its record, or is about to: what was made since then would be nobody's. */
static void take_back(struct rbxj *handle, struct own *own, struct rbxj_error *e)
{
    const struct kind *kind = kind_of(own->record->kind);
    struct snapshot snapshot;
    struct finding f = {0};
    int r = journal_snapshot(handle->journal, &snapshot, &f.error);
    if (r == 0) {
        mounts_free(own->u.mounts); /* read before it was made */
        own->u.mounts = NULL;
        own->u.snapshot = &snapshot;
        r = kind->look(&own->u, own->record, &f);
        if (r == 0 && f.found != FOUND_GONE)
            r = f.found == FOUND_PRESENT ? kind->undo(&own->u, own->record, &f) : -EBUSY;
        own->u.snapshot = NULL;
        snapshot_clear(&snapshot);
    }
    if (r < 0)
        error_detail(e, "%s is left, without a record: %s", own->record->path, f.error.message);
}

/* What was found there before anything was made is another's, however much it looks like what is undone
 * without evidence (K1); unless it was made by an earlier try. */
static void note_failure(struct rbxj *handle, const struct own *own, int r)
{
    uint32_t flags = own->u.made ? REC_TRIED : r == -RBXJ_E_EXISTS ? REC_ANOTHERS : 0;
    if (!(flags & ~own->record->flags))
        return;
    journal_mark(handle->journal, own->record->incarnation, own->record->seq, flags);
    if (flags == REC_ANOTHERS &&
        commit_is_needed(handle->config.durability == DURABILITY_ALWAYS, own->record))
        (void)journal_flush(handle->journal, NULL);
}

int handle_acquire(struct rbxj *handle, const char *box, uint32_t seq, const char *options, int *ret_fd,
                   bool *ret_made, struct rbxj_error *error)
{
    _cleanup_(own_close) struct own own = {0};
    _cleanup_(fd_low_release) struct fd_low low = {.len = 0};
    _cleanup_close_ int fd = -1;
    int r = own_open(handle, box, seq, &own, error);
    if (r == 0 && (r = fd_low_hold(&low)) < 0) /* a lock stays open */
        r = error_sys(error, -r, "box %s: seq %u", box, seq);
    if (r < 0)
        return r;
    const struct kind *kind = kind_of(own.record->kind);
    if (!kind->acquire || (own.record->kind == RBXJ_LOCK && !ret_fd))
        return error_set(error, RBXJ_E_BAD_REQUEST, 0, "box %s: seq %u (%s) can't be acquired so", box, seq,
                         kind->name);
    if (was_acquired(own.record))
        return error_set(error, RBXJ_E_EXISTS, EEXIST, "box %s: seq %u was acquired before", box, seq);
    own.u.write_ahead = write_ahead;
    own.u.data = handle;
    r = check_lower(&own.u, own.record, error);
    if (r == 0)
        r = journal_check_unclaimed(handle->journal, own.sb.box.incarnation, error);
    if (r < 0)
        return r;
    r = kind->acquire(&own.u, own.record, options, &fd, error);
    bool acquired = r == 0;
    if (acquired)
        r = record_evidence(handle, own.record, error);
    bool lost = r == -RBXJ_E_BOX_STALE || r == -RBXJ_E_NO_SUCH_BOX || (acquired && r == -RBXJ_E_BUSY);
    if (own.u.made && lost) {
        take_back(handle, &own, error); /* with a lock's flock held: whoever had it then would hold nothing */
    } else if (r < 0 && !ret_made) {
        note_failure(handle, &own, r);
    }
    if (ret_made)
        *ret_made = own.u.made;
    if (r == 0 && ret_fd)
        *ret_fd = steal_fd(&fd);
    return r;
}

int rbxj_acquire(struct rbxj *handle, const char *box, uint32_t seq, const char *options, int *ret_fd,
                 struct rbxj_error *error)
{
    _cleanup_(entry_may_be_cancelled) int cancelled = entry_not_cancelled();
    return handle_acquire(handle, box, seq, options, ret_fd, NULL, error);
}

int rbxj_released(struct rbxj *handle, const char *box, uint32_t seq, struct rbxj_error *error)
{
    _cleanup_(entry_may_be_cancelled) int cancelled = entry_not_cancelled();
    _cleanup_(own_close) struct own own = {0};
    struct finding f = {0};
    int r = own_open(handle, box, seq, &own, error);
    if (r < 0)
        return r;
    own.u.dry_run = own.u.given_back = true;
    r = kind_of(own.record->kind)->look(&own.u, own.record, &f);
    if (r < 0)
        return f.error.code ? error_pass(error, &f.error) : error_sys(error, -r, "box %s: seq %u", box, seq);
    bool unseen = f.found != FOUND_PRESENT && f.error.errnum && f.error.errnum != EBUSY;
    if (f.found != FOUND_GONE && unseen)
        return error_sys(error, f.error.errnum, "box %s: seq %u: was it given back", box, seq);
    if (f.found != FOUND_GONE && !(f.found == FOUND_FOREIGN && !f.refused))
        return error_set(error, RBXJ_E_EXISTS, EEXIST, "box %s: seq %u was not given back, it is still there",
                         box, seq);
    return durable_drop(handle->journal, own.record, error);
}
