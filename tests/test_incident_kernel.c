/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What an incident keeps of the kernel's log of its time, with a real out-of-memory kill (I10).
 */
#include "incident_fixture.h"
#include "oom_fixture.h"

#include "reaper/incident_kernel.h"
#include "reaper/incident_store.h"

#include <sys/mount.h>

/* One box that began then; left, or undone. */
static struct rbxj_result *box_of(int64_t begun_ns, enum outcome outcome)
{
    struct rbxj_result *result = one_box(71, outcome);
    result->boxes[0].box.begun_ns = begun_ns;
    return result;
}

static double kernel_number(const char *id, const char *key)
{
    cJSON *document = read_document(id);
    double n = doc_get_number(cJSON_GetObjectItemCaseSensitive(document, "kernel"), key, -1);
    cJSON_Delete(document);
    return n;
}

/* The reason, or NULL; lives until the end of the test. */
static const char *kernel_error(const char *id)
{
    cJSON *document = read_document(id);
    const char *error = doc_get_text(cJSON_GetObjectItemCaseSensitive(document, "kernel"), "error");
    error = error ? harness_format("%s", error) : NULL;
    cJSON_Delete(document);
    return error;
}

/* How many of its lines have that text. */
static int lines_with(const char *id, const char *text)
{
    cJSON *document = read_document(id);
    const cJSON *kernel = cJSON_GetObjectItemCaseSensitive(document, "kernel");
    int n = 0;
    for (const cJSON *item = doc_get_first(kernel, "lines"); item; item = item->next)
        n += strstr(cJSON_GetStringValue(item), text) != NULL;
    cJSON_Delete(document);
    return n;
}

static size_t occurrences(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++)
        n++;
    return n;
}

static const char *memory_group(void)
{
    (void)oom_hierarchy();
    struct kernel_log *log = kernel_log_read(0);
    assert_non_null(log);
    int error = log->error;
    free(log);
    if (error < 0)
        harness_skip("/dev/kmsg: %s", strerror(-error));
    const char *group = harness_cgroup_root("memory") ? harness_cgroup_v1("memory") : harness_cgroup();
    oom_limit(group);
    return group;
}

static void an_oom_kill_of_its_time_is_kept(void **state)
{
    (void)state;
    const char *group = memory_group(), *first = oom_name("one"), *second = oom_name("two");
    state_begin();
    int64_t begun_ns = now_realtime_ns();
    oom_kill_in(group, first);
    assert_true(replay_of(id1, box_of(begun_ns, OUTCOME_FAILED)));
    assert_null(kernel_error(id1));
    assert_true(kernel_number(id1, "oom_kills") >= 1 && kernel_number(id1, "messages") >= 1);
    assert_int_equal(lines_with(id1, harness_format("(%s)", first)), 1);
    const char *log = harness_read(path_of(id1, "kernel.log"));
    assert_int_equal(occurrences(log, "Killed process"), (int)kernel_number(id1, "oom_kills"));
    assert_non_null(strstr(log, harness_format("(%s)", first)));
    assert_int_equal(mode_of(path_of(id1, "kernel.log")), 0600);
    cJSON *document = read_document(id1);
    assert_string_equal(
        cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItem(document, "evidence"), 0)), "kernel.log");
    cJSON_Delete(document);

    /* what it comes to while it is open is added; what is told already is not told again */
    oom_kill_in(group, second);
    assert_false(replay_of(id2, box_of(begun_ns, OUTCOME_FAILED)));
    assert_int_equal(lines_with(id1, harness_format("(%s)", first)), 1);
    assert_int_equal(lines_with(id1, harness_format("(%s)", second)), 1);
    log = harness_read(path_of(id1, "kernel.log"));
    assert_int_equal(occurrences(log, "Killed process"), (int)kernel_number(id1, "oom_kills"));
    assert_true(strstr(log, harness_format("(%s)", first)) < strstr(log, harness_format("(%s)", second)));
}

/* The process of that name as the kernel counts: in this test's pid namespace it has another pid. */
static pid_t killed(const char *name, int64_t since_ns)
{
    struct kernel_log *log = kernel_log_read(since_ns - 10000000000);
    assert_non_null(log);
    pid_t pid = 0;
    for (size_t i = 0; i < log->len; i++)
        if (strstr(kernel_log_line(log, i)->text, harness_format("(%s)", name)) && pid == 0)
            pid = kernel_line_killed(kernel_log_line(log, i));
    free(log);
    return pid;
}

/* A replay of a box with that supervisor: how many notes it has. */
static int notes_of(struct procid supervisor, int64_t begun_ns)
{
    char id[INCIDENT_ID_MAX];
    incident_new_id(id);
    struct rbxj_result *result = box_of(begun_ns, OUTCOME_UNDONE);
    result->boxes[0].box.supervisor = supervisor;
    assert_true(replay_of(id, result));
    cJSON *document = read_document(id);
    const cJSON *note = doc_get_first(document, "notes");
    int n = 0;
    for (; note; note = note->next)
        n += strstr(cJSON_GetStringValue(note), "the kernel killed the supervisor of box 7, pid ") != NULL;
    cJSON_Delete(document);
    return n;
}

static void a_supervisor_that_the_kernel_killed_is_named(void **state)
{
    (void)state;
    const char *group = memory_group(), *name = oom_name("sup");
    state_begin();
    int64_t begun_ns = now_realtime_ns();
    oom_kill_in(group, name);
    struct procid supervisor = {.pid = killed(name, begun_ns), .pid_ns = PROCID_INITIAL_PID_NS};
    assert_true(supervisor.pid > 0);
    assert_int_equal(procid_boot(supervisor.boot_id), 0);
    assert_int_equal(notes_of(supervisor, begun_ns), 1);
    /* another one that has the number: of another boot, of a container, of a box that began later */
    assert_int_equal(notes_of(supervisor, now_realtime_ns() + 10000000000), 0);
    supervisor.boot_id[0] ^= 1;
    assert_int_equal(notes_of(supervisor, begun_ns), 0);
    supervisor.boot_id[0] ^= 1;
    supervisor.pid_ns++;
    assert_int_equal(notes_of(supervisor, begun_ns), 0);
    supervisor.pid_ns--;
    supervisor.pid++;
    assert_int_equal(notes_of(supervisor, begun_ns), 0);
}

static void what_was_before_the_box_is_not(void **state)
{
    (void)state;
    const char *group = memory_group(), *name = oom_name("old");
    state_begin();
    oom_kill_in(group, name);
    assert_true(replay_of(id1, box_of(now_realtime_ns() + 10000000000, OUTCOME_UNDONE)));
    assert_int_equal(lines_with(id1, name), 0);
    assert_int_equal((int)kernel_number(id1, "oom_kills"), 0);
    assert_false(path_exists(path_of(id1, "kernel.log")));
    assert_null(kernel_error(id1));
}

static void a_log_that_cant_be_read_is_told(void **state)
{
    (void)state;
    harness_need_root();
    if (!path_exists("/dev/kmsg"))
        harness_skip("there is no /dev/kmsg");
    state_begin();
    assert_int_equal(mount("/dev/null", "/dev/kmsg", NULL, MS_BIND, NULL), 0);
    bool is_new = replay_of(id1, box_of(now_realtime_ns(), OUTCOME_UNDONE));
    assert_int_equal(umount("/dev/kmsg"), 0);
    assert_true(is_new);
    expect_text(id1, "outcome", "success");
    assert_string_equal(kernel_error(id1), "/dev/kmsg could not be read: No such device");
    assert_true(kernel_number(id1, "messages") == 0);
    assert_false(path_exists(path_of(id1, "kernel.log")));
}

/* The file is bounded, and nothing but a file of its own. */
static void the_file_is_bounded(void **state)
{
    (void)state;
    enum { MOST = 64 << 10 };
    state_begin();
    harness_mkdir(harness_format("%s/incidents", config.state_dir));
    make_incident(id1, "{}", false);
    int fd = open(harness_format("%s/incidents", config.state_dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    static char text[40000];
    memset(text, 'x', sizeof(text));
    assert_int_equal(incident_store_append(fd, id1, "kernel.log", text, sizeof(text)), 0);
    assert_int_equal(incident_store_append(fd, id1, "kernel.log", text, sizeof(text)), 0);
    assert_int_equal(incident_store_append(fd, id1, "kernel.log", text, sizeof(text)), 0);
    struct stat st;
    assert_int_equal(stat(path_of(id1, "kernel.log"), &st), 0);
    assert_int_equal(st.st_size, MOST);
    assert_int_equal(symlink("kernel.log", path_of(id1, "link")), 0);
    assert_int_equal(incident_store_append(fd, id1, "link", text, 1), -ELOOP);
    assert_int_equal(mkfifo(path_of(id1, "pipe"), 0600), 0);
    assert_true(incident_store_append(fd, id1, "pipe", text, 1) < 0);
    assert_int_equal(incident_store_append(fd, id2, "kernel.log", text, 1), -ENOENT);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(an_oom_kill_of_its_time_is_kept),
        harness_test(a_supervisor_that_the_kernel_killed_is_named),
        harness_test(what_was_before_the_box_is_not),
        harness_test(a_log_that_cant_be_read_is_told),
        harness_test(the_file_is_bounded),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
