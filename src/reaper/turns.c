/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/turns.h"

#include <errno.h>
#include <stdlib.h>

static int compare(const void *a, const void *b)
{
    uint64_t x = ((const struct turn *)a)->incarnation, y = ((const struct turn *)b)->incarnation;
    return (x > y) - (x < y);
}

static struct turn *find(const struct turns *t, uint64_t incarnation)
{
    struct turn key = {.incarnation = incarnation};
    return t->len ? bsearch(&key, t->list, t->len, sizeof(key), compare) : NULL;
}

bool turns_are_paused(const struct turns *t, int64_t now_ns)
{
    return now_ns < t->pause_until_ns;
}

ssize_t turns_choose(struct turns *t, const struct monitor_view *view, int64_t now_ns, const char **ret)
{
    ssize_t n = 0;
    struct turn *list = calloc(view->dead_len + 1, sizeof(*list));
    if (!list)
        return -ENOMEM;
    for (size_t i = 0; i < view->dead_len; i++) {
        const struct turn *known = find(t, view->dead[i].incarnation);
        list[i] = known ? *known : (struct turn){.incarnation = view->dead[i].incarnation};
        list[i].now = !turns_are_paused(t, now_ns) && list[i].next_ns <= now_ns;
        if (list[i].now)
            ret[n++] = view->dead[i].name;
    }
    qsort(list, view->dead_len, sizeof(*list), compare);
    free(t->list);
    t->list = list;
    t->len = view->dead_len;
    return n;
}

static int64_t longer(int64_t wait_ns, int64_t first_ns, int64_t most_ns)
{
    int64_t next = wait_ns < first_ns ? first_ns : 2 * wait_ns;
    return next < most_ns ? next : most_ns;
}

static void pause_all(struct turns *t, int64_t first_ns, int64_t most_ns, int64_t now_ns)
{
    t->pause_ns = longer(t->pause_ns, first_ns, most_ns);
    t->pause_until_ns = now_ns + t->pause_ns;
}

void turns_done(struct turns *t, int result, int64_t now_ns)
{
    bool died = result == -ECHILD;
    if (result == -RBXJ_E_BUSY || result == -RBXJ_E_JOURNAL_BUSY)
        pause_all(t, TURNS_BUSY_FIRST, TURNS_BUSY_MOST, now_ns);
    else if (result == -RBXJ_E_JOURNAL_DAMAGED)
        pause_all(t, TURNS_DAMAGED_FIRST, TURNS_MOST, now_ns);
    else if (result < 0 && !died)
        pause_all(t, TURNS_FAILED_FIRST, TURNS_MOST, now_ns);
    else
        t->pause_until_ns = t->pause_ns = 0;
    for (size_t i = 0; i < t->len; i++) {
        struct turn *turn = &t->list[i];
        if (turn->now && (result >= 0 || died)) {
            turn->wait_ns = longer(turn->wait_ns, died ? TURNS_FAILED_FIRST : TURNS_LEFT_FIRST, TURNS_MOST);
            turn->next_ns = now_ns + turn->wait_ns;
        }
        turn->now = false;
    }
}

int64_t turns_next(const struct turns *t)
{
    int64_t next = INT64_MAX;
    for (size_t i = 0; i < t->len; i++)
        if (t->list[i].next_ns < next)
            next = t->list[i].next_ns;
    return next < t->pause_until_ns ? t->pause_until_ns : next;
}

void turns_clear(struct turns *t)
{
    free(t->list);
    *t = (struct turns){0};
}
