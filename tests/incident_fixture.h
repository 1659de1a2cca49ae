/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Results as a replay makes them, built by hand, and a state directory for what is told of them.
 */
#ifndef RBXJ_TESTS_INCIDENT_FIXTURE_H
#define RBXJ_TESTS_INCIDENT_FIXTURE_H

#include "harness.h"

#include "base/cleanup.h"
#include "base/doc.h"
#include "base/fd.h"
#include "reaper/incident.h"
#include "reaper/result.h"

#include <stdio.h>
#include <string.h>

static struct config config;
static char id1[INCIDENT_ID_MAX], id2[INCIDENT_ID_MAX];
static struct counters more;
static size_t events;
static char last_event[800];

static void count_event(void *data, const char *event, const char *message)
{
    (void)data;
    events++;
    (void)snprintf(last_event, sizeof(last_event), "%s: %s", event, message);
}

/* A state directory that is in use. */
static void state_begin(void)
{
    config = (struct config){.state_dir = harness_format("%s/state", harness_disk()),
                             .runtime_dir = harness_format("%s/run", harness_disk()),
                             .incidents_keep = 1000,
                             .incidents_keep_days = 90,
                             .event = count_event};
    more = (struct counters){0};
    events = 0;
    last_event[0] = 0;
    harness_mkdir(config.state_dir);
    harness_mkdir(harness_format("%s/journal", config.state_dir));
    incident_new_id(id1);
    incident_new_id(id2);
}

static struct rbxj_result *result_new(void)
{
    struct rbxj_result *result = calloc(1, sizeof(*result));
    assert_non_null(result);
    return result;
}

static struct result_box *result_add(struct rbxj_result *result, const char *name, uint64_t incarnation,
                                     const char *cause, const char *outcome)
{
    result->boxes = realloc(result->boxes, (result->len + 1) * sizeof(*result->boxes));
    assert_non_null(result->boxes);
    struct result_box *box = &result->boxes[result->len++];
    *box = (struct result_box){.state = "stale", .cause = cause, .outcome = outcome};
    (void)snprintf(box->box.name, sizeof(box->box.name), "%s", name);
    box->box.incarnation = incarnation;
    return box;
}

/* To the box that was added last. message NULL: no error. */
static void entry_add(struct rbxj_result *result, uint32_t seq, enum rbxj_kind kind, const char *name,
                      enum outcome outcome, const char *message)
{
    struct result_box *box = &result->boxes[result->len - 1];
    box->entries = realloc(box->entries, (box->len + 1) * sizeof(*box->entries));
    assert_non_null(box->entries);
    struct result_entry *entry = &box->entries[box->len++];
    *entry = (struct result_entry){
        .seq = seq, .kind = kind, .name = strdup(name), .outcome = outcome, .action = "undo"};
    if (message)
        (void)error_set(&entry->error, RBXJ_E_BUSY, EBUSY, "%s", message);
}

/* One box of one mount: found, undone, or not. */
static struct rbxj_result *one_box(uint64_t incarnation, enum outcome outcome)
{
    struct rbxj_result *result = result_new();
    bool left = outcome == OUTCOME_FAILED || outcome == OUTCOME_REFUSED;
    (void)result_add(result, "7", incarnation, "supervisor_crash", left ? "failure" : "success");
    entry_add(result, 1, RBXJ_MOUNT, "/srv/7", outcome, left ? "umount /srv/7" : NULL);
    return result;
}

#endif
