/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Room: what is nearly full refuses boxes half-way, so a worker is taken out before that ([health] min_free).
 *
 * Free is what an ordinary process may still take, of all that is or could be in use: df's view, by which
 * what is kept for root counts as neither. A file system that has no limit of its own (f_blocks or f_files 0:
 * btrfs has no number of inodes) is not full, nor is one that is read-only there: an image (squashfs is
 * always full) has what a box mounts on, and nothing that takes room. Each is asked once, whatever lies on
 * it, and only where that can't hang (K16).
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "reaper/answers.h"
#include "reaper/evidence.h"
#include "reaper/mount.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

/* More than those of one worker's boxes are not looked at, and that is told once. */
#define FILE_SYSTEMS_MAX 256

struct rooms {
    const struct config *config;
    struct mount_table *table;
    struct answers answers;
    struct evidence *ev;
    uint64_t devs[FILE_SYSTEMS_MAX]; /* looked at */
    size_t len;
    bool more;     /* there are, and that was told */
    uint64_t *own; /* of boxes, sorted */
    size_t own_len;
};

/* 0: it was not looked at before. */
static bool is_known(const struct rooms *rooms, uint64_t dev)
{
    for (size_t i = 0; i < rooms->len; i++)
        if (rooms->devs[i] == dev)
            return true;
    return false;
}

/* Less free than that, of free and in use together? all 0: there is no limit. */
static bool is_short(uint64_t all, uint64_t unused, uint64_t available, int min_free, unsigned *ret_percent)
{
    uint64_t used = all > unused ? all - unused : 0;
    if (!all || !(used + available))
        return false;
    *ret_percent = (unsigned)((double)available * 100 / (double)(used + available));
    return (double)available * 100 < (double)(used + available) * min_free;
}

static int tell(struct rooms *rooms, const char *what, const char *path, const char *of, unsigned percent)
{
    return evidence_add(rooms->ev, EVIDENCE_EXHAUSTED,
                        "%s %.300s: %u%% of its %s free, less than min_free = %d%%", what, path, percent, of,
                        rooms->config->min_free);
}

static int not_seen(struct rooms *rooms, const char *what, const char *path, const char *why)
{
    rooms->ev->room_unseen = true;
    return evidence_add(rooms->ev, EVIDENCE_UNKNOWN, "%s %.250s: its room could not be looked at: %s", what,
                        path, why);
}

/* What is not there has nothing of ours in it. */
static int look_at(struct rooms *rooms, const char *what, const char *path)
{
    char real[PATH_MAX];
    struct stat st;
    struct statvfs vfs;
    unsigned percent = 0;
    int r = answers_resolve(&rooms->answers, rooms->table, path, real);
    if (r > 0)
        return not_seen(rooms, what, path, "its file system does not answer");
    if (r == 0 && (stat(real, &st) < 0 || (!is_known(rooms, st.st_dev) && statvfs(real, &vfs) < 0)))
        r = -errno;
    if (r < 0)
        return errno_is_want(-r)               ? r
               : r == -ENOENT || r == -ENOTDIR ? 0
                                               : not_seen(rooms, what, path, strerrordesc_np(-r));
    if (is_known(rooms, st.st_dev) || (vfs.f_flag & ST_RDONLY))
        return 0;
    if (rooms->len == FILE_SYSTEMS_MAX) {
        bool told = rooms->more;
        rooms->more = true;
        return told ? 0 : not_seen(rooms, what, path, "there are too many file systems");
    }
    rooms->devs[rooms->len++] = st.st_dev;
    int min_free = rooms->config->min_free;
    if (is_short(vfs.f_blocks, vfs.f_bfree, vfs.f_bavail, min_free, &percent))
        r = tell(rooms, what, path, "space is", percent);
    if (r == 0 && is_short(vfs.f_files, vfs.f_ffree, vfs.f_favail, min_free, &percent))
        r = tell(rooms, what, path, "inodes are", percent);
    return r;
}

/* The directories before the first part of a pattern that is one. */
static int look_at_pattern(struct rooms *rooms, const char *pattern)
{
    char dir[PATH_MAX];
    (void)snprintf(dir, sizeof(dir), "%.*s", (int)strcspn(pattern, "*?[\\"), pattern);
    char *slash = strrchr(dir, '/');
    if (!slash)
        return 0;
    slash[slash == dir] = 0;
    return look_at(rooms, "box root", dir);
}

static int look_at_patterns(struct rooms *rooms)
{
    char **const lists[] = {rooms->config->locks, rooms->config->mounts, rooms->config->tmpdirs};
    int r = 0;
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        for (char **p = lists[i]; p && *p && r == 0; p++)
            r = look_at_pattern(rooms, *p);
    return r;
}

static int compare_devs(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Devices have other numbers in another one. */
static bool is_of_boot(const struct snapshot_box *sb, const uint8_t boot[16])
{
    return memcmp(sb->box.supervisor.boot_id, boot, 16) == 0;
}

/* The file systems that boxes have brought along, in which nested ones may lie: they are theirs to fill. */
static int find_own(struct rooms *rooms, const struct snapshot *s, const uint8_t boot[16])
{
    size_t n = 0;
    for (size_t i = 0; i < s->len; i++)
        n += s->boxes[i].len;
    rooms->own = calloc(n + 1, sizeof(*rooms->own));
    if (!rooms->own)
        return -ENOMEM;
    for (size_t i = 0; i < s->len; i++)
        for (size_t k = 0; is_of_boot(&s->boxes[i], boot) && k < s->boxes[i].len; k++) {
            const struct record *r = &s->boxes[i].records[k];
            if (r->kind == RBXJ_MOUNT && (r->flags & REC_EVIDENCE) && !mount_is_bind(r))
                rooms->own[rooms->own_len++] = r->mount.dev;
        }
    if (rooms->own_len)
        qsort(rooms->own, rooms->own_len, sizeof(*rooms->own), compare_devs);
    return 0;
}

static bool is_of_a_box(const struct rooms *rooms, uint64_t dev)
{
    return rooms->own_len &&
           bsearch(&dev, rooms->own, rooms->own_len, sizeof(*rooms->own), compare_devs) != NULL;
}

/* By the device of the directory that the intent recorded: most boxes lie on one. */
static int look_at_record(struct rooms *rooms, const struct record *r)
{
    char dir[RECORD_PATH_MAX + 1];
    bool file = r->kind == RBXJ_LOCK || r->kind == RBXJ_TMPDIR || r->kind == RBXJ_MOUNT;
    if (!file || r->below || !fileid_is_set(&r->parent) || is_known(rooms, r->parent.dev) ||
        is_of_a_box(rooms, r->parent.dev))
        return 0;
    (void)snprintf(dir, sizeof(dir), "%s", r->path);
    char *slash = strrchr(dir, '/');
    slash[slash == dir] = 0;
    return look_at(rooms, "box root", dir);
}

static int look_at_boxes(struct rooms *rooms, const struct snapshot *s)
{
    uint8_t boot[16];
    int r = procid_boot(boot);
    if (r == 0)
        r = find_own(rooms, s, boot);
    if (r < 0)
        return r;
    for (size_t i = 0; i < s->len && !rooms->more; i++) {
        const struct snapshot_box *sb = &s->boxes[i];
        for (size_t k = 0; is_of_boot(sb, boot) && k < sb->len && r == 0; k++)
            r = look_at_record(rooms, &sb->records[k]);
        if (r < 0)
            return r;
    }
    return 0;
}

int room_look(const struct config *config, const struct snapshot *s, struct evidence *ev)
{
    struct rooms rooms = {.config = config, .ev = ev, .answers.runtime_dir = config->runtime_dir};
    struct rbxj_error e = {0};
    if (!config->min_free)
        return 0;
    int r = mount_table_read("/proc/self/mountinfo", &rooms.table, &e);
    if (r < 0)
        return errno_is_want(e.errnum) ? -e.errnum
                                       : evidence_add(ev, EVIDENCE_UNKNOWN, "room: %s", e.message);
    r = look_at(&rooms, "state directory", config->state_dir);
    if (r == 0)
        r = look_at(&rooms, "runtime directory", config->runtime_dir);
    if (r == 0)
        r = look_at_patterns(&rooms);
    if (r == 0 && s)
        r = look_at_boxes(&rooms, s);
    free(rooms.own);
    mount_table_free(rooms.table);
    return r;
}

int room_look_at_journal(const struct config *config, const char *name, const struct journal_size *size,
                         struct evidence *ev)
{
    unsigned percent = 0;
    uint64_t map = size->map > config->map_size ? size->map
                                                : config->map_size; /* who opens it next raises it */
    uint64_t most = journal_room(map), left = size->used < most ? most - size->used : 0;
    if (!size->there || !is_short(most, left, left, config->min_free, &percent))
        return 0;
    return evidence_add(
        ev, EVIDENCE_EXHAUSTED,
        "%s journal: %u%% of what its map may hold is free, less than min_free = %d%%: raise map_size", name,
        percent, config->min_free);
}
