/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj forensics: what can be read of a journal, however damaged; a new one from it; a page as it is.
 */
#include "cli/cli.h"

#include "base/cleanup.h"
#include "base/doc.h"
#include "base/error.h"
#include "cli/table.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OPT_SALVAGE = 256, OPT_HEXDUMP };

const struct cli_option forensics_options[] = {
    {"salvage", OPT_SALVAGE, "DIR", "write a new, sound journal into DIR, which is empty or made"},
    {"hexdump", OPT_HEXDUMP, "PAGE", "show that page of FILE as it is"},
    {0},
};

static const char *text_of(const cJSON *object, const char *key)
{
    const char *text = doc_get_text(object, key);
    return text ? text : "-";
}

static double number_of(const cJSON *object, const char *key)
{
    return doc_get_number(object, key, 0);
}

/* ---- tables ---- */

static const struct column columns[] = {
    {"STATE", 0, false, true},
    {"BOX", 0, false, false},
    {"INCARNATION", 0, true, false},
    {"SEQ", SCOLS_FL_RIGHT, false, false},
    {"KIND", 0, false, false},
    {"TIME", 0, false, false},
    {"OFFSET", SCOLS_FL_RIGHT, true, false},
    {"NAME", 0, false, false},
};

static void print_entries(const struct print_style *style, const cJSON *file)
{
    struct libscols_table *table = table_new(style, columns, ARRAY_LEN(columns));
    for (const cJSON *entry = doc_get_first(file, "entries"); entry; entry = entry->next) {
        char seq[24], offset[32];
        _cleanup_free_ char *name = doc_get_name(entry, "name");
        const char *state = text_of(entry, "state");
        if (!style->verbose && strcmp(state, "superseded") == 0)
            continue;
        (void)snprintf(seq, sizeof(seq), "%.0f", number_of(entry, "seq"));
        (void)snprintf(offset, sizeof(offset), "%.0f", number_of(entry, "offset"));
        const char *cells[] = {state,  text_of(entry, "box"),  text_of(entry, "incarnation"),
                               seq,    text_of(entry, "kind"), text_of(entry, "time"),
                               offset, name ? name : "-"};
        table_row(table, columns, ARRAY_LEN(columns), cells);
    }
    table_finish(table);
}

static void print_file(const struct print_style *style, const cJSON *file)
{
    const cJSON *records = cJSON_GetObjectItemCaseSensitive(file, "records");
    print_line("%s: %s", text_of(file, "path"), text_of(file, "verdict"));
    for (const cJSON *reason = doc_get_first(file, "reasons"); reason; reason = reason->next)
        print_line("  %s", cJSON_GetStringValue(reason) ? cJSON_GetStringValue(reason) : "-");
    for (const cJSON *snapshot = doc_get_first(file, "snapshots"); snapshot; snapshot = snapshot->next)
        print_line("  snapshot of transaction %.0f: %s, %.0f records", number_of(snapshot, "txn"),
                   doc_get_true(snapshot, "sound") ? "sound" : "damaged", number_of(snapshot, "records"));
    print_line("  records: %.0f intact, %.0f damaged, %.0f superseded, %.0f orphan",
               number_of(records, "intact"), number_of(records, "damaged"), number_of(records, "superseded"),
               number_of(records, "orphan"));
    const cJSON *entries = cJSON_GetObjectItemCaseSensitive(file, "entries");
    if (entries && entries->child)
        print_entries(style, file);
}

static void print_salvaged(const cJSON *document)
{
    const cJSON *s = cJSON_GetObjectItemCaseSensitive(document, "salvaged");
    if (!s)
        return;
    print_line("salvaged into %s: %.0f boxes with %.0f records", text_of(s, "directory"),
               number_of(s, "boxes"), number_of(s, "records"));
    if (number_of(s, "left_out_without_header") > 0)
        print_line("  left out: %.0f records of boxes whose header is not intact",
                   number_of(s, "left_out_without_header"));
    if (number_of(s, "left_out_same_name") > 0)
        print_line("  left out: %.0f boxes of a name that a younger one has",
                   number_of(s, "left_out_same_name"));
    if (number_of(s, "left_out_newer_version") > 0)
        print_line("  left out: %.0f records that only a newer version knows",
                   number_of(s, "left_out_newer_version"));
}

static bool left_something_out(const cJSON *document)
{
    const cJSON *s = cJSON_GetObjectItemCaseSensitive(document, "salvaged");
    return number_of(s, "left_out_without_header") > 0 || number_of(s, "left_out_same_name") > 0 ||
           number_of(s, "left_out_newer_version") > 0;
}

static int report(struct cli *cli, const char *path, const char *salvage)
{
    _cleanup_free_ char *text = NULL;
    struct rbxj_error error = {0};
    int rc = rbxj_forensics(&cli->options, path, salvage, &text, &error);
    if (rc < 0) {
        print_failure(&cli->style, "forensics", rc, &error);
        return status_of(rc);
    }
    cJSON *document = cJSON_Parse(text);
    if (!document) {
        print_problem("forensics: out of memory");
        return STATUS_SYSTEM;
    }
    if (cli->style.json) {
        print_json(text);
    } else if (!cli->style.quiet) {
        for (const cJSON *file = doc_get_first(document, "files"); file; file = file->next)
            print_file(&cli->style, file);
        print_salvaged(document);
    }
    int status = salvage ? (left_something_out(document) ? STATUS_LEFT : STATUS_DONE)
                         : (rc == 1 ? STATUS_DAMAGED : STATUS_DONE);
    cJSON_Delete(document);
    return status;
}

/* ---- a page as it is ---- */

static void dump_line(const uint8_t *bytes, size_t len, uint64_t offset)
{
    char hex[64] = "", text[17] = "";
    for (size_t i = 0; i < len; i++) {
        (void)snprintf(hex + i * 3, 4, "%02x ", bytes[i]);
        text[i] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? (char)bytes[i] : '.';
    }
    print_line("%08llx  %-48s |%s|", (unsigned long long)offset, hex, text);
}

/* The page size is in meta page 0; where that makes no sense, 4096. */
static int hexdump(struct cli *cli, const char *path, unsigned long page)
{
    uint32_t size = 0;
    uint8_t bytes[32768];
    struct stat st;
    struct rbxj_error error = {0};
    _cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    int rc = fd < 0 || fstat(fd, &st) < 0 ? error_sys(&error, errno, "%s", path) : 0;
    if (rc == 0 && !S_ISREG(st.st_mode))
        rc = error_set(&error, RBXJ_E_BAD_REQUEST, 0, "%s: is not a data file", path);
    if (rc == 0 && (pread(fd, &size, sizeof(size), 40) != sizeof(size) || size < 512 ||
                    size > sizeof(bytes) || (size & (size - 1))))
        size = 4096;
    ssize_t n = rc == 0 ? pread(fd, bytes, size, (off_t)page * size) : 0;
    if (rc == 0 && n <= 0)
        rc = n < 0 ? error_sys(&error, errno, "%s", path)
                   : error_set(&error, RBXJ_E_BAD_REQUEST, 0, "%s: has no page %lu", path, page);
    if (rc < 0) {
        print_failure(&cli->style, "forensics", rc, &error);
        return status_of(rc);
    }
    for (ssize_t at = 0; at < n; at += 16)
        dump_line(bytes + at, n - at < 16 ? (size_t)(n - at) : 16, (uint64_t)page * size + (uint64_t)at);
    return STATUS_DONE;
}

int cmd_forensics(struct cli *cli, int argc, char **argv)
{
    const char *value, *salvage = NULL, *page = NULL;
    unsigned long number = 0;
    int id;
    while ((id = cli_next(cli, argc, argv, &value)) > 0)
        *(id == OPT_SALVAGE ? &salvage : &page) = value;
    if (id == CLI_LEAVE)
        return cli->status;
    const char *path = optind < argc ? argv[optind++] : NULL;
    if (cli_no_operands(cli, argc, argv) == CLI_LEAVE)
        return cli->status;
    if (path && !*path)
        return cli_usage(cli, "FILE or DIR is empty");
    if (!page)
        return report(cli, path, salvage);
    if (!path || salvage || cli->style.json)
        return cli_usage(cli, "--hexdump shows a page of a FILE as text, and nothing else");
    if (strcmp(page, "0") != 0 && cli_parse_number(page, 1UL << 40, &number) < 0)
        return cli_usage(cli, "'%s' is no number of a page", page);
    return hexdump(cli, path, number);
}
