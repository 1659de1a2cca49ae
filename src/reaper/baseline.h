/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Is the worker again what it was before the boxes that a recovery has undone? Each undo was verified by
 * itself, at the place that its record names. This looks the other way: is anything, anywhere, that bears the
 * mark of such a box (K1)? A bind mount of a box's file system, for instance, keeps all that was in it. A
 * mark that only root can make is ours for sure, and that it should be gone was just said; what only has a
 * name like ours proves nothing, and is --verify-clean's and the audit's.
 */
#ifndef RBXJ_REAPER_BASELINE_H
#define RBXJ_REAPER_BASELINE_H

#include "reaper/result.h"

/* 1: there is, ret says what first; 0; or -errno: that can't be known. */
int baseline_look(const struct config *config, const struct rbxj_result *undone, char *ret, size_t size);

#endif
