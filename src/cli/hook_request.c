/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/hook_request.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "cli/hook_json.h"

#include <stdbool.h>
#include <string.h>

/* ---- what fields there are ---- */

/* Reads the member item of an object that is called what. */
typedef int read_function(const cJSON *item, const char *what, void *into, struct rbxj_error *e);

static read_function read_word, read_text, read_hex, read_pid, read_seq, read_rmdir_only, read_plan,
    read_resource;

struct field {
    const char *name;
    read_function *read;
    size_t offset; /* of what it is read into */
    bool optional;
    bool other_form; /* of the field before it: one of the two */
};

enum { FIELDS_MAX = 8 };

#define FIELD(key, reader, ...)                                                                              \
    {                                                                                                        \
        .name = (key), .read = (reader), __VA_ARGS__                                                         \
    }
#define INTO(type, member) .offset = offsetof(struct type, member)
#define OP FIELD("op", read_word, .offset = 0)
#define KIND FIELD("kind", read_word, .offset = 0)
#define BOX FIELD("box", read_text, INTO(hook_request, box))
#define SEQ FIELD("seq", read_seq, INTO(hook_request, seq))
/* bytes: as text, or in hex */
#define BYTES(key, member)                                                                                   \
    FIELD(key, read_text, INTO(rbxj_resource, member)),                                                      \
        FIELD(key "_raw", read_hex, INTO(rbxj_resource, member), .other_form = true)

static const struct op {
    const char *name;
    struct field fields[FIELDS_MAX]; /* one without a name ends them */
} ops[] = {
    [HOOK_BEGIN] = {"begin",
                    {OP, BOX, FIELD("pid", read_pid, INTO(hook_request, pid), .optional = true),
                     FIELD("parent", read_text, INTO(hook_request, parent), .optional = true),
                     FIELD("plan", read_plan, .optional = true)}},
    [HOOK_INTEND] = {"intend", {OP, BOX, FIELD("resource", read_resource, .offset = 0)}},
    [HOOK_ACQUIRED] = {"acquired", {OP, BOX, SEQ}},
    [HOOK_RELEASED] = {"released", {OP, BOX, SEQ}},
    [HOOK_UNDO] = {"undo", {OP, BOX}},
    [HOOK_END] = {"end", {OP, BOX}},
};

static const struct resource_kind {
    const char *name;
    enum rbxj_kind kind;
    struct field fields[FIELDS_MAX];
} kinds[] = {
    {"lock", RBXJ_LOCK, {KIND, BYTES("path", path)}},
    {"cgroup", RBXJ_CGROUP, {KIND, BYTES("path", path)}},
    {"mount",
     RBXJ_MOUNT,
     {KIND, BYTES("target", path), FIELD("fstype", read_text, INTO(rbxj_resource, fstype)),
      BYTES("source", source)}},
    {"tmpdir",
     RBXJ_TMPDIR,
     {KIND, BYTES("path", path),
      FIELD("rmdir_only", read_rmdir_only, INTO(rbxj_resource, flags), .optional = true)}},
    {"process", RBXJ_PROCESS, {KIND, FIELD("pid", read_pid, INTO(rbxj_resource, pid))}},
};

/* ---- values ---- */

static int bad(const cJSON *item, const char *what, const char *why, struct rbxj_error *e)
{
    return error_set(e, RBXJ_E_BAD_REQUEST, 0, "%s: \"%s\" %s", what, item->string, why);
}

/* "op" and "kind", which told the fields. */
static int read_word(const cJSON *item, const char *what, void *into, struct rbxj_error *e)
{
    (void)item, (void)what, (void)into, (void)e;
    return 0;
}

static int read_text(const cJSON *item, const char *what, void *into, struct rbxj_error *e)
{
    if (!cJSON_IsString(item) || !item->valuestring[0])
        return bad(item, what, "must be a string, and not empty", e);
    *(const char **)into = item->valuestring;
    return 0;
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    const char *at = c ? strchr(digits, c) : NULL;
    return !at ? -1 : at - digits < 16 ? (int)(at - digits) : (int)(at - digits) - 6;
}

/* Decoded where it stands: it only gets shorter. */
static int read_hex(const cJSON *item, const char *what, void *into, struct rbxj_error *e)
{
    if (!cJSON_IsString(item) || !item->valuestring[0])
        return bad(item, what, "must be a string, and not empty", e);
    char *out = item->valuestring;
    for (const char *in = out; *in; in += 2) {
        int high = hex_digit(in[0]), low = hex_digit(in[1]);
        if (high < 0 || low < 0)
            return bad(item, what, "must be hex, two digits for each byte", e);
        if (high == 0 && low == 0)
            return bad(item, what, "must be without the byte 00", e);
        *out++ = (char)(high << 4 | low);
    }
    *out = '\0';
    *(const char **)into = item->valuestring;
    return 0;
}

/* From 1 to most, or 0: it is none (the error is set). */
static uint32_t read_number(const cJSON *item, const char *what, uint32_t most, struct rbxj_error *e)
{
    double value = cJSON_GetNumberValue(item); /* NaN where it is no number */
    if (value >= 1 && value <= most && value == (uint32_t)value)
        return (uint32_t)value;
    char why[60];
    (void)snprintf(why, sizeof(why), "must be a whole number from 1 to %u", most);
    (void)bad(item, what, why, e);
    return 0;
}

static int read_pid(const cJSON *item, const char *what, void *into, struct rbxj_error *e)
{
    pid_t pid = (pid_t)read_number(item, what, INT32_MAX, e);
    *(pid_t *)into = pid;
    return pid ? 0 : -RBXJ_E_BAD_REQUEST;
}

static int read_seq(const cJSON *item, const char *what, void *into, struct rbxj_error *e)
{
    uint32_t seq = read_number(item, what, UINT32_MAX, e);
    *(uint32_t *)into = seq;
    return seq ? 0 : -RBXJ_E_BAD_REQUEST;
}

static int read_rmdir_only(const cJSON *item, const char *what, void *into, struct rbxj_error *e)
{
    if (!cJSON_IsBool(item))
        return bad(item, what, "must be true or false", e);
    if (cJSON_IsTrue(item))
        *(uint32_t *)into |= RBXJ_RMDIR_ONLY;
    return 0;
}

/* ---- objects ---- */

/* Each key is held against the few that there are: linear in the size of the object. */
static int read_fields(const cJSON *object, const struct field *fields, const char *what, void *into,
                       struct rbxj_error *e)
{
    const cJSON *seen[FIELDS_MAX] = {0};
    for (const cJSON *item = object->child; item; item = item->next) {
        size_t i = 0;
        while (fields[i].name && strcmp(fields[i].name, item->string) != 0)
            i++;
        if (!fields[i].name)
            return bad(item, what, "is no field of it", e);
        size_t slot = i - fields[i].other_form;
        if (seen[slot])
            return error_set(e, RBXJ_E_BAD_REQUEST, 0, "%s: \"%s\" beside \"%s\"", what, item->string,
                             seen[slot]->string);
        seen[slot] = item;
        int r = fields[i].read(item, what, (char *)into + fields[i].offset, e);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; fields[i].name; i++)
        if (!seen[i] && !fields[i].optional && !fields[i].other_form)
            return error_set(e, RBXJ_E_BAD_REQUEST, 0, "%s: \"%s\" is missing", what, fields[i].name);
    return 0;
}

/* The string that tells which fields the object has; the first, if there are two. */
static const char *word_of(const cJSON *object, const char *key)
{
    const cJSON *item = object->child;
    while (item && strcmp(item->string, key) != 0)
        item = item->next;
    const char *word = cJSON_GetStringValue(item);
    return word ? word : "";
}

static int read_one_resource(const cJSON *object, const char *what, struct rbxj_resource *ret,
                             struct rbxj_error *e)
{
    if (!cJSON_IsObject(object))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "%s: must be an object", what);
    const char *word = word_of(object, "kind");
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(kinds[i].name, word) != 0)
            continue;
        ret->kind = kinds[i].kind;
        return read_fields(object, kinds[i].fields, what, ret, e);
    }
    return error_set(e, RBXJ_E_BAD_REQUEST, 0,
                     "%s: \"kind\" must be lock, cgroup, mount, tmpdir or process, not '%s'", what, word);
}

static int make_room(struct hook_request *request, size_t n, struct rbxj_error *e)
{
    request->resources = calloc(n + 1, sizeof(*request->resources));
    request->resources_len = n;
    return request->resources ? 0 : error_sys(e, ENOMEM, "a request of %zu resources", n);
}

static int read_plan(const cJSON *item, const char *what, void *into, struct rbxj_error *e)
{
    struct hook_request *request = into;
    if (!cJSON_IsArray(item))
        return bad(item, what, "must be an array", e);
    int r = make_room(request, (size_t)cJSON_GetArraySize(item), e);
    size_t i = 0;
    for (const cJSON *object = item->child; object && r == 0; object = object->next, i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "plan[%zu]", i);
        r = read_one_resource(object, name, &request->resources[i], e);
    }
    return r;
}

static int read_resource(const cJSON *item, const char *what, void *into, struct rbxj_error *e)
{
    (void)what;
    struct hook_request *request = into;
    int r = make_room(request, 1, e);
    return r < 0 ? r : read_one_resource(item, item->string, &request->resources[0], e);
}

int hook_request_read(const char *line, size_t len, struct hook_request *ret, struct rbxj_error *e)
{
    *ret = (struct hook_request){0};
    int r = hook_json_read(line, len, &ret->json, e);
    if (r < 0)
        return r;
    const char *word = word_of(ret->json, "op");
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        if (strcmp(ops[i].name, word) != 0)
            continue;
        ret->op = (enum hook_op)i;
        return read_fields(ret->json, ops[i].fields, word, ret, e);
    }
    return error_set(e, RBXJ_E_BAD_REQUEST, 0,
                     "\"op\" must be begin, intend, acquired, released, undo or end, not '%s'", word);
}

void hook_request_clear(struct hook_request *request)
{
    free(request->resources);
    cJSON_Delete(request->json);
    *request = (struct hook_request){0};
}
