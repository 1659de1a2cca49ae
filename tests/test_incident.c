/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Incident records (I10, K19): one per replay that found anything, grouped by box, whole or not at all, and
 * never in the way.
 */
#include "incident_fixture.h"

#include <sys/mount.h>
#include <time.h>

/* ---- what became of the files ---- */

static const char *path_of(const char *id, const char *name)
{
    return harness_format("%s/incidents/%s%s%s", config.state_dir, id, *name ? "/" : "", name);
}

static const char *document_path(const char *id)
{
    return path_of(id, "incident.json");
}

static mode_t mode_of(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? st.st_mode & 07777 : 0;
}

/* The document that is there now; the caller's to delete. */
static cJSON *read_document(const char *id)
{
    cJSON *document = cJSON_Parse(harness_read(document_path(id)));
    assert_non_null(document);
    return document;
}

static void expect_text(const char *id, const char *key, const char *value)
{
    cJSON *document = read_document(id);
    const char *text = doc_get_text(document, key);
    assert_non_null(text);
    assert_string_equal(text, value);
    cJSON_Delete(document);
}

/* A number, or how many items a list has; -1: null. */
static void expect_number(const char *id, const char *key, double value)
{
    cJSON *document = read_document(id);
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(document, key);
    double got = cJSON_IsArray(item)    ? cJSON_GetArraySize(item)
                 : cJSON_IsNumber(item) ? item->valuedouble
                                        : -1;
    if (got != value)
        print_error("%s is %g, not %g\n", key, got, value);
    assert_true(got == value);
    cJSON_Delete(document);
}

static bool yes(const void *data, uint64_t incarnation)
{
    (void)data, (void)incarnation;
    return true;
}
static bool no(const void *data, uint64_t incarnation)
{
    (void)data, (void)incarnation;
    return false;
}

/* A whole replay: as found and as it became; frees the result. */
static bool replay_of(const char *id, struct rbxj_result *result)
{
    struct incidents *in = incidents_begin(&config, "replay", id, NULL, result, yes, NULL);
    bool is_new = incidents_is_new(in, 0);
    incidents_end(in, result, &more);
    rbxj_result_free(result);
    return is_new;
}

static uint64_t recoveries(void)
{
    uint64_t n = 0;
    for (size_t i = 0; i < COUNTERS_BUCKETS; i++)
        n += more.recovery.buckets[i];
    return n;
}

/* How many the library lists; -1: an error. */
static int listed(const char *id, int64_t since_ns)
{
    struct rbxj_options options = {.state_dir = config.state_dir, .runtime_dir = config.runtime_dir};
    struct rbxj_incidents *all = NULL;
    struct rbxj_error error;
    if (rbxj_incidents(&options, id, since_ns, &all, &error) < 0)
        return -1;
    int n = (int)rbxj_incidents_len(all);
    assert_null(rbxj_incidents_json(all, (size_t)n));
    rbxj_incidents_free(all);
    return n;
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
    assert_int_equal(mode_of(document_path(id1)), 0400);
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
    assert_int_equal(mode_of(document_path(id1)), 0400);
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
    entry_add(result, 2, RBXJ_TMPDIR, "/a\n\x1b[31m\xff\xc2\x9b\xf0\x9f\x93\xa6\"\\", OUTCOME_UNDONE, NULL);
    result->boxes[0].outcome = "partial";
    struct incidents *in = incidents_begin(&config, "replay", id1, "reason \x1b\xc2\x9b\xe2\x82\xac", result,
                                           no, NULL);
    incidents_end(in, result, &more);
    rbxj_result_free(result);
    cJSON *document = read_document(id1);
    cJSON *entry = cJSON_GetArrayItem(cJSON_GetObjectItem(document, "entries"), 1);
    char *before = cJSON_PrintUnformatted(entry);
    assert_string_equal(doc_get_text(entry, "raw"), "2f610a1b5b33316dffc29bf09f93a6225c");
    cJSON_Delete(document);
    for (int i = 0; i < 3; i++) /* read and written again */
        (void)replay_of(id2, one_box(71, OUTCOME_FAILED));
    document = read_document(id1);
    char *after = cJSON_PrintUnformatted(cJSON_GetArrayItem(cJSON_GetObjectItem(document, "entries"), 1));
    assert_string_equal(before, after);
    cJSON_Delete(document);
    cJSON_free(before);
    cJSON_free(after);
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

/* ---- what is kept ---- */

static void make_incident(const char *id, const char *text, mode_t mode)
{
    harness_mkdir(path_of(id, ""));
    harness_write(document_path(id), text);
    assert_int_equal(chmod(document_path(id), mode), 0);
}

/* n days ago; the same second for the same n. */
static const char *id_of_day(int days, unsigned int number)
{
    char when[20];
    time_t then = time(NULL) - days * 86400;
    struct tm tm;
    (void)strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", gmtime_r(&then, &tm));
    return harness_format("%s-%08x", when, number);
}

static void retention(void **state)
{
    (void)state;
    state_begin();
    config.incidents_keep = 4;
    harness_mkdir(path_of("", ""));
    const char *old_open = id_of_day(100, 1), *old = id_of_day(95, 2);
    make_incident(old_open,
                  harness_format("{\"id\":\"%s\",\"version\":1,\"open\":[\"5\"],\"entries\":[]}", old_open),
                  0600);
    make_incident(old, "{}", 0400);
    harness_mkdir(path_of("foreign", ""));
    const char *ids[6];
    for (int i = 0; i < 6; i++) {
        ids[i] = id_of_day(20 - i, (unsigned int)i);
        make_incident(ids[i], "{}", 0400);
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
}

static void newest_stays_whatever_its_age(void **state)
{
    (void)state;
    state_begin();
    harness_mkdir(path_of("", ""));
    const char *before = id_of_day(300, 1), *older = id_of_day(301, 1);
    make_incident(older, "{}", 0400);
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
    incident_keep(&config, id1, "x", 0);
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
    assert_int_equal(events, 0);
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
    incident_keep(&config, id1, "evidence", 0);
    assert_int_equal(rmdir(elsewhere), 0); /* still empty */
    assert_int_equal(events, 2);
    assert_int_equal(listed(NULL, 0), 0);

    const char *target = harness_format("%s/target", harness_disk());
    harness_write(target, harness_format("{\"id\":\"%s\",\"version\":1,\"open\":[\"71\"]}", id2));
    harness_mkdir(path_of(id2, ""));
    assert_int_equal(symlink(target, document_path(id2)), 0);
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
        make_incident(id, text, 0600);
        free(text);
    }
    const char *huge = id_of_day(1, 100), *fifo = id_of_day(1, 101), *nested = id_of_day(1, 102);
    make_incident(huge, harness_format("{\"id\":\"%s\"}", huge), 0600);
    assert_int_equal(truncate(document_path(huge), (4 << 20) + 1), 0);
    harness_mkdir(path_of(fifo, ""));
    assert_int_equal(mkfifo(document_path(fifo), 0600), 0);
    char *deep = malloc(200001);
    memset(deep, '[', 200000);
    deep[200000] = 0;
    make_incident(nested, deep, 0600);
    free(deep);
    harness_write(path_of("file", ""), "x");
    harness_write(path_of(id_of_day(1, 103), ""), "a file with the name of an incident");
    assert_int_equal(listed(NULL, 0), 2); /* the two whose id is right: whatever else is in them */
    assert_int_equal(listed(huge, 0), -1);
    size_t detected;
    char error[100];
    incidents_summary(&config, 0, &detected, error, sizeof(error));
    assert_int_equal(detected, 0);
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
    make_incident(id1, text, 0600);
    assert_true(replay_of(id2, one_box(71, OUTCOME_FAILED)));
    assert_string_equal(harness_read(document_path(id1)), text);
    expect_number(id2, "count", 1);
}

/* ---- notes, evidence, summary, listing ---- */

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
    size_t detected;
    char error[400];
    incidents_summary(&config, 0, &detected, error, sizeof(error));
    assert_int_equal(detected, 1);
    assert_string_equal(error, "");
}

static void summary_for_the_health(void **state)
{
    (void)state;
    state_begin();
    size_t detected;
    char error[400];
    harness_mkdir(path_of("", ""));
    const char *old = id_of_day(3, 1), *newer = id_of_day(2, 1);
    (void)replay_of(old, one_box(71, OUTCOME_FAILED));
    (void)replay_of(newer, one_box(72, OUTCOME_UNDONE));
    (void)replay_of(id1, one_box(73, OUTCOME_UNDONE));
    incidents_summary(&config, 0, &detected, error, sizeof(error));
    assert_int_equal(detected, 3);
    assert_string_equal(error, "mount_unmount_failed: umount /srv/7: Device or resource busy");
    incidents_summary(&config, now_realtime_ns() - 86400LL * 1000000000, &detected, error, sizeof(error));
    assert_int_equal(detected, 1);
    assert_string_equal(error, "mount_unmount_failed: umount /srv/7: Device or resource busy");
    char small[10];
    incidents_summary(&config, 0, &detected, small, sizeof(small));
    assert_string_equal(small, "mount_unm");
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
    incident_keep(&config, id1, "b.lock", fd);
    struct stat st;
    assert_int_equal(lstat(path_of(id1, "b.lock"), &st), 0);
    assert_int_equal(st.st_size, 65536);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 50000);
    harness_write(path_of(id1, "a.lock"), "kept before");
    incident_keep(&config, id1, "a.lock", fd);
    assert_string_equal(harness_read(path_of(id1, "a.lock")), "kept before");
    assert_int_equal(events, 0);

    const char *const wrong[] = {"", ".", "..", "../x", "a/b", "incident.json", "incident.json.1"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        incident_keep(&config, id1, wrong[i], fd);
    incident_keep(&config, "../../etc", "x", fd);
    assert_int_equal(events, ARRAY_LEN(wrong) + 1);
    expect_text(id1, "outcome", "unfinished");
    incident_keep(&config, id1, "c0", -1); /* a bad descriptor: nothing stays */
    assert_false(path_exists(path_of(id1, "c0")));
    int empty = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < 300; i++)
        incident_keep(&config, id1, harness_format("c%03d", i), empty);
    assert_true(path_exists(path_of(id1, "c252")));
    assert_false(path_exists(path_of(id1, "c253"))); /* 256 files with the document and two others */
    incidents_end(in, result, &more);
    rbxj_result_free(result);
    (void)close(fd);
    (void)close(empty);
    expect_number(id1, "evidence", 255);
    cJSON *document = read_document(id1);
    assert_string_equal(
        cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItem(document, "evidence"), 0)), "a.lock");
    cJSON_Delete(document);
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
        0400);
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
        harness_test(i10_written_before_the_first_undo),
        harness_test(same_trouble_counts_up),
        harness_test(partial_is_told),
        harness_test(killed_reaper_leaves_a_trace),
        harness_test(power_loss_after_the_end_is_none),
        harness_test(entries_are_bounded_errors_first),
        harness_test(document_fits),
        harness_test(names_are_bytes_and_stay_so),
        harness_test(ten_thousand_boxes),
        harness_test(retention),
        harness_test(newest_stays_whatever_its_age),
        harness_test(clock_set_back),
        harness_test(temporary_files_go),
        harness_test(k33_never_the_first_file),
        harness_test(k19_full_disk_is_told_once),
        harness_test(k19_read_only),
        harness_test(symlinks_are_not_followed),
        harness_test(foreign_directory_is_not_used),
        harness_test(garbage_is_left_out),
        harness_test(later_version_is_not_changed),
        harness_test(notes_close_what_they_end),
        harness_test(summary_for_the_health),
        harness_test(evidence_is_kept),
        harness_test(listing),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
