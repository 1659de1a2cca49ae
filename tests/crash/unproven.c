/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unproven.h"

#include "life.h"
#include "step.h"

#include "base/cleanup.h"

#include <sys/syscall.h>
#include <unistd.h>

#define STAMP_OF_V1 4

struct moment {
    long nr;
    unsigned nth; /* such call, from 1 */
    bool after;   /* killed at the call that follows it */
    unsigned seen;
};

static void supervisor(void *data)
{
    (void)data;
    life.own = NULL;
    step_on();
    (void)life_live("a", LIFE_HELD);
    step_off();
}

static int decide(void *data, const struct step_call *call)
{
    struct moment *m = data;

    if (m->after && m->seen == m->nth)
        return STEP_KILL;
    m->seen += call->nr == m->nr;
    return call->nr == m->nr && !m->after && m->seen == m->nth ? STEP_KILL : STEP_GO;
}

void unproven_killed(unsigned which)
{
    static const struct moment moments[UNPROVEN] = {
        {SYS_flock, 1, true, 0},     /* the lock is empty; */
        {SYS_setxattr, 1, true, 0},  /* stamped; */
        {SYS_setxattr, 2, false, 0}, /* and written: when it is proved it is stamped again */
        {SYS_mount, 1, true, 0},
        /* cgroup, v1 cgroup, inner directory, directory: made; and stamped */
        {SYS_setxattr, 3, false, 0},
        {SYS_setxattr, 3, true, 0},
        {SYS_setxattr, STAMP_OF_V1, false, 0},
        {SYS_setxattr, STAMP_OF_V1, true, 0},
        {SYS_setxattr, 5, false, 0},
        {SYS_setxattr, 5, true, 0},
        {SYS_setxattr, 6, false, 0},
        {SYS_setxattr, 6, true, 0},
    };
    struct moment m = moments[which];

    if (!life.group_v1 && m.nr == SYS_setxattr && m.nth >= STAMP_OF_V1)
        m.nth--;
    struct step_end end = step_run(supervisor, NULL, decide, &m);

    if (!end.struck)
        fail_msg("the supervisor was to be killed at moment %u: %s: %s", which, life_told->step,
                 life_told->error.message);
}
