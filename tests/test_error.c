/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Error objects and what people are shown: I10 (nothing is silent), and no terminal escape ever gets through.
 */
#include "base/error.h"
#include "harness.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const char *escaped(const char *bytes, size_t len)
{
    static char buf[256];
    escape_bytes(buf, sizeof(buf), bytes, len);
    return buf;
}
#define assert_escaped(literal, expected) assert_string_equal(escaped(literal, sizeof(literal) - 1), expected)

static void names_are_those_of_the_hook(void **state)
{
    (void)state;
    assert_string_equal(rbxj_strerror(-RBXJ_E_BOX_LIVE), "box_live");
    assert_string_equal(rbxj_strerror(-RBXJ_E_BAD_REQUEST), "bad_request");
    assert_string_equal(rbxj_strerror(-RBXJ_E_LEFT), "left");
    assert_string_equal(rbxj_strerror(RBXJ_E_QUARANTINED), "quarantined");
    assert_string_equal(rbxj_strerror(-ENOSPC), "disk_full");
    assert_string_equal(rbxj_strerror(-EPERM), "permission");
    assert_string_equal(rbxj_strerror(-EBUSY), "busy");
    assert_string_equal(rbxj_strerror(-EINVAL), "bad_request");
    assert_string_equal(rbxj_strerror(-ENOMEM), "io");
    assert_string_equal(rbxj_strerror(0), "ok");
    assert_string_equal(rbxj_strerror(1), "ok");
    for (int code = RBXJ_E_BAD_REQUEST; code <= RBXJ_E_LEFT; code++)
        assert_string_not_equal(rbxj_strerror(-code), "ok");
    assert_string_equal(rbxj_strerror(-(RBXJ_E_LEFT + 1)), "io");
    assert_string_equal(rbxj_strerror(INT_MIN), "io");
}

static void errnos_have_names(void **state)
{
    (void)state;
    assert_string_equal(errno_name(EBUSY), "EBUSY");
    assert_string_equal(errno_name(0), "");
    assert_string_equal(errno_name(99999), "");
    assert_string_equal(errno_name(-1), "");
}

static void the_first_error_is_kept(void **state)
{
    (void)state;
    struct rbxj_error e = {0};
    assert_int_equal(error_set(&e, RBXJ_E_BOX_LIVE, EBUSY, "box %s", "7"), -RBXJ_E_BOX_LIVE);
    error_detail(&e, "held by pid %d", 4711);
    assert_int_equal(error_sys(&e, EIO, "something later"), -RBXJ_E_IO);
    error_detail(&e, "another");
    assert_int_equal(e.code, RBXJ_E_BOX_LIVE);
    assert_int_equal(e.errnum, EBUSY);
    assert_string_equal(e.message, "box 7: Device or resource busy");
    assert_string_equal(e.detail, "held by pid 4711");
    assert_int_equal(error_set(NULL, RBXJ_E_IO, 0, "nobody listens"), -RBXJ_E_IO);
    error_detail(NULL, "nobody listens");
}

static void system_errors_pick_their_code(void **state)
{
    (void)state;
    static const struct {
        int errnum, code;
    } cases[] = {
        {EPERM, RBXJ_E_PERMISSION}, {EACCES, RBXJ_E_PERMISSION}, {EROFS, RBXJ_E_PERMISSION},
        {ENOSPC, RBXJ_E_DISK_FULL}, {EDQUOT, RBXJ_E_DISK_FULL},  {EIO, RBXJ_E_IO},
        {ENOENT, RBXJ_E_IO},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rbxj_error e = {0};
        assert_int_equal(error_sys(&e, cases[i].errnum, "open /x"), -cases[i].code);
        assert_int_equal(e.code, cases[i].code);
        assert_int_equal(e.errnum, cases[i].errnum);
    }
}

static void a_long_path_does_not_hide_the_reason(void **state)
{
    (void)state;
    struct rbxj_error e = {0};
    char path[4000];
    memset(path, 'x', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    error_sys(&e, EBUSY, "unmount %s", path);
    assert_int_equal(strlen(e.message), sizeof(e.message) - 1);
    assert_string_equal(e.message + strlen(e.message) - strlen(": Device or resource busy"),
                        ": Device or resource busy");
    error_detail(&e, "%s", path);
    assert_int_equal(strlen(e.detail), sizeof(e.detail) - 1);
}

static void messages_are_one_printable_line(void **state)
{
    (void)state;
    struct rbxj_error e = {0};
    error_set(&e, RBXJ_E_IO, 0, "open %s", "/srv/a\n\033[2Jb");
    assert_string_equal(e.message, "open /srv/a\\x0a\\x1b[2Jb");
    error_detail(&e, "%s", "\r");
    assert_string_equal(e.detail, "\\x0d");
}

static void no_control_byte_gets_through(void **state)
{
    (void)state;
    assert_escaped("plain /a b~", "plain /a b~");
    assert_escaped("a\0b", "a\\x00b");
    assert_escaped("\x7f", "\\x7f");
    assert_escaped("\xc2\x9b"
                   "2J",
                   "\\xc2\\x9b2J"); /* CSI as one C1 character */
    assert_escaped("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x93\xa6",
                   "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x93\xa6");
    assert_escaped("\xe2\x80\xae", "\\xe2\\x80\\xae"); /* right-to-left override */
    assert_escaped("\xe2\x80\xa8", "\\xe2\\x80\\xa8"); /* line separator */
}

static void invalid_utf8_is_escaped(void **state)
{
    (void)state;
    assert_escaped("\xff", "\\xff");
    assert_escaped("\x80", "\\x80");
    assert_escaped("\xc3", "\\xc3");                            /* cut */
    assert_escaped("\xc3(", "\\xc3(");                          /* no continuation */
    assert_escaped("\xc0\xaf", "\\xc0\\xaf");                   /* overlong */
    assert_escaped("\xe0\x80\xaf", "\\xe0\\x80\\xaf");          /* overlong */
    assert_escaped("\xed\xa0\x80", "\\xed\\xa0\\x80");          /* surrogate */
    assert_escaped("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"); /* above U+10FFFF */
    assert_escaped("\xf8\x88\x80\x80\x80", "\\xf8\\x88\\x80\\x80\\x80");
}

static void escaping_never_leaves_its_buffer(void **state)
{
    (void)state;
    static const char text[] = "a\x01\xe2\x82\xac\xff";
    static const char whole[] = "a\\x01\xe2\x82\xac\\xff";
    escape_bytes(NULL, 0, text, sizeof(text) - 1);
    for (size_t size = 1; size <= sizeof(whole); size++) {
        char *buf = malloc(size); /* the exact size: a sanitizer sees one byte more */
        assert_non_null(buf);
        escape_bytes(buf, size, text, sizeof(text) - 1);
        size_t len = strlen(buf);
        assert_true(len < size);
        assert_memory_equal(buf, whole, len);
        assert_true(len == 0 || len == 1 || len == 5 || len == 8 || len == 12); /* nothing is cut in two */
        free(buf);
    }
    for (unsigned int i = 0; i < 256 * 256; i++) {
        char *bytes = malloc(2), buf[16];
        assert_non_null(bytes);
        bytes[0] = (char)(i >> 8);
        bytes[1] = (char)i;
        escape_bytes(buf, sizeof(buf), bytes, 2);
        free(bytes);
        for (const char *p = buf; *p; p++)
            assert_true((unsigned char)*p >= 0x20 && *p != 0x7f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_those_of_the_hook),
        cmocka_unit_test(errnos_have_names),
        cmocka_unit_test(the_first_error_is_kept),
        cmocka_unit_test(system_errors_pick_their_code),
        cmocka_unit_test(a_long_path_does_not_hide_the_reason),
        cmocka_unit_test(messages_are_one_printable_line),
        cmocka_unit_test(no_control_byte_gets_through),
        cmocka_unit_test(invalid_utf8_is_escaped),
        cmocka_unit_test(escaping_never_leaves_its_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
