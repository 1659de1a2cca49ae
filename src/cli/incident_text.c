/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/incident_text.h"

#include "base/cleanup.h"
#include "base/doc.h"
#include "cli/table.h"

#include <stdio.h>
#include <string.h>

/* ---- fields ---- */

struct text {
    char text[400];
};

static const char *field(const cJSON *document, const char *key)
{
    const char *text = doc_get_text(document, key);
    return text ? text : "-";
}

static struct text number(const cJSON *document, const char *key)
{
    struct text t;
    (void)snprintf(t.text, sizeof(t.text), "%.0f", doc_get_number(document, key, 0));
    return t;
}

static const cJSON *list(const cJSON *document, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(document, key);
}

static struct text recovery(const cJSON *document)
{
    struct text t = {"-"};
    double seconds = doc_get_number(document, "recovery_s", -1);
    if (seconds >= 0)
        (void)snprintf(t.text, sizeof(t.text), "%.3fs", seconds);
    return t;
}

static bool is_open(const cJSON *document)
{
    return cJSON_GetArraySize(list(document, "open")) > 0;
}

/* "7, 8, 9, ...": what fits. */
static struct text joined_boxes(const cJSON *document, size_t width)
{
    struct text t = {""};
    const cJSON *boxes = list(document, "boxes");
    size_t used = 0;
    for (const cJSON *item = boxes ? boxes->child : NULL; item; item = item->next) {
        const char *name = cJSON_GetStringValue(item) ? cJSON_GetStringValue(item) : "-";
        if (used + strlen(name) + 7 > width) {
            (void)strcpy(t.text + used, used ? ", ..." : "...");
            break;
        }
        used += (size_t)sprintf(t.text + used, "%s%s", used ? ", " : "", name);
    }
    return t;
}

/* What strdup(), malloc() or asprintf() has come to. */
static char *must(char *text)
{
    if (!text)
        print_no_memory("the incident");
    return text;
}

static char *name_of(const cJSON *entry)
{
    return must(doc_get_text(entry, "name") ? doc_get_name(entry, "name") : strdup("-"));
}

static bool is_left(const cJSON *entry)
{
    const char *outcome = doc_get_text(entry, "outcome");
    return !outcome || (strcmp(outcome, "undone") != 0 && strcmp(outcome, "already_gone") != 0);
}

/* ---- the table ---- */

enum { ID, DETECTED, CAUSE, BOXES, EXECUTIONS, OUTCOME, COUNT, LEFT, RECOVERY, PROCEDURE, UPDATED, COLUMNS };
static const struct column columns[COLUMNS] = {
    [ID] = {.heading = "ID"},
    [DETECTED] = {.heading = "DETECTED"},
    [CAUSE] = {.heading = "CAUSE"},
    [BOXES] = {.heading = "BOXES"},
    [EXECUTIONS] = {.heading = "EXECUTIONS", .flags = SCOLS_FL_RIGHT},
    [OUTCOME] = {.heading = "OUTCOME", .coloured = true},
    [COUNT] = {.heading = "COUNT", .flags = SCOLS_FL_RIGHT},
    [LEFT] = {.heading = "LEFT", .flags = SCOLS_FL_RIGHT},
    [RECOVERY] = {.heading = "RECOVERY", .flags = SCOLS_FL_RIGHT},
    [PROCEDURE] = {.heading = "PROCEDURE", .verbose = true},
    [UPDATED] = {.heading = "UPDATED", .verbose = true},
};

void incident_print_table(const struct print_style *style, cJSON *const *documents, size_t n)
{
    struct libscols_table *table = table_new(style, columns, COLUMNS);
    for (size_t i = 0; i < n; i++) {
        const cJSON *d = documents[i];
        struct text boxes = joined_boxes(d, 30), executions = number(d, "executions"),
                    count = number(d, "count"), left = number(d, "left"), took = recovery(d);
        const char *cells[COLUMNS] = {
            [ID] = field(d, "id"),
            [DETECTED] = field(d, "detected"),
            [CAUSE] = field(d, "cause"),
            [BOXES] = boxes.text,
            [EXECUTIONS] = executions.text,
            [OUTCOME] = field(d, "outcome"),
            [COUNT] = count.text,
            [LEFT] = left.text,
            [RECOVERY] = took.text,
            [PROCEDURE] = field(d, "procedure"),
            [UPDATED] = field(d, "updated"),
        };
        table_row(table, columns, COLUMNS, cells);
    }
    table_finish(table);
}

/* ---- for reading ---- */

static void print_entry(const cJSON *entry)
{
    const cJSON *error = list(entry, "error");
    const char *message = doc_get_text(error, "message"), *detail = doc_get_text(error, "detail"),
               *note = doc_get_text(entry, "note"), *content = doc_get_text(entry, "content");
    _cleanup_free_ char *name = name_of(entry);
    print_line("  %-12s %s %s (box %s, seq %.0f; found %s%s%s)%s%s%s%s%s%s",
               doc_get_text(entry, "outcome") ? field(entry, "outcome") : "unfinished", field(entry, "kind"),
               name, field(entry, "box"), doc_get_number(entry, "seq", 0), field(entry, "found"),
               content ? ", content " : "", content ? content : "", message ? ": " : "",
               message ? message : "", detail && *detail ? "; " : "", detail && *detail ? detail : "",
               note ? "; " : "", note ? note : "");
}

static void print_items(const char *title, const cJSON *items)
{
    if (cJSON_GetArraySize(items))
        print_line("%s:", title);
    for (const cJSON *item = items ? items->child : NULL; item; item = item->next)
        print_line("  %s", cJSON_GetStringValue(item) ? cJSON_GetStringValue(item) : "-");
}

void incident_print_text(const cJSON *d)
{
    struct text boxes = joined_boxes(d, 300), took = recovery(d);
    print_line("Incident:   %s", field(d, "id"));
    print_line("Detected:   %s", field(d, "detected"));
    print_line("Updated:    %s", field(d, "updated"));
    print_line("Cause:      %s", field(d, "cause"));
    print_line("Boxes:      %s", boxes.text);
    print_line("Executions: %.0f", doc_get_number(d, "executions", 0));
    print_line("Procedure:  %s", field(d, "procedure"));
    print_line("Outcome:    %s%s", field(d, "outcome"), is_open(d) ? " (open)" : "");
    print_line("Count:      %.0f", doc_get_number(d, "count", 0));
    print_line("Left:       %.0f", doc_get_number(d, "left", 0));
    print_line("Recovery:   %s", took.text);
    const cJSON *entries = list(d, "entries");
    if (cJSON_GetArraySize(entries))
        print_line("Entries:");
    for (const cJSON *entry = entries ? entries->child : NULL; entry; entry = entry->next)
        print_entry(entry);
    if (doc_get_number(d, "entries_omitted", 0) > 0)
        print_line("  and %.0f more", doc_get_number(d, "entries_omitted", 0));
    print_items("Notes", list(d, "notes"));
    print_items("Evidence", list(d, "evidence"));
}

/* ---- Markdown ---- */

/* A code span that nothing gets out of, in fresh memory. */
static char *code(const char *text)
{
    char *span = must(malloc(4 * strlen(text) + 3)), *out = span;
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
    };
    for (size_t i = 0; i < ARRAY_LEN(meanings); i++)
        if (strcmp(cause, meanings[i][0]) == 0)
            return meanings[i][1];
    return "see the notes";
}

static void markdown_facts(const cJSON *d)
{
    struct text boxes = joined_boxes(d, 300), took = recovery(d);
    _cleanup_free_ char *cause = code(field(d, "cause")), *procedure = code(field(d, "procedure")),
                        *names = code(boxes.text), *outcome = code(field(d, "outcome"));
    print_line("- **Timestamp of detection:** %s", field(d, "detected"));
    print_line("- **Root cause:** %s, %s", cause, meaning_of(field(d, "cause")));
    print_line("- **Recovery procedure used:** %s", procedure);
    print_line("- **Time to recovery:** %s", is_open(d) ? "not recovered yet" : took.text);
    print_line("- **Impact:** %.0f affected executions%s%s", doc_get_number(d, "executions", 0),
               boxes.text[0] ? ", boxes " : "", boxes.text[0] ? names : "");
    print_line("- **Outcome:** %s, %.0f left; seen %.0f times, last at %s", outcome,
               doc_get_number(d, "left", 0), doc_get_number(d, "count", 0), field(d, "updated"));
}

static void markdown_entry(const cJSON *entry)
{
    const cJSON *error = list(entry, "error");
    const char *message = doc_get_text(error, "message"), *detail = doc_get_text(error, "detail");
    const char *why = detail && *detail ? detail : doc_get_text(entry, "note");
    _cleanup_free_ char *bytes = name_of(entry), *name = code(bytes), *said = code(message ? message : ""),
                        *more = code(why ? why : ""), *box = code(field(entry, "box")),
                        *kind = code(field(entry, "kind")),
                        *outcome = code(doc_get_text(entry, "outcome") ? field(entry, "outcome")
                                                                       : "unfinished");
    print_line("- %s %s of box %s: %s%s%s%s%s", kind, name, box, outcome, message ? ", " : "",
               message ? said : "", why ? ", " : "", why ? more : "");
}

static void markdown_entries(const cJSON *d, const char *title, bool left)
{
    const cJSON *entries = list(d, "entries");
    size_t n = 0;
    print_line("%s", "");
    print_line("## %s", title);
    print_line("%s", "");
    for (const cJSON *entry = entries ? entries->child : NULL; entry; entry = entry->next) {
        if (is_left(entry) != left)
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
            text = must(NULL);
        span = code(text);
        print_line("- %s", span);
    }
}

/* "2026-11-24 03:00:00 UTC", as journalctl(1) reads it; the times of a document are checked by that, too. */
static struct text log_time(const cJSON *d, const char *key, int64_t shift_s)
{
    struct text t = {"1 hour ago"};
    int64_t ns;
    char iso[32];
    if (doc_parse_time(field(d, key), &ns) < 0)
        return t;
    doc_format_time(iso, ns + shift_s * 1000000000);
    (void)snprintf(t.text, sizeof(t.text), "%.10s %.8s UTC", iso, strlen(iso) == 20 ? iso + 11 : "");
    return t;
}

static void markdown_logs(const cJSON *d)
{
    struct text from = log_time(d, "detected", -3600), to = log_time(d, "updated", 60);
    print_line("%s", "");
    print_line("## Logs");
    print_line("%s", "");
    print_line("    journalctl RBXJ_INCIDENT=%s", field(d, "id"));
    print_line("    journalctl -u rustbox --since \"%s\" --until \"%s\" > incident-logs.txt", from.text,
               to.text);
}

void incident_print_markdown(const cJSON *d)
{
    print_line("# Incident %s", field(d, "id"));
    print_line("%s", "");
    markdown_facts(d);
    markdown_entries(d, "What was undone", false);
    markdown_entries(d, "What is left, and why", true);
    if (doc_get_number(d, "entries_omitted", 0) > 0) {
        print_line("%s", "");
        print_line("%.0f more entries are not listed.", doc_get_number(d, "entries_omitted", 0));
    }
    markdown_items("Notes", "", "", list(d, "notes"));
    markdown_items("Evidence, in the state directory", "incidents/", field(d, "id"), list(d, "evidence"));
    markdown_logs(d);
}
