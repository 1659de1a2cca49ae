/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * UTF-8, strictly: overlong forms, surrogates and what is beyond U+10FFFF are none.
 */
#ifndef RBXJ_BASE_UTF8_H
#define RBXJ_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* The character at bytes, of which there is at least one: its length; 0: it is not UTF-8 (ret is
 * untouched). */
size_t utf8_decode(const void *bytes, size_t len, uint32_t *ret);

/* The same, but 0 also for what a terminal obeys instead of showing, and for what turns the reading direction
 * or breaks the line. */
size_t utf8_printable(const void *bytes, size_t len);

#endif
