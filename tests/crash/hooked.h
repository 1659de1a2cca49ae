/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The life of a supervisor that does not link the library but talks to "rbxj hook" (life.h has the other one).
 */
#ifndef RBXJ_TESTS_CRASH_HOOKED_H
#define RBXJ_TESTS_CRASH_HOOKED_H

#include "step.h"

/* Runs the hook under the stepper, with a supervisor of "a" at its other end; when the hook is gone, that ends, too. */
struct step_end hooked_life(step_decide *decide, void *data);

#endif
