/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Counters in the journals, counted and read.
 */
#ifndef RBXJ_TESTS_COUNTERS_FIXTURE_H
#define RBXJ_TESTS_COUNTERS_FIXTURE_H

#include "flush_fixture.h"
#include "journal_fixture.h"

#include <endian.h>
#include <xxhash.h>

enum { KNOWN = sizeof(struct counters) / sizeof(uint64_t) };

static inline void must_count(struct journal *j, uint64_t orphans)
{
    struct rbxj_error e = {0};
    struct counters more = {.orphans = orphans, .last_replay_ns = 100 + orphans};
    assert_ok(journal_count(j, &more, &e), e);
}

static inline struct counters must_read(const struct place *p)
{
    struct rbxj_error e = {0};
    struct snapshot s;
    assert_ok(snapshot_read(p->state, p->runtime, &s, &e), e);
    struct counters c = s.counters;
    snapshot_clear(&s);
    return c;
}

#endif
