/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For the tests of the independent reader: data files as liblmdb makes them, and what is in their snapshots.
 */
#ifndef RBXJ_TESTS_PAGES_FIXTURE_H
#define RBXJ_TESTS_PAGES_FIXTURE_H

#include "../fuzz/newest.h"
#include "harness.h"

#include "base/cleanup.h"
#include "journal/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define DBS 3
#define MAP (8 << 20)

static uint64_t random_state = 1;

static inline uint64_t draw(uint64_t below)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (z ^ (z >> 31)) % below;
}

/* ---- files as liblmdb makes them ---- */

struct env {
    MDB_env *env;
    MDB_dbi dbs[DBS];
    char *path;
};
static const char *const names[DBS] = {"records", "meta", "log"};

static inline int env_open(struct env *e, const char *path, unsigned flags)
{
    MDB_txn *txn;
    int rc = mdb_env_create(&e->env);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(e->env, DBS);
    if (rc == 0 && !(flags & MDB_RDONLY))
        rc = mdb_env_set_mapsize(e->env, MAP);
    if (rc == 0)
        rc = mdb_env_open(e->env, path, flags | MDB_NOLOCK | MDB_NOSYNC, 0600);
    if (rc == 0)
        rc = mdb_txn_begin(e->env, NULL, flags & MDB_RDONLY, &txn);
    if (rc != 0)
        return rc;
    for (int i = 0; i < DBS && rc == 0; i++)
        rc = mdb_dbi_open(txn, names[i], flags & MDB_RDONLY ? 0 : MDB_CREATE, &e->dbs[i]);
    if (rc == 0)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc;
}

/* Few different keys, so that values are replaced and deleted; some are long, some values have pages of their
 * own. */
static inline int change(struct env *e, MDB_txn *txn)
{
    static uint8_t bytes[20000];
    uint8_t name[512];
    size_t len = 1 + draw(draw(8) ? 12 : 500);
    uint64_t number = draw(200);
    memset(name, (int)(number % 251), sizeof(name));
    name[0] = (uint8_t)number;
    memset(bytes, (int)draw(256), sizeof(bytes));
    MDB_val key = {len, name}, value = {draw(draw(6) ? 300 : sizeof(bytes)), bytes};
    MDB_dbi db = e->dbs[draw(DBS)];
    if (draw(3))
        return mdb_put(txn, db, &key, &value, 0);
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, db, &cursor);
    if (rc != 0)
        return rc;
    rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    if (rc == 0)
        rc = mdb_cursor_del(cursor, 0);
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static inline int commit(struct env *e, uint64_t changes)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(e->env, NULL, 0, &txn);
    if (rc != 0)
        return rc;
    while (changes-- && rc == 0)
        rc = change(e, txn);
    if (rc == 0)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc;
}

/* ---- what is in a snapshot: a hash over its databases, entry by entry ---- */

static inline void hash_entry(uint64_t *hash, const void *key, size_t key_len, const void *value,
                              size_t value_len)
{
    *hash = XXH3_64bits_withSeed(key, key_len, *hash + key_len);
    *hash = XXH3_64bits_withSeed(value, value_len, *hash + value_len);
}

static inline uint64_t hash_by_lmdb(struct env *e)
{
    uint64_t hash = 0;
    MDB_txn *txn;
    assert_int_equal(mdb_txn_begin(e->env, NULL, MDB_RDONLY, &txn), 0);
    for (int i = 0; i < DBS; i++) {
        MDB_cursor *cursor;
        MDB_val key, value;
        assert_int_equal(mdb_cursor_open(txn, e->dbs[i], &cursor), 0);
        while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0)
            hash_entry(&hash, key.mv_data, key.mv_size, value.mv_data, value.mv_size);
        mdb_cursor_close(cursor);
        hash = XXH3_64bits(&hash, sizeof(hash));
    }
    mdb_txn_abort(txn);
    return hash;
}

static inline int add_to_hash(void *data, const struct pages_entry *e)
{
    hash_entry(data, e->key, e->key_len, e->value, e->value_len);
    return 0;
}

static inline uint64_t hash_by_pages(const struct pages *p)
{
    uint64_t hash = 0;
    for (int i = 0; i < DBS; i++) {
        assert_int_equal(pages_each(p, names[i], add_to_hash, &hash), 0);
        hash = XXH3_64bits(&hash, sizeof(hash));
    }
    return hash;
}

/* ---- images ---- */

struct image {
    uint8_t *bytes;
    size_t len;
};

static inline const char *data_of(const char *dir)
{
    return harness_format("%s/data.mdb", dir);
}

static inline struct image image_read(const char *dir)
{
    struct stat st;
    _cleanup_close_ int fd = open(data_of(dir), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    struct image image = {malloc((size_t)st.st_size), (size_t)st.st_size};
    assert_non_null(image.bytes);
    assert_int_equal(read(fd, image.bytes, image.len), st.st_size);
    return image;
}

static inline void image_write(const char *dir, const uint8_t *bytes, size_t len)
{
    _cleanup_close_ int fd = open(data_of(dir), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
}

static inline uint64_t last_txn(const struct env *e)
{
    MDB_envinfo info;
    assert_int_equal(mdb_env_info(e->env, &info), 0);
    return info.me_last_txnid;
}

/* A file after so many commits; the hashes of its last two snapshots. */
static inline struct image make_image(const char *dir, uint64_t commits, uint64_t hashes[2])
{
    struct env e = {0};
    (void)unlink(data_of(dir));
    assert_int_equal(env_open(&e, dir, 0), 0);
    hashes[0] = hashes[1] = hash_by_lmdb(&e);
    for (uint64_t i = 0; i < commits; i++) {
        uint64_t changes = 1 + draw(draw(4) ? 20 : 300);
        uint64_t before = last_txn(&e);
        assert_int_equal(commit(&e, changes), 0);
        if (last_txn(&e) == before)
            continue; /* it changed nothing */
        hashes[0] = hashes[1];
        hashes[1] = hash_by_lmdb(&e);
    }
    mdb_env_close(e.env);
    return image_read(dir);
}

#endif
