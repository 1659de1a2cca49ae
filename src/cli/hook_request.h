/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A request of the hook: one line of JSON, every field of it known, wanted, there once and of the right type.
 * What the words mean (is it a path, is there such a box) the library judges.
 */
#ifndef RBXJ_CLI_HOOK_REQUEST_H
#define RBXJ_CLI_HOOK_REQUEST_H

#include "rbxj.h"

#include <cjson/cJSON.h>
#include <stddef.h>

enum hook_op { HOOK_BEGIN, HOOK_INTEND, HOOK_ACQUIRED, HOOK_RELEASED, HOOK_UNDO, HOOK_END };

struct hook_request {
    enum hook_op op;
    const char *box;
    const char *parent;              /* begin: the box in which it lives; or NULL */
    pid_t pid;                       /* begin: the supervisor; 0: not given */
    uint32_t seq;                    /* acquired, released */
    struct rbxj_resource *resources; /* begin: the plan; intend: one */
    size_t resources_len;
    cJSON *json; /* the strings are in it */
};

/* 0, -EBADMSG (it is no JSON object), or -RBXJ_E_BAD_REQUEST; ret is to be cleared in any case. */
int hook_request_read(const char *line, size_t len, struct hook_request *ret, struct rbxj_error *e);
void hook_request_clear(struct hook_request *request);

#endif
