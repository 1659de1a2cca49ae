/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A process that is held up at a gate of the journal, which the test has; and how the two talk.
 */
#ifndef RBXJ_TESTS_GATE_FIXTURE_H
#define RBXJ_TESTS_GATE_FIXTURE_H

#include "replay_fixture.h"

#include "journal/gate.h"

#include <glob.h>

static inline void world_open_with_gate_timeout(const char *timeout)
{
    world_open();
    char *conf = harness_format("%s/gate.conf", harness_disk());
    harness_write(conf, harness_format("[journal]\ngate_timeout=%s\n", timeout));
    world.options.config = conf;
}

/* Who has a gate of it keeps all others out. */
static inline struct gate_page *map_gate(void)
{
    glob_t found;
    assert_int_equal(0, glob(harness_format("%s/journal-*/gate", world.run), 0, NULL, &found));
    int fd = open(found.gl_pathv[0], O_RDWR | O_CLOEXEC);
    globfree(&found);
    struct gate_page *page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(fd >= 0 && page != MAP_FAILED);
    (void)close(fd);
    return page;
}

/* In either process. */
static inline void tell(int fd)
{
    must(write(fd, "", 1) == 1);
}

/* In the other process. */
static inline void hear(int fd)
{
    char byte;
    must(read(fd, &byte, 1) == 1);
}

/* In the test; the other end is in the other process alone. */
static inline void heard(int fd)
{
    char byte;
    if (read(fd, &byte, 1) != 1)
        fail_msg("the other process has ended: %s", told->error);
}

/* Until that process, of one thread, waits for the gate of the boot journal. */
static inline void wait_for_waiter(struct gate_page *gates, pid_t pid)
{
    for (int i = 0; i < 6000 && atomic_load(&gates->boot.elder) != (uint32_t)pid; i++)
        (void)usleep(5000);
    assert_int_equal(pid, atomic_load(&gates->boot.elder));
}

#endif
