/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For test_snapshot.c and test_snapshot_race.c: a journal that is read.
 */
#ifndef RBXJ_TESTS_SNAPSHOT_FIXTURE_H
#define RBXJ_TESTS_SNAPSHOT_FIXTURE_H

#include "journal_fixture.h"

/* A journal with three boxes, one of them on disk, made by a process that is gone. */
static inline struct place make_boxes(void)
{
    struct place p = place_make();
    pid_t pid = CHILD({
        struct rbxj_error e;
        struct journal *j = place_open(&p);
        CHECK(begin_one(j, "a", harness_format("%s/a", p.kept), &e) == 0);
        CHECK(begin_one(j, "b", harness_format("%s/b", p.lost), &e) == 0);
        CHECK(begin_one(j, "c", NULL, &e) == 0);
    });
    assert_child(pid);
    return p;
}

static inline void read_only(const char *dir)
{
    assert_int_equal(mount(dir, dir, NULL, MS_BIND, NULL), 0);
    assert_int_equal(mount(NULL, dir, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), 0);
}

#endif
