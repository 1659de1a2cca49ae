/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj audit: what looks like ours and is journaled nowhere; with --adopt it is written into the journal.
 */
#include "cli/cli.h"

#include "base/cleanup.h"
#include "base/doc.h"
#include "base/error.h"
#include "cli/table.h"

#include <string.h>
#include <unistd.h>

enum { OPT_ADOPT = 256, OPT_YES };

const struct cli_option audit_options[] = {
    {"adopt", OPT_ADOPT, NULL, "write it into the journal, so that a replay undoes it; asks for each"},
    {"yes", OPT_YES, NULL, "with --adopt: do not ask"},
    {0},
};

static const struct column columns[] = {
    {"KIND", 0, false, false},
    {"STATE", 0, false, true},
    {"AGE", SCOLS_FL_RIGHT, false, false},
    {"PID", SCOLS_FL_RIGHT, false, false},
    {"PATTERN", 0, true, false},
    {"NAME", 0, false, false},
    {"DETAIL", 0, false, false},
};

static void format_age(char buf[32], double seconds)
{
    static const struct {
        double seconds;
        const char *unit;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
    size_t i = 0;
    while (i + 1 < ARRAY_LEN(units) && seconds < 2 * units[i].seconds)
        i++;
    (void)snprintf(buf, 32, "%.0f%s", seconds / units[i].seconds, units[i].unit);
}

static const char *state_of(const cJSON *item)
{
    if (doc_get_text(item, "adopted"))
        return "adopted";
    if (doc_get_true(item, "live"))
        return "live";
    return cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(item, "error")) ? "refused" : "unjournaled";
}

static void add_unjournaled(struct libscols_table *table, const cJSON *item)
{
    char age[32] = "-", pid[40] = "-";
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(item, "error");
    _cleanup_free_ char *name = doc_get_name(item, "name");
    const char *adopted = doc_get_text(item, "adopted"), *user = doc_get_text(item, "user");
    const char *why = doc_get_text(error, "message");
    double seconds = doc_get_number(item, "age_s", -1), number = doc_get_number(item, "pid", 0);
    if (seconds >= 0)
        format_age(age, seconds);
    if (number > 0)
        (void)snprintf(pid, sizeof(pid), "%.0f%s", number,
                       doc_get_true(item, "pid_is_dead") ? " (dead)" : "");
    const char *cells[] = {
        doc_get_text(item, "kind"),           state_of(item), age, pid, doc_get_text(item, "pattern"), name,
        adopted ? adopted : user ? user : why};
    table_row(table, columns, ARRAY_LEN(columns), cells);
}

static void add_missing(struct libscols_table *table, const cJSON *item)
{
    char detail[160];
    _cleanup_free_ char *name = doc_get_name(item, "name");
    (void)snprintf(detail, sizeof(detail), "box %s, seq %.0f", doc_get_text(item, "box"),
                   doc_get_number(item, "seq", 0));
    const char *cells[] = {doc_get_text(item, "kind"), "missing", "-", "-", NULL, name, detail};
    table_row(table, columns, ARRAY_LEN(columns), cells);
}

static void print_table(const struct print_style *style, const cJSON *document)
{
    const cJSON *found = doc_get_first(document, "unjournaled"),
                *missing = doc_get_first(document, "missing");
    if (!found && !missing) {
        print_line("nothing that is not journaled, and nothing missing");
        return;
    }
    struct libscols_table *table = table_new(style, columns, ARRAY_LEN(columns));
    for (const cJSON *item = found; item; item = item->next)
        add_unjournaled(table, item);
    for (const cJSON *item = missing; item; item = item->next)
        add_missing(table, item);
    table_finish(table);
}

/* Yes is y or yes, and nothing else. */
static int ask(void *data, const char *kind, const char *name)
{
    char shown[512], answer[16] = "";
    (void)data;
    escape_bytes(shown, sizeof(shown), name, strlen(name));
    (void)fprintf(stderr, "adopt %s %s, to be undone by the next replay? [y/N] ", kind, shown);
    if (!fgets(answer, sizeof(answer), stdin))
        return 0;
    if (!strchr(answer, '\n'))
        for (int c; (c = getchar()) != '\n' && c != EOF;)
            ;
    answer[strcspn(answer, "\n")] = 0;
    return strcmp(answer, "y") == 0 || strcmp(answer, "yes") == 0;
}

int cmd_audit(struct cli *cli, int argc, char **argv)
{
    const char *value;
    bool yes = false, adopt = false;
    int id;
    while ((id = cli_next(cli, argc, argv, &value)) > 0)
        *(id == OPT_YES ? &yes : &adopt) = true;
    if (id == CLI_LEAVE)
        return cli->status;
    struct rbxj_audit how = {
        .adopt = adopt,
        .names = optind < argc ? (const char *const *)argv + optind : NULL,
        .names_len = (size_t)(argc - optind),
        .ask = yes ? NULL : ask,
    };
    if (!adopt && (yes || how.names))
        return cli_usage(cli, "%s goes with --adopt", yes ? "--yes" : "a name");
    if (adopt && !yes && !isatty(STDIN_FILENO))
        return cli_usage(cli, "--adopt asks on a terminal; --yes adopts without asking");

    _cleanup_free_ char *text = NULL;
    struct rbxj_error error = {0};
    int rc = rbxj_audit(&cli->options, &how, &text, &error);
    if (rc < 0) {
        print_failure(&cli->style, "audit", rc, &error);
        return status_of(rc);
    }
    cJSON *document = cJSON_Parse(text);
    if (!document) {
        print_problem("audit: out of memory");
        return STATUS_SYSTEM;
    }
    if (cli->style.json)
        print_json(text);
    else if (!cli->style.quiet)
        print_table(&cli->style, document);
    cJSON_Delete(document);
    return rc == 1 ? STATUS_LEFT : STATUS_DONE;
}
