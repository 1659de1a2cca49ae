/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the machine looks like, as a text by which "as before" is judged: the files below a directory, the
 * cgroups below others with who is in them, the mounts below the directory.
 */
#ifndef RBXJ_TESTS_PICTURE_H
#define RBXJ_TESTS_PICTURE_H

#include "harness.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Names, kinds, modes, and what small files hold; nothing that a mere look changes. */
static inline void picture_files(FILE *out, const char *dir)
{
    struct dirent **names;
    int n = scandir(dir, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        const char *name = names[i]->d_name;
        char path[PATH_MAX], text[256] = "";
        struct stat st;
        (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && lstat(path, &st) == 0) {
            int fd = S_ISREG(st.st_mode) ? open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC) : -1;
            if (fd >= 0 && read(fd, text, sizeof(text) - 1) < 0)
                text[0] = 0;
            cleanup_closep(&fd);
            fprintf(out, "%o %s %s\n", st.st_mode, path, text);
            if (S_ISDIR(st.st_mode))
                picture_files(out, path);
        }
        free(names[i]);
    }
    if (n >= 0)
        free(names);
}

static inline void picture_cgroups(FILE *out, const char *dir)
{
    struct dirent **names;
    int n = scandir(dir, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX];
        (void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
        if (names[i]->d_type == DT_DIR && names[i]->d_name[0] != '.') {
            char procs[4096] = "";
            _cleanup_close_ int group = open(path, O_PATH | O_CLOEXEC);
            _cleanup_close_ int fd = openat(group, "cgroup.procs", O_RDONLY | O_CLOEXEC);
            assert_true(fd >= 0 && read(fd, procs, sizeof(procs) - 1) >= 0);
            fprintf(out, "cgroup %s: %s\n", path, procs);
            picture_cgroups(out, path);
        }
        free(names[i]);
    }
    if (n >= 0)
        free(names);
}

static inline void picture_mounts(FILE *out, const char *below)
{
    _cleanup_fclose_ FILE *f = fopen("/proc/self/mountinfo", "re");
    _cleanup_free_ char *line = NULL;
    size_t size = 0;
    assert_non_null(f);
    while (getline(&line, &size, f) > 0)
        if (strstr(line, below))
            fprintf(out, "mount %s", line);
}

/* To be freed. A cgroup that is NULL is left out. */
static inline char *picture_take(const char *dir, const char *const *cgroups, size_t len)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    picture_files(out, dir);
    for (size_t i = 0; i < len; i++)
        if (cgroups[i])
            picture_cgroups(out, cgroups[i]);
    picture_mounts(out, dir);
    (void)fclose(out);
    return text;
}

/* A zombie that nobody reaps is dead, too (K8). */
static inline bool is_dead(pid_t pid)
{
    char path[32], text[512] = "";
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return true;
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    (void)fclose(f);
    const char *paren = strrchr(text, ')');
    return n == 0 || !paren || paren[2] == 'Z' || paren[2] == 'X';
}

#endif
