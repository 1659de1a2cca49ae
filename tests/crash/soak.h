/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The parts of crash_soak.c: supervisors that come, live and die (soak_supervisor.c), the program run beside
 * them as reaper and readers (soak_program.c), and who ended which box (soak_account.c).
 */
#ifndef RBXJ_TESTS_SOAK_H
#define RBXJ_TESTS_SOAK_H

#include "crash.h"

#include "rbxj.h"

#include <stdatomic.h>

#define SOAK_SLOTS 64
#define SOAK_COPY "a copy of it is left" /* in a mount namespace that lives a little longer (K12) */
#define SOAK_BOXES (4u << 20)            /* as many as can be begun: address space only until they are */

/* What has become of a box, by its supervisor's word. One that was killed inside of a call wrote nothing
 * after it. */
enum soak_state {
    SOAK_NONE,
    SOAK_BEGINNING, /* in rbxj_begin() */
    SOAK_BEGUN,
    SOAK_ENDING, /* in rbxj_end() */
    SOAK_ENDED,
    SOAK_REFUSED, /* rbxj_begin() failed: nothing was recorded */
};

struct soak_box {
    _Atomic uint32_t state;
    uint32_t slot;
    uint64_t incarnation;
};

/* A slot's supervisors follow each other, with the same name for their boxes: a new one finds what the killed
 * one left, and waits for the reaper. */
struct soak_slot {
    _Atomic int wish; /* enum soak_wish */
};

enum soak_wish {
    WISH_NONE,
    WISH_STOP_IN_GATE, /* stop yourself while you hold the boot journal's gate */
    WISH_STOP_IN_DISK_GATE,
};

/* Shared by all processes. */
struct soak {
    const char *state, *run, *work, *config, *short_config;
    const char *group, *group_v1; /* boxes' cgroups are made in them; v1 NULL: there is none */
    struct rbxj_options options;
    unsigned slots;
    _Atomic bool stop;
    _Atomic bool failed;
    char failure[4000]; /* the first one; whoever sets failed writes it */
    _Atomic uint64_t stale, opens, slowest_open_ms, copied;
    struct soak_slot slot[SOAK_SLOTS];
    _Atomic uint32_t next;
    struct soak_box box[SOAK_BOXES];
    /* of the one that lives throughout, after its first boxes and at the end */
    _Atomic uint32_t lived;
    struct soak_size {
        size_t descriptors, heap, anonymous;
    } first, last;
};

/* Notes a failure, the first one for good. Returns false. */
bool soak_fail(struct soak *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The life of one supervisor, in a process of its own: so many boxes. */
void soak_supervisor(struct soak *s, unsigned slot, unsigned boxes, uint64_t random);
/* The one that is never killed: it measures itself, and goes on until the end. */
void soak_long_lived(struct soak *s, unsigned slot, uint64_t random);

/* ---- the program ---- */

struct soak_program {
    const char *name;                                 /* for messages */
    const char *args[8];                              /* after the program's name */
    const char *alternate;                            /* an argument that every other run has in addition */
    unsigned pause_ms;                                /* between two runs */
    uint32_t legal;                                   /* a bit for each exit status that may be */
    void (*output)(struct soak *s, const char *text); /* may be NULL */
    const char *said;                                 /* what it must say on standard error, or NULL */
    pid_t pid;
    int out, err;
    uint64_t runs;
    double started, ended;
};

void soak_program_start(struct soak *s, struct soak_program *p);
/* Its process is gone, with that wait status. */
void soak_program_ended(struct soak *s, struct soak_program *p, int status);

/* ---- the account ---- */

/* A report of a replay: notes which boxes it ended. */
void soak_account_report(struct soak *s, const char *json);
/* Every box ended or was undone, once. */
void soak_account_close(struct soak *s);
/* How many were ended by a reaper. */
uint64_t soak_account_undone(void);

/* ---- the end ---- */

/* Fails with the failure that was noted, if any. */
void soak_check_failure(struct soak *s);
void soak_check_system(struct soak *s);

/* Of the boot journal and the disk journal. */
struct soak_pages {
    uint64_t used, last, records;
    uint64_t lost; /* neither used nor free */
};
void soak_look_at_pages(struct soak *s, struct soak_pages ret[2]);
void soak_check_pages(struct soak *s, const struct soak_pages floor[2]);
void soak_check_growth(struct soak *s);

#endif
