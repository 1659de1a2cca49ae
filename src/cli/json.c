/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The JSON documents of the commands; field names are a contract.
 */
#include "cli/json.h"

#include "cli/cli.h"

#include <stdlib.h>

/* Documents are made when the work is done: without memory for them the status is all that can still be
 * told. */
char *json_finish(struct doc *doc)
{
    char *text = doc_finish(doc);
    if (!text)
        print_no_memory("the JSON document");
    return text;
}

static void add_record(struct doc *doc, cJSON *records, const struct rbxj_result_entry *entry, int64_t now_ns)
{
    cJSON *record = doc_object(doc, records, NULL);
    doc_number(doc, record, "seq", entry->seq);
    (void)doc_text(doc, record, "kind", entry->kind);
    doc_name(doc, record, "name", entry->name);
    (void)doc_text(doc, record, "found", entry->found);
    if (entry->content)
        (void)doc_text(doc, record, "content", entry->content);
    doc_bool(doc, record, "evidence", entry->evidence);
    int64_t age_s = (now_ns - entry->time_ns) / 1000000000;
    doc_number(doc, record, "age_s", age_s > 0 ? (double)age_s : 0);
    doc_error(doc, record, "error", entry->error);
}

char *json_list(const struct rbxj_result *result, int64_t now_ns)
{
    struct doc doc;
    struct rbxj_result_box b;
    doc_init(&doc);
    cJSON *boxes = doc_array(&doc, doc.root, "boxes");
    for (size_t i = 0; rbxj_result_box(result, i, &b) == 0; i++) {
        cJSON *box = doc_object(&doc, boxes, NULL);
        (void)doc_text(&doc, box, "box", b.box);
        doc_number64(&doc, box, "incarnation", b.incarnation);
        (void)doc_text(&doc, box, "state", b.state);
        (void)doc_text(&doc, box, "cause", b.cause);
        cJSON *supervisor = doc_object(&doc, box, "supervisor");
        doc_number(&doc, supervisor, "pid", b.supervisor);
        doc_bool(&doc, supervisor, "alive", b.supervisor_alive);
        doc_time(&doc, box, "begun", b.begun_ns);
        cJSON *records = doc_array(&doc, box, "records");
        struct rbxj_result_entry entry;
        for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0; k++)
            add_record(&doc, records, &entry, now_ns);
    }
    return json_finish(&doc);
}

void json_entries(struct doc *doc, cJSON *parent, const struct rbxj_result *result, size_t i)
{
    cJSON *entries = doc_array(doc, parent, "entries");
    struct rbxj_result_entry e;
    for (size_t k = 0; rbxj_result_entry(result, i, k, &e) == 0; k++) {
        cJSON *entry = doc_object(doc, entries, NULL);
        doc_entry(doc, entry, &e, e.outcome);
        if (e.note)
            (void)doc_text(doc, entry, "note", e.note);
    }
}

char *json_replay(const struct rbxj_result *result)
{
    struct rbxj_result_info info;
    struct rbxj_result_box b;
    struct doc doc;
    rbxj_result_info(result, &info);
    doc_init(&doc);
    doc_number(&doc, doc.root, "version", 1);
    doc_bool(&doc, doc.root, "dry_run", info.dry_run);
    (void)doc_text(&doc, doc.root, "plan", info.plan);
    (void)doc_text(&doc, doc.root, "boot_id", info.boot_id);
    doc_time(&doc, doc.root, "started", info.started_ns);
    doc_seconds(&doc, doc.root, "duration_s", info.duration_ns);

    cJSON *boxes = doc_array(&doc, doc.root, "boxes");
    for (size_t i = 0; rbxj_result_box(result, i, &b) == 0; i++) {
        cJSON *box = doc_object(&doc, boxes, NULL);
        (void)doc_text(&doc, box, "box", b.box);
        doc_number64(&doc, box, "incarnation", b.incarnation);
        (void)doc_text(&doc, box, "state", b.state);
        (void)doc_text(&doc, box, "cause", b.cause);
        (void)doc_text(&doc, box, "outcome", b.outcome);
        json_entries(&doc, box, result, i);
    }

    cJSON *summary = doc_object(&doc, doc.root, "summary");
    doc_number(&doc, summary, "boxes", (double)info.boxes);
    doc_number(&doc, summary, "live", (double)info.live);
    doc_number(&doc, summary, "undone", (double)info.undone);
    doc_number(&doc, summary, "already_gone", (double)info.already_gone);
    doc_number(&doc, summary, "refused", (double)info.refused);
    doc_number(&doc, summary, "failed", (double)info.failed);
    doc_number(&doc, summary, "left", (double)info.left);
    return json_finish(&doc);
}

char *json_forgotten(const char *box, uint32_t seq)
{
    struct doc doc;
    doc_init(&doc);
    (void)doc_text(&doc, doc.root, "box", box);
    doc_number(&doc, doc.root, "seq", seq);
    doc_bool(&doc, doc.root, "forgotten", true);
    return json_finish(&doc);
}

char *json_failure(int code, const struct rbxj_error *error)
{
    struct rbxj_error e = *error;
    struct doc doc;
    e.code = -code;
    doc_init(&doc);
    doc_error(&doc, doc.root, "error", &e);
    return json_finish(&doc);
}
