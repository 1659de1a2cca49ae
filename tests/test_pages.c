/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The independent reader (K27) against liblmdb: on sound files it can't be told apart from it, in the newest
 * and in the previous snapshot.
 */
#include "pages_fixture.h"

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

/* Another seed: another run. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        harness_test(same_as_lmdb_on_sound_files),
        harness_test(one_value_is_found),
    };
    random_state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
