/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The metrics as text: every counter under its own name, states of boxes, and what is left out where it can't
 * be read. Their form as a whole: metrics.sh. (I10)
 */
#include "journal_fixture.h"

#include "reaper/quarantine.h"

#include <dlfcn.h>

/* ---- without memory for the last byte of a text: as glibc's fclose() of such a stream behaves ---- */

static bool no_memory;
static FILE *stream;
static char **stream_text;

FILE *open_memstream(char **ret_text, size_t *ret_len)
{
    static FILE *(*real)(char **, size_t *);
    *(void **)&real = dlsym(RTLD_NEXT, "open_memstream");
    stream_text = ret_text;
    return stream = real(ret_text, ret_len);
}

int fclose(FILE *file)
{
    static int (*real)(FILE *);
    *(void **)&real = dlsym(RTLD_NEXT, "fclose");
    bool fails = no_memory && file == stream;
    int r = real(file);
    if (fails) {
        free(*stream_text);
        *stream_text = NULL;
    }
    return r;
}

/* Held against what is wanted, line by line. */
struct text {
    char *text;
    int r;
    struct rbxj_error e;
};

static struct text look(const struct place *p)
{
    struct text t = {0};
    struct rbxj_options options = {
        .state_dir = p->state,
        .runtime_dir = p->runtime,
        .config = harness_format("%s/rbxj.conf", harness_disk()),
    };
    if (!path_exists(options.config))
        harness_write(options.config, "");
    t.r = rbxj_metrics(&options, &t.text, &t.e);
    assert_non_null(t.text);
    char *kept = harness_format("%s", t.text); /* freed at the end of the test */
    free(t.text);
    t.text = kept;
    return t;
}

static bool has_line(const struct text *t, const char *line)
{
    const char *with_ends = harness_format("\n%s\n", line);
    return strstr(t->text, with_ends) != NULL;
}

#define assert_line(t, ...)                                                                                  \
    do {                                                                                                     \
        const char *_line = harness_format(__VA_ARGS__);                                                     \
        if (!has_line(t, _line))                                                                             \
            fail_msg("no line \"%s\" in:\n%s", _line, (t)->text);                                            \
    } while (0)
#define assert_no_text(t, part)                                                                              \
    do {                                                                                                     \
        if (strstr((t)->text, part))                                                                         \
            fail_msg("\"%s\" in:\n%s", part, (t)->text);                                                     \
    } while (0)

static void assert_health(const struct text *t, const char *want)
{
    static const char *const states[] = {"healthy", "unhealthy", "quarantined", "unknown"};
    for (size_t i = 0; i < ARRAY_LEN(states); i++)
        assert_line(t, "rustbox_worker_health{status=\"%s\"} %d", states[i], strcmp(states[i], want) == 0);
}

static void nothing_journaled_is_healthy_zeros_and_makes_nothing(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct text t = look(&p);
    assert_ok(t.r, t.e);
    assert_health(&t, "healthy");
    assert_line(&t, "rbxj_boxes{state=\"stale\"} 0");
    assert_line(&t, "rustbox_cleanup_total{outcome=\"success\"} 0");
    assert_line(&t, "rustbox_recovery_seconds_bucket{le=\"+Inf\"} 0");
    assert_line(&t, "rbxj_journal_records{journal=\"boot\"} 0");
    assert_line(&t, "rbxj_journal_bytes{journal=\"disk\"} 0");
    assert_line(&t, "rbxj_last_replay_timestamp_seconds 0");
    assert_false(path_exists(p.runtime));
    assert_int_equal(rmdir(p.state), 0); /* nothing was made in it */
    t = look(&p);
    assert_ok(t.r, t.e);
    assert_health(&t, "unhealthy"); /* without it no begin is let through */
}

/* Other numbers everywhere: none gets under the name of another. */
static void each_counter_has_its_own_name(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct counters c = {
        .cleanups = {11, 12, 13},
        .quarantined = {21, 22, 23, 24, 25, 26},
        .containment_violations = 31,
        .orphans = 32,
        .last_replay_ns = 1795580867163930700,
    };
    for (size_t i = 0; i < COUNTERS_BUCKETS; i++)
        c.cleanup_duration.buckets[i] = c.recovery.buckets[COUNTERS_BUCKETS - 1 - i] = i + 1;
    c.cleanup_duration.sum_ns = 5000000001;
    c.recovery.sum_ns = 30000000000;
    struct journal *j = place_open(&p);
    assert_ok(journal_count(j, &c, &e), e);
    struct text t = look(&p); /* in the process that has it open, too */
    place_close();
    assert_string_equal(look(&p).text, t.text);
    assert_ok(t.r, t.e);
    static const char *const outcomes[] = {"success", "partial", "failure"};
    static const char *const reasons[] = {
        "cleanup_failure",     "orphan_process_detected", "baseline_equivalence_failed",
        "resource_exhaustion", "journal_corruption",      "manual_quarantine"};
    for (size_t i = 0; i < ARRAY_LEN(outcomes); i++)
        assert_line(&t, "rustbox_cleanup_total{outcome=\"%s\"} %zu", outcomes[i], 11 + i);
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        assert_line(&t, "rustbox_worker_quarantined_total{reason=\"%s\"} %zu", reasons[i], 21 + i);
    assert_line(&t, "rustbox_containment_violations_total 31");
    assert_line(&t, "rustbox_orphan_processes_detected_total 32");
    assert_line(&t, "rbxj_last_replay_timestamp_seconds 1795580867.1639307");
    static const char *const bounds[] = {"0.001", "0.005", "0.01", "0.05", "0.1", "0.5",
                                         "1",     "5",     "10",   "60",   "300", "+Inf"};
    for (size_t i = 0, up = 0, down = 0; i < COUNTERS_BUCKETS; i++) {
        up += i + 1;
        down += COUNTERS_BUCKETS - i;
        assert_line(&t, "rustbox_cleanup_duration_seconds_bucket{le=\"%s\"} %zu", bounds[i], up);
        assert_line(&t, "rustbox_recovery_seconds_bucket{le=\"%s\"} %zu", bounds[i], down);
    }
    assert_line(&t, "rustbox_cleanup_duration_seconds_sum 5.000000001");
    assert_line(&t, "rustbox_cleanup_duration_seconds_count 78");
    assert_line(&t, "rustbox_recovery_seconds_sum 30");
    assert_line(&t, "rustbox_recovery_seconds_count 78");
}

static void boxes_and_records_are_counted(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    for (const char *const *name = (const char *const[]){"dead", "gone", NULL}; *name; name++) {
        pid_t pid = CHILD({
            struct rbxj_error error;
            struct journal *journal = place_open(&p);
            CHECK(begin_one(journal, *name, harness_format("%s/%s", p.kept, *name), &error) == 0);
        });
        assert_child(pid);
    }
    struct journal *j = place_open(&p);
    (void)must_begin(j, "mine", harness_format("%s/mine", p.lost));
    struct text t = look(&p);
    assert_ok(t.r, t.e);
    assert_health(&t, "unhealthy");
    assert_line(&t, "rbxj_boxes{state=\"live\"} 1");
    assert_line(&t, "rbxj_boxes{state=\"stale\"} 2");
    assert_line(&t, "rbxj_boxes{state=\"held\"} 0");
    assert_line(&t, "rbxj_boxes{state=\"unknown\"} 0");
    assert_line(&t, "rbxj_journal_records{journal=\"boot\"} 6");
    assert_line(&t, "rbxj_journal_records{journal=\"disk\"} 4");
}

/* ---- what can't be read ---- */

static void damaged_records_are_told_and_the_counters_are_there(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct counters c = {.orphans = 7};
    struct journal *j = place_open(&p);
    struct box box = must_begin(j, "a", harness_format("%s/a", p.lost));
    assert_ok(journal_count(j, &c, &e), e);
    struct record_key k = record_key(box.incarnation, 1);
    MDB_val key = {sizeof(k), &k}, garbage = {7, "garbage"};
    MDB_txn *txn;
    assert_int_equal(mdb_txn_begin(j->boot.env, NULL, 0, &txn), MDB_SUCCESS);
    assert_int_equal(mdb_put(txn, j->boot.records, &key, &garbage, 0), MDB_SUCCESS);
    assert_int_equal(mdb_txn_commit(txn), MDB_SUCCESS);
    struct text t = look(&p);
    assert_int_equal(t.r, -RBXJ_E_JOURNAL_DAMAGED);
    assert_health(&t, "quarantined");
    assert_line(&t, "rustbox_orphan_processes_detected_total 7");
    assert_line(&t, "rbxj_journal_records{journal=\"boot\"} 2");
    assert_no_text(&t, "rbxj_boxes");
}

/* Nothing that would look like a counter that began anew. */
static void a_damaged_journal_leaves_out_what_it_does_not_tell(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    (void)place_open(&p);
    place_close();
    assert_int_equal(truncate(harness_format("%s/data.mdb", place_folder(&p)), 5000), 0);
    struct text t = look(&p);
    assert_int_equal(t.r, -RBXJ_E_JOURNAL_DAMAGED);
    assert_true(t.e.message[0]);
    assert_health(&t, "quarantined");
    assert_no_text(&t, "_total");
    assert_no_text(&t, "rbxj_boxes");
    assert_no_text(&t, "{journal=\"boot\"}");
    assert_line(&t, "rbxj_journal_records{journal=\"disk\"} 0");
}

static void a_missing_disk_leaves_out_what_it_does_not_tell(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    (void)place_open(&p);
    place_close();
    assert_int_equal(mount("none", p.state, "tmpfs", 0, "mode=0700"), 0);
    struct text t = look(&p);
    assert_int_equal(t.r, -RBXJ_E_JOURNAL_DAMAGED);
    assert_health(&t, "unhealthy");
    assert_no_text(&t, "_total");
    assert_no_text(&t, "rbxj_boxes");
}

static void a_quarantine_that_outlasts_the_damage_hides_nothing(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct counters c = {.orphans = 7};
    assert_ok(journal_count(place_open(&p), &c, &e), e);
    place_close();
    struct config config = {.state_dir = (char *)p.state, .runtime_dir = (char *)p.runtime};
    assert_true(quarantine_enter(&config, QUARANTINE_CORRUPTION, "as it was", &e) > 0);
    struct text t = look(&p);
    assert_ok(t.r, t.e);
    assert_health(&t, "quarantined");
    assert_line(&t, "rustbox_orphan_processes_detected_total 7");
    assert_line(&t, "rbxj_boxes{state=\"live\"} 0");
}

static void a_bad_configuration_leaves_the_health_unknown(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    harness_write(harness_format("%s/rbxj.conf", harness_disk()), "[journal]\nno_such_key = 1\n");
    struct text t = look(&p);
    assert_int_equal(t.r, -RBXJ_E_BAD_REQUEST);
    assert_health(&t, "unknown");
    assert_no_text(&t, "_total");
    assert_no_text(&t, "rbxj_");
}

static void no_memory_for_the_text_is_an_error(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_options options = {
        .state_dir = p.state, .runtime_dir = p.runtime, .config = harness_format("%s/conf", harness_disk())};
    struct rbxj_error e = {0};
    char untouched, *text = &untouched;
    for (int i = 0; i < 2; i++) { /* the second time that is not all */
        harness_write(options.config, i ? "nonsense" : "");
        no_memory = true;
        int r = rbxj_metrics(&options, &text, &e);
        no_memory = false;
        assert_true(r < 0);
        assert_int_equal(e.errnum, ENOMEM);
        assert_true(e.message[0]);
        assert_ptr_equal(text, &untouched);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(nothing_journaled_is_healthy_zeros_and_makes_nothing),
        journal_test(each_counter_has_its_own_name),
        journal_test(boxes_and_records_are_counted),
        journal_test(damaged_records_are_told_and_the_counters_are_there),
        journal_test(a_damaged_journal_leaves_out_what_it_does_not_tell),
        journal_test(a_missing_disk_leaves_out_what_it_does_not_tell),
        journal_test(a_quarantine_that_outlasts_the_damage_hides_nothing),
        journal_test(a_bad_configuration_leaves_the_health_unknown),
        journal_test(no_memory_for_the_text_is_an_error),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
