/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The places on the system, looked at without rbxj, and who interferes with them.
 */
#include "model_world.h"
#include "../harness.h"
#include "model_apart.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <xxhash.h>

#define STRANGER "stranger"

static struct {
    char paths[PLACES][PATH_MAX];
    const char *work, *lost;
    int mounts[PLACES];
    char config[PATH_MAX], state[PATH_MAX], run[PATH_MAX];
    struct rbxj_options options;
    struct {
        int id;
        pid_t pid;
    } holders[64];
    int holders_len;
    pid_t noted[64];
    int noted_len;
    int kept[MAX_THINGS], kept_len;
} world;

static const char *group_path; /* of all worlds */

void world_make_group(void)
{
    group_path = harness_cgroup();
}

const char *world_group(void)
{
    return group_path;
}

static void fresh_lost(void)
{
    assert_int_equal(mount("rbxj-test", harness_tmpfs(), "tmpfs", 0, "mode=0700"), 0);
    harness_mkdir(world.lost);
    harness_mkdir(world.run);
}

void world_make(bool always, bool real_disk)
{
    memset(&world, 0, sizeof(world));
    world.work = harness_format("%s/work", apart_disk());
    world.lost = harness_format("%s/lost", harness_tmpfs());
    harness_mkdir(world.work);
    (void)snprintf(world.config, PATH_MAX, "%s/conf", apart_disk());
    (void)snprintf(world.state, PATH_MAX, "%s/state", apart_disk());
    (void)snprintf(world.run, PATH_MAX, "%s/run", harness_tmpfs());
    harness_mkdir(world.state);
    /* where no power loss reaches it: as good as a disk here */
    if (!real_disk)
        assert_int_equal(mount("rbxj-test", world.state, "tmpfs", 0, "mode=0700,size=64m"), 0);
    fresh_lost();
    harness_write(world.config, harness_format("[journal]\ndurability=%s\nmap_size=16M\npreallocate=1M\n"
                                               "[replay]\njobs=1\nbusy_retries=1\n",
                                               always ? "always" : "resource"));
    for (enum place p = 1; p < PLACES; p++) {
        const char *dir = model_places[p].kind == RBXJ_CGROUP                          ? group_path
                          : model_places[p].lost && model_places[p].kind != RBXJ_MOUNT ? world.lost
                                                                                       : world.work;
        (void)snprintf(world.paths[p], PATH_MAX, "%s/%s", dir, model_places[p].name);
        if (model_places[p].kind == RBXJ_MOUNT)
            harness_mkdir(world.paths[p]);
    }
    world.options = (struct rbxj_options){
        .state_dir = world.state, .runtime_dir = world.run, .config = world.config};
}

const struct rbxj_options *world_options(void)
{
    return &world.options;
}

const char *world_path(enum place p)
{
    return world.paths[p];
}

/* ---- looking ---- */

struct sight {
    uint64_t dev, ino, mount;
    uint32_t mode;
    int handle_type;
    uint64_t names;
    char handle[MAX_HANDLE_SZ];
};

static uint64_t hash_names(const char *path, const char *but)
{
    _cleanup_closedir_ DIR *dir = opendir(path);
    uint64_t sum = 0;
    for (struct dirent *d; dir && (d = readdir(dir));)
        if (d->d_type == DT_DIR ? strcmp(d->d_name, but) != 0 && d->d_name[0] != '.'
                                : strncmp(d->d_name, "cgroup.", 7) != 0)
            sum += XXH3_64bits(d->d_name, strlen(d->d_name));
    return sum;
}

uint64_t world_see(enum place p)
{
    union {
        struct file_handle h;
        char space[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    } u = {.h.handle_bytes = MAX_HANDLE_SZ};
    const char *path = world.paths[p];
    struct sight s;
    struct statx sx;
    int mount_id;
    memset(&s, 0, sizeof(s));
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_MNT_ID, &sx) < 0)
        return 0;
    bool root = sx.stx_attributes & STATX_ATTR_MOUNT_ROOT;
    if (model_places[p].kind == RBXJ_MOUNT && !root)
        return 0;
    s.dev = (uint64_t)sx.stx_dev_major << 32 | sx.stx_dev_minor;
    s.ino = sx.stx_ino;
    s.mode = sx.stx_mode;
    s.mount = root ? sx.stx_mnt_id : 0;
    if (name_to_handle_at(AT_FDCWD, path, &u.h, &mount_id, 0) == 0) {
        s.handle_type = u.h.handle_type;
        memcpy(s.handle, u.h.f_handle, u.h.handle_bytes);
    }
    if (S_ISDIR(sx.stx_mode) && model_places[p].kind == RBXJ_TMPDIR)
        s.names = hash_names(path, "in");
    return XXH3_64bits(&s, sizeof(s)) | 1;
}

bool world_content_is(enum place p, uint64_t content, uint64_t incarnation, uint32_t seq)
{
    char text[512], wanted[64] = "";
    _cleanup_close_ int fd = open(world.paths[p], O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n < 0)
        return false;
    text[n] = 0;
    if (incarnation) {
        (void)snprintf(wanted, sizeof(wanted), "{\"rbxj\":\"%" PRIu64 ":%u\"", incarnation, seq);
        return strncmp(text, wanted, strlen(wanted)) == 0;
    }
    if (content)
        (void)snprintf(wanted, sizeof(wanted), "kept %" PRIu64 "\n", content);
    return strcmp(text, wanted) == 0;
}

void world_keep(enum place p)
{
    int fd = open_tree(AT_FDCWD, world.paths[p], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (fd >= 0 && world.kept_len < MAX_THINGS)
        world.kept[world.kept_len++] = fd;
}

void world_look(void)
{
    _cleanup_fclose_ FILE *f = fopen("/proc/self/mountinfo", "re");
    char line[4096], target[PATH_MAX];
    memset(world.mounts, 0, sizeof(world.mounts));
    while (f && fgets(line, sizeof(line), f))
        if ((strstr(line, world.work) || strstr(line, world.lost)) &&
            sscanf(line, "%*s %*s %*s %*s %4095s", target) == 1)
            for (enum place p = 1; p < PLACES; p++)
                world.mounts[p] += strcmp(target, world.paths[p]) == 0;
}

int world_mounts(enum place p)
{
    return world.mounts[p];
}

static bool is_place(const char *dir, const char *name)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    for (enum place p = 1; p < PLACES; p++)
        if (strcmp(world.paths[p], path) == 0)
            return true;
    return false;
}

const char *world_stray(void)
{
    const char *const dirs[] = {world.work, world.lost, group_path};
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        _cleanup_closedir_ DIR *dir = opendir(dirs[i]);
        for (struct dirent *d; dir && (d = readdir(dir));)
            if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0 &&
                !is_place(dirs[i], d->d_name) && (dirs[i] != group_path || d->d_type == DT_DIR))
                return harness_format("%s/%s", dirs[i], d->d_name);
    }
    return NULL;
}

bool world_is_dead(pid_t pid)
{
    char path[64], text[512], state = 'X';
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = 0;
    const char *end = strrchr(text, ')');
    return !end || sscanf(end, ") %c", &state) != 1 || state == 'Z' || state == 'X';
}

/* ---- acting ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

bool world_remove(enum place p)
{
    const char *path = world.paths[p];
    char child[PATH_MAX + 4];
    struct statx sx;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &sx) < 0)
        return false;
    if (sx.stx_attributes & STATX_ATTR_MOUNT_ROOT)
        return umount2(path, UMOUNT_NOFOLLOW) == 0;
    if (model_places[p].kind == RBXJ_LOCK)
        return unlink(path) == 0;
    if (model_places[p].kind == RBXJ_TMPDIR)
        return nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) == 0;
    (void)snprintf(child, sizeof(child), "%s/in", path);
    (void)rmdir(child);
    return rmdir(path) == 0;
}

static bool write_file(const char *path, const char *text)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

bool world_add_stranger(enum place p, int id, bool over)
{
    const char *path = world.paths[p];
    char child[PATH_MAX + 16], text[32];
    (void)snprintf(text, sizeof(text), "kept %d\n", id);
    if (over || model_places[p].kind == RBXJ_MOUNT)
        return mount(STRANGER, path, "tmpfs", 0, "size=1m") == 0;
    if (model_places[p].kind == RBXJ_LOCK)
        return write_file(path, text);
    bool group = model_places[p].kind == RBXJ_CGROUP;
    (void)snprintf(child, sizeof(child), "%s/%s", path, group ? "in" : "precious");
    return mkdir(path, 0755) == 0 && (group ? mkdir(child, 0755) == 0 : write_file(child, text));
}

bool world_scribble(enum place p, int id)
{
    const char *text = harness_format("kept %d\n", id);
    _cleanup_close_ int fd = open(world.paths[p], O_WRONLY | O_TRUNC | O_NOFOLLOW | O_CLOEXEC);
    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

bool world_hold(enum place p, int id)
{
    int ready[2];
    char byte = 0;
    if (world.holders_len == (int)ARRAY_LEN(world.holders) || pipe2(ready, O_CLOEXEC) < 0)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = open(world.paths[p], O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || write(ready[1], "r", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    (void)close(ready[1]);
    ssize_t n = read(ready[0], &byte, 1);
    (void)close(ready[0]);
    world.holders[world.holders_len].id = id;
    world.holders[world.holders_len++].pid = pid;
    return n == 1;
}

void world_let_go(int id)
{
    for (int i = world.holders_len; i-- > 0;)
        if (id == 0 || world.holders[i].id == id) {
            (void)kill(world.holders[i].pid, SIGKILL);
            (void)waitpid(world.holders[i].pid, NULL, 0);
            world.holders[i] = world.holders[--world.holders_len];
        }
}

/* ---- the next boot ---- */

static void kill_group(const char *path)
{
    char procs[PATH_MAX + 16];
    int pid;
    (void)snprintf(procs, sizeof(procs), "%s/cgroup.procs", path);
    for (int round = 0; round < 1000 && path_exists(path); round++) {
        _cleanup_fclose_ FILE *f = fopen(procs, "re");
        while (f && fscanf(f, "%d", &pid) == 1)
            (void)kill(pid, SIGKILL);
        (void)rmdir(harness_format("%s/in", path));
        if (rmdir(path) == 0)
            return;
        (void)usleep(2000);
    }
}

void world_note(pid_t pid)
{
    world.noted[world.noted_len++] = pid;
}

void world_end(void)
{
    for (int i = 0; i < SUPERVISORS; i++)
        supervisor_kill(i);
    world_let_go(0);
    while (world.noted_len > 0) { /* now that its parent is dead it is ours */
        pid_t pid = world.noted[--world.noted_len];
        if (waitpid(pid, NULL, WNOHANG) == 0 && kill(pid, SIGKILL) == 0)
            (void)waitpid(pid, NULL, 0);
    }
}

/* What lives in memory is gone, and all processes. */
void world_power_loss(void)
{
    world_end();
    for (enum place p = 1; p < PLACES; p++)
        if (model_places[p].kind == RBXJ_CGROUP)
            kill_group(world.paths[p]);
    for (bool any = true; any;) { /* what is hidden now comes in the next round */
        any = false;
        world_look();
        for (enum place p = PLACES; p-- > 1;)
            for (int i = 0; i < world.mounts[p]; i++)
                any = umount2(world.paths[p], MNT_DETACH) == 0 || any;
    }
    assert_int_equal(umount2(harness_tmpfs(), MNT_DETACH), 0);
    boot_next();
    fresh_lost();
}
