/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For crash_alloc.c: what is called without a handle, and in what world. Each call writes what it got to
 * struct got, and nothing else while the allocator is armed; got_text() tells it afterwards, without what
 * differs from call to call.
 */
#ifndef RBXJ_TESTS_CRASH_ALLOC_REAP_H
#define RBXJ_TESTS_CRASH_ALLOC_REAP_H

#include "../replay_fixture.h"

#include "base/config.h"
#include "base/error.h"

struct got {
    int r;
    struct rbxj_error e;
    struct rbxj_result *result;
    struct rbxj_health health;
    struct rbxj_clean clean;
    struct rbxj_incidents *incidents;
    struct config config;
    char *text;
};

static void got_clear(struct got *got)
{
    rbxj_result_free(got->result);
    rbxj_incidents_free(got->incidents);
    config_clear(&got->config);
    free(got->text);
    *got = (struct got){0};
}

/* ---- the calls ---- */

static void call_list(struct got *got)
{
    got->r = rbxj_list(&world.options, NULL, &got->result, &got->e);
}

static void call_dry_run(struct got *got)
{
    got->r = rbxj_replay(&world.options, &(struct rbxj_replay){.dry_run = 1}, &got->result, &got->e);
}

static void call_health(struct got *got)
{
    got->r = rbxj_health(&world.options, &got->health, &got->e);
}

static void call_clean(struct got *got)
{
    got->r = rbxj_verify_clean(&world.options, &got->clean, &got->e);
}

static void call_metrics(struct got *got)
{
    got->r = rbxj_metrics(&world.options, &got->text, &got->e);
}

static void call_incidents(struct got *got)
{
    got->r = rbxj_incidents(&world.options, NULL, 0, &got->incidents, &got->e);
}

static void call_config(struct got *got)
{
    got->r = config_load(&world.options, &got->config, &got->e);
}

static void call_replay(struct got *got)
{
    got->r = rbxj_replay(&world.options, &(struct rbxj_replay){0}, &got->result, &got->e);
}

static void call_recover(struct got *got)
{
    got->r = rbxj_recover(&world.options, NULL, &got->result, &got->health, &got->e);
}

static const char *forget_box, *forget_reason;

static void call_forget(struct got *got)
{
    got->r = rbxj_forget(&world.options, forget_box, 1, forget_reason, &got->e);
}

static void call_quarantine(struct got *got)
{
    got->r = rbxj_quarantine(&world.options, "a reason to stop", &got->e);
}

static void call_unquarantine(struct got *got)
{
    got->r = rbxj_unquarantine(&world.options, "a reason to go on", &got->e);
}

/* ---- what was got, as text ---- */

static void put_result(FILE *out, const struct rbxj_result *result)
{
    struct rbxj_result_entry entry;
    struct rbxj_result_box box;
    for (size_t i = 0; rbxj_result_box(result, i, &box) == 0; i++) {
        fprintf(out, "%s %" PRIu64 " %s %s %s pid %d %d failures %u\n", box.box, box.incarnation, box.state,
                box.cause ? box.cause : "-", box.outcome ? box.outcome : "-", box.supervisor,
                box.supervisor_alive, box.failures);
        for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0; k++)
            fprintf(out, "  %u %s %s %s %s %s %d: %s\n", entry.seq, entry.kind, entry.name, entry.found,
                    entry.action ? entry.action : "-", entry.outcome ? entry.outcome : "-", entry.evidence,
                    entry.error ? entry.error->message : "");
    }
}

static void put_health(FILE *out, const struct rbxj_health *h)
{
    fprintf(out, "%s %s %s since %" PRId64 " accepts %d escalates %d failed %u boxes %u %u %u %u error %s\n",
            h->status, h->quarantine_reason ? h->quarantine_reason : "-", h->quarantine_detail,
            h->quarantine_ns, h->can_accept_submissions, h->escalate, h->failed_cleanup_count, h->stale_boxes,
            h->live_boxes, h->held_boxes, h->unknown_boxes, h->last_cleanup_error);
}

static void put_config(FILE *out, const struct config *c)
{
    fprintf(out, "%d %" PRIu64 " %" PRId64 " %d %d %d %s %s\n", (int)c->durability, c->map_size,
            c->gate_timeout_ns, c->lazy_umount, c->jobs, c->incidents_keep, c->state_dir, c->runtime_dir);
    for (char **path = c->protected_paths; path && *path; path++)
        fprintf(out, "protected %s\n", *path);
    for (char **path = c->allowed_paths; path && *path; path++)
        fprintf(out, "allowed %s\n", *path);
}

/* Lives until the end of the test. */
static char *got_text(const struct got *got)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    if (got->result)
        put_result(out, got->result);
    if (got->health.status)
        put_health(out, &got->health);
    for (size_t i = 0; got->incidents && i < rbxj_incidents_len(got->incidents); i++)
        fprintf(out, "%s\n", rbxj_incidents_json(got->incidents, i));
    if (got->config.state_dir)
        put_config(out, &got->config);
    fprintf(out, "%d: %u %u %u %u %u\n%s", got->clean.clean, got->clean.locks, got->clean.mounts,
            got->clean.cgroups, got->clean.processes, got->clean.temp_dirs, got->text ? got->text : "");
    (void)fclose(out);
    char *kept = harness_format("%s", text);
    free(text);
    return kept;
}

/* The box of this allocation: no incident of an earlier one tells of it. */
static char box_now[8];

/* ---- what there is ---- */

static void dead_after_evidence(void)
{
    (void)supervisor_start(box_now, ALL, AFTER_EVIDENCE);
}

static void dead_after_acquisition(void)
{
    /* an empty lock is nobody's */
    (void)supervisor_start(box_now, ALL & ~(1U << LOCK), AFTER_ACQUISITION);
}

static void dead_after_intent(void)
{
    (void)supervisor_start(box_now, ALL, AFTER_INTENT);
}

/* An incident of the past, and a dead box of now. */
static void a_past_and_a_dead(void)
{
    dead_after_evidence();
    rbxj_result_free(replay(0));
    dead_after_evidence();
}

static void not_quarantined(void)
{
    assert_int_equal(rbxj_unquarantine(&world.options, "the next one", NULL), 0);
}

static void quarantined(void)
{
    not_quarantined(); /* an earlier allocation's is left: no box would begin */
    a_past_and_a_dead();
    assert_int_equal(rbxj_quarantine(&world.options, "a reason to stop", NULL), 0);
}

/* Nobody says by the environment how durable it shall be: it is found out. */
static void no_environment(void)
{
    assert_int_equal(unsetenv("RBXJ_DURABILITY"), 0);
}

static void dead_to_forget(void)
{
    dead_after_evidence();
    forget_box = box_now;
    forget_reason = harness_format("a reason to forget %s", box_now);
}

/* Two boxes, undone by two threads. */
static void two_dead(void)
{
    harness_write(world.options.config, "[replay]\njobs = 2\n");
    dead_after_evidence();
    char *second = harness_format("c%s", box_now);
    (void)supervisor_start(second, 1U << LOCK | 1U << GROUP | 1U << TMPDIR, AFTER_EVIDENCE);
}

/* The boot journal is made anew, from the disk. */
static void dead_without_boot_journal(void)
{
    char path[PATH_MAX];
    dead_after_evidence();
    _cleanup_closedir_ DIR *run = opendir(world.run);
    for (const struct dirent *d; (d = readdir(run));) {
        if (strncmp(d->d_name, "journal-", 8) != 0)
            continue;
        for (const char *const *name = (const char *const[]){"data.mdb", "lock.mdb", "gate", "", NULL}; *name;
             name++) {
            (void)snprintf(path, sizeof(path), "%s/%s/%s", world.run, d->d_name, *name);
            assert_int_equal(**name ? unlink(path) : rmdir(path), 0);
        }
    }
}

#endif
