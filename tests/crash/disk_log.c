/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_ENTRIES (1u << 18)
#define MAX_BYTES (1ull << 30) /* of address space */

static struct log {
    pthread_mutex_t mutex;
    _Atomic bool on;
    char root[PATH_MAX];
    size_t len, used;
    struct disk_entry entries[MAX_ENTRIES];
    uint8_t bytes[];
} * the_log; /* at the same address in every process: pointers into it are good everywhere */

static _Noreturn void die(const char *why)
{
    (void)dprintf(STDERR_FILENO, "disk log: %s: %s\n", why, strerror(errno));
    abort();
}

void disk_log_open(const char *root)
{
    pthread_mutexattr_t attr;

    the_log = mmap(NULL, sizeof(*the_log) + MAX_BYTES, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (the_log == MAP_FAILED)
        die("no memory");
    (void)snprintf(the_log->root, sizeof(the_log->root), "%s", root);
    (void)pthread_mutexattr_init(&attr);
    (void)pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    (void)pthread_mutex_init(&the_log->mutex, &attr);
    atomic_store(&the_log->on, true);
}

void disk_log_stop(void)
{
    atomic_store(&the_log->on, false);
}

bool disk_log_is_on(void)
{
    return the_log && atomic_load(&the_log->on);
}

void disk_log_lock(void)
{
    if (pthread_mutex_lock(&the_log->mutex) != 0)
        die("its lock");
}

void disk_log_unlock(void)
{
    (void)pthread_mutex_unlock(&the_log->mutex);
}

static const void *keep(const void *data, size_t len)
{
    if (len > MAX_BYTES - the_log->used)
        die("full");
    void *to = memcpy(the_log->bytes + the_log->used, data, len);
    the_log->used += len;
    return to;
}

void disk_log_add(const struct disk_entry *entry)
{
    struct disk_entry *to = &the_log->entries[the_log->len];

    if (the_log->len == MAX_ENTRIES)
        die("too many entries");
    *to = *entry;
    to->path = entry->path ? keep(entry->path, strlen(entry->path) + 1) : NULL;
    to->path2 = entry->path2 ? keep(entry->path2, strlen(entry->path2) + 1) : NULL;
    to->data = entry->data ? keep(entry->data, entry->len) : NULL;
    the_log->len++;
}

uint64_t disk_log_mark(void)
{
    disk_log_lock();
    disk_log_add(&(struct disk_entry){.op = DISK_MARK});
    uint64_t mark = the_log->len;
    disk_log_unlock();
    return mark;
}

size_t disk_log_len(void)
{
    return the_log->len;
}

const struct disk_entry *disk_log_get(size_t i)
{
    return &the_log->entries[i];
}

const char *disk_log_path(int dirfd, const char *name)
{
    static __thread char paths[2][2 * PATH_MAX];
    static __thread unsigned turn;
    char *path = paths[turn++ % 2], link[40];
    ssize_t n = 0;

    if (!disk_log_is_on())
        return NULL;
    if (dirfd != AT_FDCWD && (!name || name[0] != '/')) {
        (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", dirfd);
        n = readlink(link, path, PATH_MAX - 1);
        if (n < 0)
            return NULL;
    }
    path[n] = '\0';
    if (name && strcmp(name, ".") != 0)
        (void)snprintf(path + n, PATH_MAX, "%s%s", n ? "/" : "", name);
    size_t len = strlen(the_log->root);
    bool below = strncmp(path, the_log->root, len) == 0 && path[len] == '/' && path[len + 1];
    return below && !strstr(path, " (deleted)") ? path + len + 1 : NULL;
}
