/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Tells that this boot's journal may have changed, to who must not ask again and again.
 *
 * Every commit of the boot journal is a write(2) to data.mdb, whatever its durability, and whoever begins a
 * box commits: so inotify(7) on the journal's folder sees each begin, by processes of any version, in any
 * namespace, without a word in their way, and at no cost where nobody watches. A folder that is made anew
 * (K21) is seen in the runtime directory, and a runtime directory that is made anew in what it lies in;
 * IN_DELETE_SELF would not do: it does not come while a supervisor has the directory open (6.18). What is
 * mounted over one of the three is not seen.
 *
 * It says "look", never what there is to be seen.
 */
#ifndef RBXJ_JOURNAL_HINT_H
#define RBXJ_JOURNAL_HINT_H

#include "base/error.h"
#include "journal/record.h"

#include <stdbool.h>

struct hint {
    int fd; /* readable: see hint_read(); negative: there is none yet */
    /* what the runtime directory lies in, or the nearest of those above that is there; it; the folder */
    int wd[3];
    char runtime_dir[RECORD_PATH_MAX], folder[RECORD_PATH_MAX + 64];
    bool far; /* the first is not the parent */
};

/* 0 or a negative code. Sees nothing before it is armed. */
int hint_open(struct hint *h, const char *runtime_dir, struct rbxj_error *e);
void hint_close(struct hint *h);

/* To be called before each look: what happens from then on is seen. 0, or a negative errno: something is
 * not. */
int hint_arm(struct hint *h);

/* Takes what was said until now. True: look. */
bool hint_read(struct hint *h);

#endif
