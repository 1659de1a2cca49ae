/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/doc.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/utf8.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

void doc_init(struct doc *doc)
{
    *doc = (struct doc){.root = cJSON_CreateObject()};
    doc->failed = !doc->root;
}

void doc_clear(struct doc *doc)
{
    cJSON_Delete(doc->root);
    *doc = (struct doc){0};
}

char *doc_finish(struct doc *doc)
{
    char *text = doc->failed ? NULL : cJSON_PrintUnformatted(doc->root);
    doc_clear(doc);
    return text;
}

cJSON *doc_add(struct doc *doc, cJSON *parent, const char *key, cJSON *item)
{
    if (item && parent &&
        (key ? cJSON_AddItemToObject(parent, key, item) : cJSON_AddItemToArray(parent, item)))
        return item;
    doc->failed = true;
    cJSON_Delete(item);
    return NULL;
}

cJSON *doc_object(struct doc *doc, cJSON *parent, const char *key)
{
    return doc_add(doc, parent, key, cJSON_CreateObject());
}

cJSON *doc_array(struct doc *doc, cJSON *parent, const char *key)
{
    return doc_add(doc, parent, key, cJSON_CreateArray());
}

void doc_number(struct doc *doc, cJSON *parent, const char *key, double value)
{
    (void)doc_add(doc, parent, key, cJSON_CreateNumber(value));
}

void doc_bool(struct doc *doc, cJSON *parent, const char *key, bool value)
{
    (void)doc_add(doc, parent, key, cJSON_CreateBool(value));
}

char *doc_quote(const char *bytes, bool *ret_raw)
{
    size_t left = strlen(bytes);
    char *text = malloc(left * 6 + 3), *out = text;
    if (!text)
        return NULL;
    *out++ = '"';
    while (left) {
        size_t len = utf8_printable(bytes, left); /* as escape_bytes(), so that text and JSON agree */
        if (!len) {
            out += sprintf(out, "\\u%04x", (unsigned char)*bytes);
            *ret_raw = true;
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

bool doc_text(struct doc *doc, cJSON *parent, const char *key, const char *text)
{
    bool raw = false;
    _cleanup_free_ char *quoted = text ? doc_quote(text, &raw) : NULL;
    /* what cJSON can write by itself is a string to it, which can be read back */
    (void)doc_add(doc, parent, key,
                  !text     ? cJSON_CreateNull()
                  : !quoted ? NULL
                  : raw     ? cJSON_CreateRaw(quoted)
                            : cJSON_CreateString(text));
    return raw;
}

void doc_name(struct doc *doc, cJSON *parent, const char *key, const char *bytes)
{
    if (!doc_text(doc, parent, key, bytes))
        return;
    size_t len = strlen(bytes);
    _cleanup_free_ char *hex = malloc(2 * len + 1);
    if (hex)
        hex_encode(hex, bytes, len);
    (void)doc_add(doc, parent, "raw", hex ? cJSON_CreateString(hex) : NULL);
}

void doc_number64(struct doc *doc, cJSON *parent, const char *key, uint64_t value)
{
    char buf[24];
    (void)snprintf(buf, sizeof(buf), "%llu", (unsigned long long)value);
    (void)doc_text(doc, parent, key, buf);
}

void doc_time(struct doc *doc, cJSON *parent, const char *key, int64_t realtime_ns)
{
    char buf[32];
    doc_format_time(buf, realtime_ns);
    (void)doc_text(doc, parent, key, realtime_ns ? buf : NULL);
}

void doc_error(struct doc *doc, cJSON *parent, const char *key, const struct rbxj_error *error)
{
    if (!error || !error->code) {
        (void)doc_text(doc, parent, key, NULL);
        return;
    }
    cJSON *e = doc_object(doc, parent, key);
    doc_number(doc, e, "errno", error->errnum);
    (void)doc_text(doc, e, "name", error->errnum ? errno_name(error->errnum) : "");
    (void)doc_text(doc, e, "code", rbxj_strerror(-error->code));
    (void)doc_text(doc, e, "message", error->message);
    (void)doc_text(doc, e, "detail", error->detail);
}

void doc_entry(struct doc *doc, cJSON *entry, const struct rbxj_result_entry *e, const char *outcome)
{
    doc_number(doc, entry, "seq", e->seq);
    (void)doc_text(doc, entry, "kind", e->kind);
    doc_name(doc, entry, "name", e->name);
    (void)doc_text(doc, entry, "found", e->found);
    if (e->content)
        (void)doc_text(doc, entry, "content", e->content);
    (void)doc_text(doc, entry, "action", e->action);
    (void)doc_text(doc, entry, "outcome", outcome);
    doc_error(doc, entry, "error", e->error);
}

void doc_seconds(struct doc *doc, cJSON *parent, const char *key, int64_t ns)
{
    int64_t us = ns / 1000;
    doc_number(doc, parent, key, (double)us / 1e6);
}

/* ---- times ---- */

void doc_format_time(char buf[32], int64_t realtime_ns)
{
    time_t seconds = (time_t)(realtime_ns / 1000000000);
    struct tm tm;
    if (!gmtime_r(&seconds, &tm) || !strftime(buf, 32, "%Y-%m-%dT%H:%M:%SZ", &tm))
        buf[0] = '\0';
}

int doc_parse_time(const char *text, int64_t *ret_realtime_ns)
{
    static const char *const formats[] = {"%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S",
                                          "%Y-%m-%d %H:%M", "%Y-%m-%d"};
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        struct tm tm = {0};
        const char *end = strptime(text, formats[i], &tm);
        if (!end || *end)
            continue;
        struct tm day = {.tm_year = tm.tm_year, .tm_mon = tm.tm_mon, .tm_mday = tm.tm_mday};
        int64_t ns;                                          /* from 1677 to 2262 */
        if (timegm(&day) == -1 || day.tm_mday != tm.tm_mday) /* 30 February */
            return -EINVAL;
        if (__builtin_mul_overflow((int64_t)timegm(&tm), 1000000000, &ns))
            return -EINVAL;
        *ret_realtime_ns = ns;
        return 0;
    }
    return -EINVAL;
}

/* ---- reading ---- */

int doc_parse_part(const char *text, size_t len, cJSON **ret, size_t *ret_used)
{
    const char *end = text;
    errno = 0; /* cJSON does not say why, but malloc(3) does */
    cJSON *json = cJSON_ParseWithLengthOpts(text, len, &end, false);
    if (!json)
        return errno == ENOMEM ? -ENOMEM : -EBADMSG;
    *ret = json;
    *ret_used = (size_t)(end - text);
    return 0;
}

int doc_parse(const char *text, size_t len, cJSON **ret)
{
    size_t used;
    return doc_parse_part(text, len, ret, &used);
}

const char *doc_get_text(const cJSON *object, const char *key)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

char *doc_get_name(const cJSON *object, const char *key)
{
    const char *text = doc_get_text(object, key), *raw = doc_get_text(object, "raw");
    size_t len = raw ? strlen(raw) / 2 : 0;
    char *bytes = raw ? malloc(len + 1) : NULL;
    for (size_t i = 0; bytes && i < len; i++) {
        int high = hex_digit(raw[2 * i]), low = hex_digit(raw[2 * i + 1]);
        if (high < 0 || low < 0 || (high == 0 && low == 0)) { /* not by doc_name() */
            free(bytes);
            return text ? strdup(text) : NULL;
        }
        bytes[i] = (char)(high << 4 | low);
    }
    if (bytes)
        bytes[len] = 0;
    return raw ? bytes : text ? strdup(text) : NULL;
}

const cJSON *doc_get_first(const cJSON *object, const char *key)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, key);
    return list ? list->child : NULL;
}

bool doc_get_true(const cJSON *object, const char *key)
{
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(object, key));
}

double doc_get_number(const cJSON *object, const char *key, double otherwise)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : otherwise;
}
