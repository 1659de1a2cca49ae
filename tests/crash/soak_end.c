/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is there at the end: of the boxes nothing, by the system's own view; of the journals' pages as many as
 * at first; of the one that lives throughout no more than after its first boxes.
 */
#include "soak.h"

#include "base/cleanup.h"
#include "journal/internal.h"
#include "reaper/handle.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FLOOR_SLACK 2 /* pages: how many entries of the log are not trimmed yet varies */

void soak_check_failure(struct soak *s)
{
    if (atomic_load(&s->failed))
        fail_msg("%s", s->failure);
}

/* An empty lock file is nobody's: who was killed between making and writing it left it, and rbxj leaves it
 * (K1). */
static bool is_empty_lock(int dirfd, const char *name)
{
    struct stat st;
    const char *dot = strrchr(name, '.');
    return dot && strcmp(dot, ".lock") == 0 && fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISREG(st.st_mode) && st.st_size == 0;
}

/* Nothing is in a directory but what was there before: the targets of the mounts, or a cgroup's own files. */
static void check_directory(const char *path, bool is_group)
{
    _cleanup_closedir_ DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir));) {
        const char *dot = strrchr(d->d_name, '.');
        bool before = is_group ? d->d_type != DT_DIR : dot && strcmp(dot, ".mnt") == 0;
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0 && !before &&
            !is_empty_lock(dirfd(dir), d->d_name))
            fail_msg("%s/%s is left", path, d->d_name);
    }
}

void soak_check_system(struct soak *soak)
{
    check_directory(soak->work, false);
    check_directory(soak->group, true);
    if (soak->group_v1)
        check_directory(soak->group_v1, true);
    assert_int_equal(harness_mounts_below(soak->work), 0);
    for (unsigned i = 0; i < soak->slots; i++)
        check_directory(harness_format("%s/s%02u.mnt", soak->work, i), false);
    /* no payload either: we are the parent of those that lost theirs */
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    assert_true(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
}

static uint64_t pages_of(MDB_txn *txn, MDB_dbi dbi)
{
    MDB_stat stat;
    assert_int_equal(mdb_stat(txn, dbi, &stat), 0);
    return stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
}

/* LMDB's database 0 is its list of free pages, an array with its length first; database 1 names the
 * others. */
static struct soak_pages count_pages(struct store *store, bool boot)
{
    const MDB_dbi dbis[] = {1,           store->meta, store->records, store->log, store->marks, store->names,
                            store->boxes};
    struct soak_pages p = {0};
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, data;
    MDB_envinfo info;
    MDB_stat stat;
    uint64_t known = 2, n; /* the two meta pages */
    assert_int_equal(mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_cursor_open(txn, 0, &cursor), 0);
    while (mdb_cursor_get(cursor, &key, &data, MDB_NEXT) == 0) {
        memcpy(&n, data.mv_data, sizeof(n));
        known += n;
    }
    mdb_cursor_close(cursor);
    for (size_t i = 0; i < (boot ? ARRAY_LEN(dbis) : 3); i++)
        p.used += pages_of(txn, dbis[i]);
    known += pages_of(txn, 0);
    assert_int_equal(mdb_stat(txn, store->records, &stat), 0);
    p.records = stat.ms_entries;
    mdb_txn_abort(txn);
    assert_int_equal(mdb_env_info(store->env, &info), 0);
    p.last = info.me_last_pgno + 1;
    p.lost = p.last - known - p.used;
    return p;
}

/* In a process of its own: the pages of both journals after a few boxes that came and went. */
void soak_look_at_pages(struct soak *soak, struct soak_pages ret[2])
{
    struct soak_pages *shared = mmap(NULL, 2 * sizeof(*ret), PROT_READ | PROT_WRITE,
                                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    pid_t pid = fork();
    if (pid == 0) {
        struct rbxj *handle;
        struct rbxj_error e = {0};
        const struct rbxj_resource plan = {.kind = RBXJ_TMPDIR,
                                           .path = harness_format("%s/pages", soak->work)};
        const struct rbxj_box box = {.name = "pages", .plan = &plan, .plan_len = 1};
        int r = rbxj_open(&soak->options, &handle, &e);
        for (int i = 0; r == 0 && i < 50; i++)
            if ((r = rbxj_begin(handle, &box, NULL, &e)) == 0 &&
                (r = rbxj_undo(handle, box.name, NULL, &e)) == 0)
                r = rbxj_end(handle, box.name, &e);
        if (r == 0)
            r = journal_flush(handle->journal, &e);
        if (r < 0)
            (void)soak_fail(soak, "pages: %s", e.message);
        if (r == 0) {
            shared[0] = count_pages(&handle->journal->boot, true);
            shared[1] = count_pages(&handle->journal->disk, false);
        }
        rbxj_close(handle);
        _exit(0);
    }
    assert_true(pid > 0 && waitpid(pid, NULL, 0) == pid);
    memcpy(ret, shared, 2 * sizeof(*ret));
    (void)munmap(shared, 2 * sizeof(*ret));
    soak_check_failure(soak);
}

void soak_check_pages(struct soak *soak, const struct soak_pages floor[2])
{
    static const char *const names[] = {"boot", "disk"};
    struct soak_pages now[2];
    soak_look_at_pages(soak, now);
    for (int i = 0; i < 2; i++) {
        const struct soak_pages *p = &now[i];
        print_message("%s journal: %" PRIu64 " pages used, %" PRIu64 " at first, %" PRIu64 " at most\n",
                      names[i], p->used, floor[i].used, p->last);
        if (p->records != 0 || p->lost != 0 || p->used > floor[i].used + FLOOR_SLACK)
            fail_msg("%s journal: %" PRIu64 " pages are used by %" PRIu64 " records, %" PRIu64
                     " were at first; %" PRIu64 " are lost",
                     names[i], p->used, p->records, floor[i].used, p->lost);
    }
}

/* A leak of a few bytes a box shows in a long run. */
void soak_check_growth(struct soak *soak)
{
    const struct soak_size *a = &soak->first, *b = &soak->last;
    print_message("s00: %u boxes, %zu descriptors, %zu bytes allocated, %zu KiB anonymous memory\n",
                  atomic_load(&soak->lived), b->descriptors, b->heap, b->anonymous / 1024);
    if (a->descriptors == 0)
        return; /* so slow a machine that it never warmed up */
    if (b->descriptors > a->descriptors || b->heap > a->heap + (256 << 10) ||
        b->anonymous > a->anonymous + (4 << 20))
        fail_msg("it grew from %zu descriptors, %zu bytes, %zu KiB", a->descriptors, a->heap,
                 a->anonymous / 1024);
}
