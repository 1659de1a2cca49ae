/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The metrics in Prometheus' text format (version 0.0.4), without timestamps. What can't be read is left out:
 * a zero in its place would be taken for a counter that began anew.
 */
#include "base/cleanup.h"
#include "reaper/entry.h"
#include "reaper/escalation.h"
#include "reaper/evidence.h"
#include "reaper/handle.h"
#include "reaper/quarantine.h"

#include <string.h>

struct sources {
    bool has_counters, has_health, has_boxes, has_sizes;
    struct counters counters;
    struct rbxj_health health;
    struct journal_sizes sizes;
};

static void put_family(FILE *out, const char *name, const char *type, const char *help)
{
    (void)fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Labels are words of ours: nothing in them needs a quote. */
static void put_sample(FILE *out, const char *name, const char *label, const char *value, uint64_t number)
{
    (void)fprintf(out, "%s{%s=\"%s\"} %llu\n", name, label, value, (unsigned long long)number);
}

static void put_number(FILE *out, const char *name, const char *type, const char *help, uint64_t number)
{
    put_family(out, name, type, help);
    (void)fprintf(out, "%s %llu\n", name, (unsigned long long)number);
}

/* Nanoseconds as seconds, exactly, with a point in every locale. */
static void format_seconds(char buf[static 32], uint64_t ns)
{
    int n = snprintf(buf, 32, "%llu.%09llu", (unsigned long long)(ns / 1000000000),
                     (unsigned long long)(ns % 1000000000));
    while (buf[n - 1] == '0')
        buf[--n] = 0;
    if (buf[n - 1] == '.')
        buf[n - 1] = 0;
}

static void put_histogram(FILE *out, const char *name, const char *help, const struct histogram *histogram)
{
    static const uint64_t bounds[COUNTERS_BUCKETS - 1] = COUNTERS_BOUNDS;
    char seconds[32];
    char bucket[64];
    uint64_t sum = 0;
    put_family(out, name, "histogram", help);
    (void)snprintf(bucket, sizeof(bucket), "%s_bucket", name);
    for (size_t i = 0; i < COUNTERS_BUCKETS; i++) {
        sum += histogram->buckets[i];
        if (i < COUNTERS_BUCKETS - 1)
            format_seconds(seconds, bounds[i]);
        put_sample(out, bucket, "le", i < COUNTERS_BUCKETS - 1 ? seconds : "+Inf", sum);
    }
    format_seconds(seconds, histogram->sum_ns);
    (void)fprintf(out, "%s_sum %s\n%s_count %llu\n", name, seconds, name, (unsigned long long)sum);
}

static void put_health(FILE *out, const struct sources *s)
{
    static const char *const states[] = {"healthy", "unhealthy", "quarantined", "unknown"};
    static const char name[] = "rustbox_worker_health";
    const char *present = s->has_health ? s->health.status : "unknown";
    put_family(out, name, "gauge", "Status of this worker: 1 for the present one, 0 for the others.");
    for (size_t i = 0; i < ARRAY_LEN(states); i++)
        put_sample(out, name, "status", states[i], strcmp(states[i], present) == 0);
}

static void put_escalate(FILE *out, const struct rbxj_health *health)
{
    static const char reasons[] = "rbxj_escalate_reason";
    put_number(out, "rbxj_escalate", "gauge", "1: a person should look at this worker (rbxj health).",
               (uint64_t)(health->escalate != 0));
    put_family(out, reasons, "gauge", "Why: 1 for each reason that there is, 0 for the others.");
    for (size_t i = 0; i < ESCALATIONS; i++)
        put_sample(out, reasons, "reason", escalations[i].name, (health->escalate & escalations[i].bit) != 0);
}

static void put_boxes(FILE *out, const struct rbxj_health *health)
{
    static const char name[] = "rbxj_boxes";
    put_family(out, name, "gauge", "Boxes in the journal, by state.");
    put_sample(out, name, "state", "live", health->live_boxes);
    put_sample(out, name, "state", "stale", health->stale_boxes - health->held_boxes);
    put_sample(out, name, "state", "held", health->held_boxes);
    put_sample(out, name, "state", "unknown", health->unknown_boxes);
}

static void put_evidence(FILE *out, const struct rbxj_health *health)
{
    static const char name[] = "rbxj_processes";
    put_family(out, name, "gauge", "Processes that outlived their box, and those of boxes in these states.");
    put_sample(out, name, "state", "orphan", health->orphan_processes);
    put_sample(out, name, "state", "zombie", health->zombie_processes);
    put_sample(out, name, "state", "blocked", health->blocked_processes);
    put_number(out, "rbxj_foreign_resources", "gauge",
               "Things of somebody else where something of a dead box was.", health->foreign_resources);
    put_number(out, "rbxj_exhausted_resources", "gauge",
               "File systems and journals with less room than min_free.", health->exhausted_resources);
}

static void put_counters(FILE *out, const struct counters *c)
{
    static const char *const outcomes[COUNTED_OUTCOMES] = {"success", "partial", "failure"};
    static const char cleanups[] = "rustbox_cleanup_total",
                      quarantined[] = "rustbox_worker_quarantined_total";
    char seconds[32];
    put_family(out, cleanups, "counter", "Teardowns of a box, by a replay or by its supervisor.");
    for (size_t i = 0; i < COUNTED_OUTCOMES; i++)
        put_sample(out, cleanups, "outcome", outcomes[i], c->cleanups[i]);
    put_histogram(out, "rustbox_cleanup_duration_seconds", "How long the teardown of a box took.",
                  &c->cleanup_duration);
    put_histogram(out, "rustbox_recovery_seconds",
                  "From the detection of a crash until nothing of it was left.", &c->recovery);
    put_family(out, quarantined, "counter", "How often this worker was quarantined.");
    for (size_t i = 0; i < QUARANTINE_REASONS; i++)
        put_sample(out, quarantined, "reason", quarantine_name((enum quarantine_reason)i), c->quarantined[i]);
    put_number(out, "rustbox_containment_violations_total", "counter",
               "Boxes that were outlived by something that was not of their record.",
               c->containment_violations);
    put_number(out, "rustbox_orphan_processes_detected_total", "counter",
               "Processes outside of the record that outlived their box.", c->orphans);
    put_family(out, "rbxj_last_replay_timestamp_seconds", "gauge",
               "When the last replay ended, in seconds of the epoch; 0: never.");
    format_seconds(seconds, c->last_replay_ns);
    (void)fprintf(out, "rbxj_last_replay_timestamp_seconds %s\n", seconds);
}

static void put_size(FILE *out, const char *name, const char *help, const struct sources *s,
                     uint64_t (*of)(const struct journal_size *size))
{
    const struct {
        const char *journal;
        const struct journal_size *size;
    } journals[] = {{"boot", &s->sizes.boot}, {"disk", &s->sizes.disk}};
    bool any = s->has_sizes || s->sizes.boot.there || s->sizes.disk.there;
    if (any)
        put_family(out, name, "gauge", help);
    for (size_t i = 0; i < ARRAY_LEN(journals); i++)
        if (s->has_sizes || journals[i].size->there)
            put_sample(out, name, "journal", journals[i].journal, of(journals[i].size));
}

static uint64_t records_of(const struct journal_size *size)
{
    return size->records;
}

static uint64_t bytes_of(const struct journal_size *size)
{
    return size->bytes;
}

static uint64_t used_of(const struct journal_size *size)
{
    return size->used;
}

static int put_all(const struct sources *s, char **ret)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        return -ENOMEM;
    put_health(out, s);
    if (s->has_health)
        put_escalate(out, &s->health);
    if (s->has_boxes)
        put_boxes(out, &s->health);
    if (s->has_health)
        put_evidence(out, &s->health);
    if (s->has_counters)
        put_counters(out, &s->counters);
    put_size(out, "rbxj_journal_records", "Records in a journal, the headers of boxes included.", s,
             records_of);
    put_size(out, "rbxj_journal_bytes", "Bytes allocated for a journal's data file.", s, bytes_of);
    put_size(out, "rbxj_journal_used_bytes", "Bytes of it that its newest snapshot needs.", s, used_of);
    bool failed = ferror(out);
    /* without memory for the last byte fclose() succeeds, and there is no text (glibc) */
    if (fclose(out) != 0 || failed || !text) {
        free(text);
        return -ENOMEM;
    }
    *ret = text;
    return 0;
}

/* Is the journal damaged, and what of it can be read all the same? */
static int look_for_damage(const struct config *config, struct sources *s, struct rbxj_error *e)
{
    struct snapshot snapshot;
    int r = snapshot_read(config->state_dir, config->runtime_dir, &snapshot, e);
    s->has_counters = r == 0;
    if (r == 0)
        r = snapshot_check(&snapshot, e);
    s->has_boxes = r == 0;
    if (s->has_counters) {
        s->counters = snapshot.counters;
        snapshot_clear(&snapshot);
    }
    return r;
}

/* The first error is told; what has none is there. */
static int read_all(const struct rbxj_options *options, struct sources *s, struct rbxj_error *e)
{
    _cleanup_(config_clear) struct config config = {0};
    static const struct journal_sizes unknown;
    struct evidence ev = {0};
    struct rbxj_error sizes = {0};
    int first = config_load(options, &config, e);
    if (first < 0)
        return first;
    int r = journal_sizes(config.state_dir, config.runtime_dir, &s->sizes.boot, &s->sizes.disk, &sizes);
    s->has_sizes = r == 0;
    first = health_look(&config, r == 0 ? &s->sizes : &unknown, &s->health, &s->counters, &ev, e);
    evidence_clear(&ev);
    s->has_health = s->has_boxes = s->has_counters = first == 0;
    if (first == 0 && !s->health.can_accept_submissions)
        first = look_for_damage(&config, s, e);
    return first < 0 || r == 0 ? first : error_set(e, sizes.code, sizes.errnum, "%s", sizes.message);
}

int rbxj_metrics(const struct rbxj_options *options, char **ret_text, struct rbxj_error *error)
{
    _cleanup_(entry_leave) struct entry entry = entry_look();
    error_clear(error);
    struct sources s = {0};
    char *text;
    int r = read_all(options, &s, error);
    if (put_all(&s, &text) < 0) {
        error_clear(error); /* whatever it was: this is why there is nothing */
        return error_sys(error, ENOMEM, "metrics");
    }
    *ret_text = text;
    return r;
}
