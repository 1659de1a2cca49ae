/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reading one line of JSON strictly. cJSON reads more than JSON and less than all of it: it ends strings at
 * \u0000 and at escapes that are none, takes control characters for text or white space and any bytes for
 * UTF-8, and numbers that are none. What it would let pass is found before.
 */
#ifndef RBXJ_CLI_HOOK_JSON_H
#define RBXJ_CLI_HOOK_JSON_H

#include "rbxj.h"

#include <cjson/cJSON.h>
#include <stddef.h>

/* The object in a line; *ret is to be deleted. 0, -EBADMSG (it is no JSON object), or -RBXJ_E_BAD_REQUEST
 * (it is one that no request can be: nested too deep, a NUL character in a string). Linear in len. */
int hook_json_read(const char *line, size_t len, cJSON **ret, struct rbxj_error *e);

#endif
