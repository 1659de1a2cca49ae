/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A supervisor with a thread that looks at the health of its worker, while another one opens the journal and
 * closes it: the functions without a handle are thread-safe, and use the journal that the process has open
 * (K9).
 */
#include "journal_fixture.h"
#include "reaper/entry.h"

#include <linux/kcmp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>

enum { LOOKERS = 2, OPENINGS = 200 };

static struct rbxj_options options;
static _Atomic int looks, over;

static void *look(void *data)
{
    int *failed = data;
    while (!over) {
        struct rbxj_error e = {0};
        struct rbxj_result *boxes = NULL;
        struct rbxj_health health = {0};
        int r = looks % 2 ? rbxj_list(&options, NULL, &boxes, &e)
                          : rbxj_recover(&options, NULL, NULL, &health, &e);
        rbxj_result_free(boxes);
        *failed = r < 0 && r != -RBXJ_E_BUSY ? r : *failed; /* another reaper of this process */
        looks++;
    }
    return NULL;
}

static void open_and_close(void)
{
    struct rbxj_error e = {0};
    struct rbxj_box box = {.name = "a"};
    struct rbxj *handle;
    assert_ok(rbxj_open(&options, &handle, &e), e);
    assert_ok(rbxj_begin(handle, &box, NULL, &e), e);
    assert_ok(rbxj_end(handle, "a", &e), e);
    rbxj_close(handle);
}

static void a_handle_is_opened_and_closed_beside_those_who_look(void **state)
{
    (void)state;
    struct place p = place_make();
    pthread_t threads[LOOKERS];
    int failed[LOOKERS] = {0};
    options = (struct rbxj_options){.state_dir = p.state, .runtime_dir = p.runtime};
    for (int i = 0; i < LOOKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look, &failed[i]), 0);
    for (int i = 0; i < OPENINGS; i++)
        open_and_close();
    over = 1;
    for (int i = 0; i < LOOKERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(failed[i], 0);
    }
    assert_true(looks > 0);
}

/* ---- in turn ---- */

static _Atomic pid_t queued;
static _Atomic int had_turn;

static void *wait_for_turn(void *data)
{
    queued = gettid();
    struct entry entry = entry_alone();
    had_turn = 1;
    entry_leave(&entry);
    return data;
}

/* Is that thread asleep in a futex? */
static bool is_queued(pid_t thread)
{
    char text[256] = "";
    const char *path = harness_format("/proc/self/task/%d/syscall", thread);
    return fd_read_file(AT_FDCWD, path, text, sizeof(text)) > 0 && atoi(text) == SYS_futex;
}

/* Who comes again at once is in before the one that he wakes is awake: an opener waited for as long as others
 * looked. */
static void nobody_is_overtaken_at_the_door(void **state)
{
    (void)state;
    struct entry entry = entry_alone();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_for_turn, NULL), 0);
    while (!queued || !is_queued(queued))
        (void)usleep(1000);
    entry_leave(&entry);
    entry = entry_alone();
    assert_int_equal(had_turn, 1);
    entry_leave(&entry);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* ---- and forks ---- */

enum { CHILD_THREADS = 4, ROUNDS = 50 };

static struct forked_mutex shared;
static pthread_barrier_t barrier;
static _Atomic int firsts, inside, crowds, held, let_go;

static void *hold(void *data)
{
    (void)forked_lock(&shared);
    held = 1;
    while (!let_go)
        (void)usleep(1000);
    forked_unlock(&shared);
    return data;
}

static void *pass(void *data)
{
    (void)pthread_barrier_wait(&barrier);
    firsts += forked_lock(&shared);
    crowds += inside++ > 0;
    (void)sched_yield();
    inside--;
    forked_unlock(&shared);
    return data;
}

static void must(bool is_true)
{
    if (!is_true)
        _exit(1);
}

static void run_threads_of_child(void)
{
    pthread_t threads[CHILD_THREADS];
    must(pthread_barrier_init(&barrier, NULL, CHILD_THREADS) == 0);
    for (int i = 0; i < CHILD_THREADS; i++)
        must(pthread_create(&threads[i], NULL, pass, NULL) == 0);
    for (int i = 0; i < CHILD_THREADS; i++)
        must(pthread_join(threads[i], NULL) == 0);
    must(firsts == 1 && crowds == 0);
}

/* Runs it in a child, which must come to its end. */
static void forked(void (*run)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        (void)alarm(30);
        run();
        _exit(0);
    }
    harness_track(pid);
    assert_int_equal(harness_wait(pid), 0);
}

/* Who had it in the parent can't give it back in the child; and in the child one at a time has it. */
static void a_child_has_what_a_thread_of_its_parent_had_locked(void **state)
{
    (void)state;
    pthread_t holder;
    assert_int_equal(pthread_create(&holder, NULL, hold, NULL), 0);
    while (!held)
        (void)usleep(1000);
    for (int i = 0; i < ROUNDS; i++)
        forked(run_threads_of_child);
    let_go = 1;
    assert_int_equal(pthread_join(holder, NULL), 0);
    assert_false(forked_lock(&shared));
    forked_unlock(&shared);
}

static struct entry looking;

/* It leaves what its parent has entered, and nobody is in. */
static void leave_and_enter(void)
{
    entry_leave(&looking);
    for (int i = 0; i < 2; i++) {
        struct entry alone = entry_alone();
        entry_leave(&alone);
    }
}

static void a_child_of_one_who_looks_is_not_in(void **state)
{
    (void)state;
    entry_count_handle(1); /* else it would be alone */
    looking = entry_look();
    forked(leave_and_enter);
    entry_leave(&looking);
    entry_count_handle(-1);
}

/* ---- a child that is forked while its parent reaps ---- */

static struct {
    pid_t child;
    int over[2]; /* the parent's end: its replay has ended */
} forks;

static void replay_after_its_parent(void)
{
    struct rbxj_error e = {0};
    struct rbxj_result *result = NULL;
    char byte;
    must(close(forks.over[1]) == 0 && read(forks.over[0], &byte, 1) == 0);
    int r = rbxj_replay(&options, &(struct rbxj_replay){.dry_run = 0}, &result, &e);
    if (r < 0)
        print_error("%s\n", e.message);
    must(r >= 0);
    rbxj_result_free(result);
}

static void fork_once(void *data, size_t done, size_t total)
{
    (void)data, (void)done, (void)total;
    if (forks.child)
        return;
    forks.child = fork();
    if (forks.child == 0) {
        (void)alarm(30);
        replay_after_its_parent();
        _exit(0);
    }
    harness_track(forks.child);
}

static void a_child_may_reap_once_its_parent_has(void **state)
{
    (void)state;
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct rbxj_result *result = NULL;
    struct rbxj_replay how = {.progress = fork_once};
    options = (struct rbxj_options){.state_dir = p.state, .runtime_dir = p.runtime};
    assert_child(CHILD({ /* whose box is stale as it ends */
                         struct rbxj *handle;
                         CHECK_OK(rbxj_open(&options, &handle, &e), e);
                         CHECK_OK(rbxj_begin(handle, &(struct rbxj_box){.name = "a"}, NULL, &e), e);
    }));
    assert_int_equal(pipe2(forks.over, O_CLOEXEC), 0);
    assert_ok(rbxj_replay(&options, &how, &result, &e), e);
    rbxj_result_free(result);
    assert_true(forks.child > 0);
    assert_int_equal(close(forks.over[0]), 0);
    assert_int_equal(close(forks.over[1]), 0);
    assert_int_equal(harness_wait(forks.child), 0);
}

/* ---- and is not like its threads ---- */

struct apart {
    struct rbxj *handle;
    int flags; /* of what the thread has its own */
    int unshared, begun;
    const struct rbxj_box *box;
    struct rbxj_error error;
};

static void *begin_apart(void *data)
{
    struct apart *a = data;
    a->unshared = unshare(a->flags);
    a->begun = rbxj_begin(a->handle, a->box, NULL, &a->error);
    return NULL;
}

/* Its locks would end with it, and what it mounts is looked for by process (I3, K10). */
static void i3_a_thread_that_is_not_like_its_process_begins_nothing(void **state)
{
    (void)state;
    harness_need_root();
    if (syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILES, 0, 0) != 0)
        harness_skip("the kernel has no kcmp(2)");
    struct place p = place_make();
    struct rbxj_error e = {0};
    struct rbxj_resource plan = {.kind = RBXJ_TMPDIR, .path = harness_format("%s/dir", p.kept)};
    struct rbxj_box box = {.name = "a", .plan = &plan, .plan_len = 1};
    static const struct {
        int flags;
        const char *says; /* NULL: it begins */
    } ways[] = {
        {CLONE_FILES, "descriptors of its own"}, {CLONE_NEWNS, "mounts of its own"}, {CLONE_FS, NULL}};
    options = (struct rbxj_options){.state_dir = p.state, .runtime_dir = p.runtime};
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        struct apart a = {.flags = ways[i].flags, .box = &box};
        pthread_t thread;
        assert_ok(rbxj_open(&options, &a.handle, &e), e);
        assert_int_equal(pthread_create(&thread, NULL, begin_apart, &a), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(a.unshared, 0);
        if (ways[i].says)
            assert_refused(a.begun, a.error, RBXJ_E_BAD_REQUEST, ways[i].says);
        else
            assert_ok(a.begun, a.error);
        assert_int_equal(rbxj_end(a.handle, "a", NULL), ways[i].says ? -RBXJ_E_NO_SUCH_BOX : -RBXJ_E_LEFT);
        rbxj_close(a.handle);
    }
}

/* ---- a thread that is cancelled ---- */

static void cancel_here(void *data, size_t done, size_t total)
{
    (void)data, (void)done, (void)total;
    assert_int_equal(pthread_cancel(pthread_self()), 0);
    pthread_testcancel();
}

static void *replay_cancelled(void *data)
{
    struct rbxj_result *result = NULL;
    struct rbxj_replay how = {.progress = cancel_here};
    *(int *)data = rbxj_replay(&options, &how, &result, NULL);
    rbxj_result_free(result);
    pthread_testcancel();
    return NULL;
}

/* Half-way it would be in for ever, and nobody could open the journal any more. */
static void a_thread_that_looks_is_cancelled_after_it(void **state)
{
    (void)state;
    struct place p = place_make();
    struct rbxj_error e = {0};
    pthread_t thread;
    void *ended = NULL;
    int r = -1;
    options = (struct rbxj_options){.state_dir = p.state, .runtime_dir = p.runtime};
    assert_child(CHILD({
        struct rbxj *handle;
        CHECK_OK(rbxj_open(&options, &handle, &e), e);
        CHECK_OK(rbxj_begin(handle, &(struct rbxj_box){.name = "a"}, NULL, &e), e);
    }));
    assert_int_equal(pthread_create(&thread, NULL, replay_cancelled, &r), 0);
    assert_int_equal(pthread_join(thread, &ended), 0);
    assert_ptr_equal(ended, PTHREAD_CANCELED);
    assert_int_equal(r, 0);
    open_and_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(a_handle_is_opened_and_closed_beside_those_who_look),
        journal_test(nobody_is_overtaken_at_the_door),
        journal_test(a_child_has_what_a_thread_of_its_parent_had_locked),
        journal_test(a_child_of_one_who_looks_is_not_in),
        journal_test(a_child_may_reap_once_its_parent_has),
        journal_test(i3_a_thread_that_is_not_like_its_process_begins_nothing),
        journal_test(a_thread_that_looks_is_cancelled_after_it),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
