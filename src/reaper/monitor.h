/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who waits for the deaths of the supervisors of all boxes: `rbxj watch`.
 *
 *     monitor_look()  -->  whose supervisors are dead  -->  a replay of those boxes  --> monitor_look() ...
 *          ^                                          nobody's: monitor_wait()
 *          '------- a commit of the journal (hint.h), or a supervisor's pidfd ----------'
 *
 * Invariants
 *   W1  It never has the journals open, and writes nothing: it reads as `list` does (K28), and is in nobody's
 *       way who makes one anew, moves one aside, or asks whether anybody is left (K21).
 *   W2  What it knows it knows from the last look, and each look is of everything: a hint that comes twice,
 *       or of nothing, costs a look; a monitor that was killed has lost nothing.
 *   W3  It takes up its watches, and only then reads. What happens after the reading ends the next wait.
 *   W4  It decides nothing. Who is dead here is judged again by the replay, which claims the box first.
 *   W5  While no journal changes and nobody dies it does not wake.
 *
 * A supervisor is one (pid, start time), whatever it has begun, and has one pidfd. Where pid or time
 * namespace differ its lock (K9) names it, once for each box. Who can't be waited for, because he can't be
 * seen from here, or because descriptors or memory are wanting, is *unwatched*: whoever calls must look again
 * after a while.
 */
#ifndef RBXJ_REAPER_MONITOR_H
#define RBXJ_REAPER_MONITOR_H

#include "base/error.h"
#include "journal/record.h"

#include <poll.h>

struct monitor;

/* A box whose supervisor is dead. */
struct monitor_box {
    char name[BOX_NAME_MAX + 1];
    uint64_t incarnation;
};

struct monitor_view {
    const struct monitor_box *dead; /* until the next look */
    size_t dead_len;
    size_t boxes, supervisors; /* all of them; those that are waited for */
    size_t unwatched;
    int wanting; /* errno: why some of these could not be, or why the journal is not seen to change; 0 */
};

int monitor_open(const struct rbxj_options *options, struct monitor **ret, struct rbxj_error *e);
void monitor_close(struct monitor *m);
/* In a child of fork(2): closes what it has inherited. The last view stays. */
void monitor_leave(struct monitor *m);

/* Reads whose boxes there are. Nothing is changed by a look that fails: what died meanwhile is seen by the
 * next. */
int monitor_look(struct monitor *m, struct monitor_view *ret, struct rbxj_error *e);

enum monitor_event { MONITOR_COMMIT = 1, MONITOR_DEATH = 2 };

#define MONITOR_OTHERS 4
/* Waits until something asks for a look, one of at most MONITOR_OTHERS other descriptors is ready (in their
 * revents), or so many milliseconds (-1: however long) are over. Returns enum monitor_event flags, or a
 * negative errno. */
int monitor_wait(struct monitor *m, struct pollfd *others, size_t n, int milliseconds);

#endif
