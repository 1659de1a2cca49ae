/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is given back touches nobody else's: claims (K11), the locks of boxes (K9), other leftovers (K22).
 */
#include "journal_fixture.h"

#include "journal/internal.h"

static int begin_inside(struct journal *j, const struct box *parent, const char *name, struct rbxj_error *e)
{
    struct box box = {.parent = parent->incarnation};
    *e = (struct rbxj_error){0};
    return begin(j, &box, name, NULL, 0, e);
}

static void k11_a_dead_claimer_of_the_parent_is_void(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct shared *s = shared_make();
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    struct box box = must_begin(j, "outer", NULL);
    pid_t hook = CHILD({
        struct rbxj_error error = {0};
        struct journal *own;
        CHECK_OK(journal_open(&p.options, &own, &error), error);
        CHECK_OK(journal_claim(own, box.incarnation, &error), error);
        atomic_store(&s->step, 1);
        pause();
    });
    wait_for(s, 1);
    assert_refused(begin_inside(j, &box, "b", &e), e, RBXJ_E_BOX_STALE, harness_format("by pid %d", hook));
    harness_kill(hook);
    assert_ok(begin_inside(j, &box, "a", &e), e);
    /* nor beside another thread of this process that takes it down */
    assert_ok(journal_claim(j, box.incarnation, &e), e);
    assert_refused(begin_inside(j, &box, "b", &e), e, RBXJ_E_BOX_STALE, "by this process");
    journal_unclaim(j, box.incarnation);
    assert_ok(begin_inside(j, &box, "b", &e), e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k11_a_dead_claimer_of_the_parent_is_void),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
