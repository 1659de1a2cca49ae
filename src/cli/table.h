/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Tables, as findmnt's and lsblk's: by libsmartcols. Memory running out ends the program with status 6.
 */
#ifndef RBXJ_CLI_TABLE_H
#define RBXJ_CLI_TABLE_H

#include "cli/print.h"

#include <libsmartcols/libsmartcols.h>

struct column {
    const char *heading;
    int flags;
    bool verbose;  /* shown with --verbose only */
    bool coloured; /* by its word */
};

struct libscols_table *table_new(const struct print_style *style, const struct column *columns, size_t n);
/* A cell may hold any byte; NULL is an empty one. */
void table_row(struct libscols_table *table, const struct column *columns, size_t n, const char **cells);
/* Prints and frees it. */
void table_finish(struct libscols_table *table);

#endif
