/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One incident, told by several at once: a replay, the owners of boxes that are open in it, a person (I10,
 * K19).
 */
#include "incident_fixture.h"

#include "reaper/incident_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

/* An open incident of that many boxes, incarnations 1 to n, of which a replay could undo none. */
static void incident_of(size_t n)
{
    struct rbxj_result *result = result_new();
    for (size_t i = 1; i <= n; i++) {
        (void)result_add(result, harness_format("%zu", i), i, "supervisor_crash", "failure");
        entry_add(result, 1, RBXJ_MOUNT, harness_format("/srv/%zu", i), OUTCOME_FAILED, "umount");
    }
    assert_true(replay_of(id1, result));
    expect_number(id1, "open", (double)n);
}

static struct rbxj_result *box_of(uint64_t incarnation, enum outcome outcome)
{
    struct rbxj_result *result = result_new();
    bool done = outcome == OUTCOME_UNDONE;
    (void)result_add(result, harness_format("%d", (int)incarnation), incarnation, "cleanup_failure",
                     done ? "success" : "failure");
    entry_add(result, 1, RBXJ_MOUNT, harness_format("/srv/%d", (int)incarnation), outcome,
              done ? NULL : "umount");
    return result;
}

static void i10_what_another_told_meanwhile_is_kept(void **state)
{
    (void)state;
    state_begin();
    incident_of(3);
    struct rbxj_result *a = box_of(1, OUTCOME_UNDONE), *b = box_of(2, OUTCOME_UNDONE);
    struct incidents *replay = incidents_begin(&config, "replay", id2, "a reason", a, yes, NULL);
    struct incidents *owner = incidents_begin(&config, "undo", id2, NULL, b, NULL, NULL);
    assert_string_equal(incidents_of(replay, 0), id1);
    assert_string_equal(incidents_of(owner, 0), id1);
    incidents_end(owner, b, &more);
    incident_note(&config, "forget", NULL, "3", 3, true, "forgotten");
    incidents_end(replay, a, &more);
    expect_number(id1, "open", 0);
    expect_number(id1, "left", 0);
    expect_number(id1, "count", 3);
    expect_number(id1, "notes", 2);
    expect_number(id1, "entries", 3);
    expect_text(id1, "outcome", "success");
    assert_false(path_exists(path_of(id1, "open")));
    assert_int_equal(recoveries(), 1);
    rbxj_result_free(a);
    rbxj_result_free(b);
    assert_int_equal(events, 0);
}

enum { WRITERS = 4, ROUNDS = 50 };

static void i10_none_of_many_writers_is_lost(void **state)
{
    (void)state;
    state_begin();
    config.state_dir = harness_format("%s/state",
                                      harness_tmpfs()); /* no flush: whoever waits for the lock gets it */
    harness_mkdir(config.state_dir);
    harness_mkdir(harness_format("%s/journal", config.state_dir));
    incident_of(WRITERS);
    int go[2];
    pid_t pids[WRITERS];
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    for (int i = 0; i < WRITERS; i++) {
        (void)fflush(NULL);
        pids[i] = fork();
        if (pids[i] == 0) {
            char byte;
            (void)close(go[1]);
            (void)!read(go[0], &byte, 1); /* until all are there */
            for (int k = 1; k <= ROUNDS; k++)
                (void)replay_of(id2, box_of((uint64_t)i + 1, k < ROUNDS ? OUTCOME_FAILED : OUTCOME_UNDONE));
            _exit(events ? 1 : 0);
        }
        harness_track(pids[i]);
    }
    (void)close(go[0]);
    (void)close(go[1]);
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(harness_wait(pids[i]), 0);
    expect_number(id1, "count", WRITERS * ROUNDS + 1);
    expect_number(id1, "open", 0);
    expect_number(id1, "entries", WRITERS);
    expect_text(id1, "outcome", "success");
    assert_int_equal(listed(NULL, 0), 1);
}

static void k19_a_stopped_writer_blocks_nobody(void **state)
{
    (void)state;
    state_begin();
    incident_of(1);
    int fd = open(path_of("", ""), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    (void)replay_of(id2, box_of(1, OUTCOME_UNDONE));
    expect_number(id1, "count", 2);
    expect_text(id1, "outcome", "success");
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(i10_what_another_told_meanwhile_is_kept),
        harness_test(i10_none_of_many_writers_is_lost),
        harness_test(k19_a_stopped_writer_blocks_nobody),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
