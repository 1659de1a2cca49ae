/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "harness.h"
#include "harness_parts.h"

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

char harness_prefix[32];
static char base[PATH_MAX]; /* the scratch directory of this program; empty: none */
static bool private_mounts;
static char disk[PATH_MAX + 8], tmpfs[PATH_MAX + 8];
static bool tmpfs_mounted;

static char *kept[MAX_KEPT]; /* strings that live until the end of the test */
static size_t kept_len;
static pid_t children[MAX_CHILDREN];
static size_t children_len;

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

char *harness_read_file(const char *path)
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
    char *text = harness_read_file(path);

    if (!text)
        fail_msg("read %s: %s", path, strerror(errno));
    return keep(text);
}

void harness_try_write(const char *dir, const char *name, const char *text)
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

/* Stays outside of the private namespace, whose mounts vanish with its last process, and is nobody's
 * child. */
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
    (void)harness_remove_cgroups();
    /* A mount of the namespace goes with its last process, which may take a moment: rmdir says EBUSY until
     * then. */
    for (int round = 0; round < 200 && remove_tree(base) < 0; round++)
        (void)usleep(20000);
    _exit(0);
}

/* The first process of the namespace: waits for the program, and for what it leaves. All that is still there
 * ends with it. */
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

/* The program goes on with mounts and a process table of its own: what the product finds in /proc does not
 * depend on what else runs here, and pid 1, whose view of a directory counts (K10), has the mounts that the
 * tests make: on a tmpfs of theirs nothing could be journaled where the machine's pid 1 can be looked
 * into. */
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
    (void)snprintf(harness_prefix, sizeof(harness_prefix), "rbxj-test-%d-", getpid());
    (void)snprintf(base, sizeof(base), "/var/tmp/%sXXXXXX", harness_prefix);
    if (!mkdtemp(base)) {
        fprintf(stderr, "mkdtemp %s: %s\n", base, strerror(errno));
        return -1;
    }
    harness_find_hierarchies();
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
    int r = harness_remove_cgroups();
    kill_children();
    r |= private_mounts ? harness_unmount_below(base) : 0; /* only ever in our own namespace */
    r |= remove_tree(disk);
    r |= remove_tree(tmpfs);
    while (kept_len > 0)
        free(kept[--kept_len]);
    if (r < 0)
        fprintf(stderr, "something is left in %s or of %s\n", base, harness_prefix);
    return r;
}

int harness_group_teardown(void **state)
{
    int r = harness_teardown(state);

    harness_forget_hierarchies();
    return r | remove_tree(base);
}
