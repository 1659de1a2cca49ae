/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/incident_text.h"

#include "base/cleanup.h"
#include "base/doc.h"
#include "cli/incident_fields.h"

#include <stdio.h>
#include <string.h>

/* A code span that nothing gets out of, in fresh memory. */
static char *code(const char *text)
{
    char *span = incident_must(malloc(4 * strlen(text) + 3)), *out = span;
    *out++ = '`';
    for (; *text; text++)
        if (*text == '`')
            out += sprintf(out, "\\x60");
        else
            *out++ = *text;
    (void)strcpy(out, "`");
    return span;
}

static const char *meaning_of(const char *cause)
{
    static const char *const meanings[][2] = {
        {"system_crash", "the machine went down while boxes were running"},
        {"supervisor_crash", "the supervisor died while the machine went on"},
        {"cleanup_failure", "an earlier cleanup failed"},
        {"lock_corruption", "a lock file could not be read"},
        {"journal_corruption", "a journal was damaged, and nothing was undone from it"},
    };
    for (size_t i = 0; i < ARRAY_LEN(meanings); i++)
        if (strcmp(cause, meanings[i][0]) == 0)
            return meanings[i][1];
    return "see the notes";
}

static void markdown_facts(const cJSON *d)
{
    struct incident_cell boxes = incident_boxes(d, 300), took = incident_recovery(d);
    _cleanup_free_ char *cause = code(incident_field(d, "cause")),
                        *procedure = code(incident_field(d, "procedure")), *names = code(boxes.text),
                        *outcome = code(incident_field(d, "outcome"));
    print_line("- **Timestamp of detection:** %s", incident_field(d, "detected"));
    print_line("- **Root cause:** %s, %s", cause, meaning_of(incident_field(d, "cause")));
    print_line("- **Recovery procedure used:** %s", procedure);
    print_line("- **Time to recovery:** %s", incident_is_open(d) ? "not recovered yet" : took.text);
    print_line("- **Impact:** %.0f affected executions%s%s", doc_get_number(d, "executions", 0),
               boxes.text[0] ? ", boxes " : "", boxes.text[0] ? names : "");
    struct incident_cell escalation = incident_escalation(d);
    print_line("- **Escalate to engineering:** %s", escalation.text);
    print_line("- **Outcome:** %s, %.0f left; seen %.0f times, last at %s", outcome,
               doc_get_number(d, "left", 0), doc_get_number(d, "count", 0), incident_field(d, "updated"));
}

static void markdown_entry(const cJSON *entry)
{
    const cJSON *error = incident_list(entry, "error");
    const char *message = doc_get_text(error, "message"), *detail = doc_get_text(error, "detail");
    const char *why = detail && *detail ? detail : doc_get_text(entry, "note");
    _cleanup_free_ char *bytes = incident_name(entry), *name = code(bytes),
                        *said = code(message ? message : ""), *more = code(why ? why : ""),
                        *box = code(incident_field(entry, "box")),
                        *kind = code(incident_field(entry, "kind")),
                        *outcome = code(doc_get_text(entry, "outcome") ? incident_field(entry, "outcome")
                                                                       : "unfinished");
    print_line("- %s %s of box %s: %s%s%s%s%s", kind, name, box, outcome, message ? ", " : "",
               message ? said : "", why ? ", " : "", why ? more : "");
    for (const cJSON *item = doc_get_first(entry, "held_by"); item; item = item->next) {
        struct incident_cell keeper = incident_keeper(item);
        _cleanup_free_ char *span = code(keeper.text);
        print_line("  - held by %s", span);
    }
}

static void markdown_entries(const cJSON *d, const char *title, bool left)
{
    const cJSON *entries = incident_list(d, "entries");
    size_t n = 0;
    print_line("%s", "");
    print_line("## %s", title);
    print_line("%s", "");
    for (const cJSON *entry = entries ? entries->child : NULL; entry; entry = entry->next) {
        if (incident_is_left(entry) != left)
            continue;
        markdown_entry(entry);
        n++;
    }
    if (!n)
        print_line("Nothing%s.", doc_get_number(d, "entries_omitted", 0) > 0 ? " of what is listed" : "");
}

static void markdown_items(const char *title, const char *prefix, const char *id, const cJSON *items)
{
    if (!cJSON_GetArraySize(items))
        return;
    print_line("%s", "");
    print_line("## %s", title);
    print_line("%s", "");
    for (const cJSON *item = items ? items->child : NULL; item; item = item->next) {
        _cleanup_free_ char *text = NULL, *span = NULL;
        if (!cJSON_GetStringValue(item))
            continue;
        if (asprintf(&text, "%s%s%s%s", prefix, id, *id ? "/" : "", cJSON_GetStringValue(item)) < 0)
            text = incident_must(NULL);
        span = code(text);
        print_line("- %s", span);
    }
}

static void markdown_line(const char *title, const char *text)
{
    _cleanup_free_ char *span = code(text);
    print_line("- %s%s", title, span);
}

static void markdown_kernel(const cJSON *d)
{
    const cJSON *kernel = incident_list(d, "kernel");
    struct incident_cell said = incident_kernel(d), taint = incident_taint(d);
    const char *error = doc_get_text(kernel, "error");
    if (!said.text[0])
        return;
    print_line("%s", "");
    print_line("## Kernel");
    print_line("%s", "");
    markdown_line("**Release:** ", incident_field(kernel, "release"));
    print_line("- **Log of that time:** %s", said.text);
    if (error)
        markdown_line("", error);
    markdown_line("**Taint:** ", taint.text[0] ? taint.text : "could not be read");
    for (const cJSON *line = doc_get_first(kernel, "lines"); line; line = line->next)
        markdown_line("", cJSON_GetStringValue(line) ? cJSON_GetStringValue(line) : "-");
}

/* "2026-11-24 03:00:00 UTC", as journalctl(1) reads it; the times of a document are checked by that, too. */
static struct incident_cell log_time(const cJSON *d, const char *key, int64_t shift_s)
{
    struct incident_cell t = {"1 hour ago"};
    int64_t ns;
    char iso[32];
    if (doc_parse_time(incident_field(d, key), &ns) < 0)
        return t;
    doc_format_time(iso, ns + shift_s * 1000000000);
    (void)snprintf(t.text, sizeof(t.text), "%.10s %.8s UTC", iso, strlen(iso) == 20 ? iso + 11 : "");
    return t;
}

static void markdown_logs(const cJSON *d)
{
    struct incident_cell from = log_time(d, "detected", -3600), to = log_time(d, "updated", 60);
    print_line("%s", "");
    print_line("## Logs");
    print_line("%s", "");
    print_line("    journalctl RBXJ_INCIDENT=%s", incident_field(d, "id"));
    print_line("    journalctl -u rustbox --since \"%s\" --until \"%s\" > incident-logs.txt", from.text,
               to.text);
}

void incident_print_markdown(const cJSON *d)
{
    print_line("# Incident %s", incident_field(d, "id"));
    print_line("%s", "");
    markdown_facts(d);
    markdown_entries(d, "What was undone", false);
    markdown_entries(d, "What is left, and why", true);
    if (doc_get_number(d, "entries_omitted", 0) > 0) {
        print_line("%s", "");
        print_line("%.0f more entries are not listed.", doc_get_number(d, "entries_omitted", 0));
    }
    markdown_kernel(d);
    markdown_items("Notes", "", "", incident_list(d, "notes"));
    markdown_items("Evidence, in the state directory", "incidents/", incident_field(d, "id"),
                   incident_list(d, "evidence"));
    markdown_logs(d);
}
