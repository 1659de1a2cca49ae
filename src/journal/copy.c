/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reading a journal without changing a byte of it (K28): its data file is copied into memory (image.h), and
 * the copy is read: everything in it, or how large it is. Where writers are too busy for that, through an
 * ordinary reader slot.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/image.h"
#include "journal/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DISK_DATA "journal/data.mdb"

/* All but the bytes, of which a copy has others. */
static int scan_size(const struct pages *p, bool boot, void *ret)
{
    struct journal_size size = {.there = true, .used = p->live * p->meta.page_size, .map = p->meta.map_size};
    for (size_t i = 0; i < p->dbs_len; i++)
        if (strcmp(p->dbs[i].name, DB_RECORDS) == 0)
            size.records = p->dbs[i].tree.entries;
    /* one that no boot has used lacks both */
    (void)scan_meta(p, META_GENERATION, size.generation, sizeof(size.generation));
    if (!boot)
        (void)scan_meta(p, META_GENERATIONS, &size.lost, sizeof(size.lost));
    *(struct journal_size *)ret = size;
    return 0;
}

static int scan_state_dir(const struct pages *p, bool boot, void *ret)
{
    (void)boot;
    return scan_meta(p, META_STATE_DIR, ret, 2 * sizeof(uint64_t));
}

/* Writers are too busy for a copy: a reader slot, where there can be one. Without, pages are used again below
 * us. The metas have just been found sound; LMDB sees no more of it than them. */
static int read_in_slot(const char *folder, bool boot, scan_function *scan, void *ret, struct rbxj_error *e)
{
    char lock[RECORD_PATH_MAX + 80];
    static const struct journal_options unused;
    struct store s;
    (void)snprintf(lock, sizeof(lock), "%s/lock.mdb", folder);
    if (faccessat(AT_FDCWD, lock, W_OK, AT_EACCESS) < 0)
        return error_set(e, RBXJ_E_JOURNAL_BUSY, errno, "journal %s: changes too fast to be copied, and %s",
                         folder, lock);
    int r = store_open(&s, folder, MDB_RDONLY | STORE_SLOTS, boot, &unused, e);
    if (r < 0)
        return r;
    r = scan_store(&s, boot, folder, scan, ret, e);
    store_close(&s);
    return r;
}

static int read_copy(int dirfd, const char *name, const char *folder, bool boot, scan_function *scan,
                     void *ret, struct rbxj_error *e)
{
    _cleanup_(image_clear) struct image image = {0};
    int r = image_read_file(dirfd, name, folder, &image, e);
    if (r == -EAGAIN)
        return read_in_slot(folder, boot, scan, ret, e);
    return r < 0 ? r : scan_image(&image, boot, folder, scan, ret, e);
}

int copy_check_state(int runtime_fd, const char *data, const char *folder, int state_fd,
                     const char *state_dir, struct rbxj_error *e)
{
    uint64_t state[2];
    struct rbxj_error why = {0};
    int r = read_copy(runtime_fd, data, folder, true, scan_state_dir, state, &why);
    if (r == -RBXJ_E_JOURNAL_DAMAGED)
        return 0;
    if (r < 0)
        return error_pass(e, &why);
    return belongs_check_state(state[1], state_fd, state_dir, e);
}

/* ---- which of the two is the truth: the boot journal, if this boot has one (K20) ---- */

struct place {
    int state_fd, runtime_fd;
    char boot_data[64], boot_folder[RECORD_PATH_MAX + 64], disk_folder[RECORD_PATH_MAX + 16];
    bool nothing, has_boot;
};

static void place_close(struct place *p)
{
    cleanup_closep(&p->state_fd);
    cleanup_closep(&p->runtime_fd);
}

static int open_if_there(const char *path, const char *what, int *ret, struct rbxj_error *e)
{
    *ret = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret < 0 && errno != ENOENT ? error_sys(e, errno, "%s %s", what, path) : 0;
}

/* An opener that was killed before it made a journal leaves an empty alive file and nothing else that counts.
 * 1, 0, or -errno. */
static int never_used(int state_fd)
{
    struct stat st;
    int aside;
    if (fstatat(state_fd, "journal", &st, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    if (errno != ENOENT)
        return -errno;
    if (fstatat(state_fd, "alive", &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno != ENOENT)
            return -errno;
    } else if (st.st_size > 0) {
        return 0;
    }
    aside = files_have_aside(state_fd);
    return aside < 0 ? aside : !aside;
}

int journal_boot_folder(const char *runtime_dir, char *ret, size_t size, struct rbxj_error *e)
{
    char hex[33];
    uint8_t boot[16];
    int r = procid_boot(boot);
    if (r < 0)
        return error_sys(e, -r, "boot id");
    hex_encode(hex, boot, 16);
    (void)snprintf(ret, size, "%s/journal-%s", runtime_dir, hex);
    return 0;
}

static int locate(const char *state_dir, const char *runtime_dir, struct place *p, struct rbxj_error *e)
{
    int r = journal_boot_folder(runtime_dir, p->boot_folder, sizeof(p->boot_folder), e);
    if (r < 0)
        return r;
    (void)snprintf(p->boot_data, sizeof(p->boot_data), "%s/data.mdb", strrchr(p->boot_folder, '/') + 1);
    (void)snprintf(p->disk_folder, sizeof(p->disk_folder), "%s/journal", state_dir);
    r = open_if_there(state_dir, "state directory", &p->state_fd, e);
    if (r == 0)
        r = open_if_there(runtime_dir, "runtime directory", &p->runtime_fd, e);
    if (r < 0)
        return r;
    r = p->runtime_fd < 0 ? -ENOENT : files_check_data(p->runtime_fd, p->boot_data, p->boot_folder, false, e);
    if (r < 0 && r != -ENOENT)
        return r;
    p->has_boot = r == 0;
    int empty = p->state_fd < 0 ? 1 : fd_dir_is_empty(p->state_fd);
    if (empty < 0)
        return error_sys(e, -empty, "state directory %s", state_dir);
    if (empty && p->has_boot) /* K33 */
        return belongs_emptied(state_dir, e);
    int nothing = empty ? 1 : p->has_boot ? 0 : never_used(p->state_fd);
    if (nothing < 0)
        return error_sys(e, -nothing, "state directory %s: was it used", state_dir);
    p->nothing = nothing;
    if (p->nothing)
        return 0;
    r = files_check_data(p->state_fd, DISK_DATA, p->disk_folder, false, e);
    int other = r == -ENOENT && p->has_boot
                    ? copy_check_state(p->runtime_fd, p->boot_data, p->boot_folder, p->state_fd, state_dir, e)
                    : 0;
    if (other < 0)
        return other;
    if (r == -ENOENT)
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0,
                         "journal %s: is missing from a state directory that was used", p->disk_folder);
    return r;
}

int snapshot_is_nothing(const char *state_dir, const char *runtime_dir, struct rbxj_error *e)
{
    _cleanup_(place_close) struct place p = {.state_fd = -1, .runtime_fd = -1};
    int r = locate(state_dir, runtime_dir, &p, e);
    return r < 0 ? r : p.nothing;
}

static int scan_disk_pair(const struct pages *p, bool boot, void *ret)
{
    struct belongs *disk = ret;
    (void)boot;
    (void)scan_meta(p, META_GENERATION, disk->generation, 16);
    (void)scan_meta(p, META_COVERED, &disk->position, sizeof(disk->position));
    return scan_meta(p, META_INSTANCE, disk->instance, 16);
}

/* What the boot journal must be, to belong to the journal that is in the state directory: another one is
 * there if its disk was mounted after boxes had begun, or is not (K33). 1, or 0: the latter is damaged, and
 * who looks at it says so. */
static int read_disk_pair(const struct place *p, struct belongs *ret, struct rbxj_error *e)
{
    struct rbxj_error why = {0};
    *ret = (struct belongs){0};
    int r = procid_boot(ret->boot);
    if (r < 0)
        return error_sys(e, -r, "boot id");
    r = read_copy(p->state_fd, DISK_DATA, p->disk_folder, false, scan_disk_pair, ret, &why);
    if (r < 0)
        return error_is_corruption(&why) ? 0 : error_pass(e, &why);
    return 1;
}

static int check_pair(const struct place *p, const char *state_dir, const struct belongs *disk,
                      const struct snapshot *s, struct rbxj_error *e)
{
    struct belongs boot = {.position = s->position};
    memcpy(boot.instance, s->instance, 16);
    memcpy(boot.boot, s->boot_id, 16);
    memcpy(boot.generation, s->generation, 16);
    return belongs_check(&boot, disk, p->boot_folder, state_dir, e);
}

/* Of the truth of directories that this process has not open. */
static int read_truth(const char *state_dir, const char *runtime_dir, scan_function *scan,
                      struct snapshot *ret, struct rbxj_error *e)
{
    _cleanup_(place_close) struct place p = {.state_fd = -1, .runtime_fd = -1};
    int r = locate(state_dir, runtime_dir, &p, e);
    if (r < 0)
        return r;
    if (p.nothing) {
        *ret = (struct snapshot){.nothing = true};
        return 0;
    }
    if (!p.has_boot)
        return read_copy(p.state_fd, DISK_DATA, p.disk_folder, false, scan, ret, e);
    struct belongs disk;
    int known = read_disk_pair(&p, &disk, e);
    r = known < 0 ? known : read_copy(p.runtime_fd, p.boot_data, p.boot_folder, true, scan, ret, e);
    if (r == 0 && known > 0 && (r = check_pair(&p, state_dir, &disk, ret, e)) < 0)
        snapshot_clear(ret);
    return r;
}

/* Is it the state directory in which everything was written down, as far as that can be told (K33)? */
static int locate_own(const char *state_dir, const char *runtime_dir, struct place *p, struct rbxj_error *e)
{
    int r = locate(state_dir, runtime_dir, p, e);
    if (r == 0 && p->state_fd < 0 && geteuid() == 0)
        return belongs_missing(state_dir, e);
    if (r == 0 &&
        p->state_fd < 0) /* for a user 'rbxj run' makes it: where it can't, his disk may be missing */
        return demand_check_dir(state_dir, e);
    if (r < 0 || !p->has_boot)
        return r;
    return copy_check_state(p->runtime_fd, p->boot_data, p->boot_folder, p->state_fd, state_dir, e);
}

int journal_check_own(const char *state_dir, const char *runtime_dir, struct rbxj_error *e)
{
    _cleanup_(place_close) struct place p = {.state_fd = -1, .runtime_fd = -1};
    return journal_of_process(state_dir, runtime_dir) ? 0 : locate_own(state_dir, runtime_dir, &p, e);
}

static int check_gate(const struct place *p, struct rbxj_error *e)
{
    char path[RECORD_PATH_MAX + 80];
    (void)snprintf(path, sizeof(path), "%s/gate", p->boot_folder);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return fd < 0 ? error_sys(e, errno, "journal %s", path) : belongs_check_gate(fd, path, e);
}

/* Would whoever owns it trust that directory? Of others it is not asked: they may look all the same. */
static int check_trust(int fd, const char *path, const char *what, struct rbxj_error *e)
{
    struct stat st;
    if (fd < 0)
        return 0;
    if (fstat(fd, &st) < 0)
        return error_sys(e, errno, "%s %s", what, path);
    _cleanup_close_ int again = st.st_uid == geteuid() ? files_open_dir(path, what, e) : -1;
    if (st.st_uid != geteuid() || again >= 0)
        return 0;
    return again == -ENOENT ? error_sys(e, ENOENT, "%s %s", what, path) : again;
}

int journal_check_usable(const char *state_dir, const char *runtime_dir, uint64_t preallocate,
                         const struct journal_size *boot, const struct journal_size *disk,
                         struct rbxj_error *e)
{
    _cleanup_(place_close) struct place p = {.state_fd = -1, .runtime_fd = -1};
    if (journal_of_process(state_dir, runtime_dir))
        return 0;
    struct procid self;
    int r = locate_own(state_dir, runtime_dir, &p, e);
    if (r == 0)
        r = journal_find_self(&self, e);
    if (r == 0)
        r = check_trust(p.state_fd, state_dir, "state directory", e);
    if (r == 0)
        r = check_trust(p.runtime_fd, runtime_dir, "runtime directory", e);
    if (r == 0 && p.has_boot)
        r = check_gate(&p, e);
    if (r == 0 && boot->there && disk->there)
        r = belongs_check_generation(boot->generation, disk->generation, p.boot_folder, e);
    const struct demands demands = {.state_dir = state_dir,
                                    .runtime_dir = runtime_dir,
                                    .state_fd = p.state_fd,
                                    .runtime_fd = p.runtime_fd,
                                    .has_disk = !p.nothing,
                                    .has_boot = p.has_boot,
                                    .boot_folder = strrchr(p.boot_folder, '/') + 1,
                                    .boot = boot,
                                    .disk = disk,
                                    .preallocate = preallocate};
    return r < 0 ? r : demand_check(&demands, e);
}

int snapshot_read(const char *state_dir, const char *runtime_dir, struct snapshot *ret, struct rbxj_error *e)
{
    struct journal *j = journal_of_process(state_dir, runtime_dir);
    if (j)
        return journal_snapshot(j, ret, e);
    int r = read_truth(state_dir, runtime_dir, scan_snapshot, ret, e);
    return r == 0 && !ret->nothing ? snapshot_index(ret, e) : r;
}

int snapshot_read_headers(const char *state_dir, const char *runtime_dir, struct snapshot *ret,
                          struct rbxj_error *e)
{
    return read_truth(state_dir, runtime_dir, scan_headers, ret, e);
}

/* ---- how large they are ---- */

static uint64_t allocated(const struct stat *st)
{
    return (uint64_t)st->st_blocks * 512;
}

static int size_of_file(int dirfd, const char *name, const char *folder, bool boot, struct journal_size *ret,
                        struct rbxj_error *e)
{
    struct stat st;
    int r = dirfd < 0 ? -ENOENT : files_check_data(dirfd, name, folder, false, e);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return error_sys(e, errno, "journal %s", folder);
    r = read_copy(dirfd, name, folder, boot, scan_size, ret, e);
    if (r == 0)
        ret->bytes = allocated(&st);
    return r;
}

static int size_of_store(struct store *store, bool boot, struct journal_size *ret, struct rbxj_error *e)
{
    const char *shown = boot ? "boot journal" : "disk journal";
    struct stat st;
    if (!store->env)
        return store_error(e, MDB_PANIC, store, shown);
    int r = scan_store(store, boot, shown, scan_size, ret, e);
    if (r == 0 && fstat(store->fd, &st) == 0)
        ret->bytes = allocated(&st);
    return r;
}

/* This process has them open: then nothing is opened a second time. The disk gate keeps a leader of another
 * thread from opening the disk's environment anew meanwhile. */
static int sizes_of_open(struct journal *j, struct journal_size *ret_boot, struct journal_size *ret_disk,
                         struct rbxj_error *e)
{
    int r = journal_check_handle(j, e);
    if (r < 0)
        return r;
    int first = ret_boot ? size_of_store(&j->boot, true, ret_boot, e) : 0;
    r = gate_lock(&j->gates->disk, "disk journal", j->options.gate_timeout_ns, e);
    if (r == 0) {
        r = size_of_store(&j->disk, false, ret_disk, e);
        gate_pass(&j->gates->disk);
    }
    return first < 0 ? first : r;
}

int journal_sizes(const char *state_dir, const char *runtime_dir, struct journal_size *ret_boot,
                  struct journal_size *ret_disk, struct rbxj_error *e)
{
    _cleanup_(place_close) struct place p = {.state_fd = -1, .runtime_fd = -1};
    struct journal *j = journal_of_process(state_dir, runtime_dir);
    *ret_disk = (struct journal_size){0};
    if (ret_boot)
        *ret_boot = *ret_disk;
    if (j)
        return sizes_of_open(j, ret_boot, ret_disk, e);
    int first = locate(state_dir, runtime_dir, &p, e);
    if (p.nothing)
        return 0;
    int r = ret_boot ? size_of_file(p.runtime_fd, p.boot_data, p.boot_folder, true, ret_boot, e) : 0;
    first = first < 0 ? first : r;
    r = size_of_file(p.state_fd, DISK_DATA, p.disk_folder, false, ret_disk, e);
    return first < 0 ? first : r;
}

int snapshot_check(const struct snapshot *s, struct rbxj_error *e)
{
    return s->damaged
               ? error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0, "journal: %zu records are damaged", s->damaged)
               : 0;
}
