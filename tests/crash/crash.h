/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The frame of the crash programs (crash_*.c): each tries one or more cases at many points (the n-th system
 * call, the n-th allocation, the n-th seed), and each point in a process of its own, on real things.
 *
 *     static void run(const struct crash_case *c, uint64_t point) { world_open(); ...; assert_...; }
 *
 *     static const struct crash_case cases[] = {{.name = "supervisor", .run = run, .points = count}};
 *     int main(int argc, char **argv) { return crash_main(argc, argv, 20, cases, ARRAY_LEN(cases)); }
 *
 * A point runs in a process of its own as if it were a test of harness.h: fresh scratch directories; its
 * processes, mounts and cgroups are gone after it, also when it dies or hangs. A point that fails is printed
 * with the command that repeats it, and the others go on. Each case is one TAP test; a summary line gives the
 * figures.
 *
 * Without options the points are a sample by a fixed seed, for as many seconds as the program says: the same
 * ones each time, as far as there are as many points (one that waits has more calls the longer it does).
 * Options:
 *   --seconds S        so long, all cases together
 *   --seed N           another sample; "random" draws one. It is printed.
 *   --all              every point of every case, in order, however long it takes
 *   --state FILE       with --all: goes on where an interrupted run stopped
 *   --failures N       the next case is tried after so many failures of one (5)
 *   --only CASE[:N]    this case, or this point of it alone
 *   --list             the cases and how many points they have
 */
#ifndef RBXJ_TESTS_CRASH_H
#define RBXJ_TESTS_CRASH_H

#include "../harness.h"

struct crash_case {
    const char *name; /* without ':' */
    void (*run)(const struct crash_case *c, uint64_t point);
    /* How many points there are, counted by a run that disturbs nothing. NULL: any number is one (a seed). */
    uint64_t (*points)(const struct crash_case *c);
    uint64_t all;     /* without points: how many --all tries */
    unsigned timeout; /* seconds for one point; 0: 60 */
    bool whole; /* a point takes all the time of its case, crash_seconds(); the timeout comes on top of it */
    const void *data; /* the program's */
};

/* The case of run_WHAT() and count_WHAT(). */
#define CRASH_CASE(n, what, d)                                                                               \
    {                                                                                                        \
        .name = (n), .run = run_##what, .points = count_##what, .data = (d)                                  \
    }

int crash_main(int argc, char **argv, double seconds, const struct crash_case *cases, size_t n);

/* For run(): adds to a figure that the summary prints, e.g. crash_count("killed", 1). At most 16 names. */
void crash_count(const char *what, uint64_t n);
/* For run() of a case with whole: how long it goes on; with --all two minutes at least. */
double crash_seconds(void);
/* For run(): there is no such point, since the run ended before it. Ends the point; --all goes on with the
 * next case. */
_Noreturn void crash_past_the_end(void);
/* A generator for run(): splitmix64 (Steele, Lea, Flood, 2014). Never rand(): a point is repeatable. */
uint64_t crash_random(uint64_t *state);

#endif
