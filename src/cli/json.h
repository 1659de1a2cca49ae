/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The JSON documents. Fresh memory each; memory running out ends the program with status 6.
 */
#ifndef RBXJ_CLI_JSON_H
#define RBXJ_CLI_JSON_H

#include "base/doc.h"

char *json_list(const struct rbxj_result *result, int64_t now_ns);
char *json_replay(const struct rbxj_result *result);
char *json_forgotten(const char *box, uint32_t seq);
char *json_failure(int code, const struct rbxj_error *error);

/* The entries of box i, as "entries" of parent. */
void json_entries(struct doc *doc, cJSON *parent, const struct rbxj_result *result, size_t i);

/* doc_finish(), or the end of the program. */
char *json_finish(struct doc *doc);

#endif
