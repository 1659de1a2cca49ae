/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Events (I10): to journald, with fields, where there is one; else to the program's own event function, if it
 * gave one (struct rbxj_options). All their names are in event_ids.h.
 */
#ifndef RBXJ_REAPER_EVENTS_H
#define RBXJ_REAPER_EVENTS_H

#include "base/config.h"
#include "rbxj.h"

/* What an event is about; what is NULL or 0 is left out. */
struct event {
    const char *event;
    int priority; /* of syslog(3) */
    const char *box;
    uint64_t incarnation;
    const char *kind, *name, *cause, *incident;
    int errnum;
};

/* Strings may hold any byte: they are escaped here, and cut at about 700. Thread-safe as far as the program's
 * function is. */
void event_send(const struct config *config, const struct event *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What an entry that is left is called: "mount_unmount_failed", "cgroup_removal_failed",
 * "process_reap_failed", "cleanup_timeout", "orphan_detected", "cleanup_failure". A literal. */
const char *event_of_entry(const struct rbxj_result_box *box, const struct rbxj_result_entry *entry);

/* One event per box that was not undone whole, with the first reason, for at most 100 of them. */
void events_boxes(const struct config *config, const struct rbxj_result *result);
/* These, and one for the whole replay if it found any box. */
void events_replay(const struct config *config, const struct rbxj_result *result);

#endif
