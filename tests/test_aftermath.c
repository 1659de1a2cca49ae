/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a teardown leaves behind: which incidents it may touch, where its evidence lies, in which thread it
 * tells of it, and what it counts (I9, I10, K19).
 */
#include "incident_fixture.h"
#include "journal_fixture.h"

#include "reaper/aftermath.h"
#include "reaper/quarantine.h"

#include <sys/file.h>
#include <sys/mount.h>

static struct place place_begin(void)
{
    struct place p = place_make();
    config = (struct config){.state_dir = (char *)p.state,
                             .runtime_dir = (char *)p.runtime,
                             .gate_timeout_ns = p.options.gate_timeout_ns,
                             .quarantine_after = 3,
                             .incidents_keep = 1000,
                             .incidents_keep_days = 90,
                             .event = count_event};
    events = 0;
    incident_new_id(id1);
    incident_new_id(id2);
    return p;
}

static struct rbxj_options options_of(const struct place *p)
{
    return (struct rbxj_options){.state_dir = p->state, .runtime_dir = p->runtime};
}

static size_t told, told_elsewhere;

static void note_quarantine(void *data, const char *event, const char *message)
{
    (void)data, (void)message;
    told += strcmp(event, "worker_quarantined") == 0;
}

static struct counters counted(struct journal *j)
{
    struct snapshot s;
    struct rbxj_error e = {0};
    assert_ok(journal_snapshot(j, &s, &e), e);
    struct counters counters = s.counters;
    snapshot_clear(&s);
    return counters;
}

/* What is told after a teardown of one box, "mine", that came to nothing but this error (0: none), with a
 * snapshot that was read long ago. */
static void tell(struct journal *j, struct snapshot *old, const char *procedure, int error)
{
    struct snapshot_box sb = {.box = {.name = "mine", .incarnation = 17}};
    struct reaper reaper = {.config = &config, .journal = j, .snapshot = old};
    struct teardown t = {.reaper = &reaper, .sb = &sb, .error = {.code = error}};
    struct aftermath after = {.reaper = &reaper, .procedure = procedure};
    struct rbxj_result *result = one_box(17, OUTCOME_UNDONE);
    incident_new_id(after.id);
    aftermath_begin(&after, &t, 1, result);
    aftermath_end(&after, &t, 1, result);
    rbxj_result_free(result);
}

static uint64_t recoveries_in(const struct counters *counters)
{
    uint64_t n = 0;
    for (size_t i = 0; i < COUNTERS_BUCKETS; i++)
        n += counters->recovery.buckets[i];
    return n;
}

/* A box that was begun, and died, and was replayed since the snapshot has an incident that is nobody's to
 * close. */
static void what_a_snapshot_lacks_is_not_over(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_begin();
    struct snapshot old;
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    assert_ok(journal_snapshot(j, &old, &e), e);
    struct box box = must_begin(j, "other", harness_format("%s/other", p.lost));
    (void)replay_of(id1, one_box(box.incarnation, OUTCOME_FAILED));
    tell(j, &old, "undo", 0);
    expect_number(id1, "open", 1);
    tell(j, &old, "replay", 0);
    expect_number(id1, "open", 1);

    assert_ok(journal_settle(j, box.incarnation, (uint32_t[]){1}, 1, SETTLE_END, &e), e);
    struct counters before = counted(j);
    tell(j, &old, "undo", 0); /* a reaper may be at it */
    expect_number(id1, "open", 1);
    tell(j, &old, "replay", 0);
    expect_number(id1, "open", 0);
    struct counters now = counted(j);
    assert_int_equal(recoveries_in(&now) - recoveries_in(&before), 3); /* two of "mine", and this one */
    snapshot_clear(&old);
}

static void i9_what_was_found_damaged_is_not_counted_in(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_begin();
    struct snapshot old = {0};
    struct journal *j = place_open(&p);
    tell(j, &old, "replay", RBXJ_E_JOURNAL_DAMAGED);
    assert_int_equal(counted(j).cleanups[COUNTED_SUCCESS], 0);
    tell(j, &old, "replay", RBXJ_E_BUSY);
    assert_int_equal(counted(j).cleanups[COUNTED_SUCCESS], 1);
}

/* Whatever keeps it from being written down would keep each of ten thousand boxes from it, and take its
 * time. */
static void quarantine_is_tried_once(void **state)
{
    (void)state;
    harness_need_root();
    assert_int_equal(mount("test", "/run", "tmpfs", 0, "size=1m"), 0); /* without a journald */
    struct place p = place_begin();
    struct snapshot old = {0};
    struct reaper reaper = {.config = &config, .journal = place_open(&p), .snapshot = &old};
    struct aftermath after = {.reaper = &reaper, .procedure = "replay"};
    struct snapshot_box sb[3] = {0};
    struct teardown t[3] = {0};
    struct rbxj_result *result = result_new();
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        sb[i].box.failures = 3;
        t[i] = (struct teardown){.reaper = &reaper, .sb = &sb[i], .failed = true};
        (void)result_add(result, "7", i + 1, "cleanup_failure", "failure");
    }
    config.gate_timeout_ns = 0;
    config.runtime_dir = harness_format("%s/none/run", harness_disk());
    _cleanup_close_ int fd = open(config.state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    aftermath_begin(&after, t, ARRAY_LEN(t), result);
    told = 0;
    config.event = note_quarantine;
    aftermath_end(&after, t, ARRAY_LEN(t), result);
    rbxj_result_free(result);
    assert_int_equal(umount2("/run", MNT_DETACH), 0);
    assert_int_equal(told, 1);
}

/* Is the worker quarantined after a replay at boot of which that is left? */
static int quarantined_at_boot(const struct rbxj_error *why)
{
    struct place p = place_begin();
    struct snapshot old = {0};
    struct snapshot_box sb = {.box = {.name = "7", .incarnation = 17}};
    struct reaper reaper = {.config = &config, .journal = place_open(&p), .snapshot = &old};
    struct teardown t = {.reaper = &reaper, .sb = &sb};
    struct aftermath after = {.reaper = &reaper, .procedure = "boot"};
    struct rbxj_result *result = one_box(17, OUTCOME_FAILED);
    result->boxes[0].entries[0].error = *why;
    aftermath_begin(&after, &t, 1, result);
    aftermath_end(&after, &t, 1, result);
    rbxj_result_free(result);
    place_close();
    int r = quarantine_is_set(&config);
    assert_int_equal(rename(p.state, harness_format("%s.%d", p.state, why->code)), 0);
    assert_int_equal(rename(p.runtime, harness_format("%s.%d", p.runtime, why->code)), 0);
    assert_int_equal(rmdir(p.kept), 0);
    assert_int_equal(rmdir(p.lost), 0);
    return r;
}

static void who_waited_for_another_process_has_not_hung(void **state)
{
    (void)state;
    harness_need_root();
    assert_int_equal(
        quarantined_at_boot(&(struct rbxj_error){.code = EBUSY, .errnum = ETIMEDOUT, .message = "no answer"}),
        1);
    assert_int_equal(quarantined_at_boot(&(struct rbxj_error){.code = RBXJ_E_JOURNAL_BUSY,
                                                              .errnum = ETIMEDOUT,
                                                              .message = "its writers' gate is held"}),
                     0);
}

/* ---- evidence ---- */

static int lock_here(struct rbxj *handle, const char *box, const char *path)
{
    struct rbxj_error e = {0};
    struct rbxj_resource lock = {.kind = RBXJ_LOCK, .path = path};
    uint32_t seq;
    int fd = -1;
    CHECK_OK(rbxj_take(handle, box, &lock, &seq, &fd, &e), e);
    return fd;
}

static void write_here(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    (void)close(fd);
}

/* The first undo leaves something, the second finds its lock corrupt. */
static void undo_twice_here(const struct place *p)
{
    struct rbxj *handle;
    struct rbxj_options options = options_of(p);
    struct rbxj_error e = {0};
    const char *lock = harness_format("%s/lock", p->kept), *dir = harness_format("%s/dir", p->kept);
    struct rbxj_resource tmpdir = {.kind = RBXJ_TMPDIR, .path = dir};
    CHECK_OK(rbxj_open(&options, &handle, &e), e);
    CHECK_OK(rbxj_begin(handle, &(struct rbxj_box){.name = "a"}, NULL, &e), e);
    (void)lock_here(handle, "a", lock);
    CHECK_OK(rbxj_take(handle, "a", &tmpdir, NULL, NULL, &e), e);
    const char *in = harness_format("%s/in", dir);
    CHECK(mkdir(in, 0700) == 0 && mount("none", in, "tmpfs", 0, NULL) == 0);
    CHECK(rbxj_undo(handle, "a", NULL, &e) == -RBXJ_E_LEFT);
    CHECK(umount(in) == 0);
    write_here(lock, "what nobody wrote");
    CHECK_OK(rbxj_undo(handle, "a", NULL, &e), e);
    CHECK_OK(rbxj_end(handle, "a", &e), e);
    rbxj_close(handle);
}

static void evidence_of_a_second_undo_lies_with_its_document(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_begin();
    pid_t pid = CHILD(undo_twice_here(&p));
    assert_child(pid);
    struct rbxj_options options = options_of(&p);
    struct rbxj_incidents *all;
    struct rbxj_error e = {0};
    assert_ok(rbxj_incidents(&options, NULL, 0, &all, &e), e);
    assert_int_equal(rbxj_incidents_len(all), 1);
    cJSON *document = cJSON_Parse(rbxj_incidents_json(all, 0));
    rbxj_incidents_free(all);
    const char *name = cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItem(document, "evidence"), 0));
    assert_non_null(name);
    assert_string_equal(harness_read(path_of(doc_get_text(document, "id"), name)), "what nobody wrote");
    assert_true(doc_get_number(document, "count", 0) == 2);
    cJSON_Delete(document);
    _cleanup_closedir_ DIR *names = opendir(path_of("", ""));
    assert_non_null(names);
    size_t n = 0;
    while (fd_next_name(names))
        n++;
    assert_int_equal(n, 1); /* and nothing else is there */
}

enum { BOXES = 24 };
static pid_t caller;

static void note_thread(void *data, const char *event, const char *message)
{
    (void)data, (void)event;
    told += strstr(message, "was not kept") != NULL;
    told_elsewhere += gettid() != caller;
}

/* What could not be kept was found by whatever thread undid the box. */
static void k19_events_come_from_the_calling_thread(void **state)
{
    (void)state;
    harness_need_root();
    assert_int_equal(mount("test", "/run", "tmpfs", 0, "size=1m"), 0); /* without a journald */
    struct place p = place_begin();
    struct rbxj_options options = options_of(&p);
    pid_t pid = CHILD({
        struct rbxj *handle;
        struct rbxj_error error = {0};
        CHECK_OK(rbxj_open(&options, &handle, &error), error);
        for (int i = 0; i < BOXES; i++) {
            const char *name = harness_format("b%d", i);
            CHECK_OK(rbxj_begin(handle, &(struct rbxj_box){.name = name}, NULL, &error), error);
            (void)lock_here(handle, name, harness_format("%s/%s", p.kept, name));
            write_here(harness_format("%s/%s", p.kept, name), "what nobody wrote");
        }
    });
    assert_child(pid);
    harness_mkdir(path_of("", ""));
    assert_int_equal(chmod(path_of("", ""), 0777), 0); /* nothing is kept in what others may write to */
    options.event = note_thread;
    options.config = harness_format("%s/conf", harness_disk());
    harness_write(options.config, "[replay]\njobs = 4\n");
    caller = gettid();
    told = told_elsewhere = 0;
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    assert_ok(rbxj_replay(&options, &(struct rbxj_replay){0}, &result, &e), e);
    rbxj_result_free(result);
    assert_int_equal(umount2("/run", MNT_DETACH), 0);
    assert_int_equal(told, BOXES);
    assert_int_equal(told_elsewhere, 0);
}

/* ---- failures in a row ---- */

static void owner_that_undoes_it_all_ends_the_row(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_begin();
    pid_t pid = CHILD({
        struct rbxj *handle;
        struct snapshot_box sb;
        struct rbxj_options options = options_of(&p);
        struct rbxj_error error = {0};
        CHECK_OK(rbxj_open(&options, &handle, &error), error);
        CHECK_OK(rbxj_begin(handle, &(struct rbxj_box){.name = "a"}, NULL, &error), error);
        (void)lock_here(handle, "a", harness_format("%s/lock", p.kept));
        struct journal *j = journal_of_process(p.state, p.runtime);
        CHECK_OK(journal_get(j, "a", &sb, &error), error);
        sb.box.failures = 2;
        CHECK_OK(journal_update_box(j, &sb.box, &error), error);
        CHECK_OK(rbxj_undo(handle, "a", NULL, &error), error);
        CHECK_OK(journal_get(j, "a", &sb, &error), error);
        CHECK(sb.box.failures == 0);
    });
    assert_child(pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(what_a_snapshot_lacks_is_not_over),
        journal_test(i9_what_was_found_damaged_is_not_counted_in),
        journal_test(quarantine_is_tried_once),
        journal_test(who_waited_for_another_process_has_not_hung),
        journal_test(evidence_of_a_second_undo_lies_with_its_document),
        journal_test(k19_events_come_from_the_calling_thread),
        journal_test(owner_that_undoes_it_all_ends_the_row),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
