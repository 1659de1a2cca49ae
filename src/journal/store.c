/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One LMDB environment: how it is opened, what its errors mean, and how it keeps room for deletes (K26).
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"

#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

int meta_get(MDB_txn *txn, MDB_dbi meta, const char *name, void *value, size_t len)
{
    MDB_val key = {strlen(name), (void *)(uintptr_t)name}, data;
    int rc = mdb_get(txn, meta, &key, &data);
    if (rc == MDB_SUCCESS && data.mv_size != len)
        return MDB_CORRUPTED;
    if (rc == MDB_SUCCESS)
        memcpy(value, data.mv_data, len);
    return rc;
}

int meta_put(MDB_txn *txn, MDB_dbi meta, const char *name, const void *value, size_t len)
{
    MDB_val key = {strlen(name), (void *)(uintptr_t)name}, data = {len, (void *)(uintptr_t)value};
    return mdb_put(txn, meta, &key, &data, 0);
}

int store_read_meta(struct store *s, const char *name, void *value, size_t len)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);
    if (rc != MDB_SUCCESS)
        return rc;
    rc = meta_get(txn, s->meta, name, value, len);
    mdb_txn_abort(txn);
    return rc;
}

int store_error(struct rbxj_error *e, int rc, const struct store *s, const char *what)
{
    struct statvfs vfs;
    switch (rc) {
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
        return error_set(e, RBXJ_E_JOURNAL_FULL, 0, "%s: its map is full: raise map_size", what);
    case MDB_READERS_FULL:
        return error_set(e, RBXJ_E_JOURNAL_BUSY, 0, "%s: all reader slots are taken", what);
    case ENOSPC:
    case EDQUOT:
        return error_set(e, RBXJ_E_DISK_FULL, rc, "%s", what);
    case EIO: /* LMDB turns a short write on a full disk into EIO */
        if (s && s->env && fstatvfs(s->fd, &vfs) == 0 && vfs.f_bavail == 0)
            return error_set(e, RBXJ_E_DISK_FULL, ENOSPC, "%s", what);
        return error_set(e, RBXJ_E_IO, rc, "%s", what);
    case MDB_PANIC: /* LMDB does not know any more what it has written; whoever opens it anew does */
        return error_set(e, RBXJ_E_IO, EIO, "%s: an earlier write failed, it must be opened anew", what);
    case ENOMEM:
        return error_set(e, ENOMEM, rc, "%s", what);
    case EACCES:
    case EPERM:
    case EROFS:
        return error_set(e, RBXJ_E_PERMISSION, rc, "%s", what);
    case MDB_VERSION_MISMATCH:
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, EPROTONOSUPPORT, "%s: %s", what, mdb_strerror(rc));
    default:
        if (rc > 0)
            return error_set(e, RBXJ_E_IO, rc, "%s", what);
        if (s && s->sound) /* who opens it next looks at it as a whole */
            atomic_store(&s->sound->ino, 0);
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0, "%s: %s", what, mdb_strerror(rc));
    }
}

static int open_databases(struct store *s, bool all, bool create)
{
    struct {
        const char *name;
        MDB_dbi *dbi;
        bool everywhere;
    } dbs[] = {{DB_META, &s->meta, true},    {DB_RECORDS, &s->records, true}, {DB_LOG, &s->log, false},
               {DB_MARKS, &s->marks, false}, {DB_NAMES, &s->names, false},    {DB_BOXES, &s->boxes, false}};
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, create ? 0 : MDB_RDONLY, &txn);
    if (rc != MDB_SUCCESS)
        return rc;
    for (size_t i = 0; i < ARRAY_LEN(dbs) && rc == MDB_SUCCESS; i++)
        if (all || dbs[i].everywhere)
            rc = mdb_dbi_open(txn, dbs[i].name, create ? MDB_CREATE : 0, dbs[i].dbi);
    if (rc != MDB_SUCCESS) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn); /* a handle opened in an aborted transaction is closed with it */
}

#define SIGNALS 100 /* that one call may meet in a row */

/* fallocate(2), which a tmpfs breaks off at any signal (until 6.12 or so). 0 or an errno. */
static int allocate(int fd, int mode, off_t len)
{
    int failed = EINTR;
    for (int i = 0; failed == EINTR && i < SIGNALS; i++)
        failed = fallocate(fd, mode, 0, len) < 0 ? errno : 0;
    return failed;
}

/* LMDB maps its lock file and writes to it through the map: what the disk has no room for ends the process by
 * SIGBUS. So it has its room before LMDB sees it, or the opening fails. 0 or an errno. */
static int reserve_lock(const char *path, bool create)
{
    const off_t readers = JOURNAL_LOCK_BYTES;
    struct stat st;
    _cleanup_close_ int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
    if (fd < 0)
        return 0; /* LMDB says why */
    if (fstat(fd, &st) < 0)
        return errno;
    off_t len = st.st_size > readers ? st.st_size : readers;
    int failed = allocate(fd, FALLOC_FL_KEEP_SIZE, len);
    return failed == EOPNOTSUPP ? 0 : failed;
}

int store_open(struct store *s, const char *path, unsigned flags, bool all,
               const struct journal_options *options, struct rbxj_error *e)
{
    struct store new = {0};
    char lock[RECORD_PATH_MAX + 160];
    (void)snprintf(lock, sizeof(lock), "%s/lock.mdb", path);
    bool locked = !(flags & MDB_NOLOCK);
    bool create = flags & STORE_CREATE, slots = flags & STORE_SLOTS;
    flags &= ~(STORE_CREATE | STORE_SLOTS);
    int rc = mdb_env_create(&new.env);
    if (rc == MDB_SUCCESS)
        rc = mdb_env_set_maxdbs(new.env, JOURNAL_MAX_DBS);
    if (rc == MDB_SUCCESS && create) /* later openers use the size that is stored: see store_raise_map() */
        rc = mdb_env_set_mapsize(new.env, options->map_size);
    if (rc == MDB_SUCCESS)
        rc = mdb_env_set_maxreaders(new.env, JOURNAL_MAX_READERS);
    if (rc == MDB_SUCCESS && locked)
        rc = reserve_lock(lock, create);
    if (rc == MDB_SUCCESS)
        rc = mdb_env_open(new.env, path, flags | MDB_NOTLS, 0600);
    if (rc == MDB_SUCCESS)
        rc = mdb_env_get_fd(new.env, &new.fd);
    /* LMDB opens its data file without close-on-exec (0.9.24): every payload would inherit the journal,
     * writable */
    if (rc == MDB_SUCCESS && (fcntl(new.fd, F_SETFD, FD_CLOEXEC) < 0 || fstat(new.fd, &new.data_st) < 0 ||
                              (locked && stat(lock, &new.lock_st) < 0) || !(new.path = strdup(path))))
        rc = errno;
    if (rc == MDB_SUCCESS && create) {
        rc = allocate(new.fd, 0, (off_t)options->preallocate);
        rc = rc == EOPNOTSUPP ? MDB_SUCCESS : rc;
    }
    if (rc == MDB_SUCCESS && locked && !(flags & MDB_RDONLY)) {
        int dead;
        rc = mdb_reader_check(new.env, &dead);
    }
    if (rc == MDB_SUCCESS && !slots)
        rc = open_databases(&new, all, create);
    if (rc == MDB_NOTFOUND) /* no such named database: it was never finished, or isn't ours */
        rc = MDB_INVALID;
    if (rc != MDB_SUCCESS) {
        int r = store_error(e, rc, NULL, path);
        if (new.env)
            mdb_env_close(new.env);
        free(new.path);
        return r;
    }
    *s = new;
    return 0;
}

int store_raise_map(struct store *s, uint64_t size, struct rbxj_error *e)
{
    MDB_envinfo info;
    MDB_txn *txn;
    uint32_t format;
    int rc = mdb_env_info(s->env, &info);
    if (rc == MDB_SUCCESS && size <= info.me_mapsize)
        return 0;
    if (rc == MDB_SUCCESS)
        rc = mdb_env_set_mapsize(s->env, size);
    if (rc == MDB_SUCCESS)
        rc = mdb_txn_begin(s->env, NULL, 0, &txn);
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, s, s->path);
    rc = meta_get(txn, s->meta, META_FORMAT, &format, sizeof(format));
    if (rc == MDB_SUCCESS) /* a commit without a change would not store the new size */
        rc = meta_put(txn, s->meta, META_FORMAT, &format, sizeof(format));
    if (rc == MDB_SUCCESS)
        rc = mdb_txn_commit(txn);
    else
        mdb_txn_abort(txn);
    return rc == MDB_SUCCESS ? 0 : store_error(e, rc, s, s->path);
}

void store_close(struct store *s)
{
    if (s->env)
        mdb_env_close(s->env);
    free(s->path);
    *s = (struct store){0};
}

/* 1, 0, or a negative code. */
static int same_file(const char *dir, const char *name, const struct stat *opened, struct rbxj_error *e)
{
    char path[RECORD_PATH_MAX + 160];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (lstat(path, &st) < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : error_sys(e, errno, "journal %s", path);
    return st.st_dev == opened->st_dev && st.st_ino == opened->st_ino;
}

int store_is_in_place(const struct store *s, struct rbxj_error *e)
{
    int same = same_file(s->path, "data.mdb", &s->data_st, e);
    if (same > 0)
        same = same_file(s->path, "lock.mdb", &s->lock_st, e);
    if (same != 0)
        return same < 0 ? same : 0;
    return error_set(
        e, RBXJ_E_JOURNAL_DAMAGED, ESTALE,
        "journal %s: was removed or replaced while it was in use; nothing new is journaled there", s->path);
}

/* Pages that the newest snapshot uses, free ones left out; only looked at when the high-water mark says
 * so. */
static int free_pages(MDB_env *env, uint64_t *ret)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, data;
    uint64_t count = 0;
    int rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    if (rc != MDB_SUCCESS)
        return rc;
    rc = mdb_cursor_open(txn, 0,
                         &cursor); /* database 0: LMDB's list of free pages, an array with its length first */
    if (rc == MDB_SUCCESS) {
        while ((rc = mdb_cursor_get(cursor, &key, &data, MDB_NEXT)) == MDB_SUCCESS) {
            uint64_t n = 0;
            if (data.mv_size >= sizeof(n))
                memcpy(&n, data.mv_data, sizeof(n));
            count += n;
        }
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    if (rc == MDB_NOTFOUND) {
        *ret = count;
        return MDB_SUCCESS;
    }
    return rc;
}

#define RESERVE_USED(bytes) ((bytes) / 10 * 6)

uint64_t journal_room(uint64_t map)
{
    return RESERVE_USED(map);
}

int store_make_room(struct store *s, const char *what, const struct journal_options *options,
                    struct rbxj_error *e)
{
    MDB_envinfo info;
    MDB_stat stat;
    struct stat st;
    if (mdb_env_info(s->env, &info) != MDB_SUCCESS || mdb_env_stat(s->env, &stat) != MDB_SUCCESS ||
        fstat(s->fd, &st) < 0)
        return error_sys(e, errno, "%s", what);
    uint64_t used = (info.me_last_pgno + 1) * stat.ms_psize, size = (uint64_t)st.st_size, available = 0;
    if (used <= RESERVE_USED(size))
        return 0;
    /* the high-water mark is near; a dead reader pins pages: clear it before that is believed */
    int dead, grow_errno = 0, rc = mdb_reader_check(s->env, &dead);
    if (rc == MDB_SUCCESS)
        rc = free_pages(s->env, &available);
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, s, what);
    used -= available * stat.ms_psize;
    if (used <= RESERVE_USED(size))
        return 0;
    /* ahead of the use, in steps, at most to the map's size */
    uint64_t want = size + (options->preallocate ? options->preallocate : 1 << 20);
    if (want > info.me_mapsize)
        want = info.me_mapsize;
    if (want > size)
        grow_errno = allocate(s->fd, 0, (off_t)want);
    if (want > size && !grow_errno)
        return 0;
    if (grow_errno == EOPNOTSUPP) { /* nothing can be reserved: the map alone is the limit */
        if (used <= RESERVE_USED(info.me_mapsize))
            return 0;
        grow_errno = 0;
    }
    if (grow_errno)
        return error_set(e, RBXJ_E_DISK_FULL, grow_errno, "%s: no room to grow for another intent", what);
    return error_set(e, RBXJ_E_JOURNAL_FULL, 0,
                     "%s: %llu of %llu bytes are used, the rest is kept for undoing: raise map_size", what,
                     (unsigned long long)used, (unsigned long long)info.me_mapsize);
}
