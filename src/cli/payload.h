/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The command that `rbxj run` runs, and its signals: rbxj_spawn() starts it.
 */
#ifndef RBXJ_CLI_PAYLOAD_H
#define RBXJ_CLI_PAYLOAD_H

#include <sys/types.h>

struct payload {
    pid_t pid;
    int pidfd;
    int signals; /* signalfd */
};
#define PAYLOAD_INIT                                                                                         \
    {                                                                                                        \
        .pid = -1, .pidfd = -1, .signals = -1                                                                \
    }

/* Blocks every signal that does not mean a fault of our own: they are read and forwarded. 0 or -errno. */
int payload_block_signals(struct payload *payload);

/* For rbxj_spawn()'s setup: all signals as they are for a fresh program. */
int payload_default_signals(void *unused);

/* Forwards signals until it ends, and reaps it: its wait status. */
int payload_wait(const struct payload *payload);

void payload_clear(struct payload *payload);

#endif
