/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A set of incarnations, to be asked quickly: ten thousand boxes of a replay meet those of its incidents.
 */
#ifndef RBXJ_REAPER_INCARNATIONS_H
#define RBXJ_REAPER_INCARNATIONS_H

#include "reaper/result.h"

#include <cjson/cJSON.h>

struct incarnation {
    uint64_t incarnation;
    size_t i; /* which box of the result */
};
struct incarnations {
    struct incarnation *rows;
    size_t len;
};
/* Of the boxes i of result whose owner[i] is mine; owner NULL: all. 0 or -ENOMEM. */
int incarnations_of(const struct rbxj_result *result, const size_t *owner, size_t mine,
                    struct incarnations *ret);
void incarnations_clear(struct incarnations *set);
/* The row, or NULL. */
const struct incarnation *incarnations_find(const struct incarnations *set, uint64_t incarnation);
/* The rows in the order of the result, in fresh memory; NULL: no memory. */
struct incarnation *incarnations_in_order(const struct incarnations *set);

/* An incarnation as it is written in JSON, a string of digits; 0: it makes no sense. */
uint64_t incarnation_read(const cJSON *item);
/* Those of a JSON array, which may be NULL. 0 or -ENOMEM. */
int incarnations_read(const cJSON *list, struct incarnations *ret);

#endif
