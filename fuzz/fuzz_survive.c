/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the independent reader accepts liblmdb survives: open, scan, 60 commits, scan, in a process of its
 * own. Whatever it returns is fine if it returns.
 */
#include "fuzz.h"
#include "newest.h"

#include "base/fd.h"
#include "journal/pages.h"

#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COMMITS = 60, DBS_MAX = 8, SECONDS_MAX = 20 };

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    return data_file_mutate(data, size, max, seed);
}

/* ---- the child ---- */

static MDB_dbi dbs[DBS_MAX];
static int dbs_len;
static uint64_t sum;

static int open_dbs(MDB_env *env, const struct pages *p)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(env, NULL, 0, &txn);
    for (size_t i = 0; rc == 0 && i < p->dbs_len && i < DBS_MAX; i++)
        rc = mdb_dbi_open(txn, p->dbs[i].name, 0, &dbs[dbs_len++]);
    if (rc == 0)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc;
}

static int scan(MDB_env *env)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    for (int i = 0; rc == 0 && i < dbs_len; i++) {
        MDB_cursor *cursor;
        MDB_val key, value;
        rc = mdb_cursor_open(txn, dbs[i], &cursor);
        if (rc != 0)
            break;
        while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
            for (size_t k = 0; k < key.mv_size; k++)
                sum += ((const uint8_t *)key.mv_data)[k];
            for (size_t k = 0; k < value.mv_size; k++)
                sum += ((const uint8_t *)value.mv_data)[k];
        }
        mdb_cursor_close(cursor);
        rc = rc == MDB_NOTFOUND ? 0 : rc;
    }
    mdb_txn_abort(txn);
    return rc;
}

/* The i-th change: a new key, of any length, or the end of one that is there. */
static int change(MDB_txn *txn, int i)
{
    static uint8_t bytes[9000];
    MDB_dbi db = dbs[i % dbs_len];
    uint8_t name[300] = {(uint8_t)(i * 37), (uint8_t)i};
    MDB_val key = {i % 7 ? 12 : sizeof(name), name}, value = {i % 5 ? 150 : sizeof(bytes), bytes};
    if (i % 3)
        return mdb_put(txn, db, &key, &value, 0);
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, db, &cursor);
    if (rc != 0)
        return rc;
    rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    if (rc == 0)
        rc = mdb_cursor_del(cursor, 0);
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int commit(MDB_env *env, int i)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(env, NULL, 0, &txn);
    for (int k = 0; rc == 0 && k < 3; k++)
        rc = change(txn, 3 * i + k);
    if (rc == 0)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc;
}

static _Noreturn void use(const char *path, const struct pages *p)
{
    const struct rlimit none = {0};
    MDB_env *env;
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)alarm(SECONDS_MAX);
    int rc = mdb_env_create(&env);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(env, DBS_MAX);
    if (rc == 0)
        rc = mdb_env_set_mapsize(env, 8 << 20);
    if (rc == 0)
        rc = mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC, 0600);
    if (rc == 0)
        rc = open_dbs(env, p);
    if (rc == 0)
        rc = scan(env);
    for (int i = 0; rc == 0 && dbs_len && i < COMMITS; i++)
        rc = commit(env, i);
    if (rc == 0)
        rc = scan(env);
    _exit(rc ? 3 : 0);
}

/* ---- the fuzzer ---- */

static char path[] = "/dev/shm/rbxj-fuzz-XXXXXX";
static int file = -1;
static pid_t maker;

static void clean(void)
{
    if (getpid() == maker)
        (void)unlink(path);
}

static void write_input(const uint8_t *data, size_t size)
{
    if (file < 0) {
        maker = getpid();
        file = mkstemp(path);
        if (file < 0 || atexit(clean) != 0)
            abort();
    }
    if (ftruncate(file, 0) < 0 || lseek(file, 0, SEEK_SET) < 0 || fd_write_all(file, data, size) < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pages p;
    int status, newest = pages_newest(data, size);
    if (newest < 0 || pages_open(data, size, newest, &p, NULL) < 0)
        return 0;
    write_input(data, size);
    pid_t pid = fork();
    if (pid == 0)
        use(path, &p);
    while (pid > 0 && waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) /* by the fuzzer's own clock */
            abort();
    if (pid < 0)
        abort();
    pages_clear(&p);
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3))
        return 0;
    (void)fprintf(stderr, "liblmdb: status 0x%x\n", (unsigned)status);
    abort();
}
