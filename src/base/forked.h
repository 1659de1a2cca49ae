/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Which process is this? A pid does not tell a child from its parent where the child is the first of a pid
 * namespace, as its parent is: both are 1.
 */
#ifndef RBXJ_BASE_FORKED_H
#define RBXJ_BASE_FORKED_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct forked {
    pid_t pid;
    /* drawn once by each process; 0: the kernel can't keep it from a child, and the pid must do */
    uint64_t number;
};

/* This process. */
struct forked forked_self(void);
/* Is it this process that was asked then? */
bool forked_is_self(const struct forked *then);

/* A mutex for what is one in a process. In a child of fork() nobody has it, whoever had it in the parent, for
 * he is not there to give it back. All zero at first. */
struct forked_mutex {
    pthread_mutex_t mutex;
    _Atomic uint64_t process; /* whose it is */
};

/* True: the first time in this process. What it guards is as another one left it, perhaps in the middle of a
 * change. */
bool forked_lock(struct forked_mutex *m);
void forked_unlock(struct forked_mutex *m);

#endif
