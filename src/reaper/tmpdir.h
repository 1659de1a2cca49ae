/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of the tmpdir kind share: undo_tmpdir.c (making, undoing), tmpdir_find.c (which is ours).
 */
#ifndef RBXJ_REAPER_TMPDIR_H
#define RBXJ_REAPER_TMPDIR_H

#include "reaper/undo.h"

#define TMPDIR_ASIDE_PREFIX ".rbxj-"

/* What is under one of the names. */
enum tmpdir_sight { SIGHT_NOTHING, SIGHT_FOREIGN, SIGHT_MOUNTED, SIGHT_EMPTY, SIGHT_OURS };

struct tmpdir_name {
    const char *name;
    char path[PATH_MAX + NAME_MAX + 2];
    int fd;                  /* O_PATH */
    enum tmpdir_sight sight; /* EMPTY: of the expected owner, but with nothing that proves it ours */
    const char *why;         /* it is foreign */
    struct fileid id;
};

struct tmpdir_place {
    int parent;
    char aside_name[sizeof(TMPDIR_ASIDE_PREFIX) + 32], moved_name[NAME_MAX + 1];
    struct tmpdir_name aside, proper, moved; /* moved: only looked for where neither of the others is ours */
    bool away; /* it was moved to where nothing of ours is, or might have been */
};

extern const struct tmpdir_place tmpdir_no_place;
void tmpdir_place_close(struct tmpdir_place *p);

/* Looks at both names, the proper one first: a rename meanwhile goes from there to the one aside, so that
 * what is there is not missed. 0 and f has the verdict, or <0. */
int tmpdir_survey(struct undo *u, const struct record *r, struct tmpdir_place *p, struct finding *f);

#endif
