/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/hook_json.h"

#include "base/doc.h"
#include "base/error.h"
#include "base/utf8.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

enum {
    DEPTH_MAX = 8, /* a resource in a plan in a request is three */
    NUMBER_MAX = 32,
};

struct scan {
    const unsigned char *at, *end;
    unsigned depth;
};

static int no_json(struct rbxj_error *e, const char *why)
{
    return error_set(e, EBADMSG, 0, "the line is no JSON object: %s", why);
}

static int skip_escape(struct scan *s, struct rbxj_error *e)
{
    const unsigned char *p = s->at + 1;
    size_t left = (size_t)(s->end - p);
    if (left == 0 || !*p || !strchr("\"\\/bfnrtu", *p))
        return no_json(e, "a backslash before what it does not escape");
    s->at += 2;
    if (*p != 'u')
        return 0;
    for (size_t i = 1; i <= 4; i++)
        if (i >= left || !isxdigit(p[i]))
            return no_json(e, "\\u without four hex digits");
    s->at += 4;
    if (memcmp(p + 1, "0000", 4) == 0)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "a NUL character (\\u0000) in a string");
    return 0;
}

static int skip_string(struct scan *s, struct rbxj_error *e)
{
    for (s->at++; s->at < s->end && *s->at != '"';) {
        if (*s->at < 0x20)
            return no_json(e, "a control character in a string");
        if (*s->at == '\\') {
            int r = skip_escape(s, e);
            if (r < 0)
                return r;
            continue;
        }
        uint32_t character;
        size_t n = utf8_decode(s->at, (size_t)(s->end - s->at), &character);
        if (!n)
            return no_json(e, "it is not UTF-8");
        s->at += n;
    }
    if (s->at == s->end)
        return no_json(e, "a string without an end");
    s->at++;
    return 0;
}

static void skip_space(struct scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\r'))
        s->at++;
}

static size_t skip_digits(struct scan *s)
{
    const unsigned char *start = s->at;
    while (s->at < s->end && isdigit(*s->at))
        s->at++;
    return (size_t)(s->at - start);
}

static bool skip_one_of(struct scan *s, const char *set)
{
    bool found = s->at < s->end && *s->at && strchr(set, *s->at);
    s->at += found;
    return found;
}

static int skip_number(struct scan *s, struct rbxj_error *e)
{
    const unsigned char *start = s->at;
    (void)skip_one_of(s, "-");
    bool good = skip_one_of(s, "0") || skip_digits(s);
    if (good && skip_one_of(s, "."))
        good = skip_digits(s);
    if (good && skip_one_of(s, "eE")) {
        (void)skip_one_of(s, "+-");
        good = skip_digits(s);
    }
    if (!good || skip_one_of(s, "+-.eE0123456789"))
        return no_json(e, "a number that is none");
    if (s->at - start > NUMBER_MAX) /* cJSON would cut it */
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "a number of more than %d characters", NUMBER_MAX);
    return 0;
}

static int skip_token(struct scan *s, struct rbxj_error *e)
{
    unsigned char c = *s->at;
    if (c == '"')
        return skip_string(s, e);
    if (c == '-' || isdigit(c))
        return skip_number(s, e);
    if (c == '\0')
        return no_json(e, "a NUL byte");
    if (!strchr(" \t\r{}[]:,", c) && !isalpha(c)) /* cJSON knows the words, and in what order all this goes */
        return no_json(e, "a byte that belongs into a string");
    if (c == '{' || c == '[')
        s->depth++;
    else if (c == '}' || c == ']')
        s->depth--;
    s->at++;
    return 0;
}

int hook_json_read(const char *line, size_t len, cJSON **ret, struct rbxj_error *e)
{
    struct scan s = {.at = (const unsigned char *)line, .end = (const unsigned char *)line + len};
    skip_space(&s);
    if (s.at == s.end)
        return no_json(e, "it is empty");
    if (*s.at != '{')
        return no_json(e, "it does not begin with {");
    while (s.at < s.end) {
        int r = skip_token(&s, e);
        if (r < 0)
            return r;
        if (s.depth > DEPTH_MAX)
            return error_set(e, RBXJ_E_BAD_REQUEST, 0, "nested deeper than %d", DEPTH_MAX);
        if (s.depth == 0) /* the object is whole: only white space may follow */
            break;
    }
    const char *end = (const char *)s.at;
    skip_space(&s);
    if (s.at < s.end)
        return no_json(e, "something follows it on the line");
    int r = doc_parse(line, (size_t)(end - line), ret);
    return r == 0         ? 0
           : r == -ENOMEM ? error_sys(e, ENOMEM, "a request of %zu bytes", len)
                          : no_json(e, "it can't be read");
}
