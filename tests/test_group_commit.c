/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Many at once: processes that share a commit, leaders that die, threads with one handle (I1, K22).
 */
#include "journal_fixture.h"

#include <pthread.h>
#include <time.h>

#define PROCESSES 16
#define BEGINS 50

static void group_commit_is_shared_and_complete(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct snapshot s;
    struct shared *shared = shared_make();
    pid_t pids[PROCESSES];
    (void)place_open(&p);
    place_close();
    size_t txn = disk_look(&p).txn;
    for (int i = 0; i < PROCESSES; i++)
        pids[i] = CHILD({
            struct rbxj_error error;
            struct journal *j = place_open(&p);
            while (atomic_load(&shared->step) == 0)
                (void)usleep(500);
            for (int k = 0; k < BEGINS; k++) {
                char name[32], path[4200];
                (void)snprintf(name, sizeof(name), "b%d-%d", i, k);
                (void)snprintf(path, sizeof(path), "%s/%s", p.kept, name);
                CHECK_OK(begin_one(j, name, path, &error), error);
            }
        });
    (void)usleep(50000);
    atomic_store(&shared->step, 1);
    for (int i = 0; i < PROCESSES; i++)
        assert_child(pids[i]);
    struct disk d = disk_look(&p);
    assert_int_equal(d.headers, PROCESSES * BEGINS);
    assert_int_equal(d.records, PROCESSES * BEGINS);
    print_message("%d begins, %zu commits\n", PROCESSES * BEGINS, d.txn - txn);
    assert_true(d.txn - txn < PROCESSES * BEGINS * 3 / 4);
    assert_ok(journal_snapshot(place_open(&p), &s, &e), e);
    assert_int_equal(s.len, PROCESSES * BEGINS);
    for (size_t i = 0; i < s.len; i++)
        assert_int_equal(s.boxes[i].records[0].flags & REC_PENDING, 0);
    snapshot_clear(&s);
}

/* ---- leaders that die ---- */

#define ROUNDS 100
#define WORKERS 4

/* Begins until it is killed, and says how many it was told to have. */
static void work(const struct place *p, _Atomic uint32_t *acknowledged, int number)
{
    struct rbxj_error error;
    struct journal *j = place_open(p);
    for (uint32_t k = 0;; k++) {
        char name[32], path[4200];
        (void)snprintf(name, sizeof(name), "w%d-%u", number, k);
        (void)snprintf(path, sizeof(path), "%s/%s", p->kept, name);
        CHECK_OK(begin_one(j, name, path, &error), error);
        atomic_store(acknowledged, k + 1);
    }
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Every box that somebody was told to have is on disk. */
static uint32_t assert_all_on_disk(const struct place *p, const _Atomic uint32_t *acknowledged, int n)
{
    struct rbxj_error e = {0};
    struct snapshot s;
    boot_number++; /* the disk's records are all there is */
    assert_ok(journal_snapshot(place_open(p), &s, &e), e);
    assert_int_equal(s.damaged, 0);
    _cleanup_free_ const char **names = calloc(s.len, sizeof(*names));
    for (size_t i = 0; i < s.len; i++) {
        names[i] = s.boxes[i].box.name;
        assert_int_equal(s.boxes[i].len, 1);
    }
    qsort(names, s.len, sizeof(*names), compare_names);
    uint32_t total = 0;
    for (int i = 0; i < n; i++)
        for (uint32_t k = 0; k < acknowledged[i]; k++) {
            char name[32];
            const char *wanted = name;
            (void)snprintf(name, sizeof(name), "w%d-%u", i, k);
            if (!bsearch(&wanted, names, s.len, sizeof(*names), compare_names))
                fail_msg("%s was acknowledged and is lost", name);
            total++;
        }
    snapshot_clear(&s);
    return total;
}

static void group_commit_loses_nothing_when_leaders_are_killed(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    p.options.map_size = 256 << 20;
    p.options.preallocate = 8 << 20;
    size_t size = (ROUNDS + WORKERS) * sizeof(_Atomic uint32_t);
    _Atomic uint32_t *acknowledged = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                                          0);
    assert_true(acknowledged != MAP_FAILED);
    pid_t pids[WORKERS];
    int number = 0;
    uint32_t seed = (uint32_t)now_monotonic_ns();
    for (; number < WORKERS; number++)
        pids[number] = CHILD(work(&p, &acknowledged[number], number));
    for (; number < ROUNDS + WORKERS; number++) {
        (void)usleep(1000 + rand_r(&seed) % 30000);
        pid_t *victim = &pids[rand_r(&seed) % WORKERS];
        harness_kill(*victim);
        *victim = CHILD(work(&p, &acknowledged[number], number));
    }
    for (int i = 0; i < WORKERS; i++)
        harness_kill(pids[i]);
    uint32_t total = assert_all_on_disk(&p, acknowledged, number);
    print_message("%u acknowledged, none lost\n", total);
    assert_true(total > ROUNDS);
    (void)munmap(acknowledged, size);
}

/* ---- threads ---- */

struct thread_work {
    struct journal *j;
    const struct place *p;
    int number;
    const char *failed;
};

static const char *thread_round(struct thread_work *w, int k)
{
    char name[32], path[4200];
    struct box box = {0};
    struct rbxj_error e = {0};
    struct snapshot_box sb;
    struct snapshot s;
    (void)snprintf(name, sizeof(name), "t%d", w->number);
    (void)snprintf(path, sizeof(path), "%s/%s", k % 4 ? w->p->lost : w->p->kept, name);
    const char *paths = path;
    if (begin(w->j, &box, name, &paths, 1, &e) < 0)
        return "begin";
    strcat(path, "-2");
    if (intend(w->j, &box, RBXJ_LOCK, path, &e) < 0)
        return "intend";
    if (journal_get(w->j, name, &sb, &e) < 0 || sb.len != 2)
        return "get";
    int r = journal_update(w->j, &sb.records[1], false, &e);
    snapshot_box_clear(&sb);
    if (r < 0 || journal_snapshot(w->j, &s, &e) < 0)
        return "update or snapshot";
    snapshot_clear(&s);
    if (journal_drop(w->j, box.incarnation, 2, &e) < 0 || journal_drop(w->j, box.incarnation, 1, &e) < 0)
        return "drop";
    return journal_end(w->j, box.incarnation, &e) < 0 ? "end" : NULL;
}

static void *thread_run(void *data)
{
    struct thread_work *w = data;
    for (int k = 0; k < 20 && !w->failed; k++)
        w->failed = thread_round(w, k);
    return NULL;
}

static void threads_share_one_handle(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct journal *j = place_open(&p);
    pthread_t threads[PROCESSES];
    struct thread_work works[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        works[i] = (struct thread_work){j, &p, i, NULL};
        assert_int_equal(pthread_create(&threads[i], NULL, thread_run, &works[i]), 0);
    }
    for (int i = 0; i < PROCESSES; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        if (works[i].failed)
            fail_msg("thread %d: %s", i, works[i].failed);
    }
    struct snapshot s;
    assert_ok(journal_snapshot(j, &s, &e), e);
    assert_int_equal(s.len, 0);
    snapshot_clear(&s);
    assert_ok(journal_flush(j, &e), e);
    place_close();
    assert_int_equal(disk_look(&p).headers, 0);
    assert_int_equal(disk_look(&p).records, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(group_commit_is_shared_and_complete),
        journal_test(group_commit_loses_nothing_when_leaders_are_killed),
        journal_test(threads_share_one_handle),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
