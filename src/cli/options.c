/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Options: one const table per command, plus the global ones, which every command takes on either side of its
 * name. getopt_long(3) gets its tables, and --help its text, from the same rows.
 */
#include "cli/cli.h"

#include "base/cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { OPT_STATE_DIR = 1000, OPT_RUNTIME_DIR, OPT_CONFIG };

static const struct cli_option global_options[] = {
    {"state-dir", OPT_STATE_DIR, "DIR", "the journal on disk (RBXJ_STATE_DIR; default /var/lib/rbxj)"},
    {"runtime-dir", OPT_RUNTIME_DIR, "DIR", "the journal of this boot (RBXJ_RUNTIME_DIR; default /run/rbxj)"},
    {"config", OPT_CONFIG, "FILE", "configuration (default /etc/rbxj/rbxj.conf, if it is there)"},
    {"json", 'J', NULL, "one JSON document on standard output"},
    {"noheadings", 'n', NULL, "no column headings, no summary lines"},
    {"quiet", 'q', NULL, "nothing but errors"},
    {"verbose", 'v', NULL, "more columns and explanations"},
    {"help", 'h', NULL, "this text"},
    {"version", 'V', NULL, "the version"},
    {0},
};

enum { MAX_OPTIONS = 40, FIRST_LONG_ONLY = 256 };

/* getopt_long's own tables for one command. */
struct parser {
    struct option rows[MAX_OPTIONS];
    size_t rows_len;
    char letters[2 * MAX_OPTIONS + 3];
    size_t letters_len;
};

static void parser_add(struct parser *parser, const struct cli_option *options)
{
    for (; options && options->name; options++) {
        parser->rows[parser->rows_len++] = (struct option){
            .name = options->name,
            .has_arg = options->argument ? required_argument : no_argument,
            .val = options->id,
        };
        if (options->id >= FIRST_LONG_ONLY)
            continue;
        parser->letters[parser->letters_len++] = (char)options->id;
        if (options->argument)
            parser->letters[parser->letters_len++] = ':';
    }
}

static void parser_fill(struct parser *parser, const struct command *command)
{
    *parser = (struct parser){0};
    if (command->operands_end_options)
        parser->letters[parser->letters_len++] = '+';
    parser->letters[parser->letters_len++] = ':'; /* tells a missing argument from an unknown option */
    parser_add(parser, command->options);
    parser_add(parser, global_options);
}

static const struct cli_option *find_option(const struct cli_option *options, int id)
{
    for (; options && options->name; options++)
        if (options->id == id)
            return options;
    return NULL;
}

/* "--dry-run, --plan=ID" for a usage error: what would be right. */
static void describe_options(char *buf, size_t size, const struct cli_option *options)
{
    size_t used = 0;
    buf[0] = '\0';
    for (; options && options->name && used < size; options++) {
        int n = snprintf(buf + used, size - used, "%s--%s%s%s", used ? ", " : "", options->name,
                         options->argument ? "=" : "", options->argument ? options->argument : "");
        used += n > 0 ? (size_t)n : 0;
    }
}

static int bad_option(struct cli *cli, int what, char **argv)
{
    const struct cli_option *known = find_option(cli->command->options, optopt);
    if (!known)
        known = find_option(global_options, optopt);
    if (known && what == ':')
        return cli_usage(cli, "option --%s needs its %s", known->name, known->argument);
    if (known)
        return cli_usage(cli, "option --%s takes no value", known->name);

    char own[400], global[400], letter[] = {'-', (char)optopt, '\0'};
    describe_options(own, sizeof(own), cli->command->options);
    describe_options(global, sizeof(global), global_options);
    return cli_usage(cli, "unknown or ambiguous option '%s': there are %s%s%s",
                     optopt ? letter : argv[optind - 1], own, own[0] ? ", " : "", global);
}

/* ---- help ---- */

enum { HELP_COLUMN = 26 };

static const char exit_status[] =
    "Exit status: 0 done, nothing left; 1 something is left or was refused; 2 wrong usage; 3 the journal is\n"
    "damaged; 4 no permission; 5 busy; 6 environment error (disk full, I/O, memory).";

static void print_options(const char *title, const struct cli_option *options)
{
    if (!options || !options->name)
        return;
    print_line("%s", "");
    print_line("%s:", title);
    for (; options->name; options++) {
        char left[64], letter[] = {'-', (char)options->id, ',', ' ', '\0'};
        snprintf(left, sizeof(left), "%s--%s%s%s", options->id < FIRST_LONG_ONLY ? letter : "    ",
                 options->name, options->argument ? "=" : "", options->argument ? options->argument : "");
        bool fits = strlen(left) <= HELP_COLUMN;
        if (!fits)
            print_line("  %s", left);
        print_line("  %-*s %s", HELP_COLUMN, fits ? left : "", options->help);
    }
}

/* print_line() would escape the line breaks. */
static void print_paragraphs(const char *text)
{
    while (*text) {
        size_t len = strcspn(text, "\n");
        print_line("%.*s", (int)len, text);
        text += len + (text[len] == '\n');
    }
}

static void print_help(const struct command *command)
{
    const char *name = command->name ? command->name : "";
    print_line("Usage: rbxj %s%s%s", name, *name ? " " : "", command->synopsis);
    print_line("%s", "");
    print_line("%s", command->summary);
    if (command->details) {
        print_line("%s", "");
        print_paragraphs(command->details);
    }
    if (!command->name) {
        print_line("%s", "");
        print_line("Commands ('rbxj COMMAND --help' has more):");
        for (const struct command *each = commands; each->name; each++)
            print_line("  %-*s %s", HELP_COLUMN, each->name, each->summary);
    }
    print_options("Options", command->options);
    print_options(command->name ? "Options of every command" : "Options (before or after the command)",
                  global_options);
    print_line("%s", "");
    print_paragraphs(command->exit_status ? command->exit_status : exit_status);
}

/* ---- reading ---- */

void cli_start(struct cli *cli, const struct command *command)
{
    cli->command = command;
    cli->seen = 0;
    optind = 0; /* glibc: forget the argv of before */
    opterr = 0;
}

/* No option has a use for an empty value: it is a variable that was not set, and what stands in for it, the
 * default, is not what was meant. Nor is the last of two. Returns CLI_LEAVE when everything is said, else
 * CLI_END. */
static int check_value(struct cli *cli, const struct cli_option *option, uint64_t once, const char *value)
{
    if (!option->argument)
        return CLI_END;
    bool again = cli->seen & once;
    if (again)
        cli->status = cli_usage(cli, "option --%s is given twice, now with '%s': it takes one %s",
                                option->name, value, option->argument);
    else if (!*value)
        cli->status = cli_usage(cli, "option --%s needs its %s, which is empty", option->name,
                                option->argument);
    cli->seen |= once;
    return again || !*value ? CLI_LEAVE : CLI_END;
}

/* Returns CLI_LEAVE when everything is done with it, else CLI_END. */
static int global_option(struct cli *cli, int id, const char *value)
{
    switch (id) {
    case OPT_STATE_DIR:
        cli->options.state_dir = value;
        break;
    case OPT_RUNTIME_DIR:
        cli->options.runtime_dir = value;
        break;
    case OPT_CONFIG:
        cli->options.config = value;
        break;
    case 'J':
        cli->style.json = true;
        break;
    case 'n':
        cli->style.noheadings = true;
        break;
    case 'q':
        cli->style.quiet = true;
        break;
    case 'v':
        cli->style.verbose = true;
        break;
    case 'h':
        print_help(cli->command);
        cli->status = STATUS_DONE;
        return CLI_LEAVE;
    case 'V':
        print_line("rbxj " RBXJ_VERSION);
        cli->status = STATUS_DONE;
        return CLI_LEAVE;
    }
    return CLI_END;
}

int cli_next(struct cli *cli, int argc, char **argv, const char **ret_value)
{
    struct parser parser;
    parser_fill(&parser, cli->command);
    for (;;) {
        int id = getopt_long(argc, argv, parser.letters, parser.rows, NULL);
        if (id == -1)
            return CLI_END;
        if (id == '?' || id == ':') {
            cli->status = bad_option(cli, id, argv);
            return CLI_LEAVE;
        }
        const struct cli_option *own = find_option(cli->command->options, id);
        uint64_t once = own && id < CLI_MANY ? 1ULL << (own - cli->command->options) : 0;
        if (check_value(cli, own ? own : find_option(global_options, id), once, optarg) == CLI_LEAVE)
            return CLI_LEAVE;
        if (own) {
            *ret_value = optarg;
            return id;
        }
        if (global_option(cli, id, optarg) == CLI_LEAVE)
            return CLI_LEAVE;
    }
}

int cli_no_operands(struct cli *cli, int argc, char **argv)
{
    if (optind >= argc)
        return 0;
    cli->status = cli_usage(cli, "'%s' is one word too many: it takes options only", argv[optind]);
    return CLI_LEAVE;
}

int cli_usage(struct cli *cli, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    _cleanup_free_ char *text = NULL;
    int n = vasprintf(&text, format, args);
    va_end(args);
    const char *name = cli->command->run ? cli->command->name : "";
    print_problem("%s%s%s (see 'rbxj%s%s --help')", name, *name ? ": " : "", n < 0 ? format : text,
                  *name ? " " : "", name);
    return STATUS_USAGE;
}

int cli_parse_number(const char *text, unsigned long max, unsigned long *ret)
{
    char *end = NULL;
    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || *end || value < 1 || value > max)
        return -EINVAL;
    *ret = value;
    return 0;
}
