/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Errors inside the library: every fallible function returns 0 or a negative code (-errno or -RBXJ_E_*) and
 * fills the caller's struct rbxj_error once, where the cause is known. The first error is kept: error_set()
 * does not overwrite.
 */
#ifndef RBXJ_BASE_ERROR_H
#define RBXJ_BASE_ERROR_H

#include "rbxj.h"

#include <errno.h>
#include <stdbool.h>

/* Records code (positive: an errno or RBXJ_E_*) with errnum (0: none) and a message; escapes what is not
 * printable and appends ": strerror(errnum)" when errnum is not 0. Returns -code. e may be NULL; a set error
 * is kept. */
int error_set(struct rbxj_error *e, int code, int errnum, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The same for a failed system call: picks PERMISSION for EPERM, EACCES, EROFS; DISK_FULL for ENOSPC, EDQUOT;
 * IO for the rest. errnum is positive. */
int error_sys(struct rbxj_error *e, int errnum, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Is the content of a journal wrong? Else it has another layout, is another's, or is not the one that is in
 * use here: an error of RBXJ_E_JOURNAL_DAMAGED has an errno then. */
static inline int error_is_corruption(const struct rbxj_error *e)
{
    return e->code == RBXJ_E_JOURNAL_DAMAGED && e->errnum == 0;
}

/* Passes on what was set elsewhere, with its detail. Returns -from->code. */
int error_pass(struct rbxj_error *e, const struct rbxj_error *from);

/* A want of our own (memory, descriptors), or an interruption: it says nothing about what is there. What met
 * one is to be tried again, and never gone, foreign or damaged. errnum is positive. */
static inline int errno_is_want(int errnum)
{
    return errnum == ENOMEM || errnum == EMFILE || errnum == ENFILE || errnum == EINTR || errnum == EAGAIN;
}

/* Forgets what an earlier call has set: at the entry of every public function. */
static inline void error_clear(struct rbxj_error *e)
{
    if (e)
        *e = (struct rbxj_error){0};
}

/* Adds the detail line (who holds it, what to do), if there is none yet. */
void error_detail(struct rbxj_error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Writes bytes to buf so that no control byte or invalid UTF-8 gets through: \xXX for such a byte. Always
 * terminated. */
void escape_bytes(char *buf, size_t size, const char *bytes, size_t len);

/* The symbolic name of an errno ("EBUSY"), or "". */
const char *errno_name(int errnum);

#endif
