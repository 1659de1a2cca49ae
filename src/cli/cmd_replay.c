/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj replay: the reaper.
 */
#include "cli/cli.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "cli/notify.h"

#include <errno.h>
#include <string.h>
#include <time.h>

enum {
    OPT_DRY_RUN = 256,
    OPT_PLAN,
    OPT_BOOT,
    OPT_LAZY,
    OPT_TIMEOUT,
    OPT_ASSUME_DEAD,
    OPT_REASON,
    OPT_WAIT,
    OPT_BOX = CLI_MANY
};

enum { PLAN_LEN = 16 };
#define SECONDS_MIN 0.001
#define SECONDS_MAX 1e6

const struct cli_option replay_options[] = {
    {"dry-run", OPT_DRY_RUN, NULL, "show what would be done and the plan's id; change nothing"},
    {"plan", OPT_PLAN, "ID", "do exactly the plan that a dry run showed, or nothing"},
    {"box", OPT_BOX, "ID", "this box only; may be given several times"},
    {"boot", OPT_BOOT, NULL, "at boot: stop at boot_deadline and leave the rest"},
    {"lazy-umount", OPT_LAZY, "WHEN", "detach a busy mount lazily: never, or last-resort"},
    {"timeout", OPT_TIMEOUT, "SECONDS", "the most to spend on one box"},
    {"wait", OPT_WAIT, "SECONDS", "the most to wait for another reaper, as a watch, to come to its end"},
    {"assume-dead", OPT_ASSUME_DEAD, NULL, "take --box's supervisor for dead where that can't be known"},
    {"reason", OPT_REASON, "TEXT", "why, for the incident record; with --assume-dead"},
    {0},
};

/* strtod(3) takes signs, white space, hex and words, too: here they are slips. 0, or the status of a usage
 * error. */
static int parse_seconds(struct cli *cli, const char *option, const char *text, double *ret)
{
    char *end = NULL;
    double value = strtod(text, &end);
    bool plain = strchr(".0123456789", text[0]) && !strpbrk(text, "xX") && !*end;
    if (!plain || !(value >= SECONDS_MIN && value <= SECONDS_MAX))
        return cli_usage(cli, "--%s takes seconds, from 0.001 to 1000000, not '%s'", option, text);
    *ret = value;
    return 0;
}

/* Stores one option; 0, or the status of a usage error. */
static int take_option(struct cli *cli, struct rbxj_replay *how, const char **boxes, int id,
                       const char *value)
{
    switch (id) {
    case OPT_DRY_RUN:
        how->dry_run = 1;
        break;
    case OPT_PLAN:
        how->plan = value;
        break;
    case OPT_BOX:
        boxes[how->boxes_len++] = value;
        break;
    case OPT_BOOT:
        how->boot = 1;
        break;
    case OPT_LAZY:
        how->lazy_umount = strcmp(value, "never") == 0 ? 1 : strcmp(value, "last-resort") == 0 ? 2 : 0;
        if (!how->lazy_umount)
            return cli_usage(cli, "--lazy-umount takes 'never' or 'last-resort', not '%s'", value);
        break;
    case OPT_TIMEOUT:
        return parse_seconds(cli, "timeout", value, &how->timeout);
    case OPT_ASSUME_DEAD:
        how->assume_dead = 1;
        break;
    case OPT_REASON:
        how->reason = value;
        break;
    }
    return 0;
}

/* 0, or the status of a usage error. */
static int check_options(struct cli *cli, const struct rbxj_replay *how)
{
    if (how->assume_dead && (!how->boxes_len || !how->reason))
        return cli_usage(cli, "--assume-dead goes with --box ID and --reason TEXT: name the box and say why");
    if (how->reason && !how->assume_dead)
        return cli_usage(cli, "--reason goes with --assume-dead only");
    if (how->plan && how->dry_run)
        return cli_usage(cli, "--plan and --dry-run exclude each other: a dry run shows the present plan");
    if (how->plan && (strlen(how->plan) != PLAN_LEN || how->plan[strspn(how->plan, "0123456789abcdef")]))
        return cli_usage(cli, "--plan takes the id that a dry run shows, %d hex digits, not '%s'", PLAN_LEN,
                         how->plan);
    return 0;
}

/* Another reaper is at it, as a watch that saw the same death: what it leaves is still to be done. */
static int replay_in_turn(struct cli *cli, const struct rbxj_replay *how, double wait,
                          struct rbxj_result **ret, struct rbxj_error *error)
{
    int64_t deadline = now_monotonic_ns() + (int64_t)(wait * 1e9);
    for (;;) {
        int rc = rbxj_replay(&cli->options, how, ret, error);
        if (rc != -RBXJ_E_BUSY || now_monotonic_ns() >= deadline)
            return rc;
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 20000000}, NULL);
    }
}

/* What a result without boxes would not say. */
static void tell_other_plan(const struct rbxj_replay *how, const struct rbxj_result *result)
{
    struct rbxj_result_info info;
    rbxj_result_info(result, &info);
    if (how->plan && info.plan && strcmp(how->plan, info.plan) != 0 && !info.boxes)
        print_problem("replay: the plan is %s now, not %s: nothing was done", info.plan, how->plan);
}

int cmd_replay(struct cli *cli, int argc, char **argv)
{
    _cleanup_free_ const char **boxes = calloc((size_t)argc + 1, sizeof(*boxes));
    if (!boxes) {
        print_problem("replay: out of memory");
        return STATUS_SYSTEM;
    }
    struct print_progress progress = {.quiet = cli->style.quiet};
    struct rbxj_replay how = {.boxes = boxes, .progress = print_progress, .progress_data = &progress};

    const char *value;
    int id, status;
    double wait = 0;
    while ((id = cli_next(cli, argc, argv, &value)) > 0)
        if ((status = id == OPT_WAIT ? parse_seconds(cli, "wait", value, &wait)
                                     : take_option(cli, &how, boxes, id, value)) != 0)
            return status;
    if (id == CLI_LEAVE || cli_no_operands(cli, argc, argv) == CLI_LEAVE)
        return cli->status;
    if ((status = check_options(cli, &how)) != 0)
        return status;
    if (!how.boxes_len)
        how.boxes = NULL;

    struct rbxj_result *result = NULL;
    struct rbxj_error error = {0};
    if (how.boot)
        notify_boot(&cli->options);
    int rc = replay_in_turn(cli, &how, wait, &result, &error);
    print_progress_end(&progress);
    if (rc < 0) {
        print_failure(&cli->style, "replay", rc, &error);
        return status_of(rc);
    }
    notify_result(result);
    print_replay(&cli->style, result);
    tell_other_plan(&how, result);
    rbxj_result_free(result);
    return rc > 0 ? STATUS_LEFT : STATUS_DONE;
}
