/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Intent and acquisition in one; what fails half-way is taken back as a teardown does it (I8). Where nothing
 * was made there is only the intent to be taken back: what stands there then is another's, and a teardown,
 * which has no evidence to judge it by, would take what is empty for its own (K1).
 */
#include "base/cleanup.h"
#include "journal/journal.h"
#include "reaper/entry.h"
#include "reaper/handle.h"

int rbxj_take(struct rbxj *handle, const char *box, const struct rbxj_resource *resource, uint32_t *ret_seq,
              int *ret_fd, struct rbxj_error *error)
{
    _cleanup_(entry_may_be_cancelled) int cancelled = entry_not_cancelled();
    struct box header;
    uint32_t seq = 0;
    bool made = false;
    error_clear(error);
    const struct kind *kind = kind_of(resource->kind);
    if (!kind || !kind->acquire || (resource->kind == RBXJ_LOCK && !ret_fd))
        return error_set(error, RBXJ_E_BAD_REQUEST, 0, "box %s: %s can't be taken so", box ? box : "(none)",
                         kind ? kind->name : "an unknown kind");
    int r = handle_intend(handle, box, resource, &header, &seq, error);
    if (r < 0)
        return r;
    r = handle_acquire(handle, box, seq, resource->options, ret_fd, &made, error);
    if (r < 0 && made)
        handle_take_back(handle, box, seq);   /* whatever goes wrong there: rbxj_undo() does it */
    else if (r < 0 && r != -RBXJ_E_BOX_STALE) /* then it is a reaper's */
        journal_withdraw(handle->journal, &header, seq, seq, false);
    else if (r == 0 && ret_seq)
        *ret_seq = seq;
    if (r == -RBXJ_E_EXISTS && !made && resource->kind == RBXJ_TMPDIR)
        (void)journal_flush(handle->journal,
                            NULL); /* or after a power cut it is another's that is undone (K1) */
    return r;
}
