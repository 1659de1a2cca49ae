/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Double entry: what the supervisors say that they began and ended, against what the reapers say that they
 * undid.
 *
 *   a box that its supervisor ended          was ended by no reaper
 *   begun, then its supervisor was killed    by one, once
 *   killed in rbxj_end()                     by one at most
 *   killed in rbxj_begin()                   is unknown to its supervisor: one at most, under its slot's name
 *   refused                                  is unknown to everybody
 */
#include "soak.h"

#include "base/cleanup.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct ended {
    uint64_t incarnation;
    unsigned slot;
    bool known;
} * ended;
static size_t ended_len, ended_size;

static void note(struct soak *s, uint64_t incarnation, const char *name)
{
    if (ended_len == ended_size) {
        ended_size = ended_size ? ended_size * 2 : 4096;
        struct ended *grown = reallocarray(ended, ended_size, sizeof(*ended));
        if (!grown)
            abort();
        ended = grown;
    }
    ended[ended_len++] = (struct ended){incarnation, (unsigned)strtoul(name + 1, NULL, 10), false};
    if (name[0] != 's')
        (void)soak_fail(s, "a reaper undid box %s, which is nobody's", name);
}

/* Whatever failed of it failed for a reason that goes by itself. */
static bool is_copied(const cJSON *box)
{
    const cJSON *entry;
    bool copied = false;
    cJSON_ArrayForEach(entry, cJSON_GetObjectItemCaseSensitive(box, "entries"))
    {
        const char *outcome = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "outcome"));
        const char *message = cJSON_GetStringValue(
            cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(entry, "error"), "message"));
        if (!outcome || strcmp(outcome, "failed") != 0)
            continue;
        if (!message || !strstr(message, SOAK_COPY))
            return false;
        copied = true;
    }
    return copied;
}

/* Nothing but a success ends a box. */
void soak_account_report(struct soak *s, const char *text)
{
    cJSON *json = cJSON_Parse(text);
    const cJSON *box, *boxes = cJSON_GetObjectItemCaseSensitive(json, "boxes");
    if (!cJSON_IsArray(boxes))
        (void)soak_fail(s, "a replay reports: %.2000s", text);
    cJSON_ArrayForEach(box, boxes)
    {
        const char *outcome = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(box, "outcome"));
        const char *incarnation = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(box, "incarnation"));
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(box, "box"));
        if (outcome && incarnation && name && strcmp(outcome, "success") == 0) {
            note(s, strtoull(incarnation, NULL, 10), name);
        } else if (is_copied(box)) {
            atomic_fetch_add(&s->copied, 1);
        } else {
            _cleanup_free_ char *printed = cJSON_Print(box);
            (void)soak_fail(s, "a replay left: %.3000s", printed ? printed : "?");
        }
    }
    cJSON_Delete(json);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = ((const struct ended *)a)->incarnation, y = ((const struct ended *)b)->incarnation;
    return (x > y) - (x < y);
}

static struct ended *find(uint64_t incarnation)
{
    struct ended key = {.incarnation = incarnation};
    return ended_len ? bsearch(&key, ended, ended_len, sizeof(key), compare) : NULL;
}

void soak_account_close(struct soak *s)
{
    uint32_t n = atomic_load(&s->next), in_begin[SOAK_SLOTS] = {0}, unknown[SOAK_SLOTS] = {0};
    if (ended_len)
        qsort(ended, ended_len, sizeof(*ended), compare);
    for (size_t i = 1; i < ended_len; i++)
        if (ended[i].incarnation == ended[i - 1].incarnation)
            (void)soak_fail(s, "incarnation %" PRIu64 " of s%02u was undone twice", ended[i].incarnation,
                            ended[i].slot);
    for (uint32_t i = 0; i < n; i++) {
        const struct soak_box *box = &s->box[i];
        uint32_t state = atomic_load(&box->state);
        struct ended *e = state == SOAK_BEGUN || state == SOAK_ENDING || state == SOAK_ENDED
                              ? find(box->incarnation)
                              : NULL;
        if (e)
            e->known = true;
        in_begin[box->slot] += state == SOAK_BEGINNING;
        if (state == SOAK_ENDED && e)
            (void)soak_fail(s, "incarnation %" PRIu64 " of s%02u ended, and was undone, too",
                            box->incarnation, box->slot);
        if (state == SOAK_BEGUN && !e)
            (void)soak_fail(s, "incarnation %" PRIu64 " of s%02u never ended and was undone by nobody",
                            box->incarnation, box->slot);
    }
    for (size_t i = 0; i < ended_len; i++)
        if (!ended[i].known && ended[i].slot < SOAK_SLOTS)
            unknown[ended[i].slot]++;
    for (unsigned slot = 0; slot < SOAK_SLOTS; slot++)
        if (unknown[slot] > in_begin[slot])
            (void)soak_fail(s, "of s%02u %u incarnations were undone that nobody began; %u died in begin",
                            slot, unknown[slot], in_begin[slot]);
}

uint64_t soak_account_undone(void)
{
    return ended_len;
}
