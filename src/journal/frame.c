/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is around a record: its head with the checksum, its key, the frame of a log entry; and the stamp that
 * names it in a resource.
 */
#include "journal/record.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

/* The part before the checksum seeds the part behind it. */
uint64_t record_checksum(const void *data, size_t len)
{
    const size_t hole = offsetof(struct record_head, checksum), end = hole + sizeof(uint64_t);
    return XXH3_64bits_withSeed((const uint8_t *)data + end, len - end, XXH3_64bits(data, hole));
}

int record_check(const void *data, size_t len, const struct record_key *key, struct record_head *ret)
{
    struct record_head head;
    if (len < sizeof(head) || len > RECORD_MAX)
        return -EBADMSG;
    memcpy(&head, data, sizeof(head));
    if (head.magic != RECORD_MAGIC || head.length != len)
        return -EBADMSG;
    if (record_checksum(data, len) != head.checksum)
        return -EBADMSG;
    /* the version counts only in a record that is whole */
    if (head.version > RECORD_VERSION)
        return -EPROTONOSUPPORT;
    if (head.version == 0 || (head.type != RECORD_BOX && head.type != RECORD_RESOURCE) ||
        (head.type == RECORD_BOX) != (head.seq == 0))
        return -EBADMSG;
    if (key) {
        struct record_key own = record_key(head.incarnation, head.seq);
        if (memcmp(&own, key, sizeof(own)) != 0)
            return -EBADMSG;
    }
    if (ret)
        *ret = head;
    return 0;
}

struct record_key record_key(uint64_t incarnation, uint32_t seq)
{
    struct record_key key;
    uint64_t i = htobe64(incarnation);
    uint32_t s = htobe32(seq);
    memcpy(key.incarnation, &i, 8);
    memcpy(key.seq, &s, 4);
    return key;
}

void record_key_parse(const struct record_key *key, uint64_t *incarnation, uint32_t *seq)
{
    uint64_t i;
    uint32_t s;
    memcpy(&i, key->incarnation, 8);
    memcpy(&s, key->seq, 4);
    *incarnation = be64toh(i);
    *seq = be32toh(s);
}

int record_compare(const struct record_head *a, const struct record_head *b)
{
    struct record_key x = record_key(a->incarnation, a->seq), y = record_key(b->incarnation, b->seq);
    return memcmp(&x, &y, sizeof(x));
}

static uint64_t log_checksum(const struct log_frame *frame, const void *record, size_t len)
{
    struct log_frame zeroed = *frame;
    zeroed.checksum = 0;
    return XXH3_64bits_withSeed(record, len, XXH3_64bits(&zeroed, sizeof(zeroed)));
}

void log_frame_fill(struct log_frame *frame, const char *box, uint64_t incarnation, uint32_t seq,
                    uint64_t position, bool needs_disk, const void *record, size_t len)
{
    *frame = (struct log_frame){
        .length = (uint32_t)(sizeof(*frame) + len),
        .op = record ? LOG_PUT : LOG_DELETE,
        .needs_disk = needs_disk,
        .incarnation = incarnation,
        .position = position,
        .seq = seq,
    };
    (void)snprintf(frame->box, sizeof(frame->box), "%s", box);
    frame->checksum = log_checksum(frame, record ? record : "", len);
}

int log_check(const void *data, size_t len, uint64_t position, struct log_frame *ret)
{
    struct log_frame frame;
    if (len < sizeof(frame) || len > sizeof(frame) + RECORD_MAX)
        return -EBADMSG;
    memcpy(&frame, data, sizeof(frame));
    if (frame.length != len || frame.position != position ||
        (frame.op != LOG_PUT && frame.op != LOG_DELETE) ||
        log_checksum(&frame, (const uint8_t *)data + sizeof(frame), len - sizeof(frame)) != frame.checksum)
        return -EBADMSG;
    *ret = frame;
    return 0;
}

void stamp_format(char buf[STAMP_MAX], uint64_t incarnation, uint32_t seq)
{
    (void)snprintf(buf, STAMP_MAX, "%" PRIu64 ":%" PRIu32, incarnation, seq);
}

bool stamp_parse(const char *text, uint64_t *incarnation, uint32_t *seq)
{
    uint64_t i;
    uint32_t s;
    char back[STAMP_MAX];
    if (sscanf(text, "%" SCNu64 ":%" SCNu32, &i, &s) != 2)
        return false;
    stamp_format(back, i, s); /* only the one way to write it is a stamp */
    if (strcmp(back, text) != 0)
        return false;
    *incarnation = i;
    *seq = s;
    return true;
}

bool box_name_is_valid(const char *name)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = name ? strlen(name) : 0;
    return len >= 1 && len <= BOX_NAME_MAX && strspn(name, allowed) == len && name[0] != '.' &&
           name[0] != '-';
}
