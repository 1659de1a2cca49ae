/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a teardown does not do: beside damaged records, and under a payload that it can't kill.
 */
#include "seams_fixture.h"

#include "journal/internal.h"
#include "reaper/handle.h"

/* ---- a supervisor's own teardown beside damage (I9) ---- */

/* Flips a bit in the header of told->incarnation. In a process of its own: the environment is open once in each. */
static void run_damage(const char *box, unsigned int parts)
{
    struct journal_options o = {.state_dir = world.state,
                                .runtime_dir = world.run,
                                .map_size = 1 << 30,
                                .preallocate = 4 << 20,
                                .gate_timeout_ns = 10000000000};
    struct journal *j = NULL;
    struct rbxj_error e = {0};
    struct record_key k = record_key(told->incarnation, 0);
    MDB_val key = {sizeof(k), &k}, data;
    MDB_txn *txn;
    uint8_t copy[4096];
    (void)box;
    (void)parts;
    must_do(journal_open(&o, &j, &e), &e);
    must(mdb_txn_begin(j->boot.env, NULL, 0, &txn) == 0);
    must(mdb_get(txn, j->boot.records, &key, &data) == 0 && data.mv_size <= sizeof(copy));
    memcpy(copy, data.mv_data, data.mv_size);
    copy[data.mv_size - 1] ^= 1;
    data.mv_data = copy;
    must(mdb_put(txn, j->boot.records, &key, &data, 0) == 0 && mdb_txn_commit(txn) == 0);
    die();
}

static void run_nested(const char *box, unsigned int parts)
{
    struct rbxj_resource r = {.kind = RBXJ_TMPDIR, .path = in_work("T/inner")};
    struct rbxj_box b = {.name = box, .parent = "outer", .plan = &r, .plan_len = 1};
    struct rbxj *handle = open_here();
    struct rbxj_error e = {0};
    uint64_t incarnation;
    (void)parts;
    must_do(rbxj_begin(handle, &b, &incarnation, &e), &e);
    must_do(rbxj_acquire(handle, box, 1, NULL, NULL, &e), &e);
    told->incarnation = incarnation;
    write_to(in_work("T/inner/precious"), "data");
}

static void nested_is_whole(void)
{
    assert_string_equal(harness_read(in_work("T/inner/precious")), "data");
}

/* The header of a living box that is nested in this one is damaged: the snapshot does not show that box, and the
 * whole directory looks like one's own. */
static void i9_own_undo_beside_a_damaged_nested_box(void **state)
{
    (void)state;
    struct rbxj *handle;
    struct rbxj_error e = {0};
    struct rbxj_result *result = NULL;
    world_open();
    plan_is((struct rbxj_resource){.kind = RBXJ_TMPDIR, .path = in_work("T")});
    assert_int_equal(rbxj_open(&world.options, &handle, &e), 0);
    const struct rbxj_box outer = {.name = "outer", .plan = plan, .plan_len = plan_len};
    assert_int_equal(rbxj_begin(handle, &outer, NULL, &e), 0);
    assert_int_equal(rbxj_acquire(handle, "outer", 1, NULL, NULL, &e), 0);
    (void)supervisor_fork(run_nested, "inner", 0);
    (void)supervisor_fork(run_damage, "", 0);
    for (int again = 0; again < 2; again++) { /* the second one shows that the claim was released */
        assert_int_equal(rbxj_undo(handle, "outer", &result, &e), -RBXJ_E_JOURNAL_DAMAGED);
        assert_null(result);
        nested_is_whole();
    }
    handle_take_back(handle, "outer", 1);
    nested_is_whole();
    rbxj_close(handle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(i9_own_undo_beside_a_damaged_nested_box),
    };
    cmocka_set_test_filter(getenv("RBXJ_TEST_ONLY"));
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
