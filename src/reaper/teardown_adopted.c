/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What was adopted was nobody's then. Unlike what a box has journaled, of which everybody knows whose it is,
 * it may be somebody's since: a supervisor that journals nothing takes an idle cgroup, a directory or a lock
 * into use again. Its identity is the same: that somebody uses it proves that it was not left behind. It is
 * refused, as K30 has it; a mount would be detached, where the configuration allows it.
 */
#include "reaper/teardown_steps.h"

#include "base/cleanup.h"
#include "reaper/audit.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Of a lock of which the flock is ours nobody else has any. */
static bool is_asked_for(const struct teardown_item *item)
{
    return item->record->kind != RBXJ_PROCESS && item->look.found == FOUND_PRESENT && item->lock_fd < 0;
}

static void refuse(struct teardown_item *item, const char *why, const char *who)
{
    item->look.found = FOUND_FOREIGN;
    item->look.refused = true;
    (void)error_set(&item->look.error, RBXJ_E_FOREIGN, 0, "%s: %s", item->record->path, why);
    error_detail(&item->look.error, "%s", who);
}

static void not_known(struct teardown *t, struct teardown_item *item, const struct rbxj_error *why)
{
    struct rbxj_error error = {0};
    if (!errno_is_want(why->errnum)) {
        refuse(item, "whether somebody uses it since it was adopted is not known", why->message);
        return;
    }
    (void)error_sys(&error, why->errnum, "%s: who uses it since it was adopted", item->record->path);
    teardown_cannot_ask(t, item, &error);
}

/* 0 or -ENOMEM. */
static int add(struct audit *a, const struct record *r)
{
    struct stat st = {0}; /* gone since: nobody holds that */
    char *name = strdup(r->path);
    if (!name)
        return -ENOMEM;
    (void)lstat(name, &st);
    a->items[a->len++] = (struct audit_item){.kind = r->kind,
                                             .name = name,
                                             .mount_id = r->mount.id,
                                             .dev = st.st_dev,
                                             .ino = st.st_ino,
                                             .time_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 +
                                                        st.st_mtim.tv_nsec};
    return 0;
}

static int search(struct audit *a, struct rbxj_error *e)
{
    int r = a->len ? mount_table_read("/proc/self/mountinfo", &a->table, e) : 0;
    return r == 0 && a->len ? audit_use(a, e) : r;
}

/* ---- of all boxes at once, where nothing is undone: each search is one of all processes ---- */

struct adopted {
    struct audit audit;
    const struct record **records; /* of each of its items */
    int result;
    struct rbxj_error error;
};

void adopted_free(struct adopted *all)
{
    if (!all)
        return;
    audit_clear(&all->audit);
    free(all->records);
    free(all);
}

static size_t count(const struct snapshot *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->len; i++)
        n += box_is_adopted(&s->boxes[i].box) ? s->boxes[i].len : 0;
    return n;
}

static int add_all(const struct snapshot *s, struct adopted *all)
{
    int r = 0;
    for (size_t i = 0; i < s->len; i++)
        for (size_t k = 0; box_is_adopted(&s->boxes[i].box) && k < s->boxes[i].len && r == 0; k++) {
            if (s->boxes[i].records[k].kind == RBXJ_PROCESS || !s->boxes[i].records[k].path)
                continue;
            all->records[all->audit.len] = &s->boxes[i].records[k];
            r = add(&all->audit, &s->boxes[i].records[k]);
        }
    return r;
}

/* NULL: want of memory. */
static const struct adopted *of_all(struct reaper *reaper)
{
    size_t room = count(reaper->snapshot) + 1;
    struct adopted *all = reaper->adopted ? NULL : calloc(1, sizeof(*all));
    if (!all)
        return reaper->adopted;
    all->audit.config = reaper->config;
    all->audit.answers.runtime_dir = reaper->config->runtime_dir;
    all->audit.items = calloc(room, sizeof(*all->audit.items));
    all->records = calloc(room, sizeof(*all->records));
    if (!all->audit.items || !all->records || add_all(reaper->snapshot, all) < 0) {
        adopted_free(all);
        return NULL;
    }
    all->result = search(&all->audit, &all->error);
    return reaper->adopted = all;
}

static const struct audit_item *item_of(const struct adopted *all, const struct record *r)
{
    for (size_t i = 0; i < all->audit.len; i++)
        if (all->records[i] == r)
            return &all->audit.items[i];
    return NULL;
}

static void judge(struct teardown *t, const struct adopted *all)
{
    const struct rbxj_error no_memory = {.errnum = ENOMEM};
    for (size_t i = 0; i < t->sb->len; i++) {
        struct teardown_item *item = &t->items[i];
        if (!is_asked_for(item))
            continue;
        const struct audit_item *found = all && all->result == 0 ? item_of(all, item->record) : NULL;
        if (!found)
            not_known(t, item, all ? &all->error : &no_memory);
        else if (found->live)
            refuse(item, "is in use since it was adopted", found->user);
    }
}

/* ---- of one box, as it is now ---- */

static int fill(const struct teardown *t, struct audit *a, struct rbxj_error *e)
{
    int r = 0;
    a->config = t->u.config;
    a->answers.runtime_dir = t->u.config->runtime_dir;
    a->items = calloc(t->sb->len + 1, sizeof(*a->items));
    for (size_t i = 0; a->items && i < t->sb->len && r == 0; i++)
        r = is_asked_for(&t->items[i]) ? add(a, t->items[i].record) : 0;
    if (!a->items || r < 0)
        return error_sys(e, ENOMEM, "who uses what was adopted");
    return search(a, e);
}

void teardown_look_at_adopted(struct teardown *t)
{
    _cleanup_(audit_clear) struct audit a = {.len = 0};
    struct rbxj_error e = {0};
    if (!box_is_adopted(&t->sb->box))
        return;
    if (t->u.dry_run && t->reaper->snapshot) {
        judge(t, of_all(t->reaper));
        return;
    }
    int r = fill(t, &a, &e);
    for (size_t i = 0, k = 0; i < t->sb->len; i++) {
        struct teardown_item *item = &t->items[i];
        if (!is_asked_for(item))
            continue;
        if (r < 0)
            not_known(t, item, &e);
        else if (a.items[k++].live)
            refuse(item, "is in use since it was adopted", a.items[k - 1].user);
    }
}
