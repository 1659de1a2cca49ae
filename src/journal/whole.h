/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A data file in memory, whatever it is: every byte of it at its offset, as far as it can be read. Holes take
 * neither time nor memory: on a damaged list of free pages LMDB writes wherever that leads, and the file ends
 * petabytes from its start.
 */
#ifndef RBXJ_JOURNAL_WHOLE_H
#define RBXJ_JOURNAL_WHOLE_H

#include <stddef.h>
#include <stdint.h>

struct whole {
    uint8_t *bytes;
    size_t
        len; /* to the end of the last stretch; what lies behind 1 TiB, where no journal comes, is left out */
    uint64_t size;     /* the file's */
    size_t unreadable; /* blocks that could not be read: zeros */
    struct stretch {
        size_t start, end;
    } * stretches; /* what is no hole */
    size_t stretches_len;
};

/* 0 or -errno. */
int whole_read(int fd, struct whole *ret);
void whole_clear(struct whole *w);

#endif
