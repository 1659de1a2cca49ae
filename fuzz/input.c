/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz.h"

#include "base/fd.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

int input_file(const uint8_t *data, size_t size, char path[40])
{
    int fd = memfd_create("input", MFD_CLOEXEC);
    if (fd < 0 || fd_write_all(fd, data, size) < 0)
        abort();
    (void)snprintf(path, 40, "/proc/self/fd/%d", fd);
    return fd;
}
