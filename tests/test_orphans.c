/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Processes that outlive their box, where a script can't make them so: reused pids, other boots, other pid
 * namespaces, state D. They are found, doubted or named (K31). How it looks to an operator: orphans.sh.
 */
#include "journal_fixture.h"

#include "reaper/orphans.h"

#include <sys/syscall.h>
#include <sys/xattr.h>

static struct config config;

static struct rbxj_options place_begin(void)
{
    static struct place p;
    struct rbxj_error e = {0};
    p = place_make();
    config = (struct config){.state_dir = (char *)p.state, .runtime_dir = (char *)p.runtime};
    struct journal *j = place_open(&p);
    struct box box = {0};
    assert_ok(begin(j, &box, "a", NULL, 0, &e), e);
    place_close();
    return (struct rbxj_options){.state_dir = p.state, .runtime_dir = p.runtime};
}

static struct rbxj_health look(const struct rbxj_options *options)
{
    struct rbxj_health h = {0};
    struct rbxj_error e = {0};
    assert_ok(rbxj_health(options, &h, &e), e);
    return h;
}

/* What a replay has written down, and how many a look then finds. */
static uint32_t kept(const struct rbxj_options *options, const struct procid *id)
{
    _cleanup_(orphans_clear) struct orphans o = {0};
    assert_int_equal(orphans_add(&o, id, "a"), 0);
    assert_int_equal(orphans_store(&config, &o), 0);
    struct rbxj_health h = look(options);
    assert_string_equal(h.status, h.orphan_processes ? "unhealthy" : "healthy");
    return h.orphan_processes;
}

static void a_pid_that_is_used_again_is_no_orphan(void **state)
{
    (void)state;
    harness_need_root();
    struct rbxj_options options = place_begin();
    struct procid id, other;
    pid_t pid = harness_spawn(NULL);
    assert_int_equal(procid_of(pid, &id), 0);
    assert_int_equal(kept(&options, &id), 1);
    other = id;
    other.start_time++;
    assert_int_equal(kept(&options, &other), 0);
    other = id;
    other.boot_id[3] ^= 1; /* a runtime directory on a disk outlives the boot */
    assert_int_equal(kept(&options, &other), 0);
    other = id;
    other.pid_ns++; /* its numbers say nothing here */
    assert_int_equal(kept(&options, &other), 0);
    assert_true(look(&options).not_looked_at > 0);
    assert_int_equal(kept(&options, &id), 1);
    harness_kill(pid);
    assert_int_equal(look(&options).orphan_processes, 0);
}

/* Of this namespace the kernel says that it is the initial one: all that is in it is seen, as there. */
static bool initial;

int stat(const char *path, struct stat *st)
{
    int r = fstatat(AT_FDCWD, path, st, 0);
    if (initial && strcmp(path, "/proc/self/ns/pid") == 0)
        st->st_ino = PROCID_INITIAL_PID_NS;
    return r;
}

/* Which of those that were written down stay, as somebody else's to know. */
static size_t stay(bool from_initial, bool *ret_blind)
{
    _cleanup_(orphans_clear) struct orphans here = {0}, elsewhere = {0};
    initial = from_initial;
    int r = orphans_load(&config, &here, &elsewhere);
    initial = false;
    assert_int_equal(r, 0);
    assert_int_equal(here.len, 0);
    *ret_blind = here.blind;
    return elsewhere.len;
}

static void a_pid_namespace_that_has_ended_has_no_orphans(void **state)
{
    (void)state;
    harness_need_root();
    (void)place_begin();
    struct shared *s = shared_make();
    struct orphans o = {0};
    struct procid id;
    struct stat st;
    bool blind;
    pid_t pid = CHILD({
        CHECK(unshare(CLONE_NEWPID) == 0);
        pid_t first = fork();
        if (first == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            (void)pause();
        }
        atomic_store(&s->step, 1);
        while (!atomic_load(&s->stop))
            (void)usleep(1000);
        CHECK(kill(first, SIGKILL) == 0);
        CHECK(waitpid(first, NULL, 0) == first);
    });
    wait_for(s, 1);
    assert_int_equal(stat(harness_format("/proc/%d/ns/pid_for_children", pid), &st), 0);
    assert_int_equal(procid_of(getpid(), &id), 0);
    assert_int_not_equal(id.pid_ns, st.st_ino);
    id.pid_ns = st.st_ino;
    for (id.pid = 7; id.pid < 9; id.pid++)
        assert_int_equal(orphans_add(&o, &id, "a"), 0);
    assert_int_equal(orphans_store(&config, &o), 0);
    assert_int_equal(stay(true, &blind), 2); /* somebody is in it */
    assert_true(blind);
    atomic_store(&s->stop, 1);
    assert_child(pid);
    assert_int_equal(stay(false, &blind), 2); /* it may be in another one, which is not seen from here */
    assert_true(blind);
    assert_int_equal(stay(true, &blind), 0);
    assert_false(blind);
    id.pid_ns = 0; /* not known which it was */
    assert_int_equal(orphans_add(&o, &id, "a"), 0);
    assert_int_equal(orphans_store(&config, &o), 0);
    orphans_clear(&o);
    assert_int_equal(stay(true, &blind), 1);
    assert_true(blind);
}

static void what_is_written_down_and_makes_no_sense_is_doubt(void **state)
{
    (void)state;
    harness_need_root();
    struct rbxj_options options = place_begin();
    static const char *const texts[] = {"",
                                        "garbage",
                                        "{}",
                                        "{\"orphans\":7}",
                                        "{\"orphans\":[{\"pid\":1}]}",
                                        "{\"orphans\":[{\"pid\":-7,\"boot_id\":\"x\"}]}"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        harness_write(harness_format("%s/orphans", options.runtime_dir), texts[i]);
        struct rbxj_health h = look(&options);
        assert_string_equal(h.status, "healthy");
        assert_true(h.not_looked_at > 0);
    }
}

/* As vfork() does, this keeps the parent in state D until the child has executed something or died. */
static void a_blocked_process_is_told_with_its_box(void **state)
{
    (void)state;
    harness_need_root();
    struct rbxj_options options = place_begin();
    struct rbxj_error e = {0};
    struct shared *s = shared_make();
    char *json = NULL, who[120] = "";
    pid_t pid = CHILD({
        struct rbxj *handle;
        CHECK_OK(rbxj_open(&options, &handle, &e), e);
        CHECK_OK(rbxj_begin(handle, &(struct rbxj_box){.name = "b"}, NULL, &e), e);
        atomic_store(&s->step, 1);
        if (syscall(SYS_clone, CLONE_VFORK | SIGCHLD, NULL, NULL, NULL, NULL) == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            (void)pause();
        }
    });
    wait_for(s, 1);
    for (int i = 0; i < 30000 && !strstr(who, "state D"); i++) {
        procid_describe(pid, who, sizeof(who));
        (void)usleep(1000);
    }
    struct rbxj_health h = look(&options);
    assert_int_equal(h.blocked_processes, 1);
    assert_string_equal(h.status, "healthy");
    assert_ok(rbxj_evidence(&options, &json, &e), e);
    assert_non_null(strstr(json, harness_format("\"blocked_process\",\"message\":\"box b: pid %d (", pid)));
    free(json);
    harness_kill(pid);
}

/* Its members are shown as 0 there. */
static void who_cant_be_seen_is_said_to_be_so(void **state)
{
    (void)state;
    harness_need_root();
    const char *group = harness_cgroup();
    struct place p = place_make();
    struct rbxj_options options = {.state_dir = p.state, .runtime_dir = p.runtime};
    struct rbxj_error e = {0};
    (void)harness_spawn(group);
    assert_int_equal(setxattr(group, "trusted.rbxj", "4711:1", 6, 0), 0);
    pid_t pid = NAMESPACE_CHILD({
        struct rbxj *handle;
        struct rbxj_health h;
        CHECK_OK(rbxj_open(&options, &handle, &e), e);
        CHECK_OK(rbxj_begin(handle, &(struct rbxj_box){.name = "b"}, NULL, &e), e);
        CHECK_OK(rbxj_health(&options, &h, &e), e);
        CHECK(h.orphan_processes == 0 && h.not_looked_at > 0);
        CHECK(strcmp(h.status, "healthy") == 0);
        rbxj_close(handle);
    });
    assert_child(pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        journal_test(a_pid_that_is_used_again_is_no_orphan),
        journal_test(a_pid_namespace_that_has_ended_has_no_orphans),
        journal_test(what_is_written_down_and_makes_no_sense_is_doubt),
        journal_test(a_blocked_process_is_told_with_its_box),
        journal_test(who_cant_be_seen_is_said_to_be_so),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
