/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What it costs not to believe a journal:
 *
 *     pages DIR RECORDS ROUNDS    DIR: two empty directories in it, state and run
 *
 * A journal of so many live records, made as supervisors make it, is read over and over, by turns: liblmdb
 * scans all its databases, each value, from opening to closing; the independent reader validates it, from
 * opening to closing; in memory a checksum is taken over the file, and it is carved. Prints the median of
 * each, in processor time, which other work on the machine disturbs least, and the two ratios; ends with 1 if
 * one of them is above 2.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/image.h"
#include "journal/internal.h"
#include "journal/salvage.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define RECORDS_OF_BOX 40 /* its header and directories */
#define ROUNDS_MAX 99

static void fail(const char *what, const char *why)
{
    (void)fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

#define must(expression)                                                                                     \
    do {                                                                                                     \
        if (!(expression))                                                                                   \
            fail(#expression, strerror(errno));                                                              \
    } while (0)

static struct {
    const char *dir;
    char data[RECORD_PATH_MAX], folder[RECORD_PATH_MAX];
    uint64_t records;
    struct whole file;
} bench;

/* ---- a journal ---- */

static void random_id(struct fileid *id)
{
    random_bytes(id, sizeof(*id));
    id->handle_len = 12;
}

static void fill_record(struct record *r, uint64_t box, uint32_t seq)
{
    *r = (struct record){.kind = RBXJ_TMPDIR, .time_ns = now_realtime_ns(), .mount_ns = 4026531841};
    must(asprintf(&r->path, "/srv/boxes/%" PRIu64 "/directory-%u", box, seq) > 0);
    random_id(&r->parent);
    random_bytes(r->nonce, sizeof(r->nonce));
}

static void make_box(struct journal *j, uint64_t number)
{
    struct box box = {.supervisor = *journal_self(j), .begun_ns = now_realtime_ns()};
    struct record plan[RECORDS_OF_BOX - 1];
    struct rbxj_error e = {0};
    (void)snprintf(box.name, sizeof(box.name), "%" PRIu64, number);
    for (uint32_t i = 0; i < ARRAY_LEN(plan); i++)
        fill_record(&plan[i], number, i + 1);
    if (journal_begin(j, &box, plan, ARRAY_LEN(plan), &e) < 0)
        fail("begin", e.message);
    for (size_t i = 0; i < ARRAY_LEN(plan); i++) {
        random_id(&plan[i].id);
        plan[i].flags |= REC_EVIDENCE;
        if (journal_update(j, &plan[i], false, &e) < 0)
            fail("update", e.message);
        record_clear(&plan[i]);
    }
}

static void make_journal(void)
{
    char state[RECORD_PATH_MAX], run[RECORD_PATH_MAX];
    const struct journal_options options = {.state_dir = state,
                                            .runtime_dir = run,
                                            .map_size = 1 << 30,
                                            .preallocate = 4 << 20,
                                            .gate_timeout_ns = 10000000000};
    struct journal *j;
    struct rbxj_error e = {0};
    (void)snprintf(state, sizeof(state), "%s/state", bench.dir);
    (void)snprintf(run, sizeof(run), "%s/run", bench.dir);
    if (journal_open(&options, &j, &e) < 0)
        fail("open", e.message);
    (void)snprintf(bench.folder, sizeof(bench.folder), "%s", j->folder);
    (void)snprintf(bench.data, sizeof(bench.data), "%s/data.mdb", j->folder);
    for (uint64_t i = 0; i < bench.records / RECORDS_OF_BOX; i++)
        make_box(j, i);
    journal_close(j);
}

/* ---- what is compared ---- */

static volatile uint64_t sink; /* what was computed is used */

static int64_t now_cpu_ns(void)
{
    struct timespec t;
    must(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void scan_one(MDB_txn *txn, MDB_dbi db, uint64_t *ret_n)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    must(mdb_cursor_open(txn, db, &cursor) == 0);
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
        sink += XXH3_64bits(value.mv_data, value.mv_size);
        ++*ret_n;
    }
    mdb_cursor_close(cursor);
}

/* Every value of every database. */
static void scan_by_lmdb(void)
{
    static const char *const names[] = {DB_META, DB_RECORDS, DB_LOG, DB_MARKS, DB_NAMES, DB_BOXES};
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi db;
    uint64_t n = 0;
    must(mdb_env_create(&env) == 0 && mdb_env_set_maxdbs(env, ARRAY_LEN(names)) == 0);
    must(mdb_env_open(env, bench.folder, MDB_RDONLY | MDB_NOLOCK, 0) == 0);
    must(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) == 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        must(mdb_dbi_open(txn, names[i], 0, &db) == 0);
        scan_one(txn, db, &n);
    }
    mdb_txn_abort(txn);
    mdb_env_close(env);
    must(n >= bench.records);
}

static void validate(void)
{
    struct image image;
    struct pages_fault fault;
    int fd = open(bench.data, O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && image_read(fd, &image, &fault) == 0);
    sink += image.pages.live;
    image_clear(&image);
    (void)close(fd);
}

/* Over the bytes in memory, and the carver's way through them. */
static void checksum(void)
{
    sink += XXH3_64bits(bench.file.bytes, bench.file.len);
}

static void carve(void)
{
    struct autopsy a = {.file = bench.file};
    must(autopsy_carve(&a) == 0 && a.records_len >= bench.records);
    free(a.records);
}

/* Everything that forensics does, the file read anew. */
static void examine(void)
{
    struct autopsy a;
    must(autopsy_read(AT_FDCWD, bench.data, bench.data, &a, NULL) == 0);
    must(a.count[CARVED_INTACT] == bench.records);
    autopsy_clear(&a);
}

/* ---- measuring ---- */

static struct measure {
    const char *what;
    void (*run)(void);
    double ms[ROUNDS_MAX];
} measures[] = {{"liblmdb scans it", scan_by_lmdb, {0}},
                {"validation", validate, {0}},
                {"checksum", checksum, {0}},
                {"carving", carve, {0}},
                {"all of forensics", examine, {0}}};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(struct measure *m, int rounds)
{
    qsort(m->ms, (size_t)rounds, sizeof(*m->ms), compare);
    printf("%-18s %8.2f ms\n", m->what, m->ms[rounds / 2]);
    return m->ms[rounds / 2];
}

static void read_whole(void)
{
    int fd = open(bench.data, O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && whole_read(fd, &bench.file) == 0);
    (void)close(fd);
}

int main(int argc, char **argv)
{
    int rounds = argc == 4 ? atoi(argv[3]) : 0;
    double medians[ARRAY_LEN(measures)];
    if (rounds < 1 || rounds > ROUNDS_MAX)
        fail("usage", "pages DIR RECORDS ROUNDS");
    bench.dir = argv[1];
    bench.records = strtoull(argv[2], NULL, 10);
    make_journal();
    read_whole();
    printf("%" PRIu64 " records, %.1f MiB\n", bench.records, (double)bench.file.len / (1 << 20));
    for (int i = 0; i < rounds; i++) {
        for (size_t k = 0; k < ARRAY_LEN(measures); k++) {
            int64_t start = now_cpu_ns();
            measures[k].run();
            measures[k].ms[i] = (double)(now_cpu_ns() - start) / 1e6;
        }
    }
    for (size_t k = 0; k < ARRAY_LEN(measures); k++)
        medians[k] = median(&measures[k], rounds);
    double validation = medians[1] / medians[0], carving = medians[3] / medians[2];
    printf("validation takes %.2f of liblmdb's scan, carving %.2f of a checksum\n", validation, carving);
    return validation > 2 || carving > 2;
}
