/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A helper of a process, or of a thread, whose children go to another pid namespace: it does not go there
 * (K16).
 */
#include "seccomp_fixture.h"

#include "base/cleanup.h"
#include "base/config_links.h"
#include "base/fd.h"
#include "base/helper.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define EXPECT(condition)                                                                                    \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            return __LINE__ & 127 ? __LINE__ & 127 : 1;                                                      \
    } while (0)

static int64_t in_ms(int ms)
{
    return now_monotonic_ns() + (int64_t)ms * 1000000;
}

static int answers(void *data, uint8_t output[HELPER_OUTPUT_MAX])
{
    memcpy(output, data, 5);
    return 4711;
}

static int tells_its_namespace(void *data, uint8_t output[HELPER_OUTPUT_MAX])
{
    (void)data;
    struct stat st;
    if (stat("/proc/self/ns/pid", &st) < 0)
        return errno;
    memcpy(output, &st.st_ino, sizeof(st.st_ino));
    return 0;
}

/* A child whose pid is 1 in the pid namespace that the next one goes to; it waits. */
static bool is_first(pid_t *ret)
{
    int tell[2], got = 0;
    if (pipe2(tell, O_CLOEXEC) < 0)
        return false;
    *ret = fork();
    if (*ret == 0) {
        int own = getpid();
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)!write(tell[1], &own, sizeof(own));
        for (;;)
            pause();
    }
    (void)close(tell[1]);
    bool told = *ret > 0 && read(tell[0], &got, sizeof(got)) == sizeof(got);
    (void)close(tell[0]);
    return told && got == 1;
}

/* A supervisor whose children are in another pid namespace: its first one is a payload, and no helper. */
static int with_children_elsewhere(void)
{
    struct helper_result result;
    struct stat own;
    ino_t seen;
    pid_t first, second;
    EXPECT(stat("/proc/self/ns/pid", &own) == 0);
    EXPECT(unshare(CLONE_NEWPID) == 0);
    EXPECT(helper_run(answers, "hello", 0, in_ms(30000), &result) == -ECHILD);
    EXPECT(is_first(&first));
    EXPECT(helper_run(tells_its_namespace, NULL, 0, in_ms(30000), &result) == 0 && result.code == 0);
    memcpy(&seen, result.output, sizeof(seen));
    EXPECT(seen == own.st_ino);
    EXPECT(!is_first(&second) && second > 0); /* the next child goes there as before */
    EXPECT(kill(first, SIGKILL) == 0);        /* it is gone once the other one is */
    EXPECT(waitpid(second, NULL, 0) == second && waitpid(first, NULL, 0) == first);
    int rc = helper_run(answers, "hello", 0, in_ms(30000),
                        &result); /* if that namespace still can be opened (6.18) */
    EXPECT(rc == 0 || rc == -ECHILD);
    EXPECT(fork() == -1 && errno == ENOMEM); /* as before */
    return 0;
}

static void k16_no_helper_goes_to_the_payloads_pid_namespace(void **state)
{
    (void)state;
    harness_need_root();
    child_says(with_children_elsewhere, 0);
}

static char *link_path;

/* Who can't ask where a protected path leads must not go on as if it led nowhere; where there is nothing,
 * none is asked. */
static int resolves_what_is_protected(void)
{
    const char *const paths[] = {link_path, harness_format("%s/none/below", harness_disk())};
    struct stat st;
    EXPECT(unshare(CLONE_NEWPID) == 0);
    EXPECT(stat(paths[1], &st) < 0); /* the kernel knows that by now */
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        char **list = calloc(2, sizeof(*list));
        EXPECT(list && (list[0] = strdup(paths[i])));
        EXPECT(config_add_targets(&list, harness_disk()) == (i == 0 ? -ECHILD : 0));
        EXPECT(!list[1]);
    }
    return 0;
}

static void i4_where_no_helper_can_be_had_a_link_is_no_free_pass(void **state)
{
    (void)state;
    harness_need_root();
    link_path = harness_format("%s/link", harness_disk());
    assert_int_equal(symlink("/", link_path), 0);
    child_says(resolves_what_is_protected, 0);
}

/* The number of where this thread's children go; 0: nobody was there yet. */
static ino_t children_ns(void)
{
    struct stat st = {0};
    return stat("/proc/thread-self/ns/pid_for_children", &st) == 0 ? st.st_ino : 0;
}

static int in_thread(void *(*function)(void *data))
{
    pthread_t thread;
    void *rc = NULL;
    EXPECT(pthread_create(&thread, NULL, function, NULL) == 0 && pthread_join(thread, &rc) == 0);
    return (int)(intptr_t)rc;
}

static int goes_elsewhere_alone(void)
{
    struct helper_result result;
    EXPECT(unshare(CLONE_NEWPID) == 0);
    EXPECT(helper_run(answers, "hello", 0, in_ms(30000), &result) == -ECHILD);
    EXPECT(children_ns() == 0);
    return 0;
}

static void *by_itself(void *data)
{
    (void)data;
    return (void *)(intptr_t)goes_elsewhere_alone();
}

static pthread_barrier_t barrier;

static int stays_alone(void)
{
    struct helper_result result;
    struct stat own;
    EXPECT(stat("/proc/self/ns/pid", &own) == 0);
    (void)pthread_barrier_wait(&barrier);
    (void)pthread_barrier_wait(&barrier);
    EXPECT(helper_run(answers, "hello", 0, in_ms(30000), &result) == 0);
    EXPECT(children_ns() == own.st_ino);
    return 0;
}

static void *before_the_others(void *data)
{
    (void)data;
    return (void *)(intptr_t)stays_alone();
}

/* Each thread has such a place of its own, and the first thread's says nothing of another's. */
static int in_one_thread(void)
{
    pthread_t thread;
    pid_t first;
    void *rc = NULL;
    int alone = in_thread(by_itself);
    if (alone)
        return alone;
    EXPECT(pthread_barrier_init(&barrier, NULL, 2) == 0);
    EXPECT(pthread_create(&thread, NULL, before_the_others, NULL) == 0);
    (void)pthread_barrier_wait(&barrier);
    bool there = unshare(CLONE_NEWPID) == 0 && is_first(&first);
    (void)pthread_barrier_wait(&barrier);
    EXPECT(pthread_join(thread, &rc) == 0 && there);
    return (int)(intptr_t)rc;
}

static void k16_each_thread_has_its_own(void **state)
{
    (void)state;
    harness_need_root();
    child_says(in_one_thread, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k16_no_helper_goes_to_the_payloads_pid_namespace),
        harness_test(k16_each_thread_has_its_own),
        harness_test(i4_where_no_helper_can_be_had_a_link_is_no_free_pass),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
