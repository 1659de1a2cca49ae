/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/audit.h"
#include "reaper/entry.h"

#include "base/cleanup.h"
#include "base/doc.h"
#include "base/fd.h"
#include "reaper/handle.h"
#include "reaper/result.h"

#include <stdlib.h>
#include <string.h>

/* ---- what is journaled ---- */

/* Is there a record of it, or of what it lies in? before: how many of the same kind and name were met before
 * it, each of which has a record of its own. */
static bool is_journaled(const struct rbxj_result *journaled, const struct audit_item *item, size_t before)
{
    size_t same = 0;
    for (size_t i = 0; i < journaled->len; i++) {
        for (size_t k = 0; k < journaled->boxes[i].len; k++) {
            const struct result_entry *entry = &journaled->boxes[i].entries[k];
            if (entry->kind == RBXJ_PROCESS || !path_is_below(item->name, entry->name))
                continue;
            bool equal = strcmp(item->name, entry->name) == 0;
            same += equal && entry->kind == item->kind;
            if (!equal && entry->kind != RBXJ_LOCK && entry->found == FOUND_PRESENT)
                return true;
        }
    }
    return same > before;
}

static void drop_journaled(struct audit *a, const struct rbxj_result *journaled)
{
    size_t n = 0, before = 0;
    for (size_t i = 0; i < a->len; i++) {
        struct audit_item *item = &a->items[i];
        bool again = i && item[-1].kind == item->kind && strcmp(item[-1].name, item->name) == 0;
        before = again ? before + 1 : 0;
        item->journaled = is_journaled(journaled, item, before);
    }
    for (size_t i = 0; i < a->len; i++) {
        if (a->items[i].journaled)
            audit_item_clear(&a->items[i]);
        else
            a->items[n++] = a->items[i];
    }
    a->len = n;
}

/* ---- what is there still ---- */

/* Is the mount there still, and the same? Its id may be another one's by now. */
static bool is_mounted(const struct mount_table *now, const struct mount_table *before, int32_t id)
{
    const struct mount *m = mount_table_by_id(now, id), *was = mount_table_by_id(before, id);
    return m && was && m->dev == was->dev && m->parent == was->parent &&
           strcmp(m->target, was->target) == 0 && strcmp(m->source, was->source) == 0;
}

/* 1: that very thing, or one of which that can't be told. 0, or -errno for want of memory or descriptors. */
static int is_there(const struct audit_item *item)
{
    struct fileid id;
    struct stat st;
    if (!fileid_is_set(&item->id)) {
        if (item->kind == RBXJ_MOUNT)
            return 1;
        if (lstat(item->name, &st) < 0)
            return errno_is_want(errno) ? -errno : errno != ENOENT && errno != ENOTDIR;
        return st.st_dev == item->dev && st.st_ino == item->ino;
    }
    int r = fileid_of_name(AT_FDCWD, item->name, &id);
    if (r < 0)
        return errno_is_want(-r) ? r : r != -ENOENT && r != -ENOTDIR;
    return fileid_equal(&item->id, &id, true);
}

static int drop_gone(struct audit *a, struct rbxj_error *e)
{
    struct mount_table *now = NULL;
    size_t n = 0;
    int r = a->len ? mount_table_read("/proc/self/mountinfo", &now, e) : 0;
    if (r < 0)
        return r;
    for (size_t i = 0; i < a->len; i++) {
        struct audit_item *item = &a->items[i];
        int there = r == 0 ? is_there(item) : 1;
        if (there > 0 && item->kind == RBXJ_MOUNT)
            there = is_mounted(now, a->table, item->mount_id);
        if (there < 0)
            r = error_sys(e, -there, "%s: is it there still", item->name);
        if (there)
            a->items[n++] = *item;
        else
            audit_item_clear(item);
    }
    a->len = n;
    mount_table_free(now);
    return r;
}

int audit_look(struct audit *a, struct rbxj_result **ret_journaled, struct rbxj_error *e)
{
    struct rbxj_result *journaled = NULL;
    a->answers.runtime_dir = a->config->runtime_dir;
    int r = audit_find(a, e);
    if (r == 0)
        r = inspect(a->config, NULL, NULL, &journaled, e);
    if (r == 0) {
        drop_journaled(a, journaled);
        r = drop_gone(a, e);
    }
    if (r == 0)
        *ret_journaled = steal_ptr(journaled);
    rbxj_result_free(journaled);
    return r;
}

/* ---- which of them ---- */

static bool is_named(const struct rbxj_audit *how, const char *name)
{
    for (size_t i = 0; i < how->names_len; i++)
        if (strcmp(how->names[i], name) == 0)
            return true;
    return !how->names;
}

/* A name that was typed and is not there is a mistake. */
static int check_names(const struct audit *a, const struct rbxj_audit *how, struct rbxj_error *e)
{
    for (size_t i = 0; i < how->names_len; i++) {
        size_t k = 0;
        while (k < a->len && strcmp(a->items[k].name, how->names[i]) != 0)
            k++;
        if (k == a->len)
            return error_set(e, RBXJ_E_BAD_REQUEST, 0,
                             "%s: is not among what looks like ours and is journaled nowhere", how->names[i]);
    }
    return 0;
}

static int adopt(struct audit *a, const struct rbxj_audit *how, struct rbxj_error *e)
{
    int r = check_names(a, how, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < a->len; i++) {
        struct audit_item *item = &a->items[i];
        item->left = !is_named(how, item->name) ||
                     (!item->live && how->ask &&
                      !how->ask(how->ask_data, kind_of(item->kind)->name, item->name));
    }
    r = how->ask ? audit_use(a, e) : 0; /* whoever was asked took his time */
    for (size_t i = 0; i < a->len && r == 0; i++)
        if (a->items[i].live && !a->items[i].left)
            (void)error_set(&a->items[i].refused, RBXJ_E_BUSY, EBUSY, "%s: %s", a->items[i].name,
                            a->items[i].user);
    return r < 0 ? r : audit_adopt(a, e);
}

/* ---- telling ---- */

static void tell_item(struct doc *doc, cJSON *list, const struct audit_item *item, int64_t now)
{
    cJSON *o = doc_object(doc, list, NULL);
    (void)doc_text(doc, o, "kind", kind_of(item->kind)->name);
    doc_name(doc, o, "name", item->name);
    (void)doc_text(doc, o, "pattern", item->pattern);
    doc_bool(doc, o, "live", item->live);
    (void)doc_text(doc, o, "user", item->user[0] ? item->user : NULL);
    int64_t age = (now - item->time_ns) / 1000000000;
    if (item->time_ns)
        doc_number(doc, o, "age_s", (double)age);
    if (item->pid) {
        doc_number(doc, o, "pid", item->pid);
        doc_bool(doc, o, "pid_is_dead", item->pid_is_dead);
    }
    (void)doc_text(doc, o, "adopted", item->box[0] ? item->box : NULL);
    doc_error(doc, o, "error", item->refused.code ? &item->refused : NULL);
}

bool audit_is_missing(const struct result_entry *entry)
{
    return entry->found == FOUND_GONE && entry->evidence && entry->kind != RBXJ_PROCESS &&
           kind_of(entry->kind);
}

static const struct result_entry *find_entry(const struct rbxj_result *boxes, uint64_t incarnation,
                                             uint32_t seq, bool *ret_given_back)
{
    for (size_t i = 0; i < boxes->len; i++) {
        const struct result_box *box = &boxes->boxes[i];
        for (size_t k = 0; box->box.incarnation == incarnation && k < box->len; k++)
            if (box->entries[k].seq == seq) {
                *ret_given_back = strcmp(box->state, "live") != 0 || box->claimed;
                return &box->entries[k];
            }
    }
    return NULL;
}

int audit_confirm_missing(const struct config *config, struct rbxj_result *boxes, struct rbxj_error *e)
{
    struct rbxj_result *again = NULL;
    int r = 0;
    for (size_t i = 0; i < boxes->len && r == 0; i++) {
        struct result_box *box = &boxes->boxes[i];
        for (size_t k = 0; strcmp(box->state, "live") == 0 && k < box->len && r == 0; k++) {
            struct result_entry *entry = &box->entries[k];
            bool given_back = box->claimed;
            if (!audit_is_missing(entry))
                continue;
            if (!given_back && !again)
                r = inspect(config, NULL, NULL, &again, e);
            const struct result_entry *now =
                given_back || r < 0 ? NULL : find_entry(again, box->box.incarnation, entry->seq, &given_back);
            if (!now || given_back || !audit_is_missing(now))
                entry->evidence = false; /* as if it had never been acquired */
        }
    }
    rbxj_result_free(again);
    return r;
}

static size_t tell_missing(struct doc *doc, cJSON *list, const struct rbxj_result *journaled)
{
    size_t n = 0;
    for (size_t i = 0; i < journaled->len; i++) {
        const struct result_box *box = &journaled->boxes[i];
        for (size_t k = 0; k < box->len; k++) {
            const struct result_entry *entry = &box->entries[k];
            if (!audit_is_missing(entry))
                continue;
            cJSON *o = doc_object(doc, list, NULL);
            (void)doc_text(doc, o, "box", box->box.name);
            (void)doc_text(doc, o, "state", box->state);
            doc_number(doc, o, "seq", entry->seq);
            (void)doc_text(doc, o, "kind", kind_of(entry->kind)->name);
            doc_name(doc, o, "name", entry->name);
            n++;
        }
    }
    return n;
}

static int tell(const struct audit *a, const struct rbxj_result *journaled, char **ret_json,
                struct rbxj_error *e)
{
    struct doc doc;
    int64_t now = now_realtime_ns();
    size_t left = 0;
    doc_init(&doc);
    cJSON *list = doc_array(&doc, doc.root, "unjournaled");
    for (size_t i = 0; i < a->len; i++) {
        tell_item(&doc, list, &a->items[i], now);
        left += !a->items[i].box[0];
    }
    left += tell_missing(&doc, doc_array(&doc, doc.root, "missing"), journaled);
    char *text = doc_finish(&doc);
    if (!text)
        return error_sys(e, ENOMEM, "audit");
    *ret_json = text;
    return left > 0;
}

int rbxj_audit(const struct rbxj_options *options, const struct rbxj_audit *how, char **ret_json,
               struct rbxj_error *error)
{
    _cleanup_(entry_leave) struct entry entry = entry_look();
    error_clear(error);
    static const struct rbxj_audit look;
    _cleanup_(config_clear) struct config config = {0};
    _cleanup_(audit_clear) struct audit a = {.config = &config};
    struct rbxj_result *journaled = NULL;
    if (!how)
        how = &look;
    int r = config_load(options, &config, error);
    if (r == 0)
        r = audit_look(&a, &journaled, error);
    if (r == 0)
        r = audit_confirm_missing(&config, journaled, error);
    if (r == 0)
        r = audit_use(&a, error);
    if (r == 0 && how->adopt)
        r = adopt(&a, how, error);
    if (r == 0)
        r = tell(&a, journaled, ret_json, error);
    rbxj_result_free(journaled);
    return r;
}
