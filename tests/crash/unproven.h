/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Supervisors that are killed where it is hardest for the reaper: when a thing is there and its evidence is
 * not (K1).
 */
#ifndef RBXJ_TESTS_CRASH_UNPROVEN_H
#define RBXJ_TESTS_CRASH_UNPROVEN_H

#define UNPROVEN 12

/* Kills the supervisor of "a" at the which-th of these moments, 0 to UNPROVEN - 1. */
void unproven_killed(unsigned which);

#endif
