/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rbxj incidents: what replays found, what became of it, what is left. Changes nothing.
 */
#include "cli/cli.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "cli/incident_text.h"
#include "cli/json.h"

#include <string.h>

enum { OPT_SINCE = 256, OPT_MARKDOWN };

const struct cli_option incidents_options[] = {
    {"since", OPT_SINCE, "TIME",
     "what was detected or came again since then: a date, a date and time (UTC), or 30m, 1h, 2d"},
    {"markdown", OPT_MARKDOWN, NULL, "a post-incident document for each"},
    {0},
};

/* "30m": that long ago; else a date. 0, or -EINVAL. */
static int parse_since(const char *text, int64_t *ret_ns)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 7 * 86400}};
    char *end = NULL;
    if (text[0] >= '0' && text[0] <= '9') {
        errno = 0;
        unsigned long value = strtoul(text, &end, 10);
        for (size_t i = 0; !errno && value <= 1000000 && end[0] && !end[1] && i < ARRAY_LEN(units); i++)
            if (end[0] == units[i].unit) {
                int64_t now = now_realtime_ns(), ago = (int64_t)value * units[i].seconds;
                *ret_ns = ago < now / 1000000000 ? now - ago * 1000000000 : 0;
                return 0;
            }
    }
    return doc_parse_time(text, ret_ns);
}

static void print_incidents(const struct rbxj_incidents *incidents, const bool *shown)
{
    struct doc doc;
    doc_init(&doc);
    cJSON *list = doc_array(&doc, doc.root, "incidents");
    for (size_t i = 0; i < rbxj_incidents_len(incidents); i++)
        if (shown[i])
            (void)doc_add(&doc, list, NULL, cJSON_CreateRaw(rbxj_incidents_json(incidents, i)));
    print_document(&doc);
}

/* The library gives only what is JSON. */
static cJSON *parsed(const struct rbxj_incidents *incidents, size_t i)
{
    cJSON *document = cJSON_Parse(rbxj_incidents_json(incidents, i));
    if (!document)
        print_no_memory("the incidents");
    return document;
}

static void print_documents(const struct print_style *style, cJSON *const *documents, size_t n, bool show,
                            bool markdown)
{
    if (!show && !markdown) {
        incident_print_table(style, documents, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (i)
            print_line("%s", "");
        if (markdown)
            incident_print_markdown(documents[i]);
        else
            incident_print_text(documents[i]);
    }
}

static void print_shown(const struct cli *cli, const struct rbxj_incidents *incidents, const bool *shown,
                        bool show, bool markdown)
{
    size_t n = 0, len = rbxj_incidents_len(incidents);
    if (cli->style.json) {
        print_incidents(incidents, shown);
        return;
    }
    if (cli->style.quiet)
        return;
    cJSON **documents = calloc(len + 1, sizeof(*documents));
    if (!documents)
        print_no_memory("the incidents");
    for (size_t i = 0; i < len; i++)
        if (shown[i])
            documents[n++] = parsed(incidents, i);
    print_documents(&cli->style, documents, n, show, markdown);
    for (size_t i = 0; i < n; i++)
        cJSON_Delete(documents[i]);
    free(documents);
}

/* The one that is called id, or the only one whose id begins so; NULL: all. */
static int choose(const struct rbxj_incidents *incidents, const char *id, bool *shown,
                  struct rbxj_error *error)
{
    size_t n = 0;
    for (size_t i = 0; i < rbxj_incidents_len(incidents); i++) {
        cJSON *document = id ? parsed(incidents, i) : NULL;
        const char *own = doc_get_text(document, "id");
        shown[i] = !id || (own && strncmp(own, id, strlen(id)) == 0);
        n += shown[i];
        cJSON_Delete(document);
    }
    if (!id || n == 1)
        return 0;
    int r = n ? error_set(error, RBXJ_E_NO_SUCH_BOX, 0, "the ids of %zu incidents begin with %s", n, id)
              : error_set(error, RBXJ_E_NO_SUCH_BOX, 0, "no incident is called %s", id);
    error_detail(error, "'rbxj incidents' shows those that are kept");
    return r;
}

static int read_and_print(struct cli *cli, const char *id, int64_t since_ns, bool markdown)
{
    struct rbxj_incidents *incidents = NULL;
    struct rbxj_error error = {0};
    int rc = rbxj_incidents(&cli->options, NULL, since_ns, &incidents, &error);
    if (rc == 0) {
        _cleanup_free_ bool *shown = calloc(rbxj_incidents_len(incidents) + 1, sizeof(*shown));
        rc = shown ? choose(incidents, id, shown, &error) : error_sys(&error, ENOMEM, "incidents");
        if (rc == 0)
            print_shown(cli, incidents, shown, id != NULL, markdown);
        rbxj_incidents_free(incidents);
    }
    if (rc == 0)
        return STATUS_DONE;
    print_failure(&cli->style, "incidents", rc, &error);
    return status_of(rc);
}

int cmd_incidents(struct cli *cli, int argc, char **argv)
{
    const char *value, *since = NULL, *id = NULL;
    bool markdown = false;
    int64_t since_ns = 0;
    int option;
    while ((option = cli_next(cli, argc, argv, &value)) > 0)
        if (option == OPT_SINCE)
            since = value;
        else
            markdown = true;
    if (option == CLI_LEAVE)
        return cli->status;
    if (optind < argc && strcmp(argv[optind], "show") == 0) {
        if (++optind >= argc || !argv[optind][0])
            return cli_usage(cli, "'show' needs the id of an incident");
        id = argv[optind++];
    }
    if (cli_no_operands(cli, argc, argv) == CLI_LEAVE)
        return cli->status;
    if (since && id)
        return cli_usage(cli, "'show' shows one incident: --since does not go with it");
    if (markdown && cli->style.json)
        return cli_usage(cli, "--markdown and --json exclude each other");
    if (since && parse_since(since, &since_ns) < 0)
        return cli_usage(cli, "'%s' is no time: give 2026-11-24, 2026-11-24T03:00:00Z, 30m, 1h or 2d", since);
    return read_and_print(cli, id, since_ns, markdown);
}
