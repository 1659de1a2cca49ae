/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The hook: one line in, one line out. A request is answered when it is as durable as promised, never before.
 */
#ifndef RBXJ_CLI_HOOK_H
#define RBXJ_CLI_HOOK_H

#include "base/procid.h"
#include "rbxj.h"

#include <stddef.h>

#define HOOK_LINE_MAX (1024 * 1024) /* without its newline */

struct hook {
    struct rbxj *handle;
    struct procid parent; /* as it was at start (K8); pid 0: none that could be the supervisor */
};

/* Notes who the parent is, first of all: it is a supervisor only if it is in our session or process group,
 * else it may be a subreaper who has inherited us. */
void hook_note_parent(struct hook *hook);

/* The reply to a line, neither with a newline, in fresh memory. Memory running out ends the program with
 * status 6. */
char *hook_answer(struct hook *hook, const char *line, size_t len);
/* The reply to a line longer than HOOK_LINE_MAX. */
char *hook_answer_too_long(void);

#endif
