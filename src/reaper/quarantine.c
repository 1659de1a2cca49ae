/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/quarantine.h"

#include "base/cleanup.h"
#include "base/doc.h"
#include "base/fd.h"
#include "journal/journal.h"

#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

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

static bool is_released_by_recovery(enum quarantine_reason reason)
{
    return reason == QUARANTINE_CLEANUP_FAILURE || reason == QUARANTINE_ORPHAN_PROCESS ||
           reason == QUARANTINE_EXHAUSTION;
}

static bool is_of_reset(enum quarantine_reason reason, const char *detail)
{
    return reason == QUARANTINE_MANUAL && strcmp(detail, QUARANTINE_RESET_DETAIL) == 0;
}

/* Does a new one replace the one that is there? */
static bool replaces(enum quarantine_reason reason, const char *detail, const struct quarantine *now)
{
    bool reset = is_of_reset(now->reason, now->detail);
    if (is_of_reset(reason, detail))
        return reset || (now->reason != QUARANTINE_MANUAL && now->reason != QUARANTINE_CORRUPTION);
    return reason == QUARANTINE_MANUAL ||
           ((reset || is_released_by_recovery(now->reason)) && !is_released_by_recovery(reason));
}

/* Does it end by that? */
static bool ends(const struct quarantine *now, enum quarantine_by by)
{
    return by == QUARANTINE_BY_PERSON ||
           (by == QUARANTINE_BY_RECOVERY ? is_released_by_recovery(now->reason)
                                         : is_of_reset(now->reason, now->detail));
}

/* ---- reading ---- */

/* What can't be looked at counts as being there. */
static bool exists(const char *dir, const char *name)
{
    char path[RECORD_PATH_MAX + 16];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    errno = 0;
    return lstat(path, &st) == 0 || errno != ENOENT;
}

int quarantine_is_set(const struct config *config)
{
    const char *const dirs[] = {config->state_dir, config->runtime_dir}, *const files[] = {FILE_NAME,
                                                                                           FLAG_NAME};
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
        if (exists(dirs[i], files[i]))
            return errno_is_want(errno) ? -errno : 1;
    return 0;
}

/* Fills ret from the file's text: 0, -EBADMSG: it makes no sense, or -ENOMEM. */
static int parse(const char *text, struct quarantine *ret)
{
    cJSON *json = NULL;
    int r = doc_parse(text, strlen(text), &json);
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
    return r < 0 || known ? r : -EBADMSG;
}

/* The length, or -errno; -ENOENT: it is not there. */
static ssize_t read_text(const char *path, char text[static TEXT_MAX])
{
    struct stat st;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    ssize_t n = S_ISREG(st.st_mode) ? pread(fd, text, TEXT_MAX - 1, 0) : -1;
    if (n < 0)
        return S_ISREG(st.st_mode) ? -errno : -EBADMSG;
    text[n] = 0;
    return n;
}

int quarantine_read(const struct config *config, struct quarantine *ret)
{
    ssize_t r = 0;
    char paths[2][RECORD_PATH_MAX + 16], text[TEXT_MAX];
    (void)snprintf(paths[0], sizeof(paths[0]), "%s/" FILE_NAME, config->state_dir);
    (void)snprintf(paths[1], sizeof(paths[1]), "%s/" FLAG_NAME, config->runtime_dir);
    *ret = (struct quarantine){.reason = QUARANTINE_MANUAL};
    for (size_t i = 0; i < ARRAY_LEN(paths) && !ret->there; i++) {
        r = read_text(paths[i], text);
        ret->there = r != -ENOENT;
        ret->hidden = r == -EACCES || r == -EPERM;
        if (r >= 0)
            r = parse(text, ret);
        if (ret->there && r < 0)
            (void)snprintf(ret->detail, sizeof(ret->detail), "what says why can't be read: %.300s", paths[i]);
    }
    return ret->there && r < 0 && errno_is_want((int)-r) ? (int)r : ret->there;
}

/* ---- entering and leaving ---- */

/* An empty state directory beside a boot journal is a mount point without its disk: nothing is made there
 * (K33). 1, 0, or a negative errno. */
static int state_is_lost(const struct config *config, int dir)
{
    int empty = fd_dir_is_empty(dir);
    if (empty < 0 && errno_is_want(-empty))
        return empty;
    return empty != 0 && snapshot_is_nothing(config->state_dir, config->runtime_dir, NULL) != 1;
}

static char *text_of(const struct quarantine *q)
{
    struct doc doc;
    doc_init(&doc);
    (void)doc_text(&doc, doc.root, "reason", names[q->reason]);
    (void)doc_text(&doc, doc.root, "detail", q->detail);
    doc_time(&doc, doc.root, "timestamp", q->since_ns);
    return doc_finish(&doc);
}

/* The state directory with its lock: a descriptor or -errno; -EBUSY: somebody has had it for too long. */
static int lock_state(const struct config *config)
{
    int64_t deadline = now_monotonic_ns() + config->gate_timeout_ns;
    _cleanup_close_ int fd = fd_open_dir(AT_FDCWD, config->state_dir);
    while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        if (now_monotonic_ns() >= deadline)
            return -EBUSY;
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return fd < 0 ? fd : steal_fd(&fd);
}

/* Unlocked, not only closed: a child that another thread has just forked has a copy. */
static void unlock_state(int *fd)
{
    if (*fd >= 0)
        (void)flock(*fd, LOCK_UN);
    cleanup_closep(fd);
}

static int cannot_lock(const struct config *config, int r, struct rbxj_error *e)
{
    return r == -EBUSY ? error_set(e, RBXJ_E_JOURNAL_BUSY, ETIMEDOUT,
                                   "%s/" FILE_NAME ": another process has been changing it for too long",
                                   config->state_dir)
                       : error_sys(e, -r, "%s/" FILE_NAME, config->state_dir);
}

static int cannot_read(int r, struct rbxj_error *e)
{
    return error_sys(e, -r, "why the worker is quarantined");
}

static int write_file(const struct config *config, int dir, const char *text)
{
    int lost = state_is_lost(config, dir);
    if (lost)
        return lost < 0 ? lost : -ENOTCONN;
    return fd_replace_file(dir, FILE_NAME, FILE_NAME ".", text, strlen(text), 0600, true);
}

/* The runtime directory goes with the boot: made here as by whoever opens the journal. */
static int write_flag(const struct config *config, const char *text)
{
    if (mkdir(config->runtime_dir, 0700) < 0 && errno != EEXIST)
        return -errno;
    _cleanup_close_ int dir = fd_open_dir(AT_FDCWD, config->runtime_dir);
    return dir < 0 ? dir : fd_replace_file(dir, FLAG_NAME, FLAG_NAME ".", text, strlen(text), 0600, false);
}

/* Under the lock; now is what was read under it. */
static int repair(const struct config *config, int dir, const struct quarantine *now, struct rbxj_error *e)
{
    bool file = exists(config->state_dir, FILE_NAME), flag = exists(config->runtime_dir, FLAG_NAME);
    if (file == flag || (flag && fd_dir_is_empty(dir) != 0)) /* K33 */
        return 0;
    _cleanup_free_ char *text = text_of(now);
    int r = !text ? -ENOMEM : flag ? write_file(config, dir, text) : write_flag(config, text);
    return r < 0 ? error_sys(e, -r, "%s/%s", flag ? config->state_dir : config->runtime_dir,
                             flag ? FILE_NAME : FLAG_NAME)
                 : 0;
}

int quarantine_repair(const struct config *config, struct rbxj_error *e)
{
    struct quarantine now;
    if (exists(config->state_dir, FILE_NAME) == exists(config->runtime_dir, FLAG_NAME))
        return 0;
    _cleanup_(unlock_state) int dir = lock_state(config);
    if (dir < 0)
        return dir == -ENOENT ? 0 : cannot_lock(config, dir, e);
    int r = quarantine_read(config, &now);
    return r < 0 ? cannot_read(r, e) : r ? repair(config, dir, &now, e) : 0;
}

int quarantine_enter(const struct config *config, enum quarantine_reason reason, const char *detail,
                     struct rbxj_error *e)
{
    struct quarantine now, new = {.reason = reason, .since_ns = now_realtime_ns()};
    _cleanup_(unlock_state) int dir = lock_state(config);
    int r = quarantine_read(config, &now);
    if (r < 0) /* it holds as it is */
        return cannot_read(r, e);
    if (now.there && !replaces(reason, detail, &now)) {
        if (dir >= 0)
            (void)repair(config, dir, &now, NULL);
        return 0;
    }
    escape_bytes(new.detail, sizeof(new.detail), detail, strlen(detail));
    _cleanup_free_ char *text = text_of(&new);
    if (!text)
        return error_sys(e, ENOMEM, "quarantine");
    int file = dir < 0 ? dir : write_file(config, dir, text);
    if (file == -ENOTCONN) /* begin fails there by itself */
        return belongs_emptied(config->state_dir, e);
    /* one of the two is enough to keep new boxes out, but only the file outlives the boot. Without the lock
     * only what is missing is written */
    int flag = dir >= 0 || !exists(config->runtime_dir, FLAG_NAME) ? write_flag(config, text) : 0;
    if (file < 0)
        return dir < 0 ? cannot_lock(config, dir, e)
                       : error_sys(e, -file, "%s/" FILE_NAME, config->state_dir);
    return flag < 0 ? error_sys(e, -flag, "%s/" FLAG_NAME, config->runtime_dir) : 1;
}

static int remove_from(int dir, const char *name)
{
    if (dir < 0)
        return dir == -ENOENT ? 0 : dir;
    if (unlinkat(dir, name, 0) < 0)
        return errno == ENOENT ? 0 : -errno;
    return fsync(dir) < 0 ? -errno : 0;
}

int quarantine_leave(const struct config *config, enum quarantine_by by, struct quarantine *ret_was,
                     struct rbxj_error *e)
{
    _cleanup_(unlock_state) int dir = lock_state(config);
    if (dir < 0 && dir != -ENOENT)
        return cannot_lock(config, dir, e);
    int r = quarantine_read(config, ret_was);
    if (r < 0)
        return cannot_read(r, e);
    if (!ret_was->there || !ends(ret_was, by))
        return 0;
    r = remove_from(dir, FILE_NAME);
    if (r < 0)
        return error_sys(e, -r, "%s/" FILE_NAME, config->state_dir);
    _cleanup_close_ int runtime = fd_open_dir(AT_FDCWD, config->runtime_dir);
    r = remove_from(runtime, FLAG_NAME);
    return r < 0 ? error_sys(e, -r, "%s/" FLAG_NAME, config->runtime_dir) : 1;
}
