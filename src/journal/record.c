/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Encoding and decoding: the fields of a record. What is around them, and how it is checked, is in frame.c.
 */
#include "journal/record.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* One table drives encoding, decoding, copying and freeing: a field is a tag, a type and a place in the
 * struct. */
enum field_type { F_U32 = 1, F_U64, F_BYTES16, F_NAME, F_STRING, F_BLOB, F_FILEID, F_PROCID };

struct field {
    uint16_t tag; /* fixed for ever */
    uint8_t type;
    size_t offset;
    size_t length_offset; /* F_BLOB: where its size_t length is */
};

#define B(tag, type, member)                                                                                 \
    {                                                                                                        \
        tag, type, offsetof(struct box, member), 0                                                           \
    }
static const struct field box_fields[] = {
    B(1, F_NAME, name),
    B(2, F_PROCID, supervisor),
    B(3, F_U64, parent),
    B(4, F_U64, begun_ns),
    B(5, F_U32, flags),
    B(6, F_U32, planned),
    B(7, F_U32, next_seq),
    B(8, F_U32, failures),
    B(9, F_U64, waiting_since_ns),
    B(10, F_BYTES16, waiting_boot),
};
#undef B

#define R(tag, type, member)                                                                                 \
    {                                                                                                        \
        tag, type, offsetof(struct record, member), 0                                                        \
    }
static const struct field record_fields[] = {
    R(1, F_U32, flags),
    R(2, F_U32, below),
    R(3, F_U32, failures),
    R(4, F_U32, owner),
    R(5, F_STRING, path),
    R(6, F_STRING, fstype),
    R(7, F_STRING, source),
    R(8, F_STRING, root),
    R(9, F_STRING, found_source),
    R(10, F_FILEID, parent),
    R(11, F_FILEID, before),
    R(12, F_U64, mount_ns),
    R(13, F_U64, newest_mount),
    {25, F_BLOB, offsetof(struct record, content), offsetof(struct record, content_len)}, /* masked */
    R(15, F_BYTES16, nonce),
    R(16, F_FILEID, id),
    R(17, F_U64, mount.unique),
    R(18, F_U64, mount.ns),
    R(19, F_U64, mount.dev),
    R(20, F_U32, mount.id),
    R(21, F_U32, mount.parent),
    R(22, F_PROCID, process),
    R(23, F_BYTES16, evidence_boot),
    R(24, F_U64, devices_held),
};
#undef R

/* ---- a growing buffer; the first failure sticks ---- */

struct buffer {
    uint8_t *data;
    size_t len, size;
    int error;
};

static void buffer_add(struct buffer *b, const void *data, size_t len)
{
    if (b->error)
        return;
    if (b->len + len > RECORD_MAX) {
        b->error = -E2BIG;
        return;
    }
    if (b->len + len > b->size) {
        size_t size = (b->len + len) * 2 + 256;
        uint8_t *grown = realloc(b->data, size);
        if (!grown) {
            b->error = -ENOMEM;
            return;
        }
        b->data = grown;
        b->size = size;
    }
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

static void add_field(struct buffer *b, uint16_t tag, const void *data, size_t len)
{
    uint8_t head[6];
    uint16_t t = htole16(tag);
    uint32_t l = htole32((uint32_t)len);
    memcpy(head, &t, 2);
    memcpy(head + 2, &l, 4);
    buffer_add(b, head, sizeof(head));
    buffer_add(b, data, len);
}

/* ---- the two structs that are fields, as packed bytes ---- */

struct span {
    size_t offset, len;
};

#define F(member)                                                                                            \
    {                                                                                                        \
        offsetof(struct fileid, member), sizeof(((struct fileid *)0)->member)                                \
    }
static const struct span fileid_spans[] = {F(fs),         F(fs_magic), F(uid),  F(dev),
                                           F(ino),        F(btime_ns), F(mode), F(handle_type),
                                           F(handle_len), F(handle)};
#undef F
#define FILEID_BYTES (16 + 4 + 4 + 8 + 8 + 8 + 4 + 4 + 1 + FILEID_HANDLE_MAX)

#define P(member)                                                                                            \
    {                                                                                                        \
        offsetof(struct procid, member), sizeof(((struct procid *)0)->member)                                \
    }
static const struct span procid_spans[] = {P(boot_id), P(pid_ns), P(time_ns), P(start_time), P(pid)};
#undef P
#define PROCID_BYTES (16 + 8 + 8 + 8 + 4)

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "packed fields are little-endian; swap them here otherwise");

static void pack(uint8_t *to, const void *object, const struct span *spans, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        memcpy(to, (const uint8_t *)object + spans[i].offset, spans[i].len);
        to += spans[i].len;
    }
}

static void unpack(const uint8_t *from, void *object, const struct span *spans, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        memcpy((uint8_t *)object + spans[i].offset, from, spans[i].len);
        from += spans[i].len;
    }
}

/* ---- encode ---- */

static bool all_zero(const void *data, size_t len)
{
    const uint8_t *p = data;
    while (len && !*p)
        p++, len--;
    return len == 0;
}

/* A field that holds nothing is left out: absent decodes to zero. */
static void encode_field(struct buffer *b, const struct field *f, const void *object)
{
    static const uint8_t widths[] = {[F_U32] = 4, [F_U64] = 8, [F_BYTES16] = 16};
    const void *member = (const uint8_t *)object + f->offset;
    uint8_t packed[FILEID_BYTES > PROCID_BYTES ? FILEID_BYTES : PROCID_BYTES];
    const char *text;
    size_t len;
    switch ((enum field_type)f->type) {
    case F_NAME:
        add_field(b, f->tag, member, strlen(member));
        return;
    case F_STRING:
        text = *(char *const *)member;
        if (text)
            add_field(b, f->tag, text, strlen(text));
        return;
    case F_BLOB:
        len = *(const size_t *)((const uint8_t *)object + f->length_offset);
        if (len)
            add_field(b, f->tag, *(uint8_t *const *)member, len);
        return;
    case F_FILEID:
        if (!fileid_is_set(member))
            return;
        pack(packed, member, fileid_spans, ARRAY_LEN(fileid_spans));
        add_field(b, f->tag, packed, FILEID_BYTES);
        return;
    case F_PROCID:
        if (((const struct procid *)member)->pid == 0)
            return;
        pack(packed, member, procid_spans, ARRAY_LEN(procid_spans));
        add_field(b, f->tag, packed, PROCID_BYTES);
        return;
    case F_U32:
    case F_U64:
    case F_BYTES16:
        if (!all_zero(member, widths[f->type]))
            add_field(b, f->tag, member, widths[f->type]);
        return;
    }
}

static int encode(const struct record_head *start, const struct field *fields, size_t n, const void *object,
                  uint8_t **ret, size_t *ret_len)
{
    struct buffer b = {0};
    struct record_head head = *start;
    buffer_add(&b, &head, sizeof(head));
    for (size_t i = 0; i < n; i++)
        encode_field(&b, &fields[i], object);
    if (b.error) {
        free(b.data);
        return b.error;
    }
    head.length = (uint32_t)b.len;
    memcpy(b.data, &head, sizeof(head));
    head.checksum = record_checksum(b.data, b.len);
    memcpy(b.data, &head, sizeof(head));
    *ret = b.data;
    *ret_len = b.len;
    return 0;
}

int record_encode_box(const struct box *box, uint64_t position, uint8_t **ret, size_t *ret_len)
{
    struct record_head head = {.magic = RECORD_MAGIC,
                               .version = RECORD_VERSION,
                               .type = RECORD_BOX,
                               .incarnation = box->incarnation,
                               .position = position,
                               .time_ns = box->begun_ns};
    return encode(&head, box_fields, ARRAY_LEN(box_fields), box, ret, ret_len);
}

/* What a lock file held was written by others, who must not be able to make it look like a record to a
 * carver: it is stored under a mask that they can't know. Masking twice gives the content again. */
static void mask(uint8_t *content, size_t len, const uint8_t nonce[16])
{
    for (size_t at = 0; at < len; at += sizeof(uint64_t)) {
        uint64_t key = XXH3_64bits_withSeed(nonce, 16, at),
                 n = len - at < sizeof(key) ? len - at : sizeof(key);
        for (size_t i = 0; i < n; i++)
            content[at + i] ^= ((const uint8_t *)&key)[i];
    }
}

int record_encode(const struct record *r, uint64_t position, uint8_t **ret, size_t *ret_len)
{
    struct record stored = *r;
    struct record_head head = {.magic = RECORD_MAGIC,
                               .version = RECORD_VERSION,
                               .type = RECORD_RESOURCE,
                               .kind = (uint8_t)r->kind,
                               .seq = r->seq,
                               .incarnation = r->incarnation,
                               .position = position,
                               .time_ns = r->time_ns};
    _cleanup_free_ uint8_t *masked = malloc(r->content_len + 1);
    if (!masked)
        return -ENOMEM;
    if (r->content_len)
        memcpy(masked, r->content, r->content_len);
    mask(masked, r->content_len, r->nonce);
    stored.content = masked;
    stored.flags &= ~(uint32_t)(REC_PENDING | REC_DROPPED);
    return encode(&head, record_fields, ARRAY_LEN(record_fields), &stored, ret, ret_len);
}

/* ---- decode ---- */

static int decode_string(char **ret, const uint8_t *data, size_t len)
{
    if (len >= RECORD_PATH_MAX || memchr(data, 0, len) || *ret)
        return -EBADMSG;
    char *text = malloc(len + 1);
    if (!text)
        return -ENOMEM;
    memcpy(text, data, len);
    text[len] = 0;
    *ret = text;
    return 0;
}

static int decode_field(const struct field *f, void *object, const uint8_t *data, size_t len)
{
    static const uint8_t widths[] = {[F_U32] = 4, [F_U64] = 8, [F_BYTES16] = 16};
    uint8_t *member = (uint8_t *)object + f->offset;
    switch ((enum field_type)f->type) {
    case F_NAME:
        if (len == 0 || len > BOX_NAME_MAX || memchr(data, 0, len))
            return -EBADMSG;
        memcpy(member, data, len);
        member[len] = 0;
        return 0;
    case F_STRING:
        return decode_string((char **)member, data, len);
    case F_BLOB:
        if (len > LOCK_CONTENT_MAX || len == 0 || *(uint8_t **)member)
            return -EBADMSG;
        *(uint8_t **)member = malloc(len);
        if (!*(uint8_t **)member)
            return -ENOMEM;
        memcpy(*(uint8_t **)member, data, len);
        *(size_t *)((uint8_t *)object + f->length_offset) = len;
        return 0;
    case F_FILEID:
        if (len != FILEID_BYTES)
            return -EBADMSG;
        unpack(data, member, fileid_spans, ARRAY_LEN(fileid_spans));
        return ((struct fileid *)member)->handle_len <= FILEID_HANDLE_MAX ? 0 : -EBADMSG;
    case F_PROCID:
        if (len != PROCID_BYTES)
            return -EBADMSG;
        unpack(data, member, procid_spans, ARRAY_LEN(procid_spans));
        return 0;
    case F_U32:
    case F_U64:
    case F_BYTES16:
        if (len != widths[f->type])
            return -EBADMSG;
        memcpy(member, data, len);
        return 0;
    }
    return -EBADMSG;
}

static int decode(const uint8_t *data, size_t len, const struct field *fields, size_t n, void *object)
{
    for (size_t at = sizeof(struct record_head); at < len;) {
        uint16_t tag;
        uint32_t length;
        if (len - at < 6)
            return -EBADMSG;
        memcpy(&tag, data + at, 2);
        memcpy(&length, data + at + 2, 4);
        at += 6;
        if (length > len - at)
            return -EBADMSG;
        for (size_t i = 0; i < n; i++) {
            if (fields[i].tag != tag)
                continue; /* a tag that no entry has is a later version's optional field */
            int r = decode_field(&fields[i], object, data + at, length);
            if (r < 0)
                return r;
        }
        at += length;
    }
    return 0;
}

int record_decode_box(const void *data, size_t len, const struct record_key *key, struct box *ret)
{
    struct record_head head;
    struct box box = {0};
    int r = record_check(data, len, key, &head);
    if (r < 0)
        return r;
    if (head.type != RECORD_BOX)
        return -EBADMSG;
    r = decode(data, len, box_fields, ARRAY_LEN(box_fields), &box);
    if (r < 0)
        return r;
    box.incarnation = head.incarnation;
    if (!box_name_is_valid(box.name))
        return -EBADMSG;
    *ret = box;
    return 0;
}

int record_decode(const void *data, size_t len, const struct record_key *key, struct record *ret)
{
    struct record_head head;
    struct record rec = {0};
    int r = record_check(data, len, key, &head);
    if (r < 0)
        return r;
    if (head.type != RECORD_RESOURCE)
        return -EBADMSG;
    r = decode(data, len, record_fields, ARRAY_LEN(record_fields), &rec);
    if (r == 0 && (head.kind == RBXJ_PROCESS ? rec.process.pid <= 0 : !path_is_normal(rec.path)))
        r = -EBADMSG;
    if (r < 0) {
        record_clear(&rec);
        return r;
    }
    mask(rec.content, rec.content_len, rec.nonce);
    rec.incarnation = head.incarnation;
    rec.seq = head.seq;
    rec.kind = (enum rbxj_kind)head.kind;
    rec.position = head.position;
    rec.time_ns = head.time_ns;
    *ret = rec;
    return 0;
}

bool record_is_anothers(const struct record *r)
{
    return (r->flags & (REC_EVIDENCE | REC_TRIED | REC_ANOTHERS)) == REC_ANOTHERS;
}

void record_clear(struct record *r)
{
    if (!r)
        return;
    free(r->path);
    free(r->fstype);
    free(r->source);
    free(r->root);
    free(r->found_source);
    free(r->content);
    free(r->chain);
    *r = (struct record){0};
}
