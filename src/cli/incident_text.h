/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Incident documents for people. A document may come from any file: whatever is missing or of another type in
 * it is shown as "-", and all of it passes through escape_bytes().
 */
#ifndef RBXJ_CLI_INCIDENT_TEXT_H
#define RBXJ_CLI_INCIDENT_TEXT_H

#include "cli/print.h"

#include <cjson/cJSON.h>

void incident_print_table(const struct print_style *style, cJSON *const *documents, size_t n);
void incident_print_text(const cJSON *document);
/* The post-incident document. */
void incident_print_markdown(const cJSON *document);

#endif
