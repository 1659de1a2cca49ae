/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj list: the boxes and their records, with what is found of each. Changes nothing.
 */
#include "cli/cli.h"

enum { OPT_BOX = 256 };

const struct cli_option list_options[] = {
    {"box", OPT_BOX, "ID", "this box only"},
    {0},
};

int cmd_list(struct cli *cli, int argc, char **argv)
{
    const char *value, *box = NULL;
    int id;
    while ((id = cli_next(cli, argc, argv, &value)) > 0)
        box = value; /* the only option */
    if (id == CLI_LEAVE || cli_no_operands(cli, argc, argv) == CLI_LEAVE)
        return cli->status;

    struct rbxj_result *result = NULL;
    struct rbxj_error error = {0};
    int rc = rbxj_list(&cli->options, box, &result, &error);
    if (rc < 0) {
        print_failure(&cli->style, "list", rc, &error);
        return status_of(rc);
    }
    print_list(&cli->style, result);
    rbxj_result_free(result);
    return STATUS_DONE;
}
