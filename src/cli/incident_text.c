/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/incident_text.h"

#include "base/cleanup.h"
#include "base/doc.h"
#include "cli/incident_fields.h"
#include "cli/table.h"

#include <stdio.h>
#include <string.h>

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
        struct incident_cell boxes = incident_boxes(d, 30), executions = incident_number(d, "executions"),
                             count = incident_number(d, "count"), left = incident_number(d, "left"),
                             took = incident_recovery(d);
        const char *cells[COLUMNS] = {
            [ID] = incident_field(d, "id"),
            [DETECTED] = incident_field(d, "detected"),
            [CAUSE] = incident_field(d, "cause"),
            [BOXES] = boxes.text,
            [EXECUTIONS] = executions.text,
            [OUTCOME] = incident_field(d, "outcome"),
            [COUNT] = count.text,
            [LEFT] = left.text,
            [RECOVERY] = took.text,
            [PROCEDURE] = incident_field(d, "procedure"),
            [UPDATED] = incident_field(d, "updated"),
        };
        table_row(table, columns, COLUMNS, cells);
    }
    table_finish(table);
}

/* ---- for reading ---- */

static void print_entry(const cJSON *entry)
{
    const cJSON *error = incident_list(entry, "error");
    const char *message = doc_get_text(error, "message"), *detail = doc_get_text(error, "detail"),
               *note = doc_get_text(entry, "note"), *content = doc_get_text(entry, "content");
    _cleanup_free_ char *name = incident_name(entry);
    print_line("  %-12s %s %s (box %s, seq %.0f; found %s%s%s)%s%s%s%s%s%s",
               doc_get_text(entry, "outcome") ? incident_field(entry, "outcome") : "unfinished",
               incident_field(entry, "kind"), name, incident_field(entry, "box"),
               doc_get_number(entry, "seq", 0), incident_field(entry, "found"), content ? ", content " : "",
               content ? content : "", message ? ": " : "", message ? message : "",
               detail && *detail ? "; " : "", detail && *detail ? detail : "", note ? "; " : "",
               note ? note : "");
    for (const cJSON *item = doc_get_first(entry, "held_by"); item; item = item->next) {
        struct incident_cell keeper = incident_keeper(item);
        print_line("    held by %s", keeper.text);
    }
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
    struct incident_cell boxes = incident_boxes(d, 300), took = incident_recovery(d);
    print_line("Incident:   %s", incident_field(d, "id"));
    print_line("Detected:   %s", incident_field(d, "detected"));
    print_line("Updated:    %s", incident_field(d, "updated"));
    print_line("Cause:      %s", incident_field(d, "cause"));
    print_line("Boxes:      %s", boxes.text);
    print_line("Executions: %.0f", doc_get_number(d, "executions", 0));
    print_line("Procedure:  %s", incident_field(d, "procedure"));
    print_line("Outcome:    %s%s", incident_field(d, "outcome"), incident_is_open(d) ? " (open)" : "");
    print_line("Count:      %.0f", doc_get_number(d, "count", 0));
    print_line("Left:       %.0f", doc_get_number(d, "left", 0));
    print_line("Recovery:   %s", took.text);
    struct incident_cell kernel = incident_kernel(d), taint = incident_taint(d);
    if (taint.text[0])
        print_line("Kernel:     %s, taint: %s", incident_field(incident_list(d, "kernel"), "release"),
                   taint.text);
    if (kernel.text[0])
        print_line("            %s", kernel.text);
    const char *error = doc_get_text(incident_list(d, "kernel"), "error");
    if (error)
        print_line("            %s", error);
    for (const cJSON *line = doc_get_first(incident_list(d, "kernel"), "lines"); line; line = line->next)
        print_line("            %s", cJSON_GetStringValue(line) ? cJSON_GetStringValue(line) : "-");
    const cJSON *entries = incident_list(d, "entries");
    if (cJSON_GetArraySize(entries))
        print_line("Entries:");
    for (const cJSON *entry = entries ? entries->child : NULL; entry; entry = entry->next)
        print_entry(entry);
    if (doc_get_number(d, "entries_omitted", 0) > 0)
        print_line("  and %.0f more", doc_get_number(d, "entries_omitted", 0));
    print_items("Notes", incident_list(d, "notes"));
    print_items("Evidence", incident_list(d, "evidence"));
}
