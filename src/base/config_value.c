/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/config_value.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

struct unit {
    const char *name;
    uint64_t factor;
};

static int invalid(const char **ret_why, const char *why)
{
    *ret_why = why;
    return -EINVAL;
}

/* Digits, then one of the units; false on anything else, and on what does not fit. */
static bool parse_number(const char *text, const struct unit *units, size_t units_len, uint64_t *ret)
{
    char *end;

    if (!isdigit((unsigned char)text[0])) /* strtoull takes a sign and white space */
        return false;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0)
        return false;
    for (size_t i = 0; i < units_len; i++)
        if (strcmp(end, units[i].name) == 0)
            return !__builtin_mul_overflow(number, units[i].factor, ret);
    return false;
}

int config_parse_size(const char *text, uint64_t least, uint64_t most, uint64_t *ret, const char **ret_why)
{
    static const struct unit units[] = {
        {"", 1}, {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1ULL << 40},
    };
    uint64_t size;

    if (!parse_number(text, units, ARRAY_LEN(units), &size))
        return invalid(ret_why, "expected a size such as 4M");
    if (size < least || size > most)
        return invalid(ret_why, size < least ? "the size is too small" : "the size is too large");
    *ret = size;
    return 0;
}

int config_parse_time(const char *text, int64_t *ret_ns, const char **ret_why)
{
    static const struct unit units[] = {
        {"", 1000000000}, {"s", 1000000000}, {"ms", 1000000}, {"min", 60000000000}};
    uint64_t ns;

    if (!parse_number(text, units, ARRAY_LEN(units), &ns))
        return invalid(ret_why, "expected a time such as 10s, 500ms or 2min");
    if (ns == 0 || ns > 86400ULL * 1000000000)
        return invalid(ret_why, "expected a time of more than 0 and at most a day");
    *ret_ns = (int64_t)ns;
    return 0;
}

int config_parse_count(const char *text, int least, int most, int *ret, const char **ret_why)
{
    static const struct unit units[] = {{"", 1}};
    uint64_t count;

    if (!parse_number(text, units, ARRAY_LEN(units), &count))
        return invalid(ret_why, "expected a number");
    if (count < (uint64_t)least || count > (uint64_t)most)
        return invalid(ret_why,
                       count < (uint64_t)least ? "the number is too small" : "the number is too large");
    *ret = (int)count;
    return 0;
}

int config_parse_percent(const char *text, int *ret, const char **ret_why)
{
    static const struct unit units[] = {{"%", 1}};
    uint64_t percent;

    if (!parse_number(text, units, ARRAY_LEN(units), &percent) || percent > 100)
        return invalid(ret_why, "expected 0% to 100%");
    *ret = (int)percent;
    return 0;
}

int config_parse_durability(const char *text, enum durability *ret, const char **ret_why)
{
    static const char *const names[] = {
        [DURABILITY_AUTO] = "auto",
        [DURABILITY_RESOURCE] = "resource",
        [DURABILITY_ALWAYS] = "always",
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum durability)i;
            return 0;
        }
    }
    return invalid(ret_why, "expected auto, resource or always");
}

/* ---- lists ---- */

void config_free_words(char **list)
{
    for (char **word = list; word && *word; word++)
        free(*word);
    free(list);
}

/* Takes the word at *text into fresh memory; NULL: out of memory. */
static char *next_word(const char **text)
{
    const char *in = *text;
    char *word = malloc(strlen(in) + 1), *out = word;

    for (; word && *in != '\0' && *in != ' ' && *in != '\t'; in++) {
        if (*in == '\\' && in[1] != '\0')
            in++;
        *out++ = *in;
    }
    if (word)
        *out = '\0';
    *text = in;
    return word;
}

static bool has_dot_dot(const char *path)
{
    for (const char *part = path; part; part = strchr(part, '/')) {
        part += strspn(part, "/");
        if (strcspn(part, "/") == 2 && part[0] == '.' && part[1] == '.')
            return true;
    }
    return false;
}

static int check_word(char *word, enum config_word kind, const char **ret_why)
{
    size_t len = strlen(word);

    while (len > 1 && word[len - 1] == '/')
        word[--len] = '\0';
    switch (kind) {
    case CONFIG_PATH:
        return path_is_normal(word) ? 0
                                    : invalid(ret_why, "expected absolute paths without . and .. in them");
    case CONFIG_PATH_PATTERN:
        return word[0] == '/' && !has_dot_dot(word)
                   ? 0
                   : invalid(ret_why, "expected absolute patterns without .. in them");
    case CONFIG_NAME_PATTERN:
        return len > 0 && !strchr(word, '/') && !has_dot_dot(word)
                   ? 0
                   : invalid(ret_why, "expected patterns of a name, without / and .. in them");
    }
    return invalid(ret_why, "expected words");
}

/* Takes word over. */
static int append(char ***list, char *word)
{
    size_t len = 0;

    while (*list && (*list)[len])
        len++;
    char **longer = word ? reallocarray(*list, len + 2, sizeof(*longer)) : NULL;
    if (!longer) {
        free(word);
        return -ENOMEM;
    }
    longer[len] = word;
    longer[len + 1] = NULL;
    *list = longer;
    return 0;
}

int config_append_word(char ***list, const char *word)
{
    return append(list, strdup(word));
}

int config_parse_words(const char *text, enum config_word kind, char ***list, const char **ret_why)
{
    text += strspn(text, " \t");
    if (*text == '\0') {
        config_free_words(*list);
        *list = NULL;
    }
    while (*text != '\0') {
        char *word = next_word(&text);
        int r = append(list, word);
        if (r == 0)
            r = check_word(word, kind, ret_why);
        if (r < 0)
            return r;
        text += strspn(text, " \t");
    }
    return 0;
}
