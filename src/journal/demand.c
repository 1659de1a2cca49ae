/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the next begin takes of the file systems: the journals that are not there yet are made with all that
 * they will need (create.c, store.c), and one of which more than the reserve is used grows ahead (K26). Who
 * makes them learns from the file system whether it has that; who only looks asks it for what it has left,
 * for the same sizes. Of that, what is kept for root is left out, and a quota can't be seen.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#define OWN_BLOCKS 16 /* the directories, STATE/alive, and what a file system needs for them */
#define FILES 4       /* a folder with its two, and STATE/alive or the gate */

struct demand {
    const char *what, *dir;
    int fd; /* of the directory, or of that in which it is made */
    dev_t dev;
    uint64_t bytes;
    unsigned files;
};

/* The directory above it; all: or the nearest one that is there. A descriptor or -errno. */
static int open_above(const char *dir, bool all)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s", dir);
    for (;;) {
        char *slash = strrchr(path, '/');
        if (!slash)
            return -ENOENT;
        slash[slash == path] = 0;
        int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 || errno != ENOENT || !all)
            return fd < 0 ? -errno : fd;
    }
}

int demand_check_dir(const char *dir, struct rbxj_error *e)
{
    _cleanup_close_ int above = open_above(dir, true);
    if (above < 0 || faccessat(above, ".", W_OK | X_OK, AT_EACCESS) < 0)
        return error_sys(e, above < 0 ? -above : errno, "state directory %s: can't be made", dir);
    return 0;
}

/* Of LMDB's lock file of a journal that is there, what the disk has not got yet. */
static uint64_t missing_of_lock(int dirfd, const char *folder)
{
    char path[96];
    struct stat st = {0};
    (void)snprintf(path, sizeof(path), "%s/lock.mdb", folder);
    uint64_t there = fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    return there < JOURNAL_LOCK_BYTES ? JOURNAL_LOCK_BYTES - there : 0;
}

/* One that is there. */
static void demand_growth(struct demand *d, const char *folder, const struct journal_size *size,
                          uint64_t preallocate)
{
    d->bytes = missing_of_lock(d->fd, folder);
    if (size->used > journal_room(size->bytes))
        d->bytes += preallocate;
}

/* One that is made; what is removed for it from its directory, -1: that is made, too, makes room. 0 or
 * -errno. */
static int demand_making(struct demand *d, int dirfd, uint64_t data)
{
    uint64_t removed = 0, all = data + JOURNAL_LOCK_BYTES + sizeof(struct gate_page);
    int r = dirfd < 0 ? 0 : create_leftovers(dirfd, &removed);
    d->bytes = all > removed ? all - removed : 0;
    d->files = FILES + (dirfd < 0);
    return r;
}

static int check(const struct demand *d, struct rbxj_error *e)
{
    struct statvfs vfs;
    if (faccessat(d->fd, ".", W_OK, AT_EACCESS) < 0 && (errno == EROFS || d->files))
        return error_sys(e, errno, "%s %s: can't be written to", d->what, d->dir);
    if (!d->bytes)
        return 0;
    if (fstatvfs(d->fd, &vfs) < 0)
        return error_sys(e, errno, "%s %s", d->what, d->dir);
    uint64_t need = d->bytes + OWN_BLOCKS * vfs.f_frsize, left = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    if (vfs.f_blocks && left < need)
        return error_set(e, RBXJ_E_DISK_FULL, ENOSPC,
                         "%s %s: the journal needs %llu KiB there (see preallocate), and %llu KiB are free",
                         d->what, d->dir, (unsigned long long)need / 1024, (unsigned long long)left / 1024);
    if (vfs.f_files && vfs.f_favail < d->files)
        return error_set(e, RBXJ_E_DISK_FULL, ENOSPC,
                         "%s %s: the journal needs %u inodes there, and %llu are free", d->what, d->dir,
                         d->files, (unsigned long long)vfs.f_favail);
    return 0;
}

static int check_both(struct demand *state, struct demand *runtime, struct rbxj_error *e)
{
    struct stat st;
    struct demand *const both[] = {state, runtime};
    for (size_t i = 0; i < ARRAY_LEN(both); i++) {
        if (fstat(both[i]->fd, &st) < 0)
            return error_sys(e, errno, "%s %s", both[i]->what, both[i]->dir);
        both[i]->dev = st.st_dev;
    }
    if (state->dev == runtime->dev) {
        runtime->bytes += state->bytes;
        runtime->files += state->files;
        state->bytes = 0;
    }
    int r = check(state, e);
    return r < 0 ? r : check(runtime, e);
}

int demand_check(const struct demands *what, struct rbxj_error *e)
{
    struct demand state = {"state directory", what->state_dir, what->state_fd, 0, 0, 0},
                  runtime = {"runtime directory", what->runtime_dir, what->runtime_fd, 0, 0, 0};
    _cleanup_close_ int above_state = state.fd < 0 ? open_above(state.dir, true) : -1,
                        above_runtime = runtime.fd < 0 ? open_above(runtime.dir, false) : -1;
    if (state.fd < 0)
        state.fd = above_state;
    if (runtime.fd < 0)
        runtime.fd = above_runtime;
    if (state.fd < 0 || runtime.fd < 0)
        return state.fd < 0 ? error_sys(e, -state.fd, "%s %s", state.what, state.dir)
                            : error_sys(e, -runtime.fd, "%s %s", runtime.what, runtime.dir);
    /* a copy, its indexes, and the reserve for undoing */
    uint64_t preallocate = what->preallocate, copy = 2 * what->disk->used;
    int r = 0;
    if (what->has_disk)
        demand_growth(&state, "journal", what->disk, preallocate);
    else
        r = demand_making(&state, what->state_fd, preallocate);
    if (what->has_boot)
        demand_growth(&runtime, what->boot_folder, what->boot, preallocate);
    else if (r == 0)
        r = demand_making(&runtime, what->runtime_fd, copy > preallocate ? copy : preallocate);
    return r < 0 ? error_sys(e, -r, "journal: its file system") : check_both(&state, &runtime, e);
}
