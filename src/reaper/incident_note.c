/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Incidents beside replays: what a person did, to which incident a box belongs, and what could not be
 * written.
 */
#include "base/cleanup.h"
#include "reaper/events.h"
#include "reaper/incident.h"
#include "reaper/incident_doc.h"
#include "reaper/incident_store.h"

#include <string.h>
#include <syslog.h>

void incident_complain(const struct config *config, const char *id, int r)
{
    if (r == -ENOENT) /* no state directory: nothing was ever journaled */
        return;
    event_send(config,
               &(struct event){.event = "note", .priority = LOG_WARNING, .incident = id, .errnum = -r},
               "incident %s could not be written: %s", id, strerrordesc_np(-r));
}

/* ---- one box ---- */

static bool has_open(const struct doc *doc, uint64_t incarnation)
{
    const cJSON *open = document_open(doc);
    for (const cJSON *item = open ? open->child : NULL; item; item = item->next)
        if (incarnation_read(item) == incarnation)
            return true;
    return false;
}

/* 1, 0, or -errno. */
static int find_once(const struct config *config, uint64_t incarnation, char id[INCIDENT_ID_MAX])
{
    _cleanup_(incident_store_names_clear) struct incident_store_names names = {0};
    _cleanup_close_ int fd = incident_store_open(config);
    bool found = false;
    int r = fd < 0 ? fd : incident_store_list(fd, &names);
    for (size_t i = 0; r == 0 && !found && i < names.len; i++) {
        if (!incident_store_may_be_open(fd, names.ids[i]))
            continue;
        struct doc doc = {0};
        r = incident_store_read(fd, names.ids[i], &doc.root);
        found = doc_get_number(doc.root, "version", 0) == 1 && has_open(&doc, incarnation);
        doc_clear(&doc);
        if (found)
            (void)strcpy(id, names.ids[i]);
    }
    return r < 0 ? r : found;
}

bool incident_find(const struct config *config, uint64_t incarnation, char id[INCIDENT_ID_MAX])
{
    int r = find_once(config, incarnation, id);
    if (r == -ENOMEM)
        r = find_once(config, incarnation, id);
    return r > 0;
}

/* ---- what a person did ---- */

static bool is_same(const void *data, uint64_t incarnation)
{
    return incarnation == *(const uint64_t *)data;
}

/* A box has ended by it: the incident in which it is open learns that. -ENOMEM: perhaps not. */
static int tell_open(int fd, uint64_t incarnation, const char *note)
{
    _cleanup_(incident_store_names_clear) struct incident_store_names names = {0};
    int r = incident_store_list(fd, &names);
    incident_store_lock(fd);
    for (size_t i = 0; i < names.len && r == 0; i++) {
        if (!incident_store_may_be_open(fd, names.ids[i]))
            continue;
        struct doc doc = {0};
        r = incident_store_read(fd, names.ids[i], &doc.root);
        if (doc.root && doc_get_number(doc.root, "version", 0) == 1 &&
            document_drop_open(&doc, is_same, &incarnation)) {
            document_add_note(&doc, note);
            if (!document_open(&doc))
                document_close(&doc, document_age(&doc));
            r = incident_store_put(fd, names.ids[i], &doc, true);
        }
        doc_clear(&doc);
    }
    incident_store_unlock(fd);
    return r;
}

static int write_note(int fd, const char *id, const char *procedure, const char *cause, const char *box,
                      const char *note)
{
    struct doc doc;
    document_note(&doc, id, procedure, cause, box);
    document_add_note(&doc, note);
    int r = incident_store_put(fd, id, &doc, true);
    doc_clear(&doc);
    return r;
}

void incident_note(const struct config *config, const char *procedure, const char *cause, const char *box,
                   uint64_t incarnation, bool box_ended, const char *note)
{
    char id[INCIDENT_ID_MAX];
    _cleanup_close_ int fd = incident_store_open_to_write(config);
    if (fd == -ENOMEM) /* once more, here and below */
        fd = incident_store_open_to_write(config);
    incident_new_id(id);
    int r = write_note(fd, id, procedure, cause, box, note);
    if (r == -ENOMEM)
        r = write_note(fd, id, procedure, cause, box, note);
    if (r < 0)
        incident_complain(config, id, r);
    if (fd < 0)
        return;
    if (box_ended && tell_open(fd, incarnation, note) == -ENOMEM)
        (void)tell_open(fd, incarnation, note); /* where it fails again, the next replay closes that one */
    incident_store_retain(fd, config);
}
