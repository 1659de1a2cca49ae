/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The JSON documents. Fresh memory each; memory running out ends the program with status 6.
 */
#ifndef RBXJ_CLI_JSON_H
#define RBXJ_CLI_JSON_H

#include "rbxj.h"

#include <stdint.h>

char *json_list(const struct rbxj_result *result, int64_t now_ns);
char *json_replay(const struct rbxj_result *result);
char *json_forgotten(const char *box, uint32_t seq);
char *json_failure(int code, const struct rbxj_error *error);

/* A quoted JSON string: \u00XX for each byte that is not printable UTF-8 (then *ret_raw, else it is
 * untouched). */
char *json_string(const char *bytes, int *ret_raw);

/* "2026-11-24T03:00:00Z" */
void json_time(char buf[32], int64_t realtime_ns);

#endif
