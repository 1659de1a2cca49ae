/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How the journals come to be. The disk journal is made once; the boot journal once per boot, filled with
 * what the disk holds (K20). Both are made whole under another name and appear by rename: a crash leaves
 * nothing that looks finished.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define MAKING "making" /* prefix of a folder that is not finished */

/* Makes an empty folder of that name below dirfd; a leftover of a creator that died is removed first. */
static int make_folder(int dirfd, const char *name, const char *shown, struct rbxj_error *e)
{
    int r = files_remove_folder(dirfd, name);
    if (r < 0 && r != -ENOENT)
        return error_sys(e, -r, "%s/%s: an unfinished journal", shown, name);
    if (mkdirat(dirfd, name, 0700) < 0)
        return error_sys(e, errno, "%s/%s", shown, name);
    return 0;
}

int create_sync_dir(int dirfd)
{
    _cleanup_close_ int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* What every disk journal has, and what else fill() puts into it. */
static int fill_disk(struct store *s, const uint8_t instance[16], create_fill *fill, void *data)
{
    MDB_txn *txn;
    uint32_t format = JOURNAL_FORMAT;
    uint64_t none = 0;
    int rc = mdb_txn_begin(s->env, NULL, 0, &txn);
    if (rc != MDB_SUCCESS)
        return rc;
    if ((rc = meta_put(txn, s->meta, META_FORMAT, &format, sizeof(format))) != MDB_SUCCESS ||
        (rc = meta_put(txn, s->meta, META_INSTANCE, instance, 16)) != MDB_SUCCESS ||
        (rc = meta_put(txn, s->meta, META_COVERED, &none, sizeof(none))) != MDB_SUCCESS ||
        (fill && (rc = fill(txn, s, data)) != MDB_SUCCESS)) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

/* Whole, and on disk, under the name that nobody opens. */
static int write_disk_journal(const char *state_dir, const struct journal_options *options,
                              const uint8_t instance[16], create_fill *fill, void *data, struct rbxj_error *e)
{
    char path[RECORD_PATH_MAX + 32];
    struct store s;
    (void)snprintf(path, sizeof(path), "%s/" MAKING, state_dir);
    int r = store_open(&s, path, STORE_CREATE, false, options, e);
    if (r < 0)
        return r;
    int rc = fill_disk(&s, instance, fill, data);
    /* LMDB never syncs the directory, nor the first meta pages */
    if (rc == MDB_SUCCESS && (fsync(s.fd) < 0))
        rc = errno;
    if (rc != MDB_SUCCESS)
        r = store_error(e, rc, &s, path);
    store_close(&s);
    return r;
}

static int publish(int state_fd)
{
    _cleanup_close_ int fd = openat(state_fd, MAKING, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0 || renameat2(state_fd, MAKING, state_fd, "journal", RENAME_NOREPLACE) < 0)
        return -errno;
    return 0;
}

int create_disk_journal(int state_fd, const char *state_dir, const struct journal_options *options,
                        const uint8_t instance[16], create_fill *fill, void *data, struct rbxj_error *e)
{
    int r = make_folder(state_fd, MAKING, state_dir, e);
    if (r < 0)
        return r;
    r = write_disk_journal(state_dir, options, instance, fill, data, e);
    int published = r == 0 ? publish(state_fd) : 0;
    if (published < 0)
        r = error_sys(e, -published, "%s/journal", state_dir);
    if (r < 0) { /* what is in the way of the next one, it removes, too */
        (void)files_remove_folder(state_fd, MAKING);
        return r;
    }
    r = create_sync_dir(state_fd);
    return r < 0 ? error_sys(e, -r, "%s", state_dir) : 0;
}

/* journal-<32 hex digits> or journal-making-<32 hex digits>: anything else in the directory is not ours to
 * remove. */
static bool is_folder_name(const char *name)
{
    if (strncmp(name, "journal-", 8) != 0)
        return false;
    name += strncmp(name + 8, MAKING "-", strlen(MAKING) + 1) == 0 ? 8 + strlen(MAKING) + 1 : 8;
    return strlen(name) == 32 && strspn(name, "0123456789abcdef") == 32;
}

/* Removes every folder of the runtime directory that belongs to another boot, or was never finished in it:
 * unread. */
static int remove_other_boots(struct journal *j, const char *own, const char *making, struct rbxj_error *e)
{
    _cleanup_closedir_ DIR *dir = fd_open_names(j->runtime_fd);
    if (!dir)
        return error_sys(e, errno, "%s", j->runtime_dir);
    for (struct dirent *d; (d = readdir(dir));) {
        if (strcmp(d->d_name, own) == 0 || strcmp(d->d_name, making) == 0 || !is_folder_name(d->d_name))
            continue;
        int r = files_remove_folder(j->runtime_fd, d->d_name);
        if (r < 0)
            return error_sys(e, -r, "%s/%s: the journal of another boot", j->runtime_dir, d->d_name);
    }
    return 0;
}

int create_leftovers(int dirfd, uint64_t *ret)
{
    static const char *const files[] = {"data.mdb", "lock.mdb"};
    char path[96];
    struct stat st;
    _cleanup_closedir_ DIR *dir = fd_open_names(dirfd);
    const struct dirent *d;
    if (!dir)
        return -errno;
    while ((d = fd_next_name(dir))) {
        if (strcmp(d->d_name, MAKING) != 0 && !is_folder_name(d->d_name))
            continue;
        for (size_t i = 0; i < ARRAY_LEN(files); i++) {
            (void)snprintf(path, sizeof(path), "%s/%s", d->d_name, files[i]);
            if (fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
                *ret += (uint64_t)st.st_blocks * 512;
        }
    }
    return -errno;
}

static int make_gate(int folder_fd)
{
    if (unlinkat(folder_fd, "gate", 0) < 0 && errno != ENOENT) /* of a creator that died */
        return -errno;
    _cleanup_close_ int fd = openat(folder_fd, "gate", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    /* with its room: a page that the file system can't give when it is written to is a SIGBUS */
    int failed = fd < 0 ? errno : EINTR;
    while (fd >= 0 && failed == EINTR)
        failed = posix_fallocate(fd, 0, sizeof(struct gate_page));
    if (failed)
        return -failed;
    struct gate_page *page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return -errno;
    int r = gate_page_init(page);
    (void)munmap(page, sizeof(*page));
    return r;
}

/* Copies one record of the disk journal, unchanged, and makes its index entries. A record whose checksum is
 * wrong is copied too: whoever reads it will say so, and it is not lost. last: the box whose header came
 * last. */
static int import_record(struct journal *j, struct store *boot, MDB_txn *to, MDB_val *key, MDB_val *data,
                         struct box *last)
{
    struct box box;
    struct record r;
    int rc = mdb_put(to, boot->records, key, data, 0);
    if (rc != MDB_SUCCESS || key->mv_size != sizeof(struct record_key))
        return rc;
    if (record_decode_box(data->mv_data, data->mv_size, key->mv_data, &box) == 0) {
        *last = box;
        MDB_val name = {strlen(box.name), box.name},
                incarnation = {sizeof(box.incarnation), &box.incarnation};
        return mdb_put(to, boot->boxes, &name, &incarnation, 0);
    }
    int decoded = record_decode(data->mv_data, data->mv_size, key->mv_data, &r);
    if (decoded == -ENOMEM)
        return ENOMEM;
    if (decoded == 0) {
        /* device and inode numbers of its parent were read when its box was begun, or later */
        bool same_boot = last->incarnation == r.incarnation &&
                         memcmp(last->supervisor.boot_id, j->boot_id, 16) == 0;
        rc = names_add(to, boot->names, &r, same_boot ? j->boot_id : NULL);
        record_clear(&r);
    }
    return rc;
}

static int import_all(struct journal *j, struct store *boot, MDB_txn *from, MDB_txn *to)
{
    MDB_cursor *cursor;
    MDB_val key, data;
    struct box last = {0};
    int rc = mdb_cursor_open(from, j->disk.records, &cursor);
    if (rc != MDB_SUCCESS)
        return rc;
    while ((rc = mdb_cursor_get(cursor, &key, &data, MDB_NEXT)) == MDB_SUCCESS) {
        rc = import_record(j, boot, to, &key, &data, &last);
        if (rc != MDB_SUCCESS)
            break;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? MDB_SUCCESS : rc;
}

/* Both transactions of a new generation: the disk's says which boot journal it follows from now on (and locks
 * out a leader of a lost one, K21), the boot's holds everything. The disk's is committed last: what a crash
 * before that leaves is unfinished, and nobody has heard of it. */
static int fill(struct journal *j, struct store *boot, MDB_txn *from, MDB_txn *to)
{
    uint64_t covered = 0, state[2];
    uint32_t format = JOURNAL_FORMAT, lost = 0, was_always = 0, always = j->options.always;
    int64_t salvaged = 0;
    uint8_t disk_boot[16] = {0};
    struct stat st;
    int rc = meta_get(from, j->disk.meta, META_COVERED, &covered, sizeof(covered));
    if (rc != MDB_SUCCESS)
        return rc;
    /* a disk journal that no boot has used lacks the next three */
    (void)meta_get(from, j->disk.meta, META_BOOT, disk_boot, 16);
    (void)meta_get(from, j->disk.meta, META_ALWAYS, &was_always, sizeof(was_always));
    (void)meta_get(from, j->disk.meta, META_GENERATIONS, &lost, sizeof(lost));
    (void)meta_get(from, j->disk.meta, META_SALVAGED, &salvaged, sizeof(salvaged));
    if (fstat(j->state_fd, &st) < 0)
        return errno;
    state[0] = st.st_dev;
    state[1] = st.st_ino;
    if (memcmp(disk_boot, j->boot_id, 16) == 0 && !(j->alone && was_always))
        lost++; /* a boot journal has vanished within this boot, and it was not a container's restart (K21) */
    random_bytes(j->generation, 16);
    const struct {
        MDB_txn *txn;
        MDB_dbi meta;
        const char *name;
        const void *value;
        size_t len;
    } values[] = {
        {from, j->disk.meta, META_BOOT, j->boot_id, 16},
        {from, j->disk.meta, META_GENERATION, j->generation, 16},
        {from, j->disk.meta, META_ALWAYS, &always, sizeof(always)},
        {from, j->disk.meta, META_GENERATIONS, &lost, sizeof(lost)},
        {to, boot->meta, META_FORMAT, &format, sizeof(format)},
        {to, boot->meta, META_INSTANCE, j->instance, 16},
        {to, boot->meta, META_BOOT, j->boot_id, 16},
        {to, boot->meta, META_GENERATION, j->generation, 16},
        /* so that the first one given out is above what the disk has covered under any generation */
        {to, boot->meta, META_POSITION, &covered, sizeof(covered)},
        {to, boot->meta, META_STATE_DIR, state, sizeof(state)},
        {to, boot->meta, META_SALVAGED, &salvaged, sizeof(salvaged)},
    };
    for (size_t i = 0; i < ARRAY_LEN(values) && rc == MDB_SUCCESS; i++)
        rc = meta_put(values[i].txn, values[i].meta, values[i].name, values[i].value, values[i].len);
    if (rc == MDB_SUCCESS)
        rc = counters_copy(from, j->disk.meta, to, boot->meta);
    return rc == MDB_SUCCESS ? import_all(j, boot, from, to) : rc;
}

static int fill_and_commit(struct journal *j, struct store *boot)
{
    MDB_txn *from, *to;
    int rc = mdb_txn_begin(j->disk.env, NULL, 0, &from);
    if (rc != MDB_SUCCESS)
        return rc;
    rc = mdb_txn_begin(boot->env, NULL, 0, &to);
    if (rc != MDB_SUCCESS) {
        mdb_txn_abort(from);
        return rc;
    }
    rc = fill(j, boot, from, to);
    if (rc != MDB_SUCCESS) {
        mdb_txn_abort(to);
        mdb_txn_abort(from);
        return rc;
    }
    rc = mdb_txn_commit(to);
    if (rc != MDB_SUCCESS) {
        mdb_txn_abort(from);
        return rc;
    }
    return mdb_txn_commit(from);
}

/* A creator died after the disk's commit and before the rename? Then the disk follows what it has made, which
 * holds everything, and which nobody has used yet. It is finished: made anew it would count as lost (K21). 1,
 * 0, or a negative code. */
static int is_filled(struct journal *j, const char *making, const char *path, struct rbxj_error *e)
{
    char data[96];
    uint8_t disk[16], boot[16];
    struct store s;
    (void)snprintf(data, sizeof(data), "%s/data.mdb", making);
    if (store_read_meta(&j->disk, META_GENERATION, disk, sizeof(disk)) != MDB_SUCCESS)
        return 0; /* no boot has used it */
    int r = files_check_data(j->runtime_fd, data, path, true, e);
    if (r == 0)
        r = store_open(&s, path, MDB_RDONLY | MDB_NOLOCK, true, &j->options, e);
    if (r == -ENOENT || r == -RBXJ_E_JOURNAL_DAMAGED) {
        error_clear(e);
        return 0;
    }
    if (r < 0)
        return r;
    int rc = store_read_meta(&s, META_GENERATION, boot, sizeof(boot));
    store_close(&s);
    return rc == MDB_SUCCESS && memcmp(disk, boot, sizeof(boot)) == 0;
}

static int make_filled(struct journal *j, const char *making, const char *path, struct rbxj_error *e)
{
    struct store boot;
    struct journal_options options = j->options;
    MDB_envinfo info;
    int r = make_folder(j->runtime_fd, making, j->runtime_dir, e);
    if (r < 0)
        return r;
    /* everything that the disk holds must fit, and room be left */
    if (mdb_env_info(j->disk.env, &info) == MDB_SUCCESS && info.me_mapsize > options.map_size)
        options.map_size = info.me_mapsize;
    r = store_open(&boot, path, STORE_CREATE | MDB_NOSYNC, true, &options, e);
    if (r < 0)
        return r;
    r = alive_lock_disk(j, e); /* the gate is yet to be made */
    if (r == 0) {
        int rc = fill_and_commit(j, &boot);
        alive_unlock_disk(j);
        if (rc != MDB_SUCCESS)
            r = store_error(e, rc, &boot, path);
    }
    store_close(&boot);
    return r;
}

int create_boot_journal(struct journal *j, struct rbxj_error *e)
{
    char name[64], making[80], path[RECORD_PATH_MAX + 96], boot_hex[33];
    hex_encode(boot_hex, j->boot_id, 16);
    (void)snprintf(name, sizeof(name), "journal-%s", boot_hex);
    (void)snprintf(making, sizeof(making), "journal-" MAKING "-%s", boot_hex);
    (void)snprintf(path, sizeof(path), "%s/%s", j->runtime_dir, making);
    int r = remove_other_boots(j, name, making, e);
    int filled = r < 0 ? r : is_filled(j, making, path, e);
    r = filled ? filled : make_filled(j, making, path, e);
    if (r < 0)
        return r;
    _cleanup_close_ int fd = openat(j->runtime_fd, making, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(e, errno, "%s", path);
    r = make_gate(fd);
    if (r < 0)
        r = error_sys(e, -r, "%s/gate", path);
    if (r == 0 && renameat2(j->runtime_fd, making, j->runtime_fd, name, RENAME_NOREPLACE) < 0)
        r = error_sys(e, errno, "%s/%s", j->runtime_dir, name);
    return r;
}
