/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/evidence.h"

#include "base/cleanup.h"
#include "base/doc.h"
#include "reaper/entry.h"
#include "reaper/handle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[EVIDENCE_KINDS] = {
    [EVIDENCE_ORPHAN] = "orphan_process",        [EVIDENCE_ZOMBIE] = "zombie_process",
    [EVIDENCE_BLOCKED] = "blocked_process",      [EVIDENCE_FOREIGN] = "foreign_resource",
    [EVIDENCE_EXHAUSTED] = "exhausted_resource", [EVIDENCE_UNKNOWN] = "unknown",
};

const char *evidence_name(enum evidence_kind kind)
{
    return names[kind];
}

void evidence_clear(struct evidence *ev)
{
    free(ev->items);
    *ev = (struct evidence){0};
}

int evidence_add(struct evidence *ev, enum evidence_kind kind, const char *format, ...)
{
    char text[sizeof(ev->items->text)];
    va_list args;
    if (ev->counts[kind]++ >= EVIDENCE_TOLD)
        return 0;
    struct evidence_item *grown = reallocarray(ev->items, ev->len + 1, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    ev->items = grown;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    ev->items[ev->len].kind = kind;
    escape_bytes(ev->items[ev->len].text, sizeof(text), text, strlen(text));
    ev->len++;
    return 0;
}

const char *evidence_first(const struct evidence *ev, enum evidence_kind kind)
{
    for (size_t i = 0; i < ev->len; i++)
        if (ev->items[i].kind == kind)
            return ev->items[i].text;
    return NULL;
}

void evidence_tell(const struct evidence *ev, struct doc *doc)
{
    cJSON *list = doc_array(doc, doc->root, "evidence");
    for (size_t i = 0; i < ev->len; i++) {
        cJSON *o = doc_object(doc, list, NULL);
        (void)doc_text(doc, o, "kind", evidence_name(ev->items[i].kind));
        (void)doc_text(doc, o, "message", ev->items[i].text);
    }
}

int rbxj_evidence(const struct rbxj_options *options, char **ret_json, struct rbxj_error *error)
{
    _cleanup_(entry_leave) struct entry entry = entry_look();
    error_clear(error);
    _cleanup_(config_clear) struct config config = {0};
    _cleanup_(evidence_clear) struct evidence ev = {0};
    struct rbxj_health health;
    struct doc doc;
    int r = config_load(options, &config, error);
    if (r == 0)
        r = health_look(&config, NULL, &health, NULL, &ev, error);
    if (r < 0)
        return r;
    doc_init(&doc);
    evidence_tell(&ev, &doc);
    char *text = doc_finish(&doc);
    if (!text)
        return error_sys(error, ENOMEM, "health");
    *ret_json = text;
    return 0;
}
