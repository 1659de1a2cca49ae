/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whose turn it is to be replayed (reaper/turns.h; K31, K34).
 */
#include "harness.h"

#include "base/cleanup.h"
#include "reaper/turns.h"

#include <errno.h>
#include <stdio.h>

static const char *names[8];

static struct monitor_view dead_boxes(struct monitor_box *boxes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        boxes[i].incarnation = 100 - i;
        (void)snprintf(boxes[i].name, sizeof(boxes[i].name), "%zu", i);
    }
    return (struct monitor_view){.dead = boxes, .dead_len = n};
}

static void what_is_left_waits_longer_each_time(void **state)
{
    (void)state;
    struct monitor_box boxes[3];
    struct monitor_view two = dead_boxes(boxes, 2), three = dead_boxes(boxes, 3);
    struct turns t = {0};
    int64_t now = 1000;
    assert_int_equal(turns_choose(&t, &two, now, names), 2);
    assert_string_equal(names[0], "0");
    turns_done(&t, 0, now);
    for (int64_t wait = 60; wait < 5000; wait *= 2) {
        int64_t bounded = (wait < 300 ? wait : 300) * TURNS_SECOND;
        assert_int_equal(turns_next(&t), now + bounded);
        assert_int_equal(turns_choose(&t, &two, now + bounded - 1, names), 0);
        now += bounded;
        assert_int_equal(turns_choose(&t, &two, now, names), 2);
        turns_done(&t, 1, now);
    }
    /* a new one does not wait for the others, nor they for it */
    assert_int_equal(turns_choose(&t, &three, now + 1, names), 1);
    assert_string_equal(names[0], "2");
    turns_done(&t, 0, now + 1);
    assert_int_equal(turns_choose(&t, &three, now + 2, names), 0);
    /* one that was gone begins anew */
    struct monitor_view none = {.dead = boxes};
    assert_int_equal(turns_choose(&t, &none, now + 3, names), 0);
    assert_int_equal(turns_next(&t), INT64_MAX);
    assert_int_equal(turns_choose(&t, &three, now + 4, names), 3);
    turns_clear(&t);
}

static void a_replay_that_could_not_be_done_is_nobodys_turn(void **state)
{
    (void)state;
    static const struct {
        int result;
        int64_t first, most;
    } cases[] = {{-RBXJ_E_BUSY, TURNS_BUSY_FIRST, TURNS_BUSY_MOST},
                 {-RBXJ_E_JOURNAL_DAMAGED, TURNS_DAMAGED_FIRST, TURNS_MOST},
                 {-EIO, TURNS_FAILED_FIRST, TURNS_MOST}};
    struct monitor_box boxes[1];
    struct monitor_view one = dead_boxes(boxes, 1);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct turns t = {0};
        int64_t now = 1000, wait = cases[i].first;
        for (int k = 0; k < 12; k++) {
            assert_int_equal(turns_choose(&t, &one, now, names), 1);
            turns_done(&t, cases[i].result, now);
            assert_true(turns_are_paused(&t, now));
            assert_int_equal(turns_next(&t), now + wait);
            assert_int_equal(turns_choose(&t, &one, now + wait - 1, names), 0);
            now += wait;
            wait = 2 * wait < cases[i].most ? 2 * wait : cases[i].most;
        }
        assert_int_equal(turns_choose(&t, &one, now, names), 1);
        turns_done(&t, 0, now);
        assert_false(turns_are_paused(&t, now));
        assert_int_equal(turns_next(&t), now + TURNS_LEFT_FIRST);
        turns_clear(&t);
    }
}

/* K34: it waits by itself, a little longer each time, and the others don't. */
static void k34_a_box_that_kills_its_reaper_keeps_no_other_waiting(void **state)
{
    (void)state;
    struct monitor_box boxes[2];
    struct monitor_view one = dead_boxes(boxes, 1), two = dead_boxes(boxes, 2);
    struct turns t = {0};
    int64_t now = 1000;
    for (int64_t wait = 1; wait < 1000; wait *= 2) {
        assert_int_equal(turns_choose(&t, &one, now, names), 1);
        turns_done(&t, -ECHILD, now);
        int64_t bounded = (wait < 300 ? wait : 300) * TURNS_SECOND;
        assert_int_equal(turns_next(&t), now + bounded);
        assert_int_equal(turns_choose(&t, &one, now + bounded - 1, names), 0);
        now += bounded;
    }
    turns_done(&t, -ECHILD, now);
    assert_false(turns_are_paused(&t, now));
    assert_int_equal(turns_choose(&t, &one, now, names), 1);
    turns_done(&t, -ECHILD, now);
    assert_int_equal(turns_choose(&t, &two, now, names), 1);
    assert_string_equal(names[0], "1");
    turns_clear(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_left_waits_longer_each_time),
        cmocka_unit_test(a_replay_that_could_not_be_done_is_nobodys_turn),
        cmocka_unit_test(k34_a_box_that_kills_its_reaper_keeps_no_other_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
