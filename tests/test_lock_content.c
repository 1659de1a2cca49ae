/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is at a lock's place is told apart seven ways; and what is no regular file is not opened (I4, K16).
 */
#include "harness.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/lock.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

static struct box box = {.name = "7", .incarnation = 42, .supervisor = {.pid = 4711}};
static const struct record record = {.incarnation = 42, .seq = 1, .kind = RBXJ_LOCK};
static struct undo world = {.box = &box, .same_boot = true};

static enum lock_content judge(const char *bytes, size_t len)
{
    struct lock_reading reading;
    char *exact = malloc(len ? len : 1);
    assert_non_null(exact);
    memcpy(exact, bytes, len);
    assert_int_equal(lock_judge(&world, &record, exact, len, &reading), 0);
    free(exact);
    return reading.content;
}

static void told_apart(enum lock_content want, const char *text)
{
    enum lock_content got = judge(text, strlen(text));
    if (got != want)
        fail_msg("%s is %s, not %s", text, lock_content_name(got), lock_content_name(want));
}

#define OWN                                                                                                  \
    "{\"rbxj\":\"42:1\",\"pid\":4711,\"box_id\":\"7\",\"created_at\":{\"secs_since_epoch\":0,"               \
    "\"nanos_since_epoch\":0}}\n"

static void json_is_valid(void **state)
{
    (void)state;
    const char *const texts[] = {"{}",
                                 "[]",
                                 "4711\n",
                                 "null",
                                 "\"x\"",
                                 " \t\r\n{\"a\":[true,false,null,-1.5e+3]} \r\n",
                                 "\xef\xbb\xbf{}",
                                 "{\"pid\":4242,\"box_id\":7}",
                                 "{\"box_id\":\"7\"}",
                                 "{\"box_id\":null}",
                                 "{\"box_id\":{}}",
                                 "{\"a\":\"\xff\x01\"}"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        told_apart(LOCK_VALID, texts[i]);
    told_apart(LOCK_VALID, OWN);
}

static void another_box_is_named(void **state)
{
    (void)state;
    told_apart(LOCK_OTHER_BOX, "{\"rbxj\":\"43:1\"}");
    told_apart(LOCK_OTHER_BOX, "{\"rbxj\":\"42:2\",\"box_id\":\"7\",\"pid\":4711}");
    told_apart(LOCK_OTHER_BOX, "{\"box_id\":\"8\"}");
    told_apart(LOCK_OTHER_BOX, "{\"pid\":4242,\"box_id\":8}");
    told_apart(LOCK_OTHER_BOX, "{\"pid\":4242,\"box_id\":7.5e300}");
    told_apart(LOCK_VALID, "{\"pid\":4711,\"box_id\":\"8\"}"); /* our supervisor's own word for it */
    told_apart(LOCK_VALID, "{\"rbxj\":\"42:1\",\"box_id\":\"8\"}");
}

static void text_is_no_json(void **state)
{
    (void)state;
    const char *const texts[] = {"locked by somebody\n",
                                 "{pid: 1}",
                                 "{} {}",
                                 "{\"a\":1}}",
                                 "{\"a\" 1",
                                 "{\"a\":1,}",
                                 "{\"a\":1 \"b\"",
                                 "[1,,",
                                 "[1}",
                                 "[truth",
                                 "{,",
                                 "{:",
                                 "tru",
                                 "\"cut",
                                 " \n",
                                 "\xc3\xa4"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        told_apart(LOCK_NOT_JSON, texts[i]);
    told_apart(LOCK_NOT_JSON, OWN "x");
    char deep[3000], large[LOCK_CONTENT_MAX + 1];
    memset(deep, '[', sizeof(deep));
    assert_int_equal(judge(deep, sizeof(deep)), LOCK_NOT_JSON);
    assert_int_equal(judge(deep, CJSON_NESTING_LIMIT), LOCK_TRUNCATED);
    memset(large, ' ', sizeof(large));
    large[0] = '{';
    large[1] = '}';
    assert_int_equal(judge(large, sizeof(large) - 1), LOCK_VALID);
    assert_int_equal(judge(large, sizeof(large)), LOCK_NOT_JSON);
}

static void every_beginning_is_truncated(void **state)
{
    (void)state;
    const char text[] =
        "{\"rbxj\":\"42:1\",\"a\":[true,{},[],-1.5e+3,null,\"\\\"\\u00e4\xc3\xa4\xf0\x9f\x98\x80\"],"
        "\"b\":{\"c\":false}}";
    told_apart(LOCK_VALID, text);
    for (size_t len = 1; len < sizeof(text) - 1; len++)
        if (judge(text, len) != LOCK_TRUNCATED)
            fail_msg("the first %zu bytes are %s", len, lock_content_name(judge(text, len)));
}

static void what_is_no_text_is_binary(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
    } data[] = {
        {"", 1},
        {"{}", 3},
        {"{\"pid\":1,\"bo\0\0\0", 15},
        {"\x7f"
         "ELF\x02\x01\x01",
         7},
        {"\x1b[31m{}", 7},
        {"caf\xe9 ", 5},
        {"{\"a\":\"\xff", 7},
        {"text \xc3", 6},
        {"\xed\xa0\x80 text", 8},
        {"\xf0\x9f\x98", 3},
    };
    for (size_t i = 0; i < ARRAY_LEN(data); i++)
        if (judge(data[i].bytes, data[i].len) != LOCK_BINARY)
            fail_msg("data %zu is %s", i, lock_content_name(judge(data[i].bytes, data[i].len)));
    told_apart(LOCK_EMPTY, "");
    assert_int_equal(judge("\0\0\0", 3), LOCK_BINARY);
    world.same_boot = false; /* then that is what a power cut leaves of any content */
    assert_int_equal(judge("\0\0\0", 3), LOCK_EMPTY);
    assert_int_equal(judge("\0\0x", 3), LOCK_BINARY);
    world.same_boot = true;
}

/* ---- what is not opened ---- */

static mode_t type_at(const char *name, int *ret_fd)
{
    struct stat st;
    _cleanup_close_ int dir = open(harness_disk(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir >= 0);
    int fd = lock_open(dir, name, O_RDONLY, &st);
    assert_true(fd >= 0);
    if (ret_fd)
        *ret_fd = fd;
    else
        assert_int_equal(close(fd), 0);
    return st.st_mode & S_IFMT;
}

static bool is_open_path(int fd)
{
    return fcntl(fd, F_GETFL) & O_PATH;
}

static void a_fifo_lets_nobody_pass(void **state)
{
    (void)state;
    const char *path = harness_format("%s/fifo", harness_disk());
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(type_at("fifo", NULL), S_IFIFO);
    /* with a reader a writer would get it open */
    int fd;
    assert_int_equal(type_at("fifo", &fd), S_IFIFO);
    assert_true(is_open_path(fd));
    assert_int_equal(open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC), -1);
    assert_int_equal(errno, ENXIO);
    assert_int_equal(close(fd), 0);
}

static void other_types_are_not_opened(void **state)
{
    (void)state;
    harness_need_root();
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", harness_disk());
    assert_true(sock >= 0 && bind(sock, (struct sockaddr *)&address, sizeof(address)) == 0);
    assert_int_equal(symlink("/etc/passwd", harness_format("%s/link", harness_disk())), 0);
    assert_int_equal(symlink("nowhere", harness_format("%s/dangling", harness_disk())), 0);
    assert_int_equal(mkdir(harness_format("%s/dir", harness_disk()), 0700), 0);
    assert_int_equal(mknod(harness_format("%s/char", harness_disk()), S_IFCHR | 0600, makedev(1, 3)), 0);
    assert_int_equal(mknod(harness_format("%s/block", harness_disk()), S_IFBLK | 0600, makedev(7, 250)), 0);
    static const struct {
        const char *name;
        mode_t type;
    } types[] = {{"socket", S_IFSOCK}, {"link", S_IFLNK}, {"dangling", S_IFLNK},
                 {"dir", S_IFDIR},     {"char", S_IFCHR}, {"block", S_IFBLK}};
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        assert_int_equal(type_at(types[i].name, &fd), types[i].type);
        assert_true(is_open_path(fd));
        assert_int_equal(close(fd), 0);
    }
    assert_int_equal(close(sock), 0);
    harness_write(harness_format("%s/file", harness_disk()), "text");
    assert_int_equal(type_at("file", &fd), S_IFREG);
    char buf[8];
    assert_int_equal(read(fd, buf, sizeof(buf)), 4);
    assert_int_equal(close(fd), 0);
    struct stat st;
    assert_int_equal(lock_open(AT_FDCWD, harness_format("%s/none", harness_disk()), O_RDONLY, &st), -ENOENT);
}

static void without_proc_nothing_is_gone(void **state)
{
    (void)state;
    harness_need_root();
    struct stat st;
    const char *path = harness_format("%s/file", harness_disk());
    harness_write(path, "text");
    assert_int_equal(mount("rbxj-test", "/proc", "tmpfs", 0, NULL), 0); /* in the test's own namespace */
    int fd = lock_open(AT_FDCWD, path, O_RDONLY, &st);
    assert_int_equal(umount("/proc"), 0);
    assert_int_equal(fd, -EIO);
}

/* Whoever has a lease on it is told that we want it; nobody waits for him. */
static void a_lease_is_not_waited_for(void **state)
{
    (void)state;
    struct stat st;
    const char *path = harness_format("%s/leased", harness_disk());
    harness_write(path, "{}");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    (void)signal(SIGIO, SIG_IGN);
    if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
        skip(); /* not on this file system */
    assert_int_equal(lock_open(AT_FDCWD, path, O_RDONLY, &st), -EWOULDBLOCK);
    assert_int_equal(fcntl(fd, F_SETLEASE, F_UNLCK), 0);
    assert_int_equal(close(fd), 0);
    (void)signal(SIGIO, SIG_DFL);
    fd = lock_open(AT_FDCWD, path, O_RDONLY, &st);
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        harness_test(json_is_valid),
        harness_test(another_box_is_named),
        harness_test(text_is_no_json),
        harness_test(every_beginning_is_truncated),
        harness_test(what_is_no_text_is_binary),
        harness_test(a_fifo_lets_nobody_pass),
        harness_test(other_types_are_not_opened),
        harness_test(without_proc_nothing_is_gone),
        harness_test(a_lease_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
