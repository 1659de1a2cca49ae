/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_names.h"

#include "crash.h"

#include <stdlib.h>
#include <string.h>

static char *copy_text(const char *text)
{
    char *copy = text ? strdup(text) : NULL;
    assert_true(!text || copy);
    return copy;
}

static struct disk_name *find(struct disk_name *names, size_t n, const char *name)
{
    for (size_t i = 0; names && i < n; i++)
        if (names[i].name && strcmp(names[i].name, name) == 0)
            return &names[i];
    return NULL;
}

void disk_names_free(struct disk_name *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(names[i].name);
    free(names);
}

static void names_copy(struct disk_name **to, size_t *to_len, const struct disk_name *from, size_t n)
{
    *to = NULL;
    *to_len = 0;
    for (size_t i = 0; i < n; i++)
        *DISK_GROW(*to, *to_len) = (struct disk_name){copy_text(from[i].name), from[i].node};
}

static void change_names(struct disk_name **names, size_t *len, const struct disk_change *c)
{
    struct disk_name *list = *names, *old = c->from ? find(list, *len, c->from) : NULL;
    if (old && list) {
        free(old->name);
        *old = list[--*len];
    }
    if (!c->to)
        return;
    old = find(*names, *len, c->to);
    if (old)
        old->node = c->node;
    else
        *DISK_GROW(*names, *len) = (struct disk_name){copy_text(c->to), c->node};
}

static bool same(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

void disk_names_change(struct disk_names *dir, const char *from, const char *to, struct disk_node *node)
{
    size_t group = dir->changes_len;
    struct disk_change c = {copy_text(from), copy_text(to), node, group};
    for (size_t i = 0; i < dir->changes_len; i++) {
        struct disk_change *o = &dir->changes[i];
        bool shared = same(o->from, from) || same(o->from, to) || same(o->to, from) || same(o->to, to);
        for (size_t k = 0; shared && k < dir->changes_len; k++)
            if (k != i && dir->changes[k].group == o->group)
                dir->changes[k].group = group;
        if (shared)
            o->group = group;
    }
    *DISK_GROW(dir->changes, dir->changes_len) = c;
    change_names(&dir->now, &dir->now_len, &c);
}

void disk_names_sync(struct disk_names *dir)
{
    disk_names_free(dir->durable, dir->durable_len);
    names_copy(&dir->durable, &dir->durable_len, dir->now, dir->now_len);
    for (size_t i = 0; i < dir->changes_len; i++) {
        free(dir->changes[i].from);
        free(dir->changes[i].to);
    }
    free(dir->changes);
    dir->changes = NULL;
    dir->changes_len = 0;
}

struct disk_node *disk_names_find(const struct disk_names *names, const char *name)
{
    struct disk_name *found = find(names->now, names->now_len, name);
    return found ? found->node : NULL;
}

void disk_names_clear(struct disk_names *names)
{
    disk_names_sync(names);
    disk_names_free(names->durable, names->durable_len);
    disk_names_free(names->now, names->now_len);
}

/* Which of n versions is on disk. */
size_t disk_choose(struct disk_cut *cut, size_t n)
{
    if (n < 2 || cut->whole || crash_random(&cut->random) % 100 < cut->newest)
        return n - 1;
    return crash_random(&cut->random) % (n - 1);
}

struct disk_name *disk_names_cut(const struct disk_names *dir, struct disk_cut *cut, size_t *ret_len)
{
    size_t *left = calloc(dir->changes_len + 1, sizeof(*left));
    assert_non_null(left);
    for (size_t i = 0; i < dir->changes_len; i++) {
        size_t group = dir->changes[i].group, n = 0, k = 0;
        while (k < i && dir->changes[k].group != group)
            k++;
        if (k < i)
            continue; /* not the first of its group */
        for (; k < dir->changes_len; k++)
            n += dir->changes[k].group == group;
        left[group] = disk_choose(cut, n + 1);
    }
    struct disk_name *list;
    names_copy(&list, ret_len, dir->durable, dir->durable_len);
    for (size_t i = 0; i < dir->changes_len; i++)
        if (left[dir->changes[i].group]) {
            left[dir->changes[i].group]--;
            change_names(&list, ret_len, &dir->changes[i]);
        }
    free(left);
    return list;
}
