/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the log of a damaged boot journal says was deleted, read page by page: any of its trees may be
 * damaged.
 */
#ifndef RBXJ_JOURNAL_DELETIONS_H
#define RBXJ_JOURNAL_DELETIONS_H

#include "journal/salvage.h"

struct deletions {
    struct deleted {
        struct record_key key;
        uint64_t position;
    } * list; /* in the order of keys, of each the last one first */
    size_t len, room;
};

/* 0 or -ENOMEM. */
int deletions_find(const struct autopsy *a, struct deletions **ret);
/* Was it deleted after it was written? Only a record that went through the log can be known to be. */
bool deletions_have(const struct deletions *d, const struct record_head *head);
void deletions_free(struct deletions *d);

#endif
