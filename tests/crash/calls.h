/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is known of system calls: their names, and the errnos with which a healthy program must reckon.
 */
#ifndef RBXJ_TESTS_CRASH_CALLS_H
#define RBXJ_TESTS_CRASH_CALLS_H

#include "step.h"

#include <stddef.h>

#define CALL_ERRNOS_MAX 12

/* The errnos that this call, with these arguments, may return although nothing is wrong with it: no lies
 * about what is there (ENOENT), no faults of the caller (EBADF). As decide() of step.h returns them. Returns
 * how many. */
size_t call_errnos(const struct step_call *call, int ret[CALL_ERRNOS_MAX]);

/* Is it a call of the dynamic loader's, while the thread stands still? */
bool call_is_of_loader(const struct step_call *call);

/* "openat(/srv/x)", while the thread stands still. */
void call_describe(const struct step_call *call, char *buf, size_t size);

#endif
