/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For the tests of what is read of a damaged journal: a journal with boxes in it, what is read of it, and a
 * new one.
 */
#ifndef RBXJ_TESTS_SALVAGE_FIXTURE_H
#define RBXJ_TESTS_SALVAGE_FIXTURE_H

#include "journal_fixture.h"

#include "journal/salvage.h"

#define BOXES 12

static inline const char *disk_data(const struct place *p)
{
    return harness_format("%s/journal/data.mdb", p->state);
}

/* Boxes with three records each, on disk; some ended, so that free pages hold what was. By a process that is
 * gone. */
static inline struct place make_journal(void)
{
    struct place p = place_make();
    pid_t pid = CHILD({
        struct rbxj_error e = {0};
        struct journal *j = place_open(&p);
        for (int i = 0; i < BOXES + 4; i++) {
            const char *name = harness_format("box%d", i);
            struct box box = must_begin(j, name, harness_format("%s/%s", p.kept, name));
            for (int k = 0; k < 2; k++)
                CHECK(intend(j, &box, RBXJ_TMPDIR, harness_format("%s/%s.%d", p.kept, name, k), &e) == 0);
            for (uint32_t seq = 1; i >= BOXES && seq <= 3; seq++)
                CHECK(journal_drop(j, box.incarnation, seq, &e) == 0);
            if (i >= BOXES)
                CHECK(journal_end(j, box.incarnation, &e) == 0);
        }
        CHECK(journal_flush(j, &e) == 0);
    });
    assert_child(pid);
    return p;
}

static inline struct autopsy must_read(const char *path)
{
    struct autopsy a;
    struct rbxj_error e = {0};
    assert_ok(autopsy_read(AT_FDCWD, path, path, &a, &e), e);
    return a;
}

static inline void write_at(const char *path, off_t at, const void *bytes, size_t len)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, len, at), (ssize_t)len);
}

static inline size_t salvaged_records(const struct autopsy *a, const char *dir, struct salvaged *ret)
{
    const struct journal_options options = {.map_size = 16 << 20, .preallocate = 1 << 20};
    struct snapshot s;
    struct rbxj_error e = {0};
    size_t n = 0;
    assert_ok(salvage_write(a, 1, false, dir, &options, ret, &e), e);
    assert_ok(snapshot_read(dir, harness_format("%s.run", dir), &s, &e), e);
    assert_int_equal(s.damaged, 0);
    assert_true(s.salvaged_ns > 0);
    assert_int_equal(s.len, ret->boxes);
    for (size_t i = 0; i < s.len; i++) {
        assert_true(s.boxes[i].box.flags & BOX_ON_DISK);
        n += s.boxes[i].len;
    }
    snapshot_clear(&s);
    return n;
}

#endif
