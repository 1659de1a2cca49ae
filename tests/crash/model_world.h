/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The real side of the model: places on the system, supervisors, strangers. Each call says what went wrong in
 * world_trouble(), or nothing.
 */
#ifndef RBXJ_TESTS_CRASH_MODEL_WORLD_H
#define RBXJ_TESTS_CRASH_MODEL_WORLD_H

#include "model.h"

#define SAME_SOURCE "rbxj-model" /* what the intents name */

/* ---- the world ---- */

/* The cgroup of all sequences. */
void world_make_group(void);
const char *world_group(void);
void world_make(bool always, bool real_disk);
const struct rbxj_options *world_options(void);
const char *world_path(enum place p);
/* What stands at the top there, as the system shows it: 0 nothing, else a number that is its own, of all
 * that is to be seen of it. */
uint64_t world_see(enum place p);
/* The content of a lock, as the model numbers it. */
bool world_content_is(enum place p, uint64_t content, uint64_t incarnation, uint32_t seq);
/* Keeps the file system of the mount there, attached to nothing, so that no later one gets its device
 * number. */
void world_keep(enum place p);
/* Reads what is mounted; then: mounts whose target is that place. */
void world_look(void);
int world_mounts(enum place p);
/* A name in the world's directories that is no place's, or NULL. */
const char *world_stray(void);
bool world_is_dead(pid_t pid);
bool world_remove(enum place p);
bool world_add_stranger(enum place p, int id, bool over);
/* Writes over what a lock holds. */
bool world_scribble(enum place p, int id);
bool world_hold(enum place p, int id);
void world_let_go(int id);
/* A process that a supervisor started: dies at the latest with the world. */
void world_note(pid_t pid);
void world_power_loss(void);
void world_end(void);
/* crash_model.c: the next boot. */
void boot_next(void);

/* ---- supervisors ---- */

enum request_kind {
    R_BEGIN,
    R_INTEND,
    R_TAKE,
    R_ACQUIRE,
    R_MAKE,     /* acquires it itself */
    R_ACQUIRED, /* and says so */
    R_FILL,
    R_GIVE, /* gives it back itself */
    R_RELEASED,
    R_SPAWN,
    R_END_PROCESS, /* gives a process back */
    R_UNLOCK,
    R_UNDO,
    R_END
};

struct request {
    enum request_kind kind;
    int box;
    enum place place;
    uint32_t seq, group;
    uint64_t incarnation;
    enum place plan[MAX_PLAN];
    int n, parent;             /* -1: none */
    bool present, same_source; /* a lock that was there; the source of a mount */
    uint64_t content;
    pid_t pid;
};

struct reply {
    int r;
    uint64_t incarnation;
    uint32_t seq;
    pid_t pid;
    int n;
    struct reply_entry {
        uint32_t seq;
        char outcome[16];
    } entries[MAX_RECORDS];
    char message[600];
};

struct rbxj_resource place_resource(enum place p);
extern const char *const model_boxes[BOXES];
/* False: it died. */
bool supervisor_ask(int supervisor, const struct request *request, struct reply *ret);
void supervisor_kill(int supervisor);

#endif
