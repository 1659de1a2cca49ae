/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The program as a function.
 */
#include "damage.h"

#define main cli_main
#include "../../src/cli/main.c" /* NOLINT(bugprone-suspicious-include) */
