/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/escalation.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "reaper/events.h"
#include "reaper/incident.h"
#include "reaper/kernel.h"

#include <stdio.h>
#include <string.h>
#include <syslog.h>

#define FILE_NAME "escalated"

const struct escalation escalations[ESCALATIONS] = {
    {RBXJ_ESCALATE_FAILURES, "repeated_failure"},
    {RBXJ_ESCALATE_INCIDENTS, "frequent_incidents"},
    {RBXJ_ESCALATE_CORRUPTION, "corruption"},
    {RBXJ_ESCALATE_JOURNAL, "unusable_journal"},
    {RBXJ_ESCALATE_KERNEL, "kernel"},
};

static bool kernel_is_in_trouble(void)
{
    uint64_t taint;
    return kernel_taint_read(&taint) == 0 && (taint & KERNEL_TAINT_TROUBLE);
}

int escalation_of(const struct config *config, const struct rbxj_health *health,
                  const struct incident_counts *counts)
{
    size_t failures = counts->held > health->failed_cleanup_count ? counts->held
                                                                  : health->failed_cleanup_count;
    int reasons = 0;
    if (failures > (size_t)config->escalate_failures)
        reasons |= RBXJ_ESCALATE_FAILURES;
    if (counts->detected > (size_t)config->escalate_per_day)
        reasons |= RBXJ_ESCALATE_INCIDENTS;
    if (counts->corrupt)
        reasons |= RBXJ_ESCALATE_CORRUPTION;
    if (counts->kernel || kernel_is_in_trouble())
        reasons |= RBXJ_ESCALATE_KERNEL;
    return reasons;
}

/* ---- telling ---- */

/* "corruption kernel"; what a later version wrote is left out. */
static int parse(const char *text)
{
    int reasons = 0;
    for (const char *word = text; *word; word += strspn(word, " \n")) {
        size_t len = strcspn(word, " \n");
        for (size_t i = 0; i < ESCALATIONS; i++)
            if (strlen(escalations[i].name) == len && memcmp(escalations[i].name, word, len) == 0)
                reasons |= escalations[i].bit;
        word += len;
    }
    return reasons;
}

void escalation_format(int reasons, char *buf, size_t size)
{
    size_t used = 0;
    buf[0] = 0;
    for (size_t i = 0; i < ESCALATIONS && used < size; i++)
        if (reasons & escalations[i].bit)
            used += (size_t)snprintf(buf + used, size - used, "%s%s", used ? " " : "", escalations[i].name);
}

/* 0 or -errno. */
static int write_told(int dir, int reasons)
{
    char text[ESCALATION_TEXT_MAX];
    if (!reasons)
        return unlinkat(dir, FILE_NAME, 0) == 0 || errno == ENOENT ? 0 : -errno;
    escalation_format(reasons, text, sizeof(text));
    return fd_replace_file(dir, FILE_NAME, FILE_NAME ".", text, strlen(text), 0600, false);
}

void escalation_tell(const struct config *config, const struct rbxj_health *health)
{
    char text[ESCALATION_TEXT_MAX] = "", all[ESCALATION_TEXT_MAX];
    _cleanup_close_ int dir = fd_open_dir(AT_FDCWD, config->runtime_dir);
    if (dir < 0) /* nothing was ever journaled in this boot */
        return;
    (void)fd_read_file(dir, FILE_NAME, text, sizeof(text)); /* what can't be read is told once more */
    int told = parse(text), news = health->escalate & ~told;
    if (news) {
        escalation_format(news, text, sizeof(text));
        escalation_format(health->escalate, all, sizeof(all));
        event_send(config, &(struct event){.event = "worker_escalated", .priority = LOG_ERR, .cause = text},
                   "a person should look at this worker: %s; failed replays in a row: %u; it is %s", all,
                   health->failed_cleanup_count, health->status);
    }
    int r = health->escalate == told ? 0 : write_told(dir, health->escalate);
    if (r < 0)
        event_send(config, &(struct event){.event = "note", .priority = LOG_WARNING, .errnum = -r},
                   "%s/" FILE_NAME " could not be written: %s", config->runtime_dir, strerrordesc_np(-r));
}
