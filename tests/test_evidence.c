/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the health rests on besides its boxes, where a server does not answer (K16): a look must neither hang
 * nor say that all is well. How it looks to an operator: evidence.sh.
 */
#include "hung_fuse.h"
#include "journal_fixture.h"

static struct rbxj_options options_with(const char *patterns)
{
    static struct place p;
    p = place_make();
    const char *config = harness_format("%s/rbxj.conf", harness_disk());
    harness_write(config,
                  harness_format("[discover]\nlocks =\ncgroups =\nmounts =\ntmpdirs =\n%s", patterns));
    (void)place_open(&p);
    place_close();
    return (struct rbxj_options){.state_dir = p.state, .runtime_dir = p.runtime, .config = config};
}

static void k16_room_that_cant_be_asked_for_is_doubt(void **state)
{
    (void)state;
    harness_need_root();
    const char *hung = harness_format("%s/hung", harness_disk());
    struct rbxj_options options = options_with(harness_format("tmpdirs = %s/box-*\n", hung));
    struct rbxj_error e = {0};
    struct rbxj_health h;
    char *json = NULL;
    pid_t server = hung_fuse(hung);
    assert_ok(rbxj_health(&options, &h, &e), e);
    assert_string_equal(h.status, "healthy");
    assert_true(h.not_looked_at > 0);
    assert_int_equal(h.exhausted_resources, 0);
    assert_ok(rbxj_evidence(&options, &json, &e), e);
    if (!strstr(json, harness_format("box root %s: its room could not be looked at", hung)))
        fail_msg("%s", json);
    free(json);
    harness_kill(server);
}

static void k16_what_does_not_answer_is_not_clean(void **state)
{
    (void)state;
    harness_need_root();
    const char *hung = harness_format("%s/hung", harness_disk());
    struct rbxj_options options = options_with(
        harness_format("tmpdirs = %s/box-*\nlocks = %s/*/lock\n", hung, hung));
    struct rbxj_error e = {0};
    struct rbxj_clean clean;
    pid_t server = hung_fuse(hung);
    assert_ok(rbxj_verify_clean(&options, &clean, &e), e);
    assert_false(clean.clean);
    assert_int_equal(clean.not_looked_at, 2);
    assert_int_equal(clean.unjournaled, 0);
    harness_kill(server);
    assert_int_equal(umount2(hung, MNT_DETACH), 0);
    assert_ok(rbxj_verify_clean(&options, &clean, &e), e);
    assert_true(clean.clean);
}

/* A box root is a link to where a server should be: the link must not be followed into it. */
static void k16_a_link_to_what_does_not_answer_is_doubt(void **state)
{
    (void)state;
    harness_need_root();
    const char *hung = harness_format("%s/hung", harness_disk()),
               *link = harness_format("%s/link", harness_disk());
    struct rbxj_options options = options_with(harness_format("tmpdirs = %s/box-*\n", link));
    struct shared *s = shared_make();
    pid_t server = hung_fuse(hung);
    assert_int_equal(symlink("hung/boxes", link), 0);
    pid_t pid = CHILD({
        struct rbxj_error e = {0};
        struct rbxj_health h;
        struct rbxj_clean clean;
        CHECK_OK(rbxj_health(&options, &h, &e), e);
        CHECK(h.not_looked_at > 0 && h.exhausted_resources == 0);
        CHECK_OK(rbxj_verify_clean(&options, &clean, &e), e);
        CHECK(!clean.clean && clean.not_looked_at == 1);
        atomic_store(&s->step, 1);
    });
    for (int i = 0; i < 60000 && !atomic_load(&s->step); i++)
        (void)usleep(500);
    harness_kill(server); /* or it can't even be killed */
    assert_int_equal(atomic_load(&s->step), 1);
    assert_child(pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k16_room_that_cant_be_asked_for_is_doubt),
        journal_test(k16_what_does_not_answer_is_not_clean),
        journal_test(k16_a_link_to_what_does_not_answer_is_doubt),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
