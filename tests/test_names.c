/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The names index: paths of different boxes never overlap (K4).
 */
#include "journal_fixture.h"

#include <sys/mount.h>

static struct place p;
static struct journal *j;

static void open_place(void)
{
    harness_need_root();
    p = place_make();
    j = place_open(&p);
}

static char *below(const char *name)
{
    return harness_format("%s/%s", p.lost, name);
}

static void stands(const char *box, const char *path)
{
    struct rbxj_error e;
    assert_ok(begin_one(j, box, path, &e), e);
}

static void collides(const char *path, const char *with)
{
    struct rbxj_error e;
    assert_refused(begin_one(j, "new", path, &e), e, RBXJ_E_EXISTS, harness_format("what box %s has", with));
}

static void k4_equal_inside_and_containing_are_refused(void **state)
{
    (void)state;
    open_place();
    harness_mkdir(below("a"));
    harness_mkdir(below("a/b"));
    stands("one", below("a/b"));
    collides(below("a/b"), "one");
    collides(below("a/b/c"), "one");
    collides(below("a"), "one");
    collides(p.lost, "one");
    /* a common prefix of bytes is no common path, and a common parent is nobody's */
    stands("two", below("a/bc"));
    stands("three", below("a/b-"));
    stands("four", below("a/B"));
    stands("five", below("a/b\x01"));
    collides(below("a/bc"), "two");
}

static void k4_path_is_free_again_after_the_drop(void **state)
{
    (void)state;
    struct rbxj_error e = {0};
    open_place();
    harness_mkdir(below("a"));
    struct box box = must_begin(j, "one", below("a"));
    collides(below("a/x"), "one");
    assert_ok(journal_drop(j, box.incarnation, 1, &e), e);
    stands("two", below("a/x"));
    MDB_txn *txn;
    MDB_stat stat;
    assert_int_equal(mdb_txn_begin(j->boot.env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_stat(txn, j->boot.names, &stat), 0);
    mdb_txn_abort(txn);
    assert_int_equal(stat.ms_entries, 2); /* the path and the alias of the one that is there (J4) */
}

/* A path of that many bytes, of components of 200. */
static char *long_path(size_t len)
{
    char *path = calloc(1, 4400);
    (void)snprintf(path, 4400, "%s", p.lost);
    for (size_t i = strlen(path); i < len; i++)
        path[i] = i % 200 == 0 && i + 1 < len ? '/' : 'x';
    char *kept = harness_format("%s", path);
    free(path);
    path = strrchr(kept, '/');
    *path = 0;
    if (system(harness_format("mkdir -p %s", kept)) != 0)
        fail();
    *path = '/';
    return kept;
}

static void k4_paths_longer_than_a_key(void **state)
{
    (void)state;
    open_place();
    /* around the cut at 480 bytes, and far behind it */
    static const size_t lengths[] = {478, 479, 480, 481, 482, 900, 3000};
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        struct rbxj_error e = {0};
        char *path = long_path(lengths[i]);
        struct box box = must_begin(j, "one", path);
        collides(path, "one");
        char *inside = harness_format("%s/y", path), *sibling = harness_format("%sy", path);
        collides(inside, "one");
        char *slash = strrchr(path, '/');
        *slash = 0;
        collides(path, "one");
        *slash = '/';
        struct box two = must_begin(j, "two", sibling);
        assert_ok(journal_drop(j, two.incarnation, 1, &e), e);
        assert_ok(journal_end(j, two.incarnation, &e), e);
        assert_ok(journal_drop(j, box.incarnation, 1, &e), e);
        /* and the other way round */
        box.incarnation = (journal_end(j, box.incarnation, &e), must_begin(j, "one", inside).incarnation);
        collides(path, "one");
        collides(inside, "one");
        assert_ok(journal_drop(j, box.incarnation, 1, &e), e);
        assert_ok(journal_end(j, box.incarnation, &e), e);
        two = must_begin(j, "two", path);
        assert_ok(journal_drop(j, two.incarnation, 1, &e), e);
        assert_ok(journal_end(j, two.incarnation, &e), e);
    }
}

static void k4_alias_through_a_bind_mount_is_found(void **state)
{
    (void)state;
    open_place();
    harness_mkdir(below("real"));
    harness_mkdir(below("alias"));
    assert_int_equal(mount(below("real"), below("alias"), NULL, MS_BIND, NULL), 0);
    stands("one", below("real/x"));
    collides(below("alias/x"), "one");
    harness_mkdir(below("real/x"));
    collides(below("alias/x/deep"), "one");
    stands("two", below("alias/y"));
    collides(below("real/y"), "two");
}

/* The box's own directory, bind-mounted elsewhere: known once there is evidence of it. */
static void k4_alias_of_the_directory_itself_is_found(void **state)
{
    (void)state;
    struct rbxj_error e = {0};
    struct snapshot_box sb;
    open_place();
    struct box box = must_begin(j, "one", below("own"));
    harness_mkdir(below("own"));
    harness_mkdir(below("alias"));
    assert_int_equal(mount(below("own"), below("alias"), NULL, MS_BIND, NULL), 0);
    assert_ok(journal_get(j, "one", &sb, &e), e);
    assert_int_equal(fileid_of_name(AT_FDCWD, below("own"), &sb.records[0].id), 0);
    assert_ok(journal_update(j, &sb.records[0], false, &e), e);
    snapshot_box_clear(&sb);
    collides(below("alias/x"), "one");
    assert_int_equal(intend(j, &box, RBXJ_TMPDIR, below("alias/x"), &e), 0);
    assert_ok(journal_drop(j, box.incarnation, 2, &e), e);
    assert_ok(journal_drop(j, box.incarnation, 1, &e), e);
    stands("two", below("alias/x"));
}

/* The box's own directory was removed, and its inode number given to one that others use: another handle
 * tells. */
static void k3_k4_an_inode_number_that_is_used_again_is_no_alias(void **state)
{
    (void)state;
    struct rbxj_error e = {0};
    struct snapshot_box sb;
    open_place();
    (void)must_begin(j, "one", below("own"));
    harness_mkdir(below("others"));
    assert_ok(journal_get(j, "one", &sb, &e), e);
    struct fileid *id = &sb.records[0].id;
    assert_int_equal(fileid_of_name(AT_FDCWD, below("others"), id), 0);
    assert_true(id->handle_len > 0);
    id->handle[0] ^= 1;
    assert_ok(journal_update(j, &sb.records[0], false, &e), e);
    stands("two", below("others/x"));
    id->handle[0] ^= 1;
    id->ino++; /* or the index is not written again */
    assert_ok(journal_update(j, &sb.records[0], false, &e), e);
    id->ino--;
    assert_ok(journal_update(j, &sb.records[0], false, &e), e);
    collides(below("others/y"), "one");
    snapshot_box_clear(&sb);
}

static void k4_within_a_box_only_a_mount_may_use_a_path_again(void **state)
{
    (void)state;
    struct rbxj_error e = {0};
    open_place();
    struct box box = must_begin(j, "one", below("a"));
    assert_int_equal(intend(j, &box, RBXJ_TMPDIR, below("a/b"), &e), 0);
    assert_int_equal(intend(j, &box, RBXJ_MOUNT, below("a"), &e), 0);
    assert_int_equal(intend(j, &box, RBXJ_MOUNT, below("a"), &e), 0);
    assert_refused(intend(j, &box, RBXJ_TMPDIR, below("a"), &e), e, RBXJ_E_EXISTS, "box one");
    assert_refused(intend(j, &box, RBXJ_LOCK, below("a/b"), &e), e, RBXJ_E_EXISTS, "box one");
    e = (struct rbxj_error){0};
    assert_ok(journal_drop(j, box.incarnation, 2, &e), e); /* released */
    assert_int_equal(intend(j, &box, RBXJ_LOCK, below("a/b"), &e), 0);
}

static void k4_nested_box_lives_inside_its_parents(void **state)
{
    (void)state;
    struct rbxj_error e = {0};
    open_place();
    struct box outer = must_begin(j, "outer", below("a"));
    (void)must_begin(j, "stranger", below("s"));
    struct box inner = {.parent = outer.incarnation}, innermost = {0},
               orphan = {.parent = outer.incarnation + 1};
    const char *path = below("a/inner");
    assert_ok(begin(j, &inner, "inner", &path, 1, &e), e);
    innermost.parent = inner.incarnation;
    path = below("a/inner/most");
    assert_ok(begin(j, &innermost, "innermost", &path, 1, &e), e);
    assert_refused(intend(j, &inner, RBXJ_TMPDIR, below("a"), &e), e, RBXJ_E_EXISTS, "box outer");
    assert_refused(intend(j, &inner, RBXJ_TMPDIR, below("s/x"), &e), e, RBXJ_E_EXISTS, "box stranger");
    assert_refused(intend(j, &outer, RBXJ_TMPDIR, below("a/inner/x"), &e), e, RBXJ_E_EXISTS, "box inner");
    collides(below("a/other"), "outer");
    e = (struct rbxj_error){0};
    path = below("o");
    assert_refused(begin(j, &orphan, "orphan", &path, 1, &e), e, RBXJ_E_NO_SUCH_BOX, "no such box");
}

/* What is deeper could not use its outermost one's path, and would be told that it is another's. */
static void k4_boxes_are_nested_sixteen_deep(void **state)
{
    (void)state;
    struct rbxj_error e = {0};
    open_place();
    struct box box = must_begin(j, "box0", below("a"));
    for (int i = 1; i < 16; i++) {
        struct box inner = {.parent = box.incarnation};
        const char *path = below(harness_format("a/%d", i));
        assert_ok(begin(j, &inner, harness_format("box%d", i), &path, 1, &e), e);
        box = inner;
    }
    struct box inner = {.parent = box.incarnation};
    assert_refused(begin(j, &inner, "box16", NULL, 0, &e), e, RBXJ_E_BAD_REQUEST, "nested deeper than 16");
}

static int count(void *data, const struct snapshot_box *box, const char *path)
{
    (void)box;
    (void)path;
    (*(int *)data)++;
    return 0;
}

/* The same question, asked of a snapshot before every undo. */
static void k4_snapshot_knows_what_overlaps(void **state)
{
    (void)state;
    struct rbxj_error e = {0};
    struct snapshot s;
    open_place();
    struct box one = must_begin(j, "one", below("a"));
    assert_int_equal(intend(j, &one, RBXJ_TMPDIR, below("a/b/c"), &e), 0);
    struct box two = must_begin(j, "two", below("a-b"));
    (void)must_begin(j, "three", below("z"));
    assert_ok(journal_snapshot(j, &s, &e), e);
    const struct {
        const char *path;
        uint64_t own;
        int found;
    } cases[] = {
        {below("a"), 0, 2},     {below("a"), one.incarnation, 0},   {below("a"), two.incarnation, 2},
        {below("a/b"), 0, 2},   {below("a/b/c/d"), 0, 2},           {below("a/x"), 0, 1},
        {below("a-b/x"), 0, 1}, {below("a-b"), two.incarnation, 0}, {below("a-"), 0, 0},
        {p.lost, 0, 4},         {p.lost, one.incarnation, 2},       {"/nowhere", 0, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int found = 0;
        assert_int_equal(snapshot_overlaps(&s, cases[i].own, cases[i].path, count, &found), 0);
        if (found != cases[i].found)
            fail_msg("%s: %d", cases[i].path, found);
    }
    snapshot_clear(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k4_equal_inside_and_containing_are_refused),
        journal_test(k4_path_is_free_again_after_the_drop),
        journal_test(k4_paths_longer_than_a_key),
        journal_test(k4_alias_through_a_bind_mount_is_found),
        journal_test(k4_alias_of_the_directory_itself_is_found),
        journal_test(k3_k4_an_inode_number_that_is_used_again_is_no_alias),
        journal_test(k4_within_a_box_only_a_mount_may_use_a_path_again),
        journal_test(k4_nested_box_lives_inside_its_parents),
        journal_test(k4_boxes_are_nested_sixteen_deep),
        journal_test(k4_snapshot_knows_what_overlaps),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
