/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/incident.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/incident_doc.h"
#include "reaper/incident_kernel.h"
#include "reaper/incident_store.h"

#include <string.h>

enum { NONE = SIZE_MAX };

struct incident {
    char id[INCIDENT_ID_MAX];
    struct doc doc;
    bool is_new, written; /* written: what doc was at its begin is on disk */
    bool kept;            /* what the kernel said of it is in its file */
};

struct incidents {
    const struct config *config;
    const char *procedure, *note;
    int fd;             /* STATE/incidents, or -errno */
    int64_t started_ns; /* CLOCK_MONOTONIC */
    struct incident *list;
    size_t len;
    size_t *of; /* by box: its place in the list */
    size_t boxes;
    struct counters closed; /* by what was no longer there */
    int64_t ended_ns;       /* CLOCK_MONOTONIC: the last undo */
    struct incident_kernel kernel;
};

static struct incident *append(struct incidents *in, const char *id)
{
    struct incident *more = reallocarray(in->list, in->len + 1, sizeof(*more));
    if (!more)
        return NULL;
    in->list = more;
    more[in->len] = (struct incident){0};
    (void)snprintf(more[in->len].id, sizeof(more->id), "%s", id);
    return &more[in->len++];
}

/* ---- before the first undo ---- */

struct existence {
    bool (*exists)(const void *data, uint64_t incarnation);
    const void *data;
    const struct incarnations *found;
};

static bool is_over(const void *data, uint64_t incarnation)
{
    const struct existence *e = data;
    return !incarnations_find(e->found, incarnation) && e->exists && !e->exists(e->data, incarnation);
}

/* Gives the boxes that are open in doc to the last incident of the list. */
static bool take_boxes(struct incidents *in, const struct doc *doc, const struct incarnations *found)
{
    const cJSON *open = document_open(doc);
    bool any = false;
    for (const cJSON *item = open ? open->child : NULL; item; item = item->next) {
        const struct incarnation *row = incarnations_find(found, incarnation_read(item));
        if (!row || in->of[row->i] != NONE)
            continue;
        in->of[row->i] = in->len - 1;
        any = true;
    }
    return any;
}

/* One that may be open: it gets its boxes, and loses those that are over. */
static int open_one(struct incidents *in, const char *id, const struct existence *existence)
{
    struct doc doc = {0};
    int r = incident_store_read(in->fd, id, &doc.root);
    if (r < 0)
        return r;
    /* one of a later version is not ours to change */
    if (!doc.root || doc_get_number(doc.root, "version", 0) != 1 || !document_open(&doc)) {
        if (doc_get_number(doc.root, "version", 0) == 1)
            incident_store_is_closed(in->fd, id);
        doc_clear(&doc);
        return 0;
    }
    bool dropped = document_drop_open(&doc, is_over, existence);
    struct incident *incident = append(in, id);
    if (!incident) {
        doc_clear(&doc);
        return -ENOMEM;
    }
    bool mine = take_boxes(in, &doc, existence->found), closed = !mine && dropped && !document_open(&doc);
    if (mine) {
        document_again(&doc);
        document_add_note(&doc, in->note);
    } else if (closed) {
        document_add_note(&doc, "closed: its boxes are no longer in the journal");
        document_close(&doc, document_age(&doc));
    }
    r = mine || dropped ? incident_store_put(in->fd, id, &doc, false) : 0;
    if (closed && r == 0) /* else it is still open, for the next one to close */
        histogram_add(&in->closed.recovery, document_age(&doc));
    if (mine) {
        incident->doc = doc;
        incident->written = r == 0;
        return 0;
    }
    in->len--;
    doc_clear(&doc);
    return 0;
}

/* For want of memory or descriptors it fails as a whole: an open one that is not seen would be begun anew. */
static int find_open(struct incidents *in, const struct existence *existence)
{
    _cleanup_(incident_store_names_clear) struct incident_store_names names = {0};
    int r = in->fd < 0 ? in->fd : incident_store_list(in->fd, &names);
    if (r < 0)
        return errno_is_want(-r) ? r : 0;
    for (size_t i = 0; i < names.len && r == 0; i++)
        if (incident_store_may_be_open(in->fd, names.ids[i]))
            r = open_one(in, names.ids[i], existence);
    return r;
}

/* What belongs to no open incident is a new one. */
static int begin_new(struct incidents *in, const char *id, const struct rbxj_result *found)
{
    _cleanup_(incarnations_clear) struct incarnations boxes = {0};
    if (incarnations_of(found, in->of, NONE, &boxes) < 0)
        return -ENOMEM;
    if (!boxes.len)
        return 0;
    for (size_t i = 0; i < boxes.len; i++)
        in->of[boxes.rows[i].i] = in->len;
    struct incident *incident = append(in, id);
    if (!incident)
        return -ENOMEM;
    incident->is_new = true;
    document_begin(&incident->doc, id, in->procedure, found, &boxes);
    document_add_note(&incident->doc, in->note);
    incident->written = incident_store_put(in->fd, id, &incident->doc, false) == 0;
    return 0;
}

static void free_all(struct incidents *in)
{
    for (size_t i = 0; i < in->len; i++)
        doc_clear(&in->list[i].doc);
    incident_kernel_clear(&in->kernel);
    free(in->list);
    free(in->of);
    cleanup_closep(&in->fd);
    free(in);
}

struct incidents *incidents_begin(const struct config *config, const char *procedure, const char *new_id,
                                  const char *note, const struct rbxj_result *found,
                                  bool (*exists)(const void *data, uint64_t incarnation), const void *data)
{
    _cleanup_(incarnations_clear) struct incarnations all = {0};
    struct incidents *in = calloc(1, sizeof(*in));
    if (!in)
        return NULL;
    *in = (struct incidents){.config = config,
                             .procedure = procedure,
                             .note = note && note[0] ? note : NULL,
                             .started_ns = now_monotonic_ns() - found->duration_ns,
                             .of = calloc(found->len + 1, sizeof(*in->of)),
                             .boxes = found->len,
                             .fd = -1};
    bool ok = in->of && incarnations_of(found, NULL, 0, &all) == 0;
    if (ok) {
        for (size_t i = 0; i < found->len; i++)
            in->of[i] = NONE;
        /* with nothing found, nothing is to be written but what is there already */
        in->fd = found->len ? incident_store_open_to_write(config) : incident_store_open(config);
        incident_store_lock(in->fd);
        ok = find_open(in, &(struct existence){exists, data, &all}) == 0 && begin_new(in, new_id, found) == 0;
        incident_store_unlock(in->fd);
    }
    if (ok)
        return in;
    free_all(in);
    return NULL;
}

const char *incidents_of(const struct incidents *in, size_t i)
{
    return i < in->boxes ? in->list[in->of[i]].id : "";
}

bool incidents_is_new(const struct incidents *in, size_t i)
{
    return i < in->boxes && in->list[in->of[i]].is_new;
}

/* ---- after the last one ---- */

/* A power loss after the end of its boxes shows boxes of which nothing is there: no incident (DESIGN). */
static bool is_nothing(const struct incidents *in, const struct incident *incident,
                       const struct rbxj_result *result, const struct incarnations *boxes)
{
    if (!incident->is_new || in->note)
        return false;
    for (size_t i = 0; i < boxes->len; i++) {
        const struct result_box *box = &result->boxes[boxes->rows[i].i];
        if (!box->cause || strcmp(box->cause, "system_crash") != 0 || strcmp(box->outcome, "success") != 0)
            return false;
        for (size_t k = 0; k < box->len; k++)
            if (box->entries[k].outcome != OUTCOME_ALREADY_GONE)
                return false;
    }
    return true;
}

static int add_evidence(int fd, struct incident *incident)
{
    char **names = NULL;
    size_t n = 0;
    int r = fd < 0 ? 0 : incident_store_evidence(fd, incident->id, &names, &n);
    if (r < 0)
        return r;
    document_set_evidence(&incident->doc, names, n);
    incident_store_evidence_free(names, n);
    return 0;
}

static bool has_evidence(const struct incident *incident)
{
    return cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(incident->doc.root, "evidence")) > 0;
}

static int add_kernel(struct incidents *in, struct incident *incident, const struct rbxj_result *result,
                      const struct incarnations *boxes)
{
    if (in->fd < 0) /* nothing is written */
        return 0;
    incident_kernel_add(&in->kernel, in->fd, incident->id, &incident->doc, result, boxes, incident->kept);
    incident->kept = true;
    return add_evidence(in->fd, incident);
}

/* Returns 0, or why it is not written; *ret_took_ns is set if it is closed now. */
static int try_to_end(struct incidents *in, size_t k, const struct rbxj_result *result, int64_t *ret_took_ns)
{
    _cleanup_(incarnations_clear) struct incarnations boxes = {0};
    struct incident *incident = &in->list[k];
    if (incarnations_of(result, in->of, k, &boxes) < 0)
        return -ENOMEM;
    int r = add_evidence(in->fd, incident);
    if (r < 0)
        return r;
    if (is_nothing(in, incident, result, &boxes) && !has_evidence(incident)) {
        if (incident->written)
            incident_store_remove(in->fd, incident->id);
        incident->id[0] = '\0';
        return 0;
    }
    document_end(&incident->doc, result, &boxes);
    r = add_kernel(in, incident, result, &boxes);
    if (r < 0)
        return r;
    *ret_took_ns = -1;
    if (!document_open(&incident->doc)) {
        *ret_took_ns = incident->is_new ? in->ended_ns - in->started_ns : document_age(&incident->doc);
        document_close(&incident->doc, *ret_took_ns);
    }
    return incident_store_put(in->fd, incident->id, &incident->doc, true);
}

/* As it is on disk by now: others, who undid boxes of their own, have told it so meanwhile. Untouched where
 * it can't be read. */
static int read_again(const struct incidents *in, struct incident *incident)
{
    cJSON *root = NULL;
    int r = in->fd < 0 ? in->fd : incident_store_read(in->fd, incident->id, &root);
    if (r < 0 || !root)
        return r < 0 ? r : -ENOENT;
    doc_clear(&incident->doc);
    incident->doc.root = root;
    if (!incident->written) {
        document_again(&incident->doc);
        document_add_note(&incident->doc, in->note);
    }
    return 0;
}

/* A document that once lacked memory is lost: as it was at its begin, from disk or anew. */
static int renew(const struct incidents *in, size_t k, const struct rbxj_result *result)
{
    _cleanup_(incarnations_clear) struct incarnations boxes = {0};
    struct incident *incident = &in->list[k];
    if (!incident->is_new || incident->written)
        return read_again(in, incident);
    if (incarnations_of(result, in->of, k, &boxes) < 0)
        return -ENOMEM;
    doc_clear(&incident->doc);
    document_begin(&incident->doc, incident->id, in->procedure, result, &boxes);
    document_add_note(&incident->doc, in->note);
    return 0;
}

/* Returns 0, or why it is not written. */
static int end_one(struct incidents *in, size_t k, const struct rbxj_result *result, struct counters *more)
{
    struct incident *incident = &in->list[k];
    int64_t took_ns = -1;
    if (!incident->is_new || incident->written)
        (void)read_again(in, incident); /* else what is known here is better than nothing */
    int r = try_to_end(in, k, result, &took_ns);
    if (r == -ENOMEM) {
        r = renew(in, k, result);
        r = r < 0 ? r : try_to_end(in, k, result, &took_ns);
    }
    bool lost = r < 0 && incident->is_new && !incident->written;
    if (lost)
        incident->id[0] = '\0';
    if (took_ns >= 0 && (r == 0 || lost)) /* else it is still open, for the next one to close */
        histogram_add(&more->recovery, took_ns);
    return r;
}

void incidents_end(struct incidents *in, struct rbxj_result *result, struct counters *more)
{
    if (!in)
        return;
    if (in->fd < 0 && in->len) /* once more: there may be room now */
        in->fd = incident_store_open_to_write(in->config);
    counters_add(more, &in->closed);
    in->ended_ns = now_monotonic_ns();
    int failed = 0;
    incident_store_lock(in->fd);
    for (size_t k = 0; result && k < in->len; k++) {
        char id[INCIDENT_ID_MAX];
        memcpy(id, in->list[k].id, sizeof(id));
        int r = end_one(in, k, result, more);
        if (r < 0 && failed == 0)
            incident_complain(in->config, id, failed = r);
    }
    incident_store_unlock(in->fd);
    for (size_t i = 0; result && i < result->len && i < in->boxes; i++)
        (void)snprintf(result->boxes[i].incident, sizeof(result->boxes[i].incident), "%s",
                       incidents_of(in, i));
    if (in->fd >= 0) /* those that are too old go though nothing was found */
        incident_store_retain(in->fd, in->config);
    free_all(in);
}
