/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/durable.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/journal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_SYSTEMS 16
#define DIRECTORIES 8 /* of one file system; from then on it is flushed as a whole */

/* Of each file system, how much of it was flushed. */
struct flushed {
    struct file_system {
        dev_t dev;
        unsigned directories;
        int result; /* of its last flush */
    } list[FILE_SYSTEMS];
    size_t len;
};

static bool may_come_back(const struct record *r)
{
    return (r->kind == RBXJ_LOCK || r->kind == RBXJ_TMPDIR) && commit_is_needed(false, r);
}

/* What is to be flushed: a lock that was written back is itself, all others are names in their directory. */
static void target_of(const struct record *r, char path[RECORD_PATH_MAX])
{
    (void)snprintf(path, RECORD_PATH_MAX, "%s", r->path);
    char *slash = strrchr(path, '/');
    if (!(r->flags & REC_BEFORE_PRESENT))
        slash[slash == path] = 0;
}

static struct file_system *file_system_of(struct flushed *f, dev_t dev)
{
    for (size_t i = 0; i < f->len; i++)
        if (f->list[i].dev == dev)
            return &f->list[i];
    if (f->len == FILE_SYSTEMS)
        return NULL;
    f->list[f->len] = (struct file_system){.dev = dev};
    return &f->list[f->len++];
}

static int flush(int fd, struct flushed *f)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    struct file_system *fs = file_system_of(f, st.st_dev);
    if (fs && fs->directories > DIRECTORIES)
        return fs->result;
    bool whole = fs && ++fs->directories > DIRECTORIES;
    int r = (whole ? syncfs(fd) : fsync(fd)) < 0 ? -errno : 0;
    if (r == -EINVAL) /* it knows no flush */
        r = 0;
    if (fs)
        fs->result = r;
    return r;
}

/* The nearest that is still there: where a whole path went, its last remaining directory tells so. */
static int flush_path(char *path, struct flushed *f)
{
    for (;;) {
        _cleanup_close_ int fd = fd_openat2(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0,
                                            RESOLVE_NO_SYMLINKS);
        if (fd >= 0)
            return flush(fd, f);
        if (fd == -EACCES || fd == -EPERM) /* whoever may not read it can't flush it either: as before */
            return 0;
        char *slash = strrchr(path, '/');
        if ((fd != -ENOENT && fd != -ENOTDIR && fd != -ELOOP) || !slash || !path[1])
            return fd;
        slash[slash == path] = 0;
    }
}

static int compare(const void *a, const void *b)
{
    const struct durable *const *x = a, *const *y = b;
    return strcmp((*x)->record->path, (*y)->record->path);
}

int durable_sync(struct durable *list, size_t n, struct rbxj_error *e)
{
    _cleanup_free_ struct durable **sorted = calloc(n + 1, sizeof(*sorted));
    struct flushed flushed = {0};
    char path[RECORD_PATH_MAX], last[RECORD_PATH_MAX] = "";
    int first = 0, r = 0;
    size_t len = 0;
    if (!sorted)
        return error_sys(e, ENOMEM, "flushing what was undone");
    for (size_t i = 0; i < n; i++) {
        list[i].result = 0;
        if (may_come_back(list[i].record))
            sorted[len++] = &list[i];
    }
    if (len)
        qsort(sorted, len, sizeof(*sorted), compare); /* those of one directory follow each other */
    for (size_t i = 0; i < len; i++) {
        target_of(sorted[i]->record, path);
        if (strcmp(path, last) != 0) {
            memcpy(last, path, sizeof(last));
            r = flush_path(path, &flushed);
        }
        sorted[i]->result = r;
        if (r < 0 && first == 0)
            first = error_sys(e, -r, "%s: was undone, but not on disk", last);
    }
    return first;
}

int durable_drop(struct journal *journal, const struct record *r, struct rbxj_error *e)
{
    struct durable gone = {.record = r};
    int res = durable_sync(&gone, 1, e);
    return res < 0 ? res : journal_drop(journal, r->incarnation, r->seq, e);
}
