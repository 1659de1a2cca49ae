/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The removal of trees at which others work, or whose remover is killed: K17, I5.
 */
#include "rmtree_fixture.h"

/* ---- others at work ---- */

static void stamp(const char *path, uint64_t incarnation, uint32_t seq)
{
    struct record r = {.incarnation = incarnation, .seq = seq};
    _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(stamp_set(fd, &r), 0);
}

struct refill {
    const char *top;
    int made;
};

/* Puts another stamped directory beside each that is entered: the last one of each pass is not seen in it. */
static int refill(void *data, int fd, uint64_t incarnation, uint32_t seq, struct rbxj_error *e)
{
    (void)fd;
    struct refill *refill = data;
    (void)e;
    char *name = harness_format("%s/%d", refill->top, refill->made++);
    harness_mkdir(name);
    stamp(name, incarnation, seq);
    return 0;
}

static void k17_refilled_three_times_is_busy_naming_the_writer(void **state)
{
    (void)state;
    harness_need_root();
    struct refill data = {.top = make_top(harness_disk())};
    pid_t seen = 0;
    struct rmtree how = {.deadline_ns = in_seconds(20), .stamped = refill, .data = &data, .writer = &seen};
    (void)refill(&data, -1, 1, 1, NULL);
    pid_t writer = fork();
    if (writer == 0) {
        if (chdir(data.top) < 0)
            _exit(1);
        for (;;)
            (void)pause();
    }
    harness_track(writer);
    char *cwd = harness_format("/proc/%d/cwd", writer);
    char link[PATH_MAX] = "";
    for (int i = 0; i < 1000 && strcmp(link, data.top) != 0; i++) {
        (void)usleep(1000);
        ssize_t n = readlink(cwd, link, sizeof(link) - 1);
        link[n > 0 ? n : 0] = 0;
    }
    assert_int_equal(remove_tree_how(data.top, &how), -EBUSY);
    assert_true(data.made >= 3);
    assert_non_null(strstr(error.message, "refilled"));
    assert_non_null(strstr(error.detail, harness_format("pid %d ", writer)));
    assert_int_equal(seen, writer);
    assert_int_equal(remove_tree(data.top), 0);
}

static _Atomic bool stop_writing;

static void *write_files(void *path)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; !stop_writing; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "file %u", i % 100);
        (void)mknodat(fd, name, S_IFREG | 0600, 0);
        (void)snprintf(name, sizeof(name), "dir %u", i % 100);
        (void)mkdirat(fd, name, 0700);
    }
    return NULL;
}

static void k17_ends_while_a_thread_refills(void **state)
{
    (void)state;
    char *top = make_top(harness_disk());
    pthread_t thread;
    stop_writing = false;
    assert_int_equal(pthread_create(&thread, NULL, write_files, top), 0);
    (void)usleep(10000);
    int64_t start = now_monotonic_ns();
    int r = remove_tree_how(top, &(struct rmtree){.deadline_ns = in_seconds(3)});
    int64_t took = now_monotonic_ns() - start;
    stop_writing = true;
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(r == 0 || r == -EBUSY || r == -ETIMEDOUT);
    assert_true(took < INT64_C(3500000000));
    if (r < 0)
        assert_int_equal(remove_tree(top), 0);
    assert_false(path_exists(top));
}

static int refuse_seven(void *data, int fd, uint64_t incarnation, uint32_t seq, struct rbxj_error *e)
{
    (void)fd;
    (*(int *)data)++;
    return incarnation == 7 ? error_set(e, EBUSY, EBUSY, "box %u is in there", seq) : 0;
}

static void k4_another_boxs_stamp_is_busy(void **state)
{
    (void)state;
    harness_need_root();
    char *top = make_top(harness_disk());
    (void)close(make_chain(top, 40, 0));
    char *dir = harness_format("%s", top);
    for (int i = 0; i < 32; i++)
        dir = harness_format("%s/d", dir); /* the first level that would be hoisted */
    stamp(dir, 7, 3);
    stamp(harness_format("%s/d", top), 6, 1);
    harness_write(harness_format("%s/precious", dir), "x");
    int asked = 0;
    struct rmtree how = {.stamped = refuse_seven, .data = &asked};
    assert_int_equal(remove_tree_how(top, &how), -EBUSY);
    assert_int_equal(asked, 2);
    assert_non_null(strstr(error.message, "box 3"));
    assert_string_equal(harness_read(harness_format("%s/precious", dir)), "x"); /* not moved either */
    assert_int_equal(remove_tree(top), 0);
}

/* Stopped below the first directory that is too deep: it is at the top by then. */
static void hoisted_into_an_immutable_top(void **state)
{
    (void)state;
    harness_need_root();
    char *top = make_top(harness_disk()), *dir = top, *hoisted = NULL;
    (void)close(make_chain(top, 40, 0));
    for (int i = 0; i < 36; i++) {
        dir = harness_format("%s/d", dir);
        hoisted = i == 31 ? dir : hoisted;
    }
    stamp(dir, 7, 3);
    if (!set_flags(top, FS_IMMUTABLE_FL))
        harness_skip("no immutable flag here");
    int asked = 0;
    struct rmtree how = {.stamped = refuse_seven, .data = &asked};
    assert_int_equal(remove_tree_how(top, &how), -EBUSY);
    assert_false(path_exists(hoisted));
    assert_int_equal(remove_tree(top), 0);
}

static void replaced_top_is_left_alone(void **state)
{
    (void)state;
    char *top = make_top(harness_disk()), *moved = harness_format("%s/moved", harness_disk());
    harness_write(harness_format("%s/file", top), "");
    _cleanup_close_ int fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const char *base;
    _cleanup_close_ int parent = fd_open_parent(top, &base);
    assert_int_equal(rename(top, moved), 0);
    harness_mkdir(top);
    assert_int_equal(rmtree(parent, base, fd, &(struct rmtree){0}, &error), -ESTALE);
    assert_true(path_exists(top));
    assert_true(path_exists(moved));
}

static void deadline_ends_it(void **state)
{
    (void)state;
    char *top = make_top(harness_disk());
    (void)close(make_chain(top, 10, 1));
    assert_int_equal(remove_tree_how(top, &(struct rmtree){.deadline_ns = now_monotonic_ns() - 1}),
                     -ETIMEDOUT);
    assert_int_equal(remove_tree(top), 0);
}

static void emptiness(void **state)
{
    (void)state;
    char *top = make_top(harness_disk());
    _cleanup_close_ int fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(rmtree_is_empty(fd), 1);
    harness_write(harness_format("%s/file", top), "");
    assert_int_equal(rmtree_is_empty(fd), 0);
    assert_int_equal(rmtree_is_empty(fd), 0);
}

/* ---- killed anywhere (I5) ---- */

static void i5_killed_anywhere_and_run_again(void **state)
{
    (void)state;
    harness_need_root();
    char *top = make_top(harness_disk()), *outside = harness_format("%s/outside", harness_disk());
    harness_mkdir(outside);
    harness_write(harness_format("%s/precious", outside), "x");
    make_hostile(top, outside);
    for (int i = 0; i < 20; i++) {
        char *dir = harness_format("%s/%d", top, i);
        harness_mkdir(dir);
        (void)close(make_chain(dir, 100, 3));
        (void)set_flags(dir, FS_IMMUTABLE_FL);
    }
    int killed = 0;
    for (int i = 0; i < 60 && path_exists(top); i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(remove_tree(top) < 0);
        harness_track(pid);
        (void)usleep((useconds_t)(random() % 4000));
        (void)kill(pid, SIGKILL);
        int status = harness_wait(pid);
        killed += WIFSIGNALED(status);
        assert_false(WIFEXITED(status) && WEXITSTATUS(status));
    }
    assert_true(killed >= 5);
    if (path_exists(top))
        assert_int_equal(remove_tree(top), 0);
    assert_string_equal(harness_read(harness_format("%s/precious", outside)), "x");
    assert_only(harness_disk(), "outside");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(k17_refilled_three_times_is_busy_naming_the_writer),
        harness_test(k17_ends_while_a_thread_refills),
        harness_test(k4_another_boxs_stamp_is_busy),
        harness_test(hoisted_into_an_immutable_top),
        harness_test(replaced_top_is_left_alone),
        harness_test(deadline_ends_it),
        harness_test(emptiness),
        harness_test(i5_killed_anywhere_and_run_again),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
