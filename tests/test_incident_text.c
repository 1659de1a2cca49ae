/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * An incident for people (I10): without memory for a line of it the program fails, and leaves none out.
 */
#include "harness.h"

#include "base/cleanup.h"
#include "base/doc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/json.c"   // NOLINT(bugprone-suspicious-include)
#include "cli/notify.c" // NOLINT(bugprone-suspicious-include)
#include "cli/print.c"  // NOLINT(bugprone-suspicious-include)
#include "cli/table.c"  // NOLINT(bugprone-suspicious-include)

/* The allocations of incident_*.c, and of doc.c for them, of which one fails. */
static int countdown;

static bool fails(void)
{
    return countdown > 0 && --countdown == 0;
}

static void *failing_malloc(size_t size)
{
    return fails() ? NULL : malloc(size);
}

static char *failing_strdup(const char *text)
{
    return fails() ? NULL : strdup(text);
}

__attribute__((format(printf, 2, 3))) static int failing_asprintf(char **ret, const char *format, ...)
{
    va_list args;
    if (fails())
        return -1;
    va_start(args, format);
    int n = vasprintf(ret, format, args);
    va_end(args);
    return n;
}

#define malloc failing_malloc
#undef strdup
#define strdup failing_strdup
#define asprintf failing_asprintf
#include "base/doc.c"              // NOLINT(bugprone-suspicious-include)
#include "cli/incident_fields.c"   // NOLINT(bugprone-suspicious-include)
#include "cli/incident_markdown.c" // NOLINT(bugprone-suspicious-include)
#include "cli/incident_text.c"     // NOLINT(bugprone-suspicious-include)
#undef malloc
#undef strdup
#undef asprintf
const struct command commands[] = {{0}}; /* which print.c and json.c name */

static const char document[] =
    "{\"id\":\"20200102T030405Z-00000001\",\"detected\":\"2020-01-02T03:04:05Z\",\"updated\":\"2020-01-02T03:"
    "05:00Z\",\"cause\":\"supervisor_crash\",\"boxes\":[\"7\"],\"executions\":1,\"procedure\":\"replay\","
    "\"outcome\":\"partial\",\"count\":3,\"left\":1,\"notes\":[\"a note\"],\"evidence\":[\"7-1.lock\"],"
    "\"version\":1,\"open\":[\"71\"],\"entries\":[{\"box\":\"7\",\"incarnation\":\"71\",\"seq\":2,\"kind\":"
    "\"mount\",\"name\":\"/srv/x\",\"raw\":\"2f7372762f1b\",\"outcome\":\"failed\",\"error\":{\"message\":"
    "\"busy\",\"detail\":\"held\"}},{\"box\":\"7\",\"incarnation\":\"71\",\"seq\":1,\"kind\":\"tmpdir\","
    "\"name\":\"/srv/7\",\"outcome\":\"undone\"}]}";

/* Prints it in a child, in which the n-th allocation fails; 0: none. Its exit status; what it printed is in
 * path. */
static int print(bool markdown, int n, const char *path)
{
    int status;
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        cJSON *d = cJSON_Parse(document);
        if (!d || !freopen(path, "we", stdout) || !freopen("/dev/null", "we", stderr))
            _exit(100);
        countdown = n;
        if (markdown)
            incident_print_markdown(d);
        else
            incident_print_text(d);
        int left = countdown;
        cJSON_Delete(d);
        (void)fflush(stdout);
        _exit(left > 0 ? 77 : 0); /* 77: there were fewer */
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void i10_no_line_is_left_out(void **state)
{
    (void)state;
    for (int markdown = 0; markdown < 2; markdown++) {
        const char *whole = harness_format("%s/whole", harness_disk()),
                   *part = harness_format("%s/part", harness_disk());
        assert_int_equal(print(markdown, 0, whole), 0);
        assert_non_null(strstr(harness_read(whole), "/srv/7"));
        int n = 1, status;
        while ((status = print(markdown, n, part)) != 77) {
            if (status != STATUS_SYSTEM)
                fail_msg("allocation %d fails: status %d, and it printed:\n%s", n, status,
                         harness_read(part));
            n++;
        }
        assert_string_equal(harness_read(part), harness_read(whole));
        assert_true(n > (markdown ? 10 : 2));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {harness_test(i10_no_line_is_left_out)};
    return cmocka_run_group_tests(tests, harness_group_setup, harness_group_teardown);
}
