/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The lives of supervisors that do not link the library (life.h has the one that does): "rbxj run", and one
 * that talks to "rbxj hook". The program is the one that was built with the test, or $RBXJ; skips where there
 * is none.
 */
#ifndef RBXJ_TESTS_CRASH_COMMANDS_H
#define RBXJ_TESTS_CRASH_COMMANDS_H

#include "step.h"

/* rbxj run, with a command that leaves a process behind, under the stepper. */
struct step_end command_run(step_decide *decide, void *data);
/* rbxj hook under the stepper, with a supervisor of "a" at its other end; when the hook is gone, that ends,
 * too. */
struct step_end command_hook(step_decide *decide, void *data);

#endif
