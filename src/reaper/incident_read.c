/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reading what is kept of the past: for the command and for the health. Nothing is changed, and what is no
 * incident (foreign files, symlinks, broken documents) is left out.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/entry.h"
#include "reaper/incident.h"
#include "reaper/incident_doc.h"
#include "reaper/incident_store.h"

#include <string.h>

/* ---- for the health ---- */

static bool is_recovery(const cJSON *document)
{
    static const char *const procedures[] = {"replay", "boot", "recover", "undo"};
    const char *procedure = doc_get_text(document, "procedure");
    for (size_t i = 0; procedure && i < ARRAY_LEN(procedures); i++)
        if (strcmp(procedure, procedures[i]) == 0)
            return true;
    return false;
}

static bool kernel_was_in_trouble(const cJSON *document)
{
    static const char *const counts[] = {"hung_tasks", "bugs", "machine_oom_kills"};
    const cJSON *kernel = cJSON_GetObjectItemCaseSensitive(document, "kernel");
    for (size_t i = 0; i < ARRAY_LEN(counts); i++)
        if (doc_get_number(kernel, counts[i], 0) > 0)
            return true;
    return false;
}

/* Is a box of it held by somebody? That counts as no failed replay of it. */
static bool is_held(const cJSON *document)
{
    for (const cJSON *entry = doc_get_first(document, "entries"); entry; entry = entry->next) {
        const char *event = doc_get_text(entry, "event");
        if (event && strcmp(event, "orphan_detected") == 0)
            return true;
    }
    return false;
}

static void count(const cJSON *document, struct incident_counts *counts)
{
    const char *cause = doc_get_text(document, "cause");
    bool recovery = is_recovery(document);
    counts->detected += recovery;
    counts->corrupt += recovery && cause && strcmp(cause, "lock_corruption") == 0;
    counts->kernel += kernel_was_in_trouble(document);
}

static void count_open(const cJSON *document, struct incident_counts *counts)
{
    double times = doc_get_number(document, "count", 0);
    if (is_held(document) && times > (double)counts->held && times < 1e9)
        counts->held = (size_t)times;
}

int incidents_summary(const struct config *config, int64_t since_ns, struct incident_counts *ret,
                      char *last_error, size_t size)
{
    _cleanup_(incident_store_names_clear) struct incident_store_names names = {0};
    _cleanup_close_ int fd = incident_store_open(config);
    bool told = size == 0;
    int64_t latest_ns = now_realtime_ns() + INCIDENT_AHEAD_NS;
    *ret = (struct incident_counts){0};
    if (size)
        last_error[0] = '\0';
    int r = fd < 0 ? fd : incident_store_list(fd, &names);
    for (size_t i = 0; r == 0 && i < names.len; i++) {
        int64_t detected_ns = incident_id_time(names.ids[i]);
        bool counts = detected_ns >= since_ns && detected_ns <= latest_ns;
        bool may_be_open = incident_store_may_be_open(fd, names.ids[i]);
        struct doc doc = {0};
        r = counts || may_be_open ? incident_store_read(fd, names.ids[i], &doc.root) : 0;
        if (counts)
            count(doc.root, ret);
        if (may_be_open && document_open(&doc)) {
            count_open(doc.root, ret);
            told = told || document_last_error(doc.root, last_error, size);
        }
        doc_clear(&doc);
    }
    return r < 0 && errno_is_want(-r) ? r : 0;
}

/* ---- for the program ---- */

struct rbxj_incidents {
    char **json;
    size_t len;
};

/* 1: added, 0: left out, or -errno: memory or descriptors are short. */
static int add(struct rbxj_incidents *list, int fd, const char *id, int64_t since_ns)
{
    int64_t updated_ns = 0;
    cJSON *document = NULL;
    int r = incident_store_read(fd, id, &document);
    if (r < 0)
        return r;
    const char *updated = doc_get_text(document, "updated");
    if (updated)
        (void)doc_parse_time(updated, &updated_ns);
    bool wanted = document && updated_ns >= since_ns;
    char *text = wanted ? document_text_of(document) : NULL;
    cJSON_Delete(document);
    if (!text)
        return wanted ? -ENOMEM : 0;
    list->json[list->len++] = text;
    return 1;
}

static int read_all(struct rbxj_incidents *list, int fd, int64_t since_ns)
{
    _cleanup_(incident_store_names_clear) struct incident_store_names names = {0};
    int r = incident_store_list(fd, &names);
    if (r < 0 || !names.len)
        return r;
    list->json = calloc(names.len, sizeof(*list->json));
    if (!list->json)
        return -ENOMEM;
    for (size_t i = 0; i < names.len && r >= 0; i++)
        r = add(list, fd, names.ids[i], since_ns);
    return r < 0 ? r : 0;
}

static int read_one(struct rbxj_incidents *list, int fd, const char *id)
{
    if (!incident_id_is_valid(id)) /* before it is taken for a file name */
        return -ENOENT;
    list->json = calloc(1, sizeof(*list->json));
    int r = list->json ? add(list, fd, id, INT64_MIN) : -ENOMEM;
    return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

int rbxj_incidents(const struct rbxj_options *options, const char *id, int64_t since_ns,
                   struct rbxj_incidents **ret, struct rbxj_error *error)
{
    _cleanup_(entry_leave) struct entry entry = entry_look();
    error_clear(error);
    _cleanup_(config_clear) struct config config = {0};
    int r = config_load(options, &config, error);
    if (r < 0)
        return r;
    struct rbxj_incidents *list = calloc(1, sizeof(*list));
    if (!list)
        return error_sys(error, ENOMEM, "incidents");
    _cleanup_close_ int fd = incident_store_open(&config);
    r = fd < 0 ? fd : id ? read_one(list, fd, id) : read_all(list, fd, since_ns);
    if (r == -ENOENT && !id) /* nothing was ever kept */
        r = 0;
    if (r == 0) {
        *ret = list;
        return 0;
    }
    rbxj_incidents_free(list);
    if (r == -ENOENT) {
        (void)error_set(error, RBXJ_E_NO_SUCH_BOX, 0, "no incident is called %s", id);
        error_detail(error, "'rbxj incidents' shows those that are kept");
        return -RBXJ_E_NO_SUCH_BOX;
    }
    return error_sys(error, -r, "%s/incidents", config.state_dir);
}

size_t rbxj_incidents_len(const struct rbxj_incidents *incidents)
{
    return incidents->len;
}

const char *rbxj_incidents_json(const struct rbxj_incidents *incidents, size_t i)
{
    return i < incidents->len ? incidents->json[i] : NULL;
}

void rbxj_incidents_free(struct rbxj_incidents *incidents)
{
    if (!incidents)
        return;
    for (size_t i = 0; i < incidents->len; i++)
        free(incidents->json[i]);
    free(incidents->json);
    free(incidents);
}
