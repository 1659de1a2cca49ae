/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Incident records (I10): one per replay that found anything, grouped by box; what is in them, and who reads
 * them. Their files: test_incident_files.c.
 */
#include "incident_fixture.h"

#include "reaper/incident_store.h"

#include <regex.h>

static void ids_have_their_shape(void **state)
{
    (void)state;
    regex_t shape;
    assert_int_equal(regcomp(&shape, "^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}$", REG_EXTENDED | REG_NOSUB), 0);
    for (int i = 0; i < 100; i++) {
        char id[INCIDENT_ID_MAX];
        int64_t before_ns = now_realtime_ns();
        incident_new_id(id);
        assert_int_equal(regexec(&shape, id, 0, NULL, 0), 0);
        assert_true(incident_id_is_valid(id));
        assert_in_range(incident_id_time(id), before_ns - 1000000000, now_realtime_ns());
    }
    regfree(&shape);
    static const char *const wrong[] = {"",
                                        "20261124T030000Z-1a2b3c4",
                                        "20261124T030000Z-1a2b3c4dd",
                                        "20261124T030000Z-1a2b3c4g",
                                        "20261124T030000Z-1A2B3C4D",
                                        "20261124T03000aZ-1a2b3c4d",
                                        "20261124 030000Z-1a2b3c4d",
                                        "../61124T030000Z-1a2b3c4d"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_false(incident_id_is_valid(wrong[i]));
}

/* Those of the same second, too. */
static void ids_sort_by_age(void **state)
{
    (void)state;
    char older[INCIDENT_ID_MAX], newer[INCIDENT_ID_MAX];
    incident_new_id(older);
    for (int i = 0; i < 100; i++) {
        (void)usleep(10); /* ten times what an id tells apart */
        incident_new_id(newer);
        assert_true(strcmp(older, newer) < 0);
        memcpy(older, newer, sizeof(older));
    }
}

/* ---- the life of an incident ---- */

static void i10_written_before_the_first_undo(void **state)
{
    (void)state;
    state_begin();
    struct rbxj_result *result = result_new();
    (void)result_add(result, "7", 71, "supervisor_crash", "success");
    entry_add(result, 2, RBXJ_MOUNT, "/srv/7/root", OUTCOME_NONE, NULL);
    entry_add(result, 1, RBXJ_LOCK, "/srv/7/lock", OUTCOME_NONE, NULL);
    (void)result_add(result, "8", 81, "system_crash", "success");
    entry_add(result, 1, RBXJ_TMPDIR, "/srv/8", OUTCOME_NONE, NULL);
    struct incidents *in = incidents_begin(&config, "replay", id1, "the reason", result, yes, NULL);
    assert_string_equal(incidents_of(in, 0), id1);
    assert_string_equal(incidents_of(in, 1), id1);
    assert_true(incidents_is_new(in, 1));
    assert_int_equal(mode_of(harness_format("%s/incidents", config.state_dir)), 0700);
    assert_int_equal(mode_of(path_of(id1, "")), 0700);
    assert_int_equal(mode_of(document_path(id1)), 0600);
    assert_int_equal(mode_of(path_of(id1, "open")), 0600);
    expect_text(id1, "id", id1);
    expect_text(id1, "cause", "system_crash");
    expect_text(id1, "outcome", "unfinished");
    expect_text(id1, "procedure", "replay");
    expect_number(id1, "boxes", 2);
    expect_number(id1, "executions", 2);
    expect_number(id1, "open", 2);
    expect_number(id1, "left", 3);
    expect_number(id1, "entries", 3);
    expect_number(id1, "notes", 1);
    expect_number(id1, "recovery_s", -1);
    expect_number(id1, "version", 1);
    result->boxes[0].entries[0].outcome = result->boxes[0].entries[1].outcome = OUTCOME_UNDONE;
    result->boxes[1].entries[0].outcome = OUTCOME_ALREADY_GONE;
    incidents_end(in, result, &more);
    assert_string_equal(result->boxes[0].incident, id1);
    assert_string_equal(result->boxes[1].incident, id1);
    rbxj_result_free(result);
    expect_text(id1, "outcome", "success");
    expect_number(id1, "open", 0);
    expect_number(id1, "left", 0);
    expect_number(id1, "entries", 3);
    expect_number(id1, "count", 1);
    assert_int_equal(mode_of(document_path(id1)), 0600);
    assert_false(path_exists(path_of(id1, "open")));
    assert_int_equal(recoveries(), 1);
    char *text = harness_read(document_path(id1));
    assert_ptr_equal(strchr(text, '\n'), NULL);
    assert_int_equal(events, 0);
}

static void same_trouble_counts_up(void **state)
{
    (void)state;
    state_begin();
    struct rbxj_result *result = one_box(71, OUTCOME_FAILED);
    entry_add(result, 2, RBXJ_PROCESS, "pid 9", OUTCOME_UNDONE, NULL);
    result->boxes[0].outcome = "partial";
    assert_true(replay_of(id1, result));
    expect_text(id1, "outcome", "partial");
    expect_number(id1, "open", 1);
    expect_number(id1, "left", 1);
    assert_int_equal(recoveries(), 0);

    /* again, and a box that is in none: that one is a new incident */
    result = one_box(71, OUTCOME_FAILED);
    (void)result_add(result, "9", 91, "supervisor_crash", "success");
    entry_add(result, 1, RBXJ_TMPDIR, "/srv/9", OUTCOME_UNDONE, NULL);
    struct incidents *in = incidents_begin(&config, "boot", id2, NULL, result, no, NULL);
    assert_string_equal(incidents_of(in, 0), id1);
    assert_false(incidents_is_new(in, 0));
    assert_string_equal(incidents_of(in, 1), id2);
    expect_text(id1, "outcome", "unfinished");
    incidents_end(in, result, &more);
    rbxj_result_free(result);
    expect_number(id1, "count", 2);
    expect_number(id1, "entries", 2); /* what was undone the first time is still told */
    expect_number(id1, "left", 1);
    expect_text(id1, "outcome", "partial");
    expect_text(id2, "procedure", "boot");
    expect_number(id2, "entries", 1);
    assert_int_equal(recoveries(), 1);

    assert_false(replay_of(id2, one_box(71, OUTCOME_UNDONE)));
    expect_number(id1, "count", 3);
    expect_number(id1, "open", 0);
    expect_number(id1, "left", 0);
    expect_text(id1, "outcome", "success");
    assert_int_equal(recoveries(), 2);

    /* closed: the same incarnation would be a new one */
    char id3[INCIDENT_ID_MAX];
    incident_new_id(id3);
    assert_true(replay_of(id3, one_box(71, OUTCOME_FAILED)));
    expect_number(id1, "count", 3);
}

static void partial_is_told(void **state)
{
    (void)state;
    state_begin();
    struct rbxj_result *result = one_box(71, OUTCOME_REFUSED);
    (void)result_add(result, "8", 81, "lock_corruption", "success");
    entry_add(result, 1, RBXJ_LOCK, "/srv/8", OUTCOME_UNDONE, NULL);
    (void)result_add(result, "9", 91, "cleanup_failure", "success");
    (void)replay_of(id1, result);
    expect_text(id1, "outcome", "partial");
    expect_text(id1, "cause", "lock_corruption");
    expect_number(id1, "open", 1);
    expect_number(id1, "executions", 3);
}

static void killed_reaper_leaves_a_trace(void **state)
{
    (void)state;
    state_begin();
    struct rbxj_result *result = one_box(71, OUTCOME_NONE), *other = result_new();
    incidents_end(incidents_begin(&config, "replay", id1, NULL, result, yes, NULL), NULL, &more);
    rbxj_result_free(result);
    expect_text(id1, "outcome", "unfinished");
    expect_number(id1, "open", 1);

    /* another replay: its box is still in the journal, or is no longer */
    incidents_end(incidents_begin(&config, "replay", id2, NULL, other, yes, NULL), other, &more);
    expect_number(id1, "open", 1);
    incidents_end(incidents_begin(&config, "replay", id2, NULL, other, NULL, NULL), other, &more);
    expect_number(id1, "open", 1);
    assert_int_equal(recoveries(), 0);
    incidents_end(incidents_begin(&config, "replay", id2, NULL, other, no, NULL), other, &more);
    expect_number(id1, "open", 0);
    expect_number(id1, "left", 0);
    expect_number(id1, "notes", 1);
    expect_text(id1, "outcome", "unfinished");
    assert_int_equal(mode_of(document_path(id1)), 0600);
    assert_false(path_exists(path_of(id1, "open")));
    assert_int_equal(recoveries(), 1);
    assert_false(path_exists(path_of(id2, "")));
    rbxj_result_free(other);
}

static struct rbxj_result *all_gone(const char *cause)
{
    struct rbxj_result *result = result_new();
    (void)result_add(result, "7", 71, cause, "success");
    entry_add(result, 1, RBXJ_TMPDIR, "/srv/7", OUTCOME_ALREADY_GONE, NULL);
    return result;
}

static void power_loss_after_the_end_is_none(void **state)
{
    (void)state;
    state_begin();
    struct rbxj_result *result = all_gone("system_crash");
    struct incidents *in = incidents_begin(&config, "boot", id1, NULL, result, no, NULL);
    assert_true(path_exists(document_path(id1)));
    incidents_end(in, result, &more);
    assert_false(path_exists(path_of(id1, "")));
    assert_string_equal(result->boxes[0].incident, "");
    assert_int_equal(recoveries(), 0);
    rbxj_result_free(result);

    (void)replay_of(id1, all_gone("supervisor_crash"));
    assert_true(path_exists(document_path(id1)));

    result = all_gone("system_crash");
    in = incidents_begin(&config, "boot", id2, NULL, result, no, NULL);
    harness_write(path_of(id2, "7.lock"), "evidence");
    incidents_end(in, result, &more);
    rbxj_result_free(result);
    expect_number(id2, "evidence", 1);
    assert_true(path_exists(path_of(id2, "7.lock")));
}

/* ---- what is in it ---- */

static void entries_are_bounded_errors_first(void **state)
{
    (void)state;
    state_begin();
    struct rbxj_result *result = result_new();
    (void)result_add(result, "7", 71, "supervisor_crash", "partial");
    for (uint32_t i = 0; i < 1500; i++)
        entry_add(result, i + 1, RBXJ_LOCK, harness_format("/srv/%u", i), OUTCOME_UNDONE, NULL);
    (void)result_add(result, "8", 81, "supervisor_crash", "failure");
    for (uint32_t i = 0; i < 700; i++)
        entry_add(result, i + 1, RBXJ_MOUNT, "/m", i % 2 ? OUTCOME_SKIPPED : OUTCOME_FAILED,
                  i % 2 ? NULL : "umount /m");
    (void)replay_of(id1, result);
    expect_number(id1, "entries", 1000);
    expect_number(id1, "entries_omitted", 1200);
    expect_number(id1, "left", 700);
    cJSON *document = read_document(id1);
    cJSON *entries = cJSON_GetObjectItem(document, "entries");
    assert_string_equal(doc_get_text(cJSON_GetArrayItem(entries, 349), "event"), "mount_unmount_failed");
    assert_null(doc_get_text(cJSON_GetArrayItem(entries, 350), "event"));
    cJSON_Delete(document);

    /* all that was left is gone: what had been undone is kept, and the sum is right */
    result = result_new();
    (void)result_add(result, "8", 81, "supervisor_crash", "success");
    for (uint32_t i = 0; i < 700; i++)
        entry_add(result, i + 1, RBXJ_MOUNT, "/m", OUTCOME_UNDONE, NULL);
    (void)replay_of(id2, result);
    expect_number(id1, "open", 1);
    expect_number(id1, "entries", 1000);
    expect_number(id1, "entries_omitted", 1200);
    expect_number(id1, "left", 0);
}

static void document_fits(void **state)
{
    (void)state;
    state_begin();
    char name[4096];
    memset(name, '\xff', sizeof(name));
    name[0] = '/';
    name[sizeof(name) - 1] = 0;
    struct rbxj_result *result = result_new();
    (void)result_add(result, "7", 71, "supervisor_crash", "failure");
    for (uint32_t i = 0; i < 999; i++)
        entry_add(result, i + 1, RBXJ_TMPDIR, name, OUTCOME_FAILED, "rmdir");
    (void)replay_of(id1, result);
    struct stat st;
    assert_int_equal(stat(document_path(id1), &st), 0);
    assert_in_range(st.st_size, 1 << 20, (4 << 20) - 1);
    expect_number(id1, "left", 999);
    assert_int_equal(listed(NULL, 0), 1);
    cJSON *document = read_document(id1);
    assert_true(cJSON_GetArraySize(cJSON_GetObjectItem(document, "entries")) +
                    doc_get_number(document, "entries_omitted", 0) ==
                999);
    cJSON_Delete(document);
}

static void names_are_bytes_and_stay_so(void **state)
{
    (void)state;
    state_begin();
    struct rbxj_result *result = one_box(71, OUTCOME_FAILED);
    /* the last two bytes are an overlong '/' */
    entry_add(result, 2, RBXJ_TMPDIR, "/a\n\x1b[31m\xff\xc2\x9b\xf0\x9f\x93\xa6\"\\\xc0\xaf", OUTCOME_UNDONE,
              NULL);
    result->boxes[0].outcome = "partial";
    struct incidents *in = incidents_begin(&config, "replay", id1, "reason \x1b\xc2\x9b\xe2\x82\xac", result,
                                           no, NULL);
    incidents_end(in, result, &more);
    rbxj_result_free(result);
    cJSON *document = read_document(id1);
    cJSON *entry = cJSON_GetArrayItem(cJSON_GetObjectItem(document, "entries"), 1);
    char *before = cJSON_PrintUnformatted(entry);
    assert_string_equal(doc_get_text(entry, "raw"), "2f610a1b5b33316dffc29bf09f93a6225cc0af");
    cJSON_Delete(document);
    for (int i = 0; i < 3; i++) /* read and written again */
        (void)replay_of(id2, one_box(71, OUTCOME_FAILED));
    document = read_document(id1);
    char *after = cJSON_PrintUnformatted(cJSON_GetArrayItem(cJSON_GetObjectItem(document, "entries"), 1));
    assert_string_equal(before, after);
    cJSON_Delete(document);
    cJSON_free(before);
    cJSON_free(after);
    assert_non_null(strstr(harness_read(document_path(id1)), "\\\"\\\\\\u00c0\\u00af\""));
    for (const char *p = harness_read(document_path(id1)); *p; p++)
        assert_in_range(*p, 0x20, 0x7e);
}

static void ten_thousand_boxes(void **state)
{
    (void)state;
    state_begin();
    struct rbxj_result *result = result_new();
    for (uint64_t i = 1; i <= 10000; i++) {
        (void)result_add(result, "box", i, "supervisor_crash", i % 2 ? "success" : "failure");
        for (uint32_t k = 1; k <= 4; k++)
            entry_add(result, k, RBXJ_MOUNT, "/srv/box/root", i % 2 ? OUTCOME_UNDONE : OUTCOME_FAILED,
                      i % 2 ? NULL : "umount");
    }
    int64_t start = now_monotonic_ns();
    (void)replay_of(id1, result);
    int64_t once = now_monotonic_ns() - start;
    print_message("begin and end with 10,000 boxes: %.3f s\n", (double)once / 1e9);
    expect_number(id1, "boxes", 10000);
    expect_number(id1, "open", 5000);
    expect_number(id1, "left", 20000);
    assert_true(once < 5000000000);
}

/* ---- notes, summary, listing ---- */

static void notes_close_what_they_end(void **state)
{
    (void)state;
    state_begin();
    struct rbxj_result *result = one_box(71, OUTCOME_FAILED);
    (void)result_add(result, "8", 81, "supervisor_crash", "failure");
    entry_add(result, 1, RBXJ_MOUNT, "/srv/8", OUTCOME_FAILED, "umount /srv/8");
    (void)replay_of(id1, result);
    expect_number(id1, "left", 2);
    incident_note(&config, "forget", "cleanup_failure", "7", 71, false, "seq 1 was forgotten: because");
    expect_number(id1, "open", 2);
    incident_note(&config, "forget", "cleanup_failure", "7", 71, true, "seq 2 was forgotten: because");
    expect_number(id1, "open", 1);
    expect_number(id1, "left", 1);
    expect_number(id1, "notes", 1);
    expect_number(id1, "recovery_s", -1);
    incident_note(&config, "forget", "cleanup_failure", "8", 81, true, "because");
    expect_number(id1, "open", 0);
    expect_text(id1, "outcome", "failure"); /* it was given up, not undone */
    assert_int_equal(listed(NULL, 0), 4);
    struct incident_counts counts;
    char error[400];
    incidents_summary(&config, 0, &counts, error, sizeof(error));
    assert_int_equal(counts.detected, 1);
    assert_string_equal(error, "");
}

static void summary_for_the_health(void **state)
{
    (void)state;
    state_begin();
    struct incident_counts counts;
    char error[400];
    harness_mkdir(path_of("", ""));
    const char *old = id_of_day(3, 1), *newer = id_of_day(2, 1);
    (void)replay_of(old, one_box(71, OUTCOME_FAILED));
    (void)replay_of(newer, one_box(72, OUTCOME_UNDONE));
    (void)replay_of(id1, one_box(73, OUTCOME_UNDONE));
    /* of a clock that was ahead: else it would be of the last day for a month */
    (void)replay_of(id_of_day(-30, 1), one_box(74, OUTCOME_UNDONE));
    incidents_summary(&config, 0, &counts, error, sizeof(error));
    assert_int_equal(counts.detected, 3);
    assert_string_equal(error, "mount_unmount_failed: umount /srv/7: Device or resource busy");
    incidents_summary(&config, now_realtime_ns() - 86400LL * 1000000000, &counts, error, sizeof(error));
    assert_int_equal(counts.detected, 1);
    assert_string_equal(error, "mount_unmount_failed: umount /srv/7: Device or resource busy");
    char small[10];
    incidents_summary(&config, 0, &counts, small, sizeof(small));
    assert_string_equal(small, "mount_unm");
}

static void listing(void **state)
{
    (void)state;
    state_begin();
    assert_int_equal(listed(NULL, 0), 0);
    harness_mkdir(path_of("", ""));
    const char *old = id_of_day(10, 1);
    make_incident(
        old,
        harness_format("{\"id\":\"%s\",\"updated\":\"2020-01-02T03:04:05Z\",\"x\":\"\x1b\xff\"}\n\n", old),
        false);
    (void)replay_of(id1, one_box(71, OUTCOME_UNDONE));
    assert_int_equal(listed(NULL, 0), 2);
    assert_int_equal(listed(NULL, now_realtime_ns() - 60LL * 1000000000), 1);
    assert_int_equal(listed(NULL, now_realtime_ns() + 60LL * 1000000000), 0);
    assert_int_equal(listed(NULL, 1577934245LL * 1000000000), 2);
    assert_int_equal(listed(NULL, 1577934246LL * 1000000000), 1);
    assert_int_equal(listed(old, now_realtime_ns()), 1); /* asked for by name */
    assert_int_equal(listed(id2, 0), -1);
    const char *const wrong[] = {"", ".", "..", "../journal", "foreign", "20261124T030000Z-0000000/"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_int_equal(listed(wrong[i], 0), -1);
    struct rbxj_options options = {.state_dir = config.state_dir, .runtime_dir = config.runtime_dir};
    struct rbxj_incidents *all = NULL;
    assert_int_equal(rbxj_incidents(&options, old, 0, &all, NULL), 0);
    assert_string_equal(
        rbxj_incidents_json(all, 0),
        harness_format("{\"id\":\"%s\",\"updated\":\"2020-01-02T03:04:05Z\",\"x\":\"\\u001b\\u00ff\"}", old));
    rbxj_incidents_free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_have_their_shape),
        cmocka_unit_test(ids_sort_by_age),
        harness_test(i10_written_before_the_first_undo),
        harness_test(same_trouble_counts_up),
        harness_test(partial_is_told),
        harness_test(killed_reaper_leaves_a_trace),
        harness_test(power_loss_after_the_end_is_none),
        harness_test(entries_are_bounded_errors_first),
        harness_test(document_fits),
        harness_test(names_are_bytes_and_stay_so),
        harness_test(ten_thousand_boxes),
        harness_test(notes_close_what_they_end),
        harness_test(summary_for_the_health),
        harness_test(listing),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
