/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Records and log frames, in memory (K1, K24, K32, I2, I9).
 */
#include "harness.h"

#include "base/cleanup.h"
#include "journal/record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A member more: give it a value in full_record() or full_box(), then correct the size here. */
static_assert(sizeof(struct record) == 544 || sizeof(void *) != 8, "full_record() fills every member");
static_assert(sizeof(struct box) == 184, "full_box() fills every member");

static uint8_t counter;

static void fill(void *data, size_t len)
{
    for (uint8_t *p = data; len; p++, len--)
        *p = counter = counter % 250 + 1;
}
#define FILL(member) fill(&(member), sizeof(member))

static void fill_fileid(struct fileid *f)
{
    FILL(f->fs);
    FILL(f->fs_magic);
    FILL(f->uid);
    FILL(f->dev);
    FILL(f->ino);
    FILL(f->btime_ns);
    FILL(f->mode);
    FILL(f->handle_type);
    FILL(f->handle);
    f->handle_len = FILEID_HANDLE_MAX;
}

static void fill_procid(struct procid *p)
{
    FILL(p->boot_id);
    FILL(p->pid_ns);
    FILL(p->time_ns);
    FILL(p->start_time);
    p->pid = 4711;
}

static struct record full_record(void)
{
    struct record r = {.kind = RBXJ_MOUNT};
    FILL(r.incarnation);
    FILL(r.seq);
    FILL(r.flags);
    r.flags &= ~(uint32_t)(REC_PENDING | REC_DROPPED);
    FILL(r.below);
    FILL(r.failures);
    FILL(r.owner);
    FILL(r.time_ns);
    r.path = strdup("/srv/a \n\\\xff/b");
    r.fstype = strdup("tmpfs");
    r.source = strdup("rbxj");
    r.root = strdup("/");
    r.found_source = strdup("rbxj:1:2");
    fill_fileid(&r.parent);
    fill_fileid(&r.before);
    FILL(r.mount_ns);
    FILL(r.newest_mount);
    r.content_len = LOCK_CONTENT_MAX;
    r.content = malloc(r.content_len);
    fill(r.content, r.content_len);
    FILL(r.nonce);
    fill_fileid(&r.id);
    FILL(r.mount.unique);
    FILL(r.mount.ns);
    FILL(r.mount.dev);
    FILL(r.mount.id);
    FILL(r.mount.parent);
    fill_procid(&r.process);
    FILL(r.evidence_boot);
    FILL(r.devices_held);
    return r;
}

static struct box full_box(void)
{
    struct box b = {.name = "box-7.a_B"};
    FILL(b.incarnation);
    fill_procid(&b.supervisor);
    FILL(b.parent);
    FILL(b.begun_ns);
    FILL(b.flags);
    FILL(b.planned);
    FILL(b.next_seq);
    FILL(b.failures);
    FILL(b.waiting_since_ns);
    FILL(b.waiting_boot);
    return b;
}

/* Equal in everything, padding (always zero here) and pointers aside. */
static void assert_same_record(const struct record *a, const struct record *b)
{
    struct record x = *a, y = *b;
    assert_string_equal(x.path, y.path);
    assert_string_equal(x.fstype, y.fstype);
    assert_string_equal(x.source, y.source);
    assert_string_equal(x.root, y.root);
    assert_string_equal(x.found_source, y.found_source);
    assert_int_equal(x.content_len, y.content_len);
    assert_memory_equal(x.content, y.content, x.content_len);
    x.path = x.fstype = x.source = x.root = x.found_source = NULL;
    y.path = y.fstype = y.source = y.root = y.found_source = NULL;
    x.content = y.content = NULL;
    assert_memory_equal(&x, &y, sizeof(x));
}

struct bytes {
    uint8_t *data;
    size_t len;
};

static void free_bytes(struct bytes *b)
{
    free(b->data);
}

static void clear_record(struct record *r)
{
    record_clear(r);
}

static struct bytes encoded(void)
{
    _cleanup_(clear_record) struct record r = full_record();
    struct bytes b;
    assert_int_equal(record_encode(&r, 77, &b.data, &b.len), 0);
    return b;
}

static void k32_record_round_trips_every_field(void **state)
{
    (void)state;
    _cleanup_(clear_record) struct record r = full_record(), back = {0};
    _cleanup_(free_bytes) struct bytes b = {0};
    struct record_key key = record_key(r.incarnation, r.seq);
    assert_int_equal(record_encode(&r, 77, &b.data, &b.len), 0);
    assert_int_equal(record_decode(b.data, b.len, &key, &back), 0);
    assert_int_equal(back.position, 77);
    r.position = 77;
    assert_same_record(&r, &back);
}

static void record_box_round_trips_every_field(void **state)
{
    (void)state;
    struct box box = full_box(), back;
    _cleanup_(free_bytes) struct bytes b = {0};
    struct record_key key = record_key(box.incarnation, 0);
    struct record r;
    assert_int_equal(record_encode_box(&box, 5, &b.data, &b.len), 0);
    assert_int_equal(record_decode_box(b.data, b.len, &key, &back), 0);
    assert_memory_equal(&box, &back, sizeof(box));
    assert_int_equal(record_decode(b.data, b.len, &key, &r), -EBADMSG); /* not a resource */
}

static void record_empty_fields_stay_empty(void **state)
{
    (void)state;
    struct record r = {.incarnation = 1, .seq = 2, .kind = RBXJ_TMPDIR, .path = strdup("/srv/x")};
    _cleanup_(free_bytes) struct bytes b = {0};
    _cleanup_(clear_record) struct record back = {0};
    assert_int_equal(record_encode(&r, 0, &b.data, &b.len), 0);
    assert_int_equal(record_decode(b.data, b.len, NULL, &back), 0);
    assert_null(back.fstype);
    assert_null(back.content);
    assert_false(fileid_is_set(&back.parent));
    assert_int_equal(back.process.pid, 0);
    record_clear(&r);
}

static void i9_record_truncated_anywhere_is_refused(void **state)
{
    (void)state;
    _cleanup_(free_bytes) struct bytes b = encoded();
    struct record r;
    for (size_t len = 0; len < b.len; len++) {
        /* exactly as long as it says, so that the sanitizer sees a read behind the end */
        _cleanup_free_ uint8_t *cut = malloc(len ? len : 1);
        memcpy(cut, b.data, len);
        assert_int_equal(record_decode(cut, len, NULL, &r), -EBADMSG);
        if (len >= sizeof(struct record_head)) {
            /* with the length put right, too: then the checksum speaks */
            uint32_t l = (uint32_t)len;
            memcpy(cut + offsetof(struct record_head, length), &l, 4);
            assert_int_equal(record_decode(cut, len, NULL, &r), -EBADMSG);
        }
    }
}

static void i9_record_every_flipped_bit_is_refused(void **state)
{
    (void)state;
    _cleanup_(free_bytes) struct bytes b = encoded();
    struct record r;
    for (size_t i = 0; i < b.len * 8; i++) {
        b.data[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(record_decode(b.data, b.len, NULL, &r), -EBADMSG);
        b.data[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    assert_int_equal(record_check(b.data, b.len, NULL, NULL), 0);
}

/* Puts the checksum right after a change. */
static void seal(struct bytes *b)
{
    uint32_t len = (uint32_t)b->len;
    memcpy(b->data + offsetof(struct record_head, length), &len, 4);
    uint64_t sum = record_checksum(b->data, b->len);
    memcpy(b->data + offsetof(struct record_head, checksum), &sum, 8);
}

static void add_field(struct bytes *b, uint16_t tag, const void *data, uint32_t claimed, size_t len)
{
    b->data = realloc(b->data, b->len + 6 + len);
    memcpy(b->data + b->len, &tag, 2);
    memcpy(b->data + b->len + 2, &claimed, 4);
    memcpy(b->data + b->len + 6, data, len);
    b->len += 6 + len;
    seal(b);
}

static void record_of_a_newer_version_is_refused_as_that(void **state)
{
    (void)state;
    _cleanup_(free_bytes) struct bytes b = encoded();
    uint16_t version = RECORD_VERSION + 1;
    struct record r;
    memcpy(b.data + offsetof(struct record_head, version), &version, 2);
    assert_int_equal(record_decode(b.data, b.len, NULL, &r), -EBADMSG); /* damaged is not newer */
    seal(&b);
    assert_int_equal(record_decode(b.data, b.len, NULL, &r), -EPROTONOSUPPORT);
}

static void record_unknown_tag_is_skipped(void **state)
{
    (void)state;
    _cleanup_(free_bytes) struct bytes b = encoded();
    _cleanup_(clear_record) struct record before = {0}, after = {0};
    assert_int_equal(record_decode(b.data, b.len, NULL, &before), 0);
    add_field(&b, 999, "later", 5, 5);
    assert_int_equal(record_decode(b.data, b.len, NULL, &after), 0);
    assert_same_record(&before, &after);
}

/* Fields that a checksum vouches for and that are wrong all the same. */
static void i9_record_malformed_field_is_refused(void **state)
{
    (void)state;
    static const char large[LOCK_CONTENT_MAX + 1];
    static const struct {
        const char *data;
        size_t len;
        uint32_t claimed;
        uint16_t tag;
    } bad[] = {
        {"x", 1, 2, 999},                                        /* longer than the record */
        {"", 0, UINT32_MAX, 999},                                /* its length overflows */
        {"123", 3, 3, 1},                                        /* not an integer's width */
        {"/a", 2, 2, 5},                                         /* a second path */
        {"abc", 3, 3, 10},                                       /* half a file identity */
        {"abc", 3, 3, 22},                                       /* half a process identity */
        {large, LOCK_CONTENT_MAX + 1, LOCK_CONTENT_MAX + 1, 25}, /* more than a lock may hold */
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        _cleanup_(free_bytes) struct bytes b = encoded();
        struct record r;
        add_field(&b, bad[i].tag, bad[i].data, bad[i].claimed, bad[i].len);
        assert_int_equal(record_decode(b.data, b.len, NULL, &r), -EBADMSG);
    }
}

static void i2_record_path_that_is_not_normal_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "x", "srv/x", "/srv/../x", "/srv//x", "/srv/x/", NULL};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct record r = {.incarnation = 1,
                           .seq = 1,
                           .kind = RBXJ_TMPDIR,
                           .path = (char *)(uintptr_t)bad[i]},
                      back;
        _cleanup_(free_bytes) struct bytes b = {0};
        assert_int_equal(record_encode(&r, 0, &b.data, &b.len), 0);
        assert_int_equal(record_decode(b.data, b.len, NULL, &back), -EBADMSG);
    }
    /* a process has none, but a pid */
    struct record r = {.incarnation = 1, .seq = 1, .kind = RBXJ_PROCESS}, back;
    _cleanup_(free_bytes) struct bytes b = {0}, c = {0};
    assert_int_equal(record_encode(&r, 0, &b.data, &b.len), 0);
    assert_int_equal(record_decode(b.data, b.len, NULL, &back), -EBADMSG);
    fill_procid(&r.process);
    assert_int_equal(record_encode(&r, 0, &c.data, &c.len), 0);
    assert_int_equal(record_decode(c.data, c.len, NULL, &back), 0);
}

static void k32_record_under_another_key_is_refused(void **state)
{
    (void)state;
    _cleanup_(clear_record) struct record r = full_record();
    _cleanup_(free_bytes) struct bytes b = {0};
    struct record back;
    assert_int_equal(record_encode(&r, 0, &b.data, &b.len), 0);
    struct record_key keys[] = {record_key(r.incarnation + 1, r.seq), record_key(r.incarnation, r.seq + 1)};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        assert_int_equal(record_decode(b.data, b.len, &keys[i], &back), -EBADMSG);
}

static void k32_keys_sort_by_incarnation_then_seq(void **state)
{
    (void)state;
    struct record_key keys[] = {record_key(1, 255), record_key(1, 256), record_key(2, 0),
                                record_key(1ull << 63, 1)};
    uint64_t incarnation;
    uint32_t seq;
    for (size_t i = 1; i < ARRAY_LEN(keys); i++)
        assert_true(memcmp(&keys[i - 1], &keys[i], sizeof(keys[i])) < 0);
    record_key_parse(&keys[1], &incarnation, &seq);
    assert_int_equal(incarnation, 1);
    assert_int_equal(seq, 256);
}

static void record_too_large_is_not_encoded(void **state)
{
    (void)state;
    struct record r = {.incarnation = 1, .seq = 1, .kind = RBXJ_LOCK, .path = strdup("/x")};
    struct bytes b = {0};
    r.content_len = RECORD_MAX;
    r.content = calloc(1, r.content_len);
    assert_int_equal(record_encode(&r, 0, &b.data, &b.len), -E2BIG);
    assert_null(b.data);
    record_clear(&r);
}

static void k24_log_frame_with_any_flipped_bit_is_refused(void **state)
{
    (void)state;
    static const char record[] = "bytes that a leader need not understand";
    uint8_t bytes[sizeof(struct log_frame) + sizeof(record)];
    struct log_frame frame, back;
    log_frame_fill(&frame, "box", 11, 22, 33, true, record, sizeof(record));
    memcpy(bytes, &frame, sizeof(frame));
    memcpy(bytes + sizeof(frame), record, sizeof(record));
    assert_int_equal(log_check(bytes, sizeof(bytes), 33, &back), 0);
    assert_int_equal(back.op, LOG_PUT);
    assert_int_equal(back.incarnation, 11);
    assert_int_equal(back.seq, 22);
    assert_int_equal(back.needs_disk, 1);
    assert_string_equal(back.box, "box");
    assert_int_equal(log_check(bytes, sizeof(bytes), 34, &back), -EBADMSG);
    for (size_t i = 0; i < sizeof(bytes) * 8; i++) {
        bytes[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(log_check(bytes, sizeof(bytes), 33, &back), -EBADMSG);
        bytes[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t len = 0; len < sizeof(bytes); len++)
        assert_int_equal(log_check(bytes, len, 33, &back), -EBADMSG);
    log_frame_fill(&frame, "box", 11, 22, 33, false, NULL, 0);
    assert_int_equal(log_check(&frame, sizeof(frame), 33, &back), 0);
    assert_int_equal(back.op, LOG_DELETE);
}

static void k1_stamp_has_one_spelling(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "1",
                                      "1:",
                                      ":1",
                                      " 1:2",
                                      "+1:2",
                                      "1:2 ",
                                      "01:2",
                                      "1:2:3",
                                      "-1:2",
                                      "18446744073709551616:1",
                                      "1:4294967296",
                                      "0x1:2"};
    char text[STAMP_MAX];
    uint64_t incarnation;
    uint32_t seq;
    stamp_format(text, UINT64_MAX, UINT32_MAX);
    assert_string_equal(text, "18446744073709551615:4294967295");
    assert_true(stamp_parse(text, &incarnation, &seq));
    assert_true(incarnation == UINT64_MAX && seq == UINT32_MAX);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(stamp_parse(bad[i], &incarnation, &seq));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(k32_record_round_trips_every_field),
        cmocka_unit_test(record_box_round_trips_every_field),
        cmocka_unit_test(record_empty_fields_stay_empty),
        cmocka_unit_test(i9_record_truncated_anywhere_is_refused),
        cmocka_unit_test(i9_record_every_flipped_bit_is_refused),
        cmocka_unit_test(record_of_a_newer_version_is_refused_as_that),
        cmocka_unit_test(record_unknown_tag_is_skipped),
        cmocka_unit_test(i9_record_malformed_field_is_refused),
        cmocka_unit_test(i2_record_path_that_is_not_normal_is_refused),
        cmocka_unit_test(k32_record_under_another_key_is_refused),
        cmocka_unit_test(k32_keys_sort_by_incarnation_then_seq),
        cmocka_unit_test(record_too_large_is_not_encoded),
        cmocka_unit_test(k24_log_frame_with_any_flipped_bit_is_refused),
        cmocka_unit_test(k1_stamp_has_one_spelling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
