/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A supervisor with many threads gives each of them a small stack: how much of one the library takes.
 */
#include "spawn_fixture.h"

#include <pthread.h>

enum { STACK = 1 << 20, PAINT = 0xa5 };

static int result; /* of what the thread has called */

static void *run_in_thread(void *data)
{
    error = (struct rbxj_error){0};
    result = (*(int (**)(void))data)();
    return NULL;
}

/* How much of its stack a thread touches that calls this, with what the C library has there itself. */
static size_t stack_of(int (*run)(void))
{
    pthread_attr_t attr;
    pthread_t thread;
    uint8_t *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t untouched = 0;
    assert_true(stack != MAP_FAILED);
    memset(stack, PAINT, STACK);
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstack(&attr, stack, STACK), 0);
    assert_int_equal(pthread_create(&thread, &attr, run_in_thread, &run), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    (void)pthread_attr_destroy(&attr);
    while (untouched < STACK && stack[untouched] == PAINT)
        untouched++;
    (void)munmap(stack, STACK);
    return STACK - untouched;
}

/* ---- what a supervisor's threads call ---- */

static uint32_t seq; /* to be acquired */

static int call_open(void)
{
    return rbxj_open(&world.options, &handle, &error);
}

static int call_begin(void)
{
    struct rbxj_resource plan[PARTS];
    struct rbxj_box b = {.name = "a", .plan = plan};
    for (enum part p = 0; p < PARTS; p++)
        if (possible(ALL) & 1U << p)
            plan[b.plan_len++] = part_resource("a", p);
    return rbxj_begin(handle, &b, NULL, &error);
}

static int call_acquire(void)
{
    int fd = -1;
    int r = rbxj_acquire(handle, "a", seq, "size=1m", &fd, &error);
    cleanup_closep(&fd);
    return r;
}

static int call_acquired(void)
{
    return rbxj_acquired(handle, "a", seq, &error);
}

static int call_spawn(void)
{
    const struct rbxj_spawn how = {.argv = run_true};
    pid_t pid;
    int r = spawn(&how, &pid);
    return r < 0 ? r : exit_status(pid);
}

static int call_undo(void)
{
    return rbxj_undo(handle, "a", NULL, &error);
}

static int call_undo_in_vain(void)
{
    struct rbxj_result *found = NULL;
    int r = rbxj_undo(handle, "a", &found, &error);
    rbxj_result_free(found);
    return r == -RBXJ_E_LEFT ? 0 : -1;
}

static int call_end(void)
{
    return rbxj_end(handle, "a", &error);
}

static int call_close(void)
{
    rbxj_close(handle);
    handle = NULL;
    return 0;
}

static int call_replay(void)
{
    struct rbxj_result *found = NULL;
    const struct rbxj_replay how = {.timeout = 30};
    int r = rbxj_replay(&world.options, &how, &found, &error);
    rbxj_result_free(found);
    return r;
}

static int call_list(void)
{
    struct rbxj_result *found = NULL;
    int r = rbxj_list(&world.options, NULL, &found, &error);
    rbxj_result_free(found);
    return r;
}

static int call_health(void)
{
    struct rbxj_health health;
    return rbxj_health(&world.options, &health, &error);
}

static int call_recover(void)
{
    struct rbxj_health health;
    return rbxj_recover(&world.options, NULL, NULL, &health, &error);
}

static int free_text(int r, char *text)
{
    free(text);
    return r < 0 ? r : 0;
}

static int call_metrics(void)
{
    char *text = NULL;
    int r = rbxj_metrics(&world.options, &text, &error);
    return free_text(r, text);
}

static int call_evidence(void)
{
    char *text = NULL;
    int r = rbxj_evidence(&world.options, &text, &error);
    return free_text(r, text);
}

static int call_audit(void)
{
    char *text = NULL;
    int r = rbxj_audit(&world.options, NULL, &text, &error);
    return free_text(r, text);
}

static int call_forensics(void)
{
    char *text = NULL;
    int r = rbxj_forensics(&world.options, NULL, NULL, &text, &error);
    return free_text(r, text);
}

static int call_salvage(void)
{
    char *text = NULL;
    int r = rbxj_forensics(&world.options, NULL, harness_format("%s/salvaged", harness_disk()), &text,
                           &error);
    return free_text(r, text);
}

static int call_incidents(void)
{
    struct rbxj_incidents *incidents = NULL;
    int r = rbxj_incidents(&world.options, NULL, 0, &incidents, &error);
    rbxj_incidents_free(incidents);
    return r;
}

static int call_verify(void)
{
    struct rbxj_clean clean;
    return rbxj_verify_clean(&world.options, &clean, &error);
}

static int call_reset(void)
{
    struct rbxj_health health;
    uint32_t killed;
    return rbxj_reset(&world.options, NULL, &killed, NULL, &health, &error);
}

static int call_quarantine(void)
{
    int r = rbxj_quarantine(&world.options, "a test", &error);
    return r < 0 ? r : rbxj_unquarantine(&world.options, "it is over", &error);
}

#define WITHIN(bytes, call)                                                                                  \
    do {                                                                                                     \
        size_t taken = stack_of(call_##call);                                                                \
        print_message("# %-14s %6zu\n", #call, taken);                                                       \
        if (result < 0)                                                                                      \
            fail_msg(#call ": %s (%s)", error.message, error.detail);                                        \
        if (taken > (bytes))                                                                                 \
            fail_msg(#call " takes %zu bytes of stack, more than %d", taken, (int)(bytes));                  \
    } while (0)

#ifdef __SANITIZE_ADDRESS__ /* which has a stack of its own making */
enum { MOST = STACK };
#else
enum { MOST = 96 * 1024 }; /* rbxj.h asks for 128 KiB: what handlers of signals take comes on top */
#endif

/* Something of a stranger's in the box's directory: it is left, and that is told. */
static void obstruct(const char *box, bool there)
{
    const char *inside = harness_format("%s/deep", part_path(box, TMPDIR));
    assert_int_equal(there ? mount("other", inside, "tmpfs", 0, "size=64k") : umount(inside), 0);
}

static void threads_of_a_supervisor_need_little_stack(void **state)
{
    (void)state;
    world_open();
    world.options.config = harness_format("%s/conf",
                                          harness_disk()); /* one job: the thread itself does all */
    make_target("a", ALL);
    WITHIN(MOST, open);
    WITHIN(MOST, begin);
    for (seq = 1; seq <= (possible(ALL) == ALL ? PARTS : PARTS - 1); seq++)
        WITHIN(MOST, acquire);
    seq = 1;
    WITHIN(MOST, acquired);
    WITHIN(MOST, spawn);
    fill_here("a", ALL);
    WITHIN(MOST, list);
    WITHIN(MOST, health);
    WITHIN(MOST, metrics);
    WITHIN(MOST, evidence);
    obstruct("a", true);
    WITHIN(MOST, undo_in_vain);
    obstruct("a", false);
    WITHIN(MOST, undo);
    WITHIN(MOST, end);
    WITHIN(MOST, verify);
    WITHIN(MOST, audit);
    WITHIN(MOST, quarantine);
    WITHIN(MOST, incidents);
    WITHIN(MOST, forensics);
    WITHIN(MOST, salvage);
    WITHIN(MOST, close);
}

static void so_do_those_of_a_reaper(void **state)
{
    (void)state;
    world_open();
    world.options.config = harness_format("%s/conf", harness_disk());
    make_target("a", ALL);
    (void)supervisor_fork(run_after_evidence, "a", ALL);
    obstruct("a", true);
    WITHIN(MOST, replay);
    assert_int_equal(result, 1);
    WITHIN(MOST, recover);
    WITHIN(MOST, health);
    WITHIN(MOST, evidence);
    WITHIN(MOST, reset);
    assert_int_equal(result, 1);
    obstruct("a", false);
    WITHIN(MOST, reset);
    assert_int_equal(result, 0);
}

/* Those that a replay starts do not depend on what the process gives its own. */
static void its_own_threads_have_what_they_need(void **state)
{
    (void)state;
    pthread_attr_t before, small;
    world_open();
    harness_write(harness_format("%s/conf", harness_disk()), "[replay]\njobs=4\n");
    world.options.config = harness_format("%s/conf", harness_disk());
    for (int i = 0; i < 8; i++)
        (void)supervisor_fork(run_after_evidence, harness_format("box%d", i), 1U << TMPDIR);
    assert_int_equal(pthread_getattr_default_np(&before), 0);
    assert_int_equal(pthread_attr_init(&small), 0);
    assert_int_equal(pthread_attr_setstacksize(&small, 20 * 1024), 0);
    assert_int_equal(pthread_setattr_default_np(&small), 0);
    int r = call_replay();
    assert_int_equal(pthread_setattr_default_np(&before), 0);
    (void)pthread_attr_destroy(&small);
    if (r != 0)
        fail_msg("replay: %d: %s", r, error.message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        spawn_test(threads_of_a_supervisor_need_little_stack),
        spawn_test(so_do_those_of_a_reaper),
        spawn_test(its_own_threads_have_what_they_need),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
