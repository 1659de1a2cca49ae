/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Which boxes have recorded a thing that is known by a number (K4): it need not be at, or in, the path that
 * they have recorded. A mount may have been moved, and a process may be in anybody's cgroup.
 */
#include "base/sorted.h"
#include "journal/internal.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
    const struct snapshot_number *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

/* A mount whose evidence is of this boot, or a process. */
static bool has_number(const struct snapshot *s, const struct record *r, struct snapshot_number *ret)
{
    if (r->kind == RBXJ_PROCESS)
        ret->number = r->process.pid;
    else if (r->kind == RBXJ_MOUNT && r->flags & REC_EVIDENCE &&
             memcmp(r->evidence_boot, s->boot_id, sizeof(s->boot_id)) == 0)
        ret->number = r->mount.id;
    else
        return false;
    ret->kind = r->kind;
    ret->record = r;
    return true;
}

int snapshot_index_numbers(struct snapshot *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->len; i++)
        n += s->boxes[i].len;
    s->numbers = calloc(n + 1, sizeof(*s->numbers));
    if (!s->numbers)
        return -ENOMEM;
    for (size_t i = 0; i < s->len; i++)
        for (size_t k = 0; k < s->boxes[i].len; k++) {
            s->numbers[s->numbers_len].box = i;
            s->numbers_len += has_number(s, &s->boxes[i].records[k], &s->numbers[s->numbers_len]);
        }
    if (s->numbers_len)
        qsort(s->numbers, s->numbers_len, sizeof(*s->numbers), compare);
    return 0;
}

int snapshot_numbered(const struct snapshot *s, uint64_t own, enum rbxj_kind kind, int32_t number,
                      int (*found)(void *data, const struct snapshot_box *box, const struct record *r),
                      void *data)
{
    const struct snapshot_number key = {.kind = kind, .number = number};
    size_t i = lower_bound(&key, s->numbers, s->numbers_len, sizeof(key), compare);
    for (; i < s->numbers_len && compare(&key, &s->numbers[i]) == 0; i++) {
        const struct snapshot_number *n = &s->numbers[i];
        bool counts = !(n->record->flags & REC_DROPPED) && s->boxes[n->box].box.incarnation != own;
        int r = counts ? found(data, &s->boxes[n->box], n->record) : 0;
        if (r != 0)
            return r;
    }
    return 0;
}
