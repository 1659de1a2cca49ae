/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper/incident_store.h"

#include "base/cleanup.h"
#include "base/doc.h"
#include "base/error.h"
#include "base/fd.h"
#include "reaper/incident_doc.h"

#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

#define DOCUMENT "incident.json"
#define TEMPORARY "incident.json."
#define OPEN_MARK "open"
#define LOCK_WAIT_NS 3000000000
#define MAKING "making-" /* before an id: a directory that is not finished */

enum { EVIDENCE_MAX = 64 << 10, EVIDENCE_FILES = 256 };

/* ---- ids ---- */

void incident_new_id(char id[INCIDENT_ID_MAX])
{
    uint32_t number;
    int64_t now_ns = now_realtime_ns();
    time_t now = (time_t)(now_ns / 1000000000);
    struct tm tm;
    char when[20];
    random_bytes(&number, sizeof(number));
    number = (uint32_t)((now_ns % 1000000000 << 20) / 1000000000) << 12 | (number & 0xfff);
    if (!gmtime_r(&now, &tm) || strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", &tm) != 16)
        (void)strcpy(when, "19700101T000000Z");
    (void)snprintf(id, INCIDENT_ID_MAX, "%s-%08x", when, number);
}

bool incident_id_is_valid(const char *id)
{
    static const char shape[] = "ddddddddTddddddZ-xxxxxxxx";
    if (strlen(id) != sizeof(shape) - 1)
        return false;
    for (size_t i = 0; shape[i]; i++) {
        bool digit = id[i] >= '0' && id[i] <= '9', letter = id[i] >= 'a' && id[i] <= 'f';
        if (shape[i] == 'd' ? !digit : shape[i] == 'x' ? !digit && !letter : id[i] != shape[i])
            return false;
    }
    return true;
}

int64_t incident_id_time(const char *id)
{
    struct tm tm = {0};
    return strptime(id, "%Y%m%dT%H%M%SZ", &tm) ? (int64_t)timegm(&tm) * 1000000000 : 0;
}

/* ---- directories ---- */

int incident_store_open(const struct config *config)
{
    _cleanup_close_ int state = fd_open_dir(AT_FDCWD, config->state_dir);
    return state < 0 ? state : fd_open_dir(state, "incidents");
}

/* K33: a state directory without a single file may be a mount point whose disk is not there. */
static int make(int state)
{
    int empty = fd_dir_is_empty(state);
    if (empty != 0)
        return empty < 0 ? empty : -ENOENT;
    if (mkdirat(state, "incidents", 0700) < 0)
        return errno == EEXIST ? 0 : -errno;
    return fsync(state) < 0 ? -errno : 0; /* or what is written in it is lost with it in a power cut */
}

/* Ours, and nobody else may write there. */
static bool is_ours(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_uid == geteuid() && !(st.st_mode & 022);
}

int incident_store_open_to_write(const struct config *config)
{
    _cleanup_close_ int state = fd_open_dir(AT_FDCWD, config->state_dir);
    if (state < 0)
        return state;
    _cleanup_close_ int fd = fd_open_dir(state, "incidents");
    if (fd == -ENOENT) {
        int r = make(state);
        if (r < 0)
            return r;
        fd = fd_open_dir(state, "incidents");
    }
    if (fd >= 0 && !is_ours(fd))
        return -EPERM;
    return steal_fd(&fd);
}

static int open_incident_to_write(int fd, const char *id)
{
    if (mkdirat(fd, id, 0700) < 0 && errno != EEXIST)
        return -errno;
    return fd_open_dir(fd, id);
}

/* ---- lists ---- */

static int compare_newest_first(const void *a, const void *b)
{
    return strcmp(b, a);
}

int incident_store_list(int fd, struct incident_store_names *ret)
{
    _cleanup_(incident_store_names_clear) struct incident_store_names names = {0};
    _cleanup_closedir_ DIR *dir = fd_open_names(fd);
    if (!dir)
        return -errno;
    size_t room = 0;
    for (const struct dirent *entry; (entry = fd_next_name(dir));) {
        if (!incident_id_is_valid(entry->d_name) || (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN))
            continue;
        if (names.len == room) {
            room = room ? 2 * room : 256;
            void *more = reallocarray(names.ids, room, sizeof(*names.ids));
            if (!more)
                return -ENOMEM;
            names.ids = more;
        }
        (void)strcpy(names.ids[names.len++], entry->d_name);
    }
    if (errno) /* a part of it would pass for all */
        return -errno;
    if (names.len)
        qsort(names.ids, names.len, sizeof(*names.ids), compare_newest_first);
    ret->ids = steal_ptr(names.ids);
    ret->len = names.len;
    return 0;
}

void incident_store_names_clear(struct incident_store_names *names)
{
    free(names->ids);
    *names = (struct incident_store_names){0};
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_evidence(const char *name)
{
    return strcmp(name, DOCUMENT) != 0 && strncmp(name, TEMPORARY, strlen(TEMPORARY)) != 0 &&
           strcmp(name, OPEN_MARK) != 0;
}

void incident_store_evidence_free(char **names, size_t len)
{
    for (size_t i = 0; i < len; i++)
        free(names[i]);
    free(names);
}

int incident_store_evidence(int fd, const char *id, char ***ret, size_t *ret_len)
{
    _cleanup_closedir_ DIR *names = fd_open_names_at(fd, id);
    if (!names && errno != ENOENT)
        return -errno;
    char **list = calloc(EVIDENCE_FILES, sizeof(*list));
    int r = list ? 0 : -ENOMEM;
    size_t n = 0;
    for (const struct dirent *entry; r == 0 && n < EVIDENCE_FILES && (entry = fd_next_name(names));) {
        if (!is_evidence(entry->d_name))
            continue;
        list[n] = strdup(entry->d_name);
        r = list[n] ? 0 : -ENOMEM;
        n += r == 0;
    }
    if (r < 0) {
        incident_store_evidence_free(list, n);
        return r;
    }
    qsort(list, n, sizeof(*list), compare_text);
    *ret = list;
    *ret_len = n;
    return 0;
}

/* ---- removal ---- */

void incident_store_remove(int fd, const char *id)
{
    _cleanup_close_ int dir = fd_open_dir(fd, id);
    _cleanup_closedir_ DIR *names = dir < 0 ? NULL : fd_open_names(dir);
    for (const struct dirent *entry; (entry = fd_next_name(names));)
        (void)unlinkat(dir, entry->d_name, 0);
    (void)unlinkat(fd, id, AT_REMOVEDIR); /* stays if there is a directory in it, which is not ours */
}

/* ---- documents ---- */

bool incident_store_may_be_open(int fd, const char *id)
{
    char path[INCIDENT_ID_MAX + sizeof(OPEN_MARK)];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/" OPEN_MARK, id);
    return fstatat(fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

void incident_store_is_closed(int fd, const char *id)
{
    _cleanup_close_ int dir = fd_open_dir(fd, id);
    if (dir >= 0)
        (void)unlinkat(dir, OPEN_MARK, 0);
}

int incident_store_read(int fd, const char *id, cJSON **ret)
{
    _cleanup_free_ char *text = NULL;
    _cleanup_close_ int dir = fd_open_dir(fd, id);
    cJSON *json = NULL;
    ssize_t n = dir < 0 ? dir : fd_read_all(dir, DOCUMENT, INCIDENT_TEXT_MAX, &text);
    int r = n < 0 ? (int)n : doc_parse(text, (size_t)n, &json);
    const char *own = doc_get_text(json, "id");
    if (!own || strcmp(own, id) != 0) {
        cJSON_Delete(json);
        json = NULL;
    }
    if (r < 0 && errno_is_want(-r))
        return r;
    *ret = json;
    return 0;
}

/* What a writer that was killed has left. */
static void sweep(int dir)
{
    _cleanup_closedir_ DIR *names = fd_open_names(dir);
    for (const struct dirent *entry; (entry = fd_next_name(names));)
        if (strncmp(entry->d_name, TEMPORARY, strlen(TEMPORARY)) == 0)
            (void)unlinkat(dir, entry->d_name, 0);
}

static int write_in(int dir, const char *text, bool open, bool synced)
{
    _cleanup_close_ int mark = open
                                   ? openat(dir, OPEN_MARK, O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600)
                                   : -1;
    if (open && mark < 0)
        return -errno;
    int r = fd_replace_file(dir, DOCUMENT, TEMPORARY, text, strlen(text), 0600, synced);
    if (r == 0 && !open)
        (void)unlinkat(dir, OPEN_MARK, 0);
    return r;
}

/* A directory that appears with its document in it: a writer that is killed leaves nothing that looks like an
 * incident and that everybody after it would have to look into. */
static int write_new(int fd, const char *id, const char *text, bool open, bool synced)
{
    char name[sizeof(MAKING) + INCIDENT_ID_MAX];
    (void)snprintf(name, sizeof(name), MAKING "%s", id);
    _cleanup_close_ int dir = open_incident_to_write(fd, name);
    int r = dir < 0 ? dir : write_in(dir, text, open, synced);
    if (r == 0 && renameat(fd, name, fd, id) < 0)
        r = -errno;
    if (r < 0)
        incident_store_remove(fd, name);
    else if (synced && fsync(fd) < 0)
        r = -errno;
    return r;
}

int incident_store_write(int fd, const char *id, const char *text, bool open, bool synced)
{
    _cleanup_close_ int dir = fd_open_dir(fd, id);
    if (dir == -ENOENT)
        return write_new(fd, id, text, open, synced);
    if (dir < 0)
        return dir;
    sweep(dir);
    int r = write_in(dir, text, open, synced);
    /* the directory may have been made without a flush, when the replay began */
    return r == 0 && synced && fsync(fd) < 0 ? -errno : r;
}

int incident_store_put(int fd, const char *id, struct doc *doc, bool synced)
{
    if (fd < 0)
        return fd;
    _cleanup_free_ char *text = doc->failed ? NULL : document_text_of(doc->root);
    if (!text)
        return -ENOMEM;
    if (strlen(text) > INCIDENT_TEXT_MAX) /* nobody would read it */
        return -EFBIG;
    return incident_store_write(fd, id, text, document_open(doc) != NULL, synced);
}

/* ---- one writer at a time ---- */

void incident_store_lock(int fd)
{
    int64_t deadline = now_monotonic_ns() + LOCK_WAIT_NS;
    while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && (errno == EWOULDBLOCK || errno == EINTR) &&
           now_monotonic_ns() < deadline)
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 1000000}, NULL);
}

void incident_store_unlock(int fd)
{
    if (fd >= 0)
        (void)flock(fd, LOCK_UN);
}

/* ---- retention ---- */

/* What writers that were killed have left; one that is younger may be at work. */
static void sweep_unfinished(int fd)
{
    int64_t old_ns = now_realtime_ns() - 3600LL * 1000000000;
    _cleanup_closedir_ DIR *names = fd_open_names(fd);
    for (const struct dirent *entry; (entry = fd_next_name(names));) {
        const char *id = entry->d_name + strlen(MAKING);
        if (strncmp(entry->d_name, MAKING, strlen(MAKING)) == 0 && incident_id_is_valid(id) &&
            incident_id_time(id) < old_ns)
            incident_store_remove(fd, entry->d_name);
    }
}

/* 2020: a clock that shows less has not been set since the machine was switched on, and says nothing of an
 * age. */
#define CLOCK_IS_SET_NS (1577836800LL * 1000000000)

static bool is_older(const char *id, int64_t oldest_ns)
{
    int64_t detected_ns = incident_id_time(id);
    return detected_ns >= CLOCK_IS_SET_NS && detected_ns < oldest_ns;
}

/* Those of a clock that was ahead, which come first in the list, are the first to go where there are too
 * many: else none that is detected since would stay, until their time has come. */
void incident_store_retain(int fd, const struct config *config)
{
    if (!is_ours(fd)) /* it may have been opened for reading only */
        return;
    sweep_unfinished(fd);
    _cleanup_(incident_store_names_clear) struct incident_store_names names = {0};
    int64_t now_ns = now_realtime_ns();
    int64_t oldest_ns = now_ns - (int64_t)config->incidents_keep_days * 86400 * 1000000000;
    size_t kept = 1, ahead = 0; /* the newest, whatever its age */
    if (incident_store_list(fd, &names) < 0)
        return;
    while (ahead < names.len && incident_id_time(names.ids[ahead]) > now_ns + INCIDENT_AHEAD_NS)
        ahead++;
    for (size_t i = 1; i < names.len; i++) {
        const char *id = names.ids[(ahead + i) % names.len];
        bool too_many = kept >= (size_t)config->incidents_keep;
        if ((too_many || is_older(id, oldest_ns)) && !incident_store_may_be_open(fd, id))
            incident_store_remove(fd, id);
        else
            kept++;
    }
}

/* ---- evidence ---- */

static int copy(int from, int to)
{
    char buf[4096];
    for (off_t at = 0; at < EVIDENCE_MAX;) {
        ssize_t n = pread(from, buf, sizeof(buf), at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : 0;
        int r = fd_write_all(to, buf, (size_t)n);
        if (r < 0)
            return r;
        at += n;
    }
    return 0;
}

/* Corrupt locks by the thousand must not fill the disk. */
static bool has_room(int dir)
{
    _cleanup_closedir_ DIR *names = fd_open_names(dir);
    size_t n = 0;
    for (const struct dirent *entry; (entry = fd_next_name(names));)
        n += is_evidence(entry->d_name);
    return n < EVIDENCE_FILES;
}

static bool is_there(int dir, const char *name)
{
    struct stat st;
    return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static int keep(const struct config *config, const char *id, const char *name, int fd)
{
    _cleanup_close_ int all = incident_store_open_to_write(config);
    _cleanup_close_ int dir = all < 0 ? all : open_incident_to_write(all, id);
    if (dir < 0)
        return dir == -ENOENT ? 0 : dir;
    if (!has_room(dir))
        return -EDQUOT;
    _cleanup_close_ int to = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0) /* a replay before this one has kept it */
        return errno == EEXIST ? 0 : -errno;
    int r = copy(fd, to);
    if (r < 0)
        (void)unlinkat(dir, name, 0);
    return r;
}

int incident_store_append(int fd, const char *id, const char *name, const char *text, size_t len)
{
    struct stat st;
    _cleanup_close_ int dir = fd_open_dir(fd, id);
    if (dir < 0)
        return dir;
    if (!is_there(dir, name) && !has_room(dir))
        return -EDQUOT;
    _cleanup_close_ int to = openat(
        dir, name, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
    if (to < 0 || fstat(to, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EEXIST;
    size_t room = st.st_size < EVIDENCE_MAX ? (size_t)(EVIDENCE_MAX - st.st_size) : 0;
    return fd_write_all(to, text, len < room ? len : room);
}

int incident_keep(const struct config *config, const char *id, const char *name, int fd)
{
    bool allowed = incident_id_is_valid(id) && name[0] && name[0] != '.' && !strchr(name, '/') &&
                   strlen(name) <= NAME_MAX && is_evidence(name);
    return allowed ? keep(config, id, name, fd) : -EINVAL;
}
