/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unproven.h"

#include "life.h"
#include "step.h"

#include "base/cleanup.h"

#include <sys/syscall.h>
#include <unistd.h>

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
        {SYS_flock, 1, true, 0},      /* the lock is empty */
        {SYS_ftruncate, 1, false, 0}, /* and written */
        {SYS_mount, 1, true, 0},
        /* cgroup, v1 cgroup, inner directory, directory: made; and stamped */
        {SYS_setxattr, 1, false, 0},
        {SYS_setxattr, 1, true, 0},
        {SYS_setxattr, 2, false, 0},
        {SYS_setxattr, 2, true, 0},
        {SYS_setxattr, 3, false, 0},
        {SYS_setxattr, 3, true, 0},
        {SYS_setxattr, 4, false, 0},
        {SYS_setxattr, 4, true, 0},
    };
    struct moment m = moments[which];
    struct step_end end = step_run(supervisor, NULL, decide, &m);

    if (!end.struck)
        fail_msg("the supervisor was to be killed at moment %u: %s: %s", which, life_told->step,
                 life_told->error.message);
}
