/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The parts of crash_damage.c: journals in use and what stands beside them (damage_world.c), the program
 * (damage_program.c), damage (damage_draw.c).
 */
#ifndef RBXJ_TESTS_CRASH_DAMAGE_H
#define RBXJ_TESTS_CRASH_DAMAGE_H

#include "crash.h"

#include "rbxj.h"

/* ---- a journal in use ---- */

struct damage_world {
    const char *state, *run, *work, *config;
    uint64_t random;
    struct supervisor {
        pid_t pid;
        int in, out; /* a byte in: write once more; a byte out: done */
    } live;          /* pid 0: it is dead, and nobody has the journals open */
};

/* A box "dead" whose supervisor was killed, a box "ended", at times a live one; and things of others beside
 * them, also where the dead one had something that it gave back. always: the disk journal has everything,
 * else nothing. */
void damage_make(struct damage_world *w, bool live, bool always);
const char *damage_data(const struct damage_world *w, bool boot);
uint64_t damage_draw(struct damage_world *w, uint64_t below);

/* One more intent of the live box. False: it died of it. */
bool damage_write(struct damage_world *w);
/* It takes its box down. False: it died of it. */
bool damage_undo(struct damage_world *w);

/* What the journal named for a dead box is as it was or is gone; all else is as it was. undone: the live one
 * was taken down. */
void damage_look(const struct damage_world *w, bool undone);

/* ---- commands, each in a process of its own. The exit status; killed by a signal: minus its number ---- */

int cli_main(int argc, char **argv); /* main() of src/cli/main.c */
int damage_try(const struct damage_world *w, const char *const argv[]);
/* The same, but to die of it is a failure. */
int damage_call(const struct damage_world *w, const char *const argv[]);
#define TRY(w, ...) damage_try(w, (const char *const[]){__VA_ARGS__, NULL})
#define CALL(w, ...) damage_call(w, (const char *const[]){__VA_ARGS__, NULL})

/* ---- damage ---- */

/* in_place: in the file itself; else another file takes its place, as after a boot. */
void damage_file(struct damage_world *w, const char *path, bool in_place);

#endif
