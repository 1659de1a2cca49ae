/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For the tests of src/journal: scratch directories with a journal, boxes with directories in them, other
 * boots, and other processes.
 *
 *     struct place p = place_make();                    state on disk, runtime on a tmpfs; both empty
 *     struct journal *j = place_open(&p);
 *     struct box box = must_begin(j, "a", harness_format("%s/x", p.kept), NULL);
 *     pid_t pid = CHILD({ CHECK(...); });               ends with 0, or with what CHECK found
 */
#ifndef RBXJ_TESTS_JOURNAL_FIXTURE_H
#define RBXJ_TESTS_JOURNAL_FIXTURE_H

#include "harness.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "journal/internal.h"
#include "reaper/undo.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

/* ---- other boots: the library's look at the boot id comes here ---- */

static uint8_t boot_number; /* 0: the machine's own */

int sd_id128_get_boot(sd_id128_t *ret)
{
    char text[64] = "";
    ssize_t n = fd_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", text, sizeof(text));
    if (n < 0)
        return (int)n;
    text[strcspn(text, "\n")] = 0;
    int r = sd_id128_from_string(text, ret);
    if (r == 0)
        ret->bytes[15] ^= boot_number;
    return r;
}

/* ---- a place for journals ---- */

struct place {
    const char *state, *runtime;
    const char *kept; /* a directory on disk: what is in it outlives the boot */
    const char *lost; /* a directory on a tmpfs */
    struct journal_options options;
};

static inline struct place place_in(const char *state_parent, const char *runtime_parent)
{
    struct place p = {
        .state = harness_format("%s/state", state_parent),
        .runtime = harness_format("%s/run", runtime_parent),
        .kept = harness_format("%s/kept", harness_disk()),
        .lost = harness_format("%s/lost", harness_tmpfs()),
    };
    harness_mkdir(p.state);
    harness_mkdir(p.kept);
    harness_mkdir(p.lost);
    p.options = (struct journal_options){
        .state_dir = p.state,
        .runtime_dir = p.runtime,
        .map_size = 16 << 20,
        .preallocate = 1 << 20,
        .gate_timeout_ns = 10000000000,
    };
    return p;
}

static inline struct place place_make(void)
{
    return place_in(harness_disk(), harness_tmpfs());
}

/* Another boot: what was on the tmpfs is gone. */
static inline void next_boot(const struct place *p)
{
    boot_number++;
    assert_int_equal(umount2(harness_tmpfs(), MNT_DETACH), 0);
    assert_int_equal(mount("rbxj-test", harness_tmpfs(), "tmpfs", 0, "mode=0700"), 0);
    harness_mkdir(p->lost);
}

/* The folder of this boot's journal. */
static inline char *place_folder(const struct place *p)
{
    uint8_t boot[16];
    char hex[33];
    assert_int_equal(procid_boot(boot), 0);
    hex_encode(hex, boot, 16);
    return harness_format("%s/journal-%s", p->runtime, hex);
}

#define assert_ok(r, e)                                                                                      \
    do {                                                                                                     \
        int _r = (r);                                                                                        \
        if (_r != 0)                                                                                         \
            fail_msg("%s: %d: %s", #r, _r, (e).message);                                                     \
    } while (0)

/* Fails with that code, and the message holds text. */
#define assert_refused(r, e, want, text)                                                                     \
    do {                                                                                                     \
        int _r = (r);                                                                                        \
        if (_r != -(want) || !strstr((e).message, text))                                                     \
            fail_msg("%s: %d instead of %d, \"%s\" without \"%s\"", #r, _r, -(want), (e).message, text);     \
    } while (0)

/* Open until place_close(), or the end of a test that fails. */
static struct journal *place_journal;

static inline struct journal *place_open(const struct place *p)
{
    struct rbxj_error e = {0};
    assert_ok(journal_open(&p->options, &place_journal, &e), e);
    return place_journal;
}

static inline void place_close(void)
{
    journal_close(place_journal);
    place_journal = NULL;
}

static inline int journal_teardown(void **state)
{
    boot_number = 0;
    place_close();
    return harness_teardown(state);
}
#define journal_test(f) cmocka_unit_test_setup_teardown(f, harness_setup, journal_teardown)

static inline int place_try(const struct place *p, struct rbxj_error *e)
{
    struct journal *j = NULL;
    *e = (struct rbxj_error){0};
    int r = journal_open(&p->options, &j, e);
    journal_close(j);
    return r;
}

/* ---- boxes ---- */

/* As intent_prepare() makes one: the parent's identity, and the way to the path. */
static inline struct record intent(enum rbxj_kind kind, const char *path)
{
    struct record r = {.kind = kind, .path = strdup(path), .time_ns = now_realtime_ns()};
    char *slash = strrchr(r.path, '/');
    *slash = 0;
    (void)fileid_of_name(AT_FDCWD, r.path, &r.parent);
    *slash = '/';
    (void)guard_chain(&r);
    return r;
}

/* Begins a box of this process, or of box->supervisor. */
static inline int begin(struct journal *j, struct box *box, const char *name, const char *const *paths,
                        size_t n, struct rbxj_error *e)
{
    struct record *plan = calloc(n + 1, sizeof(*plan));
    (void)snprintf(box->name, sizeof(box->name), "%s", name);
    box->begun_ns = now_realtime_ns();
    if (box->supervisor.pid == 0)
        (void)procid_of(getpid(), &box->supervisor);
    for (size_t i = 0; i < n; i++)
        plan[i] = intent(RBXJ_TMPDIR, paths[i]);
    int r = journal_begin(j, box, plan, n, e);
    for (size_t i = 0; i < n; i++)
        record_clear(&plan[i]);
    free(plan);
    return r;
}

static inline int begin_one(struct journal *j, const char *name, const char *path, struct rbxj_error *e)
{
    struct box box = {0};
    *e = (struct rbxj_error){0};
    return begin(j, &box, name, &path, path != NULL, e);
}

static inline struct box must_begin(struct journal *j, const char *name, const char *path)
{
    struct box box = {0};
    struct rbxj_error e = {0};
    assert_ok(begin(j, &box, name, &path, path != NULL, &e), e);
    return box;
}

/* An intent more. */
static inline int intend(struct journal *j, const struct box *box, enum rbxj_kind kind, const char *path,
                         struct rbxj_error *e)
{
    struct record r = intent(kind, path);
    *e = (struct rbxj_error){0};
    int res = journal_intend(j, box->incarnation, &r, e);
    record_clear(&r);
    return res;
}

static inline const struct snapshot_box *find_box(const struct snapshot *s, const char *name)
{
    for (size_t i = 0; i < s->len; i++)
        if (strcmp(s->boxes[i].box.name, name) == 0)
            return &s->boxes[i];
    return NULL;
}

/* ---- what is on disk, whatever the boot journal says ---- */

struct disk {
    size_t records, headers;
    size_t txn;
    uint32_t generations; /* lost ones */
    uint64_t covered;
};

/* Only where no journal is open in this process. */
static inline struct disk disk_look(const struct place *p)
{
    static const struct journal_options unused;
    struct disk d = {0};
    struct store s;
    struct snapshot snapshot;
    struct rbxj_error e = {0};
    MDB_txn *txn;
    assert_ok(
        store_open(&s, harness_format("%s/journal", p->state), MDB_RDONLY | MDB_NOLOCK, false, &unused, &e),
        e);
    assert_ok(scan_store(&s, false, "disk", scan_snapshot, &snapshot, &e), e);
    assert_int_equal(snapshot.damaged, 0);
    for (size_t i = 0; i < snapshot.len; i++)
        d.records += snapshot.boxes[i].len;
    d.headers = snapshot.len;
    d.txn = snapshot.txn;
    snapshot_clear(&snapshot);
    assert_int_equal(mdb_txn_begin(s.env, NULL, MDB_RDONLY, &txn), MDB_SUCCESS);
    (void)meta_get(txn, s.meta, META_GENERATIONS, &d.generations, sizeof(d.generations));
    (void)meta_get(txn, s.meta, META_COVERED, &d.covered, sizeof(d.covered));
    mdb_txn_abort(txn);
    store_close(&s);
    return d;
}

/* ---- other processes ---- */

/* In a child: says what is wrong and ends. */
#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            (void)dprintf(2, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                 \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)

/* The same of a call that should return 0. */
#define CHECK_OK(call, e)                                                                                    \
    do {                                                                                                     \
        if ((call) != 0) {                                                                                   \
            (void)dprintf(2, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, (e).message);                     \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)

#define CHILD(...)                                                                                           \
    ({                                                                                                       \
        pid_t _pid = fork();                                                                                 \
        if (_pid == 0) {                                                                                     \
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);                                                          \
            __VA_ARGS__;                                                                                     \
            _exit(0);                                                                                        \
        }                                                                                                    \
        harness_track(_pid);                                                                                 \
        _pid;                                                                                                \
    })

/* Runs code as the first process of a pid namespace of its own, with its own /proc; step 1: it is at the end
 * of it. */
#define NAMESPACE_CHILD(...)                                                                                 \
    CHILD({                                                                                                  \
        CHECK(unshare(CLONE_NEWPID | CLONE_NEWNS) == 0);                                                     \
        pid_t _inner = fork();                                                                               \
        if (_inner == 0) {                                                                                   \
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);                                                          \
            CHECK(mount("proc", "/proc", "proc", 0, NULL) == 0);                                             \
            __VA_ARGS__;                                                                                     \
            _exit(0);                                                                                        \
        }                                                                                                    \
        int _status;                                                                                         \
        CHECK(waitpid(_inner, &_status, 0) == _inner);                                                       \
        CHECK(_status == 0);                                                                                 \
    })

#define assert_child(pid) assert_int_equal(harness_wait(pid), 0)

/* Memory that children share with the test. */
struct shared {
    _Atomic int step;
    _Atomic int stop;
    _Atomic uint64_t value[64];
};

static inline struct shared *shared_make(void)
{
    static struct shared *s;
    if (!s)
        s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(s != MAP_FAILED);
    memset(s, 0, sizeof(*s));
    return s;
}

/* Waits until another process has come to that step. */
static inline void wait_for(const struct shared *s, int step)
{
    int64_t deadline = now_monotonic_ns() + 20000000000;
    while (atomic_load(&s->step) < step && now_monotonic_ns() < deadline)
        (void)usleep(500);
    assert_true(atomic_load(&s->step) >= step);
}

#endif
