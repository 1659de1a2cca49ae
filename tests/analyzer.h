/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Included before everything by make lint, for clang-tidy alone: it does not see that error_set() and
 * error_sys() always return a negative code, and would follow a thousand paths on which an error is a
 * success.
 */
#ifndef RBXJ_TESTS_ANALYZER_H
#define RBXJ_TESTS_ANALYZER_H

#include "base/error.h"

#define error_set(...) ((void)(error_set)(__VA_ARGS__), -RBXJ_E_IO)
#define error_sys(...) ((void)(error_sys)(__VA_ARGS__), -RBXJ_E_IO)

#endif
