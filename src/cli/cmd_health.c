/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj health: status, recovery, verification, and the quarantine by hand. Its exit statuses are those of the
 * monitoring plugins, not of the other commands.
 */
#include "cli/cli.h"

#include "base/cleanup.h"
#include "cli/json.h"
#include "reaper/escalation.h"
#include "reaper/evidence.h"
#include "reaper/handle.h"

#include <string.h>

enum {
    HEALTH_HEALTHY = 0,
    HEALTH_UNHEALTHY = 1,
    HEALTH_QUARANTINED = 2,
    HEALTH_UNKNOWN = 3,
    HEALTH_NOT_DONE = 1
};

enum { OPT_CHECK = 256, OPT_RECOVER, OPT_VERIFY, OPT_QUARANTINE, OPT_UNQUARANTINE, OPT_REASON };

const struct cli_option health_options[] = {
    {"check", OPT_CHECK, NULL, "look only (what it does without an option, too)"},
    {"recover", OPT_RECOVER, NULL, "replay, verify, and release a quarantine that this may release"},
    {"verify-clean", OPT_VERIFY, NULL, "count what is there and should not be, and what is not and should"},
    {"quarantine", OPT_QUARANTINE, NULL, "take no new boxes; those that run go on"},
    {"unquarantine", OPT_UNQUARANTINE, NULL, "take new boxes again, and count failures from none"},
    {"reason", OPT_REASON, "TEXT", "why; with --quarantine and --unquarantine"},
    {0},
};

static int status_of_health(const struct rbxj_health *health)
{
    return strcmp(health->status, "healthy") == 0     ? HEALTH_HEALTHY
           : strcmp(health->status, "unhealthy") == 0 ? HEALTH_UNHEALTHY
                                                      : HEALTH_QUARANTINED;
}

/* ---- printing ---- */

static const char *text_or_null(const char *text)
{
    return text && text[0] ? text : NULL;
}

static void print_health_json(const struct rbxj_health *h, const struct evidence *ev)
{
    struct doc doc;
    doc_init(&doc);
    (void)doc_text(&doc, doc.root, "status", h->status);
    doc_bool(&doc, doc.root, "can_accept_submissions", h->can_accept_submissions);
    (void)doc_text(&doc, doc.root, "quarantine_reason", h->quarantine_reason);
    (void)doc_text(&doc, doc.root, "quarantine_detail", text_or_null(h->quarantine_detail));
    doc_time(&doc, doc.root, "quarantine_timestamp", h->quarantine_ns);
    doc_number(&doc, doc.root, "failed_cleanup_count", h->failed_cleanup_count);
    (void)doc_text(&doc, doc.root, "last_cleanup_error", text_or_null(h->last_cleanup_error));
    doc_number(&doc, doc.root, "stale_boxes", h->stale_boxes);
    doc_number(&doc, doc.root, "live_boxes", h->live_boxes);
    doc_number(&doc, doc.root, "held_boxes", h->held_boxes);
    doc_number(&doc, doc.root, "unknown_boxes", h->unknown_boxes);
    doc_number(&doc, doc.root, "orphan_processes", h->orphan_processes);
    doc_number(&doc, doc.root, "zombie_processes", h->zombie_processes);
    doc_number(&doc, doc.root, "blocked_processes", h->blocked_processes);
    doc_number(&doc, doc.root, "foreign_resources", h->foreign_resources);
    doc_number(&doc, doc.root, "exhausted_resources", h->exhausted_resources);
    doc_number(&doc, doc.root, "not_looked_at", h->not_looked_at);
    doc_bool(&doc, doc.root, "escalate", h->escalate);
    cJSON *reasons = doc_array(&doc, doc.root, "escalate_reasons");
    for (size_t i = 0; i < ESCALATIONS; i++)
        if (h->escalate & escalations[i].bit)
            (void)doc_text(&doc, reasons, NULL, escalations[i].name);
    evidence_tell(ev, &doc);
    print_document(&doc);
}

/* What others have named: in a line that is searched for status="healthy" it must not say so itself. */
struct quoted {
    char text[2048];
};
static const char *quote(struct quoted *q, const char *text)
{
    size_t n = 0;
    for (; *text && n + 5 < sizeof(q->text); text++)
        n += (size_t)snprintf(q->text + n, sizeof(q->text) - n, *text == '"' ? "\\x22" : "%c", *text);
    q->text[n] = 0;
    return q->text;
}

static void print_health(const struct cli *cli, const struct rbxj_health *h, const struct evidence *ev)
{
    const struct print_style *style = &cli->style;
    struct quoted q;
    char since[32];
    if (style->json) {
        print_health_json(h, ev);
        return;
    }
    if (style->quiet)
        return;
    print_line("status=\"%s\" can_accept_submissions=%s", h->status,
               h->can_accept_submissions ? "true" : "false");
    print_line("stale_boxes=%u live_boxes=%u held_boxes=%u unknown_boxes=%u failed_cleanup_count=%u",
               h->stale_boxes, h->live_boxes, h->held_boxes, h->unknown_boxes, h->failed_cleanup_count);
    doc_format_time(since, h->quarantine_ns);
    if (h->quarantine_reason)
        print_line("quarantine_reason=\"%s\" quarantine_timestamp=\"%s\" quarantine_detail=\"%s\"",
                   h->quarantine_reason, h->quarantine_ns ? since : "", quote(&q, h->quarantine_detail));
    for (size_t i = 0; i < ev->len; i++)
        print_line("%s: %s", evidence_name(ev->items[i].kind), quote(&q, ev->items[i].text));
    if (h->last_cleanup_error[0])
        print_line("last_cleanup_error=\"%s\"", quote(&q, h->last_cleanup_error));
    if (h->escalate) {
        char reasons[ESCALATION_TEXT_MAX];
        escalation_format(h->escalate, reasons, sizeof(reasons));
        print_line(
            "escalate=true escalate_reasons=\"%s\": a person should look at it; 'rbxj incidents' has the "
            "details",
            reasons);
    }
}

/* The message alone: the document is of the health's own form. */
static void complain(const struct cli *cli, int rc, const struct rbxj_error *error)
{
    struct print_style plain = cli->style;
    plain.json = false;
    print_failure(&plain, "health", rc, error);
}

/* The health can't be known. */
static int unknown(struct cli *cli, int rc, const struct rbxj_error *error)
{
    complain(cli, rc, error);
    if (cli->style.json) {
        struct rbxj_error e = *error;
        struct doc doc;
        e.code = -rc;
        doc_init(&doc);
        (void)doc_text(&doc, doc.root, "status", "unknown");
        doc_bool(&doc, doc.root, "can_accept_submissions", false);
        doc_error(&doc, doc.root, "error", &e);
        print_document(&doc);
    }
    return HEALTH_UNKNOWN;
}

/* ---- what can be asked for ---- */

static int check(struct cli *cli)
{
    _cleanup_(config_clear) struct config config = {0};
    _cleanup_(evidence_clear) struct evidence ev = {0};
    struct rbxj_health health;
    struct rbxj_error error = {0};
    int rc = config_load(&cli->options, &config, &error);
    if (rc == 0)
        rc = health_look(&config, NULL, &health, NULL, &ev, &error);
    if (rc < 0)
        return unknown(cli, rc, &error);
    print_health(cli, &health, &ev);
    return status_of_health(&health);
}

static int recover(struct cli *cli)
{
    _cleanup_(config_clear) struct config config = {0};
    _cleanup_(evidence_clear) struct evidence ev = {0};
    struct rbxj_health health = {0};
    struct rbxj_result *result = NULL;
    struct rbxj_error error = {0};
    struct print_progress progress = {.quiet = cli->style.quiet};
    struct rbxj_replay how = {.progress = print_progress, .progress_data = &progress};
    int rc = config_load(&cli->options, &config, &error);
    if (rc == 0)
        rc = health_recover(&config, &how, "recover", QUARANTINE_BY_RECOVERY, &result, &health, &ev, &error);
    print_progress_end(&progress);
    if (result)
        print_problems_of(result);
    rbxj_result_free(result);
    /* another reaper is at it, or nothing may be undone: what there is can be told all the same */
    bool told = rc == -RBXJ_E_BUSY || rc == -RBXJ_E_JOURNAL_DAMAGED;
    if (!health.status || (rc < 0 && !told))
        return unknown(cli, rc, &error);
    if (rc < 0)
        complain(cli, rc, &error);
    print_health(cli, &health, &ev);
    int status = status_of_health(&health);
    return rc == -RBXJ_E_JOURNAL_DAMAGED && status == HEALTH_HEALTHY ? HEALTH_UNHEALTHY : status;
}

static int verify(struct cli *cli)
{
    struct rbxj_clean clean;
    struct rbxj_error error = {0};
    int rc = rbxj_verify_clean(&cli->options, &clean, &error);
    if (rc < 0) {
        (void)unknown(cli, rc, &error);
        return rc == -RBXJ_E_JOURNAL_DAMAGED ? HEALTH_QUARANTINED : HEALTH_UNKNOWN;
    }
    if (cli->style.json) {
        struct doc doc;
        doc_init(&doc);
        doc_bool(&doc, doc.root, "clean", clean.clean);
        doc_number(&doc, doc.root, "locks", clean.locks);
        doc_number(&doc, doc.root, "mounts", clean.mounts);
        doc_number(&doc, doc.root, "cgroups", clean.cgroups);
        doc_number(&doc, doc.root, "processes", clean.processes);
        doc_number(&doc, doc.root, "temp_dirs", clean.temp_dirs);
        doc_number(&doc, doc.root, "unjournaled", clean.unjournaled);
        doc_number(&doc, doc.root, "missing", clean.missing);
        doc_number(&doc, doc.root, "not_looked_at", clean.not_looked_at);
        print_document(&doc);
    } else if (!cli->style.quiet) {
        print_line(
            "clean=%s locks=%u mounts=%u cgroups=%u processes=%u temp_dirs=%u unjournaled=%u missing=%u "
            "not_looked_at=%u",
            clean.clean ? "true" : "false", clean.locks, clean.mounts, clean.cgroups, clean.processes,
            clean.temp_dirs, clean.unjournaled, clean.missing, clean.not_looked_at);
    }
    return clean.clean ? 0 : 1;
}

static int quarantine(struct cli *cli, bool enter, const char *reason)
{
    struct rbxj_error error = {0};
    int rc = enter ? rbxj_quarantine(&cli->options, reason, &error)
                   : rbxj_unquarantine(&cli->options, reason, &error);
    if (rc < 0) {
        print_failure(&cli->style, "health", rc, &error);
        return HEALTH_NOT_DONE;
    }
    (void)check(cli);
    return 0;
}

/* A usage error is "unknown" to whoever monitors. */
static int usage(struct cli *cli, int status)
{
    cli->status = (enum status)status;
    return status == STATUS_USAGE ? HEALTH_UNKNOWN : status;
}

int cmd_health(struct cli *cli, int argc, char **argv)
{
    const char *value, *reason = NULL;
    int id, action = 0;
    while ((id = cli_next(cli, argc, argv, &value)) > 0) {
        if (id == OPT_REASON)
            reason = value;
        else if (action && action != id)
            return usage(cli, cli_usage(cli, "--check, --recover, --verify-clean, --quarantine and "
                                             "--unquarantine exclude each other"));
        else
            action = id;
    }
    if (id == CLI_LEAVE || cli_no_operands(cli, argc, argv) == CLI_LEAVE)
        return usage(cli, cli->status);
    bool by_hand = action == OPT_QUARANTINE || action == OPT_UNQUARANTINE;
    if (by_hand && !reason)
        return usage(cli, cli_usage(cli, "--reason TEXT is missing: say why"));
    if (reason && !by_hand)
        return usage(cli, cli_usage(cli, "--reason goes with --quarantine and --unquarantine only"));
    return action == OPT_RECOVER  ? recover(cli)
           : action == OPT_VERIFY ? verify(cli)
           : by_hand              ? quarantine(cli, action == OPT_QUARANTINE, reason)
                                  : check(cli);
}
