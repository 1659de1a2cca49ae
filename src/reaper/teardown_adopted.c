/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What was adopted was nobody's then. Unlike what a box has journaled, of which everybody knows whose it is, it may be
 * somebody's since: a supervisor that journals nothing takes an idle cgroup, or a directory, into use again. Its identity is
 * the same: that somebody uses it proves that it was not left behind. It is refused, as K30 has it (a lock that is held is
 * K7's); a mount would be detached, where the configuration allows it.
 */
#include "reaper/teardown_steps.h"

#include "base/cleanup.h"
#include "reaper/audit.h"

#include <stdlib.h>
#include <string.h>

static bool is_asked_for(const struct teardown_item *item)
{
    enum rbxj_kind kind = item->record->kind;
    return (kind == RBXJ_TMPDIR || kind == RBXJ_CGROUP || kind == RBXJ_MOUNT) &&
           item->look.found == FOUND_PRESENT;
}

static void refuse(struct teardown_item *item, const char *why, const char *who)
{
    item->look.found = FOUND_FOREIGN;
    item->look.refused = true;
    (void)error_set(&item->look.error, RBXJ_E_FOREIGN, 0, "%s: %s", item->record->path, why);
    error_detail(&item->look.error, "%s", who);
}

static int fill(const struct teardown *t, struct audit *a, struct rbxj_error *e)
{
    a->config = t->u.config;
    a->answers.runtime_dir = t->u.config->runtime_dir;
    a->items = calloc(t->sb->len + 1, sizeof(*a->items));
    for (size_t i = 0; a->items && i < t->sb->len; i++) {
        if (!is_asked_for(&t->items[i]))
            continue;
        char *name = strdup(t->items[i].record->path);
        if (!name)
            return error_sys(e, ENOMEM, "who uses what was adopted");
        const struct record *r = t->items[i].record;
        a->items[a->len++] = (struct audit_item){.kind = r->kind, .name = name, .mount_id = r->mount.id};
    }
    if (!a->items)
        return error_sys(e, ENOMEM, "who uses what was adopted");
    return a->len ? mount_table_read("/proc/self/mountinfo", &a->table, e) : 0;
}

void teardown_look_at_adopted(struct teardown *t)
{
    _cleanup_(audit_clear) struct audit a = {.len = 0};
    struct rbxj_error e = {0};
    if (!box_is_adopted(&t->sb->box))
        return;
    int r = fill(t, &a, &e);
    if (r == 0 && a.len)
        r = audit_use(&a, &e);
    for (size_t i = 0, k = 0; i < t->sb->len; i++) {
        struct teardown_item *item = &t->items[i];
        if (!is_asked_for(item))
            continue;
        if (r < 0)
            refuse(item, "whether somebody uses it since it was adopted is not known", e.message);
        else if (a.items[k++].live)
            refuse(item, "is in use since it was adopted", a.items[k - 1].user);
    }
}
