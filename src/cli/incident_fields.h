/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the texts of an incident document have in common. It may come from any file: what is missing is "-",
 * or nothing.
 */
#ifndef RBXJ_CLI_INCIDENT_FIELDS_H
#define RBXJ_CLI_INCIDENT_FIELDS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

struct incident_cell {
    char text[400];
};

const char *incident_field(const cJSON *document, const char *key);
struct incident_cell incident_number(const cJSON *document, const char *key);
const cJSON *incident_list(const cJSON *document, const char *key);
struct incident_cell incident_recovery(const cJSON *document);
bool incident_is_open(const cJSON *document);
/* "7, 8, 9, ...": what fits. */
struct incident_cell incident_boxes(const cJSON *document, size_t width);

/* What the kernel said: "3 messages: 1 oom_kills", and its taint: "machine_check, oops". Each empty where the
 * document does not know it. */
struct incident_cell incident_kernel(const cJSON *document);
struct incident_cell incident_taint(const cJSON *document);

/* Whether engineering should see it, and why, as far as this incident tells: "yes: corruption". */
struct incident_cell incident_escalation(const cJSON *document);
/* Of a process that held an entry: "pid 7 (sleep, state D), started 2026-11-24T03:00:00Z, cgroup /x". */
struct incident_cell incident_keeper(const cJSON *keeper);

/* What strdup(), malloc() or asprintf() has come to; without memory the program ends. */
char *incident_must(char *text);
/* Of an entry; in fresh memory. */
char *incident_name(const cJSON *entry);
bool incident_is_left(const cJSON *entry);

#endif
