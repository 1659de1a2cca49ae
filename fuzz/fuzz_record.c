/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whatever bytes stand in a journal: decoding them reads no byte beyond, and what it accepts it encodes to
 * what is decoded to the same again. Random bytes die at the checksum, so the content is tried under a right
 * one, too.
 */
#include "fuzz.h"

#include "journal/record.h"

#include <stdlib.h>
#include <string.h>

/* What was encoded is decoded, and that is encoded again: the same bytes. (The first ones may have fields
 * that a newer version writes, or more of them than one.) */
static void check_record(const struct record *r)
{
    uint8_t *first, *second;
    size_t len, again;
    struct record copy = {0};
    if (record_encode(r, r->position, &first, &len) != 0)
        return; /* too large: what it has twice is written once, but not the other way round */
    if (record_decode(first, len, NULL, &copy) != 0 ||
        record_encode(&copy, copy.position, &second, &again) != 0 || again != len ||
        memcmp(first, second, len) != 0)
        abort();
    record_clear(&copy);
    free(first);
    free(second);
}

static void check_box(const struct box *box)
{
    uint8_t *first, *second;
    size_t len, again;
    struct box copy;
    if (!box_name_is_valid(box->name) || record_encode_box(box, 1, &first, &len) != 0 ||
        record_decode_box(first, len, NULL, &copy) != 0 ||
        record_encode_box(&copy, 1, &second, &again) != 0 || again != len || memcmp(first, second, len) != 0)
        abort();
    free(first);
    free(second);
}

static void try(const uint8_t *data, size_t size)
{
    struct record r = {0};
    struct box box;
    struct log_frame frame;
    if (record_decode(data, size, NULL, &r) == 0) {
        check_record(&r);
        record_clear(&r);
    }
    if (record_decode_box(data, size, NULL, &box) == 0)
        check_box(&box);
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
    head.checksum = record_checksum(copy, size);
    memcpy(copy, &head, sizeof(head));
    try(copy, size);
    free(copy);
    return 0;
}
