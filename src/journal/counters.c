/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "journal/counters.h"

#include "base/cleanup.h"
#include "journal/internal.h"

#include <endian.h>
#include <string.h>
#include <xxhash.h>

#define COUNTERS_LEN (sizeof(struct counters) / sizeof(uint64_t))

void histogram_add(struct histogram *histogram, int64_t ns)
{
    static const int64_t bounds[COUNTERS_BUCKETS - 1] = COUNTERS_BOUNDS;
    size_t i = 0;
    while (i < COUNTERS_BUCKETS - 1 && ns > bounds[i])
        i++;
    histogram->buckets[i]++;
    histogram->sum_ns += ns > 0 ? (uint64_t)ns : 0;
}

void counters_add(struct counters *sum, const struct counters *more)
{
    uint64_t last = more->last_replay_ns ? more->last_replay_ns : sum->last_replay_ns;
    uint64_t *to = (uint64_t *)sum;
    const uint64_t *from = (const uint64_t *)more;
    for (size_t i = 0; i < COUNTERS_LEN; i++)
        to[i] += from[i];
    sum->last_replay_ns = last;
}

/* ---- as stored: the checksum of what follows it, then the numbers ---- */

/* How many numbers there are, which may be more than this version knows; 0 where there is nothing sound. */
static size_t numbers_in(const void *stored, size_t len)
{
    uint64_t sum;
    if (len < sizeof(sum) || len % sizeof(sum))
        return 0;
    memcpy(&sum, stored, sizeof(sum));
    if (le64toh(sum) != XXH3_64bits((const uint8_t *)stored + sizeof(sum), len - sizeof(sum)))
        return 0;
    return len / sizeof(sum) - 1;
}

/* Finds them in LMDB's memory. */
static size_t find(MDB_txn *txn, MDB_dbi meta, MDB_val *ret)
{
    MDB_val key = {strlen(META_COUNTERS), META_COUNTERS};
    return mdb_get(txn, meta, &key, ret) == MDB_SUCCESS ? numbers_in(ret->mv_data, ret->mv_size) : 0;
}

static void decode(const void *stored, size_t n, struct counters *ret)
{
    uint64_t *to = (uint64_t *)ret, number;
    *ret = (struct counters){0};
    for (size_t i = 0; i < n && i < COUNTERS_LEN; i++) {
        memcpy(&number, (const uint8_t *)stored + (i + 1) * sizeof(number), sizeof(number));
        to[i] = le64toh(number);
    }
}

void counters_parse(const void *stored, size_t len, struct counters *ret)
{
    decode(stored, numbers_in(stored, len), ret);
}

int counters_write(MDB_txn *txn, MDB_dbi meta, const struct counters *more)
{
    MDB_val stored;
    struct counters sum;
    size_t n = find(txn, meta, &stored), len = n > COUNTERS_LEN ? n : COUNTERS_LEN;
    _cleanup_free_ uint64_t *numbers = calloc(len + 1, sizeof(*numbers));
    if (!numbers)
        return ENOMEM;
    decode(stored.mv_data, n, &sum);
    counters_add(&sum, more);
    if (n > COUNTERS_LEN) /* a newer version's are kept behind ours (K24) */
        memcpy(numbers, stored.mv_data, stored.mv_size);
    for (size_t i = 0; i < COUNTERS_LEN; i++)
        numbers[i + 1] = htole64(((const uint64_t *)&sum)[i]);
    numbers[0] = htole64(XXH3_64bits(numbers + 1, len * sizeof(*numbers)));
    return meta_put(txn, meta, META_COUNTERS, numbers, (len + 1) * sizeof(*numbers));
}

enum counters_news counters_compare(MDB_txn *from, MDB_dbi from_meta, MDB_txn *to, MDB_dbi to_meta)
{
    MDB_val ours, theirs;
    size_t n = find(from, from_meta, &ours), number = sizeof(uint64_t);
    if (!n)
        return COUNTERS_SAME;
    if (find(to, to_meta, &theirs) != n)
        return COUNTERS_MORE;
    if (memcmp(ours.mv_data, theirs.mv_data, ours.mv_size) == 0)
        return COUNTERS_SAME;
    const uint8_t *a = ours.mv_data, *b = theirs.mv_data;
    for (size_t i = 1; i <= n; i++) /* behind the checksum */
        if (i - 1 != offsetof(struct counters, last_replay_ns) / number &&
            memcmp(a + i * number, b + i * number, number) != 0)
            return COUNTERS_MORE;
    return COUNTERS_TIME;
}

int counters_copy(MDB_txn *from, MDB_dbi from_meta, MDB_txn *to, MDB_dbi to_meta)
{
    MDB_val stored;
    return find(from, from_meta, &stored)
               ? meta_put(to, to_meta, META_COUNTERS, stored.mv_data, stored.mv_size)
               : MDB_SUCCESS;
}
