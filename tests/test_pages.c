/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The independent reader (K27) against liblmdb: on sound files it can't be told apart from it, in the newest and in the
 * previous snapshot; what it accepts of damaged ones does liblmdb no harm.
 */
#include "../fuzz/newest.h"
#include "harness.h"

#include "base/cleanup.h"
#include "journal/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#define DBS 3
#define MAP (8 << 20)

static uint64_t random_state;

static uint64_t draw(uint64_t below)
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

static int env_open(struct env *e, const char *path, unsigned flags)
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

/* Few different keys, so that values are replaced and deleted; some are long, some values have pages of their own. */
static int change(struct env *e, MDB_txn *txn)
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

static int commit(struct env *e, uint64_t changes)
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

static void hash_entry(uint64_t *hash, const void *key, size_t key_len, const void *value, size_t value_len)
{
    *hash = XXH3_64bits_withSeed(key, key_len, *hash + key_len);
    *hash = XXH3_64bits_withSeed(value, value_len, *hash + value_len);
}

static uint64_t hash_by_lmdb(struct env *e)
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

static int add_to_hash(void *data, const struct pages_entry *e)
{
    hash_entry(data, e->key, e->key_len, e->value, e->value_len);
    return 0;
}

static uint64_t hash_by_pages(const struct pages *p)
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

static const char *data_of(const char *dir)
{
    return harness_format("%s/data.mdb", dir);
}

static struct image image_read(const char *dir)
{
    struct stat st;
    _cleanup_close_ int fd = open(data_of(dir), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    struct image image = {malloc((size_t)st.st_size), (size_t)st.st_size};
    assert_non_null(image.bytes);
    assert_int_equal(read(fd, image.bytes, image.len), st.st_size);
    return image;
}

static void image_write(const char *dir, const uint8_t *bytes, size_t len)
{
    _cleanup_close_ int fd = open(data_of(dir), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
}

static uint64_t last_txn(const struct env *e)
{
    MDB_envinfo info;
    assert_int_equal(mdb_env_info(e->env, &info), 0);
    return info.me_last_txnid;
}

/* A file after so many commits; the hashes of its last two snapshots. */
static struct image make_image(const char *dir, uint64_t commits, uint64_t hashes[2])
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

static int read_pages(int fd, void *to, size_t len, uint64_t offset)
{
    return pread(fd, to, len, (off_t)offset) == (ssize_t)len ? 0 : -EBADMSG;
}

/* The same, read page by page as the walk goes, from a file. */
static uint64_t hash_as_read(const char *dir, const struct image *whole, int which)
{
    struct pages p;
    struct pages_fault fault = {0};
    _cleanup_close_ int fd = open(data_of(dir), O_RDONLY | O_CLOEXEC);
    _cleanup_free_ uint8_t *bytes = calloc(1, whole->len);
    assert_true(fd >= 0 && bytes);
    memcpy(bytes, whole->bytes, 2 * 4096);
    if (pages_open_as_read(bytes, whole->len, which, read_pages, fd, &p, &fault) != 0)
        fail_msg("page %" PRIu64 ": %s", fault.page, fault.why);
    uint64_t hash = hash_by_pages(&p);
    pages_clear(&p);
    return hash;
}

static void same_as_lmdb_on_sound_files(void **state)
{
    (void)state;
    const char *path = harness_tmpfs();
    for (int round = 0; round < 400; round++) {
        uint64_t hashes[2];
        struct pages_fault fault = {0};
        struct image image = make_image(path, 1 + draw(12), hashes);
        int newest = pages_newest(image.bytes, image.len);
        assert_true(newest >= 0);
        for (int k = 1; k >= 0; k--) {
            struct pages p;
            if (pages_open(image.bytes, image.len, k ? newest : !newest, &p, &fault) != 0)
                fail_msg("round %d, snapshot %d: page %" PRIu64 ": %s", round, k, fault.page, fault.why);
            assert_int_equal(hash_by_pages(&p), hashes[k]);
            assert_int_equal(hash_as_read(path, &image, k ? newest : !newest), hashes[k]);
            assert_true(p.live + p.free <= p.meta.last_page + 1);
            pages_clear(&p);
        }
        free(image.bytes);
    }
}

static void one_value_is_found(void **state)
{
    (void)state;
    struct env e = {0};
    struct pages p;
    struct pages_entry entry;
    const char *path = harness_tmpfs();
    MDB_txn *txn;
    MDB_val key = {3, "key"}, value = {5, "value"};
    assert_int_equal(env_open(&e, path, 0), 0);
    assert_int_equal(mdb_txn_begin(e.env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, e.dbs[1], &key, &value, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(e.env);
    struct image image = image_read(path);
    assert_int_equal(pages_open(image.bytes, image.len, pages_newest(image.bytes, image.len), &p, NULL), 0);
    assert_int_equal(pages_get(&p, "meta", "key", 3, &entry), 0);
    assert_int_equal(entry.value_len, 5);
    assert_memory_equal(entry.value, "value", 5);
    assert_int_equal(pages_get(&p, "meta", "ke", 2, &entry), -ENOENT);
    assert_int_equal(pages_get(&p, "no such", "key", 3, &entry), -ENOENT);
    pages_clear(&p);
    free(image.bytes);
}

/* ---- damage ---- */

static void damage(struct image *image, const struct image *good)
{
    size_t pages = good->len / 4096, page = draw(pages), other = draw(pages);
    memcpy(image->bytes, good->bytes, good->len);
    image->len = good->len;
    switch (draw(9)) {
    case 0: /* any byte */
        image->bytes[draw(image->len)] ^= (uint8_t)(1 + draw(255));
        break;
    case 1: /* a meta */
        image->bytes[(draw(2) ? 4096 : 0) + draw(152)] ^= (uint8_t)(1 + draw(255));
        break;
    case 2: /* a page's head or its pointers */
    case 3:
        image->bytes[page * 4096 + draw(draw(2) ? 16 : 80)] ^= (uint8_t)(1 + draw(255));
        break;
    case 4: /* a node's head */
    case 5: {
        uint8_t *at = image->bytes + page * 4096;
        unsigned keys = (unsigned)(at[12] | at[13] << 8) / 2;
        size_t node = keys > 8 ? 16 + 2 * draw(keys - 8) : 16;
        node = node < 4095 ? (size_t)(at[node] | at[node + 1] << 8) + draw(8) : 20;
        at[node < 4096 ? node : 20] = (uint8_t)draw(256);
        break;
    }
    case 6: /* a page is another one */
        memcpy(image->bytes + page * 4096, good->bytes + other * 4096, 4096);
        break;
    case 7: /* a page is zeros, or anything */
        memset(image->bytes + page * 4096, 0, 4096);
        for (size_t i = 0; draw(2) && i < 4096; i++)
            image->bytes[page * 4096 + i] = (uint8_t)draw(256);
        break;
    case 8: /* truncated */
        image->len = draw(image->len);
        break;
    }
}

/* In a process of its own: open, scan, 60 commits, scan. Whatever it returns is fine if it returns. */
static _Noreturn void use_by_lmdb(const char *path)
{
    struct env e = {0};
    const struct rlimit none = {0};
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)alarm(20);
    if (env_open(&e, path, 0) != 0)
        _exit(3);
    for (int i = 0; i < 60; i++)
        if (commit(&e, 3) != 0)
            _exit(4);
    (void)hash_by_lmdb(&e);
    _exit(0);
}

static void what_is_accepted_does_no_harm(void **state)
{
    (void)state;
    const char *path = harness_tmpfs(), *copy = harness_format("%s/copy", harness_disk());
    harness_mkdir(copy);
    int accepted = 0, rejected = 0;
    for (int round = 0; round < 20; round++) {
        uint64_t hashes[2];
        struct image good = make_image(path, 1 + draw(12), hashes);
        struct image bad = {malloc(good.len), 0};
        assert_non_null(bad.bytes);
        for (int i = 0; i < 100; i++) {
            struct pages p;
            damage(&bad, &good);
            int newest = pages_newest(bad.bytes, bad.len);
            if (newest < 0 || pages_open(bad.bytes, bad.len, newest, &p, NULL) < 0) {
                rejected++;
                continue;
            }
            pages_clear(&p);
            accepted++;
            int status;
            image_write(copy, bad.bytes, bad.len);
            pid_t pid = fork();
            if (pid == 0)
                use_by_lmdb(copy);
            assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
            if (!WIFEXITED(status))
                fail_msg("round %d, damage %d: killed by SIG%s", round, i, sigabbrev_np(WTERMSIG(status)));
        }
        free(good.bytes);
        free(bad.bytes);
    }
    print_message("%d accepted, %d rejected\n", accepted, rejected);
    assert_true(accepted > 50 && rejected > 500);
}

/* The number of a meta page's transaction alone: LMDB would take the other snapshot, or the older one for the newest. */
static void a_damaged_transaction_number_is_noticed(void **state)
{
    (void)state;
    struct pages p;
    uint64_t hashes[2];
    struct image image = make_image(harness_tmpfs(), 8, hashes);
    int newest = pages_newest(image.bytes, image.len);
    for (int i = 0; i < 2; i++) {
        uint8_t *at = image.bytes + (i ? newest : !newest) * 4096 + 144;
        uint64_t txn, wrong;
        memcpy(&txn, at, sizeof(txn));
        for (unsigned bit = 1; bit < 64; bit++) {
            wrong = txn ^ 1ULL << bit;
            memcpy(at, &wrong, sizeof(wrong));
            int taken = pages_newest(image.bytes, image.len);
            if (taken >= 0 && taken != newest)
                assert_int_equal(pages_open(image.bytes, image.len, taken, &p, NULL), -EBADMSG);
            else
                assert_int_equal(taken, -EBADMSG);
        }
        if (!i) { /* the older one says that it is the one that comes after the newest */
            wrong = txn + 2;
            memcpy(at, &wrong, sizeof(wrong));
            assert_int_equal(pages_newest(image.bytes, image.len), !newest);
            assert_int_equal(pages_open(image.bytes, image.len, !newest, &p, NULL), -EBADMSG);
        }
        memcpy(at, &txn, sizeof(txn));
    }
    assert_int_equal(pages_newest(image.bytes, image.len), newest);
    free(image.bytes);
}

/* A tree that says it is deeper than LMDB's, down a chain of pages: the walk's stack has an end. */
static void a_tree_of_no_depth_is_rejected(void **state)
{
    (void)state;
    struct pages p;
    uint64_t hashes[2];
    struct image image = make_image(harness_tmpfs(), 3, hashes);
    int newest = pages_newest(image.bytes, image.len);
    const size_t main_tree = 88, free_tree = 40, depth = 6;
    const uint16_t depths[] = {0, 33, 80, 0xffff};
    for (size_t i = 0; i < ARRAY_LEN(depths); i++) {
        for (int tree = 0; tree < 2; tree++) {
            uint8_t *at = image.bytes + (size_t)newest * 4096 + (tree ? main_tree : free_tree) + depth;
            uint16_t was;
            memcpy(&was, at, sizeof(was));
            memcpy(at, &depths[i], sizeof(was));
            assert_int_equal(pages_open(image.bytes, image.len, newest, &p, NULL), -EBADMSG);
            memcpy(at, &was, sizeof(was));
        }
    }
    assert_int_equal(pages_open(image.bytes, image.len, newest, &p, NULL), 0);
    pages_clear(&p);
    free(image.bytes);
}

/* Reading stays within the image whatever is in it: the sanitizers' build tells. */
static void noise_is_rejected(void **state)
{
    (void)state;
    struct pages p;
    uint8_t *bytes = malloc(16384);
    assert_non_null(bytes);
    for (int i = 0; i < 2000; i++) {
        size_t len = draw(16384);
        uint8_t *exact = malloc(len + 1);
        assert_non_null(exact);
        for (size_t k = 0; k < len; k++)
            exact[k] = (uint8_t)draw(256);
        assert_int_equal(pages_newest(exact, len), -EBADMSG);
        assert_int_equal(pages_open(exact, len, (int)draw(2), &p, NULL), -EBADMSG);
        free(exact);
    }
    free(bytes);
}

/* Behind sound metas, too. */
static void noise_behind_metas_is_rejected(void **state)
{
    (void)state;
    struct pages p;
    uint64_t hashes[2];
    for (int round = 0; round < 20; round++) {
        struct image image = make_image(harness_tmpfs(), 3, hashes);
        int newest = pages_newest(image.bytes, image.len);
        for (size_t at = 2UL * 4096; at < image.len; at++)
            image.bytes[at] = (uint8_t)draw(256);
        assert_int_equal(pages_open(image.bytes, image.len, newest, &p, NULL), -EBADMSG);
        for (uint64_t page = 2; page < image.len / 4096; page++) { /* each looks like a leaf of that number */
            uint16_t head[4] = {0, 2, (uint16_t)(16 + 2 * draw(100)), (uint16_t)(216 + draw(3880))};
            memcpy(image.bytes + page * 4096, &page, sizeof(page));
            memcpy(image.bytes + page * 4096 + 8, head, sizeof(head));
        }
        assert_int_equal(pages_open(image.bytes, image.len, newest, &p, NULL), -EBADMSG);
        free(image.bytes);
    }
}

/* Another seed: another run. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        harness_test(same_as_lmdb_on_sound_files),    harness_test(one_value_is_found),
        harness_test(what_is_accepted_does_no_harm),  harness_test(a_damaged_transaction_number_is_noticed),
        harness_test(a_tree_of_no_depth_is_rejected), harness_test(noise_is_rejected),
        harness_test(noise_behind_metas_is_rejected),
    };
    random_state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
