/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Order: the defaults, then the main file, then the .conf files of rbxj.conf.d beside it in name order, then
 * RBXJ_DURABILITY. A later value replaces an earlier one; a later list is added to an earlier one, so that a
 * drop-in cannot lift a protection by accident, and an empty value empties it.
 */
#include "base/config.h"

#include "base/cleanup.h"
#include "base/config_dirs.h"
#include "base/config_links.h"
#include "base/config_value.h"
#include "base/error.h"

#include <dirent.h>
#include <fcntl.h>
#include <ini.h>
#include <string.h>
#include <sys/stat.h>

#define DEFAULT_FILE "/etc/rbxj/rbxj.conf"
#define MAP_SIZE_MIN (1ULL << 20)
#define MAP_SIZE_MAX (1ULL << 40)
#define PAGE_MAX (1ULL << 16) /* LMDB's map is a whole number of pages, whatever their size here */

static int set_size(const char *value, void *out, const char **ret_why)
{
    return config_parse_size(value, MAP_SIZE_MIN, MAP_SIZE_MAX, out, ret_why);
}

static int set_time(const char *value, void *out, const char **ret_why)
{
    return config_parse_time(value, out, ret_why);
}

static int set_count(const char *value, void *out, const char **ret_why)
{
    return config_parse_count(value, 0, 1000000, out, ret_why);
}

static int set_positive(const char *value, void *out, const char **ret_why)
{
    return config_parse_count(value, 1, 1000000, out, ret_why);
}

static int set_jobs(const char *value, void *out, const char **ret_why)
{
    if (*value != '\0')
        return config_parse_count(value, 1, 1024, out, ret_why);
    *(int *)out = 0;
    return 0;
}

static int set_percent(const char *value, void *out, const char **ret_why)
{
    return config_parse_percent(value, out, ret_why);
}

static int set_durability(const char *value, void *out, const char **ret_why)
{
    return config_parse_durability(value, out, ret_why);
}

static int set_lazy_umount(const char *value, void *out, const char **ret_why)
{
    bool last_resort = strcmp(value, "last-resort") == 0;

    if (!last_resort && strcmp(value, "never") != 0) {
        *ret_why = "expected never or last-resort";
        return -EINVAL;
    }
    *(bool *)out = last_resort;
    return 0;
}

static int set_paths(const char *value, void *out, const char **ret_why)
{
    return config_parse_words(value, CONFIG_PATH, out, ret_why);
}

static int set_path_patterns(const char *value, void *out, const char **ret_why)
{
    return config_parse_words(value, CONFIG_PATH_PATTERN, out, ret_why);
}

static int set_name_patterns(const char *value, void *out, const char **ret_why)
{
    return config_parse_words(value, CONFIG_NAME_PATTERN, out, ret_why);
}

#define TO(field) offsetof(struct config, field)

static const struct key {
    const char *section, *name;
    int (*set)(const char *value, void *out, const char **ret_why);
    size_t offset;
} keys[] = {
    {"journal", "durability", set_durability, TO(durability)},
    {"journal", "map_size", set_size, TO(map_size)},
    {"journal", "preallocate", set_size, TO(preallocate)},
    {"journal", "gate_timeout", set_time, TO(gate_timeout_ns)},
    {"replay", "lazy_umount", set_lazy_umount, TO(lazy_umount)},
    {"replay", "timeout", set_time, TO(timeout_ns)},
    {"replay", "boot_deadline", set_time, TO(boot_deadline_ns)},
    {"replay", "stop_timeout", set_time, TO(stop_timeout_ns)},
    {"replay", "busy_retries", set_count, TO(busy_retries)},
    {"replay", "jobs", set_jobs, TO(jobs)},
    {"paths", "protected", set_paths, TO(protected_paths)},
    {"paths", "allowed", set_paths, TO(allowed_paths)},
    {"health", "quarantine_after", set_positive, TO(quarantine_after)},
    {"health", "escalate_failures", set_positive, TO(escalate_failures)},
    {"health", "escalate_per_day", set_positive, TO(escalate_per_day)},
    {"health", "min_free", set_percent, TO(min_free)},
    {"discover", "locks", set_path_patterns, TO(locks)},
    {"discover", "cgroups", set_name_patterns, TO(cgroups)},
    {"discover", "mounts", set_path_patterns, TO(mounts)},
    {"discover", "tmpdirs", set_path_patterns, TO(tmpdirs)},
    {"incidents", "keep", set_positive, TO(incidents_keep)},
    {"incidents", "keep_days", set_positive, TO(incidents_keep_days)},
};

/* ---- one file ---- */

struct reading {
    struct config *config;
    const char *path;
    FILE *file;
    int line;
    int status;   /* of the first value that is wrong */
    int bad_line; /* its line */
    struct rbxj_error *e;
};

/* value NULL: it is not about one. */
static int bad_line(struct reading *reading, const char *what, const char *why, const char *value)
{
    if (reading->status < 0)
        return 0;
    reading->bad_line = reading->line;
    reading->status = error_set(reading->e, RBXJ_E_BAD_REQUEST, 0,
                                value ? "%s:%d: %s: %s: '%s'" : "%s:%d: %s: %s", reading->path, reading->line,
                                what, why, value);
    return 0;
}

/* For libinih: 1 fine, 0 error. */
static int take_value(void *data, const char *section, const char *name, const char *value)
{
    struct reading *reading = data;
    bool section_known = false;

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        if (strcmp(keys[i].section, section) != 0)
            continue;
        section_known = true;
        if (strcmp(keys[i].name, name) != 0)
            continue;
        const char *why = "";
        int r = keys[i].set(value, (char *)reading->config + keys[i].offset, &why);
        if (r == -ENOMEM && reading->status == 0)
            reading->status = error_sys(reading->e, ENOMEM, "configuration %s:%d", reading->path,
                                        reading->line);
        return r == 0 ? 1 : r == -ENOMEM ? 0 : bad_line(reading, name, why, value);
    }
    if (!section_known)
        return bad_line(reading, *section ? section : name, *section ? "no such section" : "is in no section",
                        NULL);
    return bad_line(reading, name, "no such key in this section", NULL);
}

/* libinih cuts a line that is longer than its buffer in two, and one with a NUL byte short: neither may
 * pass. */
static char *take_line(char *buf, int size, void *data)
{
    struct reading *reading = data;
    int n = 0, c = EOF;

    if (reading->status < 0)
        return NULL;
    while (n + 1 < size && (c = getc(reading->file)) > 0) {
        buf[n++] = (char)c;
        if (c == '\n')
            break;
    }
    if (n == 0 && c == EOF)
        return NULL;
    buf[n] = '\0';
    reading->line++;
    if (c == '\0')
        (void)bad_line(reading, "line", "has a NUL byte", NULL);
    else if (c != '\n' && c != EOF)
        (void)bad_line(reading, "line", "is too long (a list may be written on several lines)", NULL);
    return reading->status < 0 ? NULL : buf;
}

/* A symlink to what is not there, as to a disk that is not mounted, was meant to lead to a configuration: it
 * does not go without a word. -ENOENT with e untouched, or an error. */
static int no_file(int dirfd, const char *name, const char *path, struct rbxj_error *e)
{
    struct stat st;
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISLNK(st.st_mode))
        return -ENOENT;
    return error_set(e, RBXJ_E_BAD_REQUEST, ENOENT, "configuration %s: a symlink to what is not there", path);
}

/* Returns 0, -ENOENT with e untouched, or an error. */
static int read_config_file(int dirfd, const char *name, const char *path, struct config *config,
                            struct rbxj_error *e)
{
    struct stat st;
    _cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0 && errno == ENOENT)
        return no_file(dirfd, name, path, e);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_sys(e, errno, "configuration %s", path);
    if (!S_ISREG(st.st_mode))
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "configuration %s: is not a regular file", path);
    _cleanup_fclose_ FILE *file = fdopen(fd, "re");
    if (!file)
        return error_sys(e, errno, "configuration %s", path);
    (void)steal_fd(&fd);

    struct reading reading = {.config = config, .path = path, .file = file, .e = e};
    int line = ini_parse_stream(take_line, &reading, take_value, &reading);
    if (reading.status < 0 && (line <= 0 || line >= reading.bad_line))
        return reading.status;
    if (reading.status < 0) { /* what follows a line that is none, as "[section", is not in its section */
        error_clear(e);
        reading.status = 0;
    }
    if (ferror(file))
        return error_sys(e, EIO, "configuration %s", path);
    if (line < 0)
        return error_sys(e, ENOMEM, "configuration %s", path);
    reading.line = line;
    if (line > 0)
        (void)bad_line(&reading, "line", "expected [section] or key=value", NULL);
    return reading.status;
}

/* ---- the drop-ins ---- */

static int is_drop_in(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);
    return entry->d_name[0] != '.' && len > 5 && strcmp(entry->d_name + len - 5, ".conf") == 0;
}

/* Not alphasort: that is the locale's order. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int read_drop_ins(const char *main_file, struct config *config, struct rbxj_error *e)
{
    const char *slash = strrchr(main_file, '/');
    _cleanup_free_ char *dir = NULL;
    struct dirent **entries = NULL;
    struct stat st;
    int r = 0;

    if (asprintf(&dir, "%.*srbxj.conf.d", slash ? (int)(slash + 1 - main_file) : 0, main_file) < 0)
        return error_sys(e, ENOMEM, "configuration");
    _cleanup_close_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        r = no_file(AT_FDCWD, dir, dir, e);
        return r == -ENOENT ? 0 : r;
    }
    if (fd < 0)
        return error_sys(e, errno, "configuration %s", dir);
    /* A main file may be anywhere, /tmp too, where everybody can make a directory beside it. */
    if (fstat(fd, &st) < 0)
        return error_sys(e, errno, "configuration %s", dir);
    if ((st.st_uid != 0 && st.st_uid != geteuid()) || (st.st_mode & S_IWOTH))
        return error_set(e, RBXJ_E_PERMISSION, 0,
                         "configuration %s: belongs to another user or all can write to it", dir);
    int n = scandirat(fd, ".", &entries, is_drop_in, by_name);
    if (n < 0)
        return error_sys(e, errno, "configuration %s", dir);
    for (int i = 0; i < n; i++) {
        _cleanup_free_ char *path = NULL;
        if (r == 0 && asprintf(&path, "%s/%s", dir, entries[i]->d_name) < 0)
            r = error_sys(e, ENOMEM, "configuration");
        else if (r == 0)
            r = read_config_file(fd, entries[i]->d_name, path, config, e);
        if (r == -ENOENT) /* removed in between, or a link to nothing */
            r = error_sys(e, ENOENT, "configuration %s", path);
        free(entries[i]);
    }
    free(entries);
    return r;
}

/* ---- all of it ---- */

static int read_all(const char *named_file, struct config *config, struct rbxj_error *e)
{
    const char *path = named_file ? named_file : DEFAULT_FILE;
    int r = read_config_file(AT_FDCWD, path, path, config, e);

    if (r == -ENOENT && named_file)
        return error_set(e, RBXJ_E_BAD_REQUEST, ENOENT, "configuration %s", path);
    if (r < 0 && r != -ENOENT)
        return r;
    return read_drop_ins(path, config, e);
}

static int resolve_durability(enum durability *durability, struct rbxj_error *e)
{
    const char *text = secure_getenv("RBXJ_DURABILITY"), *why = NULL;

    if (text && *text && config_parse_durability(text, durability, &why) < 0)
        return error_set(e, RBXJ_E_BAD_REQUEST, 0, "RBXJ_DURABILITY=%s: %s", text, why);
    int container = *durability == DURABILITY_AUTO ? config_in_container() : 0;
    if (container < 0)
        return error_sys(e, -container, "configuration: finding out whether this is a container");
    if (*durability == DURABILITY_AUTO)
        *durability = container ? DURABILITY_ALWAYS : DURABILITY_RESOURCE;
    return 0;
}

static int resolve_paths(struct config *config, struct rbxj_error *e)
{
    int r = config_add_targets(&config->protected_paths, config->runtime_dir);
    if (r == 0)
        r = config_add_targets(&config->allowed_paths, config->runtime_dir);
    return r < 0 ? error_sys(e, -r, "configuration: where the protected and allowed paths lead") : 0;
}

static int set_patterns(struct config *config, struct rbxj_error *e)
{
    const char *why;
    int r = config_parse_words("/var/lib/rustbox/boxes/*/lock", CONFIG_PATH_PATTERN, &config->locks, &why);
    if (r == 0)
        r = config_parse_words("rustbox-*", CONFIG_NAME_PATTERN, &config->cgroups, &why);
    if (r == 0)
        r = config_parse_words("/var/lib/rustbox/*", CONFIG_PATH_PATTERN, &config->mounts, &why);
    if (r == 0)
        r = config_parse_words("/tmp/rustbox-*", CONFIG_PATH_PATTERN, &config->tmpdirs, &why);
    return r < 0 ? error_sys(e, -r, "configuration") : 0;
}

int config_load(const struct rbxj_options *options, struct config *ret, struct rbxj_error *e)
{
    struct config config = {
        .durability = DURABILITY_AUTO,
        .map_size = 1ULL << 30,
        .preallocate = 4ULL << 20,
        .gate_timeout_ns = 10LL * 1000000000,
        .timeout_ns = 30LL * 1000000000,
        .boot_deadline_ns = 60LL * 1000000000,
        .stop_timeout_ns = 5LL * 1000000000,
        .busy_retries = 10,
        .quarantine_after = 3,
        .escalate_failures = 3,
        .escalate_per_day = 1,
        .min_free = 5,
        .incidents_keep = 1000,
        .incidents_keep_days = 90,
    };
    int r = config_dirs(options, &config.state_dir, &config.runtime_dir, e);

    if (r == 0)
        r = set_patterns(&config, e);
    if (r == 0)
        r = read_all(options ? options->config : NULL, &config, e);
    if (r == 0)
        r = resolve_durability(&config.durability, e);
    if (r == 0)
        r = resolve_paths(&config, e);
    if (r < 0) {
        config_clear(&config);
        return r;
    }
    config.map_size = (config.map_size + PAGE_MAX - 1) / PAGE_MAX * PAGE_MAX;
    if (config.preallocate > config.map_size)
        config.preallocate = config.map_size;
    if (options) {
        config.event = options->event;
        config.event_data = options->event_data;
    }
    *ret = config;
    return 0;
}

void config_clear(struct config *config)
{
    if (!config)
        return;
    char **lists[] = {config->protected_paths, config->allowed_paths, config->locks,
                      config->cgroups,         config->mounts,        config->tmpdirs};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        config_free_words(lists[i]);
    free(config->state_dir);
    free(config->runtime_dir);
    *config = (struct config){0};
}
