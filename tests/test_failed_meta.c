/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A write of a meta page that failed: LMDB puts back the number of the transaction before the last and leaves the roots
 * of the one that came to nothing. That page is not the newest, and the journal is sound.
 */
#include "journal_fixture.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {journal_test(k27_meta_page_whose_write_failed)};
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
