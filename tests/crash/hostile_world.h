/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What hostile_world.c, hostile_reap.c and hostile_view.c share.
 */
#ifndef RBXJ_TESTS_HOSTILE_WORLD_H
#define RBXJ_TESTS_HOSTILE_WORLD_H

#include "hostile.h"

#include <limits.h>

#define PLAN_MAX 8
#define ENTRIES_MAX 12

struct box_plan {
    const char *name;
    struct rbxj_resource resources[PLAN_MAX];
    size_t len;
    bool process; /* and one process */
};

/* What a child tells. */
struct told {
    char error[600];
    uint64_t incarnation;
    pid_t process;
    int result;
    size_t boxes, entries_len;
    struct told_entry {
        uint32_t seq;
        enum rbxj_kind kind;
        bool done; /* undone, or already gone */
        char outcome[16], message[400], detail[200];
    } entries[ENTRIES_MAX];
};

/* How the kernel knows a thing of the plan. */
struct thing {
    union {
        struct file_handle handle;
        char space[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    } file;
    uint64_t mount;
    uint64_t device; /* of a file system that this mount brought into being */
};

extern struct hostile_world {
    struct rbxj_options options;
    const char *group;
    struct box_plan a;
    uint64_t incarnation;
    struct thing things[PLAN_MAX];
    pid_t bystander_supervisor, bystander_payload;
    char *before, *etc_before;
    struct told *told; /* shared */
    unsigned descriptors;
    double seconds;
    bool lazy;
} world;

/* Forks a supervisor that acquires the plan; it lives, or is dead when this returns. */
pid_t supervise(const struct box_plan *plan, bool lives);
void attackers_kill(void);

/* hostile_view.c */
void things_note(void);
/* Is it nowhere to be found, whatever it is called now? */
bool thing_is_gone(size_t i);
char *bystander_picture(void);
bool process_is_dead(pid_t pid);

#endif
