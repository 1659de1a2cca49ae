/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Orphans: processes that outlived the box that they come from, and that no record names, so that no replay
 * will ever kill them. They may go on using what the next box is given, which is why a single one takes the
 * worker out of service; and a wrong one would take a sound worker out of service. So here is what proves
 * one, and what does not.
 *
 * A process has no owner any more that lives, where it is
 *
 *   descended     it descends from a process of a dead box: a recorded one, or one in a cgroup that is proven
 *                 that box's; and neither it nor anything between them is in a cgroup of ours, a recorded
 *                 process, or the supervisor of a box that lives. It has left its box's cgroup, or the box
 *                 has none (K6). A replay kills those that it descends from, and with them goes this proof:
 *                 so it is looked for before the first is killed, and what is still alive afterwards is an
 *                 orphan, and is remembered (orphans_kept.c) by pid and start time for as long as it lives.
 *   marked        it is in a cgroup that bears our stamp (K1) of a record that is not in the journal: it was
 *                 lost or forgotten. Its topmost process there is a child of init, so whoever started it is
 *                 dead. Where its parent, or that of anything else in that cgroup, is anybody else it has an
 *                 owner who lives, if only in a journal of another state directory, or of a container.
 *
 * It is none where it
 *
 *   - descends from a supervisor that lives: helpers, loggers and payloads of boxes without a cgroup have an
 *     owner;
 *   - is a daemon that a supervisor has double-forked on purpose: it is a child of init, and nothing marks
 *     it;
 *   - is in a cgroup of any box of ours, dead or alive: the next replay kills it, or its supervisor does;
 *   - is dead: a zombie holds nothing but its pid. Whose child it is can be told, and its parent asks for it
 *     or not;
 *   - holds the lock of a dead box: that box is held, which is told of the box (K7).
 *
 * Pids are reused: each process is a pid with a start time, which is read again after what was concluded from
 * it, and so is the whole chain up to the box. The stamp's record is looked for in a journal that was read
 * after the process was seen: a box that begins meanwhile is in it, write-ahead. What is in a pid namespace
 * that can't be seen from here is said to be that. What goes away while it is looked at is gone, and no
 * error.
 */
#ifndef RBXJ_REAPER_ORPHANS_H
#define RBXJ_REAPER_ORPHANS_H

#include "base/config.h"
#include "journal/journal.h"
#include "reaper/processes.h"

struct orphan {
    struct procid id;
    char box[BOX_NAME_MAX + 1]; /* empty: not known */
    bool told;                  /* the worker was quarantined for it, and it was counted */
};

struct orphans {
    struct orphan *list;
    size_t len;
    bool blind; /* there may be more, which could not be seen */
};

void orphans_clear(struct orphans *o);
int orphans_add(struct orphans *o, const struct procid *id, const char *box);
int orphans_copy(struct orphans *to, const struct orphan *one);
/* Drops those that live no more, or end by then (CLOCK_MONOTONIC; 0: now); those of which that can't be known
 * stay. */
void orphans_keep_living(struct orphans *o, int64_t deadline_ns);
/* "box 7: pid 12 (sleep, state S): ..." */
void orphan_describe(const struct orphan *orphan, char *buf, size_t size);

/* Descended ones, of the boxes i of s with dead[i]. table may be NULL: it is read if one lives of which
 * others could descend. 0, or -errno for want of memory or descriptors. */
int orphans_find(const struct config *config, struct snapshot *s, const bool *dead, struct processes *table,
                 struct orphans *ret);
/* Is that process in a cgroup that a box of this boot has recorded? By names. The box's index, -ENOENT: in
 * none, or another -errno. */
ssize_t orphans_box_of(const struct snapshot *s, pid_t pid);

/* Marked ones. unseen: how many stamped cgroups have members that can't be seen. */
int orphans_find_marked(const struct config *config, const struct snapshot *s, const struct processes *table,
                        struct orphans *ret, uint32_t *ret_unseen);

/* ---- orphans_kept.c: RUNTIME/orphans ---- */

/* Those that were found before, and still live. elsewhere, which may be NULL, gets those that were found in
 * another pid or time namespace, of which that can't be known, as it is where the initial pid namespace sees
 * that the other one has ended; then ret is blind. 0, or -errno: also -EBADMSG, it makes no sense. */
int orphans_load(const struct config *config, struct orphans *ret, struct orphans *elsewhere);
/* What a replay that was killed has found is told by the next one. Under the reaper's lock. 0 or -errno. */
int orphans_note_told(const struct config *config, const struct orphans *told);
/* Replaces them; none: removes the file. Under the reaper's lock. 0 or -errno. */
int orphans_store(const struct config *config, const struct orphans *o);

#endif
