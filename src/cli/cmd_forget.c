/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj forget: drops one record that nobody can undo, so that there is always a way out (K2).
 */
#include "cli/cli.h"

#include <stdint.h>

enum { OPT_BOX = 256, OPT_SEQ, OPT_REASON };

const struct cli_option forget_options[] = {
    {"box", OPT_BOX, "ID", "the box"},
    {"seq", OPT_SEQ, "N", "the record's number in it, as 'rbxj list' shows it"},
    {"reason", OPT_REASON, "TEXT", "why, for the incident record"},
    {0},
};

int cmd_forget(struct cli *cli, int argc, char **argv)
{
    const char *value, *box = NULL, *reason = NULL;
    unsigned long seq = 0;
    int id;
    while ((id = cli_next(cli, argc, argv, &value)) > 0) {
        if (id == OPT_BOX)
            box = value;
        else if (id == OPT_REASON)
            reason = value;
        else if (cli_parse_number(value, UINT32_MAX, &seq) < 0)
            return cli_usage(cli, "--seq takes a number from 1 up, not '%s'", value);
    }
    if (id == CLI_LEAVE || cli_no_operands(cli, argc, argv) == CLI_LEAVE)
        return cli->status;
    if (!box || !seq || !reason)
        return cli_usage(cli, "%s is missing: it takes --box ID --seq N --reason TEXT, all three",
                         !box   ? "--box"
                         : !seq ? "--seq"
                                : "--reason");

    struct rbxj_error error = {0};
    int rc = rbxj_forget(&cli->options, box, (uint32_t)seq, reason, &error);
    if (rc < 0) {
        print_failure(&cli->style, "forget", rc, &error);
        return status_of(rc);
    }
    print_forgotten(&cli->style, box, (uint32_t)seq);
    return STATUS_DONE;
}
