/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/incident_fields.h"

#include "base/cleanup.h"
#include "base/doc.h"
#include "cli/print.h"
#include "reaper/kernel.h"

#include <stdarg.h>
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

struct incident_cell incident_kernel(const cJSON *document)
{
    static const char *const counts[][2] = {
        {"oom_kills", "processes killed, their cgroup being out of memory"},
        {"machine_oom_kills", "processes killed, the machine being out of memory"},
        {"hung_tasks", "hung tasks"},
        {"bugs", "kernel bugs or hardware errors"},
        {"io_errors", "I/O errors"},
    };
    struct incident_cell t = {""};
    const cJSON *kernel = incident_list(document, "kernel");
    if (!cJSON_IsNumber(incident_list(kernel, "messages")))
        return t;
    int used = snprintf(t.text, sizeof(t.text), "%.0f%s messages", doc_get_number(kernel, "messages", 0),
                        doc_get_true(kernel, "omitted") ? " or more" : "");
    bool first = true;
    for (size_t i = 0; i < ARRAY_LEN(counts) && used < (int)sizeof(t.text); i++) {
        double n = doc_get_number(kernel, counts[i][0], 0);
        if (n <= 0)
            continue;
        used += snprintf(t.text + used, sizeof(t.text) - (size_t)used, "%s%.0f %s", first ? ": " : ", ", n,
                         counts[i][1]);
        first = false;
    }
    return t;
}

struct incident_cell incident_taint(const cJSON *document)
{
    struct incident_cell t = {""};
    const cJSON *kernel = incident_list(document, "kernel");
    if (!cJSON_IsNumber(incident_list(kernel, "tainted")))
        return t;
    (void)strcpy(t.text, "none");
    int used = 0;
    for (const cJSON *item = doc_get_first(kernel, "taint"); item && used < (int)sizeof(t.text);
         item = item->next)
        used += snprintf(t.text + used, sizeof(t.text) - (size_t)used, "%s%s", used ? ", " : "",
                         cJSON_GetStringValue(item) ? cJSON_GetStringValue(item) : "-");
    return t;
}

/* Words of a list, "yes: " before the first of them. */
static void add_reason(struct incident_cell *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void add_reason(struct incident_cell *t, const char *format, ...)
{
    size_t used = strlen(t->text);
    va_list args;
    used += (size_t)snprintf(t->text + used, sizeof(t->text) - used, "%s", used ? ", " : "yes: ");
    va_start(args, format);
    (void)vsnprintf(t->text + used, sizeof(t->text) - used, format, args);
    va_end(args);
}

static bool taint_is_trouble(const cJSON *kernel)
{
    for (const cJSON *item = doc_get_first(kernel, "taint"); item; item = item->next)
        for (unsigned int bit = 0; bit < 64; bit++)
            if (cJSON_GetStringValue(item) && (KERNEL_TAINT_TROUBLE >> bit & 1) &&
                strcmp(cJSON_GetStringValue(item), kernel_taint_word(bit)) == 0)
                return true;
    return false;
}

struct incident_cell incident_escalation(const cJSON *document)
{
    enum { FAILURES = 3 }; /* of the runbook, whatever the configuration of this worker was then */
    struct incident_cell t = {""};
    const cJSON *kernel = incident_list(document, "kernel");
    double failed = doc_get_number(document, "count", 0) - (incident_is_open(document) ? 0 : 1);
    if (failed > FAILURES && failed < 1e9)
        add_reason(&t, "recovery has failed %.0f times", failed);
    if (strcmp(incident_field(document, "cause"), "lock_corruption") == 0 ||
        strcmp(incident_field(document, "cause"), "journal_corruption") == 0)
        add_reason(&t, "corruption");
    if (taint_is_trouble(kernel) || doc_get_number(kernel, "hung_tasks", 0) > 0 ||
        doc_get_number(kernel, "bugs", 0) > 0 || doc_get_number(kernel, "machine_oom_kills", 0) > 0)
        add_reason(&t, "kernel trouble");
    if (!t.text[0])
        (void)strcpy(t.text, "no, by this incident");
    return t;
}

struct incident_cell incident_keeper(const cJSON *keeper)
{
    struct incident_cell t;
    if (doc_get_text(keeper, "comm"))
        (void)snprintf(t.text, sizeof(t.text), "pid %.0f (%.64s, state %.1s), started %.32s, cgroup %.230s",
                       doc_get_number(keeper, "pid", 0), incident_field(keeper, "comm"),
                       incident_field(keeper, "state"), incident_field(keeper, "started"),
                       incident_field(keeper, "cgroup"));
    else
        (void)snprintf(t.text, sizeof(t.text), "pid %.0f, which was gone a moment later",
                       doc_get_number(keeper, "pid", 0));
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
