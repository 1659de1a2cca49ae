/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What `rbxj run` is to acquire: from the options, in the order written, to resources of the library.
 */
#ifndef RBXJ_CLI_RUN_PLAN_H
#define RBXJ_CLI_RUN_PLAN_H

#include "rbxj.h"

#include <stddef.h>

/* One option. Owns its strings. */
struct run_item {
    enum rbxj_kind kind;
    char *path;   /* absolute, normal */
    char *text;   /* mount: what the next three point into */
    char *fstype; /* mount */
    char *source;
    char *options; /* may be NULL */
    char *bind;    /* mount: the source made absolute, of a bind */
};

struct run_plan {
    struct run_item *items;
    size_t len;
};

/* Adds what an option says. 0, or -EINVAL with *ret_why, or another -errno. */
int run_plan_add(struct run_plan *plan, enum rbxj_kind kind, const char *argument, const char **ret_why);
void run_plan_clear(struct run_plan *plan);

enum { RUN_RESOURCES_MAX = 2 };

/* The resources of item i: a mount whose target is missing is two, first the directory that is made for it
 * (K18). acquired: the items before i are there already, so the system knows. Returns how many, or
 *   -EAGAIN  not known before the items before i are acquired: what a mount over it will show
 *   -errno   the target can't be looked at */
int run_plan_resources(const struct run_plan *plan, size_t i, int acquired,
                       struct rbxj_resource ret[RUN_RESOURCES_MAX]);

/* path below the working directory unless it is absolute, without "", "." and ".." parts (lexically), in
 * fresh memory; NULL with errno. */
char *path_absolute(const char *path);

#endif
