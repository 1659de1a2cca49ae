/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * When a data file is validated before LMDB sees it (K27), and where a damaged one goes.
 *
 * LMDB believes what it reads, so nobody opens a file with it that may have been damaged: the first opener
 * after a boot walks it as a whole (pages.h), with writers kept out, and stamps the gate page with its device
 * and inode. Whoever finds the stamp on the file that he is about to open only looks at its metas and its
 * size. An error that LMDB reports takes the stamp away. What is damaged in place under a valid stamp is
 * found when it is read: everything that only reads does so by the independent reader, and records have
 * checksums; LMDB's own pages have none.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/image.h"
#include "journal/internal.h"
#include "journal/salvage.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

/* What a stamp says of a file. */
struct marks {
    uint64_t dev, ino, btime_ns;
};

static int marks_of(int dirfd, const char *name, struct marks *ret)
{
    struct statx sx;
    if (statx(dirfd, name, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME, &sx) < 0)
        return -errno;
    *ret = (struct marks){.dev = makedev(sx.stx_dev_major, sx.stx_dev_minor),
                          .ino = sx.stx_ino,
                          .btime_ns = sx.stx_mask & STATX_BTIME
                                          ? (uint64_t)sx.stx_btime.tv_sec * 1000000000 + sx.stx_btime.tv_nsec
                                          : 0};
    return 0;
}

static bool is_stamped(struct sound *stamp, const struct marks *m)
{
    return atomic_load(&stamp->ino) == m->ino && atomic_load(&stamp->dev) == m->dev &&
           atomic_load(&stamp->btime_ns) == m->btime_ns;
}

static void set_stamp(struct sound *stamp, const struct marks *m)
{
    atomic_store(&stamp->dev, m->dev);
    atomic_store(&stamp->btime_ns, m->btime_ns);
    atomic_store(&stamp->ino, m->ino);
}

void sound_stamp(struct sound *stamp, int dirfd, const char *name)
{
    struct marks m;
    if (marks_of(dirfd, name, &m) == 0) /* else the next one looks at it */
        set_stamp(stamp, &m);
}

static int walk(int dirfd, const char *name, const char *shown, struct rbxj_error *e)
{
    _cleanup_(image_clear) struct image image = {0};
    int r = image_read_file(dirfd, name, shown, &image, e);
    return r == -EAGAIN ? image_error(e, r, NULL, shown) : r;
}

int sound_check(int dirfd, const char *name, const char *shown, struct sound *stamp, struct gate *gate,
                int64_t timeout_ns, struct rbxj_error *e)
{
    struct marks m;
    int r = marks_of(dirfd, name, &m);
    if (r < 0)
        return error_sys(e, -r, "journal %s", shown);
    if (stamp && is_stamped(stamp, &m))
        return 0;
    r = gate ? gate_lock(gate, shown, timeout_ns, e) : 0;
    if (r < 0)
        return r;
    r = walk(dirfd, name, shown, e);
    if (r == 0 && stamp)
        set_stamp(stamp, &m);
    if (gate)
        gate_unlock(gate);
    return r;
}

static int walk_store(struct store *s, const char *shown, struct rbxj_error *e)
{
    _cleanup_(image_clear) struct image image = {0};
    struct pages_fault fault = {0};
    int r = image_read_store(s, &image, &fault);
    return r < 0 ? image_error(e, r, &fault, shown) : 0;
}

int journal_validate(struct journal *j, struct rbxj_error *e)
{
    struct rbxj_error busy = {0};
    int r = journal_check_handle(j, e);
    if (r == 0)
        r = walk_store(&j->boot, j->folder, e);
    if (r < 0)
        return r;
    /* the boot journal is the truth (K20): one who holds the disk's gate and does not go on (K25) keeps
     * nobody from what has to be undone; the flush at the end names him */
    r = gate_lock(&j->gates->disk, "disk journal", j->options.gate_timeout_ns, &busy);
    if (r < 0)
        return r == -RBXJ_E_JOURNAL_BUSY ? 0 : error_set(e, busy.code, busy.errnum, "%s", busy.message);
    struct rbxj_error error = {0};
    if (j->disk.env) /* else, and after a failed write, it is opened anew by whoever needs it */
        r = walk_store(&j->disk, j->disk.path, &error);
    gate_pass(&j->gates->disk);
    return r == -RBXJ_E_JOURNAL_DAMAGED ? error_pass(e, &error) : 0;
}

/* ---- aside ---- */

static bool is_damaged(int dirfd, const char *name)
{
    struct autopsy a;
    if (autopsy_read(dirfd, name, name, &a, NULL) < 0)
        return false; /* not there, or not to be read: nothing is known of it */
    bool damaged = !autopsy_is_sound(&a);
    autopsy_clear(&a);
    return damaged;
}

/* Under a name that nobody opens. */
static int move_aside(int dirfd, const char *folder, const char *dir, char *ret, size_t size,
                      struct rbxj_error *e)
{
    char name[64];
    struct tm tm;
    time_t now = (time_t)(now_realtime_ns() / 1000000000);
    if (!gmtime_r(&now, &tm) || !strftime(name, sizeof(name), "journal.damaged-%Y%m%dT%H%M%SZ", &tm))
        return error_sys(e, EOVERFLOW, "%s", dir);
    if (renameat2(dirfd, folder, dirfd, name, RENAME_NOREPLACE) < 0)
        return error_sys(e, errno, "%s/%s", dir, folder);
    _cleanup_close_ int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        (void)fsync(fd);
    size_t used = strlen(ret);
    (void)snprintf(ret + used, size - used, "%s%s/%s", used ? ", " : "", dir, name);
    return 1;
}

/* Nobody has the journals open, and nobody opens them while this lasts. */
static int set_aside(struct journal *j, char *ret, size_t size, struct rbxj_error *e)
{
    char folder[64], data[96], hex[33];
    int moved = 0, r = 0;
    hex_encode(hex, j->boot_id, 16);
    (void)snprintf(folder, sizeof(folder), "journal-%s", hex);
    (void)snprintf(data, sizeof(data), "%s/data.mdb", folder);
    if (is_damaged(j->state_fd, "journal/data.mdb"))
        r = move_aside(j->state_fd, "journal", j->state_dir, ret, size, e);
    moved += r == 1;
    if (r >= 0 && j->runtime_fd >= 0 && is_damaged(j->runtime_fd, data))
        r = move_aside(j->runtime_fd, folder, j->runtime_dir, ret, size, e);
    moved += r == 1;
    return r < 0 ? r : moved;
}

static int set_aside_of(const struct journal *registered, char *ret, size_t size, struct rbxj_error *e)
{
    struct journal own = *registered, *j = &own; /* the registered one is not open, for whoever looks at it */
    _cleanup_close_ int state = files_open_dir(j->state_dir, "state directory", e);
    if (state < 0)
        return state == -ENOENT ? 0 : state;
    _cleanup_close_ int runtime = files_open_dir(j->runtime_dir, "runtime directory", e);
    if (runtime < 0 && runtime != -ENOENT)
        return runtime;
    j->state_fd = state;
    j->runtime_fd = runtime;
    int alive = alive_open(state);
    if (alive < 0)
        return error_sys(e, -alive, "%s/alive", j->state_dir);
    int r = fd_record_lock(alive, F_WRLCK, ALIVE_CREATE_BYTE);
    if (r == 0 && fd_record_holder(alive, ALIVE_OPEN_BYTE, NULL) == 0)
        r = set_aside(j, ret, size, e);
    (void)fd_record_lock(alive, F_UNLCK, ALIVE_CREATE_BYTE);
    alive_close(alive);
    return r == -EAGAIN ? 0 : r;
}

int journal_set_aside(const char *state_dir, const char *runtime_dir, char *ret, size_t size,
                      struct rbxj_error *e)
{
    struct journal j = {.state_dir = (char *)(uintptr_t)state_dir,
                        .runtime_dir = (char *)(uintptr_t)runtime_dir,
                        .state_fd = -1,
                        .runtime_fd = -1};
    ret[0] = 0;
    j.opener = forked_self();
    int r = procid_boot(j.boot_id);
    if (r < 0)
        return error_sys(e, -r, "boot id");
    if (!journal_become_the_one(&j)) /* a second descriptor of STATE/alive would drop that one's locks */
        return 0;
    r = set_aside_of(&j, ret, size, e);
    journal_step_down(&j);
    return r;
}
