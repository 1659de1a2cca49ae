/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Events for journald, where there is one (I10); the program that called prints its own report.
 */
#ifndef RBXJ_REAPER_EVENTS_H
#define RBXJ_REAPER_EVENTS_H

#include "rbxj.h"

/* One event per box that was not undone whole, with the first reason, and one for the whole replay if it
 * found any. */
void events_replay(const struct rbxj_result *result);
/* Something that is in no report, about a box or a command. */
void events_problem(const char *what, const char *message);
/* A record was dropped by hand. */
void events_forget(const char *box, uint64_t incarnation, uint32_t seq, const char *name, const char *reason);

#endif
