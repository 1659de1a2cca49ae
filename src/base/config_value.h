/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How a value is written in rbxj.conf. Each parser returns 0, or -EINVAL with *ret_why set to what is
 * expected, or -ENOMEM; the output is untouched on failure.
 */
#ifndef RBXJ_BASE_CONFIG_VALUE_H
#define RBXJ_BASE_CONFIG_VALUE_H

#include "base/config.h"

/* Digits and K, M, G or T, in powers of 1024. */
int config_parse_size(const char *text, uint64_t least, uint64_t most, uint64_t *ret, const char **ret_why);
/* Digits and ms, s or min; without a unit: seconds. More than none, a day at most. */
int config_parse_time(const char *text, int64_t *ret_ns, const char **ret_why);
int config_parse_count(const char *text, int least, int most, int *ret, const char **ret_why);
/* Digits and %. */
int config_parse_percent(const char *text, int *ret, const char **ret_why);
int config_parse_durability(const char *text, enum durability *ret, const char **ret_why);

enum config_word { CONFIG_PATH, CONFIG_PATH_PATTERN, CONFIG_NAME_PATTERN };

/* Words with white space between them; a backslash takes the next character as it is. They are added to the
 * NULL-terminated *list, on failure perhaps only some of them; an empty value empties it. Paths lose their
 * trailing slashes. */
int config_parse_words(const char *text, enum config_word word, char ***list, const char **ret_why);
int config_append_word(char ***list, const char *word); /* a copy of it, as it is; 0 or -ENOMEM */
void config_free_words(char **list);

#endif
