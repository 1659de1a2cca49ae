/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "harness.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_KEPT 4096
#define MAX_CHILDREN 1024
#define MAX_HIERARCHIES 32

/* Everything that is made outside of the private mount namespace bears this name: rbxj-test-<pid>-... */
static char prefix[32];
static char base[PATH_MAX]; /* the scratch directory of this program; empty: none */
static bool private_mounts;
static char disk[PATH_MAX + 8], tmpfs[PATH_MAX + 8];
static bool tmpfs_mounted;

static char *kept[MAX_KEPT]; /* strings that live until the end of the test */
static size_t kept_len;
static pid_t children[MAX_CHILDREN];
static size_t children_len;
static unsigned int cgroups_made;

static struct hierarchy {
    char *root;
    char *controllers; /* ",cpu,cpuacct," of a v1 hierarchy; NULL: cgroup2 */
} hierarchies[MAX_HIERARCHIES];
static size_t hierarchies_len;

/* What a test printed must not be lost in a buffer when a sanitizer ends the program. */
__attribute__((constructor)) static void line_buffer(void)
{
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
}

/* ---- strings and files ---- */

static char *keep(char *string)
{
    assert_non_null(string);
    assert_true(kept_len < MAX_KEPT);
    kept[kept_len++] = string;
    return string;
}

char *harness_format(const char *format, ...)
{
    char *string = NULL;
    va_list args;

    va_start(args, format);
    int n = vasprintf(&string, format, args);
    va_end(args);
    assert_true(n >= 0);
    return keep(string);
}

bool path_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

void harness_mkdir(const char *path)
{
    if (mkdir(path, 0700) < 0)
        fail_msg("mkdir %s: %s", path, strerror(errno));
}

void harness_write(const char *path, const char *text)
{
    size_t len = strlen(text);
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, text, len) != (ssize_t)len)
        fail_msg("write %s: %s", path, strerror(errno));
}

/* Kernel files have no size: read until the end. NULL with errno set when it can't be read. */
static char *read_file(const char *path)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    _cleanup_free_ char *text = NULL;
    size_t len = 0, room = 0;
    ssize_t n;

    if (fd < 0)
        return NULL;
    do {
        if (room - len < 4096) {
            room = room * 2 + 8192;
            char *larger = realloc(text, room);
            if (!larger)
                return NULL;
            text = larger;
        }
        n = read(fd, text + len, room - len - 1);
        if (n < 0)
            return NULL;
        len += (size_t)n;
    } while (n > 0);
    text[len] = '\0';
    return steal_ptr(text);
}

char *harness_read(const char *path)
{
    char *text = read_file(path);

    if (!text)
        fail_msg("read %s: %s", path, strerror(errno));
    return keep(text);
}

/* For removals: what can't be written is somebody else's turn to notice. */
static void try_write(const char *dir, const char *name, const char *text)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
        return;
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, text, strlen(text)) < 0)
        return;
}

static void run_quietly(const char *const argv[])
{
    posix_spawn_file_actions_t actions;
    pid_t pid;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    if (posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)argv, environ) == 0)
        (void)waitpid(pid, NULL, 0);
    posix_spawn_file_actions_destroy(&actions);
}

/* coreutils' rm removes any depth, follows nothing, and stays on the file system. */
static int remove_tree(const char *dir)
{
    const char *const rm[] = {"rm", "-rf", "--one-file-system", "--", dir, NULL};
    const char *const chattr[] = {"chattr", "-R", "-f", "-i", "-a", dir, NULL};

    if (rmdir(dir) == 0)
        return 0;
    run_quietly(rm);
    if (path_exists(dir)) {
        run_quietly(chattr);
        run_quietly(rm);
    }
    return path_exists(dir) ? -1 : 0;
}

/* ---- mounts ---- */

static bool is_below(const char *path, const char *dir)
{
    size_t len = strlen(dir);
    return strncmp(path, dir, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

/* \040 and its like in mountinfo, in place. */
static void unescape(char *text)
{
    char *out = text;

    for (const char *in = text; *in; in++) {
        if (in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] && in[3]) {
            *out++ = (char)((in[1] - '0') * 64 + (in[2] - '0') * 8 + (in[3] - '0'));
            in += 3;
        } else {
            *out++ = *in;
        }
    }
    *out = '\0';
}

/* Counts the mounts at or below dir; up to max of their targets go to ret. */
static size_t mounts_below(const char *dir, char **ret, size_t max)
{
    _cleanup_free_ char *text = read_file("/proc/self/mountinfo");
    size_t n = 0;
    char *rest;

    for (char *line = text ? strtok_r(text, "\n", &rest) : NULL; line; line = strtok_r(NULL, "\n", &rest)) {
        char *fields, *target = strtok_r(line, " ", &fields);
        for (int i = 0; i < 4 && target; i++)
            target = strtok_r(NULL, " ", &fields);
        if (!target)
            continue;
        unescape(target);
        if (!is_below(target, dir))
            continue;
        if (n < max)
            ret[n] = strdup(target);
        n++;
    }
    return n;
}

size_t harness_mounts_below(const char *dir)
{
    return mounts_below(dir, NULL, 0);
}

/* The youngest of them that can be: one that is covered can't be reached before what covers it is gone. */
static bool unmount_one(const char *dir)
{
    char *targets[MAX_KEPT];
    size_t n = mounts_below(dir, targets, MAX_KEPT);
    n = n < MAX_KEPT ? n : MAX_KEPT;
    bool done = false;

    for (size_t i = n; i-- > 0; free(targets[i]))
        done = done || umount2(targets[i], MNT_DETACH | UMOUNT_NOFOLLOW) == 0;
    return done;
}

/* Only ever in our own namespace. */
static int unmount_below(const char *dir)
{
    if (!private_mounts || !*dir)
        return 0;
    for (int round = 0; round < 20000 && harness_mounts_below(dir) > 0; round++)
        if (!unmount_one(dir))
            return -1;
    return harness_mounts_below(dir) > 0 ? -1 : 0;
}

/* ---- cgroups ---- */

static void find_hierarchies(void)
{
    _cleanup_free_ char *text = read_file("/proc/self/mountinfo");
    char *rest;

    for (char *line = text ? strtok_r(text, "\n", &rest) : NULL; line; line = strtok_r(NULL, "\n", &rest)) {
        char root[PATH_MAX], type[32], options[256];
        if (hierarchies_len == MAX_HIERARCHIES ||
            sscanf(line, "%*s %*s %*s / %4095s %*[^-]- %31s %*s %255s", root, type, options) != 3)
            continue;
        struct hierarchy h = {0};
        if (strcmp(type, "cgroup") == 0)
            assert_true(asprintf(&h.controllers, ",%s,", options) > 0);
        else if (strcmp(type, "cgroup2") != 0)
            continue;
        h.root = strdup(root);
        assert_non_null(h.root);
        hierarchies[hierarchies_len++] = h;
    }
}

const char *harness_cgroup_root(const char *controller)
{
    for (size_t i = 0; i < hierarchies_len; i++) {
        const struct hierarchy *h = &hierarchies[i];
        if (!controller && !h->controllers)
            return h->root;
        if (controller && h->controllers && strstr(h->controllers, harness_format(",%s,", controller)))
            return h->root;
    }
    return NULL;
}

static const char *make_cgroup(const char *controller)
{
    harness_need_root();
    const char *root = harness_cgroup_root(controller);
    if (!root)
        harness_skip("no cgroup hierarchy with %s", controller ? controller : "cgroup2");
    const char *path = harness_format("%s/%s%u", root, prefix, cgroups_made++);
    if (mkdir(path, 0755) < 0 && (errno == EROFS || errno == EACCES || errno == EPERM))
        harness_skip("%s can't be written here", root);
    if (!path_exists(path))
        fail_msg("mkdir %s: %s", path, strerror(errno));
    return path;
}

const char *harness_cgroup(void)
{
    return make_cgroup(NULL);
}

const char *harness_cgroup_v1(const char *controller)
{
    return make_cgroup(controller);
}

/* Calls act on dir and everything below it, deepest first. */
static void each_cgroup(const char *dir, void (*act)(const char *dir))
{
    _cleanup_closedir_ DIR *d = opendir(dir);
    const struct dirent *entry;

    while (d && (entry = readdir(d))) {
        char path[PATH_MAX];
        if (entry->d_type == DT_DIR && strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name) < (int)sizeof(path))
            each_cgroup(path, act);
    }
    act(dir);
}

/* A test may have moved itself in: it leaves before everybody else in there is killed. */
static void leave_cgroup(const char *dir)
{
    char path[PATH_MAX];
    char *rest;

    if (snprintf(path, sizeof(path), "%s/cgroup.procs", dir) >= (int)sizeof(path))
        return;
    _cleanup_free_ char *procs = read_file(path);
    for (char *pid = procs ? strtok_r(procs, "\n", &rest) : NULL; pid; pid = strtok_r(NULL, "\n", &rest)) {
        for (size_t i = 0; atoi(pid) == getpid() && i < hierarchies_len; i++)
            if (is_below(dir, hierarchies[i].root))
                try_write(hierarchies[i].root, "cgroup.procs", "0");
    }
}

static void kill_cgroup(const char *dir)
{
    char path[PATH_MAX];
    char *rest;

    try_write(dir, "cgroup.kill", "1");
    try_write(dir, "freezer.state", "THAWED"); /* v1: a frozen process does not die */
    if (snprintf(path, sizeof(path), "%s/cgroup.procs", dir) >= (int)sizeof(path))
        return;
    _cleanup_free_ char *procs = read_file(path);
    for (char *pid = procs ? strtok_r(procs, "\n", &rest) : NULL; pid; pid = strtok_r(NULL, "\n", &rest))
        if (atoi(pid) > 1 && atoi(pid) != getpid())
            (void)kill(atoi(pid), SIGKILL);
    (void)rmdir(dir);
}

static int remove_cgroup(const char *dir)
{
    each_cgroup(dir, leave_cgroup);
    for (int round = 0; path_exists(dir) && round < 1000; round++) {
        if (round > 0)
            (void)usleep(5000);
        each_cgroup(dir, kill_cgroup);
    }
    return path_exists(dir) ? -1 : 0;
}

/* All of this program's cgroups, also those that a test made beside the harness under its prefix. */
static int remove_cgroups(void)
{
    int r = 0;

    for (size_t i = 0; i < hierarchies_len; i++) {
        _cleanup_closedir_ DIR *d = opendir(hierarchies[i].root);
        const struct dirent *entry;
        while (d && (entry = readdir(d))) {
            char path[PATH_MAX];
            if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 &&
                snprintf(path, sizeof(path), "%s/%s", hierarchies[i].root, entry->d_name) <
                    (int)sizeof(path) &&
                remove_cgroup(path) < 0)
                r = -1;
        }
    }
    return r;
}

/* ---- processes ---- */

void harness_track(pid_t pid)
{
    assert_true(pid > 0 && children_len < MAX_CHILDREN);
    children[children_len++] = pid;
}

int harness_wait(pid_t pid)
{
    int status = -1;

    for (size_t i = 0; i < children_len; i++) {
        if (children[i] != pid)
            continue;
        children[i] = children[--children_len];
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        return status;
    }
    fail_msg("process %d is not tracked", pid);
    return -1;
}

void harness_kill(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    (void)harness_wait(pid);
}

pid_t harness_spawn(const char *cgroup)
{
    pid_t parent = getpid(), pid = fork();

    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close_range(3, ~0U, 0);
        while (getppid() == parent)
            pause();
        _exit(0);
    }
    assert_true(pid > 0);
    harness_track(pid);
    if (cgroup)
        harness_write(harness_format("%s/cgroup.procs", cgroup), harness_format("%d", pid));
    return pid;
}

/* A tracked child may have been reaped by the test; its number may then be somebody else's. */
/* All first: one may wait for another (for a file system that it serves) and die only after it. */
static void kill_children(void)
{
    for (size_t i = 0; i < children_len; i++) {
        siginfo_t info;
        if (waitid(P_PID, (id_t)children[i], &info, WEXITED | WNOHANG | WNOWAIT) < 0)
            continue; /* the test has reaped it itself: the number may be somebody else's */
        (void)kill(children[i], SIGKILL);
        (void)kill(children[i], SIGCONT);
    }
    while (children_len > 0) {
        pid_t pid = children[--children_len];
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
}

/* ---- skipping ---- */

void harness_skip(const char *format, ...)
{
    char reason[256];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(reason, sizeof(reason), format, args);
    va_end(args);
    printf("skip: %s\n", reason);
    skip();
}

void harness_need_root(void)
{
    if (geteuid() != 0)
        harness_skip("needs root");
    if (!private_mounts)
        harness_skip("needs a mount namespace of its own (CAP_SYS_ADMIN)");
}

const char *harness_disk(void)
{
    return disk;
}

const char *harness_tmpfs(void)
{
    harness_need_root();
    if (!tmpfs_mounted)
        harness_skip("no tmpfs can be mounted here");
    return tmpfs;
}

/* ---- fixtures ---- */

/* Stays outside of the private namespace, whose mounts vanish with its last process, and is nobody's child.
 */
static void start_guardian(void)
{
    pid_t program = getpid(), pid = fork();

    if (pid > 0)
        (void)waitpid(pid, NULL, 0);
    if (pid != 0)
        return;
    int pidfd = (int)syscall(SYS_pidfd_open, program, 0);
    if (pidfd < 0 || fork() != 0)
        _exit(0);
    (void)setsid();
    struct pollfd wait_for = {.fd = dup2(pidfd, 3), .events = POLLIN};
    (void)close_range(0, 2, 0);
    (void)close_range(4, ~0U, 0);
    (void)open("/dev/null", O_RDWR);
    (void)dup2(0, 1);
    (void)dup2(0, 2);
    while (poll(&wait_for, 1, -1) < 0 && errno == EINTR)
        ;
    (void)remove_cgroups();
    /* A mount of the namespace goes with its last process, which may take a moment: rmdir says EBUSY until
     * then. */
    for (int round = 0; round < 200 && remove_tree(base) < 0; round++)
        (void)usleep(20000);
    _exit(0);
}

/* The first process of the namespace: waits for the program, and for what it leaves. All that is still there ends with it. */
static _Noreturn void be_first(pid_t program, int *ret_status)
{
    int status;
    pid_t pid;

    (void)close_range(0, ~0U, 0);
    do
        pid = waitpid(-1, &status, 0);
    while (pid != program && (pid > 0 || errno == EINTR));
    if (pid == program)
        *ret_status = status;
    _exit(0);
}

/* What was started: comes to the same end as the program. */
static _Noreturn void stay_behind(pid_t first, const int *status)
{
    while (waitpid(first, NULL, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(*status)) {
        (void)prctl(PR_SET_DUMPABLE, 0);
        (void)signal(WTERMSIG(*status), SIG_DFL);
        (void)raise(WTERMSIG(*status));
    }
    _exit(WEXITSTATUS(*status));
}

/* The program goes on with mounts and a process table of its own: what the product finds in /proc does not depend on
 * what else runs here, and pid 1, whose view of a directory counts (K10), has the mounts that the tests make: on a
 * tmpfs of theirs nothing could be journaled where the machine's pid 1 can be looked into. */
static bool go_apart(void)
{
    int *status = mmap(NULL, sizeof(*status), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (status == MAP_FAILED || unshare(CLONE_NEWNS | CLONE_NEWPID) < 0)
        return false;
    *status = 125 << 8; /* until it is known */
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid > 0)
        stay_behind(pid, status);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    bool apart = pid == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                 mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0;
    if (pid == 0 && (pid = fork()) > 0)
        be_first(pid, status);
    return apart && pid == 0;
}

int harness_group_setup(void **state)
{
    (void)state;
    (void)snprintf(prefix, sizeof(prefix), "rbxj-test-%d-", getpid());
    (void)snprintf(base, sizeof(base), "/var/tmp/%sXXXXXX", prefix);
    if (!mkdtemp(base)) {
        fprintf(stderr, "mkdtemp %s: %s\n", base, strerror(errno));
        return -1;
    }
    find_hierarchies();
    start_guardian();
    private_mounts = geteuid() == 0 && go_apart();
    return 0;
}

int harness_setup(void **state)
{
    (void)state;
    (void)snprintf(disk, sizeof(disk), "%s/disk", base);
    (void)snprintf(tmpfs, sizeof(tmpfs), "%s/tmpfs", base);
    if (mkdir(disk, 0700) < 0 || mkdir(tmpfs, 0700) < 0) {
        fprintf(stderr, "mkdir %s: %s\n", base, strerror(errno));
        return -1;
    }
    tmpfs_mounted = private_mounts &&
                    mount("rbxj-test", tmpfs, "tmpfs", MS_NOSUID, "mode=0700,size=256m") == 0;
    return 0;
}

/* In this order: what a cgroup has frozen dies when it thaws, and processes hold mounts and directories. */
int harness_teardown(void **state)
{
    (void)state;
    int r = remove_cgroups();
    kill_children();
    r |= unmount_below(base);
    r |= remove_tree(disk);
    r |= remove_tree(tmpfs);
    while (kept_len > 0)
        free(kept[--kept_len]);
    if (r < 0)
        fprintf(stderr, "something is left in %s or of %s\n", base, prefix);
    return r;
}

int harness_group_teardown(void **state)
{
    int r = harness_teardown(state);

    while (hierarchies_len > 0) {
        struct hierarchy *h = &hierarchies[--hierarchies_len];
        free(h->root);
        free(h->controllers);
    }
    return r | remove_tree(base);
}
