/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/incarnations.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

uint64_t incarnation_read(const cJSON *item)
{
    const char *text = cJSON_GetStringValue(item);
    char *end = NULL;
    if (!text || text[0] < '0' || text[0] > '9')
        return 0;
    uint64_t value = strtoull(text, &end, 10);
    return *end ? 0 : value;
}

static int compare_incarnation(const void *a, const void *b)
{
    uint64_t x = ((const struct incarnation *)a)->incarnation,
             y = ((const struct incarnation *)b)->incarnation;
    return (x > y) - (x < y);
}

int incarnations_of(const struct rbxj_result *result, const size_t *owner, size_t mine,
                    struct incarnations *ret)
{
    struct incarnations set = {.rows = calloc(result->len + 1, sizeof(*set.rows))};
    if (!set.rows)
        return -ENOMEM;
    for (size_t i = 0; i < result->len; i++)
        if (!owner || owner[i] == mine)
            set.rows[set.len++] = (struct incarnation){result->boxes[i].box.incarnation, i};
    qsort(set.rows, set.len, sizeof(*set.rows), compare_incarnation);
    *ret = set;
    return 0;
}

void incarnations_clear(struct incarnations *set)
{
    free(set->rows);
    *set = (struct incarnations){0};
}

const struct incarnation *incarnations_find(const struct incarnations *set, uint64_t incarnation)
{
    const struct incarnation key = {.incarnation = incarnation};
    return set->len ? bsearch(&key, set->rows, set->len, sizeof(*set->rows), compare_incarnation) : NULL;
}

static int compare_place(const void *a, const void *b)
{
    size_t x = ((const struct incarnation *)a)->i, y = ((const struct incarnation *)b)->i;
    return (x > y) - (x < y);
}

struct incarnation *incarnations_in_order(const struct incarnations *set)
{
    struct incarnation *rows = calloc(set->len + 1, sizeof(*rows));
    if (!rows)
        return NULL;
    memcpy(rows, set->rows, set->len * sizeof(*rows));
    qsort(rows, set->len, sizeof(*rows), compare_place);
    return rows;
}

int incarnations_read(const cJSON *list, struct incarnations *ret)
{
    struct incarnations set = {.rows = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof(*set.rows))};
    if (!set.rows)
        return -ENOMEM;
    for (const cJSON *item = list ? list->child : NULL; item; item = item->next)
        set.rows[set.len++].incarnation = incarnation_read(item);
    qsort(set.rows, set.len, sizeof(*set.rows), compare_incarnation);
    *ret = set;
    return 0;
}
