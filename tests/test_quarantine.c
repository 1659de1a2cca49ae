/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The quarantine's two files (K31): who wins where two change it at once, and what becomes of it where only
 * one of them is there. How it looks to a monitor: health.sh.
 */
#include "journal_fixture.h"

#include "reaper/quarantine.h"

#include <pthread.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static struct config config;

static struct place place_begin(void)
{
    struct place p = place_make();
    config = (struct config){
        .state_dir = (char *)p.state, .runtime_dir = (char *)p.runtime, .gate_timeout_ns = 30LL * 1000000000};
    harness_mkdir(harness_format("%s/journal", p.state)); /* in use */
    return p;
}

static const char *file_path(void)
{
    return harness_format("%s/quarantine", config.state_dir);
}
static const char *flag_path(void)
{
    return harness_format("%s/quarantined", config.runtime_dir);
}

static void must_enter(enum quarantine_reason reason, const char *detail)
{
    struct rbxj_error e = {0};
    assert_true(quarantine_enter(&config, reason, detail, &e) > 0);
}

static void expect(enum quarantine_reason reason, const char *detail)
{
    struct quarantine q;
    assert_int_equal(quarantine_read(&config, &q), 1);
    assert_true(q.there);
    assert_string_equal(quarantine_name(q.reason), quarantine_name(reason));
    assert_non_null(strstr(q.detail, detail));
}

/* ---- two at once: just before one step of the first, the second is let by as far as it gets ---- */

enum step { NO_STEP, RENAME, UNLINK };
static enum step held_up;
static pthread_t second;
static _Atomic int refused, done;

static void *enter_by_hand(void *data)
{
    (void)data;
    (void)quarantine_enter(&config, QUARANTINE_MANUAL, "by a person", NULL);
    atomic_store(&done, 1);
    return NULL;
}

static void let_by(enum step step, const char *name)
{
    if (step != held_up || strcmp(name, "quarantine") != 0)
        return;
    held_up = NO_STEP;
    if (pthread_create(&second, NULL, enter_by_hand, NULL) != 0)
        abort();
    while (!atomic_load(&refused) && !atomic_load(&done))
        (void)usleep(500);
}

int renameat(int from, const char *old, int to, const char *new)
{
    let_by(RENAME, new);
    return (int)syscall(SYS_renameat2, from, old, to, new, 0);
}

int unlinkat(int dirfd, const char *name, int flags)
{
    let_by(UNLINK, name);
    return (int)syscall(SYS_unlinkat, dirfd, name, flags);
}

int flock(int fd, int operation)
{
    int r = (int)syscall(SYS_flock, fd, operation);
    if (r < 0 && errno == EWOULDBLOCK)
        atomic_fetch_add(&refused, 1);
    return r;
}

static void hold_up(enum step step)
{
    atomic_store(&refused, 0);
    atomic_store(&done, 0);
    held_up = step;
}

static void second_comes_to_its_end(void)
{
    assert_int_equal(held_up, NO_STEP);
    assert_int_equal(pthread_join(second, NULL), 0);
}

static void k31_a_persons_is_not_overwritten(void **state)
{
    (void)state;
    (void)place_begin();
    hold_up(RENAME);
    must_enter(QUARANTINE_CLEANUP_FAILURE, "box 7");
    second_comes_to_its_end();
    expect(QUARANTINE_MANUAL, "by a person");
}

static void k31_a_persons_is_not_released_by_a_recovery(void **state)
{
    (void)state;
    struct rbxj_error e = {0};
    struct quarantine was;
    (void)place_begin();
    must_enter(QUARANTINE_CLEANUP_FAILURE, "box 7");
    hold_up(UNLINK);
    assert_int_equal(quarantine_leave(&config, true, &was, &e), 1);
    assert_int_equal(was.reason, QUARANTINE_CLEANUP_FAILURE);
    second_comes_to_its_end();
    expect(QUARANTINE_MANUAL, "by a person");
    assert_true(path_exists(flag_path()));
    assert_int_equal(quarantine_leave(&config, true, &was, &e), 0);
    assert_int_equal(was.reason, QUARANTINE_MANUAL);
    expect(QUARANTINE_MANUAL, "by a person");
}

/* Who stops there must not stop everybody for ever, and no new box gets in. */
static void a_holder_that_does_not_let_go_is_told(void **state)
{
    (void)state;
    struct rbxj_error e = {0};
    struct quarantine was;
    (void)place_begin();
    config.gate_timeout_ns = 20000000;
    int fd = open(config.state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_refused(quarantine_enter(&config, QUARANTINE_MANUAL, "why", &e), e, RBXJ_E_JOURNAL_BUSY,
                   "for too long");
    assert_false(path_exists(file_path()));
    assert_true(quarantine_is_set(&config));
    e = (struct rbxj_error){0};
    assert_refused(quarantine_leave(&config, false, &was, &e), e, RBXJ_E_JOURNAL_BUSY, "for too long");
    assert_true(quarantine_is_set(&config));
    (void)close(fd);
    e = (struct rbxj_error){0};
    assert_int_equal(quarantine_leave(&config, false, &was, &e), 1);
    assert_false(quarantine_is_set(&config));
}

static void the_reason_that_is_harder_to_release_wins(void **state)
{
    (void)state;
    static const struct {
        enum quarantine_reason there, new;
        bool replaced;
    } cases[] = {
        {QUARANTINE_CLEANUP_FAILURE, QUARANTINE_CLEANUP_FAILURE, false},
        {QUARANTINE_CLEANUP_FAILURE, QUARANTINE_EXHAUSTION, false},
        {QUARANTINE_CLEANUP_FAILURE, QUARANTINE_CORRUPTION, true},
        {QUARANTINE_ORPHAN_PROCESS, QUARANTINE_MANUAL, true},
        {QUARANTINE_CORRUPTION, QUARANTINE_CLEANUP_FAILURE, false},
        {QUARANTINE_CORRUPTION, QUARANTINE_CORRUPTION, false},
        {QUARANTINE_CORRUPTION, QUARANTINE_MANUAL, true},
        {QUARANTINE_MANUAL, QUARANTINE_CLEANUP_FAILURE, false},
        {QUARANTINE_MANUAL, QUARANTINE_CORRUPTION, false},
        {QUARANTINE_MANUAL, QUARANTINE_MANUAL, true},
    };
    struct rbxj_error e = {0};
    struct quarantine was;
    (void)place_begin();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        must_enter(cases[i].there, "first");
        assert_int_equal(quarantine_enter(&config, cases[i].new, "second", &e), cases[i].replaced);
        expect(cases[i].replaced ? cases[i].new : cases[i].there, cases[i].replaced ? "second" : "first");
        assert_string_equal(harness_read(file_path()), harness_read(flag_path()));
        bool stays = cases[i].there >= QUARANTINE_CORRUPTION || cases[i].new >= QUARANTINE_CORRUPTION;
        assert_int_equal(quarantine_leave(&config, true, &was, &e), !stays);
        assert_int_equal(quarantine_leave(&config, false, &was, &e), stays);
        assert_false(quarantine_is_set(&config));
    }
}

/* ---- only one of the two ---- */

static int replay_all(const struct place *p, int dry_run)
{
    struct rbxj_options options = {.state_dir = p->state, .runtime_dir = p->runtime};
    struct rbxj_replay how = {.dry_run = dry_run};
    struct rbxj_result *result = NULL;
    struct rbxj_error e = {0};
    int r = rbxj_replay(&options, &how, &result, &e);
    rbxj_result_free(result);
    return r;
}

static void the_flag_comes_back_after_a_boot(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_begin();
    assert_int_equal(rmdir(harness_format("%s/journal", p.state)), 0);
    must_enter(QUARANTINE_CLEANUP_FAILURE, "box 7");
    char *text = harness_read(file_path());
    next_boot(&p);
    assert_false(path_exists(flag_path()));
    assert_int_equal(replay_all(&p, 1), 0); /* it changes nothing */
    assert_false(path_exists(flag_path()));
    assert_int_equal(replay_all(&p, 0), 0); /* with no journal at all */
    assert_string_equal(harness_read(flag_path()), text);
    next_boot(&p);
    (void)place_open(&p);
    place_close();
    assert_int_equal(replay_all(&p, 0), 0);
    assert_string_equal(harness_read(flag_path()), text);
    /* one who has nothing to add does it, too */
    assert_int_equal(unlink(flag_path()), 0);
    assert_int_equal(quarantine_enter(&config, QUARANTINE_CLEANUP_FAILURE, "box 8", NULL), 0);
    assert_string_equal(harness_read(flag_path()), text);
}

static void the_flag_alone_says_why_and_is_repaired(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_begin();
    struct rbxj_error e = {0};
    struct rbxj_health h;
    struct rbxj_options options = {.state_dir = p.state, .runtime_dir = p.runtime};
    assert_int_equal(rmdir(harness_format("%s/journal", p.state)), 0);
    (void)place_open(&p);
    place_close();
    must_enter(QUARANTINE_CLEANUP_FAILURE, "box 7");
    char *text = harness_read(file_path());
    assert_int_equal(unlink(file_path()), 0);
    expect(QUARANTINE_CLEANUP_FAILURE, "box 7");
    assert_int_equal(replay_all(&p, 0), 0);
    assert_string_equal(harness_read(file_path()), text);
    assert_int_equal(unlink(file_path()), 0);
    assert_ok(rbxj_recover(&options, NULL, NULL, &h, &e), e);
    assert_string_equal(h.status, "healthy");
    assert_false(path_exists(file_path()));
    assert_false(path_exists(flag_path()));
}

/* Why it is there can't be read now: that must not become a quarantine which only a person can release. */
static void want_of_descriptors_changes_nothing(void **state)
{
    (void)state;
    (void)place_begin();
    struct rbxj_error e = {0};
    struct quarantine was;
    struct rlimit before, few;
    int taken[64];
    size_t n = 0;
    must_enter(QUARANTINE_CLEANUP_FAILURE, "box 7");
    assert_int_equal(unlink(file_path()), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = 64;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    while (n < ARRAY_LEN(taken) && (taken[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        n++;
    (void)close(taken[--n]); /* one is left: for the lock */
    int repaired = quarantine_repair(&config, &e), why = e.errnum;
    int entered = quarantine_enter(&config, QUARANTINE_CORRUPTION, "damaged", NULL);
    int left = quarantine_leave(&config, true, &was, NULL);
    while (n)
        (void)close(taken[--n]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_true(repaired < 0 && entered < 0 && left < 0);
    assert_int_equal(why, EMFILE);
    assert_false(path_exists(file_path()));
    expect(QUARANTINE_CLEANUP_FAILURE, "box 7");
}

/* By whatever it was made: nobody knows why, so a person must have a look. */
static void an_empty_flag_is_a_persons(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_begin();
    struct quarantine was;
    harness_mkdir(p.runtime);
    harness_write(flag_path(), "");
    expect(QUARANTINE_MANUAL, "can't be read");
    assert_int_equal(quarantine_repair(&config, NULL), 0);
    expect(QUARANTINE_MANUAL, "can't be read");
    assert_true(path_exists(file_path()));
    assert_int_equal(quarantine_leave(&config, true, &was, NULL), 0);
}

static void k33_nothing_is_made_in_an_empty_state_directory(void **state)
{
    (void)state;
    harness_need_root();
    struct place p = place_begin();
    must_enter(QUARANTINE_MANUAL, "why");
    assert_int_equal(unlink(file_path()), 0);
    assert_int_equal(rmdir(harness_format("%s/journal", p.state)), 0);
    assert_int_equal(replay_all(&p, 0), 0);
    assert_int_equal(rmdir(p.state), 0);
    assert_int_equal(quarantine_repair(&config, NULL), 0); /* nor the directory */
    assert_false(path_exists(p.state));
    assert_true(quarantine_is_set(&config));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(k31_a_persons_is_not_overwritten),
        journal_test(k31_a_persons_is_not_released_by_a_recovery),
        journal_test(a_holder_that_does_not_let_go_is_told),
        journal_test(the_reason_that_is_harder_to_release_wins),
        journal_test(the_flag_comes_back_after_a_boot),
        journal_test(the_flag_alone_says_why_and_is_repaired),
        journal_test(want_of_descriptors_changes_nothing),
        journal_test(an_empty_flag_is_a_persons),
        journal_test(k33_nothing_is_made_in_an_empty_state_directory),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
