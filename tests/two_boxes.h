/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the tests of a kind stand on: a box whose supervisor is dead, and another one beside it.
 */
#ifndef RBXJ_TESTS_TWO_BOXES_H
#define RBXJ_TESTS_TWO_BOXES_H

#include "harness.h"

#include "base/config.h"
#include "journal/journal.h"

#include <string.h>
#include <unistd.h>

static inline void two_boxes(struct config *config, struct box *box, struct snapshot_box boxes[2],
                             struct snapshot *snapshot, uint64_t incarnation)
{
    config->state_dir = harness_format("%s/state", harness_disk());
    config->runtime_dir = harness_format("%s/run", harness_disk());
    *box = (struct box){.name = "b", .incarnation = incarnation, .planned = 1, .next_seq = 2};
    assert_int_equal(0, procid_of(getpid(), &box->supervisor));
    box->supervisor.start_time--; /* a process that does not exist */
    for (size_t i = 0; i < 2; i++)
        boxes[i] = (struct snapshot_box){.box = *box};
    boxes[1].box.incarnation = incarnation ^ 1;
    (void)strcpy(boxes[1].box.name, "other");
    *snapshot = (struct snapshot){.boxes = boxes, .len = 2};
    memcpy(snapshot->boot_id, box->supervisor.boot_id, 16);
}

#endif
