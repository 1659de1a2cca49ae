/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Opening and closing. The order at open, each step resting on the one before:
 *   1  the two directories are sound
 *   2  the creation lock, in STATE/alive
 *   3  the disk journal is there
 *   4  nobody uses it with another boot or runtime directory, and we are counted
 *   5  the boot journal is there
 *   6  they belong together
 *   7  the creation lock is let go
 */
#include "journal/journal.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* The one open journal of this process; a second would drop the first one's record locks when it closes. */
static _Atomic(struct journal *) process_journal;
static struct journal *lost_journals; /* whose descriptors the program has closed */

static int open_dirs(struct journal *j, struct rbxj_error *e)
{
    j->state_fd = files_open_dir(j->state_dir, "state directory", e);
    if (j->state_fd == -ENOENT)
        return belongs_missing(j->state_dir, e);
    if (j->state_fd < 0)
        return j->state_fd;
    j->runtime_fd = files_open_dir(j->runtime_dir, "runtime directory", e);
    if (j->runtime_fd == -ENOENT) { /* /run is empty at every boot */
        if (mkdir(j->runtime_dir, 0700) < 0 && errno != EEXIST)
            return error_sys(e, errno, "runtime directory %s", j->runtime_dir);
        j->runtime_fd = files_open_dir(j->runtime_dir, "runtime directory", e);
    }
    return j->runtime_fd < 0 ? j->runtime_fd : 0;
}

/* K33: an empty state directory beside a boot journal is one whose disk isn't mounted: not even the lock file
 * is made there. (The first thing that an opener makes is STATE/alive.) */
static int check_mounted(struct journal *j, const char *boot_data, struct rbxj_error *e)
{
    struct stat st;
    if (fstatat(j->runtime_fd, boot_data, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : error_sys(e, errno, "%s/%s", j->runtime_dir, boot_data);
    int empty = fd_dir_is_empty(j->state_fd);
    if (empty < 0)
        return error_sys(e, -empty, "state directory %s", j->state_dir);
    return empty ? belongs_emptied(j->state_dir, e) : 0;
}

static int open_alive(struct journal *j, struct rbxj_error *e)
{
    j->alive_fd = alive_open(j->state_fd);
    if (j->alive_fd < 0)
        return error_sys(e, -j->alive_fd, "%s/alive", j->state_dir);
    if (fstat(j->alive_fd, &j->alive_st) < 0)
        return error_sys(e, errno, "%s/alive", j->state_dir);
    if (!S_ISREG(j->alive_st.st_mode) || j->alive_st.st_uid != geteuid())
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0, "%s/alive: is not a regular file of ours",
                         j->state_dir);
    return 0;
}

static void leave_creation(struct journal *j)
{
    (void)fd_record_lock(j->alive_fd, F_UNLCK, ALIVE_CREATE_BYTE);
}

static int check_format(struct store *s, const char *path, struct rbxj_error *e)
{
    uint32_t format;
    int rc = store_read_meta(s, META_FORMAT, &format, sizeof(format));
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, s, path);
    if (format > JOURNAL_FORMAT)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0,
                         "journal %s: has format %u, this version knows only up to %u", path, format,
                         JOURNAL_FORMAT);
    return 0;
}

/* Was the state directory ever used? Then a missing data file is damage, not a beginning. 1, 0, or -errno. */
static int state_was_used(struct journal *j, bool boot_exists)
{
    struct stat st;
    if (boot_exists || j->alive_st.st_size > 0 ||
        fstatat(j->state_fd, "journal", &st, AT_SYMLINK_NOFOLLOW) == 0)
        return 1;
    return errno == ENOENT ? files_have_aside(j->state_fd) : -errno;
}

/* Before anything says that the state directory was used: a crash between the two must not look like
 * damage. */
static int make_disk(struct journal *j, const char *boot_data, bool boot_exists, struct rbxj_error *e)
{
    char data[RECORD_PATH_MAX + 48];
    (void)snprintf(data, sizeof(data), "%s/journal/data.mdb", j->state_dir);
    int r = files_check_data(j->state_fd, "journal/data.mdb", data, true, e);
    int other = r == -ENOENT && boot_exists
                    ? copy_check_state(j->runtime_fd, boot_data, j->folder, j->state_fd, j->state_dir, e)
                    : 0;
    if (other < 0)
        return other;
    int used = r == -ENOENT ? state_was_used(j, boot_exists) : 0;
    if (used < 0)
        return error_sys(e, -used, "state directory %s: was it used", j->state_dir);
    if (used)
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0,
                         "journal %s: is missing from a state directory that was used", data);
    if (r == -ENOENT) {
        random_bytes(j->instance, 16);
        return create_disk_journal(j->state_fd, j->state_dir, &j->options, j->instance, NULL, NULL, e);
    }
    /* nobody came further than its maker, who died, or failed, where its name may not be on disk yet */
    int synced = r == 0 && j->alive_st.st_size == 0 ? create_sync_dir(j->state_fd) : 0;
    return synced < 0 ? error_sys(e, -synced, "%s", j->state_dir) : r;
}

static int open_disk(struct journal *j, struct rbxj_error *e)
{
    char path[RECORD_PATH_MAX + 32];
    (void)snprintf(path, sizeof(path), "%s/journal", j->state_dir);
    int r = sound_check(j->state_fd, "journal/data.mdb", path, j->gates ? &j->gates->sound_disk : NULL,
                        j->gates ? &j->gates->disk : NULL, j->options.gate_timeout_ns, e);
    if (r == 0)
        r = store_open(&j->disk, path, 0, false, &j->options, e);
    if (r == -RBXJ_E_JOURNAL_DAMAGED && j->gates)
        atomic_store(&j->gates->sound_disk.ino, 0);
    if (r == 0)
        r = check_format(&j->disk, path, e);
    if (r < 0)
        return r;
    j->disk.sound = j->gates ? &j->gates->sound_disk : NULL;
    int rc = store_read_meta(&j->disk, META_INSTANCE, j->instance, 16);
    return rc == MDB_SUCCESS ? 0 : store_error(e, rc, &j->disk, path);
}

static int map_gate(struct journal *j, struct rbxj_error *e)
{
    char path[RECORD_PATH_MAX + 128];
    (void)snprintf(path, sizeof(path), "%s/gate", j->folder);
    _cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    int r = fd < 0 ? error_sys(e, errno, "journal %s", path) : belongs_check_gate(fd, path, e);
    if (r < 0)
        return r;
    void *page = mmap(NULL, sizeof(struct gate_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return error_sys(e, errno, "journal %s", path);
    j->gates = page;
    return 0;
}

/* Before the boot journal is looked at, which goes on meanwhile. */
static int read_disk_pair(struct journal *j, struct belongs *ret, struct rbxj_error *e)
{
    *ret = (struct belongs){0};
    memcpy(ret->instance, j->instance, 16);
    memcpy(ret->boot, j->boot_id, 16);
    int rc = store_read_meta(&j->disk, META_COVERED, &ret->position, sizeof(ret->position));
    if (rc == MDB_SUCCESS)
        rc = store_read_meta(&j->disk, META_GENERATION, ret->generation, 16);
    return rc == MDB_SUCCESS || rc == MDB_NOTFOUND ? 0 : store_error(e, rc, &j->disk, j->disk.path);
}

static int open_boot(struct journal *j, const char *data, struct rbxj_error *e)
{
    struct belongs own, disk;
    uint64_t state[2];
    int r = sound_check(j->runtime_fd, data, j->folder, &j->gates->sound_boot, &j->gates->boot,
                        j->options.gate_timeout_ns, e);
    if (r == 0)
        r = store_open(&j->boot, j->folder, MDB_NOSYNC, true, &j->options, e);
    if (r == -RBXJ_E_JOURNAL_DAMAGED)
        atomic_store(&j->gates->sound_boot.ino, 0);
    if (r == 0)
        r = check_format(&j->boot, j->folder, e);
    if (r < 0)
        return r;
    j->boot.sound = &j->gates->sound_boot;
    j->disk.sound = &j->gates->sound_disk;
    if ((r = read_disk_pair(j, &disk, e)) < 0)
        return r;
    int rc = store_read_meta(&j->boot, META_INSTANCE, own.instance, 16);
    if (rc == MDB_SUCCESS)
        rc = store_read_meta(&j->boot, META_BOOT, own.boot, 16);
    if (rc == MDB_SUCCESS)
        rc = store_read_meta(&j->boot, META_GENERATION, j->generation, 16);
    if (rc == MDB_SUCCESS)
        rc = store_read_meta(&j->boot, META_POSITION, &own.position, sizeof(own.position));
    if (rc == MDB_SUCCESS)
        rc = store_read_meta(&j->boot, META_STATE_DIR, state, sizeof(state));
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, &j->boot, j->folder);
    memcpy(own.generation, j->generation, 16);
    r = belongs_check(&own, &disk, j->folder, j->state_dir, e);
    return r < 0 ? r : belongs_check_state(state[1], j->state_fd, j->state_dir, e);
}

/* Does everything of this generation go to disk? Only then is a new one in the same boot no loss (K21). */
static int note_durability(struct journal *j, struct rbxj_error *e)
{
    uint32_t always;
    MDB_txn *txn;
    int rc = store_read_meta(&j->disk, META_ALWAYS, &always, sizeof(always));
    if (rc == MDB_SUCCESS && (j->options.always || !always))
        return 0;
    always = 0;
    if (rc != MDB_SUCCESS)
        return store_error(e, rc, &j->disk, j->disk.path);
    int r = gate_lock(&j->gates->disk, "disk journal", j->options.gate_timeout_ns, e);
    if (r < 0)
        return r;
    r = alive_lock_disk(j, e);
    if (r == 0 && (rc = mdb_txn_begin(j->disk.env, NULL, 0, &txn)) == MDB_SUCCESS) {
        rc = meta_put(txn, j->disk.meta, META_ALWAYS, &always, sizeof(always));
        if (rc == MDB_SUCCESS)
            rc = mdb_txn_commit(txn);
        else
            mdb_txn_abort(txn);
    }
    if (r == 0)
        alive_unlock_disk(j);
    gate_pass(&j->gates->disk);
    return r < 0 ? r : rc == MDB_SUCCESS ? 0 : store_error(e, rc, &j->disk, j->disk.path);
}

/* ---- alone, or beside others ----
 *
 * Who is the first, or finds no boot journal, has the creation lock exclusively: it may create, and raise the
 * map. Everybody else shares it, so that many open at once, each waiting its turn at a gate for the one step
 * in which LMDB's own lock might make it wait without a bound. */

/* 1: open; 0: only who is alone can go on. */
static int open_shared(struct journal *j, const char *data, struct rbxj_error *e)
{
    int r = files_check_data(j->runtime_fd, data, j->folder, true, e);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if ((r = make_disk(j, data, true, e)) < 0 || (r = alive_enter(j, false, e)) < 0)
        return r == -EAGAIN ? 0 : r;
    if ((r = map_gate(j, e)) < 0 ||
        (r = gate_lock(&j->gates->open, j->folder, j->options.gate_timeout_ns, e)) < 0)
        return r;
    r = open_disk(j, e);
    if (r == 0)
        r = open_boot(j, data, e);
    gate_unlock(&j->gates->open);
    if (r == 0)
        r = note_durability(j, e);
    return r < 0 ? r : 1;
}

static int open_alone(struct journal *j, const char *data, struct rbxj_error *e)
{
    int found = files_check_data(j->runtime_fd, data, j->folder, true, e);
    if (found < 0 && found != -ENOENT)
        return found;
    int r = make_disk(j, data, found == 0, e);
    if (r < 0 || (r = alive_enter(j, true, e)) < 0 || (found == 0 && (r = map_gate(j, e)) < 0) ||
        (r = open_disk(j, e)) < 0)
        return r;
    if (found == -ENOENT && ((r = create_boot_journal(j, e)) < 0 || (r = map_gate(j, e)) < 0))
        return r;
    if (found == -ENOENT) /* it was looked at before there was a gate */
        sound_stamp(&j->gates->sound_disk, j->state_fd, "journal/data.mdb");
    if ((r = open_boot(j, data, e)) < 0 || (r = note_durability(j, e)) < 0)
        return r;
    if (j->alone && ((r = store_raise_map(&j->disk, j->options.map_size, e)) < 0 ||
                     (r = store_raise_map(&j->boot, j->options.map_size, e)) < 0))
        return r;
    return 1;
}

/* 1: it is open, 0: somebody else has the creation lock, or only the other way is open. */
static int try_open(struct journal *j, const char *data, struct rbxj_error *e)
{
    struct stat st;
    int others = fd_record_holder(j->alive_fd, ALIVE_OPEN_BYTE, NULL);
    bool share = others > 0 && fstatat(j->runtime_fd, data, &st, AT_SYMLINK_NOFOLLOW) == 0;
    int r = others < 0 ? others : fd_record_lock(j->alive_fd, share ? F_RDLCK : F_WRLCK, ALIVE_CREATE_BYTE);
    if (r < 0)
        return r == -EAGAIN ? 0 : error_sys(e, -r, "%s/alive: its lock", j->state_dir);
    r = share ? open_shared(j, data, e) : open_alone(j, data, e);
    leave_creation(j);
    return r;
}

static int open_with_a_bound(struct journal *j, const char *data, struct rbxj_error *e)
{
    int64_t deadline = now_monotonic_ns() + j->options.gate_timeout_ns;
    pid_t pid = 0;
    for (int r; (r = try_open(j, data, e)) <= 0;) {
        if (r < 0)
            return r;
        if (now_monotonic_ns() >= deadline) {
            (void)fd_record_holder(j->alive_fd, ALIVE_CREATE_BYTE, &pid);
            return error_set(e, RBXJ_E_JOURNAL_BUSY, 0, "journal %s: pid %d has been opening it for too long",
                             j->state_dir, pid);
        }
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return 0;
}

int journal_find_self(struct procid *ret, struct rbxj_error *e)
{
    int r = procid_of(getpid(), ret);
    if (r == -EXDEV)
        return error_set(e, RBXJ_E_BAD_REQUEST, EXDEV,
                         "/proc: is not that of this process' pid namespace, or is not mounted");
    return r < 0 ? error_sys(e, -r, "identity of this process") : 0;
}

static int open_all(struct journal *j, struct rbxj_error *e)
{
    char data[RECORD_PATH_MAX + 128], boot_hex[33], name[64];
    int r = procid_boot(j->boot_id);
    if (r < 0)
        return error_sys(e, -r, "boot id");
    r = journal_find_self(&j->self, e);
    if (r < 0)
        return r;
    hex_encode(boot_hex, j->boot_id, 16);
    (void)snprintf(name, sizeof(name), "journal-%s", boot_hex);
    if (asprintf(&j->folder, "%s/%s", j->runtime_dir, name) < 0) {
        j->folder = NULL;
        return error_sys(e, ENOMEM, "journal");
    }
    (void)snprintf(data, sizeof(data), "%s/data.mdb", name);
    if ((r = open_dirs(j, e)) < 0 || (r = check_mounted(j, data, e)) < 0 || (r = open_alive(j, e)) < 0)
        return r;
    return open_with_a_bound(j, data, e);
}

/* Makes j the one of this process. One that was inherited by fork() is the parent's and does not count. */
bool journal_become_the_one(struct journal *j)
{
    struct journal *other = atomic_load(&process_journal);
    while (!other || !forked_is_self(&other->opener))
        if (atomic_compare_exchange_weak(&process_journal, &other, j))
            return true;
    return false;
}

void journal_step_down(struct journal *j)
{
    struct journal *self = j;
    (void)atomic_compare_exchange_strong(&process_journal, &self, NULL);
}

int journal_open(const struct journal_options *options, struct journal **ret, struct rbxj_error *e)
{
    struct journal *j = calloc(1, sizeof(*j));
    if (!j)
        return error_sys(e, ENOMEM, "journal");
    j->options = *options;
    j->opener = forked_self();
    j->state_fd = j->runtime_fd = j->alive_fd = -1;
    j->state_dir = strdup(options->state_dir);
    j->runtime_dir = strdup(options->runtime_dir);
    if (!j->state_dir || !j->runtime_dir) {
        journal_close(j);
        return error_sys(e, ENOMEM, "journal");
    }
    if (!journal_become_the_one(j)) {
        free(j->state_dir);
        free(j->runtime_dir);
        free(j);
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "journal %s: this process has a journal open already",
                         options->state_dir);
    }
    _cleanup_(fd_low_release) struct fd_low low = {.len = 0};
    int r = fd_low_hold(&low);
    r = r < 0 ? error_sys(e, -r, "journal %s", options->state_dir) : open_all(j, e);
    if (r < 0) {
        journal_close(j);
        return r;
    }
    *ret = j;
    return 0;
}

void journal_close(struct journal *j)
{
    struct journal *self = j;
    if (!j)
        return;
    /* In a child of fork() the environments belong to the parent. Its copies of the descriptors stay, too: to
     * close one of STATE/alive would drop the locks of a journal that the child has opened itself; and where
     * it has closed them, something else of it has their numbers. So it is in a process that has closed its
     * own. */
    bool whole = j->gates != NULL, own = forked_is_self(&j->opener);
    bool lost = own && whole && journal_check_handle(j, NULL) < 0;
    if (own && !lost) {
        if (whole)
            (void)leftover_retry(j, NULL);
        store_close(&j->boot);
        store_close(&j->disk);
        if (j->alive_fd >= 0)
            (void)fd_record_lock(j->alive_fd, F_UNLCK, ALIVE_CREATE_BYTE);
        alive_close(j->alive_fd);
        if (j->runtime_fd >= 0)
            (void)close(j->runtime_fd);
        if (j->state_fd >= 0)
            (void)close(j->state_fd);
    }
    if (j->gates)
        (void)munmap(j->gates, sizeof(*j->gates));
    (void)atomic_compare_exchange_strong(&process_journal, &self, NULL);
    if (lost) { /* LMDB gives no memory back without closing those numbers */
        j->next_lost = lost_journals;
        lost_journals = j;
        return;
    }
    free(j->folder);
    free(j->state_dir);
    free(j->runtime_dir);
    free(j);
}

/* Where it can't be asked its name must do. */
static bool is_dir(const char *path, int fd, const char *name)
{
    struct stat named, opened;
    if (stat(path, &named) < 0 || fstat(fd, &opened) < 0)
        return errno != ENOENT && strcmp(path, name) == 0;
    return named.st_dev == opened.st_dev && named.st_ino == opened.st_ino;
}

struct journal *journal_of_process(const char *state_dir, const char *runtime_dir)
{
    struct journal *j = atomic_load(&process_journal);
    /* by identity: under another spelling of its paths a second look would drop its locks, too */
    bool same = j && forked_is_self(&j->opener) && is_dir(state_dir, j->state_fd, j->state_dir) &&
                is_dir(runtime_dir, j->runtime_fd, j->runtime_dir);
    return same ? j : NULL;
}

const struct journal *journal_with_alive(const struct stat *alive)
{
    const struct journal *j = atomic_load(&process_journal);
    bool same = j && forked_is_self(&j->opener) && j->alive_st.st_dev == alive->st_dev &&
                j->alive_st.st_ino == alive->st_ino;
    return same ? j : NULL;
}
