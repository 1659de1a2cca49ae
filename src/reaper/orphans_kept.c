/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The orphans that were found, for as long as they live: what proved them goes with the box. They die with
 * the boot at the latest, so the file is in the runtime directory, and those of another boot do not count.
 */
#include "base/cleanup.h"
#include "base/doc.h"
#include "base/fd.h"
#include "reaper/orphans.h"

#include <stdlib.h>
#include <string.h>

#define FILE_NAME "orphans"
#define FILE_MAX (16 << 20) /* of some 60,000 */

struct last_asked {
    uint64_t pid_ns;
    int used;
};

static uint64_t read_number(const cJSON *item, const char *key)
{
    const char *text = doc_get_text(item, key);
    return text ? strtoull(text, NULL, 10) : 0;
}

static int read_one(const cJSON *item, const uint8_t boot[16], struct orphans *ret)
{
    const char *of = doc_get_text(item, "boot_id"), *box = doc_get_text(item, "box");
    struct procid id = {.pid = (int32_t)doc_get_number(item, "pid", 0),
                        .start_time = read_number(item, "start_time"),
                        .pid_ns = read_number(item, "pid_ns"),
                        .time_ns = read_number(item, "time_ns")};
    char hex[33];
    if (!of || id.pid <= 0)
        return -EBADMSG;
    hex_encode(hex, boot, 16);
    memcpy(id.boot_id, boot, 16);
    if (strcmp(of, hex) != 0)
        return 0;
    int r = orphans_add(ret, &id, box && box_name_is_valid(box) ? box : "");
    if (r == 0)
        ret->list[ret->len - 1].told = doc_get_true(item, "told");
    return r;
}

static int read_all(const struct config *config, struct orphans *ret)
{
    _cleanup_free_ char *text = NULL;
    cJSON *json = NULL;
    uint8_t boot[16];
    _cleanup_close_ int dir = fd_open_dir(AT_FDCWD, config->runtime_dir);
    ssize_t n = dir < 0 ? dir : fd_read_all(dir, FILE_NAME, FILE_MAX, &text);
    if (n < 0)
        return n == -ENOENT ? 0 : (int)n;
    int r = doc_parse(text, (size_t)n, &json);
    if (r == 0)
        r = procid_boot(boot);
    if (r == 0 && !cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(json, "orphans")))
        r = -EBADMSG;
    for (const cJSON *item = r == 0 ? doc_get_first(json, "orphans") : NULL; item && r == 0;
         item = item->next)
        r = read_one(item, boot, ret);
    cJSON_Delete(json);
    return r;
}

/* Has that pid namespace ended, and with it every process that had a number in it? Known only where all are
 * seen: in the initial one. The first of a namespace is there until the last of it is dead. 1, 0: that may be
 * another by now, or it can't be told, or a negative errno for want of memory or descriptors. last: of the
 * question before this one. */
static int has_ended(const struct procid *self, uint64_t pid_ns, struct last_asked *last)
{
    if (self->pid_ns != PROCID_INITIAL_PID_NS || !pid_ns || pid_ns == self->pid_ns)
        return 0;
    if (pid_ns != last->pid_ns)
        *last = (struct last_asked){pid_ns, procid_pid_ns_is_used(pid_ns)};
    return last->used < 0 && errno_is_want(-last->used) ? last->used : last->used == 0;
}

/* Those that another pid or time namespace has named can't be found here by their numbers; those of one that
 * has ended are dead. */
static int keep_comparable(struct orphans *o, struct orphans *elsewhere)
{
    struct procid self;
    struct last_asked last = {0};
    size_t n = 0;
    int r = procid_of(getpid(), &self);
    for (size_t i = 0; i < o->len && r == 0; i++) {
        bool here = procid_comparable(&self, &o->list[i].id);
        int ended = here ? 0 : has_ended(&self, o->list[i].id.pid_ns, &last);
        o->blind = o->blind || (!here && !ended);
        if (here)
            o->list[n++] = o->list[i];
        else if (ended < 0)
            r = ended;
        else if (!ended && elsewhere)
            r = orphans_copy(elsewhere, &o->list[i]);
    }
    o->len = n;
    return r;
}

int orphans_load(const struct config *config, struct orphans *ret, struct orphans *elsewhere)
{
    struct orphans o = {0};
    int r = read_all(config, &o);
    if (r == 0)
        r = keep_comparable(&o, elsewhere);
    if (r < 0) {
        orphans_clear(&o);
        return r;
    }
    orphans_keep_living(&o, 0);
    for (size_t i = 0; i < o.len && r == 0; i++)
        r = orphans_copy(ret, &o.list[i]);
    ret->blind = ret->blind || o.blind;
    orphans_clear(&o);
    return r;
}

static char *text_of(const struct orphans *o)
{
    struct doc doc;
    char boot[33];
    doc_init(&doc);
    cJSON *list = doc_array(&doc, doc.root, "orphans");
    for (size_t i = 0; i < o->len; i++) {
        const struct procid *id = &o->list[i].id;
        cJSON *item = doc_object(&doc, list, NULL);
        hex_encode(boot, id->boot_id, 16);
        (void)doc_text(&doc, item, "box", o->list[i].box);
        doc_number(&doc, item, "pid", id->pid);
        doc_number64(&doc, item, "start_time", id->start_time);
        doc_number64(&doc, item, "pid_ns", id->pid_ns);
        doc_number64(&doc, item, "time_ns", id->time_ns);
        (void)doc_text(&doc, item, "boot_id", boot);
        doc_bool(&doc, item, "told", o->list[i].told);
    }
    return doc_finish(&doc);
}

int orphans_store(const struct config *config, const struct orphans *o)
{
    _cleanup_close_ int dir = fd_open_dir(AT_FDCWD, config->runtime_dir);
    if (dir < 0)
        return dir;
    if (!o->len)
        return unlinkat(dir, FILE_NAME, 0) < 0 && errno != ENOENT ? -errno : 0;
    _cleanup_free_ char *text = text_of(o);
    return text ? fd_replace_file(dir, FILE_NAME, FILE_NAME ".", text, strlen(text), 0600, false) : -ENOMEM;
}

int orphans_note_told(const struct config *config, const struct orphans *told)
{
    _cleanup_(orphans_clear) struct orphans kept = {0}, elsewhere = {0};
    int r = orphans_load(config, &kept, &elsewhere);
    for (size_t i = 0; i < kept.len; i++)
        for (size_t k = 0; k < told->len && !kept.list[i].told; k++)
            kept.list[i].told = procid_equal(&kept.list[i].id, &told->list[k].id);
    for (size_t i = 0; i < elsewhere.len && r == 0; i++)
        r = orphans_copy(&kept, &elsewhere.list[i]);
    return r < 0 ? r : orphans_store(config, &kept);
}
