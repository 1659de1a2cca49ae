/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Should a person look at this worker, and why? rbxj goes on with what it does; it only says so, as the
 * runbook asks:
 *
 *   repeated_failure     a box failed more than escalate_failures replays in a row, or has been held for so
 *                        many
 *   frequent_incidents   more than escalate_per_day of them within 24 hours
 *   corruption           of a journal, as long as nobody has looked into it; of a lock, within 24 hours
 *   unusable_journal     it is another's, of another layout, its disk or the state directory is missing, or
 *                        there is no room for it
 *   kernel               its taint tells of an oops, a machine check, a bad page or a soft lockup; or an
 *                        incident of the last 24 hours has hung tasks, bugs, or kills for want of memory of
 *                        the machine, not of a cgroup
 *
 * Nothing is kept of it but a file in the runtime directory, "escalated", with the reasons that were told:
 * each is told by an event when it begins, and not again as long as it lasts.
 */
#ifndef RBXJ_REAPER_ESCALATION_H
#define RBXJ_REAPER_ESCALATION_H

#include "base/config.h"

enum { ESCALATIONS = 5 };
extern const struct escalation {
    int bit; /* enum rbxj_escalation */
    const char *name;
} escalations[ESCALATIONS];

struct incident_counts;

/* "corruption kernel". */
#define ESCALATION_TEXT_MAX 200
void escalation_format(int reasons, char *buf, size_t size);

/* The reasons, or'ed, that are in what else is known of the health. */
int escalation_of(const struct config *config, const struct rbxj_health *health,
                  const struct incident_counts *counts);
/* By a recovery, which may write. */
void escalation_tell(const struct config *config, const struct rbxj_health *health);

#endif
