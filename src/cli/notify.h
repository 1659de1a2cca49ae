/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the service manager is told by a unit: the messages of sd_notify(3). Without one, nothing happens.
 */
#ifndef RBXJ_CLI_NOTIFY_H
#define RBXJ_CLI_NOTIFY_H

#include "rbxj.h"

#include <stddef.h>

/* sd_notify(3), which waits without a bound where whoever made the socket reads no more from it, as the
 * runtime of a container that has seen READY=1; an undo waits for nobody. 0, or a negative errno: -EAGAIN, it
 * was not taken now. */
int notify_send(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Before a replay at boot: the unit's timeout is to be beyond the deadline, whatever that is configured
 * to. */
void notify_boot(const struct rbxj_options *options);
void notify_progress(size_t done, size_t total);
void notify_result(const struct rbxj_result *result);

#endif
