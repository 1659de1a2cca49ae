/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A write of a meta page that failed: LMDB puts back the number of the transaction before the last and leaves
 * the roots of the one that came to nothing. That page is not the newest, and the journal is sound (K27).
 */
#include "journal_fixture.h"

#include "journal/salvage.h"

#include <sys/syscall.h>

#define META_WRITE 120 /* LMDB's: from the map's size to the transaction's number */

static bool failing;

ssize_t failing_pwrite(int fd, const void *data, size_t len, off_t offset) __asm__("pwrite");
ssize_t failing_pwrite(int fd, const void *data, size_t len, off_t offset)
{
    if (failing && len == META_WRITE) {
        failing = false;
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, data, len, offset);
}

/* Does the older meta page name a root behind its last page? */
static bool is_left_over(const struct place *p)
{
    uint64_t meta[2][19];
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/data.mdb", place_folder(p));
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pread(fd, meta[i], sizeof(meta[i]), i * 4096), sizeof(meta[i]));
    const uint64_t *older =
        meta[meta[0][18] > meta[1][18]]; /* 18: mm_txnid, 17: mm_last_pg, 10 and 16: roots */
    return (older[10] != UINT64_MAX && older[10] > older[17]) ||
           (older[16] != UINT64_MAX && older[16] > older[17]);
}

/* Boxes with larger and larger plans, until the write that fails leaves such a page. */
static void leave_one(const struct place *p)
{
    const char *paths[40];
    struct rbxj_error e = {0};
    for (int i = 0; i < 20; i++) {
        struct journal *j = place_open(p);
        for (int k = 0; k < 40; k++)
            paths[k] = harness_format("%s/%0200u", p->lost, (unsigned)(100 * i + k));
        struct box box = {0};
        failing = true;
        assert_true(begin(j, &box, harness_format("x%d", i), paths, ARRAY_LEN(paths), &e) < 0);
        failing = false;
        place_close();
        if (is_left_over(p))
            return;
        must_begin(place_open(p), harness_format("y%d", i), harness_format("%s/y%d", p->lost, i));
        place_close();
    }
    fail_msg("no page was left so");
}

/* The first that fails: what it wrote lies in pages that were free. */
static void fail_one(const struct place *p)
{
    struct rbxj_error e = {0};
    failing = true;
    assert_true(begin_one(place_open(p), "x", harness_format("%s/x", p->lost), &e) < 0);
    assert_false(failing);
    place_close();
}

/* Of the newest snapshot only the meta page is left. */
static const char *copy_without_newest(const struct place *p, int number)
{
    const char *path = harness_format("%s/copy%d", harness_disk(), number);
    uint64_t txn[2], nowhere = 1;
    char *bytes;
    ssize_t len = fd_read_all(AT_FDCWD, harness_format("%s/data.mdb", place_folder(p)), 64 << 20, &bytes);
    assert_true(len > 8192);
    for (int i = 0; i < 2; i++)
        memcpy(&txn[i], bytes + i * 4096 + 144, sizeof(txn[i]));
    memcpy(bytes + (txn[1] > txn[0]) * 4096 + 128, &nowhere, sizeof(nowhere));
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_int_equal(fd_write_all(fd, bytes, (size_t)len), 0);
    free(bytes);
    return path;
}

static void k27_meta_page_whose_write_failed(void **state)
{
    (void)state;
    struct place p = place_make();
    struct snapshot s;
    struct rbxj_error e = {0};
    (void)must_begin(place_open(&p), "a", harness_format("%s/a", p.lost));
    place_close();
    leave_one(&p);
    assert_ok(snapshot_read(p.state, p.runtime, &s, &e), e);
    assert_non_null(find_box(&s, "a"));
    assert_int_equal(s.damaged, 0);
    snapshot_clear(&s);
    (void)must_begin(place_open(&p), "b", harness_format("%s/b", p.lost));
}

/* With the newest snapshot lost, that page is what a salvage has: of a transaction of which nobody was told
 * that it was done. What was begun is there, and the rest proves nothing. */
static void k27_meta_page_whose_write_failed_is_salvaged(void **state)
{
    (void)state;
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct autopsy a;
    struct salvaged salvaged;
    struct snapshot s;
    (void)must_begin(place_open(&p), "a", harness_format("%s/a", p.lost));
    place_close();
    for (int beyond = 0; beyond < 2; beyond++) {
        const char *dir = harness_format("%s/salvaged%d", harness_disk(), beyond);
        if (beyond)
            leave_one(&p);
        else
            fail_one(&p);
        const char *copy = copy_without_newest(&p, beyond);
        assert_ok(autopsy_read(AT_FDCWD, copy, copy, &a, &e), e);
        assert_false(a.snapshots[0].sound);
        assert_ok(salvage_write(&a, 1, false, dir, &p.options, &salvaged, &e), e);
        autopsy_clear(&a);
        assert_ok(snapshot_read(dir, harness_format("%s.run", dir), &s, &e), e);
        const struct snapshot_box *box = find_box(&s, "a");
        assert_non_null(box);
        assert_int_equal(box->len, 1);
        assert_true(s.salvaged_ns > 0);
        for (size_t i = 0; i < s.len; i++)
            for (size_t k = 0; k < s.boxes[i].len && s.boxes[i].box.name[0] == 'x'; k++)
                assert_false(s.boxes[i].records[k].flags & REC_EVIDENCE);
        snapshot_clear(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k27_meta_page_whose_write_failed),
        journal_test(k27_meta_page_whose_write_failed_is_salvaged),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
