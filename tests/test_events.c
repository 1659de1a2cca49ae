/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Events (I10): what journald receives, on its own socket, in a private mount namespace; and what the program
 * is told where there is no journald.
 */
#include "incident_fixture.h"

#include "reaper/events.h"

#include <errno.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>

/* A /run of this test's own, hidden from everybody else: without a journald. */
static void no_journald(void)
{
    harness_need_root();
    assert_int_equal(mount("test", "/run", "tmpfs", 0, "size=1m"), 0);
}

/* With one, of which this is the socket. */
static int journald(void)
{
    no_journald();
    harness_mkdir("/run/systemd");
    harness_mkdir("/run/systemd/journal");
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket"};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void done(int fd)
{
    if (fd >= 0)
        (void)close(fd);
    assert_int_equal(umount2("/run", MNT_DETACH), 0);
}

static char datagram[20000];

/* The next datagram; false: none. */
static bool receive(int fd)
{
    ssize_t n = recv(fd, datagram + 1, sizeof(datagram) - 2, 0);
    datagram[0] = '\n';
    datagram[1 + (n > 0 ? n : 0)] = 0;
    return n > 0;
}

/* Has it that line? */
static bool has(const char *line)
{
    return strstr(datagram, harness_format("\n%s\n", line)) != NULL;
}

static void fields_reach_journald(void **state)
{
    (void)state;
    state_begin();
    int fd = journald();
    event_send(&config,
               &(struct event){.event = "cleanup_failure",
                               .priority = LOG_WARNING,
                               .box = "7",
                               .incarnation = UINT64_MAX,
                               .kind = "mount",
                               .name = "/srv/7",
                               .cause = "system_crash",
                               .incident = "20261124T030000Z-1a2b3c4d",
                               .errnum = EBUSY},
               "box %s", "7");
    assert_true(receive(fd));
    const char *const lines[] = {"MESSAGE=box 7",
                                 "SYSLOG_IDENTIFIER=test_events",
                                 "MESSAGE_ID=3b2887dba8bd4b58b7b5ac83361ff8f7",
                                 "PRIORITY=4",
                                 "RBXJ_EVENT=cleanup_failure",
                                 "RBXJ_BOX=7",
                                 "RBXJ_INCARNATION=18446744073709551615",
                                 "RBXJ_KIND=mount",
                                 "RBXJ_NAME=/srv/7",
                                 "RBXJ_CAUSE=system_crash",
                                 "RBXJ_INCIDENT=20261124T030000Z-1a2b3c4d",
                                 "ERRNO=16"};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        assert_true(has(lines[i]));
    assert_null(strstr(datagram, "CODE_FILE="));
    assert_int_equal(events, 0); /* told once */

    event_send(&config, &(struct event){.event = "note", .priority = LOG_ERR}, "x");
    assert_true(receive(fd));
    assert_true(has("PRIORITY=3"));
    assert_true(has("MESSAGE_ID=a157c70fffe54782b479d5b24a830df5"));
    assert_null(strstr(datagram, "RBXJ_BOX"));
    assert_null(strstr(datagram, "RBXJ_INCARNATION"));
    assert_null(strstr(datagram, "ERRNO"));
    assert_false(receive(fd));
    done(fd);
}

static void bytes_are_escaped_and_bounded(void **state)
{
    (void)state;
    state_begin();
    int fd = journald();
    char name[5000];
    memset(name, '\xff', sizeof(name));
    name[sizeof(name) - 1] = 0;
    struct event event = {.event = "note", .name = "/a\nRBXJ_BOX=8\n\x1b[31m\xff"};
    event_send(&config, &event, "%s", "one\ntwo\x1b");
    assert_true(receive(fd));
    assert_true(has("MESSAGE=one\\x0atwo\\x1b"));
    assert_true(has("RBXJ_NAME=/a\\x0aRBXJ_BOX=8\\x0a\\x1b[31m\\xff"));
    event = (struct event){.event = name,
                           .box = name,
                           .kind = name,
                           .name = name,
                           .cause = name,
                           .incident = name,
                           .errnum = 1,
                           .incarnation = 1};
    event_send(&config, &event, "%s%s", name, name);
    assert_true(receive(fd));
    assert_in_range(strlen(datagram), 4000, 8000);
    done(fd);
}

static void program_is_told_instead(void **state)
{
    (void)state;
    state_begin();
    no_journald();
    event_send(&config, &(struct event){.event = "note"}, "box %s", "\x1b[2J");
    assert_int_equal(events, 1);
    assert_string_equal(last_event, "note: box \\x1b[2J");
    config.event = NULL;
    event_send(&config, &(struct event){.event = "note"}, "nobody is told");
    assert_int_equal(events, 1);
    config.event = count_event;
    done(-1);

    int fd = journald(); /* a socket at which nobody listens any more */
    (void)close(fd);
    event_send(&config, &(struct event){.event = "note"}, "still told");
    assert_int_equal(events, 2);
    assert_string_equal(last_event, "note: still told");
    done(-1);
}

/* From an old one its own buffer would be full first. */
static bool send_from_new_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket"};
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    return sendto(fd, "A=1\n", 4, 0, (struct sockaddr *)&address, sizeof(address)) == 4;
}

/* As a stopped one does, or one that waits for its own disk: nobody waits for it without a bound. */
static void journald_that_takes_no_more(void **state)
{
    (void)state;
    state_begin();
    int fd = journald();
    while (send_from_new_socket())
        continue;
    assert_int_equal(errno, EAGAIN);
    for (int i = 1; i <= 100; i++) {
        event_send(&config, &(struct event){.event = "note"}, "not heard");
        assert_int_equal(events, i);
    }
    while (receive(fd))
        assert_true(has("A=1"));
    event_send(&config, &(struct event){.event = "note"}, "heard again");
    assert_int_equal(events, 100);
    assert_true(receive(fd));
    assert_true(has("MESSAGE=heard again"));
    done(fd);
}

static void replay_tells_each_box_and_the_end(void **state)
{
    (void)state;
    state_begin();
    int fd = journald();
    struct rbxj_result *result = one_box(71, OUTCOME_UNDONE);
    (void)result_add(result, "8", 81, "system_crash", "partial");
    entry_add(result, 2, RBXJ_LOCK, "/srv/8/lock", OUTCOME_UNDONE, NULL);
    entry_add(result, 1, RBXJ_CGROUP, "/sys/fs/cgroup/8", OUTCOME_FAILED, "rmdir");
    (void)snprintf(result->boxes[1].incident, sizeof(result->boxes[1].incident), "%s", id1);
    (void)result_add(result, "9", 91, "supervisor_crash", "failure"); /* not even an entry */
    events_replay(&config, result);
    assert_true(receive(fd));
    assert_true(has("RBXJ_EVENT=cgroup_removal_failed"));
    assert_true(has("MESSAGE=box 8: cgroup /sys/fs/cgroup/8: failed: rmdir: Device or resource busy"));
    assert_true(has(harness_format("RBXJ_INCIDENT=%s", id1)));
    assert_true(has("ERRNO=16"));
    assert_true(receive(fd));
    assert_true(has("RBXJ_EVENT=cleanup_failure"));
    assert_true(has("RBXJ_BOX=9"));
    assert_true(receive(fd));
    assert_true(has("RBXJ_EVENT=replay_done"));
    assert_true(has("MESSAGE=3 stale boxes: 2 undone, 0 already gone, 1 left"));
    assert_false(receive(fd));
    rbxj_result_free(result);

    result = result_new(); /* nothing found, nothing told */
    events_replay(&config, result);
    assert_false(receive(fd));
    rbxj_result_free(result);
    done(fd);
}

static void log_is_not_flooded(void **state)
{
    (void)state;
    state_begin();
    no_journald();
    struct rbxj_result *result = result_new();
    for (uint64_t i = 1; i <= 1000; i++) {
        (void)result_add(result, "7", i, "supervisor_crash", "failure");
        entry_add(result, 1, RBXJ_MOUNT, "/m", OUTCOME_FAILED, "umount");
    }
    events_replay(&config, result);
    assert_int_equal(events, 102);
    rbxj_result_free(result);
    done(-1);
}

static void words_by_kind(void **state)
{
    (void)state;
    static const struct {
        const char *kind, *state, *word;
        int errnum;
    } cases[] = {
        {"mount", "stale", "mount_unmount_failed", EBUSY},
        {"cgroup", "stale", "cgroup_removal_failed", EBUSY},
        {"process", "stale", "process_reap_failed", EPERM},
        {"lock", "stale", "cleanup_failure", EBUSY},
        {"tmpdir", "stale", "cleanup_failure", EBUSY},
        {"mount", "stale", "cleanup_timeout", ETIMEDOUT},
        {"lock", "held", "orphan_detected", EBUSY},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct rbxj_error error = {.code = 1, .errnum = cases[i].errnum};
        struct rbxj_result_box box = {.state = cases[i].state};
        struct rbxj_result_entry entry = {.kind = cases[i].kind, .error = &error};
        assert_string_equal(event_of_entry(&box, &entry), cases[i].word);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(fields_reach_journald),
        harness_test(bytes_are_escaped_and_bounded),
        harness_test(program_is_told_instead),
        harness_test(journald_that_takes_no_more),
        harness_test(replay_tells_each_box_and_the_end),
        harness_test(log_is_not_flooded),
        cmocka_unit_test(words_by_kind),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
