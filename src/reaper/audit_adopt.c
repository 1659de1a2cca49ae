/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/audit.h"
#include "reaper/events.h"
#include "reaper/handle.h"
#include "reaper/intent.h"

#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#define ADOPTED "adopted-"
#define NOBODY 0 /* the start time of nobody who lives: such a box is stale at once */

/* What lies in another thing comes right after it. */
static int compare_paths(const void *a, const void *b)
{
    const struct audit_item *x = *(struct audit_item *const *)a, *y = *(struct audit_item *const *)b;
    const unsigned char *p = (const unsigned char *)x->name, *q = (const unsigned char *)y->name;
    for (; *p && *p == *q; p++, q++)
        ;
    int i = *p == '/' ? 1 : *p, k = *q == '/' ? 1 : *q;
    if (i != k)
        return i < k ? -1 : 1;
    /* on a directory something may be mounted */
    return x->kind == y->kind ? 0 : x->kind == RBXJ_MOUNT ? 1 : y->kind == RBXJ_MOUNT ? -1 : 0;
}

/* How many from the first on are one box: they lie in it. */
static size_t group_len(struct audit_item *const *items, size_t len)
{
    size_t n = 1;
    while (n < len && path_is_below(items[n]->name, items[0]->name))
        n++;
    return n;
}

static void name_box(struct box *box)
{
    uint8_t random[8];
    char hex[2 * sizeof(random) + 1];
    random_bytes(random, sizeof(random));
    hex_encode(hex, random, sizeof(random));
    (void)snprintf(box->name, sizeof(box->name), ADOPTED "%s", hex);
}

bool box_is_adopted(const struct box *box)
{
    return box->supervisor.start_time == NOBODY && strncmp(box->name, ADOPTED, strlen(ADOPTED)) == 0;
}

static void tell(const struct config *config, const struct box *box, const struct audit_item *item)
{
    event_send(config,
               &(struct event){.event = "adopted",
                               .priority = LOG_NOTICE,
                               .box = box->name,
                               .incarnation = box->incarnation,
                               .kind = kind_of(item->kind)->name,
                               .name = item->name},
               "%s %s: adopted into the journal as box %s, a replay undoes it", kind_of(item->kind)->name,
               item->name, box->name);
}

/* As far as both are known; they were read in this boot. */
static bool is_same_file(const struct fileid *found, const struct fileid *now)
{
    return !fileid_is_set(found) || !fileid_is_set(now) || fileid_equal(found, now, true);
}

static bool is_same_mount(const struct audit_item *item, const struct record *r)
{
    return r->mount.id == item->mount_id &&
           (!item->mount_unique || !r->mount.unique || r->mount.unique == item->mount_unique);
}

/* Is what was adopted what was found, and asked for? Of mounts on one another only the topmost can be
 * reached. A person takes his time to answer, and the number of what was removed since is given to the next
 * one (K3). */
static int check_same(const struct audit_item *item, const struct record *r, struct rbxj_error *e)
{
    bool same = item->kind == RBXJ_MOUNT ? is_same_mount(item, r)
                                         : r->id.dev == item->dev && r->id.ino == item->ino;
    if (same && is_same_file(&item->id, &r->id))
        return 0;
    return error_set(e, RBXJ_E_EXISTS, 0, "%s %s: another one is there, or on it, by now",
                     kind_of(item->kind)->name, item->name);
}

static int adopt_group(struct journal *j, const struct config *config, struct audit_item **items, size_t len,
                       struct record *plan, struct rbxj_error *e)
{
    struct box box = {.begun_ns = now_realtime_ns(), .supervisor = *journal_self(j)};
    struct undo u = {.config = config, .box = &box, .records = plan, .same_boot = true};
    box.supervisor.start_time = NOBODY;
    name_box(&box);
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        struct audit_item *item = items[i];
        struct rbxj_resource resource = {
            .kind = item->kind, .path = item->name, .fstype = item->fstype, .source = item->source};
        plan[n].seq = (uint32_t)n + 1;
        if (intent_adopt(&u, &resource, plan, n, &plan[n], &item->refused) < 0 ||
            check_same(item, &plan[n], &item->refused) < 0) {
            record_clear(&plan[n]);
            plan[n] = (struct record){0};
            continue;
        }
        (void)strcpy(item->box, box.name);
        u.records_len = ++n;
    }
    struct rbxj_error refused = {0};
    int r = n ? journal_begin(j, &box, plan, n, &refused) : 0;
    for (size_t i = 0; i < len; i++) {
        if (r == 0 && items[i]->box[0])
            tell(config, &box, items[i]);
        else if (items[i]->box[0])
            items[i]->refused = refused;
        if (r < 0)
            items[i]->box[0] = 0;
    }
    while (n)
        record_clear(&plan[--n]);
    (void)memset(plan, 0, len * sizeof(*plan));
    return r < 0 && r != -RBXJ_E_EXISTS ? error_pass(e, &refused) : 0;
}

int audit_adopt(struct audit *a, struct rbxj_error *e)
{
    struct journal *j, *own = NULL;
    size_t n = 0;
    _cleanup_free_ struct audit_item **items = calloc(a->len + 1, sizeof(struct audit_item *));
    _cleanup_free_ struct record *plan = calloc(a->len + 1, sizeof(*plan));
    if (!items || !plan)
        return error_sys(e, ENOMEM, "audit");
    for (size_t i = 0; i < a->len; i++)
        if (!a->items[i].live && !a->items[i].left)
            items[n++] = &a->items[i];
    if (!n)
        return 0;
    qsort(items, n, sizeof(struct audit_item *), compare_paths);
    int r = handle_borrow_journal(a->config, &j, &own, e);
    for (size_t i = 0, len; i < n && r == 0; i += len) {
        len = group_len(items + i, n - i);
        r = adopt_group(j, a->config, items + i, len, plan, e);
    }
    journal_close(own);
    return r;
}
