/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/incident_fields.h"

#include "base/doc.h"
#include "cli/print.h"

#include <stdio.h>
#include <string.h>

const char *incident_field(const cJSON *document, const char *key)
{
    const char *text = doc_get_text(document, key);
    return text ? text : "-";
}

struct incident_cell incident_number(const cJSON *document, const char *key)
{
    struct incident_cell t;
    (void)snprintf(t.text, sizeof(t.text), "%.0f", doc_get_number(document, key, 0));
    return t;
}

const cJSON *incident_list(const cJSON *document, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(document, key);
}

struct incident_cell incident_recovery(const cJSON *document)
{
    struct incident_cell t = {"-"};
    double seconds = doc_get_number(document, "recovery_s", -1);
    if (seconds >= 0)
        (void)snprintf(t.text, sizeof(t.text), "%.3fs", seconds);
    return t;
}

bool incident_is_open(const cJSON *document)
{
    return cJSON_GetArraySize(incident_list(document, "open")) > 0;
}

/* "7, 8, 9, ...": what fits. */
struct incident_cell incident_boxes(const cJSON *document, size_t width)
{
    struct incident_cell t = {""};
    const cJSON *boxes = incident_list(document, "boxes");
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
char *incident_must(char *text)
{
    if (!text)
        print_no_memory("the incident");
    return text;
}

char *incident_name(const cJSON *entry)
{
    return incident_must(doc_get_text(entry, "name") ? doc_get_name(entry, "name") : strdup("-"));
}

bool incident_is_left(const cJSON *entry)
{
    const char *outcome = doc_get_text(entry, "outcome");
    return !outcome || (strcmp(outcome, "undone") != 0 && strcmp(outcome, "already_gone") != 0);
}
