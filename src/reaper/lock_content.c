/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is at a lock's place, whoever put it there: told apart seven ways, within bounds of size, depth and time.
 */
#include "base/cleanup.h"
#include "base/doc.h"
#include "base/fd.h"
#include "base/utf8.h"
#include "reaper/lock.h"

#include <ctype.h>
#include <string.h>

/* ---- words ---- */

static const struct {
    const char *name, *said;
} words[] = {
    [LOCK_UNSEEN] = {NULL, ""},
    [LOCK_VALID] = {"valid", "JSON"},
    [LOCK_OTHER_BOX] = {"other_box", "JSON of another box"},
    [LOCK_NOT_JSON] = {"not_json", "text that is no JSON"},
    [LOCK_TRUNCATED] = {"truncated", "JSON that is cut short"},
    [LOCK_BINARY] = {"binary", "binary data"},
    [LOCK_EMPTY] = {"empty", "nothing"},
    [LOCK_NOT_REGULAR] = {"not_regular", "no content, as it is no regular file"},
};

const char *lock_content_name(enum lock_content content)
{
    return words[content].name;
}

const char *lock_content_said(enum lock_content content)
{
    return words[content].said;
}

/* ---- opening ---- */

int lock_open(int parent, const char *base, int flags, struct stat *ret)
{
    char path[32];
    _cleanup_close_ int fd = openat(parent, base, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, ret) < 0)
        return -errno;
    if (!S_ISREG(ret->st_mode))
        return steal_fd(&fd);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int file = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return file < 0 ? -errno : file;
}

/* ---- JSON that is cut short ---- */

enum { DEPTH_MAX = CJSON_NESTING_LIMIT };

/* Where the reading of it is. */
struct cut {
    const char *at, *end;
    enum { VALUE, VALUE_OR_END, KEY, KEY_OR_END, COLON, COMMA_OR_END } wanted;
    size_t depth;
    char closers[DEPTH_MAX];
};

enum step { STEP_ON, STEP_CUT, STEP_WRONG };

static enum step skip_string(struct cut *c)
{
    for (c->at++; c->at < c->end; c->at++) {
        if (*c->at == '"') {
            c->at++;
            return STEP_ON;
        }
        c->at += *c->at == '\\';
    }
    return STEP_CUT;
}

/* A number, true, false or null. */
static enum step skip_word(struct cut *c)
{
    static const char *const literals[] = {"true", "false", "null"};
    const char *start = c->at;
    while (c->at < c->end && (isalnum((unsigned char)*c->at) || strchr("+-.", *c->at)))
        c->at++;
    size_t len = (size_t)(c->at - start);
    if (len == 0)
        return STEP_WRONG;
    bool cut = c->at == c->end, known = *start == '-' || isdigit((unsigned char)*start);
    for (size_t i = 0; i < ARRAY_LEN(literals); i++)
        known = known || (len <= strlen(literals[i]) && memcmp(start, literals[i], len) == 0 &&
                          (cut || !literals[i][len]));
    return !known ? STEP_WRONG : cut ? STEP_CUT : STEP_ON;
}

static enum step open_one(struct cut *c)
{
    if (c->depth == DEPTH_MAX)
        return STEP_WRONG;
    bool object = *c->at++ == '{';
    c->closers[c->depth++] = object ? '}' : ']';
    c->wanted = object ? KEY_OR_END : VALUE_OR_END;
    return STEP_ON;
}

static enum step close_one(struct cut *c)
{
    if (c->depth == 0 || *c->at != c->closers[c->depth - 1])
        return STEP_WRONG;
    c->at++;
    c->depth--;
    c->wanted = COMMA_OR_END;
    return c->depth ? STEP_ON : STEP_WRONG; /* whole, and something behind it */
}

static enum step go_on(struct cut *c)
{
    enum step step = STEP_WRONG;
    switch (c->wanted) {
    case VALUE_OR_END:
    case VALUE:
        if (*c->at == ']' && c->wanted == VALUE_OR_END)
            return close_one(c);
        if (*c->at == '{' || *c->at == '[')
            return open_one(c);
        step = *c->at == '"' ? skip_string(c) : skip_word(c);
        c->wanted = COMMA_OR_END;
        return step;
    case KEY_OR_END:
        if (*c->at == '}')
            return close_one(c);
        /* fall through */
    case KEY:
        step = *c->at == '"' ? skip_string(c) : STEP_WRONG;
        c->wanted = COLON;
        return step;
    case COLON:
        c->wanted = VALUE;
        return *c->at++ == ':' ? STEP_ON : STEP_WRONG;
    case COMMA_OR_END:
        if (*c->at != ',')
            return close_one(c);
        c->at++;
        c->wanted = c->closers[c->depth - 1] == '}' ? KEY : VALUE;
        return STEP_ON;
    }
    return step;
}

static void skip_space(struct cut *c)
{
    while (c->at < c->end && isspace((unsigned char)*c->at))
        c->at++;
}

/* Is it the beginning of an object or an array, to which more would have to come? It is not a whole one. */
static bool is_cut_short(const char *text, size_t len)
{
    struct cut c = {.at = text, .end = text + len, .wanted = VALUE};
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        c.at += 3;
    skip_space(&c);
    if (c.at == c.end || (*c.at != '{' && *c.at != '['))
        return false;
    enum step step = STEP_ON;
    while (step == STEP_ON && c.at < c.end) {
        step = go_on(&c);
        skip_space(&c);
    }
    return step != STEP_WRONG;
}

/* ---- text, or not ---- */

static bool is_control(uint32_t c)
{
    return (c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f;
}

/* How much of it is text: all of it, or all but a last character that is cut short; 0: it is binary. */
static size_t text_len(const char *bytes, size_t len)
{
    uint32_t c;
    for (size_t at = 0, n; at < len; at += n) {
        n = utf8_decode(bytes + at, len - at, &c);
        if (n && !is_control(c))
            continue;
        size_t more = 1;
        while (at + more < len && ((unsigned char)bytes[at + more] & 0xc0) == 0x80)
            more++;
        bool lead = (unsigned char)bytes[at] >= 0xc2 && (unsigned char)bytes[at] <= 0xf4;
        return !n && lead && at + more == len && more < 4 ? at : 0;
    }
    return len;
}

static enum lock_content judge_no_json(const char *bytes, size_t len)
{
    size_t text = text_len(bytes, len);
    if (text && len <= LOCK_CONTENT_MAX && is_cut_short(bytes, text))
        return LOCK_TRUNCATED;
    /* of a longer file only the beginning was read */
    return text == len || (text && len > LOCK_CONTENT_MAX) ? LOCK_NOT_JSON : LOCK_BINARY;
}

/* ---- JSON ---- */

/* Does it name another box, and not our supervisor? Without a stamp that is all that there is to tell by. */
static bool names_other_box(const cJSON *json, const struct box *box)
{
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(json, "box_id");
    const char *name = cJSON_GetStringValue(id);
    char number[32];
    if (cJSON_IsNumber(id)) { /* a rustbox's */
        (void)snprintf(number, sizeof(number), "%.0f", id->valuedouble);
        name = number;
    }
    return name && strcmp(name, box->name) != 0 &&
           doc_get_number(json, "pid", 0) != (double)box->supervisor.pid;
}

int lock_classify(const struct box *box, const struct record *r, const char *bytes, size_t len,
                  struct lock_reading *ret)
{
    struct lock_reading reading = {.content = len ? LOCK_VALID : LOCK_EMPTY};
    cJSON *json = NULL;
    size_t used = 0;
    int res = len == 0 || len > LOCK_CONTENT_MAX || memchr(bytes, 0, len)
                  ? -EBADMSG
                  : doc_parse_part(bytes, len, &json, &used);
    if (res == -ENOMEM)
        return res;
    while (json && used < len && strchr(" \t\r\n", bytes[used]))
        used++;
    const char *stamp = doc_get_text(json, "rbxj");
    reading.stamped = stamp && stamp_parse(stamp, &reading.incarnation, &reading.seq);
    reading.ours = reading.stamped && reading.incarnation == r->incarnation && reading.seq == r->seq;
    if (len && (!json || used < len)) /* with a stamp and something behind it, too */
        reading.content = judge_no_json(bytes, len);
    else if (reading.stamped ? !reading.ours : names_other_box(json, box))
        reading.content = LOCK_OTHER_BOX;
    cJSON_Delete(json);
    *ret = reading;
    return 0;
}
