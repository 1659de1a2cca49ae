/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Intent and acquisition in one; what fails half-way is taken back by the kind's own undo (I8).
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/durable.h"
#include "reaper/handle.h"
#include "reaper/mountinfo.h"

/* Is nothing of ours left of it? Undoes it where it is proven ours; in doubt it stays (I4). */
static bool is_gone(struct undo *u, struct record *r)
{
    const struct kind *kind = kind_of(r->kind);
    struct finding f = {0};
    if (kind->look(u, r, &f) < 0)
        return false;
    if (f.found == FOUND_PRESENT) {
        f = (struct finding){.found = FOUND_PRESENT};
        return kind->undo(u, r, &f) >= 0 && kind->verify(u, r, &f) == 0;
    }
    return f.found == FOUND_GONE || (f.found == FOUND_FOREIGN && !f.refused); /* another one's (K2) */
}

static bool is_undone(struct undo *u, struct record *r)
{
    struct durable gone = {.record = r};
    return is_gone(u, r) && durable_sync(&gone, 1, NULL) == 0;
}

/* In a snapshot that was taken after the claim: what other boxes have is looked at (K4). */
static bool undo_one(struct rbxj *handle, uint64_t incarnation, uint32_t seq)
{
    struct snapshot snapshot;
    bool undone = false;
    if (journal_snapshot(handle->journal, &snapshot, NULL) < 0)
        return false;
    for (size_t i = 0; i < snapshot.len; i++) {
        struct snapshot_box *sb = &snapshot.boxes[i];
        if (sb->box.incarnation != incarnation)
            continue;
        struct undo u = handle_undo(handle, &sb->box, sb->records, sb->len);
        u.snapshot = &snapshot;
        for (size_t k = 0; k < sb->len; k++)
            if (sb->records[k].seq == seq)
                undone = is_undone(&u, &sb->records[k]);
        mounts_free(u.mounts);
    }
    snapshot_clear(&snapshot);
    return undone;
}

/* Whatever goes wrong here, the record is there and rbxj_undo() does it. */
static void take_back(struct rbxj *handle, const char *box, uint32_t seq)
{
    struct snapshot_box sb;
    if (handle_get_own(handle, box, &sb, NULL) < 0)
        return;
    uint64_t incarnation = sb.box.incarnation;
    snapshot_box_clear(&sb);
    if (journal_claim(handle->journal, incarnation, NULL) < 0)
        return;
    size_t undone = undo_one(handle, incarnation, seq);
    (void)journal_settle(handle->journal, incarnation, &seq, undone, SETTLE_UNCLAIM, NULL);
}

int rbxj_take(struct rbxj *handle, const char *box, const struct rbxj_resource *resource, uint32_t *ret_seq,
              int *ret_fd, struct rbxj_error *error)
{
    uint32_t seq = 0;
    error_clear(error);
    const struct kind *kind = kind_of(resource->kind);
    if (!kind || !kind->acquire || (resource->kind == RBXJ_LOCK && !ret_fd))
        return error_set(error, RBXJ_E_BAD_REQUEST, 0, "box %s: %s can't be taken so", box ? box : "(none)",
                         kind ? kind->name : "an unknown kind");
    int r = rbxj_intend(handle, box, resource, &seq, error);
    if (r < 0)
        return r;
    r = rbxj_acquire(handle, box, seq, resource->options, ret_fd, error);
    if (r < 0)
        take_back(handle, box, seq);
    else if (ret_seq)
        *ret_seq = seq;
    return r;
}
