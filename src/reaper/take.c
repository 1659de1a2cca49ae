/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Intent and acquisition in one; what fails half-way is taken back as a teardown does it (I8).
 */
#include "reaper/handle.h"

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
        handle_take_back(handle, box, seq); /* whatever goes wrong there: rbxj_undo() does it */
    else if (ret_seq)
        *ret_seq = seq;
    return r;
}
