/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj: the table of commands, and the way from a command line to one of its rows.
 */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

const struct command commands[] = {
    {
        .name = "run",
        .synopsis = "[OPTION...] [--] CMD [ARG...]",
        .summary = "acquire, run CMD, undo",
        .details =
            "Acquires in the order written, runs CMD inside the cgroups, and undoes everything in reverse.\n"
            "--lock, --cgroup, --mount and --tmpdir may be given several times. Relative paths are made\n"
            "absolute. A mount target that is missing is made, and removed again; a cgroup or tmpdir must\n"
            "not exist.\n",
        .exit_status = "Exit status: that of CMD, 128+N if signal N ended it; 125 rbxj failed before CMD, "
                       "126 CMD is not\n"
                       "executable, 127 it was not found; 1 if CMD gave 0 but something is left.",
        .not_told = 125,
        .options = run_options,
        .operands_end_options = true,
        .run = cmd_run,
    },
    {
        .name = "list",
        .synopsis = "[OPTION...]",
        .summary = "boxes, their records, and what is found of them",
        .details = "Changes nothing.",
        .options = list_options,
        .run = cmd_list,
    },
    {
        .name = "replay",
        .synopsis = "[OPTION...]",
        .summary = "undo what dead boxes left behind",
        .details =
            "Undoes exactly what the journal names for boxes whose supervisor is dead, newest first, and\n"
            "nothing else. A box whose supervisor lives is never touched.",
        .options = replay_options,
        .run = cmd_replay,
    },
    {
        .name = "forget",
        .synopsis = "--box ID --seq N --reason TEXT [OPTION...]",
        .summary = "drop one record that nobody can undo",
        .details = "Touches nothing but the journal. Refused while the box's supervisor lives.",
        .options = forget_options,
        .run = cmd_forget,
    },
    {
        .name = "hook",
        .synopsis = "[OPTION...]",
        .summary = "JSON lines in, one JSON line back for each: journaling for any supervisor",
        .details =
            "Requests: begin, intend, acquired, released, undo, end; one object a line, at most 1 MiB. The\n"
            "supervisor is the process that 'begin' names, else the hook's parent. See rbxj-hook(7).\n",
        .exit_status = "Exit status: 0 at the end of input, whatever became of the requests; 2 wrong usage; "
                       "3 the journal is\n"
                       "damaged; 4 no permission; 5 busy; 6 environment error (disk full, I/O, memory).",
        .options = hook_options,
        .run = cmd_hook,
    },
    {
        .name = "health",
        .synopsis = "[OPTION...]",
        .summary = "the worker's health; recover, verify, quarantine",
        .details =
            "Without an option, and with --check, it looks only: at boxes, processes that outlived one, and\n"
            "the room there is (min_free).",
        .exit_status =
            "Exit status: 0 healthy, 1 unhealthy, 2 quarantined (a damaged journal too), 3 unknown (wrong\n"
            "usage and no permission too); --verify-clean: 0 clean, 1 not; --quarantine and --unquarantine:\n"
            "0 done, 1 not.",
        .not_told = 3,
        .options = health_options,
        .run = cmd_health,
    },
    {
        .name = "watch",
        .synopsis = "[OPTION...]",
        .summary = "stay up; replay each box as soon as its supervisor is dead",
        .details =
            "Waits for the supervisors of all boxes, at no cost while nothing happens. What is stale at its "
            "start is\n"
            "replayed, too. A box of which something is left is tried again after a minute, then at longer\n"
            "intervals, up to five minutes. With --json: one line for each replay, as 'replay --json' prints "
            "it.\n"
            "Speaks sd_notify(3): READY, STATUS, WATCHDOG, STOPPING.\n",
        .exit_status =
            "Exit status: 0 ended by SIGTERM or SIGINT, after the undo that was under way; 2 wrong usage; "
            "4 no\n"
            "permission; 6 environment error. A damaged journal does not end it.",
        .options = watch_options,
        .run = cmd_watch,
    },
    {
        .name = "audit",
        .synopsis = "[--adopt [--yes] [NAME...]]",
        .summary = "what looks like ours and is journaled nowhere; take it into the journal",
        .details = "Finds locks, cgroups, mounts and directories by the patterns of [discover] in rbxj.conf. "
                   "Without\n"
                   "--adopt it looks only. Nothing is undone here: an adopted thing is, by the next replay. "
                   "With NAMEs\n"
                   "only these are adopted. What somebody uses is refused.",
        .exit_status =
            "Exit status: 0 nothing is unjournaled or missing (or all of it was adopted), 1 something "
            "is; 2 wrong\n"
            "usage; 3 the journal is damaged; 4 no permission; 5 busy; 6 environment error (disk full, "
            "I/O, memory).",
        .options = audit_options,
        .run = cmd_audit,
    },
    {
        .name = "reset",
        .synopsis = "[--yes] [--service UNIT]",
        .summary = "kill what runs, undo everything, begin anew",
        .details =
            "Stops UNIT, quarantines the worker, kills the supervisors of all live boxes and whoever keeps a "
            "dead\n"
            "one's lock, replays, verifies, and releases the worker if nothing is left. Asks on a terminal.",
        .exit_status =
            "Exit status: 0 the worker is healthy (and UNIT started); 1 something is left, the worker is "
            "quarantined\n"
            "still, or you said no; otherwise as replay.",
        .options = reset_options,
        .run = cmd_reset,
    },
    {
        .name = "incidents",
        .synopsis = "[show ID] [OPTION...]",
        .summary = "what replays found, what became of it, what is left",
        .details = "Changes nothing.",
        .options = incidents_options,
        .run = cmd_incidents,
    },
    {
        .name = "metrics",
        .synopsis = "[OPTION...]",
        .summary = "Prometheus text format",
        .details = "Changes nothing. --textfile replaces the file atomically, for the node exporter.",
        .options = metrics_options,
        .run = cmd_metrics,
    },
    {
        .name = "forensics",
        .synopsis = "[FILE|DIR] [OPTION...]",
        .summary = "what can be read of a journal, however damaged; a new one from it",
        .details = "Reads data files without LMDB and changes none of them: FILE, those of DIR, or the "
                   "journals of this\n"
                   "machine. --verbose shows older versions of records, too.",
        .exit_status =
            "Exit status: 0 sound, 3 damaged; with --salvage: 0 done, 1 done, but something was "
            "left out; 2 wrong\n"
            "usage; 4 no permission; 5 it is written to too fast to be read; 6 environment error (disk\n"
            "full, I/O, memory).",
        .options = forensics_options,
        .run = cmd_forensics,
    },
    {0},
};

/* What stands before the command's name is read like a command's own options. */
static const struct command program = {
    .synopsis = "[OPTION...] COMMAND [...]",
    .summary = "a write-ahead cleanup journal for sandbox supervisors",
    .operands_end_options = true,
};

enum status status_of(int code)
{
    switch (-code) {
    case RBXJ_E_BAD_REQUEST:
    case EINVAL:
        return STATUS_USAGE;
    case RBXJ_E_NO_SUCH_BOX:
    case RBXJ_E_BOX_LIVE:
    case RBXJ_E_BOX_STALE:
    case RBXJ_E_PROTECTED_PATH:
    case RBXJ_E_EXISTS:
    case RBXJ_E_QUARANTINED:
    case RBXJ_E_FOREIGN:
    case RBXJ_E_LEFT:
        return STATUS_LEFT;
    case RBXJ_E_JOURNAL_DAMAGED:
        return STATUS_DAMAGED;
    case RBXJ_E_PERMISSION:
    case EPERM:
    case EACCES:
    case EROFS:
        return STATUS_PERMISSION;
    case RBXJ_E_BUSY:
    case RBXJ_E_JOURNAL_BUSY:
    case EBUSY:
        return STATUS_BUSY;
    default:
        return STATUS_SYSTEM;
    }
}

static const struct command *find_command(const char *name)
{
    for (const struct command *command = commands; command->name; command++)
        if (strcmp(command->name, name) == 0)
            return command;
    return NULL;
}

/* "run, list, replay, forget": what would be right. */
static void describe_commands(char *buf, size_t size)
{
    size_t used = 0;
    for (const struct command *command = commands; command->name && used < size; command++) {
        int n = snprintf(buf + used, size - used, "%s%s", used ? ", " : "", command->name);
        used += n > 0 ? (size_t)n : 0;
    }
}

static int dispatch(struct cli *cli, int argc, char **argv)
{
    const char *value;
    cli_start(cli, &program);
    if (cli_next(cli, argc, argv, &value) == CLI_LEAVE)
        return cli->status;

    char names[200];
    describe_commands(names, sizeof(names));
    if (optind >= argc)
        return cli_usage(cli, "a command is missing: one of %s", names);
    const struct command *command = find_command(argv[optind]);
    if (!command)
        return cli_usage(cli, "no command is called '%s': there are %s", argv[optind], names);

    int skipped = optind;
    cli_start(cli, command);
    return command->run(cli, argc - skipped, argv + skipped);
}

/* A descriptor of the journal must not become standard output: 0 to 2 are taken first. What is printed with
 * standard output closed must fail, not vanish: it can't be written to. 0, or -1. */
static int take_standard_descriptors(void)
{
    for (;;) {
        bool closed = fcntl(STDIN_FILENO, F_GETFD) >= 0 && fcntl(STDOUT_FILENO, F_GETFD) < 0;
        int fd = open("/dev/null", (closed ? O_RDONLY : O_RDWR) | O_NOCTTY);
        if (fd < 0)
            return -1;
        if (fd > STDERR_FILENO)
            return close(fd);
    }
}

/* What the library has to tell and journald is not there to hear. A person at a terminal reads the report. */
static void tell_event(void *data, const char *event, const char *message)
{
    const struct cli *cli = data;
    if (!cli->style.quiet && !isatty(STDERR_FILENO))
        print_event(event, message);
}

int main(int argc, char **argv)
{
    struct cli cli = {.options = {.event = tell_event}};
    cli.options.event_data = &cli;
    /* Names are shown as UTF-8 or escaped, whatever the caller's locale; numbers are read and written
     * plainly. */
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    if (take_standard_descriptors() < 0) {
        print_problem("/dev/null: %s", strerror(errno));
        return STATUS_SYSTEM;
    }
    (void)signal(SIGCHLD, SIG_DFL); /* where it is ignored nobody is told how a child has ended */
    (void)signal(SIGXFSZ, SIG_IGN); /* a limit is an error that is told, and no death half-way */
    int status = dispatch(&cli, argc, argv);
    if (print_finish() < 0 && status == STATUS_DONE)
        status = cli.command->not_told ? cli.command->not_told : STATUS_SYSTEM;
    return status;
}
