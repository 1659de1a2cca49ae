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
#include <sys/stat.h>
#include <time.h>

static struct config config;
static char id1[INCIDENT_ID_MAX], id2[INCIDENT_ID_MAX];
static struct counters more;
static size_t events;
static char last_event[800];

static inline void count_event(void *data, const char *event, const char *message)
{
    (void)data;
    events++;
    (void)snprintf(last_event, sizeof(last_event), "%s: %s", event, message);
}

/* A state directory that is in use. */
static inline void state_begin(void)
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

static inline struct rbxj_result *result_new(void)
{
    struct rbxj_result *result = calloc(1, sizeof(*result));
    assert_non_null(result);
    return result;
}

/* For one more than len; doubled, as every realloc() is a copy under a sanitizer. */
static inline void *make_room(void *array, size_t len, size_t width)
{
    if (len & (len - 1))
        return array;
    array = reallocarray(array, len ? 2 * len : 1, width);
    assert_non_null(array);
    return array;
}

static inline struct result_box *result_add(struct rbxj_result *result, const char *name,
                                            uint64_t incarnation, const char *cause, const char *outcome)
{
    result->boxes = make_room(result->boxes, result->len, sizeof(*result->boxes));
    struct result_box *box = &result->boxes[result->len++];
    *box = (struct result_box){.state = "stale", .cause = cause, .outcome = outcome};
    (void)snprintf(box->box.name, sizeof(box->box.name), "%s", name);
    box->box.incarnation = incarnation;
    return box;
}

/* To the box that was added last. message NULL: no error. */
static inline void entry_add(struct rbxj_result *result, uint32_t seq, enum rbxj_kind kind, const char *name,
                             enum outcome outcome, const char *message)
{
    struct result_box *box = &result->boxes[result->len - 1];
    box->entries = make_room(box->entries, box->len, sizeof(*box->entries));
    struct result_entry *entry = &box->entries[box->len++];
    *entry = (struct result_entry){
        .seq = seq, .kind = kind, .name = strdup(name), .outcome = outcome, .action = "undo"};
    if (message)
        (void)error_set(&entry->error, RBXJ_E_BUSY, EBUSY, "%s", message);
}

/* One box of one mount: found, undone, or not. */
static inline struct rbxj_result *one_box(uint64_t incarnation, enum outcome outcome)
{
    struct rbxj_result *result = result_new();
    bool left = outcome == OUTCOME_FAILED || outcome == OUTCOME_REFUSED;
    (void)result_add(result, "7", incarnation, "supervisor_crash", left ? "failure" : "success");
    entry_add(result, 1, RBXJ_MOUNT, "/srv/7", outcome, left ? "umount /srv/7" : NULL);
    return result;
}

/* ---- what became of it ---- */

static inline const char *path_of(const char *id, const char *name)
{
    return harness_format("%s/incidents/%s%s%s", config.state_dir, id, *name ? "/" : "", name);
}

static inline const char *document_path(const char *id)
{
    return path_of(id, "incident.json");
}

static inline mode_t mode_of(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? st.st_mode & 07777 : 0;
}

/* The document that is there now; the caller's to delete. */
static inline cJSON *read_document(const char *id)
{
    cJSON *document = cJSON_Parse(harness_read(document_path(id)));
    assert_non_null(document);
    return document;
}

static inline void expect_text(const char *id, const char *key, const char *value)
{
    cJSON *document = read_document(id);
    const char *text = doc_get_text(document, key);
    assert_non_null(text);
    assert_string_equal(text, value);
    cJSON_Delete(document);
}

/* How many there are, but for what the kernel said meanwhile of other things on this machine. */
static inline int count_items(const cJSON *list)
{
    int n = 0;
    for (const cJSON *item = list->child; item; item = item->next)
        n += !cJSON_IsString(item) || strcmp(cJSON_GetStringValue(item), "kernel.log") != 0;
    return n;
}

/* A number, or how many items a list has; -1: null. */
static inline void expect_number(const char *id, const char *key, double value)
{
    cJSON *document = read_document(id);
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(document, key);
    double got = cJSON_IsArray(item) ? count_items(item) : cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (got != value)
        print_error("%s is %g, not %g\n", key, got, value);
    assert_true(got == value);
    cJSON_Delete(document);
}

static inline bool yes(const void *data, uint64_t incarnation)
{
    (void)data, (void)incarnation;
    return true;
}
static inline bool no(const void *data, uint64_t incarnation)
{
    (void)data, (void)incarnation;
    return false;
}

/* A whole replay: as found and as it became; frees the result. */
static inline bool replay_of(const char *id, struct rbxj_result *result)
{
    struct incidents *in = incidents_begin(&config, "replay", id, NULL, result, yes, NULL);
    bool is_new = incidents_is_new(in, 0);
    incidents_end(in, result, &more);
    rbxj_result_free(result);
    return is_new;
}

static inline uint64_t recoveries(void)
{
    uint64_t n = 0;
    for (size_t i = 0; i < COUNTERS_BUCKETS; i++)
        n += more.recovery.buckets[i];
    return n;
}

/* How many the library lists; -1: an error. */
static inline int listed(const char *id, int64_t since_ns)
{
    struct rbxj_options options = {.state_dir = config.state_dir, .runtime_dir = config.runtime_dir};
    struct rbxj_incidents *all = NULL;
    struct rbxj_error error;
    if (rbxj_incidents(&options, id, since_ns, &all, &error) < 0)
        return -1;
    int n = (int)rbxj_incidents_len(all);
    assert_null(rbxj_incidents_json(all, (size_t)n));
    rbxj_incidents_free(all);
    return n;
}

/* ---- files as they may be there ---- */

static inline void make_incident(const char *id, const char *text, bool open)
{
    harness_mkdir(path_of(id, ""));
    harness_write(document_path(id), text);
    if (open)
        harness_write(path_of(id, "open"), "");
}

/* n days ago; the same second for the same n. */
static inline const char *id_of_day(int days, unsigned int number)
{
    char when[20];
    time_t then = time(NULL) - days * 86400;
    struct tm tm;
    (void)strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", gmtime_r(&then, &tm));
    return harness_format("%s-%08x", when, number);
}

#endif
