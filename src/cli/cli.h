/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The program, on top of the public API alone, but for `watch`. A command is one row of the table in main.c,
 * one file cmd_<verb>.c, and one const table of options; parsing, --help and the one-line usage errors are
 * all made from those tables.
 */
#ifndef RBXJ_CLI_CLI_H
#define RBXJ_CLI_CLI_H

#include "cli/print.h"
#include "rbxj.h"

#include <stdint.h>

/* Exit statuses of every command but `run`; a contract. */
enum status {
    STATUS_DONE = 0,
    STATUS_LEFT = 1,    /* something is left or was refused */
    STATUS_USAGE = 2,   /* the caller asked for something that makes no sense */
    STATUS_DAMAGED = 3, /* the journal is damaged, nothing was undone */
    STATUS_PERMISSION = 4,
    STATUS_BUSY = 5,   /* another reaper, or a process that holds the journal too long */
    STATUS_SYSTEM = 6, /* disk full, I/O, memory */
};

/* The exit status for a negative return value of the library. */
enum status status_of(int code);

/* An id from here up: it may be given several times; else a value is given once. */
enum { CLI_MANY = 2000 };

/* One option. A row without a name ends the table. */
struct cli_option {
    const char *name;
    int id;               /* a letter is its short name, too; else above 255 */
    const char *argument; /* what it takes, for --help; NULL: nothing */
    const char *help;
};

struct cli;

struct command {
    const char *name;
    const char *synopsis;    /* what follows the name on the command line */
    const char *summary;     /* one line */
    const char *details;     /* lines for --help; may be NULL */
    const char *exit_status; /* lines for --help; NULL: the common ones */
    const struct cli_option *options;
    int not_told; /* exit status when all was done, but what it prints did not get out; 0: the common one */
    bool operands_end_options; /* `run`: what follows CMD is CMD's */
    int (*run)(struct cli *cli, int argc, char **argv);
};

struct cli {
    struct rbxj_options options; /* --state-dir and so on */
    struct print_style style;
    const struct command *command; /* whose options are being read */
    uint64_t seen;                 /* a bit for each of its own */
    enum status status;            /* with CLI_LEAVE: what to exit with */
};

enum { CLI_END = 0, CLI_LEAVE = -1 };

/* The commands; a row without a name ends the table. */
extern const struct command commands[];

/* Starts reading the options of a command (argv[0] is its name). */
void cli_start(struct cli *cli, const struct command *command);

/* The next option of the command's own, with its argument, which is not empty, in *ret_value; global ones are
 * dealt with inside. CLI_END: no more, optind is the first operand. CLI_LEAVE: exit with cli->status,
 * everything is said. */
int cli_next(struct cli *cli, int argc, char **argv, const char **ret_value);

/* For commands without operands: reads to the end of line and complains about what is left. 0 or
 * CLI_LEAVE. */
int cli_no_operands(struct cli *cli, int argc, char **argv);

/* Prints one line that says what is wrong and what would be right; returns STATUS_USAGE. */
int cli_usage(struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A number from 1 to max; 0, or -EINVAL. */
int cli_parse_number(const char *text, unsigned long max, unsigned long *ret);

int cmd_run(struct cli *cli, int argc, char **argv);
int cmd_list(struct cli *cli, int argc, char **argv);
int cmd_replay(struct cli *cli, int argc, char **argv);
int cmd_watch(struct cli *cli, int argc, char **argv);
int cmd_forget(struct cli *cli, int argc, char **argv);
int cmd_hook(struct cli *cli, int argc, char **argv);
int cmd_health(struct cli *cli, int argc, char **argv);
int cmd_incidents(struct cli *cli, int argc, char **argv);
int cmd_metrics(struct cli *cli, int argc, char **argv);
int cmd_forensics(struct cli *cli, int argc, char **argv);
int cmd_audit(struct cli *cli, int argc, char **argv);
int cmd_reset(struct cli *cli, int argc, char **argv);

extern const struct cli_option run_options[];
extern const struct cli_option list_options[];
extern const struct cli_option replay_options[];
extern const struct cli_option watch_options[];
extern const struct cli_option forget_options[];
extern const struct cli_option hook_options[];
extern const struct cli_option health_options[];
extern const struct cli_option incidents_options[];
extern const struct cli_option metrics_options[];
extern const struct cli_option forensics_options[];
extern const struct cli_option audit_options[];
extern const struct cli_option reset_options[];

#endif
