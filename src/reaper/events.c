/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a datagram of lines KEY=value, as values
 * hold no newline here. sd_journal_sendv(3) waits without a bound for a journald that is stopped, or waits
 * for its own disk, and so would the undo.
 */
#include "reaper/events.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "reaper/event_ids.h"
#include "reaper/result.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <syslog.h>

#define JOURNALD_SOCKET "/run/systemd/journal/socket"

/* What a value may take when it is escaped; what is longer is cut. */
enum { FIELD_MAX = 700, FIELDS = 12 };

struct fields {
    char text[FIELDS][FIELD_MAX];
    struct iovec io[FIELDS];
    int len;
};

/* key ends in "=". value NULL: left out. */
static void field(struct fields *f, const char *key, const char *value)
{
    if (!value)
        return;
    char *text = f->text[f->len];
    size_t n = (size_t)snprintf(text, FIELD_MAX, "%s", key); /* a literal, short */
    escape_bytes(text + n, FIELD_MAX - n - 1, value, strlen(value));
    n = strlen(text);
    text[n] = '\n';
    f->io[f->len++] = (struct iovec){text, n + 1};
}

static void number(struct fields *f, const char *key, uint64_t value)
{
    char text[24];
    (void)snprintf(text, sizeof(text), "%" PRIu64, value);
    field(f, key, text);
}

/* NULL: it has none, which a test finds. */
static const char *message_id(const char *name)
{
#define ROW(event, id) {event, id},
    static const struct {
        const char *name, *id;
    } rows[] = {EVENT_IDS(ROW)};
#undef ROW
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (strcmp(rows[i].name, name) == 0)
            return rows[i].id;
    return NULL;
}

/* False: nobody there has heard it. */
static bool send_to_journald(const struct event *event, const char *message)
{
    static atomic_bool deaf;
    struct fields f = {.len = 0};
    field(&f, "MESSAGE=", message);
    field(&f, "MESSAGE_ID=", message_id(event->event));
    number(&f, "PRIORITY=", (uint64_t)event->priority);
    field(&f, "SYSLOG_IDENTIFIER=", program_invocation_short_name);
    field(&f, "RBXJ_EVENT=", event->event);
    field(&f, "RBXJ_BOX=", event->box);
    if (event->incarnation)
        number(&f, "RBXJ_INCARNATION=", event->incarnation);
    field(&f, "RBXJ_KIND=", event->kind);
    field(&f, "RBXJ_NAME=", event->name);
    field(&f, "RBXJ_CAUSE=", event->cause);
    field(&f, "RBXJ_INCIDENT=", event->incident);
    if (event->errnum)
        number(&f, "ERRNO=", (uint64_t)event->errnum);
    return fd_send_datagram(JOURNALD_SOCKET, f.io, (size_t)f.len, &deaf) == 0;
}

void event_send(const struct config *config, const struct event *event, const char *format, ...)
{
    char message[FIELD_MAX], safe[FIELD_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    if (send_to_journald(event, message) || !config->event)
        return;
    escape_bytes(safe, sizeof(safe), message, strlen(message));
    config->event(config->event_data, event->event, safe);
}

const char *event_of_entry(const struct rbxj_result_box *box, const struct rbxj_result_entry *entry)
{
    if (strcmp(box->state, "held") == 0)
        return "orphan_detected";
    if (entry->error && entry->error->errnum == ETIMEDOUT)
        return "cleanup_timeout";
    if (strcmp(entry->kind, "mount") == 0)
        return "mount_unmount_failed";
    if (strcmp(entry->kind, "cgroup") == 0)
        return "cgroup_removal_failed";
    return strcmp(entry->kind, "process") == 0 ? "process_reap_failed" : "cleanup_failure";
}

/* The first reason that there is. */
static void box_event(const struct config *config, const struct rbxj_result *result, size_t i,
                      const struct rbxj_result_box *box)
{
    struct rbxj_result_entry entry;
    struct event event = {
        .event = "cleanup_failure",
        .priority = LOG_WARNING,
        .box = box->box,
        .incarnation = box->incarnation,
        .cause = box->cause,
        .incident = box->incident,
    };
    for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0; k++) {
        if (!entry.error)
            continue;
        event.event = event_of_entry(box, &entry);
        event.kind = entry.kind;
        event.name = entry.name;
        event.errnum = entry.error->errnum;
        const char *detail = entry.error->detail; /* who holds it, what to do */
        event_send(config, &event, "box %s: %s %.200s: %s: %s%s%s", box->box, entry.kind, entry.name,
                   entry.outcome ? entry.outcome : "left", entry.error->message, *detail ? "; " : "", detail);
        return;
    }
    event_send(config, &event, "box %s: left: %s", box->box, box->state);
}

void events_boxes(const struct config *config, const struct rbxj_result *result)
{
    enum { BOXES_TOLD = 100 }; /* the incident has the others; the log is not to be flooded */
    struct rbxj_result_box box;
    size_t left = 0;
    for (size_t i = 0; rbxj_result_box(result, i, &box) == 0; i++)
        if (box.outcome && strcmp(box.outcome, "success") != 0 && left++ < BOXES_TOLD)
            box_event(config, result, i, &box);
    if (left > BOXES_TOLD)
        event_send(config, &(struct event){.event = "cleanup_failure", .priority = LOG_WARNING},
                   "%zu more boxes are left", left - BOXES_TOLD);
}

/* Of all its boxes, or NULL: some are of other ones. */
static const char *one_incident(const struct rbxj_result *result)
{
    const char *incident = result->boxes[0].incident;
    for (size_t i = 1; i < result->len; i++)
        if (strcmp(result->boxes[i].incident, incident) != 0)
            return NULL;
    return incident[0] ? incident : NULL;
}

void events_replay(const struct config *config, const struct rbxj_result *result)
{
    struct rbxj_result_info info;
    rbxj_result_info(result, &info);
    if (!info.boxes)
        return;
    events_boxes(config, result);
    struct event event = {.event = "replay_done",
                          .priority = info.left ? LOG_WARNING : LOG_NOTICE,
                          .incident = one_incident(result)};
    event_send(config, &event, "%zu stale boxes: %zu undone, %zu already gone, %zu left", info.boxes,
               info.undone, info.already_gone, info.left);
}
