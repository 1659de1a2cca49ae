/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include "reaper/events.h"

#include "base/error.h"

#include <inttypes.h>
#include <syslog.h>
#include <systemd/sd-journal.h>

static void box_event(const struct rbxj_result *result, size_t i, const struct rbxj_result_box *box)
{
    struct rbxj_result_entry entry;
    for (size_t k = 0; rbxj_result_entry(result, i, k, &entry) == 0; k++) {
        if (!entry.error)
            continue;
        char name[512];
        escape_bytes(name, sizeof(name), entry.name, __builtin_strlen(entry.name));
        (void)sd_journal_send("MESSAGE=box %s: %s %s: %s: %s", box->box, entry.kind, name, entry.outcome,
                              entry.error->message, "PRIORITY=%i", LOG_WARNING, "RBXJ_EVENT=cleanup_failure",
                              "RBXJ_BOX=%s", box->box, "RBXJ_INCARNATION=%" PRIu64, box->incarnation,
                              "RBXJ_KIND=%s", entry.kind, "RBXJ_NAME=%s", name, "RBXJ_CAUSE=%s", box->cause,
                              "ERRNO=%i", entry.error->errnum, NULL);
        return;
    }
}

void events_replay(const struct rbxj_result *result)
{
    struct rbxj_result_info info;
    struct rbxj_result_box box;
    rbxj_result_info(result, &info);
    if (!info.boxes)
        return;
    for (size_t i = 0; rbxj_result_box(result, i, &box) == 0; i++)
        if (box.outcome && box.outcome[0] != 's')
            box_event(result, i, &box);
    (void)sd_journal_send("MESSAGE=replay: %zu stale boxes, %zu undone, %zu already gone, %zu left",
                          info.boxes, info.undone, info.already_gone, info.left, "PRIORITY=%i",
                          info.left ? LOG_WARNING : LOG_NOTICE, "RBXJ_EVENT=replay_done", NULL);
}

void events_problem(const char *what, const char *message)
{
    char shown[512];
    escape_bytes(shown, sizeof(shown), message, __builtin_strlen(message));
    (void)sd_journal_send("MESSAGE=%s: %s", what, shown, "PRIORITY=%i", LOG_WARNING, "RBXJ_EVENT=note", NULL);
}

void events_forget(const char *box, uint64_t incarnation, uint32_t seq, const char *name, const char *reason)
{
    char shown[512], why[256];
    escape_bytes(shown, sizeof(shown), name, __builtin_strlen(name));
    escape_bytes(why, sizeof(why), reason, __builtin_strlen(reason));
    (void)sd_journal_send("MESSAGE=box %s: seq %" PRIu32 " (%s) was forgotten: %s", box, seq, shown, why,
                          "PRIORITY=%i", LOG_WARNING, "RBXJ_EVENT=record_forgotten", "RBXJ_BOX=%s", box,
                          "RBXJ_INCARNATION=%" PRIu64, incarnation, "RBXJ_NAME=%s", shown, NULL);
}
