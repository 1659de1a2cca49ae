/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "journal/deletions.h"

#include "base/sorted.h"
#include "journal/internal.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

static int compare_deleted(const void *a, const void *b)
{
    const struct deleted *x = a, *y = b;
    int r = memcmp(&x->key, &y->key, sizeof(x->key));
    return r ? r : (x->position < y->position) - (x->position > y->position);
}

/* A node of a leaf page, if it is a log entry that deletes. Offsets are checked against the page. */
static int deletion_at(struct deletions *d, const uint8_t *page, size_t size, size_t offset)
{
    uint16_t low, high, flags, key_len;
    uint64_t position;
    struct log_frame frame;
    if (offset + 16 > size)
        return 0;
    memcpy(&low, page + offset, 2);
    memcpy(&high, page + offset + 2, 2);
    memcpy(&flags, page + offset + 4, 2);
    memcpy(&key_len, page + offset + 6, 2);
    size_t len = low | (size_t)high << 16;
    if (flags != 0 || key_len != sizeof(position) || len != sizeof(frame) || len > size - offset - 16)
        return 0;
    memcpy(&position, page + offset + 8, sizeof(position));
    if (log_check(page + offset + 16, len, be64toh(position), &frame) < 0 || frame.op != LOG_DELETE)
        return 0;
    if (d->len == d->room) {
        d->room = d->room ? d->room * 2 : 64;
        struct deleted *larger = reallocarray(d->list, d->room, sizeof(*larger));
        if (!larger)
            return -ENOMEM;
        d->list = larger;
    }
    d->list[d->len++] = (struct deleted){record_key(frame.incarnation, frame.seq), frame.position};
    return 0;
}

/* Of the page at that offset, if it is a leaf. */
static int deletions_of(struct deletions *d, const uint8_t *page, size_t size, uint64_t number)
{
    uint64_t own;
    uint16_t flags, lower;
    memcpy(&own, page, sizeof(own));
    memcpy(&flags, page + 10, sizeof(flags));
    memcpy(&lower, page + 12, sizeof(lower));
    if (own != number || flags != 2 || lower > size)
        return 0;
    for (size_t i = 16; i + 2 <= lower; i += 2) {
        uint16_t offset;
        memcpy(&offset, page + i, sizeof(offset));
        int r = deletion_at(d, page, size, offset);
        if (r < 0)
            return r;
    }
    return 0;
}

int deletions_find(const struct autopsy *a, struct deletions **ret)
{
    struct deletions *d = *ret = calloc(1, sizeof(*d)); /* on failure, too, the caller's */
    if (!d)
        return -ENOMEM;
    size_t size = a->metas[0].sound   ? a->metas[0].meta.page_size
                  : a->metas[1].sound ? a->metas[1].meta.page_size
                                      : 4096;
    for (size_t i = 0; i < a->file.stretches_len; i++) {
        const struct stretch *s = &a->file.stretches[i];
        for (size_t at = s->start / size * size; at < s->end && at + size <= a->file.len; at += size) {
            int r = deletions_of(d, a->file.bytes + at, size, at / size);
            if (r < 0)
                return r;
        }
    }
    if (d->len)
        qsort(d->list, d->len, sizeof(*d->list), compare_deleted);
    return 0;
}

static int compare_key(const void *key, const void *item)
{
    return memcmp(key, &((const struct deleted *)item)->key, sizeof(struct record_key));
}

bool deletions_have(const struct deletions *d, const struct record_head *head)
{
    struct record_key key = record_key(head->incarnation, head->seq);
    size_t first = lower_bound(&key, d->list, d->len, sizeof(*d->list), compare_key);
    return first < d->len && compare_key(&key, &d->list[first]) == 0 && head->position &&
           d->list[first].position > head->position;
}

void deletions_free(struct deletions *d)
{
    if (d)
        free(d->list);
    free(d);
}
