/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Messages, the tables of list and replay, progress.
 */
#include "cli/print.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/notify.h"
#include "cli/table.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- lines ---- */

/* Longer than any message: a path, a name and an error. What does not fit is cut, nothing is allocated:
 * messages must get out when there is no memory, too. */
enum { LINE_MAX_BYTES = 8192 };

static void put_line(FILE *stream, const char *prefix, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));
static void put_line(FILE *stream, const char *prefix, const char *format, va_list args)
{
    char text[LINE_MAX_BYTES], safe[4 * LINE_MAX_BYTES];
    (void)vsnprintf(text, sizeof(text), format, args);
    escape_bytes(safe, sizeof(safe), text, strlen(text));
    (void)fprintf(stream, "%s%s\n", prefix, safe);
}

static bool never_waits;

/* A pipe that is full, with a reader that is stopped or was never one, takes nothing; of one without a reader
 * a write is a death by SIGPIPE. Where poll(2) says that there is room, there is a page of it. */
static bool standard_error_takes(void)
{
    enum { PATIENCE_MS = 1000 }; /* for the first that finds no room; the next ones don't wait */
    static bool deaf;
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    deaf = poll(&p, 1, deaf ? 0 : PATIENCE_MS) <= 0 || p.revents != POLLOUT;
    return !deaf;
}

void print_problem(const char *format, ...)
{
    va_list args;
    if (never_waits && !standard_error_takes())
        return;
    va_start(args, format);
    put_line(stderr, "rbxj: ", format, args);
    va_end(args);
}

void print_event(const char *event, const char *message)
{
    if (standard_error_takes())
        print_problem("event %s: %s", event, message);
}

void print_without_waiting(void)
{
    never_waits = true;
}

void print_no_memory(const char *what)
{
    print_problem("out of memory for %s; the work itself is done", what);
    exit(STATUS_SYSTEM);
}

void print_line(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put_line(stdout, "", format, args);
    va_end(args);
}

void print_document(struct doc *doc)
{
    _cleanup_free_ char *text = json_finish(doc);
    print_json(text);
}

void print_json(const char *text)
{
    (void)puts(text);
}

int print_finish(void)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    print_problem("writing to standard output: %s",
                  strerror(errno ? errno : EIO)); /* EIO: it failed before */
    return -1;
}

/* ---- errors ---- */

/* What to do, where the library did not say. */
static const struct {
    int code;
    const char *hint;
} hints[] = {
    {RBXJ_E_NO_SUCH_BOX, "'rbxj list' shows what there is"},
    {RBXJ_E_BOX_LIVE, "wait until it ends, or take another name"},
    {RBXJ_E_BOX_STALE, "run 'rbxj replay' first"},
    {RBXJ_E_PROTECTED_PATH, "name a path of the box's own"},
    {RBXJ_E_EXISTS, "remove it, or name another path"},
    {RBXJ_E_JOURNAL_BUSY, "try again; continue or kill the process that holds it"},
    {RBXJ_E_JOURNAL_FULL, "raise map_size in the configuration, or replay what is stale"},
    {RBXJ_E_DISK_FULL, "make room and try again"},
    {RBXJ_E_JOURNAL_DAMAGED, "nothing was undone; keep the files"},
    {RBXJ_E_PERMISSION, "run it as root, or as the journal's owner"},
    {RBXJ_E_BUSY, "try again when that is done"},
    {RBXJ_E_LEFT, "'rbxj list' shows it; 'rbxj replay' tries again"},
};

static const char *hint_of(int code, const struct rbxj_error *error)
{
    if (error->errnum == EROFS)
        return "make the file system writable";
    if (error->errnum == ENOSYS) /* openat2(2), since Linux 5.6 */
        return "a filter keeps a system call away, as RestrictSUIDSGID= of a unit does; or the kernel is too "
               "old";
    for (size_t i = 0; i < ARRAY_LEN(hints); i++)
        if (hints[i].code == -code)
            return hints[i].hint;
    return "";
}

void print_failure(const struct print_style *style, const char *command, int code,
                   const struct rbxj_error *error)
{
    const char *message = error->message[0] ? error->message : rbxj_strerror(code);
    const char *advice = error->detail[0] ? error->detail : hint_of(code, error);
    print_problem("%s: %s%s%s", command, message, advice[0] ? "; " : "", advice);
    if (style->json) {
        _cleanup_free_ char *document = json_failure(code, error);
        (void)puts(document);
    }
}

static void print_problem_of(const char *box, const struct rbxj_result_entry *entry)
{
    const struct rbxj_error *e = entry->error;
    const char *what = entry->outcome ? entry->outcome : entry->found;
    print_problem("box %s: %s %s (seq %u) %s%s%s%s%s", box, entry->kind, entry->name, entry->seq,
                  what ? what : "left", e && e->message[0] ? ": " : "", e ? e->message : "",
                  e && e->detail[0] ? "; " : "", e ? e->detail : "");
}

void print_problems_of(const struct rbxj_result *result)
{
    struct rbxj_result_box box;
    struct rbxj_result_entry entry;
    for (size_t i = 0; rbxj_result_box(result, i, &box) == 0; i++)
        for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0; k++) {
            bool kept = entry.outcome &&
                        (strcmp(entry.outcome, "refused") == 0 || strcmp(entry.outcome, "failed") == 0 ||
                         strcmp(entry.outcome, "skipped") == 0);
            if (kept || (entry.error && entry.error->code))
                print_problem_of(box.box, &entry);
        }
}

/* ---- tables ---- */

enum {
    LIST_BOX,
    LIST_INCARNATION,
    LIST_STATE,
    LIST_CAUSE,
    LIST_SEQ,
    LIST_KIND,
    LIST_NAME,
    LIST_FOUND,
    LIST_PID,
    LIST_EVIDENCE,
    LIST_CONTENT,
    LIST_AGE,
    LIST_COLUMNS
};
static const struct column list_columns[LIST_COLUMNS] = {
    [LIST_BOX] = {.heading = "BOX"},
    [LIST_INCARNATION] = {.heading = "INCARNATION"},
    [LIST_STATE] = {.heading = "STATE", .coloured = true},
    [LIST_CAUSE] = {.heading = "CAUSE"},
    [LIST_SEQ] = {.heading = "SEQ", .flags = SCOLS_FL_RIGHT},
    [LIST_KIND] = {.heading = "KIND"},
    [LIST_NAME] = {.heading = "NAME"},
    [LIST_FOUND] = {.heading = "FOUND", .coloured = true},
    [LIST_PID] = {.heading = "SUPERVISOR", .flags = SCOLS_FL_RIGHT, .verbose = true},
    [LIST_EVIDENCE] = {.heading = "EVIDENCE", .verbose = true},
    [LIST_CONTENT] = {.heading = "CONTENT", .verbose = true},
    [LIST_AGE] = {.heading = "AGE", .flags = SCOLS_FL_RIGHT, .verbose = true},
};

enum {
    REPLAY_BOX,
    REPLAY_CAUSE,
    REPLAY_SEQ,
    REPLAY_KIND,
    REPLAY_NAME,
    REPLAY_FOUND,
    REPLAY_ACTION,
    REPLAY_OUTCOME,
    REPLAY_CONTENT,
    REPLAY_INCARNATION,
    REPLAY_COLUMNS
};
static const struct column replay_columns[REPLAY_COLUMNS] = {
    [REPLAY_BOX] = {.heading = "BOX"},
    [REPLAY_CAUSE] = {.heading = "CAUSE"},
    [REPLAY_SEQ] = {.heading = "SEQ", .flags = SCOLS_FL_RIGHT},
    [REPLAY_KIND] = {.heading = "KIND"},
    [REPLAY_NAME] = {.heading = "NAME"},
    [REPLAY_FOUND] = {.heading = "FOUND", .coloured = true},
    [REPLAY_ACTION] = {.heading = "ACTION"},
    [REPLAY_OUTCOME] = {.heading = "OUTCOME", .coloured = true},
    [REPLAY_CONTENT] = {.heading = "CONTENT", .verbose = true},
    [REPLAY_INCARNATION] = {.heading = "INCARNATION", .verbose = true},
};

struct number {
    char text[24];
};
static struct number number_of(uint64_t value, const char *unit)
{
    struct number number;
    snprintf(number.text, sizeof(number.text), "%llu%s", (unsigned long long)value, unit);
    return number;
}

static void list_box_rows(struct libscols_table *table, const struct rbxj_result *result, size_t i,
                          const struct rbxj_result_box *box)
{
    struct number incarnation = number_of(box->incarnation, ""),
                  pid = number_of((uint64_t)box->supervisor, "");
    const char *cells[LIST_COLUMNS] = {
        [LIST_BOX] = box->box,     [LIST_INCARNATION] = incarnation.text,
        [LIST_STATE] = box->state, [LIST_CAUSE] = box->cause,
        [LIST_PID] = pid.text,
    };
    if (box->entries == 0)
        table_row(table, list_columns, LIST_COLUMNS, cells);
    struct rbxj_result_entry entry;
    for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0; k++) {
        int64_t age_ns = now_realtime_ns() - entry.time_ns;
        struct number seq = number_of(entry.seq, "");
        struct number age = number_of(age_ns > 0 ? (uint64_t)age_ns / 1000000000 : 0, "s");
        cells[LIST_SEQ] = seq.text;
        cells[LIST_KIND] = entry.kind;
        cells[LIST_NAME] = entry.name;
        cells[LIST_FOUND] = entry.found;
        cells[LIST_EVIDENCE] = entry.evidence ? "yes" : "no";
        cells[LIST_CONTENT] = entry.content;
        cells[LIST_AGE] = age.text;
        table_row(table, list_columns, LIST_COLUMNS, cells);
    }
}

void print_list(const struct print_style *style, const struct rbxj_result *result)
{
    if (style->json) {
        _cleanup_free_ char *document = json_list(result, now_realtime_ns());
        (void)puts(document);
        return;
    }
    if (style->verbose)
        print_problems_of(result);
    if (style->quiet)
        return;
    struct libscols_table *table = table_new(style, list_columns, LIST_COLUMNS);
    struct rbxj_result_box box;
    for (size_t i = 0; rbxj_result_box(result, i, &box) == 0; i++)
        list_box_rows(table, result, i, &box);
    table_finish(table);
}

static void replay_table(const struct print_style *style, const struct rbxj_result *result)
{
    struct libscols_table *table = table_new(style, replay_columns, REPLAY_COLUMNS);
    struct rbxj_result_box box;
    struct rbxj_result_entry entry;
    for (size_t i = 0; rbxj_result_box(result, i, &box) == 0; i++)
        for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0; k++) {
            struct number seq = number_of(entry.seq, ""), incarnation = number_of(box.incarnation, "");
            const char *cells[REPLAY_COLUMNS] = {
                [REPLAY_BOX] = box.box,           [REPLAY_CAUSE] = box.cause,
                [REPLAY_SEQ] = seq.text,          [REPLAY_KIND] = entry.kind,
                [REPLAY_NAME] = entry.name,       [REPLAY_FOUND] = entry.found,
                [REPLAY_ACTION] = entry.action,   [REPLAY_OUTCOME] = entry.outcome,
                [REPLAY_CONTENT] = entry.content, [REPLAY_INCARNATION] = incarnation.text,
            };
            table_row(table, replay_columns, REPLAY_COLUMNS, cells);
        }
    table_finish(table);
}

static const char *plural(size_t n)
{
    return n == 1 ? "" : "es";
}

static void replay_summary(const struct rbxj_result_info *info)
{
    if (info->dry_run) {
        print_line("plan %s: %zu stale box%s, %zu live box%s left alone; nothing was changed",
                   info->plan ? info->plan : "-", info->boxes, plural(info->boxes), info->live,
                   plural(info->live));
        return;
    }
    print_line("%zu stale box%s: %zu undone, %zu already gone, %zu refused, %zu failed, %zu left; %zu live "
               "box%s left alone; %.3f s",
               info->boxes, plural(info->boxes), info->undone, info->already_gone, info->refused,
               info->failed, info->left, info->live, plural(info->live), (double)info->duration_ns / 1e9);
}

void print_replay(const struct print_style *style, const struct rbxj_result *result)
{
    if (style->json) {
        _cleanup_free_ char *document = json_replay(result);
        (void)puts(document);
        return;
    }
    if (!style->quiet) {
        struct rbxj_result_info info;
        rbxj_result_info(result, &info);
        replay_table(style, result);
        if (!style->noheadings)
            replay_summary(&info);
        (void)fflush(stdout); /* the problems come after it where both are one terminal or file */
    }
    print_problems_of(result);
}

void print_forgotten(const struct print_style *style, const char *box, uint32_t seq)
{
    if (style->json) {
        _cleanup_free_ char *document = json_forgotten(box, seq);
        (void)puts(document);
    } else if (!style->quiet) {
        print_line("box %s: record %u is forgotten; nothing else was touched", box, seq);
    }
}

/* ---- progress ---- */

enum { PROGRESS_FROM_NS = 1000000000, PROGRESS_EVERY_NS = 100000000 };

void print_progress(void *data, size_t done, size_t total)
{
    struct print_progress *progress = data;
    int64_t now = now_monotonic_ns();
    if (!progress->started_ns)
        progress->started_ns = now;
    if (now - progress->started_ns < PROGRESS_FROM_NS || now - progress->shown_ns < PROGRESS_EVERY_NS)
        return;
    progress->shown_ns = now;
    notify_progress(done, total);
    if (!progress->quiet && isatty(STDERR_FILENO)) {
        (void)fprintf(stderr, "\rrbxj: undoing: %zu of %zu boxes", done, total);
        progress->shown = true;
    }
}

void print_progress_end(struct print_progress *progress)
{
    if (progress->shown)
        (void)fputs("\r\033[K", stderr);
    progress->shown = false;
}
