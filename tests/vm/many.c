/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * As many boxes as it takes to measure: each a lock and a directory with files.
 *
 *     many begin DIRECTORY BOXES FILES   journals and makes them, flushes, says so, and waits
 *     many make DIRECTORY BOXES FILES    makes the same, unjournaled
 *     many undo DIRECTORY BOXES FILES    what undoing them takes in system calls, and nothing more
 */
#include <rbxj.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_LEN = 256 };

static void fail(const char *what, const char *why)
{
    (void)fprintf(stderr, "many: %s: %s\n", what, why);
    exit(1);
}

static void must(int result, const char *what)
{
    if (result < 0)
        fail(what, strerror(errno));
}

static void make_files(const char *tmp, int files)
{
    char path[2 * PATH_LEN];
    for (int i = 0; i < files; i++) {
        (void)snprintf(path, sizeof(path), "%s/%d", tmp, i);
        int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        must(fd, path);
        (void)close(fd);
    }
}

static void make_one(struct rbxj *handle, const char *box, const char *lock, const char *tmp)
{
    struct rbxj_error e;
    int fd = -1;
    struct rbxj_resource plan[] = {{.kind = RBXJ_LOCK, .path = lock}, {.kind = RBXJ_TMPDIR, .path = tmp}};
    struct rbxj_box b = {.name = box, .plan = plan, .plan_len = 2};
    if (rbxj_begin(handle, &b, NULL, &e) < 0 || rbxj_acquire(handle, box, 1, NULL, &fd, &e) < 0 ||
        rbxj_acquire(handle, box, 2, NULL, NULL, &e) < 0)
        fail(box, e.message);
    (void)close(fd);
}

static void undo_one(int dir, const char *lock, const char *tmp)
{
    struct dirent *entry;
    int fd = openat(dir, tmp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    if (!list)
        fail(tmp, strerror(errno));
    while ((entry = readdir(list)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            must(unlinkat(fd, entry->d_name, 0), entry->d_name);
    (void)closedir(list);
    must(unlinkat(dir, tmp, AT_REMOVEDIR), tmp);
    must(unlinkat(dir, lock, 0), lock);
    must(fsync(dir), "flush");
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    int boxes = atoi(argv[3]), files = atoi(argv[4]), dir = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(dir, argv[2]);
    struct rbxj *handle = NULL;
    struct rbxj_error e;
    if (strcmp(argv[1], "begin") == 0 && rbxj_open(NULL, &handle, &e) < 0)
        fail("open", e.message);
    for (int i = 0; i < boxes; i++) {
        char box[32], lock[PATH_LEN], tmp[PATH_LEN];
        (void)snprintf(box, sizeof(box), "many-%d", i);
        (void)snprintf(lock, sizeof(lock), "%s/%s.lock", argv[2], box);
        (void)snprintf(tmp, sizeof(tmp), "%s/%s.tmp", argv[2], box);
        if (strcmp(argv[1], "undo") == 0) {
            undo_one(dir, lock, tmp);
            continue;
        }
        if (handle)
            make_one(handle, box, lock, tmp);
        else {
            must(mkdir(tmp, 0700), tmp);
            int fd = open(lock, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
            must(fd, lock);
            (void)close(fd);
        }
        make_files(tmp, files);
    }
    sync();
    if (handle) {
        int fd = open("/run/rig/many", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        must(fd, "/run/rig/many");
        for (;;)
            pause();
    }
    return 0;
}
