/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the program prints about names that are bytes: no control sequence gets through to a terminal, and a
 * JSON reader gets valid text with the exact bytes beside it. The two units are included: the program is no
 * library.
 */
#include "harness.h"

#include "cli/json.c"   // NOLINT(bugprone-suspicious-include)
#include "cli/notify.c" // NOLINT(bugprone-suspicious-include)
#include "cli/print.c"  // NOLINT(bugprone-suspicious-include)
#include "cli/table.c"  // NOLINT(bugprone-suspicious-include)

#include <fcntl.h>
#include <locale.h>
#include <sys/mman.h>

/* Used by json.c and print.c when memory runs out, and by no test. */
const struct command commands[] = {{0}};

static void expect_json(const char *bytes, const char *text, int raw)
{
    bool got_raw = 0;
    _cleanup_free_ char *got = doc_quote(bytes, &got_raw);
    assert_string_equal(got, text);
    assert_int_equal(got_raw, raw);
}

static void json_string_plain(void **state)
{
    (void)state;
    expect_json("", "\"\"", 0);
    expect_json("/srv/box 7/%s", "\"/srv/box 7/%s\"", 0);
    expect_json("a\"b\\c", "\"a\\\"b\\\\c\"", 0);
    expect_json("/sch\xc3\xb6n/\xe2\x82\xac/\xf0\x9f\x93\xa6",
                "\"/sch\xc3\xb6n/\xe2\x82\xac/\xf0\x9f\x93\xa6\"", 0);
}

static void json_string_escapes_each_byte(void **state)
{
    (void)state;
    expect_json("\x1b[31m", "\"\\u001b[31m\"", 1);
    expect_json("a\nb\tc", "\"a\\u000ab\\u0009c\"", 1);
    expect_json("\x7f", "\"\\u007f\"", 1);
    expect_json("\xff\xfe", "\"\\u00ff\\u00fe\"", 1);
    /* CSI as a C1 control: valid UTF-8, and a terminal acts on it */
    expect_json("\xc2\x9b", "\"\\u00c2\\u009b\"", 1);
    /* overlong slash, surrogate, beyond U+10FFFF, cut short */
    expect_json("\xc0\xaf", "\"\\u00c0\\u00af\"", 1);
    expect_json("\xed\xa0\x80", "\"\\u00ed\\u00a0\\u0080\"", 1);
    expect_json("\xf4\x90\x80\x80", "\"\\u00f4\\u0090\\u0080\\u0080\"", 1);
    expect_json("\xe2\x82", "\"\\u00e2\\u0082\"", 1);
}

static void json_name_has_raw_beside_it(void **state)
{
    (void)state;
    struct doc doc;
    doc_init(&doc);
    doc_name(&doc, doc.root, "name", "/x\xff");
    _cleanup_free_ char *with = doc_finish(&doc);
    assert_string_equal(with, "{\"name\":\"/x\\u00ff\",\"raw\":\"2f78ff\"}");
    doc_init(&doc);
    doc_name(&doc, doc.root, "name", "/x");
    _cleanup_free_ char *without = doc_finish(&doc);
    assert_string_equal(without, "{\"name\":\"/x\"}");
}

static void json_keeps_64_bits(void **state)
{
    (void)state;
    struct doc doc;
    doc_init(&doc);
    doc_number64(&doc, doc.root, "incarnation", UINT64_MAX);
    _cleanup_free_ char *text = doc_finish(&doc);
    assert_string_equal(text, "{\"incarnation\":\"18446744073709551615\"}");
}

static void json_time_is_utc(void **state)
{
    (void)state;
    char buf[32];
    doc_format_time(buf, 1795489200LL * 1000000000 + 999999999);
    assert_string_equal(buf, "2026-11-24T03:00:00Z");
}

static void json_failure_names_it(void **state)
{
    (void)state;
    struct rbxj_error error = {0};
    int code = error_set(&error, RBXJ_E_BUSY, EBUSY, "mount: %s", "/srv/\x1b");
    error_detail(&error, "held by pid %d", 4711);
    _cleanup_free_ char *text = json_failure(code, &error);
    cJSON *document = cJSON_Parse(text);
    assert_non_null(document);
    const cJSON *e = cJSON_GetObjectItem(document, "error");
    assert_int_equal(cJSON_GetObjectItem(e, "errno")->valueint, EBUSY);
    assert_string_equal(cJSON_GetObjectItem(e, "name")->valuestring, "EBUSY");
    assert_string_equal(cJSON_GetObjectItem(e, "code")->valuestring, rbxj_strerror(code));
    assert_string_equal(cJSON_GetObjectItem(e, "detail")->valuestring, "held by pid 4711");
    assert_null(strchr(text, '\x1b'));
    cJSON_Delete(document);
}

/* Runs one call with descriptor fd going to memory; returns what it wrote. */
static char *capture(FILE *stream, int fd, void (*call)(void))
{
    static char buf[70000];
    fflush(stream);
    int memory = memfd_create("capture", MFD_CLOEXEC), saved = fcntl(fd, F_DUPFD_CLOEXEC, 10);
    assert_true(memory >= 0 && saved >= 0);
    assert_true(dup2(memory, fd) == fd);
    call();
    fflush(stream);
    assert_true(dup2(saved, fd) == fd);
    ssize_t n = pread(memory, buf, sizeof(buf) - 1, 0);
    assert_true(n >= 0);
    buf[n] = '\0';
    close(memory);
    close(saved);
    return buf;
}

static void say_hostile(void)
{
    print_problem("box %s: %s", "7", "/x\n\x1b]0;owned\x07\xc2\x9b\xff");
}

static void problem_is_one_clean_line(void **state)
{
    (void)state;
    const char *text = capture(stderr, STDERR_FILENO, say_hostile);
    assert_string_equal(text, "rbxj: box 7: /x\\x0a\\x1b]0;owned\\x07\\xc2\\x9b\\xff\n");
}

static void say_long(void)
{
    char name[3 * LINE_MAX_BYTES];
    memset(name, '\xff', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    print_problem("%s", name);
}

static void problem_is_cut_not_split(void **state)
{
    (void)state;
    const char *text = capture(stderr, STDERR_FILENO, say_long);
    size_t len = strlen(text);
    assert_true(len > LINE_MAX_BYTES && len < 5UL * LINE_MAX_BYTES);
    assert_ptr_equal(strchr(text, '\n'), text + len - 1);
}

static void show_table(void)
{
    static const struct column columns[] = {
        {.heading = "BOX"}, {.heading = "NAME"}, {.heading = "MORE", .verbose = true}};
    struct print_style style = {.noheadings = true};
    struct libscols_table *table = table_new(&style, columns, ARRAY_LEN(columns));
    table_row(table, columns, ARRAY_LEN(columns), (const char *[]){"7", "/a\n\x1b[2J\xff\\x41", "hidden"});
    table_row(table, columns, ARRAY_LEN(columns), (const char *[]){"12345", "/sch\xc3\xb6n", NULL});
    table_finish(table);
}

static void table_is_clean_and_aligned(void **state)
{
    (void)state;
    const char *text = capture(stdout, STDOUT_FILENO, show_table);
    assert_string_equal(text, "7     /a\\x0a\\x1b[2J\\xff\\x41\n12345 /sch\xc3\xb6n\n");
}

static void say_error(void)
{
    struct rbxj_error error = {0};
    int code = error_set(&error, RBXJ_E_BOX_STALE, 0, "box 7 is stale");
    print_failure(&(struct print_style){0}, "run", code, &error);
}

static void error_says_what_to_do(void **state)
{
    (void)state;
    const char *text = capture(stderr, STDERR_FILENO, say_error);
    assert_string_equal(text, "rbxj: run: box 7 is stale; run 'rbxj replay' first\n");
}

static void say_missing_call(void)
{
    struct rbxj_error error = {0};
    int code = error_sys(&error, ENOSYS, "journal /run/rbxj");
    print_failure(&(struct print_style){0}, "run", code, &error);
}

static void a_call_that_is_kept_away_is_explained(void **state)
{
    (void)state;
    assert_non_null(strstr(capture(stderr, STDERR_FILENO, say_missing_call), "RestrictSUIDSGID="));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_string_plain),
        cmocka_unit_test(json_string_escapes_each_byte),
        cmocka_unit_test(json_name_has_raw_beside_it),
        cmocka_unit_test(json_keeps_64_bits),
        cmocka_unit_test(json_time_is_utc),
        cmocka_unit_test(json_failure_names_it),
        cmocka_unit_test(problem_is_one_clean_line),
        cmocka_unit_test(problem_is_cut_not_split),
        cmocka_unit_test(table_is_clean_and_aligned),
        cmocka_unit_test(error_says_what_to_do),
        cmocka_unit_test(a_call_that_is_kept_away_is_explained),
    };
    (void)setlocale(LC_CTYPE, "C.UTF-8"); /* as main() does */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
