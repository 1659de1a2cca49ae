/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the two sides of a start share (K6): spawn.c, the caller; spawn_child.c, the child.
 *
 *   the caller                                        the child
 *     fork                                              closes what is not its own (K7)
 *                                                       makes the status pipe, sends its reading end: it
 *                                                       waits
 *     journals it (I1), puts it into its cgroups
 *     lets it go with a byte                            or sees the caller's death: exits
 *                                                       says SPAWN_GOES on the status pipe
 *                                                       setup(), exec
 *     reads the status to its end                       else says what failed, and its errno
 *
 * End of file without SPAWN_GOES: it has run nothing. After it: the exec was done, or it died on the way
 * there.
 *
 * The status pipe is made in the child, so that its writing end is in no other process: a child that another
 * thread forks at the same time, and that does not exec, would hold it open, and the caller would wait for
 * that one. For the same reason end of file on the socket does not tell the child of the caller's death: a
 * pidfd of the caller does, which it inherits. (getppid() would not: it is 0 where the caller has unshared
 * its pid namespace. Nor PDEATHSIG alone, for a caller that died before it was set.)
 */
#ifndef RBXJ_REAPER_SPAWN_H
#define RBXJ_REAPER_SPAWN_H

#include "rbxj.h"

#include <stddef.h>
#include <sys/types.h>

/* On the status pipe. */
struct spawn_report {
    enum { SPAWN_GOES, SPAWN_SETUP, SPAWN_EXEC } what;
    int errnum; /* why setup() or the exec failed */
};

/* All that the child needs, made before the fork. */
struct spawn_child {
    const struct rbxj_spawn *how;
    char *const *argv, *const *envp;
    char **paths;       /* to be tried in this order; NULL-terminated */
    const char **shell; /* argv for what is executable but no program; [1] is the path (execvp(3)) */
    int *keep;          /* ascending, from 3; the two below are among them */
    size_t keep_len;
    int socket;
    int caller; /* a pidfd of it */
};

#define SPAWN_CHILD_INIT                                                                                     \
    {                                                                                                        \
        .socket = -1, .caller = -1                                                                           \
    }

/* *ret_socket: the caller's end; the caller's to close, on failure too. Clear the child on failure, too. */
int spawn_child_prepare(struct spawn_child *c, const struct rbxj_spawn *how, int *ret_socket,
                        struct rbxj_error *e);
void spawn_child_clear(struct spawn_child *c);

/* The message on the socket is an int: 0 with the reading end of the status pipe, or an errno. */
_Noreturn void spawn_child_main(struct spawn_child *c);

#endif
