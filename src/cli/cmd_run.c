/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj run: the reference supervisor. Killed at any instruction it leaves only what is journaled:
 *
 *   block signals, open, begin (the plan is journaled here), acquire each in the order written;
 *   start the payload, journaled and inside the cgroups before it runs (K6, rbxj_spawn());
 *   forward signals until it ends; undo, by the code that a replay runs; end.
 *
 * Signals stay blocked all the time, so that only SIGKILL can come between two of these steps.
 */
#include "cli/cli.h"
#include "cli/payload.h"
#include "cli/run_plan.h"

#include "base/cleanup.h"
#include "base/config.h"
#include "base/error.h"
#include "base/fd.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { RUN_LEFT = 1, RUN_FAILED = 125, RUN_NOT_EXECUTABLE = 126, RUN_NOT_FOUND = 127 };

enum { OPT_BOX = 256, OPT_LOCK = CLI_MANY, OPT_CGROUP, OPT_MOUNT, OPT_TMPDIR };

const struct cli_option run_options[] = {
    {"box", OPT_BOX, "ID", "the box's name: A-Z a-z 0-9 . _ -; a fresh one if left out"},
    {"lock", OPT_LOCK, "PATH", "create and hold a lock file"},
    {"cgroup", OPT_CGROUP, "PATH", "make a cgroup and run CMD in it"},
    {"mount", OPT_MOUNT, "FSTYPE,SOURCE,TARGET[,OPTIONS]", "mount"},
    {"tmpdir", OPT_TMPDIR, "PATH", "make a directory; its content goes with it"},
    {0},
};

struct run {
    struct cli *cli;
    const char *box;
    char fresh_name[32];
    struct run_plan plan;
    struct rbxj *handle;
    struct rbxj_resource *begun; /* what begin journals at once */
    size_t begun_len;
    size_t begun_items; /* the items that these come from; the others follow when these are acquired */
    int *locks;         /* held to the end */
    size_t locks_len;
    uint32_t *cgroups; /* in which the payload runs */
    size_t cgroups_len;
};

static enum rbxj_kind kind_of_option(int id)
{
    return id == OPT_LOCK     ? RBXJ_LOCK
           : id == OPT_CGROUP ? RBXJ_CGROUP
           : id == OPT_MOUNT  ? RBXJ_MOUNT
                              : RBXJ_TMPDIR;
}

static const char *name_of_option(int id)
{
    return run_options[id - OPT_LOCK + 1].name;
}

/* 0, or -1 when everything is said and cli->status is set. */
static int parse_options(struct run *run, int argc, char **argv)
{
    struct cli *cli = run->cli;
    const char *value, *why = NULL;
    int id;
    while ((id = cli_next(cli, argc, argv, &value)) > 0) {
        if (id == OPT_BOX) {
            run->box = value;
            continue;
        }
        int rc = run_plan_add(&run->plan, kind_of_option(id), value, &why);
        if (rc < 0) {
            cli->status = why ? cli_usage(cli, "--%s %s, not '%s'", name_of_option(id), why, value)
                              : cli_usage(cli, "--%s %s: %s", name_of_option(id), value, strerror(-rc));
            return -1;
        }
    }
    if (id == CLI_LEAVE)
        return -1;
    if (optind >= argc) {
        cli->status = cli_usage(cli, "CMD is missing: rbxj run --box ID [OPTION...] -- CMD [ARG...]");
        return -1;
    }
    if (cli->style.json) {
        cli->status = cli_usage(cli, "--json is not for run: standard output belongs to CMD");
        return -1;
    }
    return 0;
}

/* ---- preparing ---- */

/* A user's state directory is made here (K33); root's comes with the installation. */
static int make_state_dir(const struct rbxj_options *options, struct rbxj_error *e)
{
    if (geteuid() == 0)
        return 0;
    struct config config = {0};
    int rc = config_load(options, &config, e);
    if (rc < 0)
        return rc;
    _cleanup_free_ char *path = path_absolute(config.state_dir);
    config_clear(&config);
    if (!path)
        return error_sys(e, errno, "state directory");
    for (char *slash = path; slash;) {
        slash = strchr(slash + 1, '/');
        if (slash)
            *slash = '\0';
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
            return error_sys(e, errno, "making the state directory: %s", path);
        if (slash)
            *slash = '/';
    }
    return 0;
}

/* Everything up to the first item about which the system must be asked once those before it are there. */
static int build_plan(struct run *run, struct rbxj_error *e)
{
    const struct run_plan *plan = &run->plan;
    run->begun = calloc(plan->len * RUN_RESOURCES_MAX + 1, sizeof(*run->begun));
    run->locks = calloc(plan->len + 1, sizeof(*run->locks));
    run->cgroups = calloc(plan->len + 1, sizeof(*run->cgroups));
    if (!run->begun || !run->locks || !run->cgroups)
        return error_sys(e, ENOMEM, "the plan");
    for (; run->begun_items < plan->len; run->begun_items++) {
        int n = run_plan_resources(plan, run->begun_items, false, run->begun + run->begun_len);
        if (n == -EAGAIN)
            return 0;
        if (n < 0)
            return error_sys(e, -n, "mount target: %s", plan->items[run->begun_items].path);
        run->begun_len += (size_t)n;
    }
    return 0;
}

static int begin(struct run *run, struct rbxj_error *e)
{
    int rc = make_state_dir(&run->cli->options, e);
    if (rc == 0)
        rc = build_plan(run, e);
    if (rc == 0)
        rc = rbxj_open(&run->cli->options, &run->handle, e);
    if (rc < 0)
        return rc;
    if (!run->box) {
        uint64_t number;
        random_bytes(&number, sizeof(number));
        snprintf(run->fresh_name, sizeof(run->fresh_name), "run-%016llx", (unsigned long long)number);
        run->box = run->fresh_name;
    }
    struct rbxj_box box = {.name = run->box, .plan = run->begun, .plan_len = run->begun_len};
    return rbxj_begin(run->handle, &box, NULL, e);
}

/* ---- acquiring ---- */

static int acquire(struct run *run, const struct rbxj_resource *resource, uint32_t seq, struct rbxj_error *e)
{
    int fd = -1;
    int rc = rbxj_acquire(run->handle, run->box, seq, resource->options, &fd, e);
    if (rc == 0 && fd >= 0)
        run->locks[run->locks_len++] = fd;
    if (rc == 0 && resource->kind == RBXJ_CGROUP)
        run->cgroups[run->cgroups_len++] = seq;
    return rc;
}

static int acquire_all(struct run *run, struct rbxj_error *e)
{
    int rc = 0;
    for (size_t i = 0; i < run->begun_len && rc == 0; i++)
        rc = acquire(run, &run->begun[i], (uint32_t)i + 1, e);
    for (size_t i = run->begun_items; i < run->plan.len && rc == 0; i++) {
        struct rbxj_resource resources[RUN_RESOURCES_MAX];
        int n = run_plan_resources(&run->plan, i, true, resources);
        if (n < 0)
            return error_sys(e, -n, "mount target: %s", run->plan.items[i].path);
        for (int k = 0; k < n && rc == 0; k++) {
            uint32_t seq = 0;
            rc = rbxj_intend(run->handle, run->box, &resources[k], &seq, e);
            if (rc == 0)
                rc = acquire(run, &resources[k], seq, e);
        }
    }
    return rc;
}

/* CMD's exit status, by the convention of env(1). */
static int execute(struct run *run, struct payload *payload, char **argv)
{
    struct rbxj_error error = {0};
    struct rbxj_spawn how = {
        .argv = (const char *const *)argv,
        .cgroups = run->cgroups,
        .cgroups_len = run->cgroups_len,
        .setup = payload_default_signals,
        .setup_data = payload,
    };
    payload_note_signals(payload);
    int rc = rbxj_spawn(run->handle, run->box, &how, &payload->pid, &payload->pidfd, NULL, &error);
    if (rc == 0) {
        int status = payload_wait(payload);
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
    if (rc <= -RBXJ_E_BAD_REQUEST) { /* it did not come to an exec */
        print_failure(&run->cli->style, "run", rc, &error);
        return RUN_FAILED;
    }
    print_problem("run: %s: %s; %s", argv[0], strerror(-rc),
                  rc == -ENOENT ? "give its path, or look at PATH" : "it must be a program that may be run");
    return rc == -ENOENT ? RUN_NOT_FOUND : RUN_NOT_EXECUTABLE;
}

/* ---- undoing ---- */

/* Returns whether something is left. */
static bool undo(struct run *run)
{
    struct rbxj_result *result = NULL;
    struct rbxj_error error = {0};
    int rc = rbxj_undo(run->handle, run->box, &result, &error);
    if (result)
        print_problems_of(result);
    rbxj_result_free(result);
    if (rc == 0)
        rc = rbxj_end(run->handle, run->box, &error);
    if (rc < 0)
        print_failure(&run->cli->style, "run", rc, &error);
    return rc < 0;
}

static void run_clear(struct run *run)
{
    rbxj_close(run->handle);
    for (size_t i = 0; i < run->locks_len; i++)
        (void)close(run->locks[i]);
    free(run->locks);
    free(run->cgroups);
    free(run->begun);
    run_plan_clear(&run->plan);
}

static int supervise(struct run *run, struct payload *payload, char **argv)
{
    struct rbxj_error error = {0};
    int status = RUN_FAILED;
    int rc = payload_block_signals(payload);
    if (rc < 0)
        rc = error_sys(&error, -rc, "blocking signals");
    if (rc == 0)
        rc = begin(run, &error);
    if (rc < 0) {
        print_failure(&run->cli->style, "run", rc, &error);
        return RUN_FAILED;
    }

    rc = acquire_all(run, &error);
    if (rc == 0)
        status = execute(run, payload, argv);
    else
        print_failure(&run->cli->style, "run", rc, &error);
    bool left = undo(run);
    return left && status == 0 ? RUN_LEFT : status;
}

int cmd_run(struct cli *cli, int argc, char **argv)
{
    struct run run = {.cli = cli};
    struct payload payload = PAYLOAD_INIT;
    int status;
    if (parse_options(&run, argc, argv) < 0)
        status = cli->status == STATUS_DONE ? STATUS_DONE : RUN_FAILED;
    else
        status = supervise(&run, &payload, argv + optind);
    payload_clear(&payload);
    run_clear(&run);
    return status;
}
