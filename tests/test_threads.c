/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A supervisor with a thread that looks at the health of its worker, while another one opens the journal and closes it: the
 * functions without a handle are thread-safe, and use the journal that the process has open.
 */
#include "journal_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { LOOKERS = 2, OPENINGS = 200 };

static struct rbxj_options options;
static _Atomic int looks, over;

static void *look(void *data)
{
    int *failed = data;
    while (!over) {
        struct rbxj_error e = {0};
        struct rbxj_result *boxes = NULL;
        struct rbxj_health health = {0};
        int r = looks % 2 ? rbxj_list(&options, NULL, &boxes, &e)
                          : rbxj_recover(&options, NULL, NULL, &health, &e);
        rbxj_result_free(boxes);
        *failed = r < 0 && r != -RBXJ_E_BUSY ? r : *failed; /* another reaper of this process */
        looks++;
    }
    return NULL;
}

static void open_and_close(void)
{
    struct rbxj_error e = {0};
    struct rbxj_box box = {.name = "a"};
    struct rbxj *handle;
    assert_ok(rbxj_open(&options, &handle, &e), e);
    assert_ok(rbxj_begin(handle, &box, NULL, &e), e);
    assert_ok(rbxj_end(handle, "a", &e), e);
    rbxj_close(handle);
}

static void a_handle_is_opened_and_closed_beside_those_who_look(void **state)
{
    (void)state;
    struct place p = place_make();
    pthread_t threads[LOOKERS];
    int failed[LOOKERS] = {0};
    options = (struct rbxj_options){.state_dir = p.state, .runtime_dir = p.runtime};
    for (int i = 0; i < LOOKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look, &failed[i]), 0);
    for (int i = 0; i < OPENINGS; i++)
        open_and_close();
    over = 1;
    for (int i = 0; i < LOOKERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(failed[i], 0);
    }
    assert_true(looks > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(a_handle_is_opened_and_closed_beside_those_who_look),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
