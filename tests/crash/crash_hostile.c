/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Hostile boxes: what runs in a box, or beside it, attacks the undo. Whatever it does, each thing of the box
 * is undone, or left and reported with the reason; nothing outside of the box is touched; the reaper has few
 * descriptors and little memory, and ends in bounded time; and once the attack is over, a second replay
 * undoes the rest.
 */
#include "hostile.h"

#include "base/cleanup.h"

int main(int argc, char **argv)
{
#define CASE(function, number, seconds)                                                                      \
    {                                                                                                        \
        .name = #function, .run = (function), .all = (number), .timeout = (seconds)                          \
    }
    static const struct crash_case cases[] = {
        CASE(tree_race, 60, 90),
        CASE(tree_swap, 40, 90),
        CASE(tree_moved, 40, 60),
        CASE(tree_deep, 4, 1800),
        CASE(tree_wide, 4, 3600),
        CASE(tree_flags, 20, 60),
        CASE(tree_odd, 20, 60),
        CASE(tree_stamps, 20, 60),
        CASE(tree_overlay, 20, 60),
        CASE(tree_readonly, 10, 60),
        CASE(tree_in_bind, 20, 60),
        CASE(mount_decoys, 20, 60),
        CASE(mount_stacked, 30, 60),
        CASE(mount_shared, 20, 60),
        CASE(mount_busy, 30, 90),
        CASE(mount_hung, 20, 90),
        CASE(mount_bound_elsewhere, 20, 60),
        CASE(mount_moved, 20, 60),
        CASE(mount_readonly, 10, 60),
        CASE(mount_own_binds, 20, 60),
        CASE(group_bomb, 40, 90),
        CASE(group_escape, 30, 60),
        CASE(group_daemons, 20, 60),
        CASE(group_deep, 20, 60),
        CASE(group_frozen, 20, 60),
        CASE(group_threaded, 10, 60),
        CASE(group_stopped, 20, 60),
        CASE(group_renamed, 20, 60),
        CASE(group_recreated, 20, 60),
        CASE(group_many, 10, 120),
        CASE(mount_race, 200, 90),
        CASE(group_race, 200, 90),
    };
    return crash_main(argc, argv, 40, cases, ARRAY_LEN(cases));
}
