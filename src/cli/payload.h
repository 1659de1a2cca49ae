/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The command that `rbxj run` runs, and its signals: rbxj_spawn() starts it.
 */
#ifndef RBXJ_CLI_PAYLOAD_H
#define RBXJ_CLI_PAYLOAD_H

#include <signal.h>
#include <sys/types.h>

struct payload {
    pid_t pid;
    int pidfd;
    int signals;      /* signalfd */
    sigset_t ignored; /* by who started us: so they stay for it, as with nohup(1) */
    sigset_t early;   /* came before it was there */
    int stop;         /* the last signal by which we were told to stop, 0: none, or told to go on since */
};
#define PAYLOAD_INIT                                                                                         \
    {                                                                                                        \
        .pid = -1, .pidfd = -1, .signals = -1                                                                \
    }

/* Blocks every signal that does not mean a fault of our own: they are read and forwarded. 0 or -errno. */
int payload_block_signals(struct payload *payload);

/* Before it is started: whatever came until now was for us alone. */
void payload_note_signals(struct payload *payload);

/* For rbxj_spawn()'s setup: signals as they are for a program that who started us had started. payload: a
 * struct payload */
int payload_default_signals(void *payload);

/* Forwards signals until it ends, stops when it does, and reaps it: its wait status. */
int payload_wait(struct payload *payload);

void payload_clear(struct payload *payload);

#endif
