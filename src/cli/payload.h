/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The command that `rbxj run` runs: a child that waits on a pipe until it is journaled (K6), then is let go.
 */
#ifndef RBXJ_CLI_PAYLOAD_H
#define RBXJ_CLI_PAYLOAD_H

#include <sys/types.h>

struct payload {
    pid_t pid;
    int pidfd;
    int signals; /* signalfd */
    int go;      /* a byte lets it go; end of file, also by our death, makes it exit */
    int exec;    /* the errno of a failed exec; end of file when it succeeded */
};

/* Blocks every signal that does not mean a fault of our own: they are read and forwarded. 0 or -errno. */
int payload_block_signals(void);

/* Forks the child; it waits with no descriptor but 0 to 2. 0 or -errno. */
int payload_start(struct payload *payload, char **argv);

/* Makes it exit without having run anything, and reaps it. */
void payload_abandon(struct payload *payload);

/* Lets it go: 0, or the errno with which exec failed. */
int payload_let_go(struct payload *payload);

/* Forwards signals until it ends, and reaps it: its wait status. */
int payload_wait(struct payload *payload);

#endif
