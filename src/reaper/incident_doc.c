/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/incident_doc.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "reaper/events.h"

#include <string.h>

enum { ENTRIES_MAX = 1000, ENTRIES_BYTES = 2 << 20, BOXES_MAX = 10000, NOTES_MAX = 100 };

/* ---- fields ---- */

/* Replaces a field where it stands, or adds it. */
static void set(struct doc *doc, const char *key, cJSON *item)
{
    if (!cJSON_GetObjectItemCaseSensitive(doc->root, key)) {
        (void)doc_add(doc, doc->root, key, item);
        return;
    }
    bool replaced = item && cJSON_ReplaceItemInObjectCaseSensitive(doc->root, key, item);
    /* without memory for its key it is there without one, and that is called a success (1.7.15) */
    doc->failed = doc->failed || !replaced || !item->string;
    if (!replaced)
        cJSON_Delete(item);
}

static void set_number(struct doc *doc, const char *key, double value)
{
    set(doc, key, cJSON_CreateNumber(value));
}

static void set_updated(struct doc *doc)
{
    char now[32];
    doc_format_time(now, now_realtime_ns());
    set(doc, "updated", cJSON_CreateString(now));
}

static cJSON *get(const struct doc *doc, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(doc->root, key);
}

const cJSON *document_open(const struct doc *doc)
{
    const cJSON *open = get(doc, "open");
    return cJSON_GetArraySize(open) ? open : NULL;
}

int64_t document_detected(const struct doc *doc)
{
    const char *text = doc_get_text(doc->root, "detected");
    int64_t ns = 0;
    return text && doc_parse_time(text, &ns) == 0 ? ns : 0;
}

int64_t document_age(const struct doc *doc)
{
    int64_t detected = document_detected(doc), now = now_realtime_ns();
    return detected && now > detected ? now - detected : 0;
}

void document_add_note(struct doc *doc, const char *text)
{
    cJSON *notes = get(doc, "notes");
    if (text && text[0] && cJSON_GetArraySize(notes) < NOTES_MAX)
        (void)doc_text(doc, notes, NULL, text);
}

void document_set_evidence(struct doc *doc, char *const *names, size_t n)
{
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < n; i++)
        (void)doc_text(doc, list, NULL, names[i]);
    set(doc, "evidence", list);
}

void document_set_kernel(struct doc *doc, cJSON *kernel)
{
    set(doc, "kernel", kernel);
    doc->failed = doc->failed || !kernel;
}

/* ---- a new one ---- */

static int badness(const char *cause)
{
    static const char *const causes[] = {"supervisor_crash", "system_crash", "cleanup_failure",
                                         "lock_corruption"};
    for (size_t i = 0; cause && i < ARRAY_LEN(causes); i++)
        if (strcmp(cause, causes[i]) == 0)
            return (int)i;
    return -1;
}

static void begin(struct doc *doc, const char *id, const char *procedure, const char *cause)
{
    int64_t now = now_realtime_ns();
    doc_init(doc);
    (void)doc_text(doc, doc->root, "id", id);
    doc_time(doc, doc->root, "detected", now);
    doc_time(doc, doc->root, "updated", now);
    (void)doc_text(doc, doc->root, "cause", cause);
    (void)doc_array(doc, doc->root, "boxes");
    doc_number(doc, doc->root, "executions", 0);
    (void)doc_text(doc, doc->root, "procedure", procedure);
    (void)doc_text(doc, doc->root, "recovery_s", NULL);
    (void)doc_text(doc, doc->root, "outcome", "success");
    doc_number(doc, doc->root, "count", 1);
    doc_number(doc, doc->root, "left", 0);
    (void)doc_array(doc, doc->root, "notes");
    (void)doc_array(doc, doc->root, "evidence");
    (void)doc_text(doc, doc->root, "kernel", NULL);
    doc_number(doc, doc->root, "version", 1);
    (void)doc_array(doc, doc->root, "open");
    (void)doc_array(doc, doc->root, "entries");
    doc_number(doc, doc->root, "entries_omitted", 0);
}

void document_note(struct doc *doc, const char *id, const char *procedure, const char *cause, const char *box)
{
    begin(doc, id, procedure, cause);
    if (!box)
        return;
    (void)doc_text(doc, get(doc, "boxes"), NULL, box);
    set_number(doc, "executions", 1);
}

/* ---- entries ---- */

static bool outcome_is_left(const char *outcome)
{
    return !outcome || (strcmp(outcome, "undone") != 0 && strcmp(outcome, "already_gone") != 0);
}

static bool entry_is_left(const cJSON *entry)
{
    return outcome_is_left(doc_get_text(entry, "outcome"));
}

static uint64_t entry_incarnation(const cJSON *entry)
{
    return incarnation_read(cJSON_GetObjectItemCaseSensitive(entry, "incarnation"));
}

/* outcome NULL: not yet undone. */
static void add_entry(struct doc *doc, cJSON *entries, const struct rbxj_result_box *box,
                      const struct rbxj_result_entry *e, const struct result_entry *more, const char *outcome)
{
    cJSON *entry = doc_object(doc, entries, NULL);
    (void)doc_text(doc, entry, "box", box->box);
    doc_number64(doc, entry, "incarnation", box->incarnation);
    doc_entry(doc, entry, e, outcome);
    if (outcome && outcome_is_left(outcome))
        (void)doc_text(doc, entry, "event", event_of_entry(box, e));
    if (e->note)
        (void)doc_text(doc, entry, "note", e->note);
    if (outcome && outcome_is_left(outcome))
        keepers_tell(doc, entry, &more->keepers);
    if (more->oom_kills)
        doc_number(doc, entry, "oom_kills", (double)more->oom_kills);
}

/* The entries while they are put together: what is over the limit is only counted. */
struct collection {
    struct doc *doc;
    cJSON *list;
    bool done; /* the outcomes are known */
    size_t listed, bytes, cut, cut_left;
};

/* Is there room for one more of that name? A byte of it is at most \u00XX and two digits. */
static bool has_room(struct collection *c, const char *name)
{
    size_t bytes = 1000 + 8 * strlen(name ? name : "");
    if (c->listed == ENTRIES_MAX || c->bytes + bytes > ENTRIES_BYTES) {
        c->cut++;
        return false;
    }
    c->listed++;
    c->bytes += bytes;
    return true;
}

/* Those of an earlier replay that have an error, or have not. */
static void collect_old(struct collection *c, cJSON *old, bool errors)
{
    for (cJSON *item = old ? old->child : NULL, *next; item; item = next) {
        next = item->next;
        if (cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(item, "error")) != errors)
            continue;
        if (has_room(c, doc_get_text(item, "name")))
            (void)doc_add(c->doc, c->list, NULL, cJSON_DetachItemViaPointer(old, item));
    }
}

static void collect_new(struct collection *c, const struct rbxj_result *result,
                        const struct incarnation *rows, size_t n, bool errors)
{
    struct rbxj_result_box box;
    struct rbxj_result_entry entry;
    for (size_t i = 0; i < n; i++) {
        (void)rbxj_result_box(result, rows[i].i, &box);
        for (size_t k = 0; rbxj_result_entry(result, rows[i].i, k, &entry) == 0; k++) {
            if ((entry.error != NULL) != errors)
                continue;
            const char *outcome = c->done ? entry.outcome : NULL;
            if (has_room(c, entry.name))
                add_entry(c->doc, c->list, &box, &entry, &result->boxes[rows[i].i].entries[k], outcome);
            else
                c->cut_left += outcome_is_left(outcome);
        }
    }
}

/* What was left of the boxes at hand is told anew. Returns how many there were. */
static size_t drop_left(cJSON *entries, const struct incarnations *boxes)
{
    size_t n = 0;
    for (cJSON *item = entries ? entries->child : NULL, *next; item; item = next) {
        next = item->next;
        if (!entry_is_left(item) || !incarnations_find(boxes, entry_incarnation(item)))
            continue;
        cJSON_Delete(cJSON_DetachItemViaPointer(entries, item));
        n++;
    }
    return n;
}

static size_t entries_of(const struct rbxj_result *result, const struct incarnations *boxes)
{
    size_t n = 0;
    for (size_t i = 0; i < boxes->len; i++)
        n += result->boxes[boxes->rows[i].i].len;
    return n;
}

static void count_left(struct doc *doc, size_t more)
{
    _cleanup_(incarnations_clear) struct incarnations open = {0};
    const cJSON *entries = get(doc, "entries");
    if (incarnations_read(document_open(doc), &open) < 0) {
        doc->failed = true;
        return;
    }
    for (const cJSON *item = entries ? entries->child : NULL; item; item = item->next)
        more += entry_is_left(item) && incarnations_find(&open, entry_incarnation(item));
    set_number(doc, "left", (double)more);
}

static void merge_entries(struct doc *doc, const struct rbxj_result *result, const struct incarnations *boxes,
                          const struct incarnation *rows, bool done)
{
    struct collection c = {.doc = doc, .list = cJSON_CreateArray(), .done = done};
    cJSON *old = get(doc, "entries");
    size_t told = drop_left(old, boxes), now = entries_of(result, boxes);
    double omitted = doc_get_number(doc->root, "entries_omitted", 0);
    for (int errors = 1; errors >= 0; errors--) {
        collect_old(&c, old, errors);
        collect_new(&c, result, rows, boxes->len, errors);
    }
    set(doc, "entries", c.list); /* in the place of the old ones that are over the limit */
    /* what is told now and was not listed before is what had been omitted */
    omitted -= now > told ? (double)(now - told) : 0;
    set_number(doc, "entries_omitted", (omitted > 0 ? omitted : 0) + (double)c.cut);
    count_left(doc, c.cut_left);
}

/* ---- a replay ---- */

void document_begin(struct doc *doc, const char *id, const char *procedure, const struct rbxj_result *found,
                    const struct incarnations *boxes)
{
    _cleanup_free_ struct incarnation *rows = incarnations_in_order(boxes);
    const char *worst = NULL;
    for (size_t i = 0; i < boxes->len; i++) {
        const char *cause = found->boxes[boxes->rows[i].i].cause;
        if (badness(cause) > badness(worst))
            worst = cause;
    }
    begin(doc, id, procedure, worst ? worst : "cleanup_failure");
    set(doc, "outcome", cJSON_CreateString("unfinished"));
    set_number(doc, "executions", (double)boxes->len);
    cJSON *names = get(doc, "boxes"), *open = get(doc, "open");
    for (size_t i = 0; rows && i < boxes->len; i++) {
        if (i < BOXES_MAX)
            (void)doc_text(doc, names, NULL, found->boxes[rows[i].i].box.name);
        doc_number64(doc, open, NULL, rows[i].incarnation);
    }
    if (rows)
        merge_entries(doc, found, boxes, rows, false);
    doc->failed = doc->failed || !rows;
}

void document_again(struct doc *doc)
{
    set_updated(doc);
    set_number(doc, "count", doc_get_number(doc->root, "count", 1) + 1);
    set(doc, "outcome", cJSON_CreateString("unfinished"));
}

struct verdict {
    const struct rbxj_result *result;
    const struct incarnations *boxes;
};

static bool has_succeeded(const void *data, uint64_t incarnation)
{
    const struct verdict *v = data;
    const struct incarnation *row = incarnations_find(v->boxes, incarnation);
    return row && strcmp(v->result->boxes[row->i].outcome, "success") == 0;
}

static const char *outcome_of(const struct doc *doc, const struct verdict *v)
{
    const cJSON *entries = get(doc, "entries");
    if (!document_open(doc))
        return "success";
    if (cJSON_GetArraySize(document_open(doc)) < (int)doc_get_number(doc->root, "executions", 0))
        return "partial";
    for (size_t i = 0; i < v->boxes->len; i++)
        if (strcmp(v->result->boxes[v->boxes->rows[i].i].outcome, "failure") != 0)
            return "partial";
    for (const cJSON *entry = entries ? entries->child : NULL; entry; entry = entry->next)
        if (!entry_is_left(entry))
            return "partial"; /* earlier */
    return "failure";
}

void document_end(struct doc *doc, const struct rbxj_result *result, const struct incarnations *boxes)
{
    const struct verdict v = {result, boxes};
    _cleanup_free_ struct incarnation *rows = incarnations_in_order(boxes);
    if (!rows) {
        doc->failed = true;
        return;
    }
    set_updated(doc);
    (void)document_drop_open(doc, has_succeeded, &v);
    merge_entries(doc, result, boxes, rows, true);
    set(doc, "outcome", cJSON_CreateString(outcome_of(doc, &v)));
}

bool document_drop_open(struct doc *doc, bool (*over)(const void *data, uint64_t incarnation),
                        const void *data)
{
    cJSON *open = get(doc, "open");
    bool any = false;
    for (cJSON *item = open ? open->child : NULL, *next; item; item = next) {
        next = item->next;
        if (!over(data, incarnation_read(item)))
            continue;
        cJSON_Delete(cJSON_DetachItemViaPointer(open, item));
        any = true;
    }
    if (any)
        count_left(doc, 0);
    return any;
}

void document_close(struct doc *doc, int64_t recovery_ns)
{
    int64_t us = recovery_ns > 0 ? recovery_ns / 1000 : 0;
    set_updated(doc);
    set_number(doc, "recovery_s", (double)us / 1e6);
}

bool document_last_error(const cJSON *root, char *buf, size_t size)
{
    const cJSON *entries = cJSON_GetObjectItemCaseSensitive(root, "entries");
    for (const cJSON *item = entries ? entries->child : NULL; item; item = item->next) {
        const char *event = doc_get_text(item, "event");
        const char *message = doc_get_text(cJSON_GetObjectItemCaseSensitive(item, "error"), "message");
        if (!event || !message)
            continue;
        char text[1000];
        (void)snprintf(text, sizeof(text), "%s: %s", event, message);
        escape_bytes(buf, size, text, strlen(text));
        return true;
    }
    return false;
}
