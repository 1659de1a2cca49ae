/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * JSON documents, as they are built and read here, by cJSON. Running out of memory is noted in the document
 * and told once, by doc_finish(): until then every call may be made, whatever became of the one before.
 *
 * Strings may hold any byte of a name: what is not printable UTF-8 becomes \u00XX (cJSON passes bytes from
 * 0x7f up as they are).
 */
#ifndef RBXJ_BASE_DOC_H
#define RBXJ_BASE_DOC_H

#include "rbxj.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct doc {
    cJSON *root;
    bool failed; /* no memory */
};

/* A fresh object as root. */
void doc_init(struct doc *doc);
void doc_clear(struct doc *doc);
/* The text of it, in fresh memory, or NULL without memory for it; clears the document. */
char *doc_finish(struct doc *doc);

/* Puts item below parent and returns it; key NULL: appended to an array. Either may be NULL for want of
 * memory: then the document has failed, and what is added is a NULL again. */
cJSON *doc_add(struct doc *doc, cJSON *parent, const char *key, cJSON *item);
cJSON *doc_object(struct doc *doc, cJSON *parent, const char *key);
cJSON *doc_array(struct doc *doc, cJSON *parent, const char *key);
void doc_number(struct doc *doc, cJSON *parent, const char *key, double value);
void doc_bool(struct doc *doc, cJSON *parent, const char *key, bool value);
/* text NULL: null. Returns whether a byte had to be escaped. */
bool doc_text(struct doc *doc, cJSON *parent, const char *key, const char *text);
/* The same, and the bytes as hex under "raw" beside it where the text can't hold them. */
void doc_name(struct doc *doc, cJSON *parent, const char *key, const char *bytes);
/* 64 bits don't fit into a JSON number: a string of decimal digits. */
void doc_number64(struct doc *doc, cJSON *parent, const char *key, uint64_t value);
/* "2026-11-24T03:00:00Z"; 0: null. */
void doc_time(struct doc *doc, cJSON *parent, const char *key, int64_t realtime_ns);
/* An entry's error: null, or errno, name, code, message, detail. */
void doc_error(struct doc *doc, cJSON *parent, const char *key, const struct rbxj_error *error);
/* An entry of a result, from seq to error. */
void doc_entry(struct doc *doc, cJSON *entry, const struct rbxj_result_entry *e, const char *outcome);
/* Nanoseconds as seconds, to the microsecond. */
void doc_seconds(struct doc *doc, cJSON *parent, const char *key, int64_t ns);

/* A quoted JSON string in fresh memory, or NULL; *ret_raw is set when a byte had to be escaped. */
char *doc_quote(const char *bytes, bool *ret_raw);

void doc_format_time(char buf[32], int64_t realtime_ns);
/* The reverse of it, and "2026-11-24", "2026-11-24 03:00[:00]": UTC. 0 or -EINVAL. */
int doc_parse_time(const char *text, int64_t *ret_realtime_ns);

/* Reads JSON: 0, -EBADMSG: it is none, or -ENOMEM. Something else may be behind it; of part, used says
 * where. */
int doc_parse(const char *text, size_t len, cJSON **ret);
int doc_parse_part(const char *text, size_t len, cJSON **ret, size_t *ret_used);

/* A member of an object that was read, or NULL where it is missing or of another type. */
const char *doc_get_text(const cJSON *object, const char *key);
/* A name that doc_name() wrote, its bytes: "raw" has them where the text can't. In fresh memory; NULL where
 * it is missing, or without memory. */
char *doc_get_name(const cJSON *object, const char *key);
/* The first of a list, or NULL; the others follow by ->next. */
const cJSON *doc_get_first(const cJSON *object, const char *key);
bool doc_get_true(const cJSON *object, const char *key);
double doc_get_number(const cJSON *object, const char *key, double otherwise);

#endif
