/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Which of the two meta pages LMDB would use: 0, 1, or -EBADMSG (it opens none unless both are well-formed;
 * and they must follow each other).
 */
#ifndef RBXJ_FUZZ_NEWEST_H
#define RBXJ_FUZZ_NEWEST_H

#include "journal/pages.h"

#include <errno.h>

static inline int pages_newest(const void *image, size_t len)
{
    struct pages_meta m[2];
    for (int i = 0; i < 2; i++)
        if (pages_read_meta(image, len, i, &m[i], NULL) < 0)
            return -EBADMSG;
    return pages_metas_follow(m) ? m[1].txn > m[0].txn : -EBADMSG;
}

#endif
