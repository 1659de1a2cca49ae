/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The files of incident records (K19): whole or not at all, never in the way, and none of anybody else's.
 */
#include "incident_fixture.h"

#include <sys/mount.h>

/* ---- what is kept ---- */

static void retention(void **state)
{
    (void)state;
    state_begin();
    config.incidents_keep = 4;
    harness_mkdir(path_of("", ""));
    const char *old_open = id_of_day(100, 1), *old = id_of_day(95, 2);
    make_incident(old_open,
                  harness_format("{\"id\":\"%s\",\"version\":1,\"open\":[\"5\"],\"entries\":[]}", old_open),
                  true);
    make_incident(old, "{}", false);
    harness_mkdir(path_of("foreign", ""));
    const char *ids[6];
    for (int i = 0; i < 6; i++) {
        ids[i] = id_of_day(20 - i, (unsigned int)i);
        make_incident(ids[i], "{}", false);
        harness_write(path_of(ids[i], "evidence"), "x");
    }
    harness_mkdir(path_of(ids[1], "sub"));
    harness_write(path_of(ids[1], "sub/file"), "not ours");
    (void)replay_of(id1, one_box(71, OUTCOME_UNDONE));
    assert_false(path_exists(path_of(old, "")));
    assert_true(path_exists(document_path(old_open)));
    assert_true(path_exists(path_of("foreign", "")));
    assert_false(path_exists(path_of(ids[0], "")));
    assert_true(path_exists(path_of(ids[1], "sub/file")));
    assert_false(path_exists(path_of(ids[2], "")));
    for (int i = 3; i < 6; i++)
        assert_true(path_exists(document_path(ids[i])));
    assert_true(path_exists(document_path(id1)));

    config.incidents_keep = 1000;
    config.incidents_keep_days = 16;
    (void)replay_of(id2, one_box(72, OUTCOME_UNDONE));
    assert_false(path_exists(path_of(ids[3], "")));
    assert_true(path_exists(document_path(ids[5])));

    /* though nothing is found, with the evidence */
    config.incidents_keep_days = 1;
    struct rbxj_result *nothing = result_new();
    incidents_end(incidents_begin(&config, "recover", id2, NULL, nothing, yes, NULL), nothing, &more);
    rbxj_result_free(nothing);
    assert_false(path_exists(path_of(ids[4], "")));
    assert_false(path_exists(path_of(ids[5], "")));
    assert_true(path_exists(document_path(old_open)));
    assert_true(path_exists(document_path(id1)));
}

static void newest_stays_whatever_its_age(void **state)
{
    (void)state;
    state_begin();
    harness_mkdir(path_of("", ""));
    const char *before = id_of_day(300, 1), *older = id_of_day(301, 1);
    make_incident(older, "{}", false);
    (void)replay_of(before, one_box(71, OUTCOME_UNDONE)); /* the clock is wrong */
    assert_true(path_exists(document_path(before)));
    assert_false(path_exists(path_of(older, "")));
}

static void clock_set_back(void **state)
{
    (void)state;
    state_begin();
    config.incidents_keep = 2;
    const char *future = "20990101T000000Z-00000000";
    (void)replay_of(future, one_box(71, OUTCOME_FAILED));
    (void)replay_of(id1, one_box(72, OUTCOME_UNDONE));
    (void)replay_of(id2, one_box(71, OUTCOME_UNDONE));
    expect_number(future, "count", 2);
    expect_text(future, "outcome", "success");
    assert_true(path_exists(document_path(id1)));
    struct rbxj_options options = {.state_dir = config.state_dir, .runtime_dir = config.runtime_dir};
    struct rbxj_incidents *all = NULL;
    assert_int_equal(rbxj_incidents(&options, NULL, 0, &all, NULL), 0);
    assert_int_equal(rbxj_incidents_len(all), 2);
    assert_non_null(strstr(rbxj_incidents_json(all, 0), future));
    rbxj_incidents_free(all);
}

/* As many as are kept, of a clock that was ahead: what is detected since, by one that is right, stays. */
static void ahead_of_the_clock(void **state)
{
    (void)state;
    state_begin();
    config.incidents_keep = 3;
    harness_mkdir(path_of("", ""));
    const char *ahead[3];
    for (int i = 0; i < 3; i++)
        make_incident(ahead[i] = id_of_day(-3 - i, 1), "{}", false);
    (void)replay_of(id1, one_box(71, OUTCOME_UNDONE));
    assert_true(path_exists(document_path(id1)));
    assert_false(path_exists(path_of(ahead[0], "")));
    (void)replay_of(id2, one_box(72, OUTCOME_UNDONE));
    assert_true(path_exists(document_path(id1)));
    assert_true(path_exists(document_path(id2)));
}

static void temporary_files_go(void **state)
{
    (void)state;
    state_begin();
    (void)replay_of(id1, one_box(71, OUTCOME_FAILED));
    harness_write(path_of(id1, "incident.json.0123456789abcdef"), "{\"id\":");
    (void)replay_of(id2, one_box(71, OUTCOME_FAILED));
    assert_false(path_exists(path_of(id1, "incident.json.0123456789abcdef")));
    expect_number(id1, "evidence", 0);
    expect_number(id1, "count", 2);
}

static void evidence_is_kept(void **state)
{
    (void)state;
    state_begin();
    char *text = malloc(100001);
    memset(text, 'x', 100000);
    text[100000] = 0;
    const char *source = harness_format("%s/source", harness_disk());
    harness_write(source, text);
    free(text);
    int fd = open(source, O_RDONLY | O_CLOEXEC);
    assert_int_equal(lseek(fd, 50000, SEEK_SET), 50000);
    struct rbxj_result *result = one_box(71, OUTCOME_UNDONE);
    struct incidents *in = incidents_begin(&config, "replay", id1, NULL, result, yes, NULL);
    assert_int_equal(incident_keep(&config, id1, "b.lock", fd), 0);
    struct stat st;
    assert_int_equal(lstat(path_of(id1, "b.lock"), &st), 0);
    assert_int_equal(st.st_size, 65536);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 50000);
    harness_write(path_of(id1, "a.lock"), "kept before");
    assert_int_equal(incident_keep(&config, id1, "a.lock", fd), 0);
    assert_string_equal(harness_read(path_of(id1, "a.lock")), "kept before");

    const char *const wrong[] = {"", ".", "..", "../x", "a/b", "incident.json", "incident.json.1", "open"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_int_equal(incident_keep(&config, id1, wrong[i], fd), -EINVAL);
    assert_int_equal(incident_keep(&config, "../../etc", "x", fd), -EINVAL);
    expect_text(id1, "outcome", "unfinished");
    assert_int_equal(incident_keep(&config, id1, "c0", -1), -EBADF); /* a bad descriptor: nothing stays */
    assert_false(path_exists(path_of(id1, "c0")));
    int empty = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < 300; i++) /* 256 files with the two that are there */
        assert_int_equal(incident_keep(&config, id1, harness_format("c%03d", i), empty),
                         i < 254 ? 0 : -EDQUOT);
    assert_true(path_exists(path_of(id1, "c253")));
    assert_false(path_exists(path_of(id1, "c254")));
    assert_int_equal(events, 0); /* it may have been called from any thread */
    incidents_end(in, result, &more);
    rbxj_result_free(result);
    (void)close(fd);
    (void)close(empty);
    expect_number(id1, "evidence", 256);
    cJSON *document = read_document(id1);
    assert_string_equal(
        cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItem(document, "evidence"), 0)), "a.lock");
    cJSON_Delete(document);
}

/* ---- what may be in the way ---- */

static void k33_never_the_first_file(void **state)
{
    (void)state;
    state_begin();
    assert_int_equal(rmdir(harness_format("%s/journal", config.state_dir)), 0);
    (void)replay_of(id1, one_box(71, OUTCOME_FAILED));
    incident_note(&config, "quarantine", NULL, NULL, 0, false, "why");
    assert_false(path_exists(path_of("", "")));
    assert_int_equal(rmdir(config.state_dir), 0);
    struct rbxj_result *result = one_box(71, OUTCOME_FAILED);
    struct incidents *in = incidents_begin(&config, "replay", id1, NULL, result, yes, NULL);
    assert_string_equal(incidents_of(in, 0), id1);
    incidents_end(in, result, &more);
    assert_string_equal(result->boxes[0].incident, "");
    rbxj_result_free(result);
    incident_note(&config, "quarantine", NULL, NULL, 0, false, "why");
    assert_int_equal(incident_keep(&config, id1, "x", 0), 0);
    assert_false(path_exists(config.state_dir));
    assert_int_equal(listed(NULL, 0), 0);
    assert_int_equal(listed(id1, 0), -1);
    assert_int_equal(events, 0);
}

static void k19_full_disk_is_told_once(void **state)
{
    (void)state;
    harness_need_root();
    state_begin();
    assert_int_equal(mount("test", config.state_dir, "tmpfs", 0, "size=64k"), 0);
    harness_mkdir(harness_format("%s/journal", config.state_dir));
    harness_mkdir(path_of("", ""));
    int fd = open(harness_format("%s/fill", config.state_dir), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    while (write(fd, last_event, sizeof(last_event)) > 0)
        ;
    struct rbxj_result *result = one_box(71, OUTCOME_FAILED);
    (void)result_add(result, "8", 81, "supervisor_crash", "success");
    struct incidents *in = incidents_begin(&config, "replay", id1, NULL, result, yes, NULL);
    assert_int_equal(events, 0); /* it is tried again */
    incidents_end(in, result, &more);
    assert_int_equal(events, 1);
    assert_non_null(strstr(last_event, "note: incident"));
    assert_string_equal(result->boxes[0].incident, "");

    /* room again at the end: it is written then */
    in = incidents_begin(&config, "replay", id2, NULL, result, yes, NULL);
    assert_false(path_exists(document_path(id2)));
    assert_int_equal(ftruncate(fd, 0), 0);
    incidents_end(in, result, &more);
    rbxj_result_free(result);
    (void)close(fd);
    expect_number(id2, "open", 1);
    assert_int_equal(events, 1);
}

static void k19_many_that_fail_are_told_once(void **state)
{
    (void)state;
    state_begin();
    harness_mkdir(path_of("", ""));
    const char *const ids[] = {id_of_day(1, 1), id_of_day(1, 2), id_of_day(1, 3)};
    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        (void)replay_of(ids[i], one_box(71 + i, OUTCOME_FAILED));
    struct rbxj_result *result = one_box(71, OUTCOME_FAILED);
    for (uint64_t i = 72; i < 74; i++)
        (void)result_add(result, "8", i, "supervisor_crash", "failure");
    struct incidents *in = incidents_begin(&config, "replay", id1, NULL, result, yes, NULL);
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) { /* nothing can be put in its place */
        assert_int_equal(unlink(document_path(ids[i])), 0);
        harness_mkdir(document_path(ids[i]));
    }
    incidents_end(in, result, &more);
    rbxj_result_free(result);
    assert_int_equal(events, 1);
}

/* Nobody would find it again. */
static void an_open_one_is_not_written_without_its_mark(void **state)
{
    (void)state;
    state_begin();
    harness_mkdir(path_of("", ""));
    harness_mkdir(path_of(id1, ""));
    harness_mkdir(path_of(id1, "open"));
    (void)replay_of(id1, one_box(71, OUTCOME_FAILED));
    assert_false(path_exists(document_path(id1)));
    assert_int_equal(events, 1);
}

static void k19_writing_is_tried_again(void **state)
{
    (void)state;
    state_begin();
    const char *all = harness_format("%s/incidents", config.state_dir);
    harness_write(all, "not even a directory");
    struct rbxj_result *result = one_box(71, OUTCOME_FAILED);
    struct incidents *in = incidents_begin(&config, "replay", id1, NULL, result, yes, NULL);
    assert_int_equal(unlink(all), 0);
    incidents_end(in, result, &more);
    assert_string_equal(result->boxes[0].incident, id1);
    rbxj_result_free(result);
    expect_number(id1, "open", 1);
    assert_int_equal(events, 0);
}

static void k19_read_only(void **state)
{
    (void)state;
    harness_need_root();
    state_begin();
    (void)replay_of(id1, one_box(71, OUTCOME_FAILED));
    assert_int_equal(mount(config.state_dir, config.state_dir, NULL, MS_BIND, NULL), 0);
    assert_int_equal(mount(NULL, config.state_dir, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), 0);
    struct rbxj_result *result = one_box(71, OUTCOME_UNDONE);
    struct incidents *in = incidents_begin(&config, "replay", id2, NULL, result, yes, NULL);
    assert_string_equal(incidents_of(in, 0), id1);
    incidents_end(in, result, &more);
    assert_string_equal(result->boxes[0].incident, id1);
    rbxj_result_free(result);
    assert_int_equal(events, 1);
    assert_int_equal(listed(NULL, 0), 1);

    /* it stays open there, for each of the next replays; that recovery is one all the same */
    struct rbxj_result *other = result_new();
    for (int i = 0; i < 3; i++)
        incidents_end(incidents_begin(&config, "replay", id2, NULL, other, no, NULL), other, &more);
    assert_int_equal(recoveries(), 0);
    assert_int_equal(umount(config.state_dir), 0);
    for (int i = 0; i < 3; i++)
        incidents_end(incidents_begin(&config, "replay", id2, NULL, other, no, NULL), other, &more);
    rbxj_result_free(other);
    expect_number(id1, "open", 0);
    assert_int_equal(recoveries(), 1);
}

/* A writer that was killed between the document and its mark. */
static void a_mark_that_was_left_goes(void **state)
{
    (void)state;
    state_begin();
    (void)replay_of(id1, one_box(71, OUTCOME_UNDONE));
    harness_write(path_of(id1, "open"), "");
    char *before = harness_read(document_path(id1));
    (void)replay_of(id2, one_box(72, OUTCOME_FAILED));
    assert_false(path_exists(path_of(id1, "open")));
    assert_true(path_exists(path_of(id2, "open")));
    assert_string_equal(harness_read(document_path(id1)), before);
}

static void symlinks_are_not_followed(void **state)
{
    (void)state;
    state_begin();
    const char *elsewhere = harness_format("%s/elsewhere", harness_disk());
    harness_mkdir(elsewhere);
    harness_mkdir(path_of("", ""));

    assert_int_equal(symlink(elsewhere, path_of(id1, "")), 0);
    (void)replay_of(id1, one_box(71, OUTCOME_FAILED));
    assert_int_equal(incident_keep(&config, id1, "evidence", 0), -ENOTDIR);
    assert_int_equal(rmdir(elsewhere), 0); /* still empty */
    assert_int_equal(events, 1);
    assert_int_equal(listed(NULL, 0), 0);

    const char *target = harness_format("%s/target", harness_disk());
    harness_write(target, harness_format("{\"id\":\"%s\",\"version\":1,\"open\":[\"71\"]}", id2));
    harness_mkdir(path_of(id2, ""));
    assert_int_equal(symlink(target, document_path(id2)), 0);
    harness_write(path_of(id2, "open"), "");
    assert_int_equal(listed(NULL, 0), 0);
    (void)replay_of(id2, one_box(71, OUTCOME_FAILED));
    expect_number(id2, "count", 1); /* replaced, not followed */
    assert_null(strstr(harness_read(target), "count"));

    assert_int_equal(unlink(path_of(id1, "")), 0);
    harness_mkdir(elsewhere);
    assert_int_equal(rename(path_of("", ""), harness_format("%s/aside", config.state_dir)), 0);
    assert_int_equal(symlink(elsewhere, harness_format("%s/incidents", config.state_dir)), 0);
    (void)replay_of(id1, one_box(73, OUTCOME_FAILED));
    assert_int_equal(rmdir(elsewhere), 0);
}

static void foreign_directory_is_not_used(void **state)
{
    (void)state;
    state_begin();
    harness_mkdir(path_of("", ""));
    assert_int_equal(chmod(path_of("", ""), 0777), 0);
    (void)replay_of(id1, one_box(71, OUTCOME_FAILED));
    assert_false(path_exists(path_of(id1, "")));
    assert_int_equal(events, 1);
}

static void garbage_is_left_out(void **state)
{
    (void)state;
    state_begin();
    const char *const texts[] = {
        "",
        "{",
        "[]",
        "null",
        "{\"id\":5}",
        "{\"id\":\"20261124T030000Z-00000000\"}",
        "{\"id\":\"%s\",\"version\":1,\"open\":{\"a\":5},\"entries\":7,\"notes\":\"x\",\"detected\":[]}",
        "{\"id\":\"%s\",\"version\":1,\"open\":[null,5,\"x\",\"99999999999999999999999\"],\"entries\":[[]]}",
    };
    harness_mkdir(path_of("", ""));
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        const char *id = id_of_day(1, (unsigned int)i);
        char *text = NULL;
        assert_true(asprintf(&text, i < 6 ? "%s" : texts[i], i < 6 ? texts[i] : id) >= 0);
        make_incident(id, text, true);
        free(text);
    }
    const char *huge = id_of_day(1, 100), *fifo = id_of_day(1, 101), *nested = id_of_day(1, 102);
    make_incident(huge, harness_format("{\"id\":\"%s\"}", huge), true);
    assert_int_equal(truncate(document_path(huge), (4 << 20) + 1), 0);
    harness_mkdir(path_of(fifo, ""));
    assert_int_equal(mkfifo(document_path(fifo), 0600), 0);
    harness_write(path_of(fifo, "open"), "");
    char *deep = malloc(200001);
    memset(deep, '[', 200000);
    deep[200000] = 0;
    make_incident(nested, deep, true);
    free(deep);
    harness_write(path_of("file", ""), "x");
    harness_write(path_of(id_of_day(1, 103), ""), "a file with the name of an incident");
    assert_int_equal(listed(NULL, 0), 2); /* the two whose id is right: whatever else is in them */
    assert_int_equal(listed(huge, 0), -1);
    struct incident_counts counts;
    char error[100];
    incidents_summary(&config, 0, &counts, error, sizeof(error));
    assert_int_equal(counts.detected, 0);
    assert_string_equal(error, "");
    struct rbxj_result *result = one_box(71, OUTCOME_FAILED);
    incidents_end(incidents_begin(&config, "replay", id1, NULL, result, no, NULL), result, &more);
    rbxj_result_free(result);
    expect_number(id1, "count", 1);
    assert_int_equal(listed(NULL, 0), 3);
    incident_note(&config, "forget", NULL, "7", 71, true, "x");
    expect_number(id1, "open", 0);
}

static void later_version_is_not_changed(void **state)
{
    (void)state;
    state_begin();
    harness_mkdir(path_of("", ""));
    const char *text = harness_format("{\"id\":\"%s\",\"version\":2,\"open\":[\"71\"]}", id1);
    make_incident(id1, text, true);
    assert_true(replay_of(id2, one_box(71, OUTCOME_FAILED)));
    assert_string_equal(harness_read(document_path(id1)), text);
    expect_number(id2, "count", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(retention),
        harness_test(newest_stays_whatever_its_age),
        harness_test(clock_set_back),
        harness_test(ahead_of_the_clock),
        harness_test(temporary_files_go),
        harness_test(evidence_is_kept),
        harness_test(k33_never_the_first_file),
        harness_test(k19_full_disk_is_told_once),
        harness_test(k19_many_that_fail_are_told_once),
        harness_test(an_open_one_is_not_written_without_its_mark),
        harness_test(k19_writing_is_tried_again),
        harness_test(k19_read_only),
        harness_test(a_mark_that_was_left_goes),
        harness_test(symlinks_are_not_followed),
        harness_test(foreign_directory_is_not_used),
        harness_test(garbage_is_left_out),
        harness_test(later_version_is_not_changed),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
