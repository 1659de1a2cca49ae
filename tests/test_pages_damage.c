/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Damaged files and the independent reader (K27): what it accepts of them does liblmdb no harm, and what it
 * must not accept.
 */
#include "pages_fixture.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

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

/* The number of a meta page's transaction alone: LMDB would take the other snapshot, or the older one for the
 * newest. */
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
        harness_test(what_is_accepted_does_no_harm),  harness_test(a_damaged_transaction_number_is_noticed),
        harness_test(a_tree_of_no_depth_is_rejected), harness_test(noise_is_rejected),
        harness_test(noise_behind_metas_is_rejected),
    };
    random_state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
