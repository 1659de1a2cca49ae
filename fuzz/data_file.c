/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A mutator of LMDB data files. Random bytes die at the first check, so it changes one field at a time to
 * what might do harm (another page's number, one more or less, the largest, nothing), and sets right what
 * would give the change away at once: the number of a page that is written over another one, the parity of a
 * transaction, the checksum of a record.
 */
#include "fuzz.h"

#include "journal/record.h"

#include <stdbool.h>
#include <string.h>

#define PAGE 4096
#define META_LEN 152
#define META_TXN 144

static uint64_t state;

static uint64_t draw(uint64_t below)
{
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (state >> 33) % below;
}

/* ---- values ---- */

static void change_value(uint8_t *at, size_t width, uint64_t pages)
{
    uint64_t value = 0;
    memcpy(&value, at, width);
    switch (draw(7)) {
    case 0:
        value = draw(pages + 2);
        break;
    case 1:
        value++;
        break;
    case 2:
        value--;
        break;
    case 3:
        value = UINT64_MAX;
        break;
    case 4:
        value = 0;
        break;
    case 5:
        value ^= 1ull << draw(width * 8);
        break;
    default:
        value = draw(PAGE * 2);
    }
    memcpy(at, &value, width);
}

/* Where a field may be in a page: its head, its pointers, a node's head, a node's content; or a meta. */
static size_t field_offset(const uint8_t *page, size_t number)
{
    uint16_t lower, node;
    if (number < 2)
        return draw(META_LEN);
    memcpy(&lower, page + 12, sizeof(lower));
    size_t keys = lower > 16 && lower < PAGE ? (size_t)(lower - 16) / 2 : 0;
    if (!keys || draw(4) == 0)
        return draw(16);
    size_t pointer = 16 + 2 * draw(keys);
    memcpy(&node, page + pointer, sizeof(node));
    return draw(3) == 0 || node >= PAGE - 16 ? pointer : node + draw(draw(2) ? 8 : 40);
}

static void change_field(uint8_t *data, size_t size)
{
    static const size_t widths[] = {1, 2, 4, 8};
    size_t pages = size / PAGE, number = draw(pages), width = widths[draw(4)];
    size_t at = number * PAGE + field_offset(data + number * PAGE, number);
    if (at + width <= size)
        change_value(data + at, width, pages);
}

/* ---- what would be found out at once ---- */

/* The first record at or behind at, or NULL. */
static uint8_t *find_record(uint8_t *at, const uint8_t *end, struct record_head *ret)
{
    const uint32_t magic = RECORD_MAGIC;
    while (at < end && (at = memmem(at, (size_t)(end - at), &magic, sizeof(magic)))) {
        size_t left = (size_t)(end - at);
        if (left >= sizeof(*ret)) {
            memcpy(ret, at, sizeof(*ret));
            if (ret->length >= sizeof(*ret) && ret->length <= left)
                return at;
        }
        at++;
    }
    return NULL;
}

/* A field of a record, under a right checksum. */
static void change_record(uint8_t *data, size_t size)
{
    static const size_t widths[] = {1, 1, 2, 4, 8};
    struct record_head head;
    uint8_t *record = find_record(data + draw(size), data + size, &head);
    if (!record)
        return;
    size_t width = widths[draw(5)], at = draw(3) ? draw(head.length) : draw(sizeof(head));
    if (at + width > head.length)
        return;
    change_value(record + at, width, size / PAGE);
    uint64_t sum = record_checksum(record, head.length);
    memcpy(record + offsetof(struct record_head, checksum), &sum, sizeof(sum));
}

/* A record where another one is: of another box, or an older one of its own. */
static void copy_record(uint8_t *data, size_t size)
{
    struct record_head from, to;
    uint8_t *source = find_record(data + draw(size), data + size, &from),
            *target = find_record(data + draw(size), data + size, &to);
    if (source && target && from.length <= to.length)
        memmove(target, source, from.length);
}

/* A page, or its first half, where another one is, under that one's number: a lost or a misdirected write. */
static void copy_page(uint8_t *data, size_t size)
{
    uint8_t *from = data + draw(size / PAGE) * PAGE;
    uint64_t number = draw(size / PAGE);
    memmove(data + number * PAGE, from, draw(3) ? PAGE : PAGE / 2);
    if (number >= 2 && draw(4))
        memcpy(data + number * PAGE, &number, sizeof(number));
}

/* One meta for the other, or another transaction for one; its parity says on which page it belongs. */
static void change_meta(uint8_t *data)
{
    uint64_t which = draw(2), txn;
    uint8_t *meta = data + which * PAGE, *other = data + !which * PAGE;
    if (draw(3) == 0) {
        memcpy(meta + 16, other + 16, META_LEN - 16);
        memcpy(&txn, meta + META_TXN, sizeof(txn));
        txn += draw(2) ? 1 : (uint64_t)-1;
    } else {
        memcpy(&txn, meta + META_TXN, sizeof(txn));
        txn += 2 * (draw(4) - 2);
    }
    memcpy(meta + META_TXN, &txn, sizeof(txn));
}

/* Two pointers of a page change places: keys out of order. */
static void swap_pointers(uint8_t *data, size_t size)
{
    uint8_t *page = data + draw(size / PAGE) * PAGE;
    uint16_t lower, a, b;
    memcpy(&lower, page + 12, sizeof(lower));
    size_t keys = lower > 16 && lower <= PAGE ? (size_t)(lower - 16) / 2 : 0;
    if (keys < 2)
        return;
    uint8_t *x = page + 16 + 2 * draw(keys), *y = page + 16 + 2 * draw(keys);
    memcpy(&a, x, 2);
    memcpy(&b, y, 2);
    memcpy(x, &b, 2);
    memcpy(y, &a, 2);
}

size_t data_file_mutate(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    state = seed;
    if (size < 2 * PAGE || draw(20) == 0)
        return LLVMFuzzerMutate(data, size, max);
    for (uint64_t n = 1 + draw(3); n > 0; n--)
        switch (draw(12)) {
        case 0:
        case 1:
        case 2:
            change_record(data, size);
            break;
        case 3:
            copy_record(data, size);
            break;
        case 4:
            copy_page(data, size);
            break;
        case 5:
            change_meta(data);
            break;
        case 6:
            swap_pointers(data, size);
            break;
        default:
            change_field(data, size);
        }
    if (draw(40) == 0) /* cut short, at a page or anywhere */
        return draw(2) ? (1 + draw(size / PAGE)) * PAGE : 1 + draw(size);
    return size;
}
