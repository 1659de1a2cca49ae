/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/quarantine.h"

#include "base/cleanup.h"
#include "base/doc.h"
#include "base/fd.h"
#include "journal/journal.h"

#include <stdio.h>
#include <string.h>

#define FILE_NAME "quarantine"
#define FLAG_NAME "quarantined"
#define TEXT_MAX 4096

static const char *const names[QUARANTINE_REASONS] = {
    [QUARANTINE_CLEANUP_FAILURE] = "cleanup_failure",
    [QUARANTINE_ORPHAN_PROCESS] = "orphan_process_detected",
    [QUARANTINE_BASELINE] = "baseline_equivalence_failed",
    [QUARANTINE_EXHAUSTION] = "resource_exhaustion",
    [QUARANTINE_CORRUPTION] = "journal_corruption",
    [QUARANTINE_MANUAL] = "manual_quarantine",
};

const char *quarantine_name(enum quarantine_reason reason)
{
    return names[reason];
}

bool quarantine_is_released_by_recovery(enum quarantine_reason reason)
{
    return reason == QUARANTINE_CLEANUP_FAILURE || reason == QUARANTINE_ORPHAN_PROCESS ||
           reason == QUARANTINE_EXHAUSTION;
}

/* ---- reading ---- */

/* What can't be looked at counts as being there. */
static bool exists(const char *dir, const char *name)
{
    char path[RECORD_PATH_MAX + 16];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return lstat(path, &st) == 0 || errno != ENOENT;
}

bool quarantine_is_set(const struct config *config)
{
    return exists(config->state_dir, FILE_NAME) || exists(config->runtime_dir, FLAG_NAME);
}

/* Fills ret from the file's text; false: it makes no sense. */
static bool parse(const char *text, struct quarantine *ret)
{
    cJSON *json = cJSON_Parse(text);
    const char *reason = doc_get_text(json, "reason"), *detail = doc_get_text(json, "detail"),
               *timestamp = doc_get_text(json, "timestamp");
    bool known = false;
    for (size_t i = 0; reason && i < QUARANTINE_REASONS; i++)
        if (strcmp(reason, names[i]) == 0) {
            ret->reason = (enum quarantine_reason)i;
            known = true;
        }
    if (detail)
        escape_bytes(ret->detail, sizeof(ret->detail), detail, strlen(detail));
    if (timestamp)
        (void)doc_parse_time(timestamp, &ret->since_ns);
    cJSON_Delete(json);
    return known;
}

void quarantine_read(const struct config *config, struct quarantine *ret)
{
    char path[RECORD_PATH_MAX + 16], text[TEXT_MAX];
    struct stat st;
    *ret = (struct quarantine){.there = quarantine_is_set(config), .reason = QUARANTINE_MANUAL};
    if (!ret->there)
        return;
    (void)snprintf(path, sizeof(path), "%s/" FILE_NAME, config->state_dir);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    ssize_t n = -1;
    if (fd < 0 && errno == ENOENT) {
        (void)snprintf(ret->detail, sizeof(ret->detail), "only its flag is there: %.300s/" FLAG_NAME,
                       config->runtime_dir);
        return;
    }
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        n = pread(fd, text, sizeof(text) - 1, 0);
    text[n < 0 ? 0 : n] = 0;
    if (n < 0 || !parse(text, ret))
        (void)snprintf(ret->detail, sizeof(ret->detail), "its file can't be read: %.300s", path);
}

/* ---- entering and leaving ---- */

/* An empty state directory beside a boot journal is a mount point without its disk: nothing is made there
 * (K33). */
static bool state_is_lost(const struct config *config, int dir)
{
    return fd_dir_is_empty(dir) != 0 &&
           snapshot_is_nothing(config->state_dir, config->runtime_dir, NULL) != 1;
}

static char *text_of(enum quarantine_reason reason, const char *detail)
{
    struct doc doc;
    char shown[400];
    escape_bytes(shown, sizeof(shown), detail, strlen(detail));
    doc_init(&doc);
    (void)doc_text(&doc, doc.root, "reason", names[reason]);
    (void)doc_text(&doc, doc.root, "detail", shown);
    doc_time(&doc, doc.root, "timestamp", now_realtime_ns());
    return doc_finish(&doc);
}

static int write_file(const struct config *config, const char *text)
{
    _cleanup_close_ int dir = fd_open_dir(AT_FDCWD, config->state_dir);
    if (dir < 0)
        return dir;
    if (state_is_lost(config, dir))
        return -ENOTCONN;
    return fd_replace_file(dir, FILE_NAME, FILE_NAME ".", text, strlen(text), 0600, true);
}

/* The runtime directory goes with the boot: made here as by whoever opens the journal. */
static int write_flag(const struct config *config, enum quarantine_reason reason)
{
    if (mkdir(config->runtime_dir, 0700) < 0 && errno != EEXIST)
        return -errno;
    _cleanup_close_ int dir = fd_open_dir(AT_FDCWD, config->runtime_dir);
    if (dir < 0)
        return dir;
    char text[64];
    int n = snprintf(text, sizeof(text), "%s\n", names[reason]);
    return fd_replace_file(dir, FLAG_NAME, FLAG_NAME ".", text, (size_t)n, 0600, false);
}

int quarantine_enter(const struct config *config, enum quarantine_reason reason, const char *detail,
                     struct rbxj_error *e)
{
    struct quarantine now;
    quarantine_read(config, &now);
    if (now.there &&
        (quarantine_is_released_by_recovery(reason) || (now.reason == reason && reason != QUARANTINE_MANUAL)))
        return 0;
    _cleanup_free_ char *text = text_of(reason, detail);
    if (!text)
        return error_sys(e, ENOMEM, "quarantine");
    int file = write_file(config, text);
    if (file == -ENOTCONN) /* begin fails there by itself */
        return error_set(e, RBXJ_E_JOURNAL_DAMAGED, 0,
                         "state directory %s: is empty, but this boot has a journal of it (not mounted?)",
                         config->state_dir);
    /* one of the two is enough to keep new boxes out, but only the file outlives the boot */
    int flag = write_flag(config, reason);
    if (file < 0)
        return error_sys(e, -file, "%s/" FILE_NAME, config->state_dir);
    return flag < 0 ? error_sys(e, -flag, "%s/" FLAG_NAME, config->runtime_dir) : 1;
}

static int leave(const char *path, const char *name)
{
    _cleanup_close_ int dir = fd_open_dir(AT_FDCWD, path);
    if (dir == -ENOENT)
        return 0;
    if (dir < 0)
        return dir;
    if (unlinkat(dir, name, 0) < 0)
        return errno == ENOENT ? 0 : -errno;
    return fsync(dir) < 0 ? -errno : 0;
}

int quarantine_leave(const struct config *config, struct rbxj_error *e)
{
    int r = leave(config->state_dir, FILE_NAME);
    if (r < 0)
        return error_sys(e, -r, "%s/" FILE_NAME, config->state_dir);
    r = leave(config->runtime_dir, FLAG_NAME);
    return r < 0 ? error_sys(e, -r, "%s/" FLAG_NAME, config->runtime_dir) : 0;
}
