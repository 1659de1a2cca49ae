/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whatever a mountinfo holds: it is read within bounds, whole or not at all, and what was read is found
 * again.
 */
#include "fuzz.h"

#include "reaper/mountinfo.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t lines(const uint8_t *data, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < size; i++)
        n += data[i] == '\n';
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[40];
    struct mount_table *table;
    int fd = input_file(data, size, path);
    int rc = mount_table_read(path, &table, NULL);
    (void)close(fd);
    if (rc < 0)
        return 0;
    struct mount_set all = mount_table_all(table);
    if (all.len != lines(data, size))
        abort();
    for (size_t i = 0; i < all.len; i++) {
        const struct mount *m = all.mounts[i];
        if (m->target[0] != '/' || strlen(m->root) + strlen(m->target) + strlen(m->source) > size ||
            !mount_table_by_id(table, m->id) || !mount_table_find(table, MOUNT_BY_SOURCE, m).len)
            abort();
    }
    mount_table_free(table);
    return 0;
}
