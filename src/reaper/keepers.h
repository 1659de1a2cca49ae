/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who keeps a thing from being undone: noted where it is found, told in the incident.
 */
#ifndef RBXJ_REAPER_KEEPERS_H
#define RBXJ_REAPER_KEEPERS_H

#include "base/doc.h"

#include <sys/types.h>

enum { KEEPERS_MAX = 4 }; /* the first that were found */

struct keepers {
    struct keeper {
        pid_t pid;
        uint64_t start_time; /* clock ticks; 0: not known */
    } at[KEEPERS_MAX];
    size_t len;
};

/* Once each; which process has that pid is noted now. */
void keepers_add(struct keepers *keepers, pid_t pid);

/* Adds "held_by" to an entry of a document, if there is any: pid, comm, state, started and cgroup of each;
 * all but the pid null for one that is gone by now. */
void keepers_tell(struct doc *doc, cJSON *entry, const struct keepers *keepers);

#endif
