/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef RBXJ_BASE_SORTED_H
#define RBXJ_BASE_SORTED_H

#include <stddef.h>
#include <stdint.h>

/* As bsearch(3), but where the first item stands that is not before the key: n, if all are. list may be NULL
 * where n is 0. */
static inline size_t lower_bound(const void *key, const void *list, size_t n, size_t size,
                                 int (*compare)(const void *key, const void *item))
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(key, (const uint8_t *)list + middle * size) > 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

#endif
