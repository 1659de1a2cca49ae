/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Each rule of the independent reader by itself: a sound file with one thing changed is refused for that very
 * reason (I9, K27).
 */
#include "../fuzz/newest.h"
#include "harness.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <string.h>

#define PAGE 4096UL
#define KEYS 300

/* ---- a sound file: a tree of two levels, values in pages of their own, free pages ---- */

static uint8_t *bytes;
static size_t len;
static int newest;

static void put_all(MDB_txn *txn, MDB_dbi db, uint64_t from, uint64_t step, uint8_t fill)
{
    static uint8_t value[6000];
    memset(value, fill, sizeof(value));
    for (uint64_t i = from; i < KEYS; i += step) {
        char name[16];
        (void)snprintf(name, sizeof(name), "key%05" PRIu64, i);
        MDB_val key = {8, name}, data = {i % 50 ? 60 : sizeof(value), value};
        assert_int_equal(mdb_put(txn, db, &key, &data, 0), 0);
    }
}

static void make_file(const char *dir)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi db;
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 2), 0);
    assert_int_equal(mdb_env_set_mapsize(env, 4 << 20), 0);
    assert_int_equal(mdb_env_open(env, dir, MDB_NOLOCK | MDB_NOSYNC, 0600), 0);
    for (uint8_t i = 0; i < 3; i++) {
        assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
        assert_int_equal(mdb_dbi_open(txn, "records", MDB_CREATE, &db), 0);
        put_all(txn, db, i, i + 1U, i);
        assert_int_equal(mdb_txn_commit(txn), 0);
    }
    mdb_env_close(env);
    ssize_t n = fd_read_all(AT_FDCWD, harness_format("%s/data.mdb", dir), 16 << 20, (char **)&bytes);
    assert_true(n > 0);
    len = (size_t)n;
    newest = pages_newest(bytes, len);
    assert_true(newest >= 0);
}

/* ---- where things are in it ---- */

static uint16_t get16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}
static uint64_t get64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}
static void set16(uint8_t *at, unsigned value)
{
    uint16_t number = (uint16_t)value;
    memcpy(at, &number, sizeof(number));
}
static void set64(uint8_t *at, uint64_t value)
{
    memcpy(at, &value, sizeof(value));
}

static uint8_t *meta(void)
{
    return bytes + (size_t)newest * PAGE;
}
static uint8_t *page(uint64_t number)
{
    return bytes + number * PAGE;
}
static uint8_t *node(uint8_t *p, unsigned i)
{
    return p + get16(p + 16 + 2 * i);
}
/* The record of the one database, in the leaf that is the main tree's root: behind the node's head and its
 * name. */
static uint8_t *database(void)
{
    return node(page(get64(meta() + 128)), 0) + 8 + 7;
}
static uint8_t *root(void)
{
    return page(get64(database() + 40));
}
static uint8_t *leaf(unsigned i)
{
    const uint8_t *n = node(root(), i);
    return page(get16(n) | (uint64_t)get16(n + 2) << 16);
}
/* The node of the first key: its value is in pages of its own. */
static uint8_t *run(void)
{
    return page(get64(node(leaf(0), 0) + 8 + 8));
}
/* The newest list of free pages: their number, and they. */
static uint8_t *free_list(void)
{
    uint8_t *p = page(get64(meta() + 80)), *n = node(p, (get16(p + 12) - 16U) / 2 - 1);
    assert_int_equal(get16(p + 10), 2);
    assert_int_equal(get16(n + 4), 0);
    assert_true(get64(n + 16) >= 2);
    return n + 16;
}

/* ---- one change each ---- */

static void swap_pointers(void)
{
    uint8_t *p = leaf(0) + 16;
    uint16_t first = get16(p);
    set16(p, get16(p + 2));
    set16(p + 2, first);
}
static void other_number(void)
{
    set64(leaf(0), get64(leaf(0)) + 1);
}
static void other_kind(void)
{
    set16(leaf(0) + 10, 1);
}
static void odd_bound(void)
{
    set16(leaf(0) + 12, get16(leaf(0) + 12) + 1U);
}
static void no_keys(void)
{
    set16(leaf(0) + 12, 16);
}
static void one_branch(void)
{
    set16(root() + 12, 18);
}
static void outside(void)
{
    set16(leaf(0) + 16, get16(leaf(0) + 14) - 2U);
}
static void odd_node(void)
{
    set16(leaf(0) + 18, get16(leaf(0) + 18) + 1U);
}
static void other_flags(void)
{
    set16(node(leaf(0), 1) + 4, 4);
}
static void no_key(void)
{
    set16(node(leaf(0), 1) + 6, 0);
}
static void too_long(void)
{
    set16(node(leaf(0), 1), 3000);
}
static void gap(void)
{
    set16(leaf(0) + 14, get16(leaf(0) + 14) - 2U);
}
static void beyond(void)
{
    uint8_t *p = leaf(0);
    node(p, (get16(p + 12) - 16U) / 2 - 1)[8] = 0xff;
}
static void below(void)
{
    node(leaf(1), 0)[8] = 1;
}
static void miscounted(void)
{
    set64(database() + 32, get64(database() + 32) + 1);
}
static void other_form(void)
{
    set16(database() + 4, 4);
}
static void too_deep(void)
{
    set16(database() + 6, 33);
}
static void no_run(void)
{
    set16(run() + 10, 2);
}
/* liblmdb would look for it among the pages of its own transaction, or write to it. */
static void dirty_run(void)
{
    set16(run() + 10, 0x14);
}
static void short_run(void)
{
    set16(run() + 12, 1);
}
static void endless_run(void)
{
    set16(run() + 14, 0x7fff);
}
static void same_child(void)
{
    memcpy(node(root(), 1), node(root(), 0), 6);
}
static void far_child(void)
{
    set16(node(root(), 1) + 2, 100);
}
static void free_of_use(void)
{
    uint8_t *list = free_list();
    uint64_t used = get64(meta() + 128), n = get64(list);
    for (uint64_t i = 1; i <= n; i++) /* where it does not disturb the order */
        if ((i == 1 || get64(list + 8 * (i - 1)) > used) && (i == n || get64(list + 8 * (i + 1)) < used)) {
            set64(list + 8 * i, used);
            return;
        }
    fail();
}
static void free_out_of_order(void)
{
    uint8_t *list = free_list();
    uint64_t first = get64(list + 8);
    set64(list + 8, get64(list + 16));
    set64(list + 16, first);
}
static void free_of_meta(void)
{
    uint8_t *list = free_list();
    set64(list + 8 * get64(list), 1);
}
static void free_miscounted(void)
{
    set64(free_list(), get64(free_list()) - 1);
}
static void free_in_future(void)
{
    free_list()[-8] += 1; /* the low byte of its key */
}
static void other_txn(void)
{
    set64(meta() + 144, get64(meta() + 144) + 2);
}

static const struct {
    void (*change)(void);
    const char *why;
} rules[] = {
    {swap_pointers, "its keys do not ascend"},
    {other_number, "is another page"},
    {other_kind, "is of another kind than the tree needs"},
    {odd_bound, "its bounds make no sense"},
    {no_keys, "has too few keys"},
    {one_branch, "has too few keys"},
    {outside, "a node is out of the page"},
    {odd_node, "a node is out of the page"},
    {other_flags, "a node has no sound form"},
    {no_key, "a node has no sound form"},
    {too_long, "a node has no sound form"},
    {gap, "its nodes do not fill it"},
    {beyond, "a key is beyond the page's bound"},
    {below, "its keys do not ascend"},
    {miscounted, "the tree below it is not the one that was counted"},
    {other_form, "a database is of a form that no journal has"},
    {too_deep, "a database is of a form that no journal has"},
    {no_run, "is no overflow page"},
    {dirty_run, "is no overflow page"},
    {short_run, "a value does not fit into its pages"},
    {endless_run, "is behind the end of the file"},
    {same_child, "is used twice"},
    {far_child, "is out of range"},
    {free_of_use, "is used twice"},
    {free_out_of_order, "its list of free pages does not descend"},
    {free_of_meta, "is out of range"},
    {free_miscounted, "its list of free pages has no sound form"},
    {free_in_future, "its list of free pages has no sound form"},
    {other_txn, "its transaction is not the one that its list of free pages ends with"},
};

static void each_rule_is_looked_at(void **state)
{
    (void)state;
    struct pages p;
    make_file(harness_tmpfs());
    _cleanup_free_ uint8_t *sound = malloc(len);
    assert_non_null(sound);
    memcpy(sound, bytes, len);
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        struct pages_fault fault = {0, "nothing"};
        assert_int_equal(pages_open(bytes, len, newest, &p, NULL), 0);
        pages_clear(&p);
        rules[i].change();
        int r = pages_open(bytes, len, newest, &p, &fault);
        if (r == 0)
            pages_clear(&p);
        if (r != -EBADMSG || strcmp(fault.why, rules[i].why) != 0)
            fail_msg("rule %zu: %s: page %" PRIu64 ": %s", i, rules[i].why, fault.page, fault.why);
        memcpy(bytes, sound, len);
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {harness_test(each_rule_is_looked_at)};
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
