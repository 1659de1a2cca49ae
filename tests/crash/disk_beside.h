/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The files beside the journal: a worker that is quarantined stays so across a power cut, and one that is
 * released is free (K31).
 */
#ifndef RBXJ_TESTS_CRASH_DISK_BESIDE_H
#define RBXJ_TESTS_CRASH_DISK_BESIDE_H

#include "rbxj.h"

#include <stdint.h>

struct beside;

/* Quarantines and releases, in a process of its own, and opens the journal on the way. */
struct beside *beside_run(const struct rbxj_options *options, unsigned operations, uint64_t random);

/* After a cut after that many entries of the log: NULL, or what is wrong. */
const char *beside_judge(const struct beside *b, uint64_t cut, const struct rbxj_options *options);

#endif
