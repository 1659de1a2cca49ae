/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj.conf with its drop-ins (rbxj.conf.d/, in name order, later wins); INI, read by libinih. Every key has
 * a default; an unknown key or a bad value is an error that names file and line: a typo in a safety setting
 * must not pass.
 */
#ifndef RBXJ_BASE_CONFIG_H
#define RBXJ_BASE_CONFIG_H

#include "rbxj.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum durability { DURABILITY_AUTO, DURABILITY_RESOURCE, DURABILITY_ALWAYS };

struct config {
    enum durability durability; /* as asked; config_load() resolves AUTO and RBXJ_DURABILITY */
    uint64_t map_size;          /* bytes */
    uint64_t preallocate;       /* bytes */
    int64_t gate_timeout_ns;

    bool lazy_umount; /* last-resort */
    int64_t timeout_ns;
    int64_t boot_deadline_ns;
    int64_t stop_timeout_ns;
    int busy_retries;
    int jobs; /* 0: number of cores */

    int quarantine_after; /* failed replays of a box in a row */
    int escalate_failures;
    int escalate_per_day;
    int min_free; /* percent */
    int incidents_keep;
    int incidents_keep_days;

    /* lists: a later one is added to an earlier one, an empty value empties it; of these two, what leads
     * through symlinks is followed by what it leads to */
    char **protected_paths; /* NULL-terminated, more than the built-in ones */
    char **allowed_paths;   /* NULL-terminated; NULL or empty: everything that is not protected */

    /* what rbxj audit looks for; lists as above, the defaults come first */
    char **locks;   /* glob(7) patterns of paths */
    char **cgroups; /* of the last component of a path */
    char **mounts;  /* of whole targets: * goes across slashes */
    char **tmpdirs; /* of paths */

    /* not from the file */
    void (*event)(void *data, const char *event, const char *message); /* see struct rbxj_options */
    void *event_data;
    char *state_dir;
    char *runtime_dir;
};

/* Resolves the directories (options, then environment, then default) and reads the configuration. */
int config_load(const struct rbxj_options *options, struct config *ret, struct rbxj_error *e);
void config_clear(struct config *config);

#endif
