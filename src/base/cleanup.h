/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Scope cleanup: a variable that frees itself, and how it is handed on.
 *     _cleanup_close_ int fd = open(...);   ... return steal_fd(&fd);
 */
#ifndef RBXJ_BASE_CLEANUP_H
#define RBXJ_BASE_CLEANUP_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_freep(void *p)
{
    free(*(void **)p);
}
static inline void cleanup_closep(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
}
static inline void cleanup_closedirp(DIR **dir)
{
    if (*dir)
        (void)closedir(*dir);
}
static inline void cleanup_fclosep(FILE **file)
{
    if (*file)
        (void)fclose(*file);
}

#define _cleanup_(f) __attribute__((cleanup(f)))
#define _cleanup_free_ _cleanup_(cleanup_freep)
#define _cleanup_close_ _cleanup_(cleanup_closep)
#define _cleanup_closedir_ _cleanup_(cleanup_closedirp)
#define _cleanup_fclose_ _cleanup_(cleanup_fclosep)

static inline int steal_fd(int *fd)
{
    int stolen = *fd;
    *fd = -1;
    return stolen;
}
#define steal_ptr(p)                                                                                         \
    ({                                                                                                       \
        __typeof__(p) _stolen = (p);                                                                         \
        (p) = NULL;                                                                                          \
        _stolen;                                                                                             \
    })

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif
