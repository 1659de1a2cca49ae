/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj reset: the full reset of a worker, with its service stopped and started around it.
 */
#include "cli/cli.h"

#include "base/cleanup.h"
#include "base/config.h"
#include "base/error.h"
#include "cli/json.h"

#include <errno.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OPT_YES = 256, OPT_SERVICE };

const struct cli_option reset_options[] = {
    {"yes", OPT_YES, NULL, "do not ask"},
    {"service", OPT_SERVICE, "UNIT", "stop that unit before, start it again if nothing is left"},
    {0},
};

struct reset {
    struct cli *cli;
    const char *service;
    bool stopped, started;
    uint32_t killed;
    struct rbxj_result *result;
    struct rbxj_health health;
};

/* systemctl says itself what went wrong. */
static int systemctl(const char *verb, const char *unit, struct rbxj_error *e)
{
    char *argv[] = {"systemctl", (char *)(uintptr_t)verb, "--", (char *)(uintptr_t)unit, NULL};
    pid_t pid;
    int status = 0, failed = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
    while (!failed && waitpid(pid, &status, 0) < 0)
        failed = errno == EINTR ? 0 : errno;
    if (failed)
        return error_set(e, RBXJ_E_IO, failed, "systemctl %s %s", verb, unit);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0
               ? 0
               : error_set(e, RBXJ_E_IO, 0, "systemctl %s %s failed", verb, unit);
}

static bool confirm(const char *service)
{
    char answer[16] = "", shown[512] = "";
    if (service)
        escape_bytes(shown, sizeof(shown), service, strlen(service));
    (void)fprintf(stderr, "%s%s%skill the supervisors of all live boxes and undo everything? Type yes: ",
                  service ? "stop " : "", shown, service ? ", " : "");
    return fgets(answer, sizeof(answer), stdin) && strcmp(answer, "yes\n") == 0;
}

static void print_reset(const struct reset *r)
{
    if (r->cli->style.json) {
        struct doc doc;
        doc_init(&doc);
        doc_number(&doc, doc.root, "version", 1);
        doc_number(&doc, doc.root, "killed", r->killed);
        (void)doc_text(&doc, doc.root, "service", r->service);
        doc_bool(&doc, doc.root, "stopped", r->stopped);
        doc_bool(&doc, doc.root, "started", r->started);
        (void)doc_text(&doc, doc.root, "status", r->health.status);
        (void)doc_text(&doc, doc.root, "quarantine_reason", r->health.quarantine_reason);
        _cleanup_free_ char *replay = json_replay(r->result);
        (void)doc_add(&doc, doc.root, "replay", cJSON_CreateRaw(replay));
        print_document(&doc);
        return;
    }
    print_replay(&r->cli->style, r->result);
    if (r->cli->style.quiet)
        return;
    print_line("%u %s killed; status=\"%s\"%s%s%s", r->killed, r->killed == 1 ? "process" : "processes",
               r->health.status ? r->health.status : "unknown", r->service ? "; " : "",
               r->service ? r->service : "",
               !r->service  ? ""
               : r->started ? " started"
                            : " not started");
}

/* A mistake in it must not cost a service. */
static int check_config(const struct cli *cli, struct rbxj_error *e)
{
    struct config config = {0};
    int rc = config_load(&cli->options, &config, e);
    config_clear(&config);
    return rc;
}

static int reset(struct reset *r)
{
    struct rbxj_error error = {0};
    struct print_progress progress = {.quiet = r->cli->style.quiet};
    struct rbxj_replay how = {.progress = print_progress, .progress_data = &progress};
    int rc = r->service ? check_config(r->cli, &error) : 0;
    if (rc == 0 && r->service)
        rc = systemctl("stop", r->service, &error);
    r->stopped = r->service && rc == 0;
    if (rc == 0)
        rc = rbxj_reset(&r->cli->options, &how, &r->killed, &r->result, &r->health, &error);
    print_progress_end(&progress);
    if (rc < 0) {
        print_failure(&r->cli->style, "reset", rc, &error);
        return status_of(rc);
    }
    bool healthy = r->health.status && strcmp(r->health.status, "healthy") == 0;
    r->started = rc == 0 && healthy && r->service && systemctl("start", r->service, &error) == 0;
    if (error.code)
        print_problem("reset: %s", error.message);
    print_reset(r);
    return rc == 0 && healthy && (!r->service || r->started) ? STATUS_DONE : STATUS_LEFT;
}

int cmd_reset(struct cli *cli, int argc, char **argv)
{
    struct reset r = {.cli = cli};
    const char *value;
    bool yes = false;
    int id;
    while ((id = cli_next(cli, argc, argv, &value)) > 0) {
        if (id == OPT_YES)
            yes = true;
        else
            r.service = value;
    }
    if (id == CLI_LEAVE || cli_no_operands(cli, argc, argv) == CLI_LEAVE)
        return cli->status;
    if (!yes && !isatty(STDIN_FILENO))
        return cli_usage(cli, "reset kills what runs: it asks on a terminal; --yes does not ask");
    if (!yes && !confirm(r.service))
        return STATUS_LEFT;
    int status = reset(&r);
    rbxj_result_free(r.result);
    return status;
}
