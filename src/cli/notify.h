/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the service manager is told when a replay is its unit: sd_notify(3). Without one, nothing happens.
 */
#ifndef RBXJ_CLI_NOTIFY_H
#define RBXJ_CLI_NOTIFY_H

#include "rbxj.h"

#include <stddef.h>

/* Before a replay at boot: the unit's timeout is to be beyond the deadline, whatever that is configured
 * to. */
void notify_boot(const struct rbxj_options *options);
void notify_progress(size_t done, size_t total);
void notify_result(const struct rbxj_result *result);

#endif
