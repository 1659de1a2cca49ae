/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What crash_disk.c works on, and the look at what is left after a power cut: through the public interface,
 * in another boot.
 */
#ifndef RBXJ_TESTS_CRASH_DISK_LOOK_H
#define RBXJ_TESTS_CRASH_DISK_LOOK_H

#include "disk_beside.h"
#include "disk_image.h"
#include "disk_model.h"

/* Of disk_calls.h. */
extern uint8_t disk_boot;         /* 0: the machine's own; by linking, never by the environment */
extern bool disk_no_flush;        /* nobody will cut the power: flushes cost nothing */
extern unsigned disk_writes_left; /* until this process dies in one; 0: it does not */
extern bool disk_no_reserve;      /* a file system that knows no fallocate() */

struct setting {
    unsigned processes, operations, slots;
    bool always, big, no_fallocate, replay, early, beside, killed, twice;
    bool container;  /* no cut: everything dies, and the runtime directory with it, in the same boot (K21) */
    unsigned states; /* that are tried of one workload */
    unsigned left_out; /* flushes, 1 << enum disk_flush: a loss must be found */
};

/* The directories and settings of a point. */
struct world {
    const struct setting *s;
    struct model *model;
    struct beside *beside; /* instead of boxes; or NULL */
    char *root, *state, *kept, *config;
    char *cut_state, *cut_runtime; /* after the cut */
    uint64_t random, replayed;     /* when the replay began; 0: none did */
};

struct rbxj_options disk_options(const struct world *w, const char *state);
/* Nothing is left in that directory, which is made where it is missing. */
void disk_empty(const char *directory);

/* The records of each box of the model, as model_judge() takes them. Ends the process with 1 and a message
 * where there are others. */
void disk_list(const struct world *w, const struct rbxj_options *o, uint32_t *found);

/* A replay that must leave nothing: how many boxes it handled. ret_incident may be NULL: does it tell of one?
 * Ends the process with 1 and a message where it fails. */
size_t disk_replay(const struct rbxj_options *o, bool *ret_incident);

/* In a process of its own: ends it with 0 where all is well after a cut after that many entries of the log,
 * else with 1 and a message. */
_Noreturn void disk_look(const struct world *w, struct disk_image *image, struct disk_cut *cut, uint64_t at);

#endif
