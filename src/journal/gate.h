/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Our own gate before LMDB's mutex, which has no timeout (K25). It lives in the boot's folder, never on disk,
 * where a robust mutex that was held at a power cut would stay locked for ever.
 *
 *  - robust: a holder that died hands it on at once;
 *  - bounded: a holder that is stopped or frozen is named after the timeout (JOURNAL_BUSY), and hangs nobody;
 *    as long as it is the very same holding, a process that has waited once does not wait again: ten boxes
 *    cost one timeout;
 *  - fair: a waiter that was overtaken for GATE_ELDER_AFTER_NS becomes the elder, and newcomers wait until
 *    it had its turn.
 */
#ifndef RBXJ_JOURNAL_GATE_H
#define RBXJ_JOURNAL_GATE_H

#include "rbxj.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#define GATE_MAGIC 0x67786272u
#define GATE_ELDER_AFTER_NS 10000000 /* 10 ms */
#define GATE_ELDER_TURN_NS (100 * (int64_t)GATE_ELDER_AFTER_NS)
#define GATE_LOOK_AGAIN_NS 5000000 /* 5 ms */

struct gate {
    pthread_mutex_t mutex;          /* robust, process-shared */
    _Atomic uint32_t elder;         /* the thread whose turn is next, 0: none; a futex */
    _Atomic int64_t elder_until_ns; /* CLOCK_REALTIME: it has died or given up after that */
    _Atomic uint32_t turn;          /* counts gate_pass(); a futex */
    _Atomic uint32_t tenure;        /* counts who got it: tells one holding from another */
    int32_t holder_pid;             /* written by the holder; for messages */
    uint32_t id, number;            /* random, and its place in the page */
};

/* The file RUNTIME/journal-<boot id>/gate, mapped shared by every process that has the journals open. */
/* How many boxes a reaper may work on at once. */
#define GATE_WORKERS 16

/* The data file that was found sound as a whole (K27); ino 0: none. */
struct sound {
    _Atomic uint64_t dev, ino, btime_ns; /* an inode number is given out again at once (K3) */
};

struct gate_page {
    uint32_t magic;
    uint32_t size;            /* of this struct: another libc or version lays it out differently */
    struct gate boot;         /* writers of the boot journal */
    struct gate disk;         /* leaders of a disk commit */
    struct gate open;         /* who opens the journals: LMDB has a lock of its own there, without a bound */
    _Atomic uint64_t covered; /* what the disk is known to have; a hint that lags, never leads */
    struct sound sound_boot, sound_disk;
    _Atomic uint64_t touched[GATE_WORKERS]; /* the boxes that a reaper works on now (K34) */
};

int gate_page_init(struct gate_page *page);
int gate_lock(struct gate *gate, const char *what, int64_t timeout_ns, struct rbxj_error *e);
void gate_unlock(struct gate *gate);

/* For the disk gate, whose holder works for all that wait: waits for the gate, or until *done has come to
 * wanted, which the holder raises before its gate_pass(). 1: has the gate, 0: done, or an error. Nobody is
 * overtaken for more than two turns: a holder takes along everybody who waited when it began. */
int gate_lock_unless(struct gate *gate, const _Atomic uint64_t *done, uint64_t wanted, const char *what,
                     int64_t timeout_ns, struct rbxj_error *e);
void gate_pass(struct gate *gate);

#endif
