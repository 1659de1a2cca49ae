/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The only place that prints. Results go to standard output, messages to standard error, one line each.
 * Whatever is printed passes through escape_bytes() or doc_quote(): no byte of a name ever reaches a
 * terminal as a control sequence.
 */
#ifndef RBXJ_CLI_PRINT_H
#define RBXJ_CLI_PRINT_H

#include "rbxj.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct print_style {
    bool json, noheadings, quiet, verbose;
};

struct doc;
/* A document on standard output; clears it. */
void print_document(struct doc *doc);
/* One that is text already, of any length. */
void print_json(const char *text);

/* "rbxj: ..." on standard error. */
void print_problem(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same of an event, in the midst of an undo, which nobody keeps from going on by not reading (K19): where
 * standard error takes nothing, it is lost there. */
void print_event(const char *event, const char *message);
/* From now on that holds for all problems: of a program that stays up, and has others to care for. */
void print_without_waiting(void);
/* Ends the program with status 6: what is wanted can't be told, and a part of it must not pass for all. */
_Noreturn void print_no_memory(const char *what);
/* A line on standard output. */
void print_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A call of the library that failed with code: what failed, on what, why, and what to do; with --json also as
 * a document on standard output. */
void print_failure(const struct print_style *style, const char *command, int code,
                   const struct rbxj_error *error);

void print_list(const struct print_style *style, const struct rbxj_result *result);
void print_replay(const struct print_style *style, const struct rbxj_result *result);
void print_forgotten(const struct print_style *style, const char *box, uint32_t seq);

/* What could not be undone, and strangers that were met, a line each on standard error; needs no memory. */
void print_problems_of(const struct rbxj_result *result);

/* Progress of something that takes longer than a second: on a terminal, and as STATUS= under systemd. */
struct print_progress {
    bool quiet; /* not on a terminal */
    int64_t started_ns, shown_ns;
    bool shown;
};
void print_progress(void *progress, size_t done, size_t total); /* as struct rbxj_replay calls it */
void print_progress_end(struct print_progress *progress);

/* Flushes standard output: 0, or -1 when something did not get there (then that is said). */
int print_finish(void);

#endif
