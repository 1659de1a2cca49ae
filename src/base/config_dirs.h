/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the surroundings say: where the journals are, and whether this is a container.
 */
#ifndef RBXJ_BASE_CONFIG_DIRS_H
#define RBXJ_BASE_CONFIG_DIRS_H

#include "rbxj.h"

/* The state and the runtime directory: the options, then RBXJ_STATE_DIR and RBXJ_RUNTIME_DIR, then the
 * defaults. Absolute, and resolved as far as they exist: they are opened, and compared, without following
 * symlinks. */
int config_dirs(const struct rbxj_options *options, char **ret_state, char **ret_runtime,
                struct rbxj_error *e);

/* Where systemd-detect-virt -c looks: /run may vanish here while the host lives on. 1, 0, or a negative
 * errno: that could not be asked, for want of memory or descriptors. */
int config_in_container(void);

#endif
