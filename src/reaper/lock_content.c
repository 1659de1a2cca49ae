/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is at a lock's place, told apart seven ways, within bounds of size, depth and time.
 */
#include "reaper/lock_content.h"

#include "base/cleanup.h"
#include "base/doc.h"
#include "base/fd.h"
#include "base/utf8.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

size_t lock_own_line(const struct undo *u, const struct record *r, char buf[LOCK_LINE_MAX])
{
    int n = snprintf(buf, LOCK_LINE_MAX,
                     "{\"rbxj\":\"%" PRIu64 ":%" PRIu32 "\",\"pid\":%d,\"box_id\":\"%s\",\"created_at\":{"
                     "\"secs_since_epoch\":%" PRId64 ",\"nanos_since_epoch\":%" PRId64 "}}\n",
                     r->incarnation, r->seq, u->box->supervisor.pid, u->box->name, r->time_ns / 1000000000,
                     r->time_ns % 1000000000);
    return (size_t)n;
}

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
    if (file < 0)
        return errno == ENOENT ? -EIO : -errno; /* it is there: what is not is /proc */
    return file;
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

/* The size is on disk and the content is not: what a power cut leaves where nobody flushed (ext4, XFS). */
static bool is_nuls(const char *text, size_t len)
{
    return text[0] == 0 && memcmp(text, text + 1, len - 1) == 0;
}

static bool is_as_recorded(const struct record *r, const char *bytes, size_t len)
{
    return len == r->content_len && (len == 0 || memcmp(bytes, r->content, len) == 0);
}

/* By what is recorded of it, not by what it says. */
static enum lock_whose whose_by_record(const struct undo *u, const struct record *r, const char *bytes,
                                       size_t len)
{
    char line[LOCK_LINE_MAX];
    size_t own = lock_own_line(u, r, line);
    if ((r->flags & REC_BEFORE_PRESENT) && is_as_recorded(r, bytes, len))
        return LOCK_BEFORE;
    if (len && (r->flags & REC_EVIDENCE) && is_as_recorded(r, bytes, len))
        return LOCK_ADOPTED;
    return len && len < own && memcmp(bytes, line, len) == 0 ? LOCK_BEGUN : LOCK_SAYS_NOT;
}

static enum lock_whose whose_by_stamp(const struct record *r, const char *stamp)
{
    uint64_t incarnation;
    uint32_t seq;
    if (!stamp || !stamp_parse(stamp, &incarnation, &seq))
        return LOCK_SAYS_NOT;
    return incarnation == r->incarnation && seq == r->seq ? LOCK_OURS : LOCK_OTHERS;
}

int lock_judge(const struct undo *u, const struct record *r, const char *bytes, size_t len,
               struct lock_reading *ret)
{
    struct lock_reading reading = {.content = LOCK_EMPTY, .whose = whose_by_record(u, r, bytes, len)};
    cJSON *json = NULL;
    size_t used = 0;
    if (len == 0 || (reading.whose == LOCK_SAYS_NOT && !u->same_boot && is_nuls(bytes, len))) {
        *ret = reading;
        return 0;
    }
    int res = len > LOCK_CONTENT_MAX || memchr(bytes, 0, len) ? -EBADMSG
                                                              : doc_parse_part(bytes, len, &json, &used);
    if (res == -ENOMEM)
        return res;
    while (json && used < len && strchr(" \t\r\n", bytes[used]))
        used++;
    bool whole = json && used == len; /* there may be a stamp, and something behind it */
    enum lock_whose said = whose_by_stamp(r, doc_get_text(json, "rbxj"));
    if (said == LOCK_SAYS_NOT && whole && names_other_box(json, u->box))
        said = LOCK_OTHERS;
    cJSON_Delete(json);
    reading.content = !whole ? judge_no_json(bytes, len) : said == LOCK_OTHERS ? LOCK_OTHER_BOX : LOCK_VALID;
    if (reading.whose == LOCK_SAYS_NOT)
        reading.whose = said;
    *ret = reading;
    return 0;
}

int lock_read(const struct undo *u, const struct record *r, int fd, struct lock_reading *ret)
{
    char bytes[LOCK_CONTENT_MAX + 1];
    ssize_t n = pread(fd, bytes, sizeof(bytes), 0);
    if (n < 0) /* not to be taken for an empty one */
        return -errno;
    return lock_judge(u, r, bytes, (size_t)n, ret);
}

bool lock_is_corrupt(const struct lock_reading *reading)
{
    return (reading->whose == LOCK_SAYS_NOT || reading->whose == LOCK_OURS) &&
           reading->content != LOCK_VALID && reading->content != LOCK_EMPTY;
}
