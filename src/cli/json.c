/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The JSON documents, by cJSON; field names are a contract. cJSON passes bytes from 0x7f up as they are, so
 * every string that may hold bytes of a name is encoded here and put in as raw text.
 */
#include "cli/json.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "cli/cli.h"

#include <cjson/cJSON.h>
#include <string.h>
#include <time.h>

/* Documents are made when the work is done: without memory for them the status is all that can still be told.
 */
static void *must(void *p)
{
    if (!p) {
        print_problem("out of memory for the JSON document; the work itself is done");
        exit(STATUS_SYSTEM);
    }
    return p;
}

/* How many bytes at p are one printable character; 0: the byte is to be escaped. escape_bytes() is the judge,
 * so that text and JSON agree. */
static size_t printable_at(const char *p, size_t left)
{
    unsigned char c = (unsigned char)*p;
    if (c >= 0x20 && c < 0x7f)
        return 1;
    size_t len = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 0;
    if (!len || len > left)
        return 0;
    char escaped[32];
    escape_bytes(escaped, sizeof(escaped), p, len);
    return strlen(escaped) == len && memcmp(escaped, p, len) == 0 ? len : 0;
}

char *json_string(const char *bytes, int *ret_raw)
{
    size_t left = strlen(bytes);
    char *text = must(malloc(left * 6 + 3)), *out = text;
    *out++ = '"';
    while (left) {
        size_t len = printable_at(bytes, left);
        if (!len) {
            out += sprintf(out, "\\u%04x", (unsigned char)*bytes);
            *ret_raw = 1;
            len = 1;
        } else {
            if (*bytes == '"' || *bytes == '\\')
                *out++ = '\\';
            memcpy(out, bytes, len);
            out += len;
        }
        bytes += len;
        left -= len;
    }
    *out++ = '"';
    *out = '\0';
    return text;
}

void json_time(char buf[32], int64_t realtime_ns)
{
    time_t seconds = (time_t)(realtime_ns / 1000000000);
    struct tm tm;
    if (!gmtime_r(&seconds, &tm) || !strftime(buf, 32, "%Y-%m-%dT%H:%M:%SZ", &tm))
        buf[0] = '\0';
}

static cJSON *add_object(cJSON *object, const char *key)
{
    return must(cJSON_AddObjectToObject(object, key));
}

static cJSON *add_array(cJSON *object, const char *key)
{
    return must(cJSON_AddArrayToObject(object, key));
}

static cJSON *append_object(cJSON *array)
{
    cJSON *object = must(cJSON_CreateObject());
    (void)cJSON_AddItemToArray(array, object);
    return object;
}

static void add_number(cJSON *object, const char *key, double value)
{
    (void)must(cJSON_AddNumberToObject(object, key, value));
}

static void add_bool(cJSON *object, const char *key, bool value)
{
    (void)must(cJSON_AddBoolToObject(object, key, value));
}

/* Returns whether a byte had to be escaped. NULL is null. */
static bool add_text(cJSON *object, const char *key, const char *text)
{
    if (!text) {
        (void)must(cJSON_AddNullToObject(object, key));
        return false;
    }
    int raw = 0;
    _cleanup_free_ char *encoded = json_string(text, &raw);
    (void)must(cJSON_AddRawToObject(object, key, encoded));
    return raw;
}

/* A name is bytes: where the text can't hold them, "raw" beside it does. */
static void add_name(cJSON *object, const char *name)
{
    if (!add_text(object, "name", name))
        return;
    size_t len = strlen(name);
    _cleanup_free_ char *hex = must(malloc(2 * len + 1));
    hex_encode(hex, name, len);
    (void)must(cJSON_AddStringToObject(object, "raw", hex));
}

static void add_time(cJSON *object, const char *key, int64_t realtime_ns)
{
    char buf[32];
    json_time(buf, realtime_ns);
    (void)add_text(object, key, buf);
}

/* 64 bits don't fit into a JSON number. */
static void add_incarnation(cJSON *object, uint64_t incarnation)
{
    char buf[24];
    snprintf(buf, sizeof(buf), "%llu", (unsigned long long)incarnation);
    (void)add_text(object, "incarnation", buf);
}

static void add_error(cJSON *object, const struct rbxj_error *error)
{
    if (!error || !error->code) {
        (void)add_text(object, "error", NULL);
        return;
    }
    cJSON *e = add_object(object, "error");
    add_number(e, "errno", error->errnum);
    (void)add_text(e, "name", error->errnum ? errno_name(error->errnum) : "");
    (void)add_text(e, "code", rbxj_strerror(-error->code));
    (void)add_text(e, "message", error->message);
    (void)add_text(e, "detail", error->detail);
}

static char *finish(cJSON *document)
{
    char *text = must(cJSON_PrintUnformatted(document));
    cJSON_Delete(document);
    return text;
}

static void add_record(cJSON *records, const struct rbxj_result_entry *entry, int64_t now_ns)
{
    cJSON *record = append_object(records);
    add_number(record, "seq", entry->seq);
    (void)add_text(record, "kind", entry->kind);
    add_name(record, entry->name);
    (void)add_text(record, "found", entry->found);
    add_bool(record, "evidence", entry->evidence);
    int64_t age_s = (now_ns - entry->time_ns) / 1000000000;
    add_number(record, "age_s", age_s > 0 ? (double)age_s : 0);
    add_error(record, entry->error);
}

char *json_list(const struct rbxj_result *result, int64_t now_ns)
{
    cJSON *document = must(cJSON_CreateObject());
    cJSON *boxes = add_array(document, "boxes");
    struct rbxj_result_box b;
    for (size_t i = 0; rbxj_result_box(result, i, &b) == 0; i++) {
        cJSON *box = append_object(boxes);
        (void)add_text(box, "box", b.box);
        add_incarnation(box, b.incarnation);
        (void)add_text(box, "state", b.state);
        (void)add_text(box, "cause", b.cause);
        cJSON *supervisor = add_object(box, "supervisor");
        add_number(supervisor, "pid", b.supervisor);
        add_bool(supervisor, "alive", b.supervisor_alive);
        add_time(box, "begun", b.begun_ns);
        cJSON *records = add_array(box, "records");
        struct rbxj_result_entry entry;
        for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0; k++)
            add_record(records, &entry, now_ns);
    }
    return finish(document);
}

static void add_entry(cJSON *entries, const struct rbxj_result_entry *e)
{
    cJSON *entry = append_object(entries);
    add_number(entry, "seq", e->seq);
    (void)add_text(entry, "kind", e->kind);
    add_name(entry, e->name);
    (void)add_text(entry, "found", e->found);
    (void)add_text(entry, "action", e->action);
    (void)add_text(entry, "outcome", e->outcome);
    add_error(entry, e->error);
    if (e->note)
        (void)add_text(entry, "note", e->note);
}

char *json_replay(const struct rbxj_result *result)
{
    struct rbxj_result_info info;
    rbxj_result_info(result, &info);
    cJSON *document = must(cJSON_CreateObject());
    add_number(document, "version", 1);
    add_bool(document, "dry_run", info.dry_run);
    (void)add_text(document, "plan", info.plan);
    (void)add_text(document, "boot_id", info.boot_id);
    add_time(document, "started", info.started_ns);
    int64_t duration_us = info.duration_ns / 1000;
    add_number(document, "duration_s", (double)duration_us / 1e6);

    cJSON *boxes = add_array(document, "boxes");
    struct rbxj_result_box b;
    for (size_t i = 0; rbxj_result_box(result, i, &b) == 0; i++) {
        cJSON *box = append_object(boxes);
        (void)add_text(box, "box", b.box);
        add_incarnation(box, b.incarnation);
        (void)add_text(box, "state", b.state);
        (void)add_text(box, "cause", b.cause);
        (void)add_text(box, "outcome", b.outcome);
        cJSON *entries = add_array(box, "entries");
        struct rbxj_result_entry entry;
        for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0; k++)
            add_entry(entries, &entry);
    }

    cJSON *summary = add_object(document, "summary");
    add_number(summary, "boxes", (double)info.boxes);
    add_number(summary, "live", (double)info.live);
    add_number(summary, "undone", (double)info.undone);
    add_number(summary, "already_gone", (double)info.already_gone);
    add_number(summary, "refused", (double)info.refused);
    add_number(summary, "failed", (double)info.failed);
    add_number(summary, "left", (double)info.left);
    return finish(document);
}

char *json_forgotten(const char *box, uint32_t seq)
{
    cJSON *document = must(cJSON_CreateObject());
    (void)add_text(document, "box", box);
    add_number(document, "seq", seq);
    add_bool(document, "forgotten", true);
    return finish(document);
}

char *json_failure(int code, const struct rbxj_error *error)
{
    struct rbxj_error e = *error;
    e.code = -code;
    cJSON *document = must(cJSON_CreateObject());
    add_error(document, &e);
    return finish(document);
}
