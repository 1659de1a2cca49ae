/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * libsmartcols has an escaping of its own that depends on the locale; it is turned off and gets text that
 * escape_bytes() made safe.
 */
#include "cli/table.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *word, *colour;
} colours[] = {
    {"stale", "yellow"}, {"unknown", "yellow"}, {"held", "red"},       {"foreign", "yellow"},
    {"busy", "yellow"},  {"failed", "red"},     {"refused", "yellow"}, {"skipped", "yellow"},
};

static void table_must(bool ok)
{
    if (!ok)
        print_no_memory("the table");
}

static bool colours_wanted(void)
{
    const char *no = getenv("NO_COLOR"), *terminal = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(no && *no) && terminal && strcmp(terminal, "dumb") != 0;
}

struct libscols_table *table_new(const struct print_style *style, const struct column *columns, size_t n)
{
    struct libscols_table *table = scols_new_table();
    table_must(table);
    (void)scols_table_enable_noencoding(table, 1);
    (void)scols_table_enable_noheadings(table, style->noheadings);
    (void)scols_table_enable_colors(table, colours_wanted());
    for (size_t i = 0; i < n; i++) {
        int hidden = columns[i].verbose && !style->verbose ? SCOLS_FL_HIDDEN : 0;
        table_must(scols_table_new_column(table, columns[i].heading, 0, columns[i].flags | hidden));
    }
    return table;
}

void table_row(struct libscols_table *table, const struct column *columns, size_t n, const char **cells)
{
    struct libscols_line *line = scols_table_new_line(table, NULL);
    table_must(line);
    for (size_t i = 0; i < n; i++) {
        if (!cells[i])
            continue;
        size_t len = strlen(cells[i]);
        char *safe = malloc(4 * len + 1);
        table_must(safe != NULL);
        escape_bytes(safe, 4 * len + 1, cells[i], len);
        table_must(scols_line_refer_data(line, i, safe) == 0);
        for (size_t c = 0; columns[i].coloured && c < ARRAY_LEN(colours); c++)
            if (strcmp(cells[i], colours[c].word) == 0)
                (void)scols_cell_set_color(scols_line_get_cell(line, i), colours[c].colour);
    }
}

void table_finish(struct libscols_table *table)
{
    table_must(scols_print_table(table) == 0);
    scols_unref_table(table);
}
