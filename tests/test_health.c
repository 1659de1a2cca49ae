/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The judgements of the health that need another day, another boot or a lost journal: the rest is in
 * health.sh, as a monitor sees it.
 */
#include "journal_fixture.h"

#include <sys/mount.h>

static struct rbxj_options options_of(const struct place *p)
{
    return (struct rbxj_options){.state_dir = p->state, .runtime_dir = p->runtime};
}

static struct rbxj_health look(const struct place *p)
{
    struct rbxj_options options = options_of(p);
    struct rbxj_health h = {0};
    struct rbxj_error e = {0};
    assert_ok(rbxj_health(&options, &h, &e), e);
    return h;
}

static int replay_all(const struct place *p)
{
    struct rbxj_options options = options_of(p);
    struct rbxj_replay how = {0};
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    int r = rbxj_replay(&options, &how, &result, &e);
    rbxj_result_free(result);
    return r;
}

/* A dead box whose directory lies on a file system that is not mounted; it has been refused for that. */
static void leave_unmounted(const struct place *p)
{
    const char *data = harness_format("%s/data", harness_disk());
    harness_mkdir(data);
    assert_int_equal(mount("none", data, "tmpfs", 0, NULL), 0);
    pid_t pid = CHILD({
        struct rbxj_options options = options_of(p);
        struct rbxj *handle;
        struct rbxj_error e = {0};
        struct rbxj_resource plan = {.kind = RBXJ_TMPDIR, .path = harness_format("%s/t", data)};
        struct rbxj_box box = {.name = "a", .plan = &plan, .plan_len = 1};
        CHECK_OK(rbxj_open(&options, &handle, &e), e);
        CHECK_OK(rbxj_begin(handle, &box, NULL, &e), e);
        CHECK_OK(rbxj_acquire(handle, "a", 1, NULL, NULL, &e), e);
    });
    assert_child(pid);
    assert_int_equal(umount2(data, MNT_DETACH), 0);
    assert_int_equal(replay_all(p), 1);
}

static void change_waiting(const struct place *p, int64_t since_ns, uint8_t other_boot)
{
    struct journal *j = place_open(p);
    struct snapshot_box sb;
    struct rbxj_error e = {0};
    assert_ok(journal_get(j, "a", &sb, &e), e);
    assert_true(sb.box.waiting_since_ns != 0);
    sb.box.waiting_since_ns = since_ns ? since_ns : sb.box.waiting_since_ns;
    sb.box.waiting_boot[0] ^= other_boot;
    assert_ok(journal_update_box(j, &sb.box, &e), e);
    snapshot_box_clear(&sb);
    place_close();
}

static void k14_waiting_for_a_day_makes_unhealthy(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    leave_unmounted(&p);
    struct rbxj_health h = look(&p);
    assert_string_equal(h.status, "healthy");
    assert_int_equal(h.stale_boxes, 1);
    int64_t hour = 3600LL * 1000000000;
    change_waiting(&p, now_realtime_ns() - 23 * hour, 0);
    assert_string_equal(look(&p).status, "healthy");
    change_waiting(&p, now_realtime_ns() - 25 * hour, 0);
    assert_string_equal(look(&p).status, "unhealthy");
    assert_int_equal(replay_all(&p), 1); /* it goes on counting */
    assert_string_equal(look(&p).status, "unhealthy");
}

static void k14_waiting_into_a_second_boot_makes_unhealthy(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    leave_unmounted(&p);
    change_waiting(&p, 0, 1);
    assert_string_equal(look(&p).status, "unhealthy");
    assert_int_equal(replay_all(&p), 1);
    assert_string_equal(look(&p).status, "unhealthy");
}

static void k21_lost_boot_journal_makes_unhealthy_until_audited(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_options options = options_of(&p);
    struct rbxj_error e = {0};
    (void)place_open(&p);
    place_close();
    assert_string_equal(look(&p).status, "healthy");
    const char *folder = place_folder(&p);
    assert_int_equal(rename(folder, harness_format("%s/aside", p.runtime)), 0);
    (void)place_open(&p);
    place_close();
    struct rbxj_health h = look(&p);
    assert_string_equal(h.status, "unhealthy");
    assert_non_null(strstr(h.last_cleanup_error, "journal_lost"));
    assert_ok(rbxj_unquarantine(&options, "looked into it", &e), e);
    assert_string_equal(look(&p).status, "healthy");
}

/* Whatever a supervisor that has the journals open asks for, the one handle of its process serves. */
static void health_is_served_by_an_open_handle(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_options options = options_of(&p);
    struct rbxj_error e = {0};
    struct rbxj_clean clean;
    struct rbxj_health h;
    struct rbxj *handle;
    assert_ok(rbxj_open(&options, &handle, &e), e);
    struct rbxj_box box = {.name = "a"};
    assert_ok(rbxj_begin(handle, &box, NULL, &e), e);
    assert_ok(rbxj_quarantine(&options, "by its own supervisor", &e), e);
    assert_refused(rbxj_begin(handle, &(struct rbxj_box){.name = "b"}, NULL, &e), e, RBXJ_E_QUARANTINED,
                   "by its own supervisor");
    assert_ok(rbxj_unquarantine(&options, "done", &e), e);
    h = look(&p);
    assert_string_equal(h.status, "healthy");
    assert_int_equal(h.live_boxes, 1);
    assert_ok(rbxj_verify_clean(&options, &clean, &e), e);
    assert_true(clean.clean);
    assert_ok(rbxj_recover(&options, NULL, NULL, &h, &e), e);
    assert_int_equal(h.live_boxes, 1);
    assert_ok(rbxj_end(handle, "a", &e), e); /* it has its locks still */
    rbxj_close(handle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k14_waiting_for_a_day_makes_unhealthy),
        journal_test(k14_waiting_into_a_second_boot_makes_unhealthy),
        journal_test(k21_lost_boot_journal_makes_unhealthy_until_audited),
        journal_test(health_is_served_by_an_open_handle),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
